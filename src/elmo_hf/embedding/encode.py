"""Sentences in, vectors out, in memory::

    vectors = encode(["He sat on the bank.", "Why?"])                      # a list of arrays (words, dim)
    vectors = encode(["He sat on the bank.", "Why?"], pool="mean")         # one array (sentences, dim)
    vectors = encode("He sat on the bank.", "my-elmo", layers="average")   # (words, dim)

The numbers are those that `embed` writes for the same sentences.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers.utils import cached_file

from elmo_hf.corpus.sentences import Record, grouped, word_count
from elmo_hf.corpus.source import open_records
from elmo_hf.embedding.embedder import Embedder, Options, parse_layers
from elmo_hf.embedding.models import default_device, load_elmo, requested_device
from elmo_hf.embedding.shards import Embedded, Header, Shard
from elmo_hf.errors import ElmoError
from elmo_hf.loading import evaluating, load, load_model
from elmo_hf.model.modeling_elmo import ElmoModel, ElmoPreTrainedModel
from elmo_hf.model.tokenization_elmo import ElmoTokenizer

TINY = Path(__file__).parents[1] / "checkpoints" / "elmo-tiny"  # `elmo_hf.TINY`
SECONDS_WITHOUT_BAR = 3


def encode(
    sentences: str | Iterable[Any],
    model: str | Path | ElmoPreTrainedModel = TINY,
    *,
    tokenizer: ElmoTokenizer | None = None,
    layers: str | int | Sequence[int] = "top",
    pool: str | None = None,
    dtype: str = "float32",
    column: str | None = None,
    whitespace: bool = False,
    batch_words: int = 4096,
    cache_words: int = 50_000,
    device: str | None = None,
    progress: bool = True,
) -> np.ndarray | list[np.ndarray]:
    """The vectors of sentences, in memory.

    >>> [array.shape for array in encode(["He sat on the bank.", "Why?"])]  # (words, dim)
    [(6, 256), (2, 256)]
    >>> encode(["He sat on the bank.", "Why?"], pool="mean").shape  # (sentences, dim)
    (2, 256)

    The numbers are those that `embed` writes; for a corpus that does not fit into memory, use that. A model
    that is named is loaded once for calls in a row, until its files change; to keep several models, or to
    free the memory, load a model yourself and pass it with its tokenizer.

    Args:
        sentences: texts, lists of words, or a column of a data set; or one text, which gives one result.
            `["He", "sat"]` is two texts; the words of one sentence are `[["He", "sat"]]`.
        model: an ELMo, its folder, or its name on the Hub. Default: elmo-tiny, which comes with the package.
        tokenizer: the rule that splits text, and the words of a model with a word table. Default: the one in
            the model's folder.
        layers: "top", "average", "all", "mix" (the trained mix that the model stores), or numbers from the
            bottom up, such as 0 or "0,2".
        pool: "mean" or "max" over a sentence's words; an empty sentence's vector is then zero. Default: a
            vector for each word.
        dtype: "float32" or "float16".
        column: the column of the text, or of the lists of words, if the sentences are rows of a table.
        whitespace: split text at whitespace only, whatever the tokenizer's own rule is.
        batch_words: words of a batch, padding included.
        cache_words: words whose encodings are kept for the next batches (0: none).
        device: such as "cpu" or "cuda", to which the model is moved. Default: that of the model, or a GPU if
            there is one.
        progress: show words a second and the time left, if it takes more than some seconds.

    Returns:
        A list with an array (words, dim) for each sentence, (layers, words, dim) where several layers were
        asked for. With pooling, one array (sentences, dim), or (sentences, layers, dim). Of one text, its
        array alone.

    Raises:
        ElmoError: an argument, a sentence or the model cannot be used.
    """
    options = Options(
        pool=pool, dtype=dtype, whitespace=whitespace, batch_words=batch_words, cache_words=cache_words
    )
    is_single = isinstance(sentences, str)
    records = _records([sentences] if is_single else sentences, column)
    target = requested_device(device) or default_device(model)
    elmo, tokenizer = _load(model, tokenizer)
    torch.nn.Module.to(elmo, target)
    embedder = Embedder(elmo, tokenizer, parse_layers(layers, elmo.config), options)
    with _bar(records, progress) as bar:
        vectors = [embedded.vectors for embedded in encoded(embedder, records, bar.update)]
    if is_single:
        return vectors[0]
    return vectors if pool is None else _stacked(vectors, embedder)


def encoded(
    embedder: Embedder, records: Iterable[Record], progress: Callable[[float], Any] = lambda words: None
) -> Iterator[Embedded]:
    """Each record's words and vectors, read in the groups that are the shards of `embed`."""
    for group in grouped(records, embedder.options.shard_words):
        sentences = [embedder.split(record) for record in group]
        words = sum(map(len, sentences))
        scale = sum(map(word_count, group)) / max(words, 1)
        with torch.inference_mode(), evaluating(embedder.model):
            vectors = embedder(sentences, _scaled(progress, scale))
        shard = Shard(Header(0, len(sentences), words, ""), sentences, vectors)
        yield from shard.sentences(embedder.options.pool is not None)


def _scaled(progress: Callable[[float], Any], scale: float) -> Callable[[int], Any]:
    """The bar's total is counted at whitespace."""
    return lambda words: progress(words * scale)


def _records(sentences: Any, column: str | None) -> list[Record]:
    if isinstance(sentences, Path | bytes):
        raise ElmoError(
            f"encode takes sentences, but got {sentences!r:.80}; embed and read_vectors take files."
        )
    if not isinstance(sentences, Iterable):
        raise ElmoError(f"encode takes sentences, but got {type(sentences).__name__}.")
    if isinstance(sentences, Iterator):
        sentences = list(sentences)
    if isinstance(sentences, Sized) and not isinstance(sentences, Mapping) and len(sentences) == 0:
        return []
    return list(open_records(sentences, column=column).records())


def _stacked(vectors: list[np.ndarray], embedder: Embedder) -> np.ndarray:
    if vectors:
        return np.stack(vectors)
    columns = len(embedder.layers.columns)
    return np.zeros((0, *([columns] if columns > 1 else []), embedder.width), dtype=embedder.options.dtype)


def _bar(records: list[Record], progress: bool) -> Any:
    words = sum(map(word_count, records))
    return tqdm(total=words, unit=" words", unit_scale=True, delay=SECONDS_WITHOUT_BAR, disable=not progress)


# ---- the model of the last call


def _load(
    model: str | Path | ElmoPreTrainedModel, tokenizer: ElmoTokenizer | None
) -> tuple[ElmoModel, ElmoTokenizer]:
    if not isinstance(model, str | Path):
        return load_elmo(model, tokenizer, "encode")
    with _lock:
        elmo, own_tokenizer = _load_once(str(model), _files_of(model), tokenizer is None)
    return elmo, tokenizer or own_tokenizer  # type: ignore[return-value]


_lock = Lock()


@lru_cache(maxsize=1)
def _load_once(name: str, _: Any, has_tokenizer: bool) -> tuple[ElmoModel, ElmoTokenizer | None]:
    """The model that was named last. Only `encode` has it, so that nobody changes its weights."""
    return load(name, ElmoModel) if has_tokenizer else (load_model(name, ElmoModel)[0], None)


def _files_of(name: str | Path) -> tuple[Any, ...]:
    """What differs if a folder was written again, or a name on the Hub stands for another commit."""
    folder = Path(name)
    if not folder.is_dir():
        with suppress(Exception):  # loading says what is wrong
            folder = Path(cached_file(str(name), "config.json") or "").parent
    if not folder.is_dir():
        return ()
    states = ((path, path.stat()) for path in sorted(folder.iterdir()) if path.is_file())
    return tuple((str(path), state.st_ino, state.st_size, state.st_mtime_ns) for path, state in states)
