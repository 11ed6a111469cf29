"""A series of kills of one run, until it ends; what is wrong afterwards."""

import contextlib
import os
import shutil
import signal
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.helpers.launcher import wait_until
from tests.kills.moments import Kill, draw_kill, send_in_time
from tests.kills.scenarios import Scenario

MOST_KILLS = 8  # of one run; then it is left to end
GRACE = 30  # seconds in which the workers of a killed process must have ended
STACKS = 60  # seconds in which a stuck process must have written where it is
# Of a start that got SIGTERM: too late, with its state saved, or before it had a handler.
SIGTERM_CODES = {0, 143, -signal.SIGTERM}


@dataclass
class Series:
    """What happened to one run. stuck: starts that did not end; failed: those that ended with an error."""

    kills: int = 0
    starts: int = 0
    lost: int = 0
    repeated: int = 0
    unequal: int = 0
    stuck: int = 0
    failed: int = 0
    seconds: float = 0.0
    history: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name not in ("history", "faults")}


class Killer:
    """Kills one run of a scenario until it ends."""

    def __init__(self, scenario: Scenario, output: Path, draw: Random) -> None:
        self.scenario, self.output, self.draw = scenario, output, draw
        self.series, self.runs = Series(), list[Any]()
        self.has_ended = False

    def run(self, most_kills: int) -> Series:
        begin = time.monotonic()
        scenario, draw = self.scenario, self.draw
        scenario.prepare(self.output)
        kills = draw.randint(1, min(MOST_KILLS, most_kills))
        for is_killed in [True] * kills + [False]:
            if not (self.has_ended or self.series.faults):
                processes = draw.choice(scenario.processes)
                kill = draw_kill(draw, scenario.length, scenario.reach, processes, scenario.has_workers)
                self.start(kill if is_killed else None, processes)
        self.check_workers()
        if self.has_ended:
            self.compare()
        self.series.seconds = round(time.monotonic() - begin, 2)
        return self.series

    def start(self, kill: Kill | None, processes: int = 1) -> None:
        """Start the run, kill it perhaps, and wait for its end."""
        series = self.series
        series.starts += 1
        marker = self.output.with_name(f"{self.output.name}-killed-{series.starts}")
        run = self.scenario.start(self.output, processes, kill, marker)
        self.runs.append(run)
        was_sent = kill is not None and send_in_time(kill, run)
        try:
            codes = run.wait(self.scenario.limit)
        except TimeoutError:
            self._note_stuck(run, f"{processes} processes, {kill or 'left to end'}")
            return
        finally:
            if not run.has_ended:  # stuck, or this program is interrupted
                run.signal_all(signal.SIGKILL)
        was_sent = was_sent or marker.exists()
        series.kills += was_sent
        series.history.append(f"{processes} processes, {kill if was_sent else 'left to end'}: {codes}")
        self.has_ended = not any(codes)
        if not self.has_ended and not self._may_fail(kill if was_sent else None, codes):
            series.failed += 1
            series.faults.append(f"a start ended with {codes}: {run.err.strip()[-1500:]}")

    def _note_stuck(self, run: Any, text: str) -> None:
        self.series.stuck += 1
        self.series.history.append(f"{text}: stuck")
        self.series.faults.append(f"a start did not end in {self.scenario.limit} s: {stacks_of(run)}")

    def _may_fail(self, kill: Any, codes: list[int]) -> bool:
        """Whether the codes are no surprise. A process that loses its neighbour may end as it likes."""
        if kill is None:
            return False
        is_free = kill.name == "SIGKILL" or len(codes) > 1 or not self.scenario.passes_codes
        return is_free or {*codes} <= SIGTERM_CODES

    def check_workers(self) -> None:
        """Workers that outlive their killed process for long are stuck."""
        end = time.monotonic() + GRACE
        for run in self.runs:
            while run.living and time.monotonic() < end:
                time.sleep(0.05)
            if run.living:
                self.series.stuck += 1
                self.series.faults.append(f"{len(run.living)} processes have outlived their run")
                run.signal_all(signal.SIGKILL)

    def compare(self) -> None:
        findings = self.scenario.compare(self.output, self.scenario.whole)
        self.series.lost, self.series.repeated = findings.lost, findings.repeated
        self.series.unequal = int(bool(findings.unequal))
        if findings.lost or findings.repeated:
            self.series.faults.append(f"{findings.lost} sentences lost, {findings.repeated} repeated")
        self.series.faults += findings.unequal[:5]


def stacks_of(run: Any) -> str:
    """The stacks of a run's processes, from its errors."""
    with contextlib.suppress(ProcessLookupError):
        for pid in run.pids:
            os.kill(pid, signal.SIGUSR1)
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: "most recent call first" in run.err, STACKS)
    time.sleep(1)  # for those of the other processes
    return run.err.strip()[-6000:]


def remove(output: Path) -> None:
    shutil.rmtree(output, ignore_errors=True)
    for marker in output.parent.glob(f"{output.name}-killed-*"):
        marker.unlink()
