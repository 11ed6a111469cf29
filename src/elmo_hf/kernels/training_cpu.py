"""The layer of `training.py` for a CPU's long steps.

Half of a plain implementation's time on a CPU goes to memory and not to arithmetic. So, unlike `PairLayer`:

- Each direction is read to its end before the other, so that its weights stay in the cache.
- oneDNN makes the products (`products.py`). It returns them in new memory; what reads them next writes its
  result to the final place, so that nothing is copied.
- What a step makes is small enough to be in the cache still when the next one reads it: the product with the
  input is made for a few steps at a time, and clips are applied again where they are needed.
- tanh is computed from the sigmoid, which is several times as fast.
- Large tensors use the memory of earlier ones again (see the end of this file).

In bfloat16 the products, what they read and what they return are bfloat16: half the memory, and twice the
speed on a processor that has such products. The cells, the gates, the bias and all that is elementwise stay
float32.

All words that are read at one step stand together (`steps.py`). They are the "words" of the shapes below,
which are those of one direction.
"""

import contextlib
import math
import mmap
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from elmo_hf.kernels.cell import Clips, LstmWeights, clip, clip_into, through_sigmoid, through_tanh
from elmo_hf.kernels.gradients import READABLE, refuses_second_derivative
from elmo_hf.kernels.products import add_product, product
from elmo_hf.kernels.steps import Steps


class Kept(NamedTuple):
    """What the backward pass needs of the forward pass."""

    words_and_h: Tensor  # (words, input + output), each word beside the h from which its step started
    first_c: Tensor  # (batch, cells)
    gates: Tensor  # (words, 4 * cells), after sigmoid and tanh
    raw_c: Tensor  # (words, cells), before the clip
    hidden: Tensor  # (words, cells), what is projected
    raw_h: Tensor  # (words, output), before the clip; without a projection the same as hidden


class CpuLayer(Function):
    """x (2, batch, time, input), h (2, batch, output), c (2, batch, cells), the four weights, the steps of
    each direction, the clips -> outputs (2, batch, time, output), and the last h and c

    c and the bias are of one type, and so are all others.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, h: Tensor, c: Tensor, *weights_steps_clips: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        *tensors, steps, clips = weights_steps_clips
        results: list[Any] = []
        saved: list[Tensor] = []
        for d in range(len(x)):
            *result, kept = read(x[d], h[d], c[d], _direction(tensors, d), steps[d], clips)
            results.append(result)
            saved += kept
        ctx.save_for_backward(*saved, *tensors)
        ctx.steps, ctx.clips = steps, clips
        outputs, last_h, last_c = (torch.stack(pair) for pair in zip(*results, strict=True))
        return outputs, last_h, last_c

    @staticmethod
    @refuses_second_derivative(READABLE)
    def backward(ctx: Any, *d_results: Tensor) -> tuple[Tensor | None, ...]:
        saved, size, results = ctx.saved_tensors, len(Kept._fields), []
        needed = ctx.needs_input_grad
        with torch.autocast("cpu", enabled=False):
            for d, steps in enumerate(ctx.steps):
                kept = Kept(*saved[d * size : (d + 1) * size])
                weights = _direction(saved[-len(LstmWeights._fields) :], d)
                d_outputs, d_h, d_c = (gradient[d] for gradient in d_results)
                results.append(read_back(d_outputs, d_h, d_c, kept, weights, steps, ctx.clips, needed))
        gradients = [None if pair[0] is None else torch.stack(pair) for pair in zip(*results, strict=True)]
        return *gradients, None, None


def _direction(weights: Sequence[Any], d: int) -> LstmWeights:
    tensors: list[Any] = [None if weight is None else weight[d] for weight in weights]
    return LstmWeights(*tensors)


# ---- forward


def read(
    x: Tensor, h: Tensor, c: Tensor, weights: LstmWeights, steps: Steps, clips: Clips
) -> tuple[Tensor, Tensor, Tensor, Kept]:
    """x (batch, time, input), h (batch, output), c (batch, cells)
    -> outputs (batch, time, output), the last h and c, and what the backward pass needs"""
    (words,), (h,), (c,) = steps.pack(x[None]), steps.sort(h[None]), steps.sort(c[None])
    kept = _empty_kept(words, h, c, weights)
    kept.words_and_h[:, : words.shape[1]] = words
    gates = _scaled(weights)
    for now, from_input in zip(steps.slices, input_gates(words, gates, steps), strict=True):
        step_h, step_c = h[: len(from_input)], c[: len(from_input)]
        kept.words_and_h[now, words.shape[1] :] = step_h
        raw = add_product(from_input, step_h, gates.from_state)
        kept.hidden[now] = cell_forward(raw, gates.bias, step_c, clips[0], kept.gates[now], kept.raw_c[now])
        if weights.projection is not None:
            kept.raw_h[now] = product(kept.hidden[now], weights.projection)
        clip_into(kept.raw_h[now], clips[1], out=step_h)
    outputs = clip(kept.raw_h, clips[1])
    return steps.unpack(outputs[None])[0], steps.unsort(h[None])[0], steps.unsort(c[None])[0], kept


def _empty_kept(words: Tensor, h: Tensor, c: Tensor, weights: LstmWeights) -> Kept:
    count, cells = len(words), c.shape[-1]
    hidden = recycled_empty(words, count, cells)
    return Kept(
        words_and_h=words.new_empty(count, words.shape[1] + h.shape[-1]),
        first_c=c.clone(),
        gates=recycled_empty(c, count, 4 * cells),
        raw_c=recycled_empty(c, count, cells),
        hidden=hidden,
        raw_h=hidden if weights.projection is None else words.new_empty(count, h.shape[-1]),
    )


def _scaled(weights: LstmWeights) -> LstmWeights:
    """The gates' weights, twice as large for tanh (see `tanh`), and the bias with the forget gate's 1."""
    scaled = weights._replace(
        from_input=weights.from_input.clone(),
        from_state=weights.from_state.clone(),
        bias=weights.bias.clone(),
    )
    scaled.bias.chunk(4)[2].add_(1)
    for tensor in (scaled.from_input, scaled.from_state, scaled.bias):
        tensor.chunk(4, dim=-1)[1].mul_(2)
    return scaled


def input_gates(words: Tensor, gates: LstmWeights, steps: Steps) -> Iterator[Tensor]:
    """What the input adds to the gates of each step, (words of the step, 4 * cells), with the bias if that
    has the same type. It is made for a few steps at a time, so that it fits into the cache."""
    bias = gates.bias if gates.bias.dtype == words.dtype else None
    start = 0
    for block in steps.blocks:
        stop = start + sum(block)
        yield from product(words[start:stop], gates.from_input, bias).split(block)
        start = stop


def cell_forward(
    raw: Tensor, bias: Tensor, c: Tensor, limit: float | None, gates: Tensor, raw_c: Tensor
) -> Tensor:
    """raw (rows, 4 * cells), the sums of products -> hidden (rows, cells), as in `cell.py`; c is updated, and
    gates and raw_c are written. The bias is in the sums already if these are of its type."""
    if raw.dtype != bias.dtype:
        raw = torch.add(raw, bias, out=gates)
    i, j, f, o = torch.sigmoid(raw, out=gates).chunk(4, dim=-1)
    j.mul_(2).sub_(1)
    torch.mul(f, c, out=raw_c).addcmul_(i, j)
    clip_into(raw_c, limit, out=c)
    return tanh(c).mul_(o)


# ---- backward


def read_back(
    d_outputs: Tensor,
    d_h: Tensor,
    d_c: Tensor,
    kept: Kept,
    weights: LstmWeights,
    steps: Steps,
    clips: Clips,
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients to x, h, c and the weights from those to the results of `read`; None where not needed."""
    (d_outputs,), (d_h,), (d_c,) = steps.pack(d_outputs[None]), steps.sort(d_h[None]), steps.sort(d_c[None])
    d_gates, d_raw_h = recycled_empty(kept.raw_h, *kept.gates.shape), torch.empty_like(kept.raw_h)
    scratch = kept.gates.new_empty(len(d_c), kept.gates.shape[1])
    for now, c, c_before in cells_from_the_last(kept, steps, clips[0]):
        step_h, step_c = d_h[: len(c)], d_c[: len(c)]
        d_now = torch.add(step_h, d_outputs[now], out=d_raw_h[now])
        through_clip(d_now, kept.raw_h[now], clips[1])
        d_hidden = d_now if weights.projection is None else product(d_now, weights.projection.t())
        d_hidden = d_hidden.to(c.dtype, copy=weights.projection is None)
        d_step = d_gates[now] if d_gates.dtype == c.dtype else scratch[: len(c)]
        cell_backward(d_hidden, step_c, kept.gates[now], tanh(c), kept.raw_c[now], c_before, clips[0], d_step)
        if d_step.dtype != d_gates.dtype:
            d_gates[now] = d_step
        step_h.copy_(product(d_gates[now], weights.from_state.t()))
    d_x = steps.unpack(product(d_gates, weights.from_input.t())[None])[0] if needed[0] else None
    d_weights = weight_gradients(needed[3:], d_gates, d_raw_h, kept, weights)
    return [d_x, steps.unsort(d_h[None])[0], steps.unsort(d_c[None])[0], *d_weights]


def cells_from_the_last(
    kept: Kept, steps: Steps, limit: float | None
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """For each step, from the last to the first: its words, and its rows' cells after it and before it."""
    slices = steps.slices[::-1]
    for now, earlier in zip(slices, [*slices[1:], None], strict=False):
        c = clip(kept.raw_c[now], limit)
        before = kept.first_c if earlier is None else clip(kept.raw_c[earlier], limit)
        yield now, c, before[: len(c)]


def cell_backward(
    d_hidden: Tensor,
    d_c: Tensor,
    gates: Tensor,
    tanh_c: Tensor,
    raw_c: Tensor,
    c_before: Tensor,
    limit: float | None,
    d_gates: Tensor,
) -> None:
    """As `cell.cell_backward`, with tanh(c') known; d_hidden is overwritten."""
    i, j, f, o = gates.chunk(4, dim=-1)
    d_i, d_j, d_f, d_o = d_gates.chunk(4, dim=-1)
    through_sigmoid(torch.mul(d_hidden, tanh_c), o, out=d_o)
    through_tanh(d_hidden.mul_(o), tanh_c, out=d_hidden)
    through_clip(d_c.add_(d_hidden), raw_c, limit)
    through_sigmoid(torch.mul(d_c, j, out=d_hidden), i, out=d_i)
    through_tanh(torch.mul(d_c, i, out=d_hidden), j, out=d_j)
    through_sigmoid(torch.mul(d_c, c_before, out=d_hidden), f, out=d_f)
    d_c.mul_(f)


def weight_gradients(
    needed: Sequence[bool], d_gates: Tensor, d_raw_h: Tensor, kept: Kept, weights: LstmWeights
) -> list[Tensor | None]:
    """The gradients to the four weights, each as one product over all words; None where not needed."""
    results: list[Tensor | None] = [None] * 4
    if needed[0] or needed[1]:
        both = product(kept.words_and_h.t(), d_gates)
        results[:2] = both.split([len(weights.from_input), len(weights.from_state)])
    if needed[2]:
        results[2] = (d_gates.new_ones(1, len(d_gates)) @ d_gates)[0].to(weights.bias.dtype)
    if needed[3] and weights.projection is not None:
        # As the transpose of its transpose: the transposed factor is copied, and d_raw_h is the smaller one.
        results[3] = product(d_raw_h.t(), kept.hidden).t()
    return [result if need else None for result, need in zip(results, needed, strict=False)]


def tanh(x: Tensor) -> Tensor:
    """`2 * sigmoid(2 * x) - 1`"""
    return torch.mul(x, 2).sigmoid_().mul_(2).sub_(1)


def through_clip(gradient: Tensor, raw: Tensor, limit: float | None) -> None:
    """In place: zero where the clip has cut. At the limit itself the gradient passes. PyTorch's hardtanh cuts
    it there, too, and is therefore given the next larger number."""
    if limit is not None:
        edge = torch.tensor(limit, dtype=raw.dtype)
        beyond = float(edge.nextafter(edge + 1))
        torch.ops.aten.hardtanh_backward.grad_input(gradient, raw, -beyond, beyond, grad_input=gradient)


# ---- large memory, used again
#
# An operating system maps large memory page by page, each when it is first written, and takes it back as soon
# as a tensor is freed. For the tensors of a training step this can take half as long as the arithmetic. So
# their memory stays with the process; the system is told that it may take it whenever it runs short.

LARGE = 2**20  # bytes; smaller tensors are left to the default allocator
CAN_RECYCLE = hasattr(mmap, "MADV_FREE")  # Linux and macOS

_free: list[mmap.mmap] = []


def recycled_empty(like: Tensor, *shape: int) -> Tensor:
    """As `like.new_empty(shape)`, on the CPU, in the memory of a freed tensor if one is large enough."""
    size = math.prod(shape) * like.element_size()
    if size < LARGE or not CAN_RECYCLE:
        return like.new_empty(shape)
    block = _take(size)
    view = memoryview(block)[:size]  # lives as long as a tensor uses the block
    weakref.finalize(view, _put_back, block).atexit = False
    return torch.frombuffer(view, dtype=like.dtype).view(shape)


def _take(size: int) -> mmap.mmap:
    """The smallest free block of once to twice the size; or a new one, in place of one a little smaller."""
    for block in sorted(_free, key=len):
        if size <= len(block) <= 2 * size and _remove(block):
            return block
    for block in list(_free):
        if size < 2 * len(block) <= 2 * size and _remove(block):
            break
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _remove(block: mmap.mmap) -> bool:
    """Whether the block was still free; another thread may have taken it."""
    try:
        _free.remove(block)
    except ValueError:
        return False
    return True


def _put_back(block: mmap.mmap) -> None:
    with contextlib.suppress(OSError):  # a system without MADV_FREE frees the block at once
        block.madvise(mmap.MADV_FREE)
        _free.append(block)
