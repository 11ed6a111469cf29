"""The LSTM of `modeling_elmo.lstm` for reading on a CPU: the same numbers, less work and less waiting.

Sentences are sorted by length, and a step reads only those that are not yet at their end, so padding costs
nothing. Each direction runs to its end before the next, so that its weights stay in the cache. The input's
product is made for many steps at a time. All weights are laid out once (`products.py`) and kept as long as
the model keeps its parameters as they are.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from elmo_hf.kernels.kept import keep
from elmo_hf.kernels.products import Int8Product, Product, lay_out

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
    outputs, h, c = x.new_zeros(*x.shape[:3], h.shape[-1]), h.clone(), c.clone()
    for d, direction in enumerate(weights):
        steps = Steps(mask[d])
        cells = c[d, steps.order]
        found = run(steps.pack(x[d]), h[d, steps.order], cells, steps.rows, direction, cell_clip, proj_clip)
        steps.unpack(found, outputs[d])
        c[d, steps.order] = cells
        h[d, steps.order[: len(steps.last)]] = found[steps.last]
    return outputs, h, c


class Steps:
    """The words of a batch in the order they are read: all first words, all second ones, and so on."""

    def __init__(self, mask: Tensor) -> None:
        """mask (batch, time)"""
        lengths = mask.sum(dim=1)
        self.order = lengths.argsort(descending=True, stable=True)
        longest = int(lengths.max()) if len(lengths) else 0
        # Places of a row's words come first when sorted by "is no word".
        places = (~mask[self.order]).to(torch.uint8).argsort(dim=1, stable=True)[:, :longest]
        is_read = torch.arange(longest) < lengths[self.order, None]
        flat = self.order[:, None] * mask.shape[1] + places
        self.index = flat.t()[is_read.t()]
        self.rows: list[int] = is_read.sum(dim=0).tolist()
        # Where each row that has words at all has its last one.
        starts = torch.tensor([0, *itertools.accumulate(self.rows)])
        lengths = lengths[self.order[: self.rows[0] if self.rows else 0]]
        self.last = starts[lengths - 1] + torch.arange(len(lengths))

    def pack(self, x: Tensor) -> Tensor:
        """(batch, time, dim) -> (words, dim)"""
        return x.flatten(0, 1)[self.index]

    def unpack(self, words: Tensor, target: Tensor) -> None:
        """The other way round, into target (batch, time, dim)."""
        target.view(-1, target.shape[-1])[self.index] = words


def run(
    x: Tensor,
    h: Tensor,
    c: Tensor,
    rows: list[int],
    weights: Direction,
    cell_clip: float | None,
    proj_clip: float | None,
) -> Tensor:
    """x (words, input) in the order of `Steps`, h and c (batch, ...), c updated -> (words, output)"""
    outputs = torch.empty(len(x), h.shape[-1], dtype=h.dtype)
    dtype, start = weights.from_input.dtype, 0
    for block in blocks(rows):
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
