"""State dicts of torch.save: every good one as torch.load reads it, every bad one a sentence, no code run."""

import os
import pickle
import resource
import struct
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from elmo_hf.convert import pickled
from elmo_hf.convert.pickled import StateDictArrays, names_of
from elmo_hf.errors import ElmoError
from tests.helpers.paths import SHARED
from tests.helpers.state_dicts import Calls, Stored, Tensor, write_stream, write_zip
from tests.helpers.state_dicts import pickled as pickled_bytes

WRITERS = {"zip": write_zip, "stream": write_stream}
EIGHT = np.arange(8, dtype="f4")


def good() -> OrderedDict:
    torch.manual_seed(0)
    shared = torch.randn(4, 3)
    tensors = OrderedDict(
        transposed=torch.randn(5, 4).T,
        bfloat=torch.randn(6, 2).bfloat16(),
        half=torch.randn(3).half(),
        double=torch.randn(2, 2, 2).double(),
        number=torch.tensor(2.5),
        slice=torch.randn(6, 5)[1:4],
        learnt=torch.nn.Parameter(torch.randn(2)),
        expanded=torch.randn(1, 3).expand(4, 3),
        empty=torch.zeros(0, 3),
        whole=torch.arange(3),
        first=shared,
        second=shared,
    )
    tensors._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    return tensors


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "stream"])
def test_every_tensor_is_what_torch_load_reads(is_zip: bool, tmp_path: Path) -> None:
    torch.save(good(), tmp_path / "a.th", _use_new_zipfile_serialization=is_zip)
    expected = torch.load(tmp_path / "a.th", weights_only=True)
    with StateDictArrays(tmp_path / "a.th") as arrays:
        assert arrays.names == set(expected)
        for name, tensor in expected.items():
            assert arrays.shape(name) == tuple(tensor.shape)
            if not tensor.is_floating_point():
                continue
            arrays.check_array(name, tuple(tensor.shape))
            assert_equal(arrays.rows(name, 0, len(tensor) if tensor.dim() else 1), tensor)
            if tensor.dim() and len(tensor) > 1:
                assert_equal(arrays.rows(name, 1, 2), tensor[1:2])


def test_gigabytes_that_belong_to_no_tensor(tmp_path: Path) -> None:
    """They would be read for the checksum."""
    torch.save(good(), tmp_path / "a.th", _use_new_zipfile_serialization=False)
    with (tmp_path / "a.th").open("ab") as file:
        file.write(b"more")
        file.flush()
        assert names_of(tmp_path / "a.th") == set(good())
        file.truncate(10 * 2**30)
    with pytest.raises(ElmoError, match="bytes follow its numbers"):
        names_of(tmp_path / "a.th")


def assert_equal(rows: np.ndarray, tensor: torch.Tensor) -> None:
    assert rows.shape == tuple(tensor.shape)
    assert rows.dtype == ("f4" if tensor.dtype == torch.bfloat16 else str(tensor.dtype)[6:])
    assert np.array_equal(rows.astype("f8"), tensor.detach().double().numpy())


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "stream"])
def test_what_is_no_plain_tensor_does_not_disturb_the_others(is_zip: bool, tmp_path: Path) -> None:
    state = {
        "sparse": torch.eye(2).to_sparse(),
        "dense": torch.ones(2),
        "text": "x",
        "nested": {"a": [1, 2.5]},
    }
    torch.save(state, tmp_path / "a.th", _use_new_zipfile_serialization=is_zip)
    with StateDictArrays(tmp_path / "a.th") as arrays:
        assert arrays.names == set(state)
        arrays.check_array("dense", (2,))
        assert arrays.shape("sparse") is None
        with pytest.raises(
            ElmoError, match=r"tensor 'sparse' is not a plain tensor; save its numbers as one\.$"
        ):
            arrays.check_array("sparse", (2, 2))


def test_a_gpus_tensors_are_read_without_one(tmp_path: Path) -> None:
    identity = Stored("0", 8, torch.FloatStorage)
    content = pickled_bytes({"a": Tensor(identity, 0, (2, 4), (4, 1))})
    cuda = content.replace(b"ctorch\nFloatStorage", b"ctorch.cuda\nFloatStorage").replace(
        b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"
    )
    assert cuda != content
    path = write_zip(tmp_path / "a.th", cuda, {"0": EIGHT.tobytes()})
    with StateDictArrays(path) as arrays:
        assert np.array_equal(arrays.rows("a", 0, 2), EIGHT.reshape(2, 4))


def test_allennlps_own_file_is_what_torch_load_reads() -> None:
    path = SHARED / "fixtures" / "allennlp_archive" / "best.th"
    if not path.exists():
        pytest.skip("AllenNLP's test archive is not here")
    expected = torch.load(path, weights_only=True)
    with StateDictArrays(path) as arrays:
        assert arrays.names == set(expected)
        for name, tensor in expected.items():
            assert np.array_equal(arrays.rows(name, 0, len(tensor)), tensor)


# ---- hostile pickles

Whole = Stored("0", 8)
BAD_TENSORS = {
    "a storage without end": Tensor(Stored("0", 1 << 50), 0, (1 << 50,), (1,)),
    "a storage of another size": Tensor(Stored("0", 7), 0, (7,), (1,)),
    "a negative storage": Tensor(Stored("0", -1), 0, (1,), (1,)),
    "a storage of a huge integer": Tensor(Stored("0", 1 << 100), 0, (1,), (1,)),
    "a storage of another type": Tensor(Stored("0", 8, torch.DoubleStorage), 0, (8,), (1,)),
    "a storage that is missing": Tensor(Stored("7", 8), 0, (8,), (1,)),
    "a storage outside": Tensor(Stored("../../x", 8), 0, (8,), (1,)),
    "a shape larger than the storage": Tensor(Whole, 0, (9,), (1,)),
    "an offset behind the storage": Tensor(Whole, 8, (1,), (1,)),
    "a negative offset": Tensor(Whole, -1, (1,), (1,)),
    "a negative size": Tensor(Whole, 0, (-1,), (1,)),
    "a negative stride": Tensor(Whole, 7, (8,), (-1,)),
    "a stride behind the storage": Tensor(Whole, 0, (2, 2), (1 << 40, 1)),
    "a size that is a float": Tensor(Whole, 0, (2.0,), (1,)),
    "a size that is true": Tensor(Whole, 0, (True,), (1,)),
    "sizes without strides": Tensor(Whole, 0, (2, 4), (1,)),
    "many dimensions": Tensor(Whole, 0, (1,) * 100, (1,) * 100),
    "no storage": Tensor({}, 0, (1,), (1,)),
    "a stride of zero that makes a terabyte": Tensor(Whole, 0, (1 << 20, 1 << 20), (0, 0)),
}


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("name", BAD_TENSORS)
def test_sizes_that_lie_are_refused_before_memory_is_taken(form: str, name: str, tmp_path: Path) -> None:
    path = WRITERS[form](tmp_path / "a.th", {"a": BAD_TENSORS[name]}, {"0": EIGHT.tobytes()})
    assert_refused_cheaply(path)


@pytest.mark.parametrize("form", WRITERS)
def test_the_stride_of_a_dimension_of_one_may_be_any_number(form: str, tmp_path: Path) -> None:
    tensors = {"a": Tensor(Whole, 0, (1, 8), (1 << 62, 1)), "b": Tensor(Whole, 0, (8, 1), (1, 1 << 62))}
    path = WRITERS[form](tmp_path / "a.th", tensors, {"0": EIGHT.tobytes()})
    with StateDictArrays(path) as arrays:
        check_all(path)
        assert np.array_equal(arrays.rows("a", 0, 1), EIGHT.reshape(1, 8))
        assert np.array_equal(arrays.rows("b", 2, 5), EIGHT.reshape(8, 1)[2:5])


def check_all(path: Path) -> None:
    with StateDictArrays(path) as arrays:
        for name in arrays.names:
            arrays.check_array(name, arrays.shape(name) or ())


def assert_refused_cheaply(path: Path, match: str | None = None) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ElmoError, match=match) as refusal:
        check_all(path)
    sentence = str(refusal.value)
    assert sentence.startswith(str(path))
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert len(sentence) < 600
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("function", [os.mkdir, eval, exec, getattr, np.zeros], ids=str)
def test_no_code_of_a_pickle_runs(form: str, function: object, tmp_path: Path) -> None:
    argument = (
        str(tmp_path / "made") if function is os.mkdir else f"__import__('os').mkdir('{tmp_path}/made')"
    )
    path = WRITERS[form](tmp_path / "a.th", {"a": Calls(function, argument)}, {})
    assert_refused_cheaply(
        path, r"names '.*', which no state dict of weights needs; save a state dict alone\.$"
    )
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize(
    "content",
    {
        "a memo that takes gigabytes": b"\x80\x02}r\xff\xff\xff\x7f.",
        "a text of gigabytes": b"\x80\x02X\xff\xff\xff\x7fabc.",
        "an object by INST": b"(S'x'\nios\nmkdir\n.",
        "an object by NEWOBJ": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
        "an extension": b"\x80\x02\x82\x01.",
        "an empty stack": b"\x80\x020.",
        "no end": b"\x80\x02}",
        "nothing": b"",
        "a plain number": b"\x80\x02K\x01.",
        "a list": b"\x80\x02].",
        "names that are no texts": b"\x80\x02}K\x01K\x02s.",
        "a list that holds itself": b"\x80\x02]q\x00h\x00a.",
        "deep lists": b"\x80\x02" + b"]" * 30_000 + b"a" * 29_999 + b".",
        "deep tuples": b"\x80\x02)" + b"\x85" * 30_000 + b".",
        "a future protocol": b"\x80\x09}.",
        "a method of torch": b"\x80\x02ctorch\nload\nX\x01\x00\x00\x00a\x85R.",
    }.items(),
    ids=lambda item: item[0],
)
def test_odd_pickles_are_refused(form: str, content: tuple[str, bytes], tmp_path: Path) -> None:
    path = WRITERS[form](tmp_path / "a.th", content[1], {})
    assert_refused_cheaply(path)


@pytest.mark.parametrize("form", WRITERS)
def test_a_storage_shared_by_many_tensors_counts_each_time(form: str, tmp_path: Path) -> None:
    numbers = np.zeros(1 << 20, "f4")
    storage = Stored("0", numbers.size)
    tensors = {f"a{number}": Tensor(storage, 0, (numbers.size,), (1,)) for number in range(1000)}
    path = WRITERS[form](tmp_path / "a.th", tensors, {"0": numbers.tobytes()})
    assert_refused_cheaply(path, r"declares tensors of 4,194,304,000; save clones of them\.$")


def test_a_dictionary_that_repeats_another_is_refused(tmp_path: Path) -> None:
    many = [(str(number), 0) for number in range(20_000)]
    calls = {str(number): Calls(OrderedDict, many) for number in range(20_000)}
    assert_refused_cheaply(write_zip(tmp_path / "a.th", calls, {}), "too many items")


@pytest.mark.parametrize("sizes", [{"0": 1 << 60}, {"0": 7}], ids=["far too large", "too small"])
def test_a_streams_size_before_the_numbers_must_be_true(sizes: dict[str, int], tmp_path: Path) -> None:
    content = {"a": Tensor(Whole, 0, (8,), (1,))}
    assert_refused_cheaply(write_stream(tmp_path / "a.th", content, {"0": EIGHT.tobytes()}, sizes))


@pytest.mark.parametrize("form", WRITERS)
def test_a_file_cut_anywhere_is_refused(form: str, tmp_path: Path) -> None:
    path = WRITERS[form](tmp_path / "a.th", {"a": Tensor(Whole, 0, (8,), (1,))}, {"0": EIGHT.tobytes()})
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        assert_refused_cheaply(path)


def test_packed_records_and_long_lists_of_records_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {"a": Tensor(Whole, 0, (8,), (1,))}
    path = write_zip(tmp_path / "a.th", content, {"0": EIGHT.tobytes()}, zipfile.ZIP_DEFLATED)
    assert_refused_cheaply(path, "is packed")
    monkeypatch.setattr(pickled, "MAX_DIRECTORY", 70_000)  # more than a zip file's comment
    path = write_zip(tmp_path / "b.th", content, {str(n): b"" for n in range(1200)})
    assert_refused_cheaply(path, "its list of records is too long")


def test_other_files_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as records:
        records.writestr("x", "y")
    assert_refused_cheaply(tmp_path / "a.zip", "it has no data.pkl")
    (tmp_path / "b.th").write_bytes(pickle.dumps({"a": 1}))
    assert_refused_cheaply(tmp_path / "b.th", "is not a file of torch.save")
    with tarfile.open(tmp_path / "c.th", "w"):
        pass
    assert_refused_cheaply(tmp_path / "c.th", "is not a file of torch.save")
    os.mkfifo(tmp_path / "d.th")
    assert_refused_cheaply(tmp_path / "d.th", "is not a file")


def test_ten_gigabytes_that_were_never_written_are_refused(tmp_path: Path) -> None:
    size = 10 * 2**30 // 4
    path = write_stream(tmp_path / "a.th", {"a": Tensor(Stored("0", size), 0, (size,), (1,))}, {"0": b""})
    content = path.read_bytes()[:-8] + struct.pack("<q", size)
    path.write_bytes(content)
    os.truncate(path, len(content) + 4 * size)
    assert_refused_cheaply(path, r"its numbers were never written; export the file again\.$")


def test_a_view_with_gaps_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.randn(8, 8)[:, :2]}, tmp_path / "a.th")
    assert_refused_cheaply(tmp_path / "a.th", "is a view with gaps; save a clone of it")


def test_the_pickle_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(good(), tmp_path / "a.th")
    monkeypatch.setattr(pickled, "MAX_PICKLE", 300)
    assert_refused_cheaply(tmp_path / "a.th", "is too long")
