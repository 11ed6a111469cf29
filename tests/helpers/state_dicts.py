"""Files like those of torch.save whose pickles say what it would not: sizes that lie, code, and so on."""

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001


class Stored:
    """A storage: its key and how many numbers the pickle says that it has."""

    def __init__(self, key: str, size: Any, kind: Any = torch.FloatStorage) -> None:
        self.identity = ("storage", kind, key, "cpu", size)


class Tensor:
    """What a pickle says of a tensor, true or not."""

    def __init__(self, storage: Any, offset: Any, shape: Any, strides: Any) -> None:
        self.arguments = (storage, offset, shape, strides, False, {})

    def __reduce__(self) -> Any:
        return torch._utils._rebuild_tensor_v2, self.arguments


class Calls:
    """A pickle that calls something."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


class _Pickler(pickle.Pickler):
    tail: tuple[Any, ...] = ()

    def persistent_id(self, value: Any) -> Any:
        return (*value.identity, *self.tail) if isinstance(value, Stored) else None


class _StreamPickler(_Pickler):
    tail = (None,)


def pickled(value: Any, pickler: type[_Pickler] = _Pickler) -> bytes:
    stream = io.BytesIO()
    pickler(stream, 2).dump(value)
    return stream.getvalue()


def write_zip(
    path: Path, value: Any, storages: Mapping[str, bytes], packing: int = zipfile.ZIP_STORED
) -> Path:
    with zipfile.ZipFile(path, "w", packing) as records:
        records.writestr("archive/data.pkl", value if isinstance(value, bytes) else pickled(value))
        records.writestr("archive/byteorder", b"little")
        for key, content in storages.items():
            records.writestr(f"archive/data/{key}", content)
        records.writestr("archive/version", b"3\n")
    return path


def write_stream(
    path: Path, value: Any, storages: Mapping[str, bytes], sizes: Mapping[str, int] = {}
) -> Path:
    """sizes: those before the numbers, if they are not true."""
    system = {"protocol_version": VERSION, "little_endian": True, "type_sizes": {"int": 4}}
    content = value if isinstance(value, bytes) else pickled(value, _StreamPickler)
    with path.open("wb") as file:
        for text in (pickled(MAGIC), pickled(VERSION), pickled(system), content, pickled(list(storages))):
            file.write(text)
        for key, numbers in storages.items():
            file.write(sizes.get(key, len(numbers) // 4).to_bytes(8, "little") + numbers)
    return path
