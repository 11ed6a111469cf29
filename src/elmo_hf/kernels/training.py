"""`modeling_elmo.lstm` for training: the same numbers and gradients in a third of the time.

    c' = clip(sigmoid(f + 1) * c + sigmoid(i) * tanh(j))
    h' = clip((sigmoid(o) * tanh(c')) @ P)

What makes it faster than what autograd records:

- A whole layer is one autograd function with its gradient written out (it has no second derivative
  and says so).
- The loop over the steps holds only what one step needs of the step before. The product with the input is
  made before the loop, for all steps at once; each weight's gradient after it, as one product over all words.
- Only the gates and the values before the clips are kept for the backward pass.
- Padding costs nothing (`steps.py`): the words of one step stand together, and all of them one step after the
  other are the "words" of the shapes below.

There are two such layers. `PairLayer`, here, takes each step in both directions together. It serves GPUs, and
short steps on a CPU, where calling operators takes most of the time. `CpuLayer`, in `training_cpu.py`, serves
a CPU's long steps.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from elmo_hf.kernels.cell import (
    Clips,
    ForwardValues,
    LstmWeights,
    cell_backward,
    cell_forward,
    clip,
    clip_into,
)
from elmo_hf.kernels.gradients import READABLE, refuses_second_derivative
from elmo_hf.kernels.steps import Steps, plan
from elmo_hf.kernels.training_cpu import CpuLayer

# A step on a CPU is short up to this many cells, those of all its rows counted.
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
    """As `modeling_elmo.lstm`; the cells are float32 where the rest is half precision."""
    weights = (input_weight, recurrent_weight, bias, projection)
    clips = (cell_clip, None if projection is None else proj_clip)
    dtype = _product_dtype(x)
    cell_dtype = torch.promote_types(dtype, torch.float32)
    layer, steps = _choose_layer(mask, dtype, c.shape[-1])
    if steps is None:
        return _each_direction(x, mask, h, c, weights, clips)
    cast = [None if weight is None else weight.to(dtype) for weight in weights]
    if layer is CpuLayer:
        cast[2] = bias.to(cell_dtype)
    with torch.autocast(x.device.type, enabled=False):
        outputs, last_h, last_c = layer.apply(x.to(dtype), h.to(dtype), c.to(cell_dtype), *cast, steps, clips)
    if projection is None:  # the output is then of the cells' type, which under autocast may be another
        outputs = outputs.to(torch.promote_types(dtype, c.dtype))
    return outputs, last_h.to(h.dtype), last_c.to(c.dtype)


def _choose_layer(mask: Tensor, dtype: torch.dtype, cells: int) -> tuple[Any, Any]:
    """The layer, and its steps: of each direction for `CpuLayer`, of both together for `PairLayer`, which
    are None if the directions read different numbers of words."""
    is_long = mask.shape[1] * cells > SHORT_STEP
    if mask.device.type == "cpu" and dtype != torch.float16 and is_long:
        return CpuLayer, [plan(mask[d : d + 1]) for d in range(len(mask))]
    return PairLayer, plan(mask)


def _each_direction(
    x: Tensor, mask: Tensor, h: Tensor, c: Tensor, weights: Sequence[Tensor | None], clips: Clips
) -> tuple[Tensor, Tensor, Tensor]:
    """Read one direction after the other, in the rare case that they have different numbers of words."""
    tensors, results = (x, mask, h, c, *weights), []
    for d in range(len(x)):
        direction: list[Any] = [None if tensor is None else tensor[d : d + 1] for tensor in tensors]
        results.append(lstm(*direction, *clips))  # type: ignore[call-arg]
    outputs, last_h, last_c = (torch.cat(pair) for pair in zip(*results, strict=True))
    return outputs, last_h, last_c


def _product_dtype(x: Tensor) -> torch.dtype:
    """The type in which `modeling_elmo.lstm` would make its products: autocast leaves float64 alone."""
    device = x.device.type
    if torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return x.dtype


# ---- products of both directions


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
    """What the backward pass needs of the forward pass."""

    words: Tensor  # (2, words, input)
    first_h: Tensor  # (2, batch, output)
    first_c: Tensor  # (2, batch, cells)
    gates: Tensor  # (2, words, 4 * cells), after sigmoid and tanh
    raw_h: Tensor  # (2, words, output), before the clip
    raw_c: Tensor  # (2, words, cells), before the clip


class PairLayer(Function):
    """x (2, batch, time, input), h (2, batch, output), c (2, batch, cells), the four weights, steps and clips
    -> outputs (2, batch, time, output), and the last h and c"""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, h: Tensor, c: Tensor, *weights_steps_clips: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        *tensors, steps, clips = weights_steps_clips
        weights = LstmWeights(*tensors)
        words, first_h, first_c = steps.pack(x), steps.sort(h), steps.sort(c)
        gates = words.new_empty(*words.shape[:2], weights.bias.shape[-1])
        product(words, weights.from_input, gates, weights.bias)
        h, c = first_h.clone(), first_c.clone()
        raw_h, raw_c = read(gates, h, c, weights, steps, clips)
        ctx.save_for_backward(words, first_h, first_c, gates, raw_h, raw_c, *tensors)
        ctx.steps, ctx.clips = steps, clips
        return steps.unpack(clip(raw_h, clips[1])), steps.unsort(h), steps.unsort(c)

    @staticmethod
    @refuses_second_derivative(READABLE)
    def backward(ctx: Any, d_outputs: Tensor, d_h: Tensor, d_c: Tensor) -> tuple[Tensor | None, ...]:
        steps, tensors = ctx.steps, ctx.saved_tensors
        kept, weights = Kept(*tensors[:6]), LstmWeights(*tensors[6:])
        h, c = clip(kept.raw_h, ctx.clips[1]), clip(kept.raw_c, ctx.clips[0])
        d_h, d_c = steps.sort(d_h), steps.sort(d_c)
        with torch.autocast(h.device.type, enabled=False):
            by_word = read_back(steps.pack(d_outputs), d_h, d_c, h, c, kept, weights, steps)
            h_before = _states_before(kept.first_h, h, steps)
            d_words, *d_weights = gradients(ctx.needs_input_grad, h_before, *by_word, kept, weights)
        d_x = None if d_words is None else steps.unpack(d_words)
        return d_x, steps.unsort(d_h), steps.unsort(d_c), *d_weights, None, None


def read(
    gates: Tensor, h: Tensor, c: Tensor, weights: LstmWeights, steps: Steps, clips: Clips
) -> tuple[Tensor, Tensor]:
    """Loop over the steps.

    Args:
        gates: (2, words, 4 * cells), the product with the input and the bias on entry, the gates on return.
        h: (2, batch, output), the state, updated in place.
        c: (2, batch, cells), updated in place.

    Returns:
        h (2, words, output) and c (2, words, cells) after each word, before their clips.
    """
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
    weights: LstmWeights,
    steps: Steps,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Loop from the last step to the first; d_h and d_c, the gradients to the state, are updated in place.

    Returns for each word the gradients to its gates (2, words, 4 * cells) and to its h before the clip
    (2, words, output), and the cells' output that was projected (2, words, cells), None without projection.
    """
    projection = weights.projection
    d_gates, d_raw_h = torch.empty_like(kept.gates), torch.empty_like(h)
    hidden = None if projection is None else h.new_empty(c.shape)
    d_hidden = h.new_empty(kept.first_c.shape)
    is_cut = None if h is kept.raw_h else kept.raw_h != h
    c_before = [kept.first_c, *(c[:, now] for now in steps.slices)]
    for now, count, before in reversed(list(zip(steps.slices, steps.counts, c_before, strict=False))):
        d_now = torch.add(d_h[:, :count], d_outputs[:, now], out=d_raw_h[:, now])
        if is_cut is not None:
            d_now.masked_fill_(is_cut[:, now], 0)
        if projection is not None:
            d_now = product(d_now, projection.mT, d_hidden[:, :count])
        values = ForwardValues(kept.gates[:, now], before[:, :count], c[:, now], kept.raw_c[:, now])
        new_hidden = None if hidden is None else hidden[:, now]
        cell_backward(d_now, d_c[:, :count], values, d_gates[:, now], new_hidden)
        product(d_gates[:, now], weights.from_state.mT, d_h[:, :count])
    return d_gates, d_raw_h, hidden


def gradients(
    needed: Sequence[bool],
    h_before: Tensor,
    d_gates: Tensor,
    d_raw_h: Tensor,
    hidden: Tensor | None,
    kept: Kept,
    weights: LstmWeights,
) -> list[Tensor | None]:
    """The gradients to the words and the four weights, None where not needed; `needed` is for all inputs of
    the layer."""
    results: list[Tensor | None] = [None] * 5
    if needed[0]:
        results[0] = product(d_gates, weights.from_input.mT, torch.empty_like(kept.words))
    if needed[3]:
        results[1] = product(kept.words.mT, d_gates, torch.empty_like(weights.from_input))
    if needed[4]:
        results[2] = product(h_before.mT, d_gates, torch.empty_like(weights.from_state))
    if needed[5]:
        results[3] = d_gates.sum(dim=1)
    if needed[6] and hidden is not None and weights.projection is not None:
        results[4] = product(hidden.mT, d_raw_h, torch.empty_like(weights.projection))
    return results


def _states_before(first_h: Tensor, h: Tensor, steps: Steps) -> Tensor:
    """The h from which each word's step started, (2, words, output)"""
    states = [first_h, *(h[:, now] for now in steps.slices)]
    pieces = [state[:, :count] for state, count in zip(states, steps.counts, strict=False)]
    return torch.cat(pieces, dim=1) if pieces else h
