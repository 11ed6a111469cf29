"""What `predict` of taggers and classifiers reads, texts or words, and the spans of labelled words."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import BatchEncoding

from .tokenization_elmo import ElmoTokenizer

BEGINS, CONTINUES, ENDS = ("B", "U", "S"), ("I", "L", "E"), ("U", "S", "L", "E")  # BIO, BIOUL and BIOES


@dataclass
class ElmoTexts:
    """Texts, or sentences as lists of words.

    rows: the texts, or the sentences.
    is_single: whether it was one text, and no list of them.
    are_words: whether they are split into words.
    """

    rows: list[Any]
    is_single: bool
    are_words: bool

    @classmethod
    def of(cls, text: Any, is_split_into_words: bool = False, name: str = "text") -> "ElmoTexts":
        """From a text, a list of texts, a list of sentences, or (`is_split_into_words`) one sentence.

        Args:
            name: what messages call it.
        """
        if isinstance(text, str):
            if is_split_into_words:
                raise ValueError(
                    f"{name} is one string, so leave is_split_into_words out, or pass its words as a list."
                )
            return cls([text], is_single=True, are_words=False)
        if not is_list(text):
            raise ValueError(f"{name} must be a string or a list, but is {text!r:.60}.")
        rows = list(text)
        are_strings = [isinstance(row, str) for row in rows]
        if is_split_into_words and rows and all(are_strings):
            return cls([rows], is_single=True, are_words=True)
        if not any(are_strings):
            return cls([_words(row, number, name) for number, row in enumerate(rows)], False, True)
        if not all(are_strings) or is_split_into_words:
            number = are_strings.index(False)
            raise ValueError(
                f"{name} must hold strings only, or lists of words only, but entry {number} is "
                f"{rows[number]!r:.60}."
            )
        return cls(rows, is_single=False, are_words=False)

    def batches(
        self, tokenizer: ElmoTokenizer, size: int, pairs: "ElmoTexts | None" = None, **options: Any
    ) -> Iterator[tuple[int, BatchEncoding]]:
        """The number of a batch's first row, and its encoding with offsets, padded."""
        for first in range(0, len(self.rows), size):
            rows = slice(first, first + size)
            yield (
                first,
                tokenizer(
                    self.rows[rows],
                    pairs.rows[rows] if pairs is not None else None,
                    is_split_into_words=self.are_words,
                    padding=True,
                    return_tensors="pt",
                    **options,
                ),
            )


def is_list(value: Any) -> bool:
    """Whether it lists its entries, as lists, arrays and the columns of a data set do."""
    return isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping))


def _words(row: Any, number: int, name: str) -> list[str]:
    words: list[Any] = list(row) if is_list(row) else [None]
    if not all(isinstance(word, str) for word in words):
        raise ValueError(f"entry {number} of {name} must be a string or a list of words, but is {row!r:.60}.")
    return words


def check_span_labels(labels: Sequence[str]) -> None:
    for label in labels:
        if label != "O" and label[:2] not in [f"{letter}-" for letter in (*BEGINS, *CONTINUES)]:
            raise ValueError(
                f"label {label!r} is not O, B-... or I-..., so words with it make no spans; leave spans out."
            )


def spans_of(labels: Sequence[str]) -> list[tuple[str, int, int]]:
    """(type, first word, word after the last) of each span. What does not continue a span begins one."""
    spans: list[tuple[str, int, int]] = []
    is_open = False
    for number, label in enumerate(labels):
        prefix, _, kind = label.partition("-")
        if label == "O":
            is_open = False
            continue
        if prefix in CONTINUES and is_open and spans[-1][0] == kind:
            spans[-1] = kind, spans[-1][1], number + 1
        else:
            spans.append((kind, number, number + 1))
        is_open = prefix not in ENDS
    return spans


def labelled_words(
    names: Sequence[str], encoding: Any, labels: Sequence[int], scores: Sequence[float]
) -> list[dict[str, Any]]:
    """The words of a row of a batch with their labels, the scores of these, and the words' places."""
    columns = (encoding.tokens, encoding.offsets, encoding.word_ids, labels, scores)
    return [
        {"word": word, "label": names[label], "score": score, "start": start, "end": end}
        for word, (start, end), number, label, score in zip(*columns, strict=True)
        if number is not None  # no padding
    ]


def as_spans(words: list[dict[str, Any]], row: Any) -> list[dict[str, Any]]:
    """The spans of labelled words, with places in the text `row`, or without if it is a list of words."""
    spans = []
    for kind, first, end in spans_of([word["label"] for word in words]):
        score = sum(word["score"] for word in words[first:end]) / (end - first)
        span = {"label": kind, "score": score, "words": (first, end)}
        if isinstance(row, str):
            start, stop = words[first]["start"], words[end - 1]["end"]
            spans.append({"text": row[start:stop]} | span | {"start": start, "end": stop})
        else:
            spans.append({"text": " ".join(row[first:end])} | span)
    return spans


def without_places(words: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Labelled words of a sentence that was given as a list, so that no text has them at `start`."""
    return [{name: word[name] for name in ("word", "label", "score")} for word in words]
