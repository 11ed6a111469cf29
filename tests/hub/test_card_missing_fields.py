"""A card with missing fields is refused: facts and results that are missing or wrong are named."""

import copy
import re

import pytest

from elmo_hf.hub.card import FACTS as FORMS
from elmo_hf.hub.card import render_card, write_card
from elmo_hf.loading import describe_model
from tests.helpers.card_folders import FACTS, RESULTS, RUN, perplexity, save_checkpoint, write


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


@pytest.mark.parametrize("name", [name for name in FORMS if not name.endswith("?")])
def test_a_missing_fact_is_named(card, name):
    write(card, facts={key: value for key, value in FACTS.items() if key != name}, results={})
    with pytest.raises(ValueError, match=rf"^.*facts\.yaml lacks '{name}'\.$"):
        write_card(card)
    assert not (card / "README.md").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"title": ""}, "'title' must be a text, but is ''"),
        ({"title": None}, "facts.yaml lacks 'title'."),
        ({"summary": "TODO"}, "'summary' must have no placeholder such as 'TODO'"),
        ({"summary": "It is [More Information Needed]."}, "must have no placeholder"),
        ({"limits": []}, "'limits' must be a list, but is"),
        ({"limits": "none"}, "'limits' must be a list, but is"),
        ({"languages": [None]}, "'languages', entry 1 must be a text, but is None"),
        ({"kind": "great"}, "'kind' must be base, task, converted, but is 'great'"),
        ({"autors": ["me"]}, "has 'autors', but a card knows only kind, name"),
        ({"data": [{"name": "x", "licence": "y"}]}, "'data', entry 1 lacks 'description'"),
        (
            {"data": [FACTS["data"][0] | {"words": "7"}]},
            "'data', entry 1 has 'words', but a card knows only name",
        ),
        ({"data": ["x"]}, "'data', entry 1 must hold names with values, but is 'x'"),
        ({"kind": "task"}, "config.json names no class with a head"),
        ({"kind": "converted"}, "the card lacks 'source'; say it in"),
        ({"commands": "x"}, "'commands' must hold names with values, but is 'x'"),
    ],
)
def test_facts_that_are_wrong(card, changes, message):
    write(card, facts=FACTS | changes, results={})
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        write_card(card)
    assert str(error.value).endswith(".")
    assert not (card / "README.md").exists()


@pytest.mark.parametrize("text", ["- a\n- b\n", "", "a: [", "\xff"])
def test_files_that_hold_no_facts(card, text):
    (card / "facts.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"facts\.yaml (is no YAML|must hold|is not text in UTF-8)"):
        write_card(card)
    (card / "facts.yaml").unlink()
    with pytest.raises(ValueError, match=r"there is no .*facts\.yaml; a card needs"):
        write_card(card)


@pytest.mark.parametrize(
    ("missing", "message"),
    [("perplexity", "the card lacks results/perplexity.json"), ("run", "no results/run.json tells what")],
)
def test_a_missing_result_is_named(card, missing, message):
    (card / "results" / f"{missing}.json").unlink()
    with pytest.raises(ValueError, match=re.escape(message)):
        write_card(card)


def test_a_checkpoint_without_its_run(checkpoint, tmp_path):
    write(tmp_path / "card")
    with pytest.raises(
        ValueError, match=r"lacks results/run\.json, which `python -m elmo_hf\.pretraining\.summary"
    ):
        render_card(checkpoint, tmp_path / "card" / "facts.yaml", tmp_path / "card" / "results")


@pytest.mark.parametrize("name", ["command", "settings", "hours", "words", "machine"])
def test_a_run_that_lacks_a_field(card, run, name):
    write(card, results={"run": {key: value for key, value in run.items() if key != name}})
    with pytest.raises(ValueError, match=rf"results/run\.json lacks '{name}'"):
        render_card(card)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ('{"mean": NaN}', "has nan, which is no number"),
        ("3", "holds no results"),
        ("{}", "holds no results"),
        (
            '{"command": "x", "mean": 3}',
            "results/perplexity.json cannot be shown: rows, entry 1 lacks 'forward', 'backward'",
        ),
        ('{"schema": 2, "results": []}', "this elmo_hf reads schema 1, not 2"),
        (
            '{"schema": 1, "kind": "table"}',
            "results/perplexity.json cannot be shown: 'results' must be a list, but is None",
        ),
        ('{"schema": 1, "results": {}}', "'results' must be a list, but is {}"),
        ('{"schema": 1, "results": [3]}', "'results', entry 1 must be an object, but is 3"),
        *(
            (f'{{"schema": 1, "results": [{{"kind": {kind}, "rows": {rows}, "title": {title}}}]}}', message)
            for kind, rows, title, message in (
                ('"poem"', "[]", '""', "kind must be one of perplexity, evaluation, table, but is 'poem'"),
                ("null", "[]", '""', "kind must be one of perplexity, evaluation, table, but is None"),
                ('"table"', "[]", '""', "rows must be a list, but is []"),
                ('"table"', "[3]", '""', "rows, entry 1 must hold names with values, but is 3"),
                (
                    '"table"',
                    '[{"a": {}}]',
                    '""',
                    "rows, entry 1: 'a' must be a number, a text or a list of these, but is {}",
                ),
                ('"table"', '[{"a": 1}]', "3", "title must be a text, but is 3"),
                ('"evaluation"', '[{"metric": "f1", "value": 1}]', '""', "rows, entry 1 lacks 'dataset'"),
            )
        ),
    ],
)
def test_files_that_hold_no_results(card, text, message):
    (card / "results" / "perplexity.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(message)):
        render_card(card)


def test_a_result_needs_its_command(card):
    """In the JSON, or in the facts by the file's name: `elmo-hf perplexity --json` of 0.1.0 wrote none."""
    write(card, results={"perplexity-valid.txt": perplexity(99.0)})
    with pytest.raises(ValueError, match=r"results/perplexity-valid\.txt\.json has no command"):
        render_card(card)
    write(card, facts=FACTS | {"commands": {"perplexity": "elmo-hf perplexity --json"}}, results={})
    text = render_card(card)
    assert "\nelmo-hf perplexity --json\n" in text
    assert "| valid | this model | zero | 97.50 |" in text


def test_a_run_of_another_model(checkpoint, tmp_path, run):
    other = copy.deepcopy(run)
    other["model"]["config"]["lstm_dim"] = 17
    write(tmp_path / "card", results=RESULTS | {"run": other})
    with pytest.raises(ValueError, match=r"run\.json is of a model with lstm_dim 17, but .* has 16"):
        render_card(checkpoint, tmp_path / "card" / "facts.yaml", tmp_path / "card" / "results")


def test_only_what_the_command_wrote_is_overwritten(card):
    path = write_card(card)
    first = path.read_text(encoding="utf-8")
    assert write_card(card) == path
    assert path.read_text(encoding="utf-8") == first
    path.write_text("# Mine\n", encoding="utf-8")
    with pytest.raises(ValueError, match="was not written by this command"):
        write_card(card)
    assert path.read_text(encoding="utf-8") == "# Mine\n"
    assert sorted(one.name for one in card.iterdir()) == ["README.md", "facts.yaml", "results"]
    with pytest.raises(ValueError, match="there is no folder"):
        write_card(card, output=card / "nowhere" / "README.md")
