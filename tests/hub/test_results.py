"""Results: the form that commands write, the forms of elmo_hf 0.1.0, and what a card shows of them."""

import copy
import json
import os
import re

import pytest

from elmo_hf.errors import ElmoError
from elmo_hf.files import write_json
from elmo_hf.hub.card import files_of, rows_of, section
from elmo_hf.hub.earlier import command_of, probe_findings, results_of
from elmo_hf.hub.markdown import table
from elmo_hf.hub.reading import MAX_BYTES
from elmo_hf.hub.results import (
    Result,
    command_line,
    perplexities,
    read_results,
    text_name,
    with_results,
)
from tests.helpers.paths import REPOSITORY

PROBES = {
    "probes": {
        "senses": {
            "f1": {
                "first sense": {"all": 61.0},
                "trained, layer 0": {"all": 50.0},
                "trained, layer 1": {"all": 58.0},
                "trained, layer 2": {"all": 62.5},
                "random weights, layer 1": {"all": 52.25},
            }
        },
        "tags": {
            "accuracy": {
                "xpos": {
                    "look-up": {"test": 86.0},
                    "trained, layer 1": {"dev": 99.0, "test": 91.5},
                    "trained, layer 2": {"dev": 99.0, "test": 91.0},
                    "random weights, layer 0": {"test": 73.5},
                }
            }
        },
    }
}


FIGURES = {"forward": 1.0, "backward": 2.0, "mean": 1.5}


# ---- the form


def test_what_is_written_is_read_again(tmp_path):
    rows = [{"shape": [512, 64], "words_per_second": 3.5, "note": None}]
    result, untitled = Result("table", rows, title="Shapes", note="Short."), Result("table", [{"a": 1}])
    raw = {"command": "go", "machine": {"cores": 2}, "rows": 7}
    write_json(tmp_path / "two.json", with_results(raw, result, untitled))
    write_json(tmp_path / "none.json", with_results({"command": "go"}))
    write_json(tmp_path / "other.json", {"results": "of another program"})
    contents = read_results(tmp_path)
    assert list(contents) == ["none", "other", "two"]
    assert [results_of(name, content) for name, content in contents.items()] == [[], [], [result, untitled]]
    assert contents["two"].items() > raw.items()
    assert command_of(contents["two"]) == "go"
    contents["two"]["results"][1] |= {"title": None, "note": None, "other": 3}
    assert results_of("two", contents["two"]) == [result, untitled]
    assert command_of(contents["other"]) is None
    assert read_results(tmp_path / "nowhere") == {}


def test_the_example_of_the_documentation():
    text = (REPOSITORY / "hub_cards" / "README.md").read_text(encoding="utf-8")
    example = json.loads(re.search(r"^`({.*})`", text, re.MULTILINE)[1])
    assert results_of("memory", example) == [Result("table", [{"batch": 8, "MB": 512}], "Memory")]
    assert command_of(example) == "python memory.py"


def test_commands_name_no_folder_of_this_machine():
    arguments = ["/data/news.txt.xz", "--model=/models/a b", "--model", "../elmo", "data/x", "a=/b", "--raw"]
    assert command_line("elmo-hf", ["perplexity", *arguments]) == (
        "elmo-hf perplexity news.txt.xz '--model=a b' --model elmo data/x a=/b --raw"
    )


def test_the_name_of_a_file_is_that_of_its_text_or_data():
    """As of elmo_hf 0.1.0: a renamed file renames what its numbers are of, unless they are of several."""

    def names(file, result):
        content = json.loads(json.dumps(with_results({}, result)))
        return [row.get("text", row.get("dataset")) for row in results_of(file, content)[0].rows]

    one, two = (perplexities(dict.fromkeys(texts, FIGURES)) for texts in (["a.txt"], ["a.txt", "b.txt"]))
    scores = [{"dataset": "ner", "metric": "f1", "value": value} for value in (1, 2)]
    assert names("perplexity", one) == names("other-x", one) == names("evaluation-x", one) == ["a"]
    assert names("perplexity-news.txt", one) == ["news"]
    assert names("perplexity-news", two) == ["a", "b"]
    assert names("evaluation", Result("evaluation", scores)) == ["ner", "ner"]
    assert names("evaluation-CoNLL 2003", Result("evaluation", scores)) == ["CoNLL 2003"] * 2
    scores[0]["dataset"] = "pos"
    assert names("evaluation-x", Result("evaluation", scores)) == ["pos", "ner"]
    assert results_of("evaluation-x", with_results({}, Result("table", [{"dataset": [1]}])))[0].rows == [
        {"dataset": [1]}
    ]


def test_numbers_that_no_table_shows():
    for value in (float("nan"), float("inf"), 10**400):
        with pytest.raises(ValueError, match="'a' must be a number, a text or a list"):
            Result("table", [{"a": value}]).check()
    for value in (-1.0, 0, True, "1"):
        with pytest.raises(ValueError, match="'mean' must be a positive number"):
            Result("perplexity", [{"text": "a", **FIGURES, "mean": value}]).check()


@pytest.mark.parametrize(
    ("number", "message"),
    [
        ("9" * 400, "has more than 40 digits"),
        ("9" * 5000, "has more than 40 digits"),
        ("1e400", "inf, which is no number"),
        ("NaN", "nan, which is no number"),
        ("-Infinity", "-inf, which is no number"),
        ("1e301", r"1e\+301, which is no number"),
        ('{"a": 1, "a": 2}', "a name is there twice"),
        (f'"{"x" * 30_000}"', "a text of more than 20,000 letters"),
        (f'{{"{"x" * 30_000}": 1}}', "a text of more than 20,000 letters"),
        ("[" * 30 + "]" * 30, "more than 16 levels"),
        ("1, " * 200_000 + "1", "more than 100,000 values"),
    ],
)
def test_values_that_no_file_may_have(tmp_path, number, message):
    (tmp_path / "a.json").write_text(f'{{"rows": [{number}]}}', encoding="utf-8")
    with pytest.raises(ElmoError, match=rf"a\.json (is not JSON \(|has ).*{message}"):
        read_results(tmp_path)


def test_files_that_are_not_read(tmp_path):
    """A pipe would never end, and a folder or a large file is no result."""
    path = tmp_path / "a.json"
    os.mkfifo(path)
    with pytest.raises(ValueError, match=r"a\.json is not a file\."):
        read_results(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match=r"a\.json is not a file\."):
        read_results(tmp_path)
    path.rmdir()
    path.write_text(f'{{"a": "{"x" * MAX_BYTES}"}}', encoding="utf-8")
    with pytest.raises(ValueError, match="more than 1,000,000 bytes"):
        read_results(tmp_path)
    path.write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(ValueError, match="is not JSON"):
        read_results(tmp_path)


# ---- the forms of elmo_hf 0.1.0


def test_findings_of_the_probes():
    assert probe_findings(PROBES["probes"]) == (
        "Senses are known best by layer 2 (62.50 over all sets), tags (XPOS) by layer 1 (91.50): senses "
        "above tags, as in the paper. The best layers of random weights have 52.25 and 73.50. Senses are "
        "above the inventory's first sense (61.00), which the paper's were above."
    )
    other = copy.deepcopy(PROBES)
    other["probes"]["senses"]["f1"]["trained, layer 1"] = {"all": 62.75}
    other["probes"]["senses"]["f1"]["first sense"] = {"all": 63.0}
    found = probe_findings(other["probes"])
    assert "not senses above tags" in found
    assert "Senses are below the" in found


@pytest.mark.parametrize("scores", [{}, [], {"senses": {"f1": {}}}, {"tags": PROBES["probes"]["tags"]}])
def test_probes_without_findings(scores):
    assert probe_findings(scores) == ""


def test_tables_of_the_probes():
    """Counts and comparisons stay out of the card."""
    senses = {
        "first sense": {"senseval2": 63.1, "all": 60.5},
        "trained, layer 1": {"senseval2": 65.2, "all": 62.0},
    }
    tags = {
        tag_set: {"trained, layer 1": {"dev": 90.0, "test": value, "epoch": 3}}
        for tag_set, value in (("upos", 91.5), ("xpos", 92.25))
    }
    probes = {
        "senses": {"f1": senses, "counts": {"words": 7}, "paper": {"layer 1": 67.4}},
        "tags": {"accuracy": tags, "counts": {"words": {"test": 7}}},
        "neighbours": {"bank": ["river"]},
    }
    first, second = results_of("probes", {"probes": probes, "seed": 0, "shape": {"lstm_dim": 7}})
    assert table(first.rows).splitlines() == [
        "| word senses, F1 | senseval2 | all |",
        "| --- | ---: | ---: |",
        "| first sense | 63.10 | 60.50 |",
        "| trained, layer 1 | 65.20 | 62.00 |",
    ]
    assert table(second.rows).splitlines() == [
        "| tags, accuracy on test | upos | xpos |",
        "| --- | ---: | ---: |",
        "| trained, layer 1 | 91.50 | 92.25 |",
    ]
    assert (first.title, first.note, second.title) == ("What the layers know", "", "")
    assert second.note.startswith("Senses are known best by layer 1")
    with pytest.raises(ValueError, match=r"results/probes\.json is not as its command writes it"):
        results_of("probes", {"probes": {"tags": {"accuracy": {"upos": {"x": {"dev": 1}}}}}})


def test_a_text_has_one_name_whatever_measured_it():
    for path in ("valid.books", "valid.books.txt.xz", "data/valid.books.txt", "valid.books.gz"):
        assert text_name(path) == "valid.books"
    contents = {
        "kneser_ney": {"order": 5, "heldout": {"a.txt.xz": FIGURES, "b.txt.xz": FIGURES}},
        "perplexity-b": FIGURES,
        "perplexity-a": FIGURES,
    }
    rows = rows_of("perplexity", {name: results_of(name, content) for name, content in contents.items()})
    assert [row["text"] for row in rows] == ["b", "b", "a", "a"]
    assert [row["model"] for row in rows] == ["this model", "5-gram, Kneser-Ney"] * 2


def test_files_of_other_names_are_not_shown():
    for name in ("shapes-old", "kneser_ney-old", "other"):
        assert results_of(name, {"any": "thing"}) == []
    assert results_of("perplexity-a", FIGURES)[0].rows[0]["text"] == "a"


def test_rows_of_other_forms_are_refused():
    for name in ("shapes", "domain"):
        with pytest.raises(ValueError, match=rf"results/{name}\.json cannot be shown: it has no number"):
            results_of(name, {"rows": [{"b": "c"}]})
        with pytest.raises(ValueError, match=rf"results/{name}\.json is not as its command writes it"):
            results_of(name, {"a": {"b": 3}})


# ---- what a card shows of them


def test_files_are_shown_if_they_are_there(tmp_path):
    assert files_of("log", tmp_path) == files_of("probes", tmp_path) == ""
    for name in ("log.png", "probes-map.png", "probes.md", "other.png"):
        (tmp_path / name).touch()
    assert files_of("log", tmp_path) == "![Loss, perplexity and speed in training](results/log.png)"
    assert files_of("probes", tmp_path).startswith(
        "![One word's occurrences by their senses](results/probes-map.png)\n\n["
    )
    assert files_of("shapes", tmp_path) == ""


def test_notes_are_below_their_tables(tmp_path):
    rows = {"rows": [{"domain": "law", "before": 2.0, "after": 1.0}], "note": "One epoch."}
    text = section("domain", results_of("domain", rows), tmp_path)
    assert text.endswith("One epoch. The paper's factors are between 1.7 and 4.3 (its Table 7).")
    text = section("shapes", results_of("shapes", {"minutes": 2.0, **rows}), tmp_path)
    assert text.startswith("### Other shapes, in equal time\n\n| domain | before | after |\n")
    assert text.endswith("\n\nOne epoch. Each was trained for 2 minutes.")
    text = section(
        "own", [Result("table", [{"a": 1}]), Result("table", [{"b": "<i>"}], note="<b>")], tmp_path
    )
    assert text.splitlines()[0] == "### own"
    assert text.endswith("| b |\n| --- |\n| &lt;i> |\n\n&lt;b>")
