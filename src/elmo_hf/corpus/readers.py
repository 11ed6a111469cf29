"""Files of text, JSON and CSV as columns or rows, each in bounded memory, whatever the file holds.

    for columns in read_text("a.txt.gz"): columns["text"]    # some lines at a time
    for row in read_json("a.jsonl.zst"): ...

A packed file of some megabytes can hold one line of gigabytes. So files are unpacked piece by piece, and a
line, a JSON value or a row of more than `LONGEST` characters is refused. What does not end as its format says
is refused too; otherwise the text behind the damage would be missing without a word.
"""

import bz2
import csv
import io
import json
import lzma
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import zstandard

from elmo_hf.errors import ElmoError

LONGEST = 2**24  # characters of a line, a JSON value, or a row of a table
RECORDS_AT_ONCE = 100
PACKED = {".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip"}
MOST_BYTES_OF_XZ = 160 << 20  # for its dictionary; `xz -9` needs 65 MB
MOST_PADDING = 16 << 20  # bytes of zeros in a packed file

Columns = dict[str, Sequence[Any]]  # the values of some rows by the name of their column


class Span(NamedTuple):
    """Bytes of a plain file, from the start of a line to that of another, and the number of lines before."""

    start: int
    stop: int
    line: int = 0


_BLOCK = 2**16  # characters or bytes that are read at a time
_BLOCK_OF_SPAN = 2**14  # as hundreds of them may be read in turn
# Of packed files without a suffix that says so. No text begins with one of these.
_MAGIC = {
    b"\x1f\x8b": ".gz",
    b"BZh91AY&SY": ".bz2",
    b"\xfd7zXZ\x00": ".xz",
    b"\x28\xb5\x2f\xfd": ".zst",
    b"\x04\x22\x4d\x18": ".lz4",
    b"PK\x03\x04": ".zip",
}
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
    if not stat.S_ISREG(mode):
        raise ElmoError(f"{name} is no file of text, but a device or the like; name a file.")


# ---- bytes


def open_bytes(file: str) -> Any:
    """A file or address as bytes, as they are."""
    if "://" not in file:
        return Path(file).open("rb")
    from datasets.utils.file_utils import xopen  # with retries, and the token of the Hub

    return xopen(file, "rb")


def is_packed(file: str) -> bool:
    with open_bytes(file) as content:
        return bool(_packing_of(content, file))


def _packing_of(packed: Any, file: str) -> str:
    """The suffix of a file's packing, "" if it is plain."""
    suffix = Path(file).suffix
    if suffix in PACKED:
        return suffix
    start = packed.read(16)
    packed.seek(0)
    return next((name for magic, name in _MAGIC.items() if start.startswith(magic)), "")


def _unpacked(packed: Any, file: str) -> Any:
    packing = _packing_of(packed, file)
    if not packing:
        return packed
    return io.BufferedReader(_Pieces(_UNPACKERS[packing](packed)), buffer_size=_BLOCK)


class _BytesOfSpan(io.RawIOBase):
    """The bytes of a span. The file is open only while some are read, as many spans are read in turn."""

    def __init__(self, file: str, span: Span) -> None:
        self._file, self._start, self._stop = file, span.start, span.stop

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), self._stop - self._start)
        with Path(self._file).open("rb", buffering=0) as content:
            content.seek(self._start)
            read = content.readinto(memoryview(buffer)[:size])
        self._start += read
        return read


class _Pieces(io.RawIOBase):
    """Bytes that come piece by piece, as a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._piece = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._piece:
            self._piece = memoryview(next(self._pieces, b""))
        size = min(len(buffer), len(self._piece))
        buffer[:size] = self._piece[:size]
        self._piece = self._piece[size:]
        return size


def _members(packed: Any, new_member: Callable[[], Any], at_once: int = _BLOCK) -> Iterator[bytes]:
    """What the members of a packed file hold, one after another; zeros between and behind them are padding.

    Unlike in Python's own classes of files, a member whose beginning is damaged is an error, not the end.
    """
    content, padding = packed.read(at_once), 0
    while content:
        size, content = len(content), content.lstrip(b"\0")
        padding += size - len(content)
        if padding > MOST_PADDING:
            raise ValueError(f"more than {MOST_PADDING:,} zeros lie between its members or behind them")
        if not content:
            content = packed.read(at_once)
            continue
        member = new_member()
        while True:
            piece = member.decompress(content, _BLOCK)
            if piece:
                yield piece
            if member.eof:
                break
            content = packed.read(at_once) if member.needs_input else b""
            if member.needs_input and not content:
                raise EOFError
        content = member.unused_data or packed.read(at_once)


class _GzipMember:
    """A member of gzip with the methods of `lzma.LZMADecompressor`."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)  # 16: with gzip's header and checksum

    def decompress(self, content: bytes, size: int) -> bytes:
        return self._member.decompress(self._member.unconsumed_tail + content, size)

    @property
    def needs_input(self) -> bool:
        return not self._member.unconsumed_tail

    @property
    def eof(self) -> bool:
        return self._member.eof

    @property
    def unused_data(self) -> bytes:
        return self._member.unused_data


class _ZstdFrame:
    """A frame of zstd with the methods of `lzma.LZMADecompressor`. It unpacks all that it is given."""

    needs_input = True

    def __init__(self) -> None:
        self._frame = zstandard.ZstdDecompressor().decompressobj()

    def decompress(self, content: bytes, _: int) -> bytes:
        return self._frame.decompress(content)

    @property
    def eof(self) -> bool:
        return self._frame.eof

    @property
    def unused_data(self) -> bytes:
        return self._frame.unused_data


def _members_of_zip(packed: Any) -> Iterator[bytes]:
    with zipfile.ZipFile(packed) as archive:
        for member in archive.infolist():
            with archive.open(member) as content:
                while piece := content.read(_BLOCK):
                    yield piece


def _frames_of_lz4(packed: Any) -> Iterator[bytes]:
    import lz4.frame  # type: ignore[import-not-found]

    return _members(packed, lz4.frame.LZ4FrameDecompressor)


_UNPACKERS: dict[str, Callable[[Any], Iterator[bytes]]] = {
    ".gz": lambda packed: _members(packed, _GzipMember),
    ".bz2": lambda packed: _members(packed, bz2.BZ2Decompressor),
    ".xz": lambda packed: _members(packed, lambda: lzma.LZMADecompressor(memlimit=MOST_BYTES_OF_XZ)),
    ".zst": lambda packed: _members(packed, _ZstdFrame, at_once=2**10),  # of which zstd makes at most 32 MB
    ".zip": _members_of_zip,
    ".lz4": _frames_of_lz4,
}

# ---- lines


def read_blocks(file: str, newline: str | None = None, errors: str = "strict") -> Iterator[str]:
    """The text of a file, some characters at a time. A byte order mark is not part of it."""
    with (
        open_bytes(file) as packed,
        _unpacked(packed, file) as content,
        io.TextIOWrapper(content, encoding="utf-8-sig", errors=errors, newline=newline) as text,
    ):
        while block := text.read(_BLOCK):
            yield block


def _blocks_of_span(file: str, span: Span, errors: str) -> Iterator[str]:
    content = io.BufferedReader(_BytesOfSpan(file, span), buffer_size=_BLOCK_OF_SPAN)
    encoding = "utf-8" if span.start else "utf-8-sig"
    with io.TextIOWrapper(content, encoding=encoding, errors=errors) as text:
        while block := text.read(_BLOCK_OF_SPAN):
            yield block


def read_lines_of(
    file: str, newline: str | None = None, errors: str = "strict", span: Span | None = None
) -> Iterator[list[str]]:
    """The lines of a file or of a span of it, some at a time, without their ends."""
    unfinished: list[str] = []
    number, size = span.line if span else 0, 0
    for block in _blocks_of_span(file, span, errors) if span else read_blocks(file, newline, errors):
        first, *lines = block.split("\n")
        unfinished.append(first)
        size += len(first)
        if size > LONGEST:
            raise ElmoError(
                f"{file}, line {number + 1} has more than {LONGEST:,} characters; "
                "end its sentences with line breaks."
            )
        if lines:
            yield ["".join(unfinished), *lines[:-1]]
            number += len(lines)
            unfinished, size = lines[-1:], len(lines[-1])
    if size:
        yield ["".join(unfinished)]


def undecodable_line(file: str) -> int | None:
    """The number of the first line that is not UTF-8, by a second look at the file."""
    number = 0
    for lines in read_lines_of(file, errors="surrogateescape"):
        for line in lines:
            number += 1
            if any("\udc80" <= letter <= "\udcff" for letter in line):
                return number
    return None


def read_text(file: str, span: Span | None = None) -> Iterator[Columns]:
    for lines in read_lines_of(file, span=span):
        yield {"text": lines}


# ---- JSON


def read_json(file: str, span: Span | None = None) -> Iterator[Any]:
    """The values of JSON lines, of one array, or of objects over several lines."""
    return _json_lines(file, span) if span or are_json_lines(file) else _json_values(file)


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
    number = span.line if span else 0
    for lines in read_lines_of(file, span=span):
        for line in lines:
            number += 1
            try:
                if line.strip():
                    yield json.loads(line)
            except (ValueError, RecursionError):
                raise _no_json(file, number, line) from None


def _json_values(file: str) -> Iterator[Any]:
    """The elements of an array, or values one after another, without the whole text in memory."""
    text = _Unread(read_blocks(file), file)
    is_array = text.next_sign() == "["
    if is_array:
        text.take(1)
        if text.next_sign() == "]":
            text.take(1)
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
        blocks = list(islice(self._blocks, max(1, size // _BLOCK)))
        self._text = "".join([self._text, *blocks])
        return bool(blocks)

    def error(self) -> ElmoError:
        return _no_json(self._file, self._line, self._text[self._start : self._start + 1000])


def _no_json(file: str, line: int, text: str) -> ElmoError:
    return ElmoError(f"{file}, line {line} is no JSON: {text.strip()!r:.60}.")


# ---- CSV


def read_csv(file: str) -> Iterator[Columns]:
    """The rows of a .csv or .tsv file. All values are text, and of a short row the last ones are None."""
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
