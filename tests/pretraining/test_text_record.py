"""A resumed run notices a change of its text wherever it is, and takes the same text at another place."""

import os
import shutil

import pytest

from elmo_hf.corpus.source import Source
from elmo_hf.errors import ElmoError
from elmo_hf.files import checksum
from elmo_hf.pretraining.machines import Place, refuse_other_texts
from elmo_hf.pretraining.text_record import compare, record_text
from tests.helpers.launcher import small_run


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "text"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.txt").write_text(f"{name} small text .\nAnd more of {name} .\n", encoding="utf-8")
    return folder


def record(*data, check="all"):
    data = [str(item) for item in data]
    return record_text(data, Source(data[0] if len(data) == 1 else data), check)


def is_refused(old, new, message):
    with pytest.raises(ElmoError, match=message) as error:
        compare(old, new)
    assert "go on with the same text in the same order, or start another run" in str(error.value)
    return True


def change_a_letter(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def test_a_record_has_every_file_in_its_order(folder):
    files = [folder / f"{name}.txt" for name in "abc"]
    expected = [{"name": str(path), **checksum(path)} for path in files]
    assert record(folder / "*.txt") == record(folder) == record(*files) == expected
    assert record(*files[::-1]) == expected[::-1]
    assert record(folder, check="sizes") == [{"name": str(path), "bytes": 31} for path in files]


def test_the_same_text_at_another_place_is_accepted(folder, tmp_path):
    old = record(folder / "*.txt")
    os.utime(folder / "a.txt", (1, 1))
    compare(old, record(folder / "*.txt"))
    moved = folder.rename(tmp_path / "elsewhere")
    (moved / "b.txt").rename(moved / "a2.txt")
    compare(old, record(moved / "*.txt"))


def test_any_change_is_noticed(folder, tmp_path):
    old, sizes = record(folder / "*.txt"), record(folder / "*.txt", check="sizes")
    whole = shutil.copytree(folder, tmp_path / "whole")
    change_a_letter(folder / "c.txt")
    assert is_refused(old, record(folder / "*.txt"), r"c\.txt has changed since the run was begun;")
    compare(sizes, record(folder / "*.txt"))  # what `--check-text sizes` leaves out
    compare(old, record(folder / "*.txt", check="sizes"))
    with (folder / "c.txt").open("a", encoding="utf-8") as file:
        file.write("\n")
    for before in (old, sizes):
        assert is_refused(
            before, record(folder / "*.txt"), r"c\.txt has changed .*it has 32 bytes and had 31"
        )
    assert is_refused(
        old, record(whole / "b.txt", whole / "a.txt", whole / "c.txt"), r"b\.txt is read at ano"
    )
    assert is_refused(old, record(whole / "a.txt", whole / "b.txt"), "the text has 2 files, and had 3 when")


def test_addresses_and_data_sets_have_names_and_revisions():
    old = [{"name": "https://host/a.txt"}]
    compare(old, [{"name": "https://host/a.txt"}])
    assert is_refused(
        old, [{"name": "https://host/b.txt"}], "was begun with https://host/a.txt, and now reads"
    )
    old = [{"name": "org/name", "revision": "1"}]
    compare(old, [{"name": "org/name", "revision": None}])  # the Hub is not reached
    assert is_refused(old, [{"name": "org/name", "revision": "2"}], "org/name has another revision")
    assert is_refused(old, [{"name": "org/other", "revision": "1"}], "begun with org/name, and now reads")


def test_machines_of_which_one_does_not_reach_the_hub():
    places = [Place(number, f"HOST{number}") for number in range(2)]
    record = [{"name": "org/name", "revision": "1"}]
    refuse_other_texts(places, [record, [{"name": "org/name", "revision": None}]])
    refuse_other_texts(places, [[{"name": "org/name", "revision": None}], record])
    others = [
        {"name": "org/name", "revision": "2"},
        {"name": "org/other", "revision": None},
        {"name": "org/name", "bytes": 3},
    ]
    for other in others:
        with pytest.raises(ElmoError, match="has another text than"):
            refuse_other_texts(places, [record, [other]])


def test_a_run_compares_its_text(launcher, tmp_path):
    """A later file, which no step has read, is changed; then all files are back, in another folder."""
    run = launcher.start(small_run(tmp_path, "whole", max_steps=12, workers=0, shuffle_sentences=0))
    assert run.wait() == [0], run.err
    run = launcher.start(small_run(tmp_path, max_steps=4, workers=0, shuffle_sentences=0))
    assert run.wait() == [0], run.err
    text = shutil.copytree(tmp_path, tmp_path / "moved", ignore=shutil.ignore_patterns("run", "whole"))
    change_a_letter(tmp_path / "text-2.txt")
    log = (tmp_path / "run" / "log.jsonl").read_bytes()
    settings = {"max_steps": 12, "workers": 0, "shuffle_sentences": 0}
    for processes in (1, 2):
        run = launcher.start(small_run(tmp_path, **settings), processes)
        assert run.wait() == [1] * processes
        assert run.err.startswith(
            f"pretrain.py: {tmp_path / 'text-2.txt'} has changed since the run was begun"
        )
        assert run.err.count("\n") == 0
    assert (tmp_path / "run" / "log.jsonl").read_bytes() == log
    run = launcher.start(small_run(tmp_path, **settings, data=text / "text-*.txt"))
    assert run.wait() == [0], run.err
    resumed, whole = (tmp_path / name / "final" / "model.safetensors" for name in ("run", "whole"))
    assert resumed.read_bytes() == whole.read_bytes()
