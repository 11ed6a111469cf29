"""A question and its context as a row of words, and an answer as a span of it: all that has no weights.

in_question, in_context = split_pair(mask, token_type_ids)   # (batch, words)
context = ElmoPart.of(in_context)                            # its words alone, from the left
spans, scores = best_spans(start, end, context.mask, max_length=17)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .checks_elmo import check_range, check_shape, check_whole
from .crf_elmo import IGNORED

# ---- a row is two texts


@dataclass
class ElmoPart:
    """One of a row's two texts, moved to the left.

    in_row: where in the row its words stand, (batch, words).
    mask: where they stand here, (batch, longest).
    """

    in_row: Tensor
    mask: Tensor

    @classmethod
    def of(cls, in_row: Tensor) -> "ElmoPart":
        lengths = in_row.sum(dim=1, keepdim=True)
        longest = max([1, *lengths.flatten().tolist()])
        return cls(in_row, torch.arange(longest, device=in_row.device) < lengths)

    def take(self, x: Tensor) -> Tensor:
        """(batch, words, ...) -> (batch, longest, ...), zero behind the last word"""
        text = x.new_zeros(*self.mask.shape, *x.shape[2:])
        text[self.mask] = x[self.in_row]
        return text

    def put_back(self, x: Tensor, elsewhere: float = 0.0) -> Tensor:
        """(batch, longest, ...) -> (batch, words, ...)"""
        row = x.new_full((*self.in_row.shape, *x.shape[2:]), elsewhere)
        row[self.in_row] = x[self.mask]
        return row


MAKE_PAIRS = "make the rows with tokenizer(questions, contexts, return_token_type_ids=True)."


def split_pair(mask: Tensor, token_type_ids: Tensor | None) -> tuple[Tensor, Tensor]:
    """(batch, words) -> where the question's words are, and where the context's, without `</S> <S>`."""
    if token_type_ids is None:
        raise ValueError(f"question and context are told apart by token_type_ids; {MAKE_PAIRS}")
    check_shape("token_type_ids", token_type_ids, mask)
    check_range("token_type_ids", token_type_ids, 1)
    first, second = mask & (token_type_ids == 0), mask & (token_type_ids == 1)
    # The first text ends with a separator, and the second begins with one.
    question = first & (first.cumsum(dim=1) < first.sum(dim=1, keepdim=True))
    return question, second & (second.cumsum(dim=1) > 1)


def check_separators(separators: Tensor, ids: Tensor, expected: list[int | None]) -> None:
    """What neither text has of a row, (batch, words), must be `</S> <S>`; ids are (batch, words)."""
    for number, (row, is_separator) in enumerate(zip(ids.cpu(), separators.cpu(), strict=True)):
        if row[is_separator].tolist() != expected:
            raise ValueError(
                f"row {number} is no question and context with '</S> <S>' between them; {MAKE_PAIRS}"
            )


# ---- answers


def check_places(name: str, places: Tensor, in_context: Tensor) -> None:
    """places (batch,) must be words of the context, (batch, words)."""
    batch, words = in_context.shape
    check_whole(name, places)
    if places.shape != (batch,):
        raise ValueError(f"{name} must have the shape ({batch},), but has {tuple(places.shape)}.")
    check_range(name, places, words - 1)
    wrong = ~in_context.gather(1, places[:, None].long())
    if wrong.any():
        row = int(wrong.int().argmax())
        raise ValueError(f"{name} of row {row} is {int(places[row])}, where no word of the context stands.")


def as_pairs(question: str | Sequence[str], context: str | Sequence[str]) -> list[tuple[str, str]]:
    for name, given in (("question", question), ("context", context)):
        if not isinstance(given, Sequence):
            raise ValueError(f"{name} must be a string or a list of strings, but is {given!r:.60}.")
    questions = [question] if isinstance(question, str) else list(question)
    contexts = [context] * len(questions) if isinstance(context, str) else list(context)
    if isinstance(question, str) and not isinstance(context, str):
        raise ValueError("one question has one context, but context is a list.")
    if len(contexts) != len(questions):
        raise ValueError(
            f"there are {len(questions)} questions, so there must be one context or as many, "
            f"but there are {len(contexts)}."
        )
    for name, texts in (("question", questions), ("context", contexts)):
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                raise ValueError(f"{name} {number} must be a string, but is {text!r:.60}.")
    return list(zip(questions, contexts, strict=True))


def as_answer(context: str, start: int, end: int, score: float) -> dict[str, Any]:
    return {"answer": context[start:end], "start": start, "end": end, "score": score}


def best_spans(
    start: Tensor, end: Tensor, mask: Tensor, max_length: int, number: int = 1
) -> tuple[Tensor, Tensor]:
    """The best answers: the first word's score and the last word's, summed, over all spans of up to
    `max_length` words. Of equal ones the shortest comes first, then the leftmost.

    start, end and mask (batch, words), the words from the left on. Returns the first and last words
    (batch, number, 2) and the scores (batch, number), best first. Where a row has fewer spans there are -100
    and minus infinity; `number` itself is less if no row can have so many.
    """
    words = start.shape[1]
    sums = start.new_full((len(start), min(max_length, words), words), -torch.inf)
    for more in range(sums.shape[1]):  # words after the first one
        both = start[:, : words - more] + end[:, more:]
        sums[:, more, : words - more] = both.masked_fill(~mask[:, more:], -torch.inf)
    scores, order = sums.flatten(1).sort(dim=1, descending=True, stable=True)
    scores, order = scores[:, :number], order[:, :number]
    first = order % words
    spans = torch.stack([first, first + order // words], dim=-1)
    return spans.masked_fill(scores.isinf()[:, :, None], IGNORED), scores
