"""Several processes as one run: they start, fail and stop together, and an error is reported once."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import gather_object
from safetensors import SafetensorError

from elmo_hf.errors import ElmoError, program_name
from elmo_hf.pretraining.settings import Settings

STOPPED = 143  # exit code of a program that SIGTERM has ended
TIMEOUT = timedelta(hours=12)  # of the other processes while the main one evaluates or saves
PARENT = os.getppid()


@contextlib.contextmanager
def start_processes(settings: Settings) -> Iterator["Processes"]:
    """Join the other processes of the run. An error that all of them raise is raised by the main one only.

    Raises:
        ElmoError: the settings do not fit the number of processes, or a tracker is not installed.
    """
    accelerator = make_accelerator(settings)
    try:
        check_processes(settings, accelerator.num_processes)
        check_trackers(settings, len(accelerator.log_with))
        yield Processes(accelerator)
    except ValueError:
        if accelerator.is_main_process:
            raise
        sys.exit(1)
    finally:
        accelerator.end_training()


def make_accelerator(settings: Settings) -> Accelerator:
    return Accelerator(
        cpu=not torch.accelerator.is_available(),  # otherwise several processes on CPUs do not connect
        mixed_precision=settings.precision,
        log_with=settings.trackers or None,
        project_dir=settings.output,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=TIMEOUT)],
    )


def check_processes(settings: Settings, running: int) -> None:
    if settings.processes not in (None, running):
        raise ElmoError(
            f"processes is {settings.processes}, but {running} run; start them by `accelerate launch "
            f"--multi_gpu --num_processes {settings.processes}`, on CPUs, too."
        )
    if settings.rows % running:
        raise ElmoError(f"{settings.rows} rows cannot be shared evenly by {running} processes.")


def check_trackers(settings: Settings, available: int) -> None:
    """accelerate drops trackers that are not installed without a word."""
    if available < len(set(settings.trackers)):
        raise ElmoError(f"not all of the trackers {', '.join(settings.trackers)} are installed here.")


# ---- failing together


class Processes:
    """The processes of a run. An error in one of them ends all, with one message.

    Where processes wait for each other, an error must not end one of them alone. `collect_errors` keeps it
    until `raise_errors`, which all processes call at the same point.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator, self.error = accelerator, ""

    @contextlib.contextmanager
    def collect_errors(self) -> Iterator[None]:
        """Keep an error of this block for `raise_errors`."""
        try:
            yield
        except (OSError, ValueError, SafetensorError) as error:
            self.error = self.error or str(error)

    def raise_errors(self) -> None:
        """Raise the first error of any process, in every process. All processes must call it together."""
        for error in gather_object([self.error]):
            if error:
                raise ElmoError(error)

    def on_main_process(self, action: Callable[[], Any]) -> None:
        """Run `action` in the main process while the others wait; its error is raised in all of them."""
        with self.collect_errors():
            if self.accelerator.is_main_process:
                action()
        self.raise_errors()

    def warn(self, sentence: str) -> None:
        """Print a warning, once."""
        if self.accelerator.is_main_process:
            print(f"{program_name()}: {sentence}", file=sys.stderr)


# ---- stopping


class StopSignal:
    """True after SIGTERM or Ctrl-C. A second signal ends the process at once."""

    def __init__(self) -> None:
        self.is_set = False

    def __bool__(self) -> bool:
        return self.is_set or is_orphan()

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Handle both signals in this block."""
        handlers = {number: signal.signal(number, self._handle) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _handle(self, number: int, _: Any) -> None:
        self.is_set = True
        signal.signal(number, signal.SIG_DFL)


def is_orphan() -> bool:
    """`accelerate launch` passes no signal on to a single process; the process sees only that it has gone."""
    return "ACCELERATE_MIXED_PRECISION" in os.environ and os.getppid() != PARENT
