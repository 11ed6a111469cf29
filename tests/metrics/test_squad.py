"""SQuAD's scores, compared with the official script's rule written another way."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elmo_hf.metrics.squad import exact_match, f1, normalize_answer, squad_scores

PUNCTUATION = set("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


def naive_words(text):
    """The rule, a letter and a word at a time."""
    bare = "".join(letter for letter in text.lower() if letter not in PUNCTUATION)
    pieces, piece = [], ""
    for letter in bare:  # as \\b sees words: runs of letters, digits and what is like them
        if re.match(r"\w", letter):
            piece += letter
        else:
            pieces += [piece, letter]
            piece = ""
    words = [" " if word in {"a", "an", "the"} else word for word in [*pieces, piece]]
    return "".join(words).split()


def plain_f1(answer, right):
    words, gold_words = naive_words(answer), naive_words(right)
    remaining, common = list(gold_words), 0
    for word in words:
        if word in remaining:
            remaining.remove(word)
            common += 1
    if common == 0:
        return 0.0
    precision, recall = common / len(words), common / len(gold_words)
    return 2 * precision * recall / (precision + recall)


WORDS = st.lists(
    st.sampled_from(
        ["a", "the", "An", "Ada's", "Zoë", "1,000", "-", "£3.50", "the-end", "b", "\u00a0", "a’s"]
    )
)
TEXTS = st.one_of(WORDS.map(" ".join), WORDS.map("".join), st.text(max_size=20))


@given(TEXTS, TEXTS)
@settings(deadline=None, max_examples=300)
def test_both_scores_equal_the_plain_rule(answer, right):
    assert normalize_answer(answer).split() == naive_words(answer)
    assert exact_match(answer, right) == float(naive_words(answer) == naive_words(right))
    assert f1(answer, right) == pytest.approx(plain_f1(answer, right))


@pytest.mark.parametrize(
    ("answer", "right", "is_exact", "expected"),
    [
        ("The Ada Lovelace.", "ada  lovelace", 1, 1),
        ("Ada", "Ada Lovelace", 0, 2 / 3),
        ("paid paid", "paid", 0, 2 / 3),
        ("Anna", "Ada", 0, 0),
        ("the", "a", 1, 0),  # nothing is left of either: equal, but no common word
        ("1,000", "1000", 1, 1),
        ("Zoë", "zoë", 1, 1),
        ("“Ada”", "Ada", 0, 0),  # only ASCII's punctuation goes
        ("theatre", "atre", 0, 0),
    ],
)
def test_known_scores(answer, right, is_exact, expected):
    assert exact_match(answer, right) == is_exact
    assert f1(answer, right) == pytest.approx(expected)


def test_the_best_of_several_gold_answers_counts():
    references = {"1": ["Ada", "Ada Lovelace"], "2": ["in London"], "3": ["1815"], "4": ["x"]}
    answers = {"1": "the Ada Lovelace", "2": "London", "3": "1816"}
    scores = squad_scores(answers, references)
    assert scores == pytest.approx({"exact_match": 25.0, "f1": 100 * (1 + 2 / 3) / 4})


@pytest.mark.parametrize(
    ("answers", "references", "message"),
    [
        ({}, {}, "there are no questions"),
        ({"2": "x"}, {"1": ["x"]}, "an answer to '2', which is none of the questions"),
        ({"1": "x"}, {"1": []}, "question '1' needs a list of one or more gold answers"),
        ({"1": "x"}, {"1": "x"}, "question '1' needs a list of one or more gold answers, not 'x'"),
    ],
)
def test_mistakes_are_one_sentence(answers, references, message):
    with pytest.raises(ValueError, match=message) as error:
        squad_scores(answers, references)
    assert "\n" not in str(error.value)
