"""Raw text is split as a whole sentence is, whatever stands between its blanks."""

import copy
import pickle
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elmo_hf.corpus import words as module
from elmo_hf.corpus.words import RawWords
from elmo_hf.model.words_elmo import split_text

PIECES = [
    "He",
    "didn't",
    "U.S.",
    "etc.",
    "Dr.",
    "J.",
    "<UNK>",
    "x<UNK>",
    "3.14",
    "1,000",
    "--",
    "...",
    "(a",
    "b.)",
]
PIECES += [
    "'s",
    "’s",
    "don’t",
    "é\u0301",
    "-5",
    "..5",
    "a.-b",
    "\u0301",
    "天氣。",
    "No.",
    "1990's",
    "'",
    "\u200da",
]
BLANKS = [" ", "  ", "\t", "\n", "\x1c", "\u00a0", "\u2003", "\x85"]


def whole(text):
    return split_text(text, "penn", whole=("<UNK>",)).words


@pytest.mark.parametrize("seed", range(30))
def test_pieces_are_split_as_in_their_sentence(seed):
    draw, words = random.Random(seed), RawWords()
    for _ in range(200):
        parts = [
            draw.choice([*PIECES, *BLANKS, ""]) + draw.choice([*BLANKS, ""])
            for _ in range(draw.randint(0, 9))
        ]
        text = "".join(parts)
        assert words.split(text) == whole(text)


@given(st.text(max_size=30))
def test_any_text(text):
    assert RawWords().split(text) == whole(text)


def test_few_pieces_are_kept(monkeypatch):
    monkeypatch.setattr(module, "MOST_PIECES", 3)
    words = RawWords()
    for number in range(20):
        text = f"piece{number} Mr. {'x' * number * 5} Dr."
        assert words.split(text) == whole(text)
        assert len(words._inner) <= 3
    assert all(len(piece) <= 40 for piece in words._inner)
    again = copy.deepcopy(pickle.loads(pickle.dumps(words)))
    assert again.split("Mr. Smith paid Mr.") == whole("Mr. Smith paid Mr.")
