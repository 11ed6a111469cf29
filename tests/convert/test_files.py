"""Files are recognised by content, whatever their names; a target is written whole or not at all."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from elmo_hf import ElmoConfig, ElmoForPreTraining
from elmo_hf.convert import convert_from_bilm, convert_to_bilm, hdf5
from elmo_hf.errors import ElmoError
from tests.helpers.bilm_files import VOCABULARY, refused
from tests.helpers.reference import write_hdf5

# ---- recognised by content


def test_published_names(language_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = {
        "weights.hdf5": "elmo_2x4096_512_2048cnn_2xhighway_weights.hdf5",
        "softmax.hdf5": "elmo_2x4096_512_2048cnn_2xhighway_softmax_weights.hdf5",
        "options.json": "elmo_2x4096_512_2048cnn_2xhighway_options.json",
        "vocab.txt": "vocab-2016-09-10.txt",
    }
    files = [(language_model / old).rename(language_model / new) for old, new in names.items()]
    with caplog.at_level(logging.INFO, "elmo_hf"):
        from_folder = convert_from_bilm([language_model], tmp_path / "folder")
    assert all(str(path) in caplog.text for path in files)
    from_files = convert_from_bilm(files[::-1], tmp_path / "files")
    for name in ("model.safetensors", "config.json", "vocab.txt"):
        assert (from_folder / name).read_bytes() == (from_files / name).read_bytes()
    assert ElmoForPreTraining.from_pretrained(from_folder).config.vocab_size == len(VOCABULARY)


def test_folder_with_other_files(source: Path, tmp_path: Path) -> None:
    """As the NLPL repository publishes: model.hdf5, options.json, vocab.txt, meta.json and more."""
    (source / "weights.hdf5").rename(source / "model.hdf5")
    (source / "vocab.txt").write_text("<S>\n</S>\n<UNK>\nhus\n")
    (source / "meta.json").write_text('{"algorithm": {"name": "ELMo"}}')
    (source / "lines.json").write_text('{"a": 1}\n{"a": 2}\n')
    (source / "big.json").write_text(json.dumps({"lstm": "x" * 2_000_000}))
    (source / "README.txt").write_text("lstm")
    (source / "checkpoint").mkdir()
    shutil.copy(source / "options.json", source / "checkpoint" / "options.json")
    write_hdf5(source / "lm_embeddings_0.hdf5", {"0": np.zeros((2, 3), np.float32)})
    with h5py.File(source / "many.hdf5", "w") as file:
        for name in ("softmax", *range(hdf5.MAX_NAMES)):
            file.create_group(str(name))
    config = ElmoConfig.from_pretrained(convert_from_bilm([source], tmp_path / "target"))
    assert config.vocab_size == 4


def test_named_vocabulary_may_have_any_name(language_model: Path, tmp_path: Path) -> None:
    (language_model / "vocab.txt").rename(language_model / "words.txt")
    files = [language_model / name for name in ("weights.hdf5", "softmax.hdf5", "options.json", "words.txt")]
    folder = convert_from_bilm(files, tmp_path / "target")
    assert (folder / "vocab.txt").read_bytes() == (language_model / "words.txt").read_bytes()
    (language_model / "readme.txt").write_text("hello")
    refused([*files, language_model / "readme.txt"], "words.txt")
    (language_model / "words.txt").rename(language_model / "my_vocabulary.txt")
    refused([*files[:3], *map(language_model.joinpath, ["my_vocabulary.txt", "readme.txt"])], "readme.txt")


@pytest.mark.parametrize("name", ["weights", "weights.bin", "vocab.txt.weights", "model.H5"])
def test_hdf5_is_recognised_by_content(source: Path, tmp_path: Path, name: str) -> None:
    weights = (source / "weights.hdf5").rename(source / name)
    convert_from_bilm([source], tmp_path / "folder")
    convert_from_bilm([weights, source / "options.json"], tmp_path / "files")
    assert (tmp_path / "folder" / "config.json").is_file()
    assert (tmp_path / "files" / "config.json").is_file()


def test_file_named_twice_is_one_file(source: Path, tmp_path: Path) -> None:
    same_folder = source / ".." / "source"
    convert_from_bilm([source, source / "options.json", same_folder / "weights.hdf5"], tmp_path / "target")
    assert (tmp_path / "target" / "config.json").is_file()


def test_links_to_files_are_followed(source: Path, tmp_path: Path) -> None:
    """The Hub's cache is a folder of symbolic links."""
    links = tmp_path / "links"
    links.mkdir()
    for path in source.iterdir():
        (links / path.name).symlink_to(path)
    convert_from_bilm([links], tmp_path / "target")
    assert (tmp_path / "target" / "config.json").is_file()


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("weights.hdf5", "weights"),
        ("softmax.hdf5", "softmax"),
        ("options.json", "options"),
        ("vocab.txt", "vocab"),
    ],
)
def test_two_files_for_one_role(language_model: Path, name: str, role: str) -> None:
    other = language_model / f"other_{name}"
    shutil.copy(language_model / name, other)
    refused([language_model], role, str(language_model / name), str(other))


def test_two_token_tables_named(source: Path) -> None:
    for name in ("one.hdf5", "two.hdf5"):
        write_hdf5(source / name, {"embedding": np.zeros((8, 8), np.float32)})
    refused([source, source / "one.hdf5", source / "two.hdf5"], "table", "one.hdf5", "two.hdf5")


def test_needed_files(source: Path) -> None:
    refused([source / "options.json"], "weights", "options.json")
    refused([source / "weights.hdf5"], "options", "weights.hdf5")
    empty = source / "empty"
    empty.mkdir()
    refused([empty], "weights", str(empty))


def test_no_sources(tmp_path: Path) -> None:
    with pytest.raises(ElmoError, match="weights"):
        convert_from_bilm([], tmp_path / "target")
    assert list(tmp_path.iterdir()) == []


def test_named_files_must_have_a_role(source: Path) -> None:
    other = source / "lm_embeddings_0.hdf5"
    write_hdf5(other, {"0": np.zeros((2, 3), np.float32)})
    refused([source, other], str(other), "RNN_0")
    (source / "meta.json").write_text("{}")
    refused([source, source / "meta.json"], "meta.json", "lstm")
    (source / "readme.md").write_text("hello")
    refused([source, source / "readme.md"], "readme.md")
    refused([source, source / "absent.hdf5"], "absent.hdf5", "does not exist")


# ---- the target


@pytest.mark.parametrize("is_file", [True, False])
def test_target_in_use(source: Path, tmp_path: Path, is_file: bool) -> None:
    target = tmp_path / "target"
    converted = convert_from_bilm([source], tmp_path / "converted")
    if is_file:
        target.write_text("mine")
    else:
        target.mkdir()
        (target / "mine").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    for convert in (lambda: convert_from_bilm([source], target), lambda: convert_to_bilm(converted, target)):
        with pytest.raises(ElmoError, match="target exists and is not an empty folder"):
            convert()
        assert sorted(tmp_path.rglob("*")) == before


def test_target_may_be_empty_or_deep(source: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    convert_from_bilm([source], tmp_path / "empty")
    convert_from_bilm([source], tmp_path / "new" / "deep" / "folder")
    for folder in (tmp_path / "empty", tmp_path / "new" / "deep" / "folder"):
        assert (folder / "config.json").is_file()
        assert folder.stat().st_mode & 0o777 == tmp_path.joinpath("new").stat().st_mode & 0o777
    assert {path.name for path in tmp_path.iterdir()} == {"source", "empty", "new"}


def test_target_under_a_file(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ElmoError, match="cannot be written"):
        convert_from_bilm([source], tmp_path / "file" / "target")


def test_full_disk_leaves_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    converted = convert_from_bilm([source], tmp_path / "converted")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr("elmo_hf.convert.plan.shutil.copyfile", fails)
    for convert in (
        lambda: convert_from_bilm([source], tmp_path / "target"),
        lambda: convert_to_bilm(converted, tmp_path / "target"),
    ):
        with pytest.raises(ElmoError, match=r"target cannot be written \(No space left on device\)"):
            convert()
        assert sorted(tmp_path.rglob("*")) == before


def test_a_link_to_itself_is_one_sentence(language_model: Path) -> None:
    link = language_model / "vocab.txt"
    link.unlink()
    link.symlink_to("vocab.txt")
    refused([language_model], "give the vocabulary")
    refused([language_model, link], "vocab.txt")
