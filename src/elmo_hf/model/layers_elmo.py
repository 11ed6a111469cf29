"""The scalar mix of a biLM's layers, and the RNNs that task models share.

    rnn = ElmoBiRNN(input_size=300, hidden_size=200, num_layers=2, dropout=0.5)
    h = rnn(x, mask)    # (batch, words, 300), (batch, words) -> (batch, words, 400)

A mask is True for a word. Padding may be on either side or between words. It changes no word's output, and
its own output is zero.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .cells_elmo import ElmoGRU, ElmoHighwayLSTM
from .configuration_elmo import ElmoConfig


class ElmoScalarMix(nn.Module):
    r"""`gamma * sum_k softmax(w)_k h_k` over the layers h_k: the ELMo vector of the paper's equation 1.

    >>> mix = ElmoScalarMix(num_layers=3, l2=0.001)
    >>> mix(model(**batch, output_hidden_states=True).hidden_states).shape
    torch.Size([2, 5, 256])
    >>> loss = mix.penalty()  # to be added to the task's loss

    Args:
        num_layers: number of layers to mix: `config.num_hidden_layers + 1` for all.
        num_mixes: number of independent mixes of the same layers.
        layer_norm: first normalise each layer to mean 0 and variance 1 over all elements of the batch's words
            (as bilm-tf does: without sentence begin and end, epsilon 1e-12).
        dropout: after the mix; the paper's task models use 0.5.
        l2: the paper's lambda, see `penalty`.
        trainable: whether weights and gamma learn.
        initial_weights: initial raw weights w, one for each layer; zeros, which give the mean, by default.
    """

    def __init__(
        self,
        num_layers: int,
        num_mixes: int = 1,
        layer_norm: bool = False,
        dropout: float = 0.0,
        l2: float = 0.0,
        trainable: bool = True,
        initial_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if num_layers < 1 or num_mixes < 1:
            raise ValueError(
                f"ElmoScalarMix needs at least one layer and one mix, but got {num_layers} and {num_mixes}."
            )
        self.initial_weights = list(initial_weights) if initial_weights is not None else [0.0] * num_layers
        if len(self.initial_weights) != num_layers:
            raise ValueError(
                f"initial_weights must hold {num_layers} numbers, one a layer, but holds "
                f"{len(self.initial_weights)}."
            )
        self.layer_norm = layer_norm
        self.l2 = l2
        start = torch.tensor(self.initial_weights, dtype=torch.get_default_dtype())
        self.weights = nn.Parameter(start.repeat(num_mixes, 1), requires_grad=trainable)
        self.gamma = nn.Parameter(torch.ones(num_mixes), requires_grad=trainable)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, hidden_states: Sequence[Tensor], attention_mask: Tensor | None = None
    ) -> Tensor | tuple[Tensor, ...]:
        """Mix the layers.

        Args:
            hidden_states: num_layers tensors (batch, words, dim).
            attention_mask: (batch, words), 1 for a word; used by `layer_norm`.

        Returns:
            (batch, words, dim), or a tuple of num_mixes such tensors if there are several mixes.
        """
        if len(hidden_states) != self.weights.shape[1]:
            raise ValueError(
                f"ElmoScalarMix was made for {self.weights.shape[1]} layers, but got {len(hidden_states)}."
            )
        if len({layer.shape for layer in hidden_states}) > 1:
            shapes = [tuple(layer.shape) for layer in hidden_states]
            raise ValueError(f"ElmoScalarMix needs layers of one shape, but got {shapes}.")
        layers = torch.stack(tuple(hidden_states))
        if self.layer_norm:
            layers = self._normalise(layers, attention_mask)
        weights = self.gamma[:, None] * self.weights.softmax(dim=-1)
        mixes = self.dropout(torch.einsum("mk,kbtd->mbtd", weights.to(layers.dtype), layers))
        return mixes[0] if len(mixes) == 1 else tuple(mixes)

    def _normalise(self, layers: Tensor, attention_mask: Tensor | None) -> Tensor:
        mask = (
            torch.ones_like(layers[0, :, :, 0]) if attention_mask is None else attention_mask.to(layers.dtype)
        )
        mask = mask[None, :, :, None]
        elements = (mask.sum() * layers.shape[-1]).clamp(min=1)
        mean = (layers * mask).sum(dim=(1, 2, 3), keepdim=True) / elements
        centred = (layers - mean) * mask
        variance = (centred**2).sum(dim=(1, 2, 3), keepdim=True) / elements
        return centred * torch.rsqrt(variance + 1e-12)

    def penalty(self) -> Tensor:
        """`l2 * sum(w^2)`, to be added to the task's loss: a large l2 keeps the mix near the mean."""
        return self.l2 * (self.weights**2).sum()


class ElmoStoredMix(ElmoScalarMix):
    """The trained mixes that come with a biLM. Their weights are buffers, so that nothing trains them."""

    def __init__(self, config: ElmoConfig) -> None:
        super().__init__(config.num_hidden_layers + 1, config.num_mixes, config.mix_layer_norm)
        for name in ("weights", "gamma"):
            value = getattr(self, name).detach()
            delattr(self, name)
            self.register_buffer(name, value)


class ElmoVariationalDropout(nn.Dropout):
    """Dropout with one mask for all words of a row (Gal and Ghahramani 2016)."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, words, dim) -> the same"""
        return x * F.dropout(torch.ones_like(x[:, :1]), self.p) if self.training else x


class ElmoRNN(nn.Module):
    """Layers that read words from the left and from the right.

    The words of a row, or their mirror image, are moved to the front, so that padding is read last and
    changes no word. A packed sequence would do the same, but is slower on a CPU.
    """

    output_size: int

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(batch, words, input_size), (batch, words) -> (batch, words, output_size), zero at padding"""
        if mask.numel() == 0:
            return x.new_zeros(*mask.shape, self.output_size)
        order = words_first(mask)
        x = _reorder(x.masked_fill(~mask[:, :, None], 0), order)
        x = self.read(x, _mirror(mask))
        return _reorder(x, order.argsort(dim=1)).masked_fill(~mask[:, :, None], 0)

    def read(self, x: Tensor, mirror: Tensor) -> Tensor:
        """(batch, words, input_size), words first; `mirror` is their order from the right, (batch, words)"""
        raise NotImplementedError


def words_first(mask: Tensor) -> Tensor:
    """The places of each row's words, followed by those of its padding, (batch, words)."""
    return (~mask).int().argsort(dim=1, stable=True)


def _mirror(mask: Tensor) -> Tensor:
    """The places of each row's words from right to left, if they are in front; padding stays at the end."""
    places = torch.arange(mask.shape[1], device=mask.device)
    from_right = mask.sum(dim=1, keepdim=True) - 1 - places
    return torch.where(from_right >= 0, from_right, places)


def _reorder(x: Tensor, order: Tensor) -> Tensor:
    """Each row's words in another order: (batch, words, dim), (batch, words) -> (batch, words, dim)"""
    rows = order + x.shape[1] * torch.arange(len(x), device=x.device)[:, None]
    return x.flatten(0, 1).index_select(0, rows.flatten()).view_as(x)  # faster than gather


class ElmoBiRNN(ElmoRNN):
    r"""A stack of bidirectional LSTMs or GRUs, with variational dropout on what each layer reads.

    Args:
        input_size: size of a word's vector; `output_size` is twice hidden_size.
        hidden_size: cells per direction.
        num_layers: number of layers.
        dropout: on the input of every layer.
        cell: `"lstm"` or `"gru"`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        dropout: float = 0.0,
        cell: Literal["lstm", "gru"] = "lstm",
    ) -> None:
        super().__init__()
        self.output_size = 2 * hidden_size
        self.dropout = ElmoVariationalDropout(dropout)
        make = partial(nn.LSTM, batch_first=True) if cell == "lstm" else ElmoGRU
        sizes = [input_size] + [self.output_size] * (num_layers - 1)
        self.forward_layers = nn.ModuleList(make(size, hidden_size) for size in sizes)
        self.backward_layers = nn.ModuleList(make(size, hidden_size) for size in sizes)

    def read(self, x: Tensor, mirror: Tensor) -> Tensor:
        for forward_layer, backward_layer in zip(self.forward_layers, self.backward_layers, strict=True):
            x = self.dropout(x)
            from_left = forward_layer(x)[0]
            from_right = _reorder(backward_layer(_reorder(x, mirror))[0], mirror)
            x = torch.cat([from_left, from_right], dim=-1)
        return x


class ElmoInterleavedRNN(ElmoRNN):
    """A stack of highway LSTMs that read in turn from the left and from the right (He et al. 2017).

    A layer has one direction, so `output_size` is hidden_size.
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.output_size = hidden_size
        sizes = [input_size] + [hidden_size] * (num_layers - 1)
        self.layers = nn.ModuleList(ElmoHighwayLSTM(size, hidden_size, dropout) for size in sizes)

    def read(self, x: Tensor, mirror: Tensor) -> Tensor:
        for number, layer in enumerate(self.layers):
            is_forward = number % 2 == 0
            x = layer(x) if is_forward else _reorder(layer(_reorder(x, mirror)), mirror)
        return x
