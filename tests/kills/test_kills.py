"""A few kills of each program, and faults that the kills must find."""

import json
import shutil
import subprocess
import sys
from contextlib import nullcontext
from random import Random

import pytest

from tests.helpers.paths import REPOSITORY
from tests.kills import __main__ as kills
from tests.kills import series
from tests.kills.embedding import embeddings
from tests.kills.moments import Kill, Length
from tests.kills.pretraining import FinishedRun, Pretraining
from tests.kills.scenarios import LIMIT, Findings, Scenario
from tests.kills.series import Killer

FEW = 2  # kills of each scenario


def kill(scenario):
    """Kill runs until there were a few kills, or something went wrong; return the last series."""
    kills = 0
    for number in range(10 * FEW):
        output = scenario.folder / f"run-{number}"
        result = Killer(scenario, output, Random(f"{scenario.name} {number}")).run(FEW - kills)
        kills += result.kills
        if kills >= FEW or result.faults:
            return result
    raise AssertionError(f"{kills} kills in {10 * FEW} runs")


@pytest.fixture(scope="module")
def begun(launcher, tmp_path_factory):
    """A scenario with its undisturbed run, which is made once."""
    scenarios = {}

    def begin(scenario):
        if scenario.name not in scenarios:
            folder = tmp_path_factory.mktemp("scenario") / "runs"
            scenarios[scenario.name] = scenario(launcher, folder)
            scenarios[scenario.name].begin()
        return scenarios[scenario.name]

    return begin


@pytest.mark.parametrize(
    "scenario",
    [Pretraining, FinishedRun, *embeddings()[1::2]],  # the command has them all
    ids=lambda scenario: scenario.name,
)
def test_killed_runs_end_as_undisturbed_ones(begun, scenario):
    result = kill(begun(scenario))
    assert result.faults == [], result.history


# ---- faults

STALE_PLACE = """
from elmo_hf.pretraining import run
merge, states = run.merge_states, []
def stale(new):
    states.append(merge(new))
    return states[-2:][0]
run.merge_states = stale
"""


def test_a_checkpoint_with_a_wrong_place_in_the_text_is_noticed(begun, monkeypatch):
    """It has the place of the checkpoint before it, from which a resumed run reads sentences again."""
    scenario = begun(Pretraining)
    monkeypatch.setattr(scenario, "hook", STALE_PLACE)
    operation = round(0.6 * len(scenario.length.operations[0]))
    killer = Killer(scenario, scenario.folder / "stale", Random(0))
    killer.start(Kill("SIGKILL", "all, by main", operation=operation))
    killer.start(None)
    killer.compare()
    assert killer.series.kills == 1
    assert killer.series.repeated > 0
    assert killer.series.unequal == 1
    assert any("log.jsonl" in fault for fault in killer.series.faults)


class SleepingRun(Pretraining):
    """Needs no undisturbed run: it has the length that a test sets."""

    def begin(self):
        self.folder.mkdir()
        self.write_inputs()
        self.length = Length(1.0, [])


# The signal of this series is SIGTERM, and it may come before the fork or after it.
OUTLIVED = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if not os.fork():
    time.sleep(1000)
raise SystemExit(3)
"""


@pytest.mark.parametrize(
    ("hook", "column", "fault", "limit"),
    [
        ("import time; time.sleep(1000)", "stuck", "Current thread", 2.0),
        ("raise SystemExit('broken.')", "failed", "broken.", LIMIT),
        (OUTLIVED, "stuck", "outlived", LIMIT),
    ],
)
def test_a_start_that_does_not_end_or_fails_is_noticed(
    launcher, tmp_path, monkeypatch, hook, column, fault, limit
):
    monkeypatch.setattr(series, "GRACE", 0.1)
    scenario = SleepingRun(launcher, tmp_path / "runs")
    scenario.begin()
    scenario.hook, scenario.limit = hook, limit
    result = kill(scenario)
    assert getattr(result, column) == 1
    assert any(fault in text for text in result.faults), result.faults


def drop_line(path, number):
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:number] + lines[number + 1 :]), encoding="utf-8")


def repeat_line(path, number):
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([*lines[:number], lines[number], *lines[number:]]), encoding="utf-8")


def change_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "counts"),
    [
        (lambda run: None, (False, False, 0)),
        (lambda run: drop_line(run / "audit-0.jsonl", 3), (True, False, 0)),
        (lambda run: repeat_line(run / "audit-0.jsonl", 3), (False, True, 0)),
        (lambda run: drop_line(run / "log.jsonl", 9), (False, False, 1)),
        (lambda run: repeat_line(run / "log.jsonl", 9), (False, False, 1)),
        (lambda run: repeat_line(run / "log.jsonl", 0), (False, False, 1)),
        (lambda run: change_byte(run / "final" / "model.safetensors"), (False, False, 1)),
        (
            lambda run: change_byte(run / "checkpoint-0000170" / "training" / "rows.safetensors"),
            (False, False, 1),
        ),
        (lambda run: (run / "final" / "config.json").unlink(), (False, False, 1)),
        (lambda run: (run / ".unfinished-final").mkdir(), (False, False, 1)),
    ],
)
def test_what_differs_from_an_undisturbed_run_is_noticed(begun, tmp_path, damage, counts):
    scenario = begun(Pretraining)
    run = shutil.copytree(scenario.whole, tmp_path / "run")
    damage(run)
    findings = scenario.compare(run, scenario.whole)
    assert (findings.lost > 0, findings.repeated > 0, len(findings.unequal)) == counts


def test_lost_vectors_are_noticed(begun, tmp_path):
    scenario = begun(embeddings()[1])
    run = shutil.copytree(scenario.whole, tmp_path / "run")
    assert scenario.compare(run, scenario.whole) == Findings()
    change_byte(run / "vectors-00001.safetensors")
    assert len(scenario.compare(run, scenario.whole).unequal) == 1
    (run / "index.json").unlink()
    assert scenario.compare(run, scenario.whole).lost == 200


# ---- when a kill comes

RENAMES = """
import os, sys
from tests.kills.operations import signal_at
folder, number, marker = sys.argv[1:]
signal_at(folder, int(number), True, "SIGKILL", False, marker)
for old, new in ("ab", "bc", "cd"):
    open(f"{folder}/log", "a").close()
    os.rename(f"{folder}/{old}", f"{folder}/{new}")
"""


@pytest.mark.parametrize(("number", "name", "code"), [(0, "a", -9), (2, "c", -9), (3, "d", 0)])
def test_a_kill_comes_before_the_operation_with_its_number(tmp_path, number, name, code):
    folder, marker = tmp_path / "run", tmp_path / "marker"
    folder.mkdir()
    (folder / "a").touch()
    arguments = [str(folder), str(number), str(marker)]
    process = subprocess.run([sys.executable, "-c", RENAMES, *arguments], cwd=REPOSITORY)
    assert process.returncode == code
    assert {path.name for path in folder.iterdir()} == {name, "log"}
    assert marker.exists() == (code != 0)


# ---- the command


class MadeUpRun:
    """Ends at once; every second one has been killed."""

    count, living, err = 0, (), ""
    has_ended = True

    def __init__(self, marker):
        MadeUpRun.count += 1
        self.is_killed = MadeUpRun.count % 2 == 1
        if self.is_killed:
            marker.touch()

    def wait(self, seconds):
        return [-9 if self.is_killed else 0]


class MadeUp(Scenario):
    name, share, lost = "made up", 1000, 0

    def write_inputs(self):
        pass

    def arguments(self, output):
        return []

    def begin(self):
        self.folder.mkdir()
        self.length = Length(1.0, ["no" * 9])

    def start(self, output, processes, kill, marker):
        return MadeUpRun(marker)

    def compare(self, output, expected):
        return Findings(lost=self.lost)


def test_the_command_continues_and_reports_what_was_wrong(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(kills, "SCENARIOS", [MadeUp])
    monkeypatch.setattr(kills, "Launcher", lambda modules: nullcontext())
    output = tmp_path / "kills.json"

    def run(number):
        arguments = ["--kills", str(number), "--output", str(output), "--keep", str(tmp_path / "keep")]
        monkeypatch.setattr(sys, "argv", ["kills", *arguments])
        kills.main()
        return json.loads(output.read_text(encoding="utf-8"))["scenarios"]["made up"]

    assert run(3) | {"seconds": 0} == dict.fromkeys(kills.COLUMNS, 0) | {"kills": 3, "starts": 6, "runs": 3}
    assert run(3)["kills"] == 3
    assert (
        json.loads(output.read_text(encoding="utf-8"))["command"]
        == "python -m tests.kills --kills=3 --seed=0"
    )
    assert "| made up | 3 | 6 | 3 | 0 |" in capsys.readouterr().out
    monkeypatch.setattr(MadeUp, "lost", 2)
    with pytest.raises(SystemExit, match=r"kills: 1 runs went wrong; they are listed in .*kills.json\."):
        run(4)
    results = json.loads(output.read_text(encoding="utf-8"))
    assert results["scenarios"]["made up"]["lost"] == 2
    assert [(fault["run"], fault["faults"]) for fault in results["faults"]] == [
        (3, ["2 sentences lost, 0 repeated"])
    ]


def test_shares_add_up():
    shares = kills.shares(1000, kills.SCENARIOS)
    assert sum(shares.values()) == 1000
    assert min(shares.values()) >= 10
    assert sum(kills.shares(7, kills.SCENARIOS).values()) == 7
