"""A frozen biLM gives the same layers for a sentence in every epoch: encode it once a run.

    model.elmo_cache = ElmoLayerCache()              # in memory
    model.elmo_cache = ElmoLayerCache("scratch/")    # in a file there, which is gone when the process ends

What comes back is what the biLM gave for the sentence when it first came, to the bit. (Without a cache, the
last bits may depend on the other sentences of the batch.) The cache starts over when the biLM's weights
change. For each word of each different sentence it holds all layers' numbers: 12 kB for the original model.
"""

import hashlib
import tempfile
import weakref
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .modeling_elmo import ElmoModel, kernels


class ElmoLayerCache:
    """Keeps what a frozen biLM gives for a sentence, so that it reads each different one once a run::

        model.elmo_cache = ElmoLayerCache()            # in memory
        model.elmo_cache = ElmoLayerCache("scratch/")  # in a file there, which is gone when the process ends

    `model` is any of the task models. The cache starts over when the biLM's weights change; its attributes
    `encoded` and `reused` count sentences.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self._folder = folder
        self._file: Any = None
        if folder is not None and not Path(folder).is_dir():
            raise ValueError(f"{folder} is no folder for the cache's file.")
        if folder is not None:  # a file without a name, so that nothing is left however the process ends
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
            weakref.finalize(self, self._file.close)
        self._kept: dict[bytes, Any] = {}  # a tensor, or its place in the file
        self._states: list[tuple[Any, ...]] = []
        self._weights = b""
        self.encoded = self.reused = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return ElmoLayerCache, (self._folder,)  # a copy, here or in another process, begins empty

    def __call__(
        self,
        elmo: ElmoModel,
        input_ids: Tensor | None,
        char_ids: Tensor | None,
        mask: Tensor,
        all_layers: bool,
    ) -> tuple[Tensor, ...]:
        """The layers, each (batch, words, dim), or the top one alone; zero at padding."""
        self._start_over_if_changed(elmo)
        ids = char_ids if elmo.config.token_encoder == "characters" else input_ids
        assert ids is not None  # checked by whoever made the mask
        keys = self._keys(ids, mask, f"{all_layers} {elmo.config.use_warm_state} ")
        rows = {key: row for row, key in enumerate(keys) if key not in self._kept}
        if rows:
            self._encode(elmo, list(rows), ids[list(rows.values())], mask[list(rows.values())], all_layers)
        self.encoded += len(rows)
        self.reused += len(keys) - len(rows)
        return self._collect(elmo, keys, mask, all_layers)

    def _start_over_if_changed(self, elmo: ElmoModel) -> None:
        tensors = [*elmo.parameters(), *elmo.buffers()]
        states = [kernels.state_of(one) for one in tensors] if kernels else []
        if states and states == self._states:
            return
        self._states = states
        weights = _fingerprint(tensors)  # as they may have been loaded again, which changes no number
        if weights != self._weights:
            self._weights = weights
            self._kept.clear()
            if self._file is not None:
                self._file.truncate(0)

    def _keys(self, ids: Tensor, mask: Tensor, settings: str) -> list[bytes]:
        """A sentence is known by its words, wherever padding stands."""
        rows = zip(ids.cpu(), mask.cpu(), strict=True)
        contents = (settings.encode() + row[is_word].numpy().tobytes() for row, is_word in rows)
        return [hashlib.blake2b(content, digest_size=16).digest() for content in contents]

    @torch.no_grad()
    def _encode(
        self, elmo: ElmoModel, keys: list[bytes], ids: Tensor, mask: Tensor, all_layers: bool
    ) -> None:
        name = "char_ids" if elmo.config.token_encoder == "characters" else "input_ids"
        output = elmo(**{name: ids}, attention_mask=mask, output_hidden_states=all_layers, return_dict=True)
        layers = output.hidden_states if all_layers else (output.last_hidden_state,)
        rows = torch.cat(layers, dim=-1).to(elmo.dtype).cpu()
        for key, row, is_word in zip(keys, rows, mask.cpu(), strict=True):
            self._kept[key] = self._put(row[is_word])

    def _collect(
        self, elmo: ElmoModel, keys: list[bytes], mask: Tensor, all_layers: bool
    ) -> tuple[Tensor, ...]:
        config = elmo.config
        sizes = [config.hidden_size] * config.num_hidden_layers
        sizes = [2 * config.projection_dim, *sizes] if all_layers else sizes[-1:]
        layers = torch.zeros(*mask.shape, sum(sizes), dtype=elmo.dtype)
        for row, is_word, key in zip(layers, mask.cpu(), keys, strict=True):
            row[is_word] = self._get(self._kept[key], sum(sizes), elmo.dtype)
        return layers.to(mask.device).split(sizes, dim=-1)

    def _put(self, words: Tensor) -> Any:
        if self._file is None:
            return words
        content = words.contiguous().view(torch.uint8).numpy().tobytes()
        start = self._file.seek(0, 2)
        self._file.write(content)
        return start, len(content)

    def _get(self, kept: Any, size: int, dtype: torch.dtype) -> Tensor:
        if self._file is None:
            return kept
        start, length = kept
        self._file.seek(start)
        if length == 0:
            return torch.empty(0, size, dtype=dtype)
        return torch.frombuffer(bytearray(self._file.read(length)), dtype=dtype).view(-1, size)


def _fingerprint(tensors: list[Tensor]) -> bytes:
    found = hashlib.blake2b()
    for one in tensors:
        found.update(f"{one.dtype} {tuple(one.shape)} ".encode())
        found.update(one.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.digest()
