"""The vectors of `embed` with all its options, compared with direct calls of the model."""

import inspect
from itertools import product

import numpy as np
import pytest
import torch
from datasets import Dataset, IterableDataset

import elmo_hf
from elmo_hf import ElmoConfig, ElmoForPreTraining, ElmoModel, ElmoTokenizer, cli, read_vectors
from elmo_hf.corpus.source import open_records
from elmo_hf.embedding.job import fingerprint, shard_inputs, survey
from tests.helpers.embed_corpora import (
    FORMATS,
    SMALL,
    contents,
    expected,
    layers_of,
    sentences,
)

# ---- the vectors


def test_a_job_of_0_1_0_goes_on():
    """Options of the config that came later do not change the digest of a model that lacks them."""
    sizes = {"lstm_dim": 3, "projection_dim": 2, "char_embedding_dim": 2, "char_filters": [[1, 2]]}
    model = ElmoModel(ElmoConfig(**sizes, vocab_size=3))
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(0.5)
    digest = "4a856b26e61bc2d97ea1ee817c9f17126483dff4289b42cd98bfbb125fa60def"  # by 0.1.0
    assert fingerprint(model, ElmoTokenizer()) == digest


@pytest.mark.parametrize("layers", ["top", "average", "all", "1", "2,0"])
def test_vectors_are_those_of_a_direct_call(model, corpus, tmp_path, layers):
    lines = corpus.read_text(encoding="utf-8").split("\n")[:-1]
    words = [ElmoTokenizer().tokenize(line) for line in lines]
    called = [layers_of(model, sentence) for sentence in words]
    for pool, format in product((None, "mean", "max"), FORMATS):
        output = tmp_path / f"{pool}-{format}"
        embedded = elmo_hf.embed(corpus, output, model, layers=layers, pool=pool, format=format, **SMALL)
        assert [sentence.words for sentence in embedded] == words
        for sentence, states in zip(embedded, called, strict=True):
            vectors = expected(states, layers, pool)
            assert sentence.vectors.shape == vectors.shape
            assert sentence.vectors.dtype == np.float32
            np.testing.assert_allclose(sentence.vectors, vectors, atol=2e-6)


@pytest.mark.parametrize("format", FORMATS)
def test_half_precision_is_rounding(model, corpus, tmp_path, format):
    full = elmo_hf.embed(corpus, tmp_path / "full", model, **SMALL)
    half = elmo_hf.embed(corpus, tmp_path / "half", model, format=format, dtype="float16", **SMALL)
    for sentence, rounded in zip(full, half, strict=True):
        assert rounded.vectors.dtype == np.float16
        assert np.array_equal(sentence.vectors.astype(np.float16), rounded.vectors)


@pytest.mark.parametrize("cache_words", [0, 1, 7, 10_000])
@pytest.mark.parametrize(("batch_words", "shard_words"), [(1, 10_000), (50, 1), (4096, 300)])
def test_cache_and_budgets_change_no_vector(model, corpus, tmp_path, cache_words, batch_words, shard_words):
    options = {"cache_words": cache_words, "batch_words": batch_words, "shard_words": shard_words}
    sentences = elmo_hf.embed(corpus, tmp_path / "out", model, **(SMALL | options))
    for sentence in sentences:
        np.testing.assert_allclose(sentence.vectors, layers_of(model, sentence.words)[-1], atol=2e-6)


def test_a_word_table_needs_no_letters(tmp_path, corpus):
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("<S>\n</S>\n<UNK>\nBank\nthe\nsat\n", encoding="utf-8")
    tokenizer = ElmoTokenizer(vocabulary)
    torch.manual_seed(1)
    config = ElmoConfig(lstm_dim=16, projection_dim=8, token_encoder="words", vocab_size=6)
    model = ElmoModel(config).eval()
    sentences = elmo_hf.embed(corpus, tmp_path / "out", model, tokenizer=tokenizer, **SMALL)
    for words, vectors in sentences:
        if words:
            encoding = tokenizer([words], is_split_into_words=True, return_tensors="pt")
            direct = model(**encoding).last_hidden_state[0].detach().numpy()
            np.testing.assert_allclose(vectors, direct, atol=2e-6)
    with pytest.raises(ValueError, match="needs its tokenizer"):
        elmo_hf.embed(corpus, tmp_path / "other", model, **SMALL)
    assert not (tmp_path / "other").exists()


def test_the_model_is_left_as_it_was(corpus, tmp_path):
    """Dropout is off while it reads, and a language model's ELMo is what reads."""
    torch.manual_seed(0)
    language_model = ElmoForPreTraining(ElmoConfig(lstm_dim=8, projection_dim=4, vocab_size=5, dropout=0.5))
    sentences = elmo_hf.embed(corpus, tmp_path / "out", language_model.train(), layers="all", **SMALL)
    assert language_model.training
    assert language_model.elmo.training
    for words, vectors in sentences[:5]:
        np.testing.assert_allclose(vectors, layers_of(language_model.eval().elmo, words), atol=2e-6)


# ---- what goes in


def test_texts_and_their_words_give_the_same_vectors(model, tmp_path):
    """What each kind of file gives is tested with the reader, in `tests/corpus/test_source.py`."""
    lines = [line for line in sentences(30) if line]
    write_lines(tmp_path / "a.txt", lines)
    tokens = [line.split() for line in lines]
    sources = {
        "file": (tmp_path / "a.txt", {}),
        "list": (lines, {}),
        "iterator": (iter(lines), {}),
        "words": (tokens, {}),
        "column": (Dataset.from_dict({"words": tokens}), {"tokens_column": "words"}),
        "stream": (IterableDataset.from_generator(lambda: ({"text": line} for line in lines)), {}),
    }
    files = {}
    for name, (source, options) in sources.items():
        elmo_hf.embed(source, tmp_path / name, model, whitespace=True, **SMALL, **options)
        files[name] = contents(tmp_path / name)
        del files[name]["index.json"], files[name]["plan.json"]
        vectors = [sentence.vectors for sentence in read_vectors(tmp_path / name)]
        assert [len(array) for array in vectors] == [len(line.split()) for line in lines]
    assert len(files["file"]) > 3
    assert files["file"] == files["list"] == files["iterator"] == files["stream"]
    # Words and their text are cut at the same places, but are not the same input.
    assert files["words"] == files["column"] != files["file"]
    assert list(files["words"]) == list(files["file"])


def write_lines(path, lines):
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def test_lone_surrogates_are_dropped(model, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"tokens": ["a\\ud800b", "\\udfff"]}\n', encoding="utf-8")
    for format in FORMATS:
        sentences = elmo_hf.embed(path, tmp_path / format, model, format=format, **SMALL)
        assert sentences[0].words == ["ab", ""]


def test_a_sentence_of_100_000_words(tmp_path):
    """The forward half of its first words is a short sentence's, as is the backward half of its last."""
    torch.manual_seed(0)
    config = ElmoConfig(lstm_dim=8, projection_dim=4, num_hidden_layers=1, char_filters=[[1, 4]])
    model = ElmoModel(config).eval()
    words = [f"w{number % 1000}" for number in range(100_000)]
    embedded = elmo_hf.embed([["a"], words, ["b", "c"]], tmp_path / "out", model, progress=False)
    assert [len(sentence.words) for sentence in embedded] == [1, 100_000, 2]
    vectors = embedded[1].vectors
    assert np.isfinite(vectors).all()
    assert np.abs(vectors).min(axis=1).max() > 0
    head, tail = layers_of(model, words[:50])[-1], layers_of(model, words[-50:])[-1]
    np.testing.assert_allclose(vectors[:50, :4], head[:, :4], atol=2e-6)
    np.testing.assert_allclose(vectors[-50:, 4:], tail[:, 4:], atol=2e-6)


# ---- what must not change


def test_a_corpus_has_the_identity_of_version_0_1_0(tmp_path):
    """So that a folder which it began goes on: `plan.json` and the shards hold these numbers."""
    text = "\ufeffIce is cold .\r\n\r\nWhy ? é文\n\n"
    (tmp_path / "a.txt").write_bytes(text.encode())
    lines = '{"tokens": ["a\\ud800b", "New York"], "id": 1}\n{"tokens": [], "id": 2}\n'
    (tmp_path / "a.jsonl").write_text(lines, encoding="utf-8")
    corpus = open_records(tmp_path / "a.txt")
    digest = "b7de4b92779aa8299f656a937218316fec5a4085eb4f34c75d9a92019de607d1"
    assert survey(corpus) == ({"sentences": 4, "sha256": digest}, 9)
    first, second = shard_inputs(corpus, 5)
    assert (first.number, first.first, first.words) == (0, 0, 5)
    assert first.digest == "1c6e6466c177873d42559a3632cf7f024b3f5454728512962e38f633e62d1b9c"
    assert (second.number, second.first, second.words) == (1, 2, 4)
    assert second.digest == "c53c93d4272f11c7f1323cb7ad5ea58a13ee5c50af3aed20f731a04257f90316"
    digest = "36b6aeb955a61fefb01bed1578ab3ad05e765a049d880f834b101f3ba01852c0"
    assert survey(open_records(tmp_path / "a.jsonl")) == ({"sentences": 2, "sha256": digest}, 3)
    assert survey(open_records(iter(["a b"]))) == ({"stream": "list_iterator"}, None)


def test_the_command_has_the_arguments_of_the_function():
    function = inspect.signature(elmo_hf.embed).parameters
    command = inspect.signature(cli.embed).parameters
    assert set(command) - {"context"} == set(function) - {"tokenizer"}
    defaults = {name: function[name].default for name in command if name != "context"}
    assert {name: command[name].default for name in defaults} == defaults | {"model": None}
