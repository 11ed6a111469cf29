"""The LSTM of `modeling_elmo.lstm` for training: the same numbers and gradients in a third of the time.

A whole layer is one autograd function with its gradient written by hand. Only what one step needs of the
step before stays in the loop over the steps. The input's product is made before the loop, for all steps at
once, and every weight's gradient after it, as one product over all steps. For the way back only the gates and
the values before the clips are kept.

Padding costs nothing (`steps.py`): all words that are read at one step stand together, the "words" of the
shapes below.

This is for GPUs, for half precision, and for short steps on a CPU; `training_cpu.py` has the same layer for
a CPU's long steps. Neither knows a second derivative.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from elmo_hf.kernels.cell import cell_backward, cell_forward, clip, clip_into
from elmo_hf.kernels.steps import Steps, plan
from elmo_hf.kernels.training_cpu import Clips, CpuLayer

HALF = (torch.float16, torch.bfloat16)
# Up to so many cells a step, in all its rows, it is the calling of operators that counts on a CPU.
SHORT_STEP = 2**14


def lstm(
    x: Tensor,
    mask: Tensor,
    h: Tensor,
    c: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    bias: Tensor,
    projection: Tensor | None,
    cell_clip: float | None,
    proj_clip: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `modeling_elmo.lstm`; cells are float32 where the rest is half precision."""
    weights = (input_weight, recurrent_weight, bias, projection)
    clips = (cell_clip, None if projection is None else proj_clip)
    dtype = _product_dtype(x)
    cell_dtype = torch.float32 if dtype in HALF else dtype
    layer, steps = _layer_for(mask, dtype, c.shape[-1])
    if steps is None:
        return _each_direction(x, mask, h, c, weights, clips)
    cast = (None if weight is None else weight.to(dtype) for weight in weights)
    with torch.autocast(x.device.type, enabled=False):
        found = layer.apply(x.to(dtype), h.to(dtype), c.to(cell_dtype), *cast, steps, clips)
    outputs, last_h, last_c = found
    if projection is None:  # the output is then of the cells' type, which may be another under autocast
        outputs = outputs.to(torch.promote_types(dtype, c.dtype))
    return outputs, last_h.to(h.dtype), last_c.to(c.dtype)


def _layer_for(mask: Tensor, dtype: torch.dtype, cells: int) -> tuple[Any, Any]:
    """The function that suits the case, and the steps as it wants them: those of each direction, or of both
    together, if both have the same."""
    is_long = mask.shape[1] * cells > SHORT_STEP
    if mask.device.type == "cpu" and dtype not in HALF and is_long:
        return CpuLayer, [plan(mask[d : d + 1]) for d in range(len(mask))]
    return LstmLayer, plan(mask)


def _each_direction(
    x: Tensor, mask: Tensor, h: Tensor, c: Tensor, weights: Sequence[Tensor | None], clips: Clips
) -> tuple[Tensor, Tensor, Tensor]:
    """One after the other, for the rare case that they have not the same number of words to read."""
    tensors, found = (x, mask, h, c, *weights), []
    for d in range(len(x)):
        one: list[Any] = [None if tensor is None else tensor[d : d + 1] for tensor in tensors]
        found.append(lstm(*one, *clips))  # type: ignore[call-arg]
    outputs, last_h, last_c = (torch.cat(parts) for parts in zip(*found, strict=True))
    return outputs, last_h, last_c


def _product_dtype(x: Tensor) -> torch.dtype:
    """The type in which the readable LSTM's products would be made: autocast leaves float64 alone."""
    device = x.device.type
    if torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return x.dtype


# ---- products, of both directions at once


def product(x: Tensor, weight: Tensor, out: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (2, n, k) @ weight (2, k, m) + bias (2, m) -> out (2, n, m)"""
    if bias is None:
        return torch.bmm(x, weight, out=out)
    return torch.baddbmm(bias[:, None], x, weight, out=out)


def add_product(x: Tensor, weight: Tensor, out: Tensor) -> None:
    """out += x @ weight"""
    torch.baddbmm(out, x, weight, out=out)


# ---- the layer


class Kept(NamedTuple):
    """What the way back needs of the way there."""

    words: Tensor  # (2, words, input)
    first_h: Tensor  # (2, batch, output)
    first_c: Tensor  # (2, batch, cells)
    gates: Tensor  # (2, words, 4 * cells), after sigmoid and tanh
    raw_h: Tensor  # (2, words, output), before the clip
    raw_c: Tensor  # (2, words, cells), before the clip


class Weights(NamedTuple):
    from_input: Tensor  # (2, input, 4 * cells)
    from_state: Tensor  # (2, output, 4 * cells)
    bias: Tensor  # (2, 4 * cells)
    projection: Tensor | None  # (2, cells, output)


class LstmLayer(Function):
    """x (2, batch, time, input), h (2, batch, output), c (2, batch, cells), and the weights -> as `lstm`"""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, h: Tensor, c: Tensor, *weights_and_more: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        *tensors, steps, clips = weights_and_more
        weights = Weights(*tensors)
        words, first_h, first_c = steps.pack(x), steps.sort(h), steps.sort(c)
        gates = words.new_empty(*words.shape[:2], weights.bias.shape[-1])
        product(words, weights.from_input, gates, weights.bias)
        h, c = first_h.clone(), first_c.clone()
        raw_h, raw_c = read(gates, h, c, weights, steps, clips)
        ctx.save_for_backward(words, first_h, first_c, gates, raw_h, raw_c, *tensors)
        ctx.steps, ctx.clips = steps, clips
        return steps.unpack(clip(raw_h, clips[1])), steps.unsort(h), steps.unsort(c)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_outputs: Tensor, d_h: Tensor, d_c: Tensor) -> tuple[Tensor | None, ...]:
        steps, tensors = ctx.steps, ctx.saved_tensors
        kept, weights = Kept(*tensors[:6]), Weights(*tensors[6:])
        h, c = clip(kept.raw_h, ctx.clips[1]), clip(kept.raw_c, ctx.clips[0])
        d_h, d_c = steps.sort(d_h), steps.sort(d_c)
        with torch.autocast(h.device.type, enabled=False):
            found = read_back(steps.pack(d_outputs), d_h, d_c, h, c, kept, weights, steps)
            before = _before(kept.first_h, h, steps)
            d_words, *d_weights = gradients(ctx.needs_input_grad, before, *found, kept, weights)
        d_x = None if d_words is None else steps.unpack(d_words)
        return d_x, steps.unsort(d_h), steps.unsort(d_c), *d_weights, None, None


def read(
    gates: Tensor, h: Tensor, c: Tensor, weights: Weights, steps: Steps, clips: Clips
) -> tuple[Tensor, Tensor]:
    """The loop over the steps. gates hold what the input gives, and in the end the gates; h and c are the
    state, moved along. Returns what h and c were at every word before their clip."""
    cell_clip, proj_clip = clips
    raw_c = c.new_empty(*gates.shape[:2], c.shape[-1])
    raw_h = h.new_empty(*gates.shape[:2], h.shape[-1])
    hidden = h.new_empty(c.shape)
    for now, count in zip(steps.slices, steps.counts, strict=True):
        add_product(h[:, :count], weights.from_state, gates[:, now])
        new_hidden = raw_h[:, now] if weights.projection is None else hidden[:, :count]
        cell_forward(gates[:, now], c[:, :count], cell_clip, raw_c[:, now], new_hidden)
        if weights.projection is not None:
            product(new_hidden, weights.projection, raw_h[:, now])
        clip_into(raw_h[:, now], proj_clip, out=h[:, :count])
    return raw_h, raw_c


def read_back(
    d_outputs: Tensor,
    d_h: Tensor,
    d_c: Tensor,
    h: Tensor,
    c: Tensor,
    kept: Kept,
    weights: Weights,
    steps: Steps,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The loop from the last step to the first; d_h and d_c are the state's gradients, moved along. Returns
    for every word the gradient to the gates and to the output, and the cells that were projected."""
    projection = weights.projection
    d_gates, d_raw_h = torch.empty_like(kept.gates), torch.empty_like(h)
    hidden = None if projection is None else h.new_empty(c.shape)
    d_hidden = h.new_empty(kept.first_c.shape)
    is_cut = None if h is kept.raw_h else kept.raw_h != h
    befores = [kept.first_c, *(c[:, now] for now in steps.slices)]
    for now, count, before in reversed(list(zip(steps.slices, steps.counts, befores, strict=False))):
        d_now = torch.add(d_h[:, :count], d_outputs[:, now], out=d_raw_h[:, now])
        if is_cut is not None:
            d_now.masked_fill_(is_cut[:, now], 0)
        if projection is not None:
            d_now = product(d_now, projection.mT, d_hidden[:, :count])
        cell_backward(
            d_now,
            d_c[:, :count],
            kept.gates[:, now],
            before[:, :count],
            c[:, now],
            kept.raw_c[:, now],
            d_gates[:, now],
            None if hidden is None else hidden[:, now],
        )
        product(d_gates[:, now], weights.from_state.mT, d_h[:, :count])
    return d_gates, d_raw_h, hidden


def gradients(
    wanted: Sequence[bool],
    h_before: Tensor,
    d_gates: Tensor,
    d_raw_h: Tensor,
    hidden: Tensor | None,
    kept: Kept,
    weights: Weights,
) -> list[Tensor | None]:
    """To the words and the four weights, where wanted, each as one product over all words."""
    found: list[Tensor | None] = [None] * 5
    wants = [wanted[0], *wanted[3:7]]
    if wants[0]:
        found[0] = product(d_gates, weights.from_input.mT, torch.empty_like(kept.words))
    if wants[1]:
        found[1] = product(kept.words.mT, d_gates, torch.empty_like(weights.from_input))
    if wants[2]:
        found[2] = product(h_before.mT, d_gates, torch.empty_like(weights.from_state))
    if wants[3]:
        found[3] = d_gates.sum(dim=1)
    if wants[4] and hidden is not None and weights.projection is not None:
        found[4] = product(hidden.mT, d_raw_h, torch.empty_like(weights.projection))
    return found


def _before(first_h: Tensor, h: Tensor, steps: Steps) -> Tensor:
    """The h that each word's step started from, (2, words, output)"""
    befores = [first_h, *(h[:, now] for now in steps.slices)]
    pieces = [before[:, :count] for before, count in zip(befores, steps.counts, strict=False)]
    return torch.cat(pieces, dim=1) if pieces else h
