"""Which word is read at which step, so that padding costs nothing.

Sentences are sorted by length, and all words that are read at one step stand together: all first words, all
second ones, and so on. A step then computes those rows only that have a word left.
"""

from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

# A product is made for so many rows at a time: enough for a good one, few enough to stay in the cache.
ROWS_AT_ONCE = 256


class Steps(NamedTuple):
    """Which rows each step reads. A row's words follow each other, whatever padding lies between them."""

    counts: list[int]  # rows that each step reads, never rising
    starts: list[int]  # where each step's words start
    batch: int
    time: int
    rows: Tensor | None  # (2, batch), longest first; None where no word is padding
    places: Tensor | None  # (2, words), each word's place in (batch * time)

    @property
    def slices(self) -> list[slice]:
        return [slice(start, start + count) for start, count in zip(self.starts, self.counts, strict=True)]

    @property
    def blocks(self) -> list[list[int]]:
        """The counts of neighbouring steps in groups of about `ROWS_AT_ONCE` rows."""
        groups: list[list[int]] = []
        for count in self.counts:
            if not groups or sum(groups[-1]) + count > ROWS_AT_ONCE:
                groups.append([])
            groups[-1].append(count)
        return groups

    def pack(self, x: Tensor) -> Tensor:
        """(2, batch, time, dim) -> (2, words, dim)"""
        if self.places is None:
            return x.transpose(1, 2).flatten(1, 2)
        return _pick(x.flatten(1, 2), self.places)

    def unpack(self, words: Tensor) -> Tensor:
        """The other way round, with zeros at padding. Always a copy: what a caller does to it is theirs."""
        if self.places is None:
            return _copy(words.unflatten(1, (self.time, self.batch)).transpose(1, 2))
        x = words.new_zeros(len(words), self.batch * self.time, words.shape[-1])
        x[_directions(self.places), self.places] = words
        return x.unflatten(1, (self.batch, self.time))

    def sort(self, state: Tensor) -> Tensor:
        """(2, batch, dim), a copy in the order in which the steps read rows."""
        return _copy(state) if self.rows is None else _pick(state, self.rows)

    def unsort(self, state: Tensor) -> Tensor:
        return state if self.rows is None else _pick(state, self.rows.argsort(dim=-1))


def plan(mask: Tensor) -> Steps | None:
    """mask (2, batch, time) -> its steps, or None where the directions have different numbers of words."""
    _, batch, time = mask.shape
    lengths = mask.sum(dim=-1)
    per_step = (lengths[..., None] > torch.arange(time, device=mask.device)).sum(dim=1)
    counts, *others = per_step.tolist()  # the only time that a GPU is waited for
    if any(other != counts for other in others):
        return None
    counts = [count for count in counts if count]
    starts = [0, *accumulate(counts)][: len(counts)]
    if sum(counts) == batch * time:
        return Steps(counts, starts, batch, time, None, None)
    rows = lengths.argsort(dim=-1, descending=True, stable=True)
    # Words in the order of their step, and within a step of their row; padding comes last.
    order = (mask.cumsum(dim=-1) - 1) * batch + rows.argsort(dim=-1)[..., None]
    order = order.masked_fill(~mask, batch * time).flatten(1)
    return Steps(counts, starts, batch, time, rows, order.argsort(dim=-1)[:, : sum(counts)])


def _directions(index: Tensor) -> Tensor:
    return torch.arange(len(index), device=index.device)[:, None]


def _pick(x: Tensor, index: Tensor) -> Tensor:
    """x (2, n, dim) at index (2, m) -> (2, m, dim)"""
    return x[_directions(index), index].contiguous()


def _copy(x: Tensor) -> Tensor:
    """A contiguous one, in any case"""
    return x.clone(memory_format=torch.contiguous_format)
