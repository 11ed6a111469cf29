"""The order in which words are read, so that padding costs no arithmetic.

Rows are sorted by length, and the words that are read at one step stand together: all first words, then all
second words, and so on. A step then computes only the rows that still have a word. This is the layout of
PyTorch's `PackedSequence`, for two directions at once and for padding at any place.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

# Rows of one product over the words of several steps: enough to be fast, few enough to stay in the cache.
BLOCK_ROWS = 256


class Steps(NamedTuple):
    """The rows that each step reads. A row's words follow each other, whatever padding lies between them."""

    counts: list[int]  # rows that each step reads, never more than the step before
    starts: list[int]  # each step's first word among the packed words
    batch: int
    time: int
    order: Tensor | None  # (2, batch), rows from long to short; None where no word is padding
    positions: Tensor | None  # (2, words), each packed word's position in (batch * time)

    @property
    def slices(self) -> list[slice]:
        """Each step's words among the packed words."""
        return [slice(start, start + count) for start, count in zip(self.starts, self.counts, strict=True)]

    @property
    def blocks(self) -> list[list[int]]:
        """The counts, with neighbouring steps grouped to about `BLOCK_ROWS` rows."""
        groups: list[list[int]] = []
        for count in self.counts:
            if not groups or sum(groups[-1]) + count > BLOCK_ROWS:
                groups.append([])
            groups[-1].append(count)
        return groups

    def pack(self, x: Tensor) -> Tensor:
        """(2, batch, time, dim) -> (2, words, dim)"""
        if self.positions is None:
            return x.transpose(1, 2).flatten(1, 2)
        return _pick(x.flatten(1, 2), self.positions)

    def unpack(self, words: Tensor) -> Tensor:
        """(2, words, dim) -> (2, batch, time, dim), zero at padding; always a copy, which the caller owns"""
        if self.positions is None:
            return _copy(words.unflatten(1, (self.time, self.batch)).transpose(1, 2))
        x = words.new_zeros(len(words), self.batch * self.time, words.shape[-1])
        x[_directions(self.positions), self.positions] = words
        return x.unflatten(1, (self.batch, self.time))

    def sort(self, state: Tensor) -> Tensor:
        """(2, batch, dim) -> a copy with rows from long to short"""
        return _copy(state) if self.order is None else _pick(state, self.order)

    def unsort(self, state: Tensor) -> Tensor:
        """(2, batch, dim), rows from long to short -> the same in the order of the batch"""
        return state if self.order is None else _pick(state, self.order.argsort(dim=-1))


_known = threading.local()


@contextmanager
def without_padding() -> Iterator[None]:
    """In this block all masks are True everywhere, so that `plan` need not wait for a GPU to see it."""
    before, _known.is_full = getattr(_known, "is_full", False), True
    try:
        yield
    finally:
        _known.is_full = before


def plan(mask: Tensor) -> Steps | None:
    """mask (2, batch, time) -> its steps, or None if the directions read different numbers of words.

    mask may also hold a single direction, (1, batch, time), which always has steps.
    """
    _, batch, time = mask.shape
    if getattr(_known, "is_full", False):
        return Steps([batch] * time, list(range(0, batch * time, batch)), batch, time, None, None)
    lengths = mask.sum(dim=-1)
    per_step = (lengths[..., None] > torch.arange(time, device=mask.device)).sum(dim=1)
    counts, *others = per_step.tolist()  # the only wait for a GPU
    if any(other != counts for other in others):
        return None
    counts = [count for count in counts if count]
    starts = [0, *accumulate(counts)][: len(counts)]
    if sum(counts) == batch * time:
        return Steps(counts, starts, batch, time, None, None)
    order = lengths.argsort(dim=-1, descending=True, stable=True)
    # Words sorted by step, and within a step by row; padding comes last.
    keys = (mask.cumsum(dim=-1) - 1) * batch + order.argsort(dim=-1)[..., None]
    keys = keys.masked_fill(~mask, batch * time).flatten(1)
    return Steps(counts, starts, batch, time, order, keys.argsort(dim=-1)[:, : sum(counts)])


def _directions(index: Tensor) -> Tensor:
    return torch.arange(len(index), device=index.device)[:, None]


def _pick(x: Tensor, index: Tensor) -> Tensor:
    """x (2, n, dim) at index (2, m) -> (2, m, dim)"""
    return x[_directions(index), index].contiguous()


def _copy(x: Tensor) -> Tensor:
    """A contiguous copy, even where x is contiguous."""
    return x.clone(memory_format=torch.contiguous_format)
