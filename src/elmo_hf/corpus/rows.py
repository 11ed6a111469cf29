"""One reader's rows of a batch: the sentences that each is reading, and those that wait for it.

    rows = Rows(order, encoder, directions=(0,), count=384, first=0, last=48, state=state)
    words = rows.read(20)       # the next 20 words of each of the 48 rows, as numbers of the encoder
    rows.state()                # where to go on: a small dictionary for JSON

`order` says which sentence belongs to which row.
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from elmo_hf.corpus.encoder import Encoder
from elmo_hf.corpus.order import PAUSE, START, Block, Numbering, Origin, Position, SentenceOrder
from elmo_hf.errors import ElmoError

State = dict[str, Any]

# A sentence that waits for its row: text, origin, the word to start at (0, unless its first words were read
# before by another number of rows), its group, the number of its block's first sentence. Plain tuples,
# because Python's garbage collector does not walk through them; 100,000 other objects cost it a pause of half
# a second.
Waiting = tuple[str, tuple[int, ...], int, int, int]


@dataclass(eq=False)
class ReadBlock:
    """Where a block begins, and how many of its sentences this reader's rows have not read to their end."""

    start: Position
    digest: int
    unread: int


@dataclass(eq=False)
class Group:
    """What a reader has read of a group.

    Args:
        number: of the group.
        blocks: those that follow.
        end: of the last block.
        digest: of the next block, if that was read before the training stopped.
    """

    number: int
    blocks: Iterator[Block | None]
    end: Position
    digest: int | None
    unread_blocks: dict[int, ReadBlock] = field(default_factory=dict)  # by their first sentence
    waiting: int = 0  # sentences that wait for this reader's rows
    share: int = 0  # how many of them the last block had
    has_ended: bool = False

    def next_block(self) -> Block | None:
        """The next block, or None at the end of the text."""
        for block in self.blocks:
            if block is not None:
                return block
        self.has_ended = True
        return None

    def place(self) -> tuple[Position, int | None]:
        """The first block that is still needed, and its digest."""
        self.unread_blocks = {first: block for first, block in self.unread_blocks.items() if block.unread}
        oldest = next(iter(self.unread_blocks.values()), None)
        return (oldest.start, oldest.digest) if oldest else (self.end, self.digest)


class Sentence:
    """A sentence that a row is reading.

    Args:
        words: without its boundaries.
        slots: for each direction the words in its order, with a boundary at both ends, as numbers of the
            encoder. Each word but the last is an input, and the next one is its target.
    """

    __slots__ = ("block", "length", "origin", "slots", "words")

    def __init__(
        self, words: list[str], slots: list["array[int]"], origin: tuple[int, ...], block: ReadBlock
    ) -> None:
        self.words, self.slots, self.origin, self.block = words, slots, origin, block
        self.length = len(words) + 1  # words that it has to read, or to predict


@dataclass
class RowWords:
    """The words that rows read in a window: for each direction one row's after another's.

    mask: (rows, steps), False where a row has ended.
    started: the sentences that begin in the window, each with its row.
    """

    mask: np.ndarray
    inputs: list["array[int]"]
    targets: list["array[int]"]
    started: list[tuple[int, Origin]] = field(default_factory=list)


class Rows:
    """Rows `first` to `last` of `count`, each of which reads its own sentences of an order without gaps.

    Args:
        order: the order of the sentences.
        encoder: of their words.
        directions: in which directions they are read: 0 is forward, 1 is backward.
        state: where to begin, for all `count` rows: `new_state`, or where they stopped.
    """

    def __init__(
        self,
        order: SentenceOrder,
        encoder: Encoder,
        directions: Sequence[int],
        count: int,
        first: int,
        last: int,
        state: State,
    ) -> None:
        self.order, self.source, self.encoder = order, order.source, encoder
        self.directions, self.count, self.first = directions, count, first
        self.numbering = Numbering(count, order.groups, state["deals"])
        self.started: list[int] = state["begun"][first:last]
        self.used = [0] * (last - first)
        self.sentences: list[Sentence | None] = [None] * (last - first)
        self.waiting: list[dict[int, Waiting]] = [{} for _ in self.started]
        self._own = {group for row in range(first, last) for group in self.numbering.groups_of(row)}
        self._are_regular = False
        self._places = places_of(state)
        self._groups: dict[int, Group] = {}
        self._generation = encoder.generation
        self._resume(state["used"][first:last])

    def _resume(self, used: list[int]) -> None:
        """Go back into the sentences in which rows stopped.

        Raises:
            ElmoError: the text is another, or the state is damaged.
        """
        stopped = [row for row, words in enumerate(used) if words]
        for row in stopped:
            self.started[row] -= 1
        for number in sorted(self._needed_groups()):
            if self._places[number][1] is not None and not self._read_block(self._group(number)):
                raise ElmoError(
                    f"{self.source.name} ends before the place where the training stopped; go on with the "
                    "same text and no fewer epochs, or begin anew."
                )
        for row in stopped:
            number = self.started[row]
            sentence = self._start_sentence(row)
            if sentence is None or self.started[row] != number + 1 or used[row] >= sentence.length:
                raise ElmoError(
                    f"{self.source.name} does not have the sentence in which row {self.first + row} stopped; "
                    "go on with the same text and no fewer epochs, or begin anew."
                )
            self.used[row] = used[row]

    def read(self, steps: int) -> RowWords:
        """The next `steps` words of every row."""
        if self._generation != self.encoder.generation:
            self._encode_again()
        words = RowWords(
            np.ones((len(self.started), steps), dtype=bool),
            [array("i") for _ in self.directions],
            [array("i") for _ in self.directions],
        )
        for row in range(len(self.started)):
            count = self._read_row(row, steps, words)
            if count < steps:
                words.mask[row, count:] = False
        self._read_ahead(len(words.started))
        return words

    def _read_row(self, row: int, steps: int, words: RowWords) -> int:
        """Adds the words of a row; returns how many there were."""
        count = 0
        while count < steps:
            sentence = self.sentences[row] or self._start_sentence(row)
            if sentence is None:
                break
            start, length = self.used[row], sentence.length
            stop = start + steps - count
            if stop > length:
                stop = length
            if start == 0:
                words.started.append((self.first + row, sentence.origin))
            for slots, inputs, targets in zip(sentence.slots, words.inputs, words.targets, strict=True):
                inputs += slots[start:stop]
                targets += slots[start + 1 : stop + 1]
            count += stop - start
            self.used[row] = stop
            if stop == length:
                self.used[row], self.sentences[row] = 0, None
                sentence.block.unread -= 1
        return count

    def _start_sentence(self, row: int) -> Sentence | None:
        """The row's next sentence, or None after the last epoch."""
        waiting = self._next_waiting(row)
        if waiting is None:
            return None
        text, origin, start, number, first = waiting
        self.started[row] += 1
        self.used[row] = start
        group = self._groups[number]
        group.waiting -= 1
        words = self.source.words(text)
        block = group.unread_blocks[first]
        self.sentences[row] = sentence = Sentence(words, self._slots(words), origin, block)
        return sentence

    def _next_waiting(self, row: int) -> Waiting | None:
        """Groups end at different times: a sentence that would come after the end of its group is passed
        over, as long as others follow."""
        while (waiting := self.waiting[row].pop(self.started[row], None)) is None:
            number, sentence = self.numbering.sentence(self.first + row, self.started[row])
            group = self._group(number)
            if sentence < group.end.sentence or not self._read_block(group):
                if self._has_ended(row):
                    return None
                self.started[row] += 1
        return waiting

    def _has_ended(self, row: int) -> bool:
        groups = self.numbering.groups_of(self.first + row)
        is_regular = self.numbering.is_regular(self.first + row, self.started[row])
        return not self.waiting[row] and is_regular and all(self._group(group).has_ended for group in groups)

    # ---- words as numbers

    def _slots(self, words: list[str]) -> list["array[int]"]:
        forward = self.encoder.slots(words)
        return [forward[::-1] if direction else forward for direction in self.directions]

    def _encode_again(self) -> None:
        """The encoder has forgotten its words."""
        self._generation = self.encoder.generation
        for sentence in self.sentences:
            if sentence is not None:
                sentence.slots = self._slots(sentence.words)

    # ---- reading ahead

    def _group(self, number: int) -> Group:
        if number not in self._groups:
            position, digest = self._places[number]
            self._groups[number] = Group(number, self.order.blocks(position, number), position, digest)
        return self._groups[number]

    def _read_block(self, group: Group) -> bool:
        block = group.next_block()
        if block is not None:
            self._distribute(group, block)
        return block is not None

    def _read_ahead(self, started: int) -> None:
        """Read about twice the sentences that all rows have used for a window, so that none has to wait for a
        block, unless more than a block is waiting."""
        per_group = 2 * started * self.count // (len(self.started) * self.order.groups)
        for group in self._groups.values():
            for _ in range(1 + per_group // PAUSE):
                if group.waiting < group.share:
                    block = next(group.blocks, None)
                    if block is not None:
                        self._distribute(group, block)

    def _distribute(self, group: Group, block: Block) -> None:
        """Hand the rows their sentences of a block."""
        if group.digest is not None and block.digest != group.digest:
            raise ElmoError(
                f"{self.source.name} has changed since the training stopped (or numpy shuffles in another "
                "way); go on with the same text, or begin anew."
            )
        group.digest, group.end, first = None, block.end, block.start.sentence
        rows, turns, starts = self.numbering.deal(group.number, first, len(block.texts))
        rows = rows - self.first
        own = np.flatnonzero((turns >= 0) & (rows >= 0) & (rows < len(self.started)))
        own = own[turns[own] >= np.array(self.started)[rows[own]]]
        for index, row, turn, start in zip(
            own.tolist(), rows[own].tolist(), turns[own].tolist(), starts[own].tolist(), strict=True
        ):
            waiting = (block.texts[index], block.origins[index], start, group.number, first)
            self.waiting[row][turn] = waiting
        group.share = len(own)
        group.waiting += len(own)
        if len(own):
            group.unread_blocks[first] = ReadBlock(block.start, block.digest, len(own))
        block.drop_text()

    # ---- state

    def state(self) -> State:
        """Where to read on: the first block of each group that is still needed, and how far every row is.

        The names are those of version 0.1.0, whose checkpoints go on: "begun" is `started`, "deals" are the
        renumberings.
        """
        places = {
            number: self._groups[number].place() if number in self._groups else self._places[number]
            for number in sorted(self._needed_groups())
        }
        rows = {"deals": self.numbering.renumberings, "begun": list(self.started), "used": list(self.used)}
        return state_of(places, self.order.groups) | rows

    def _needed_groups(self) -> set[int]:
        """Those of the rows; all, while there are sentences of other numbers of rows."""
        if not self._are_regular:
            self._are_regular = all(
                self.numbering.is_regular(self.first + row, number - (sentence is not None))
                for row, (number, sentence) in enumerate(zip(self.started, self.sentences, strict=True))
            )
        return self._own if self._are_regular else {*range(self.order.groups)}


# ---- states of an order


def new_state(groups: int, rows: int) -> State:
    """Of rows that have read nothing."""
    places: dict[int, tuple[Position, int | None]] = dict.fromkeys(range(groups), (START, None))
    return state_of(places, groups) | {"deals": [], "begun": [0] * rows, "used": [0] * rows}


def renumbered(state: State, rows: int, new_rows: int) -> State:
    """The state for another number of rows, which start with the sentences that the old ones had not read."""
    deals = [*state["deals"], {"rows": rows, "begun": state["begun"], "used": state["used"]}]
    return state | {"deals": deals, "begun": [0] * new_rows, "used": [0] * new_rows}


def state_of(places: dict[int, tuple[Position, int | None]], groups: int) -> State:
    """The places of groups as a state has them. One group has the form of version 0.1.0."""
    if groups == 1:
        position, digest = places[0]
        return {"place": list(position), "digest": digest}
    flat: list[int | None] = []  # a state is made for every window, and one list is made quickly
    for number, (position, digest) in places.items():
        flat += (number, digest, *position)
    return {"places": flat}


def places_of(state: State) -> dict[int, tuple[Position, int | None]]:
    if "place" in state:
        return {0: (Position(*state["place"]), state["digest"])}
    places, size = state["places"], 2 + len(START)
    return {
        places[start]: (Position(*places[start + 2 : start + size]), places[start + 1])
        for start in range(0, len(places), size)
    }


def merge_rows(states: Sequence[State], groups: int) -> State:
    """The state of neighbouring rows, from those of the readers that have some of them each."""
    places: dict[int, tuple[Position, int | None]] = {}
    for state in states:
        for number, (position, digest) in places_of(state).items():
            # The earliest position; of two at the same position, one knows the digest of the block there.
            known = places.get(number, (position, None))
            if (position.sentence, digest is None) <= (known[0].sentence, known[1] is None):
                places[number] = position, digest
    merged = state_of(dict(sorted(places.items())), groups) | {"deals": states[0]["deals"]}
    return merged | {
        name: [number for state in states for number in state[name]] for name in ("begun", "used")
    }
