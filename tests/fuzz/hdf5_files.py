"""Damage to HDF5 files: links, storage elsewhere, filters, types, sizes, depth; and bytes of the metadata."""

import contextlib
from pathlib import Path
from random import Random

import h5py
import numpy as np

from tests.fuzz import hdf5_storage, raw_bytes

Names = list[str]


def damage(rng: Random, path: Path, outside: Path) -> str:
    if rng.random() < 0.3:
        return raw_bytes.damage_file(rng, path, near_start=True)
    notes = []
    with h5py.File(path, "a", libver=rng.choice(["earliest", "latest"])) as file:
        for _ in range(rng.choice([1, 1, 2])):
            change, names = rng.choice(CHANGES), names_of(file)
            if names:
                name = rng.choice(names)
                notes.append(f"{change.__name__} {name}")
                with contextlib.suppress(
                    OSError, RuntimeError, TypeError, ValueError, LookupError, MemoryError
                ):
                    change(rng, file, name, outside)  # it may not fit what the change before has made
    description = f"{path.name}, {'; '.join(notes)}"
    return description + (
        "; " + raw_bytes.damage_file(rng, path, near_start=True) if rng.random() < 0.1 else ""
    )


def names_of(file: h5py.File) -> Names:
    names: Names = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


def never_written(rng: Random, file: h5py.File, name: str, outside: Path) -> None:
    shape = file[name].shape
    del file[name]
    new = rng.choice([shape, (1 << 40,), (1 << 20, 1 << 20), (1 << 31, 2)])
    chunks = True if new and rng.random() < 0.5 else None
    file.create_dataset(name, new, "f4", chunks=chunks, fillvalue=rng.choice([None, 1.0, float("nan")]))


def other_shape(rng: Random, file: h5py.File, name: str, outside: Path) -> None:
    array = file[name][()]
    del file[name]
    file[name] = rng.choice(
        [array.T, array[None], array.reshape(-1), array[:-1], array[:0], np.float32(1), array[..., None]]
    )


def other_type(rng: Random, file: h5py.File, name: str, outside: Path) -> None:
    array = file[name][()]
    del file[name]
    kinds = ["f2", "f8", ">f4", "i4", "u1", "c8", "S4", "?", "f4,i4", "M8[s]", "longdouble"]
    kind = rng.choice([*kinds, "text", "reference", "enum", "empty", "committed", "array"])
    if kind == "text":
        file.create_dataset(name, array.shape, h5py.string_dtype())
    elif kind == "reference":
        file.create_dataset(name, array.shape, h5py.ref_dtype)
    elif kind == "enum":
        file.create_dataset(name, array.shape, h5py.enum_dtype({"a": 1}, "i1"))
    elif kind == "empty":
        file[name] = h5py.Empty("f4")
    elif kind == "committed":
        file[name] = np.dtype("f4")
    elif kind == "array":
        file.create_dataset(name, array.shape[:1], np.dtype(("f4", (3,))))
    elif kind == "M8[s]":
        file.create_dataset(name, data=array.astype("i8").astype(h5py.opaque_dtype(np.dtype(kind))))
    elif kind == "f4,i4":
        file.create_dataset(name, array.shape, np.dtype(kind))
    else:
        with np.errstate(all="ignore"):
            file[name] = array.astype(kind)


def numbers(rng: Random, file: h5py.File, name: str, outside: Path) -> None:
    array = file[name][()].astype(rng.choice(["f4", "f8"]))
    if array.size:
        array.flat[rng.randrange(array.size)] = rng.choice([np.nan, np.inf, -np.inf, 1e38, 1e-45, 0.1])
    del file[name]
    file[name] = array


def names(rng: Random, file: h5py.File, name: str, outside: Path) -> None:
    odd = [
        "x" * 60_000,
        "a\nb",
        "\u2028",
        "..",
        "../x",
        " ",
        b"\xff\xfe",
        "ä",
        "%s",
        "embedding",
        "softmax/W",
        "a. B",
    ]
    new = rng.choice(odd)
    array = file[name][()]
    if rng.random() < 0.5:
        del file[name]
    if new not in file:
        file[new] = array


def deep(rng: Random, file: h5py.File, name: str, outside: Path) -> None:
    group = file
    for _ in range(rng.choice([5, 9, 500])):
        group = group.create_group("g")
    group["x"] = np.zeros(3, "f4")


def circle(rng: Random, file: h5py.File, name: str, outside: Path) -> None:
    parent = file[name].parent
    parent["circle"] = rng.choice([file["/"], parent])
    if rng.random() < 0.5:
        file["again"] = file[name]


def many(rng: Random, file: h5py.File, name: str, outside: Path) -> None:
    parent = rng.choice([file, file[name].parent])
    for number in range(rng.choice([3, 300] if rng.random() < 0.95 else [11_000])):
        parent.create_group(f"many-{number}")


def attributes(rng: Random, file: h5py.File, name: str, outside: Path) -> None:
    target = rng.choice([file, file[name]])
    target.attrs["x"] = rng.choice(["x" * 1000, [1.0] * 1000, h5py.Empty("f4"), file[name].ref, b"\xff"])


def group_in_place(rng: Random, file: h5py.File, name: str, outside: Path) -> None:
    del file[name]
    file.create_group(name)["x"] = np.zeros(3, "f4")


def dataset_in_place(rng: Random, file: h5py.File, name: str, outside: Path) -> None:
    """A whole group's name is an array's."""
    top = name.split("/")[0]
    del file[top]
    file[top] = np.zeros(rng.choice([0, 3]), "f4")


def remove(rng: Random, file: h5py.File, name: str, outside: Path) -> None:
    del file[name]


CHANGES = [*hdf5_storage.CHANGES, never_written, other_shape, other_shape, other_type, other_type, numbers]
CHANGES += [names, deep, circle, many, attributes, group_in_place, dataset_in_place, remove]
