"""Files of text, JSON and CSV as columns or rows, each in bounded memory, whatever the file holds.

    for columns in read_text("a.txt.gz"): columns["text"]    # some lines at a time
    for row in read_json("a.jsonl.zst"): ...

A packed file of some megabytes can hold one line of gigabytes. So files are unpacked piece by piece, and a
line, a JSON value or a row of more than `LONGEST` characters is refused. What does not end as its format says
is refused too; otherwise the text behind the damage would be missing without a word.
"""

import csv
import io
import json
import lzma
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import zstandard

from elmo_hf.corpus.unpacking import (
    BLOCK,
    BLOCK_OF_SPAN,
    PACKED,
    Span,
    as_file,
    bytes_of_span,
    open_bytes,
    unpacked,
)
from elmo_hf.errors import ElmoError

LONGEST = 2**24  # characters of a line, a JSON value, or a row of a table
RECORDS_AT_ONCE = 100

Columns = dict[str, Sequence[Any]]  # the values of some rows by the name of their column
_NO_SPACE = re.compile(r"[^ \t\n\r]")
_END_OF_CSV = "\x1eend\x1e"


# Of files that are missing, damaged, or of another kind than their name says.
READING_ERRORS: tuple[type[Exception], ...] = (ValueError, OSError, RuntimeError, ImportError, MemoryError)
READING_ERRORS += (lzma.LZMAError, zlib.error, zipfile.BadZipFile, zstandard.ZstdError, EOFError)


def suffix_of(file: str) -> str:
    """The suffix of a file's kind, without that of its packing."""
    path = Path(file)
    return Path(path.stem).suffix if path.suffix in PACKED else path.suffix


def check_file(name: str) -> None:
    """Refuse what is there and is no plain file. A pipe would be empty when the corpus is read once more."""
    try:
        mode = os.stat(name).st_mode  # noqa: PTH116
    except (FileNotFoundError, ValueError):
        return
    except OSError as error:
        raise ElmoError(f"{name} cannot be read: {error.strerror}.") from None
    if stat.S_ISFIFO(mode):
        raise ElmoError(
            f"{name} is a pipe, which can be read only once; write its text into a file and name that."
        )
    if stat.S_ISDIR(mode):
        raise ElmoError(f"{name} is a folder; name the files in it.")
    if not stat.S_ISREG(mode):
        raise ElmoError(f"{name} is no file of text, but a device or the like; name a file.")


def num_rows(columns: Columns) -> int:
    return len(next(iter(columns.values()), ()))


def rows_between(batches: Iterable[Columns], span: Span | None) -> Iterator[Columns]:
    """Those rows of a table that are in the span."""
    first = 0
    for columns in batches:
        size = num_rows(columns)
        if span is None or (span.start <= first and first + size <= span.stop):
            yield columns
        else:
            start, stop = max(span.start - first, 0), span.stop - first
            if start < min(size, stop):
                yield {name: values[start:stop] for name, values in columns.items()}
            if stop <= size:
                return
        first += size


# ---- lines


def read_blocks(
    file: str, newline: str | None = None, errors: str = "strict", span: Span | None = None
) -> Iterator[str]:
    """The text of a file or of a span of it, some characters at a time, without a byte order mark."""
    encoding = "utf-8-sig" if span is None or not span.start else "utf-8"
    with _content(file, span) as content, io.TextIOWrapper(content, encoding, errors, newline) as text:
        while block := text.read(BLOCK if span is None else BLOCK_OF_SPAN):
            yield block


@contextmanager
def _content(file: str, span: Span | None) -> Iterator[Any]:
    if span is not None:
        yield as_file(bytes_of_span(file, span), BLOCK_OF_SPAN)
        return
    with open_bytes(file) as packed, unpacked(packed, file) as content:
        yield content


def read_lines_of(
    file: str, newline: str | None = None, errors: str = "strict", span: Span | None = None
) -> Iterator[list[str]]:
    """The lines of a file or of a span of it, some at a time, without their ends."""
    unfinished: list[str] = []
    number, size, empty = _lines_before(span), 0, 0
    for block in read_blocks(file, newline, errors, span):
        empty = empty + len(block) if block.isspace() else 0
        if empty > LONGEST:
            raise ElmoError(
                f"{_name(file, span)}, line {number + 1} follows on more than {LONGEST:,} characters that "
                "are all blank; remove them."
            )
        first, *lines = block.split("\n")
        unfinished.append(first)
        size += len(first)
        if size > LONGEST:
            raise ElmoError(
                f"{_name(file, span)}, line {number + 1} has more than {LONGEST:,} characters; "
                "end its sentences with line breaks."
            )
        if lines:
            yield ["".join(unfinished), *lines[:-1]]
            number += len(lines)
            unfinished, size = lines[-1:], len(lines[-1])
    if size:
        yield ["".join(unfinished)]


def _lines_before(span: Span | None) -> int:
    return (span.line if span is not None else None) or 0


def _name(file: str, span: Span | None) -> str:
    return file if span is None else span.of(file)


def undecodable_line(file: str, span: Span | None = None) -> str | None:
    """File and number of the first line that is not UTF-8, by a second look at the file."""
    span = span if span is not None and span.unit == "byte" else None
    number = _lines_before(span)
    for lines in read_lines_of(file, errors="surrogateescape", span=span):
        for line in lines:
            number += 1
            if any("\udc80" <= letter <= "\udcff" for letter in line):
                return f"{_name(file, span)}, line {number}"
    return None


def read_text(file: str, _: str | None = None, span: Span | None = None) -> Iterator[Columns]:
    for lines in read_lines_of(file, span=span):
        yield {"text": lines}


# ---- JSON


def read_json(file: str, span: Span | None = None) -> Iterator[Any]:
    """The values of JSON lines, of one array, or of objects over several lines."""
    if span is None:
        return _json_lines(file, span) if are_json_lines(file) else _json_values(file)
    return _json_lines(file, span) if span.unit == "byte" else islice(_json_values(file), *span[:2])


def has_lines(file: str, kind: str) -> bool:
    """Whether the records of a file of that kind are lines, which begin behind a line feed."""
    return kind == "text" or (kind == "json" and are_json_lines(file))


def are_json_lines(file: str) -> bool:
    """Whether each line of the file is a JSON value.

    An array of texts in one line is a sentence's words, unless it is all that a .json file has: then each
    text is a sentence.
    """
    first_lines = _first_lines(file)
    try:
        value = json.loads(first_lines[0]) if first_lines else None
    except json.JSONDecodeError as error:
        return error.pos < len(first_lines[0])  # otherwise the value goes on in the next line
    except (ValueError, RecursionError):
        return True
    if not isinstance(value, list):
        return True
    is_one_array = suffix_of(file) == ".json" and len(first_lines) == 1
    return all(isinstance(word, str) for word in value) and not is_one_array


def _first_lines(file: str) -> list[str]:
    """The first two lines of a file that are not blank; of a long first line only its start."""
    pieces: list[str] = []
    size = 0
    for block in read_blocks(file):
        pieces.append(block)
        size += len(block)
        if "\n" in block:
            pieces = ["".join(pieces).lstrip()]
            if len(_filled_lines(pieces[0])) > 1:
                break
            size = len(pieces[0])
        if size > LONGEST:
            break
    return _filled_lines("".join(pieces))[:2]


def _filled_lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip()]


def _json_lines(file: str, span: Span | None) -> Iterator[Any]:
    number = _lines_before(span)
    for lines in read_lines_of(file, span=span):
        for line in lines:
            number += 1
            try:
                if line.strip():
                    yield json.loads(line)
            except (ValueError, RecursionError):
                raise _no_json(_name(file, span), number, line) from None


def _json_values(file: str) -> Iterator[Any]:
    """The elements of an array, or values one after another, without the whole text in memory."""
    text = _Unread(read_blocks(file), file)
    is_array = text.next_sign() == "["
    if is_array:
        text.take(1)
        if text.next_sign() == "]":
            text.take(1)
            is_array = False
            if text.next_sign():
                raise text.error()
    while text.next_sign():
        yield text.value()
        if is_array:
            sign = text.next_sign()
            if not sign:
                break
            if sign not in (",", "]"):
                raise text.error()
            text.take(1)
            is_array = sign == ","
            if not is_array and text.next_sign():
                raise text.error()
    if is_array:
        raise EOFError


class _Unread:
    """The unread text of a JSON file. At most a value of it is in memory."""

    def __init__(self, blocks: Iterator[str], file: str) -> None:
        self._blocks, self._file = blocks, file
        self._text, self._line = "", 1
        self._start = 0  # of what is unread, in the text
        self._decoder = json.JSONDecoder()

    def next_sign(self) -> str:
        """The next character that is no white space, which is left unread; "" at the end."""
        while (sign := _NO_SPACE.search(self._text, self._start)) is None:
            self.take(len(self._text) - self._start)
            if not self._read_more():
                return ""
        self.take(sign.start() - self._start)
        return self._text[self._start]

    def take(self, size: int) -> None:
        self._line += self._text.count("\n", self._start, self._start + size)
        self._start += size

    def value(self) -> Any:
        """The next value. One that ends where the text ends may go on in what has not been read."""
        while True:
            unread, error = len(self._text) - self._start, None
            try:
                value, end = self._decoder.raw_decode(self._text, self._start)
                is_whole = end < len(self._text)
            except json.JSONDecodeError as unfinished:
                is_whole, error = False, unfinished
            except (ValueError, RecursionError):
                raise self.error() from None
            if is_whole or unread > LONGEST or not self._read_more(unread):
                break
        if error is not None and unread > LONGEST:
            raise ElmoError(
                f"{self._file}, line {self._line}: a value has more than {LONGEST:,} characters; "
                "write an object a line."
            )
        if error is not None:
            raise self.error()
        self.take(end - self._start)
        return value

    def _read_more(self, size: int = 0) -> bool:
        """Read about so many characters, and drop those that were taken."""
        self._text, self._start = self._text[self._start :], 0
        blocks = list(islice(self._blocks, max(1, size // BLOCK)))
        self._text = "".join([self._text, *blocks])
        return bool(blocks)

    def error(self) -> ElmoError:
        return _no_json(self._file, self._line, self._text[self._start : self._start + 1000])


def _no_json(file: str, line: int, text: str) -> ElmoError:
    return ElmoError(f"{file}, line {line} is no JSON: {text.strip()!r:.60}.")


# ---- CSV


def read_csv(file: str, _: str | None = None, span: Span | None = None) -> Iterator[Columns]:
    """The rows of a .csv or .tsv file. All values are text, and of a short row the last ones are None.

    A quoted field may hold line breaks, so that rows can only be counted from the start.
    """
    return rows_between(_csv_rows(file), span)


def _csv_rows(file: str) -> Iterator[Columns]:
    csv.field_size_limit(max(LONGEST, csv.field_size_limit()))
    lines = _LinesOfRows(file)
    rows = csv.reader(lines, delimiter="\t" if suffix_of(file) == ".tsv" else ",")
    names: list[str] | None = None
    batch: list[list[str | None]] = []
    try:
        for row in rows:
            lines.size = 0
            if row == [_END_OF_CSV]:
                break
            if not row or (len(row) == 1 and row[0].isspace()):
                continue
            if names is None:
                names = _distinct(row)
                continue
            if len(row) > len(names):
                raise ElmoError(
                    f"{file}, line {rows.line_num} has {len(row)} fields for {len(names)} columns."
                )
            batch.append([*row, *[None] * (len(names) - len(row))])
            if len(batch) == RECORDS_AT_ONCE:
                yield dict(zip(names, zip(*batch, strict=True), strict=True))
                batch = []
        else:
            raise ElmoError(f"{file} ends inside a quoted field; close its quotes.")
    except csv.Error as error:
        raise ElmoError(f"{file}, line {rows.line_num} cannot be read: {error}.") from None
    if batch and names:
        yield dict(zip(names, zip(*batch, strict=True), strict=True))


class _LinesOfRows:
    """The lines of a CSV file with their ends, and a last one that tells whether a quote is open.

    `size` is set to 0 behind each row, so that a quote that never closes does not take the whole file.
    """

    def __init__(self, file: str) -> None:
        self._file, self.size = file, 0

    def __iter__(self) -> Iterator[str]:
        for lines in read_lines_of(self._file, newline=""):
            for line in lines:
                self.size += len(line)
                if self.size > LONGEST:
                    raise ElmoError(
                        f"{self._file} has a row of more than {LONGEST:,} characters; close its quotes."
                    )
                yield line + "\n"
        yield _END_OF_CSV


def _distinct(names: list[str]) -> list[str]:
    """The names of columns, with numbers behind those that are there already."""
    result: dict[str, None] = {}
    for name in names:
        number, distinct = 0, name
        while distinct in result:
            number += 1
            distinct = f"{name}.{number}"
        result[distinct] = None
    return list(result)
