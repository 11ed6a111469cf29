"""Sections of a corpus, and the groups of rows that read them.

    sections = cut_files(["a.txt", "b.txt"], "text")
    groups = number_of_groups(sections, rows=384)
    shares = Shares(sections, groups, shuffled=lambda epoch: generator(epoch).permutation(len(sections)))
    shares.of(epoch=0, group=5)          # the sections that group 5 reads, in its order

A section is a run of lines that is read without reading what is before it: some kilobytes of a plain text or
of JSON lines, or a row group of a Parquet file. A packed file (.gz, .xz ...), a CSV file, a JSON array and a
shard of a stream are one section each, as they can only be read from their start.

The rows of a batch are divided evenly into groups. In each epoch every section goes to one group: in a
shuffled order each goes to the group that has the fewest bytes so far. So the rows of a group need its
sections alone, and all groups come to the end of the text at about the same time, also if the files differ in
size. A text that is small, or that can only be read from its start, has one group with all rows.
"""

import heapq
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np

from elmo_hf.corpus.parquet import row_groups
from elmo_hf.corpus.readers import has_lines, read_lines_of
from elmo_hf.corpus.unpacking import Span, is_packed
from elmo_hf.remote import is_address

SMALL_TEXT = 8 << 20  # bytes of a text that is not cut, as it is read quickly
SMALLEST = 4 << 10  # bytes of a section
MOST_SECTIONS = 2**15  # about; the sections of a larger text are larger
STEP = 2**20  # bytes of a section from which reading goes on in a shard
BYTES_OF_GROUP = 2**17  # at least, in an epoch
SHARDS_OF_GROUP = 8  # at least, where their sizes are not known
MOST_OPEN = 16  # groups whose files stay open, each with the memory of its unpacker


class Section(NamedTuple):
    """
    shard: the number of its file.
    first: records of its shard before it.
    span: where it is in its file: lines of a plain file, or the records of a row group. A section without
        one is a whole shard.
    size: bytes, 0 if they are not known.
    filled: records of its shard before it that are not empty, where lines are held out.
    """

    shard: int
    first: int = 0
    span: Span | None = None
    size: int = 0
    filled: int = 0

    @property
    def is_whole(self) -> bool:
        return self.span is None

    @property
    def stays_open(self) -> bool:
        """Whether its file is open as long as it is read; a plain file is not."""
        return self.span is None or self.span.unit != "byte"


def cut_files(files: list[str], kind: str) -> list[Section]:
    """The sections of files of one kind, in the order of the corpus. Files at addresses are not cut.

    It counts the lines of large texts, which takes about as long as copying them.
    """
    if any(map(is_address, files)):
        return [Section(shard) for shard in range(len(files))]
    sizes = [Path(file).stat().st_size for file in files]
    if sum(sizes) < SMALL_TEXT:
        return [Section(shard, size=size) for shard, size in enumerate(sizes)]
    step = max(SMALLEST, sum(sizes) // MOST_SECTIONS)
    return [
        section
        for shard, (file, size) in enumerate(zip(files, sizes, strict=True))
        for section in _cut(file, kind, Section(shard, size=size), step)
    ]


def _cut(file: str, kind: str, whole: Section, step: int) -> Iterator[Section]:
    if kind == "parquet":
        yield from _row_groups(file, whole)
    elif is_packed(file) or not has_lines(file, kind):
        yield whole
    else:
        yield from _spans(file, kind, whole, step)


def sections_from(file: str, kind: str, whole: Section, record: int) -> list[Section]:
    """The sections of a shard from that on in which a record is; the whole shard, if it cannot be cut."""
    sections = [whole] if is_address(file) else [*_cut(file, kind, whole, STEP)]
    return [
        section
        for section, following in zip_longest(sections, sections[1:])
        if following is None or following.first > record
    ]


def _row_groups(file: str, whole: Section) -> Iterator[Section]:
    first = 0
    for rows, size in row_groups(file):
        yield whole._replace(first=first, span=Span(first, first + rows), size=size)
        first += rows


def _spans(file: str, kind: str, whole: Section, step: int) -> Iterator[Section]:
    first = 0
    for span in spans_of_lines(file, step):
        yield whole._replace(
            first=first if kind == "json" else span.line or 0, span=span, size=span.stop - span.start
        )
        if kind == "json":  # where empty lines are no records
            blocks = read_lines_of(file, errors="surrogateescape", span=span)
            first += sum(bool(line.strip()) for lines in blocks for line in lines)


def spans_of_lines(file: str, step: int) -> Iterator[Span]:
    """A file's lines in spans: the lines that start in the first `step` bytes, in the second, and so on.

    A line ends with \\n, \\r\\n or \\r, as Python's files have it; a span ends behind a \\n.
    """
    start = line = position = lines = 0
    last = b""
    with Path(file).open("rb") as content:
        while block := content.read(step):
            end = block.find(b"\n") + 1
            if end and position:
                span_line = lines + _line_ends(block[:end], last)
                yield Span(start, position + end, "byte", line)
                start, line = position + end, span_line
            lines += _line_ends(block, last)
            position, last = position + len(block), block[-1:]
    if position > start:
        yield Span(start, position, "byte", line)


def _line_ends(block: bytes, last: bytes) -> int:
    """How many lines end in a block that follows on the byte `last`."""
    ends = block.count(b"\n") + block.count(b"\r") - block.count(b"\r\n")
    return ends - (last == b"\r" and block.startswith(b"\n"))


# ---- groups


def is_small(sections: list[Section]) -> bool:
    """Whether the size of the text is known, and it is read quickly as a whole."""
    return 0 < sum(section.size for section in sections) < SMALL_TEXT


def number_of_groups(sections: list[Section], rows: int) -> int:
    """The most groups that have the same number of rows, and about the same number of bytes in an epoch."""
    sizes = [section.size for section in sections]
    most = len(sizes) // SHARDS_OF_GROUP
    if any(sizes):
        share = max(BYTES_OF_GROUP, 0.8 * max(sizes))
        most = 1 if is_small(sections) else int(sum(sizes) / share)
    if any(section.stays_open for section in sections):
        most = min(most, MOST_OPEN)
    return next((count for count in range(min(most, rows), 1, -1) if rows % count == 0), 1)


class Shares:
    """The sections of every group in every epoch.

    Args:
        sections: all sections.
        groups: how many groups there are.
        shuffled: the numbers of all sections in the order of an epoch.
    """

    def __init__(self, sections: list[Section], groups: int, shuffled: Callable[[int], np.ndarray]) -> None:
        self.count = len(sections)
        self._sections, self._groups, self._shuffled = sections, groups, shuffled
        self._loads = [[(0, group) for group in range(groups)]]  # before each epoch
        self._of_epoch = lru_cache(maxsize=4)(self._divide)

    def of(self, epoch: int, group: int) -> list[Section]:
        return [self._sections[number] for number in self._of_epoch(epoch)[group]]

    def _divide(self, epoch: int) -> list[list[int]]:
        """The numbers of the sections of each group."""
        while len(self._loads) <= epoch:
            self._of_epoch(len(self._loads) - 1)
        loads, shares = [*self._loads[epoch]], [[] for _ in range(self._groups)]  # type: ignore[var-annotated]
        heapq.heapify(loads)
        for number in self._shuffled(epoch).tolist():
            load, group = loads[0]
            shares[group].append(number)
            heapq.heapreplace(loads, (load + max(1, self._sections[number].size), group))
        if len(self._loads) == epoch + 1:
            self._loads.append(loads)
        return shares
