"""What stands on top of the layers: the scalar mix, and the RNNs over words that task models share.

    rnn = ElmoBiRNN(input_size=300, hidden_size=200, num_layers=2, dropout=0.5)
    h = rnn(x, mask)    # (batch, words, 300), (batch, words) -> (batch, words, 400)

A mask is True where there is a word. Padding may be on either side, or between words; it changes nothing, and
what comes out there is zero.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class ElmoScalarMix(nn.Module):
    r"""`gamma * sum_k softmax(w)_k h_k` over the layers h_k: the ELMo vector of the paper's equation 1.

    Args:
        num_layers: how many layers are mixed: `config.num_hidden_layers + 1` for all.
        num_mixes: independent mixes of the same layers; the call returns one tensor, or a tuple of several.
        layer_norm: each layer first gets mean 0 and variance 1 over all elements of the batch's words
            (bilm-tf's rule: sentence begin and end are left out, epsilon 1e-12).
        dropout: after the mix; the paper's task models use 0.5.
        l2: the paper's lambda, see `penalty`.
        trainable: False keeps weights and gamma as they are.
        initial_weights: raw weights w to start from, one a layer; zeros, the average, if left out.
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
        """num_layers tensors (batch, words, dim) -> (batch, words, dim), or a tuple of num_mixes of them."""
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
        shares = self.gamma[:, None] * self.weights.softmax(dim=-1)
        mixes = self.dropout(torch.einsum("mk,kbtd->mbtd", shares.to(layers.dtype), layers))
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
        """`l2 * sum(w^2)`, for the task's loss: near zero the weights may differ, large makes the average."""
        return self.l2 * (self.weights**2).sum()


class ElmoVariationalDropout(nn.Dropout):
    """Dropout that draws once for all words of a row (Gal and Ghahramani 2016)."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, words, dim) -> the same"""
        return x * F.dropout(torch.ones_like(x[:, :1]), self.p) if self.training else x


class ElmoBiRNN(nn.Module):
    r"""A stack of bidirectional LSTMs or GRUs, with variational dropout on what each layer reads.

    Args:
        input_size: of a word's vector; `output_size` is twice hidden_size, both directions side by side.
        hidden_size: cells per direction.
        num_layers: layers.
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
        make = nn.LSTM if cell == "lstm" else nn.GRU
        sizes = [input_size] + [self.output_size] * (num_layers - 1)
        self.layers = nn.ModuleList(
            make(size, hidden_size, batch_first=True, bidirectional=True) for size in sizes
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(batch, words, input_size), (batch, words) -> (batch, words, output_size), zero at padding"""
        if mask.numel() == 0:
            return x.new_zeros(*mask.shape, self.output_size)
        order = (~mask).int().argsort(dim=1, stable=True)  # the words to the front, as packing wants them
        lengths = mask.sum(dim=1).clamp(min=1).cpu()
        x = _reorder(x, order)
        for layer in self.layers:
            packed = pack_padded_sequence(self.dropout(x), lengths, batch_first=True, enforce_sorted=False)
            x, _ = pad_packed_sequence(layer(packed)[0], batch_first=True, total_length=mask.shape[1])
        return _reorder(x, order.argsort(dim=1)).masked_fill(~mask[:, :, None], 0)


def _reorder(x: Tensor, order: Tensor) -> Tensor:
    """Each row's words in another order: (batch, words, dim), (batch, words) -> (batch, words, dim)"""
    return x.gather(1, order[:, :, None].expand_as(x))


class ElmoHighwayLSTM(nn.Module):
    """An LSTM in one direction with a highway around its cells (He et al. 2017, equations 4 to 8).

    The gate r decides how much of the output is new, and how much is the input: `r * h + (1 - r) * W x`.
    Dropout is on the output and, by it, on what recurs; it draws once a row.
    """

    def __init__(self, input_size: int, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.input_weight = nn.Parameter(torch.empty(input_size, 6 * hidden_size))
        self.recurrent_weight = nn.Parameter(torch.empty(hidden_size, 5 * hidden_size))
        self.bias = nn.Parameter(torch.empty(5 * hidden_size))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(batch, words, input_size), (batch, words) -> (batch, words, hidden_size), zero at padding"""
        from_input, carried = (x @ self.input_weight).split([5 * self.hidden_size, self.hidden_size], dim=-1)
        from_input = from_input + self.bias
        h = c = x.new_zeros(len(x), self.hidden_size)
        kept = self.dropout(torch.ones_like(h))
        outputs = []
        for t in range(x.shape[1]):
            gates = torch.addmm(from_input[:, t], h, self.recurrent_weight)
            i, j, f, o, r = gates.chunk(5, dim=-1)
            new_c = torch.sigmoid(f + 1) * c + torch.sigmoid(i) * torch.tanh(j)
            new = torch.sigmoid(o) * torch.tanh(new_c)
            new_h = kept * torch.lerp(carried[:, t], new, torch.sigmoid(r))
            is_word = mask[:, t, None]
            c = torch.where(is_word, new_c, c)
            h = torch.where(is_word, new_h, h)
            outputs.append(torch.where(is_word, new_h, 0))
        return torch.stack(outputs, dim=1) if outputs else h[:, None][:, :0]


class ElmoInterleavedRNN(nn.Module):
    """Highway LSTMs on top of each other that read in turn from the left and from the right (He et al. 2017).

    Called as `ElmoBiRNN` is; `output_size` is hidden_size, for a layer has one direction.
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.output_size = hidden_size
        sizes = [input_size] + [hidden_size] * (num_layers - 1)
        self.layers = nn.ModuleList(ElmoHighwayLSTM(size, hidden_size, dropout) for size in sizes)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(batch, words, input_size), (batch, words) -> (batch, words, output_size), zero at padding"""
        for number, layer in enumerate(self.layers):
            is_forward = number % 2 == 0
            x = layer(x, mask) if is_forward else layer(x.flip(1), mask.flip(1)).flip(1)
        return x
