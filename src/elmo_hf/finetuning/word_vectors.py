"""Ready word vectors for a task model's own words, from a text file as GloVe, word2vec or fastText have it.

    model = ElmoForTokenClassification.from_pretrained("org/elmo", vocab_size=..., task_word_dim=50)
    share = load_word_vectors(model, tokenizer, "glove.6B.50d.txt")

A line is a word and its numbers, with a blank between any two. A word of the tokenizer's vocabulary gets the
vector of that word, or else the one of the word in small letters. All others get random vectors like those.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from elmo_hf.model.task_elmo import ElmoTaskModel

LONGEST_LINE = 2**20  # characters


def load_word_vectors(model: ElmoTaskModel, tokenizer: Any, path: str | Path) -> float:
    """Fills the model's table, and returns the share of its words that the file has."""
    config = model.config
    if not config.task_word_dim:
        raise ValueError("this model has no word vectors of its own; make it with task_word_dim.")
    words = tokenizer.convert_ids_to_tokens(list(range(tokenizer.vocab_size)))  # a word may be there twice
    if len(words) != config.vocab_size:
        raise ValueError(
            f"the tokenizer has {len(words)} words, but the model's vocab_size is {config.vocab_size}."
        )
    vectors, found = read_word_vectors(path, words, config.task_word_dim)
    if not found.any():
        raise ValueError(f"{path} has none of the tokenizer's {len(words)} words.")
    known = vectors[found]
    vectors[~found] = torch.randn(int((~found).sum()), known.shape[1]) * known.std() + known.mean()
    table = model.task_words.word_table.weight
    with torch.no_grad():
        table.copy_(vectors)
    return float(found.float().mean())


def read_word_vectors(path: str | Path, words: list[str], dim: int) -> tuple[Tensor, Tensor]:
    """(words, dim) vectors, zero for a word that the file lacks, and (words,) whether it has it."""
    wanted = {*words, *(word.lower() for word in words)}
    vectors: dict[str, Tensor] = {}
    for number, line in _lines(Path(path)):
        word, *values = line.rsplit(" ", dim)
        if number == 1 and len(line.split()) == 2 and line.replace(" ", "").isdecimal():
            continue  # word2vec and fastText begin with two counts
        if len(values) != dim or not word:
            raise ValueError(
                f"{path}, line {number}: {len(values)} numbers follow the word, not task_word_dim's {dim}."
            )
        if word in wanted and word not in vectors:
            vectors[word] = _numbers(values, path, number)
    table, found = torch.zeros(len(words), dim), torch.zeros(len(words), dtype=torch.bool)
    for number, word in enumerate(words):
        vector = vectors.get(word, vectors.get(word.lower()))
        if vector is not None:
            table[number], found[number] = vector, True
    return table, found


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            number = 0
            while line := file.readline(LONGEST_LINE):
                number += 1
                if len(line) == LONGEST_LINE:
                    raise ValueError(f"{path}, line {number} is longer than any vector; is it a text file?")
                if line.strip():
                    yield number, line.rstrip("\r\n ")  # other blanks may be words
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}).") from None
    except OSError as error:
        raise ValueError(f"{path} could not be read ({error.strerror}).") from None


def _numbers(values: list[str], path: str | Path, line: int) -> Tensor:
    try:
        vector = torch.tensor([float(value) for value in values])
    except ValueError:
        raise ValueError(f"{path}, line {line}: not all that follows the word is a number.") from None
    if not torch.isfinite(vector).all():
        raise ValueError(f"{path}, line {line}: a number is not finite.")
    return vector
