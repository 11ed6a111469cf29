"""Trackers of a pretraining run."""

import importlib.util
import os
import sqlite3
import sys
from contextlib import closing
from types import SimpleNamespace

import pytest

from elmo_hf.errors import ElmoError
from elmo_hf.pretraining.settings import read_settings
from elmo_hf.pretraining.trackers import end_run, keep_offline
from tests.helpers.launcher import small_run


def test_trackio(launcher, tmp_path):
    pytest.importorskip("trackio")
    hook = f"import os; os.environ['TRACKIO_DIR'] = {str(tmp_path / 'trackio')!r}"
    arguments = small_run(tmp_path, max_steps=6, trackers="trackio", log_every=2)
    run = launcher.start(arguments, hook=hook)
    assert run.wait() == [0], run.err
    run = launcher.start([*arguments, "--max_steps", "8"], hook=hook)  # goes on under the same name
    assert run.wait() == [0], run.err
    with closing(sqlite3.connect(tmp_path / "trackio" / "elmo.db")) as base:
        rows = base.execute("select run_name, step from metrics order by id").fetchall()
    assert rows == [("run", 2), ("run", 4), ("run", 6), ("run", 8)]


@pytest.mark.parametrize(
    ("tracker", "variable", "offline"),
    [
        ("wandb", "WANDB_MODE", "offline"),
        ("swanlab", "SWANLAB_MODE", "offline"),
        ("comet_ml", "COMET_START_ONLINE", "0"),
    ],
)
def test_numbers_stay_on_this_machine(monkeypatch, tracker, variable, offline):
    monkeypatch.setenv(variable, "online")  # which monkeypatch removes at the end, whatever we set
    keep_offline([tracker])
    assert os.environ[variable] == "online"  # the user's word counts
    monkeypatch.delenv(variable)
    keep_offline(["tensorboard"])
    assert variable not in os.environ
    keep_offline(["tensorboard", tracker])
    assert os.environ[variable] == offline


def test_a_run_of_wandb_is_ended(monkeypatch):
    ended = []
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(finish=lambda: ended.append(True)))
    end_run(["tensorboard"])
    assert ended == []
    end_run(["tensorboard", "wandb"])
    assert ended == [True]


def test_trackers_that_are_not_installed(launcher, tmp_path):
    if importlib.util.find_spec("aim") is not None:
        pytest.skip("aim is installed")
    run = launcher.start(small_run(tmp_path, trackers="aim"))
    assert run.wait() == [1]
    assert run.err == "pretrain.py: the tracker aim is not installed; `pip install aim`."
    assert not (tmp_path / "run" / "log.jsonl").exists()
    flags = ["--data", "a", "--vocab", "v", "--output", "o", "--report-to"]
    assert read_settings([*flags, "none"]).trackers == []
    assert read_settings([*flags, "trackio", "tensorboard", "trackio"]).trackers == ["trackio", "tensorboard"]
    with pytest.raises(ElmoError, match="not both: none aim"):
        read_settings([*flags, "none", "aim"])
