"""Jobs on a full disk, with damaged files in their folder, beside another job, and after a change of text."""

import json
import os
import resource
import shutil
import signal
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest

import elmo_hf
from elmo_hf import read_vectors
from elmo_hf.convert.hdf5_output import ErrorKeepingFile, Hdf5Output
from elmo_hf.embedding import job
from elmo_hf.errors import ElmoError
from elmo_hf.files import locked_folder
from tests.helpers.embed_corpora import FORMATS, SMALL, contents, sentences, write_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.txt")


@pytest.fixture(scope="module")
def finished(model, corpus, tmp_path_factory):
    """A finished job for each format."""
    folders = tmp_path_factory.mktemp("finished")
    for format in FORMATS:
        elmo_hf.embed(corpus, folders / format, model, format=format, **SMALL)
    return folders


@contextmanager
def largest_file(size):
    """Writes beyond this many bytes of a file fail as on a full disk, which needs no rights of root."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def open_hdf5_objects():
    """What the HDF5 library would close, and crash over, at the end of the process."""
    kinds = h5py.h5f.OBJ_FILE | h5py.h5f.OBJ_DATASET | h5py.h5f.OBJ_GROUP
    return h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, kinds)


# ---- full disks


@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk_is_named_and_what_was_made_is_kept(model, tmp_path, format):
    lines = sentences(60)  # in memory: the readers of files write to shared memory
    elmo_hf.embed(lines, tmp_path / "whole", model, format=format, **SMALL)
    whole = contents(tmp_path / "whole")
    largest = max(map(len, whole.values()))
    before, reasons = open_hdf5_objects(), set()
    for number, size in enumerate([300, 1500, largest // 3, largest - 1]):
        output = tmp_path / str(number)
        with largest_file(size), pytest.raises(OSError, match="File too large") as error:
            elmo_hf.embed(lines, output, model, format=format, **SMALL)
        reasons.add(Path(error.value.filename).name)
        names = {path.name for path in output.iterdir()} if output.exists() else set()
        assert not any("partial" in name or "lock" in name for name in names)
        assert open_hdf5_objects() == before
        elmo_hf.embed(lines, output, model, format=format, **SMALL)
        assert contents(output) == whole
    assert len(reasons) > 1, reasons
    assert ("vectors.hdf5" in reasons) == (format == "hdf5")


def test_hdf5_of_any_size_may_meet_a_full_disk(tmp_path):
    """Among the sizes are ends within numbers, within the names, and within what is written at the close."""

    def write():
        with Hdf5Output(tmp_path / "a.hdf5") as file:
            for number in range(40):
                file.add(str(number), data=np.full((number, 8), number, np.float32))
            text = file.add("text", (1,), dtype=h5py.special_dtype(vlen=str))
            text[0] = "word " * 2000

    write()
    whole, before = (tmp_path / "a.hdf5").read_bytes(), open_hdf5_objects()
    for size in range(0, len(whole), 997):
        with largest_file(size), pytest.raises(OSError, match="File too large"):
            write()
        assert open_hdf5_objects() == before
    write()
    assert (tmp_path / "a.hdf5").read_bytes() == whole


def test_what_a_full_disk_does_not_take_is_read_back(tmp_path):
    with ErrorKeepingFile(tmp_path / "a") as file, largest_file(6):
        assert file.write(b"abcd") == 4
        assert file.error is None
        assert file.write(b"efgh") == 4
        assert file.error.errno == 27
        assert file.write(b"ij") == 2
        file.seek(1)
        content = bytearray(8)
        assert file.readinto(content) == 8
        assert content == b"bcdefghi"


def test_ctrl_c_waits_for_the_hdf5_library(tmp_path):
    with pytest.raises(KeyboardInterrupt), Hdf5Output(tmp_path / "a.hdf5") as file:  # noqa: PT012
        signal.raise_signal(signal.SIGINT)  # as within a call of the library
        with pytest.raises(KeyboardInterrupt):
            file.add("0", data=np.zeros(3))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# ---- damaged files


def make_fifo(path):
    path.unlink()
    os.mkfifo(path)


def make_folder(path):
    path.unlink()
    path.mkdir()


def make_loop(path):
    path.unlink()
    path.symlink_to(path)


def make_sparse(path):
    os.truncate(path, 10 * 2**30)


DAMAGES = {
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(b"\0" * path.stat().st_size),
    "deep": lambda path: path.write_bytes(b"[" * 100_000),
    "no text": lambda path: path.write_bytes(b"\xff\xfe{}"),
    "number": lambda path: path.write_bytes(b"9" * 5000),
    "list": lambda path: path.write_bytes(b"[1, [2]]"),
    "fifo": make_fifo,
    "folder": make_folder,
    "loop": make_loop,
    "sparse": make_sparse,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["plan.json", "index.json"])
def test_a_damaged_plan_or_index_is_one_sentence(model, corpus, finished, tmp_path, name, damage):
    output = shutil.copytree(finished / "safetensors", tmp_path / "out")
    DAMAGES[damage](output / name)
    if damage == "loop":  # as good as missing
        assert len(elmo_hf.embed(corpus, output, model, **SMALL)) == 60
        return
    with pytest.raises(ElmoError, match=f"{name} (is|has)") as error:
        elmo_hf.embed(corpus, output, model, **SMALL)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("format", ["safetensors", "parquet", "npy"])
def test_a_damaged_shard_is_made_again_or_named(model, corpus, finished, tmp_path, format, damage):
    output = shutil.copytree(finished / format, tmp_path / "out")
    shard = output / f"vectors-00001.{format}"
    DAMAGES[damage](shard)
    with pytest.raises(ElmoError, match=rf"{shard.name} is missing or damaged \(.*\); remove it") as error:
        list(read_vectors(output))
    assert "\n" not in str(error.value)
    (output / "index.json").unlink()
    if damage == "folder":
        with pytest.raises(OSError, match=r"Is a directory.*vectors-00001"):
            elmo_hf.embed(corpus, output, model, format=format, **SMALL)
    else:
        elmo_hf.embed(corpus, output, model, format=format, **SMALL)
        assert contents(output) == contents(finished / format)


@pytest.mark.parametrize("damage", ["cut", "zeros", "list", "fifo"])
def test_damaged_words_of_an_array_are_named_and_made_again(model, corpus, finished, tmp_path, damage):
    output = shutil.copytree(finished / "npy", tmp_path / "out")
    DAMAGES[damage](output / "vectors-00001.json")
    with pytest.raises(ElmoError, match=r"vectors-00001\.npy is missing or damaged \(.*\); remove it"):
        list(read_vectors(output))
    (output / "index.json").unlink()
    elmo_hf.embed(corpus, output, model, format="npy", **SMALL)
    assert contents(output) == contents(finished / "npy")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["vectors.hdf5", "words.jsonl"])
def test_damaged_hdf5_is_named(finished, tmp_path, name, damage):
    output = shutil.copytree(finished / "hdf5", tmp_path / "out")
    DAMAGES[damage](output / name)
    if (name, damage) == ("vectors.hdf5", "sparse"):  # zeros after the end of an HDF5 file are no damage
        assert len(list(read_vectors(output))) == 60
        return
    with pytest.raises(ElmoError, match=rf"{name} is missing or damaged \(.*\); remove it") as error:
        list(read_vectors(output))
    assert "\n" not in str(error.value)


INDICES = [
    {"sentences": 61},
    {"sentences": True},
    {"format": "csv"},
    {"format": []},
    {"columns": None},
    {"words": None},
    {"pool": "sum"},
    {"shards": {}},
    {"shards": [{"first": 0}]},
    {"shards": [{"first": 0, "sentences": 2**64, "words": 1, "digest": ""}], "sentences": 2**64},
    {"shards": [{"first": 1, "sentences": 60, "words": 1, "digest": ""}]},
    {"shards": [{"first": 0, "sentences": 60.0, "words": 1, "digest": ""}]},
]


@pytest.mark.parametrize("change", INDICES)
def test_an_index_with_wrong_values_is_damaged(finished, tmp_path, change):
    output = shutil.copytree(finished / "safetensors", tmp_path / "out")
    index = json.loads((output / "index.json").read_text(encoding="utf-8"))
    (output / "index.json").write_text(json.dumps(index | change), encoding="utf-8")
    with pytest.raises(ElmoError, match=r"index\.json is damaged; remove it and run the command"):
        read_vectors(output)


def test_shards_that_are_not_those_of_the_index(finished, tmp_path):
    output = shutil.copytree(finished / "safetensors", tmp_path / "out")
    shutil.copyfile(output / "vectors-00000.safetensors", output / "vectors-00001.safetensors")
    with pytest.raises(
        ElmoError, match=r"vectors-00001\.safetensors is not the shard that .*index\.json names"
    ):
        list(read_vectors(output))


def test_hdf5_files_of_others_lead_nowhere_else(tmp_path):
    with h5py.File(tmp_path / "secret.hdf5", "w") as file:
        file["0"] = np.zeros((2, 3), dtype=np.float32)
    makers = {
        "elsewhere": lambda file: file.__setitem__("0", h5py.ExternalLink("secret.hdf5", "0")),
        "soft": lambda file: file.__setitem__("0", h5py.SoftLink("/1")),
        "chunks": lambda file: file.create_dataset(
            "0", (1000, 10_000), "f4", chunks=True, compression="gzip"
        ),
        "group": lambda file: file.create_group("0"),
        "no shape": lambda file: file.create_dataset("0", data=h5py.Empty("f4")),
        "unwritten": lambda file: file.create_dataset("0", (100_000, 1000), "f4"),
    }
    for name, make in makers.items():
        with h5py.File(tmp_path / f"{name}.hdf5", "w") as file:
            make(file)
        with pytest.raises(
            ElmoError, match=rf"{name}\.hdf5 is missing or damaged \('0' is (no plain|larger)"
        ):
            read_vectors(tmp_path / f"{name}.hdf5")[0]


# ---- another job, another text


def test_one_job_in_a_folder(model, corpus, finished, tmp_path):
    output = shutil.copytree(finished / "safetensors", tmp_path / "out")
    with locked_folder(output), pytest.raises(ElmoError, match=r"out is in use by process .*; wait until"):
        elmo_hf.embed(corpus, output, model, **SMALL)
    assert len(elmo_hf.embed(corpus, output, model, **SMALL)) == 60


def test_another_stream_is_noticed_after_the_end(model, tmp_path):
    lines = ["Ice is cold .", "Why ?"] * 20
    elmo_hf.embed(iter(lines), tmp_path / "out", model, **SMALL)
    assert len(elmo_hf.embed(iter(lines), tmp_path / "out", model, **SMALL)) == 40
    for others in ([*lines[:-1], "Who ?"], lines[:-1], [*lines, "Who ?"], lines[::-1]):
        with pytest.raises(ElmoError, match="out has the vectors of other sentences; name another folder"):
            elmo_hf.embed(iter(others), tmp_path / "out", model, **SMALL)


def test_a_file_that_changes_while_it_is_read(model, corpus, tmp_path, monkeypatch):
    path, survey = shutil.copy(corpus, tmp_path / "a.txt"), job.survey

    def survey_and_change(*arguments):
        result = survey(*arguments)
        with path.open("a", encoding="utf-8") as file:
            file.write("One more .\n")
        return result

    monkeypatch.setattr(job, "survey", survey_and_change)
    with pytest.raises(ElmoError, match=r"a\.txt has changed while it was read; name another folder"):
        elmo_hf.embed(path, tmp_path / "out", model, **SMALL)
    assert not (tmp_path / "out" / "index.json").exists()
