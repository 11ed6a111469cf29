"""A run that is stopped and resumed ends as an undisturbed one, bit for bit; `tests/kills` kills runs."""

import json
import os
import signal
import time

import pytest

from tests.helpers.launcher import read_lines, small_run, steps_of


def last_step(output):
    """The step of the last complete log entry, or 0; reads one entry, as it is called in a loop."""
    log = output / "log.jsonl"
    lines = log.read_bytes().rsplit(b"\n", 2) if log.exists() else []
    return json.loads(lines[-2]).get("step", 0) if len(lines) > 1 else 0


def last_checkpoint(output):
    return max(output.glob("checkpoint-*"))


def assert_same_end(output, expected):
    assert steps_of(output) == steps_of(expected)
    for folder, other in (
        (output / "final", expected / "final"),
        (last_checkpoint(output), last_checkpoint(expected)),
    ):
        assert folder.name == other.name
        files = sorted(path.relative_to(other) for path in other.rglob("*.safetensors"))
        assert files
        for name in files:
            assert (folder / name).read_bytes() == (other / name).read_bytes(), name
    assert not list(output.glob(".unfinished*"))


def assert_every_sentence_once(output, sizes, epochs):
    """By the audit files of all processes, each direction has read every line once per epoch."""
    for direction in ("forward", "backward"):
        read = [
            tuple(sentence[1:])
            for path in output.glob("audit-*.jsonl")
            for entry in read_lines(path)
            for sentence in entry[direction]
        ]
        expected = [
            (epoch, shard, line, 0)
            for epoch in range(epochs)
            for shard, size in enumerate(sizes)
            for line in range(size)
        ]
        assert sorted(read) == expected, direction


def end(launcher, arguments, processes, hook=""):
    run = launcher.start(arguments, processes, hook)
    assert run.wait() == [0] * processes, run.err
    return run


@pytest.fixture(scope="module")
def whole(launcher, tmp_path_factory):
    """The folder of an undisturbed run in a number of processes, made at its first use."""
    folder, runs = tmp_path_factory.mktemp("whole"), {}

    def run(processes):
        if processes not in runs:
            runs[processes] = folder / str(processes)
            end(launcher, small_run(folder, runs[processes].name), processes)
        return runs[processes]

    return run


def wait_for_step(run, output, step):
    while not run.has_ended:
        if last_step(output) >= step:
            return
        time.sleep(0.001)
    raise AssertionError(run.err)


@pytest.mark.parametrize(("processes", "number"), [(2, signal.SIGTERM), (1, signal.SIGINT)])
def test_a_signal_saves_and_stops(launcher, whole, tmp_path, processes, number):
    """Workers get it as well, as from a batch system or a terminal (Ctrl-C)."""
    output = tmp_path / "run"
    arguments = small_run(tmp_path, save_every=10_000)
    run = launcher.start(arguments, processes, hold=9)
    wait_for_step(run, output, 9)
    os.killpg(run.group, number)
    run.go_on()
    assert run.wait() == [143] * processes
    assert run.err == ""
    step = steps_of(output)[-1]["step"]
    assert run.out == f"Stopped after step {step}, which is saved; --resume auto continues from there.\n"
    assert last_checkpoint(output).name == f"checkpoint-{step:07d}"
    assert not (output / "final").exists()
    run = end(launcher, arguments, processes)
    assert run.out.startswith(f"Resuming after step {step}.\n")
    assert_same_end(output, whole(processes))


def test_other_processes_and_rows_lose_no_sentence(launcher, tmp_path):
    """One, two and three processes in turn, each stopped; then four rows in place of six."""
    output = tmp_path / "run"
    for processes, step in ((1, 30), (2, 60), (3, 100)):
        run = launcher.start(small_run(tmp_path, audit=True), processes, hold=step)
        wait_for_step(run, output, step)
        os.kill(run.group, signal.SIGTERM)  # one process, which stops the others
        run.go_on()
        assert run.wait() == [143] * processes, run.err
    run = launcher.start(small_run(tmp_path, audit=True, rows=4), 2, hold=150)
    wait_for_step(run, output, 150)
    os.killpg(run.group, signal.SIGTERM)
    run.go_on()
    assert run.wait() == [143] * 2
    end(launcher, small_run(tmp_path, audit=True, rows=3, workers=0), 1)
    facts = [entry["processes"] for entry in read_lines(output / "log.jsonl") if "processes" in entry]
    assert facts == [1, 2, 3, 2, 1]
    assert_every_sentence_once(output, (150, 20, 60), epochs=2)


# The small text is cut into sections, so that the rows form groups, each with its own sections.
IN_GROUPS = """
from elmo_hf.corpus import sections
sections.SMALL_TEXT, sections.SMALLEST, sections.STEP, sections.BYTES_OF_GROUP = 1, 300, 200, 300
"""


def groups_of(checkpoint):
    progress = json.loads((checkpoint / "training" / "progress.json").read_text(encoding="utf-8"))
    return progress["place"]["settings"].get("groups", 1)


def test_a_killed_run_whose_rows_form_groups(launcher, tmp_path):
    outputs = [tmp_path / "whole", tmp_path / "killed"]
    whole, killed = (small_run(tmp_path, output.name, audit=True) for output in outputs)
    end(launcher, whole, 2, IN_GROUPS)
    for step in (30, 75, 110):
        run = launcher.start(killed, 2, IN_GROUPS, hold=step)
        wait_for_step(run, outputs[1], step)
        os.killpg(run.group, signal.SIGKILL)
        assert run.wait() == [-signal.SIGKILL] * 2
    end(launcher, killed, 2, IN_GROUPS)
    assert groups_of(last_checkpoint(outputs[1])) == 6
    assert_same_end(*reversed(outputs))
    for output in outputs:
        assert_every_sentence_once(output, (150, 20, 60), epochs=2)


def test_other_processes_and_rows_of_a_run_whose_rows_form_groups(launcher, tmp_path):
    output = tmp_path / "run"
    for processes, rows, step in ((1, 6, 30), (3, 6, 70), (2, 4, 110)):
        run = launcher.start(small_run(tmp_path, audit=True, rows=rows), processes, IN_GROUPS, hold=step)
        wait_for_step(run, output, step)
        os.killpg(run.group, signal.SIGTERM)
        run.go_on()
        assert run.wait() == [143] * processes, run.err
        assert groups_of(last_checkpoint(output)) == 6
    end(launcher, small_run(tmp_path, audit=True, rows=3, workers=2), 1, IN_GROUPS)
    assert_every_sentence_once(output, (150, 20, 60), epochs=2)


def test_two_processes_learn_as_one(launcher, tmp_path):
    """Without dropout, by the full softmax: the same sums, in another order."""
    same = {"dropout": 0.0, "samples": 0, "max_steps": 60, "learning_rate": 0.1}
    for processes in (1, 2):
        end(launcher, small_run(tmp_path, f"{processes}", **same, processes=processes), processes)
    steps_of_one, steps_of_two = (steps_of(tmp_path / name) for name in ("1", "2"))
    assert [read_lines(tmp_path / name / "log.jsonl")[0]["processes"] for name in ("1", "2")] == [1, 2]
    assert len(steps_of_one) == len(steps_of_two) == 60
    for name in ("loss", "forward_loss", "backward_loss", "norm"):
        assert [step[name] for step in steps_of_two] == pytest.approx(
            [step[name] for step in steps_of_one], rel=2e-5
        )
    assert steps_of_one[0]["loss"] - steps_of_one[-1]["loss"] > 0.5
