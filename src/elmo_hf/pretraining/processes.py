"""Several processes as one run: they start, fail and stop together, and an error is reported once."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import gather_object
from safetensors import SafetensorError
from torch.distributed import Store
from tqdm import tqdm

from elmo_hf.errors import ElmoError, is_out_of_memory, sentence_of, warn
from elmo_hf.files import locked_folder
from elmo_hf.kernels.products import has_bf16
from elmo_hf.pretraining.joining import COLLECTIVES, Watch, is_store_reached, join
from elmo_hf.pretraining.machines import (
    Place,
    common_settings,
    installed_versions,
    refuse_differences,
    this_place,
)
from elmo_hf.pretraining.settings import Settings
from elmo_hf.pretraining.trackers import check_trackers, keep_offline
from elmo_hf.threads import use_threads

STOPPED = 143  # exit code of a program that SIGTERM has ended
REPORTED = "reported"  # key of the store: an error has been printed on a machine
SEEN = "seen"  # key of the store: how many processes know that the main one has printed its error
LAST_SECONDS = 5.0
NO_BF16 = "this processor has no products in bfloat16, so --precision bf16 is slower than the default here."
PARENT = os.getppid()


@contextlib.contextmanager
def start_processes(settings: Settings) -> Iterator["Processes"]:
    """Join the other processes of the run. An error that all of them raise is raised by the main one only.

    Raises:
        ElmoError: the settings do not fit the number of processes, or a tracker is not installed.
    """
    tqdm.monitor_interval = 0  # no thread to look after bars, which warns where there is no memory for it
    processes = Processes(*connect(settings))
    watch = processes.watch(settings.timeout)
    accelerator = processes.accelerator
    on_cpu = accelerator.device.type == "cpu"
    if settings.threads is not None or on_cpu:
        use_threads(settings.threads)
    try:
        processes.meet(settings)
        check_processes(settings, processes.count)
        known, installed = LOGGER_TYPE_TO_CLASS, installed_trackers()
        processes.on_main_process(lambda: check_trackers(settings.trackers, known, installed))
        if settings.precision == "bf16" and on_cpu and not has_bf16():
            processes.warn(NO_BF16)
        yield processes
    except ElmoError:  # of all processes
        if accelerator.is_main_process:
            raise
        sys.exit(1)
    except Exception as error:  # of this process alone, or because another has ended
        processes.raise_alone(error)
    finally:
        if watch is not None:
            watch.stop()
        accelerator.end_training()


def connect(settings: Settings) -> tuple[Accelerator, Store | None]:
    """Join the other processes. Where they do not meet, one process of each machine says so."""
    try:
        store = join(settings.timeout)
    except ElmoError:
        if os.environ.get("LOCAL_RANK") == "0":
            raise
        sys.exit(1)
    return make_accelerator(settings), store


def make_accelerator(settings: Settings) -> Accelerator:
    keep_offline(settings.trackers)
    return Accelerator(
        cpu=not torch.accelerator.is_available(),  # otherwise several processes on CPUs do not connect
        mixed_precision=settings.precision,
        log_with=[name for name in settings.trackers if name in installed_trackers()] or None,
        project_dir=settings.output,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=COLLECTIVES)],
    )


def installed_trackers() -> list[str]:
    return [str(name) for name in get_available_trackers()]


def check_processes(settings: Settings, running: int) -> None:
    if settings.processes not in (None, running):
        raise ElmoError(
            f"processes is {settings.processes}, but {running} run; start them by `accelerate launch "
            f"--multi_gpu --num_processes {settings.processes}`, on CPUs, too."
        )
    if settings.rows % running:
        raise ElmoError(f"{settings.rows} rows cannot be shared evenly by {running} processes.")


# ---- failing together


class Processes:
    """The processes of a run. An error in one of them ends all, with one message.

    Where processes wait for each other, an error must not end one of them alone. `collect_errors` keeps it
    until `raise_errors`, which all processes call at the same point.
    """

    def __init__(self, accelerator: Accelerator, store: Store | None = None) -> None:
        self.accelerator, self.store, self.error = accelerator, store, ""
        self.count = accelerator.num_processes
        self.place = this_place(accelerator.process_index)
        self.places: list[Place] = []  # by process, after `meet`

    def meet(self, settings: Settings) -> None:
        """Refuse other packages or settings in any process. All processes must call it together."""
        self.places = gather_object([self.place])
        self.check_same(installed_versions(), "install the same version on all machines")
        self.check_same(common_settings(settings), "start all machines with the same settings")

    @contextlib.contextmanager
    def collect_errors(self) -> Iterator[None]:
        """Keep an error of this block for `raise_errors`."""
        try:
            yield
        except (OSError, ValueError, SafetensorError, MemoryError, RuntimeError) as error:
            sentence = say(error)
            if sentence is None:
                raise
            self.error = self.error or sentence

    def raise_errors(self) -> None:
        """Raise the first error of any process, in every process. All processes must call it together."""
        errors = gather_object([self.error])
        for place, error in zip(self.places, errors, strict=True):
            if error:
                raise ElmoError(f"{place}: {error}" if place.machine else error)

    def check_same(self, facts: dict[str, Any], to_do: str) -> None:
        """Refuse values that are not the same in all processes. All processes must call it together."""
        refuse_differences(self.places, gather_object([facts]), to_do)

    def raise_alone(self, error: Exception) -> NoReturn:
        """End this process by an error that the others do not know of. One process of a machine reports it.

        The others lose their connection to this one, which is no news if the reason has been reported.
        """
        sentence, is_lost = say(error), self.count > 1 and is_lost_connection(error)
        is_first = self.count == 1 or self._is_first_report()
        if not is_lost:
            self._let_others_see()
        if is_lost:
            sentence = "another process of the run has ended; --resume auto continues the run."
        elif sentence is None:
            raise error
        if not is_first:
            sys.exit(1)
        raise ElmoError(sentence) from error

    def _is_first_report(self) -> bool:
        """Whether no other process of this machine has reported an error, by the store."""
        own, key = str(self.accelerator.process_index), f"{REPORTED}/{self.place.machine}"
        try:
            if self.store is not None and not is_store_reached():  # torch would print its own stack
                return self._speaks_without_main()
            store = self._any_store()
            is_first = bool(store.compare_set(key, "", own).decode() == own)
            store.add(SEEN, 1)
            return is_first
        except RuntimeError:
            # The store has ended with the main process, which has not reported: that would have been seen.
            return self._speaks_without_main()

    def _let_others_see(self) -> None:
        """The store ends with the main process. Let it stay until the others, which lose their connection to
        this process now, have seen that the error is reported; but not for long."""
        if self.count > 1 and self.accelerator.is_main_process:
            with contextlib.suppress(RuntimeError):
                store = self._any_store()
                torch.distributed.destroy_process_group()
                end = time.monotonic() + LAST_SECONDS
                while store.add(SEEN, 0) < self.count and time.monotonic() < end:
                    time.sleep(0.05)

    def _any_store(self) -> Store:
        return self.store or torch.distributed.distributed_c10d._get_default_store()

    def watch(self, timeout: float) -> Watch | None:
        """Watch for processes that are lost without a word, until `stop`."""
        if self.store is None:
            return None
        return Watch(self.store, self.accelerator.process_index, self.count, timeout, self._end_at_once)

    def _end_at_once(self, lost: int | None) -> None:
        """From another thread, as this process may wait for ever. `lost` is None where the store is lost."""
        if lost or self._speaks_without_main():
            place = f" on {self.places[lost or 0]}" if self.places else ""
            warn(
                f"process {lost or 0}{place} gives no sign of life, so that the run ends; --resume auto "
                "continues it."
            )
        os._exit(1)

    def _speaks_without_main(self) -> bool:
        """Whether this process is the first of its machine, if the main one is not heard any more."""
        first = 1 if self.place.machine == 0 else 0
        return self.accelerator.is_main_process or self.accelerator.local_process_index == first

    @contextlib.contextmanager
    def locked(self, folder: Path) -> Iterator[None]:
        """Hold the lock of the run's folder, in the main process for all."""
        with contextlib.ExitStack() as stack:
            self.on_main_process(lambda: stack.enter_context(locked_folder(folder)))
            yield

    def on_main_process(self, action: Callable[[], Any]) -> None:
        """Run `action` in the main process while the others wait; its error is raised in all of them."""
        with self.collect_errors():
            if self.accelerator.is_main_process:
                action()
        self.raise_errors()

    def warn(self, sentence: str) -> None:
        """Print a warning, once."""
        if self.accelerator.is_main_process:
            warn(sentence)


def say(error: Exception) -> str | None:
    """An error of the input, the disk or the memory as a sentence; None for a fault of the program."""
    if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
        return (
            "a process that reads the text has been killed, or had no memory left; --resume auto continues."
        )
    if isinstance(error, RuntimeError) and not is_out_of_memory(error):
        return None
    is_known = isinstance(error, OSError | ValueError | SafetensorError | MemoryError | RuntimeError)
    return sentence_of(error) if is_known else None


def is_lost_connection(error: Exception) -> bool:
    """Whether another process has left a collective operation (gloo, NCCL, or the store of both)."""
    signs = ("gloo", "NCCL", "closed by peer", "reset by peer")
    is_of_torch = isinstance(error, RuntimeError) and not is_out_of_memory(error)
    is_named = isinstance(error, torch.distributed.DistError) or any(sign in str(error) for sign in signs)
    return is_of_torch and is_named


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
