"""HDF5 files from anywhere, read without trusting them.

    with Hdf5Arrays(path) as arrays:
        arrays.check_array("softmax/b", (793471,))
        arrays.read_into(tensor, "softmax/b")

An HDF5 file may refer to other files, declare terabytes in a hundred bytes, or contain itself. Opening
refuses all of that and allocates no array; `check_array` compares shapes before any number is read;
`read_into` reads in blocks and refuses NaN, infinity and what float32 cannot hold.
"""

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import torch

from elmo_hf.convert.files import check_readable
from elmo_hf.errors import ElmoError, reason_of

MAX_NAMES = 10_000
MAX_DEPTH = 8
# The arrays may be this many times larger than the file: trained weights do not compress better.
MAX_GROWTH = 16
ALWAYS_ALLOWED_BYTES = 64 << 20
BLOCK_OF_NUMBERS = 1 << 24

Shape = tuple[int, ...]


@contextmanager
def damage_in(place: str) -> Iterator[None]:
    """Turn whatever the HDF5 library raises for a broken file into one sentence."""
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
    """The names at the top of an HDF5 file, which tell its role; the empty set if there are too many."""
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
                self._datasets = self._collect()
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

    # ---- opening: nothing but arrays

    def _collect(self) -> dict[str, h5py.Dataset]:
        """Every dataset, by links that stay inside the file. The limits also end a walk in a circle."""
        datasets: dict[str, h5py.Dataset] = {}
        groups, num_names = [("", self._file)], 0
        while groups:
            prefix, group = groups.pop()
            num_names += len(group)
            if num_names > MAX_NAMES:
                raise ElmoError(
                    f"{self.path} holds more than {MAX_NAMES} names, too many for an ELMo; give another file."
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
            link_type = "an external" if isinstance(link, h5py.ExternalLink) else "a soft"
            raise self._error(full_name, f"is {link_type} link, which is not allowed in a weights file")
        with damage_in(self._place(full_name)):
            member = group[name]
        if isinstance(member, h5py.Group):
            if full_name.count("/") + 1 >= MAX_DEPTH:
                raise self._error(full_name, f"is a group {MAX_DEPTH} deep, or in a circle")
        elif not isinstance(member, h5py.Dataset):
            raise self._error(full_name, "is neither group nor dataset")
        return member

    def _check_bytes(self) -> None:
        """Raise if the arrays would take far more memory than the file has bytes."""
        declared = 0
        for name, dataset in self._datasets.items():
            with damage_in(self._place(name)):
                declared += self._declared_bytes(name, dataset)
        size = self.path.stat().st_size
        if declared > MAX_GROWTH * size + ALWAYS_ALLOWED_BYTES:
            raise ElmoError(
                f"{self.path} has {size:,} bytes but declares datasets of {declared:,}; export it again "
                "without compression."
            )

    def _declared_bytes(self, name: str, dataset: h5py.Dataset) -> int:
        if dataset.is_virtual or dataset.external:
            raise self._error(name, "keeps its numbers in other files")
        if not _is_allocated(dataset):
            raise self._error(name, f"declares shape {dataset.shape}, but its numbers were never written")
        chunk = math.prod(dataset.chunks or (0,))
        return dataset.dtype.itemsize * max(math.prod(dataset.shape or ()), chunk)

    # ---- reading: the right arrays

    def check_nothing_else(self, names: Collection[str]) -> None:
        for name in self._datasets:
            if name not in names:
                advice = "give the options that belong to these weights, or remove it"
                raise self._error(name, "has no place in the model that the options describe", advice)

    def check_array(self, name: str, shape: Shape) -> None:
        """Raise unless the file holds this array in this shape. None of its numbers is read."""
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
        """Fill `target` with rows of a checked array from `first_row` on, a block at a time."""
        dataset, row_size = self._datasets[name], target[0].numel()
        step = max(1, BLOCK_OF_NUMBERS // row_size)
        for start in range(0, len(target), step):
            block = target[start : start + step]
            with damage_in(self._place(name)):
                values = dataset[first_row + start : first_row + start + len(block)]
            block.copy_(torch.from_numpy(self._as_float32(name, values)))

    def _as_float32(self, name: str, values: np.ndarray) -> np.ndarray:
        if not np.isfinite(values).all():
            raise self._error(
                name, "holds NaN or infinite values", "take a checkpoint from before they appeared"
            )
        with np.errstate(over="ignore", under="ignore"):
            rounded = values.astype(np.float32, copy=False)
        if not np.array_equal(rounded, values):
            raise self._error(
                name, f"holds {values.dtype} values that float32 cannot hold", "round it to float32"
            )
        return rounded

    # ---- errors

    def _place(self, name: str) -> str:
        return f"{self.path}: dataset {name!r}"

    def _error(self, name: str, fault: str, advice: str = "export the file again") -> ElmoError:
        return ElmoError(f"{self._place(name)} {fault}; {advice}.")


def _is_allocated(dataset: h5py.Dataset) -> bool:
    """Whether every number was written; HDF5 silently fills what is absent with zeros."""
    if dataset.chunks:
        needed = math.prod(
            -(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True)
        )
        return dataset.id.get_num_chunks() >= needed
    return dataset.id.get_storage_size() >= math.prod(dataset.shape or ()) * dataset.dtype.itemsize
