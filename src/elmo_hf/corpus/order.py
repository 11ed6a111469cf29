"""The order in which the sentences of a corpus are read, and which row of a batch reads which sentence.

    order = SentenceOrder(source, direction=0, seed=1, shuffle_sentences=100_000, epochs=10)
    for block in order.blocks(START): ...

The contract of reading, on which exact resuming rests:

- An order numbers the sentences 0, 1, 2, ... over all epochs. In each epoch the shards come in an order of
  their own, and the sentences are shuffled within blocks of some 100,000. The order depends only on the text,
  the seed, the direction and the size of the blocks.
- Sentence n belongs to row n % rows and is that row's sentence number n // rows, whichever process has it.
- A position in an order is five numbers. A block that is read again from its position is the same block.
- When training goes on with another number of rows, the sentences that the old rows had not finished are
  numbered anew in the old order, and these numbers belong to the new rows: a `Renumbering`. A sentence that
  had been started goes on at its first unread word.

`Rows` is one reader's share of the rows, with the sentences that each is reading and those that wait for it.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from elmo_hf.corpus.source import Source
from elmo_hf.corpus.vocabulary import BEGIN, END
from elmo_hf.errors import ElmoError

UNSHUFFLED = 10_000  # sentences of a block that is not shuffled
PAUSE = 50  # sentences after which reading a block pauses, so that a window can be made
BLOCK_CHARACTERS = 2**26  # a block of long sentences ends earlier, so that it fits in memory


class Position(NamedTuple):
    """Where a block begins in an order."""

    epoch: int
    block: int  # number of the block in its epoch
    shard: int  # number of the shard in the epoch's order
    line: int  # lines of that shard that come before
    sentence: int  # sentences of the order that come before


START = Position(0, 0, 0, 0, 0)


class Origin(NamedTuple):
    """Where a sentence stands in the corpus. `sentence` is its number in its line. All count from 0."""

    epoch: int
    shard: int
    line: int
    sentence: int


@dataclass(eq=False)
class Block:
    """The sentences of some lines; after `seal`, in the order of their numbers."""

    start: Position
    end: Position
    texts: list[str] = field(default_factory=list)
    origins: list[tuple[int, ...]] = field(default_factory=list)  # each the fields of an `Origin`
    lines: int = 0
    characters: int = 0
    digest: int = 0
    unread: int = 0  # sentences that a reader has taken from here and not yet read to their end

    def add(self, line: str, sentences: list[str], shard: int, number: int) -> None:
        self.lines += 1
        self.characters += len(line)
        self.texts += sentences
        self.origins += [(self.start.epoch, shard, number, index) for index in range(len(sentences))]

    def seal(self, generator: np.random.Generator | None) -> None:
        """Shuffle the sentences, and take the checksum that another text or shuffling does not have."""
        if generator is not None:
            order = generator.permutation(len(self.texts)).tolist()
            self.texts = [self.texts[number] for number in order]
            self.origins = [self.origins[number] for number in order]
        for text in self.texts:
            self.digest = zlib.crc32(text.encode("utf-8") + b"\n", self.digest)

    def drop_text(self) -> None:
        """Free the text, once the rows have it."""
        self.texts, self.origins = [], []


@dataclass
class SentenceOrder:
    """One numbered order of the sentences of a source, endless or over some epochs.

    Args:
        direction: 0 or 1; each has its own order.
        seed: of the shuffling.
        shuffle_sentences: sentences of a block, which are held in memory; 0 keeps the order of the corpus.
        epochs: how often the corpus is read; None is without end.
    """

    source: Source
    direction: int
    seed: int
    shuffle_sentences: int
    epochs: int | None

    def blocks(self, position: Position) -> Iterator[Block | None]:
        """The blocks from a position on, and None now and then while a block is read."""
        while self.epochs is None or position.epoch < self.epochs:
            is_whole_epoch, first_sentence = position.block == 0, position.sentence
            for block in self._blocks_of_epoch(position):
                yield block
                position = block.end if block is not None else position
            if is_whole_epoch and position.sentence == first_sentence:
                raise ElmoError(f"{self.source.name} is empty; there is no word in it.")
            position = Position(position.epoch + 1, 0, 0, 0, position.sentence)

    def _blocks_of_epoch(self, position: Position) -> Iterator[Block | None]:
        shards = self._shards(position.epoch)
        block, line, paused_at = Block(position, position), position.line, 0
        for index in range(position.shard, len(shards)):
            for lines in self.source.lines(shards[index], skip=line):
                for text in lines:
                    block.add(text, self.source.sentences(text), shards[index], line)
                    line += 1
                    if self._is_full(block):
                        yield self._sealed(block, index, line)
                        block, paused_at = Block(block.end, block.end), 0
                    elif len(block.texts) >= paused_at + PAUSE:
                        paused_at = len(block.texts)
                        yield None
            line = 0
        if block.lines:
            yield self._sealed(block, len(shards), 0)

    def _is_full(self, block: Block) -> bool:
        size = self.shuffle_sentences or UNSHUFFLED
        return len(block.texts) >= size or block.characters >= BLOCK_CHARACTERS

    def _sealed(self, block: Block, shard: int, line: int) -> Block:
        epoch, number, *_, sentence = block.start
        block.end = Position(epoch, number + 1, shard, line, sentence + len(block.texts))
        block.seal(self._generator(epoch, 1 + number) if self.shuffle_sentences else None)
        return block

    def _shards(self, epoch: int) -> list[int]:
        """The shards of an epoch in their order."""
        count = self.source.num_shards
        if not self.shuffle_sentences:
            return [*range(count)]
        return self._generator(epoch, 0).permutation(count).tolist()

    def _generator(self, epoch: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.direction, epoch, purpose])


class Renumbering:
    """New numbers for the sentences that `rows` rows had not finished when they stopped.

    Args:
        rows: how many rows there were.
        started: how many sentences each row had started.
        used: how many words of its last sentence each row had read, 0 if all of them.
    """

    def __init__(self, rows: int, started: list[int], used: list[int]) -> None:
        self.rows, self.started, self.used = rows, started, used
        stopped_rows = [row for row in range(rows) if used[row]]
        self._unfinished = np.array([(started[row] - 1) * rows + row for row in stopped_rows], dtype=np.int64)
        self._unfinished_at = np.array([used[row] for row in stopped_rows], dtype=np.int64)
        # Rows go at different speeds: below the slowest row all sentences were started, from the fastest on
        # none was, and between them it depends on the row.
        self._first_untouched = max(started) * rows
        between = np.arange(min(started) * rows, self._first_untouched)
        self._not_started = between[between // rows >= np.array(started)[between % rows]]

    def renumber(self, numbers: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the new numbers, -1 for sentences that were read, and the word at which each one starts.

        The unfinished sentences come first, row by row, then those that no row had started.
        """
        new, starts = np.full_like(numbers, -1), starts.copy()
        unfinished, not_started = len(self._unfinished), len(self._not_started)
        _, indices, which = np.intersect1d(numbers, self._unfinished, return_indices=True)
        new[indices], starts[indices] = which, self._unfinished_at[which]
        _, indices, which = np.intersect1d(numbers, self._not_started, return_indices=True)
        new[indices] = unfinished + which
        untouched = numbers >= self._first_untouched
        new[untouched] = unfinished + not_started + numbers[untouched] - self._first_untouched
        return new, starts

    # Stored states have the names of version 0.1.0.

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Renumbering":
        return cls(state["rows"], state["begun"], state["used"])

    def state(self) -> dict[str, Any]:
        return {"rows": self.rows, "begun": self.started, "used": self.used}


# ---- rows


@dataclass
class Sentence:
    """A sentence that a row is reading: its words in each direction, with boundaries at both ends."""

    texts: list[list[str]]
    origin: Origin
    block: Block

    def __len__(self) -> int:
        """How many words it has to read, or to predict."""
        return len(self.texts[0]) - 1


# A sentence that waits for its row: text, origin, the word to start at (0, unless its first words were read
# before by another number of rows), the number of its block's first sentence. Plain tuples, because Python's
# garbage collector does not walk through them; 100,000 other objects cost it a pause of half a second.
Waiting = tuple[str, tuple[int, ...], int, int]


@dataclass
class RowWords:
    """The words that rows read in a window: for each direction one row's after another's.

    mask: (rows, steps), False where a row has ended.
    started: the sentences that begin in the window, each with its row.
    """

    mask: np.ndarray
    inputs: list[list[str]]
    targets: list[list[str]]
    started: list[tuple[int, Origin]] = field(default_factory=list)


class Rows:
    """Rows `first` to `last` of `count`, each of which reads its own sentences of an order without gaps.

    Args:
        order: the order of the sentences.
        directions: in which directions they are read: 0 is forward, 1 is backward.
        state: where to go on, for all `count` rows.
    """

    def __init__(
        self, order: SentenceOrder, directions: Sequence[int], count: int, first: int, last: int, state: dict
    ) -> None:
        self.source, self.directions, self.count, self.first = order.source, directions, count, first
        self.end = Position(*state["place"])  # the end of what has been read
        self.digest: int | None = state["digest"]
        self.renumberings = [Renumbering.from_state(entry) for entry in state["deals"]]
        self.started: list[int] = state["begun"][first:last]
        self.used = [0] * (last - first)
        self.sentences: list[Sentence | None] = [None] * (last - first)
        self.waiting: list[dict[int, Waiting]] = [{} for _ in self.started]
        self.unread_blocks: dict[int, Block] = {}  # by the number of their first sentence
        self._blocks = order.blocks(self.end)
        self._ahead = self._share = 0  # sentences that wait, and how many the last block had for these rows
        self._resume(state["used"][first:last])

    def _resume(self, used: list[int]) -> None:
        """Go back into the sentences in which rows stopped.

        Raises:
            ElmoError: the text is another, or the state is damaged.
        """
        stopped = [row for row, words in enumerate(used) if words]
        for row in stopped:
            self.started[row] -= 1
        if self.digest is not None and not self._read_block():
            raise ElmoError(
                f"{self.source.name} ends before the place where the training stopped; go on with the same "
                "text and no fewer epochs, or begin anew."
            )
        for row in stopped:
            sentence = self._start_sentence(row)
            if sentence is None or used[row] >= len(sentence):
                raise ElmoError(
                    f"{self.source.name} does not have the sentence in which row {self.first + row} stopped; "
                    "go on with the same text and no fewer epochs, or begin anew."
                )
            self.used[row] = used[row]

    def read(self, steps: int) -> RowWords:
        """The next `steps` words of every row."""
        mask = np.ones((len(self.started), steps), dtype=bool)
        words = RowWords(mask, [[] for _ in self.directions], [[] for _ in self.directions])
        for row in range(len(self.started)):
            mask[row, self._read_row(row, steps, words) :] = False
        self._read_ahead(len(words.started))
        return words

    def _read_row(self, row: int, steps: int, words: RowWords) -> int:
        """Adds the words of a row; returns how many there were."""
        count = 0
        while count < steps:
            sentence = self.sentences[row] or self._start_sentence(row)
            if sentence is None:
                break
            start = self.used[row]
            stop = min(start + steps - count, len(sentence))
            if start == 0:
                words.started.append((self.first + row, sentence.origin))
            for text, inputs, targets in zip(sentence.texts, words.inputs, words.targets, strict=True):
                inputs += text[start:stop]
                targets += text[start + 1 : stop + 1]
            count += stop - start
            self._mark_used(row, sentence, stop)
        return count

    def _mark_used(self, row: int, sentence: Sentence, words: int) -> None:
        self.used[row] = words
        if words == len(sentence):
            self.used[row], self.sentences[row] = 0, None
            sentence.block.unread -= 1

    def _start_sentence(self, row: int) -> Sentence | None:
        """The row's next sentence, or None after the last epoch."""
        while self.started[row] not in self.waiting[row]:
            if not self._read_block():
                return None
        text, origin, start, block = self.waiting[row].pop(self.started[row])
        self.started[row] += 1
        self.used[row] = start
        self._ahead -= 1
        words = self.source.words(text)
        texts = [_with_boundaries(words, direction) for direction in self.directions]
        self.sentences[row] = sentence = Sentence(texts, Origin(*origin), self.unread_blocks[block])
        return sentence

    # ---- reading ahead

    def _read_block(self) -> bool:
        for block in self._blocks:
            if block is not None:
                self._distribute(block)
                return True
        return False

    def _read_ahead(self, started: int) -> None:
        """Read about twice the sentences that all rows have used for a window, so that none has to wait for a
        block, unless more than a block is waiting."""
        for _ in range(1 + 2 * started * self.count // len(self.started) // PAUSE):
            if self._ahead < self._share:
                block = next(self._blocks, None)
                if block is not None:
                    self._distribute(block)

    def _distribute(self, block: Block) -> None:
        """Hand the rows their sentences of a block."""
        if self.digest is not None and block.digest != self.digest:
            raise ElmoError(
                f"{self.source.name} has changed since the training stopped (or numpy shuffles in another "
                "way); go on with the same text, or begin anew."
            )
        self.digest, self.end = None, block.end
        numbers = np.arange(len(block.texts)) + block.start.sentence
        starts = np.zeros_like(numbers)
        for renumbering in self.renumberings:
            numbers, starts = renumbering.renumber(numbers, starts)
        turns, rows = numbers // self.count, numbers % self.count - self.first
        own = np.flatnonzero((numbers >= 0) & (rows >= 0) & (rows < len(self.started)))
        own = own[turns[own] >= np.array(self.started)[rows[own]]]
        for index, row, turn in zip(own.tolist(), rows[own].tolist(), turns[own].tolist(), strict=True):
            start, text, origin = int(starts[index]), block.texts[index], block.origins[index]
            self.waiting[row][turn] = (text, origin, start, block.start.sentence)
        block.unread = self._share = len(own)
        self._ahead += len(own)
        if len(own):
            self.unread_blocks[block.start.sentence] = block
        block.drop_text()

    def state(self) -> dict[str, Any]:
        """Where to read on: the first block that is still needed, and how far every row is.

        The names are those of version 0.1.0, whose checkpoints go on: "begun" is `started`, "deals" are the
        `renumberings`.
        """
        self.unread_blocks = {number: block for number, block in self.unread_blocks.items() if block.unread}
        oldest = next(iter(self.unread_blocks.values()), None)
        position, digest = (oldest.start, oldest.digest) if oldest else (self.end, self.digest)
        deals = [renumbering.state() for renumbering in self.renumberings]
        rows = {"begun": list(self.started), "used": list(self.used)}
        return {"place": list(position), "digest": digest, "deals": deals, **rows}


def _with_boundaries(words: list[str], direction: int) -> list[str]:
    """A sentence as a direction reads it: each word but the last is an input, and the next is its target."""
    return [END, *reversed(words), BEGIN] if direction else [BEGIN, *words, END]
