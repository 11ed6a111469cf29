"""Held-out text of a run: lines of its own text, and the LSTM states from which it is evaluated."""

import inspect
import json
import re
from dataclasses import fields

import pytest
from typer.testing import CliRunner

from elmo_hf.cli import app
from elmo_hf.pretraining.perplexity import perplexity
from elmo_hf.pretraining.settings import Settings
from elmo_hf.pretraining.summary import summarize
from tests.helpers.launcher import read_lines, small_run
from tests.helpers.paths import TRAINING


def end(launcher, arguments, processes=1, hook=""):
    run = launcher.start(arguments, processes, hook)
    assert run.wait() == [0] * processes, run.err
    return run


def only_sentence(run):
    [line] = run.err.split("\n")
    return line.removeprefix("pretrain.py: ")


BREAKS_AT_13 = """
from elmo_hf.pretraining import learner
update = learner.Learner.update
def broken(self, windows, words, step):
    assert step != 13
    return update(self, windows, words, step)
learner.Learner.update = broken
"""


def test_lines_that_are_held_out(launcher, tmp_path):
    """No process trains on them, also after a stop; their perplexity is that of the file that is written."""
    changes = {"heldout_every": 7, "audit": None, "save_every": 6, "max_steps": 18, "epochs": 2, "rows": 4}
    arguments = [*small_run(tmp_path, **changes), "--audit"]
    assert launcher.start(arguments, 2, BREAKS_AT_13).wait() != [0, 0]
    end(launcher, arguments, 2)
    read = set()
    for process in range(2):
        for entry in read_lines(tmp_path / "run" / f"audit-{process}.jsonl"):
            read |= {(shard, line) for _, _, shard, line, _ in entry["forward"] + entry["backward"]}
    texts = sorted(tmp_path.glob("text-*.txt"))
    lines = [path.read_text(encoding="utf-8").splitlines() for path in texts]
    heldout = [line for shard, text in enumerate(lines) for line in text[6 - shard :: 7]]
    assert all(line.strip() for text in lines for line in text)  # so that all lines count
    assert read
    assert not [place for place in read if (place[0] + place[1] + 1) % 7 == 0]
    written = tmp_path / "run" / "heldout.txt"
    assert written.read_text(encoding="utf-8").splitlines() == heldout
    logged = [entry for entry in read_lines(tmp_path / "run" / "log.jsonl") if entry["kind"] == "evaluation"][
        -1
    ]
    assert (logged["text"], logged["states"]) == ("heldout.txt", "zero")
    command = [
        "perplexity",
        str(written),
        "--model",
        str(tmp_path / "run" / "final"),
        "--json",
        "--no-progress",
    ]
    result = json.loads(CliRunner().invoke(app, command).stdout)  # with the command's default of states
    assert result["mean"] == pytest.approx(logged["mean"], rel=1e-6)
    for every, message in (
        (8, "heldout_every 7, and now it is 8"),
        (None, "heldout_every 7, and now it is None"),
    ):
        run = launcher.start(small_run(tmp_path, **changes | {"heldout_every": every}), 2)
        assert run.wait() == [1, 1]
        assert message in only_sentence(run)


def test_states_that_change_on_resuming_are_said(launcher, tmp_path):
    heldout = TRAINING / "runs" / "smoke_heldout.txt"
    end(launcher, small_run(tmp_path, heldout=heldout, evaluation_states="carried", max_steps=2))
    run = launcher.start(small_run(tmp_path, heldout=heldout, max_steps=4))
    assert run.wait() == [0]
    assert "from carried states so far, and does so from zero states now" in only_sentence(run)
    log = read_lines(tmp_path / "run" / "log.jsonl")
    assert [entry["states"] for entry in log if entry["kind"] == "evaluation"] == ["carried", "zero"]
    summary = summarize(tmp_path / "run")["heldout"]["smoke_heldout.txt"]
    assert {summary[name]["states"] for name in ("first", "best", "last")} == {"zero"}


def test_one_default_of_states():
    """Of all commands and functions that compute a perplexity: a sentence is read as the package reads it."""
    settings = next(field for field in fields(Settings) if field.name == "evaluation_states")
    function = inspect.signature(perplexity).parameters["states"]
    assert settings.default == function.default == "zero"
    output = CliRunner().invoke(app, ["perplexity", "--help"], env={"COLUMNS": "200"}).output
    assert re.search(r"--states .*\[default: zero\]", output, re.DOTALL)
