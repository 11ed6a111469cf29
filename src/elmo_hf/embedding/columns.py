"""Vectors beside the other columns of a table, for programs that pass tables in batches through a function.

    embed = elmo_hf.Embed("my-elmo", pool="mean", column="text", output="vectors")
    embed({"text": ["He sat on the bank.", None], "id": [1, 2]})   # the same with "vectors"
    texts.map_batches(embed, batch_format="pyarrow")               # Ray Data
    texts.map(embed, batched=True)                                 # datasets
    texts.mapInArrow(embed, "id long, text string, vectors array<float>")  # Spark

An object holds its settings alone, so that it travels to other processes; each loads the model once.
"""

import copy
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
import torch

from elmo_hf.corpus.sentences import Record
from elmo_hf.corpus.source import without_surrogates
from elmo_hf.embedding.embedder import Embedder, Options, parse_layers
from elmo_hf.embedding.encode import TINY, encoded
from elmo_hf.embedding.models import default_device, fingerprint, requested_device
from elmo_hf.errors import ElmoError, quoted
from elmo_hf.loading import load, load_config
from elmo_hf.model.modeling_elmo import ElmoModel
from elmo_hf.model.tokenization_elmo import ElmoTokenizer

METADATA = b"elmo_hf"  # key in the metadata of a schema


@dataclass(frozen=True)
class Embed:
    """A function of a batch of columns that adds a column of vectors. It can be pickled::

        >>> import elmo_hf
        >>> embed = elmo_hf.Embed(elmo_hf.TINY, layers="average", pool="mean")
        >>> batch = embed({"text": ["He sat on the bank.", ""], "id": [7, 8]})
        >>> batch["id"], batch["vectors"][0].shape, batch["vectors"][1]
        ([7, 8], (256,), None)

    A batch is a dictionary of lists or arrays, an Arrow table or record batch, or a pandas frame, and the
    result is the same with one column more; of an iterator of batches, an iterator. So the object is passed
    as it is to `map_batches` of Ray Data, `datasets.map(batched=True)`, and `mapInArrow` or `mapInPandas` of
    Spark. Rows and their order stay. A text that is empty or missing gets a missing value in place of a
    vector. The numbers are those of `elmo_hf.encode` for the texts of the batch.

    In Arrow, a vector has a fixed size: a sentence is FixedSizeList<float, dim>, and with several layers a
    fixed-size list of these; without pooling, a sentence is a list of such vectors, one a word. (In a task of
    Spark, which has no fixed sizes, all are lists.) The schema's metadata have, at "elmo_hf", JSON with the
    model, its revision and the settings by the name of the column.

    Args:
        model: an ELMo's folder, or its name on the Hub. Default: elmo-tiny, which comes with the package.
        layers: "top", "average", "all", "mix" (the trained mix that the model stores), or numbers from the
            bottom up, such as 0 or "0,2".
        pool: "mean" or "max" over a sentence's words, or None for a vector a word.
        column: the column of the text, or of lists of words. Default: "text" or "tokens".
        output: the name of the new column.
        dtype: "float32" or "float16".
        whitespace: split text at whitespace only, whatever the tokenizer's own rule is.
        batch_words: words that the model reads at once, padding included.
        cache_words: words whose encodings are kept within a batch (0: none).
        device: such as "cpu" or "cuda". Default: a GPU if there is one.
        threads: of a CPU, for the whole process. Default: 1 in a worker of `datasets.map(num_proc=...)` and
            the like, since there are others; elsewhere what torch was given, which Ray and Spark set.

    Raises:
        ElmoError: an argument, the model or a batch cannot be used.
    """

    model: str | Path = TINY
    layers: str | int | Sequence[int] = "top"
    pool: str | None = None
    column: str | None = None
    output: str = "vectors"
    dtype: str = "float32"
    whitespace: bool = False
    batch_words: int = 4096
    cache_words: int = 50_000
    device: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        self._options  # noqa: B018  # checks them
        if not isinstance(self.model, str | Path):
            raise ElmoError(
                "Embed needs a model's folder or name, which travels to other processes, but got "
                f"{type(self.model).__name__}; save it, and name the folder."
            )
        for name, value in (("output", self.output), ("column", self.column)):
            if not isinstance(value, str) and not (name == "column" and value is None):
                raise ElmoError(f"{name} must be the name of a column, but is {quoted(repr(value))}.")
        is_number = type(self.threads) is int and self.threads >= 1
        if self.threads is not None and not is_number:
            raise ElmoError(f"threads must be a whole number of at least 1, but is {self.threads!r}.")
        layers = tuple(self.layers) if isinstance(self.layers, list) else self.layers
        object.__setattr__(self, "layers", layers)
        folder = Path(self.model)
        if folder.is_dir():  # of which other processes know no relative path
            object.__setattr__(self, "model", str(folder.resolve()))
            parse_layers(layers, load_config(folder))
        else:
            object.__setattr__(self, "model", str(self.model))

    @property
    def _options(self) -> Options:
        return Options(
            pool=self.pool,
            dtype=self.dtype,
            whitespace=self.whitespace,
            batch_words=self.batch_words,
            cache_words=self.cache_words,
        )

    def __getstate__(self) -> dict[str, Any]:
        """The settings, without the model."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def __setstate__(self, settings: dict[str, Any]) -> None:
        for name, value in settings.items():
            object.__setattr__(self, name, value)

    # ---- batches

    def __call__(self, batch: Any) -> Any:
        """The batch with the column of vectors; of an iterator of batches, an iterator."""
        if isinstance(batch, Iterator):
            return map(self, batch)
        if isinstance(batch, Mapping):
            return self._of_mapping(batch)
        # Whoever has such a batch has imported its library.
        if (pandas := sys.modules.get("pandas")) and isinstance(batch, pandas.DataFrame):
            vectors = self._vectors(batch.columns, lambda name: batch[name])
            return batch.assign(**{self.output: pandas.Series(vectors, index=batch.index, dtype=object)})
        if (arrow := sys.modules.get("pyarrow")) and isinstance(batch, arrow.Table | arrow.RecordBatch):
            return self._of_arrow(batch)
        raise ElmoError(
            "Embed takes a batch of columns: a dictionary of lists or arrays, an Arrow table or record "
            f"batch, a pandas frame, or an iterator of these; but got {type(batch).__name__}."
        )

    def _of_mapping(self, batch: Any) -> Any:
        result = copy.copy(batch)  # `datasets` has a class of its own
        vectors = self._vectors(batch, lambda name: batch[name])
        if _is_in_ray():
            result[self.output] = self._arrow_array(vectors)
        else:
            result[self.output] = _as_numpy(vectors) if _has_arrays(batch) else vectors
        return result

    def _of_arrow(self, batch: Any) -> Any:
        import pyarrow as pa

        vectors = self._vectors(batch.schema.names, batch.column)
        array = self._arrow_array(vectors)
        if _is_in_spark():
            if self.dtype == "float16":
                raise ElmoError("Spark has no float16; leave dtype at float32.")
            array = array.cast(_without_sizes(array.type))
        schema = batch.schema.append(pa.field(self.output, array.type))
        old = schema.metadata or {}
        about = json.loads(old[METADATA]) if METADATA in old else {}
        about[self.output] = self._reader.about | self._about
        metadata = {**old, METADATA: json.dumps(about).encode()}
        schema = schema.with_metadata(metadata)
        return type(batch).from_arrays([*batch.columns, array], schema=schema)

    def _vectors(self, names: Any, values_of: Any) -> list[np.ndarray | None]:
        """The vectors of each row: ([layers,] words, dim), or ([layers,] dim) if pooled."""
        column = self._column([*names])
        if [*names].count(column) > 1:
            raise ElmoError(f"the batch has several columns '{column}'; rename all but one.")
        values = values_of(column)
        if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
            raise ElmoError(
                f"column '{column}' holds {type(values).__name__}, not the values of a batch; pass rows in "
                "batches (batched=True in `datasets.map`)."
            )
        records = [_record(value, column, row) for row, value in enumerate(_listed(values))]
        threads = self.threads or (1 if _is_worker() else None)
        with _lock:
            if threads is not None:
                torch.set_num_threads(threads)
            filled = encoded(self._reader.embedder, [record for record in records if record])
            vectors = (sentence.vectors if sentence.words else None for sentence in filled)
            return [next(vectors) if record else None for record in records]

    def _column(self, names: list[Any]) -> Any:
        if self.output in names:
            raise ElmoError(f"the batch has a column '{self.output}' already; choose another output.")
        listed = ", ".join(quoted(name, 40) for name in names[:20]) or "none"
        if self.column is not None:
            if self.column not in names:
                raise ElmoError(f"the batch has no column '{self.column}'; it has {listed}.")
            return self.column
        usual = [name for name in ("text", "tokens") if name in names]
        if len(usual) != 1:
            raise ElmoError(f"name the column to read (column=...); the batch has {listed}.")
        return usual[0]

    # ---- Arrow

    def _arrow_array(self, vectors: list[np.ndarray | None]) -> Any:
        """FixedSizeList<dim>, or List<FixedSizeList<dim>> without pooling; of several layers, lists of
        these."""
        import pyarrow as pa

        embedder = self._reader.embedder
        layers, is_missing = len(embedder.layers.columns), [array is None for array in vectors]
        shape = (() if layers == 1 else (layers,)) + (() if self.pool else (0,)) + (embedder.width,)
        arrays = [np.zeros(shape, self.dtype) if array is None else array for array in vectors]
        flat = np.concatenate([np.zeros(0, self.dtype), *(array.reshape(-1) for array in arrays)])
        missing = pa.array(is_missing, pa.bool_())
        if self.pool is None:
            lengths = [array.shape[-2] for array in arrays for _ in range(layers)]
            offsets = pa.array(np.cumsum([0, *lengths]), pa.int32())
            rows = pa.FixedSizeListArray.from_arrays(pa.array(flat), embedder.width)
            lists = pa.ListArray.from_arrays(offsets, rows, mask=missing if layers == 1 else None)
        else:
            mask = missing if layers == 1 else None
            lists = pa.FixedSizeListArray.from_arrays(pa.array(flat), embedder.width, mask=mask)
        return lists if layers == 1 else pa.FixedSizeListArray.from_arrays(lists, layers, mask=missing)

    @property
    def _about(self) -> dict[str, Any]:
        names = ("pool", "dtype", "whitespace")
        return {"model": self.model} | {name: getattr(self, name) for name in names}

    @property
    def _reader(self) -> "Reader":
        with _lock:
            return _reader(str(self.model), self.layers, self._options, self.device, os.getpid())


# ---- values


def _listed(values: Any) -> Any:
    """The values of an array of numpy, pandas or Arrow, or of a list, as Python's own."""
    for name in ("to_pylist", "tolist"):
        if hasattr(values, name):
            return getattr(values, name)()
    return values


def _record(value: Any, column: Any, row: int) -> Record | None:
    """A text or list of words; None of one that is missing or has no word."""
    if value is None or (isinstance(value, float) and value != value) or type(value).__name__ == "NAType":
        return None
    if isinstance(value, str):
        return without_surrogates(value) if value.strip() else None
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple) and all(isinstance(word, str) for word in value):
        return [without_surrogates(word) for word in value] or None
    raise ElmoError(
        f"row {row + 1} of the batch: column '{column}' should be text or a list of words, but is "
        f"{quoted(' '.join(repr(value).split()), 60)}."
    )


def _has_arrays(batch: Mapping[Any, Any]) -> bool:
    return type(batch) is dict and any(isinstance(values, np.ndarray) for values in batch.values())


def _as_numpy(vectors: list[np.ndarray | None]) -> np.ndarray:
    """An array of objects, which are arrays or None."""
    array = np.empty(len(vectors), dtype=object)
    array[:] = vectors
    return array


def _is_in_ray() -> bool:
    """Whether this is a task or an actor of Ray, which would pickle a column of arrays with missing ones."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return False
    return bool(ray.get_runtime_context().worker.mode == ray.WORKER_MODE)


def _is_in_spark() -> bool:
    """Whether this is a task of Spark, which knows lists in Arrow, but none of a fixed size."""
    spark = sys.modules.get("pyspark")
    return spark is not None and spark.TaskContext.get() is not None


def _without_sizes(arrow_type: Any) -> Any:
    """A type of lists of fixed sizes as one of lists of any size."""
    import pyarrow as pa

    is_list = pa.types.is_list(arrow_type) or pa.types.is_fixed_size_list(arrow_type)
    return pa.list_(_without_sizes(arrow_type.value_type)) if is_list else arrow_type


# ---- the model of a process


@dataclass(frozen=True)
class Reader:
    """A model that reads for all objects of this process with the same settings."""

    embedder: Embedder
    about: dict[str, Any]


_lock = RLock()  # one batch at a time, and one loading


@lru_cache(maxsize=4)
def _reader(model: str, layers: Any, options: Options, device: str | None, process: int) -> Reader:
    """`process`: a fork does not use the model of its parent, whose threads and GPU it does not have."""
    elmo, tokenizer = _load(model, str(requested_device(device) or default_device(None)), process)
    chosen = parse_layers(layers, elmo.config)
    revision = getattr(elmo.config, "_commit_hash", None)  # of the Hub
    about = {"revision": revision, "fingerprint": fingerprint(elmo, tokenizer)}
    return Reader(Embedder(elmo, tokenizer, chosen, options), about | {"layers": chosen.name})


@lru_cache(maxsize=2)
def _load(model: str, device: str, process: int) -> tuple[ElmoModel, ElmoTokenizer]:
    elmo, tokenizer = load(model, ElmoModel)
    torch.nn.Module.to(elmo, device)
    return elmo, tokenizer


def _is_worker() -> bool:
    """Whether this is a process of a pool, also one of `multiprocess`, which `datasets` uses."""
    libraries = [multiprocessing, sys.modules.get("multiprocess")]
    return any(library and library.parent_process() is not None for library in libraries)
