"""What is measured: sizes, settings, sentences, and the arithmetic of a word. Standard library and Python 3.9
only, because the environments of other packages import this file too.

    sentences = made_up_sentences(2000)
    calls = calls_of_round("batch", sentences, number=0)    # [[sentence, ...], ...], one list a call
"""

from __future__ import annotations

import hashlib
import itertools
import math
import random
import re
from pathlib import Path
from typing import Any

SIZES: dict[str, dict[str, Any]] = {
    "original": {
        "lstm_dim": 4096,
        "projection_dim": 512,
        "num_highway_layers": 2,
        "char_filters": [[1, 32], [2, 32], [3, 64], [4, 128], [5, 256], [6, 512], [7, 1024]],
    },
    "small": {
        "lstm_dim": 1024,
        "projection_dim": 128,
        "num_highway_layers": 1,
        "char_filters": [[1, 32], [2, 32], [3, 64], [4, 128], [5, 256], [6, 512]],
    },
    "elmo-tiny": {
        "lstm_dim": 512,
        "projection_dim": 128,
        "num_highway_layers": 1,
        "char_filters": [[1, 16], [2, 32], [3, 64], [4, 128], [5, 256]],
    },
    "tiny": {  # for tests of the benchmark
        "lstm_dim": 32,
        "projection_dim": 16,
        "num_highway_layers": 1,
        "char_filters": [[1, 8], [2, 8], [3, 16]],
    },
}
LENGTHS = {f"single-{length}": length for length in (5, 10, 20, 40, 60)}
SETTINGS = {
    "batch": "a batch of 32 sentences of about equal length",
    "ready": "a batch of 32 sentences, from ready character ids to all layers",
    "single": "sentences one at a time",
    "corpus": "unsorted sentences of all lengths, as one job",
    "train": "a training step: forward and backward over 128 x 20 words",
    **{name: f"sentences of {length} words one at a time" for name, length in LENGTHS.items()},
}
READING = tuple(name for name in SETTINGS if name != "train")
BATCH = 32
SINGLE_CALLS = 8
TRAIN_ROWS, TRAIN_WORDS = 128, 20
LONGEST_SENTENCE = 100
NUM_LAYERS = 2
PIECES_PER_WORD = 1.25


# ---- sentences


def made_up_sentences(number, seed=0, vocabulary=50_000):
    """Sentences of made-up words: frequencies by Zipf's law, frequent words short, lengths of sentences
    log-normal (about 22 words on average)."""
    rng = random.Random(seed)
    words = made_up_words(rng, vocabulary)
    cumulative = list(itertools.accumulate(1 / (rank + 2.7) for rank in range(len(words))))
    sentences = []
    for _ in range(number):
        length = min(max(round(rng.lognormvariate(2.95, 0.55)), 3), LONGEST_SENTENCE)
        sentences.append([*rng.choices(words, cum_weights=cumulative, k=length - 1), "."])
    return sentences


def made_up_words(rng, number):
    letters, weights = "etaoinshrdlcumwfgypbvkjxqz", [1 / (rank + 4) for rank in range(26)]
    words = [",", "the", "of", "and"]
    known = set(words)
    while len(words) < number:
        length = max(1, round(rng.gauss(1.2 + 0.45 * math.log2(len(words)), 1.5)))
        word = "".join(rng.choices(letters, weights, k=length))
        if word not in known:
            known.add(word)
            words.append(word)
    return words


def read_sentences(path, number):
    """The first sentences of a file of words separated by spaces. A line is split after each " . "; headings
    (WikiText's "= Title =") and sentences of more than 100 words are skipped."""
    sentences = []
    with Path(path).open(encoding="utf-8") as lines:
        for line in lines:
            if not line.strip() or line.lstrip().startswith("="):
                continue
            split = [sentence.split() for sentence in re.split(r"(?<= \.) ", line.strip())]
            sentences += [words for words in split if 0 < len(words) <= LONGEST_SENTENCE]
            if len(sentences) >= number:
                return sentences[:number]
    return sentences


def fingerprint(sentences):
    text = "\n".join(" ".join(sentence) for sentence in sentences)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


# ---- rounds


def calls_of_round(setting, sentences, number):
    """The calls of a round, each a list of sentences. Rounds differ, so that no cache helps from one to the
    next, except in "corpus", where a round has all sentences."""
    if setting == "corpus":
        return [sentences]
    if setting == "train":
        return [training_rows(sentences, number)]
    if setting in LENGTHS:
        return [[sentence] for sentence in of_one_length(sentences, number * SINGLE_CALLS, LENGTHS[setting])]
    if setting == "single":
        chosen = cyclic(sentences, number * SINGLE_CALLS, SINGLE_CALLS)
        return [[sentence] for sentence in chosen]
    in_order = sorted(sentences, key=len)
    batches = len(in_order) // BATCH or 1
    # From the middle of the lengths outwards: neither the shortest nor the longest.
    middle = batches // 2 + (number + 1) // 2 * (-1 if number % 2 else 1)
    return [cyclic(in_order, middle % batches * BATCH, BATCH)]


def cyclic(items, start, number):
    return [items[(start + place) % len(items)] for place in range(number)]


def of_one_length(sentences, start, length):
    """Sentences of the text's words, whatever sentences they come from."""
    words = [word for sentence in sentences for word in sentence]
    return [cyclic(words, (start + place) * length, length) for place in range(SINGLE_CALLS)]


def training_rows(sentences, number):
    words = [word for sentence in sentences for word in sentence]
    chosen = cyclic(words, number * TRAIN_ROWS * TRAIN_WORDS, TRAIN_ROWS * TRAIN_WORDS)
    return [chosen[start : start + TRAIN_WORDS] for start in range(0, len(chosen), TRAIN_WORDS)]


def batches(sentences, size=BATCH, by_length=False):
    """Indices of the sentences in batches, in the file's order or by length."""
    places = list(range(len(sentences)))
    if by_length:
        places.sort(key=lambda place: len(sentences[place]))
    return [places[start : start + size] for start in range(0, len(places), size)]


def number_of_words(calls):
    return sum(len(sentence) for call in calls for sentence in call)


# ---- arithmetic


LSTMS = NUM_LAYERS * 2  # two directions a layer
LSTM_PRODUCTS = ("input", "state", "projection")


def lstm_work(size):
    """Operations of a word in all LSTMs, by product: with the input, with the state, and the projection."""
    cells, width = SIZES[size]["lstm_dim"], SIZES[size]["projection_dim"]
    gates = LSTMS * 2 * width * 4 * cells
    return {"input": gates, "state": gates, "projection": LSTMS * 2 * cells * width}


def word_work(size):
    """Operations of a word before the LSTMs. Convolutions count as none: they can be looked up in a table."""
    filters, width = number_of_filters(size), SIZES[size]["projection_dim"]
    highways = SIZES[size]["num_highway_layers"]
    return {"highway": highways * 2 * 2 * filters * filters, "word": 2 * filters * width}


def number_of_filters(size):
    return sum(count for _, count in SIZES[size]["char_filters"])


def elmo_work(size, setting, calls):
    """The necessary operations, by product: a step for each word, and the characters once for each distinct
    word of a call. A contestant that does more gets no credit for it."""
    distinct = sum(len({word for sentence in call for word in sentence}) for call in calls)
    steps = times(lstm_work(size), number_of_words(calls))
    forward = {**steps, **times(word_work(size), distinct)}
    return times(forward, 3) if setting == "train" else forward


def times(work, number):
    return {product: number * operations for product, operations in work.items()}


def products(size):
    """The model's products as (name, rows, inner, columns), to measure the machine's peak with. Products with
    inputs and words have 256 rows, the best for the cache: with more they get slower again."""
    cells, width = SIZES[size]["lstm_dim"], SIZES[size]["projection_dim"]
    filters, many = number_of_filters(size), BATCH * 8
    return [
        ("input", many, width, 4 * cells),
        ("state", BATCH, width, 4 * cells),
        ("projection", BATCH, cells, width),
        ("highway", many, filters, filters),
        ("word", many, filters, width),
    ]
