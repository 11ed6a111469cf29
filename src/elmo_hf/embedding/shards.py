"""Shards of a corpus with their vectors: a file for each, or two, in three formats.

    write_shard(folder / shard_name(0, "npy"), Shard(header, words, vectors), ["vector"], pooled=False)
    read_header(folder / shard_name(0, "npy"))   # None if the shard is missing or damaged

A file with its final name is complete, because it is written under another name and renamed. Equal vectors
are equal bytes, so nothing here writes a time or a path.

safetensors: `vectors` ([layers,] rows, dim), `sentence_starts` (sentences + 1), in words; and the words as
    UTF-8 bytes `words` with `word_starts` (words + 1). A row is a word, or a sentence if pooled.
parquet: a row has the number of its `sentence`, its `word` (`words`, if pooled), its `vector`, or
    `layer_0`, `layer_1`, ... where several layers were asked for, and the other columns of the corpus, such
    as `id` and `label`, at each word of their sentence.
npy: `vectors-00000.npy`, an array ([layers,] rows, dim) for `numpy.load`, and `vectors-00000.json` with the
    words of each sentence as `tokens`. A row is a word, or a sentence if pooled. The .json is written last.
"""

import json
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from elmo_hf.errors import ElmoError, reason_of
from elmo_hf.files import open_plain, read_json, whole_file

FORMATS = ("safetensors", "hdf5", "parquet", "npy")
MAX_TOKENS = 2**30  # bytes of the .json beside an .npy
MAX_HEADER = 2**20  # bytes of a safetensors shard's header, which has four tensors


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
    others: dict[str, Any] = field(default_factory=dict)  # Arrow arrays of other columns, a value a sentence

    def starts(self, pooled: bool) -> list[int]:
        """The row at which each sentence starts, and the end of the last sentence."""
        return list(accumulate((1 if pooled else len(words) for words in self.words), initial=0))

    def sentences(self, pooled: bool) -> Iterator[Embedded]:
        starts = self.starts(pooled)
        return (self.sentence(number, starts, pooled) for number in range(len(self.words)))

    def sentence(self, number: int, starts: list[int], pooled: bool) -> Embedded:
        rows = starts[number] if pooled else slice(starts[number], starts[number + 1])
        return Embedded(self.words[number], self.vectors[..., rows, :].copy())  # a view would keep the shard


def shard_name(number: int, format: str) -> str:
    """HDF5 is one file, made at the end from shards that are safetensors until then."""
    suffix = "safetensors" if format == "hdf5" else format
    return f"vectors-{number:05d}.{suffix}"


# ---- shards


def write_shard(path: Path, shard: Shard, columns: Sequence[str], pooled: bool) -> None:
    if path.suffix == ".npy":
        write_npy(path, shard.vectors, shard.words, asdict(shard.header))
        return
    with whole_file(path) as partial:
        if path.suffix == ".parquet":
            _write_parquet(partial, shard, columns, pooled)
        else:
            _write_safetensors(partial, shard)


def read_shard(path: Path, columns: Sequence[str], pooled: bool) -> Shard:
    """A whole shard; ElmoError if it is missing or damaged."""
    with damage_in(path):
        os.close(open_plain(path))
        if path.suffix == ".parquet":
            shard = _read_parquet(path, columns, pooled)
        elif path.suffix == ".npy":
            shard = _read_npy(path)
            shard.vectors = np.array(shard.vectors)  # the file may change
        else:
            shard = _read_safetensors(path)
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
        with damage_in(path):
            if path.suffix == ".npy":
                return _read_npy(path).header
            text = _parquet_header(path) if path.suffix == ".parquet" else _safetensors_header(path)
            return Header(**json.loads(text))
    except ElmoError:
        return None


def header_file(name: str) -> str:
    """The file of a shard that holds its header."""
    return name.removesuffix(".npy") + ".json" if name.endswith(".npy") else name


def header_in(file: BinaryIO, size: int, name: str) -> Header | None:
    """`read_header` of an open file that is not on this machine, from as few bytes as the format allows."""
    try:
        if name.endswith(".npy"):
            content = json.load(file)
            content.pop("tokens")
            return Header(**content)
        if name.endswith(".parquet"):
            import pyarrow.parquet

            text = pyarrow.parquet.read_schema(file).metadata[b"elmo_hf"].decode("utf-8")
        else:
            text = _header_of_safetensors(file, size)
        return Header(**json.loads(text))
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError):  # and Arrow's
        return None


def _header_of_safetensors(file: BinaryIO, size: int) -> str:
    """A file begins with the length of its header, in which JSON says where each tensor ends behind it."""
    length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER:
        raise ValueError("the header is too long")
    header = json.loads(file.read(length))
    text: str = header.pop("__metadata__")["elmo_hf"]
    if 8 + length + max(tensor["data_offsets"][1] for tensor in header.values()) != size:
        raise ValueError("it is not whole")
    return text


@contextmanager
def damage_in(path: Path) -> Iterator[None]:
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
    with path.open("rb") as file:
        return _header_of_safetensors(file, path.stat().st_size)


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
    sentences = range(len(shard.words)) if pooled else np.arange(len(shard.words)).repeat(lengths)
    for name, values in shard.others.items():
        table[free_name(name, table)] = values.take(pa.array(sentences, pa.int64()))
    header = {"elmo_hf": json.dumps(asdict(shard.header))}
    # A vector's numbers hardly repeat, so neither a dictionary nor compression makes them smaller. The other
    # columns repeat at each word.
    pa.parquet.write_table(
        pa.table(table).replace_schema_metadata(header),
        path,
        compression="none",
        use_dictionary=list(table)[-len(shard.others) :] if shard.others else False,
    )


def free_name(name: str, taken: Collection[str]) -> str:
    """The name of another column, which may be one of ours, such as `sentence`."""
    while name in taken:
        name = f"input_{name}"
    return name


def _by_layer(vectors: np.ndarray) -> np.ndarray:
    return vectors if vectors.ndim == 3 else vectors[None]


def _parquet_header(path: Path) -> str:
    import pyarrow.parquet

    return pyarrow.parquet.read_schema(path).metadata[b"elmo_hf"].decode("utf-8")


def _read_parquet(path: Path, columns: Sequence[str], pooled: bool) -> Shard:
    import pyarrow.parquet

    header = Header(**json.loads(_parquet_header(path)))
    own = ["words"] if pooled else ["sentence", "word"]
    table = pyarrow.parquet.read_table(path, columns=[*own, *columns]).combine_chunks()
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


def write_npy(path: Path, vectors: np.ndarray, tokens: list[list[str]], header: dict[str, Any]) -> None:
    """Write `vectors` for `numpy.load`, and then, beside it, the header and each sentence's words."""
    vectors = np.ascontiguousarray(vectors)
    with whole_file(path) as partial, partial.open("wb") as file:
        # Not `np.save`, which does not notice that a full disk has not taken the last numbers.
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(vectors))
        file.write(vectors.reshape(-1).view(np.uint8).data)
    with whole_file(path.with_suffix(".json")) as partial, partial.open("w", encoding="utf-8") as text:
        json.dump(header | {"tokens": tokens}, text, ensure_ascii=False)


def _read_npy(path: Path) -> Shard:
    """With the array mapped into memory, so that one which is shorter than its header says is refused."""
    content = read_json(path.with_suffix(".json"), MAX_TOKENS)
    tokens = content.pop("tokens")
    if not all(isinstance(words, list) and all(isinstance(word, str) for word in words) for words in tokens):
        raise ValueError("its .json has no lists of words")
    vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(vectors, np.memmap) or vectors.dtype.kind != "f" or vectors.ndim not in (2, 3):
        raise ValueError("it holds no array of vectors")
    if vectors.offset + vectors.nbytes != path.stat().st_size:
        raise ValueError("it is longer than its array")
    return Shard(Header(**content), tokens, np.asarray(vectors))
