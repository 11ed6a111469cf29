"""The windows of `windows.py` from an encoded text, so fast that no reader runs beside the training.

    windows = EncodedWindows(EncodedText("encoded"), encoder, Plan(rows=512, epochs=5))
    for window in windows: ...          # the same contract as `Windows`, without workers

The order of the sentences depends on the text, the plan and the number of rows alone: each epoch has its
permutation of all sentences (`shuffle_sentences: 0` keeps the text's order), sentence n of the order belongs
to row n % rows, and a row reads its sentences without gaps. Since any sentence can be read by itself, a
process reads only those of its own rows, and a run that goes on starts at once where it stopped.

A window holds the numbers of words in the encoded text; `letters` has the characters of each.
"""

from collections.abc import Generator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from elmo_hf.corpus.encoded import EncodedText
from elmo_hf.corpus.encoder import Encoder
from elmo_hf.corpus.order import Renumbering
from elmo_hf.corpus.vocabulary import SPECIALS
from elmo_hf.corpus.windows import (
    Plan,
    SentenceStart,
    State,
    TimedWindows,
    Window,
    order_states,
    settings_of,
    share,
)
from elmo_hf.errors import ElmoError

WINDOWS_AT_ONCE = 16
PERMUTATIONS = 4  # that are kept: rows that read at different speeds are in neighbouring epochs


class EncodedWindows(TimedWindows):
    """The windows of one process, until its rows end.

    Args:
        process, processes: the number of this process, and of all; each has its share of the rows.
        state: where to go on: the last window's `state`; `merge_states` makes one of several processes'.

    Attributes:
        letters: (words, characters) what the model reads of each word; None for a model with a word table.
    """

    def __init__(
        self,
        text: EncodedText,
        encoder: Encoder,
        plan: Plan,
        *,
        process: int = 0,
        processes: int = 1,
        state: State | None = None,
    ) -> None:
        first, last = share(0, plan.rows, process, processes)
        if last == first:
            raise ElmoError(f"{plan.rows} rows are too few for {processes} processes; each needs a row.")
        _check_vocabulary(text, encoder)
        self.plan, self.first, self.rows = plan, first, last - first
        self.settings = settings_of(text, plan)
        self.targets = encoder.targets(text.words)
        self.letters = encoder.rows(text.words) if encoder.reads_characters else None
        orders: list[tuple[int, ...]] = [(0, 1)] if plan.shared else [(0,), (1,)]
        states = order_states(state, plan, self.settings, len(orders))
        self.orders = [
            EncodedRows(text, directions, plan, first, last, order_state)
            for directions, order_state in zip(orders, states, strict=True)
        ]
        super().__init__()

    def __iter__(self) -> Generator[Window, None, None]:
        return self._timed(self.window)

    def window(self) -> Window:
        """The next window."""
        shape = (2, self.rows, self.plan.steps)
        ids, next_ids = np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=np.int32)
        mask, sentence_starts = np.zeros(shape, dtype=bool), []
        for order in self.orders:
            words = order.read()
            for direction, inputs, targets in zip(order.directions, words.inputs, words.targets, strict=True):
                ids[direction], next_ids[direction], mask[direction] = inputs, targets, words.mask
                sentence_starts += [SentenceStart(direction, *start) for start in words.starts]
        targets = np.where(mask, self.targets[next_ids], 0)
        if self.letters is None:
            ids = np.where(mask, self.targets[ids], 0)
        return Window(None, ids, targets, mask, sentence_starts, self.state())

    def state(self) -> State:
        return {
            "settings": self.settings,
            "rows": self.plan.rows,
            "first": self.first,
            "readings": [order.state() for order in self.orders],
        }


def _check_vocabulary(text: EncodedText, encoder: Encoder) -> None:
    """The most frequent words of a text are in its vocabulary."""
    known = encoder.vocabulary.ids
    if not any(word in known for word in text.words[2:1002] if word not in SPECIALS):
        raise ElmoError(
            f"none of the most frequent words of {text.name} is in {encoder.vocabulary.name} (such as "
            f"{text.words[2]!r:.60}); make the vocabulary from this text, split likewise."
        )


# ---- rows


@dataclass
class RowNumbers:
    """What rows read in a window: inputs and targets (directions, rows, steps), mask (rows, steps), and the
    sentences that begin in it: row, epoch, shard, line, sentence."""

    inputs: np.ndarray
    targets: np.ndarray
    mask: np.ndarray
    starts: list[tuple[int, ...]]


class EncodedRows:
    """Rows `first` to `last`, each of which reads its own sentences of an order without gaps.

    `started` sentences of each row were begun, and of the last one `used` words were read, 0 if all.
    """

    def __init__(
        self, text: EncodedText, directions: tuple[int, ...], plan: Plan, first: int, last: int, state: State
    ) -> None:
        self.text, self.directions, self.plan, self.first = text, directions, plan, first
        self.steps = plan.steps
        self.deals = state["deals"]
        self.renumberings = [Renumbering(deal["rows"], deal["begun"], deal["used"]) for deal in self.deals]
        self.started = np.array(state["begun"][first:last], dtype=np.int64)
        self.used = np.array(state["used"][first:last], dtype=np.int64)
        self.block: _Block | None = None
        self.window = 0  # of the block
        self.permutation = lru_cache(PERMUTATIONS)(self._permutation)

    def read(self) -> RowNumbers:
        """The next window."""
        if self.block is None or self.window == WINDOWS_AT_ONCE:
            if self.block is not None:
                self.started, self.used = self.block.at(-1)
            self.block, self.window = self._read_block(), 0
        start = self.window * self.steps
        self.window += 1
        return self.block.cut(start, start + self.steps)

    def state(self) -> State:
        """Where to read on, in the form of `order.Rows`."""
        started, used = (
            (self.started, self.used) if self.block is None else self.block.at(self.window * self.steps)
        )
        size, epochs = len(self.text), self.plan.epochs
        epoch = int(started.min()) * self.plan.rows // size
        epoch = 0 if self.deals else epoch if epochs is None else min(epoch, epochs - 1)
        return {
            "place": [epoch, 0, 0, 0, epoch * size],
            "digest": None,
            "deals": self.deals,
            "begun": started.tolist(),
            "used": used.tolist(),
        }

    # ---- the order

    def _permutation(self, epoch: int) -> np.ndarray:
        size = len(self.text)
        if not self.plan.shuffle_sentences:
            return np.arange(size)
        return np.random.default_rng([self.plan.seed, self.directions[0], epoch]).permutation(size)

    def _sentences(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Numbers of the order -> the sentences' epochs, their places in the text (-1 after the last epoch),
        and at which words they start: 0, unless other rows have read their first words."""
        starts = np.zeros_like(numbers)
        for renumbering in reversed(self.renumberings):
            numbers, earlier = renumbering.originals(numbers)
            starts = np.where(starts > 0, starts, earlier)
        epochs, indices = np.divmod(numbers, len(self.text))
        places = np.full_like(numbers, -1)
        for epoch in np.unique(epochs).tolist():
            if self.plan.epochs is None or epoch < self.plan.epochs:
                is_now = epochs == epoch
                places[is_now] = self.permutation(epoch)[indices[is_now]]
        return epochs, places, starts

    # ---- many windows at once

    def _read_block(self) -> "_Block":
        size = WINDOWS_AT_ONCE * self.steps + 1  # the last position shows where the next block starts
        is_open = self.used > 0
        turns = self.started - is_open
        count = 4 + int(1.2 * size * len(self.text) / (len(self.text.ids) - len(self.text)))
        while True:
            numbers = (turns[:, None] + np.arange(count)) * self.plan.rows
            numbers += (self.first + np.arange(len(turns)))[:, None]
            epochs, places, starts = self._sentences(numbers)
            starts[:, 0] = np.where(is_open, self.used, starts[:, 0])
            # A sentence of n words has n + 1 to read, or to predict.
            lengths = self.text.ends[places] - self.text.begins[places] - starts
            lengths = np.where(places >= 0, lengths, 0)
            is_enough = (lengths.sum(axis=1) >= size) | (places[:, -1] < 0)
            if is_enough.all():
                return self._fill(size, turns, epochs, places, starts, lengths)
            count *= 2

    def _fill(
        self,
        size: int,
        turns: np.ndarray,
        epochs: np.ndarray,
        places: np.ndarray,
        starts: np.ndarray,
        lengths: np.ndarray,
    ) -> "_Block":
        before = lengths.cumsum(axis=1) - lengths
        lengths = np.clip(size - before, 0, lengths)
        sums = lengths.sum(axis=1)
        mask = np.arange(size) < sums[:, None]
        sentence = np.repeat(np.arange(lengths.size), lengths.ravel())
        word = (
            np.arange(len(sentence)) - (lengths.ravel().cumsum() - lengths.ravel() - starts.ravel())[sentence]
        )
        place = places.ravel()[sentence]
        inputs: list[np.ndarray] = []
        targets: list[np.ndarray] = []
        for direction in self.directions:
            at, step = (
                (self.text.ends[place] - word, -1) if direction else (self.text.begins[place] + word, 1)
            )
            for numbers, index in ((inputs, at), (targets, at + step)):
                filled = np.zeros(mask.shape, dtype=np.int32)
                filled[mask] = self.text.ids[index]
                numbers.append(filled)
        words, columns = np.full(mask.shape, 0), np.full(mask.shape, 0)
        words[mask], columns[mask] = word, sentence % lengths.shape[1]
        return _Block(
            self.first, turns, epochs, places, np.stack(inputs), np.stack(targets), mask, words, columns
        )


@dataclass
class _Block:
    """What rows read in some windows, and one position more: of each position the word of its sentence, and
    the sentence's column among those of its row."""

    first: int
    turns: np.ndarray  # (rows,) of each row's first sentence
    epochs: np.ndarray  # (rows, sentences)
    places: np.ndarray
    inputs: np.ndarray  # (directions, rows, positions)
    targets: np.ndarray
    mask: np.ndarray  # (rows, positions)
    words: np.ndarray
    columns: np.ndarray

    def cut(self, start: int, stop: int) -> RowNumbers:
        now = slice(start, stop)
        rows, positions = np.nonzero((self.words[:, now] == 0) & self.mask[:, now])
        columns = self.columns[rows, positions + start]
        zeros = np.zeros_like(rows)
        starts = (rows + self.first, self.epochs[rows, columns], zeros, self.places[rows, columns], zeros)
        listed = list(zip(*(numbers.tolist() for numbers in starts), strict=True))
        return RowNumbers(self.inputs[:, :, now], self.targets[:, :, now], self.mask[:, now], listed)

    def at(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        """How many sentences each row has started before a position, and the words read of the last one."""
        word, column = self.words[:, position], self.columns[:, position]
        started = self.turns + column + (word > 0)
        numbers = np.arange(1, self.places.shape[1] + 1)
        total = self.turns + (numbers * (self.places >= 0)).max(axis=1)  # of rows that have ended
        has_more = self.mask[:, position]
        return np.where(has_more, started, total), np.where(has_more, word, 0)
