"""`modeling_elmo.lstm` for reading on a CPU, without gradients: the same numbers in less time.

    c' = clip(sigmoid(f + 1) * c + sigmoid(i) * tanh(j))
    h' = clip((sigmoid(o) * tanh(c')) @ P)

What makes it faster:

- Padding costs nothing (`steps.py`).
- Weights are laid out once for fast products (`products.py`) and kept until they change (`kept.py`).
- The product with the input is made for the words of many steps at once.
- Each direction is read to its end before the other, so that its weights stay in the cache. With one or two
  sentences a step is so short that calling operators takes most of the time; then both directions take each
  step together.
- A sigmoid takes a tenth of the time of a hyperbolic tangent, and tanh(x) = 2 * sigmoid(2 * x) - 1. So the
  weights are laid out as i, f, o, 2 * j and with the forget gate's 1 in the bias, and a single sigmoid serves
  all gates; it also leaves half of sigmoid(o) * tanh(c'), for which the laid out P is doubled.

Tensors start with the directions that are read together, one or two.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from elmo_hf.kernels.cell import Clips
from elmo_hf.kernels.kept import keep
from elmo_hf.kernels.products import Int8Product, PairProduct, Product, lay_out
from elmo_hf.kernels.steps import Steps, plan

# Both directions take their steps together up to this many sentences and bytes of weights.
PAIR_SENTENCES, PAIR_BYTES = 2, 2**24

AnyProduct = Product | Int8Product | PairProduct


@dataclass
class PreparedWeights:
    """The weights of one or both directions, laid out."""

    from_input: list[Product | Int8Product]  # one for each direction, since it multiplies many rows
    from_state: AnyProduct
    project: AnyProduct | None

    def input_gates(self, x: Tensor) -> Tensor:
        """What the input adds to the gates: (directions, rows, input) -> (directions, rows, 4 * cells)"""
        products = [product(rows) for product, rows in zip(self.from_input, x, strict=True)]
        return torch.stack(products) if len(products) > 1 else products[0][None]


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
    owner: object = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `modeling_elmo.lstm`, with weights in a precision: "float32", "bf16" or "int8". What is laid out is
    kept under the owner, which is the module or, by default, the input weight."""
    owner = input_weight if owner is None else owner
    weights = (input_weight, recurrent_weight, bias, projection)
    clips = (cell_clip, proj_clip)
    if precision == "float32" and x.shape[1] <= PAIR_SENTENCES and _bytes(*weights) <= PAIR_BYTES:
        steps = plan(mask)
        if steps is not None:
            return read(x, h, c, steps, prepare_pair(owner, *weights), clips)
    results = []
    for d, prepared in enumerate(prepare_each(owner, *weights, precision)):
        direction = slice(d, d + 1)
        steps = plan(mask[direction])
        assert steps is not None  # a single direction always has steps
        results.append(read(x[direction], h[direction], c[direction], steps, prepared, clips))
    outputs, h, c = (torch.cat(pair) for pair in zip(*results, strict=True))
    return outputs, h, c


def read(
    x: Tensor, h: Tensor, c: Tensor, steps: Steps, weights: PreparedWeights, clips: Clips
) -> tuple[Tensor, Tensor, Tensor]:
    """x (directions, batch, time, input), h (directions, batch, output), c (directions, batch, cells)
    -> outputs (directions, batch, time, output), and the last h and c"""
    h, c = steps.sort(h), steps.sort(c)
    outputs = read_steps(steps.pack(x), h, c, steps, weights, *clips)
    if steps.counts:
        last = last_words(steps)
        h[:, : len(last)] = outputs[:, last]
    return steps.unpack(outputs), steps.unsort(h), steps.unsort(c)


def last_words(steps: Steps) -> Tensor:
    """The packed position of the last word of each row that has words, rows from long to short."""
    lengths = (torch.tensor(steps.counts) > torch.arange(steps.batch)[:, None]).sum(dim=1)
    rows = torch.arange(steps.counts[0])
    return torch.tensor(steps.starts)[lengths[rows] - 1] + rows


def read_steps(
    x: Tensor,
    h: Tensor,
    c: Tensor,
    steps: Steps,
    weights: PreparedWeights,
    cell_clip: float | None,
    proj_clip: float | None,
) -> Tensor:
    """x (directions, words, input) -> (directions, words, output). c is updated in place, h is not."""
    outputs = torch.empty(*x.shape[:2], h.shape[-1], dtype=h.dtype)
    dtype, start = weights.from_state.dtype, 0
    for block in steps.blocks:
        block_x = x[:, start : start + sum(block)].to(dtype)
        for count, from_input in zip(block, weights.input_gates(block_x).split(block, dim=1), strict=True):
            gates = weights.from_state.plus(h[:, :count].to(dtype), from_input)
            half_hidden = cell(gates.float(), c[:, :count], cell_clip).to(dtype)
            h = outputs[:, start : start + count]  # the next step reads h where this step's output is written
            write_output(half_hidden, weights.project, proj_clip, h)
            start += count
    return outputs


def cell(gates: Tensor, c: Tensor, limit: float | None) -> Tensor:
    """One step's elementwise part: gates (..., 4 * cells) as i, f, o, 2 * j, which are overwritten, and c
    (..., cells), which is updated -> half of sigmoid(o) * tanh(c'), (..., cells)"""
    i, f, o, j = gates.sigmoid_().chunk(4, dim=-1)
    c.mul_(f).addcmul_(i, j.sub_(0.5), value=2)
    if limit is not None:
        c.clamp_(-limit, limit)
    return torch.mul(c, 2).sigmoid_().sub_(0.5).mul_(o)


def write_output(half_hidden: Tensor, project: AnyProduct | None, limit: float | None, out: Tensor) -> None:
    """(directions, rows, cells) -> out (directions, rows, output)"""
    if project is None:
        torch.mul(half_hidden.float(), 2, out=out)
    elif limit is None:
        out.copy_(project(half_hidden))
    else:
        torch.clamp(project(half_hidden).float(), -limit, limit, out=out)


# ---- weights


def prepare_each(
    owner: object,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    bias: Tensor,
    projection: Tensor | None,
    precision: str,
) -> list[PreparedWeights]:
    """The weights of each direction."""

    def make() -> list[PreparedWeights]:
        return [
            PreparedWeights(
                [lay_out(_reorder(input_weight[d]), _reorder(bias[d], forget_bias=1), precision)],
                lay_out(_reorder(recurrent_weight[d]), None, precision),
                lay_out(2 * projection[d].detach(), None, precision) if projection is not None else None,
            )
            for d in range(2)
        ]

    return keep(owner, (input_weight, recurrent_weight, bias, projection), precision, make, "each")


def prepare_pair(
    owner: object, input_weight: Tensor, recurrent_weight: Tensor, bias: Tensor, projection: Tensor | None
) -> PreparedWeights:
    """The weights of both directions, for steps that they take together."""

    def make() -> PreparedWeights:
        return PreparedWeights(
            [Product(_reorder(input_weight[d]), _reorder(bias[d], forget_bias=1)) for d in range(2)],
            PairProduct(_reorder(recurrent_weight)),
            PairProduct(2 * projection.detach()) if projection is not None else None,
        )

    return keep(owner, (input_weight, recurrent_weight, bias, projection), None, make, "pair")


def _bytes(*weights: Tensor | None) -> int:
    return sum(weight.nbytes for weight in weights if weight is not None)


def _reorder(weight: Tensor, forget_bias: float = 0) -> Tensor:
    """Gates (..., 4 * cells) in the order i, j, f, o -> i, f, o, 2 * j"""
    i, j, f, o = weight.detach().chunk(4, dim=-1)
    return torch.cat([i, f + forget_bias, o, 2 * j], dim=-1)
