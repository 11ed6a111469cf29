"""The tables of docs/reliability.md are those of the JSON files."""

import json

from benchmarks import reliability
from benchmarks.report import RESULTS, fill_blocks


def test_the_page_has_the_tables():
    text = reliability.PAGE.read_text(encoding="utf-8")
    assert fill_blocks(text, "reliability", reliability.table) == text
    for path in (RESULTS / "reliability").glob("*.json"):
        assert f"<!-- reliability: {path.stem} -->" in text


def test_tables_of_runs():
    row = {
        "kills": 3,
        "starts": 4,
        "runs": 1,
        "lost": 0,
        "repeated": 0,
        "unequal": 1,
        "failed": 0,
        "stuck": 0,
    }
    table = reliability.TABLES["kills"]({"scenarios": {"a run": row | {"seconds": 2.4}}})
    assert table.splitlines()[-1] == "| a run | 3 | 4 | 1 | 0 | 0 | 1 | 0 | 0 | 2 |"
    results = {"steps": 5000, "operations": {"a": 1, "b": 2}, "calls": 9000, "share_of_fast_calls": 0.44}
    table = reliability.TABLES["random"](json.loads(json.dumps(results | {"failures": ["x"]})))
    assert table.splitlines()[-1] == "| 5,000 | 2 | 9,000 | 44% | 1 |"
