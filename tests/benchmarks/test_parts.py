"""Benchmarks of single components run at a small size."""

import json

import pytest

from benchmarks import parts
from benchmarks.speed.table import sentence_table

ROLES = """s 0 He PRP PRP - - - (ARG0*)
s 1 left VBD VBD - leave leave.01 (V*)
s 2 Paris NNP NNP - - - (ARG1*)

s 0 She PRP PRP - - - (ARG0*)
s 1 stayed VBD VBD - stay stay.01 (V*)
"""


@pytest.fixture
def measure(tmp_path, capsys):
    def run(*arguments):
        output = tmp_path / "results" / "part.json"
        parts.main([*map(str, arguments), "--output", str(output)])
        content = json.loads(output.read_text(encoding="utf-8"))
        assert json.loads(capsys.readouterr().out) == content
        return content

    return run


def test_layer_cache(measure):
    content = measure("layer-cache", "--size", "tiny", "--sentences", 6, "--batch-size", 3, "--epochs", 2)
    assert list(content["ways"]) == ["none", "memory", "disk"]
    losses = [run["loss"] for run in content["ways"].values()]
    assert max(losses) - min(losses) < 1e-5 * max(losses)
    assert all(len(run["seconds"]) == 2 for run in content["ways"].values())
    assert all(factor > 0 for factor in content["faster_epochs"].values())
    assert content["command"].startswith("python -m benchmarks.parts layer-cache --size tiny --sentences 6 ")


def test_role_rules(measure, tmp_path):
    (tmp_path / "roles.conll").write_text(ROLES, encoding="utf-8")
    content = measure("role-rules", tmp_path / "roles.conll")
    assert content["right_labels"] == {"rows": 2, "broken": 0}
    assert [run["right"] for run in content["runs"]] == [6.0, 5.0, 4.0, 3.5, 0.0]
    for run in content["runs"]:
        assert (run["rows"], run["words"]) == (2, 5)
        assert run["roles"]["broken"] == 0
        assert 0 <= run["roles"]["f1"] <= 1


@pytest.mark.usefixtures("default_kernels")
def test_sentence(measure):
    content = measure("sentence", "--sizes", "tiny", "--lengths", 3, 9, "--repeats", 3)
    assert [(row["size"], row["words"]) for row in content["rows"]] == [("tiny", 3), ("tiny", 9)]
    for row in content["rows"]:
        assert sum(row["shares"].values()) == pytest.approx(1, abs=0.01)
        used = {name for name, share in row["shares"].items() if share > 0}
        assert used == {*parts.SPENT, parts.REMAINDER} - {"products, laid out"}
    table = [[cell.strip() for cell in line.split("|")] for line in sentence_table(content).splitlines()[2:]]
    assert table[0][1:4] == ["ms", "all", "tokenizer"]
    for cells in table[2:]:
        assert sum(map(float, cells[3:-1])) == pytest.approx(float(cells[2]), abs=0.06)


def test_seconds_inside_count_once(monkeypatch):
    clock, stopwatch = iter([0.0, 1.0, 4.0, 9.0]), parts.Stopwatch()
    monkeypatch.setattr(parts.time, "perf_counter", lambda: next(clock))
    inner = stopwatch.timed("inner", lambda: None)
    stopwatch.seconds = {"inner": 0.0, "outer": 0.0}
    stopwatch.timed("outer", lambda: inner())()
    assert stopwatch.seconds == {"inner": 3.0, "outer": 6.0}
