"""HDF5 -> Transformers -> HDF5 changes no bit of any variant; the Transformers folder; refused models."""

import json
import logging
import os
import resource
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from elmo_hf import ElmoConfig, ElmoForPreTraining, ElmoForTokenClassification, ElmoModel, ElmoTokenizer
from elmo_hf.convert import ConversionError, arrays, convert_from_bilm, convert_to_bilm
from elmo_hf.convert.bilm import softmax_table, weights_table
from elmo_hf.convert.options import options_from_config
from elmo_hf.errors import ElmoError
from tests.helpers.bilm_files import (
    VOCABULARY,
    assert_one_sentence,
    assert_same_arrays,
    change,
    read_hdf5,
    settings,
    write_source,
)
from tests.helpers.reference import (
    lstm_path,
    options,
    output_dim,
    random_options,
    random_weights,
    write_hdf5,
)

# ---- HDF5 -> Transformers -> HDF5

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

    # New options describe the same model.
    new = options_from_config(ElmoConfig.from_pretrained(folder))
    (source / "options.json").write_text(json.dumps(new))
    assert settings(convert_from_bilm([source], tmp_path / "again")) == settings(folder)


@pytest.mark.parametrize(
    "line_ends",
    [b"\n%s\n", b"\n%s", b"\r\n%s\r\n"],
    ids=["newline", "no newline at the end", "windows"],
)
def test_vocabulary_and_options_are_copied_byte_for_byte(
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


def test_arrays_become_the_right_parameters(language_model: Path, tmp_path: Path) -> None:
    """A round trip alone would not notice parameters that are swapped."""
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
    entries = [*weights_table(config), *softmax_table(config)]
    assert {entry.parameter for entry in entries} == parameters.keys()
    covered = sum(entry.view(parameters).numel() for entry in entries)
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
    """AllenNLP's cached word vectors, named as a file, replace the characters."""
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


# ---- the Transformers folder


def test_saved_and_loaded_is_equal(language_model: Path, tmp_path: Path) -> None:
    first = convert_from_bilm([language_model], tmp_path / "first")
    model = ElmoForPreTraining.from_pretrained(first)
    model.save_pretrained(tmp_path / "second")
    again = ElmoForPreTraining.from_pretrained(tmp_path / "second")
    assert settings(tmp_path / "second") == settings(first)
    for name, parameter in model.state_dict().items():
        assert parameter.equal(again.state_dict()[name]), name
    # The folder has no options.json and still becomes the same files.
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


def test_missing_options_have_defaults(source: Path, tmp_path: Path) -> None:
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
    monkeypatch.setattr(arrays, "BLOCK_OF_NUMBERS", 100)
    convert_to_bilm(convert_from_bilm([source], tmp_path / "target"), tmp_path / "back")
    assert_same_arrays(tmp_path / "back" / "weights.hdf5", source / "weights.hdf5")


# ---- Transformers -> bilm: what is refused or left out


def not_written(folder: Path, *words: str) -> None:
    """Writing the folder as bilm fails with a sentence that holds these words, and leaves no file."""
    parent = folder.parent / "place"
    parent.mkdir()
    with pytest.raises(ElmoError) as caught:
        convert_to_bilm(folder, parent / "target")
    assert list(parent.iterdir()) == []
    parent.rmdir()
    assert_one_sentence(str(caught.value))
    for word in (str(folder), *words):
        assert word in str(caught.value)


@pytest.fixture
def converted(source: Path, tmp_path: Path) -> Path:
    return convert_from_bilm([source], tmp_path / "converted")


def test_folder_without_a_model(converted: Path, tmp_path: Path) -> None:
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


def test_a_vocabulary_that_no_tokenizer_reads(converted: Path) -> None:
    path = converted / "vocab.txt"
    path.touch()
    os.truncate(path, 3 << 30)
    not_written(converted, "vocab.txt", "more than the 134,217,728 that are read")
    path.unlink()
    os.mkfifo(path)
    not_written(converted, "vocab.txt", "no plain file")
    path.unlink()
    path.symlink_to("/etc/hostname")
    not_written(converted, "vocab.txt", "leads out of the folder")


def test_incomplete_model(converted: Path) -> None:
    """Transformers would draw the missing weights at random."""
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


@pytest.mark.parametrize("fault", ["other model", "not JSON", "absent"])
def test_new_options_replace_wrong_ones(converted: Path, tmp_path: Path, fault: str) -> None:
    if fault == "other model":
        (converted / "options.json").write_text(json.dumps(options(cell_clip=5)))
    elif fault == "not JSON":
        (converted / "options.json").write_text("[")
    else:
        (converted / "options.json").unlink()
    back = convert_to_bilm(converted, tmp_path / "back")
    assert json.loads((back / "options.json").read_text()) == options()


def test_warm_state_is_left_out_with_a_warning(
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


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"num_characters": 300}, "letters of its own"),
        ({"boundary_characters": [1, 2, 3, 4, 5]}, "letters of its own"),
        ({"word_embedding_dim": 3}, "letters of its own, or words beside them"),
        ({"token_encoder": "words", "word_embedding_dim": 3}, "a projection of its table of words"),
        ({"token_encoder": "words", "word_embedding_dim": 4}, "a projection of its table of words"),
        ({"stacked_lstm_layers": 2, "num_hidden_layers": 1}, "stacked in each direction"),
        ({"lstm_projection": False}, "LSTMs of 6 cells with 4 outputs"),
        ({"lstm_projection": True, "projection_dim": 6}, "LSTMs of 6 cells with 6 outputs"),
    ],
)
def test_models_that_the_format_cannot_hold(settings: dict[str, Any], what: str, tmp_path: Path) -> None:
    sizes = {"lstm_dim": 6, "projection_dim": 4, "char_filters": [[1, 4]], "vocab_size": 5}
    ElmoModel(ElmoConfig(**sizes | settings)).save_pretrained(tmp_path / "elmo")
    with pytest.raises(ElmoError, match=what):
        convert_to_bilm(tmp_path / "elmo", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_output_dim_of_the_softmax(tmp_path: Path) -> None:
    """Without an LSTM projection the softmax has as many columns as the LSTM has cells."""
    content = options(dim=5, projection_dim=8)
    source = write_source(tmp_path / "source", content, softmax=True)
    model = ElmoForPreTraining.from_pretrained(convert_from_bilm([source], tmp_path / "target"))
    assert model.lm_head.weight.shape == (len(VOCABULARY), output_dim(content)) == (8, 5)


def test_weights_of_a_task_are_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sizes: dict[str, Any] = {"lstm_dim": 6, "projection_dim": 4, "char_filters": [[1, 4]], "vocab_size": 3}
    tagger = ElmoForTokenClassification(ElmoConfig(**sizes, num_labels=2, task_word_dim=2))
    tagger.save_pretrained(tmp_path / "tagger")
    with caplog.at_level(logging.WARNING, "elmo_hf"):
        back = convert_to_bilm(tmp_path / "tagger", tmp_path / "back")
    assert "this format cannot hold" in caplog.text
    assert "classifier.weight" in caplog.text
    bias = read_hdf5(back / "weights.hdf5")[f"{lstm_path(1, 0)}/B"]
    assert np.array_equal(bias, tagger.base_model.layers[0].bias[1].detach())


def test_error_has_its_former_name() -> None:
    assert ConversionError is ElmoError


def test_a_full_disk_leaves_nothing_behind(source: Path, tmp_path: Path) -> None:
    folder = convert_from_bilm([source], tmp_path / "folder")
    place = tmp_path / "place"
    place.mkdir()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        for convert in (
            lambda: convert_to_bilm(folder, place / "o"),
            lambda: convert_from_bilm([source], place / "o"),
        ):
            with pytest.raises(ElmoError, match=r"o cannot be written \(File too large\)"):
                convert()
            assert list(place.iterdir()) == []
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
