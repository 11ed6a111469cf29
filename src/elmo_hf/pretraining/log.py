"""The log of a run: `log.jsonl`, a progress bar, and accelerate's trackers.

`log.jsonl` has one JSON object a line. Its "kind" is start, step, evaluation, resume or end; `NUMBERS` lists
the keys that readers rely on. A killed run may leave an unfinished last line, and steps that it repeats after
it has been resumed; `read_log` leaves both out.
"""

import json
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from reprlib import repr as short
from typing import Any

from accelerate import Accelerator
from tqdm import tqdm

from elmo_hf.errors import ElmoError
from elmo_hf.files import append_line, read_lines, whole_file

LOG = "log.jsonl"
# The numbers that an entry of each kind must have. Other kinds and keys may be there, and are not checked.
NUMBERS = {
    "start": (),
    "resume": ("step",),
    "step": ("step", "loss", "words", "words_per_second"),
    "evaluation": ("step", "forward", "backward", "mean"),
}
MAX_VALUE = 1e30  # of a loss, a perplexity, a number of words; no axis shows more
Entry = dict[str, Any]


# ---- writing


class RunLog:
    """Writes the log and shows the progress bar, in the main process only.

    Args:
        run: the run's folder.
        trackers: names of accelerate's trackers, such as "tensorboard".
        total_words: words that the whole run will read, if known.
    """

    def __init__(
        self, accelerator: Accelerator, run: Path, trackers: list[str], total_words: int | None
    ) -> None:
        self.accelerator = accelerator
        self.is_main = accelerator.is_main_process
        self.path, self.has_trackers, self.total_words = run / LOG, bool(trackers), total_words
        self.bar: Any = None
        self.output_error: OSError | None = None
        self.interval = Interval()

    def open(self, step: int, words: int, settings: dict[str, Any]) -> None:
        """Start to log after `step` steps and `words` words; entries of later steps are removed."""
        if self.is_main and os.path.lexists(self.path):
            cut_log(self.path, step)
        if self.has_trackers:
            plain = {name: value for name, value in settings.items() if isinstance(value, int | float | str)}
            # A resumed run goes on under its name.
            name = self.path.parent.resolve().name
            named = {"trackio": {"name": name, "resume": "allow"}, "wandb": {"name": name}}
            self.accelerator.init_trackers("elmo", config=plain, init_kwargs=named)
        self.bar = tqdm(
            total=self.total_words,
            initial=words,
            unit=" words",
            unit_scale=True,
            disable=not self.is_main,
            dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else 30,  # keeps a log file of stderr small
        )
        self.interval = Interval()

    def set_total(self, words: int | None) -> None:
        """Change the number of words that the whole run will read."""
        self.bar.total = words

    def write(self, kind: str, **values: Any) -> None:
        """Append an entry, and pass the numbers of steps and evaluations to the trackers."""
        if not self.is_main:
            return
        append_line(self.path, json.dumps({"kind": kind, **values}, ensure_ascii=False, allow_nan=False))
        if self.has_trackers and kind in ("step", "evaluation"):
            text = f"{values['text']}/" if "text" in values else ""
            numbers = {f"{kind}/{text}{name}": value for name, value in values.items() if is_number(value)}
            self.accelerator.log(numbers, step=values["step"])

    def count_step(self, losses: dict[str, float], words: int, waited: float) -> None:
        """Add a step to the interval. waited: seconds spent waiting for text, since the run's start."""
        self.interval.add(losses, words, waited)
        with self._output():
            self.bar.update(words)

    def write_step(self, **values: Any) -> None:
        """Write a step entry with the means of the interval, and start the next interval."""
        means = self.interval.means()
        self.write("step", **values, **means)
        perplexity = math.exp(min(means["loss"], 50))
        summary = f"loss {means['loss']:.3f}, perplexity {perplexity:.1f}, waited {means['waited']:.1%}"
        self.bar.set_postfix_str(summary, refresh=False)
        self.interval = Interval(self.interval.waited)

    def print(self, sentence: str) -> None:
        """Print a line above the progress bar."""
        if self.is_main:
            with self._output():
                self.bar.write(sentence)

    def close(self) -> None:
        if self.bar is not None:
            with self._output():
                self.bar.close()

    @contextmanager
    def _output(self) -> Iterator[None]:
        """A run goes on when its output cannot be written, as in `| head`, and reports it at its end."""
        try:
            yield
        except OSError as error:
            self.output_error = self.output_error or error

    def raise_output_error(self) -> None:
        if self.output_error is not None:
            raise self.output_error


class Interval:
    """Sums over the steps since the last step entry of the log."""

    def __init__(self, waited: float = 0.0) -> None:
        self.start, self.words, self.steps = time.perf_counter(), 0, 0
        self.waited_before = self.waited = waited
        self.sums: dict[str, float] = {}

    def add(self, losses: dict[str, float], words: int, waited: float) -> None:
        self.words, self.steps, self.waited = self.words + words, self.steps + 1, waited
        self.sums = {name: self.sums.get(name, 0.0) + value for name, value in losses.items()}

    def means(self) -> dict[str, float]:
        """Mean losses, words per second, and the share of the time spent waiting for text."""
        seconds = time.perf_counter() - self.start
        means = {name: value / self.steps for name, value in self.sums.items()}
        means["words_per_second"] = round(self.words / seconds, 1)
        means["waited"] = round((self.waited - self.waited_before) / seconds, 4)
        return means


def is_number(value: Any) -> bool:
    """Whether it is a finite number that fits into a float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def cut_log(path: Path, step: int) -> None:
    """Remove the entries of later steps, the end entry and an unfinished last line; all entries at step 0."""
    kept = [
        line
        for line, entry in _parse_lines(path)
        if step and entry.get("step", 0) <= step and entry["kind"] != "end" and line.endswith(b"\n")
    ]
    if step and not kept:
        raise ElmoError(f"{path} has no entry of the first {step:,} steps, so it is damaged; move it away.")
    with whole_file(path) as partial:
        partial.write_bytes(b"".join(kept))


# ---- reading


def log_path(run: str | Path) -> Path:
    """Return the log of a run's folder; a file is taken to be the log itself."""
    path = Path(run)
    return path / LOG if path.is_dir() else path


def read_log(run: str | Path) -> list[Entry]:
    """Read the entries of a run's log, without unfinished lines and repeated steps.

    Args:
        run: the run's folder, or its log.

    Raises:
        ElmoError: there is no log, it is empty, or a line of it is damaged.
    """
    path = log_path(run)
    if not path.is_file():
        raise ElmoError(f"there is no log {path}; name the folder of a pretraining run.")
    entries = [entry for _, entry in _parse_lines(path)]
    if not entries:
        raise ElmoError(f"{path} is empty; the run has written nothing yet.")
    return _without_repeated_steps(entries)


def _parse_lines(path: Path) -> Iterator[tuple[bytes, Entry]]:
    """The lines with their entries, without a last one that a kill has cut off."""
    for number, line in enumerate(read_lines(path), start=1):
        if line.endswith(b"\n") or _parse_object(line) is not None:
            yield line, _parse_entry(line, f"{path}, line {number}")


def _parse_object(line: bytes) -> Entry | None:
    try:
        entry = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _parse_entry(line: bytes, place: str) -> Entry:
    entry = _parse_object(line)
    if entry is None:
        text = line.removesuffix(b"\n")[:60].decode("utf-8", "replace")
        raise ElmoError(f"{place} is damaged: {short(text)}; mend or remove this line, or move the log away.")
    kind = entry.get("kind")
    if not isinstance(kind, str):
        raise ElmoError(f"{place} has no kind, so this is not the log of a pretraining run.")
    if not isinstance(entry.get("text", ""), str):
        raise ElmoError(f"{place}: text of this {kind:.40} must be a name, but is {short(entry['text'])}.")
    for name in [*NUMBERS.get(kind, ()), *({"step"} & entry.keys())]:
        if not is_number(entry.get(name)):
            raise ElmoError(
                f"{place}: {name} of this {kind:.40} must be a number, but is {short(entry.get(name))}."
            )
    for name in NUMBERS.get(kind, ())[1:]:
        least = 0 if kind == "evaluation" else -MAX_VALUE  # a perplexity, or a loss
        if not least < entry[name] < MAX_VALUE:
            raise ElmoError(
                f"{place}: {name} of this {kind} is {entry[name]:g}, which cannot be; mend or remove it."
            )
    return entry


def _without_repeated_steps(entries: list[Entry]) -> list[Entry]:
    """A resumed run repeats what it had logged beyond its last checkpoint; the later entry counts."""
    kept: list[Entry] = []
    for entry in entries:
        if entry["kind"] == "resume":
            kept = [old for old in kept if old.get("step", 0) <= entry["step"]]
        kept.append(entry)
    last = {_identity(entry, number): number for number, entry in enumerate(kept)}
    return [entry for number, entry in enumerate(kept) if last[_identity(entry, number)] == number]


def _identity(entry: Entry, number: int) -> tuple[Any, ...]:
    """Two entries with one identity are the same event, logged twice."""
    return (entry["kind"], entry["step"], entry.get("text")) if "step" in entry else (number,)
