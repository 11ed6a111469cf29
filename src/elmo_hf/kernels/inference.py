"""The LSTM of `modeling_elmo.lstm` for reading on a CPU: the same numbers, less work and less waiting.

Padding costs nothing (`steps.py`). Each direction runs to its end before the next, so that its weights stay
in the cache. The input's product is made for many steps at a time. All weights are laid out once
(`products.py`) and kept as long as the model keeps its parameters as they are.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from elmo_hf.kernels.kept import keep
from elmo_hf.kernels.products import Int8Product, Product, lay_out
from elmo_hf.kernels.steps import Steps, plan

# So many rows of gates are made at a time: enough for a good product, few enough to stay in the cache.
ROWS_AT_ONCE = 256


@dataclass
class Direction:
    """One direction's weights, laid out as `cell` wants them."""

    from_input: Product | Int8Product
    from_state: Product | Int8Product
    project: Product | Int8Product | None


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
    precision: str = "float32",
) -> tuple[Tensor, Tensor, Tensor]:
    """As `modeling_elmo.lstm`, with weights of some `precision`: "float32", "bf16" or "int8"."""
    weights = prepare(input_weight, recurrent_weight, bias, projection, precision)
    found = [
        read(x[d : d + 1], mask[d : d + 1], h[d : d + 1], c[d : d + 1], weights[d], (cell_clip, proj_clip))
        for d in range(2)
    ]
    outputs, h, c = (torch.cat(parts) for parts in zip(*found, strict=True))
    return outputs, h, c


def read(
    x: Tensor,
    mask: Tensor,
    h: Tensor,
    c: Tensor,
    weights: Direction,
    clips: tuple[float | None, float | None],
) -> tuple[Tensor, Tensor, Tensor]:
    """One direction: x (1, batch, time, input) and so on -> outputs and the last h and c"""
    steps = plan(mask)
    assert steps is not None  # one direction is always at one with itself
    h, c = steps.sort(h), steps.sort(c)
    words = run(steps.pack(x)[0], h[0], c[0], steps, weights, *clips)
    if steps.counts:
        last = last_words(steps)
        h[0, : len(last)] = words[last]
    return steps.unpack(words[None]), steps.unsort(h), steps.unsort(c)


def last_words(steps: Steps) -> Tensor:
    """Of each row that has words at all, longest first: where its last one stands."""
    lengths = (torch.tensor(steps.counts) > torch.arange(steps.batch)[:, None]).sum(dim=1)
    rows = torch.arange(steps.counts[0])
    return torch.tensor(steps.starts)[lengths[rows] - 1] + rows


def run(
    x: Tensor,
    h: Tensor,
    c: Tensor,
    steps: Steps,
    weights: Direction,
    cell_clip: float | None,
    proj_clip: float | None,
) -> Tensor:
    """x (words, input), h (batch, output), c (batch, cells), which is updated -> (words, output)"""
    outputs = torch.empty(len(x), h.shape[-1], dtype=h.dtype)
    dtype, start = weights.from_input.dtype, 0
    for block in blocks(steps.counts):
        gates_of_block = weights.from_input(x[start : start + sum(block)].to(dtype)).split(block)
        for count, from_input in zip(block, gates_of_block, strict=True):
            gates = weights.from_state.plus(h[:count].to(dtype), from_input)
            new_h = cell(gates.float(), c[:count], cell_clip).to(dtype)
            h = outputs[start : start + count]  # the state is read where the output stands
            write_output(new_h, weights.project, proj_clip, h)
            start += count
    return outputs


def write_output(
    cells: Tensor, project: Product | Int8Product | None, limit: float | None, target: Tensor
) -> None:
    """cells (rows, cells), half of what they are -> target (rows, output)"""
    if project is None:
        torch.mul(cells.float(), 2, out=target)
    elif limit is None:
        target.copy_(project(cells))
    else:
        torch.clamp(project(cells).float(), -limit, limit, out=target)


def blocks(rows: list[int]) -> list[list[int]]:
    """Steps in groups of about `ROWS_AT_ONCE` rows."""
    groups: list[list[int]] = []
    for count in rows:
        if not groups or sum(groups[-1]) + count > ROWS_AT_ONCE:
            groups.append([])
        groups[-1].append(count)
    return groups


def cell(gates: Tensor, c: Tensor, limit: float | None) -> Tensor:
    """gates (rows, 4 * cells) in the order i, f, o, j are used up, c (rows, cells) is updated.

    A sigmoid takes a tenth of the time of a hyperbolic tangent here, and `tanh(x) = 2 * sigmoid(2 * x) - 1`.
    So the weights hold twice j, and what comes back is half of the cells' output.
    """
    i, f, o, j = gates.sigmoid_().chunk(4, dim=-1)
    c.mul_(f).addcmul_(i, j.sub_(0.5), value=2)
    if limit is not None:
        c.clamp_(-limit, limit)
    return torch.mul(c, 2).sigmoid_().sub_(0.5).mul_(o)


def prepare(
    input_weight: Tensor,
    recurrent_weight: Tensor,
    bias: Tensor,
    projection: Tensor | None,
    precision: str,
) -> list[Direction]:
    """Both directions' weights laid out."""
    weights = [weight for weight in (input_weight, recurrent_weight, bias, projection) if weight is not None]

    def make() -> list[Direction]:
        return [
            Direction(
                lay_out(_gates(input_weight[d]), _gates(bias[d], forget=1), precision),
                lay_out(_gates(recurrent_weight[d]), None, precision),
                lay_out(2 * projection[d].detach(), None, precision) if projection is not None else None,
            )
            for d in range(2)
        ]

    return keep(input_weight, weights, precision, make)


def _gates(weight: Tensor, forget: float = 0) -> Tensor:
    i, j, f, o = weight.detach().chunk(4, dim=-1)
    return torch.cat([i, f + forget, o, 2 * j], dim=-1)
