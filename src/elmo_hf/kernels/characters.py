"""The character network with less work: a word is encoded once, without its padding, by looking things up.

A text repeats its words, so equal rows of character ids go through the network once. Of a row's padding only
so much is kept as the widest filter can see. And, on a CPU, a convolution over characters is a sum of rows
from tables: there are only 262 characters, so what a filter makes of each at each of its places is known
beforehand. On a GPU a convolution is one product over all places, for cuDNN prepares itself anew for every
number and length of words, which hardly ever come twice.

In training, the tables are made with gradient, and the sums and their maximum over the word are one autograd
function: of all that a filter has seen in a word, one place with the maximum gets the gradient. The readable
code shares it among such places. Those have the same characters, padding for one, so that it goes to the same
weights either way; unless weights are zero, where sums of different characters may be the same number, and
either is a gradient.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from elmo_hf.kernels.kept import keep
from elmo_hf.kernels.products import Product

NUM_CHARACTER_IDS = 262  # as in `model/words_elmo.py`; this room imports nothing of ours

# Words that are looked up at a time: few enough for the cache, and of about one length.
WORDS_AT_ONCE = 128


def encode(encoder: Any, char_ids: Tensor, by_tables: bool, precision: str = "float32") -> Tensor:
    """As `ElmoCharacterEncoder` itself: (..., characters) -> (..., projection_dim). For reading, the weights
    after the tables may be "bf16"."""
    rows, places = distinct_rows(char_ids.flatten(0, -2))
    if by_tables and is_plain(encoder):
        rows, places = by_length(rows, places)
        words = encode_by_tables(encoder, rows, precision)
    else:
        letters = encoder.char_embedding(cut(rows, encoder.config.char_filters))
        by_product = rows.is_cuda and is_plain(encoder)
        words = encode_by_products(encoder, letters) if by_product else encoder.from_embeddings(letters)
    return words[places].unflatten(0, char_ids.shape[:-1])


def distinct_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(words, characters) -> each different row once, and each word's place among them."""
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(2**62, (rows.shape[1],), generator=generator).to(rows.device)
    keys, places = (rows * factors).sum(dim=1).unique(return_inverse=True)
    numbers = torch.arange(len(rows), device=rows.device)
    distinct = rows[places.new_zeros(len(keys)).scatter_(0, places, numbers)]
    if torch.equal(distinct[places], rows):
        return distinct, places
    distinct, places = rows.unique(dim=0, return_inverse=True)  # two rows with one key: next to impossible
    return distinct, places


def by_length(rows: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Short words first, and each word's new place."""
    order = lengths(rows).argsort()
    return rows[order], order.argsort()[places]


def cut(rows: Tensor, filters: list[list[int]]) -> Tensor:
    """Without the columns of padding that no filter needs: each must still see a place with nothing else."""
    columns = int(lengths(rows).max()) if len(rows) else 0
    return rows[:, : columns + max(width for width, _ in filters)]


def lengths(rows: Tensor) -> Tensor:
    """(words, characters) -> (words), without the equal characters at the end."""
    is_padding = (rows == rows[:, -1:]).flip(1).cumprod(dim=1)
    return rows.shape[1] - is_padding.sum(dim=1)


def is_plain(encoder: Any) -> bool:
    """Whether its parts are what they were made as: an adapter, or a hook, must see what passes by."""
    parts: list[tuple[Any, Any]] = [(encoder.char_embedding, nn.Embedding)]
    parts += [(conv, nn.Conv1d) for conv in encoder.convolutions]
    parts += [
        (part, nn.Linear) for highway in encoder.highways for part in (highway.carry, highway.transform)
    ]
    parts.append((encoder.projection, nn.Linear | nn.Identity))
    return all(
        isinstance(part, kind) and not (part._forward_hooks or part._forward_pre_hooks)
        for part, kind in parts
    )


def activation(encoder: Any) -> Callable[[Tensor], Tensor]:
    return torch.tanh if encoder.config.char_activation == "tanh" else F.relu


def after_filters(encoder: Any, words: Tensor) -> Tensor:
    """(words, filters), before the activation -> (words, projection_dim)"""
    return encoder.projection(nn.Sequential(*encoder.highways)(activation(encoder)(words)))


# ---- by products


def encode_by_products(encoder: Any, letters: Tensor) -> Tensor:
    """(words, characters, char_embedding_dim) -> (words, projection_dim)"""
    found = []
    for conv in encoder.convolutions:
        windows = letters.unfold(1, conv.kernel_size[0], 1).flatten(2)  # (words, places, dim * width)
        found.append(F.linear(windows, conv.weight.flatten(1), conv.bias).amax(dim=1))
    return after_filters(encoder, torch.cat(found, dim=-1))


# ---- by tables


def encode_by_tables(encoder: Any, rows: Tensor, precision: str) -> Tensor:
    """(words, characters) -> (words, projection_dim)"""
    groups = [cut(some, encoder.config.char_filters) for some in rows.split(WORDS_AT_ONCE)]
    if torch.is_grad_enabled() and any(weight.requires_grad for weight in encoder.parameters()):
        filters = make_tables(encoder)
        words = torch.cat([SumAndMaximum.apply(groups, table) + bias for table, bias in filters], dim=-1)
        return after_filters(encoder, words)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    network = keep(encoder, encoder.parameters(), dtype, lambda: make_network(encoder, dtype))
    words = torch.cat([look_up(groups, table) + bias for table, bias in network.filters], dim=-1)
    words = activation(encoder)(words)
    for carry, transform in network.highways:
        seen = words.to(dtype)
        gate = carry(seen).float().sigmoid_()
        words = torch.lerp(words, transform(seen).float().relu_(), gate)
    return network.projection(words.to(dtype)).float() if network.projection is not None else words


def make_tables(encoder: Any) -> list[tuple[Tensor, Tensor]]:
    """Of each filter size: (width * 262, number), and its bias (number)."""
    letters = encoder.char_embedding(torch.arange(NUM_CHARACTER_IDS))
    return [
        (torch.einsum("cd,ndw->wcn", letters, conv.weight).flatten(0, 1), conv.bias)
        for conv in encoder.convolutions
    ]


def sums(rows: Tensor, table: Tensor) -> Tensor:
    """(words, characters) -> (words, places, number), at each place the sum of `width` rows of the table"""
    width = len(table) // NUM_CHARACTER_IDS
    index = rows.unfold(1, width, 1) + NUM_CHARACTER_IDS * torch.arange(width)
    return F.embedding_bag(index.flatten(0, 1), table, mode="sum").unflatten(0, index.shape[:2])


def look_up(groups: Sequence[Tensor], table: Tensor) -> Tensor:
    """The maximum over each word of its sums: groups of rows -> (words, number)"""
    return torch.cat([sums(rows, table).amax(dim=1) for rows in groups])


class SumAndMaximum(Function):
    """As `look_up`, with a gradient for the table."""

    @staticmethod
    def forward(ctx: Any, groups: Sequence[Tensor], table: Tensor) -> Tensor:
        maxima, places = [], []
        for rows in groups:
            found = sums(rows, table)
            maxima.append(found.amax(dim=1, keepdim=True))
            numbers = torch.arange(found.shape[1], dtype=torch.int32)[:, None]
            places.append(torch.where(found == maxima[-1], numbers, 0).amax(dim=1))
        ctx.save_for_backward(*places)
        ctx.groups, ctx.shape = groups, table.shape
        return torch.cat(maxima).squeeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_words: Tensor) -> tuple[None, Tensor]:
        d_table = d_words.new_zeros(ctx.shape).unflatten(0, (-1, NUM_CHARACTER_IDS))
        d_groups = d_words.split([len(rows) for rows in ctx.groups])
        for rows, places, d_group in zip(ctx.groups, ctx.saved_tensors, d_groups, strict=True):
            for offset, d_offset in enumerate(d_table):
                d_offset.scatter_add_(0, rows.gather(1, places.long() + offset), d_group)
        return None, d_table.flatten(0, 1)


# ---- and without gradients


@dataclass
class Network:
    """The network, laid out for reading."""

    filters: list[tuple[Tensor, Tensor]]  # the tables and their biases
    highways: list[tuple[Product, Product]]
    projection: Product | None


def make_network(encoder: Any, dtype: torch.dtype) -> Network:
    projection = encoder.projection if isinstance(encoder.projection, nn.Linear) else None
    return Network(
        [(table.detach(), bias.detach()) for table, bias in make_tables(encoder)],
        [(_product(part.carry, dtype), _product(part.transform, dtype)) for part in encoder.highways],
        _product(projection, dtype) if projection is not None else None,
    )


def _product(linear: nn.Linear, dtype: torch.dtype) -> Product:
    return Product(linear.weight.t(), linear.bias, dtype)
