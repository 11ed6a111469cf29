"""Several processes as one run: they start together, end together, and what goes wrong is said once."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, NoReturn

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import gather_object
from safetensors import SafetensorError

from elmo_hf.pretraining.settings import Settings

STOPPED = 143  # what a shell says of a program that SIGTERM has ended
LONGEST_WAIT = timedelta(hours=12)  # for the main process, while it judges or saves
PARENT = os.getppid()


def make_accelerator(settings: Settings) -> Accelerator:
    """Also refuses what does not fit the number of processes, which is known here first."""
    try:
        accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(),  # or several processes would not find each other
            mixed_precision=settings.precision,
            log_with=settings.trackers or None,
            project_dir=settings.output,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=LONGEST_WAIT)],
        )
    except ValueError as error:  # of trackers that nobody has heard of
        sys.exit(f"pretrain.py: {error}")
    try:
        check_processes(settings, accelerator.num_processes)
        check_trackers(settings, len(accelerator.log_with))
    except ValueError as error:
        end(accelerator, error)
    return accelerator


def check_processes(settings: Settings, running: int) -> None:
    wanted = settings.processes
    if wanted not in (None, running):
        raise ValueError(
            f"processes is {wanted}, but {running} run; start them by `accelerate launch --multi_gpu "
            f"--num_processes {wanted}`, on CPUs, too."
        )
    if settings.rows % running:
        raise ValueError(f"{settings.rows} rows cannot be shared evenly by {running} processes.")


def check_trackers(settings: Settings, available: int) -> None:
    """accelerate leaves out in silence what is not installed."""
    if available < len(set(settings.trackers)):
        raise ValueError(f"not all of the trackers {', '.join(settings.trackers)} are installed here.")


# ---- failing together


class Together:
    """What goes wrong in one process ends all of them, with one sentence."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator, self.fault = accelerator, ""

    @contextlib.contextmanager
    def noticing(self) -> Iterator[None]:
        """What goes wrong in here is said by `raise_faults`, later, in all processes."""
        try:
            yield
        except (OSError, ValueError, SafetensorError) as error:
            self.fault = self.fault or str(error)

    def raise_faults(self) -> None:
        """All processes come here together."""
        for fault in gather_object([self.fault]):
            if fault:
                raise ValueError(fault)

    def by_main(self, do: Callable[[], Any]) -> None:
        """What the main process does for all, while the others wait."""
        with self.noticing():
            if self.accelerator.is_main_process:
                do()
        self.raise_faults()


def end(accelerator: Accelerator, error: ValueError) -> NoReturn:
    """All processes have met the same error; one of them says it."""
    sys.exit(f"pretrain.py: {error}" if accelerator.is_main_process else 1)


# ---- stopping


class Stop:
    """Whether this process has been told to stop. Told twice, it ends at once."""

    def __init__(self) -> None:
        self.told = False

    def __bool__(self) -> bool:
        return self.told or is_orphan()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._hear) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, number: int, _: Any) -> None:
        self.told = True
        signal.signal(number, signal.SIG_DFL)


def is_orphan() -> bool:
    """`accelerate launch` passes no signal on to a single process; when it is gone, we are told by that."""
    return "ACCELERATE_MIXED_PRECISION" in os.environ and os.getppid() != PARENT
