"""The output of `elmo-hf vectors` that is to look at."""

import numpy as np

from elmo_hf.demo.terminal import comparisons, numbers, repeated_words


def test_a_line_for_each_word():
    vectors = np.array([[2.0, -1.0]])
    assert list(numbers([["bank"]], [vectors])) == ["", "            bank  +2.0000 -1.0000 ... (2 numbers)"]


def test_a_line_for_each_layer_of_a_word():
    layers = np.array([[[2.0], [3.0]], [[4.0], [5.0]]])  # (layers, words, dim)
    assert list(numbers([["a", "b"]], [layers], ["layer_0", "layer_2"])) == [
        "",
        "               a   layer_0  +2.0000 ... (1 numbers)",
        "               a   layer_2  +4.0000 ... (1 numbers)",
        "               b   layer_0  +3.0000 ... (1 numbers)",
        "               b   layer_2  +5.0000 ... (1 numbers)",
    ]


def test_a_line_for_each_sentence_if_pooled():
    words = [["a", "b"], ["word"] * 20]
    lines = list(numbers(words, [np.array([2.0]), np.array([3.0])], pooled=True))
    assert lines[1] == "             a b  +2.0000 ... (1 numbers)"
    assert lines[3].startswith("word word word word word word word wo...  +3.0000")


def test_words_that_occur_once_and_punctuation_are_not_compared():
    words = [["a", "bank", "."], ["the", "bank", "."]]
    assert repeated_words(words) == {"bank": [(0, 1), (1, 1)]}
    assert list(comparisons([["a", "bank", "."]], [np.ones((2, 3, 4))])) == []


def test_the_cosine_of_each_layer_and_the_bar_of_the_top():
    first = np.array([[[1.0, 0.0]], [[1.0, 0.0]]])  # (layers, words, dim)
    second = np.array([[[2.0, 0.0]], [[3.0, 4.0]]])
    *_, line_1, line_2 = comparisons([["bank"], ["bank"]], [first, second])
    assert line_1 == "  1  [bank]"
    assert line_2 == f"  2  [bank]  0: 1.00  1: 0.60  {'█' * 12}"


def test_the_number_of_the_first_layer():
    first, second = np.array([[[1.0, 0.0]]]), np.array([[[3.0, 4.0]]])
    *_, line = comparisons([["bank"], ["bank"]], [first, second], first=1)
    assert line == f"  2  [bank]  1: 0.60  {'█' * 12}"


def test_a_sentence_does_not_steer_the_terminal():
    words, vectors = [["bank\x1b[2J", "\u202ebank", "bank", "bank"]], [np.ones((4, 3))]
    printed = "\n".join([*numbers(words, vectors), *comparisons(words, [np.ones((1, 4, 3))])])
    assert not set(printed) & set("\x1b\u202e")
    assert "\ufffd" in printed
