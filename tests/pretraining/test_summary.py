"""The summary of a run's folder for its model card."""

import hashlib
import json
import re
import shlex
import sys
import time
from dataclasses import asdict

import pytest

from elmo_hf.errors import ElmoError
from elmo_hf.hub.card import render_card
from elmo_hf.pretraining.settings import read_settings
from elmo_hf.pretraining.summary import command, hours_worked, main, summarize
from tests.helpers.card_folders import FACTS, RESULTS, write
from tests.helpers.launcher import read_lines, small_run


def step(number, words, speed):
    return {"kind": "step", "step": number, "words": words, "words_per_second": speed}


@pytest.fixture(scope="module")
def run(launcher, tmp_path_factory):
    """A small run that ended after 13 steps and was resumed; and the seconds that both took."""
    folder = tmp_path_factory.mktemp("run")
    held_out = folder / "held-out.txt"
    held_out.write_text("The judge sleeps .\nGreta sings .\n", encoding="utf-8")
    begin = time.perf_counter()
    for changes in ({"max_steps": 13}, {"epochs": 1}):
        process = launcher.start(small_run(folder, heldout=held_out, log_every=4, **changes))
        assert process.wait() == [0], process.err
    return folder / "run", time.perf_counter() - begin


def test_hours_are_words_divided_by_speeds():
    log = [step(10, 100, 10.0), {"kind": "resume", "step": 10}, step(20, 300, 50.0)]
    assert hours_worked(log, 300) == pytest.approx((10 + 4) / 3600)
    assert hours_worked(log, 350) == pytest.approx((10 + 4 + 1) / 3600)
    # Stopped and saved between two entries: the words between them count at the speed of the later one.
    log = [step(10, 100, 10.0), {"kind": "resume", "step": 15}, step(20, 300, 100.0)]
    assert hours_worked(log, 300) == pytest.approx((10 + 2) / 3600)
    with pytest.raises(ValueError, match="has no step"):
        hours_worked([{"kind": "resume", "step": 15}], 300)
    for speed, words in ((0.0, 10), (-1.0, 10), (5.0, 0)):
        with pytest.raises(ValueError, match="a step without words or speed"):
            hours_worked([step(1, words, speed)], 0)
    with pytest.raises(ValueError, match="a step with fewer words than an earlier step"):
        hours_worked([step(1, 2**70, 5.0), step(2, 20, 5.0)], 20)


def test_a_run_with_a_restart(run):
    folder, seconds = run
    summary = summarize(folder)
    log = read_lines(folder / "log.jsonl")
    lines = [entry for entry in log if entry["kind"] == "step"]
    end = next(entry for entry in log if entry["kind"] == "end")
    assert summary["finished"]
    assert (summary["steps"], summary["words"]) == (end["step"], end["words"])
    assert summary["resumed"] == 1
    assert 0 < summary["hours"] * 3600 < seconds
    assert summary["words_per_second"] == pytest.approx(summary["words"] / summary["hours"] / 3600, rel=0.05)
    slowest, fastest = (f(entry["words_per_second"] for entry in lines) for f in (min, max))
    assert slowest - 0.1 <= summary["words_per_second"] <= fastest + 0.1
    assert summary["epochs"] == 1
    assert summary["seed"] == summary["settings"]["seed"] == 7
    assert summary["changed"] == ["epochs", "max_steps"]
    assert summary["machine"]["cores"] >= 1
    assert summary["device"] == "cpu"


def test_the_best_evaluation_has_the_lowest_mean(run):
    folder, _ = run
    entries = [entry for entry in read_lines(folder / "log.jsonl") if entry["kind"] == "evaluation"]
    assert len(entries) > 1
    summary = summarize(folder)["heldout"]
    assert list(summary) == ["held-out.txt"]
    best = sorted(entries, key=lambda entry: entry["mean"])[0]
    for name, entry in (("first", entries[0]), ("best", best), ("last", entries[-1])):
        assert summary["held-out.txt"][name] == {k: v for k, v in entry.items() if k not in ("kind", "text")}


def test_the_model_is_the_final_one(run):
    folder, _ = run
    summary = summarize(folder)["model"]
    content = (folder / "final" / "model.safetensors").read_bytes()
    assert summary["files"]["model.safetensors"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert summary["config"]["lstm_dim"] == 16
    parameters = next(
        entry["parameters"] for entry in read_lines(folder / "log.jsonl") if "parameters" in entry
    )
    assert summary["parameters"] == parameters


def test_the_command_is_that_of_the_settings(run):
    """Parsed again, it gives the settings, except folders and those that are not part of the recipe."""
    folder, _ = run
    summary = summarize(folder)
    words = shlex.split(summary["command"])
    assert words[:3] == ["accelerate", "launch", "training/pretrain.py"]
    assert str(folder.parent) not in summary["command"]
    settings = asdict(read_settings(words[3:]))
    assert {name: settings[name] for name in summary["settings"]} == summary["settings"]
    assert settings["data"] == ["text-*.txt"]
    assert str(folder.parent) not in json.dumps(summary)


def test_names_stand_in_the_command_as_they_are():
    names = ['größe\'s \\ "text".txt', "größe", 'a "b" \\.txt']
    given = read_settings(["--data", names[0], "--output", names[1], "--vocab", names[2]])
    repeated = read_settings(shlex.split(command(asdict(given), processes=1))[3:])
    assert [repeated.data, repeated.output, repeated.vocab] == [[names[0]], names[1], names[2]]


def test_a_run_that_has_not_ended(run, tmp_path):
    """Log entries after the newest checkpoint do not count."""
    folder, _ = run
    unfinished = tmp_path / "part"
    unfinished.mkdir()
    checkpoint = sorted(folder.glob("checkpoint-*"))[-2]
    (unfinished / checkpoint.name).symlink_to(checkpoint)
    log = [entry for entry in read_lines(folder / "log.jsonl") if entry["kind"] != "end"]
    (unfinished / "log.jsonl").write_text(
        "".join(json.dumps(entry) + "\n" for entry in log), encoding="utf-8"
    )
    summary, whole = summarize(unfinished), summarize(folder)
    assert not summary["finished"]
    assert summary["steps"] == int(checkpoint.name.split("-")[1]) < whole["steps"]
    assert 0 < summary["words"] < whole["words"]
    assert 0 < summary["hours"] < whole["hours"]
    assert summary["model"]["files"] != whole["model"]["files"]


def test_the_summary_fills_a_card(run, tmp_path, monkeypatch, capsys):
    folder, _ = run
    card = write(tmp_path / "card", FACTS, RESULTS)
    output = card / "results" / "run.json"
    monkeypatch.setattr(sys, "argv", ["summary.py", str(folder), "-o", str(output)])
    main()
    assert re.fullmatch(r".*run\.json: [\d,]+ words in 0\.\d+ hours\.\n", capsys.readouterr().out)
    assert json.loads(output.read_text(encoding="utf-8")) == summarize(folder)
    text = render_card(card)
    assert f"{summarize(folder)['words']:,} words, a direction" in text
    assert "| held-out | zero |" in text
    assert sorted(path.name for path in output.parent.iterdir() if path.name.startswith(".")) == []


START = {"kind": "start", "settings": {}, "processes": 1, "device": "cpu"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (None, "there is no log"),
        ([step(1, 10, 5.0) | {"loss": 1.0}], "has no start in its log"),
        ([START], "has no checkpoint yet"),
    ],
)
def test_folders_without_a_run(tmp_path, lines, message, monkeypatch, capsys):
    if lines is not None:
        (tmp_path / "log.jsonl").write_text(
            "".join(json.dumps(entry) + "\n" for entry in lines), encoding="utf-8"
        )
    with pytest.raises(ValueError, match=message):
        summarize(tmp_path)
    monkeypatch.setattr(sys, "argv", ["summary.py", str(tmp_path), "-o", str(tmp_path / "run.json")])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    assert re.match(f"elmo_hf.pretraining.summary: .*{message}", capsys.readouterr().err)
    assert not (tmp_path / "run.json").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": []}, "settings is \\[\\]"),
        ({"processes": "2"}, "processes is '2'"),
        ({"device": None}, "device is None"),
        ({"words_per_second": 0}, "has a step without words or speed"),
    ],
)
def test_a_damaged_log_is_one_sentence(run, tmp_path, change, message):
    folder, _ = run
    (tmp_path / "final").symlink_to(folder / "final")
    newest = max(folder.glob("checkpoint-*"))
    (tmp_path / newest.name).symlink_to(newest)
    log = [
        entry | {name: change[name] for name in change.keys() & entry}
        for entry in read_lines(folder / "log.jsonl")
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in log), encoding="utf-8")
    with pytest.raises(ElmoError, match=message):
        summarize(tmp_path)
