"""The benchmark of a process's first call runs, and its stages add up."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks.speed import first_call, table

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads memory from /proc")


def test_stages_in_a_fresh_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "first.json"
    monkeypatch.setattr(sys, "argv", ["first_call", "--sizes", "--rounds", "1", "--output", str(output)])
    monkeypatch.setattr(
        first_call, "in_turns", lambda calls, rounds: {name: [call(0)] for name, call in calls.items()}
    )
    first_call.main()
    content = json.loads(output.read_text(encoding="utf-8"))
    model = content["models"]["elmo-tiny"]
    assert list(model["seconds"]) == list(model["memory_mb"]) == list(first_call.STAGES)
    assert min(model["seconds"].values()) > 0
    private = [memory["private"] for memory in model["memory_mb"].values()]
    assert 1 < private[0] < private[-1]
    assert all(memory["peak"] >= memory["private"] for memory in model["memory_mb"].values())
    lines = table.first_call_table(content).splitlines()
    assert len(lines) == 2 + 2 + len(first_call.STAGES) + 1
    assert f"{model['seconds']['torch']:.2f}" in lines[4]
