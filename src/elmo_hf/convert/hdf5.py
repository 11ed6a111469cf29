"""HDF5 files from anywhere, read without trusting them.

    with Hdf5Arrays(path) as arrays:
        arrays.check_array("softmax/b", (793471,))
        arrays.read_into(tensor, "softmax/b")

An HDF5 file may refer to other files, declare terabytes in a hundred bytes, or contain itself. Opening
refuses all of that and allocates no array. Reading refuses chunks that would unpack to more than the array
declares, which the HDF5 library would notice only afterwards.
"""

import math
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from elmo_hf.convert import files
from elmo_hf.convert.arrays import Arrays, Shape
from elmo_hf.convert.files import check_readable
from elmo_hf.errors import ElmoError

MAX_NAMES = 10_000
MAX_CHUNKS = 100_000  # of an array
MAX_DEPTH = 8
# The arrays may be this many times larger than the file: trained weights do not compress better.
MAX_GROWTH = 16
ALWAYS_ALLOWED_BYTES = 64 << 20
# The filters of chunks in the orders in which h5py sets them, checksums apart; others may come from plugins.
GZIP, LZF, SHUFFLE = (h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_LZF, h5py.h5z.FILTER_SHUFFLE)
FILTERS = [[], [SHUFFLE], [GZIP], [LZF], [SHUFFLE, GZIP], [SHUFFLE, LZF]]
FILTER_SLACK = 1024  # what numbers that cannot be packed may take more, beside an eighth
FAULTS = (OSError, RuntimeError, LookupError, ValueError, TypeError, OverflowError, MemoryError)  # of h5py

damage_in = partial(files.damage_in, faults=FAULTS)


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


class Hdf5Arrays(Arrays):
    """The arrays of an HDF5 file by their full names; a context manager."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._unpacked: set[str] = set()  # names of arrays whose chunks are checked
        with damage_in(str(path)):
            self._file = _opened(path)
            try:
                self._datasets = self._collect()
                self._check_bytes()
            except BaseException:
                self._file.close()
                raise

    def close(self) -> None:
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
            raise self.error(full_name, f"is {link_type} link, which is not allowed in a weights file")
        with damage_in(self.place(full_name)):
            member = group[name]
        if isinstance(member, h5py.Group):
            if full_name.count("/") + 1 >= MAX_DEPTH:
                raise self.error(full_name, f"is a group {MAX_DEPTH} deep, or in a circle")
        elif not isinstance(member, h5py.Dataset):
            raise self.error(full_name, "is neither group nor dataset")
        return member

    def _check_bytes(self) -> None:
        """Raise if the arrays would take far more memory than the file has bytes."""
        declared = 0
        for name, dataset in self._datasets.items():
            with damage_in(self.place(name)):
                declared += self._declared_bytes(name, dataset)
        size = self.path.stat().st_size
        if declared > MAX_GROWTH * size + ALWAYS_ALLOWED_BYTES:
            raise ElmoError(
                f"{self.path} has {size:,} bytes but declares datasets of {declared:,}; export it again "
                "without compression."
            )

    def _declared_bytes(self, name: str, dataset: h5py.Dataset) -> int:
        if dataset.is_virtual or dataset.external:
            raise self.error(name, "keeps its numbers in other files")
        pipeline = dataset.id.get_create_plist()
        filters = [pipeline.get_filter(number)[0] for number in range(pipeline.get_nfilters())]
        if [filter_ for filter_ in filters if filter_ != h5py.h5z.FILTER_FLETCHER32] not in FILTERS:
            raise self.error(name, "is packed by an unusual filter", "export the file without compression")
        if dataset.chunks and dataset.id.get_num_chunks() > MAX_CHUNKS:
            raise self.error(name, f"has more than {MAX_CHUNKS:,} chunks", "export it in fewer")
        if not _is_allocated(dataset):
            raise self.error(name, f"declares shape {dataset.shape}, but its numbers were never written")
        chunk = math.prod(dataset.chunks or (0,))
        return dataset.dtype.itemsize * max(math.prod(dataset.shape or ()), chunk)

    # ---- reading

    def dtype(self, name: str) -> np.dtype:
        return self._datasets[name].dtype

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        self._check_chunks(name)
        with damage_in(self.place(name)):
            return self._datasets[name][start:stop]

    def _check_chunks(self, name: str) -> None:
        """Raise if a chunk unpacks to more than its numbers: HDF5 allocates whatever comes out."""
        dataset = self._datasets[name]
        if name in self._unpacked or not dataset.chunks:
            return
        size = math.prod(dataset.chunks) * dataset.dtype.itemsize + FILTER_SLACK
        with damage_in(self.place(name)):
            chunks: list[Any] = []
            dataset.id.chunk_iter(chunks.append)
            for chunk in chunks:
                if chunk.size > size + size // 8 or not self._fits(dataset, chunk, size):
                    raise self.error(name, "has a chunk that is larger than its numbers")
        self._unpacked.add(name)

    def _fits(self, dataset: h5py.Dataset, chunk: Any, size: int) -> bool:
        """Whether gzip, the one filter that unpacks to a thousand times its input, stays within `size`."""
        if dataset.compression != "gzip":
            return True
        _, content = dataset.id.read_direct_chunk(chunk.chunk_offset)
        try:
            return len(zlib.decompressobj().decompress(content, size + 1)) <= size
        except zlib.error:  # the chunk is stored as it is, or the library complains of it
            return True


def _is_allocated(dataset: h5py.Dataset) -> bool:
    """Whether every number was written; HDF5 silently fills what is absent with zeros."""
    if dataset.chunks:
        needed = math.prod(
            -(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True)
        )
        return dataset.id.get_num_chunks() >= needed
    return dataset.id.get_storage_size() >= math.prod(dataset.shape or ()) * dataset.dtype.itemsize
