"""Text to words, and words to character ids.

split_text("He didn't pay.", "penn").words        # ['He', 'didn', "'t", 'pay', '.']
character_ids(["He", "paid"], max_characters=50)  # (2, 50)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import regex

# Character ids as the model reads them: a byte is 1 to 256, and 0 means "no word here".
BOUNDARIES = SENTENCE_BEGIN, SENTENCE_END, WORD_BEGIN, WORD_END, WORD_PAD = 257, 258, 259, 260, 261
NUM_CHARACTER_IDS = 262

MAX_CHARACTERS = 2**12  # character ids of a word
# Lines and bytes of a vocabulary; that of the original has 0.8 and 8 million.
MAX_WORDS, MAX_VOCABULARY = 5_000_000, 2**27

# The rule of the One Billion Word text, on which the published English models were trained: punctuation is
# split off, a clitic keeps its apostrophe ("Don 't", "Murray 's"), hyphens, inner dots, decimal points and
# thousands commas stay, and so does the dot of an abbreviation. Case is kept.
_ABBREVIATIONS = (
    "Mr|Mrs|Ms|Dr|Prof|Rev|Hon|St|Gen|Col|Lt|Maj|Capt|Sgt|Cpl|Gov|Sen|Rep|Pres|Jr|Sr|Inc|Ltd|Co|Corp|Bros|"
    "No|Vol|vs|etc|cf|al|fig|Fig|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec|Ph\\.D|approx|dept|est"
)
_SPACE, _SIGN = r"[\s\x1c-\x1f]", r"[^\s\x1c-\x1f]"  # as str.split() sees it
_LETTER = r"[\p{L}\p{M}\p{N}\u200c\u200d]"
_PENN = regex.compile(
    rf"""
    (?<!{_SIGN})['’](?:s|t|m|d|re|ve|ll)(?!{_SIGN})                       # a clitic that is split off already
    | (?<=\p{{L}}\p{{M}}*\.?)['’]\p{{L}}{_LETTER}*              # Don | 't
    | (?<=\p{{N}})['’]s(?!{_LETTER})                            # 1990 | 's
    | (?<!{_LETTER})(?:{_ABBREVIATIONS})\.(?={_SPACE})                # Dr.
    | (?<!{_LETTER})\p{{L}}(?:\.\p{{L}})+\.(?!{_LETTER}|-{_LETTER})   # U.S.
    | (?<!{_SIGN})\p{{Lu}}\.(?={_SPACE})                                   # the initial in "John F. Kennedy"
    | (?:(?<!{_SIGN})-?\.?(?=\p{{N}}))?{_LETTER}+(?:(?:\.-|[.-]|(?<=\p{{N}}),(?=\p{{N}})){_LETTER}+)*
    | \.{{2,}} | -{{2,}}
    | {_SIGN}\p{{M}}*                                              # any other sign stands alone
    """,
    regex.VERBOSE,
)
_WHITESPACE = regex.compile(rf"{_SIGN}+")
SPLITTERS = {"penn": _PENN, "whitespace": _WHITESPACE}


def character_ids(
    words: Sequence[str], max_characters: int, begin: str = "<S>", end: str = "</S>"
) -> np.ndarray:
    """Character ids, (words, max_characters): in each row word begin, the word's bytes, word end, padding."""
    room = max_characters - 2
    encoded = [word.encode("utf-8", "ignore") for word in words]
    lengths = np.minimum(np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded)), room)
    # A fixed-width bytes array cuts long words and fills short ones, without a loop over the bytes.
    content = np.array(encoded, dtype=f"S{room}").view(np.uint8).reshape(len(encoded), room)
    rows = np.full((len(encoded), max_characters), WORD_PAD, dtype=np.int64)
    rows[:, 0] = WORD_BEGIN
    np.add(content, 1, out=rows[:, 1:-1], where=np.arange(room) < lengths[:, None])
    rows[np.arange(len(encoded)), lengths + 1] = WORD_END
    for sign, boundary in ((begin, SENTENCE_BEGIN), (end, SENTENCE_END)):
        numbers = [number for number, word in enumerate(words) if word == sign]
        rows[numbers, 1:] = [boundary, WORD_END] + [WORD_PAD] * (max_characters - 3)
    return rows


@dataclass
class Sentence:
    """The words of a sentence, and their offsets in the text (or in themselves, if there is no text)."""

    words: list[str]
    offsets: list[tuple[int, int]]
    start: int = 0  # number of the first word, if truncation has cut off words before it

    def __len__(self) -> int:
        return len(self.words)

    def cut(self, start: int, end: int) -> "Sentence":
        return Sentence(self.words[start:end], self.offsets[start:end], start)


def split_text(text: str, splitter: str, whole: Sequence[str] = ()) -> Sentence:
    """The words of a text by one of `SPLITTERS`. What is listed in `whole` is one word where it stands
    alone."""
    spans = [match.span() for match in _matches(text, SPLITTERS[splitter], whole)]
    return Sentence([text[start:end] for start, end in spans], spans)


def _matches(text: str, splitter: Any, whole: Sequence[str]) -> Iterator[Any]:
    start = 0
    if any(name in text for name in whole):
        names = "|".join(map(regex.escape, whole))
        for special in regex.finditer(rf"(?<!{_SIGN})(?:{names})(?!{_SIGN})", text):
            yield from splitter.finditer(text, start, special.start())
            yield special
            start = special.end()
    yield from splitter.finditer(text, start)


def read_vocabulary(path: str | Path, strip: bool = True) -> list[str]:
    """The words of a file, one per line. The line number is the word's id, so every line is kept.

    Args:
        strip: drop spaces around a word. Without it, a word may begin and end with them, or be one.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise ValueError(f"{path}: the vocabulary is no plain file; give a text file with one word a line.")
    size = path.stat().st_size
    if size > MAX_VOCABULARY:
        raise ValueError(
            f"{path}: the vocabulary has {size:,} bytes, more than the {MAX_VOCABULARY:,} that are read."
        )
    content = path.read_bytes()
    if (lines := content.count(b"\n")) > MAX_WORDS:
        raise ValueError(
            f"{path}: the vocabulary has {lines:,} lines, more than the {MAX_WORDS:,} that are read."
        )
    if (place := content.find(b"\0")) >= 0:
        raise ValueError(f"{path}: the vocabulary is not UTF-8 text (byte {place} is NUL).")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: the vocabulary is not UTF-8 text (byte {error.start}).") from None
    words = text.removesuffix("\n").split("\n")
    if strip:
        words = [word.strip() for word in words]
    if words == [""]:
        raise ValueError(f"{path}: the vocabulary is empty; it needs one word a line.")
    return words
