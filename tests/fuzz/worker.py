"""What runs in a fork: the cases of a door, one after the other, and what came of each.

The worker writes the number of a case into shared memory before it starts it, and the outcome into a pipe.
"""

import contextlib
import faulthandler
import gc
import io
import json
import mmap
import os
import random
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub.constants
import psutil

from elmo_hf.errors import one_sentence
from tests.fuzz import watch
from tests.fuzz.door import Case, Door, Fault, Refusal

PROGRAM = "fuzz"
PEAK_MEGABYTES = 2048
ADDRESS_SPACE = 4 << 30  # that a case may add
IN_FLIGHT = struct.Struct("qdd")  # the case's number, the time and the processor time of its start
Outcome = dict[str, Any]


def work(door: Door, session: Path, numbers: Iterable[int], seed: int, pipe: int, flight: mmap.mmap) -> None:
    become_worker(session)
    template = session / "good"
    if not template.exists():  # made where the cases are, as some files hold their paths
        shutil.rmtree(session / "case", ignore_errors=True)
        (session / "case" / "in").mkdir(parents=True)
        door.prepare(session / "case" / "in")
        (session / "case" / "in").rename(template)
    reading = watch.Watch(session, door.may_write, door.follows_links)
    limit = psutil.Process().memory_info().vms + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    gc.collect()
    gc.freeze()
    for number in numbers:
        rng = random.Random(f"{seed} {door.name} {number}")
        case = Case(session / "case", session / "outside", number, rng)
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
    flight[:] = IN_FLIGHT.pack(case.number, 0, 0)
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
    """The result, a refusal's sentence as a command prints it, faults, and what was read."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), one_sentence(PROGRAM):
            reading.is_active = True
            try:
                returned = door.enter(case)
            finally:
                reading.is_active = False
        return "accepted", "", [], returned
    except Fault as error:
        return "accepted", "", [error.args], None
    except Refusal as error:
        return "refused", str(error), unclear(str(error), door, case, error.__cause__ or error), None
    except BaseException as error:
        sentence = sentence_in(errors.getvalue(), PROGRAM) if isinstance(error, SystemExit) else None
        if sentence is not None and error.code == 1:
            return "refused", sentence, unclear(sentence, door, case, error.__context__ or error), None
        return "traceback", describe(error), [("traceback", describe(error))], None


def unclear(sentence: str, door: Door, case: Case, error: BaseException) -> list[tuple[str, str]]:
    fault = watch.unclear(sentence, case.folder, door.places)
    return [("unclear", f"{fault}: {sentence[:300]!r} in {place_of(error)}")] if fault else []


def sentence_in(errors: str, program: str) -> str | None:
    """What a program has said at its end on stderr, which may have had a progress bar before."""
    before, name, sentence = errors.replace("\r", "\n").rpartition(f"{program}: ")
    return sentence.removesuffix("\n") if name and (not before or before.endswith("\n")) else None


def outcome_of(
    number: int, result: str, message: str, faults: list, seconds: float, peak: int = 0, description: str = ""
) -> Outcome:
    outcome = {"number": number, "description": description, "result": result, "message": message[:2000]}
    return outcome | {"faults": faults, "seconds": seconds, "peak": peak}


def describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:300]!r} in {place_of(error)}"


def place_of(error: BaseException) -> str:
    """Where an error came from: the last frame of this package, and the last of all."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/elmo_hf/" in frame.filename or "/training/" in frame.filename]
    places = [f"{short(frame.filename)}:{frame.lineno} {frame.name}" for frame in [*own[-1:], *frames[-1:]]]
    return ", ".join(dict.fromkeys(places))


def short(filename: str) -> str:
    return re.sub(r"^.*/(src|site-packages|python3\.\d+|tests)/", "", filename)


def has_marker(case: Case, returned: object, message: str) -> bool:
    texts = [message.encode("utf-8", "replace")]
    if isinstance(returned, str | bytes):
        texts.append(returned if isinstance(returned, bytes) else returned.encode("utf-8", "replace"))
    files = [path for path in case.output.rglob("*") if path.is_file() and not path.is_symlink()]
    texts += [path.read_bytes() for path in files if path.stat().st_size < 1 << 26]
    return any(marker in text for text in texts for marker in watch.MARKED_BYTES)
