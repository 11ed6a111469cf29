"""Folders of ELMoForManyLangs that its own code cannot use, or that are hostile: one sentence."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from elmo_hf import ElmoForPreTraining
from elmo_hf.convert import convert, lexicons
from elmo_hf.errors import ElmoError
from tests.helpers.bilm_files import assert_one_sentence
from tests.helpers.naive_manylangs import WORDS, ManyLangs, content, lexicon_of, write_folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "source", content(), classifier=True)


def refused(source: Path, *words: str) -> str:
    """The conversion fails with a sentence that holds these words, and leaves no folder."""
    place = source.parent / "place"
    place.mkdir()
    with pytest.raises(ElmoError) as caught:
        convert([source], place / "target")
    assert list(place.iterdir()) == []
    place.rmdir()
    message = str(caught.value)
    assert_one_sentence(message)
    assert len(message) < 800
    for word in words:
        assert word in message
    return message


# ---- lexicons

LINES: dict[str, tuple[Callable[[str], str], tuple[str, ...]]] = {
    "no id": (lambda text: text + "x\n", ("whole number", "line {count}")),
    "an empty line": (lambda text: "\n" + text, ("'' for an id", "line 1")),
    "three fields": (lambda text: text + "a\tb\t5\n", ("3 fields",)),
    "an id that is no number": (lambda text: text + "x\t1.0\n", ("'1.0' for an id",)),
    "an id of many digits": (lambda text: text + "x\t" + "9" * 5000 + "\n", ("whole number",)),
    "one line more": (lambda text: text + "x\t7\n", ("rows",)),
    "one line less": (lambda text: text.partition("\n")[2], ("rows",)),
    "an id beyond": (lambda text: text.replace("\t4\n", "\t99\n"), ("the id 99 for",)),
    "a huge id": (lambda text: text.replace("\t4\n", "\t" + "9" * 4000 + "\n"), ("the id 9999", "...")),
    "a negative id": (lambda text: text.replace("\t4\n", "\t-1\n"), ("the id -1 for",)),
    "no padding": (lambda text: text.replace("<pad>", "§"), ("lacks <pad>",)),
    "no unknown": (lambda text: text.replace("<oov>", "§"), ("lacks <oov>",)),
}


@pytest.mark.parametrize("name", ["char.dic", "word.dic"])
@pytest.mark.parametrize("label", LINES)
def test_lines_of_lexicons(source: Path, name: str, label: str) -> None:
    path, (change, words) = source / name, LINES[label]
    text = change(path.read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8")
    with pytest.raises((ValueError, KeyError, IndexError, AssertionError)):  # as in their own code
        load_as_theirs(source)
    refused(source, str(path), *(word.format(count=text.count("\n")) for word in words))


def load_as_theirs(source: Path) -> None:
    """What their code demands of lexicons: as many names as vectors, and ids of vectors."""
    reference = ManyLangs(source)
    for names, count in ((reference.letters, 27), (reference.words, len(WORDS))):
        assert names is not None
        assert len(names) == count
        assert names["<oov>"] >= 0 <= names["<pad>"]
        assert all(0 <= number < count for number in names.values())


@pytest.mark.parametrize("name", ["<bow>", "<eow>", "<bos>", "<eos>"])
def test_letters_need_boundaries(source: Path, name: str) -> None:
    path = source / "char.dic"
    path.write_text(path.read_text(encoding="utf-8").replace(name, "<other>"), encoding="utf-8")
    refused(source, str(path), f"lacks {name}")


@pytest.mark.parametrize("name", ["char.dic", "word.dic"])
def test_files_that_are_no_lexicons(source: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = source / name
    text = path.read_text(encoding="utf-8")
    path.write_bytes(text.encode("utf-16"))
    refused(source, str(path), "UTF-8")
    path.write_bytes(b"")
    refused(source, str(path), "0 different")
    path.write_text(text.replace("Der", "D\0r") if name == "word.dic" else "", encoding="utf-8")
    refused(source, str(path))
    with path.open("wb") as file:
        file.truncate(10 * 2**30)  # takes no space on the disk
    refused(source, str(path), "bytes")
    path.unlink()
    refused(source, name)
    path.mkdir()
    refused(source, name)
    path.rmdir()
    os.mkfifo(path)
    refused(source, name)
    path.unlink()
    path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(lexicons, "MAX_WORDS", 5)
    refused(source, "more than 5 lines")


def test_many_equal_ids(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = source / "word.dic"
    path.write_text("".join(f"{name}\t0\n" for name in WORDS), encoding="utf-8")
    convert([source], source.parent / "target")
    monkeypatch.setattr(lexicons, "MAX_COPIES", 5)
    refused(source, str(path), "9 names with the ids of others")


# ---- sizes


def change_sizes(source: Path, **sections: Any) -> None:
    path = source / "cfg.json"
    sizes = json.loads(path.read_text())
    for section, options in sections.items():
        sizes[section] = {name: x for name, x in (sizes[section] | options).items() if x is not ...}
    path.write_text(json.dumps(sizes))


SIZES: dict[str, tuple[dict, tuple[str, ...]]] = {
    "LSTM of letters": ({"token_embedder": {"name": "lstm"}}, ("never ran in ELMoForManyLangs",)),
    "no words and no letters": ({"token_embedder": {"word_dim": 0, "char_dim": 0}}, ("both 0",)),
    "unknown embedder": ({"token_embedder": {"name": "gru"}}, ("'token_embedder.name'",)),
    "no name": ({"token_embedder": {"name": ["cnn"]}}, ("'token_embedder.name'",)),
    "unknown encoder": ({"encoder": {"name": "ELMo"}}, ("'encoder.name'",)),
    "no clip": ({"encoder": {"cell_clip": ...}}, ("'encoder.cell_clip' is missing",)),
    "negative clip": ({"encoder": {"proj_clip": -1}}, ("'encoder.proj_clip'",)),
    "no layers": ({"encoder": {"n_layers": 0}}, ("'encoder.n_layers'",)),
    "no cells": ({"encoder": {"dim": ...}}, ("'encoder.dim'",)),
    "rows too short": ({"token_embedder": {"max_characters_per_token": 6}}, ("at least 7",)),
    "no length": ({"token_embedder": {"max_characters_per_token": ...}}, ("max_characters_per_token",)),
    "too wide": ({"token_embedder": {"filters": [[51, 2]]}}, ("width 51",)),
    "no filters": ({"token_embedder": {"filters": []}}, ("filters",)),
    "activation": ({"token_embedder": {"activation": "ReLU"}}, ("activation",)),
    "a letter's size": ({"token_embedder": {"char_dim": 3}}, ("char_emb_layer", "(27, 3)")),
    "a word's size": ({"token_embedder": {"word_dim": 3}}, ("word_emb_layer",)),
    "fewer highways": ({"token_embedder": {"n_highway": 1}}, ("highways._layers.1", "no place")),
    "more highways": ({"token_embedder": {"n_highway": 3}}, ("highways._layers.2", "missing")),
    "fewer layers": ({"encoder": {"n_layers": 1}}, ("layer_1", "no place")),
    "more layers": ({"encoder": {"n_layers": 2**31 - 1}}, ("num_hidden_layers",)),
    "more cells": ({"encoder": {"dim": 13}}, ("encoder.pkl", "layer_0")),
    "stacked LSTMs": ({"encoder": {"name": "lstm"}}, ("encoder.weight_ih_l0", "missing")),
    "no letters": ({"token_embedder": {"char_dim": 0}}, ("projection.weight", "(6, 5)")),
}


@pytest.mark.parametrize("label", SIZES)
def test_sizes(source: Path, label: str) -> None:
    changes, words = SIZES[label]
    change_sizes(source, **changes)
    refused(source, *words)


@pytest.mark.parametrize("value", [[], 5, None, "x", {"name": "elmo"}])
def test_sections_that_are_none(source: Path, value: Any) -> None:
    for section in ("encoder", "token_embedder"):
        sizes = content() | {section: value}
        (source / "cfg.json").write_text(json.dumps(sizes))
        refused(source, str(source / "cfg.json"))


# ---- which file of sizes


def name_sizes(source: Path, name: Any) -> None:
    (source / "config.json").write_text(json.dumps({"config_path": name}))


def test_sizes_are_looked_for_in_the_folder_alone(source: Path) -> None:
    outside = source.parent / "outside"
    outside.mkdir()
    (source / "cfg.json").rename(outside / "other.json")
    for name in (outside / "other.json", "../outside/other.json", "x/../../outside/other.json"):
        name_sizes(source, str(name))
        refused(source, "config.json", "'other.json'")
    (source / "link").symlink_to(outside)
    name_sizes(source, "link/other.json")
    refused(source, "'other.json'")
    for name in ("", "/", "..", ".", "\0", "x" * 5000, "a/" * 3000, "nested/"):
        name_sizes(source, name)
        refused(source, "config.json")
    for value in (None, 5, ["cfg.json"], {}):
        name_sizes(source, value)
        refused(source, "config.json", "'config_path'")


@pytest.mark.parametrize("name", ["deep/cfg.json", "/their/cfg.json", "{source}/cfg.json", "./x/../cfg.json"])
def test_sizes_in_the_folder(source: Path, name: str) -> None:
    if name.startswith("deep"):
        (source / "deep").mkdir()
        (source / "cfg.json").rename(source / "deep" / "cfg.json")
        (source / "cfg.json").write_text("{}")
    name_sizes(source, name.format(source=source))
    plan = convert([source], source.parent / "target")
    assert plan.config.lstm_dim == 12


def test_the_path_itself_comes_before_the_base_name(source: Path) -> None:
    (source / "deep").mkdir()
    sizes = json.loads((source / "cfg.json").read_text())
    sizes["encoder"]["cell_clip"] = 0.125
    (source / "deep" / "cfg.json").write_text(json.dumps(sizes))
    name_sizes(source, "deep/cfg.json")
    assert convert([source], source.parent / "first", dry_run=True).config.cell_clip == 0.125
    name_sizes(source, "cfg.json")
    assert convert([source], source.parent / "second", dry_run=True).config.cell_clip == 0.3


def test_sizes_by_name(source: Path) -> None:
    """Several files of sizes may lie there; the one that is named as a source comes first."""
    sizes = json.loads((source / "cfg.json").read_text())
    sizes["encoder"]["cell_clip"] = 0.125
    (source / "other.json").write_text(json.dumps(sizes))
    target = source.parent / "target"
    assert convert([source], target, dry_run=True).config.cell_clip == 0.3
    assert convert([source, source / "other.json"], target, dry_run=True).config.cell_clip == 0.125
    (source / "config.json").unlink()
    refused(source, "each look like the sizes")
    (source / "cfg.json").unlink()
    assert convert([source], target, dry_run=True).config.cell_clip == 0.125


@pytest.mark.parametrize("name", ["cnn_50_100_512_4096_sample.json", "cnn_0_100_512_4096_sample.json"])
def test_published_sizes(source: Path, name: str) -> None:
    """They are not in the folder, and do not fit the small weights of this test."""
    (source / "cfg.json").unlink()
    name_sizes(source, f"/users3/them/configs/{name}")
    refused(source, "word_emb_layer.embedding.weight", "(10, 100)")
    (source / name).write_text(json.dumps(content()))  # a file in the folder comes first
    assert convert([source], source.parent / "target", dry_run=True).config.lstm_dim == 12


# ---- weights


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["token_embedder.pkl", "encoder.pkl", "classifier.pkl"])
def test_weights_that_are_none(source: Path, name: str) -> None:
    path, bait = source / name, source.parent / "touched"
    weights = torch.load(path, weights_only=True)
    good = path.read_bytes()
    torch.save(weights | {"x": Bomb(bait)}, path)
    refused(source, name, "posix.mkdir")
    path.write_bytes(pickle.dumps(Bomb(bait)))
    refused(source, name)
    assert not bait.exists()
    path.write_bytes(good[: len(good) // 2])
    refused(source, name)
    path.write_bytes(b"")
    refused(source, name)
    torch.save(list(weights.values()), path)
    refused(source, name)
    first = next(iter(weights))
    for value in (weights[first].long(), weights[first][:, :-1].clone(), 5):
        torch.save(weights | {first: value}, path)
        refused(source, name, first)
    torch.save(weights | {first: weights[first] * np.nan}, path)
    refused(source, name, first, "NaN")
    torch.save(weights | {"more": weights[first]}, path)
    refused(source, name, "more")
    path.unlink()
    if name != "classifier.pkl":
        refused(source, name)


def test_a_softmax_of_something_else(source: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, source / "classifier.pkl")
    refused(source, "classifier.pkl", "no softmax of ELMoForManyLangs")


# ---- what is left out, assumed and changed


def lines(source: Path, **options: Any) -> list[str]:
    return [*convert([source], source.parent / "target", dry_run=True, **options).lines()]


def test_what_is_said(source: Path) -> None:
    said = lines(source)
    assert said[0] == "a folder of ELMoForManyLangs, as ElmoForPreTraining"
    files = {"sizes": "cfg.json", "token embedder": "token_embedder.pkl", "encoder": "encoder.pkl"}
    files |= {"classifier": "classifier.pkl", "letters": "char.dic", "words": "word.dic"}
    assert said[1:7] == [f"{role}: {source / name}" for role, name in files.items()]
    assert said[7].startswith("assumed: words: what white space separates")
    assert said[8].startswith("changed: the forget gates' bias")
    assert len(said) == 9
    assert not (source.parent / "target").exists()
    assert lines(source, settings={"cell_clip": None})[:7] == said[:7]


def test_the_softmax_is_left_out_where_it_does_not_fit(tmp_path: Path) -> None:
    cases = {
        "cnn_softmax": {"classifier": "cnn_softmax"},
        "the second of 3 layers": {"n_layers": 3},
        "the second of 1 layers": {"n_layers": 1},
        "stacked LSTMs": {"encoder": "lstm"},
    }
    for number, (words, sizes) in enumerate(cases.items()):
        source = write_folder(tmp_path / str(number), content(**sizes), classifier=True)
        assert any(line.startswith(f"left out: {source / 'classifier.pkl'}") for line in lines(source))
        assert words in "\n".join(lines(source))
        assert convert([source], tmp_path / "x", dry_run=True).model_class.__name__ == "ElmoModel"
    words_of = lexicon_of(WORDS) | {"Der": 0}
    source = write_folder(tmp_path / "equal", content(), words=words_of, classifier=True)
    said = "\n".join(lines(source))
    assert "no row of their own" in said
    assert "1 names of" in said


def test_words_without_a_table_are_left_out(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "source", content(word_dim=0))
    assert f"left out: {source / 'word.dic'}: the model has no table of words" in lines(source)
    (source / "word.dic").write_bytes(b"\xff")  # it is not read
    convert([source], tmp_path / "target")
    assert not (tmp_path / "target" / "vocab.txt").exists()


def test_settings_of_the_user_come_first(source: Path) -> None:
    settings = {"cell_clip": None, "proj_clip": 2.0, "char_activation": "tanh"}
    settings |= {"use_skip_connections": False, "max_characters_per_token": 20}
    plan = convert([source], source.parent / "target", settings=settings)
    config = ElmoForPreTraining.from_pretrained(source.parent / "target").config
    assert {name: getattr(config, name) for name in settings} == settings
    assert plan.tokenizer.max_characters_per_token == 20
