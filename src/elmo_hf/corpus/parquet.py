"""A column of a Parquet file, in bounded memory.

A value that occurs often is written once, so that a file of some kilobytes can hold terabytes, and pages
are packed. What a file says of its sizes is compared with its bytes before it is unpacked, and it is unpacked
some rows at a time.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from elmo_hf.corpus.readers import LONGEST, RECORDS_AT_ONCE, Columns, rows_between
from elmo_hf.corpus.unpacking import Span, open_bytes
from elmo_hf.errors import ElmoError, reason_of

# A column may be so many times larger than its bytes in the file; text gets about 10 times smaller.
MOST_GROWTH = 200
ALWAYS_ALLOWED_BYTES = 64 << 20
MOST_BYTES_AT_ONCE = 256 << 20
_DICTIONARY_PAGE = 2


def read_parquet(file: str, column: str | None, span: Span | None = None) -> Iterator[Columns]:
    """A column, some rows at a time. Without its name: "text" and "tokens", and None for the others."""
    usual = ("text", "tokens") if column is None else (column,)
    return _read(file, lambda name: name in usual, column is None, span)


def read_whole_parquet(file: str, _: str | None = None, span: Span | None = None) -> Iterator[Columns]:
    """All columns, some rows at a time."""
    return _read(file, lambda _: True, False, span)


def parquet_schema(file: str) -> Any:
    import pyarrow.parquet

    with _one_sentence(file), open_bytes(file) as content:
        return pyarrow.parquet.read_schema(content)


def row_groups(file: str) -> list[tuple[int, int]]:
    """The number of rows and of bytes of each row group."""
    import pyarrow.parquet

    with _one_sentence(file), open_bytes(file) as content:
        metadata = pyarrow.parquet.read_metadata(content)
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        return [(group.num_rows, group.total_byte_size) for group in groups]


def _read(
    file: str, is_chosen: Callable[[str], bool], names_others: bool, span: Span | None
) -> Iterator[Columns]:
    import pyarrow.parquet

    with (
        _one_sentence(file),
        open_bytes(file) as content,
        pyarrow.parquet.ParquetFile(content, buffer_size=2**20) as table,
    ):
        names = table.schema_arrow.names
        chosen = [name for name in names if is_chosen(name)]
        if not chosen and table.metadata.num_rows:
            yield {name: [None] for name in names}
            return
        first = 0
        for number in range(table.num_row_groups):
            group = table.metadata.row_group(number)
            start, first = first, first + group.num_rows
            if span is not None and (first <= span.start or span.stop <= start):
                continue  # without a look at its bytes
            rows = min(_rows_at_once(content, group, name, file) for name in chosen)
            batches = table.iter_batches(rows, [number], chosen, use_threads=False)
            others = [name for name in names if name not in chosen] if names_others else []
            columns = (
                _values(batch, file) | {name: [None] * batch.num_rows for name in others} for batch in batches
            )
            yield from rows_between(columns, span and Span(span.start - start, span.stop - start))


@contextmanager
def _one_sentence(file: str) -> Iterator[None]:
    try:
        yield
    except (ElmoError, OSError):
        raise
    except Exception as error:  # pyarrow raises many types for a damaged file
        raise ElmoError(f"{file} cannot be read: {reason_of(error)}.") from None


def _values(batch: Any, file: str) -> dict[str, list[Any]]:
    is_too_large = batch.nbytes > MOST_BYTES_AT_ONCE
    columns: dict[str, list[Any]] = {} if is_too_large else batch.to_pydict()
    if batch.nbytes > LONGEST:
        lengths = (len(value) for values in columns.values() for value in values if hasattr(value, "__len__"))
        is_too_large = is_too_large or max(lengths, default=0) > LONGEST
    if is_too_large:
        raise ElmoError(f"{file} has a text of more than {LONGEST:,} characters; cut it into sentences.")
    return columns


def _rows_at_once(content: Any, group: Any, name: str, file: str) -> int:
    """So many rows that they fit into memory even if each has the largest value."""
    rows = RECORDS_AT_ONCE
    for index in range(group.num_columns):
        chunk = group.column(index)
        if chunk.path_in_schema != name and not chunk.path_in_schema.startswith(name + "."):
            continue
        size, size_in_file = chunk.total_uncompressed_size, chunk.total_compressed_size
        is_list = chunk.path_in_schema != name
        declared = max(size, chunk.num_values if is_list else 0)
        if declared > MOST_GROWTH * size_in_file + ALWAYS_ALLOWED_BYTES:
            raise ElmoError(
                f"{file} has {size_in_file:,} bytes for {declared:,} bytes of column '{name}'; "
                "write it again without repeating so much."
            )
        largest = _largest_repeated(content, chunk)
        if "DELTA_BYTE_ARRAY" in chunk.encodings:  # a value may repeat the beginning of the one before it
            largest = size
        largest = max(largest, size // max(1, group.num_rows))
        rows = min(rows, max(1, ALWAYS_ALLOWED_BYTES // max(1, largest)))
    return rows


def _largest_repeated(content: Any, chunk: Any) -> int:
    """The bytes of the values that are written once for all rows: the size of the dictionary page, or 0.

    A page begins with its type and its unpacked size, numbers in thrift's compact form.
    """
    offsets = [chunk.data_page_offset, chunk.dictionary_page_offset or chunk.data_page_offset]
    content.seek(min(offset for offset in offsets if offset > 0))
    header = content.read(24)
    page_type, place = _number(header, 1)
    size, _ = _number(header, place + 1)
    return size if page_type == _DICTIONARY_PAGE else 0


def _number(header: bytes, place: int) -> tuple[int, int]:
    """A number and the place behind it: 7 bits a byte, the lowest first, the lowest bit is the sign."""
    number = shift = 0
    while header[place] & 0x80:
        number |= (header[place] & 0x7F) << shift
        place, shift = place + 1, shift + 7
    number |= header[place] << shift
    return (number >> 1) ^ -(number & 1), place + 1
