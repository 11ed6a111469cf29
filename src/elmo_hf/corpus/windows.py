"""Text to the windows that a bidirectional language model is trained on, resumable to the word.

    source = Source("corpus/*.txt")
    encoder = Encoder(Vocabulary.load("vocab.txt"))  # of encoder.py
    for window in Windows(source, encoder, Plan(rows=128, epochs=10), workers=2):
        window.char_ids      # (2 directions, rows, 20 words, 50 characters)
        window.targets       # (2 directions, rows, 20 words)
        window.state         # where to go on after this window: a small dictionary for JSON

The contract of reading:

- Every row of the batch is an endless text, its sentences packed without gaps. The next window goes on where
  this one ends, so that the states of the LSTMs can be carried over.
- Forward, a sentence is read as `<S> w1 ... wn` and predicts `w1 ... wn </S>`; backward it is read as
  `</S> wn ... w1` and predicts `wn ... w1 <S>`. The two directions read the corpus in two orders, or in one
  (`shared`).
- What a row reads depends on the text, the plan and the number of rows alone. The rows are divided among
  processes and workers, and so any number of them makes the same windows. Rows form groups, each with its own
  sections of the text (`sections`), and a process or worker reads those of its rows' groups. Where fewer
  groups than readers are possible, such as in one packed file, the readers of a group read the same text, and
  each keeps the sentences of its own rows (`Windows.note` says so).
- From `window.state`, training goes on with the same windows; with another number of rows, it goes on with
  the words that had not been read.
"""

import atexit
import multiprocessing
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from math import gcd
from reprlib import repr as short
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from elmo_hf.corpus.encoded import EncodedText
from elmo_hf.corpus.encoder import Encoder
from elmo_hf.corpus.order import SentenceOrder
from elmo_hf.corpus.rows import Rows, merge_rows, new_state, renumbered
from elmo_hf.corpus.sections import is_small, number_of_groups
from elmo_hf.corpus.source import Source
from elmo_hf.errors import ElmoError, sentence_of

State = dict[str, Any]

TRIES, PATIENCE = 3, 60.0  # how often workers are started, and seconds until one has begun


@dataclass(frozen=True)
class Plan:
    """What is read, and how.

    Args:
        rows: rows of the batch, of all processes together.
        steps: words of a window.
        seed: of the order of the sentences.
        shuffle_sentences: how many are held in memory and shuffled at a time; 0 keeps the corpus's order.
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
        minima = {"rows": 1, "steps": 1, "seed": 0, "shuffle_sentences": 0, "epochs": 1}
        for name, minimum in minima.items():
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise ElmoError(f"{name} must be at least {minimum}, but is {value}.")


class SentenceStart(NamedTuple):
    """A sentence whose first word is in the window. `sentence` is its number in its line.

    Numbers count from 0; direction 1 is backward.
    """

    direction: int
    row: int
    epoch: int
    shard: int
    line: int
    sentence: int


@dataclass
class Window:
    """The next words of some rows, in both directions.

    char_ids: (2, rows, steps, characters) int16, or int32 for higher ids, for a model that reads characters,
        0 where there is no word.
    input_ids: (2, rows, steps) int64, for a model with a table of words instead, 0 where there is no word.
    targets: (2, rows, steps) int64 ids of the words to predict, 0 where there is none.
    mask: (2, rows, steps) bool, False where a row has come to its end, after the last epoch.
    sentence_starts: the sentences that begin in the window.
    state: where the rows are after this window.
    """

    char_ids: np.ndarray | None
    input_ids: np.ndarray | None
    targets: np.ndarray
    mask: np.ndarray
    sentence_starts: list[SentenceStart]
    state: State


# ---- windows of some rows


class Reader:
    """Endless windows of the rows `first` to `last`, with no word in them once the rows have ended."""

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
        self.groups = groups_of(source, plan, state)
        self.settings = settings_of(source, plan, self.groups)
        last = plan.rows if last is None else last
        orders: list[tuple[int, ...]] = [(0, 1)] if plan.shared else [(0,), (1,)]  # the directions of each
        states = order_states(state, plan, self.settings, len(orders))
        self.rows = []
        for directions, order_state in zip(orders, states, strict=True):
            order = SentenceOrder(
                source, directions[0], plan.seed, plan.shuffle_sentences, plan.epochs, self.groups
            )
            self.rows.append(Rows(order, encoder, directions, plan.rows, first, last, order_state))

    def __iter__(self) -> Iterator[Window]:
        while True:
            yield self.window()

    def window(self) -> Window:
        """The next window."""
        self.encoder.forget_words()
        words_of_orders = [(rows.directions, rows.read(self.plan.steps)) for rows in self.rows]
        shape = (2, *words_of_orders[0][1].mask.shape)
        mask, targets = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=np.int64)
        ids = np.zeros((*shape, *self.encoder.row_shape), dtype=self.encoder.dtype)
        sentence_starts = []
        for directions, words in words_of_orders:
            for direction, inputs, target_words in zip(directions, words.inputs, words.targets, strict=True):
                mask[direction] = words.mask
                self._fill(ids[direction], inputs, words.mask)
                targets[direction][words.mask] = self.encoder.target_ids(target_words)
                sentence_starts += [SentenceStart(direction, row, *origin) for row, origin in words.started]
        char_ids, input_ids = (ids, None) if self.encoder.reads_characters else (None, ids)
        return Window(char_ids, input_ids, targets, mask, sentence_starts, self.state())

    def _fill(self, ids: np.ndarray, slots: Any, mask: np.ndarray) -> None:
        if mask.all():
            self.encoder.input_rows(slots, out=ids.reshape(-1, *ids.shape[2:]))
        else:
            ids[mask] = self.encoder.input_rows(slots)

    def state(self) -> State:
        """Where to go on. "readings" are the states of the sentence orders."""
        return {
            "settings": self.settings,
            "rows": self.plan.rows,
            "first": self.first,
            "readings": [rows.state() for rows in self.rows],
        }


def groups_of(source: Source, plan: Plan, state: State | None = None) -> int:
    """The number of groups of rows; that of the state, which may be of a version that had one group."""
    if state is not None:
        return int(state["settings"].get("groups", 1))
    return number_of_groups(source.sections, plan.rows) if plan.shuffle_sentences and plan.rows > 1 else 1


def settings_of(source: Source | EncodedText, plan: Plan, groups: int = 1) -> dict[str, Any]:
    """What the order of the sentences depends on, besides the number of rows."""
    settings = {name: getattr(plan, name) for name in ("seed", "shuffle_sentences", "shared")}
    settings |= source.identity
    if isinstance(source, Source) and groups > 1:
        settings |= {"groups": groups, "sections": len(source.sections)}
    return settings


def order_states(state: State | None, plan: Plan, settings: dict[str, Any], count: int) -> list[State]:
    """The state of each sentence order for `plan.rows` rows."""
    if state is None:
        return [new_state(settings.get("groups", 1), plan.rows) for _ in range(count)]
    for name, value in settings.items():
        old = state["settings"].get(name)
        if old != value:
            raise ElmoError(
                f"the training was begun with {name} {short(old)}, now it is {value!r}; go on with the same."
            )
    rows, readings = state["rows"], state["readings"]
    if state["first"] or len(readings[0]["begun"]) != rows:
        raise ElmoError(
            f"the state has {len(readings[0]['begun'])} of {rows} rows; merge those of all processes by "
            "merge_states."
        )
    return readings if rows == plan.rows else [renumbered(reading, rows, plan.rows) for reading in readings]


def merge_states(states: Sequence[State]) -> State:
    """The state of all rows from those of neighbouring rows, in any order: of all processes, for example."""
    states = sorted(states, key=lambda state: state["first"])
    expected = states[0]["first"]
    for state in states:
        if state["first"] != expected or state["settings"] != states[0]["settings"]:
            raise ElmoError(f"row {expected} is in no state, or in two; merge the states of one step.")
        expected += len(state["readings"][0]["begun"])
    groups = states[0]["settings"].get("groups", 1)
    readings = zip(*(state["readings"] for state in states), strict=True)
    return states[0] | {"readings": [merge_rows(of_order, groups) for of_order in readings]}


# ---- windows of a process


class TimedWindows:
    """Windows that are made one by one until one has no word, and the time that this takes.

    Attributes:
        waited: seconds spent in waiting for windows.
        seconds: seconds since the first window was asked for.
        empty_window: a window without words, once this process's rows have ended (those of others may go on).
    """

    def __init__(self) -> None:
        self.waited = 0.0
        self._started_at: float | None = None
        self.empty_window: Window | None = None

    @property
    def seconds(self) -> float:
        return 0.0 if self._started_at is None else time.perf_counter() - self._started_at

    def _timed(self, make: Callable[[], Window]) -> Generator[Window, None, None]:
        while True:
            asked = time.perf_counter()
            self._started_at = self._started_at or asked
            window = make()
            self.waited += time.perf_counter() - asked
            if not window.mask.any():
                self.empty_window = window
                return
            yield window


class Windows(TimedWindows):
    """The windows of one process, in this process or from workers, until its rows end.

    Args:
        process, processes: the number of this process, and of all; each has its share of the rows.
        workers: processes that read ahead, each for its share of this process's rows; with 0, this one reads.
        state: where to go on: the last window's `state`; `merge_states` makes one of several processes'.
        prefetch: windows that each worker keeps ready.

    Attributes:
        note: a sentence if the text cannot be divided among all processes and workers, otherwise "".
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
            raise ElmoError(
                f"{plan.rows} rows are too few for {processes} processes with {workers} workers each; each "
                "needs a row."
            )
        encoder.check(source)
        self.groups = groups_of(source, plan, state)
        settings = settings_of(source, plan, self.groups)
        order_states(state, plan, settings, 2 - plan.shared)  # refuses a wrong state
        self.note = _note_of_shared_text(source, plan, self.groups, processes * max(workers, 1))
        self.shares = _Shares(source, encoder, plan, first, last, state)
        self.workers, self.prefetch = workers, prefetch
        super().__init__()

    def __iter__(self) -> Generator[Window, None, None]:
        shares = self._windows_of_workers() if self.workers else iter(self.shares)
        windows = self._timed(lambda: _join(list(islice(shares, max(self.workers, 1)))))
        if self.workers:  # the program's end waits for the workers, which ignore its signals (`_begin`)
            atexit.register(_close, weakref.ref(windows))
        return windows

    def _windows_of_workers(self) -> Iterator["Window | _Failure"]:
        """A fork can hang before its first instruction, on a lock that another thread of this process held
        (before Python 3.12, one of the interpreter's), so workers that do not begin are replaced."""
        is_fork = multiprocessing.get_start_method() == "fork"  # others import everything first
        for _ in range(TRIES):
            running, begun = {*multiprocessing.active_children()}, multiprocessing.Semaphore(0)
            # With a generator of its own, the loader draws nothing from the one that dropout draws from.
            loader = DataLoader(
                self.shares,
                batch_size=None,
                num_workers=self.workers,
                prefetch_factor=self.prefetch,
                collate_fn=_identity,
                worker_init_fn=partial(_begin, begun),
                generator=torch.Generator(),
            )
            windows = iter(loader)
            if not is_fork or all(begun.acquire(timeout=PATIENCE) for _ in range(self.workers)):
                return windows
            del windows  # which ends the workers that have begun
            for hung in {*multiprocessing.active_children()} - running:
                hung.kill()
                hung.join()
        raise ElmoError(f"the {self.workers} processes that read the text do not start; try --workers 0.")


def _note_of_shared_text(source: Source, plan: Plan, groups: int, readers: int) -> str:
    """What to do where several readers read the same sections."""
    parts = gcd(groups, plan.rows)
    if readers <= parts or is_small(source.sections):
        return ""
    if not plan.shuffle_sentences:
        reason, advice = "its order is kept", "shuffle it once, and name shuffle_sentences"
    elif parts < number_of_groups(source.sections, plan.rows):
        reason = "the run was begun with other groups of rows"
        advice = "start another run from its checkpoint by --start"
    elif any(section.stays_open for section in source.sections):
        reason = "its files are not plain text or JSON lines"
        advice = f"unpack it, or write about {readers} files of the same size"
    else:
        return ""  # it is not larger
    return (
        f"{source.name} is divided among {parts} of {readers} readers, as {reason}: readers beyond that read "
        f"the same text and keep their own share; if reading is too slow, {advice}."
    )


def share(first: int, last: int, number: int, count: int) -> tuple[int, int]:
    """Share `number` of `count` even shares of the rows `first` to `last`, as its own first and last row."""
    rows = last - first
    return first + rows * number // count, first + rows * (number + 1) // count


@dataclass
class _Failure:
    """A worker's mistake of input; an exception would arrive inside the text of a traceback."""

    sentence: str


class _Shares(IterableDataset):
    """The windows of a worker's share of the rows; in the process itself, those of all its rows."""

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
        except (ValueError, OSError, MemoryError) as error:
            yield _Failure(sentence_of(error))


def _begin(begun: Any, worker: int) -> None:
    """Say that a worker has begun, and end it later than its parent.

    A stop reaches all processes at once, but one more step needs windows. A worker whose parent was killed
    would wait for ever for room in a pipe that only it still reads.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: signal.alarm(60))
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    begun.release()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _close(windows: "weakref.ref[Generator[Window, None, None]]") -> None:
    running = windows()
    if running is not None:
        running.close()


def _identity(window: Any) -> Any:
    return window


def _join(shares: "list[Window | _Failure]") -> Window:
    """One window of neighbouring rows."""
    windows: list[Window] = []
    for share_window in shares:
        if isinstance(share_window, _Failure):
            raise ElmoError(share_window.sentence)
        windows.append(share_window)
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
        [start for window in windows for start in window.sentence_starts],
        merge_states([window.state for window in windows]),
    )
