"""Text to the windows that a bidirectional language model is trained on, resumable to the word.

    source = Source("corpus/*.txt")
    encoder = Encoder(Vocabulary.load("vocab.txt"))
    for window in Windows(source, encoder, Plan(rows=128, epochs=10), workers=2):
        window.char_ids      # (2 directions, rows, 20 words, 50 characters)
        window.targets       # (2 directions, rows, 20 words)
        window.state         # where to go on after this window: a small dictionary for JSON

Every row of the batch is an endless text, its sentences packed without gaps, and the next window goes on
where this one ends, so that the states of the LSTMs can be carried over. Forward, a sentence is read as
`<S> w1 ... wn` and predicts `w1 ... wn </S>`; backward it is read as `</S> wn ... w1` and predicts
`wn ... w1 <S>`. The two directions read the corpus in two different orders, or in one (`shared`).

What a row reads depends on the number of rows alone. Processes and workers share the rows out, each reader
walks through the whole corpus and keeps the sentences of its own rows; so any number of them makes the same
windows. With another number of rows, training goes on with the sentences that had not been read.
"""

import atexit
import json
import signal
import time
import weakref
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from elmo_hf.corpus.order import START, Reading, Rows
from elmo_hf.corpus.source import Source
from elmo_hf.corpus.vocabulary import SPECIALS, Vocabulary
from elmo_hf.model.words_elmo import character_ids

State = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """
    rows: rows of the batch, of all processes together.
    steps: words of a window.
    seed: of the order of the sentences.
    shuffle_sentences: so many are held in memory and shuffled at a time; 0 keeps the order of the corpus.
    shared: both directions read the same sentences at the same time.
    epochs: how often the corpus is read; None is without end.
    """

    rows: int
    steps: int = 20
    seed: int = 0
    shuffle_sentences: int = 100_000
    shared: bool = False
    epochs: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("rows", 1), ("steps", 1), ("seed", 0), ("shuffle_sentences", 0), ("epochs", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, but is {value}.")


class Begun(NamedTuple):
    """A sentence whose first word is in the window. Numbers count from 0; direction 1 is backward."""

    direction: int
    row: int
    epoch: int
    shard: int
    line: int
    part: int


@dataclass
class Window:
    """
    char_ids: (2, rows, steps, characters) int16, for a model that reads letters, 0 where there is no word.
    input_ids: (2, rows, steps) int64, for a model with a table of words instead, 0 where there is no word.
    targets: (2, rows, steps) int64 ids of the words to predict, 0 where there is none.
    mask: (2, rows, steps) bool, False where a row has come to its end, after the last epoch.
    begun: the sentences that begin here.
    state: where the rows stand after this window.
    """

    char_ids: np.ndarray | None
    input_ids: np.ndarray | None
    targets: np.ndarray
    mask: np.ndarray
    begun: list[Begun]
    state: State


# ---- words to numbers


class Encoder:
    """Words to what the model reads (`inputs`) and predicts (`targets`).

    Args:
        vocabulary: ids of the words.
        max_characters: length of a word's row of character ids.
        token_encoder: "characters", or "words" for a model with a table of words, as in `ElmoConfig`.
        cache_words: different words whose spelling is kept, 100 bytes each.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        max_characters: int = 50,
        token_encoder: str = "characters",
        cache_words: int = 100_000,
    ) -> None:
        if token_encoder not in ("characters", "words"):
            raise ValueError(f"token_encoder must be 'characters' or 'words', but is {token_encoder!r}.")
        self.vocabulary, self.reads_letters = vocabulary, token_encoder == "characters"
        self._numbers = _Numbers()
        self._spelled = np.empty((cache_words, max_characters), dtype=np.int16)

    def targets(self, words: list[str]) -> np.ndarray:
        """Ids (words,)"""
        return np.fromiter(map(self.vocabulary.ids.__getitem__, words), dtype=np.int64, count=len(words))

    def inputs(self, words: list[str]) -> np.ndarray:
        """Character ids (words, characters), or ids (words,)."""
        if not self.reads_letters:
            return self.targets(words)
        room, length = self._spelled.shape
        if len(self._numbers) + len(words) > room:
            self._numbers = _Numbers()
            self._spelled = np.empty((max(room, len(words)), length), dtype=np.int16)
        numbers = np.fromiter(map(self._numbers.__getitem__, words), dtype=np.int64, count=len(words))
        if self._numbers.new:
            new = slice(len(self._numbers) - len(self._numbers.new), len(self._numbers))
            self._spelled[new] = character_ids(self._numbers.new, length)
            self._numbers.new = []
        return self._spelled[numbers]

    def check(self, source: Source, sentences: int = 1000) -> None:
        """Refuses a corpus that is empty, or whose first sentences have no word of the vocabulary."""
        words = {word: None for sentence in islice(source, sentences) for word in sentence}
        if not words:
            raise ValueError(f"{source.name} is empty; there is no word in it.")
        if not any(word in self.vocabulary.ids and word not in SPECIALS for word in words):
            raise ValueError(
                f"no word of the first {sentences} sentences of {source.name} is in {self.vocabulary.name} "
                f"(such as {next(iter(words))!r:.60}); make the vocabulary from this corpus, split likewise."
            )


class _Numbers(dict[str, int]):
    """Words get the numbers 0, 1, 2, ... when they are first asked for, and are then in `new` as well."""

    def __init__(self) -> None:
        self.new: list[str] = []

    def __missing__(self, word: str) -> int:
        number = self[word] = len(self)
        self.new.append(word)
        return number


# ---- windows of some rows


class Reader:
    """Windows of the rows `first` to `last`, without end; when the rows have ended, nothing is in them."""

    def __init__(
        self,
        source: Source,
        encoder: Encoder,
        plan: Plan,
        first: int = 0,
        last: int | None = None,
        state: State | None = None,
    ) -> None:
        self.encoder, self.plan, self.first = encoder, plan, first
        self.settings = _settings(source, plan)
        last = plan.rows if last is None else last
        directions: list[tuple[int, ...]] = [(0, 1)] if plan.shared else [(0,), (1,)]
        states = _readings(state, plan, self.settings, len(directions))
        self.parts = []
        for served, part in zip(directions, states, strict=True):
            reading = Reading(source, served[0], plan.seed, plan.shuffle_sentences, plan.epochs)
            self.parts.append(Rows(reading, served, plan.rows, first, last, part))

    def __iter__(self) -> Iterator[Window]:
        while True:
            yield self.window()

    def window(self) -> Window:
        filled = [(part.directions, part.fill(self.plan.steps)) for part in self.parts]
        shape = (2, *filled[0][1].mask.shape)
        mask, targets = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=np.int64)
        inputs, begun = None, []
        for directions, rows in filled:
            for direction, words, following in zip(directions, rows.inputs, rows.targets, strict=True):
                encoded = self.encoder.inputs(words)
                if inputs is None:
                    inputs = np.zeros((*shape, *encoded.shape[1:]), dtype=encoded.dtype)
                mask[direction] = rows.mask
                inputs[direction][rows.mask] = encoded
                targets[direction][rows.mask] = self.encoder.targets(following)
                begun += [Begun(direction, row, *origin) for row, origin in rows.begun]
        char_ids, input_ids = (inputs, None) if self.encoder.reads_letters else (None, inputs)
        return Window(char_ids, input_ids, targets, mask, begun, self.state())

    def state(self) -> State:
        return {
            "settings": self.settings,
            "rows": self.plan.rows,
            "first": self.first,
            "readings": [part.state() for part in self.parts],
        }


def _settings(source: Source, plan: Plan) -> dict[str, Any]:
    """What the order of the sentences depends on, besides the number of rows."""
    own = {
        name: value for name, value in asdict(plan).items() if name in ("seed", "shuffle_sentences", "shared")
    }
    return own | source.identity


def _readings(state: State | None, plan: Plan, settings: dict[str, Any], count: int) -> list[State]:
    """The state of each reading for `plan.rows` rows."""
    fresh = {"begun": [0] * plan.rows, "used": [0] * plan.rows}
    if state is None:
        return [{"place": START, "digest": None, "deals": [], **fresh} for _ in range(count)]
    for name, value in settings.items():
        if state["settings"][name] != value:
            raise ValueError(
                f"the training was begun with {name} {state['settings'][name]!r}, now it is {value!r}; "
                "go on with the same."
            )
    rows, readings = state["rows"], state["readings"]
    if state["first"] or len(readings[0]["begun"]) != rows:
        raise ValueError(
            f"the state has {len(readings[0]['begun'])} of {rows} rows; merge those of all processes by "
            "merge_states."
        )
    if rows == plan.rows:
        return readings
    return [
        reading
        | {"deals": [*reading["deals"], {"rows": rows, "begun": reading["begun"], "used": reading["used"]}]}
        | fresh
        for reading in readings
    ]


def merge_states(states: Sequence[State]) -> State:
    """The state of all rows from those of neighbouring rows, in any order: of all processes, for example."""
    states = sorted(states, key=lambda state: state["first"])
    expected = states[0]["first"]
    for state in states:
        if state["first"] != expected or state["settings"] != states[0]["settings"]:
            raise ValueError(f"row {expected} is in no state, or in two; merge the states of one step.")
        expected += len(state["readings"][0]["begun"])
    readings = zip(*(state["readings"] for state in states), strict=True)
    return states[0] | {"readings": [_merge(parts) for parts in readings]}


def _merge(parts: Sequence[State]) -> State:
    # The earliest place; of two at the same place, one knows the check sum of the block there.
    first = min(parts, key=lambda part: (part["place"][-1], part["digest"] is None))
    begun = [number for part in parts for number in part["begun"]]
    return first | {"begun": begun, "used": [number for part in parts for number in part["used"]]}


# ---- windows of a process


class Windows:
    """The windows of one process, in this process or from workers, until its rows end.

    Args:
        process, processes: which of how many processes this is; each has its share of the rows.
        workers: processes that read ahead, each for its share of this process's rows; 0 reads in this one.
        state: where to go on: `window.state` of the last window, of several processes through `merge_states`.
        prefetch: windows that each worker keeps ready.

    `waited` and `seconds` are the time spent in waiting for windows and the time in all since the first was
    asked for. Where one process's rows end before those of others, `nothing` is then a window without words.
    """

    def __init__(
        self,
        source: Source,
        encoder: Encoder,
        plan: Plan,
        *,
        process: int = 0,
        processes: int = 1,
        workers: int = 0,
        state: State | None = None,
        prefetch: int = 32,
    ) -> None:
        first, last = share(0, plan.rows, process, processes)
        if last - first < max(workers, 1):
            raise ValueError(
                f"{plan.rows} rows are too few for {processes} processes with {workers} workers each; each "
                "needs a row."
            )
        encoder.check(source)
        _readings(state, plan, _settings(source, plan), 2 - plan.shared)  # a wrong state is refused here
        self.shares = _Shares(source, encoder, plan, first, last, state)
        self.workers, self.prefetch = workers, prefetch
        self.waited = 0.0
        self._began: float | None = None
        self.nothing: Window | None = None

    @property
    def seconds(self) -> float:
        return 0.0 if self._began is None else time.perf_counter() - self._began

    def __iter__(self) -> Generator[Window, None, None]:
        windows = self._timed()
        if (
            self.workers
        ):  # a program that ends waits for its workers, which do not end when told (`_end_later`)
            atexit.register(_close, weakref.ref(windows))
        return windows

    def _timed(self) -> Generator[Window, None, None]:
        parts = self._parts()
        while True:
            asked = time.perf_counter()
            self._began = self._began or asked
            window = _join(list(islice(parts, max(self.workers, 1))))
            self.waited += time.perf_counter() - asked
            if not window.mask.any():
                self.nothing = window
                return
            yield window

    def _parts(self) -> Iterator["Window | _Failure"]:
        if not self.workers:
            return iter(self.shares)
        # With a generator of its own, the loader draws nothing from the one that dropout draws from.
        return iter(
            DataLoader(
                self.shares,
                batch_size=None,
                num_workers=self.workers,
                prefetch_factor=self.prefetch,
                collate_fn=_as_it_is,
                worker_init_fn=_end_later,
                generator=torch.Generator(),
            )
        )


def share(first: int, last: int, number: int, count: int) -> tuple[int, int]:
    """Part `number` of `count` even parts of the rows `first` to `last`."""
    rows = last - first
    return first + rows * number // count, first + rows * (number + 1) // count


@dataclass
class _Failure:
    """What a worker has to say, which would reach us inside a traceback otherwise."""

    sentence: str


class _Shares(IterableDataset):
    """In a worker the windows of its share of the rows, and in the process itself those of all its rows."""

    def __init__(
        self, source: Source, encoder: Encoder, plan: Plan, first: int, last: int, state: State | None
    ) -> None:
        self.source, self.encoder, self.plan, self.state = source, encoder, plan, state
        self.first, self.last = first, last

    def __iter__(self) -> Iterator[Window | _Failure]:
        worker = get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        first, last = share(self.first, self.last, number, count)
        try:
            yield from Reader(self.source, self.encoder, self.plan, first, last, self.state)
        except ValueError as error:
            yield _Failure(str(error))


def _end_later(worker: int) -> None:
    """Who stops a training tells all its processes at once, but the windows are wanted for one step more."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: signal.alarm(60))


def _close(windows: "weakref.ref[Generator[Window, None, None]]") -> None:
    running = windows()
    if running is not None:
        running.close()


def _as_it_is(part: Any) -> Any:
    return part


def _join(parts: "list[Window | _Failure]") -> Window:
    """One window of neighbouring rows."""
    windows: list[Window] = []
    for part in parts:
        if isinstance(part, _Failure):
            raise ValueError(part.sentence)
        windows.append(part)
    if len(windows) == 1:
        return windows[0]

    def joined(name: str) -> Any:
        arrays = [getattr(window, name) for window in windows]
        return None if arrays[0] is None else np.concatenate(arrays, axis=1)

    return Window(
        joined("char_ids"),
        joined("input_ids"),
        joined("targets"),
        joined("mask"),
        [sentence for window in windows for sentence in window.begun],
        merge_states([window.state for window in windows]),
    )


# ---- what was read


class AuditLog:
    """Writes down which sentences were begun in which step, a JSON line a step; one file for each process.

    {"step": 7, "process": 0, "forward": [[row, epoch, shard, line, part], ...], "backward": ...}
    """

    def __init__(self, path: str | Path, process: int = 0) -> None:
        self.process = process
        self._file = Path(path).open("a", encoding="utf-8")  # noqa: SIM115 (closed by close)

    def write(self, step: int, window: Window) -> None:
        entry: dict[str, Any] = {"step": step, "process": self.process}
        for direction, name in enumerate(("forward", "backward")):
            entry[name] = [sentence[1:] for sentence in window.begun if sentence.direction == direction]
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def cut_audit(path: str | Path, step: int) -> None:
    """Drops what was written after a step, from which the training then goes on, or after a half line."""
    end = 0
    with Path(path).open("rb+") as file:
        for line in file:
            if not line.endswith(b"\n") or json.loads(line)["step"] > step:
                break
            end += len(line)
        file.truncate(end)
