"""HDF5 and JSON files from anywhere, read without trusting them.

    with Hdf5Arrays(path) as arrays:
        arrays.check_array("softmax/b", (793471,))
        arrays.read_into(tensor, "softmax/b")

HDF5 can do far more than hold arrays: it can point at other files, promise terabytes in a hundred bytes, or
run in circles. Opening refuses all of that and takes no memory for any array; `check_array` compares shapes,
still before any number is read; `read_into` reads in blocks and refuses numbers that are no weights.
"""

import json
import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from elmo_hf.errors import ElmoError, reason_of

MAX_NAMES = 10_000
MAX_DEPTH = 8
# A file may promise this much more than it is long: more is compressed beyond anything that was ever learnt.
MAX_GROWTH = 16
ALWAYS_ALLOWED_BYTES = 64 << 20
BLOCK_OF_NUMBERS = 1 << 24
MAX_JSON_BYTES = 1_000_000

Shape = tuple[int, ...]


def is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # behind a closed door: `check_readable` says so
        return False


def check_readable(path: Path) -> None:
    """A missing file, a folder or a closed door, told apart."""
    try:
        if not path.exists():
            raise ElmoError(f"{path} does not exist; check its name.")
        if not path.is_file():
            raise ElmoError(f"{path} is not a file; give the file itself.")
        path.open("rb").close()
    except OSError as error:
        raise ElmoError(f"{path} cannot be read ({error.strerror}); check its permissions.") from None


class NotJson(ElmoError):
    """A .json file that is none."""


def read_json(path: Path) -> Any:
    check_readable(path)
    if path.stat().st_size > MAX_JSON_BYTES:
        raise NotJson(
            f"{path} has more than {MAX_JSON_BYTES:,} bytes, too many for options; give another file."
        )
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise NotJson(f"{path} is not JSON ({reason_of(error)}); download or write it again.") from None


@contextmanager
def damage_in(place: str) -> Iterator[None]:
    """Whatever the HDF5 library raises over a broken file becomes one sentence."""
    try:
        yield
    except ElmoError:
        raise
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, OverflowError, MemoryError) as error:
        reason = reason_of(error)
        raise ElmoError(
            f"{place} is truncated or damaged ({reason}); download or export the file again."
        ) from error


def is_hdf5(path: Path) -> bool:
    try:
        return h5py.is_hdf5(path)
    except OSError:  # it cannot be read, which matters only if it is needed
        return False


def top_names(path: Path) -> set[str]:
    """The names at the top of an HDF5 file, which tell what it is; none if there are too many."""
    with damage_in(str(path)), _opened(path) as file:
        return set(file) if len(file) <= MAX_NAMES else set()


def _opened(path: Path) -> h5py.File:
    check_readable(path)
    if not is_hdf5(path):
        raise ElmoError(f"{path} is not an HDF5 file; download or export it again.")
    return h5py.File(path, "r")


class Hdf5Arrays:
    """The arrays of an HDF5 file by their full names; a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with damage_in(str(path)):
            self._file = _opened(path)
            try:
                self._datasets = self._walk()
                self._check_bytes()
            except BaseException:
                self._file.close()
                raise

    def __enter__(self) -> "Hdf5Arrays":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    @property
    def names(self) -> set[str]:
        return set(self._datasets)

    def shape(self, name: str) -> Shape | None:
        return self._datasets[name].shape if name in self._datasets else None

    # ---- nothing but arrays

    def _walk(self) -> dict[str, h5py.Dataset]:
        """Every dataset, by links that stay inside the file. The bounds also end a walk in a circle."""
        datasets: dict[str, h5py.Dataset] = {}
        groups, seen = [("", self._file)], 0
        while groups:
            prefix, group = groups.pop()
            seen += len(group)
            if seen > MAX_NAMES:
                raise ElmoError(
                    f"{self.path} holds more than {MAX_NAMES} names, so it is no ELMo; give another."
                )
            for name in group:
                member = self._follow(group, name, prefix + name)
                if isinstance(member, h5py.Group):
                    groups.append((prefix + name + "/", member))
                else:
                    datasets[prefix + name] = member
        return datasets

    def _follow(self, group: h5py.Group, name: str, full_name: str) -> h5py.Group | h5py.Dataset:
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            kind = "an external" if isinstance(link, h5py.ExternalLink) else "a soft"
            raise self._error(full_name, f"is {kind} link, which a weights file has no use for")
        with damage_in(self._place(full_name)):
            member = group[name]
        if isinstance(member, h5py.Group):
            if full_name.count("/") + 1 >= MAX_DEPTH:
                raise self._error(full_name, f"is a group {MAX_DEPTH} deep, or in a circle")
        elif not isinstance(member, h5py.Dataset):
            raise self._error(full_name, "is neither group nor dataset")
        return member

    def _check_bytes(self) -> None:
        """What the arrays will take in memory is really in the file."""
        promised = 0
        for name, dataset in self._datasets.items():
            with damage_in(self._place(name)):
                promised += self._promised_bytes(name, dataset)
        size = self.path.stat().st_size
        if promised > MAX_GROWTH * size + ALWAYS_ALLOWED_BYTES:
            raise ElmoError(
                f"{self.path} has {size:,} bytes but promises datasets of {promised:,}; export it again "
                "without compression."
            )

    def _promised_bytes(self, name: str, dataset: h5py.Dataset) -> int:
        if dataset.is_virtual or dataset.external:
            raise self._error(name, "keeps its numbers in other files")
        if not _is_allocated(dataset):
            raise self._error(name, f"promises shape {dataset.shape}, but its numbers were never written")
        chunk = math.prod(dataset.chunks or (0,))
        return dataset.dtype.itemsize * max(math.prod(dataset.shape or ()), chunk)

    # ---- the right arrays

    def check_nothing_else(self, names: Collection[str]) -> None:
        for name in self._datasets:
            if name not in names:
                advice = "give the options that belong to these weights, or remove it"
                raise self._error(name, "has no place in the model that the options describe", advice)

    def check_array(self, name: str, shape: Shape) -> None:
        """The file holds this array in this shape; none of its numbers is read for that."""
        advice = "give the options that belong to these weights"
        if name not in self._datasets:
            raise self._error(name, f"of shape {shape} is missing", advice)
        dataset = self._datasets[name]
        if dataset.shape != shape:
            raise self._error(name, f"must have shape {shape}, but has {dataset.shape}", advice)
        dtype = dataset.dtype
        if dtype.kind != "f" or dtype.itemsize not in (2, 4, 8):
            raise self._error(name, f"must hold float32 numbers, but holds {dtype}", "export it as float32")

    def read_into(self, target: torch.Tensor, name: str, first_row: int = 0) -> None:
        """Fills `target` with as many rows of a checked dataset, a block at a time."""
        dataset, numbers_in_row = self._datasets[name], target[0].numel()
        step = max(1, BLOCK_OF_NUMBERS // numbers_in_row)
        for start in range(0, len(target), step):
            part = target[start : start + step]
            with damage_in(self._place(name)):
                numbers = dataset[first_row + start : first_row + start + len(part)]
            part.copy_(torch.from_numpy(self._as_float32(name, numbers)))

    def _as_float32(self, name: str, numbers: np.ndarray) -> np.ndarray:
        if not np.isfinite(numbers).all():
            raise self._error(
                name, "holds NaN or infinite values", "take a checkpoint from before they appeared"
            )
        with np.errstate(over="ignore", under="ignore"):
            exact = numbers.astype(np.float32, copy=False)
        if not np.array_equal(exact, numbers):
            raise self._error(
                name, f"holds {numbers.dtype} values that float32 cannot hold", "round it to float32"
            )
        return exact

    # ---- words for errors

    def _place(self, name: str) -> str:
        return f"{self.path}: dataset {name!r}"

    def _error(self, name: str, fault: str, advice: str = "export the file again") -> ElmoError:
        return ElmoError(f"{self._place(name)} {fault}; {advice}.")


def _is_allocated(dataset: h5py.Dataset) -> bool:
    """Whether every number was written: HDF5 fills what is absent, without a word, with zeros."""
    if dataset.chunks:
        needed = math.prod(
            -(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True)
        )
        return dataset.id.get_num_chunks() >= needed
    return dataset.id.get_storage_size() >= math.prod(dataset.shape or ()) * dataset.dtype.itemsize
