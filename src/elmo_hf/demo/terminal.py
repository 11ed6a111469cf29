"""Vectors in a terminal: some numbers of each, and how a word's vector follows its context.

print("\\n".join([*numbers(words, vectors), *comparisons(words, layers)]))
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from elmo_hf.errors import visible

Words = list[list[str]]
Position = tuple[int, int]  # sentence, word
PRINTED_NUMBERS = 6  # of a vector
BAR_WIDTH = 20  # characters for a cosine of 1


def numbers(
    words: Words, vectors: Sequence[np.ndarray], columns: Sequence[str] = ("vector",), pooled: bool = False
) -> Iterator[str]:
    """A line for each vector of words, ([layers,] words, dim), or if pooled of sentences, ([layers,] dim)."""
    for sentence, array in zip(words, vectors, strict=True):
        yield ""
        layers = array if len(columns) > 1 else array[None]
        rows = layers[:, None] if pooled else layers
        for index, word in enumerate([shown(sentence)] if pooled else sentence):
            for column, vector in zip(columns, rows[:, index], strict=True):
                first = " ".join(f"{number:+.4f}" for number in vector[:PRINTED_NUMBERS])
                label = f"{visible(word):>16}" + (f"  {column:>8}" if len(columns) > 1 else "")
                yield f"{label}  {first} ... ({len(vector)} numbers)"


def shown(sentence: list[str], width: int = 40) -> str:
    text = " ".join(sentence)
    return text if len(text) <= width else text[: width - 3] + "..."


def comparisons(words: Words, layers: Sequence[np.ndarray], first: int = 0) -> Iterator[str]:
    """For each word that occurs more than once, a line for each occurrence, compared with the first.

    `layers` are those of each sentence, (layers, words, dim), from layer number `first` on.
    """
    words = [[visible(word) for word in sentence] for sentence in words]
    repeated = repeated_words(words)
    if repeated:
        yield ""
        yield "A word in two places: the cosine of its vectors by layer. 1 is the same vector, layer 0 is the"
        yield "word without its context, the bar is the top layer's."
    for positions in repeated.values():
        yield ""
        yield from comparison(words, layers, positions, first)


def comparison(
    words: Words, layers: Sequence[np.ndarray], positions: list[Position], first: int
) -> Iterator[str]:
    lines = [f"{sentence + 1:>3}  {marked(words[sentence], word)}" for sentence, word in positions]
    vectors = [layers[sentence][:, word] for sentence, word in positions]  # (layers, dim) each
    width = max(map(len, lines))
    yield lines[0]
    for line, other in zip(lines[1:], vectors[1:], strict=True):
        norms = np.linalg.norm(vectors[0], axis=-1) * np.linalg.norm(other, axis=-1)
        cosines = ((vectors[0] * other).sum(axis=-1) / np.maximum(norms, 1e-8)).tolist()
        by_layer = "  ".join(f"{layer}: {cosine:.2f}" for layer, cosine in enumerate(cosines, start=first))
        bar = "█" * round(BAR_WIDTH * max(cosines[-1], 0))
        yield f"{line:{width}}  {by_layer}  {bar}"


def repeated_words(words: Words) -> dict[str, list[Position]]:
    """The positions of each word that occurs more than once, punctuation left out."""
    positions = defaultdict(list)
    for number, sentence in enumerate(words):
        for index, word in enumerate(sentence):
            positions[word].append((number, index))
    return {word: places for word, places in positions.items() if len(places) > 1 and word.isalnum()}


def marked(sentence: list[str], index: int) -> str:
    return " ".join(f"[{word}]" if number == index else word for number, word in enumerate(sentence))
