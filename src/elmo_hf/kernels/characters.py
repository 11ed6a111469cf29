"""The character encoders of `encoders_elmo.py` with less work, for reading and for training.

    word = projection(highways(activation(max over places of (convolution + bias))))

With a table of words beside the characters, the projection reads both, and a row of ids ends with the word's.

What makes it faster:

- Each different word of a batch is encoded once.
- Padding is cut to what the widest filter can see.
- On a CPU a convolution is a sum of table rows. There are few characters (262 if they are bytes), so a table
  holds what a filter makes of each of them at each of its offsets. Where tables of all characters would be
  large, or nothing can be kept of them, they are made of the batch's characters.
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
from elmo_hf.kernels.products import Product, has_bf16, product

MAX_KEPT = 2**24  # bytes of tables of all characters; larger ones are slower than those of a batch
MIN_BF16_WORDS = 64  # with fewer, bfloat16 gains less than it takes to compare the weights with their copies
BLOCK_WORDS = 128  # words that are looked up at once: few enough for the cache, and of about one length


def encode(encoder: Any, char_ids: Tensor, by_tables: bool, precision: str = "float32") -> Tensor:
    """Encode words as `encoder` itself does.

    Args:
        encoder: an `ElmoCharacterEncoder` whose modules are plain (`plain.py`), or one with words beside.
        char_ids: (..., characters), and 1 + the word's id with words beside
        by_tables: sum rows of tables; for a CPU and float32 weights.
        precision: "float32", or "bf16" for the weights after the tables when no gradients are needed.

    Returns:
        (..., projection_dim)
    """
    rows, index = distinct_rows(char_ids.flatten(0, -2))
    if by_tables:
        rows, index = by_length(encoder, rows, index)
        words = encode_by_tables(encoder, rows, precision)
    else:
        words = encode_by_products(encoder, rows) if rows.is_cuda else encode_as_written(encoder, rows)
    return words[index].unflatten(0, char_ids.shape[:-1])


def distinct_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(words, characters) -> each different row once, and each word's row among them (words)"""
    if not rows.is_cpu or not len(rows):
        return distinct_by_hash(rows)
    content, size = rows.contiguous().numpy().tobytes(), rows.shape[1] * rows.itemsize
    keys = [content[start : start + size] for start in range(0, len(content), size)]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    distinct = torch.frombuffer(bytearray(b"".join(numbers)), dtype=rows.dtype).view(-1, rows.shape[1])
    return distinct, torch.tensor([numbers[key] for key in keys])


def distinct_by_hash(rows: Tensor) -> tuple[Tensor, Tensor]:
    """As `distinct_rows`, where the rows are. Their hashes are compared, which is much faster than
    `unique(dim=0)`, and the result is checked."""
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(2**62, (rows.shape[1],), generator=generator).to(rows.device)
    hashes, index = (rows * factors).sum(dim=1).unique(return_inverse=True)
    numbers = torch.arange(len(rows), device=rows.device)
    distinct = rows[index.new_zeros(len(hashes)).scatter_(0, index, numbers)]
    if torch.equal(distinct[index], rows):
        return distinct, index
    distinct, index = rows.unique(dim=0, return_inverse=True)  # two rows with one hash: next to impossible
    return distinct, index


def by_length(encoder: Any, rows: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """The rows from short to long, and the index into them; a single block stays as it is."""
    if len(rows) <= BLOCK_WORDS:
        return rows, index
    order = lengths(characters_of(encoder, rows)).argsort()
    return rows[order], order.argsort()[index]


def characters_of(encoder: Any, rows: Tensor) -> Tensor:
    """The rows without the words' ids, which are the last column if there is a table of words."""
    return rows[:, :-1] if hasattr(encoder, "word_embedding") else rows


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


def after_filters(encoder: Any, maxima: Tensor, rows: Tensor) -> Tensor:
    """(words, filters), before the activation -> (words, projection_dim)"""
    words = nn.Sequential(*encoder.highways)(activation(encoder)(maxima))
    return encoder.projection(beside_words(encoder, words, rows))


def beside_words(encoder: Any, words: Tensor, rows: Tensor) -> Tensor:
    """What the projection reads: `[word; characters]` if there is a table of words."""
    if not hasattr(encoder, "word_embedding"):
        return words
    return torch.cat([encoder.word_embedding((rows[:, -1] - 1).clamp(min=0)), words], dim=-1)


# ---- by products and as written


def encode_by_products(encoder: Any, rows: Tensor, is_cut: bool = False) -> Tensor:
    """Rows of ids -> (words, projection_dim). With `is_cut` no columns of padding are looked for, for which
    Python would wait for a GPU."""
    maxima = []
    embedded = encoder.char_embedding(characters_of(encoder, rows)) if is_cut else embed(encoder, rows)
    for conv in encoder.convolutions:
        windows = embedded.unfold(1, conv.kernel_size[0], 1).flatten(2)  # (words, places, dim * width)
        maxima.append(F.linear(windows, conv.weight.flatten(1), conv.bias).amax(dim=1))
    return after_filters(encoder, torch.cat(maxima, dim=-1), rows)


def encode_as_written(encoder: Any, rows: Tensor) -> Tensor:
    """Rows of ids -> (words, projection_dim)"""
    x = embed(encoder, rows).transpose(1, 2)
    return after_filters(encoder, torch.cat([conv(x).amax(-1) for conv in encoder.convolutions], -1), rows)


def embed(encoder: Any, rows: Tensor) -> Tensor:
    """Rows of ids -> (words, characters, char_embedding_dim), without most columns of padding"""
    return encoder.char_embedding(cut_padding(characters_of(encoder, rows), encoder.convolutions))


# ---- by tables


def encode_by_tables(encoder: Any, rows: Tensor, precision: str) -> Tensor:
    """Rows of ids -> (words, projection_dim)"""
    if torch.is_grad_enabled() and any(weight.requires_grad for weight in encoder.parameters()):
        return train_by_tables(encoder, rows)
    is_rounded = precision == "bf16" and len(rows) >= MIN_BF16_WORDS and has_bf16()
    dtype = torch.bfloat16 if is_rounded else torch.float32
    words = activation(encoder)(read_by_tables(encoder, rows))
    for highway in encoder.highways:
        x = words.to(dtype)
        gate = linear(highway.carry, x).float().sigmoid_()
        words = torch.lerp(words, linear(highway.transform, x).float().relu_(), gate)
    words = beside_words(encoder, words, rows)
    is_projected = isinstance(encoder.projection, nn.Linear)
    return linear(encoder.projection, words.to(dtype)).float() if is_projected else words


def train_by_tables(encoder: Any, rows: Tensor) -> Tensor:
    """Rows of ids -> (words, projection_dim); under autocast the products after the tables are of its type,
    and so is the result, as in the readable code."""
    has_autocast, own = torch.is_autocast_enabled("cpu"), encoder.char_embedding.weight.dtype
    dtype = torch.get_autocast_dtype("cpu") if has_autocast else own
    with torch.autocast("cpu", enabled=False):
        used, blocks = used_and_blocks(encoder, rows)
        filters = make_tables(encoder, used)
        maxima = [SumAndMaximum.apply(blocks, table) + bias for table, bias in filters]
        words = activation(encoder)(torch.cat(maxima, dim=-1))
        for highway in encoder.highways:
            gate = linear_to_train(highway.carry, words, dtype).sigmoid()
            words = torch.lerp(words, linear_to_train(highway.transform, words, dtype).relu(), gate)
        words = beside_words(encoder, words.to(dtype), rows)
        is_projected = isinstance(encoder.projection, nn.Linear)
        return linear_to_train(encoder.projection, words, dtype).to(dtype) if is_projected else words


def linear_to_train(module: nn.Linear, x: Tensor, dtype: torch.dtype) -> Tensor:
    """The module's product in a type; the result is of the type of x and the weights."""
    return TrainedLinear.apply(x, module.weight, module.bias, dtype)


def read_by_tables(encoder: Any, rows: Tensor) -> Tensor:
    """Rows of ids -> (words, filters), before the activation"""
    if table_bytes(encoder) > MAX_KEPT:
        used, blocks = used_and_blocks(encoder, rows)
        tables = [table for table, _ in make_tables(encoder, used)]
    else:
        blocks = in_blocks(encoder, characters_of(encoder, rows))
        weights = [encoder.char_embedding.weight, *(conv.weight for conv in encoder.convolutions)]
        # Contiguous, since `sums` flattens them in each call.
        tables = keep(
            encoder, weights, None, lambda: [t.detach().contiguous() for t, _ in make_tables(encoder)]
        )
    maxima = [look_up(blocks, t) + c.bias for t, c in zip(tables, encoder.convolutions, strict=True)]
    return torch.cat(maxima, dim=-1)


def table_bytes(encoder: Any) -> int:
    """Size of the tables of all characters, in float32."""
    rows = sum(conv.kernel_size[0] * conv.out_channels for conv in encoder.convolutions)
    return 4 * encoder.char_embedding.num_embeddings * rows


def used_and_blocks(encoder: Any, rows: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The ids of the characters that occur, and the words with these numbered from 0, in blocks."""
    characters = characters_of(encoder, rows)
    is_used = torch.zeros(encoder.char_embedding.num_embeddings, dtype=torch.bool)
    is_used[0] = True  # a table has a row even if there is no word
    is_used[characters.flatten()] = True
    numbers = is_used.cumsum(0) - 1
    return is_used.nonzero().squeeze(1), in_blocks(encoder, numbers[characters])


def in_blocks(encoder: Any, characters: Tensor) -> list[Tensor]:
    return [cut_padding(block, encoder.convolutions) for block in characters.split(BLOCK_WORDS)]


def linear(module: nn.Linear, x: Tensor) -> Tensor:
    """The module's product. Weights are laid out anew only if they are frozen or of another type: otherwise
    that gains less than it costs to compare them in each call."""
    weights = [module.weight, module.bias]
    if x.dtype == module.weight.dtype and not is_frozen(weights):
        return product(x, module.weight.t(), module.bias)
    prepared = keep(module, weights, x.dtype, lambda: Product(module.weight.t(), module.bias, x.dtype))
    return prepared(x)


class TrainedLinear(Function):
    """x (n, inputs), weight (outputs, inputs), bias (outputs), and the type of the product
    -> (n, outputs), of the type of x. oneDNN makes the products, of the gradients as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
        x, weight = x.to(dtype), weight.to(dtype)
        ctx.save_for_backward(x, weight)
        if dtype == bias.dtype:
            return product(x, weight.t(), bias)
        return torch.add(product(x, weight.t()), bias)

    @staticmethod
    @refuses_second_derivative(READABLE)
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        needed, d_product = ctx.needs_input_grad, gradient.to(weight.dtype).contiguous()
        with torch.autocast("cpu", enabled=False):
            d_x = product(d_product, weight).to(gradient.dtype) if needed[0] else None
            d_weight = product(d_product.t(), x).to(gradient.dtype) if needed[1] else None
        return d_x, d_weight, gradient.sum(dim=0) if needed[2] else None, None


def make_tables(encoder: Any, used: Tensor | None = None) -> list[tuple[Tensor, Tensor]]:
    """For each filter width: the table (width, characters, filters) and the bias (filters).

    `used` are the ids of the tables' characters; by default, all.
    """
    used = torch.arange(encoder.char_embedding.num_embeddings) if used is None else used
    embedded = encoder.char_embedding(used)
    return [(torch.einsum("cd,ndw->wcn", embedded, conv.weight), conv.bias) for conv in encoder.convolutions]


def sums(rows: Tensor, table: Tensor) -> Tensor:
    """(words, characters) -> (words, places, filters): at each place the sum of `width` rows of the table"""
    width, characters, _ = table.shape
    index = rows.unfold(1, width, 1) + torch.arange(0, width * characters, characters)
    return F.embedding_bag(index.flatten(0, 1), table.flatten(0, 1), mode="sum").unflatten(0, index.shape[:2])


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
            # The last place of a maximum, in the type of the scores: several times as fast as by integers.
            numbers = torch.arange(scores.shape[1], dtype=scores.dtype)[:, None]
            places.append(scores.eq_(maxima[-1]).mul_(numbers).amax(dim=1).to(torch.int32))
        ctx.save_for_backward(*places)
        ctx.blocks, ctx.shape = blocks, table.shape
        return torch.cat(maxima).squeeze(1)

    @staticmethod
    @refuses_second_derivative(READABLE)
    def backward(ctx: Any, d_words: Tensor) -> tuple[None, Tensor]:
        d_table = d_words.new_zeros(ctx.shape)
        d_blocks = d_words.split([len(rows) for rows in ctx.blocks])
        for rows, places, d_block in zip(ctx.blocks, ctx.saved_tensors, d_blocks, strict=True):
            for offset, d_offset in enumerate(d_table):
                d_offset.scatter_add_(0, rows.gather(1, places.long() + offset), d_block)
        return None, d_table
