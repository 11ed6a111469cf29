"""Vectors on disk: numbered shards in a folder, or AllenNLP's HDF5, and one way to read them all.

    vectors = read_vectors("vectors/")
    len(vectors)                        # sentences
    for words, array in vectors: ...    # one shard in memory at a time
    vectors[12].vectors                 # (words, dim), (layers, words, dim), or without `words` if pooled

`shards` describes the formats safetensors, parquet and npy. `index.json` is the last file of a corpus.

hdf5: `vectors.hdf5` as AllenNLP's `elmo` command wrote it: arrays named "0", "1", ... and
    `sentence_to_index`, a JSON text. It holds a sentence once, so all words are in `words.jsonl` as well.
"""

import json
import os
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

import numpy as np

from elmo_hf.embedding.shards import FORMATS, Embedded, Header, Shard, damage_in, read_shard, shard_path
from elmo_hf.errors import ElmoError
from elmo_hf.files import LONGEST_LINE, open_plain, read_json, read_lines, whole_file

MAX_INDEX = 2**28  # bytes of index.json; a shard's entry has some 150


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
        with damage_in(path):
            os.close(open_plain(path))
            self._file = h5py.File(path, "r")
            sentences = len(self._file) - ("sentence_to_index" in self._file)
            if index and sentences != index["sentences"]:
                raise ValueError(f"it has {sentences} sentences, not {index['sentences']}")
        super().__init__(index, sentences)

    def _sentence(self, number: int) -> Embedded:
        with damage_in(self._path):
            vectors = self._array(str(number))[()]
        return Embedded(self._words_of(number), vectors)

    def _array(self, name: str) -> Any:
        """An array that lies in the file as it is: not elsewhere, and no few bytes that become gigabytes."""
        import h5py

        is_inside = isinstance(self._file.get(name, getlink=True), h5py.HardLink)
        array = self._file[name] if is_inside else None
        if not isinstance(array, h5py.Dataset) or array.chunks or array.is_virtual or array.external:
            raise ValueError(f"{name!r} is no plain array")
        if array.shape is None:
            raise ValueError(f"{name!r} is no plain array, but empty")
        if array.nbytes > self._path.stat().st_size:
            raise ValueError(f"{name!r} is larger than the file")
        return array

    def _words_of(self, number: int) -> list[str] | None:
        if self._words is None:
            return self._known_words.get(number)
        with damage_in(self._words):
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
        with damage_in(self._path):
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
    """Open the vectors that `embed` wrote, or an HDF5 file of AllenNLP's `elmo` command.

    >>> vectors = embed(["He sat on the bank.", "Why?"], "vectors", TINY, progress=False)
    >>> [words for words, _ in read_vectors("vectors")]
    [['He', 'sat', 'on', 'the', 'bank', '.'], ['Why', '?']]

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
