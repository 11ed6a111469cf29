"""Paragraphs to sentences by the documented rules, and sentences to groups and batches."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elmo_hf.corpus.sentences import batches, grouped, split_sentences, word_count

SENTENCES = [
    "He paid. | Mr. Smith left. | The U.S. Army came.",
    "He lived in the U.S. | The army left at 5 p.m. | He stayed until 5 p.m. Monday.",
    "It cost 3.14 dollars, see No. 5 and Fig. 2. | There is no. | He said no. | Then he left.",
    "Well... perhaps. | Well... | He left… | Now what?! | Yes!!",
    '"Stop!" he said. | "Go on." | Then "he left." | She stayed (as she said.) | So it was.',
    "J. R. R. Tolkien wrote plan B. | It failed on Jan. 5, in Jan. | By Feb. 1 it was I. | You know.",
    "Apple Inc. said so. | Nobody at Apple Inc. | They left. | See Smith et al. (2018) for it.",
    "1. Introduction. | It is the iPhone. iPhones sell. | Roe v. Wade, e.g. This one.",
    "He paid . | She left . | Mr. Smith , too !",  # split into words already
    "Él pagó. | ¿Por qué? | ¡Así es! | Étienne vint.",
    "Он ушёл. | Она осталась.",
    "他来了。|他走了！|“是吗？”|她说。",
    "राम आया। | वह गया।",
    "ماذا؟ | نعم. | هل",
    "no end",
    "...",
]


@pytest.mark.parametrize("text", SENTENCES)
def test_sentences(text):
    assert split_sentences(text.replace("|", " ").replace("  ", " ").replace("  ", " ")) == [
        part.strip() for part in text.split("|")
    ]
    if "他" in text:
        assert split_sentences(text.replace("|", "")) == text.split("|")


@given(st.text() | st.text(alphabet="aA1 .!?…。\"')\n"))
def test_sentences_are_the_text_without_its_outer_whitespace(text):
    sentences = split_sentences(text)
    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert all(sentence and sentence == sentence.strip() for sentence in sentences)


def test_no_text_is_slow_to_split():
    """Each would take minutes, or the memory, if anything were read more than a few times."""
    for text in (".", ". ", "a. ", '."', "A. B", "?!) ", "。", "Mr. ", "A. Bee. "):
        sentences = split_sentences(text * 50_000)
        assert "".join("".join(sentences).split()) == "".join(text.split()) * 50_000
    assert len(sentences) == 50_000
    assert split_sentences("." + " " * 1_000_000) == ["."]


# ---- groups and batches


def test_groups_are_cut_by_words():
    records = ["a b", "", ["New York", "c"], "d", "e f g h", "i"]
    assert list(grouped(records, 4)) == [["a b", "", ["New York", "c"]], ["d", "e f g h"], ["i"]]
    assert list(grouped(records, 1)) == [[record] for record in records]
    assert list(grouped([], 4)) == []


def test_a_long_text_without_blanks_counts_as_more_than_a_word():
    assert word_count("文字。" * 160) == 30
    assert [word_count(record) for record in ("", [], "a b", ["New York"])] == [1, 1, 2, 1]


def test_batches_have_little_padding_and_every_item_once():
    lengths = [random.Random(3).randint(0, 40) for _ in range(200)] + [500]
    batched = list(batches(lengths, budget=100))
    numbers = [number for batch in batched for number in batch]
    assert sorted(numbers) == [number for number, length in enumerate(lengths) if length]
    assert batched[0] == [200]
    assert all(len(batch) * lengths[batch[0]] <= 100 for batch in batched[1:])
    padded = sum(len(batch) * lengths[batch[0]] for batch in batched)
    assert padded < 1.05 * sum(lengths)
    assert list(batches([2, 3, 0, 2, 3], budget=6)) == [[1, 4], [0, 3]]  # equal ones in their order
