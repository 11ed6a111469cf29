"""Losses over a large vocabulary: sampled softmax for training, full softmax for small vocabularies.

    samples = draw_samples(8192, vocab_size, seed=(seed, step, process))  # for both directions, about 2 ms
    selected = select_rows(targets, samples).to(device)                   # targets: (2, positions)
    rows = weight.detach()[selected.ids].requires_grad_()                 # (m, dim) of (vocab_size, dim)
    row_bias = bias.detach()[selected.ids].requires_grad_()
    losses = sampled_loss(hidden, rows, row_bias, selected)               # (2, positions)

The sampled loss is TensorFlow's `sampled_softmax_loss` with its `log_uniform_candidate_sampler(unique=True)`.
Loss and gradient touch only the rows of the step's targets and samples, so a step costs the same with 50,000
words and with 800,000. Losses are computed in float32, also under autocast; on a CPU their products are of
the type of the hidden states, and on a GPU `torch.set_float32_matmul_precision("high")` speeds them up.

Word ids must follow falling frequency, as in every ELMo vocabulary: a low id is drawn more often.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from elmo_hf.errors import ElmoError
from elmo_hf.kernels import softmax
from elmo_hf.kernels.gradients import refuses_second_derivative

# Logits that exist at a time: what a processor's cache holds, or 256 MB in float32. Products with fewer
# columns than the minimum would be slow, and save little memory beside hidden states of some 500 values.
LOGITS_ON_CPU, LOGITS_ELSEWHERE, MIN_COLUMNS = 2**20, 2**26, 256


# ---- samples


class Samples(NamedTuple):
    """Words drawn for each group of positions (one group per direction)."""

    ids: Tensor  # (groups, number), ascending, all different within a group
    draws: Tensor  # (groups, 1): draws that it took to have `number` different words
    vocab_size: int


def draw_samples(number: int, vocab_size: int, seed: Sequence[int], groups: int = 2) -> Samples:
    """Draw `number` different words for each group, by a seed such as (seed, step, process)."""
    generators = [np.random.default_rng([*seed, group]) for group in range(groups)]
    drawn = [log_uniform_sample(number, vocab_size, generator) for generator in generators]
    ids, draws = (np.array(column, dtype=np.int64) for column in zip(*drawn, strict=True))
    return Samples(torch.from_numpy(ids), torch.from_numpy(draws)[:, None], vocab_size)


def log_uniform_sample(
    number: int, vocab_size: int, generator: np.random.Generator
) -> tuple[np.ndarray, int]:
    """Draw P(k) = log((k + 2) / (k + 1)) / log(vocab_size + 1) until there are `number` different words.

    Returns:
        the words (number,), ascending, and the number of draws. More is drawn from the generator than that.
    """
    if not 1 <= number <= vocab_size:
        raise ElmoError(
            f"{number} different words cannot be drawn from {vocab_size}; draw 1 to {vocab_size}."
        )
    more, draws = 2 * number + number // 4, np.empty(0, dtype=np.int64)  # 8,192 of 800,000 need about 16,100
    while True:
        powers = np.exp(generator.random(more) * np.log1p(vocab_size))
        draws = np.concatenate([draws, (powers - 1).astype(np.int64) % vocab_size])
        ids, positions = _first_positions(draws)
        if len(ids) >= number:
            last = np.partition(positions, number - 1)[number - 1]
            return ids[positions <= last], int(last) + 1
        more = len(draws)


def _first_positions(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different ids, ascending, and the first position of each. One sort of integers with the position in
    their lower half is twice as fast as `np.unique(return_index=True)`."""
    packed = np.sort((draws << 32) | np.arange(len(draws)))
    ids = packed >> 32
    is_first = np.concatenate([[True], ids[1:] != ids[:-1]])
    return ids[is_first], packed[is_first] & 0xFFFFFFFF


def log_expected_count(ids: Tensor, draws: Tensor, vocab_size: int) -> Tensor:
    """Log of a word's expected count among the samples: log(1 - (1 - P(k)) ** draws), in float64.

    TensorFlow takes draws * P(k) where no draw was repeated; of thousands of draws some are repeated.
    """
    probability = torch.log1p(1 / (ids.double() + 1)) / np.log1p(vocab_size)
    return torch.log(-torch.expm1(draws * torch.log1p(-probability)))


# ---- the softmax's rows of a step


class SelectedRows(NamedTuple):
    """The different words among a step's targets and samples, and the index of each in them."""

    ids: Tensor  # (m,) word ids, ascending, all different
    target_index: Tensor  # (groups, positions)
    sample_index: Tensor  # (groups, number)
    hits: Tensor  # (groups, positions): the sample that is the position's target, or -1
    target_correction: Tensor  # (groups, positions): log expected counts, float32
    sample_correction: Tensor  # (groups, number)

    def to(self, device: torch.device | str) -> "SelectedRows":
        return SelectedRows(*(tensor.to(device, non_blocking=True) for tensor in self))


def select_rows(targets: Tensor, samples: Samples) -> SelectedRows:
    """Find the rows of the softmax that a step needs.

    Args:
        targets: (groups, positions) word ids
        samples: of as many groups
    """
    groups, size = len(samples.ids), samples.vocab_size
    if targets.ndim != 2 or len(targets) != groups:
        raise ElmoError(
            f"targets must be ({groups}, positions), as samples has {groups} groups; they are "
            f"{_shape(targets)}."
        )
    if targets.numel() and not 0 <= targets.min() <= targets.max() < size:
        low, high = int(targets.min()), int(targets.max())
        raise ElmoError(f"targets must be 0 to {size - 1}, but there are {low} to {high}.")
    words, sizes = torch.cat([targets, samples.ids], dim=1), [targets.shape[1], samples.ids.shape[1]]
    ids, index = torch.unique(words, return_inverse=True)
    target_index, sample_index = index.split(sizes, dim=1)
    sample_of = ids.new_full((groups, len(ids)), -1)
    numbers = torch.arange(sizes[1], device=ids.device)
    sample_of.scatter_(1, sample_index, numbers.expand_as(sample_index))
    hits = sample_of.gather(1, target_index)
    corrections = log_expected_count(words, samples.draws, size).float().split(sizes, dim=1)
    return SelectedRows(ids, target_index, sample_index, hits, *corrections)


# ---- losses


def sampled_loss(hidden: Tensor, rows: Tensor, row_bias: Tensor, selected: SelectedRows) -> Tensor:
    """Cross entropy of each position's target against its group's samples, in float32 or float64.

    The log of a word's expected count is subtracted from its logit. A sample that is the target is left out.

    Args:
        hidden: (groups, positions, dim)
        rows, row_bias: (m, dim) and (m,), the softmax's rows of `selected.ids`

    Returns:
        (groups, positions)
    """
    if hidden.shape[:2] != selected.target_index.shape or rows.shape != (
        len(selected.ids),
        hidden.shape[-1],
    ):
        raise ElmoError(
            f"hidden {_shape(hidden)} and rows {_shape(rows)} do not fit targets "
            f"{_shape(selected.target_index)} and {len(selected.ids)} selected words."
        )
    dtype, (hidden, rows, row_bias) = hidden.dtype, _at_least_float32(hidden, rows, row_bias)
    target_bias = row_bias[selected.target_index] - selected.target_correction
    sample_bias = row_bias[selected.sample_index] - selected.sample_correction
    target_logit = (hidden * rows[selected.target_index]).sum(-1) + target_bias
    log_sum = log_sum_exp(hidden, rows[selected.sample_index], sample_bias, selected.hits, dtype)
    return -F.logsigmoid(target_logit - log_sum)


def full_loss(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of each position's target against all words, in float32 or float64.

    Args:
        hidden: (..., dim)
        weight, bias: (vocab_size, dim) and (vocab_size,)
        targets: (...) word ids

    Returns:
        (...)
    """
    if hidden.shape[:-1] != targets.shape or weight.shape[1:] != hidden.shape[-1:]:
        raise ElmoError(
            f"hidden {_shape(hidden)} does not fit targets {_shape(targets)} and weight {_shape(weight)}."
        )
    dtype, (hidden, weight, bias) = hidden.dtype, _at_least_float32(hidden, weight, bias)
    target_logit = (hidden * weight[targets]).sum(-1) + bias[targets]
    log_sum = log_sum_exp(hidden.reshape(1, -1, hidden.shape[-1]), weight[None], bias[None], dtype=dtype)
    return log_sum.view(targets.shape) - target_logit


def _at_least_float32(*tensors: Tensor) -> list[Tensor]:
    """Convert all to one type: losses are not computed in half precision, whatever autocast says."""
    dtype = torch.promote_types(tensors[0].dtype, torch.float32)
    return [tensor.to(dtype) for tensor in tensors]


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


# ---- log of the sum of exponentials, in slices


def log_sum_exp(
    hidden: Tensor, rows: Tensor, bias: Tensor, hits: Tensor | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """log sum_k exp(hidden . rows_k + bias_k) over the columns k, without column `hits` of each position.

    On a CPU `kernels/softmax.py` computes it, where it can keep what it needs. Elsewhere only the logits of
    some columns exist at a time; the backward pass computes them again.

    Args:
        hidden: (groups, positions, dim)
        rows, bias: (groups, columns, dim) and (groups, columns)
        hits: (groups, positions) columns to leave out; -1: none
        dtype: bfloat16 for products in this type on a CPU.

    Returns:
        (groups, positions)
    """
    with torch.autocast(hidden.device.type, enabled=False):
        if softmax.serves(hidden, rows):
            dtype = torch.bfloat16 if dtype == torch.bfloat16 else hidden.dtype
            return softmax.log_sum_exp(hidden.to(dtype), rows.to(dtype), bias, hits)
        return LogSumExp.apply(hidden, rows, bias, hits)


class LogSumExp(Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, rows: Tensor, bias: Tensor, hits: Tensor | None) -> Tensor:
        total = hidden.new_full(hidden.shape[:2], -torch.inf)
        for columns in _slices(hidden, rows):
            logits = _logits(hidden, rows, bias, hits, columns)
            largest = logits.amax(-1, keepdim=True)
            log_sum = logits.sub_(largest).exp_().sum(-1).log_().add_(largest[..., 0])
            total = torch.logaddexp(total, log_sum)
        ctx.save_for_backward(hidden, rows, bias, hits, total)
        return total

    @staticmethod
    @refuses_second_derivative(softmax.FULL_SOFTMAX)
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
    limit = LOGITS_ON_CPU if hidden.device.type == "cpu" else LOGITS_ELSEWHERE
    width = max(MIN_COLUMNS, limit // max(1, hidden.shape[0] * hidden.shape[1]))
    return [slice(start, start + width) for start in range(0, rows.shape[1], width)]


def _logits(hidden: Tensor, rows: Tensor, bias: Tensor, hits: Tensor | None, columns: slice) -> Tensor:
    """(groups, positions, columns of the slice)"""
    logits = torch.baddbmm(bias[:, None, columns], hidden, rows[:, columns].mT)
    if hits is not None:
        column = hits[..., None] - columns.start
        is_inside = (column >= 0) & (column < logits.shape[-1])
        column = column.where(is_inside, 0)
        # Not -inf: it would give NaN where a position's only sample is its target.
        masked = logits.gather(-1, column).masked_fill(is_inside, torch.finfo(logits.dtype).min)
        logits.scatter_(-1, column, masked)
    return logits
