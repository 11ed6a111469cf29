"""Runs the cases of a door in a worker process, and says what came of each.

A case has a number, and with it a random generator of its own, so that

    python -m tests.fuzz --door hdf5 --case 1234 --keep FOLDER

gives the same input again. The worker is a fork, in which all libraries are loaded. If it crashes, or is
killed for a hang, the case whose number is in the shared memory is the cause, and another worker goes on.
"""

import json
import mmap
import os
import re
import select
import signal
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from tests.fuzz import good
from tests.fuzz.door import Door
from tests.fuzz.worker import IN_FLIGHT, Outcome, outcome_of, short, work

HANG_SECONDS = 10.0  # of the processor
WAIT_SECONDS = 60.0  # of a case that waits for something, on a machine that is busy with other things


def run_door(door: Door, numbers: range, session: Path, seed: int) -> Iterator[Outcome]:
    """The outcome of each case. session: an empty folder, for what the cases need."""
    session = session.resolve()
    flight = mmap.mmap(-1, IN_FLIGHT.size)
    if not (session / "outside").exists():
        good.write_secrets(session / "outside")
    while numbers:
        flight[:] = IN_FLIGHT.pack(-1, 0, 0)
        worker = Worker(door, session, numbers, seed, flight)
        try:
            for outcome in worker.outcomes():
                numbers = numbers[numbers.index(outcome["number"]) + 1 :]
                yield outcome
        finally:
            code = worker.end()
        number, start, _ = IN_FLIGHT.unpack(flight[:])
        if number in numbers:
            if start:
                yield worker.cause(number, code)
            elif code >= 0:  # otherwise a library crashed while the file was damaged, and there is no case
                raise RuntimeError(f"case {number} could not be made:\n{worker.stack.read_text()}")
            numbers = numbers[numbers.index(number) + 1 :]
        elif numbers and not worker.has_hung:  # otherwise the case has ended while it was killed
            raise RuntimeError(f"the worker of {door.name} ended with {code}:\n{worker.stack.read_text()}")


class Worker:
    """A fork that runs cases."""

    def __init__(self, door: Door, session: Path, numbers: range, seed: int, flight: mmap.mmap) -> None:
        self.session, self.flight, self.stack, self.has_hung = session, flight, session / "stack", False
        read, write = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of threads that a fork lacks
            self.pid = os.fork()
        if not self.pid:
            os.close(read)
            self._work(door, numbers, seed, write)
        os.close(write)
        self.lines: Any = os.fdopen(read, "rb", buffering=0)

    def _work(self, door: Door, numbers: range, seed: int, pipe: int) -> None:
        code = 1
        try:
            work(door, self.session, numbers, seed, pipe, self.flight)
            code = 0
        except BaseException:
            self.stack.write_text(traceback.format_exc())
        finally:
            os._exit(code)

    def outcomes(self) -> Iterator[Outcome]:
        while True:
            ready, _, _ = select.select([self.lines], [], [], 0.2)
            if ready:
                line = self.lines.readline()
                if not line.endswith(b"\n"):
                    return
                yield json.loads(line)
            elif not self.has_hung and self._is_overdue():
                self._stop()

    def _is_overdue(self) -> bool:
        _, start, processor_start = IN_FLIGHT.unpack(self.flight[:])
        if not start:
            return False
        times = psutil.Process(self.pid).cpu_times()
        processor = times.user + times.system - processor_start
        return processor > HANG_SECONDS or time.monotonic() - start > WAIT_SECONDS

    def _stop(self) -> None:
        """First the worker writes where it is."""
        self.has_hung = True
        os.kill(self.pid, signal.SIGUSR1)
        end = time.monotonic() + 5
        while not self.stack.read_text(errors="replace").endswith("\n") and time.monotonic() < end:
            time.sleep(0.05)
        os.kill(self.pid, signal.SIGKILL)

    def end(self) -> int:
        """The exit code of the worker, which has ended, or is not wanted any more."""
        self.lines.close()
        os.kill(self.pid, signal.SIGKILL)  # does nothing to a process that is ending
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def cause(self, number: int, code: int) -> Outcome:
        """The outcome of the case that has ended the worker."""
        result = "hang" if self.has_hung else "crash"
        detail = f"{result if self.has_hung else f'exit code {code}'} in {self._place()}"
        description = (self.session / "description").read_text(encoding="utf-8")
        seconds = HANG_SECONDS * self.has_hung
        return outcome_of(number, result, detail, [(result, detail)], seconds, description=description)

    def _place(self) -> str:
        """Where the worker was, by faulthandler's lines: the innermost frame, and that of this package."""
        frames = re.findall(r'File "(.*)", line (\d+) in (\S+)', self.stack.read_text(errors="replace"))
        own = [frame for frame in frames if "/elmo_hf/" in frame[0]]
        places = [f"{short(file)}:{line} {name}" for file, line, name in [*frames[:1], *own[:1]]]
        return ", ".join(places) or "no stack"
