"""The bytes of files: plain or packed, of a path or an address, whole or a span of them.

    with open_bytes("a.txt.gz") as packed, unpacked(packed, "a.txt.gz") as content: ...
    for piece in bytes_of_span("a.txt", Span(1000, 2000, "byte")): ...

A packed file of some megabytes can hold gigabytes, so files are unpacked piece by piece.
"""

import bz2
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import zstandard

from elmo_hf.remote import is_address, reachable

PACKED = {".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip"}
MOST_BYTES_OF_XZ = 160 << 20  # for its dictionary; `xz -9` needs 65 MB
MOST_PADDING = 16 << 20  # bytes of zeros in a packed file
BLOCK = 2**16  # bytes that are read at a time
BLOCK_OF_SPAN = 2**14  # as hundreds of them may be read in turn
# Of packed files without a suffix that says so. No text begins with one of these.
_MAGIC = {
    b"\x1f\x8b": ".gz",
    b"BZh91AY&SY": ".bz2",
    b"\xfd7zXZ\x00": ".xz",
    b"\x28\xb5\x2f\xfd": ".zst",
    b"\x04\x22\x4d\x18": ".lz4",
    b"PK\x03\x04": ".zip",
}


def open_bytes(file: str) -> Any:
    """A file or address as bytes, as they are."""
    if not is_address(file):
        return Path(file).open("rb")
    from datasets.utils.file_utils import xopen  # with retries, and the token of the Hub

    with reachable(file):
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


def unpacked(packed: Any, file: str) -> Any:
    """The content of an open file, which is closed with it."""
    packing = _packing_of(packed, file)
    return as_file(_UNPACKERS[packing](packed)) if packing else packed


# ---- spans of a file


class Span(NamedTuple):
    """A run of a file: bytes of its unpacked text, whole lines, or records.

    start, stop: the first byte or record, and the one behind the last.
    line: how many lines of the file are before it, if they were counted.
    """

    start: int
    stop: int
    unit: Literal["byte", "record"] = "record"
    line: int | None = None

    def of(self, file: str) -> str:
        """The file's name for messages that count the lines or records of the span, if not of the file."""
        first = self.start + (self.unit == "record")
        return f"{file} (from {self.unit} {first:,})" if self.start and self.line is None else file


def unpacked_size(file: str) -> int:
    """The bytes of a file's unpacked text, of which all are read if it is packed."""
    with open_bytes(file) as packed, unpacked(packed, file) as content:
        with suppress(ValueError, OSError):  # of what is unpacked, or comes as a stream
            return int(content.seek(0, io.SEEK_END))
        return sum(map(len, iter(lambda: content.read(BLOCK), b"")))


def line_start(file: str, place: int) -> int:
    """Where the first line begins that does not begin before a byte: behind a line feed, or the end."""
    if place == 0:
        return 0
    with open_bytes(file) as packed, unpacked(packed, file) as content:
        _skip(content, place - 1)
        place -= 1
        while block := content.read(BLOCK):
            end = block.find(b"\n") + 1
            place += end or len(block)
            if end:
                break
    return place


def _skip(content: Any, size: int) -> None:
    with suppress(ValueError, OSError):
        content.seek(size)
        return
    while size and (piece := content.read(min(BLOCK, size))):
        size -= len(piece)


def bytes_of_span(file: str, span: Span) -> Iterator[bytes]:
    """The bytes of a span. A plain file is open only while some are read, as many spans are read in turn."""
    for start in range(span.start, span.stop, BLOCK_OF_SPAN):
        with open_bytes(file) as packed, unpacked(packed, file) as content:
            if content is not packed or is_address(file):
                yield from _pieces_between(content, span)
                return
            content.seek(start)
            piece = content.read(min(BLOCK_OF_SPAN, span.stop - start))
        yield piece


def _pieces_between(content: Any, span: Span) -> Iterator[bytes]:
    _skip(content, span.start)
    left = span.stop - span.start
    while left and (piece := content.read(min(BLOCK, left))):
        left -= len(piece)
        yield piece


# ---- packed files


def as_file(pieces: Iterator[bytes], buffer_size: int = BLOCK) -> io.BufferedReader:
    """Bytes that come piece by piece, as a file."""
    return io.BufferedReader(_Pieces(pieces), buffer_size=buffer_size)


class _Pieces(io.RawIOBase):
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


def _members(packed: Any, new_member: Callable[[], Any], at_once: int = BLOCK) -> Iterator[bytes]:
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
            piece = member.decompress(content, BLOCK)
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
                while piece := content.read(BLOCK):
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
