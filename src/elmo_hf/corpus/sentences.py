"""Paragraphs to sentences, and sentences to groups and batches.

split_sentences("He paid. Mr. Smith left.")            # ['He paid.', 'Mr. Smith left.']
for group in grouped(source.records(), words=32_768):  # in the order of the corpus
    for numbers in batches([len(words) for words in group], budget=4096): ...
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import regex

T = TypeVar("T")
Record = str | list[str]  # a line of text or a row of a table: its text, or its words

# ---- paragraphs to sentences

_SPACE = r"[\s\x1c-\x1f]"  # as str.split() sees it
# A sentence may end at a run of these and the quotes and brackets that close after it. Western ones need a
# blank behind them, the full-width ones of Chinese and Japanese do not. Possessive, so that no text is slow.
_CLOSERS = "\"'”’»›)\\]}」』）】"
_END = regex.compile(
    rf"""
    (?<![.!?…])(?P<sign>[.!?…]++|[।॥؟۔።։။។‼⁇⁈⁉]++)[{_CLOSERS}]*+(?P<blank>{_SPACE}++)
    | [。！？｡]++[{_CLOSERS}]*+(?P<blank>{_SPACE}*+)
    """,
    regex.VERBOSE,
)
# What the next sentence begins with: no small letter, and no sign that goes on with the old one.
_START = regex.compile(r"[\p{Lu}\p{Lt}\p{Lo}\p{N}\"'“‘«‹„¿¡(\[{「『（【$€£#*–—-]")
# Dots that stand in front of a name or number, and those that may also be the last sign of a sentence.
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
    """The sentences of a paragraph by rules, without the blanks around them.

    A dot ends no sentence inside a number or a name ("3.14", "Mr. Smith", "J. Smith", "No. 5"), in front of a
    small letter ("Well... perhaps"), and after an abbreviation that may end one ("Inc.", "U.S.") only if the
    next word is one that opens sentences ("The", "He").
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
    is_bare_dot = end["sign"] == "." and end.start("blank") == end.end("sign")  # no quote closes behind it
    before = text[max(start, end.start() - 32) : end.start()]
    if not is_bare_dot or not before or before[-1].isspace():
        return True
    return not _is_abbreviated(before.split(), (following.split() or [""])[0])


def _is_abbreviated(before: list[str], following: str) -> bool:
    """Whether the dot behind the last of the words `before` only says that it is an abbreviation."""
    word = before[-1].lstrip("([{'\"“‘«")
    if _TITLES.fullmatch(word) or (len(before) == 1 and word.isdigit()):  # "1. Introduction"
        return True
    if _NUMBERED.fullmatch(word):
        return following[:1].isdigit()
    is_initial = len(word) == 1 and word.isupper() and word != "I"
    if is_initial or _DOTTED.fullmatch(word) or _LAST_WORDS.fullmatch(word):
        return not _OPENERS.fullmatch(following)
    return False


# ---- sentences to groups and batches


def word_count(record: Record) -> int:
    """About how many words a record has, without splitting it by rule.

    It is at least 1, and it is higher for long text without blanks. The cuts between the shards of `embed`
    depend on it, so it must not change.
    """
    return max(1, len(record) if isinstance(record, list) else max(len(record.split()), len(record) // 16))


def grouped(records: Iterable[T], words: int, count: Callable[[T], int] | None = None) -> Iterator[list[T]]:
    """Consecutive records, of which each group but the last has at least `words` words.

    They are counted by `count`, by default by `word_count`.
    """
    count_words: Callable[[Any], int] = count or word_count
    group: list[T] = []
    size = 0
    for record in records:
        group.append(record)
        size += count_words(record)
        if size >= words:
            yield group
            group, size = [], 0
    if group:
        yield group


def batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Batches of sentences of like length, as their numbers, the longest sentences first.

    Args:
        lengths: the number of words of each sentence. Sentences without words are left out.
        budget: words of a batch, padding included. A longer sentence is a batch of its own.
    """
    order = sorted((number for number, length in enumerate(lengths) if length), key=lambda n: -lengths[n])
    start = 0
    while start < len(order):
        end = start + max(1, budget // lengths[order[start]])
        yield order[start:end]
        start = end
