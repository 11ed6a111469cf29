"""Losses over a large vocabulary: sampled for training, exact for small vocabularies and for judging.

    samples = draw_samples(8192, vocab_size, seed=(seed, step, process))  # both directions, about 2 ms
    wanted = wanted_rows(targets, samples).to(device)                     # targets: (2, places)
    rows = weight.detach()[wanted.ids].requires_grad_()                   # (m, dim) of (vocab_size, dim)
    row_bias = bias.detach()[wanted.ids].requires_grad_()
    losses = sampled_loss(hidden, rows, row_bias, wanted)                 # (2, places)

The sampled loss is TensorFlow's `sampled_softmax_loss` with its `log_uniform_candidate_sampler(unique=True)`.
It reads the rows of the words that this step wants and no others, and so do its gradients: a step costs the
same with 50,000 words and with 800,000. Losses are made in float32, under autocast, too; on a GPU
`torch.set_float32_matmul_precision("high")` makes their products fast.

Words must be numbered by falling frequency, as in every ELMo vocabulary: a low id is drawn more often.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# So many logits are made at a time: what a processor's cache holds, or 256 MB in float32. Fewer columns than
# the least would make slow products, and save little, as the hidden states themselves have some 500.
LOGITS_ON_CPU, LOGITS_ELSEWHERE, LEAST_COLUMNS = 2**20, 2**26, 256


# ---- drawing words


class Samples(NamedTuple):
    """Words drawn for each group of places (a direction is one), and what their probabilities follow from."""

    ids: Tensor  # (groups, number), all of a group different, ascending
    tries: Tensor  # (groups, 1): after so many draws there were `number` different words
    vocab_size: int


def draw_samples(number: int, vocab_size: int, seed: Sequence[int], groups: int = 2) -> Samples:
    """`number` different words a group. One seed, such as (seed, step, process), always draws the same."""
    generators = [np.random.default_rng([*seed, group]) for group in range(groups)]
    drawn = [log_uniform_sample(number, vocab_size, generator) for generator in generators]
    ids, tries = (np.array(parts, dtype=np.int64) for parts in zip(*drawn, strict=True))
    return Samples(torch.from_numpy(ids), torch.from_numpy(tries)[:, None], vocab_size)


def log_uniform_sample(
    number: int, vocab_size: int, generator: np.random.Generator
) -> tuple[np.ndarray, int]:
    """Draw P(k) = log((k + 2) / (k + 1)) / log(vocab_size + 1) until there are `number` different words.

    Returns the words (number,) in ascending order, and how many draws it took. It draws ahead of its need, so
    the generator is not left where drawing one by one would leave it.
    """
    if not 1 <= number <= vocab_size:
        raise ValueError(
            f"{number} different words cannot be drawn from {vocab_size}; draw 1 to {vocab_size}."
        )
    more, draws = 2 * number + number // 4, np.empty(0, dtype=np.int64)  # 8,192 of 800,000 need about 16,100
    while True:
        powers = np.exp(generator.random(more) * np.log1p(vocab_size))
        draws = np.concatenate([draws, (powers - 1).astype(np.int64) % vocab_size])
        ids, places = _first_places(draws)
        if len(ids) >= number:
            last = np.partition(places, number - 1)[number - 1]
            return ids[places <= last], int(last) + 1
        more = len(draws)


def _first_places(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different numbers, ascending, and where each stands first. One sort of plain integers, with the
    place in the lower half, is twice as fast as `np.unique(return_index=True)`."""
    both = np.sort((draws << 32) | np.arange(len(draws)))
    ids = both >> 32
    is_first = np.concatenate([[True], ids[1:] != ids[:-1]])
    return ids[is_first], both[is_first] & 0xFFFFFFFF


def log_expected_count(ids: Tensor, tries: Tensor, vocab_size: int) -> Tensor:
    """Log of how often a word is expected among the samples: 1 - (1 - P(k)) ** tries. ids, tries -> float64

    (With no draw repeated, TensorFlow says tries * P(k) instead; of thousands of draws some are repeated.)
    """
    probability = torch.log1p(1 / (ids.double() + 1)) / np.log1p(vocab_size)
    return torch.log(-torch.expm1(tries * torch.log1p(-probability)))


# ---- the rows a step wants


class Wanted(NamedTuple):
    """The different words of one step, and where its targets and samples are among them."""

    ids: Tensor  # (m,) ascending, all different
    target_places: Tensor  # (groups, places) in ids
    sample_places: Tensor  # (groups, number) in ids
    hits: Tensor  # (groups, places): which sample is the place's target, or -1
    target_correction: Tensor  # (groups, places) log expected counts, float32
    sample_correction: Tensor  # (groups, number)

    def to(self, device: torch.device | str) -> "Wanted":
        return Wanted(*(part.to(device, non_blocking=True) for part in self))


def wanted_rows(targets: Tensor, samples: Samples) -> Wanted:
    """Targets (groups, places) are word ids; each group has its own samples."""
    groups, size = len(samples.ids), samples.vocab_size
    if targets.ndim != 2 or len(targets) != groups:
        raise ValueError(
            f"targets must be ({groups}, places), as samples has {groups} groups; they are {_shape(targets)}."
        )
    if targets.numel() and not 0 <= targets.min() <= targets.max() < size:
        least, most = int(targets.min()), int(targets.max())
        raise ValueError(f"targets must be 0 to {size - 1}, but there are {least} to {most}.")
    both, sizes = torch.cat([targets, samples.ids], dim=1), [targets.shape[1], samples.ids.shape[1]]
    ids, places = torch.unique(both, return_inverse=True)
    target_places, sample_places = places.split(sizes, dim=1)
    sample_of = ids.new_full((groups, len(ids)), -1)
    numbers = torch.arange(sizes[1], device=ids.device)
    sample_of.scatter_(1, sample_places, numbers.expand_as(sample_places))
    hits = sample_of.gather(1, target_places)
    corrections = log_expected_count(both, samples.tries, size).float().split(sizes, dim=1)
    return Wanted(ids, target_places, sample_places, hits, *corrections)


# ---- losses


def sampled_loss(hidden: Tensor, rows: Tensor, row_bias: Tensor, wanted: Wanted) -> Tensor:
    """Cross entropy of each place's target against its group's samples, in float32 or float64.

    Each logit is lessened by the log of the word's expected count, and a sample that is the target itself
    does not count. hidden (groups, places, dim), rows (m, dim) and row_bias (m,) of `wanted.ids`
    -> (groups, places)
    """
    if hidden.shape[:2] != wanted.target_places.shape or rows.shape != (len(wanted.ids), hidden.shape[-1]):
        raise ValueError(
            f"hidden {_shape(hidden)} and rows {_shape(rows)} do not fit targets "
            f"{_shape(wanted.target_places)} and {len(wanted.ids)} wanted words."
        )
    hidden, rows, row_bias = _at_least_float32(hidden, rows, row_bias)
    target_bias = row_bias[wanted.target_places] - wanted.target_correction
    sample_bias = row_bias[wanted.sample_places] - wanted.sample_correction
    true = (hidden * rows[wanted.target_places]).sum(-1) + target_bias
    others = log_sum_exp(hidden, rows[wanted.sample_places], sample_bias, wanted.hits)
    return -F.logsigmoid(true - others)


def full_loss(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of each place's target against all words, in float32 or float64.

    hidden (..., dim), weight (vocab_size, dim), bias (vocab_size,), targets (...) -> (...)
    """
    if hidden.shape[:-1] != targets.shape or weight.shape[1:] != hidden.shape[-1:]:
        raise ValueError(
            f"hidden {_shape(hidden)} does not fit targets {_shape(targets)} and weight {_shape(weight)}."
        )
    hidden, weight, bias = _at_least_float32(hidden, weight, bias)
    true = (hidden * weight[targets]).sum(-1) + bias[targets]
    everything = log_sum_exp(hidden.reshape(1, -1, hidden.shape[-1]), weight[None], bias[None])
    return everything.view(targets.shape) - true


def _at_least_float32(*tensors: Tensor) -> list[Tensor]:
    """All of one type: the losses are not made in half precision, whatever autocast says."""
    dtype = torch.promote_types(tensors[0].dtype, torch.float32)
    return [tensor.to(dtype) for tensor in tensors]


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


# ---- the sum over all columns, with its gradient


def log_sum_exp(hidden: Tensor, rows: Tensor, bias: Tensor, hits: Tensor | None = None) -> Tensor:
    """log sum_k exp(hidden . rows_k + bias_k), where column `hits` of a place is left out (-1: none is).

    hidden (groups, places, dim), rows (groups, columns, dim), bias (groups, columns), hits (groups, places)
    -> (groups, places). The logits of a few columns exist at a time; the way back makes them once more.
    """
    with torch.autocast(hidden.device.type, enabled=False):
        return LogSumExp.apply(hidden, rows, bias, hits)


class LogSumExp(Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, rows: Tensor, bias: Tensor, hits: Tensor | None) -> Tensor:
        total = hidden.new_full(hidden.shape[:2], -torch.inf)
        for columns in _slices(hidden, rows):
            logits = _logits(hidden, rows, bias, hits, columns)
            largest = logits.amax(-1, keepdim=True)
            some = logits.sub_(largest).exp_().sum(-1).log_().add_(largest[..., 0])
            total = torch.logaddexp(total, some)
        ctx.save_for_backward(hidden, rows, bias, hits, total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        hidden, rows, bias, hits, total = ctx.saved_tensors
        d_hidden, d_rows, d_bias = torch.zeros_like(hidden), torch.empty_like(rows), torch.empty_like(bias)
        with torch.autocast(hidden.device.type, enabled=False):
            for columns in _slices(hidden, rows):
                logits = _logits(hidden, rows, bias, hits, columns)
                d_logits = logits.sub_(total[..., None]).exp_().mul_(gradient[..., None])
                torch.baddbmm(d_hidden, d_logits, rows[:, columns], out=d_hidden)
                d_rows[:, columns] = d_logits.mT @ hidden
                d_bias[:, columns] = d_logits.sum(1)
        return d_hidden, d_rows, d_bias, None


def _slices(hidden: Tensor, rows: Tensor) -> list[slice]:
    at_once = LOGITS_ON_CPU if hidden.device.type == "cpu" else LOGITS_ELSEWHERE
    width = max(LEAST_COLUMNS, at_once // max(1, hidden.shape[0] * hidden.shape[1]))
    return [slice(start, start + width) for start in range(0, rows.shape[1], width)]


def _logits(hidden: Tensor, rows: Tensor, bias: Tensor, hits: Tensor | None, columns: slice) -> Tensor:
    """(groups, places, as many as columns)"""
    logits = torch.baddbmm(bias[:, None, columns], hidden, rows[:, columns].mT)
    if hits is not None:
        column = hits[..., None] - columns.start
        is_here = (column >= 0) & (column < logits.shape[-1])
        column = column.where(is_here, 0)
        # Not -inf: a place whose only sample is its target would have no largest logit.
        left_out = logits.gather(-1, column).masked_fill(is_here, torch.finfo(logits.dtype).min)
        logits.scatter_(-1, column, left_out)
    return logits
