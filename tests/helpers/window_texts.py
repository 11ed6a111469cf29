"""A small corpus and functions to inspect its windows, for the tests of `elmo_hf.corpus.windows`."""

from itertools import chain

import numpy as np

from elmo_hf.corpus.vocabulary import Vocabulary

SENTENCES = 83


def line(number):
    """A sentence of 1 to 31 words that no other line has; every ninth line is empty."""
    length = 0 if number % 9 == 4 else 1 + (number * number) % 31
    return " ".join(f"w{number}_{position}" for position in range(length))


LINES = [line(number) for number in range(SENTENCES)]
TEXTS = [text for text in LINES if text]
VOCABULARY = Vocabulary(["<S>", "</S>", "<UNK>", *chain.from_iterable(map(str.split, TEXTS[::2]))])


def spelled(row):
    """Decode a row of character ids to its word."""
    if row[1] == 257:
        return "<S>"
    if row[1] == 258:
        return "</S>"
    end = list(row).index(260)
    return bytes(int(number) - 1 for number in row[1:end]).decode()


def words_of(window, direction, row):
    """The words of one row of a window."""
    return [
        spelled(letters)
        for letters, real in zip(window.char_ids[direction, row], window.mask[direction, row], strict=True)
        if real
    ]


def until_the_end(windows):
    """The windows before the first one without words, which marks the end of the corpus."""
    return [*iter_until_empty(windows)]


def iter_until_empty(windows):
    for window in windows:
        if not window.mask.any():
            return
        yield window


def same(first, second):
    return (
        np.array_equal(first.char_ids, second.char_ids)
        and np.array_equal(first.targets, second.targets)
        and np.array_equal(first.mask, second.mask)
        and sorted(first.sentence_starts) == sorted(second.sentence_starts)
    )


def write_files(folder):
    """Write the corpus as three files of different sizes."""
    for name, lines in (("a", LINES[:11]), ("b", LINES[11:60]), ("c", LINES[60:])):
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
