"""A layer of `modeling_elmo.lstm` for training on a CPU, as one autograd function with its gradient by hand.

Each direction runs to its end before the next, and padding costs nothing (`steps.py`): all words that are
read at one step stand together, the "words" of the shapes below, which are those of one direction.

Half of a plain implementation's time goes elsewhere than into arithmetic, so that is what is spared here.
Large memory is used again (`memory.py`). Products are left where oneDNN puts them, and what reads them
next writes them to their place. What a step makes is small enough to be still in the cache for the next.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from elmo_hf.kernels.cell import clip, clip_into, through_sigmoid, through_tanh
from elmo_hf.kernels.memory import empty
from elmo_hf.kernels.steps import Steps

Clips = tuple[float | None, float | None]  # of the cells, of the projected output


class Weights(NamedTuple):
    """One direction's."""

    from_input: Tensor  # (input, 4 * cells)
    from_state: Tensor  # (output, 4 * cells)
    bias: Tensor  # (4 * cells)
    projection: Tensor | None  # (cells, output)


class Kept(NamedTuple):
    """What the way back needs of the way there."""

    seen: Tensor  # (words, input + output), each word and the h that its step started from
    first_c: Tensor  # (batch, cells)
    gates: Tensor  # (words, 4 * cells), after sigmoid and tanh
    raw_h: Tensor  # (words, output), before the clip
    raw_c: Tensor  # (words, cells), before the clip


class CpuLayer(Function):
    """x (2, batch, time, input), h (2, batch, output), c (2, batch, cells), the weights, the steps of each
    direction, the clips -> as `lstm`"""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, h: Tensor, c: Tensor, *weights_and_more: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        *tensors, steps, clips = weights_and_more
        found: list[Any] = []
        kept: list[Tensor] = []
        for d in range(len(x)):
            *results, keep = read(x[d], h[d], c[d], _direction(tensors, d), steps[d], clips)
            found.append(results)
            kept += keep
        ctx.save_for_backward(*kept, *tensors)
        ctx.steps, ctx.clips = steps, clips
        outputs, last_h, last_c = (torch.stack(parts) for parts in zip(*found, strict=True))
        return outputs, last_h, last_c

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *d_results: Tensor) -> tuple[Tensor | None, ...]:
        saved, size, found = ctx.saved_tensors, len(Kept._fields), []
        with torch.autocast("cpu", enabled=False):
            for d, steps in enumerate(ctx.steps):
                kept = Kept(*saved[d * size : (d + 1) * size])
                weights = _direction(saved[-len(Weights._fields) :], d)
                d_outputs, d_h, d_c = (part[d] for part in d_results)
                wanted = ctx.needs_input_grad
                found.append(read_back(d_outputs, d_h, d_c, kept, weights, steps, ctx.clips, wanted))
        gradients = [None if parts[0] is None else torch.stack(parts) for parts in zip(*found, strict=True)]
        return *gradients, None, None


def _direction(tensors: Sequence[Any], d: int) -> Weights:
    one: list[Any] = [None if tensor is None else tensor[d] for tensor in tensors]
    return Weights(*one)


# ---- there


def read(
    x: Tensor, h: Tensor, c: Tensor, weights: Weights, steps: Steps, clips: Clips
) -> tuple[Tensor, Tensor, Tensor, Kept]:
    """x (batch, time, input), h (batch, output), c (batch, cells) -> the outputs, the last h and c"""
    (words,), (h,), (c,) = steps.pack(x[None]), steps.sort(h[None]), steps.sort(c[None])
    count, width = words.shape
    kept = Kept(
        seen=words.new_empty(count, width + h.shape[-1]),
        first_c=c.clone(),
        gates=empty(words, count, weights.bias.shape[-1]),
        raw_h=words.new_empty(count, h.shape[-1]),
        raw_c=empty(words, count, c.shape[-1]),
    )
    kept.seen[:, :width] = words
    for now, from_input in zip(steps.slices, gates_of_input(words, weights, steps), strict=True):
        step_h, step_c = h[: len(from_input)], c[: len(from_input)]
        kept.seen[now, width:] = step_h
        raw = add_product(from_input, step_h, weights.from_state)
        hidden = cell(raw, step_c, clips[0], kept.gates[now], kept.raw_c[now])
        kept.raw_h[now] = hidden if weights.projection is None else product(hidden, weights.projection)
        clip_into(kept.raw_h[now], clips[1], out=step_h)
    outputs = clip(kept.raw_h, clips[1])
    return steps.unpack(outputs[None])[0], steps.unsort(h[None])[0], steps.unsort(c[None])[0], kept


def gates_of_input(words: Tensor, weights: Weights, steps: Steps) -> Iterator[Tensor]:
    """What the input adds to the gates of each step, (words of the step, 4 * cells), 1 for the forget gate's
    own bias included. Made for several steps at a time, and not for more than the cache can hold."""
    bias = weights.bias.clone()
    bias.chunk(4)[2].add_(1)
    start = 0
    for block in steps.blocks:
        stop = start + sum(block)
        yield from product(words[start:stop], weights.from_input, bias).split(block)
        start = stop


def cell(raw: Tensor, c: Tensor, limit: float | None, gates: Tensor, raw_c: Tensor) -> Tensor:
    """From the gates as the products made them to o * tanh(c); moves c along, and fills gates and raw_c."""
    raw.chunk(4, dim=-1)[1].mul_(2)
    i, j, f, o = torch.sigmoid(raw, out=gates).chunk(4, dim=-1)
    j.mul_(2).sub_(1)  # see `tanh`
    torch.mul(f, c, out=raw_c).addcmul_(i, j)
    clip_into(raw_c, limit, out=c)
    return tanh(c).mul_(o)


# ---- and back


def read_back(
    d_outputs: Tensor,
    d_h: Tensor,
    d_c: Tensor,
    kept: Kept,
    weights: Weights,
    steps: Steps,
    clips: Clips,
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """From the gradients of what `read` returns to those of x, h, c and the weights, where wanted."""
    (d_outputs,), (d_h,), (d_c,) = steps.pack(d_outputs[None]), steps.sort(d_h[None]), steps.sort(d_c[None])
    d_gates, d_raw_h = empty(kept.gates, *kept.gates.shape), torch.empty_like(kept.raw_h)
    hidden = None if weights.projection is None else empty(kept.raw_c, *kept.raw_c.shape)
    for now, c, c_before in cells_from_the_last(kept, steps, clips[0]):
        step_h, step_c = d_h[: len(c)], d_c[: len(c)]
        d_now = torch.add(step_h, d_outputs[now], out=d_raw_h[now])
        through_clip(d_now, kept.raw_h[now], clips[1])
        tanh_c, gates = tanh(c), kept.gates[now]
        if hidden is not None and weights.projection is not None:
            torch.mul(tanh_c, gates.chunk(4, dim=-1)[3], out=hidden[now])
            d_now = product(d_now, weights.projection.t())
        cell_back(d_now, step_c, gates, tanh_c, kept.raw_c[now], c_before, clips[0], d_gates[now])
        step_h.copy_(product(d_gates[now], weights.from_state.t()))
    d_x = steps.unpack(product(d_gates, weights.from_input.t())[None])[0] if wanted[0] else None
    d_weights = gradients(wanted[3:], d_gates, d_raw_h, hidden, kept)
    return [d_x, steps.unsort(d_h[None])[0], steps.unsort(d_c[None])[0], *d_weights]


def cells_from_the_last(
    kept: Kept, steps: Steps, limit: float | None
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Each step's words, its cells, and those that it started from, of the rows that it reads."""
    places = steps.slices[::-1]
    for now, earlier in zip(places, [*places[1:], None], strict=False):
        c = clip(kept.raw_c[now], limit)
        before = kept.first_c if earlier is None else clip(kept.raw_c[earlier], limit)
        yield now, c, before[: len(c)]


def cell_back(
    d_hidden: Tensor,
    d_c: Tensor,
    gates: Tensor,
    tanh_c: Tensor,
    raw_c: Tensor,
    c_before: Tensor,
    limit: float | None,
    d_gates: Tensor,
) -> None:
    """From the gradients to hidden and (in d_c) to c after the step, to those to the gates as they came from
    the products and (in d_c) to c before the step."""
    i, j, f, o = gates.chunk(4, dim=-1)
    d_i, d_j, d_f, d_o = d_gates.chunk(4, dim=-1)
    through_sigmoid(torch.mul(d_hidden, tanh_c), o, out=d_o)
    through_tanh(d_hidden.mul_(o), tanh_c, out=d_hidden)
    through_clip(d_c.add_(d_hidden), raw_c, limit)
    through_sigmoid(torch.mul(d_c, j, out=d_hidden), i, out=d_i)
    through_tanh(torch.mul(d_c, i, out=d_hidden), j, out=d_j)
    through_sigmoid(torch.mul(d_c, c_before, out=d_hidden), f, out=d_f)
    d_c.mul_(f)


def gradients(
    wanted: Sequence[bool], d_gates: Tensor, d_raw_h: Tensor, hidden: Tensor | None, kept: Kept
) -> list[Tensor | None]:
    """To the four weights, where wanted, each as one product over all words."""
    found: list[Tensor | None] = [None] * 4
    if wanted[0] or wanted[1]:
        both = product(kept.seen.t(), d_gates)
        found[:2] = both.split([both.shape[0] - d_raw_h.shape[1], d_raw_h.shape[1]])
    if wanted[2]:
        found[2] = d_gates.new_ones(len(d_gates)) @ d_gates
    if wanted[3] and hidden is not None:
        found[3] = product(d_raw_h.t(), hidden).t()  # so that it is the smaller one that is laid out anew
    return [part if want else None for part, want in zip(found, wanted, strict=False)]


# ---- parts


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (n, k) @ weight (k, m) + bias (m)"""
    if has_onednn(x, weight):
        return torch.ops.mkldnn._linear_pointwise(x, weight.t(), bias, "none", [], "")
    return x @ weight if bias is None else torch.addmm(bias, x, weight)


def add_product(other: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """other + x @ weight; `other` may be overwritten."""
    if has_onednn(x, weight):
        return torch.ops.mkldnn._linear_pointwise.binary(x, other, weight.t(), None, "add")
    return torch.addmm(other, x, weight, out=other)


def has_onednn(x: Tensor, weight: Tensor) -> bool:
    """On some processors oneDNN is twice as fast as PyTorch's usual library, and on none much slower; it is
    not tried by the clock, so that training twice gives the same numbers twice."""
    is_float = x.dtype == torch.float32 and x.numel() > 0 and weight.numel() > 0
    return (
        is_float and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def tanh(x: Tensor) -> Tensor:
    """By way of the sigmoid, which is several times as fast."""
    return torch.mul(x, 2).sigmoid_().mul_(2).sub_(1)


def through_clip(gradient: Tensor, raw: Tensor, limit: float | None) -> None:
    """In place: zero where the clip has cut. A value at its very edge is not cut; hardtanh's own gradient
    cuts there, so it is given the next number."""
    if limit is not None:
        edge = torch.tensor(limit, dtype=raw.dtype)
        beyond = float(edge.nextafter(edge + 1))
        torch.ops.aten.hardtanh_backward.grad_input(gradient, raw, -beyond, beyond, grad_input=gradient)
