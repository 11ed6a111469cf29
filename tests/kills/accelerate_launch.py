"""The scenario of a true `accelerate launch training/pretrain.py`, in one process and in two."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from tests.helpers.launcher import read_lines
from tests.helpers.paths import REPOSITORY
from tests.kills.moments import Kill
from tests.kills.pretraining import Pretraining

LAUNCH = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]


class LaunchedRun:
    """A run of `accelerate launch`, with what a run of the tests' launcher offers."""

    def __init__(self, command: list[str], log: Path) -> None:
        self.log, self._seen = log, set[psutil.Process]()
        environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        with log.open("w") as file:
            self.process = subprocess.Popen(
                command, cwd=REPOSITORY, stdout=file, stderr=file, env=environment, start_new_session=True
            )
        self._seen.add(psutil.Process(self.process.pid))

    def _living(self) -> list[psutil.Process]:
        """All processes, also those whose parent has gone; they have sessions of their own."""
        for process in [*self._seen]:
            try:
                self._seen |= {*process.children(recursive=True)}
            except psutil.NoSuchProcess:
                self._seen.discard(process)
        return [p for p in self._seen if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]

    @property
    def pids(self) -> list[int]:
        """The launcher first, a process that trains last, if there is one yet."""
        return [self.process.pid, *self._trainers()[:1]]

    def _trainers(self) -> list[int]:
        living = self._living()
        scripts = [p for p in living if p.pid != self.process.pid and "training/pretrain.py" in p.cmdline()]
        return sorted(p.pid for p in scripts if p.ppid() not in {other.pid for other in scripts})

    @property
    def workers(self) -> list[int]:
        trainers = self._trainers()
        return sorted(p.pid for p in self._living() if p.ppid() in trainers)

    def signal_all(self, number: signal.Signals) -> None:
        for process in self._living():
            process.send_signal(number)

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None and not self._living()

    def wait(self, seconds: float) -> list[int]:
        end = time.monotonic() + seconds
        while not self.has_ended:
            if time.monotonic() > end:
                raise TimeoutError
            time.sleep(0.05)
        return [self.process.returncode]

    @property
    def living(self) -> list[int]:
        return [process.pid for process in self._living()]

    @property
    def err(self) -> str:
        return self.log.read_text(errors="replace")


class AccelerateLaunch(Pretraining):
    name = "pretraining, accelerate launch"
    share = 12
    passes_codes = False

    def launch(self, output: Path, processes: int) -> LaunchedRun:
        kind = ["--multi_gpu", "--num_processes", str(processes)] if processes > 1 else ["--cpu"]
        arguments = ["training/pretrain.py", *map(str, self.arguments(output))]
        return LaunchedRun([*LAUNCH, *kind, *arguments], self.folder / f"{output.name}.txt")

    def begin(self) -> None:
        self.folder.mkdir(parents=True)
        self.write_inputs()
        run = self.start(self.whole, self.processes[0])
        self.length = self.time(run)

    def start(self, output: Path, processes: int, kill: Kill | None = None, marker: Path = Path()) -> Any:
        """Start a run, and wait until it has begun to train: before that it only loads modules."""
        starts = self._starts(output)
        run = self.launch(output, processes)
        self._wait_for_start(run, output, starts)
        return run

    def _wait_for_start(self, run: LaunchedRun, output: Path, starts: int) -> None:
        end = time.monotonic() + self.limit
        while not run.has_ended and self._starts(output) <= starts and time.monotonic() < end:
            time.sleep(0.02)

    def _starts(self, output: Path) -> int:
        """A run that is resumed at its beginning writes its log anew; then it is killed somewhat later."""
        return sum(entry["kind"] in ("start", "resume") for entry in read_lines(output / "log.jsonl"))


class AccelerateLaunchTwo(AccelerateLaunch):
    name = "pretraining, accelerate launch, 2 processes"
    processes = (2,)
