"""A model's vectors for the probes: all layers of many sentences, a piece at a time.

reader = load_reader("my-elmo")
control = random_twin(reader, seed=0)        # the same shape with fresh random weights
for piece in reader.pieces(sentences, "SemCor"):
    piece.vectors                            # (layers, words, dim) of sentences[piece.first : piece.end]
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
from elmo_hf.loading import load

BATCH_WORDS, CACHE_WORDS = 4096, 50_000
PIECE_NUMBERS = 50_000_000  # of float32 that are held at a time: 200 MB


@dataclass
class Piece:
    """Sentences first to end (which is not among them), and their words' vectors (layers, words, dim)."""

    first: int
    end: int
    vectors: np.ndarray


class Reader:
    def __init__(self, name: str, model: ElmoModel, tokenizer: ElmoTokenizer) -> None:
        config = model.config
        if config.projection_dim != config.output_dim:
            raise ValueError(
                f"the probes need layers of one width, but layer 0 of this model has "
                f"{2 * config.projection_dim} numbers and the others have {config.hidden_size}."
            )
        self.name, self.model, self.tokenizer = name, model.eval(), tokenizer
        self.layers, self.dim = config.num_hidden_layers + 1, config.hidden_size
        options = Options("safetensors", None, "float32", True, BATCH_WORDS, CACHE_WORDS, 1)
        self.embedder = Embedder(model, tokenizer, parse_layers("all", config), options)

    def pieces(self, sentences: list[list[str]], label: str) -> Iterator[Piece]:
        most = max(1, PIECE_NUMBERS // (self.layers * self.dim))
        lengths = [len(words) for words in sentences]
        with (
            torch.inference_mode(),
            tqdm(
                total=sum(lengths), unit=" words", unit_scale=True, desc=self._title(label), disable=None
            ) as bar,
        ):
            for first, end in cuts(lengths, most):
                vectors = self.embedder(sentences[first:end], bar.update)
                if not np.isfinite(vectors).all():
                    raise ValueError(
                        "the model's vectors are not finite, so nothing can be measured by them."
                    )
                yield Piece(first, end, vectors)

    def vectors(self, sentences: list[list[str]], label: str) -> np.ndarray:
        """(layers, words, dim)"""
        found = np.empty((self.layers, sum(map(len, sentences)), self.dim), dtype=np.float32)
        start = 0
        for piece in self.pieces(sentences, label):
            words = piece.vectors.shape[1]
            found[:, start : start + words] = piece.vectors
            start += words
        return found

    def _title(self, label: str) -> str:
        return f"{label}, {self.name}"

    def describe(self) -> dict[str, Any]:
        config = self.model.config
        names = ("token_encoder", "lstm_dim", "projection_dim", "num_hidden_layers", "num_highway_layers")
        found = {name: getattr(config, name) for name in (*names, "char_filters")}
        return {**found, "fingerprint": fingerprint(self.model, self.tokenizer)}


def cuts(lengths: list[int], most: int) -> Iterator[tuple[int, int]]:
    """Runs of sentences with at most so many words, or of one longer sentence."""
    first = words = 0
    for number, length in enumerate(lengths):
        if words and words + length > most:
            yield first, number
            first, words = number, 0
        words += length
    if first < len(lengths):
        yield first, len(lengths)


def load_reader(folder: str | Path) -> Reader:
    model, tokenizer = load(folder, ElmoModel)
    device: Any = "cuda" if torch.cuda.is_available() else "cpu"
    return Reader("trained", model.to(device), tokenizer)


def random_twin(reader: Reader, seed: int) -> Reader:
    """The same configuration and words, but weights as before training."""
    torch.manual_seed(seed)
    model = ElmoModel(reader.model.config)
    device: Any = reader.model.device
    return Reader("random weights", model.to(device), reader.tokenizer)


# ---- arithmetic that several probes share


def starts_of(sentences: list[list[str]]) -> np.ndarray:
    """Where each sentence begins in the row of all words, and where the last one ends."""
    return np.concatenate([[0], np.cumsum([len(words) for words in sentences], dtype=np.int64)])


def span_means(vectors: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """(layers, words, dim) -> (layers, spans, dim): the mean over a span's words, of which most have one."""
    means = vectors[:, starts]
    for number in np.flatnonzero(ends - starts > 1):
        means[:, number] = vectors[:, starts[number] : ends[number]].mean(axis=1)
    return means


def unit(vectors: np.ndarray) -> np.ndarray:
    """Of length 1 along the last axis; zero stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)
