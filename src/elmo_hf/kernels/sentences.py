"""A few sentences on a GPU, from ids to all layers, as one CUDA graph.

`graphs.py` makes each layer one launch. Between and before the layers there are some fifty more: the letters,
the flipped words, the residuals. A single sentence waits longer for these than for the LSTMs. Here they are
in one graph. Words are not compared with each other, and padding behind the letters is not cut: to know
either, Python would wait for the GPU, which has enough to spare for a few sentences.

The rules of `graphs.py` hold: a graph for each rounded size, captured when it comes for the second time;
changes of weights in place are seen; weights at other addresses get new graphs.
"""

from collections.abc import Hashable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elmo_hf.kernels import graphs
from elmo_hf.kernels.cell import LstmWeights
from elmo_hf.kernels.characters import encode_by_products
from elmo_hf.kernels.kept import keep
from elmo_hf.kernels.plain import weights_of


def serves(model: Any, ids: Tensor, mask: Tensor) -> bool:
    """Whether plain modules are read by a graph of whole sentences. It pays for few words only, keeps the
    addresses of parameters, and has neither gradients nor stored states nor autocast."""
    if not ids.is_cuda or ids.device != next(model.parameters()).device:
        return False
    weights = weights_of(model.layers) + weights_of(model.token_encoder)
    return (
        0 < mask.shape[0] <= graphs.MAX_ROWS
        and 0 < mask.shape[1] <= graphs.TIMES[-1] - 2
        and all(type(weight) is nn.Parameter for weight in weights)
        and not (torch.is_grad_enabled() and any(weight.requires_grad for weight in weights))
        and len({weight.dtype for weight in weights}) == 1
        and not model.config.use_warm_state
        and not any(module.training for module in (model, *model.layers))
        and not torch.is_autocast_enabled(ids.device.type)
        and torch.cuda.current_stream(ids.device) == torch.cuda.default_stream(ids.device)
    )


def read(model: Any, ids: Tensor, mask: Tensor, settings: Hashable) -> list[Tensor]:
    """All layers of some sentences, from states of zeros: ids (batch, words[, characters]) and mask (batch,
    words) -> layers (batch, words, dim), the words' vectors first.

    Raises:
        NoGraph: this call has no graph.
    """
    batch, time = graphs._round_up(mask.shape[0], mask.shape[1] + 2)
    key = (batch, time, ids.shape[2:], ids.dtype, settings, torch.backends.cuda.matmul.fp32_precision)
    version = ("sentences", *map(graphs._layout, weights_of(model.layers) + weights_of(model.token_encoder)))
    with graphs._lock:
        kept: graphs.Graphs = keep(model, (), version, graphs.Graphs, "sentences")
        graph: Any = kept.get(key, lambda: SentenceGraph(model, ids, batch, time))  # type: ignore[arg-type, return-value]
        return graph(ids, mask)


class SentenceGraph:
    """Sentences captured for one size: batch, and time with the boundaries."""

    def __init__(self, model: Any, ids: Tensor, batch: int, time: int) -> None:
        with torch.inference_mode(False), torch.no_grad():
            self.ids = ids.new_zeros(batch, time - 2, *ids.shape[2:])
            self.mask = torch.zeros(batch, time - 2, dtype=torch.bool, device=ids.device)
            self.boundaries = boundary_ids(model).to(ids)
            # The modules do not know the model, which the graph is kept under and must not keep alive.
            work = partial(read_sentences, model.token_encoder, [*model.layers])
            self.replay = graphs.capture(work, (self.ids, self.mask, self.boundaries))

    def __call__(self, ids: Tensor, mask: Tensor) -> list[Tensor]:
        batch, words = mask.shape
        self.mask.zero_()  # hides what the call before has left in the ids
        self.mask[:batch, :words].copy_(mask)
        self.ids[:batch, :words].copy_(ids)
        return [layer[:batch, :words].clone() for layer in self.replay()]


# ---- the work that is captured


def boundary_ids(model: Any) -> Tensor:
    """The ids of sentence begin and sentence end, (2[, characters])."""
    if hasattr(model.token_encoder, "boundary_ids"):
        return model.token_encoder.boundary_ids()
    return torch.tensor([model.config.bos_token_id, model.config.eos_token_id])


def read_sentences(
    encoder: Any, layers: Sequence[Any], ids: Tensor, mask: Tensor, boundaries: Tensor
) -> list[Tensor]:
    """As `ElmoModel.forward` with all layers, without waiting for what a tensor holds."""
    batch, time = mask.shape
    vectors = encode(encoder, torch.cat([boundaries, ids.flatten(0, 1)]))
    words = vectors[2:].unflatten(0, (batch, time)).masked_fill(~mask[:, :, None], 0)
    first = vectors[:2, None, None].expand(-1, batch, -1, -1)
    x = torch.cat([first, torch.stack([words, words.flip(1)]), first.flip(0)], dim=2)
    mask = F.pad(torch.stack([mask, mask.flip(1)]), (1, 1), value=True)
    results = [to_words(x)]
    for layer in layers:
        x = read_layer(layer, x, mask)
        results.append(to_words(x))
    return results


def encode(encoder: Any, ids: Tensor) -> Tensor:
    if hasattr(encoder, "char_embedding"):
        return encode_by_products(encoder, ids.long(), is_cut=True)
    return encoder(ids.long())


def read_layer(layer: Any, x: Tensor, mask: Tensor) -> Tensor:
    """x (2, batch, time, input_size), mask (2, batch, time) -> (2, batch, time, output_dim)"""
    tensors = (layer.input_weight, layer.recurrent_weight, layer.bias, layer.projection)
    weights = LstmWeights._make(None if weight is None else weight.detach() for weight in tensors)
    config = layer.config
    clips = (config.cell_clip, None if weights.projection is None else config.proj_clip)
    cell_dtype = torch.promote_types(x.dtype, torch.float32)
    h = x.new_zeros(2, x.shape[1], config.output_dim)
    c = x.new_zeros(2, x.shape[1], config.lstm_dim, dtype=cell_dtype)
    outputs, _, _ = graphs.read_layer(x, mask, h, c, weights, clips)
    return outputs + x if layer.adds_input else outputs


def to_words(x: Tensor) -> Tensor:
    """(2, batch, time, dim) -> (batch, words, 2 * dim), without the boundaries"""
    return torch.cat([x[0], x[1].flip(1)], dim=-1)[:, 1:-1]
