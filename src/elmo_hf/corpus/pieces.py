"""A corpus divided among machines: pieces of about the same size, which together are the corpus in its order.

    third = piece_of(open_records("corpus/*.txt"), "3/16")
    for record in third.records(): ...

A piece is a run of the corpus, found by the sizes of its files: nothing else is read of the files before and
behind it. In a file, it begins and ends at the start of a line or at a row. Lines of text and JSON, and the
rows of Parquet, are reached by a jump; packed files, CSV and JSON arrays are read from the start of the file.
"""

import copy
import re
from itertools import accumulate, islice
from typing import Any

from elmo_hf.corpus.parquet import row_groups
from elmo_hf.corpus.readers import has_lines, num_rows, read_csv, read_json
from elmo_hf.corpus.sections import Section
from elmo_hf.corpus.source import Piece, Source
from elmo_hf.corpus.unpacking import Span, line_start, unpacked_size
from elmo_hf.errors import ElmoError, quoted
from elmo_hf.remote import file_size


def parse_shard(shard: str) -> tuple[int, int]:
    """ "3/16" as (3, 16)."""
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", str(shard).strip(), re.ASCII)
    number, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= count:
        example = f"1/{count} for the first and {count}/{count} for the last" if count else "3/16"
        raise ElmoError(
            f"shard must be a number and how many there are, such as {example}, but is {quoted(shard)!r}."
        )
    return number, count


def piece_of(source: Source, shard: str) -> Source:
    """The piece of a corpus that "3/16" stands for. It may be empty if there is little text."""
    number, count = parse_shard(shard)
    piece = copy.copy(source)
    piece.__dict__.pop("sections", None)  # which are those of the whole corpus
    choose = _choose_files if source.files else _choose_records
    size = choose(piece, number, count)
    piece.piece = Piece(number, count, size)
    piece.name = f"shard {piece.piece} of {source.name}"
    return piece


# ---- records in memory, and data sets that are no files of ours


def _choose_records(piece: Source, number: int, count: int) -> int:
    records: Any = piece._rows_in_memory
    if records is not None and piece.stream is not None:
        raise ElmoError(
            f"{piece.name} can be read only once, so that its shards cannot be counted; write it into a "
            "file, or pass a list."
        )
    size = len(records) if records is not None else sum(1 for _ in piece.records())
    start, stop = (size * end // count for end in (number - 1, number))
    if records is not None:
        piece._rows_in_memory = list(islice(records, start, stop))
    else:
        piece.dataset = piece.dataset.skip(start).take(stop - start)
        piece.num_shards = 1
    return size


# ---- files


def _choose_files(piece: Source, number: int, count: int) -> int:
    """Leave the piece's files, and the spans of the first and the last. Returns the bytes of all files."""
    sizes = [file_size(file) for file in piece.files]
    units: dict[
        int, int
    ] = {}  # of the files in which a piece begins or ends, which may take a while to count

    def place(end: int) -> tuple[int, int]:
        """The file in which a piece begins or ends, and where in it."""
        target = sum(sizes) * end // count
        index = next((index for index, last in enumerate(accumulate(sizes)) if target < last), len(sizes))
        within = target - sum(sizes[:index])
        if index == len(sizes) or not within:
            return index, 0
        with piece._readable(piece.files[index], Section(index)):
            if index not in units:
                units[index] = _units(piece, index)
            unit = units[index] * within // sizes[index]
            unit = line_start(piece.files[index], unit) if _has_lines(piece, index) else unit
        return (index, unit) if unit < units[index] else (index + 1, 0)

    (first, start), (last, stop) = place(number - 1), place(number)
    spans = {first: _span(piece, first, start, units[first])} if start else {}
    if stop:
        spans[last] = _span(piece, last, start if first == last else 0, stop)
    indices = range(first, min(last + (stop > 0), len(sizes)))
    indices = indices if (first, start) < (last, stop) else range(0)
    piece.files = [piece.files[index] for index in indices]
    piece.spans = {position: spans[index] for position, index in enumerate(indices) if index in spans}
    piece.num_shards = len(indices)
    return sum(sizes)


def _span(piece: Source, index: int, start: int, stop: int) -> Span:
    return Span(start, stop, "byte" if _has_lines(piece, index) else "record")


def _has_lines(piece: Source, index: int) -> bool:
    return has_lines(piece.files[index], piece._kind)


def _units(piece: Source, index: int) -> int:
    """The bytes of a file with lines, unpacked, or the rows of another."""
    file = piece.files[index]
    if _has_lines(piece, index):
        return unpacked_size(file)
    if piece._kind == "parquet":
        return sum(rows for rows, _ in row_groups(file))
    if piece._kind == "json":
        return sum(1 for _ in read_json(file))
    return sum(map(num_rows, read_csv(file)))
