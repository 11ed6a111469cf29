"""TensorFlow's checkpoints (V2: NAME.index and NAME.data-00000-of-00001), read without TensorFlow.

    with BundleArrays(Path("model.ckpt-935588.index")) as arrays:
        arrays.check_array("lm/softmax/b", (793471,))
        arrays.read_into(tensor, "lm/softmax/b")

The index is a table of LevelDB: a protocol buffer for each variable, with its type, its shape, and where its
bytes lie. Opening checks all of that against the files' sizes and allocates no array. Reading verifies the
checksum of what it reads, and takes the memory of a few rows.
"""

import glob
import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import google_crc32c
import numpy as np

from elmo_hf.convert.arrays import Arrays, Shape
from elmo_hf.convert.files import check_readable
from elmo_hf.convert.leveldb import DamageError, damage_in, fields, has_magic, mask, read_table
from elmo_hf.errors import ElmoError

INDEX = ".index"
SHARD_NAME = re.compile(r"variables\.data-\d{5}-of-\d{5}")  # in SavedModels
MAX_SHARDS = 200
MAX_DIMENSIONS = 32
BLOCK_OF_BYTES = 1 << 22  # of checksums
# Files with holes may be this many times larger than what is on the disk.
MAX_GROWTH = 16
ALWAYS_ALLOWED_BYTES = 64 << 20

BFLOAT16 = 14
TYPES = {
    1: "<f4",
    2: "<f8",
    3: "<i4",
    4: "u1",
    5: "<i2",
    6: "i1",
    9: "<i8",
    10: "?",
    BFLOAT16: "<u2",
    19: "<f2",
}

Slice = tuple[tuple[int, int | None], ...]  # (start, length) by dimension; None: all of it


@dataclass(frozen=True)
class Stored:
    """Consecutive bytes of a shard: an array, or a slice of a partitioned variable."""

    type: int
    shape: Shape
    shard: int
    offset: int
    size: int
    checksum: int

    @property
    def row_bytes(self) -> int:
        return np.dtype(TYPES[self.type]).itemsize * math.prod(self.shape[1:])


@dataclass(frozen=True)
class Variable:
    """A whole variable, and its pieces with their first places along the one axis that is cut."""

    type: int
    shape: Shape
    axis: int
    pieces: tuple[tuple[int, Stored], ...]


def is_bundle(path: Path) -> bool:
    """Whether this is the index of a checkpoint, maybe a damaged one."""
    if path.suffix != INDEX:
        return False
    return has_magic(path) or any(path.parent.glob(f"{glob.escape(path.stem)}.data-?????-of-?????"))


class BundleArrays(Arrays):
    """The variables of a checkpoint by their names; a context manager.

    Args:
        path: its index file.
    """

    noun = "variable"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._verified: set[Stored] = set()
        self._files: dict[int, BufferedReader] = {}
        entries = read_table(path)
        with damage_in(path):
            self._shards = read_header(entries.pop(b"", None))
            stored, sliced = read_entries(entries)
        self._check_places(stored)
        try:
            for shard in sorted({entry.shard for entry in stored.values()}):
                self._open_shard(shard, stored.values())
            with damage_in(path):
                self._variables = dict(join_variables(stored, sliced))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    @property
    def files(self) -> list[Path]:
        """The files that hold the numbers."""
        return [self._shard_path(shard) for shard in self._files]

    @property
    def names(self) -> set[str]:
        return set(self._variables)

    def shape(self, name: str) -> Shape | None:
        return self._variables[name].shape if name in self._variables else None

    def dtype(self, name: str) -> np.dtype:
        type_ = self._variables[name].type
        if type_ == BFLOAT16:
            return np.dtype("float32")  # as `rows` returns them
        return np.dtype(TYPES.get(type_, "O")).newbyteorder("=")

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        variable = self._variables[name]
        pieces = []
        for first, stored in variable.pieces:
            if variable.axis > 0:
                pieces.append(self._read(name, stored, start, stop))
            elif not stored.shape:
                pieces.append(self._read(name, stored, 0, 1).reshape(()))
            elif first < stop and start < first + stored.shape[0]:
                last = min(stop - first, stored.shape[0])
                pieces.append(self._read(name, stored, max(start - first, 0), last))
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, variable.axis)

    # ---- opening: nothing is read but the index

    def _check_places(self, stored: dict[bytes, Stored]) -> None:
        """Raise if two entries lie over each other: a small file cannot stand for many arrays."""
        places = sorted((entry.shard, entry.offset, entry.size, key) for key, entry in stored.items())
        shard, end = 0, 0
        for next_shard, offset, size, key in places:
            if next_shard == shard and offset < end and size:
                raise self.error(shown(key), "lies over another in the file", "download or copy it again")
            shard, end = next_shard, offset + size if next_shard != shard else max(end, offset + size)

    def _shard_path(self, shard: int) -> Path:
        return self.path.with_suffix(f".data-{shard:05d}-of-{self._shards:05d}")

    def _open_shard(self, shard: int, entries: Iterable[Stored]) -> None:
        path = self._shard_path(shard)
        if shard >= self._shards:
            raise ElmoError(f"{self.path} is damaged (there is no file {shard}); download or copy it again.")
        check_readable(path)
        self._files[shard] = file = path.open("rb")
        size = os.fstat(file.fileno()).st_size
        needed = max(entry.offset + entry.size for entry in entries if entry.shard == shard)
        if needed > size:
            raise ElmoError(
                f"{path} has {size:,} bytes, but {self.path.name} needs {needed:,}; copy it again."
            )
        if size > MAX_GROWTH * bytes_on_disk(file.fileno(), size) + ALWAYS_ALLOWED_BYTES:
            raise ElmoError(
                f"{path} has {size:,} bytes, but most were never written; download or copy it again."
            )

    # ---- reading

    def _read(self, name: str, stored: Stored, start: int, stop: int) -> np.ndarray:
        """Rows of stored bytes."""
        self._verify(name, stored)
        file, row = self._files[stored.shard], stored.row_bytes
        file.seek(stored.offset + start * row)
        data = bytearray((stop - start) * row)
        if file.readinto(data) != len(data):
            raise self.error(name, "has become shorter while it was read", "wait until nobody writes it")
        values = np.frombuffer(data, TYPES[stored.type]).reshape(-1, *stored.shape[1:])
        if stored.type == BFLOAT16:
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values

    def _verify(self, name: str, stored: Stored) -> None:
        """Raise unless the bytes are those that TensorFlow wrote."""
        if stored in self._verified:
            return
        file, checksum, left = self._files[stored.shard], 0, stored.size
        file.seek(stored.offset)
        while left and (block := file.read(min(left, BLOCK_OF_BYTES))):
            checksum, left = google_crc32c.extend(checksum, block), left - len(block)
        if left or mask(checksum) != stored.checksum:
            raise self.error(name, "differs from its checksum", "download or copy the checkpoint again")
        self._verified.add(stored)


def bytes_on_disk(descriptor: int, size: int) -> int:
    """The size of a file without its holes, where the system tells them."""
    if not hasattr(os, "SEEK_DATA"):  # Windows
        return size
    total = hole = 0
    while hole < size:
        try:
            data = os.lseek(descriptor, hole, os.SEEK_DATA)
            hole = os.lseek(descriptor, data, os.SEEK_HOLE)
        except OSError:  # nothing but a hole follows
            break
        total += hole - data
    os.lseek(descriptor, 0, os.SEEK_SET)
    return total


def shown(key: bytes) -> str:
    return key.decode("utf-8", "replace")


# ---- the index


def read_header(header: bytes | None) -> int:
    """The number of files that hold the numbers."""
    if header is None:
        raise DamageError("it has no header")
    values = dict(fields(header))
    shards, endianness = values.get(1, 0), values.get(2, 0)
    if endianness != 0:
        raise DamageError("its numbers are big-endian, which is not read")
    if not isinstance(shards, int) or not 1 <= shards <= MAX_SHARDS:
        raise DamageError(f"it must have 1 to {MAX_SHARDS} files of numbers")
    return shards


def read_entries(entries: dict[bytes, bytes]) -> tuple[dict[bytes, Stored], dict[str, "Sliced"]]:
    """What is stored, by keys, and the partitioned variables, by names."""
    stored: dict[bytes, Stored] = {}
    sliced: dict[str, Sliced] = {}
    for key, content in entries.items():
        entry, slices = read_entry(content)
        if slices:
            sliced[name_of(key)] = Sliced(entry.type, entry.shape, tuple(slices))
        else:
            check_size(key, entry)
            stored[key] = entry
    return stored, sliced


@dataclass(frozen=True)
class Sliced:
    """An entry of a partitioned variable: its slices have entries of their own."""

    type: int
    shape: Shape
    slices: tuple[Slice, ...]


def read_entry(content: bytes) -> tuple[Stored, list[Slice]]:
    numbers = dict.fromkeys((1, 3, 4, 5, 6), 0)  # type, shard, offset, size, checksum
    shape: Shape = ()
    slices: list[Slice] = []
    for number, value in fields(content):
        if number == 2 and isinstance(value, bytes):
            shape = read_shape(value)
        elif number == 7 and isinstance(value, bytes):
            slices.append(tuple(read_extent(extent) for extent in messages(value, 1)))
        elif number in numbers and isinstance(value, int):
            numbers[number] = value
        else:
            raise DamageError("an entry has unknown fields")
    type_, shard, offset, size, checksum = numbers.values()
    return Stored(type_, shape, shard, offset, size, checksum), slices


def read_shape(content: bytes) -> Shape:
    shape: list[int] = []
    for number, value in fields(content):
        if number == 2 and isinstance(value, bytes):
            size = dict(fields(value)).get(1, 0)
            if not isinstance(size, int) or size >= 2**63 or len(shape) == MAX_DIMENSIONS:
                raise DamageError("a shape is none")
            shape.append(size)
        else:
            raise DamageError("a shape is not known")
    return tuple(shape)


def read_extent(content: bytes) -> tuple[int, int | None]:
    """(start, length) of a slice along a dimension; None if it is not cut there."""
    values = dict(fields(content))
    start, length = values.get(1, 0), values.get(2)
    if not isinstance(start, int) or isinstance(length, bytes) or start >= 2**63 or (length or 0) >= 2**63:
        raise DamageError("a slice is none")
    return start, length


def messages(content: bytes, wanted: int) -> Iterator[bytes]:
    for number, value in fields(content):
        if number != wanted or isinstance(value, int):
            raise DamageError("an entry has unknown fields")
        yield value


def check_size(key: bytes, entry: Stored) -> None:
    if entry.type in TYPES and entry.size != np.dtype(TYPES[entry.type]).itemsize * math.prod(entry.shape):
        raise DamageError(f"{shown(key)[:100]!r} of shape {entry.shape} cannot have {entry.size:,} bytes")


def name_of(key: bytes) -> str:
    try:
        return key.decode("utf-8")
    except UnicodeDecodeError:
        raise DamageError("a name is no text") from None


# ---- partitioned variables

PARTITION = re.compile(r"(.+)/part_(0|[1-9]\d{0,3})(/.+)?")


def join_variables(stored: dict[bytes, Stored], sliced: dict[str, Sliced]) -> Iterator[tuple[str, Variable]]:
    """Every variable by its name. `stored` loses the slices."""
    for name, entry in sliced.items():
        yield name, join_slices(name, entry, stored)
    partitions: dict[str, dict[int, Stored]] = {}
    for key, piece in stored.items():
        name = name_of(key)
        match = PARTITION.fullmatch(name)
        if match and (whole := match[1] + (match[3] or "")) not in sliced and whole.encode() not in stored:
            partitions.setdefault(whole, {})[int(match[2])] = piece
        else:
            yield name, Variable(piece.type, piece.shape, 0, ((0, piece),))
    for name, pieces in partitions.items():
        yield name, join_partitions(name, pieces)


def join_slices(name: str, entry: Sliced, stored: dict[bytes, Stored]) -> Variable:
    pieces: list[tuple[int, Stored]] = []
    cut = {axis for slice_ in entry.slices for axis in cut_axes(slice_, entry.shape)}
    axis = min(cut, default=0)
    for slice_ in entry.slices:
        piece = stored.pop(slice_key(name, slice_), None)
        if piece is None:
            raise DamageError(f"a slice of {name[:100]!r} is missing")
        lengths = tuple(size if n is None else n for size, (_, n) in zip(entry.shape, slice_, strict=True))
        if piece.shape != lengths or piece.type != entry.type or cut - {axis}:
            raise DamageError(f"the slices of {name[:100]!r} do not fit it")
        pieces.append((slice_[axis][0], piece))
    return joined(name, entry.type, entry.shape, axis, pieces)


def cut_axes(slice_: Slice, shape: Shape) -> Iterator[int]:
    if len(slice_) != len(shape) or not shape:
        raise DamageError("a slice has other dimensions than its variable")
    for axis, (start, length) in enumerate(slice_):
        if length is not None and (start, length) != (0, shape[axis]):
            yield axis


def joined(name: str, type_: int, shape: Shape, axis: int, pieces: list[tuple[int, Stored]]) -> Variable:
    """A variable of pieces that must follow one another without a gap."""
    end = 0
    for start, piece in sorted(pieces, key=lambda pair: pair[0]):
        if start != end:
            break
        end += piece.shape[axis]
    else:
        if end == shape[axis]:
            return Variable(type_, shape, axis, tuple(sorted(pieces, key=lambda pair: pair[0])))
    raise DamageError(f"the slices of {name[:100]!r} do not cover it")


def join_partitions(name: str, pieces: dict[int, Stored]) -> Variable:
    """Pieces that were saved as variables NAME/part_0, NAME/part_1 ...: rows that follow one another."""
    ordered = [pieces[number] for number in sorted(pieces)]
    first, rows = ordered[0], 0
    starts: list[tuple[int, Stored]] = []
    for number, piece in enumerate(ordered):
        if (
            number not in pieces
            or not piece.shape
            or piece.shape[1:] != first.shape[1:]
            or piece.type != first.type
        ):
            raise DamageError(f"the pieces '/part_...' of {name[:100]!r} do not fit one another")
        starts.append((rows, piece))
        rows += piece.shape[0]
    return Variable(first.type, (rows, *first.shape[1:]), 0, tuple(starts))


def slice_key(name: str, slice_: Slice) -> bytes:
    """The key of a slice's entry: 0, the name and the numbers in an encoding that keeps their order."""
    key = b"\0" + name.encode().replace(b"\0", b"\0\xff").replace(b"\xff", b"\xff\0") + b"\0\1"
    key += ordered_unsigned(len(slice_))
    for start, length in slice_:
        key += ordered(start) + ordered(-1 if length is None else length)
    return key


def ordered_unsigned(value: int) -> bytes:
    data = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes([len(data)]) + data


def ordered(value: int) -> bytes:
    """The first bits tell the sign and the number of bytes: 7 bits of the number are in each."""
    size = (value if value >= 0 else ~value).bit_length() // 7 + 1
    data = int.from_bytes((value & (1 << 80) - 1).to_bytes(10, "big")[10 - size :], "big")
    prefix = ((1 << size) - 1) << 7 * size  # as many ones as bytes
    return (data ^ prefix).to_bytes(size, "big")
