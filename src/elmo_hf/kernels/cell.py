"""What an LSTM does at a step besides its products, a number of the cells at a time, forward and backward.

On a GPU each of the dozen passes over memory costs more than its arithmetic, so one Triton kernel makes them
all. The plain functions above the kernels are their definition, and serve the CPU and a GPU without Triton.
Tensors start with the directions, and results are written into the tensors given:

    gates   (2, rows, 4 * cells)   i, j, f, o as the products made them; sigmoid or tanh takes their place
    c       (2, rows, cells)       the cells before the step; those after it take their place
    raw_c   (2, rows, cells)       the new cells before the clip
    hidden  (2, rows, cells)       o * tanh(c)

The arithmetic is done in the type of c, which is float32 where the others are half precision. The kernels
want contiguous rows, one after the other; between the directions may be a gap. Where Triton cannot compile
them, it says so once, and the plain functions serve.
"""

import importlib.util
import logging
import subprocess
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

HAS_TRITON = importlib.util.find_spec("triton") is not None
CELLS_AT_ONCE = 1024

_triton_failed = False


def uses_triton(x: Tensor) -> bool:
    return HAS_TRITON and x.is_cuda and not _triton_failed


def cell_forward(gates: Tensor, c: Tensor, limit: float | None, raw_c: Tensor, hidden: Tensor) -> None:
    """From the gates and c to c after the step; keeps what `cell_backward` wants in gates and raw_c."""
    if not (uses_triton(gates) and _launched(triton_forward, gates, c, limit, raw_c, hidden)):
        plain_forward(gates, c, limit, raw_c, hidden)


def cell_backward(
    d_hidden: Tensor,
    d_c: Tensor,
    gates: Tensor,
    c_before: Tensor,
    c: Tensor,
    raw_c: Tensor,
    d_gates: Tensor,
    hidden: Tensor | None,
) -> None:
    """From the gradients to hidden and (in d_c) to c after the step, to those to the gates as they came from
    the products and (in d_c) to c before the step. Makes hidden anew where it is given."""
    arguments = (d_hidden, d_c, gates, c_before, c, raw_c, d_gates, hidden)
    if not (uses_triton(gates) and _launched(triton_backward, *arguments)):
        plain_backward(*arguments)


def _launched(kernel: Callable[..., None], *arguments: Any) -> bool:
    """Whether Triton did it. If not, no tensor was touched, and it is not asked again."""
    global _triton_failed
    try:
        kernel(*arguments)
    except (torch.OutOfMemoryError, torch.AcceleratorError):  # the GPU's faults, and not Triton's
        raise
    except _TRITON_FAULTS as fault:
        _triton_failed = True
        lines = str(fault).splitlines() or [type(fault).__name__]
        logger.warning(
            "Triton cannot run the LSTM's kernels here, so PyTorch's slower operations do their work: %s",
            lines[0],
        )
        return False
    return True


# ---- the definition


def plain_forward(gates: Tensor, c: Tensor, limit: float | None, raw_c: Tensor, hidden: Tensor) -> None:
    active = gates.to(c.dtype)  # in place unless they are half precision
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
    d_hidden: Tensor,
    d_c: Tensor,
    gates: Tensor,
    c_before: Tensor,
    c: Tensor,
    raw_c: Tensor,
    d_gates: Tensor,
    hidden: Tensor | None,
) -> None:
    i, j, f, o = gates.to(c.dtype).chunk(4, dim=-1)
    d_i, d_j, d_f, d_o = d_gates.chunk(4, dim=-1)
    d_hidden = d_hidden.to(c.dtype)
    tanh_c = torch.tanh(c)
    if hidden is not None:
        torch.mul(tanh_c, o, out=hidden)
    through_sigmoid(d_hidden * tanh_c, o, out=d_o)
    d_tanh = d_hidden * o
    d_c.add_(through_tanh(d_tanh, tanh_c, out=d_tanh))
    d_c.masked_fill_(raw_c != c, 0)  # here the clip has cut; a value at its very edge is not cut
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


# ---- the same in one pass: a program for every row of a direction and every thousand of its cells


def triton_forward(gates: Tensor, c: Tensor, limit: float | None, raw_c: Tensor, hidden: Tensor) -> None:
    tensors = (gates, c, raw_c, hidden)
    gaps = [check_rows(tensor) for tensor in tensors]
    with torch.cuda.device_of(c):  # Triton launches on the current device, wherever the tensors are
        _forward_kernel[_grid(c)](*tensors, *gaps, c.shape[-1], limit, CELLS_AT_ONCE)


def triton_backward(
    d_hidden: Tensor,
    d_c: Tensor,
    gates: Tensor,
    c_before: Tensor,
    c: Tensor,
    raw_c: Tensor,
    d_gates: Tensor,
    hidden: Tensor | None,
) -> None:
    # Where nobody wants it, hidden's place is taken by a tensor that is then left alone.
    wanted = hidden is not None
    tensors = (d_hidden, d_c, gates, c_before, c, raw_c, d_gates, c if hidden is None else hidden)
    gaps = [check_rows(tensor) for tensor in tensors]
    with torch.cuda.device_of(c):
        _backward_kernel[_grid(c)](*tensors, *gaps, c.shape[-1], wanted, CELLS_AT_ONCE)


def check_rows(x: Tensor) -> int:
    """The distance between the directions, of a tensor whose rows stand one after the other."""
    if x.numel() and not x[0].is_contiguous():
        raise ValueError(f"the kernel wants rows one after the other, but they have strides {x.stride()}.")
    return x.stride(0)


def _grid(c: Tensor) -> tuple[int, int, int]:
    directions, rows, cells = c.shape
    return rows, -(-cells // CELLS_AT_ONCE), directions


# No compiler or driver (RuntimeError, OSError), one that fails, or a GPU that Triton does not know.
_TRITON_FAULTS: tuple[type[Exception], ...] = (RuntimeError, OSError, subprocess.CalledProcessError)

if HAS_TRITON:
    import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
    import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]

    _TRITON_FAULTS += (triton.TritonError,)

    @triton.jit
    def _tanh(x):
        return 2 * tl.sigmoid(2 * x) - 1  # Triton has no tanh that runs everywhere

    @triton.jit
    def _forward_kernel(
        gates,
        c,
        raw_c,
        hidden,
        gates_gap,
        c_gap,
        raw_c_gap,
        hidden_gap,
        cells,
        LIMIT: tl.constexpr,  # a number known to the compiler keeps its float64 digits
        BLOCK: tl.constexpr,
    ):
        row, column = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        direction = tl.program_id(2).to(tl.int64)
        inside, here = column < cells, row * cells + column
        gates += direction * gates_gap + row * 4 * cells + column
        c += direction * c_gap + here

        old_c = tl.load(c, inside)
        i = tl.sigmoid(tl.load(gates, inside).to(old_c.dtype))
        j = _tanh(tl.load(gates + cells, inside).to(old_c.dtype))
        f = tl.sigmoid(tl.load(gates + 2 * cells, inside).to(old_c.dtype) + 1)
        o = tl.sigmoid(tl.load(gates + 3 * cells, inside).to(old_c.dtype))
        new_c = f * old_c + i * j
        tl.store(raw_c + direction * raw_c_gap + here, new_c, inside)
        if LIMIT is not None:
            limit = tl.full([BLOCK], LIMIT, new_c.dtype)
            new_c = tl.where(new_c > limit, limit, tl.where(new_c < -limit, -limit, new_c))
        tl.store(c, new_c, inside)
        tl.store(hidden + direction * hidden_gap + here, o * _tanh(new_c), inside)
        tl.store(gates, i, inside)
        tl.store(gates + cells, j, inside)
        tl.store(gates + 2 * cells, f, inside)
        tl.store(gates + 3 * cells, o, inside)

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
        d_hidden_gap,
        d_c_gap,
        gates_gap,
        c_before_gap,
        c_gap,
        raw_c_gap,
        d_gates_gap,
        hidden_gap,
        cells,
        WANTS_HIDDEN: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        row, column = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        direction = tl.program_id(2).to(tl.int64)
        inside, here = column < cells, row * cells + column
        gates += direction * gates_gap + row * 4 * cells + column
        d_gates += direction * d_gates_gap + row * 4 * cells + column
        d_c += direction * d_c_gap + here

        new_c = tl.load(c + direction * c_gap + here, inside)
        old_c = tl.load(c_before + direction * c_before_gap + here, inside)
        i = tl.load(gates, inside).to(new_c.dtype)
        j = tl.load(gates + cells, inside).to(new_c.dtype)
        f = tl.load(gates + 2 * cells, inside).to(new_c.dtype)
        o = tl.load(gates + 3 * cells, inside).to(new_c.dtype)
        tanh_c = _tanh(new_c)
        if WANTS_HIDDEN:
            tl.store(hidden + direction * hidden_gap + here, o * tanh_c, inside)

        to_hidden = tl.load(d_hidden + direction * d_hidden_gap + here, inside).to(new_c.dtype)
        to_c = tl.load(d_c, inside) + to_hidden * o * (1 - tanh_c * tanh_c)
        is_cut = tl.load(raw_c + direction * raw_c_gap + here, inside) != new_c
        to_c = tl.where(is_cut, 0.0, to_c)
        tl.store(d_gates, to_c * j * i * (1 - i), inside)
        tl.store(d_gates + cells, to_c * i * (1 - j * j), inside)
        tl.store(d_gates + 2 * cells, to_c * old_c * f * (1 - f), inside)
        tl.store(d_gates + 3 * cells, to_hidden * tanh_c * o * (1 - o), inside)
        tl.store(d_c, to_c * f, inside)
