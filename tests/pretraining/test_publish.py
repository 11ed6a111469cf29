"""Publishing a model: half precision changes weights by rounding only, and shards hold the same model."""

import json

import pytest
import torch
from safetensors.torch import load_file

from elmo_hf import ElmoConfig, ElmoForPreTraining, ElmoModel, ElmoTokenizer
from elmo_hf.pretraining.publish import check_range, publish

WORDS = ["<S>", "</S>", "<UNK>", "the", "cat"]


@pytest.fixture
def trained(tmp_path):
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    config = ElmoConfig(lstm_dim=8, projection_dim=4, char_filters=[[1, 4], [2, 4]], vocab_size=len(WORDS))
    model, tokenizer = ElmoForPreTraining(config), ElmoTokenizer(vocabulary)
    for saved in (model, tokenizer):
        saved.save_pretrained(tmp_path / "final")
    return model, tokenizer, tmp_path / "final"


def test_weights_are_halves_and_are_read_as_float32(trained, tmp_path):
    model, tokenizer, folder = trained
    publish(str(folder), tmp_path / "published", half=True)
    stored = load_file(tmp_path / "published" / "model.safetensors")
    assert {weight.dtype for weight in stored.values()} == {torch.float16}
    loaded = ElmoForPreTraining.from_pretrained(tmp_path / "published")
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight.half().float()), name
    assert ElmoModel.from_pretrained(tmp_path / "published").dtype == torch.float32
    assert ElmoTokenizer.from_pretrained(tmp_path / "published").get_vocab() == tokenizer.get_vocab()


def test_no_code_goes_along(trained, tmp_path):
    publish(str(trained[2]), tmp_path / "published")
    names = {path.name for path in (tmp_path / "published").iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt"}
    for name in ("config.json", "tokenizer_config.json"):
        assert "auto_map" not in json.loads((tmp_path / "published" / name).read_text())


def test_a_weight_that_is_no_number_is_refused(trained, tmp_path):
    model = ElmoForPreTraining.from_pretrained(trained[2])
    list(model.parameters())[-1].data[0] = float("nan")
    with pytest.raises(ValueError, match="has a weight of nan"):
        check_range("a", model)


def test_weights_outside_the_range_of_half_precision_are_refused(trained, tmp_path):
    model, _, folder = trained
    with torch.no_grad():
        model.lm_head.weight[0, 0] = 1e5
    model.save_pretrained(folder)
    with pytest.raises(ValueError, match=r"has a weight of 100000, which half precision cannot hold"):
        publish(str(folder), tmp_path / "published", half=True)
    assert not (tmp_path / "published").exists()


def test_shards_with_code_are_the_same_model(trained, tmp_path):
    model, _, folder = trained
    publish(str(folder), tmp_path / "published", code=True, shards="1KB")
    assert len(list((tmp_path / "published").glob("model-*.safetensors"))) > 1
    assert (tmp_path / "published" / "modeling_elmo.py").exists()
    assert json.loads((tmp_path / "published" / "config.json").read_text())["auto_map"]["AutoModel"]
    loaded = ElmoForPreTraining.from_pretrained(tmp_path / "published")
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name


def test_a_size_that_is_none(trained, tmp_path):
    with pytest.raises(ValueError, match="--shards must be a size such as 50MB, not 'small'"):
        publish(str(trained[2]), tmp_path / "published", shards="small")
