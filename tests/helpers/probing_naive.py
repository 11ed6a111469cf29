"""A naive version of the probes' arithmetic: one sentence at a time, in loops over lists."""

import math
from collections import defaultdict

import pytest
import torch

from elmo_hf import ElmoConfig, ElmoModel, ElmoTokenizer
from tests.helpers import probing_data

SHAPE = {"lstm_dim": 24, "projection_dim": 8, "char_filters": [[1, 8], [2, 8]], "num_highway_layers": 1}


def save_model(folder, seed, **changes):
    torch.manual_seed(seed)
    ElmoModel(ElmoConfig(**SHAPE, **changes)).save_pretrained(folder)
    ElmoTokenizer().save_pretrained(folder)
    return folder


def refused(call, *arguments):
    """The one-sentence error that a call raises."""
    with pytest.raises(ValueError, match=r"\S") as caught:
        call(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


# ---- naive versions


def naive_words(sentence):
    """Words, and for each item with senses its first word, end and senses."""
    words, marks = [], []
    for item in sentence:
        text = item if isinstance(item, str) else item[0]
        start = len(words)
        words += text.replace("_", " ").split()
        if not isinstance(item, str):
            marks.append((start, len(words), item))
    return words, marks


class NaiveReader:
    """One sentence at a time, through the tokenizer and the model, no cache and no batch."""

    def __init__(self, folder):
        self.model, self.tokenizer = ElmoModel.from_pretrained(folder).eval(), ElmoTokenizer()

    @torch.no_grad()
    def __call__(self, words):
        """A list of layers, each a list of words' vectors."""
        encoding = self.tokenizer([words], is_split_into_words=True, return_tensors="pt")
        states = self.model(**encoding, output_hidden_states=True).hidden_states
        return [layer[0].double().tolist() for layer in states]


def mean(vectors):
    return [sum(numbers) / len(vectors) for numbers in zip(*vectors, strict=True)]


def cosine(a, b):
    norm = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / norm


def naive_occurrences(naive_reader, semcor, layer):
    """Senses to the vectors of their occurrences."""
    vectors_by_key = defaultdict(list)
    for sentence in semcor:
        words, marks = naive_words(sentence)
        vectors = naive_reader(words)[layer]
        for start, end, (_, _, _, keys) in marks:
            for key in keys:
                vectors_by_key[key].append(mean(vectors[start:end]))
    return vectors_by_key


def of_lemma(key, lemma, pos):
    return key.split("%")[0] == lemma and probing_data.KINDS[key.split("%")[1][0]] == pos


def naive_first(lemma, pos):
    return next((key for _, _, key in probing_data.INVENTORY if of_lemma(key, lemma, pos)), None)


def naive_scores(tests, choose):
    """The percentage of right keys for each set and for all; choose(words, start, end, lemma, pos) -> key."""
    right = {}
    for name, sentences in tests.items():
        right[name] = []
        for sentence in sentences:
            words, marks = naive_words(sentence)
            for start, end, (_, lemma, pos, keys) in marks:
                right[name].append(choose(words, start, end, lemma, pos) in keys)
    right["all"] = [answer for answers in right.values() for answer in answers]
    return {name: 100 * sum(answers) / len(answers) for name, answers in right.items()}
