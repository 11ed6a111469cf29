"""The LSTM of `modeling_elmo.lstm` for reading on a CPU: the same numbers, less work and less waiting.

Padding costs nothing (`steps.py`). Each direction runs to its end before the next, so that its weights stay
in the cache; only where a step is so short that it is the calling of operators that counts, both directions
take each step together. The input's product is made for many steps at a time. All weights are laid out once
(`products.py`) and kept as long as the model keeps its parameters as they are.

Tensors start with the directions that are read together: one, or both.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from elmo_hf.kernels.kept import keep
from elmo_hf.kernels.products import Int8Product, PairProduct, Product, lay_out
from elmo_hf.kernels.steps import Steps, plan

# Both directions take their steps together for at most so many sentences, and weights of so many bytes.
FEW_SENTENCES, FEW_BYTES = 2, 2**24

AnyProduct = Product | Int8Product | PairProduct


@dataclass
class Weights:
    """The weights of one direction or of both, laid out as `cell` wants them."""

    from_input: list[Product | Int8Product]  # one a direction, as it is used for many rows
    from_state: AnyProduct
    project: AnyProduct | None

    def gates_of_input(self, x: Tensor) -> Tensor:
        """(directions, rows, input) -> (directions, rows, 4 * cells)"""
        found = [product(rows) for product, rows in zip(self.from_input, x, strict=True)]
        return torch.stack(found) if len(found) > 1 else found[0][None]


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
    weights = (input_weight, recurrent_weight, bias, projection)
    clips = (cell_clip, proj_clip)
    if precision == "float32" and x.shape[1] <= FEW_SENTENCES and sum(map(_bytes, weights)) <= FEW_BYTES:
        steps = plan(mask)
        if steps is not None:
            return read(x, h, c, steps, prepare_pair(*weights), clips)
    found = []
    for d, laid_out in enumerate(prepare(*weights, precision)):
        one = slice(d, d + 1)
        steps = plan(mask[one])
        assert steps is not None  # one direction is always at one with itself
        found.append(read(x[one], h[one], c[one], steps, laid_out, clips))
    outputs, h, c = (torch.cat(parts) for parts in zip(*found, strict=True))
    return outputs, h, c


def read(
    x: Tensor, h: Tensor, c: Tensor, steps: Steps, weights: Weights, clips: tuple[float | None, float | None]
) -> tuple[Tensor, Tensor, Tensor]:
    """x (directions, batch, time, input) and so on -> outputs and the last h and c"""
    h, c = steps.sort(h), steps.sort(c)
    words = run(steps.pack(x), h, c, steps, weights, *clips)
    if steps.counts:
        last = last_words(steps)
        h[:, : len(last)] = words[:, last]
    return steps.unpack(words), steps.unsort(h), steps.unsort(c)


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
    weights: Weights,
    cell_clip: float | None,
    proj_clip: float | None,
) -> Tensor:
    """x (directions, words, input), h (directions, batch, output), c (directions, batch, cells), which is
    updated -> (directions, words, output)"""
    outputs = torch.empty(*x.shape[:2], h.shape[-1], dtype=h.dtype)
    dtype, start = weights.from_state.dtype, 0
    for block in steps.blocks:
        gates_of_block = weights.gates_of_input(x[:, start : start + sum(block)].to(dtype)).split(
            block, dim=1
        )
        for count, from_input in zip(block, gates_of_block, strict=True):
            gates = weights.from_state.plus(h[:, :count].to(dtype), from_input)
            new_h = cell(gates.float(), c[:, :count], cell_clip).to(dtype)
            h = outputs[:, start : start + count]  # the state is read where the output stands
            write_output(new_h, weights.project, proj_clip, h)
            start += count
    return outputs


def write_output(cells: Tensor, project: AnyProduct | None, limit: float | None, target: Tensor) -> None:
    """cells (directions, rows, cells), half of what they are -> target (directions, rows, output)"""
    if project is None:
        torch.mul(cells.float(), 2, out=target)
    elif limit is None:
        target.copy_(project(cells))
    else:
        torch.clamp(project(cells).float(), -limit, limit, out=target)


def cell(gates: Tensor, c: Tensor, limit: float | None) -> Tensor:
    """gates (..., 4 * cells) in the order i, f, o, j are used up, c (..., cells) is updated.

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
) -> list[Weights]:
    """Each direction's weights laid out."""
    weights = [weight for weight in (input_weight, recurrent_weight, bias, projection) if weight is not None]

    def make() -> list[Weights]:
        return [
            Weights(
                [lay_out(_gates(input_weight[d]), _gates(bias[d], forget=1), precision)],
                lay_out(_gates(recurrent_weight[d]), None, precision),
                lay_out(2 * projection[d].detach(), None, precision) if projection is not None else None,
            )
            for d in range(2)
        ]

    return keep(input_weight, weights, precision, make)


def prepare_pair(
    input_weight: Tensor, recurrent_weight: Tensor, bias: Tensor, projection: Tensor | None
) -> Weights:
    """The weights of both directions laid out together."""
    weights = [weight for weight in (input_weight, recurrent_weight, bias, projection) if weight is not None]

    def make() -> Weights:
        return Weights(
            [Product(_gates(input_weight[d]), _gates(bias[d], forget=1)) for d in range(2)],
            PairProduct(_gates(recurrent_weight)),
            PairProduct(2 * projection.detach()) if projection is not None else None,
        )

    return keep(recurrent_weight, weights, "pair", make)


def _bytes(weight: Tensor | None) -> int:
    return 0 if weight is None else weight.nbytes


def _gates(weight: Tensor, forget: float = 0) -> Tensor:
    i, j, f, o = weight.detach().chunk(4, dim=-1)
    return torch.cat([i, f + forget, o, 2 * j], dim=-1)
