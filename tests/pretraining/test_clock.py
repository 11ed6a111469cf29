"""A run that ends after some minutes: the plan, the learning rate, and what a resumed run has left."""

import json
import re

import pytest

from elmo_hf.pretraining.clock import AGAIN, FIRST, WARM_UP, Clock
from elmo_hf.pretraining.progress import read_progress
from tests.helpers.launcher import small_run


def run_of(clock, seconds_of_step, step=0):
    """Make updates of these seconds until the clock is over; return the plans and the number of updates."""
    now, plans = clock.before, []
    while not clock.is_over(step):
        now += seconds_of_step(step)
        step += 1
        if clock.look(step, now):
            plans.append((step, now, clock.total_steps))
    return plans, step, now


def test_the_plan_is_exact_at_a_constant_speed():
    plans, steps, now = run_of(Clock(minutes=10), lambda step: 5.0 if step < WARM_UP else 0.1)
    assert steps == pytest.approx(WARM_UP + (600 - 5 * WARM_UP) / 0.1, abs=20)
    assert now <= 600.2
    first, *_ = plans
    assert first[1] == pytest.approx(max(FIRST, 5 * WARM_UP), abs=0.3)
    assert {plan[2] for plan in plans} <= set(range(steps - 20, steps + 20))
    assert plans[2][1] - plans[1][1] == pytest.approx(AGAIN, abs=0.2)


def test_the_plan_follows_a_machine_that_becomes_slower():
    plans, steps, now = run_of(Clock(minutes=2), lambda step: 0.1 if step < 600 else 0.2)
    assert plans[0][2] == pytest.approx(1200, abs=10)
    assert plans[-1][2] == pytest.approx(900, abs=30)
    assert steps == pytest.approx(900, abs=30)
    assert 110 < now < 121


def test_a_short_run_is_planned_as_well():
    plans, steps, _ = run_of(Clock(minutes=0.05), lambda step: 0.01)
    assert len(plans) > 10
    assert steps == pytest.approx(300, abs=5)


def test_a_resumed_run_has_the_time_that_is_left():
    clock = Clock(minutes=10, seconds=300.0, step=3000)
    assert clock.total_steps == 6000  # at once, at the speed before
    assert clock.seconds() == pytest.approx(300, abs=5)
    plans, steps, _ = run_of(clock, lambda step: 0.2, step=3000)
    assert plans[0][1] >= 320
    assert steps == pytest.approx(4500, abs=20)
    assert Clock(minutes=10, seconds=600.0, step=3000).is_over(3000)


def test_without_a_limit_there_is_no_plan():
    clock = Clock(None)
    assert not clock.look(100, 1e9)
    assert not clock.is_over(10**9)
    assert clock.total_steps is None


def log_of(folder):
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


# A clock that shows 50 milliseconds more at each look.
SLOW_MACHINE = """
import itertools
from types import SimpleNamespace
from elmo_hf.pretraining import clock
looks = itertools.count()
clock.time = SimpleNamespace(perf_counter=lambda: 0.05 * next(looks))
"""


def test_a_run_of_three_seconds(launcher, tmp_path):
    """It ends by itself with a learning rate near zero, and says how long it took."""
    changes = {"max_minutes": 0.05, "epochs": 1000, "schedule": "linear", "save_every": 20}
    run = launcher.start(small_run(tmp_path, **changes), hook=SLOW_MACHINE)
    assert run.wait() == [0], run.err
    entries = [entry for entry in log_of(tmp_path / "run") if entry["kind"] == "step"]
    last = entries[-1]
    assert 50 <= last["step"] <= 60  # the program looks at the clock at other times as well
    assert last["planned_steps"] == pytest.approx(last["step"], abs=1)
    assert last["lr"] <= 0.1 * entries[0]["lr"]
    bar = (run.folder / "err").read_text(encoding="utf-8")
    assert int(re.findall(r"(\d+)%\|", bar)[-1]) >= 95  # the progress bar ends with the run
    checkpoint = tmp_path / "run" / f"checkpoint-{last['step']:07d}"
    assert read_progress(checkpoint).seconds == pytest.approx(3, abs=0.2)
    run = launcher.start(small_run(tmp_path, **changes), hook=SLOW_MACHINE)  # its time is over
    assert run.wait() == [0], run.err
    assert [entry for entry in log_of(tmp_path / "run") if entry["kind"] == "step"] == entries


def test_a_resumed_run_goes_on_with_its_plan(launcher, tmp_path):
    changes = {"max_minutes": 0.05, "epochs": 1000, "schedule": "linear", "save_every": 20}
    run = launcher.start(small_run(tmp_path, **changes | {"max_steps": 20}), hook=SLOW_MACHINE)
    assert run.wait() == [0], run.err
    run = launcher.start(small_run(tmp_path, **changes), hook=SLOW_MACHINE)
    assert run.wait() == [0], run.err
    entries = [entry for entry in log_of(tmp_path / "run") if entry["kind"] == "step"]
    assert entries[20]["planned_steps"] == pytest.approx(58, abs=4)
    assert 50 <= entries[-1]["step"] <= 60


def test_two_processes_end_after_the_same_update(launcher, tmp_path):
    changes = {"max_minutes": 0.02, "epochs": 1000, "schedule": "linear", "workers": 0}
    run = launcher.start(small_run(tmp_path, **changes), 2, hook=SLOW_MACHINE)
    assert run.wait() == [0, 0], run.err
    assert log_of(tmp_path / "run")[-1]["kind"] == "end"
