"""The benchmark of training steps: what it makes of its measurements."""

import json

from benchmarks.report import PAGE, RESULTS, fill_blocks
from benchmarks.speed.precisions import compare, sentence
from benchmarks.speed.steps import page, table, table_of_parts


def test_loss_curves_are_compared_over_the_last_updates():
    curves = {"no": {"1": [9, 4, 2], "2": [9, 6, 4]}, "bf16": {"1": [9, 4.5, 2.5], "2": [9, 6, 4]}}
    result = compare(curves, 2)
    assert result["difference"] == {"1": 0.5, "2": 0.0}
    assert result["mean_difference"] == 0.25
    assert result["final_loss"] == {"no": 4, "bf16": 4.25}
    assert round(result["between_seeds"], 3) == 1.414


def test_tables():
    speeds = {"no": {"median": 5000.0}, "bf16": {"median": 8000.0}}
    rows = [{"shape": "small", "words_per_second": speeds, "bf16/no": {"median": 1.6}}]
    assert table(rows).splitlines()[-1] == "| small |  | 5,000 | 8,000 | 1.60 |"
    parts = {
        name: {"seconds": 0.25, "of_peak": 0.5}
        for name in ("characters", "LSTMs", "softmax", "optimizer", "feed")
    }
    measured = {"parts": parts}
    assert "| small | bfloat16 | 250 ms, 50% |" in table_of_parts(
        [{"shape": "small", "no": measured, "bf16": measured}]
    )


def test_the_page_has_what_the_json_says():
    text = PAGE.read_text(encoding="utf-8")
    for kind, make in (("steps", page), ("precisions", sentence)):
        content = json.loads((RESULTS / "training" / f"{kind}.json").read_text(encoding="utf-8"))
        assert f"<!-- {kind}: " in text
        assert fill_blocks(text, kind, lambda _, make=make, content=content: make(content)) == text
