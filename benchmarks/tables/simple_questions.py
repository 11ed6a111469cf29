"""A rule that answers questions: a span of the type that is asked for, near the words of the question."""

import re

from elmo_hf.finetuning.data import Example

METHOD = "a rule: the span of the asked type nearest to words of the question"
MONTHS = [
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october",
    "november", "december",
]  # fmt: skip
STOPWORDS = {
    "the", "a", "an", "of", "in", "to", "and", "is", "was", "were", "are", "be", "been", "by", "for",
    "on", "at", "with", "from", "as", "that", "which", "what", "who", "whom", "when", "where", "why",
    "how", "many", "much", "did", "do", "does", "has", "have", "had", "it", "its", "this", "these",
    "those", "or", "not", "?", ",", ".",
}  # fmt: skip


def answer(question: Example) -> str:
    words, asked = question["context_words"], [word.lower() for word in question["question_words"]]
    keys = {stem(word) for word in asked if word not in STOPWORDS}
    weights = [float(stem(word.lower()) in keys) for word in words]
    spans = candidates(words, asked, {*asked})
    if not spans:
        spans = [(place, place) for place in range(len(words))]
    first, last = max(spans, key=lambda span: (nearness(span, weights, words), span[0] - span[1]))
    offsets = question["offsets"]
    text: str = question["context"][offsets[first][0] : offsets[last][1]]
    return text


def stem(word: str) -> str:
    return word[:5]


def nearness(span: tuple[int, int], weights: list[float], words: list[str]) -> float:
    """The words of the question around a span, the nearer the better, and less beyond a full stop."""
    total = 0.0
    for step, places in (
        (-1, range(span[0] - 1, max(-1, span[0] - 25), -1)),
        (1, range(span[1] + 1, span[1] + 25)),
    ):
        factor = 1.0
        for place in places:
            if place >= len(words):
                break
            if words[place] in (".", "?", "!"):
                factor *= 0.3
            total += factor * weights[place] / (3 + step * (place - span[step > 0]))
    return total


def candidates(words: list[str], asked: list[str], question: set[str]) -> list[tuple[int, int]]:
    """The spans of the type that the question asks for."""
    text = " ".join(asked)
    if re.search(r"\bhow (many|much|long|old|far|tall|large)\b|percent", text):
        return runs(words, has_digit_or_number)
    if "when" in asked or re.search(r"\b(what|which|in what) (year|date|month|day|decade|century)\b", text):
        return runs(words, is_date) or runs(words, has_digit_or_number)
    if {"who", "where", "whom", "whose"} & {*asked} or "which" in asked:
        return runs(words, lambda word: word[:1].isupper() and word.lower() not in question)
    return runs(
        words, lambda word: word[:1].isalnum() and word.lower() not in question | STOPWORDS, longest=4
    )


NUMBERS = {
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "hundred", "thousand", "million", "billion",
}  # fmt: skip


def has_digit_or_number(word: str) -> bool:
    return any(map(str.isdigit, word)) or word.lower() in NUMBERS or word in "%$"


def is_date(word: str) -> bool:
    return word.lower() in MONTHS or bool(re.fullmatch(r"\d{1,2}|\d{3,4}s?", word))


def runs(words: list[str], is_in: object, longest: int = 8) -> list[tuple[int, int]]:
    """The longest spans of words for which it is so."""
    assert callable(is_in)
    spans, start = [], None
    for place, word in enumerate([*words, "."]):
        inside = place < len(words) and is_in(word)
        if start is not None and (not inside or place - start >= longest):
            spans.append((start, place - 1))
            start = None
        if inside and start is None:
            start = place
    return spans
