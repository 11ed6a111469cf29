"""The log of a sum of exponentials over a softmax's columns, for training on a CPU.

    total = log_sum_exp(hidden, rows, bias, hits)    # log sum_k exp(hidden . rows_k + bias_k)

The forward pass keeps each column's share `exp(logit - total)`, which is all that the gradient needs: the
logits are computed once, and the backward pass is matrix products alone. If hidden and rows are bfloat16, so
are the products and the shares; bias and total are float32.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from elmo_hf.kernels.gradients import refuses_second_derivative
from elmo_hf.kernels.products import product
from elmo_hf.kernels.training_cpu import recycled_empty

MAX_KEPT = 2**29  # bytes of shares
BLOCK_LOGITS = 2**19  # logits that exist at a time: what the cache holds
FULL_SOFTMAX = "use the softmax over all words, as in ElmoForPreTraining"


def serves(hidden: Tensor, rows: Tensor) -> bool:
    """Whether the tensors are on a CPU, and the shares are few enough to be kept."""
    groups, positions, _ = hidden.shape
    size = groups * positions * rows.shape[1] * hidden.element_size()
    return hidden.device.type == "cpu" and hidden.dtype != torch.float16 and size <= MAX_KEPT


def log_sum_exp(hidden: Tensor, rows: Tensor, bias: Tensor, hits: Tensor | None = None) -> Tensor:
    """
    Args:
        hidden: (groups, positions, dim)
        rows: (groups, columns, dim), of the same type
        bias: (groups, columns), float32 where these are bfloat16, and of their type otherwise
        hits: (groups, positions) columns to leave out; -1: none

    Returns:
        (groups, positions), of the type of bias
    """
    return LogSumExp.apply(hidden, rows, bias, hits)


class LogSumExp(Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, rows: Tensor, bias: Tensor, hits: Tensor | None) -> Tensor:
        groups, positions, _ = hidden.shape
        columns = rows.shape[1]
        total = bias.new_empty(groups, positions)
        shares = recycled_empty(hidden, groups, positions, columns)
        size = max(1, BLOCK_LOGITS // max(1, columns))
        for group in range(groups):
            for start in range(0, positions, size):
                block = group, slice(start, start + size)
                hit = None if hits is None else hits[block]
                total[block], shares[block] = _of_block(hidden[block], rows[group], bias[group], hit)
        ctx.save_for_backward(hidden, rows, shares)
        ctx.bias_dtype = bias.dtype
        return total

    @staticmethod
    @refuses_second_derivative(FULL_SOFTMAX)
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        hidden, rows, shares = ctx.saved_tensors
        d_hidden, d_rows = torch.empty_like(hidden), torch.empty_like(rows)
        d_bias = gradient.new_empty(rows.shape[:2])
        with torch.autocast("cpu", enabled=False):
            for group, of_positions in enumerate(gradient[..., None]):
                d_hidden[group] = product(shares[group], rows[group]).mul_(of_positions)
                d_rows[group] = product(shares[group].t(), (hidden[group] * of_positions).to(rows.dtype))
                d_bias[group] = (of_positions.t().to(rows.dtype) @ shares[group])[0]
        return d_hidden, d_rows, d_bias, None


def _of_block(hidden: Tensor, rows: Tensor, bias: Tensor, hits: Tensor | None) -> tuple[Tensor, Tensor]:
    """hidden (n, dim), rows (columns, dim), bias (columns), hits (n) -> totals (n), shares (n, columns)"""
    if bias.dtype == hidden.dtype:
        logits = product(hidden, rows.t(), bias)
    else:
        logits = torch.add(product(hidden, rows.t()), bias)
    if hits is not None:
        (positions,) = (hits >= 0).nonzero(as_tuple=True)
        # Not -inf: it would give NaN where a position's only column is left out.
        logits[positions, hits[positions]] = torch.finfo(logits.dtype).min
    shares = logits.softmax(dim=-1)
    return logits.amax(dim=-1) - shares.amax(dim=-1).log_(), shares
