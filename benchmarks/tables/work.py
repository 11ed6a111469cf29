"""Commands of tables.py as processes: so many side by side, stopped with their parent, each with its log."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STOPPED = 143  # what a shell says of a program that SIGTERM has ended
WAIT = 0.1  # seconds between two looks at what is running


@dataclass
class Job:
    """Commands, one after the other. It waits for what it `needs`, which another job makes."""

    name: str
    commands: list[list[str]]
    log: Path
    needs: Path | None = None
    run: Any = None  # what it is, for whoever made it
    prepare: Callable[[], None] | None = None  # called before the first command
    process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)
    begun: float = 0.0
    begun_commands: int = 0

    def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.unlink(missing_ok=True)
        self.begun = time.monotonic()
        if self.prepare is not None:
            self.prepare()
        self._start_next()

    def _start_next(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.commands[self.begun_commands],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        self.begun_commands += 1

    def has_ended(self) -> bool:
        """Begins the next command where one has ended well."""
        assert self.process is not None
        code = self.process.poll()
        if code == 0 and self.begun_commands < len(self.commands):
            self._start_next()
            return False
        return code is not None

    def fault(self) -> str | None:
        """The last line of what a failed one said."""
        assert self.process is not None
        if self.process.returncode == 0:
            return None
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        said = next((line for line in reversed(lines) if line.strip()), "nothing was said")
        return f"ended with {self.process.returncode}: {said:.200}"

    def minutes(self) -> float:
        return (time.monotonic() - self.begun) / 60

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait()


def run_jobs(
    waiting: list[Job], side_by_side: int, minutes: float | None, ended: Callable[[Job], None]
) -> None:
    """`ended` is told of each, failed or not. After so many minutes none is begun, and those that run end."""
    until = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
    waiting = list(waiting)
    running: list[Job] = []
    with stopping(running):
        while True:
            while len(running) < side_by_side and time.monotonic() < until:
                job = next((one for one in waiting if one.needs is None or one.needs.exists()), None)
                if job is None:
                    break
                waiting.remove(job)
                running.append(job)
                job.start()
            if not running:
                return
            for job in [one for one in running if one.has_ended()]:
                running.remove(job)
                ended(job)
            time.sleep(WAIT)


@contextmanager
def stopping(running: list[Job]) -> Iterator[None]:
    """However this ends, by SIGTERM, too, what is running ends with it."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED))
    try:
        yield
    finally:
        for job in running:
            job.stop()
        signal.signal(signal.SIGTERM, before)
