"""Vectors to look at in a terminal: some numbers of each, and how a word's vector follows its context.

words, layers = read(["He sat on the bank.", "The bank lent him money."], model, tokenizer)
print("\\n".join([*numbers(words, layers), *comparisons(words, layers)]))
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from elmo_hf.model.modeling_elmo import ElmoModel
from elmo_hf.model.tokenization_elmo import ElmoTokenizer

Words = list[list[str]]
SHOWN = 6  # numbers of a vector
BAR = 20  # characters of the bar of 1


def read(sentences: Sequence[str], model: ElmoModel, tokenizer: ElmoTokenizer) -> tuple[Words, list[Tensor]]:
    """Each sentence's words, and its layers (layers, words, dim)."""
    words = [tokenizer.tokenize(sentence) for sentence in sentences]
    for number, sentence in enumerate(words, start=1):
        if not sentence:
            raise ValueError(f"sentence {number} has no words; give each sentence at least one.")
    encoding = tokenizer(list(sentences), padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden_states = model(**encoding, output_hidden_states=True).hidden_states
    stacked = torch.stack(hidden_states, dim=1)
    return words, [layers[:, : len(sentence)] for layers, sentence in zip(stacked, words, strict=True)]


def numbers(words: Words, layers: list[Tensor]) -> Iterator[str]:
    """The average of the layers, a line a word."""
    for sentence, found in zip(words, layers, strict=True):
        yield ""
        for word, vector in zip(sentence, found.mean(dim=0).tolist(), strict=True):
            shown = " ".join(f"{number:+.4f}" for number in vector[:SHOWN])
            yield f"{word:>16}  {shown} ... ({len(vector)} numbers)"


def comparisons(words: Words, layers: list[Tensor]) -> Iterator[str]:
    """Words that occur more than once, each occurrence beside the first one."""
    found = repeated(words)
    if found:
        yield ""
        yield "A word in two places: the cosine of its vectors by layer. 1 is the same vector, layer 0 is the"
        yield "word without its context, the bar is the top layer's."
    for places in found.values():
        yield ""
        yield from comparison(words, layers, places)


def comparison(words: Words, layers: list[Tensor], places: list[tuple[int, int]]) -> Iterator[str]:
    shown = [f"{sentence + 1:>3}  {marked(words[sentence], word)}" for sentence, word in places]
    width = max(map(len, shown))
    yield shown[0]
    for line, place in zip(shown[1:], places[1:], strict=True):
        cosines = torch.cosine_similarity(at(layers, places[0]), at(layers, place), dim=-1).tolist()
        told = "  ".join(f"{layer}: {cosine:.2f}" for layer, cosine in enumerate(cosines))
        bar = "█" * round(BAR * max(cosines[-1], 0))
        yield f"{line:{width}}  {told}  {bar}"


def repeated(words: Words) -> dict[str, list[tuple[int, int]]]:
    """The places (sentence, word) of each word that has more than one, signs left out"""
    places = defaultdict(list)
    for number, sentence in enumerate(words):
        for place, word in enumerate(sentence):
            places[word].append((number, place))
    return {word: found for word, found in places.items() if len(found) > 1 and word.isalnum()}


def at(layers: list[Tensor], place: tuple[int, int]) -> Tensor:
    sentence, word = place
    return layers[sentence][:, word]


def marked(sentence: list[str], place: int) -> str:
    return " ".join(f"[{word}]" if number == place else word for number, word in enumerate(sentence))
