"""The character encoder of `modeling_elmo.ElmoCharacterEncoder` with less work, for reading and for training.

    word = projection(highways(activation(max over places of (convolution + bias))))

What makes it faster:

- Each different word of a batch is encoded once.
- Padding is cut to what the widest filter can see.
- On a CPU a convolution is a sum of table rows. There are only 262 characters,
  so a table holds what a filter makes of each of them at each of its offsets.
- On a GPU a convolution is one product over all places, because cuDNN prepares anew for each new number and
  length of words, and these hardly ever repeat.

In training, the tables are computed with gradient, and the sums and their maximum over the word are one
autograd function. If several places share a filter's maximum, one of them gets the gradient, where the
readable code divides it among them. Such places normally hold the same characters (padding, for example), so
the gradient reaches the same weights. They differ only where weights are so special (zeros) that different
characters give equal sums, and there both are valid subgradients.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

from elmo_hf.kernels.gradients import READABLE, refuses_second_derivative
from elmo_hf.kernels.kept import is_frozen, keep
from elmo_hf.kernels.products import Product, product

NUM_CHARACTER_IDS = 262  # as in `model/words_elmo.py`; this package imports nothing of the others
BLOCK_WORDS = 128  # words that are looked up at once: few enough for the cache, and of about one length


def encode(encoder: Any, char_ids: Tensor, by_tables: bool, precision: str = "float32") -> Tensor:
    """Encode words as `encoder` itself does.

    Args:
        encoder: an `ElmoCharacterEncoder` whose modules are plain (`plain.py`).
        char_ids: (..., characters)
        by_tables: sum rows of tables; for a CPU and float32 weights.
        precision: "float32", or "bf16" for the weights after the tables when no gradients are needed.

    Returns:
        (..., projection_dim)
    """
    rows, index = distinct_rows(char_ids.flatten(0, -2))
    if by_tables:
        rows, index = by_length(rows, index)
        words = encode_by_tables(encoder, rows, precision)
    else:
        embedded = encoder.char_embedding(cut_padding(rows, encoder.convolutions))
        words = encode_by_products(encoder, embedded) if rows.is_cuda else encoder.from_embeddings(embedded)
    return words[index].unflatten(0, char_ids.shape[:-1])


def distinct_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(words, characters) -> each different row once, and each word's row among them (words)

    Rows are compared by a hash, which is much faster than `unique(dim=0)`, and then checked.
    """
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(2**62, (rows.shape[1],), generator=generator).to(rows.device)
    hashes, index = (rows * factors).sum(dim=1).unique(return_inverse=True)
    numbers = torch.arange(len(rows), device=rows.device)
    distinct = rows[index.new_zeros(len(hashes)).scatter_(0, index, numbers)]
    if torch.equal(distinct[index], rows):
        return distinct, index
    distinct, index = rows.unique(dim=0, return_inverse=True)  # two rows with one hash: next to impossible
    return distinct, index


def by_length(rows: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """The rows from short to long, and the index into them."""
    order = lengths(rows).argsort()
    return rows[order], order.argsort()[index]


def cut_padding(rows: Tensor, convolutions: Iterable[nn.Conv1d]) -> Tensor:
    """(words, characters) -> without most columns of padding: each filter still sees one place of it alone"""
    columns = int(lengths(rows).max()) if len(rows) else 0
    return rows[:, : columns + max(conv.kernel_size[0] for conv in convolutions)]


def lengths(rows: Tensor) -> Tensor:
    """(words, characters) -> (words), without the equal characters at the end"""
    is_padding = (rows == rows[:, -1:]).flip(1).cumprod(dim=1)
    return rows.shape[1] - is_padding.sum(dim=1)


def activation(encoder: Any) -> Callable[[Tensor], Tensor]:
    return torch.tanh if encoder.config.char_activation == "tanh" else F.relu


def after_filters(encoder: Any, words: Tensor) -> Tensor:
    """(words, filters), before the activation -> (words, projection_dim)"""
    return encoder.projection(nn.Sequential(*encoder.highways)(activation(encoder)(words)))


# ---- by products


def encode_by_products(encoder: Any, embedded: Tensor) -> Tensor:
    """(words, characters, char_embedding_dim) -> (words, projection_dim)"""
    maxima = []
    for conv in encoder.convolutions:
        windows = embedded.unfold(1, conv.kernel_size[0], 1).flatten(2)  # (words, places, dim * width)
        maxima.append(F.linear(windows, conv.weight.flatten(1), conv.bias).amax(dim=1))
    return after_filters(encoder, torch.cat(maxima, dim=-1))


# ---- by tables


def encode_by_tables(encoder: Any, rows: Tensor, precision: str) -> Tensor:
    """(words, characters) -> (words, projection_dim)"""
    blocks = [cut_padding(block, encoder.convolutions) for block in rows.split(BLOCK_WORDS)]
    if torch.is_grad_enabled() and any(weight.requires_grad for weight in encoder.parameters()):
        filters = make_tables(encoder)
        words = torch.cat([SumAndMaximum.apply(blocks, table) + bias for table, bias in filters], dim=-1)
        return after_filters(encoder, words)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    weights = [encoder.char_embedding.weight, *(conv.weight for conv in encoder.convolutions)]
    tables = keep(encoder, weights, None, lambda: [table.detach() for table, _ in make_tables(encoder)])
    maxima = [look_up(blocks, t) + c.bias for t, c in zip(tables, encoder.convolutions, strict=True)]
    words = torch.cat(maxima, dim=-1)
    words = activation(encoder)(words)
    for highway in encoder.highways:
        x = words.to(dtype)
        gate = linear(highway.carry, x).float().sigmoid_()
        words = torch.lerp(words, linear(highway.transform, x).float().relu_(), gate)
    is_projected = isinstance(encoder.projection, nn.Linear)
    return linear(encoder.projection, words.to(dtype)).float() if is_projected else words


def linear(module: nn.Linear, x: Tensor) -> Tensor:
    """The module's product. Weights are laid out anew only if they are frozen or of another type: otherwise
    that gains less than it costs to compare them in each call."""
    weights = [module.weight, module.bias]
    if x.dtype == module.weight.dtype and not is_frozen(weights):
        return product(x, module.weight.t(), module.bias)
    prepared = keep(module, weights, x.dtype, lambda: Product(module.weight.t(), module.bias, x.dtype))
    return prepared(x)


def make_tables(encoder: Any) -> list[tuple[Tensor, Tensor]]:
    """For each filter width: the table (width * 262, filters) and the bias (filters)."""
    embedded = encoder.char_embedding(torch.arange(NUM_CHARACTER_IDS))
    return [
        (torch.einsum("cd,ndw->wcn", embedded, conv.weight).flatten(0, 1), conv.bias)
        for conv in encoder.convolutions
    ]


def sums(rows: Tensor, table: Tensor) -> Tensor:
    """(words, characters) -> (words, places, filters): at each place the sum of `width` rows of the table"""
    width = len(table) // NUM_CHARACTER_IDS
    index = rows.unfold(1, width, 1) + NUM_CHARACTER_IDS * torch.arange(width)
    return F.embedding_bag(index.flatten(0, 1), table, mode="sum").unflatten(0, index.shape[:2])


def look_up(blocks: Sequence[Tensor], table: Tensor) -> Tensor:
    """The maximum of each word's sums over its places: blocks of rows -> (words, filters)"""
    return torch.cat([sums(rows, table).amax(dim=1) for rows in blocks])


class SumAndMaximum(Function):
    """As `look_up`, with a gradient for the table."""

    @staticmethod
    def forward(ctx: Any, blocks: Sequence[Tensor], table: Tensor) -> Tensor:
        maxima, places = [], []
        for rows in blocks:
            scores = sums(rows, table)
            maxima.append(scores.amax(dim=1, keepdim=True))
            numbers = torch.arange(scores.shape[1], dtype=torch.int32)[:, None]
            places.append(torch.where(scores == maxima[-1], numbers, 0).amax(dim=1))
        ctx.save_for_backward(*places)
        ctx.blocks, ctx.shape = blocks, table.shape
        return torch.cat(maxima).squeeze(1)

    @staticmethod
    @refuses_second_derivative(READABLE)
    def backward(ctx: Any, d_words: Tensor) -> tuple[None, Tensor]:
        d_table = d_words.new_zeros(ctx.shape).unflatten(0, (-1, NUM_CHARACTER_IDS))
        d_blocks = d_words.split([len(rows) for rows in ctx.blocks])
        for rows, places, d_block in zip(ctx.blocks, ctx.saved_tensors, d_blocks, strict=True):
            for offset, d_offset in enumerate(d_table):
                d_offset.scatter_add_(0, rows.gather(1, places.long() + offset), d_block)
        return None, d_table.flatten(0, 1)
