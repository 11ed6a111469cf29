"""Pretrained word vectors for a task model's own words, from a text file of GloVe, word2vec or fastText.

    model = ElmoForTokenClassification.from_pretrained("org/elmo", vocab_size=..., task_word_dim=50)
    share = load_word_vectors(model, tokenizer, "glove.6B.50d.txt")

A line is a word and its numbers, separated by spaces. A word of the tokenizer's vocabulary gets the vector of
that word, or else of its lower case. All other words get random vectors with the same mean and deviation.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from elmo_hf.corpus.readers import check_file
from elmo_hf.errors import ElmoError
from elmo_hf.model.task_elmo import ElmoTaskModel

LONGEST_LINE = 2**20  # characters


def load_word_vectors(model: ElmoTaskModel, tokenizer: Any, path: str | Path) -> float:
    """Fill the model's word table from a file.

    Args:
        model: a task model with `task_word_dim`.
        tokenizer: the tokenizer whose vocabulary the table has.
        path: the text file of vectors.

    Returns:
        The share of the tokenizer's words that the file has.

    Raises:
        ElmoError: if the model, the tokenizer and the file do not fit, or the file is broken. The table is
            then unchanged.
    """
    config = model.config
    if not config.task_word_dim:
        raise ElmoError("this model has no word vectors of its own; create it with task_word_dim.")
    words = tokenizer.convert_ids_to_tokens(list(range(tokenizer.vocab_size)))  # may contain a word twice
    if len(words) != config.vocab_size:
        raise ElmoError(
            f"the tokenizer has {len(words)} words, but the model's vocab_size is {config.vocab_size}."
        )
    vectors, is_known = read_word_vectors(path, words, config.task_word_dim)
    if not is_known.any():
        raise ElmoError(f"{path} has none of the tokenizer's {len(words)} words.")
    known = vectors[is_known]
    vectors[~is_known] = torch.randn(int((~is_known).sum()), known.shape[1]) * known.std() + known.mean()
    table = model.task_words.word_table.weight
    with torch.no_grad():
        table.copy_(vectors)
    return float(is_known.float().mean())


def read_word_vectors(path: str | Path, words: list[str], dim: int) -> tuple[Tensor, Tensor]:
    """Return vectors (words, dim), zero for words that the file lacks, and whether it has each (words,)."""
    needed = {*words, *(word.lower() for word in words)}
    vectors: dict[str, Tensor] = {}
    for number, line in _lines(Path(path)):
        word, *values = line.rsplit(" ", dim)
        if number == 1 and len(line.split()) == 2 and line.replace(" ", "").isdecimal():
            continue  # word2vec and fastText begin with two counts
        if len(values) != dim or not word:
            raise ElmoError(
                f"{path}, line {number}: {len(values)} numbers follow the word, not task_word_dim's {dim}."
            )
        if word in needed and word not in vectors:
            vectors[word] = _numbers(values, path, number)
    table, is_known = torch.zeros(len(words), dim), torch.zeros(len(words), dtype=torch.bool)
    for number, word in enumerate(words):
        vector = vectors.get(word, vectors.get(word.lower()))
        if vector is not None:
            table[number], is_known[number] = vector, True
    return table, is_known


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, with their numbers."""
    check_file(str(path))
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            number = 0
            while line := file.readline(LONGEST_LINE):
                number += 1
                if len(line) == LONGEST_LINE:
                    raise ElmoError(f"{path}, line {number} is longer than any vector; is it a text file?")
                if line.strip():
                    yield number, line.rstrip("\r\n ")  # other white space may be a word
    except UnicodeDecodeError as error:
        raise ElmoError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}).") from None
    except OSError as error:
        raise ElmoError(f"{path} could not be read ({error.strerror}).") from None


def _numbers(values: list[str], path: str | Path, line: int) -> Tensor:
    try:
        vector = torch.tensor([float(value) for value in values])
    except ValueError:
        raise ElmoError(f"{path}, line {line}: a value after the word is no number.") from None
    if not torch.isfinite(vector).all():
        raise ElmoError(f"{path}, line {line}: a number is not finite.")
    return vector
