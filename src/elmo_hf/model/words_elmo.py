"""Text to sentences and words, and words to character ids.

split_text("He didn't pay.", "penn").words        # ['He', 'didn', "'t", 'pay', '.']
split_sentences("He paid. Mr. Smith left.")       # ['He paid.', 'Mr. Smith left.']
character_ids(["He", "paid"], max_characters=50)  # (2, 50)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import regex

# Character ids as the model reads them: a byte is 1 to 256, and 0 means "no word here".
SENTENCE_BEGIN, SENTENCE_END, WORD_BEGIN, WORD_END, WORD_PAD = 257, 258, 259, 260, 261
NUM_CHARACTER_IDS = 262

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


# A sentence may end at a run of these signs and the quotes and brackets that close after it. Western signs
# need a space after them, full-width ones do not. The quantifiers are possessive, so that no text is slow.
_CLOSERS = "\"'”’»›)\\]}」』）】"
_END = regex.compile(
    rf"""
    (?<![.!?…])(?P<sign>[.!?…]++|[।॥؟۔።։။។‼⁇⁈⁉]++)[{_CLOSERS}]*+(?P<blank>{_SPACE}++)
    | [。！？｡]++[{_CLOSERS}]*+(?P<blank>{_SPACE}*+)
    """,
    regex.VERBOSE,
)
# How the next sentence begins: not with a lower-case letter or with a sign that continues the sentence.
_START = regex.compile(r"[\p{Lu}\p{Lt}\p{Lo}\p{N}\"'“‘«‹„¿¡(\[{「『（【$€£#*–—-]")
# Abbreviations before a name, before a number, and those that may also end a sentence.
_TITLES = regex.compile(
    r"M|Mrs?|Ms|Messrs|Mme|Mlle|Drs?|Prof|Rev|Fr|Hon|Ste?|Mt|Ft|Gen|Col|Lt|Maj|Capt|Cmdr|Adm|Sgt|Cpl|Pvt|Gov|"
    r"Sen|Rep|Pres|Supt|vs?|[Cc]f|eg|ie|e\.g|i\.e|viz|al"
)
_NUMBERED = regex.compile(
    "[Nn]os?|[Vv]ols?|[Ff]igs?|pp?|[Cc]h|[Ss]ec|[Aa]rt|ca?|approx|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec"
)
_LAST_WORDS = regex.compile(
    r"Inc|Ltd|Co|Corp|Bros|Jr|Sr|etc|Esq|est|[Dd]ept|Univ|Ave|Blvd|Rd|Ph\.D|a\.m|p\.m"
)
_DOTTED = regex.compile(r"\p{L}(?:\.\p{L})+")
_OPENERS = regex.compile(
    "The|An?|This|That|These|Those|He|She|It|We|They|I|You|His|Her|Its|Our|Their|My|Your|There|Here|In|On|At|"
    "By|For|From|With|After|Before|When|While|If|As|But|And|Or|So|Yet|Then|Now|However|Although|Since|Because|"
    "Not|No|One|Some|Many|Most|All|Both|Each|What|Who|Where|Why|How"
)


def split_sentences(text: str) -> list[str]:
    """The sentences of a paragraph by rules, without spaces around them.

    No sentence ends inside a number or a name ("3.14", "Mr. Smith", "No. 5"), before a lower-case letter
    ("Well... perhaps"), or after "Inc." or "U.S." unless a word follows that often begins sentences ("The").
    """
    sentences, start = [], 0
    for end in _END.finditer(text):
        if _ends_sentence(text, start, end):
            sentences.append(text[start : end.start("blank")].strip())
            start = end.end()
    sentences.append(text[start:].strip())
    return [sentence for sentence in sentences if sentence]


def _ends_sentence(text: str, start: int, end: Any) -> bool:
    if end["sign"] is None:
        return True
    following = text[end.end() : end.end() + 32]
    if following and not _START.match(following):
        return False
    is_bare_dot = end["sign"] == "." and end.start("blank") == end.end("sign")  # without a closing quote
    before = text[max(start, end.start() - 32) : end.start()]
    if not is_bare_dot or not before or before[-1].isspace():
        return True
    return not _is_abbreviated(before.split(), (following.split() or [""])[0])


def _is_abbreviated(before: list[str], following: str) -> bool:
    """Whether the dot after the last of the words `before` belongs to an abbreviation."""
    word = before[-1].lstrip("([{'\"“‘«")
    if _TITLES.fullmatch(word) or (len(before) == 1 and word.isdigit()):  # "1. Introduction"
        return True
    if _NUMBERED.fullmatch(word):
        return following[:1].isdigit()
    is_initial = len(word) == 1 and word.isupper() and word != "I"
    if is_initial or _DOTTED.fullmatch(word) or _LAST_WORDS.fullmatch(word):
        return not _OPENERS.fullmatch(following)
    return False


def read_vocabulary(path: str | Path) -> list[str]:
    """The words of a file, one per line. The line number is the word's id, so every line is kept."""
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: the vocabulary is not UTF-8 text (byte {error.start}).") from None
    words = [line.strip() for line in text.removesuffix("\n").split("\n")]
    if words == [""]:
        raise ValueError(f"{path}: the vocabulary is empty; it needs one word a line.")
    return words
