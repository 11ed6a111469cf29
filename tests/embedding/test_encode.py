"""`encode`: the vectors of sentences in memory."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset

import elmo_hf
from elmo_hf import ElmoConfig, ElmoError, ElmoModel, ElmoTokenizer, encode
from elmo_hf.embedding import encode as encode_module
from elmo_hf.embedding.encode import TINY, _load_once
from tests.helpers.embed_corpora import SMALL, expected, layers_of, save_model, sentences

TEXTS = ["He sat on the bank.", "", "Why?"]
WORDS = [["He", "sat", "on", "the", "bank", "."], [], ["Why", "?"]]


def mixing_model(num_mixes, layer_norm=False):
    """A model with stored mixes of weights that differ."""
    torch.manual_seed(0)
    sizes = {"lstm_dim": 16, "projection_dim": 8, "char_filters": [[1, 4], [3, 8]], "num_highway_layers": 1}
    model = ElmoModel(ElmoConfig(**sizes, num_mixes=num_mixes, mix_layer_norm=layer_norm)).eval()
    model.scalar_mix.weights.copy_(torch.tensor([[0.0, 1.0, 2.0], [1.5, 0.5, -1.0]])[:num_mixes])
    model.scalar_mix.gamma.fill_(1.5)
    return model


@pytest.mark.parametrize("layers", ["top", "average", "all", "1", "2,0"])
@pytest.mark.parametrize("pool", [None, "mean", "max"])
def test_vectors_are_those_of_a_direct_call(model, layers, pool):
    vectors = encode(TEXTS, model, layers=layers, pool=pool)
    assert isinstance(vectors, list if pool is None else np.ndarray)
    assert len(vectors) == 3
    for array, words in zip(vectors, WORDS, strict=True):
        wanted = expected(layers_of(model, words), layers, pool)
        assert array.shape == wanted.shape
        np.testing.assert_allclose(array, wanted, atol=2e-6)


@pytest.mark.parametrize("options", [{}, {"layers": "all", "pool": "max"}, {"dtype": "float16"}])
def test_the_numbers_are_those_of_embed(model, tmp_path, options):
    lines = sentences(40)
    options = options | {"batch_words": 24}
    written = elmo_hf.embed(lines, tmp_path / "out", model, **(SMALL | {"shard_words": 32_768} | options))
    vectors = encode(lines, model, **options)
    for array, (_, wanted) in zip(vectors, written, strict=True):
        assert array.dtype == wanted.dtype
        assert np.array_equal(array, wanted)


def test_what_sentences_may_be(model):
    wanted = encode(TEXTS, model, whitespace=True, pool="mean")
    table = {"body": TEXTS, "id": [1, 2, 3]}
    for same in (tuple(TEXTS), iter(TEXTS), np.array(TEXTS), [text.split() for text in TEXTS]):
        assert np.array_equal(encode(same, model, whitespace=True, pool="mean"), wanted)
    for same in (Dataset.from_dict(table), [{"body": text} for text in TEXTS]):
        assert np.array_equal(encode(same, model, whitespace=True, pool="mean", column="body"), wanted)
    assert np.array_equal(
        encode(Dataset.from_dict(table)["body"], model, whitespace=True, pool="mean"), wanted
    )


def test_one_text_gives_one_result(model):
    assert encode("Why?", model).shape == (2, 16)
    assert encode("Why?", model, pool="mean").shape == (16,)
    assert encode("Why?", model, layers="all", pool="mean").shape == (3, 16)
    assert encode("", model).shape == (0, 16)
    assert [array.shape for array in encode(["Why", "?"], model)] == [(1, 16), (1, 16)]


def test_no_sentence_gives_no_vector(model):
    assert encode([], model) == []
    assert encode(iter([]), model, pool="mean").shape == (0, 16)
    assert encode([], model, pool="mean", layers="all").shape == (0, 3, 16)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("num_mixes", [1, 2])
def test_the_stored_mixes_are_those_of_a_direct_call(num_mixes, layer_norm, tmp_path):
    model = mixing_model(num_mixes, layer_norm)
    texts = [text for text in TEXTS if text]
    vectors = encode(texts, model, layers="mix")
    for text, array in zip(texts, vectors, strict=True):
        batch = ElmoTokenizer()([text], return_tensors="pt")
        with torch.no_grad():
            hidden = model(**batch, output_hidden_states=True).hidden_states
            mixed = model.scalar_mix(hidden, batch["attention_mask"])
        wanted = mixed[0].numpy() if num_mixes == 1 else torch.stack(mixed)[:, 0].numpy()
        assert array.shape == wanted.shape
        np.testing.assert_allclose(array, wanted, atol=2e-6)
    assert np.abs(vectors[0] - encode(texts, model, layers="average")[0]).max() > 0.01
    written = elmo_hf.embed(texts, tmp_path / "out", model, layers="mix", **SMALL)
    assert written.about["columns"] == (["vector"] if num_mixes == 1 else ["mix_0", "mix_1"])
    np.testing.assert_allclose(written[1].vectors, vectors[1], atol=2e-6)


def test_tiny_is_the_default():
    assert TINY == elmo_hf.TINY
    assert np.array_equal(encode("Why?"), encode("Why?", elmo_hf.TINY))


def test_a_named_model_is_loaded_once_until_its_files_change(model, tmp_path, monkeypatch):
    folder = save_model(model, tmp_path / "model")
    loads = []
    real = encode_module.load
    monkeypatch.setattr(encode_module, "load", lambda *arguments: loads.append(1) or real(*arguments))
    first = encode("Why?", folder)
    assert np.array_equal(encode("Why?", str(folder)), first)
    assert len(loads) == 1
    with torch.no_grad():
        other = ElmoModel(model.config)
    save_model(other, folder)
    changed = encode("Why?", folder)
    assert len(loads) == 2
    assert np.abs(changed - first).max() > 1e-3
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"word_splitter": "whitespace"}))
    assert len(encode("Why?", folder)) == 1
    assert len(loads) == 3
    _load_once.cache_clear()


def test_the_model_is_left_as_it_was(model):
    model.train()
    encode("Why?", model)
    assert model.training
    model.eval()


def test_a_model_with_a_word_table_needs_its_tokenizer(tmp_path):
    (tmp_path / "vocab.txt").write_text("<S>\n</S>\n<UNK>\nWhy\n", encoding="utf-8")
    tokenizer = ElmoTokenizer(tmp_path / "vocab.txt")
    model = ElmoModel(ElmoConfig(lstm_dim=8, projection_dim=4, token_encoder="words", vocab_size=4)).eval()
    with pytest.raises(ElmoError, match=r"needs its tokenizer: encode\(\.\.\., tokenizer=tokenizer\)"):
        encode("Why?", model)
    assert encode("Why?", model, tokenizer=tokenizer).shape == (2, 8)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ([5], {}, "encode takes sentences, but got int"),
        ([b"Why?"], {}, "embed and read_vectors take files"),
        ([{"train": ["a"]}], {}, "is a dictionary; pass one of its parts: train"),
        ([["a", None]], {}, "record 2: the record should be text, but is None"),
        ([["a", ["b"]]], {}, "record 2: the record should be text"),
        ([["a"]], {"layers": "mix"}, "this model stores no trained mix"),
        ([["a"]], {"layers": 3}, "layers must be top, average, all, mix or different numbers from 0 to 2"),
        ([["a"]], {"pool": "sum"}, "pool must be one of None, mean, max"),
        ([["a"]], {"column": "text"}, "has no columns"),
        ([["a"]], {"device": "teapot"}, "there is no device 'teapot'"),
        (["a", "no/such/folder"], {}, "no ELMo can be loaded from no/such/folder"),
    ],
)
def test_mistakes_are_one_sentence(model, monkeypatch, arguments, options, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    sentences, name = [*arguments, model][:2]
    with pytest.raises(ElmoError, match=message) as error:
        encode(sentences, name, **options)
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(".")


def test_a_short_input_shows_no_bar(model, capsys):
    encode(TEXTS, model)
    assert capsys.readouterr().err == ""
