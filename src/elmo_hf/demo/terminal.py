"""Vectors in a terminal: some numbers of each, and how a word's vector follows its context.

words, layers = read(["He sat on the bank.", "The bank lent him money."], model, tokenizer)
print("\\n".join([*numbers(words, layers), *comparisons(words, layers)]))
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from elmo_hf.errors import ElmoError, visible
from elmo_hf.model.modeling_elmo import ElmoModel
from elmo_hf.model.tokenization_elmo import ElmoTokenizer

Words = list[list[str]]
Position = tuple[int, int]  # sentence, word
PRINTED_NUMBERS = 6  # of a vector
BAR_WIDTH = 20  # characters for a cosine of 1


def read(sentences: Sequence[str], model: ElmoModel, tokenizer: ElmoTokenizer) -> tuple[Words, list[Tensor]]:
    """The words of each sentence, as a terminal may show them, and its layers (layers, words, dim)."""
    words = [tokenizer.tokenize(sentence) for sentence in sentences]
    for number, sentence in enumerate(words, start=1):
        if not sentence:
            raise ElmoError(f"sentence {number} has no words; give each sentence at least one.")
    encoding = tokenizer(list(sentences), padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden_states = model(**encoding, output_hidden_states=True).hidden_states
    stacked = torch.stack(hidden_states, dim=1)
    shown = [[visible(word) for word in sentence] for sentence in words]
    return shown, [layers[:, : len(sentence)] for layers, sentence in zip(stacked, words, strict=True)]


def numbers(words: Words, layers: list[Tensor]) -> Iterator[str]:
    """A line for each word: the average of its layers."""
    for sentence, sentence_layers in zip(words, layers, strict=True):
        yield ""
        for word, vector in zip(sentence, sentence_layers.mean(dim=0).tolist(), strict=True):
            first = " ".join(f"{number:+.4f}" for number in vector[:PRINTED_NUMBERS])
            yield f"{word:>16}  {first} ... ({len(vector)} numbers)"


def comparisons(words: Words, layers: list[Tensor]) -> Iterator[str]:
    """For each word that occurs more than once, a line for each occurrence, compared with the first."""
    repeated = repeated_words(words)
    if repeated:
        yield ""
        yield "A word in two places: the cosine of its vectors by layer. 1 is the same vector, layer 0 is the"
        yield "word without its context, the bar is the top layer's."
    for positions in repeated.values():
        yield ""
        yield from comparison(words, layers, positions)


def comparison(words: Words, layers: list[Tensor], positions: list[Position]) -> Iterator[str]:
    lines = [f"{sentence + 1:>3}  {marked(words[sentence], word)}" for sentence, word in positions]
    vectors = [layers[sentence][:, word] for sentence, word in positions]  # (layers, dim) each
    width = max(map(len, lines))
    yield lines[0]
    for line, other in zip(lines[1:], vectors[1:], strict=True):
        cosines = torch.cosine_similarity(vectors[0], other, dim=-1).tolist()
        by_layer = "  ".join(f"{layer}: {cosine:.2f}" for layer, cosine in enumerate(cosines))
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
