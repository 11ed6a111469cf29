"""What a person watches: a bar with words/s, a log that `elmo-hf plot` draws, and accelerate's trackers.

`log.jsonl` has an object a line, known by its "kind": start, step, evaluation, resume, end.
"""

import json
import math
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from tqdm import tqdm

LOG = "log.jsonl"


class Watch:
    """Only the main process writes and shows anything."""

    def __init__(self, accelerator: Accelerator, run: Path, trackers: list[str], words: int | None) -> None:
        """words: those of the whole run, if they are known."""
        self.accelerator = accelerator
        self.is_main = accelerator.is_main_process
        self.path, self.has_trackers, self.all_words = run / LOG, bool(trackers), words
        self.bar: Any = None
        self.since = Since()

    def begin(self, step: int, words: int, settings: dict[str, Any]) -> None:
        """After so many steps and words. What was logged beyond them did not happen."""
        if self.is_main and self.path.exists():
            cut_log(self.path, step)
        if self.has_trackers:
            plain = {name: value for name, value in settings.items() if isinstance(value, int | float | str)}
            self.accelerator.init_trackers("elmo", config=plain)
        self.bar = tqdm(
            total=self.all_words,
            initial=words,
            unit=" words",
            unit_scale=True,
            disable=not self.is_main,
            dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else 30,  # a file need not hold every move
        )
        self.since = Since()

    def note(self, kind: str, **values: Any) -> None:
        if not self.is_main:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, **values}, ensure_ascii=False, allow_nan=False) + "\n")
        if self.has_trackers and kind in ("step", "evaluation"):
            text = f"{values['text']}/" if "text" in values else ""
            numbers = {f"{kind}/{text}{name}": value for name, value in values.items() if is_number(value)}
            self.accelerator.log(numbers, step=values["step"])

    def step(self, losses: dict[str, float], words: int, waited: float) -> None:
        """waited: seconds since the start that were spent in waiting for text."""
        self.since.add(losses, words, waited)
        with suppress(BrokenPipeError):  # nobody looks any more, which is no reason to end
            self.bar.update(words)

    def log_step(self, **values: Any) -> None:
        """The means since the last time."""
        means = self.since.means()
        self.note("step", **values, **means)
        perplexity = math.exp(min(means["loss"], 50))
        told = f"loss {means['loss']:.3f}, perplexity {perplexity:.1f}, waited {means['waited']:.1%}"
        self.bar.set_postfix_str(told, refresh=False)
        self.since = Since(self.since.waited)

    def say(self, sentence: str) -> None:
        if self.is_main:
            with suppress(BrokenPipeError):
                self.bar.write(sentence)

    def close(self) -> None:
        if self.bar is not None:
            with suppress(BrokenPipeError):
                self.bar.close()


class Since:
    """What has been done since the last line of the log."""

    def __init__(self, waited: float = 0.0) -> None:
        self.start, self.words, self.steps = time.perf_counter(), 0, 0
        self.waited_before = self.waited = waited
        self.sums: dict[str, float] = {}

    def add(self, losses: dict[str, float], words: int, waited: float) -> None:
        self.words, self.steps, self.waited = self.words + words, self.steps + 1, waited
        self.sums = {name: self.sums.get(name, 0.0) + value for name, value in losses.items()}

    def means(self) -> dict[str, float]:
        seconds = time.perf_counter() - self.start
        found = {name: value / self.steps for name, value in self.sums.items()}
        found["words_per_second"] = round(self.words / seconds, 1)
        found["waited"] = round((self.waited - self.waited_before) / seconds, 4)
        return found


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def cut_log(path: Path, step: int) -> None:
    """Without the lines of later steps, the end, and a last line that a kill has cut off; all at step 0."""
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]:
        entry = json.loads(line)
        if step and entry.get("step", 0) <= step and entry["kind"] != "end":
            kept.append(line + "\n")
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text("".join(kept), encoding="utf-8")
    unfinished.replace(path)
