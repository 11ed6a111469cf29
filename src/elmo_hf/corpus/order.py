"""The order in which the sentences of a corpus are read, and which row of a batch reads which of them.

    for block in Reading(source, direction=0, seed=1, shuffle_sentences=100_000, epochs=10).blocks(START): ...

A reading numbers the sentences 0, 1, 2, ... over all epochs: the shards in an order of their own in every
epoch, and the sentences shuffled within a block of some 100,000 of them. The order depends on nothing but the
text and the seed. Sentence number n belongs to row n % rows, whichever process has that row. A place in a
reading is five numbers, and a block that is read again from its place is the same block.

When training goes on with another number of rows, the sentences that the old rows had not begun are numbered
anew in the old order and dealt to the new rows: that is a `Deal`. `Rows` are what a reader has of them all.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from elmo_hf.corpus.source import Source
from elmo_hf.corpus.vocabulary import BEGIN, END

UNSHUFFLED = 10_000  # sentences of a block that is not shuffled
AT_ONCE = 50  # sentences that are read between two windows, or a multiple
BLOCK_LETTERS = 2**26  # a block of long sentences ends earlier, so that it fits in memory


class Place(NamedTuple):
    """Where a block begins."""

    epoch: int
    block: int  # number of the block in its epoch
    shard: int  # number of the shard in the epoch's order
    line: int  # lines of that shard that come before
    sentence: int  # sentences of the reading that come before


START = Place(0, 0, 0, 0, 0)


class Origin(NamedTuple):
    """Where a sentence stands in the corpus. Shard, line and part (the line's sentence) count from 0."""

    epoch: int
    shard: int
    line: int
    part: int


@dataclass(eq=False)
class Block:
    """The sentences of some lines; once it is sealed, in the order of their numbers."""

    place: Place
    end: Place
    texts: list[str] = field(default_factory=list)
    origins: list[tuple[int, ...]] = field(default_factory=list)  # of an `Origin`
    lines: int = 0
    letters: int = 0
    digest: int = 0
    unread: int = 0  # sentences that a reader has taken from here and not yet read to their end

    def add(self, line: str, sentences: list[str], shard: int, number: int) -> None:
        self.lines += 1
        self.letters += len(line)
        self.texts += sentences
        self.origins += [(self.place.epoch, shard, number, part) for part in range(len(sentences))]

    def seal(self, generator: np.random.Generator | None) -> None:
        """Shuffled, and with a check sum, by which another text or another shuffling is noticed."""
        if generator is not None:
            order = generator.permutation(len(self.texts)).tolist()
            self.texts = [self.texts[number] for number in order]
            self.origins = [self.origins[number] for number in order]
        for text in self.texts:
            self.digest = zlib.crc32(text.encode("utf-8") + b"\n", self.digest)

    def forget(self) -> None:
        """The text, which its rows have now."""
        self.texts, self.origins = [], []


@dataclass
class Reading:
    """One endless numbered order of the sentences of a source, or one that ends after some epochs."""

    source: Source
    direction: int
    seed: int
    shuffle_sentences: int
    epochs: int | None

    def blocks(self, place: Place) -> Iterator[Block | None]:
        """The blocks from a place on, and None now and then while a block is read."""
        while self.epochs is None or place.epoch < self.epochs:
            is_from_its_start, first = place.block == 0, place.sentence
            for block in self._rest_of_epoch(place):
                yield block
                place = block.end if block is not None else place
            if is_from_its_start and place.sentence == first:
                raise ValueError(f"{self.source.name} is empty; there is no word in it.")
            place = Place(place.epoch + 1, 0, 0, 0, place.sentence)

    def _rest_of_epoch(self, place: Place) -> Iterator[Block | None]:
        shards = self._shards(place.epoch)
        block, line, pause = Block(place, place), place.line, 0
        for position in range(place.shard, len(shards)):
            for lines in self.source.lines(shards[position], skip=line):
                for text in lines:
                    block.add(text, self.source.sentences(text), shards[position], line)
                    line += 1
                    if self._is_full(block):
                        yield self._sealed(block, position, line)
                        block, pause = Block(block.end, block.end), 0
                    elif len(block.texts) >= pause + AT_ONCE:
                        pause = len(block.texts)
                        yield None
            line = 0
        if block.lines:
            yield self._sealed(block, len(shards), 0)

    def _is_full(self, block: Block) -> bool:
        return len(block.texts) >= (self.shuffle_sentences or UNSHUFFLED) or block.letters >= BLOCK_LETTERS

    def _sealed(self, block: Block, shard: int, line: int) -> Block:
        epoch, number, *_, sentence = block.place
        block.end = Place(epoch, number + 1, shard, line, sentence + len(block.texts))
        block.seal(self._generator(epoch, 1 + number) if self.shuffle_sentences else None)
        return block

    def _shards(self, epoch: int) -> list[int]:
        count = self.source.num_shards
        return (
            self._generator(epoch, 0).permutation(count).tolist()
            if self.shuffle_sentences
            else [*range(count)]
        )

    def _generator(self, epoch: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.direction, epoch, purpose])


class Deal:
    """Sentences numbered anew, after `rows` rows had begun some of them and stopped.

    Args:
        rows: how many rows there were.
        begun: how many sentences each row had begun.
        used: how many words of its last sentence each row had read, 0 if all of them.
    """

    def __init__(self, rows: int, begun: list[int], used: list[int]) -> None:
        self.rows, self.begun, self.used = rows, begun, used
        stopped = [row for row in range(rows) if used[row]]
        self._stopped = np.array([(begun[row] - 1) * rows + row for row in stopped], dtype=np.int64)
        self._stopped_at = np.array([used[row] for row in stopped], dtype=np.int64)
        # Rows go at different speeds. Below the slowest all was begun, from the fastest on nothing was.
        self._first_untouched = max(begun) * rows
        mixed = np.arange(min(begun) * rows, self._first_untouched)
        self._unread = mixed[mixed // rows >= np.array(begun)[mixed % rows]]

    def renumber(self, numbers: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """New numbers, -1 for what was read, and the word at which each sentence starts.

        What was left of begun sentences comes first, row by row, then what nobody had begun.
        """
        new, starts = np.full_like(numbers, -1), starts.copy()
        left, unread = len(self._stopped), len(self._unread)
        _, here, which = np.intersect1d(numbers, self._stopped, return_indices=True)
        new[here], starts[here] = which, self._stopped_at[which]
        _, here, which = np.intersect1d(numbers, self._unread, return_indices=True)
        new[here] = left + which
        untouched = numbers >= self._first_untouched
        new[untouched] = left + unread + numbers[untouched] - self._first_untouched
        return new, starts


# ---- rows


@dataclass
class Sentence:
    """A sentence that a row has begun: as it is read in each direction, boundaries at both ends."""

    texts: list[list[str]]
    origin: Origin
    block: Block

    def __len__(self) -> int:
        """How many words it has to read, or to predict."""
        return len(self.texts[0]) - 1


# A sentence that waits for its row: text, origin, the word to start at (0, unless its first words were read
# before by another number of rows), number of its block. Plain tuples of these are what Python's garbage
# collector does not walk through; of 100,000 other objects it makes a pause of half a second.
Waiting = tuple[str, tuple[int, ...], int, int]


@dataclass
class Filled:
    """What rows read in a window: for each direction all words one after another, and where they stand."""

    mask: np.ndarray  # (rows, steps)
    inputs: list[list[str]]
    targets: list[list[str]]
    begun: list[tuple[int, Origin]] = field(default_factory=list)


class Rows:
    """Rows `first` to `last` of `count`, which read one reading: each its own sentences, without gaps.

    Args:
        directions: which directions read this reading: 0 is forward, 1 is backward.
        state: where to go on, for all `count` rows.
    """

    def __init__(
        self, reading: Reading, directions: Sequence[int], count: int, first: int, last: int, state: dict
    ) -> None:
        self.source, self.directions, self.count, self.first = reading.source, directions, count, first
        self.end = Place(*state["place"])  # how far the reading has been read
        self.digest: int | None = state["digest"]
        self.deals = [Deal(**deal) for deal in state["deals"]]
        self.begun: list[int] = state["begun"][first:last]
        self.used = [0] * (last - first)
        self.sentences: list[Sentence | None] = [None] * (last - first)
        self.waiting: list[dict[int, Waiting]] = [{} for _ in self.begun]
        self.kept: dict[int, Block] = {}  # blocks with sentences that were not read to their end
        self._blocks = reading.blocks(self.end)
        self._ahead = self._share = 0  # sentences that wait, and those that the last block had for these rows
        self._go_on(state["used"][first:last])

    def _go_on(self, used: list[int]) -> None:
        """The sentences in whose midst rows stopped."""
        stopped = [row for row, words in enumerate(used) if words]
        for row in stopped:
            self.begun[row] -= 1
        for row in stopped:
            self._begin(row)
            self.used[row] = used[row]

    def fill(self, steps: int) -> Filled:
        """The next window of every row."""
        mask = np.ones((len(self.begun), steps), dtype=bool)
        filled = Filled(mask, [[] for _ in self.directions], [[] for _ in self.directions])
        for row in range(len(self.begun)):
            mask[row, self._fill_row(row, steps, filled) :] = False
        self._read_ahead(len(filled.begun))
        return filled

    def _fill_row(self, row: int, steps: int, filled: Filled) -> int:
        read = 0
        while read < steps:
            sentence = self.sentences[row] or self._begin(row)
            if sentence is None:
                break
            start = self.used[row]
            stop = min(start + steps - read, len(sentence))
            if start == 0:
                filled.begun.append((self.first + row, sentence.origin))
            for text, inputs, targets in zip(sentence.texts, filled.inputs, filled.targets, strict=True):
                inputs += text[start:stop]
                targets += text[start + 1 : stop + 1]
            read += stop - start
            self._use(row, sentence, stop)
        return read

    def _use(self, row: int, sentence: Sentence, words: int) -> None:
        self.used[row] = words
        if words == len(sentence):
            self.used[row], self.sentences[row] = 0, None
            sentence.block.unread -= 1

    def _begin(self, row: int) -> Sentence | None:
        """The row's next sentence, or None after the last epoch."""
        while self.begun[row] not in self.waiting[row]:
            if not self._read_block():
                return None
        text, origin, start, block = self.waiting[row].pop(self.begun[row])
        self.begun[row] += 1
        self.used[row] = start
        self._ahead -= 1
        words = self.source.words(text)
        texts = [_as_read(words, direction) for direction in self.directions]
        self.sentences[row] = sentence = Sentence(texts, Origin(*origin), self.kept[block])
        return sentence

    # ---- reading on

    def _read_block(self) -> bool:
        for block in self._blocks:
            if block is not None:
                self._deal(block)
                return True
        return False

    def _read_ahead(self, begun: int) -> None:
        """After each window about twice the sentences that all rows have used for it, so that none has to
        wait until a block is read; but not while there is more than a block in stock."""
        for _ in range(1 + 2 * begun * self.count // len(self.begun) // AT_ONCE):
            if self._ahead < self._share:
                block = next(self._blocks, None)
                if block is not None:
                    self._deal(block)

    def _deal(self, block: Block) -> None:
        """Hands the rows their sentences of a block."""
        if self.digest is not None and block.digest != self.digest:
            raise ValueError(
                f"{self.source.name} has changed since the training stopped (or numpy shuffles in another "
                "way); go on with the same text, or begin anew."
            )
        self.digest, self.end = None, block.end
        numbers = np.arange(len(block.texts)) + block.place.sentence
        starts = np.zeros_like(numbers)
        for deal in self.deals:
            numbers, starts = deal.renumber(numbers, starts)
        turns, rows = numbers // self.count, numbers % self.count - self.first
        own = np.flatnonzero((numbers >= 0) & (rows >= 0) & (rows < len(self.begun)))
        own = own[turns[own] >= np.array(self.begun)[rows[own]]]
        for index, row, turn in zip(own.tolist(), rows[own].tolist(), turns[own].tolist(), strict=True):
            start, text, origin = int(starts[index]), block.texts[index], block.origins[index]
            self.waiting[row][turn] = (text, origin, start, block.place.sentence)
        block.unread = self._share = len(own)
        self._ahead += len(own)
        if len(own):
            self.kept[block.place.sentence] = block
        block.forget()

    def state(self) -> dict:
        """Where to read on: the first block that is still needed, and how far every row is."""
        self.kept = {number: block for number, block in self.kept.items() if block.unread}
        oldest = next(iter(self.kept.values()), None)
        place, digest = (oldest.place, oldest.digest) if oldest else (self.end, self.digest)
        deals = [{"rows": deal.rows, "begun": deal.begun, "used": deal.used} for deal in self.deals]
        rows = {"begun": list(self.begun), "used": list(self.used)}
        return {"place": list(place), "digest": digest, "deals": deals, **rows}


def _as_read(words: list[str], direction: int) -> list[str]:
    """With its boundaries; each word is read, but the last, and then the one behind it is predicted."""
    return [END, *reversed(words), BEGIN] if direction else [BEGIN, *words, END]
