"""training/summarize_run.py: a run's folder becomes the results of its card."""

import hashlib
import json
import re
import shlex
import sys
import time
from dataclasses import asdict

import pytest

from elmo_hf.hub.card import render_card
from elmo_hf.pretraining.settings import read_settings
from elmo_hf.pretraining.summary import hours_worked, main, summarize
from tests.helpers.card_folders import FACTS, RESULTS, write
from tests.helpers.launcher import read_lines, small_run


def step(number, words, speed):
    return {"kind": "step", "step": number, "words": words, "words_per_second": speed}


@pytest.fixture(scope="module")
def run(launcher, tmp_path_factory):
    """A small run that was ended after 13 steps, and gone on with; and the seconds that all of it took."""
    folder = tmp_path_factory.mktemp("run")
    held_out = folder / "held-out.txt"
    held_out.write_text("The judge sleeps .\nGreta sings .\n", encoding="utf-8")
    begin = time.perf_counter()
    for changes in ({"max_steps": 13}, {"epochs": 1}):
        one = launcher.start(small_run(folder, heldout=held_out, log_every=4, **changes))
        assert one.wait() == [0], one.err
    return folder / "run", time.perf_counter() - begin


def test_hours_are_words_by_words_a_second():
    log = [step(10, 100, 10.0), {"kind": "resume", "step": 10}, step(20, 300, 50.0)]
    assert hours_worked(log, 300) == pytest.approx((10 + 4) / 3600)
    assert hours_worked(log, 350) == pytest.approx((10 + 4 + 1) / 3600)
    # Stopped and saved between two lines: the words between them were all read, at the new line's speed.
    log = [step(10, 100, 10.0), {"kind": "resume", "step": 15}, step(20, 300, 100.0)]
    assert hours_worked(log, 300) == pytest.approx((10 + 2) / 3600)
    with pytest.raises(ValueError, match="tells of no step"):
        hours_worked([{"kind": "resume", "step": 15}], 300)


def test_a_run_with_a_restart(run):
    folder, seconds = run
    found = summarize(folder)
    log = read_lines(folder / "log.jsonl")
    lines = [entry for entry in log if entry["kind"] == "step"]
    end = next(entry for entry in log if entry["kind"] == "end")
    assert found["finished"]
    assert (found["steps"], found["words"]) == (end["step"], end["words"])
    assert found["resumed"] == 1
    assert 0 < found["hours"] * 3600 < seconds
    assert found["words_per_second"] == pytest.approx(found["words"] / found["hours"] / 3600, rel=0.05)
    slowest, fastest = (f(one["words_per_second"] for one in lines) for f in (min, max))
    assert slowest - 0.1 <= found["words_per_second"] <= fastest + 0.1
    assert found["epochs"] == 1
    assert found["seed"] == found["settings"]["seed"] == 7
    assert found["changed"] == ["epochs", "max_steps"]
    assert found["machine"]["cores"] >= 1
    assert found["device"] == "cpu"


def test_the_best_evaluation_is_that_of_the_least_mean(run):
    folder, _ = run
    entries = [entry for entry in read_lines(folder / "log.jsonl") if entry["kind"] == "evaluation"]
    assert len(entries) > 1
    found = summarize(folder)["heldout"]
    assert list(found) == ["held-out.txt"]
    best = sorted(entries, key=lambda entry: entry["mean"])[0]
    for name, entry in (("first", entries[0]), ("best", best), ("last", entries[-1])):
        assert found["held-out.txt"][name] == {k: v for k, v in entry.items() if k not in ("kind", "text")}


def test_the_model_is_the_final_one(run):
    folder, _ = run
    found = summarize(folder)["model"]
    content = (folder / "final" / "model.safetensors").read_bytes()
    assert found["files"]["model.safetensors"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert found["config"]["lstm_dim"] == 16
    parameters = next(
        entry["parameters"] for entry in read_lines(folder / "log.jsonl") if "parameters" in entry
    )
    assert found["parameters"] == parameters


def test_the_command_is_that_of_the_settings(run):
    """Read back, it gives the settings, but for folders and what is no part of a recipe."""
    folder, _ = run
    found = summarize(folder)
    words = shlex.split(found["command"])
    assert words[:3] == ["accelerate", "launch", "training/pretrain.py"]
    assert str(folder.parent) not in found["command"]
    settings = asdict(read_settings(words[3:]))
    assert {name: settings[name] for name in found["settings"]} == found["settings"]
    assert settings["data"] == ["text-*.txt"]
    assert str(folder.parent) not in json.dumps(found)


def test_before_its_end(run, tmp_path):
    """What was logged after the newest checkpoint does not count yet."""
    folder, _ = run
    part = tmp_path / "part"
    part.mkdir()
    checkpoint = sorted(folder.glob("checkpoint-*"))[-2]
    (part / checkpoint.name).symlink_to(checkpoint)
    log = [entry for entry in read_lines(folder / "log.jsonl") if entry["kind"] != "end"]
    (part / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in log), encoding="utf-8")
    found, whole = summarize(part), summarize(folder)
    assert not found["finished"]
    assert found["steps"] == int(checkpoint.name.split("-")[1]) < whole["steps"]
    assert 0 < found["words"] < whole["words"]
    assert 0 < found["hours"] < whole["hours"]
    assert found["model"]["files"] != whole["model"]["files"]


def test_the_summary_fills_a_card(run, tmp_path, monkeypatch, capsys):
    folder, _ = run
    card = write(tmp_path / "card", FACTS, RESULTS)
    output = card / "results" / "run.json"
    monkeypatch.setattr(sys, "argv", ["summarize_run.py", str(folder), "-o", str(output)])
    main()
    assert re.fullmatch(r".*run\.json: [\d,]+ words in 0\.\d+ hours\.\n", capsys.readouterr().out)
    assert json.loads(output.read_text(encoding="utf-8")) == summarize(folder)
    text = render_card(card)
    assert f"{summarize(folder)['words']:,} words, a direction" in text
    assert "| held-out | carried |" in text
    assert sorted(path.name for path in output.parent.iterdir() if path.name.startswith(".")) == []


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (None, "there is no log"),
        ([step(1, 10, 5.0) | {"loss": 1.0}], "has no start in its log"),
        ([{"kind": "start", "settings": {}}], "has no checkpoint yet"),
    ],
)
def test_what_is_no_run(tmp_path, lines, message, monkeypatch):
    if lines is not None:
        (tmp_path / "log.jsonl").write_text(
            "".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8"
        )
    with pytest.raises(ValueError, match=message):
        summarize(tmp_path)
    monkeypatch.setattr(sys, "argv", ["summarize_run.py", str(tmp_path), "-o", str(tmp_path / "run.json")])
    with pytest.raises(SystemExit, match=f"^summarize_run.py: .*{message}"):
        main()
    assert not (tmp_path / "run.json").exists()
