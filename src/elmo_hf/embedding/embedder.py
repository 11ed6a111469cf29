"""Sentences to vectors: like lengths share a batch, a word is encoded once, layers are chosen.

embedder = Embedder(model, tokenizer, parse_layers("average", model.config), options)
embedder([["Ice", "cream"], ["Why", "?"]], progress)    # (words of both, dim)
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elmo_hf.corpus.sentences import Record, batches
from elmo_hf.embedding.shards import FORMATS
from elmo_hf.errors import ElmoError
from elmo_hf.model.configuration_elmo import ElmoConfig
from elmo_hf.model.modeling_elmo import ElmoModel
from elmo_hf.model.tokenization_elmo import ElmoTokenizer

POOLS = (None, "mean", "max")
DTYPES = ("float32", "float16")
ENCODED_AT_ONCE = 256  # words; the convolutions over characters take some 200 kB for each


@dataclass(frozen=True)
class Options:
    """The arguments of `embed` that go into `plan.json` as they are, checked."""

    format: str = "safetensors"
    pool: str | None = None
    dtype: str = "float32"
    whitespace: bool = False
    batch_words: int = 4096
    cache_words: int = 50_000
    shard_words: int = 32_768

    def __post_init__(self) -> None:
        for name, allowed in (("format", FORMATS), ("pool", POOLS), ("dtype", DTYPES)):
            if getattr(self, name) not in allowed:
                names = ", ".join(map(str, allowed))
                raise ElmoError(f"{name} must be one of {names}, but is {getattr(self, name)!r}.")
        for name, minimum in (("batch_words", 1), ("cache_words", 0), ("shard_words", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
                raise ElmoError(f"{name} must be a whole number of at least {minimum}, but is {value!r}.")


@dataclass
class Layers:
    """The layers that are written, averaged or mixed. `name` stands for them in `plan.json`."""

    numbers: list[int]  # 0 is the word encoder's
    name: str
    is_average: bool = False
    num_mixes: int = 0  # of the checkpoint's trained mixes, if they are written

    @property
    def columns(self) -> list[str]:
        """The names of the vectors that a word gets."""
        if self.num_mixes > 1:
            return [f"mix_{number}" for number in range(self.num_mixes)]
        if self.is_average or self.num_mixes or len(self.numbers) == 1:
            return ["vector"]
        return [f"layer_{number}" for number in self.numbers]


def parse_layers(layers: str | int | Sequence[int], config: ElmoConfig) -> Layers:
    """The layers that "top", "average", "all", "mix" (the trained mixes of the checkpoint) or numbers from
    the bottom up (0, "0,2", [0, 2]) stand for."""
    top = config.num_hidden_layers
    all_layers = list(range(top + 1))
    if layers == "top":
        return Layers([top], "top")
    if layers in ("average", "all"):
        chosen = Layers(all_layers, str(layers), layers == "average")
    elif layers == "mix":
        if not config.num_mixes:
            raise ElmoError(
                "layers is mix, but this model stores no trained mix of its layers; ask for top, average, "
                "all or numbers."
            )
        chosen = Layers(all_layers, "mix", num_mixes=config.num_mixes)
    else:
        text = ",".join(map(str, layers)) if isinstance(layers, list | tuple) else str(layers)
        items = [item.strip() for item in text.split(",")]
        numbers = [int(item) for item in items if re.fullmatch(r"\d+", item, re.ASCII)]
        if len(numbers) < len(items) or len(set(numbers)) < len(items) or not set(numbers) <= set(all_layers):
            raise ElmoError(
                f"layers must be top, average, all, mix or different numbers from 0 to {top} of this model's "
                f"{top + 1} layers, such as 0,{top}, but is {text!r}."
            )
        chosen = Layers(numbers, ",".join(map(str, numbers)))
    if 0 in chosen.numbers and len(chosen.numbers) > 1 and config.projection_dim != config.output_dim:
        raise ElmoError(
            f"layer 0 of this model has {2 * config.projection_dim} numbers and the others have "
            f"{config.hidden_size}, so they cannot be together; ask for one, or for others."
        )
    return chosen


class WordCache:
    """Distinct words to their encodings (words, dim); those of the `size` words used last are kept.

    Args:
        encode: words -> (words, dim)
        size: words that are kept; 0 keeps none.
    """

    def __init__(self, encode: Callable[[list[str]], Tensor], size: int) -> None:
        self.encode, self.size = encode, size
        self.slots: OrderedDict[str, int] = OrderedDict()  # rows of the table; the word used last is last
        self.table: Tensor | None = None

    def __call__(self, words: list[str]) -> Tensor:
        new = [word for word in words if word not in self.slots]
        known = [word for word in words if word in self.slots]
        if self.table is None or not known:
            encoded = self.encode(new)
            self._keep([], new, encoded)
            return encoded
        vectors = self.table.new_empty(len(words), self.table.shape[1])
        is_new = torch.tensor([word not in self.slots for word in words], device=vectors.device)
        vectors[~is_new] = self.table[[self.slots[word] for word in known]]
        encoded = self.encode(new) if new else vectors[:0]
        vectors[is_new] = encoded
        self._keep(known, new, encoded)
        return vectors

    def _keep(self, known: list[str], new: list[str], encoded: Tensor) -> None:
        if not self.size:
            return
        if self.table is None:
            self.table = encoded.new_empty(self.size, encoded.shape[1])
        for word in known:
            self.slots.move_to_end(word)
        new, encoded = new[-self.size :], encoded[-self.size :]
        for word in new:
            is_full = len(self.slots) == self.size
            self.slots[word] = self.slots.popitem(last=False)[1] if is_full else len(self.slots)
        self.table[[self.slots[word] for word in new]] = encoded


class Embedder:
    """The vectors of many sentences by batches of like length."""

    def __init__(self, model: ElmoModel, tokenizer: ElmoTokenizer, layers: Layers, options: Options) -> None:
        self.model, self.tokenizer, self.layers, self.options = model, tokenizer, layers, options
        config = model.config
        self.reads_characters = config.token_encoder == "characters"
        self.width = 2 * config.projection_dim if layers.numbers == [0] else config.hidden_size
        self.cache = WordCache(self._encode, options.cache_words)

    def split(self, record: Record) -> list[str]:
        """The words of a record, by the tokenizer's rule or at whitespace."""
        if isinstance(record, list):
            return record
        return record.split() if self.options.whitespace else self.tokenizer.tokenize(record)

    def __call__(self, sentences: list[list[str]], progress: Callable[[int], Any]) -> np.ndarray:
        """The vectors of all words, or of all sentences if pooled, in their order: ([layers,] rows, dim).

        `progress` is called with the number of words of each batch.
        """
        self.cache.slots.clear()  # a batched product's last bit may depend on what is encoded with what
        lengths = [len(words) for words in sentences]
        starts = list(accumulate((1 if self.options.pool else length for length in lengths), initial=0))
        vectors = np.zeros((len(self.layers.columns), starts[-1], self.width), dtype=self.options.dtype)
        for batch in batches(lengths, self.options.batch_words):
            batch_vectors = self._read([sentences[number] for number in batch]).float().cpu().numpy()
            for row, number in enumerate(batch):
                target = slice(starts[number], starts[number + 1])
                vectors[:, target] = batch_vectors[:, row, : target.stop - target.start]
            progress(sum(lengths[number] for number in batch))
        return vectors if len(vectors) > 1 else vectors[0]

    def _read(self, sentences: list[list[str]]) -> Tensor:
        """Vectors (layers, batch, words, dim); if pooled, (layers, batch, 1, dim)."""
        lengths = torch.tensor([len(words) for words in sentences], device=self.model.device)
        mask = torch.arange(int(lengths.max()), device=self.model.device) < lengths[:, None]
        needs_all = self.layers.numbers != [self.model.config.num_hidden_layers]
        output = self.model(
            **self._inputs(sentences, mask),
            attention_mask=mask,
            output_hidden_states=needs_all,
            return_dict=True,
        )
        hidden = output.hidden_states if needs_all else {self.layers.numbers[0]: output.last_hidden_state}
        layers = self._combined([hidden[number] for number in self.layers.numbers], mask)
        if self.options.pool is None:
            return layers
        padding = ~mask[:, :, None]
        if self.options.pool == "max":
            return layers.masked_fill(padding, -torch.inf).amax(dim=2, keepdim=True)
        return layers.masked_fill(padding, 0).sum(dim=2, keepdim=True) / lengths[:, None, None]

    def _combined(self, layers: list[Tensor], mask: Tensor) -> Tensor:
        """Layers (batch, words, dim) as they are, their average, or their trained mixes: (layers, ...)."""
        if self.layers.num_mixes:
            return self._mixes(layers, mask)
        stacked = torch.stack(layers)
        return stacked.mean(dim=0, keepdim=True) if self.layers.is_average else stacked

    def _mixes(self, layers: list[Tensor], mask: Tensor) -> Tensor:
        mix = self.model.scalar_mix
        assert mix is not None
        # Layer norm is over all words of a call, so that a call has one sentence: no vector of a sentence
        # may depend on the others of its batch.
        size = 1 if mix.layer_norm else len(mask)
        calls = zip(*(tensor.split(size) for tensor in [*layers, mask]), strict=True)
        mixed = [mix(rows, row_mask) for *rows, row_mask in calls]
        if self.layers.num_mixes == 1:
            return torch.cat(mixed)[None]
        return torch.stack([torch.cat(rows) for rows in zip(*mixed, strict=True)])

    def _inputs(self, sentences: list[list[str]], mask: Tensor) -> dict[str, Tensor]:
        words = [word for sentence in sentences for word in sentence]
        if not self.reads_characters:
            ids = torch.tensor(self.tokenizer.convert_tokens_to_ids(words), device=mask.device)
            input_ids = ids.new_full(mask.shape, self.model.config.pad_token_id or 0)
            input_ids[mask] = ids
            return {"input_ids": input_ids}
        index_of = {word: index for index, word in enumerate(dict.fromkeys(words))}
        encoded = self.cache(list(index_of))
        indices = torch.zeros(mask.shape, dtype=torch.long, device=mask.device)
        indices[mask] = torch.tensor([index_of[word] for word in words], device=mask.device)
        return {"inputs_embeds": encoded[indices]}

    def _encode(self, words: list[str]) -> Tensor:
        """Distinct words, from their characters: (words, projection_dim)."""
        length = self.model.config.max_characters_per_token
        ids = torch.from_numpy(self.tokenizer.char_rows(words, length))
        chunks = ids.to(self.model.device).split(ENCODED_AT_ONCE)
        return torch.cat([self.model.token_encoder(chunk) for chunk in chunks])
