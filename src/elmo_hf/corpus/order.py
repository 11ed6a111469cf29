"""The order in which the sentences of a corpus are read, and which row of a batch reads which sentence.

    order = SentenceOrder(source, direction=0, seed=1, shuffle_sentences=100_000, epochs=10, groups=64)
    for block in order.blocks(START, group=5): ...

The contract of reading, on which exact resuming rests:

- The text is divided among some groups, each with its own sections of it in every epoch (`sections`). A
  group numbers its sentences 0, 1, 2, ... over all epochs. Its sections come in an order of their own in each
  epoch, and its sentences are shuffled within blocks. The blocks of all groups together have some 100,000
  sentences. The order depends only on the text, the seed, the direction, the size of the blocks and the
  number of groups.
- The groups take turns: sentence i of group g has the number n = i * groups + g. It belongs to row n % rows
  and is that row's sentence number n // rows, whichever process has it. As `groups` divides `rows`, a row
  reads the sentences of one group, and a reader reads the sections of its rows' groups and no others. Rows of
  a group are neighbours: they are numbered group by group (`Numbering`).
- A position in a group is five numbers. A block that is read again from its position is the same block.
- When training goes on with another number of rows, the sentences that the old rows had not finished are
  numbered anew in the old order, and these numbers belong to the new rows: a `Renumbering`. A
  sentence that had been started goes on at its first unread word. Then a row may read more than one group.

A text with one group is read as by version 0.1.0. `rows` has one reader's share of the rows.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import gcd
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from elmo_hf.corpus.sections import Section, Shares
from elmo_hf.corpus.source import Source
from elmo_hf.errors import ElmoError

UNSHUFFLED = 10_000  # sentences of a block that is not shuffled
SMALLEST_BLOCK = 32  # sentences of a group
PAUSE = 50  # sentences after which reading a block pauses, so that a window can be made
BLOCK_CHARACTERS = 2**26  # blocks of long sentences end earlier, so that they fit in memory


class Position(NamedTuple):
    """Where a block begins in the order of a group."""

    epoch: int
    block: int  # number of the block in its epoch
    shard: int  # number of the section in the group's order of the epoch
    line: int  # lines of that section that come before
    sentence: int  # sentences of the group that come before


START = Position(0, 0, 0, 0, 0)
Origin = tuple[int, ...]  # of a sentence: epoch, shard, line, its number in the line; all count from 0


@dataclass(eq=False)
class Block:
    """The sentences of some lines; after `seal`, in the order of their numbers."""

    start: Position
    end: Position
    texts: list[str] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)
    lines: int = 0
    characters: int = 0
    digest: int = 0

    def add(self, line: str, sentences: list[str], shard: int, number: int) -> None:
        self.lines += 1
        self.characters += len(line)
        self.texts += sentences
        for index in range(len(sentences)):
            self.origins.append((self.start[0], shard, number, index))

    def seal(self, generator: np.random.Generator | None) -> None:
        """Shuffle the sentences, and take the checksum that another text or shuffling does not have."""
        if generator is not None:
            order = generator.permutation(len(self.texts)).tolist()
            if len(order) > 1:
                self.texts, self.origins = (
                    [*itemgetter(*order)(items)] for items in (self.texts, self.origins)
                )
        self.digest = zlib.crc32("".join(text + "\n" for text in self.texts).encode("utf-8"))

    def drop_text(self) -> None:
        """Free the text, once the rows have it."""
        self.texts, self.origins = [], []


class SentenceOrder:
    """The numbered orders of the sentences of a source, endless or over some epochs: one for each group.

    Args:
        direction: 0 or 1; each has its own order.
        seed: of the shuffling.
        shuffle_sentences: sentences of the blocks of all groups, which are held in memory; 0 keeps the order
            of the corpus.
        epochs: how often the corpus is read; None is without end.
        groups: the number of groups.
    """

    def __init__(
        self,
        source: Source,
        direction: int,
        seed: int,
        shuffle_sentences: int,
        epochs: int | None,
        groups: int = 1,
    ) -> None:
        self.source, self.direction, self.seed = source, direction, seed
        self.shuffle_sentences, self.epochs, self.groups = shuffle_sentences, epochs, groups
        self._block_size, self._block_characters = shuffle_sentences or UNSHUFFLED, BLOCK_CHARACTERS
        sections = [Section(shard) for shard in range(source.num_shards)]
        if groups > 1:
            self._block_size = max(SMALLEST_BLOCK, self._block_size // groups)
            self._block_characters //= groups
            sections = source.sections
        self._shares = Shares(sections, groups, self._shuffled)

    def blocks(self, position: Position, group: int = 0) -> Iterator[Block | None]:
        """The blocks of a group from a position on, and None now and then while a block is read."""
        while self.epochs is None or position.epoch < self.epochs:
            is_whole_epoch, first_sentence = position.block == 0, position.sentence
            for block in self._blocks_of_epoch(position, group):
                yield block
                position = block.end if block is not None else position
            if is_whole_epoch and position.sentence == first_sentence:
                self._check_empty()
            position = Position(position.epoch + 1, 0, 0, 0, position.sentence)

    def _check_empty(self) -> None:
        """After an epoch without a sentence. A group of several may have read empty lines alone."""
        if self.groups == 1:
            raise ElmoError(f"{self.source.name} is empty; there is no word in it.")

    def _blocks_of_epoch(self, position: Position, group: int) -> Iterator[Block | None]:
        sections = self._shares.of(position.epoch, group)
        block, line, paused_at = Block(position, position), position.line, 0
        for index in range(position.shard, len(sections)):
            shard, first = sections[index].shard, sections[index].first
            for lines in self.source.lines_of(sections[index], skip=line):
                for text in lines:
                    block.add(text, self.source.sentences(text), shard, first + line)
                    line += 1
                    if len(block.texts) >= self._block_size or block.characters >= self._block_characters:
                        yield self._sealed(block, index, line, group)
                        block, paused_at = Block(block.end, block.end), 0
                    elif len(block.texts) >= paused_at + PAUSE:
                        paused_at = len(block.texts)
                        yield None
            line = 0
        if block.lines:
            yield self._sealed(block, len(sections), 0, group)

    def _sealed(self, block: Block, section: int, line: int, group: int) -> Block:
        epoch, number, *_, sentence = block.start
        block.end = Position(epoch, number + 1, section, line, sentence + len(block.texts))
        block.seal(self._generator(epoch, 1 + number, group) if self.shuffle_sentences else None)
        return block

    def _shuffled(self, epoch: int) -> np.ndarray:
        """The numbers of all sections in the order of an epoch."""
        count = self._shares.count
        return self._generator(epoch, 0).permutation(count) if self.shuffle_sentences else np.arange(count)

    def _generator(self, epoch: int, purpose: int, group: int = 0) -> np.random.Generator:
        groups = [group] if self.groups > 1 else []
        return np.random.default_rng([self.seed, self.direction, epoch, purpose, *groups])


# ---- numbers of sentences


class Renumbering:
    """New numbers for the sentences that `rows` rows had not finished when they stopped: first the unfinished
    ones, row by row, then those that no row had started.

    Args:
        rows: how many rows there were.
        started: how many sentences each row had started.
        used: how many words of its last sentence each row had read, 0 if all of them.
    """

    def __init__(self, rows: int, started: Sequence[int], used: Sequence[int]) -> None:
        counts, words = np.array(started, dtype=np.int64), np.array(used, dtype=np.int64)
        stopped = np.flatnonzero(words)
        unfinished = (counts[stopped] - 1) * rows + stopped
        # Rows go at different speeds: below the slowest row all sentences were started, from the fastest on
        # none was, and between them it depends on the row.
        self._first_untouched = int(counts.max()) * rows
        between = np.arange(int(counts.min()) * rows, self._first_untouched)
        not_started = between[between // rows >= counts[between % rows]]
        self._listed = np.concatenate([unfinished, not_started])
        self._starts = np.concatenate([words[stopped], np.zeros_like(not_started)])

    def renumber(self, numbers: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the new numbers, -1 for sentences that were read, and the word at which each one starts."""
        new, starts = np.full_like(numbers, -1), starts.copy()
        _, indices, which = np.intersect1d(numbers, self._listed, return_indices=True)
        new[indices] = which
        starts[indices] = np.where(self._starts[which] > 0, self._starts[which], starts[indices])
        untouched = numbers >= self._first_untouched
        new[untouched] = numbers[untouched] + self.shift
        return new, starts

    def originals(self, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The numbers before, and the words at which the sentences start."""
        old, starts, is_listed = new - self.shift, np.zeros_like(new), new < self.first_regular
        old[is_listed] = self._listed[new[is_listed]]
        starts[is_listed] = self._starts[new[is_listed]]
        return old, starts

    @property
    def first_regular(self) -> int:
        """The new number of the first sentence that no row had yet; from it on, new numbers are old numbers
        plus `shift`."""
        return len(self._listed)

    @property
    def shift(self) -> int:
        return self.first_regular - self._first_untouched


class Numbering:
    """Which row has which sentence.

    Args:
        rows, groups: their numbers.
        renumberings: entries "deals" of a state, with the names of version 0.1.0: the numbers of rows before,
            how many sentences each row had started, and how many words of the last one it had read.

    Attributes:
        first_regular: the first number that comes from no list of a renumbering.
    """

    def __init__(self, rows: int, groups: int, renumberings: list[dict[str, Any]]) -> None:
        self.rows, self.groups, self.renumberings = rows, groups, renumberings
        self.first_regular = self.shift = 0
        self._renumberings = []
        for entry in renumberings:
            order = self._rows_in_turn(entry["rows"])
            started, used = ([entry[name][row] for row in order] for name in ("begun", "used"))
            renumbering = Renumbering(entry["rows"], started, used)
            self.first_regular = max(renumbering.first_regular, self.first_regular + renumbering.shift)
            self.shift += renumbering.shift
            self._renumberings.append(renumbering)
        in_turn = self._rows_in_turn(rows)
        self._row_of_turn = np.array(in_turn)
        self._turn_of_row = np.argsort(self._row_of_turn).tolist()

    def _rows_in_turn(self, rows: int) -> list[int]:
        """The rows in the order of their turns: one of each group, then the next of each."""
        groups = gcd(rows, self.groups)
        size = rows // groups
        return [turn % groups * size + turn // groups for turn in range(rows)]

    def deal(self, group: int, first: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the `count` sentences of a group from number `first` on: the rows, which of the row's sentences
        they are (negative if they were read), and the words at which they start."""
        numbers = (np.arange(count) + first) * self.groups + group
        starts = np.zeros_like(numbers)
        for renumbering in self._renumberings:
            numbers, starts = renumbering.renumber(numbers, starts)
        return self._row_of_turn[numbers % self.rows], numbers // self.rows, starts

    def is_regular(self, row: int, number: int) -> bool:
        return number * self.rows + self._turn_of_row[row] >= self.first_regular

    def sentence(self, row: int, number: int) -> tuple[int, int]:
        """The group of a row's sentence, and its number in the group."""
        originals = np.array([number * self.rows + self._turn_of_row[row]])
        for renumbering in reversed(self._renumberings):
            originals, _ = renumbering.originals(originals)
        number_in_group, group = divmod(int(originals[0]), self.groups)
        return group, number_in_group

    def groups_of(self, row: int) -> range:
        """The groups whose sentences a row reads, once its numbers are regular."""
        step = gcd(self.rows, self.groups)
        return range((self._turn_of_row[row] - self.shift) % step, self.groups, step)
