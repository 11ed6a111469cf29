"""Model cards: their content, and that every number is that of its JSON file."""

import copy
import json
import re
import runpy
import shutil
import sys
from pathlib import Path

import pytest
from huggingface_hub import EvalResult, ModelCard
from huggingface_hub.repocard_data import ModelCardData
from typer.testing import CliRunner

from elmo_hf.cli import app
from elmo_hf.hub.card import check_card, read_facts, render_card
from elmo_hf.loading import describe_model
from tests.helpers.card_folders import FACTS, RESULTS, RUN, save_checkpoint, write
from tests.helpers.hub_folders import edit
from tests.helpers.paths import REPOSITORY

CARDS = REPOSITORY / "hub_cards"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint") / "elmo-test")


@pytest.fixture
def run(checkpoint):
    return RUN | {"model": describe_model(checkpoint)}


@pytest.fixture
def card(tmp_path, run):
    """A folder of a card only, as in hub_cards."""
    return write(tmp_path / "card", results=RESULTS | {"run": run})


# ---- the cards of this repository


@pytest.mark.parametrize(
    "folder", sorted(path.parent for path in CARDS.glob("*/facts.yaml")), ids=lambda f: f.name
)
def test_a_committed_card_is_up_to_date(folder):
    readme = folder / "README.md"
    facts = read_facts(folder / "facts.yaml")
    assert facts["name"] == folder.name
    if not readme.exists():  # an untrained model: something is missing
        with pytest.raises(ValueError, match=r"lacks|no config"):
            render_card(folder)
        return
    text = readme.read_text(encoding="utf-8")
    assert text == render_card(folder), "python hub_cards/render.py"
    parsed = check_card(text, folder.name)
    assert isinstance(parsed.data, ModelCardData)
    assert parsed.data.model_name == facts["name"]
    assert all(isinstance(one, EvalResult) for one in parsed.data.eval_results)
    for link in re.findall(r"\]\((results/[^)]+)\)", text):
        assert (folder / link).is_file()


def test_all_cards_are_rendered_by_one_command(tmp_path, run, monkeypatch, capsys):
    script = Path(shutil.copy(CARDS / "render.py", tmp_path))
    write(tmp_path / "one", results=RESULTS | {"run": run})
    write(tmp_path / "untrained", results={})

    def render(*options):
        monkeypatch.setattr(sys, "argv", ["render.py", *options])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(script), run_name="__main__")
        printed = capsys.readouterr()
        return end.value.code, [*printed.out.splitlines(), *printed.err.splitlines()]

    untrained = "untrained: no results yet, so it has no card."
    assert render("--check") == (1, [untrained, "Out of date: one"])
    assert not (tmp_path / "one" / "README.md").exists()
    assert render() == (0, [untrained, "Written: one"])
    assert (tmp_path / "one" / "README.md").read_text(encoding="utf-8") == render_card(tmp_path / "one")
    assert not (tmp_path / "untrained" / "README.md").exists()
    assert render("--check") == (0, [untrained, "Out of date: nothing"])
    write(tmp_path / "one", facts=FACTS | {"title": "Another"}, results={})
    assert render("--check") == (1, [untrained, "Out of date: one"])
    (tmp_path / "one" / "results" / "perplexity.json").unlink()
    code, lines = render()
    assert code == 1
    assert lines[0].startswith("render.py: the card lacks results/perplexity.json")


# ---- the content of a card


def test_a_card_parses_and_its_index_holds_the_perplexities(card):
    data = ModelCard(render_card(card)).data
    assert data.license == "apache-2.0"
    assert data.language == ["en", "la"]
    assert data.library_name == "transformers"
    assert data.model_name == "elmo-test"
    found = {
        (one.dataset_name, one.metric_name.split(", ")[1]): one.metric_value for one in data.eval_results
    }
    assert found == {
        ("valid.books", "mean"): 111.5,
        ("valid.books", "forward"): 110.0,
        ("valid.books", "backward"): 113.25,
        ("valid.wiki", "mean"): 222.25,
        ("valid.wiki", "forward"): 220.75,
        ("valid.wiki", "backward"): 224.0,
    }
    assert all("zero states, full softmax" in one.metric_name for one in data.eval_results)


@pytest.mark.parametrize(
    "row",
    [
        "| valid.books | this model | zero | 110.0 | 113.2 | 111.5 | 111.6 | 111,500 | 1.11% |",
        "| valid.books | 5-gram, Kneser-Ney | zero | 154.2 | 157.5 | 155.8 | 155.9 | 155,750 | 1.56% |",
        "| valid.wiki | this model | zero | 220.8 | 224.0 | 222.2 | 222.4 | 222,250 | 2.22% |",
        "| name | parameters | words/s | perplexity |",
        "| 512/64 | 1,234,567 | 4,321 | 177.5 |",
        "| word senses, F1 | all | senseval2 |",
        "| first sense | 61.00 | – |",
        "| trained, layer 0 | 50.00 | 50.25 |",
        "| tags, accuracy on test | xpos |",
        "| look-up | 86.00 |",
        "| domain | before | after | factor |",
        "| law | 411.5 | 311.5 | 1.321 |",
        "The paper's factors are between 1.7 and 4.3 (its Table 7).",
        "| learning rate | 0.21 |",
        "| valid.books | zero | 132.0 | 135.2 | 133.5 | 133.6 | 133,500 | 1.33% |",
        "| LSTM cells, a direction | 16 |",
        "| filters over characters | 4 of width 1, 8 of width 2 |",
        "| of them in the softmax | 81 |",  # 9 words, 8 weights and a bias
        "Each was trained for 0.25 minutes.",
        "shapes",
        "- It is not trained.",
        "- Made-up text (public domain): Sentences by a grammar.",
        "This model is by A. Nobody, B. Nobody.",
        "accelerate launch training/pretrain.py --data books.txt",
    ],
)
def test_lines_of_a_card(card, row):
    assert row in render_card(card).split("\n")


def test_the_run_in_sentences(card):
    text = " ".join(render_card(card).split())
    assert (
        "7,654,123 words, a direction, in 1,017 updates (1.270 readings of the text), in 3.190 hours" in text
    )
    assert "work on EPYC, 2 cores: 4,117 words a second." in text
    assert "stopped and resumed 2 times" in text
    assert "ended before" not in text


def test_a_run_that_did_not_know_the_size_of_its_text(card):
    """Less than one reading, and nobody knows how much less."""
    edit(card / "results" / "run.json", epochs=0)
    text = " ".join(render_card(card).split())
    assert "7,654,123 words, a direction, in 1,017 updates, in 3.190 hours of work" in text
    assert "readings of the text" not in text


def test_every_number_of_the_results_reaches_the_card(card):
    """Another number in a JSON file gives another card."""
    before, unseen = render_card(card), []
    for name, content in (RESULTS | {"run": RUN}).items():
        path = card / "results" / f"{name}.json"
        original = json.loads(path.read_text(encoding="utf-8"))
        for place in [place for place in numbers_in(content) if place != ("schema",)]:
            changed = copy.deepcopy(original)
            part = changed
            for key in place[:-1]:
                part = part[key]
            part[place[-1]] = 3 * part[place[-1]] + 1
            path.write_text(json.dumps(changed), encoding="utf-8")
            if render_card(card) == before:
                unseen.append(".".join(map(str, (name, *place))))
        path.write_text(json.dumps(original), encoding="utf-8")
    # A perplexity's `sentences` has no column; in the cell of a table it is the mean of both directions.
    hidden = re.compile(r".*\.sentences|(domain|shapes)\.rows\.\d\.(before|after|perplexity)\.(?!mean)\w+")
    assert [name for name in unseen if not hidden.fullmatch(name)] == []


def numbers_in(content, place=()):
    if isinstance(content, dict | list):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from numbers_in(value, (*place, key))
    elif isinstance(content, int | float) and not isinstance(content, bool):
        yield place


def test_the_python_lines_of_a_card_work(card, checkpoint, monkeypatch):
    """With the folder in place of the name on the Hub."""
    blocks = re.findall(r"^```python\n(.*?)^```", render_card(card, repo=str(checkpoint)), re.M | re.S)
    names: dict = {}
    for block in blocks:
        exec(compile(block, "card", "exec"), names)
    assert len(blocks) == 1
    assert names["output"].last_hidden_state.shape == (2, 6, 16)
    assert len(names["output"].hidden_states) == 3


def test_the_commands_of_a_card_work(card, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("corpus.txt", "held-out.txt"):
        Path(name).write_text("He sat on the bank .\nHe sat .\n", encoding="utf-8")
    usage = render_card(card, repo=str(checkpoint)).split("## Data")[0]
    lines = [
        line
        for block in re.findall(r"^```shell\n(.*?)^```", usage, re.M | re.S)
        for line in block.splitlines()
    ]
    assert [line.split()[1] for line in lines] == ["vectors", "embed", "perplexity"]
    for line in lines:
        words = re.findall(r'"[^"]*"|\S+', line)[1:]
        result = CliRunner().invoke(app, [word.strip('"') for word in words])
        assert result.exit_code == 0, result.output


def test_the_command_says_in_one_sentence_what_is_wrong(tmp_path):
    result = CliRunner().invoke(app, ["card", str(tmp_path / "nowhere")])
    assert result.exit_code == 1
    assert result.stderr.startswith("elmo-hf: there is no folder")
    assert len(result.stderr.splitlines()) == 1
