"""The character network with less work: a word is encoded once, without its padding, by looking things up.

A text repeats its words, so equal rows of character ids go through the network once. Of a row's padding only
so much is kept as the widest filter can see. And, for reading on a CPU, a convolution over characters is a
sum of rows from tables: there are only 262 characters, so what a filter makes of each at each of its places
is known beforehand.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elmo_hf.kernels.kept import keep
from elmo_hf.kernels.products import Product
from elmo_hf.words_elmo import NUM_CHARACTER_IDS

# Numbers that the convolutions of some words hold at a time.
NUMBERS_AT_ONCE = 2**22


def encode(encoder: Any, char_ids: Tensor, by_tables: bool) -> Tensor:
    """As `ElmoCharacterEncoder` itself: (..., characters) -> (..., projection_dim)"""
    rows, places = distinct_rows(char_ids.flatten(0, -2))
    rows = cut(rows, encoder.config.char_filters)
    if by_tables:
        words = encode_by_tables(encoder, rows)
    else:
        words = encoder.from_embeddings(encoder.char_embedding(rows))
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


def cut(rows: Tensor, filters: list[list[int]]) -> Tensor:
    """Without the columns of padding that no filter needs: each must still see a place with nothing else."""
    is_padding = (rows == rows[:, -1:]).flip(1).cumprod(dim=1).bool().flip(1)  # all equal from here on
    columns = int((~is_padding).any(dim=0).sum())
    return rows[:, : columns + max(width for width, _ in filters)]


@dataclass
class Tables:
    """The network, laid out for looking up."""

    filters: list[tuple[Tensor, Tensor]]  # (width * 262, number), bias (number)
    highways: list[tuple[Product, Product]]
    projection: Product | None


def encode_by_tables(encoder: Any, rows: Tensor) -> Tensor:
    """(words, characters) -> (words, projection_dim)"""
    tables = keep(encoder, encoder.parameters(), None, lambda: make_tables(encoder))
    activation = torch.tanh if encoder.config.char_activation == "tanh" else F.relu
    words = torch.cat([activation(convolve_and_pool(rows, *one)) for one in tables.filters], dim=-1)
    for carry, transform in tables.highways:
        gate = carry(words).sigmoid_()
        words = torch.lerp(words, transform(words).relu_(), gate)
    return tables.projection(words) if tables.projection is not None else words


def convolve_and_pool(rows: Tensor, table: Tensor, bias: Tensor) -> Tensor:
    """One filter size: the maximum over a word of the sums of `width` rows of the table."""
    width, number = len(table) // NUM_CHARACTER_IDS, table.shape[1]
    index = rows.unfold(1, width, 1) + NUM_CHARACTER_IDS * torch.arange(width)
    words_at_once = max(1, NUMBERS_AT_ONCE // (index.shape[1] * number))
    pooled = [
        F.embedding_bag(some.flatten(0, 1), table, mode="sum").unflatten(0, some.shape[:2]).amax(dim=1)
        for some in index.split(words_at_once)
    ]
    return torch.cat(pooled) + bias


def make_tables(encoder: Any) -> Tables:
    letters = encoder.char_embedding.weight.detach()
    projection = encoder.projection if isinstance(encoder.projection, nn.Linear) else None
    return Tables(
        [
            (torch.einsum("cd,ndw->wcn", letters, conv.weight.detach()).flatten(0, 1), conv.bias.detach())
            for conv in encoder.convolutions
        ],
        [(_product(highway.carry), _product(highway.transform)) for highway in encoder.highways],
        _product(projection) if projection is not None else None,
    )


def _product(linear: nn.Linear) -> Product:
    return Product(linear.weight.t(), linear.bias)
