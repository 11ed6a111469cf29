"""State dicts that torch.save wrote, read without trusting them and without torch.load.

    with StateDictArrays(path) as arrays:
        arrays.check_array("lstm.bias", (4096,))
        arrays.read_into(tensor, "lstm.bias")

Both formats are read: the zip file of torch 1.6, and the stream of pickles before it (torch 0.4), also of
tensors that were on a GPU. `torch.load(weights_only=True)` runs no code from a file either, but it takes the
memory that the file asks for before it looks whether the file has it. Here a pickle makes descriptions only:
whatever it names is replaced by something that does nothing, and numbers are read when they are wanted.
"""

import io
import math
import os
import pickle
import pickletools
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from elmo_hf.convert import files
from elmo_hf.convert.arrays import Arrays, Shape
from elmo_hf.convert.files import check_readable
from elmo_hf.errors import ElmoError, quoted
from elmo_hf.files import open_plain

MAX_PICKLE = 4 << 20  # bytes that describe tensors; a model of a thousand tensors has 0.2 million
MAX_DIRECTORY = 4 << 20  # bytes of a zip file's list of its records
MAX_MEMO, MAX_INTEGER = 1 << 20, 1 << 63
MAX_DIMENSIONS = 16
# The tensors may be this many times larger than the file, if several share their numbers.
MAX_GROWTH = 16
ALWAYS_ALLOWED_BYTES = 64 << 20
BLOCK = 1 << 20  # no file system has larger ones

ZIP = b"PK\x03\x04"
STREAM = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # a pickle of torch's magic number
# What torch.save and Python's own pickles of dictionaries, lists and numbers need; nothing that makes or
# imports a class in another way than by GLOBAL.
OPCODES = frozenset(
    """
    PROTO FRAME STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 FLOAT
    BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE EMPTY_LIST APPEND APPENDS
    LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS GET BINGET LONG_BINGET PUT
    BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL REDUCE BUILD BINPERSID
    """.split()  # noqa: SIM905
)
STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
    "ComplexFloatStorage": "<c8",
    "ComplexDoubleStorage": "<c16",
    "QInt8Storage": "|i1",
    "QUInt8Storage": "|u1",
    "QInt32Storage": "<i4",
    "storage.UntypedStorage": "|u1",
}
FAULTS = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    OSError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    RuntimeError,
    NotImplementedError,
    OverflowError,
    MemoryError,
)

damage_in = partial(files.damage_in, faults=FAULTS)


def is_state_dict(path: Path) -> bool:
    """Whether a file begins as those of torch.save do; a zip file may still be anything."""
    try:
        with path.open("rb") as file:
            start = file.read(len(STREAM))
    except OSError:  # it cannot be read, which matters only if it is needed
        return False
    return start == STREAM or start.startswith(ZIP)


def names_of(path: Path) -> set[str]:
    """The names of a state dict's tensors, which tell the role of the file."""
    with StateDictArrays(path) as arrays:
        return arrays.names


# ---- what a pickle describes


@dataclass(frozen=True)
class Storage:
    """Numbers in the file, of which tensors are views."""

    key: str
    type: str  # of STORAGES
    size: int  # how many numbers

    @property
    def dtype(self) -> np.dtype:
        """As the numbers are stored: numpy has no bfloat16."""
        return np.dtype("<u2" if self.type == "bfloat16" else self.type)


@dataclass(frozen=True)
class View:
    """A tensor: numbers of a storage, at these distances."""

    storage: Storage
    offset: int
    shape: Shape
    strides: Shape

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def span(self) -> int:
        """How many numbers of the storage lie between the first and the last, both included."""
        return _span(self.shape, self.strides)


def _span(shape: Shape, strides: Shape) -> int:
    if 0 in shape:
        return 0
    return 1 + sum((number - 1) * stride for number, stride in zip(shape, strides, strict=True))


@dataclass(frozen=True, slots=True)
class Other:
    """Whatever is no plain tensor: a name in a pickle, or what calling it gave."""

    name: str

    def __call__(self, *arguments: Any) -> Any:
        if self.name == "collections.OrderedDict":
            return StateDict(*arguments)
        if self.name in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"):
            return _view(*arguments[:4])
        if self.name in ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"):
            return arguments[0]
        return Other(self.name)


class StateDict(dict[Any, Any]):
    """An OrderedDict: with `_metadata` beside its tensors, and empty before they are set."""

    def __init__(self, items: Any = ()) -> None:
        if len(items) > MAX_DIMENSIONS * 1000:  # a short pickle could repeat long ones
            raise ValueError("a dictionary of too many items")
        super().__init__(items)


def _view(storage: Any, offset: Any, shape: Any, strides: Any) -> View:
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without a storage")
    for numbers in ((offset,), shape, strides):
        if not isinstance(numbers, tuple) or not all(type(x) is int and x >= 0 for x in numbers):
            raise ValueError("a tensor's sizes are not whole numbers")
    if len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"a tensor of {len(shape)} sizes and {len(strides)} strides")
    view = View(storage, offset, shape, strides)
    if view.span and offset + view.span > storage.size:
        raise ValueError(f"a tensor of shape {shape} is larger than its storage of {storage.size} numbers")
    return view


class Descriptions(pickle.Unpickler):
    """Reads a pickle that torch.save wrote. Nothing that it names is imported or called."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="utf-8")
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Other:
        full = f"{module}.{name}"
        if full != "collections.OrderedDict" and module.split(".")[0] != "torch":
            raise ElmoError(f"names {quoted(full)!r}, which no state dict of weights needs")
        return Other(full)

    def persistent_load(self, identity: Any) -> Any:
        """("storage", its type, its key, where it was, how many numbers, and a part of it in old files)"""
        _, kind, key, _, size, *part = identity
        if not isinstance(kind, Other) or not isinstance(key, str) or type(size) is not int or size < 0:
            raise ValueError("a storage without type, name or size")
        if part not in ([], [None]):
            raise ValueError("a storage that is a part of another")
        dtype = STORAGES.get(kind.name.removeprefix("torch.").removeprefix("cuda."))
        if dtype is None:
            raise ValueError(f"an unknown type of numbers, {quoted(kind.name)}")
        storage = Storage(key, dtype, size)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {key!r} has several types or sizes")
        return storage


def read_pickle(file: BinaryIO) -> tuple[Any, dict[str, Storage]]:
    """What the pickle that begins here describes; the file, which is in memory, stands behind it then."""
    start = file.tell()
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name not in OPCODES:
            raise ValueError(f"a pickle with {opcode.name}, which torch.save does not write")
        limit = MAX_MEMO if opcode.name.endswith("PUT") else MAX_INTEGER  # a memo takes its number's memory
        if isinstance(argument, int) and abs(argument) >= limit:
            raise ValueError("a number that is too large")
    end = file.tell()
    file.seek(start)
    descriptions = Descriptions(file.read(end - start))
    return descriptions.load(), descriptions.storages


# ---- the two formats: what is described, and where each storage is


@dataclass(frozen=True)
class Content:
    described: Any
    positions: Mapping[str, int]  # of storages, by their keys


class ShortReads(io.FileIO):
    """A file that refuses to read much at a time: Python's zipfile takes a directory's size from the file."""

    def read(self, size: int | None = -1) -> Any:
        limit = MAX_DIRECTORY + 1 if size is None or size < 0 else size
        content = super().read(limit) if limit <= MAX_DIRECTORY + 1 else None
        if content is None or len(content) > MAX_DIRECTORY:
            raise ValueError("its list of records is too long")
        return content


def read_zip(path: Path, size: int) -> Content:
    with ShortReads(path) as file, zipfile.ZipFile(file) as records:
        by_name = {record.filename: record for record in records.infolist()}
        names = [name for name in by_name if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError("it has no data.pkl")
        folder = names[0].removesuffix("data.pkl")
        if folder + "byteorder" in by_name and _read(file, by_name[folder + "byteorder"], size) != b"little":
            raise ValueError("its numbers are big-endian")
        described, storages = read_pickle(io.BytesIO(_read(file, by_name[names[0]], size)))
        positions = {}
        for key, storage in storages.items():
            record = by_name.get(f"{folder}data/{key}")
            if record is None or record.file_size != storage.size * storage.dtype.itemsize:
                raise ValueError(f"storage {key!r} is missing or has another size")
            positions[key] = _position(file, record, size)
        return Content(described, positions)


def _read(file: ShortReads, record: zipfile.ZipInfo, size: int) -> bytes:
    """A record's content. It is short: these records have no numbers in them."""
    position = _position(file, record, size)
    if record.file_size > MAX_PICKLE:
        raise ValueError(f"{record.filename!r} is too long")
    file.seek(position)
    content = bytes(file.read(record.file_size))
    if len(content) != record.file_size:
        raise ValueError(f"{record.filename!r} ends early")
    return content


def _position(file: ShortReads, record: zipfile.ZipInfo, size: int) -> int:
    """Where a record's content begins. torch packs none."""
    is_packed = record.compress_type != zipfile.ZIP_STORED or record.flag_bits & 1
    if is_packed or record.file_size != record.compress_size:
        raise ValueError(f"{record.filename!r} is packed")
    file.seek(record.header_offset)
    header = file.read(30)
    if len(header) != 30 or not header.startswith(ZIP):
        raise ValueError(f"{record.filename!r} is not where the list of records says")
    position = record.header_offset + 30 + sum(int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
    if position + record.file_size > size:
        raise ValueError(f"{record.filename!r} is longer than the file")
    return position


def read_stream(path: Path, size: int) -> Content:
    """Pickles of a magic number, a version, the writer's system, the tensors, the storages' keys in the order
    in which they follow; then of each storage its size (8 bytes) and its numbers."""
    with path.open("rb") as file:
        start = io.BytesIO(file.read(MAX_PICKLE))
        start.seek(len(STREAM))
        version, _ = read_pickle(start)
        system, _ = read_pickle(start)
        if version != 1001 or not isinstance(system, dict) or system.get("little_endian") is not True:
            raise ValueError("an unknown version, or big-endian numbers")
        described, storages = read_pickle(start)
        keys, _ = read_pickle(start)
        if not isinstance(keys, list) or len(keys) != len(storages) or set(keys) != set(storages):
            raise ValueError("its storages are not those of its tensors")
        position, positions = start.tell(), {}
        for key in keys:
            storage = storages[key]
            file.seek(position)
            if file.read(8) != storage.size.to_bytes(8, "little"):
                raise ValueError(f"storage {key!r} ends early or has another size")
            positions[key] = position + 8
            position += 8 + storage.size * storage.dtype.itemsize
            if position > size:
                raise ValueError(f"storage {key!r} is longer than the file")
        if size - position > ALWAYS_ALLOWED_BYTES:
            raise ValueError(f"{size - position:,} bytes follow its numbers")
        return Content(described, positions)


class StateDictArrays(Arrays):
    """The tensors of a state dict by their names; a context manager."""

    noun = "tensor"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        check_readable(path)
        self._file = os.fdopen(open_plain(path), "rb", buffering=0)
        try:
            self._views, self._positions = self._describe()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        self._file.close()

    def _describe(self) -> tuple[dict[str, Any], Mapping[str, int]]:
        size = os.fstat(self._file.fileno()).st_size
        start = self._file.read(len(STREAM))
        if start != STREAM and not start.startswith(ZIP):
            raise ElmoError(f"{self.path} is not a file of torch.save; download or save it again.")
        try:
            with damage_in(str(self.path)):
                content = (read_stream if start == STREAM else read_zip)(self.path, size)
        except ElmoError as error:
            if not str(error).startswith("names "):
                raise
            raise ElmoError(f"{self.path} {error}; save a state dict alone.") from None
        if not isinstance(content.described, dict) or not all(isinstance(x, str) for x in content.described):
            raise ElmoError(f"{self.path} holds no state dict (names and tensors); save that of the model.")
        views = dict(content.described)
        declared = sum(x.size * x.storage.dtype.itemsize for x in views.values() if isinstance(x, View))
        if declared > MAX_GROWTH * size + ALWAYS_ALLOWED_BYTES:
            raise ElmoError(
                f"{self.path} has {size:,} bytes but declares tensors of {declared:,}; save clones of them."
            )
        return views, content.positions

    # ---- what the format knows

    @property
    def names(self) -> set[str]:
        return set(self._views)

    def shape(self, name: str) -> Shape | None:
        """None also if the name is that of something else than a plain tensor."""
        view = self._views.get(name)
        return view.shape if isinstance(view, View) else None

    def dtype(self, name: str) -> np.dtype:
        storage = self._views[name].storage
        return np.dtype("<f4") if storage.type == "bfloat16" else storage.dtype

    def check_array(self, name: str, shape: Shape) -> None:
        if name in self._views and self.shape(name) is None:
            raise self.error(name, "is not a plain tensor", "save its numbers as one")
        super().check_array(name, shape)
        view = self._views[name]
        if view.span > view.size:
            raise self.error(name, "is a view with gaps", "save a clone of it")
        if self._is_hole(view):
            raise self.error(name, f"declares shape {shape}, but its numbers were never written")

    def _is_hole(self, view: View) -> bool:
        """Whether a large tensor lies in a file's hole, which takes no space on the disk."""
        size = view.span * view.storage.dtype.itemsize
        if size < ALWAYS_ALLOWED_BYTES or not hasattr(os, "SEEK_DATA"):
            return False
        inside = self._position(view) + BLOCK  # the blocks at its ends hold other bytes as well
        try:
            return os.lseek(self._file.fileno(), inside, os.SEEK_DATA) >= inside + size - 2 * BLOCK
        except OSError:  # nothing but a hole up to the file's end
            return True

    def _position(self, view: View) -> int:
        return self._positions[view.storage.key] + view.offset * view.storage.dtype.itemsize

    # ---- reading

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        view = self._views[name]
        dtype, shape, strides, first = view.storage.dtype, view.shape, view.strides, 0
        if shape:
            shape, first = (stop - start, *shape[1:]), start * strides[0]
        with damage_in(self.place(name)):
            self._file.seek(self._position(view) + first * dtype.itemsize)
            numbers = np.fromfile(self._file, dtype, _span(shape, strides))
            if len(numbers) != _span(shape, strides):
                raise EOFError("it ends early")
        # The stride of a dimension of one means nothing, and may be any number.
        steps = [stride * dtype.itemsize * (size > 1) for stride, size in zip(strides, shape, strict=True)]
        rows = np.lib.stride_tricks.as_strided(numbers, shape, steps)
        if view.storage.type == "bfloat16":
            return (rows.astype("<u4") << 16).view("<f4")
        return rows
