"""A model's vectors for the probes: all layers of many sentences, a chunk at a time.

reader = load_reader("my-elmo")
control = random_reader(reader, seed=0)      # the same shape with random weights
for chunk in reader.chunks(sentences, "SemCor"):
    chunk.vectors                            # (layers, words, dim) of sentences[chunk.first : chunk.end]
reader.vectors(sentences, "dev")             # of all of them at once
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from elmo_hf import ElmoModel, ElmoTokenizer
from elmo_hf.embedding.embedder import Embedder, Options, parse_layers
from elmo_hf.embedding.job import fingerprint
from elmo_hf.errors import ElmoError
from elmo_hf.loading import load

BATCH_WORDS, CACHE_WORDS = 4096, 50_000
CHUNK_VALUES = 50_000_000  # float32 values that are held at a time: 200 MB


@dataclass
class Chunk:
    """The sentences from `first` up to `end`, and their words' vectors (layers, words, dim)."""

    first: int
    end: int
    vectors: np.ndarray


class Reader:
    def __init__(self, name: str, model: ElmoModel, tokenizer: ElmoTokenizer) -> None:
        config = model.config
        if config.projection_dim != config.output_dim:
            raise ElmoError(
                f"the probes need layers of one width, but layer 0 of this model has "
                f"{2 * config.projection_dim} numbers and the others have {config.hidden_size}."
            )
        self.name, self.model, self.tokenizer = name, model.eval(), tokenizer
        self.layers, self.dim = config.num_hidden_layers + 1, config.hidden_size
        options = Options("safetensors", None, "float32", True, BATCH_WORDS, CACHE_WORDS, 1)
        self.embedder = Embedder(model, tokenizer, parse_layers("all", config), options)

    def chunks(self, sentences: list[list[str]], label: str) -> Iterator[Chunk]:
        max_words = max(1, CHUNK_VALUES // (self.layers * self.dim))
        lengths, title = [len(words) for words in sentences], f"{label}, {self.name}"
        with (
            torch.inference_mode(),
            tqdm(total=sum(lengths), unit=" words", unit_scale=True, desc=title, disable=None) as bar,
        ):
            for first, end in split_lengths(lengths, max_words):
                vectors = self.embedder(sentences[first:end], bar.update)
                if not np.isfinite(vectors).all():
                    raise ElmoError("the model's vectors are not finite; the probes need a trained model.")
                yield Chunk(first, end, vectors)

    def vectors(self, sentences: list[list[str]], label: str) -> np.ndarray:
        """(layers, words, dim)"""
        vectors = np.empty((self.layers, sum(map(len, sentences)), self.dim), dtype=np.float32)
        start = 0
        for chunk in self.chunks(sentences, label):
            words = chunk.vectors.shape[1]
            vectors[:, start : start + words] = chunk.vectors
            start += words
        return vectors

    def describe(self) -> dict[str, Any]:
        config = self.model.config
        names = ("token_encoder", "lstm_dim", "projection_dim", "num_hidden_layers", "num_highway_layers")
        shape = {name: getattr(config, name) for name in (*names, "char_filters")}
        return {**shape, "fingerprint": fingerprint(self.model, self.tokenizer)}


def split_lengths(lengths: list[int], max_words: int) -> Iterator[tuple[int, int]]:
    """Ranges of sentences with at most `max_words` words together, or of a single longer sentence."""
    first = words = 0
    for number, length in enumerate(lengths):
        if words and words + length > max_words:
            yield first, number
            first, words = number, 0
        words += length
    if first < len(lengths):
        yield first, len(lengths)


def load_reader(folder: str | Path) -> Reader:
    model, tokenizer = load(folder, ElmoModel)
    device: Any = "cuda" if torch.cuda.is_available() else "cpu"
    return Reader("trained", model.to(device), tokenizer)


def random_reader(reader: Reader, seed: int) -> Reader:
    """The same configuration and tokenizer with random weights."""
    torch.manual_seed(seed)
    model = ElmoModel(reader.model.config)
    device: Any = reader.model.device
    return Reader("random weights", model.to(device), reader.tokenizer)


# ---- arithmetic that several probes share


def starts_of(sentences: list[list[str]]) -> np.ndarray:
    """The first word of each sentence in the sequence of all words, and the end of the last one."""
    return np.concatenate([[0], np.cumsum([len(words) for words in sentences], dtype=np.int64)])


def span_means(vectors: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """(layers, words, dim) -> (layers, spans, dim): the mean over a span's words, of which most have one."""
    means = vectors[:, starts]
    for number in np.flatnonzero(ends - starts > 1):
        means[:, number] = vectors[:, starts[number] : ends[number]].mean(axis=1)
    return means


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors to length 1 along the last axis; a zero vector stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)
