"""A small corpus, and what is read of it in windows: what the tests of streams share."""

from itertools import chain

import numpy as np

from elmo_hf.corpus.vocabulary import Vocabulary

SENTENCES = 83


def line(number):
    """A sentence whose words are found nowhere else, of 1 to 31 words, and every ninth line empty."""
    length = 0 if number % 9 == 4 else 1 + (number * number) % 31
    return " ".join(f"w{number}_{place}" for place in range(length))


LINES = [line(number) for number in range(SENTENCES)]
TEXTS = [text for text in LINES if text]
VOCABULARY = Vocabulary(["<S>", "</S>", "<UNK>", *chain.from_iterable(map(str.split, TEXTS[::2]))])


def spelled(row):
    """A row of character ids as the word that it spells, byte by byte."""
    if row[1] == 257:
        return "<S>"
    if row[1] == 258:
        return "</S>"
    end = list(row).index(260)
    return bytes(int(number) - 1 for number in row[1:end]).decode()


def words_of(window, direction, row):
    """What a row reads in a window."""
    return [
        spelled(letters)
        for letters, real in zip(window.char_ids[direction, row], window.mask[direction, row], strict=True)
        if real
    ]


def until_the_end(windows):
    """Of a reader, which gives windows without words in the end."""
    return [*iter_until_empty(windows)]


def iter_until_empty(windows):
    for window in windows:
        if not window.mask.any():
            return
        yield window


def same(one, other):
    return (
        np.array_equal(one.char_ids, other.char_ids)
        and np.array_equal(one.targets, other.targets)
        and np.array_equal(one.mask, other.mask)
        and sorted(one.sentence_starts) == sorted(other.sentence_starts)
    )


def write_files(folder):
    """The corpus in three files of unlike size."""
    for name, part in (("a", LINES[:11]), ("b", LINES[11:60]), ("c", LINES[60:])):
        (folder / f"{name}.txt").write_text("\n".join(part) + "\n", encoding="utf-8")
    return folder
