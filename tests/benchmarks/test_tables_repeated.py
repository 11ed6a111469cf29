"""Runs that were made twice: their differences by hand, the page, mistakes."""

import pytest

from benchmarks.report import PAGE, RESULTS, fill_blocks
from benchmarks.tables.collect import cell, verdict
from benchmarks.tables.plan import TASKS, recipe_flags, run_of
from benchmarks.tables.repeated import compare, table
from elmo_hf.errors import ElmoError
from elmo_hf.files import read_json, write_json

WITHOUT = {0: 38.0, 1: 39.0, 2: 40.0}


def store(folder, kind: str, score: float, processor: str, seed: int = 1, **more) -> None:
    run = run_of(TASKS, "sst", {}, seed)
    result = vars(run) | {"flags": recipe_flags(run, TASKS), "machine": {"cpu": processor}}
    result["scores"] = {"test": {"accuracy": score}, "dev": {"accuracy": 0.9}}
    write_json(folder / "tables" / kind / f"{run.name('tiny')}.json", result | more)


def store_table(folder, scores: dict[int, float]) -> None:
    baseline, elmo = cell(WITHOUT), cell(scores)
    row = {"task": TASKS["sst"].title, "baseline": baseline, "elmo": elmo, "helps": verdict(baseline, elmo)}
    write_json(folder / "table1.json", {"rows": [row]})


def test_differences_by_hand(tmp_path):
    for seed, scores in enumerate([(0.50, 0.52), (0.48, 0.47), (0.49, 0.49)]):
        store(tmp_path, "runs", scores[0], "old", seed)
        store(tmp_path, "repeated", scores[1], "new", seed)
    store_table(tmp_path, {0: 50.0, 1: 48.0, 2: 49.0})
    result = compare(tmp_path)
    assert result["mean_difference"] == 1.0  # of 2, 1 and 0 points
    assert len(result["runs"]) == 3
    assert result["runs"][1]["counted"] == {"score": 48.0, "processor": "old"}
    assert result["runs"][1]["repeated"] == {"score": 47.0, "processor": "new"}
    (row,) = result["table1"]
    assert (row["baseline"]["scores"], row["elmo"]["scores"]) == ([38.0, 39.0, 40.0], [52.0, 47.0, 49.0])
    text = table(result)
    assert "| Sentiment, SST-5, with ELMo, seed 1 | 48.0 (old) | 47.0 (new) |" in text
    assert "differ by 1.0 points on average" in text
    assert "Sentiment, SST-5, 39.0 ± 1.0 without ELMo and 49.3 ± 2.5 with it; does it help: yes" in text


def test_another_verdict(tmp_path):
    store(tmp_path, "runs", 0.42, "old")
    store(tmp_path, "repeated", 0.46, "new")
    store_table(tmp_path, {0: 42.0, 1: 42.0, 2: 42.0})
    assert "does it help: yes (in the table: yes)" in table(compare(tmp_path))  # 43.3 ± 2.3 and 39 ± 1
    store(tmp_path, "repeated", 0.36, "new")
    assert "does it help: within the deviations (in the table: yes)" in table(compare(tmp_path))


def test_runs_that_cannot_be_compared(tmp_path):
    with pytest.raises(ElmoError, match=r"there are no repeated runs in .*repeated"):
        compare(tmp_path)
    store(tmp_path, "repeated", 0.5, "new")
    with pytest.raises(ElmoError, match=r"tiny.sst.* is not in the tables"):
        compare(tmp_path)
    store(tmp_path, "runs", 0.5, "old", flags=["--epochs", "2"])
    with pytest.raises(ElmoError, match="has other settings there"):
        compare(tmp_path)
    store(tmp_path, "runs", 0.5, "old")
    store_table(tmp_path, {0: 50.0, 1: 51.0})
    with pytest.raises(ElmoError, match=r"has another score of tiny.sst.*; collect it first"):
        compare(tmp_path)


def test_the_page_has_what_is_stored():
    stored = read_json(RESULTS / "tables" / "repeated.json")
    assert stored == compare(RESULTS)
    page = PAGE.read_text(encoding="utf-8")
    assert "<!-- repeated: " in page
    assert fill_blocks(page, "repeated", lambda _: table(stored)) == page
