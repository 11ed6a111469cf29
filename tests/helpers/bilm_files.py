"""Folders of bilm-tf's files as people publish them, and checks of conversions."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from elmo_hf import ElmoConfig
from elmo_hf.convert import convert_from_bilm
from elmo_hf.errors import ElmoError
from tests.helpers.reference import random_softmax, random_weights, write_hdf5

VOCABULARY = ["<S>", "</S>", "<UNK>", "the", ".", "cat", "Zürich", "日本語"]
Arrays = dict[str, np.ndarray]


def write_source(folder: Path, content: dict, seed: int = 0, softmax: bool = False, **weights: Any) -> Path:
    """A folder of options and weights as people publish it, optionally with a softmax and its vocabulary."""
    folder.mkdir(parents=True)
    is_words = "char_cnn" not in content
    vocab_size = len(VOCABULARY) if is_words else None
    write_hdf5(folder / "weights.hdf5", random_weights(content, seed, vocab_size=vocab_size, **weights))
    (folder / "options.json").write_text(json.dumps(content))
    if softmax:
        write_hdf5(folder / "softmax.hdf5", random_softmax(content, seed, len(VOCABULARY)))
    if softmax or is_words:
        (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return folder


def read_hdf5(path: Path) -> Arrays:
    arrays: Arrays = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
        )
    return arrays


def assert_same_arrays(ours: Path, theirs: Path) -> None:
    ours_read, theirs_read = read_hdf5(ours), read_hdf5(theirs)
    assert ours_read.keys() == theirs_read.keys()
    for name, array in theirs_read.items():
        assert ours_read[name].dtype == np.float32, name
        assert ours_read[name].shape == array.shape, name
        assert ours_read[name].tobytes() == array.astype(np.float32).tobytes(), name


def assert_one_sentence(message: str) -> None:
    assert message.endswith(".")
    assert "\n" not in message
    assert not re.search(r"\. [A-Z]", message), message


def refused(sources: list[Path], *words: str) -> str:
    """The conversion fails with a sentence that holds these words, and leaves no folder and no open file."""
    place = sources[0].parent / "place"
    place.mkdir()
    with pytest.raises(ElmoError) as caught:
        convert_from_bilm(sources, place / "target")
    assert list(place.iterdir()) == []
    assert h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE) == 0
    place.rmdir()
    message = str(caught.value)
    assert_one_sentence(message)
    for word in words:
        assert word in message
    return message


def settings(folder: Path) -> dict:
    """The config without the folder that it was read from."""
    return {**ElmoConfig.from_pretrained(folder).to_dict(), "_name_or_path": None}


def change(path: Path, name: str, new: Callable[[np.ndarray], Any]) -> None:
    """Replace one dataset by the result of `new`."""
    with h5py.File(path, "a") as file:
        array = file[name][()]
        del file[name]
        file[name] = new(array)
