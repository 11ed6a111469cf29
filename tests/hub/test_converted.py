"""From published files to the Hub: `elmo-hf convert`, facts that somebody fills in, `card` and `push`."""

import hashlib
import re

import pytest
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from elmo_hf.cli import app
from elmo_hf.hub.card import render_card
from tests.helpers.bilm_files import write_source
from tests.helpers.hub_folders import NAME
from tests.helpers.paths import REPOSITORY
from tests.helpers.reference import options

# What a person writes in place of each TODO of the facts, in their order.
ANSWERS = [
    "English, for a test.",
    "en",
    "apache-2.0",
    "Use it as you like.",
    "Made-up text",
    "public domain",
    "Sentences by a grammar.",
    "It is not trained.",
    "A. Nobody",
    "Their ELMo",
    "https://example.org/elmo",
    "C. Else",
    "CC BY 4.0",
]


def run(*arguments, code=0):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


@pytest.fixture
def source(tmp_path):
    return write_source(tmp_path / "published", options(), softmax=True)


@pytest.fixture
def converted(source, tmp_path):
    run("convert", source, tmp_path / "my-elmo")
    return tmp_path / "my-elmo"


def fill_in(folder):
    path = folder / "facts.yaml"
    text, answers = path.read_text(encoding="utf-8"), iter(ANSWERS)
    text = re.sub(r"(?<!every )TODO [^\n\]]*", lambda _: next(answers), text)
    path.write_text(text, encoding="utf-8")
    assert next(answers, None) is None


def test_a_converted_folder_has_no_card_until_its_facts_are_filled_in(converted):
    sentence = run("card", converted, code=1)
    assert "facts.yaml: 'summary' must have no placeholder such as 'TODO'" in sentence
    assert run("push", converted, NAME, "--dry-run", code=1) == sentence
    assert not (converted / "README.md").exists()


def test_a_converted_folder_with_facts_has_a_card_and_goes_to_the_hub(hub, source, converted):
    fill_in(converted)
    assert run("card", converted) == f"Wrote {converted / 'README.md'}.\n"
    text = (converted / "README.md").read_text(encoding="utf-8")
    for name in ("options.json", "weights.hdf5", "softmax.hdf5", "vocab.txt"):
        content = (source / name).read_bytes()
        assert f"| {name} | {len(content):,} | `{hashlib.sha256(content).hexdigest()}` |" in text
    assert "[Their ELMo](https://example.org/elmo) by C. Else" in text
    assert "writes the original HDF5 back" in text
    assert ModelCard(text).data.license == "apache-2.0"
    lines = run("push", converted, NAME, "--dry-run").splitlines()
    assert hub.requests == []
    names = {line.split()[1] for line in lines[:-1]}
    assert {"README.md", "facts.yaml", "model.safetensors", "results/source.json", "vocab.txt"} <= names
    assert lines[-1].endswith(f"bytes would be uploaded to {NAME}; nothing was sent.")


def test_the_command_on_the_card_converts_again(source, converted, tmp_path, monkeypatch):
    fill_in(converted)
    command = re.search(r"^elmo-hf (convert .*)$", render_card(converted), re.M)[1]
    (tmp_path / "again").mkdir()
    monkeypatch.chdir(source)
    (source / "my-elmo").mkdir()
    run(*command.split())
    for name in ("model.safetensors", "results/source.json"):
        assert (source / "my-elmo" / name).read_bytes() == (converted / name).read_bytes()


def test_no_hdf5_is_promised_that_there_was_none_of(converted):
    fill_in(converted)
    path = converted / "results" / "source.json"
    path.write_text(path.read_text(encoding="utf-8").replace(".hdf5", ".bin"), encoding="utf-8")
    text = render_card(converted)
    assert "No number was changed.\n" in text
    assert "HDF5" not in text


def test_the_readme_names_every_fact_of_a_conversion(converted):
    text = (REPOSITORY / "hub_cards" / "README.md").read_text(encoding="utf-8")
    facts = re.findall(r"^(\w+):", (converted / "facts.yaml").read_text(encoding="utf-8"), re.M)
    assert len(facts) == 11
    assert [name for name in facts if f"`{name}`" not in text] == []
