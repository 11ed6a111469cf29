"""The tables of docs/how-good.md and docs/compile.md are those of the JSON files."""

import json
import re

from benchmarks import comparison
from benchmarks.report import RESULTS, fill_blocks


def test_the_pages_have_the_tables():
    texts = [page.read_text(encoding="utf-8") for page in comparison.PAGES]
    for text in texts:
        filled = fill_blocks(text, "comparison", lambda name: comparison.TABLES[name]())
        assert filled == text, "run python -m benchmarks.comparison"
    assert sorted(re.findall(r"<!-- comparison: ([\w-]+) -->", "".join(texts))) == sorted(comparison.TABLES)


def test_a_speed_is_a_multiple_of_that_of_bert():
    result = {"words_per_second": {"median": 50.0}, "peak_memory_mb": 7}
    contestants = {"ours-auto": result, "bert-base": {"words_per_second": {"median": 20.0}}}
    assert comparison.speed_cell({"contestants": contestants}, "ours-auto") == "50.0 (2.5 ×)"
    assert comparison.speed_cell({"contestants": contestants}, "allennlp") == "–"
    del contestants["bert-base"]
    assert comparison.speed_cell({"contestants": contestants}, "ours-auto") == "50.0"


def test_the_figures_of_the_first_table_are_those_of_the_file():
    rows = json.loads((RESULTS / "table1.json").read_text(encoding="utf-8"))["rows"]
    lines = comparison.helps().splitlines()[2:]
    for row, line in zip(rows, lines[: len(rows)], strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[0] == row["task"]
        for cell, column in zip(cells[2:4], ("baseline", "elmo"), strict=True):
            if row[column] is None:
                assert cell == "not run"
            else:
                assert float(cell.split()[0]) == round(row[column]["mean"], 1)


def test_a_transformer_is_compared_by_the_same_score_only():
    text = comparison.own()
    assert "NER, UNER English EWT" in text
    assert "SRL" not in text  # its published figure is of head words, on other labels
    assert "LitBank" not in text  # its published score counts singletons, and ours does not


def test_the_calls_until_compiling_pays():
    shape = {"compile_seconds": 3.0, "milliseconds": {"auto": 8.0, "compiled": 5.0}}
    assert comparison.calls_until_it_pays(shape) == "1,000 calls"
    shape["milliseconds"]["compiled"] = 8.0
    assert comparison.calls_until_it_pays(shape) == "never"
