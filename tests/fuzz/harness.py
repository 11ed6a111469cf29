"""Runs a door's cases in a worker process, one after the other, and says what came of each.

A door is a way into the package for files from anywhere: how a good input is made, how it is damaged, and the
function that reads it. A case has a number, and with it a random generator of its own, so that

    python -m tests.fuzz --door hdf5 --case 1234 --keep FOLDER

gives the same input again. The worker is a fork, in which all libraries are loaded. It writes the number of a
shared memory before it starts it: if it crashes or is killed for a hang, that case is the cause, and another
worker goes on with the next.
"""

import faulthandler
import gc
import json
import mmap
import os
import random
import re
import resource
import select
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub.constants
import psutil

from tests.fuzz import good, watch

HANG_SECONDS = 10.0  # of the processor
WAIT_SECONDS = 60.0  # of a case that waits for something, on a machine that is busy with other things
PEAK_MEGABYTES = 2048
ADDRESS_SPACE = 4 << 30  # that a case may add
IN_FLIGHT = struct.Struct("qdd")  # the case's number, the time and the processor time of its start
Outcome = dict[str, Any]


@dataclass
class Case:
    """One damaged input: `input` holds it, `output` is where results may be written."""

    folder: Path
    outside: Path  # holds files with a marker, which nothing may read
    number: int
    rng: random.Random

    @property
    def input(self) -> Path:
        return self.folder / "in"

    @property
    def output(self) -> Path:
        return self.folder / "out"


@dataclass(frozen=True)
class Door:
    """prepare: writes a good input into an empty folder. damage: makes a bad one of it, and says how. enter:
    reads it as a command does, and returns what it read. may_write: patterns of what may be written beside
    `out/`, such as "in/README.md"; it may be there after a refusal as well."""

    name: str
    prepare: Callable[[Path], object]
    damage: Callable[[Case], str]
    enter: Callable[[Case], object]
    may_write: tuple[str, ...] = ()


class Refusal(Exception):
    """A command's exit code 1 with this sentence on stderr, for doors that run a whole command."""


class Fault(Exception):
    """What a door finds wrong with what was accepted: the kind of the fault, and a sentence."""


# ---- the worker


def work(door: Door, session: Path, numbers: Iterable[int], seed: int, pipe: int, flight: mmap.mmap) -> None:
    become_worker(session)
    template = session / "good"
    if not template.exists():  # made where the cases are, as some files hold their paths
        shutil.rmtree(session / "case", ignore_errors=True)
        (session / "case" / "in").mkdir(parents=True)
        door.prepare(session / "case" / "in")
        (session / "case" / "in").rename(template)
    reading = watch.Watch(session, door.may_write)
    limit = psutil.Process().memory_info().vms + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    gc.collect()
    gc.freeze()
    for number in numbers:
        case = Case(
            session / "case", session / "outside", number, random.Random(f"{seed} {door.name} {number}")
        )
        outcome = run_case(door, case, template, reading, flight)
        os.write(pipe, json.dumps(outcome).encode() + b"\n")


def become_worker(session: Path) -> None:
    for name in ("tmp", "cwd", "cache"):
        (session / name).mkdir(exist_ok=True)
    tempfile.tempdir = os.environ["TMPDIR"] = str(session / "tmp")
    cache = os.environ["MPLCONFIGDIR"] = str(session / "cache")
    datasets.config.HF_DATASETS_CACHE = datasets.config.HF_MODULES_CACHE = Path(cache)
    datasets.config.HF_HUB_OFFLINE = huggingface_hub.constants.HF_HUB_OFFLINE = True
    os.chdir(session / "cwd")
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    stack = (session / "stack").open("w")
    faulthandler.enable(stack)
    faulthandler.register(signal.SIGUSR1, stack)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    warnings.simplefilter("ignore")


def run_case(door: Door, case: Case, template: Path, reading: watch.Watch, flight: mmap.mmap) -> Outcome:
    shutil.rmtree(case.folder, ignore_errors=True)
    shutil.copytree(template, case.input, symlinks=True)
    case.output.mkdir()
    description = door.damage(case)
    (case.folder.parent / "description").write_text(description, encoding="utf-8", errors="replace")
    before = reading.listing()
    watch.reset_peak()
    reading.faults = []
    start = time.perf_counter()
    flight[:] = IN_FLIGHT.pack(case.number, time.monotonic(), time.process_time())
    result, message, faults, returned = enter(door, case, reading)
    seconds, peak = time.perf_counter() - start, watch.peak_megabytes()
    flight[:] = IN_FLIGHT.pack(case.number, 0, 0)
    if peak > PEAK_MEGABYTES:
        faults.append(("memory", f"over {PEAK_MEGABYTES} MB: {message[:100]}"))
    faults += reading.faults + reading.changes(before, reading.listing(), result == "accepted")
    faults += [("outside", "a marker from outside came back")] * has_marker(case, returned, message)
    return outcome_of(case.number, result, message, list(dict.fromkeys(faults)), seconds, peak, description)


def enter(door: Door, case: Case, reading: watch.Watch) -> tuple[str, str, list[tuple[str, str]], object]:
    try:
        reading.is_active = True
        try:
            returned = door.enter(case)
        finally:
            reading.is_active = False
        return "accepted", "", [], returned
    except (ValueError, OSError, Refusal) as error:
        message = str(error)
        unclear = watch.unclear(message, case.folder)
        return "refused", message, [("unclear", f"{unclear}: {describe(error)}")] if unclear else [], None
    except Fault as error:
        return "accepted", "", [error.args], None
    except BaseException as error:
        message = describe(error)
        return "traceback", message, [("traceback", message)], None


def outcome_of(
    number: int, result: str, message: str, faults: list, seconds: float, peak: int = 0, description: str = ""
) -> Outcome:
    outcome = {"number": number, "description": description, "result": result, "message": message[:2000]}
    return outcome | {"faults": faults, "seconds": seconds, "peak": peak}


def describe(error: BaseException) -> str:
    """The error, and where it came from: the last frame of this package, and the last of all."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/elmo_hf/" in frame.filename or "/training/" in frame.filename]
    places = [f"{short(frame.filename)}:{frame.lineno} {frame.name}" for frame in [*own[-1:], *frames[-1:]]]
    return f"{type(error).__name__}: {str(error)[:300]!r} in {', '.join(dict.fromkeys(places))}"


def short(filename: str) -> str:
    return re.sub(r"^.*/(src|site-packages|python3\.\d+|tests)/", "", filename)


def has_marker(case: Case, returned: object, message: str) -> bool:
    texts = [message.encode("utf-8", "replace")]
    if isinstance(returned, str | bytes):
        texts.append(returned if isinstance(returned, bytes) else returned.encode("utf-8", "replace"))
    files = [path for path in case.output.rglob("*") if path.is_file() and not path.is_symlink()]
    texts += [path.read_bytes() for path in files if path.stat().st_size < 1 << 26]
    return any(marker in text for text in texts for marker in watch.MARKED_BYTES)


# ---- the process that watches it


def run_door(door: Door, numbers: range, session: Path, seed: int) -> Iterator[Outcome]:
    """The outcome of each case. session: an empty folder, for what the cases need."""
    session = session.resolve()
    flight = mmap.mmap(-1, IN_FLIGHT.size)
    if not (session / "outside").exists():
        good.write_secrets(session / "outside")
    while numbers:
        flight[:] = IN_FLIGHT.pack(-1, 0, 0)
        pid, lines = start_worker(door, session, numbers, seed, flight)
        cause = ""
        while True:
            ready, _, _ = select.select([lines], [], [], 0.2)
            if ready:
                line = lines.readline()
                if not line.endswith(b"\n"):
                    break
                outcome = json.loads(line)
                numbers = numbers[numbers.index(outcome["number"]) + 1 :]
                yield outcome
            elif is_overdue(pid, flight):
                kill(pid, session / "stack")
                cause = "hang"
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        lines.close()
        if not numbers:
            break
        number = IN_FLIGHT.unpack(flight[:])[0]
        if number not in numbers:
            raise RuntimeError(
                f"the worker of {door.name} ended with {code}:\n{(session / 'stack').read_text()}"
            )
        detail = f"{cause or f'exit code {code}'} in {place_of_stack(session / 'stack')}"
        seconds = HANG_SECONDS * bool(cause)
        description = (session / "description").read_text(encoding="utf-8")
        faults = [(cause or "crash", detail)]
        yield outcome_of(number, cause or "crash", detail, faults, seconds, description=description)
        numbers = numbers[numbers.index(number) + 1 :]


def start_worker(door: Door, session: Path, numbers: range, seed: int, flight: mmap.mmap) -> tuple[int, Any]:
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads that a fork lacks
        pid = os.fork()
    if pid:
        os.close(write)
        return pid, os.fdopen(read, "rb", buffering=0)
    code = 1
    try:
        os.close(read)
        work(door, session, numbers, seed, write, flight)
        code = 0
    except BaseException:
        (session / "stack").write_text(traceback.format_exc())
    finally:
        os._exit(code)


def kill(pid: int, stack: Path) -> None:
    """A worker that hangs; first it writes where it is."""
    os.kill(pid, signal.SIGUSR1)
    end = time.monotonic() + 5
    while not stack.read_text(errors="replace").endswith("\n") and time.monotonic() < end:
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)


def is_overdue(pid: int, flight: mmap.mmap) -> bool:
    _, start, processor_start = IN_FLIGHT.unpack(flight[:])
    if not start:
        return False
    times = psutil.Process(pid).cpu_times()
    processor = times.user + times.system - processor_start
    return processor > HANG_SECONDS or time.monotonic() - start > WAIT_SECONDS


def place_of_stack(path: Path) -> str:
    """Where a worker was, by faulthandler's lines: the innermost frame, and that of this package."""
    frames = re.findall(r'File "(.*)", line (\d+) in (\S+)', path.read_text(errors="replace"))
    own = [frame for frame in frames if "/elmo_hf/" in frame[0]]
    return (
        ", ".join(f"{short(file)}:{line} {name}" for file, line, name in [*frames[:1], *own[:1]])
        or "no stack"
    )
