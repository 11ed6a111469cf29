"""Words to ids by the model's own tokenizer: letters of a lexicon, words beside them, other special words."""

import pickle

import numpy as np
import pytest

from elmo_hf import ElmoTokenizer
from elmo_hf.corpus.encoder import Encoder
from elmo_hf.corpus.source import Source
from elmo_hf.corpus.vocabulary import Vocabulary
from elmo_hf.corpus.windows import Plan, Windows
from tests.helpers.letters import WORDS, lexicons, reference_rows, write_lexicons
from tests.helpers.window_texts import VOCABULARY

SPECIALS = ("<bos>", "<eos>", "<oov>")
TEXT = ["Der Bär .", "o" * 60, "天氣 <bos> zz <pad>"]


def encoder_of(tmp_path, token_encoder="characters", **options):
    options = {"cut_words": True} | options
    tokenizer = ElmoTokenizer(**write_lexicons(tmp_path), **options)
    vocabulary = Vocabulary(WORDS, specials=SPECIALS, max_letters=48 if options["cut_words"] else None)
    return Encoder(vocabulary, token_encoder=token_encoder, tokenizer=tokenizer)


def expected_rows(words):
    """Of the corpus's words, in which <S> and </S> stand for the model's <bos> and <eos>."""
    words = [{"<S>": "<bos>", "</S>": "<eos>"}.get(word, word) for word in words]
    letters, ids = reference_rows(words, *lexicons(), 50)
    return np.array([[*letter_row, number] for letter_row, number in zip(letters, ids, strict=True)])


def test_windows_of_letters_and_words(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n".join(TEXT) + "\n", encoding="utf-8")
    encoder = encoder_of(tmp_path, word_column=True)
    plan = Plan(rows=1, steps=30, shuffle_sentences=0, epochs=1)
    for workers in (0, 1):
        [window] = Windows(Source(path), encoder, plan, workers=workers)
        sentences = [line.split() for line in TEXT]
        read = {
            0: [["<S>", *words, "</S>"] for words in sentences],
            1: [["</S>", *words[::-1], "<S>"] for words in sentences],
        }
        for direction, texts in read.items():
            inputs = [word for text in texts for word in text[:-1]]
            targets = [word for text in texts for word in text[1:]]
            mask = window.mask[direction, 0]
            assert mask.sum() == len(inputs)
            assert np.array_equal(window.char_ids[direction, 0][mask], expected_rows(inputs) + 1)
            assert np.array_equal(window.targets[direction, 0][mask], expected_rows(targets)[:, -1])
            assert not window.char_ids[direction, 0][~mask].any()


def test_words_of_a_table_are_cut(tmp_path):
    words = ["<S>", "Bär", "o" * 60, "zz", "<bos>"]
    assert encoder_of(tmp_path, "words").inputs(words).tolist() == [1, 5, 9, 0, 1]
    assert encoder_of(tmp_path, "words", cut_words=False).inputs(words).tolist() == [1, 5, 0, 0, 1]


def test_only_cut_words_are_in_a_vocabulary_that_cuts():
    words = ["<oov>", "<bos>", "<eos>", "abcdefg", "abcde"]
    ids = pickle.loads(pickle.dumps(Vocabulary(words, specials=SPECIALS, max_letters=5).ids))
    assert [ids[word] for word in ("abcdefg", "abcde", "abcdex", "abcd", "<bos>", "</S>")] == [
        4,
        4,
        4,
        0,
        1,
        2,
    ]


def test_bytes_by_a_tokenizer_are_those_without_one(tmp_path):
    (tmp_path / "vocab.txt").write_text("".join(word + "\n" for word in VOCABULARY.words), encoding="utf-8")
    tokenizer = ElmoTokenizer(tmp_path / "vocab.txt", 16)
    words = ["<S>", "a", "ж" * 20, "</S>", ""]
    rows = Encoder(VOCABULARY, tokenizer=tokenizer).inputs(words)
    assert rows.dtype == np.int16
    assert np.array_equal(rows, Encoder(VOCABULARY, max_characters=16).inputs(words))


def test_ids_beyond_16_bits(tmp_path):
    words = [*WORDS, *(f"w{number}" for number in range(40_000))]
    tokenizer = ElmoTokenizer(**write_lexicons(tmp_path, words), word_column=True)
    encoder = Encoder(Vocabulary(words, specials=SPECIALS), tokenizer=tokenizer)
    assert encoder.inputs(["w39999"])[0, -1] == len(words)


def test_a_vocabulary_without_the_special_words_is_refused():
    with pytest.raises(ValueError, match=r"has no line <oov>; a language model needs <bos>, <eos>, <oov>\."):
        Vocabulary(["<bos>", "<eos>", "a"], specials=SPECIALS)
