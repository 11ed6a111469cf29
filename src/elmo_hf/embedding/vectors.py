"""Vectors on disk: numbered shards in a folder, in three formats, and one way to read them all.

    vectors = read_vectors("vectors/")
    len(vectors)                        # sentences
    for words, array in vectors: ...    # one shard in memory at a time
    vectors[12].vectors                 # (words, dim), (layers, words, dim), or without `words` if pooled

A file with its final name is complete, because it is written under another name and renamed; `index.json` is
the last file of a corpus. Equal vectors are equal bytes, so nothing here writes a time or a path.

safetensors: `vectors` ([layers,] rows, dim), `sentence_starts` (sentences + 1), in words; and the words as
    UTF-8 bytes `words` with `word_starts` (words + 1). A row is a word, or a sentence if pooled.
parquet: a row has the number of its `sentence`, its `word` (`words`, if pooled) and its `vector`, or
    `layer_0`, `layer_1`, ... where several layers were asked for.
hdf5: `vectors.hdf5` as AllenNLP's `elmo` command wrote it: arrays named "0", "1", ... and
    `sentence_to_index`, a JSON text. It holds a sentence once, so all words are in `words.jsonl` as well.
"""

import json
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np

from elmo_hf.errors import ElmoError, reason_of
from elmo_hf.files import LONGEST_LINE, open_plain, read_json, read_lines, whole_file

FORMATS = ("safetensors", "hdf5", "parquet")
MAX_INDEX = 2**28  # bytes of index.json; a shard's entry has some 150


class Embedded(NamedTuple):
    """A sentence: its words (None where a file of AllenNLP's own lacks them) and its vectors."""

    words: list[str] | None
    vectors: np.ndarray


@dataclass
class Header:
    """A shard's metadata. `digest` is that of the records that it was made from."""

    first: int
    sentences: int
    words: int
    digest: str

    def __post_init__(self) -> None:
        numbers = (self.first, self.sentences, self.words)
        are_counts = all(type(number) is int and 0 <= number < 2**62 for number in numbers)
        if not are_counts or not isinstance(self.digest, str):
            raise ElmoError("a shard's header has wrong values.")


@dataclass
class Shard:
    header: Header
    words: list[list[str]]
    vectors: np.ndarray  # ([layers,] rows, dim)

    def starts(self, pooled: bool) -> list[int]:
        """The row at which each sentence starts, and the end of the last sentence."""
        return list(accumulate((1 if pooled else len(words) for words in self.words), initial=0))

    def sentences(self, pooled: bool) -> Iterator[Embedded]:
        starts = self.starts(pooled)
        return (self.sentence(number, starts, pooled) for number in range(len(self.words)))

    def sentence(self, number: int, starts: list[int], pooled: bool) -> Embedded:
        rows = starts[number] if pooled else slice(starts[number], starts[number + 1])
        return Embedded(self.words[number], self.vectors[..., rows, :].copy())  # a view would keep the shard


def shard_path(folder: Path, number: int, format: str) -> Path:
    """HDF5 is one file, made at the end from shards that are safetensors until then."""
    suffix = "parquet" if format == "parquet" else "safetensors"
    return folder / f"vectors-{number:05d}.{suffix}"


# ---- shards


def write_shard(path: Path, shard: Shard, columns: Sequence[str], pooled: bool) -> None:
    with whole_file(path) as partial:
        if path.suffix == ".parquet":
            _write_parquet(partial, shard, columns, pooled)
        else:
            _write_safetensors(partial, shard)


def read_shard(path: Path, columns: Sequence[str], pooled: bool) -> Shard:
    """A whole shard; ElmoError if it is missing or damaged."""
    with _damage_in(path):
        os.close(open_plain(path))
        is_parquet = path.suffix == ".parquet"
        shard = _read_parquet(path, columns, pooled) if is_parquet else _read_safetensors(path)
        sizes = (len(shard.words), sum(map(len, shard.words)), shard.vectors.shape[-2])
        header = shard.header
        if sizes != (header.sentences, header.words, header.sentences if pooled else header.words):
            raise ValueError("its sizes contradict each other")
        return shard


def read_header(path: Path) -> Header | None:
    """A shard's header, or None if there is no shard or it is damaged."""
    if not path.is_file():
        return None
    try:
        with _damage_in(path):
            text = _parquet_header(path) if path.suffix == ".parquet" else _safetensors_header(path)
            return Header(**json.loads(text))
    except ElmoError:
        return None


@contextmanager
def _damage_in(path: Path) -> Iterator[None]:
    """One sentence for whatever the readers of a damaged file raise."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise ElmoError(
            f"{path} is missing or damaged ({reason_of(error)}); remove it and index.json, and run the "
            "command that wrote it again."
        ) from error


def _write_safetensors(path: Path, shard: Shard) -> None:
    from safetensors.numpy import save

    encoded = [word.encode("utf-8") for words in shard.words for word in words]
    tensors = {
        "vectors": np.ascontiguousarray(shard.vectors),
        "sentence_starts": np.array(shard.starts(pooled=False), dtype=np.int64),
        "words": np.frombuffer(b"".join(encoded), dtype=np.uint8),
        "word_starts": np.array(list(accumulate(map(len, encoded), initial=0)), dtype=np.int64),
    }
    # One entry only: safetensors writes several in no fixed order.
    # Not `save_file`: a kill would leave its temporary file behind.
    path.write_bytes(save(tensors, metadata={"elmo_hf": json.dumps(asdict(shard.header))}))


def _safetensors_header(path: Path) -> str:
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        return file.metadata()["elmo_hf"]


def _read_safetensors(path: Path) -> Shard:
    from safetensors.numpy import load_file

    header = Header(**json.loads(_safetensors_header(path)))
    tensors = load_file(path)
    encoded, word_starts = tensors["words"].tobytes(), tensors["word_starts"].tolist()
    words = [encoded[start:end].decode("utf-8") for start, end in pairwise(word_starts)]
    sentences = [words[start:end] for start, end in pairwise(tensors["sentence_starts"].tolist())]
    return Shard(header, sentences, tensors["vectors"])


def _write_parquet(path: Path, shard: Shard, columns: Sequence[str], pooled: bool) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    first, dim = shard.header.first, shard.vectors.shape[-1]
    numbers = np.arange(first, first + len(shard.words))
    if pooled:
        table: dict[str, Any] = {
            "sentence": pa.array(numbers),
            "words": pa.array(shard.words, pa.list_(pa.string())),
        }
    else:
        lengths = [len(words) for words in shard.words]
        words = [word for sentence in shard.words for word in sentence]
        table = {"sentence": pa.array(numbers.repeat(lengths)), "word": pa.array(words, pa.string())}
    for name, rows in zip(columns, _by_layer(shard.vectors), strict=True):
        table[name] = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), dim)
    header = {"elmo_hf": json.dumps(asdict(shard.header))}
    # A vector's numbers hardly repeat, so neither a dictionary nor compression makes them smaller.
    pa.parquet.write_table(
        pa.table(table).replace_schema_metadata(header), path, compression="none", use_dictionary=False
    )


def _by_layer(vectors: np.ndarray) -> np.ndarray:
    return vectors if vectors.ndim == 3 else vectors[None]


def _parquet_header(path: Path) -> str:
    import pyarrow.parquet

    return pyarrow.parquet.read_schema(path).metadata[b"elmo_hf"].decode("utf-8")


def _read_parquet(path: Path, columns: Sequence[str], pooled: bool) -> Shard:
    import pyarrow.parquet

    header = Header(**json.loads(_parquet_header(path)))
    table = pyarrow.parquet.read_table(path).combine_chunks()
    layers = []
    for name in columns:
        column = table[name].combine_chunks()
        layers.append(column.flatten().to_numpy(zero_copy_only=False).reshape(-1, column.type.list_size))
    vectors = np.stack(layers) if len(columns) > 1 else layers[0]
    if pooled:
        return Shard(header, table["words"].to_pylist(), vectors)
    words, rows = table["word"].to_pylist(), table["sentence"].to_numpy()
    starts = np.searchsorted(rows, np.arange(header.first, header.first + header.sentences + 1)).tolist()
    return Shard(header, [words[start:end] for start, end in pairwise(starts)], vectors)


# ---- AllenNLP's HDF5


def write_hdf5(folder: Path, shards: Iterable[Shard], pooled: bool) -> None:
    """Write `vectors.hdf5` and `words.jsonl`.

    The text of all sentences is held in memory, as AllenNLP's layout has it in one string; vectors are not.
    """
    import h5py

    from elmo_hf.convert.hdf5_output import Hdf5Output

    sentence_to_index: dict[str, str] = {}
    with (
        whole_file(folder / "words.jsonl") as words_path,
        words_path.open("w", encoding="utf-8") as words_file,
        whole_file(folder / "vectors.hdf5") as partial,
        Hdf5Output(partial) as file,
    ):
        sentences = (sentence for shard in shards for sentence in shard.sentences(pooled))
        for number, (words, vectors) in enumerate(sentences):
            file.add(str(number), data=vectors)
            sentence_to_index[" ".join(words or ())] = str(number)
            words_file.write(json.dumps(words, ensure_ascii=False) + "\n")
        text = file.add("sentence_to_index", (1,), dtype=h5py.special_dtype(vlen=str))
        text[0] = json.dumps(sentence_to_index)


# ---- reading back


class Vectors(Sequence[Embedded]):
    """The sentences of a corpus with their vectors, which `read_vectors` opens.

    A sentence is read from the disk when it is indexed. `about` is the content of `index.json`.
    """

    def __init__(self, index: dict[str, Any], sentences: int) -> None:
        self.about, self._length = index, sentences

    def __len__(self) -> int:
        return self._length

    def _sentence(self, number: int) -> Embedded:
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> Embedded: ...
    @overload
    def __getitem__(self, index: slice) -> list[Embedded]: ...
    def __getitem__(self, index: int | slice) -> Embedded | list[Embedded]:
        if isinstance(index, slice):
            return [self._sentence(number) for number in range(*index.indices(len(self)))]
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(f"there are {len(self)} sentences, but sentence {index} was asked for.")
        return self._sentence(number)


class ShardVectors(Vectors):
    def __init__(self, folder: Path, index: dict[str, Any]) -> None:
        super().__init__(index, index["sentences"])
        self.folder, self.columns, self.pooled = folder, index["columns"], index["pool"] is not None
        self._firsts = [shard["first"] for shard in index["shards"]]
        self._loaded: tuple[int, Shard, list[int]] | None = None

    def _sentence(self, number: int) -> Embedded:
        shard_number = bisect_right(self._firsts, number) - 1
        if self._loaded is None or self._loaded[0] != shard_number:
            self._loaded = None  # frees the last shard before the next is read
            path = shard_path(self.folder, shard_number, self.about["format"])
            shard = read_shard(path, self.columns, self.pooled)
            if asdict(shard.header) != self.about["shards"][shard_number]:
                raise ElmoError(f"{path} is not the shard that {self.folder / 'index.json'} names.")
            self._loaded = (shard_number, shard, shard.starts(self.pooled))
        _, shard, starts = self._loaded
        return shard.sentence(number - self._firsts[shard_number], starts, self.pooled)


class Hdf5Vectors(Vectors):
    """AllenNLP's layout, of `embed` (with `words.jsonl` beside it) or of AllenNLP's own command."""

    def __init__(self, path: Path, index: dict[str, Any]) -> None:
        import h5py

        self._path, self._words = path, path.parent / "words.jsonl" if index else None
        with _damage_in(path):
            os.close(open_plain(path))
            self._file = h5py.File(path, "r")
            sentences = len(self._file) - ("sentence_to_index" in self._file)
            if index and sentences != index["sentences"]:
                raise ValueError(f"it has {sentences} sentences, not {index['sentences']}")
        super().__init__(index, sentences)

    def _sentence(self, number: int) -> Embedded:
        with _damage_in(self._path):
            vectors = self._array(str(number))[()]
        return Embedded(self._words_of(number), vectors)

    def _array(self, name: str) -> Any:
        """An array that lies in the file as it is: not elsewhere, and no few bytes that become gigabytes."""
        import h5py

        is_inside = isinstance(self._file.get(name, getlink=True), h5py.HardLink)
        array = self._file[name] if is_inside else None
        if not isinstance(array, h5py.Dataset) or array.chunks or array.is_virtual or array.external:
            raise ValueError(f"{name!r} is no plain array")
        if array.nbytes > self._path.stat().st_size:
            raise ValueError(f"{name!r} is larger than the file")
        return array

    def _words_of(self, number: int) -> list[str] | None:
        if self._words is None:
            return self._known_words.get(number)
        with _damage_in(self._words):
            with os.fdopen(open_plain(self._words), "rb") as file:
                file.seek(self._line_starts[number])
                words = json.loads(file.readline(LONGEST_LINE))
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                raise ValueError(f"line {number + 1} is no list of words")
            return words

    @cached_property
    def _line_starts(self) -> np.ndarray:
        assert self._words is not None
        lengths = np.fromiter(map(len, read_lines(self._words)), dtype=np.int64)
        if len(lengths) != len(self):
            raise ValueError(f"it has {len(lengths)} lines, not {len(self)}")
        return lengths.cumsum() - lengths

    @cached_property
    def _known_words(self) -> dict[int, list[str]]:
        if "sentence_to_index" not in self._file:
            return {}
        with _damage_in(self._path):
            indices = json.loads(self._array("sentence_to_index")[0])
            return {int(index): sentence.split() for sentence, index in indices.items()}


def read_index(folder: Path) -> dict[str, Any]:
    """The content of `index.json`, checked, so that whoever opens the files can rely on it."""
    path = folder / "index.json"
    index = read_json(path, MAX_INDEX)
    try:
        headers = [Header(**shard) for shard in index["shards"]]
        firsts = list(accumulate((header.sentences for header in headers), initial=0))
        is_whole = (
            [header.first for header in headers] == firsts[:-1]
            and (type(index["sentences"]), index["sentences"]) == (int, firsts[-1])
            and index["format"] in FORMATS
            and all(isinstance(name, str) for name in index["columns"])
            and index["pool"] in (None, "mean", "max")
        )
    except (TypeError, KeyError, ValueError):
        is_whole = False
    if not is_whole:
        raise ElmoError(f"{path} is damaged; remove it and run the command that wrote it again.")
    return index


def read_vectors(path: str | Path) -> Vectors:
    """Open the vectors that `embed` wrote, or an HDF5 file of AllenNLP's `elmo` command::

        for words, vectors in read_vectors("vectors/"):
            print(words[0], vectors[0])

    Args:
        path: the folder that `embed` wrote, or an HDF5 file.

    Returns:
        A sequence of `(words, vectors)`, one for each sentence in the order of the input, read from the disk
        when it is indexed. `vectors` is (words, dim), or (layers, words, dim) where several layers were asked
        for; with pooling, (dim,) or (layers, dim).

    Raises:
        ElmoError: the path holds no vectors, or those of an unfinished job.
    """
    from elmo_hf.convert.hdf5 import is_hdf5

    path = Path(path)
    if path.is_file():
        if not is_hdf5(path):
            raise ElmoError(f"{path} is no HDF5 file; name the folder that `embed` wrote.")
        return Hdf5Vectors(path, {})
    if not (path / "index.json").exists():
        is_begun = (path / "plan.json").exists()
        state = "was not finished; run the same command again" if is_begun else "has none"
        raise ElmoError(f"no vectors can be read from {path}: it {state}.")
    index = read_index(path)
    return (
        Hdf5Vectors(path / "vectors.hdf5", index) if index["format"] == "hdf5" else ShardVectors(path, index)
    )
