"""`modeling_elmo.lstm` for reading on a CPU, without gradients: the same numbers in less time.

    c' = clip(sigmoid(f + 1) * c + sigmoid(i) * tanh(j))
    h' = clip((sigmoid(o) * tanh(c')) @ P)

What makes it faster:

- Padding costs nothing (`steps.py`).
- The product with the input is made for the words of many steps at once; a first state of zeros needs none.
- One or two sentences are read with the weights themselves, in both directions together: for one row a
  batched product is the fastest, no other keeps two processors busy, and nothing has to be compared.
- Otherwise each direction is read to its end before the other, so that its weights stay in the cache, and
  with weights that are laid out (`products.py`) and kept until they change (`kept.py`).
- NumPy's hyperbolic tangent takes an eighth of the time of PyTorch's, and a single sigmoid serves all gates.

Tensors start with the directions that are read together, one or two.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from elmo_hf.kernels.cell import Clips, LstmWeights
from elmo_hf.kernels.kept import is_frozen, keep
from elmo_hf.kernels.products import Int8Product, PairProduct, Product, has_bf16, lay_out, product
from elmo_hf.kernels.steps import Steps, plan

FEW_SENTENCES = 2
# A layer of more bytes is not read from a cache in each step, but from memory: there a layout that is read
# faster pays, and so do fewer bytes, if the sentence has more words than it takes to compare all weights.
LARGE_BYTES = 2**24
MIN_WORDS = {"float32": 7, "bf16": 4, "int8": 4}


StepProduct = Product | Int8Product | PairProduct


class Products(NamedTuple):
    """The products with a layer's weights, of one or both directions."""

    from_input: Callable[..., Tensor]
    from_state: StepProduct
    project: StepProduct | None


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
    weights = LstmWeights(input_weight, recurrent_weight, bias, projection)
    clips = (cell_clip, proj_clip)
    if precision == "int8" and not is_large(weights) and has_bf16():
        precision = "bf16"  # faster in small layers, and closer
    if not copies_pay(x, weights, precision):
        steps = plan(mask)
        if steps is not None:
            return read(x, h, c, steps, themselves(owner, weights), clips)
    results = []
    for d, products in enumerate(laid_out(owner, weights, precision)):
        direction = slice(d, d + 1)
        steps = plan(mask[direction])
        assert steps is not None  # a single direction always has steps
        results.append(read(x[direction], h[direction], c[direction], steps, products, clips))
    outputs, h, c = (torch.cat(pair) for pair in zip(*results, strict=True))
    return outputs, h, c


def copies_pay(x: Tensor, weights: LstmWeights, precision: str) -> bool:
    """Whether x (2, batch, time, input) is read faster with weights that are laid out."""
    if x.shape[1] > FEW_SENTENCES:
        return True
    is_long = x.shape[2] >= MIN_WORDS[precision] or is_frozen(present(weights))
    return is_long and is_large(weights)


def is_large(weights: LstmWeights) -> bool:
    return sum(weight.nbytes for weight in present(weights)) > LARGE_BYTES


def present(weights: LstmWeights) -> list[Tensor]:
    return [weight for weight in weights if weight is not None]


def read(
    x: Tensor, h: Tensor, c: Tensor, steps: Steps, products: Products, clips: Clips, skips: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """x (directions, batch, time, input), h (directions, batch, output), c (directions, batch, cells)
    -> outputs (directions, batch, time, output), and the last h and c.

    `skips` leaves out the product of a first state of zeros.
    """
    last_h, last_c = steps.sort(h), steps.sort(c)
    skips = skips and len(steps.counts) > 1 and not h.any()
    outputs = read_steps(steps.pack(x), last_h, last_c, steps, products, clips, skips)
    if outputs is None:  # zeros times an infinite weight are no zeros
        return read(x, h, c, steps, products, clips, skips=False)
    for start, count, longer in zip(steps.starts, steps.counts, [*steps.counts[1:], 0], strict=False):
        if longer < count:  # rows that end with this step
            last_h[:, longer:count] = outputs[:, start + longer : start + count]
    return steps.unpack(outputs), steps.unsort(last_h), steps.unsort(last_c)


def read_steps(
    x: Tensor, h: Tensor, c: Tensor, steps: Steps, products: Products, clips: Clips, skips: bool
) -> Tensor | None:
    """x (directions, words, input) -> (directions, words, output). c is updated in place, h is not.

    None if the first product was left out and the second one shows that a weight is infinite.
    """
    outputs = h.new_empty(*x.shape[:2], h.shape[-1])
    dtype, start, cell = products.from_state.dtype, 0, None
    for block in steps.blocks:
        block_x = x[:, start : start + sum(block)].to(dtype)
        for count, gates in zip(block, products.from_input(block_x).split(block, dim=1), strict=True):
            if start or not skips:
                gates = products.from_state.plus(h[:, :count].to(dtype), gates)
            if skips and start == steps.starts[1] and not gates.sum().isfinite():
                return None
            gates = gates.float()
            if cell is None or cell.gates is not gates:
                cell = Cell(gates, c[:, :count])
            hidden = cell(clips[0])
            h = outputs[:, start : start + count]  # the next step reads h where this step's output is written
            write_output(hidden.to(dtype), products.project, clips[1], h)
            start += count
    return outputs


class Cell:
    """The elementwise part of a step: gates (..., 4 * cells) as i, j, f + 1, o, which are overwritten, and c
    (..., cells), which is updated. The views of both are made once."""

    def __init__(self, gates: Tensor, c: Tensor) -> None:
        self.gates, self.c = gates, c
        self.i, j, self.f, self.o = gates.chunk(4, dim=-1)
        self.hidden = torch.empty_like(c, memory_format=torch.contiguous_format)
        self.arrays = j.numpy(), c.numpy(), self.hidden.numpy()

    def __call__(self, limit: float | None) -> Tensor:
        """sigmoid(o) * tanh(c'), (..., cells), which the next call overwrites"""
        j, c, hidden = self.arrays
        np.tanh(j, out=hidden)
        self.gates.sigmoid_()
        self.c.mul_(self.f).addcmul_(self.i, self.hidden)
        if limit is not None:
            self.c.clamp_(-limit, limit)
        np.tanh(c, out=hidden)
        return self.hidden.mul_(self.o)


def write_output(hidden: Tensor, project: StepProduct | None, limit: float | None, out: Tensor) -> None:
    """(directions, rows, cells) -> out (directions, rows, output)"""
    if project is None:
        out.copy_(hidden)
    elif limit is None:
        out.copy_(project(hidden))
    else:
        torch.clamp(project(hidden).float(), -limit, limit, out=out)


# ---- weights


def themselves(owner: object, weights: LstmWeights) -> Products:
    """The weights of both directions as they are. What reads the input is laid out if it is frozen, for then
    nothing has to be compared: that product has a few rows, which a layout suits."""
    read_by = (weights.from_input, weights.bias)
    if is_frozen(read_by):
        multiply = keep(owner, read_by, None, lambda: lay_out_input(weights, "float32"), "input")
    else:
        multiply = products_with_input(weights)

    def from_input(x: Tensor) -> Tensor:
        return torch.stack([multiply[d](x[d]) for d in range(len(x))])

    project = None if weights.projection is None else PairProduct(weights.projection)
    return Products(from_input, PairProduct(weights.from_state), project)


def laid_out(owner: object, weights: LstmWeights, precision: str) -> list[Products]:
    """The weights of each direction, laid out in a precision.

    In float32 the input is multiplied with the weight itself: with as many rows as there are words, a layout
    gains less than it takes to compare the weight with its copy.
    """
    is_rounded, project = precision != "float32", weights.projection

    def make() -> list[Products]:
        from_input = lay_out_input(weights, precision) if is_rounded else [product, product]
        return [
            Products(
                from_input[d],
                lay_out(weights.from_state[d], None, precision),
                None if project is None else lay_out(project[d], None, precision),
            )
            for d in range(2)
        ]

    copied = weights if is_rounded else (weights.from_state, project)
    kept = keep(owner, copied, precision, make)
    if is_rounded:
        return kept
    return [p._replace(from_input=f) for p, f in zip(kept, products_with_input(weights), strict=True)]


def lay_out_input(weights: LstmWeights, precision: str) -> list[Callable[..., Tensor]]:
    """What reads the input, of each direction, laid out in a precision."""
    bias = with_forget_bias(weights.bias)
    return [lay_out(weights.from_input[d], bias[d], precision) for d in range(2)]


def products_with_input(weights: LstmWeights) -> list[Callable[..., Tensor]]:
    """The same with the weights themselves."""
    bias = with_forget_bias(weights.bias)
    return [partial(product, weight=weights.from_input[d], bias=bias[d]) for d in range(2)]


def with_forget_bias(bias: Tensor) -> Tensor:
    """(2, 4 * cells), with the 1 that the forget gate gets"""
    bias = bias.detach().clone(memory_format=torch.contiguous_format)
    bias.chunk(4, dim=-1)[2].add_(1)
    return bias
