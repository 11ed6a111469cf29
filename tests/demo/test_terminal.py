"""The output of `elmo-hf vectors`."""

import pytest
import torch

from elmo_hf import ElmoConfig, ElmoModel, ElmoTokenizer
from elmo_hf.demo.terminal import comparisons, numbers, read, repeated_words
from elmo_hf.errors import ElmoError


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = ElmoConfig(lstm_dim=8, projection_dim=4, char_filters=[[1, 4], [2, 4]], num_highway_layers=1)
    return ElmoModel(config).eval()


def test_each_sentence_has_its_own_words_and_layers(model):
    words, layers = read(["A bank lent it.", "Why?"], model, ElmoTokenizer())
    assert words == [["A", "bank", "lent", "it", "."], ["Why", "?"]]
    assert [tuple(sentence.shape) for sentence in layers] == [(3, 5, 8), (3, 2, 8)]
    alone = read(["Why?"], model, ElmoTokenizer())[1][0]
    torch.testing.assert_close(layers[1], alone, atol=1e-6, rtol=0)


def test_a_sentence_without_words_is_refused(model):
    with pytest.raises(ElmoError, match="sentence 2 has no words"):
        read(["One.", "  "], model, ElmoTokenizer())


def test_numbers_are_those_of_the_layers_average():
    layers = [torch.tensor([[[1.0, -2.0]], [[3.0, 0.0]]])]
    assert list(numbers([["bank"]], layers)) == ["", "            bank  +2.0000 -1.0000 ... (2 numbers)"]


def test_words_that_occur_once_and_punctuation_are_not_compared():
    words = [["a", "bank", "."], ["the", "bank", "."]]
    assert repeated_words(words) == {"bank": [(0, 1), (1, 1)]}
    assert list(comparisons([["a", "bank", "."]], [torch.ones(2, 3, 4)])) == []


def test_the_cosine_of_each_layer_and_the_bar_of_the_top():
    first = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]])  # (layers, words, dim)
    second = torch.tensor([[[2.0, 0.0]], [[3.0, 4.0]]])
    *_, line_1, line_2 = comparisons([["bank"], ["bank"]], [first, second])
    assert line_1 == "  1  [bank]"
    assert line_2 == f"  2  [bank]  0: 1.00  1: 0.60  {'█' * 12}"


def test_a_sentence_does_not_steer_the_terminal(model):
    words, layers = read(["bank\x1b[2J \u202ebank bank"], model, ElmoTokenizer())
    printed = "\n".join([*numbers(words, layers), *comparisons(words, layers)])
    assert not set(printed) & set("\x1b\u202e")
    assert "\ufffd" in printed
