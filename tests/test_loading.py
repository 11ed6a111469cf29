"""Loading: incomplete folders are refused in one sentence, and Transformers' own messages are not shown."""

import json
import os
import pickle
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig
from transformers.utils import logging

from elmo_hf import ElmoConfig, ElmoForPreTraining, ElmoForTokenClassification, ElmoModel, ElmoTokenizer
from elmo_hf.errors import ElmoError
from elmo_hf.loading import describe_model, load, load_config, load_language_model, load_model
from elmo_hf.model.folder_elmo import check_inside, quoted

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


@pytest.mark.parametrize("needs_softmax", [True, False])
def test_a_language_model_with_the_tokenizer_of_another(folder, needs_softmax):
    ElmoForPreTraining(ElmoConfig(**SHAPE, vocab_size=3)).save_pretrained(folder)
    assert load_language_model(folder, needs_softmax)
    other_letters(folder)
    with pytest.raises(ElmoError, match=r"elmo has a model with max_characters_per_token 50 and a tok.* 20;"):
        load_language_model(folder, needs_softmax)


def test_a_language_model_with_the_words_of_another(folder):
    ElmoForPreTraining(ElmoConfig(**SHAPE, vocab_size=5)).save_pretrained(folder)
    with pytest.raises(
        ElmoError, match=r"elmo has a softmax of 5 words and a vocabulary of 3; save them as one\."
    ):
        load_language_model(folder)


# ---- folders by strangers


class Canary:
    """A pickle that makes a file where it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def sharded(folder, names, **index):
    """The weights below another name, and an index that names `names`."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "one.safetensors")
    save_file(weights, folder.parent / "outside.safetensors", {"format": "pt"})
    content = {"metadata": {}, "weight_map": dict.fromkeys(weights, names)} | index
    (folder / "model.safetensors.index.json").write_text(json.dumps(content), encoding="utf-8")


def header(folder, change):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    end = 8 + struct.unpack("<Q", content[:8])[0]
    tensors = json.loads(content[8:end])
    tensors["layers.0.bias"] |= change
    start = json.dumps(tensors).encode()
    path.write_bytes(struct.pack("<Q", len(start)) + start + content[end:])


def write(name, content):
    def harm(folder):
        (folder / name).write_bytes(content)

    return harm


def replace(name, make):
    def harm(folder):
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return harm


def weight(value, dtype=torch.float32):
    def harm(folder):
        weights = load_file(folder / "model.safetensors")
        weights["layers.0.bias"] = weights["layers.0.bias"].to(dtype)
        weights["layers.0.bias"][0, 0] = value
        save_file(weights, folder / "model.safetensors", {"format": "pt"})

    return harm


def pickles(folder):
    sharded(folder, "evil.bin")
    (folder / "evil.bin").write_bytes(pickle.dumps(Canary(folder.parent / "canary")))


def many_newlines(path):
    with path.open("wb") as file:
        file.write(b"\n" * 5_000_001)


def large_and_empty(path):
    with path.open("wb") as file:
        file.truncate(10 << 30)


@pytest.mark.parametrize(
    ("harm", "message"),
    {
        "a shard above": (lambda f: sharded(f, "../outside.safetensors"), "index.json names ../outside"),
        "a shard by its path": (lambda f: sharded(f, str(f / "one.safetensors")), "a shard is a file"),
        "a shard of the upper folder": (lambda f: sharded(f, ".."), "a shard is a file"),
        "a shard in a number": (lambda f: sharded(f, 7), "index.json names 7, but a shard is a file"),
        "a shard that is not there": (lambda f: sharded(f, "two.safetensors"), "which is not there"),
        "a pickle": (pickles, "index.json names evil.bin, but a shard is a file"),
        "no map": (lambda f: sharded(f, "", weight_map=[]), "must hold a 'weight_map'"),
        "no metadata": (lambda f: sharded(f, "one.safetensors", metadata=3), "must hold a 'weight_map'"),
        "a link out": (replace("vocab.txt", lambda p: p.symlink_to("/etc/hostname")), "leads out of the fol"),
        "a device": (replace("vocab.txt", lambda p: p.symlink_to("/dev/zero")), "vocab.txt is no plain file"),
        "a pipe": (replace("vocab.txt", os.mkfifo), "vocab.txt is no plain file"),
        "a pipe for a config": (replace("config.json", os.mkfifo), "config.json is no plain file"),
        "a folder for weights": (replace("model.safetensors", os.mkdir), "model.safetensors is no plain fi"),
        "a large vocabulary": (replace("vocab.txt", large_and_empty), "has 10,737,418,240 bytes, more than"),
        "many words": (replace("vocab.txt", many_newlines), "has 5,000,001 lines, more than"),
        "no text": (write("vocab.txt", b"He\n\0\n"), r"not UTF-8 text \(byte 3 is NUL"),
        "nested": (write("config.json", b"[" * 100_000), "config.json is no JSON text"),
        "digits": (write("tokenizer_config.json", b'{"a": ' + b"9" * 5000 + b"}"), "is no JSON text"),
        "a list": (write("special_tokens_map.json", b"[1]"), "must hold a JSON object, but holds list"),
        "no UTF-8": (write("config.json", b"{\xff}"), "config.json is no JSON text"),
        "a large object": (write("added_tokens.json", b" " * 2**24 + b"{}"), "more than the 16,777,216"),
        "an adapter": (
            write("adapter_config.json", b"{}"),
            "holds an adapter of PEFT",
        ),
        "another file": (lambda f: change_config(f, transformers_weights="x.safetensors"), "'transformers_w"),
        "another config": (
            lambda f: change_config(f, configuration_files=["config.5.0.json"]),
            "'configurat",
        ),
        "another vocabulary": (
            write("tokenizer_config.json", b'{"vocab_file": "/x"}'),
            "option 'vocab_file'",
        ),
        "a text for a map": (
            write("tokenizer_config.json", b'{"auto_map": "a.B"}'),
            "an object for 'auto_map'",
        ),
        "nothing for a map": (
            write("tokenizer_config.json", b'{"auto_map": null}'),
            "an object for 'auto_map'",
        ),
        "a length": (
            write("tokenizer_config.json", b'{"model_max_length": [1]}'),
            "model_max_length must be",
        ),
        "a dtype": (lambda f: change_config(f, dtype="evil"), "dtype must be one of"),
        "a kernel": (lambda f: change_config(f, attn_implementation="a/b"), "attn_implementation must be"),
        "wide": (
            lambda f: change_config(f, lstm_dim=2**20),
            r"layers.0.\w+ is \(2, .*, and the config asks for",
        ),
        "deep": (lambda f: change_config(f, num_hidden_layers=256), "lacks 1020 of the model's weights"),
        "whole numbers": (weight(1, torch.int32), "layers.0.bias is of type I32, not of"),
        "NaN": (weight(torch.nan), "layers.0.bias holds NaN or infinity"),
        "infinity": (weight(-torch.inf, torch.float64), "layers.0.bias holds NaN or infinity"),
        "a negative shape": (
            lambda f: header(f, {"shape": [2, -48]}),
            "are damaged: model.safetensors is no",
        ),
        "a huge shape": (lambda f: header(f, {"shape": [2**62, 2**62]}), "are damaged: model.safetensors is"),
        "wrong offsets": (
            lambda f: header(f, {"data_offsets": [0, 9**15]}),
            "are damaged: model.safetensors",
        ),
        "a huge header": (write("model.safetensors", b"\xff" * 800), "is no safetensors file, or cut off"),
    }.values(),
)
def test_folders_by_strangers_are_refused_in_one_sentence(folder, harm, message):
    harm(folder)
    with pytest.raises(ElmoError, match=message) as caught:
        load(folder, ElmoModel)
    assert str(caught.value).isprintable()
    assert str(caught.value).endswith(".")
    assert not (folder.parent / "canary").exists()


@pytest.mark.parametrize(
    ("harm", "door"),
    [
        (lambda f: sharded(f, "../outside.safetensors"), ElmoModel.from_pretrained),
        (lambda f: header(f, {"shape": [2**62, 2**62]}), ElmoForTokenClassification.from_pretrained),
        (lambda f: change_config(f, lstm_dim=2**20), ElmoModel.from_pretrained),
        (lambda f: change_config(f, task_hidden_size=2**20), ElmoForTokenClassification.from_pretrained),
        (write("config.json", b"[1]"), ElmoConfig.from_pretrained),
        (replace("config.json", lambda path: path.symlink_to("/dev/zero")), ElmoConfig.from_pretrained),
        (replace("vocab.txt", os.mkfifo), ElmoTokenizer.from_pretrained),
        (write("tokenizer_config.json", b'{"added_tokens_decoder": 3}'), ElmoTokenizer.from_pretrained),
        (replace("model.safetensors", lambda path: path.symlink_to("/etc/hostname")), describe_model),
    ],
)
def test_the_classes_refuse_them_as_well(folder, harm, door):
    harm(folder)
    with pytest.raises(ValueError, match=r"^[^\n]*\.$"):
        door(folder)


def test_shards_and_links_of_the_hubs_cache_load(folder, tmp_path):
    sharded(folder, "one.safetensors")
    repository = tmp_path / "models--a--b"
    snapshot, blobs = repository / "snapshots" / "0f", repository / "blobs"
    snapshot.mkdir(parents=True)
    folder.rename(blobs)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    assert load(snapshot, ElmoModel)[0].config.lstm_dim == 12
    (tmp_path / "other").write_text("x")
    (snapshot / "out").symlink_to(tmp_path / "other")
    with pytest.raises(ValueError, match="leads out of the folder"):
        check_inside(snapshot / "out")


def test_values_in_messages_are_short_and_printable():
    assert quoted("lstm") == "lstm"
    assert quoted("\x1b[31m\n") == r"\x1b[31m\n"
    assert len(quoted("x" * 10**6)) == 80


@pytest.mark.parametrize("settings", [{"architectures": True}, {"architectures": [5]}, {"auto_map": [1]}])
def test_names_of_classes_of_other_types(folder, settings):
    change_config(folder, **settings)
    with pytest.raises(ElmoError, match=rf"elmo: '{next(iter(settings))}' must be .* of classes, but is "):
        load_config(folder)


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
