"""Texts as sentences, words, layers and labels."""

import numpy as np
import pytest
import torch

from elmo_hf import ElmoConfig, ElmoForTokenClassification, ElmoModel, ElmoTokenizer
from elmo_hf.demo.examples import EXAMPLES
from elmo_hf.demo.html import labels_of
from elmo_hf.demo.reading import MAX_CHARACTERS, MAX_WORDS, Reader, load, pieces, split
from elmo_hf.errors import ElmoError
from tests.helpers.demo_models import LABELS, SHAPE, TEXT


def test_text_is_read_sentence_by_sentence(reader, folders):
    text = reader.read(TEXT)
    expected = [
        ["He", "sat", "on", "the", "bank", "."],
        ["The", "bank", "lent", "him", "money", "."],
        ["Bank", "on", "it", ",", "said", "the", "man", "on", "the", "bank", "!"],
    ]
    assert text.sentences == expected
    assert [word.form for word in text.words] == [word for sentence in expected for word in sentence]
    model, tokenizer = ElmoModel.from_pretrained(folders / "model").eval(), ElmoTokenizer()
    start = 0
    for sentence in expected:
        encoding = tokenizer([sentence], is_split_into_words=True, return_tensors="pt")
        with torch.no_grad():
            layers = model(**encoding, output_hidden_states=True).hidden_states
        for actual, layer in zip(text.layers, layers, strict=True):
            np.testing.assert_allclose(actual[start : start + len(sentence)], layer[0].numpy(), atol=1e-5)
        start += len(sentence)
    assert text.note == ""
    assert reader.read(TEXT) is text  # cached


def test_occurrences_ignore_case(reader):
    text = reader.read(TEXT)
    assert [text.words[number].form for number in text.occurrences("bank")] == [
        "bank",
        "bank",
        "Bank",
        "bank",
    ]
    assert text.keys()[:3] == ["the", "bank", "on"]
    assert not {",", ".", "!"} & {*text.keys()}
    assert labels_of(text, text.occurrences("bank")) == dict(
        zip(text.occurrences("bank"), ["1", "2", "3.1", "3.2"], strict=True)
    )


@pytest.mark.parametrize("string", ["", " \n\n "])
def test_text_without_words(reader, string):
    text = reader.read(string)
    assert (text.words, text.keys(), reader.tag(string)) == ([], [], [])


def test_long_text_is_cut_with_a_note():
    tokenizer = ElmoTokenizer()
    sentences, note = split("word " * (MAX_WORDS + 5), tokenizer)
    assert (sum(map(len, sentences)), note) == (MAX_WORDS, "The text is cut after 1,000 words.")
    sentences, note = split("a\n" * MAX_WORDS + "b", tokenizer)
    assert (len(sentences), note) == (MAX_WORDS, "The text is cut after 1,000 words.")
    sentences, note = split("x" * (MAX_CHARACTERS + 1), tokenizer)
    assert (sentences, note) == ([["x" * MAX_CHARACTERS]], "The text is cut after 10,000 letters.")
    assert split("word " * MAX_WORDS, tokenizer)[1] == ""


def test_layers_of_another_width_are_not_mixed(reader):
    model = ElmoModel(ElmoConfig(**SHAPE | {"lstm_dim": 8, "projection_dim": 16}))
    wide = Reader(model, ElmoTokenizer())
    assert [layer.shape for layer in wide.read("Ice cream").layers] == [(2, 32), (2, 16), (2, 16)]
    assert wide.mixable == [1, 2]
    assert reader.mixable == [0, 1, 2]


def test_tags_equal_those_of_each_sentence_alone(reader, folders):
    model, tokenizer = ElmoForTokenClassification.from_pretrained(folders / "tagger").eval(), ElmoTokenizer()
    expected = []
    for sentence in reader.read(TEXT).sentences:
        encoding = tokenizer([sentence], is_split_into_words=True, return_tensors="pt")
        labels = [LABELS[label] for label in model.decode(**encoding)[0].tolist()]
        expected += [*pieces(sentence, labels), ("\n", None)]
    assert reader.tag(TEXT) == expected[:-1]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("B-PER I-PER O O B-LOC O", [("a b", "PER"), (" c d ", None), ("e", "LOC"), (" f", None)]),
        ("O O O O O O", [("a b c d e f", None)]),
        (
            "B-A B-B I-B B-B O O",
            [("a", "A"), (" ", None), ("b c", "B"), (" ", None), ("d", "B"), (" e f", None)],
        ),
        ("O O O O O B-A", [("a b c d e ", None), ("f", "A")]),
        ("X X O Y O O", [("a", "X"), (" ", None), ("b", "X"), (" c ", None), ("d", "Y"), (" e f", None)]),
    ],
)
def test_pieces_make_up_the_sentence(labels, expected):
    labelled = pieces(list("abcdef"), labels.split())
    assert labelled == expected
    assert "".join(piece for piece, _ in labelled) == "a b c d e f"


def test_examples_have_their_word_in_every_sentence(reader):
    for word, example in EXAMPLES.items():
        text = reader.read(example)
        assert len(text.sentences) == len(example.splitlines())
        sentences = [text.words[number].sentence for number in text.occurrences(word)]
        assert sentences == list(range(len(text.sentences)))


def test_models_that_cannot_be_loaded_are_refused_in_a_sentence(folders, tmp_path):
    for folder, tagger, message in (
        (tmp_path / "nowhere", None, "no ELMo can be loaded from .*nowhere"),
        (folders / "model", tmp_path / "nowhere", "no ELMo can be loaded from .*nowhere"),
        (folders / "model", folders / "model", "holds no ElmoForTokenClassification; --tagger takes"),
    ):
        with pytest.raises(ElmoError, match=message) as caught:
            load(folder, tagger)
        assert "\n" not in str(caught.value)
