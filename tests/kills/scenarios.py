"""What is killed: programs, their inputs, and what their runs must have in common with undisturbed ones."""

import json
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.helpers.launcher import PRETRAIN, Launcher, Program
from tests.kills.moments import Kill, Length

LIMIT = 180  # seconds, many times what a run takes; one that takes longer is stuck
DUMP_STACKS = "import faulthandler, signal\nfaulthandler.register(signal.SIGUSR1)"  # of a run that is stuck


@dataclass
class Findings:
    """How a run that was killed differs from an undisturbed one."""

    lost: int = 0  # sentences
    repeated: int = 0
    unequal: list[str] = field(default_factory=list)  # a text each

    def count_sentences(self, read: Iterable[Any], expected: Iterable[Any]) -> None:
        """Compare two bags of sentences."""
        has, should = Counter(read), Counter(expected)
        self.lost += (should - has).total()
        self.repeated += (has - should).total()


class Scenario(ABC):
    """A program that is killed and started again with the same arguments.

    Attributes:
        name: in the results.
        share: of a thousand kills.
        reach: a kill comes within this share of an undisturbed run's length. Where a killed run keeps what it
            has done, a small share lets several kills hit one run.
        processes: numbers of processes: one is drawn at each start, and the undisturbed run has the first.
        has_workers: the processes have others that read text for them.
        program: what is started.
        hook: code that each process executes first; tests inject faults by it.
    """

    name: str
    share: int
    reach = 0.25
    processes: tuple[int, ...] = (1,)
    has_workers = False
    program: Program = PRETRAIN
    hook = ""
    limit = LIMIT
    passes_codes = True  # a start's exit code is that of its process

    def __init__(self, launcher: Launcher, folder: Path) -> None:
        self.launcher, self.folder = launcher, folder
        self.length = Length(0.0, [])

    # ---- what each kind of program defines

    @abstractmethod
    def write_inputs(self) -> None:
        """Write what all runs read into `folder`."""

    @abstractmethod
    def arguments(self, output: Path) -> list[Any]:
        """The command line of a run."""

    @abstractmethod
    def compare(self, output: Path, expected: Path) -> Findings:
        """Compare a run that has ended with an undisturbed one."""

    def prepare(self, output: Path) -> None:  # noqa: B027 (most have nothing to do)
        """Make the state in which the first start of a run finds its folder."""

    # ---- runs

    @property
    def whole(self) -> Path:
        """The folder of the undisturbed run."""
        return self.folder / "whole"

    def begin(self) -> None:
        """Write the inputs and make the undisturbed run; raises RuntimeError where it fails."""
        self.folder.mkdir(parents=True)
        self.write_inputs()
        self.prepare(self.whole)
        processes = self.processes[0]
        logs = [self.folder / f"operations-{rank}" for rank in range(processes)]
        names = [str(log) for log in logs]
        hook = (
            f"from tests.kills.operations import count_operations as c; c({str(self.whole)!r}, {names}[rank])"
        )
        self.length = self.time(self.launch_forks(self.whole, processes, hook))
        self.length.operations = [log.read_text(encoding="utf-8") for log in logs]

    def time(self, run: Any) -> Length:
        """Wait for an undisturbed run."""
        start = time.monotonic() if run.pids else 0.0  # it is forked when the server has imported everything
        codes = run.wait(self.limit)
        if any(codes):
            raise RuntimeError(f"{self.name}: the undisturbed run ended with {codes}: {run.err}")
        return Length(time.monotonic() - start, [])

    def start(self, output: Path, processes: int, kill: Kill | None, marker: Path) -> Any:
        """Start a run, which sends itself a kill that is due at a file operation."""
        own = kill.hook(output, marker) if kill is not None else ""
        hook = "\n".join((DUMP_STACKS, self.hook, own))
        return self.launch_forks(output, processes, hook)

    def launch_forks(self, output: Path, processes: int, hook: str) -> Any:
        return self.launcher.start(self.arguments(output), processes, hook, self.program)


# ---- comparing files


def files_of(folder: Path) -> dict[str, Path]:
    return {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}


def unequal_files(folder: Path, expected: Path, ignored: Iterable[str] = ()) -> Iterator[str]:
    """Say which files differ. JSON files may differ in the `ignored` entries, and in the folder's name."""
    files, others = files_of(folder), files_of(expected)
    for name in sorted({*files, *others}):
        if name not in files or name not in others:
            yield f"{name} is {'missing' if name in others else 'left over'}"
        elif ignored and name.endswith(".json"):
            if _without(files[name], folder, ignored) != _without(others[name], expected, ignored):
                yield f"{name} differs"
        elif files[name].read_bytes() != others[name].read_bytes():
            yield f"{name} differs"


def _without(path: Path, folder: Path, ignored: Iterable[str]) -> Any:
    text = path.read_text(encoding="utf-8").replace(str(folder), "FOLDER")
    return json.loads(text, object_pairs_hook=lambda pairs: {k: v for k, v in pairs if k not in ignored})
