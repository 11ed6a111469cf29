"""The reader of TensorFlow's checkpoints: every type and layout, and files that lie, each one sentence."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from elmo_hf.convert import tensor_bundle
from elmo_hf.convert.leveldb import read_table
from elmo_hf.convert.tensor_bundle import BundleArrays, ordered, ordered_unsigned
from elmo_hf.errors import ElmoError
from tests.helpers import tensor_bundles
from tests.helpers.bilm_files import assert_one_sentence
from tests.helpers.tensor_bundles import entry_message, field, masked, write_bundle, write_table


def draw(*shape: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    return (100 * np.random.default_rng(seed).normal(size=shape)).astype(dtype)


ARRAYS = {
    "a": draw(5, 3),
    "a/b": draw(7),
    "scalar": draw(),
    "z": draw(2, 3, 4, dtype="float64"),
    "é": draw(2, 2),
}


def read(path: Path, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
    with BundleArrays(path) as arrays:
        shape = arrays.shape(name)
        assert shape is not None
        return arrays.rows(name, start, (stop if stop is not None else shape[0]) if shape else 1)


def assert_same(actual: np.ndarray, expected: np.ndarray) -> None:
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    assert actual.tobytes() == expected.tobytes()


# ---- what is read


@pytest.mark.parametrize("shards", [1, 3])
def test_arrays_of_one_and_of_several_files(tmp_path: Path, shards: int) -> None:
    write_bundle(tmp_path / "m.ckpt", ARRAYS, shards=shards)
    with BundleArrays(tmp_path / "m.ckpt.index") as arrays:
        assert arrays.names == ARRAYS.keys()
        assert len(arrays.files) == shards
        assert arrays.shape("absent") is None
        for name, array in ARRAYS.items():
            assert arrays.shape(name) == array.shape
            assert arrays.dtype(name) == array.dtype
            assert_same(arrays.rows(name, 0, array.shape[0] if array.shape else 1), array)
        assert_same(arrays.rows("a", 1, 3), ARRAYS["a"][1:3])


def test_more_entries_than_a_restart_interval(tmp_path: Path) -> None:
    arrays = {
        f"cell_{number % 7}/kernel_{number}": draw(number % 3 + 1, seed=number) for number in range(100)
    }
    write_bundle(tmp_path / "m", arrays)
    with BundleArrays(tmp_path / "m.index") as bundle:
        for name, array in arrays.items():
            assert_same(bundle.rows(name, 0, len(array)), array)


@pytest.mark.parametrize(
    ("shape", "axis", "count"), [((50, 3), 0, 7), ((3, 50), 1, 4), ((9000, 2), 0, 2), ((8,), 0, 8)]
)
def test_partitioned_variables(tmp_path: Path, shape: tuple[int, ...], axis: int, count: int) -> None:
    array = draw(*shape)
    write_bundle(tmp_path / "m", {"v": array, "other": draw(2)}, cuts={"v": (axis, count)}, shards=2)
    assert_same(read(tmp_path / "m.index", "v"), array)
    for start, stop in ((0, 1), (1, 3), (2, len(array))):
        assert_same(read(tmp_path / "m.index", "v", start, stop), array[start:stop])
    with BundleArrays(tmp_path / "m.index") as arrays:
        assert arrays.names == {"v", "other"}


def test_pieces_that_are_variables_of_their_own(tmp_path: Path) -> None:
    array, sums = draw(12, 3), draw(12, 3, seed=1)
    pieces = {f"v/part_{i}": piece for i, piece in enumerate(np.array_split(array, 11))}
    pieces |= {f"v/part_{i}/Adagrad": piece for i, piece in enumerate(np.array_split(sums, 11))}
    write_bundle(tmp_path / "m", pieces)
    assert_same(read(tmp_path / "m.index", "v"), array)
    assert_same(read(tmp_path / "m.index", "v/Adagrad", 3, 9), sums[3:9])
    del pieces["v/part_4"]
    write_bundle(tmp_path / "gap", pieces)
    with pytest.raises(ElmoError, match="'v' do not fit one another"):
        BundleArrays(tmp_path / "gap.index")


def test_keys_of_slices_as_tensorflow_encodes_them() -> None:
    """Written down from TensorFlow's OrderedCode: ones for the number of bytes, then the number."""
    cases = {0: "80", 1: "81", 63: "bf", 64: "c040", 8191: "dfff", 8192: "e02000", 2**20 - 1: "efffff"}
    cases |= {-1: "7f", -64: "40", -65: "3fbf", 2**20: "f0100000", 2**62: "ffc04000000000000000"}
    for value, code in cases.items():
        assert ordered(value).hex() == code, value
    assert [ordered_unsigned(value).hex() for value in (0, 2, 300)] == ["00", "0102", "02012c"]


def test_bfloat16(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 3e38, 2**-126], "f4")
    halves = (values.view("u4") >> 16).astype("u2")
    data = halves.tobytes()
    write_index(tmp_path, {b"v": entry_message(14, (4,), 0, 0, len(data), masked(data))}, data)
    assert_same(read(tmp_path / "m.index", "v"), (halves.astype("u4") << 16).view("f4"))


def test_tensorflows_own_files(shared_fixtures: Path) -> None:
    for name in ("one", "two"):
        folder = shared_fixtures / "tensorflow" / name
        expected = np.load(folder / "expected.npz")
        with BundleArrays(folder / "model.ckpt-7.index") as arrays:
            assert arrays.names == set(expected.files)
            for variable in expected.files:
                array = expected[variable]
                assert_same(arrays.rows(variable, 0, array.shape[0] if array.shape else 1), array)


def test_the_writer_of_these_tests_writes_as_tensorflow_does(shared_fixtures: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        folder = shared_fixtures / "tensorflow" / name
        with np.load(folder / "expected.npz") as arrays:
            write_bundle(tmp_path / name, {variable: arrays[variable] for variable in arrays.files})
        for suffix in (".index", ".data-00000-of-00001"):
            ours = (tmp_path / f"{name}{suffix}").read_bytes()
            assert ours == (folder / f"model.ckpt-7{suffix}").read_bytes(), suffix


# ---- memory


def test_no_array_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = draw(3000, 10)
    write_bundle(tmp_path / "m", {"v": array})
    monkeypatch.setattr(tensor_bundle, "BLOCK_OF_BYTES", 1000)
    monkeypatch.setattr("elmo_hf.convert.arrays.BLOCK_OF_NUMBERS", 250)
    sizes: list[int] = []

    class Watched:
        def __init__(self, file):
            self.file = file
            self.seek, self.close = file.seek, file.close

        def read(self, size):
            sizes.append(size)
            return self.file.read(size)

        def readinto(self, data):
            sizes.append(len(data))
            return self.file.readinto(data)

    with BundleArrays(tmp_path / "m.index") as arrays:
        arrays._files = {shard: Watched(file) for shard, file in arrays._files.items()}
        target = torch.zeros(3000, 10)
        arrays.read_into(target, "v")
    assert torch.equal(target, torch.from_numpy(array))
    assert sum(sizes) == 2 * array.nbytes  # once for the checksum, once for the numbers
    assert max(sizes) <= 1000


# ---- files that lie


def write_index(folder: Path, entries: dict[bytes, bytes], data: bytes = b"", **header: int) -> Path:
    shards, endianness = header.get("shards", 1), header.get("endianness", 0)
    head = field(1, shards) + field(2, endianness) + field(3, field(1, 1))
    write_table(folder / "m.index", {b"": head, **entries})
    (folder / "m.data-00000-of-00001").write_bytes(data)
    return folder / "m.index"


def refused(path: Path, *words: str, names: tuple[str, ...] = ()) -> None:
    with pytest.raises(ElmoError) as caught, BundleArrays(path) as arrays:  # noqa: PT012
        for name in names:
            arrays.rows(name, 0, 1)
    message = str(caught.value)
    assert_one_sentence(message)
    for word in words:
        assert word in message, message


def entry(shape=(2, 3), dtype=1, shard=0, offset=0, size=24, checksum=0, slices=b""):
    return entry_message(dtype, shape, shard, offset, size, checksum, slices)


def slice_of(*extents: tuple[int, int]) -> bytes:
    return field(7, b"".join(field(1, field(1, start) + field(2, length)) for start, length in extents))


LIES: dict[str, tuple[Callable[[], dict[bytes, bytes]], str]] = {
    "size above shape": (lambda: {b"v": entry(size=28)}, "of shape (2, 3) cannot have 28 bytes"),
    "size below shape": (lambda: {b"v": entry(shape=(1 << 40, 3))}, "cannot have 24 bytes"),
    "beyond the file": (lambda: {b"v": entry(offset=80)}, "has 100 bytes, but m.index needs 104"),
    "far beyond the file": (lambda: {b"v": entry(offset=2**63)}, "has 100 bytes, but m.index needs"),
    "a shard too many": (lambda: {b"v": entry(shard=1)}, "there is no file 1"),
    "negative size": (lambda: {b"v": entry(shape=(2**64 - 1, 3))}, "a shape is none"),
    "overlap": (lambda: {b"v": entry(), b"w": entry(offset=20)}, "variable 'w' lies over another"),
    "slice missing": (lambda: {b"v": entry(slices=slice_of((0, 1), (0, 3)))}, "a slice of 'v' is missing"),
    "slice of other dimensions": (lambda: {b"v": entry(slices=slice_of((0, 1)))}, "other dimensions"),
    "unknown field": (lambda: {b"v": entry() + field(9, 3)}, "unknown fields"),
    "cut message": (lambda: {b"v": entry()[:-1]}, "an entry"),
    "name of other bytes": (lambda: {b"\xff\xfe": entry()}, "a name is no text"),
    "unknown rank": (lambda: {b"v": field(1, 1) + field(2, field(3, 1))}, "a shape is not known"),
}


@pytest.mark.parametrize("lie", LIES)
def test_entries_that_lie(tmp_path: Path, lie: str) -> None:
    make, message = LIES[lie]
    if lie == "cut message":
        message = "truncated or damaged"
    refused(write_index(tmp_path, make(), bytes(100)), "m.", message)


@pytest.mark.parametrize(
    ("rows", "places"),
    [(2, [(0, 1), (0, 1)]), (2, [(0, 1)]), (2, [(1, 1)]), (3, [(0, 2), (1, 1)]), (3, [(0, 1), (2, 2)])],
    ids=["twice", "end", "begin", "overlap", "beyond"],
)
def test_slices_that_do_not_cover_their_variable(
    tmp_path: Path, rows: int, places: list[tuple[int, int]]
) -> None:
    slices = b"".join(slice_of(place, (0, 3)) for place in places)
    entries = {b"v": entry(shape=(rows, 3), size=0, slices=slices)}
    for number, (start, length) in enumerate(dict.fromkeys(places)):
        key = tensor_bundles.slice_key("v", [(start, length), (0, 3)])
        entries[key] = entry(shape=(length, 3), size=12 * length, offset=40 * number)
    refused(write_index(tmp_path, entries, bytes(100)), "m.index", "slice")


def test_headers(tmp_path: Path) -> None:
    refused(write_index(tmp_path, {b"v": entry()}, bytes(24), endianness=1), "big-endian")
    refused(write_index(tmp_path, {b"v": entry()}, bytes(24), shards=100_000), "1 to 200 files")
    write_table(tmp_path / "m.index", {b"v": entry()})
    refused(tmp_path / "m.index", "has no header")


def test_wrong_checksums(tmp_path: Path) -> None:
    write_bundle(tmp_path / "m", ARRAYS)
    data = bytearray((tmp_path / "m.data-00000-of-00001").read_bytes())
    data[3] ^= 1
    (tmp_path / "m.data-00000-of-00001").write_bytes(data)
    refused(tmp_path / "m.index", "variable 'a' differs from its checksum", names=("a/b", "a"))
    assert_same(read(tmp_path / "m.index", "a/b"), ARRAYS["a/b"])  # what is whole can be read
    index = bytearray((tmp_path / "m.index").read_bytes())
    index[10] ^= 1
    (tmp_path / "m.index").write_bytes(index)
    refused(tmp_path / "m.index", "m.index", "a block differs from its checksum")


def test_truncated_files(tmp_path: Path) -> None:
    write_bundle(tmp_path / "m", ARRAYS)
    data, index = tmp_path / "m.data-00000-of-00001", tmp_path / "m.index"
    whole = index.read_bytes()
    for size in (0, 47, 100, len(whole) - 1):
        index.write_bytes(whole[:size])
        refused(index, "m.index is truncated or damaged (its end is not that of a table)")
    index.write_bytes(whole)
    os.truncate(data, data.stat().st_size - 1)
    refused(index, "m.data-00000-of-00001", "copy it again")
    data.unlink()
    refused(index, "m.data-00000-of-00001 does not exist")


def test_compressed_blocks(tmp_path: Path) -> None:
    write_bundle(tmp_path / "m", {"a": draw(2)})
    data = bytearray((tmp_path / "m.index").read_bytes())
    end = data.index(b"\0\0\0\0\1\0\0\0\0") + 8  # the type of the first block, after its restarts
    data[end] = 1
    (tmp_path / "m.index").write_bytes(data)
    refused(tmp_path / "m.index", "compressed")


def test_a_file_of_holes(tmp_path: Path) -> None:
    """10 GB that take no place on the disk, and would take 10 GB of memory."""
    path = write_index(tmp_path, {b"v": entry(shape=(1 << 20, 2500), size=10_485_760_000)}, b"x")
    os.truncate(tmp_path / "m.data-00000-of-00001", 10_485_760_000)
    refused(path, "m.data-00000-of-00001", "were never written")


def test_many_entries_and_large_indexes(tmp_path: Path) -> None:
    entries = {b"v%05d" % number: entry(shape=(), size=0, dtype=7) for number in range(10_001)}
    refused(write_index(tmp_path, entries), "more than 10,000 entries")
    os.truncate(tmp_path / "m.index", 1 << 34)
    refused(tmp_path / "m.index", "more than 16,000,000 bytes")
    refused(write_index(tmp_path, {b"k" * 3000: entry()}), "wrong length")


def test_entries_of_a_table_are_those_that_were_written(tmp_path: Path) -> None:
    entries = {os.urandom(number % 30 + 1): os.urandom(number * 3) for number in range(200)}
    write_table(tmp_path / "t", entries)
    assert read_table(tmp_path / "t") == entries
