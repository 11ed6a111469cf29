"""Arrays of an HDF5 file whose numbers are elsewhere, or are far more than the file has bytes."""

import zlib
from pathlib import Path
from random import Random

import h5py
import numpy as np

from tests.fuzz.watch import MARKED_NUMBER


def external_link(rng: Random, file: h5py.File, name: str, outside: Path) -> None:
    del file[name]
    target = rng.choice(
        [str(outside / "secret.hdf5"), "../../outside/secret.hdf5", "nothing.hdf5", Path(file.filename).name]
    )
    file[name] = h5py.ExternalLink(target, rng.choice([name, "/", "/x"]))


def soft_link(rng: Random, file: h5py.File, name: str, outside: Path) -> None:
    other = rng.choice(sorted(file))
    del file[name]
    file[name] = h5py.SoftLink(rng.choice([other, "/", "/" + name, "nothing", "/.."]))


def external_storage(rng: Random, file: h5py.File, name: str, outside: Path) -> None:
    shape = file[name].shape
    del file[name]
    target = str(
        rng.choice(
            [outside / "secret.bin", "/etc/passwd", "/dev/zero", "nothing", "../../outside/secret.bin"]
        )
    )
    size = rng.choice([h5py.h5f.UNLIMITED, int(np.prod(shape)) * 4])
    file.create_dataset(name, shape, "f4", external=[(target, rng.choice([0, 8]), size)])


def virtual(rng: Random, file: h5py.File, name: str, outside: Path) -> None:
    shape = file[name].shape
    del file[name]
    target = rng.choice([str(outside / "secret.hdf5"), "nothing.hdf5", "."])
    layout = h5py.VirtualLayout(shape, "f4")
    if shape:
        layout[...] = h5py.VirtualSource(target, name, shape)
    file.create_virtual_dataset(name, layout, fillvalue=MARKED_NUMBER if rng.random() < 0.5 else 0)


def bomb(rng: Random, file: h5py.File, name: str, outside: Path) -> None:
    """Zeros that unpack to far more than the file has."""
    shape = file[name].shape
    del file[name]
    size = rng.choice(
        [shape, (1 << 20,), (1 << 26,), (1 << 28,)] if rng.random() < 0.05 else [shape, (1 << 20,)]
    )
    filters = rng.choice(
        [{"compression": "gzip"}, {"compression": "lzf"}, {"shuffle": True, "compression": "gzip"}]
    )
    file.create_dataset(
        name, size, "f4", data=np.zeros(size, "f4"), chunks=size or None, **filters if size else {}
    )


def huge_chunk(rng: Random, file: h5py.File, name: str, outside: Path) -> None:
    """Chunks that are larger than what they hold."""
    array = file[name][()]
    del file[name]
    chunks = (*(max(1, size) for size in array.shape[:-1]), rng.choice([1 << 16, 1 << 24, 1 << 28]))
    if array.ndim == 1 and rng.random() < 0.5:
        dataset = file.create_dataset(
            name, array.shape, "f4", maxshape=(None,), chunks=chunks, compression="gzip"
        )
        if rng.random() < 0.3:
            dataset[...] = array
    else:
        file.create_dataset(name, data=array, chunks=True, fletcher32=True)


def chunk_bomb(rng: Random, file: h5py.File, name: str, outside: Path) -> None:
    """A chunk of the right size by its shape, whose packed bytes give gigabytes."""
    shape = file[name].shape
    del file[name]
    filters = rng.choice([{}, {"shuffle": True}, {"fletcher32": True}])
    dataset = file.create_dataset(name, shape, "f4", chunks=shape, compression="gzip", **filters)
    size = rng.choice([1 << 20, 1 << 28]) if rng.random() < 0.9 else 3 << 30
    dataset.id.write_direct_chunk((0,) * len(shape), packed_zeros(size))


def packed_zeros(size: int) -> bytes:
    """zlib's form of zeros: one piece of it, again and again."""
    piece = 1 << 20
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(bytes(piece)) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = (size % 65521) << 16 | 1
    return b"\x78\x9c" + block * (size // piece) + b"\x03\0" + checksum.to_bytes(4, "big")


CHANGES = [
    external_link,
    soft_link,
    external_storage,
    virtual,
    bomb,
    bomb,
    chunk_bomb,
    chunk_bomb,
    huge_chunk,
]
CHANGES += [huge_chunk]
