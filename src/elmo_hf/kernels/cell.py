"""The elementwise part of one LSTM step, forward and backward; on a GPU as one Triton kernel each.

    c' = clip(sigmoid(f + 1) * c + sigmoid(i) * tanh(j))
    hidden = sigmoid(o) * tanh(c')

The matrix products around it, which give the gates and h' = clip(hidden @ P), are made elsewhere. As separate
operations this takes a dozen passes over memory, each of which costs a GPU more than the arithmetic; a Triton
kernel makes one pass. `plain_forward` and `plain_backward` define what the kernels compute. They also run
themselves: on a CPU, on a GPU without Triton, and where Triton cannot compile, which is logged once.

All tensors start with the two directions. The functions write into the tensors that they are given:

    gates   (2, rows, 4 * cells)   i, j, f, o: sums of products on entry, their sigmoid or tanh on return
    c       (2, rows, cells)       the cells: c on entry, c' on return
    raw_c   (2, rows, cells)       c' before the clip, on return
    hidden  (2, rows, cells)       on return

The arithmetic is done in the type of c, which is float32 where the other tensors are half precision. The
kernels need rows that are contiguous within a direction; the two directions may lie apart.
"""

import importlib.util
import logging
import subprocess
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

HAS_TRITON = importlib.util.find_spec("triton") is not None
BLOCK_CELLS = 1024  # cells that one Triton program computes

_triton_failed = False


Clips = tuple[float | None, float | None]  # cell_clip, proj_clip


class LstmWeights(NamedTuple):
    """A layer's weights, as `modeling_elmo.lstm` takes them; without the 2, those of one direction."""

    from_input: Tensor  # (2, input, 4 * cells)
    from_state: Tensor  # (2, output, 4 * cells)
    bias: Tensor  # (2, 4 * cells)
    projection: Tensor | None  # (2, cells, output)


class ForwardValues(NamedTuple):
    """What the backward pass of a step reads of its forward pass; gates are those after sigmoid and tanh."""

    gates: Tensor
    c_before: Tensor
    c: Tensor
    raw_c: Tensor


def uses_triton(x: Tensor) -> bool:
    return HAS_TRITON and x.is_cuda and not _triton_failed


def cell_forward(gates: Tensor, c: Tensor, limit: float | None, raw_c: Tensor, hidden: Tensor) -> None:
    """Compute one step in place, as the module describes; `limit` is the cell clip."""
    if not (uses_triton(gates) and _try_triton(triton_forward, gates, c, limit, raw_c, hidden)):
        plain_forward(gates, c, limit, raw_c, hidden)


def cell_backward(
    d_hidden: Tensor, d_c: Tensor, values: ForwardValues, d_gates: Tensor, hidden: Tensor | None
) -> None:
    """Compute the gradient of one step.

    Args:
        d_hidden: gradient to hidden.
        d_c: gradient to c' on entry, to c on return.
        values: of the forward pass.
        d_gates: receives the gradient to the gates before sigmoid and tanh.
        hidden: receives hidden again, which the forward pass does not keep; None if it is not needed.
    """
    arguments = (d_hidden, d_c, values, d_gates, hidden)
    if not (uses_triton(values.gates) and _try_triton(triton_backward, *arguments)):
        plain_backward(*arguments)


def _try_triton(function: Callable[..., None], *arguments: Any) -> bool:
    """Whether Triton ran. If it fails, no tensor has been written to, and it is not tried again."""
    global _triton_failed
    try:
        function(*arguments)
    except (torch.OutOfMemoryError, torch.AcceleratorError):  # errors of the GPU, not of Triton
        raise
    except _TRITON_ERRORS as error:
        _triton_failed = True
        lines = str(error).splitlines() or [type(error).__name__]
        logger.warning(
            "Triton cannot run the LSTM kernels here, so slower PyTorch operations are used: %s", lines[0]
        )
        return False
    return True


# ---- the definition


def plain_forward(gates: Tensor, c: Tensor, limit: float | None, raw_c: Tensor, hidden: Tensor) -> None:
    active = gates.to(c.dtype)  # the same tensor, unless the gates are half precision
    i, j, f, o = active.chunk(4, dim=-1)
    i.sigmoid_()
    j.tanh_()
    f.add_(1).sigmoid_()
    o.sigmoid_()
    torch.mul(f, c, out=raw_c)
    raw_c.addcmul_(i, j)
    clip_into(raw_c, limit, out=c)
    hidden.copy_(torch.tanh(c).mul_(o))
    if active is not gates:
        gates.copy_(active)


def plain_backward(
    d_hidden: Tensor, d_c: Tensor, values: ForwardValues, d_gates: Tensor, hidden: Tensor | None
) -> None:
    gates, c_before, c, raw_c = values
    i, j, f, o = gates.to(c.dtype).chunk(4, dim=-1)
    d_i, d_j, d_f, d_o = d_gates.chunk(4, dim=-1)
    d_hidden = d_hidden.to(c.dtype)
    tanh_c = torch.tanh(c)
    if hidden is not None:
        torch.mul(tanh_c, o, out=hidden)
    through_sigmoid(d_hidden * tanh_c, o, out=d_o)
    d_tanh = d_hidden * o
    d_c.add_(through_tanh(d_tanh, tanh_c, out=d_tanh))
    d_c.masked_fill_(raw_c != c, 0)  # no gradient where the clip has cut; at the limit itself it passes
    through_sigmoid(d_c * j, i, out=d_i)
    d_new = d_c * i
    d_j.copy_(through_tanh(d_new, j, out=d_new))
    through_sigmoid(d_c * c_before, f, out=d_f)
    d_c.mul_(f)


def clip(x: Tensor, limit: float | None) -> Tensor:
    return x if limit is None else x.clamp(-limit, limit)


def clip_into(x: Tensor, limit: float | None, out: Tensor) -> None:
    if limit is None:
        out.copy_(x)
    else:
        torch.clamp(x, -limit, limit, out=out)


def through_sigmoid(gradient: Tensor, sigmoid: Tensor, out: Tensor) -> None:
    """`gradient * sigmoid * (1 - sigmoid)` in one pass"""
    torch.ops.aten.sigmoid_backward.grad_input(gradient, sigmoid, grad_input=out)


def through_tanh(gradient: Tensor, tanh: Tensor, out: Tensor) -> Tensor:
    """`gradient * (1 - tanh * tanh)` in one pass"""
    return torch.ops.aten.tanh_backward.grad_input(gradient, tanh, grad_input=out)


# ---- the Triton kernels: a program for each direction, row and block of cells


def triton_forward(gates: Tensor, c: Tensor, limit: float | None, raw_c: Tensor, hidden: Tensor) -> None:
    tensors = (gates, c, raw_c, hidden)
    strides = [direction_stride(tensor) for tensor in tensors]
    with torch.cuda.device_of(c):  # Triton launches on the current device, wherever the tensors are
        _forward_kernel[_grid(c)](*tensors, *strides, c.shape[-1], limit, BLOCK_CELLS)


def triton_backward(
    d_hidden: Tensor, d_c: Tensor, values: ForwardValues, d_gates: Tensor, hidden: Tensor | None
) -> None:
    c, writes_hidden = values.c, hidden is not None
    # The kernel needs a tensor in the place of hidden; without one it gets c and does not write to it.
    tensors = (d_hidden, d_c, *values, d_gates, c if hidden is None else hidden)
    strides = [direction_stride(tensor) for tensor in tensors]
    with torch.cuda.device_of(c):
        _backward_kernel[_grid(c)](*tensors, *strides, c.shape[-1], writes_hidden, BLOCK_CELLS)


def direction_stride(x: Tensor) -> int:
    """The distance between the two directions, of a tensor whose rows are contiguous within each."""
    if x.numel() and not x[0].is_contiguous():
        raise ValueError(
            f"the LSTM kernel needs contiguous rows, but the tensor has the strides {x.stride()}."
        )
    return x.stride(0)


def _grid(c: Tensor) -> tuple[int, int, int]:
    directions, rows, cells = c.shape
    return rows, -(-cells // BLOCK_CELLS), directions


# There is no compiler or driver (RuntimeError, OSError), or it fails, or Triton does not know the GPU.
_TRITON_ERRORS: tuple[type[Exception], ...] = (RuntimeError, OSError, subprocess.CalledProcessError)

if HAS_TRITON:
    import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
    import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]

    _TRITON_ERRORS += (triton.TritonError,)

    @triton.jit
    def _tanh(x):
        return 2 * tl.sigmoid(2 * x) - 1  # Triton has no tanh for all its backends

    @triton.jit
    def _load_gates(gates, cells, inside, like):
        i = tl.load(gates, inside).to(like.dtype)
        j = tl.load(gates + cells, inside).to(like.dtype)
        f = tl.load(gates + 2 * cells, inside).to(like.dtype)
        o = tl.load(gates + 3 * cells, inside).to(like.dtype)
        return i, j, f, o

    @triton.jit
    def _store_gates(gates, cells, inside, i, j, f, o):
        tl.store(gates, i, inside)
        tl.store(gates + cells, j, inside)
        tl.store(gates + 2 * cells, f, inside)
        tl.store(gates + 3 * cells, o, inside)

    @triton.jit
    def _forward_kernel(
        gates,
        c,
        raw_c,
        hidden,
        gates_stride,
        c_stride,
        raw_c_stride,
        hidden_stride,
        cells,
        LIMIT: tl.constexpr,  # as a constant it keeps the digits of a float64
        BLOCK: tl.constexpr,
    ):
        row, column = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        direction = tl.program_id(2).to(tl.int64)
        inside, offset = column < cells, row * cells + column
        gates += direction * gates_stride + row * 4 * cells + column
        c += direction * c_stride + offset

        old_c = tl.load(c, inside)
        raw_i, raw_j, raw_f, raw_o = _load_gates(gates, cells, inside, old_c)
        i, j, f, o = tl.sigmoid(raw_i), _tanh(raw_j), tl.sigmoid(raw_f + 1), tl.sigmoid(raw_o)
        new_c = f * old_c + i * j
        tl.store(raw_c + direction * raw_c_stride + offset, new_c, inside)
        if LIMIT is not None:
            limit = tl.full([BLOCK], LIMIT, new_c.dtype)
            new_c = tl.where(new_c > limit, limit, tl.where(new_c < -limit, -limit, new_c))
        tl.store(c, new_c, inside)
        tl.store(hidden + direction * hidden_stride + offset, o * _tanh(new_c), inside)
        _store_gates(gates, cells, inside, i, j, f, o)

    @triton.jit
    def _backward_kernel(
        d_hidden,
        d_c,
        gates,
        c_before,
        c,
        raw_c,
        d_gates,
        hidden,
        d_hidden_stride,
        d_c_stride,
        gates_stride,
        c_before_stride,
        c_stride,
        raw_c_stride,
        d_gates_stride,
        hidden_stride,
        cells,
        WRITES_HIDDEN: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        row, column = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        direction, of_gates = tl.program_id(2).to(tl.int64), row * 4 * cells + column
        inside, offset = column < cells, row * cells + column
        d_c += direction * d_c_stride + offset
        new_c = tl.load(c + direction * c_stride + offset, inside)
        old_c = tl.load(c_before + direction * c_before_stride + offset, inside)
        i, j, f, o = _load_gates(gates + direction * gates_stride + of_gates, cells, inside, new_c)
        tanh_c = _tanh(new_c)
        if WRITES_HIDDEN:
            tl.store(hidden + direction * hidden_stride + offset, o * tanh_c, inside)

        to_hidden = tl.load(d_hidden + direction * d_hidden_stride + offset, inside).to(new_c.dtype)
        to_c = tl.load(d_c, inside) + to_hidden * o * (1 - tanh_c * tanh_c)
        is_cut = tl.load(raw_c + direction * raw_c_stride + offset, inside) != new_c
        to_c = tl.where(is_cut, 0.0, to_c)
        tl.store(d_c, to_c * f, inside)
        to_i, to_j = to_c * j * i * (1 - i), to_c * i * (1 - j * j)
        to_f, to_o = to_c * old_c * f * (1 - f), to_hidden * tanh_c * o * (1 - o)
        _store_gates(d_gates + direction * d_gates_stride + of_gates, cells, inside, to_i, to_j, to_f, to_o)
