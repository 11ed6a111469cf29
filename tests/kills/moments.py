"""When a run is killed, and which of its processes."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any


@dataclass
class Length:
    """Of an undisturbed run. operations: by process, a letter each, as `count_operations` writes them."""

    seconds: float
    operations: list[str]


@dataclass
class Kill:
    """A signal to some of a run's processes: `seconds` after its start, or at a file operation.

    target: all processes and their workers, the "main" process, the "last" process, or a "worker" that reads
    text. At a file operation: all, or the process itself, "main" or "last".
    """

    name: str
    target: str
    seconds: float = 0.0
    operation: int | None = None
    names_only: bool = False

    def __str__(self) -> str:
        if self.operation is None:
            moment = f"after {self.seconds:.3f} s"
        else:
            kind = "name operation" if self.names_only else "file operation"
            moment = f"at {kind} {self.operation}"
        return f"{self.name} to {self.target} {moment}"

    def hook(self, output: Path, marker: Path) -> str:
        """Code for each process of a run, which makes `marker` and sends the signal at its file operation."""
        if self.operation is None:
            return ""
        to_all = self.target.startswith("all")
        arguments = (str(output), self.operation, self.names_only, self.name, to_all, str(marker))
        condition = "rank" if self.target.endswith("last") else "not rank"
        return f"from tests.kills.operations import signal_at\nif {condition}: signal_at(*{arguments})"

    def send(self, run: Any) -> bool:
        """Send the signal now; return False if there is no such process (any more)."""
        number = signal.Signals[self.name]
        try:
            if self.target == "all":
                run.signal_all(number)
            elif self.target == "worker":
                os.kill(run.workers[0], number)
            else:
                os.kill(run.pids[0 if self.target == "main" else -1], number)
        except (ProcessLookupError, IndexError):
            return False
        return True


def draw_kill(draw: Random, length: Length, reach: float, processes: int, has_workers: bool) -> Kill:
    """Draw a kill within the first part of a run's length; `reach` is its share."""
    name = draw.choice(["SIGKILL"] * 5 + ["SIGTERM"])
    if draw.random() < 0.5 or not any(length.operations):
        targets = ["all", "all", "main"] + ["last"] * (processes > 1) + ["worker"] * has_workers
        return Kill(name, draw.choice(targets), seconds=draw.random() * reach * length.seconds)
    last = processes > 1 and draw.random() < 0.3
    operations = length.operations[-1 if last else 0]
    names_only = draw.random() < 0.6
    count = operations.count("n") if names_only else len(operations)
    target = ("all, by " if draw.random() < 0.6 else "") + ("last" if last else "main")
    return Kill(name, target, operation=draw.randrange(max(1, round(reach * count))), names_only=names_only)


def send_in_time(kill: Kill, run: Any) -> bool:
    """Send a signal that is due at a time; return False if the run has ended before, or sends its own."""
    if kill.operation is not None:
        return False
    end = time.monotonic() + kill.seconds
    while time.monotonic() < end and not run.has_ended:
        time.sleep(0.001)
    return not run.has_ended and kill.send(run)
