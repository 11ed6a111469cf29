"""HDF5 -> Transformers -> HDF5 changes no bit of any variant, and hostile files are refused in one sentence
that names file and dataset, with nothing left behind.
"""

import json
import logging
import os
import random
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from reference import (
    lstm_path,
    options,
    output_dim,
    random_options,
    random_softmax,
    random_weights,
    write_hdf5,
)

from elmo_hf import ElmoConfig, ElmoForPreTraining, ElmoModel, ElmoTokenizer
from elmo_hf.convert import ConversionError, convert_from_bilm, convert_to_bilm
from elmo_hf.convert import hdf5 as safe_reading
from elmo_hf.convert.bilm import options_from_config, softmax_table, weights_table

VOCABULARY = ["<S>", "</S>", "<UNK>", "the", ".", "cat", "Zürich", "日本語"]

Arrays = dict[str, np.ndarray]
Damage = Callable[[h5py.File], None]


# ---- helpers


def write_source(folder: Path, content: dict, seed: int = 0, softmax: bool = False, **weights: Any) -> Path:
    """A folder as people publish it: options and weights, and a softmax with its vocabulary if asked for."""
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


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "source", options())


@pytest.fixture
def language_model(tmp_path: Path) -> Path:
    return write_source(tmp_path / "language_model", options(), softmax=True)


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
    with pytest.raises(ConversionError) as caught:
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
    """The config without the place it was read from."""
    return {**ElmoConfig.from_pretrained(folder).to_dict(), "_name_or_path": None}


def change(path: Path, name: str, new: Callable[[np.ndarray], Any]) -> None:
    """Replaces one dataset by what `new` makes of it."""
    with h5py.File(path, "a") as file:
        array = file[name][()]
        del file[name]
        file[name] = new(array)


# ---- there and back

VARIANTS: dict[str, tuple[dict, dict]] = {
    "base": (options(), {}),
    "no highway": (options(n_highway=0), {}),
    "no character projection": (options(filters=((1, 3), (2, 5))), {}),
    "projection of equal size": (options(filters=((1, 3), (2, 5))), {"char_projection": True}),
    "no LSTM projection": (options(dim=8, projection_dim=8), {}),
    "no LSTM projection, fewer cells": (options(dim=5, projection_dim=8), {}),
    "no clips": (options(cell_clip=None, proj_clip=None), {}),
    "one layer": (options(n_layers=1), {}),
    "three layers": (options(n_layers=3), {}),
    "other word length": (options(max_characters=20), {}),
    "tanh, no skip": (options(activation="tanh", use_skip_connections=False), {}),
    "words": (options(word_level=True), {}),
    "words, no LSTM projection": (options(word_level=True, dim=5, projection_dim=8), {}),
} | {f"random {seed}": (random_options(seed), {}) for seed in range(8)}


@pytest.mark.parametrize("softmax", [False, True], ids=["biLM", "with softmax"])
@pytest.mark.parametrize("label", VARIANTS)
def test_round_trip(label: str, softmax: bool, tmp_path: Path) -> None:
    content, weights = VARIANTS[label]
    source = write_source(tmp_path / "source", content, seed=5, softmax=softmax, **weights)
    folder = convert_from_bilm([source], tmp_path / "transformers")
    back = convert_to_bilm(folder, tmp_path / "back")

    assert sorted(path.name for path in back.iterdir()) == sorted(path.name for path in source.iterdir())
    assert_same_arrays(back / "weights.hdf5", source / "weights.hdf5")
    if softmax:
        assert_same_arrays(back / "softmax.hdf5", source / "softmax.hdf5")
    for name in {"options.json", "vocab.txt"} & {path.name for path in source.iterdir()}:
        assert (back / name).read_bytes() == (source / name).read_bytes()

    # Options written anew describe the same model.
    new = options_from_config(ElmoConfig.from_pretrained(folder))
    (source / "options.json").write_text(json.dumps(new))
    assert settings(convert_from_bilm([source], tmp_path / "again")) == settings(folder)


@pytest.mark.parametrize(
    "line_ends",
    [b"\n%s\n", b"\n%s", b"\r\n%s\r\n"],
    ids=["newline", "last line open", "windows"],
)
def test_vocabulary_and_options_keep_every_byte(
    language_model: Path, tmp_path: Path, line_ends: bytes
) -> None:
    separator, end = line_ends.split(b"%s")
    vocabulary = separator.join(word.encode() for word in VOCABULARY) + end
    (language_model / "vocab.txt").write_bytes(vocabulary)
    content = b"\n" + (language_model / "options.json").read_bytes().replace(b": ", b" :\t") + b"\n\n"
    (language_model / "options.json").write_bytes(content)

    folder = convert_from_bilm([language_model], tmp_path / "transformers")
    assert ElmoTokenizer.from_pretrained(folder).convert_ids_to_tokens(range(8)) == VOCABULARY
    back = convert_to_bilm(folder, tmp_path / "back")
    assert (folder / "vocab.txt").read_bytes() == (back / "vocab.txt").read_bytes() == vocabulary
    assert (folder / "options.json").read_bytes() == (back / "options.json").read_bytes() == content


def test_numbers_are_where_the_model_reads_them(language_model: Path, tmp_path: Path) -> None:
    """Bits could survive a round trip at a wrong place."""
    weights = {
        name: torch.from_numpy(array)
        for path in ("weights.hdf5", "softmax.hdf5")
        for name, array in read_hdf5(language_model / path).items()
    }
    model = ElmoForPreTraining.from_pretrained(convert_from_bilm([language_model], tmp_path / "target"))
    ours = model.state_dict()
    encoder = "elmo.token_encoder"

    assert not ours[f"{encoder}.char_embedding.weight"][0].any()
    assert ours[f"{encoder}.char_embedding.weight"][1:].equal(weights["char_embed"])
    assert ours[f"{encoder}.convolutions.2.weight"][4, 3, 1] == weights["CNN/W_cnn_2"][0, 1, 3, 4]
    assert ours[f"{encoder}.convolutions.2.bias"].equal(weights["CNN/b_cnn_2"])
    assert ours[f"{encoder}.highways.1.carry.weight"].T.equal(weights["CNN_high_1/W_carry"])
    assert ours[f"{encoder}.highways.1.transform.bias"].equal(weights["CNN_high_1/b_transform"])
    assert ours[f"{encoder}.projection.weight"].T.equal(weights["CNN_proj/W_proj"])
    assert ours["lm_head.weight"].equal(weights["softmax/W"])
    assert ours["lm_head.bias"].equal(weights["softmax/b"])
    for direction in range(2):
        cell = lstm_path(direction, 1)
        assert ours["elmo.layers.1.input_weight"][direction].equal(weights[f"{cell}/W_0"][:8])
        assert ours["elmo.layers.1.recurrent_weight"][direction].equal(weights[f"{cell}/W_0"][8:])
        assert ours["elmo.layers.1.bias"][direction].equal(weights[f"{cell}/B"])
        assert ours["elmo.layers.1.projection"][direction].equal(weights[f"{cell}/W_P_0"])


@pytest.mark.parametrize("seed", range(4))
def test_tables_name_every_parameter_once(seed: int) -> None:
    config = ElmoConfig(
        vocab_size=7, lstm_dim=4, projection_dim=3 + seed, token_encoder=["characters", "words"][seed % 2]
    )
    with torch.device("meta"):
        parameters = ElmoForPreTraining(config).state_dict()
    rows = [*weights_table(config), *softmax_table(config)]
    assert {row.parameter for row in rows} == parameters.keys()
    covered = sum(row.view(parameters).numel() for row in rows)
    padding = config.char_embedding_dim if config.token_encoder == "characters" else 0
    assert covered + padding == sum(parameter.numel() for parameter in parameters.values())


def test_published_fixtures(shared_fixtures: Path, tmp_path: Path) -> None:
    for name in ("allennlp", "bilm-tf"):
        source = shared_fixtures / name
        folder = convert_from_bilm([source], tmp_path / f"{name}-transformers")
        back = convert_to_bilm(folder, tmp_path / f"{name}-back")
        assert_same_arrays(back / "weights.hdf5", source / "lm_weights.hdf5")
        assert (back / "options.json").read_bytes() == (source / "options.json").read_bytes()
        assert (back / "vocab.txt").read_bytes() == (source / "vocab_test.txt").read_bytes()
        assert ElmoConfig.from_pretrained(folder).token_encoder == "characters"


def test_published_token_table(shared_fixtures: Path, tmp_path: Path) -> None:
    """AllenNLP's cached word vectors, named as a file, take the place of the characters."""
    source = shared_fixtures / "allennlp"
    table = source / "elmo_token_embeddings.hdf5"
    folder = convert_from_bilm([source, table], tmp_path / "transformers")
    assert ElmoConfig.from_pretrained(folder).token_encoder == "words"
    back = convert_to_bilm(folder, tmp_path / "back")
    weights = read_hdf5(back / "weights.hdf5")
    assert weights.pop("embedding").tobytes() == read_hdf5(table)["embedding"].tobytes()
    lstm = {name: array for name, array in read_hdf5(source / "lm_weights.hdf5").items() if "RNN" in name}
    assert weights.keys() == lstm.keys()
    assert all(weights[name].tobytes() == lstm[name].tobytes() for name in lstm)


# ---- what the folder holds


def test_saved_and_loaded_is_equal(language_model: Path, tmp_path: Path) -> None:
    first = convert_from_bilm([language_model], tmp_path / "first")
    model = ElmoForPreTraining.from_pretrained(first)
    model.save_pretrained(tmp_path / "second")
    again = ElmoForPreTraining.from_pretrained(tmp_path / "second")
    assert settings(tmp_path / "second") == settings(first)
    for name, parameter in model.state_dict().items():
        assert parameter.equal(again.state_dict()[name]), name
    # Without its options.json the folder still becomes the same files.
    assert_same_arrays(
        convert_to_bilm(tmp_path / "second", tmp_path / "back") / "weights.hdf5",
        language_model / "weights.hdf5",
    )


def test_config_comes_from_options_and_tokenizer(language_model: Path, tmp_path: Path) -> None:
    (language_model / "vocab.txt").write_text("a\n</S>\nb\n<S>\nc\nd\n<UNK>\ne\n")
    folder = convert_from_bilm([language_model], tmp_path / "target")
    config = ElmoConfig.from_pretrained(folder)
    assert (config.vocab_size, config.pad_token_id) == (8, 8)
    assert (config.bos_token_id, config.eos_token_id, config.unk_token_id) == (3, 1, 6)
    assert config.architectures == ["ElmoForPreTraining"]
    assert (config.lstm_dim, config.projection_dim, config.num_hidden_layers) == (12, 8, 2)
    assert config.char_filters == [[1, 4], [2, 5], [3, 6]]
    lstm = options()["lstm"]
    assert (config.cell_clip, config.proj_clip) == (lstm["cell_clip"], lstm["proj_clip"])
    assert config.use_skip_connections


def test_options_left_out_have_their_defaults(source: Path, tmp_path: Path) -> None:
    write_hdf5(source / "weights.hdf5", random_weights(options(n_highway=0), 0))
    content = {
        "lstm": {"dim": 12, "projection_dim": 8, "n_layers": 2, "cell_clip": 0},
        "char_cnn": {"embedding": {"dim": 4}, "filters": [[1, 4], [2, 5], [3, 6]], "activation": "tanh"},
        "bidirectional": True,
        "n_train_tokens": 768648884,
        "dropout": 0.1,
    }
    (source / "options.json").write_text(json.dumps(content))
    config = ElmoConfig.from_pretrained(convert_from_bilm([source], tmp_path / "target"))
    assert (config.cell_clip, config.proj_clip, config.use_skip_connections) == (None, None, False)
    assert (config.num_highway_layers, config.max_characters_per_token) == (0, 50)
    assert (config.char_activation, config.vocab_size) == ("tanh", 3)
    assert ElmoTokenizer.from_pretrained(tmp_path / "target").max_characters_per_token == 50


def test_word_length_reaches_the_tokenizer(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", options(max_characters=20))
    folder = convert_from_bilm([source], tmp_path / "target")
    assert ElmoTokenizer.from_pretrained(folder).max_characters_per_token == 20
    assert ElmoConfig.from_pretrained(folder).max_characters_per_token == 20


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4"])
def test_other_float_types_without_loss(source: Path, tmp_path: Path, dtype: Any) -> None:
    exact = random_weights(options(), 7)["char_embed"].astype(np.float16)
    change(source / "weights.hdf5", "char_embed", lambda _: exact.astype(dtype))
    folder = convert_from_bilm([source], tmp_path / "target")
    ours = ElmoModel.from_pretrained(folder).token_encoder.char_embedding.weight[1:]
    assert ours.dtype == torch.float32
    assert np.array_equal(ours.detach().numpy(), exact.astype(np.float32))


def test_compressed_weights(source: Path, tmp_path: Path) -> None:
    arrays = read_hdf5(source / "weights.hdf5")
    with h5py.File(source / "weights.hdf5", "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, compression="gzip", chunks=True)
    convert_to_bilm(convert_from_bilm([source], tmp_path / "target"), tmp_path / "back")
    assert_same_arrays(tmp_path / "back" / "weights.hdf5", source / "weights.hdf5")


def test_reading_in_blocks(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_reading, "BLOCK_OF_NUMBERS", 100)
    convert_to_bilm(convert_from_bilm([source], tmp_path / "target"), tmp_path / "back")
    assert_same_arrays(tmp_path / "back" / "weights.hdf5", source / "weights.hdf5")


# ---- which file is what


def test_published_names(language_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = {
        "weights.hdf5": "elmo_2x4096_512_2048cnn_2xhighway_weights.hdf5",
        "softmax.hdf5": "elmo_2x4096_512_2048cnn_2xhighway_softmax_weights.hdf5",
        "options.json": "elmo_2x4096_512_2048cnn_2xhighway_options.json",
        "vocab.txt": "vocab-2016-09-10.txt",
    }
    files = [(language_model / old).rename(language_model / new) for old, new in names.items()]
    with caplog.at_level(logging.INFO, "elmo_hf"):
        one_folder = convert_from_bilm([language_model], tmp_path / "folder")
    assert all(str(path) in caplog.text for path in files)
    in_any_order = convert_from_bilm(files[::-1], tmp_path / "files")
    for name in ("model.safetensors", "config.json", "vocab.txt"):
        assert (one_folder / name).read_bytes() == (in_any_order / name).read_bytes()
    assert ElmoForPreTraining.from_pretrained(one_folder).config.vocab_size == len(VOCABULARY)


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
        for name in ("softmax", *range(safe_reading.MAX_NAMES)):
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
def test_hdf5_is_known_by_content(source: Path, tmp_path: Path, name: str) -> None:
    weights = (source / "weights.hdf5").rename(source / name)
    convert_from_bilm([source], tmp_path / "folder")
    convert_from_bilm([weights, source / "options.json"], tmp_path / "files")
    assert (tmp_path / "folder" / "config.json").is_file()
    assert (tmp_path / "files" / "config.json").is_file()


def test_file_named_twice_is_one_file(source: Path, tmp_path: Path) -> None:
    roundabout = source / ".." / "source"
    convert_from_bilm([source, source / "options.json", roundabout / "weights.hdf5"], tmp_path / "target")
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
    with pytest.raises(ConversionError, match="weights"):
        convert_from_bilm([], tmp_path / "target")
    assert list(tmp_path.iterdir()) == []


def test_named_files_must_be_of_use(source: Path) -> None:
    other = source / "lm_embeddings_0.hdf5"
    write_hdf5(other, {"0": np.zeros((2, 3), np.float32)})
    refused([source, other], str(other), "RNN_0")
    (source / "meta.json").write_text("{}")
    refused([source, source / "meta.json"], "meta.json", "lstm")
    (source / "readme.md").write_text("hello")
    refused([source, source / "readme.md"], "readme.md")
    refused([source, source / "absent.hdf5"], "absent.hdf5", "does not exist")


# ---- words in place of characters


def write_table(folder: Path, rows: int = len(VOCABULARY)) -> Path:
    table = np.random.default_rng(3).normal(size=(rows, 8)).astype(np.float32)
    write_hdf5(folder / "token_embeddings.hdf5", {"embedding": table})
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return folder / "token_embeddings.hdf5"


def test_table_beside_characters_is_left_alone(source: Path, tmp_path: Path) -> None:
    write_table(source, rows=5)  # it would not even fit
    config = ElmoConfig.from_pretrained(convert_from_bilm([source], tmp_path / "target"))
    assert config.token_encoder == "characters"


@pytest.mark.parametrize("weights_have_characters", [True, False])
def test_named_table_replaces_the_characters(
    source: Path, tmp_path: Path, weights_have_characters: bool
) -> None:
    table = write_table(source)
    lstm = {name: array for name, array in read_hdf5(source / "weights.hdf5").items() if "RNN" in name}
    if not weights_have_characters:
        write_hdf5(source / "weights.hdf5", lstm)
    folder = convert_from_bilm([source, table], tmp_path / "target")
    model = ElmoModel.from_pretrained(folder)
    assert model.config.token_encoder == "words"
    assert np.array_equal(model.token_encoder.word_embedding.weight.detach(), read_hdf5(table)["embedding"])
    assert (folder / "options.json").read_bytes() == (source / "options.json").read_bytes()

    # The way back writes new options, for the old ones tell of characters.
    back = convert_to_bilm(folder, tmp_path / "back")
    assert "char_cnn" not in json.loads((back / "options.json").read_text())
    assert read_hdf5(back / "weights.hdf5").keys() == lstm.keys() | {"embedding"}
    assert settings(convert_from_bilm([back], tmp_path / "again")) == settings(folder)


def test_table_for_options_without_characters(tmp_path: Path) -> None:
    """A table in a file of its own, found in the folder of a model that has nothing else for its words."""
    source = write_source(tmp_path / "source", options(word_level=True))
    arrays = read_hdf5(source / "weights.hdf5")
    write_hdf5(source / "table.hdf5", {"embedding": arrays.pop("embedding")})
    write_hdf5(source / "weights.hdf5", arrays)
    folder = convert_from_bilm([source], tmp_path / "target")
    table = ElmoModel.from_pretrained(folder).token_encoder.word_embedding.weight
    assert np.array_equal(table.detach(), read_hdf5(source / "table.hdf5")["embedding"])
    # Both at once leave open which counts.
    write_hdf5(source / "weights.hdf5", {**arrays, "embedding": np.ones((8, 8), np.float32)})
    refused([source], "weights.hdf5", "'embedding'")


def test_words_need_a_vocabulary(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", options(word_level=True))
    (source / "vocab.txt").unlink()
    refused([source], "weights.hdf5", "'embedding'", "vocabulary")


def test_softmax_needs_a_vocabulary(language_model: Path) -> None:
    (language_model / "vocab.txt").unlink()
    refused([language_model], "softmax.hdf5", "'softmax/W'", "vocabulary")


@pytest.mark.parametrize("words", [VOCABULARY[:-1], [*VOCABULARY, "more"], VOCABULARY[1:]])
def test_vocabulary_of_another_size(language_model: Path, tmp_path: Path, words: list[str]) -> None:
    (language_model / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    if "<S>" not in words:  # it is appended, and then the number is right
        convert_from_bilm([language_model], tmp_path / "target")
        return
    refused([language_model], "softmax.hdf5", "'softmax/W'", " 8 ", f" {len(words)} ", "vocab.txt")


def test_table_of_another_size(source: Path) -> None:
    table = write_table(source, rows=5)
    refused([source, table], "token_embeddings.hdf5", "'embedding'", " 5 ", " 8 ", "vocab.txt")


@pytest.mark.parametrize(
    ("content", "word"), [(b"", "empty"), (b" \n\n", "empty"), ("<S>\nZürich".encode("latin-1"), "UTF-8")]
)
def test_hostile_vocabulary(source: Path, content: bytes, word: str) -> None:
    (source / "vocab.txt").write_bytes(content)
    refused([source], str(source / "vocab.txt"), word)


def test_huge_vocabulary(source: Path) -> None:
    with (source / "vocab.txt").open("wb") as file:
        file.truncate(1 << 40)  # takes no room on the disk, but would in memory
    refused([source], str(source / "vocab.txt"), "too large")


# ---- hostile options


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["not JSON"]),
        ("<!DOCTYPE html>", ["not JSON"]),
        ('{"lstm": ' + "[" * 100_000, ["not JSON"]),
        ('{"lstm": {"dim": ' + "9" * 5000 + "}}", ["not JSON"]),
        ("[1, 2]", ["no options"]),
        ('{"char_cnn": {}}', ["no options"]),
        ('{"lstm": "' + "x" * 2_000_000 + '"}', ["options.json", "1,000,000 bytes"]),
        ('{"lstm": 5}', ["options.json", "'lstm'", "but is 5"]),
        ('{"lstm": {}, "char_cnn": [1]}', ["options.json", "'char_cnn'"]),
    ],
)
def test_hostile_options_file(source: Path, content: str, words: list[str]) -> None:
    (source / "options.json").write_text(content)
    refused([source], str(source), *words)


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("lstm.dim", None, "missing"),
        ("lstm.projection_dim", None, "missing"),
        ("lstm.n_layers", None, "missing"),
        ("char_cnn.embedding.dim", None, "missing"),
        ("char_cnn.embedding", 4, "{...}"),
        ("char_cnn.filters", None, "missing"),
        ("char_cnn.activation", None, "missing"),
        ("lstm.dim", "12", "'12'"),
        ("lstm.dim", 12.0, "12.0"),
        ("lstm.dim", True, "True"),
        ("lstm.dim", 0, "0"),
        ("lstm.dim", -(10**4000), "..."),
        ("lstm.dim", 10**4000, "..."),
        ("lstm.n_layers", [2], "[2]"),
        ("lstm.cell_clip", -3, "-3"),
        ("lstm.cell_clip", "3", "'3'"),
        ("lstm.cell_clip", float("nan"), "nan"),
        ("lstm.proj_clip", float("inf"), "inf"),
        ("lstm.use_skip_connections", 1, "1"),
        ("char_cnn.filters", [], "[]"),
        ("char_cnn.filters", [[1, 4], [2]], "[2]"),
        ("char_cnn.filters", [[1, 4], [2, -5]], "-5"),
        ("char_cnn.filters", {"1": 4}, "{"),
        ("char_cnn.n_highway", -1, "-1"),
        ("char_cnn.max_characters_per_token", 2, "2"),
        ("char_cnn.activation", "swish", "swish"),
        ("char_cnn.activation", ["relu"], "relu"),
        ("char_cnn.n_characters", 263, "261"),
        ("bidirectional", False, "true"),
    ],
)
def test_wrong_option(source: Path, name: str, value: Any, word: str) -> None:
    content = options()
    *sections, key = name.split(".")
    place = content
    for section in sections:
        place = place[section]
    place[key] = value
    (source / "options.json").write_text(json.dumps(content))
    message = refused([source], str(source / "options.json"), f"'{name}'", word)
    assert len(message) < 400 + len(str(source))


def test_options_that_contradict_each_other(source: Path) -> None:
    content = options(filters=((9, 4),), max_characters=5)
    (source / "options.json").write_text(json.dumps(content))
    refused([source], str(source / "options.json"), "width 9", "5")


@pytest.mark.parametrize(
    ("changes", "dataset"),
    [
        ({"n_layers": 2_000_000_000}, "Cell2"),
        ({"n_highway": 2_000_000_000}, "CNN_high_2"),
        ({"dim": 2_000_000_000}, "Cell0"),
        ({"projection_dim": 2_000_000_000}, "CNN_proj"),
        ({"char_dim": 2_000_000_000}, "char_embed"),
        ({"filters": ((1, 2_000_000_000),)}, "W_cnn_0"),
    ],
)
def test_options_that_promise_more_than_the_file(source: Path, changes: dict, dataset: str) -> None:
    """It ends at once, because shapes are compared before anything of that size is made."""
    (source / "options.json").write_text(json.dumps(options(**changes)))
    refused([source], str(source / "weights.hdf5"), dataset)


@pytest.mark.parametrize(
    ("changes", "dataset"),
    [
        ({"n_layers": 1}, "Cell1"),
        ({"n_highway": 1}, "CNN_high_1"),
        ({"filters": ((1, 4), (2, 5))}, "CNN_high_0"),
        ({"word_level": True}, "'embedding'"),
    ],
)
def test_options_that_promise_less_than_the_file(source: Path, changes: dict, dataset: str) -> None:
    (source / "options.json").write_text(json.dumps(options(**changes)))
    refused([source], str(source / "weights.hdf5"), dataset)


# ---- hostile HDF5


def test_not_hdf5(source: Path) -> None:
    (source / "weights.hdf5").write_text("version https://git-lfs.github.com/spec/v1\n")
    refused([source], str(source / "weights.hdf5"), "not an HDF5 file")
    refused([source / "weights.hdf5", source / "options.json"], "weights.hdf5", "not an HDF5 file")


def test_missing_and_extra_datasets(source: Path) -> None:
    arrays = read_hdf5(source / "weights.hdf5")
    for name, array in arrays.items():
        if name == "CNN_proj/W_proj":
            continue
        rest = {other: values for other, values in arrays.items() if other != name}
        write_hdf5(source / "weights.hdf5", rest)
        refused([source], str(source / "weights.hdf5"), f"'{name}'", "missing", str(array.shape))
    for name in ("extra", "RNN_2/RNN/B", "CNN/W_cnn_3", "embedding"):
        write_hdf5(source / "weights.hdf5", {**arrays, name: np.zeros(3, np.float32)})
        refused([source], str(source / "weights.hdf5"), f"'{name}'")


def test_wrong_shapes(source: Path) -> None:
    arrays = read_hdf5(source / "weights.hdf5")
    for name, array in arrays.items():
        wrong = [array[:-1], array[None], np.concatenate([array, array], -1), np.float32(1)]
        for other in wrong if array.ndim < 3 else [array.swapaxes(1, 3)[:, :, :-1], array[0]]:
            write_hdf5(source / "weights.hdf5", {**arrays, name: other})
            refused([source], str(source / "weights.hdf5"), f"'{name}'", str(array.shape), str(other.shape))


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
def test_numbers_that_are_no_weights(source: Path, name: str, new: Callable, word: str) -> None:
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
    """A chunk is unpacked whole, however little of it the array shows."""
    chunks = (1 << 25, 1)
    file.create_dataset("char_embed", (261, 1), "f4", chunks=chunks, maxshape=(None, 1), compression="gzip")
    file["char_embed"][:] = 1


def named_type(file: h5py.File) -> None:
    file["char_embed"] = np.dtype("f4")


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
    "huge chunk": (huge_chunk, "promises datasets of"),
    "named type": (named_type, "'char_embed' is neither group nor dataset"),
}


@pytest.mark.parametrize("label", DAMAGES)
def test_hostile_datasets(source: Path, label: str) -> None:
    damage, words = DAMAGES[label]
    with h5py.File(source / "weights.hdf5", "a") as file:
        del file["char_embed"]
        damage(file)
    refused([source], str(source / "weights.hdf5"), words)


def test_compression_bomb(source: Path) -> None:
    """All of it is there, but it would unpack to a thousand times the file's size."""
    rows = 3 << 20
    with h5py.File(source / "weights.hdf5", "a") as file:
        del file["char_embed"]
        file.create_dataset(
            "char_embed", (rows, 8), "f4", chunks=(rows, 8), compression="gzip", compression_opts=1
        )
        file["char_embed"][:] = 0
    size = (source / "weights.hdf5").stat().st_size
    refused([source], str(source / "weights.hdf5"), f"{size:,}", "promises")


def test_group_that_holds_itself(source: Path) -> None:
    with h5py.File(source / "weights.hdf5", "a") as file:
        file["CNN/again"] = file["/"]
    refused([source], str(source / "weights.hdf5"), "'CNN/again/", "circle")


def test_too_many_names(source: Path) -> None:
    with h5py.File(source / "weights.hdf5", "a") as file:
        group = file.create_group("many")
        for number in range(safe_reading.MAX_NAMES):
            group.create_group(str(number))
    refused([source], str(source / "weights.hdf5"), f"{safe_reading.MAX_NAMES} names")


def test_external_links_are_not_followed(source: Path, tmp_path: Path) -> None:
    """Not even to find out what a file is: the weights here are a link to good ones elsewhere."""
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
    """Each damaged file is refused in a sentence or, where a bit of a number was hit, converted."""
    whole, rng, converted = (source / "weights.hdf5").read_bytes(), random.Random(0), 0
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(rng.choice([1, 3, 30])):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        (source / "weights.hdf5").write_bytes(damaged)
        place = tmp_path / "place"
        place.mkdir()
        message = outcome(source, place / "target")
        if message is None:
            converted += 1
        else:
            assert_one_sentence(message)
            assert str(source) in message
            assert list(place.iterdir()) == []
        shutil.rmtree(place)
    assert 10 < converted < 140


def outcome(source: Path, target: Path) -> str | None:
    try:
        convert_from_bilm([source], target)
    except ConversionError as error:
        return str(error)
    return None


@contextmanager
def as_nobody() -> Iterator[None]:
    """The superuser may read everything, so for a while it is somebody else."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("closed", ["weights.hdf5", "options.json", "vocab.txt", "."])
@pytest.mark.parametrize("by_name", [True, False])
def test_closed_doors(closed: str, by_name: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is for its user alone
        Path(folder).chmod(0o755)
        source, place = write_source(Path(folder) / "source", options()), Path(folder) / "place"
        (source / "vocab.txt").write_text("<S>\n</S>\n<UNK>\n")
        place.mkdir()
        place.chmod(0o777)
        sources = sorted(source.iterdir(), reverse=True) if by_name else [source]
        (source / closed).chmod(0)
        with as_nobody(), pytest.raises(ConversionError) as caught:
            convert_from_bilm(sources, place / "target")
        (source / closed).chmod(0o755)
        assert list(place.iterdir()) == []
    first = sources[0] if closed == "." else source / closed
    assert str(caught.value) == f"{first} cannot be read (Permission denied); check its permissions."


# ---- the folder that is written


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
        with pytest.raises(ConversionError, match="target exists and is not an empty folder"):
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
    with pytest.raises(ConversionError, match="cannot be written"):
        convert_from_bilm([source], tmp_path / "file" / "target")


def test_full_disk_leaves_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    converted = convert_from_bilm([source], tmp_path / "converted")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr("elmo_hf.convert.bilm.shutil.copyfile", fails)
    for convert in (
        lambda: convert_from_bilm([source], tmp_path / "target"),
        lambda: convert_to_bilm(converted, tmp_path / "target"),
    ):
        with pytest.raises(ConversionError, match=r"target cannot be written \(No space left on device\)"):
            convert()
        assert sorted(tmp_path.rglob("*")) == before


# ---- Transformers -> bilm


def not_written(folder: Path, *words: str) -> None:
    place = folder.parent / "place"
    place.mkdir()
    with pytest.raises(ConversionError) as caught:
        convert_to_bilm(folder, place / "target")
    assert list(place.iterdir()) == []
    place.rmdir()
    assert_one_sentence(str(caught.value))
    for word in (str(folder), *words):
        assert word in str(caught.value)


@pytest.fixture
def converted(source: Path, tmp_path: Path) -> Path:
    return convert_from_bilm([source], tmp_path / "converted")


def test_no_model_folder(converted: Path, tmp_path: Path) -> None:
    not_written(tmp_path / "absent", "config.json", "does not exist")
    (converted / "config.json").write_text('{"model_type": "bert"}')
    not_written(converted, "config.json", "ELMo")
    (converted / "config.json").write_text("[")
    not_written(converted, "config.json", "not JSON")
    (converted / "config.json").write_text('{"model_type": "elmo", "lstm_dim": "many"}')
    not_written(converted, "lstm_dim")


def test_broken_model_files(converted: Path) -> None:
    weights = (converted / "model.safetensors").read_bytes()
    (converted / "model.safetensors").write_bytes(weights[:-10])
    not_written(converted)
    state = ElmoModel(ElmoConfig.from_pretrained(converted)).state_dict()
    (converted / "model.safetensors").unlink()
    torch.save(state, converted / "pytorch_model.bin")  # a pickle could run anything
    not_written(converted, "safetensors")


def test_incomplete_model(converted: Path) -> None:
    """The library would fill the gap at random."""
    model = ElmoModel.from_pretrained(converted)
    state = model.state_dict()
    del state["layers.1.bias"]
    model.save_pretrained(converted, state_dict=state)
    not_written(converted, "layers.1.bias")


@pytest.mark.parametrize("value", [np.nan, 1 + 2**-40])
def test_numbers_that_float32_cannot_hold(converted: Path, value: float) -> None:
    model = ElmoModel.from_pretrained(converted).double()
    model.layers[1].bias.data[1, 5] = value
    model.save_pretrained(converted)
    not_written(converted, "layers.1.bias", "float32")


def test_half_precision_model(converted: Path, tmp_path: Path) -> None:
    model = ElmoModel.from_pretrained(converted).bfloat16()
    model.save_pretrained(converted)
    back = read_hdf5(convert_to_bilm(converted, tmp_path / "back") / "weights.hdf5")
    assert np.array_equal(back[f"{lstm_path(1, 0)}/B"], model.layers[0].bias[1].detach().float().numpy())


@pytest.mark.parametrize("spoil", ["other model", "not JSON", "absent"])
def test_options_are_written_anew_if_they_are_wrong(converted: Path, tmp_path: Path, spoil: str) -> None:
    if spoil == "other model":
        (converted / "options.json").write_text(json.dumps(options(cell_clip=5)))
    elif spoil == "not JSON":
        (converted / "options.json").write_text("[")
    else:
        (converted / "options.json").unlink()
    back = convert_to_bilm(converted, tmp_path / "back")
    assert json.loads((back / "options.json").read_text()) == options()


def test_warm_state_is_left_out_with_a_word(
    converted: Path, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "elmo_hf"):
        convert_to_bilm(converted, tmp_path / "cold")
        assert "warm" not in caplog.text
        model = ElmoModel.from_pretrained(converted)
        model.warm_up("A cat .")
        model.save_pretrained(converted)
        back = convert_to_bilm(converted, tmp_path / "back")
        assert "warm initial state" in caplog.text
    assert_same_arrays(back / "weights.hdf5", source / "weights.hdf5")


def test_output_dim_of_the_softmax(tmp_path: Path) -> None:
    """Without an LSTM projection the softmax has as many columns as the LSTM has cells."""
    content = options(dim=5, projection_dim=8)
    source = write_source(tmp_path / "source", content, softmax=True)
    model = ElmoForPreTraining.from_pretrained(convert_from_bilm([source], tmp_path / "target"))
    assert model.lm_head.weight.shape == (len(VOCABULARY), output_dim(content)) == (8, 5)
