"""Transformers -> bilm: models that cannot be written are refused, and what the files cannot hold is told."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from elmo_hf import ElmoConfig, ElmoForPreTraining, ElmoModel
from elmo_hf.convert import ElmoError, convert_from_bilm, convert_to_bilm
from tests.helpers.bilm_files import (
    VOCABULARY,
    assert_one_sentence,
    assert_same_arrays,
    read_hdf5,
    write_source,
)
from tests.helpers.reference import lstm_path, options, output_dim


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "source", options())


def not_written(folder: Path, *words: str) -> None:
    place = folder.parent / "place"
    place.mkdir()
    with pytest.raises(ElmoError) as caught:
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
