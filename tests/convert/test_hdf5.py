"""Hostile HDF5 files are refused in one sentence that names file and dataset, with nothing left behind."""

import os
import random
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest

from elmo_hf.convert import convert_from_bilm, hdf5
from elmo_hf.errors import ElmoError
from tests.helpers.bilm_files import (
    VOCABULARY,
    assert_one_sentence,
    change,
    read_hdf5,
    refused,
    write_source,
)
from tests.helpers.reference import lstm_path, options, random_softmax, random_weights, write_hdf5

Damage = Callable[[h5py.File], None]


def test_not_hdf5(source: Path) -> None:
    (source / "weights.hdf5").write_text("version https://git-lfs.github.com/spec/v1\n")
    refused([source], str(source / "weights.hdf5"), "not an HDF5 file")
    refused([source / "weights.hdf5", source / "options.json"], "weights.hdf5", "not an HDF5 file")


def test_missing_and_extra_datasets(source: Path) -> None:
    arrays = read_hdf5(source / "weights.hdf5")
    for name, array in arrays.items():
        if name == "CNN_proj/W_proj":
            continue
        remaining = {other: values for other, values in arrays.items() if other != name}
        write_hdf5(source / "weights.hdf5", remaining)
        refused([source], str(source / "weights.hdf5"), f"'{name}'", "missing", str(array.shape))
    for name in ("extra", "RNN_2/RNN/B", "CNN/W_cnn_3", "embedding"):
        write_hdf5(source / "weights.hdf5", {**arrays, name: np.zeros(3, np.float32)})
        refused([source], str(source / "weights.hdf5"), f"'{name}'")


def test_wrong_shapes(source: Path) -> None:
    arrays = read_hdf5(source / "weights.hdf5")
    for name, array in arrays.items():
        wrong = [array[:-1], array[None], np.concatenate([array, array], -1), np.float32(1)]
        for changed in wrong if array.ndim < 3 else [array.swapaxes(1, 3)[:, :, :-1], array[0]]:
            write_hdf5(source / "weights.hdf5", {**arrays, name: changed})
            shapes = str(array.shape), str(changed.shape)
            refused([source], str(source / "weights.hdf5"), f"'{name}'", *shapes)


def test_softmax_of_another_model(language_model: Path) -> None:
    softmax = random_softmax(options(projection_dim=6), 0, len(VOCABULARY))
    write_hdf5(language_model / "softmax.hdf5", softmax)
    refused([language_model], "softmax.hdf5", "'softmax/W'", "(8, 8)", "(8, 6)")
    change(language_model / "softmax.hdf5", "softmax/W", lambda _: np.zeros((8, 8), np.float32))
    change(language_model / "softmax.hdf5", "softmax/b", lambda b: b[:-1])
    refused([language_model], "softmax.hdf5", "'softmax/b'", "(8,)", "(7,)")


def with_value(array: np.ndarray, value: float) -> np.ndarray:
    array = array.copy()
    array.flat[array.size // 2] = value
    return array


@pytest.mark.parametrize(
    ("new", "word"),
    [
        (lambda array: with_value(array, np.nan), "NaN"),
        (lambda array: with_value(array, np.inf), "NaN"),
        (lambda array: with_value(array, -np.inf), "NaN"),
        (lambda array: with_value(array.astype(np.float64), np.nan), "NaN"),
        (lambda array: array.astype(np.float64) + 1e-12, "float64"),
        (lambda array: with_value(array.astype(np.float64), 1e300), "float64"),
        (lambda array: with_value(array.astype(np.float64), 1e-300), "float64"),
        (lambda array: array.astype(np.int32), "int32"),
        (lambda array: array.astype(bool), "bool"),
        (lambda array: array.astype(np.complex64), "complex64"),
        (lambda array: array.astype("S4"), "S4"),
        (lambda array: array.astype(np.longdouble), "must hold float32"),
        (lambda array: h5py.Empty(np.float32), "None"),
    ],
)
@pytest.mark.parametrize("name", ["char_embed", f"{lstm_path(1, 1)}/W_0"])
def test_values_that_are_not_weights(source: Path, name: str, new: Callable, word: str) -> None:
    change(source / "weights.hdf5", name, new)
    refused([source], str(source / "weights.hdf5"), f"'{name}'", word)


def text_dataset(file: h5py.File) -> None:
    file["char_embed"] = "text"


def soft_link(file: h5py.File) -> None:
    file["char_embed"] = h5py.SoftLink("/CNN_proj/W_proj")


def dangling_link(file: h5py.File) -> None:
    file["char_embed"] = h5py.SoftLink("/nowhere")


def external_link(file: h5py.File) -> None:
    file["char_embed"] = h5py.ExternalLink("other.hdf5", "/char_embed")


def external_storage(file: h5py.File) -> None:
    file.create_dataset("char_embed", (261, 4), "f4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def virtual_dataset(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((261, 4), "f4")
    layout[:] = h5py.VirtualSource("other.hdf5", "char_embed", (261, 4))
    file.create_virtual_dataset("char_embed", layout)


def never_written(file: h5py.File) -> None:
    file.create_dataset("char_embed", (261, 4), "f4")


def partly_written(file: h5py.File) -> None:
    file.create_dataset("char_embed", (261, 4), "f4", chunks=(10, 4))
    file["char_embed"][:200] = 1


def terabytes(file: h5py.File) -> None:
    file.create_dataset("char_embed", (2**40, 4), "f4", chunks=(2**20, 4))


def huge_chunk(file: h5py.File) -> None:
    """A chunk is decompressed whole, even if the array covers little of it."""
    chunks = (1 << 25, 1)
    file.create_dataset("char_embed", (261, 1), "f4", chunks=chunks, maxshape=(None, 1), compression="gzip")
    file["char_embed"][:] = 1


def named_type(file: h5py.File) -> None:
    file["char_embed"] = np.dtype("f4")


def gzip_bomb(file: h5py.File) -> None:
    """A chunk that says it has 4 kB and holds 64 MB."""
    dataset = file.create_dataset("char_embed", (261, 4), "f4", chunks=(261, 4), compression="gzip")
    dataset.id.write_direct_chunk((0, 0), zlib.compress(bytes(64 << 20)))


def stored_whole(file: h5py.File) -> None:
    """A chunk with more bytes than its numbers have."""
    dataset = file.create_dataset("char_embed", (261, 4), "f4", chunks=(261, 4), compression="lzf")
    dataset.id.write_direct_chunk((0, 0), bytes(1 << 20))


def other_filter(file: h5py.File) -> None:
    file.create_dataset("char_embed", data=np.ones((261, 4), np.float32), chunks=True, scaleoffset=3)


def packed_twice(file: h5py.File) -> None:
    """The inner one would not be checked."""
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk((261, 4))
    settings.set_deflate(9)
    settings.set_deflate(9)
    space = h5py.h5s.create_simple((261, 4))
    h5py.h5d.create(file.id, b"char_embed", h5py.h5t.IEEE_F32LE, space, settings)
    file["char_embed"][:] = 1


def long_name(file: h5py.File) -> None:
    file["char_embed"] = np.ones((261, 4), np.float32)
    file["\x1b[31m" + "x" * 60_000] = np.ones(3, np.float32)


DAMAGES: dict[str, tuple[Damage, str]] = {
    "text": (text_dataset, "char_embed"),
    "soft link": (soft_link, "'char_embed' is a soft link"),
    "dangling link": (dangling_link, "'char_embed' is a soft link"),
    "external link": (external_link, "'char_embed' is an external link"),
    "external storage": (external_storage, "'char_embed' keeps its numbers in other files"),
    "virtual": (virtual_dataset, "'char_embed' keeps its numbers in other files"),
    "never written": (never_written, "never written"),
    "partly written": (partly_written, "never written"),
    "terabytes": (terabytes, "never written"),
    "huge chunk": (huge_chunk, "declares datasets of"),
    "gzip bomb": (gzip_bomb, "'char_embed' has a chunk that is larger than its numbers"),
    "stored whole": (stored_whole, "'char_embed' has a chunk that is larger than its numbers"),
    "other filter": (other_filter, "'char_embed' is packed by an unusual filter"),
    "packed twice": (packed_twice, "'char_embed' is packed by an unusual filter"),
    "long name": (long_name, "xxx...'"),
    "named type": (named_type, "'char_embed' is neither group nor dataset"),
}


@pytest.mark.parametrize("label", DAMAGES)
def test_hostile_datasets(source: Path, label: str) -> None:
    damage, words = DAMAGES[label]
    with h5py.File(source / "weights.hdf5", "a") as file:
        del file["char_embed"]
        damage(file)
    message = refused([source], str(source / "weights.hdf5"), words)
    assert message.isprintable()
    assert len(message) < 1000


def test_filters_that_are_undone(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = read_hdf5(source / "weights.hdf5")
    with h5py.File(source / "weights.hdf5", "w") as file:
        for number, (name, array) in enumerate(arrays.items()):
            pack = ("gzip", "lzf")[number % 2]
            file.create_dataset(
                name, data=array, chunks=True, compression=pack, shuffle=True, fletcher32=True
            )
    convert_from_bilm([source], tmp_path / "target")
    monkeypatch.setattr(hdf5, "MAX_CHUNKS", 0)
    refused([source], "has more than 0 chunks")


def test_compression_bomb(source: Path) -> None:
    """Every chunk is written, but the numbers take a thousand times the file's size."""
    rows = 3 << 20
    with h5py.File(source / "weights.hdf5", "a") as file:
        del file["char_embed"]
        file.create_dataset(
            "char_embed", (rows, 8), "f4", chunks=(rows, 8), compression="gzip", compression_opts=1
        )
        file["char_embed"][:] = 0
    size = (source / "weights.hdf5").stat().st_size
    refused([source], str(source / "weights.hdf5"), f"{size:,}", "declares")


def test_group_that_contains_itself(source: Path) -> None:
    with h5py.File(source / "weights.hdf5", "a") as file:
        file["CNN/again"] = file["/"]
    refused([source], str(source / "weights.hdf5"), "'CNN/again/", "circle")


def test_too_many_names(source: Path) -> None:
    with h5py.File(source / "weights.hdf5", "a") as file:
        group = file.create_group("many")
        for number in range(hdf5.MAX_NAMES):
            group.create_group(str(number))
    refused([source], str(source / "weights.hdf5"), f"{hdf5.MAX_NAMES} names")


def test_external_links_are_not_followed(source: Path, tmp_path: Path) -> None:
    """Not even to find the role of a file: the weights here are links to valid ones elsewhere."""
    (source / "weights.hdf5").rename(tmp_path / "good.hdf5")
    with h5py.File(source / "weights.hdf5", "w") as file:
        for name in {path.split("/")[0] for path in random_weights(options(), 0)}:
            file[name] = h5py.ExternalLink(str(tmp_path / "good.hdf5"), name)
    refused([source], str(source / "weights.hdf5"), "is an external link")


def test_truncated_anywhere(language_model: Path) -> None:
    for name in ("weights.hdf5", "softmax.hdf5"):
        whole = (language_model / name).read_bytes()
        for length in [*range(8, 200, 23), *range(200, len(whole), len(whole) // 20), len(whole) - 1]:
            (language_model / name).write_bytes(whole[:length])
            refused([language_model], str(language_model / name))
        (language_model / name).write_bytes(whole)


def test_flipped_bits(source: Path, tmp_path: Path) -> None:
    """Each damaged file is refused in a sentence, or converted if the bit belongs to a number."""
    whole, rng, converted = (source / "weights.hdf5").read_bytes(), random.Random(0), 0
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(rng.choice([1, 3, 30])):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        (source / "weights.hdf5").write_bytes(damaged)
        parent = tmp_path / "place"
        parent.mkdir()
        message = outcome(source, parent / "target")
        if message is None:
            converted += 1
        else:
            assert_one_sentence(message)
            assert str(source) in message
            assert list(parent.iterdir()) == []
        shutil.rmtree(parent)
    assert 4 < converted < 56


def outcome(source: Path, target: Path) -> str | None:
    try:
        convert_from_bilm([source], target)
    except ElmoError as error:
        return str(error)
    return None


@contextmanager
def as_other_user() -> Iterator[None]:
    """Drop the superuser's rights, who may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("unreadable", ["weights.hdf5", "options.json", "vocab.txt", "."])
@pytest.mark.parametrize("by_name", [True, False])
def test_lacking_permission(unreadable: str, by_name: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folder is readable by its user only
        Path(folder).chmod(0o755)
        source, parent = write_source(Path(folder) / "source", options()), Path(folder) / "place"
        (source / "vocab.txt").write_text("<S>\n</S>\n<UNK>\n")
        parent.mkdir()
        parent.chmod(0o777)
        sources = sorted(source.iterdir(), reverse=True) if by_name else [source]
        (source / unreadable).chmod(0)
        with as_other_user(), pytest.raises(ElmoError) as caught:
            convert_from_bilm(sources, parent / "target")
        (source / unreadable).chmod(0o755)
        assert list(parent.iterdir()) == []
    first = sources[0] if unreadable == "." else source / unreadable
    assert str(caught.value) == f"{first} cannot be read (Permission denied); check its permissions."
