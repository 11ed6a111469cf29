"""Files out of a tar archive from anywhere (.tar, .tar.gz), without trusting it.

    paths = extract(Path("model.tar.gz"), wanted, folder)    # {"weights.th": folder / "weights.th", ...}

Only plain files are taken, under the names that `wanted` knows. An archive with a link, a device, or a name
that leads out of it is refused as a whole, and so is one that unpacks to far more than its own size: Python's
tarfile takes the memory that a header names before it reads so much.
"""

import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from elmo_hf.convert import files
from elmo_hf.errors import ElmoError, quoted

GZIP = b"\x1f\x8b"
MAX_MEMBERS = 10_000
MAX_HEADER = 1 << 16  # bytes of a long name, or of other headers of a file
MAX_HEADERS = 64 << 20  # of all files
# The archive may hold this many times its own bytes: trained weights do not pack better.
MAX_GROWTH = 16
ALWAYS_ALLOWED_BYTES = 64 << 20
BLOCK = 1 << 20

FAULTS = (
    tarfile.TarError,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    OverflowError,
    RecursionError,
    MemoryError,
)

# The largest size that a file of this name may have, or None if it is not wanted.
Wanted = Callable[[str], int | None]

damage_in = partial(files.damage_in, faults=FAULTS, advice="download it again")


class Unpacked:
    """What gzip has packed, up to its checksum. Python's own reader goes on byte by byte through whatever
    follows, which may be gigabytes of nothing."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._unpacker = zlib.decompressobj(31)  # with gzip's header and checksum

    def read(self, size: int) -> bytes:
        while not self._unpacker.eof:
            packed = self._unpacker.unconsumed_tail or self._file.read(BLOCK)
            if not packed:
                raise EOFError("it ends early")
            if data := self._unpacker.decompress(packed, size):
                return data
        return b""


class Stream:
    """What is in an archive, read forwards only, never much for headers and never more than a limit."""

    def __init__(self, file: Any, limit: int) -> None:
        self._file, self._limit = file, limit
        self._position = self._headers = 0
        self._last = self._again = b""  # the last byte, to which tarfile returns when a file has ended

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        if position == self._position - 1 and self._last:
            self._position, self._again = position, self._last
            return
        if position < self._position:
            raise ValueError("it leads back to an earlier place")
        while self._position < position:
            if not self._take(min(BLOCK, position - self._position)):
                raise EOFError("it ends early")

    def read(self, size: int) -> bytes:
        """For tarfile, which reads headers alone."""
        self._headers += size
        if not 0 <= size <= MAX_HEADER or self._headers > MAX_HEADERS:
            raise ValueError("its headers are too long")
        return self.content(size)

    def content(self, size: int) -> bytes:
        taken = []
        while size and (block := self._take(size)):
            taken.append(block)
            size -= len(block)
        return b"".join(taken)

    def finish(self) -> None:
        """Read to the end, where gzip has a checksum; a plain file has none."""
        while isinstance(self._file, Unpacked) and self._take(BLOCK):
            pass

    def _take(self, size: int) -> bytes:
        if self._position + size > self._limit:
            raise ValueError("it unpacks to far more than its own size")
        block, self._again = self._again or self._file.read(size), b""
        self._position += len(block)
        self._last = block[-1:] or self._last
        return bytes(block)


@contextmanager
def opened(path: Path) -> Iterator[tuple[tarfile.TarFile, Stream]]:
    limit = MAX_GROWTH * path.stat().st_size + ALWAYS_ALLOWED_BYTES
    with path.open("rb") as file:
        is_packed = file.read(2) == GZIP
        file.seek(0)
        stream = Stream(Unpacked(file) if is_packed else file, limit)
        readable: Any = stream  # all that tarfile needs of a file
        with tarfile.open(fileobj=readable, mode="r:") as archive:
            yield archive, stream


def is_archive(path: Path) -> bool:
    """Whether a tar archive begins here, packed or not."""
    try:
        with opened(path) as (archive, _):
            return archive.next() is not None
    except FAULTS:
        return False


def extract(path: Path, wanted: Wanted, folder: Path) -> dict[str, Path]:
    """Write the wanted files of an archive into a folder, with "/" in their names replaced.

    Returns:
        Their paths by their names in the archive, which begin without "./".

    Raises:
        ElmoError: the archive is damaged, too large, or holds what no archive of a model does.
    """
    taken: dict[str, Path] = {}
    with damage_in(path), opened(path) as (archive, stream):
        for number, member in enumerate(archive):
            if number >= MAX_MEMBERS:
                raise ElmoError(f"{path} holds more than {MAX_MEMBERS:,} files; give a model's archive.")
            name = checked_name(path, member)
            limit = wanted(name) if member.isreg() else None
            if limit is None:
                continue
            if name in taken:
                raise ElmoError(f"{path} holds {quoted(name)!r} twice; give an archive as it was written.")
            if member.size > limit:
                raise ElmoError(
                    f"{path}: {quoted(name)!r} has more than {limit:,} bytes; give another archive."
                )
            taken[name] = folder / name.replace("/", "-")
            copy(stream, member, taken[name])
        stream.finish()
    return taken


def checked_name(path: Path, member: tarfile.TarInfo) -> str:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or "\\" in member.name or "\0" in member.name:
        raise ElmoError(f"{path}: {quoted(member.name)!r} leads out of the archive; do not use this archive.")
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise ElmoError(
            f"{path}: {quoted(member.name)!r} is a link or no plain file; give an archive of plain files."
        )
    return str(name)


def copy(stream: Stream, member: tarfile.TarInfo, target: Path) -> None:
    stream.seek(member.offset_data)
    left = member.size
    with target.open("xb") as file:
        while left:
            block = stream.content(min(BLOCK, left))
            if not block:
                raise EOFError(f"{quoted(member.name)!r} ends early")
            file.write(block)
            left -= len(block)
