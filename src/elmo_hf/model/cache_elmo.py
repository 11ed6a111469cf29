"""A store for the layers of a frozen biLM, which gives the same ones for a sentence in every epoch.

See `ElmoLayerCache`. With the original model, a stored word takes 12 kB.
"""

import hashlib
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .modeling_elmo import ElmoModel

try:  # notices what changes a model's vectors
    from elmo_hf import kernels

    fingerprint = kernels.fingerprint
except (ImportError, AttributeError):  # a copy of this file, where the package is missing or older
    fingerprint = None  # type: ignore[assignment]


class ElmoLayerCache:
    """Stores what a frozen biLM computes, so that it reads each different sentence once in a run.

    >>> model = ElmoForTokenClassification.from_pretrained(TINY).eval()  # or any other task model
    >>> model.elmo_cache = ElmoLayerCache()
    >>> for _ in range(3):
    ...     output = model(**batch)
    >>> model.elmo_cache.encoded, model.elmo_cache.reused
    (2, 4)

    The layers are those that the biLM computed when the sentence first
    came, bit by bit. (Without a cache, the last bits may depend on the other sentences of the batch.) The
    cache starts over when the biLM's weights or settings change, and stores nothing as long as anything else
    can enter, such as a hook or an adapter. The attributes `encoded` and `reused` count sentences.

    Args:
        folder: where to store the layers; None for memory.

    Raises:
        ValueError: if there is no such folder, or the package is not installed, which notices changes.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        if fingerprint is None:
            raise ValueError("ElmoLayerCache needs the package elmo_hf: pip install elmo-hf.")
        self._folder = folder
        self._file: Any = None
        if folder is not None and not Path(folder).is_dir():
            raise ValueError(f"{folder} is no folder for the cache's file.")
        if folder is not None:  # a file without a name, so that nothing is left however the process ends
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
            weakref.finalize(self, self._file.close)
        self._entries: dict[bytes, Any] = {}  # a tensor, or its place in the file
        self._state: Any = None  # of the biLM that computed the entries
        self.encoded = self.reused = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return ElmoLayerCache, (self._folder,)  # a copy, here or in another process, starts empty

    def __call__(
        self,
        elmo: "ElmoModel",
        input_ids: Tensor | None,
        char_ids: Tensor | None,
        mask: Tensor,
        all_layers: bool,
    ) -> tuple[Tensor, ...]:
        """All layers, or the top layer alone, each (batch, words, dim), zero at padding.

        The ids have been checked; mask (batch, words) is True for a word.
        """
        ids = char_ids if elmo.config.token_encoder == "characters" else input_ids
        assert ids is not None  # checked by the caller
        state = None if _learns(elmo) else fingerprint(elmo)
        if state is None:
            self.encoded += len(ids)
            return self._read(elmo, ids, mask, all_layers)
        if state != self._state:
            self._start_over(state)
        keys = self._keys(ids, mask, f"{all_layers} ")
        new_rows = {key: row for row, key in enumerate(keys) if key not in self._entries}
        if new_rows:
            rows = list(new_rows.values())
            self._encode(elmo, list(new_rows), ids[rows], mask[rows], all_layers)
        self.encoded += len(new_rows)
        self.reused += len(keys) - len(new_rows)
        return self._collect(elmo, keys, mask, all_layers)

    def _start_over(self, state: Any) -> None:
        self._state = state
        self._entries.clear()
        if self._file is not None:
            self._file.truncate(0)

    def _keys(self, ids: Tensor, mask: Tensor, settings: str) -> list[bytes]:
        """A key for each sentence, made of its words; it does not depend on padding."""
        rows = zip(ids.cpu(), mask.cpu(), strict=True)
        contents = (settings.encode() + row[is_word].numpy().tobytes() for row, is_word in rows)
        return [hashlib.blake2b(content, digest_size=16).digest() for content in contents]

    def _read(self, elmo: "ElmoModel", ids: Tensor, mask: Tensor, all_layers: bool) -> tuple[Tensor, ...]:
        words = elmo.word_vectors(ids, ids)
        output = elmo(
            inputs_embeds=words, attention_mask=mask, output_hidden_states=all_layers, return_dict=True
        )
        return output.hidden_states if all_layers else (output.last_hidden_state,)

    @torch.no_grad()
    def _encode(
        self, elmo: "ElmoModel", keys: list[bytes], ids: Tensor, mask: Tensor, all_layers: bool
    ) -> None:
        layers = self._read(elmo, ids, mask, all_layers)
        rows = torch.cat(layers, dim=-1).to(elmo.dtype).cpu()
        for key, row, is_word in zip(keys, rows, mask.cpu(), strict=True):
            self._entries[key] = self._store(row[is_word])

    def _collect(
        self, elmo: "ElmoModel", keys: list[bytes], mask: Tensor, all_layers: bool
    ) -> tuple[Tensor, ...]:
        config = elmo.config
        sizes = [config.hidden_size] * config.num_hidden_layers
        sizes = [2 * config.projection_dim, *sizes] if all_layers else sizes[-1:]
        layers = torch.zeros(*mask.shape, sum(sizes), dtype=elmo.dtype)
        for row, is_word, key in zip(layers, mask.cpu(), keys, strict=True):
            row[is_word] = self._load(self._entries[key], sum(sizes), elmo.dtype)
        return layers.to(mask.device).split(sizes, dim=-1)

    def _store(self, words: Tensor) -> Any:
        if self._file is None:
            return words
        content = words.contiguous().view(torch.uint8).numpy().tobytes()
        start = self._file.seek(0, 2)
        self._file.write(content)
        return start, len(content)

    def _load(self, entry: Any, size: int, dtype: torch.dtype) -> Tensor:
        if self._file is None:
            return entry
        start, length = entry
        self._file.seek(start)
        if length == 0:
            return torch.empty(0, size, dtype=dtype)
        return torch.frombuffer(bytearray(self._file.read(length)), dtype=dtype).view(-1, size)


def _learns(elmo: "ElmoModel") -> bool:
    """Whether a gradient is wanted for something in the biLM, such as an adapter."""
    return torch.is_grad_enabled() and any(parameter.requires_grad for parameter in elmo.parameters())
