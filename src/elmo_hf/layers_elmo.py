"""What stands on top of the layers: the scalar mix, and what else task models share."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


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
