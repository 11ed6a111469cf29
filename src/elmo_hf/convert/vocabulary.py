"""The vocabulary beside the weights: its tokenizer, and whether arrays have one row for each of its words."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from elmo_hf.convert.arrays import Arrays
from elmo_hf.convert.files import check_readable
from elmo_hf.errors import ElmoError
from elmo_hf.model.folder_elmo import check_inside
from elmo_hf.model.tokenization_elmo import ElmoTokenizer
from elmo_hf.model.words_elmo import MAX_VOCABULARY, read_vocabulary


def read_tokenizer(vocabulary: Path | None, max_characters_per_token: int) -> ElmoTokenizer:
    if vocabulary is not None:
        check_readable(vocabulary)
        if vocabulary.stat().st_size > MAX_VOCABULARY:
            raise ElmoError(f"{vocabulary} is too large for a vocabulary; give one word a line.")
        if not vocabulary.read_bytes().strip():
            raise ElmoError(f"{vocabulary} is empty; give a vocabulary with one word a line.")
    try:
        return ElmoTokenizer(vocab_file=vocabulary, max_characters_per_token=max_characters_per_token)
    except ValueError as error:  # it names the file
        raise ElmoError(f"{str(error).rstrip('.')}; save it with one word a line.") from error


def copy_vocabulary(path: Path, target: Path) -> None:
    """Copy the vocabulary of a folder, which may come from anybody, if a tokenizer would read it."""
    try:
        read_vocabulary(check_inside(path))
    except ValueError as error:  # it names the file
        raise ElmoError(str(error)) from None
    shutil.copyfile(path, target)


def check_rows(
    files: Iterable[Arrays], names: Iterable[str], vocabulary: Path | None, tokenizer: ElmoTokenizer
) -> None:
    """Raise unless each array of these names has one row for each word of the vocabulary."""
    lines = len(read_vocabulary(vocabulary)) if vocabulary is not None else 0
    reason = f"{vocabulary} has {lines} lines; give the vocabulary that belongs to it."
    if lines < tokenizer.vocab_size:
        reason = f"{vocabulary} lacks <S>, </S> or <UNK>, which need rows as well; use another table."
    for file in files:
        for name in names:
            shape = file.shape(name)
            if not shape:
                continue
            if vocabulary is None:
                raise ElmoError(
                    f"{file.place(name)} has one row for each word of a vocabulary; give the "
                    "vocabulary (.txt) as well."
                )
            if shape[0] != tokenizer.vocab_size:
                raise ElmoError(f"{file.place(name)} has {shape[0]} rows, but {reason}")
