"""Facts and results that try to end what they stand in, to run, or never to end: refused, or harmless."""

import json
import os
import re

import pytest
import yaml
from huggingface_hub import ModelCard

from elmo_hf import ElmoConfig
from elmo_hf.errors import ElmoError
from elmo_hf.hub.card import check_card, labels, python_arguments, render_card, write_card
from elmo_hf.hub.reading import MAX_BYTES
from elmo_hf.hub.results import Result, with_results
from elmo_hf.loading import describe_model
from tests.helpers.card_folders import FACTS, RESULTS, RUN, perplexity, save_checkpoint, write

GOOD = yaml.safe_dump(FACTS, sort_keys=False)
SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint") / "elmo-test")


@pytest.fixture
def card(tmp_path, checkpoint):
    return write(tmp_path / "card", results=RESULTS | {"run": RUN | {"model": describe_model(checkpoint)}})


def model_of(**config):
    return {"config": config, "parameters": 1, "softmax_parameters": 1}


def refusal(folder):
    """The one sentence, short enough to read."""
    with pytest.raises((ValueError, OSError)) as error:
        write_card(folder)
    sentence = str(error.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert len(sentence) < 700
    assert not (folder / "README.md").exists()
    return sentence


def outside_of_code(text):
    """A card without its blocks of code."""
    return re.sub(r"^(`{3,})\w*\n.*?\n\1$", "", text, flags=re.M | re.S)


# ---- facts


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("A test", "!!python/object/apply:os.system ['touch CANARY']"),
        GOOD + "training_note: !!python/name:os.system\n",
        GOOD + "tags: &r [*r]\n",
        "[" * 20_000,
        GOOD + "---\na: 1\n",
        GOOD + "5: x\n",
        GOOD + "? [a]\n: x\n",
        GOOD + "title: Twice\n",
        GOOD + "<<: {tags: [a]}\n",
        GOOD.replace("A test", "!!str A test"),
        GOOD.replace("A test", "!!binary aGk="),
        GOOD.replace("A test", "&a A test"),
        GOOD.replace("A test", "on"),
        GOOD.replace("A test", "017"),
        GOOD.replace("A test", ".inf"),
        GOOD.replace("A test", "1" + "0" * 30_000),
        GOOD.replace("A test", "0b" + "1" * 30_000),
        GOOD.replace("A test", "1:" + "59:" * 25_000 + "1"),
        GOOD.replace("A test", "x" * 50_000),
        GOOD + "tags: " + "[" * 50 + "a" + "]" * 50 + "\n",
        GOOD + "example: __import__('os').system('touch CANARY')\n",
        GOOD + "example: \"'a', *open('CANARY', 'w')\"\n",
        GOOD + "example: " + "(" * 1_000 + "\n",
        GOOD + "example: \"'a')); print(('b'\"\n",
        GOOD.encode("utf-16").decode("latin-1"),
        GOOD.replace("A test", "0x" + "f" * 10_000),
        GOOD.replace("A test", "1:" + "59:" * 5_000 + "1"),
        GOOD + "usage: [" + "x, " * MAX_BYTES + "]\n",
        GOOD
        + "tags:\n- &a [l, l, l, l, l, l, l, l]\n"
        + "".join(
            f"- &{new} [{', '.join(['*' + old] * 8)}]\n"
            for old, new in zip("abcdefg", "bcdefgh", strict=True)
        ),
    ],
)
def test_facts_that_are_refused(card, text, monkeypatch):
    monkeypatch.chdir(card)
    (card / "facts.yaml").write_text(text, encoding="utf-8")
    assert "facts.yaml" in refusal(card)
    assert not (card / "CANARY").exists()


def test_facts_in_a_pipe(card):
    (card / "facts.yaml").unlink()
    os.mkfifo(card / "facts.yaml")
    assert "facts.yaml is not a file" in refusal(card)


def test_facts_stay_where_they_stand(card):
    source = f"{SCRIPT}\n---\n# Other\n---\n`"
    plain = dict.fromkeys(("title", "summary", "licence_note", "training_note", "usage", "citation"), source)
    entry = {"name": f"[a](b) {source}", "licence": source, "description": source}
    lists = {"limits": [source], "authors": [source], "data": [entry], "languages": ["en\n---\nlicense: x"]}
    ids = {
        "name": 'a"\n---\nlicense: evil',
        "licence": "mit\n---\n# other\n---",
        "repo": 'a"); import os #\n$(x)',
    }
    write(card, FACTS | plain | lists | ids, {})
    text = render_card(card)
    assert "<script" not in outside_of_code(text)
    data = ModelCard(text).data
    assert (data.license, data.model_name) == ("mit --- # other ---", 'a" --- license: evil')
    assert data.language == ["en --- license: x"]
    assert text.count("\n---\n") == 1 + 2  # the end of the metadata, and the citation, which is code
    lines = text.splitlines()
    assert lines.count("## Limits") == 1
    python = re.search(r"^```python\n(.*?)^```", text, re.M | re.S)[1]
    assert compile(python, "card", "exec").co_names.count("os") == 0
    assert "--model 'a\"); import os # $(x)'\n" in text


def test_markdown_in_facts_is_kept(card):
    facts = {
        "summary": "See `<UNK>` and [a](https://example.org).\n\nTwo.",
        "limits": ["Not `<S>`, *never*."],
    }
    write(card, FACTS | facts | {"usage": "```xml\n<a>\n```\nand <b>"}, {})
    text = render_card(card)
    for part in (facts["summary"], "- Not `<S>`, *never*.\n", "```xml\n<a>\n```\nand &lt;b>\n"):
        assert part in text


def test_addresses_are_those_of_the_web(card):
    for url in ("javascript:alert(1)", "https://a) [b](c", "x"):
        write(card, FACTS | {"data": [FACTS["data"][0] | {"url": url}]}, {})
        assert "must be an address that begins with https:// or http://" in refusal(card)


# ---- results


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("run", {"machine": 5}, "'machine' must hold names with values, but is 5"),
        ("run", {"machine": {}}, "'machine' lacks 'cpu'"),
        ("run", {"hours": "x"}, "'hours' must be a number, but is 'x'"),
        ("run", {"settings": []}, "'settings' must hold names with values, but is []"),
        (
            "run",
            {"settings": {"rows": {"a": 1}}},
            "'rows' must be a number, a text or a list of these, but is {'a': 1}",
        ),
        ("run", {"heldout": [1]}, "'heldout' must hold names with values, but is [1]"),
        ("run", {"heldout": {"a": {}}}, "'a' lacks 'best'"),
        ("run", {"heldout": {"a": {"best": {"mean": 3}}}}, "'best' lacks 'forward'"),
        ("run", {"model": {}}, "'model' lacks 'config'"),
        (
            "run",
            {"model": {"config": {"lstm_dim": "x"}, "parameters": 1, "softmax_parameters": 1}},
            "no config of",
        ),
        (
            "run",
            {"model": model_of(architectures=[0.5])},
            "'architectures' must be a list of names of classes",
        ),
        ("run", {"model": model_of(architectures=True)}, "of classes, but is True"),
        ("run", {"model": model_of(auto_map=[1])}, "'auto_map' must be an object with names of classes"),
        ("kneser_ney", {"heldout": [1]}, "results/kneser_ney.json is not as its command writes it"),
        ("kneser_ney", {"order": "5"}, "results/kneser_ney.json is not as its command writes it"),
        ("shapes", {"rows": {"a": 1}}, "results/shapes.json is not as its command writes it"),
        ("shapes", {"rows": [{"a": [[1]]}]}, "results/shapes.json cannot be shown"),
    ],
)
def test_results_of_other_types(card, name, changes, message):
    path = card / "results" / f"{name}.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")
    assert message in refusal(card)


def test_results_stay_where_they_stand(card):
    rows = [{"a|b\n": 1, SCRIPT: f"x|y\n{SCRIPT}`"}]
    result = Result("table", rows, f"# {SCRIPT}\n# x", f"[a](b)\n# {SCRIPT}")
    write(card, results={"zz": with_results({"command": f"x\n```\n{SCRIPT}"}, result)})
    text = render_card(card)
    assert "<script" not in outside_of_code(text)
    assert "````shell\n" in text
    assert "| a\\|b | &lt;script>alert(1)&lt;/script> |" in text
    assert "\n# x" not in text
    assert "\\[a\\](b) # &lt;script>" in text


@pytest.mark.parametrize("text", ["\n# MARK\n", "\r# MARK", "\u2028# MARK", "~~~\n", "- # MARK", "> # MARK"])
def test_a_text_of_results_begins_no_block(card, text):
    """A table's note stands on a line of its own, as the name of data in the list of them does."""
    result = Result("table", [{text: text}], text, text)
    write(
        card,
        FACTS | {"data": [FACTS["data"][0] | {"name": text}]},
        {"zz": with_results({"command": "x"}, result)},
    )
    rendered, begun = render_card(card), " ".join(text.split())
    assert not re.search(rf"^(- )?{re.escape(begun)}", rendered, re.M)
    assert rendered.count(f"\n\\{begun}\n") == rendered.count(f"\n- \\{begun} (public") == 1


# ---- other places that are read


@pytest.mark.parametrize(
    "name", ["facts.yaml", "results/run.json", "results/zz.json", "README.md", "results"]
)
def test_links_lead_nowhere(card, name):
    path, outside = card / name, card.parent / "outside"
    if path.exists():
        path.rename(outside)
    path.symlink_to(outside)
    with pytest.raises(ElmoError, match=r"is a link, whose target may be .*\.$"):
        write_card(card)
    assert path.is_symlink()


@pytest.mark.parametrize("name", ["facts.yaml", "results/run.json", "README.md"])
def test_a_file_without_end_is_not_read(card, name):
    """A sparse one takes no room on the disk."""
    with (card / name).open("ab") as file:
        file.truncate(2**40)
    with pytest.raises(ElmoError, match=rf"{name} has more than 1,000,000 bytes"):
        write_card(card)


BOMB = "a: &a [x, x, x, x]\n" + "".join(
    f"{new}: &{new} [*{old}, *{old}, *{old}]\n" for old, new in zip("abcd", "bcde", strict=True)
)


@pytest.mark.parametrize(
    "metadata",
    [
        BOMB,
        "model-index: &a [*a]\n",
        "tags: !!python/name:os.system\n",
        "a: 1:" + "59:" * 20_000 + "1\n",
        "a: " + "[" * 5_000 + "\n",
        "a: [" + "x, " * 40_000 + "]\n",
        "license: mit\nlicense: other\n",
        "- mit\n",
        "model-index: 5\n",
        "license: [\n",
    ],
)
def test_metadata_of_others(metadata):
    with pytest.raises(ElmoError, match=r"^the card of x .*\.$"):
        check_card(f"---\nlicense: mit\n{metadata}---\n# A\n".replace("mit\n- ", "- "), "x")


def test_metadata_with_dates_and_numbers():
    text = "---\nlicense: mit\ndate: 2024-01-01\nmodel_size: 93.6\nfine: yes\n---\n# A\n"
    assert check_card(text, "x").data.license == "mit"


def test_many_labels_are_cut(checkpoint):
    config = ElmoConfig(num_labels=300)
    assert labels(config)[-1] == "and 100 more"
    assert len(labels(config)) == 201


def test_names_of_data_stay_in_the_metadata(card):
    row = perplexity(7.0) | {"text": "a\n---\nlicense: evil\n\u202e", "states": "zero\n---"}
    write(card, results={"perplexity": with_results({"command": "x"}, Result("perplexity", [row]))})
    text = render_card(card)
    data = ModelCard(text).data
    assert (data.license, text.count("\n---\n")) == ("apache-2.0", 1)
    assert {result.dataset_name for result in data.eval_results} == {"a --- license: evil \ufffd"}


def test_examples_of_a_task_are_texts_and_numbers():
    assert python_arguments("'a', top_k=3") == "'a', top_k=3"
    assert (
        python_arguments('question="Where?",\n context="Here: (\'"')
        == "question='Where?', context=\"Here: ('\""
    )
    for text in (
        "f('a')",
        "'a' + 'b'",
        "*'ab'",
        "**{}",
        "x",
        "[1]",
        "f'{1}'",
        "'a'); x('b'",
        "(",
        "'a",
        "\x00",
        "lambda: 1",
    ):
        with pytest.raises(ElmoError, match="must be texts or numbers"):
            python_arguments(text)
