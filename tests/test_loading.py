"""Loading: incomplete folders are refused in one sentence, and Transformers' own messages are not shown."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig
from transformers.utils import logging

from elmo_hf import ElmoConfig, ElmoForTokenClassification, ElmoModel, ElmoTokenizer
from elmo_hf.loading import load, load_config, load_model

SHAPE = {"lstm_dim": 12, "projection_dim": 8, "char_filters": [[1, 4], [2, 4]], "num_hidden_layers": 1}


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    ElmoModel(ElmoConfig(**SHAPE)).save_pretrained(tmp_path / "elmo")
    ElmoTokenizer().save_pretrained(tmp_path / "elmo")
    return tmp_path / "elmo"


def change_config(folder, **settings):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | settings), encoding="utf-8")


def test_the_model_that_was_saved(folder):
    model, tokenizer = load(folder, ElmoModel)
    assert not model.training
    assert tokenizer.tokenize("Why not?") == ["Why", "not", "?"]
    for name, weight in load_file(folder / "model.safetensors").items():
        assert torch.equal(model.state_dict()[name], weight)
    assert load(folder, ElmoModel, dtype=torch.bfloat16)[0].dtype == torch.bfloat16


def test_a_head_may_be_new_but_not_the_bilm(folder):
    model, missing = load_model(folder, ElmoForTokenClassification, needs="elmo.", num_labels=5)
    assert model.config.num_labels == 5
    assert missing
    assert not any(name.startswith("elmo.") for name in missing)
    with pytest.raises(ValueError, match=f"elmo lacks {len(missing)} of the model's weights, such as "):
        load(folder, ElmoForTokenClassification)
    weights = load_file(folder / "model.safetensors")
    weights.pop("layers.0.bias")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 of the model's weights, such as elmo.layers.0.bias\."):
        load_model(folder, ElmoForTokenClassification, needs="elmo.", num_labels=5)


def no_config(folder):
    (folder / "config.json").unlink()


def no_json(folder):
    (folder / "config.json").write_text("{", encoding="utf-8")


def other_type(folder):
    BertConfig().save_pretrained(folder)


def bad_setting(folder):
    change_config(folder, lstm_dim=-1)


def other_shape(folder):
    change_config(folder, lstm_dim=24)


def cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def no_weights(folder):
    (folder / "model.safetensors").unlink()


def other_letters(folder):
    ElmoTokenizer(max_characters_per_token=20).save_pretrained(folder)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (no_config, "no ELMo can be loaded from .*elmo: "),
        (no_json, "no ELMo can be loaded from .*elmo: .*config"),
        (other_type, "no ELMo can be loaded from .*elmo: it holds a model of type 'bert'"),
        (bad_setting, "no ELMo can be loaded from .*elmo: .*lstm_dim"),
        (other_shape, "the weights in .*elmo are not of the shape in its config.json"),
        (cut, "the weights in .*elmo are damaged: "),
        (no_weights, "no ELMo can be loaded from .*elmo: .*model.safetensors"),
        (other_letters, "model with max_characters_per_token 50 and a tokenizer with 20; save them as one"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_unusable_folders_are_refused_in_one_sentence(folder, harm, message):
    harm(folder)
    with pytest.raises(ValueError, match=message) as caught:
        load(folder, ElmoModel)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_a_missing_folder(tmp_path):
    for load_it in (
        load_config,
        lambda name: load(name, ElmoModel),
        lambda name: load_model(name, ElmoModel),
    ):
        with pytest.raises(ValueError, match="nowhere: there is no such folder, and") as caught:
            load_it(tmp_path / "nowhere")
        assert "\n" not in str(caught.value)


def test_loading_restores_the_verbosity_of_transformers(folder, capfd):
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_model(folder, ElmoForTokenClassification, needs="elmo.", num_labels=5)
    other_shape(folder)
    with pytest.raises(ValueError, match="not of the shape"):
        load(folder, ElmoModel)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert capfd.readouterr() == ("", "")
