"""Vectors on disk: numbered shards in a folder, or AllenNLP's HDF5, and one way to read them all.

    vectors = read_vectors("vectors/")  # or "s3://bucket/vectors", or a folder of the folders of `--shard`
    len(vectors)                        # sentences
    for words, array in vectors: ...    # one shard in memory at a time
    vectors[12].vectors                 # (words, dim), (layers, words, dim), or without `words` if pooled

`shards` describes the formats safetensors, parquet and npy. `index.json` is the last file of a corpus.

hdf5: `vectors.hdf5` as AllenNLP's `elmo` command wrote it: arrays named "0", "1", ... and
    `sentence_to_index`, a JSON text. It holds a sentence once, so all words are in `words.jsonl` as well.
"""

import json
import os
import weakref
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

import numpy as np

from elmo_hf.embedding.folders import Folder, RemoteFolder, named_as, open_folder
from elmo_hf.embedding.shards import (
    FORMATS,
    Embedded,
    Header,
    Shard,
    damage_in,
    header_file,
    read_shard,
    shard_name,
)
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
    def __init__(self, folder: Folder, index: dict[str, Any]) -> None:
        super().__init__(index, index["sentences"])
        self.folder, self.columns, self.pooled = folder, index["columns"], index["pool"] is not None
        self._firsts = [shard["first"] for shard in index["shards"]]
        self._loaded: tuple[int, Shard, list[int]] | None = None

    def _sentence(self, number: int) -> Embedded:
        shard_number = bisect_right(self._firsts, number) - 1
        if self._loaded is None or self._loaded[0] != shard_number:
            self._loaded = None  # frees the last shard before the next is read
            name = shard_name(shard_number, self.about["format"])
            with self.folder.reading(*{name, header_file(name)}) as path:
                shard = read_shard(path / name, self.columns, self.pooled)
            if asdict(shard.header) != self.about["shards"][shard_number]:
                raise ElmoError(
                    f"{self.folder.file(name)} is not the shard that {self.folder.file('index.json')} names."
                )
            self._loaded = (shard_number, shard, shard.starts(self.pooled))
        _, shard, starts = self._loaded
        return shard.sentence(number - self._firsts[shard_number], starts, self.pooled)


class Hdf5Vectors(Vectors):
    """AllenNLP's layout, of `embed` (with `words.jsonl` beside it) or of AllenNLP's own command."""

    def __init__(self, path: Path, index: dict[str, Any], place: str = "") -> None:
        import h5py

        self._place = place or str(path.parent)
        self._path, self._words = path, path.parent / "words.jsonl" if index else None
        with damage_in(path):
            os.close(open_plain(path))
            self._file = h5py.File(path, "r")
            sentences = len(self._file) - ("sentence_to_index" in self._file)
            if index and sentences != index["sentences"]:
                raise ValueError(f"it has {sentences} sentences, not {index['sentences']}")
        super().__init__(index, sentences)

    def _sentence(self, number: int) -> Embedded:
        with named_as(self._place, str(self._path.parent)):
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


class JoinedVectors(Vectors):
    """All shards of a corpus, which `embed(..., shard="3/16")` wrote, in its order."""

    def __init__(self, pieces: list[Vectors]) -> None:
        self._pieces = pieces
        self._firsts = list(accumulate(map(len, pieces), initial=0))
        index = {name: value for name, value in pieces[0].about.items() if name != "shard"}
        index |= {name: sum(piece.about[name] for piece in pieces) for name in ("sentences", "words")}
        index["shards"] = [
            entry | {"first": first + entry["first"]}
            for first, piece in zip(self._firsts, pieces, strict=False)
            for entry in piece.about["shards"]
        ]
        super().__init__(index, self._firsts[-1])

    def _sentence(self, number: int) -> Embedded:
        piece = bisect_right(self._firsts, number) - 1
        return self._pieces[piece][number - self._firsts[piece]]


def _joined(folders: list[Folder], place: str) -> Vectors:
    """The shards in these folders by their numbers; ElmoError unless each shard of a corpus is there once."""
    pieces = [_open(folder) for folder in folders]
    shards = [piece.about.get("shard") for piece in pieces]
    numbers: list[int] = []
    for folder, shard in zip(folders, shards, strict=True):
        if shard is None or shards[0] is None:
            whole = folder if shard is None else folders[0]
            raise ElmoError(f"{whole} holds a whole corpus and no shard of one; read it by itself.")
        if any(shard[name] != shards[0][name] for name in ("count", "size", "job")):
            raise ElmoError(
                f"{folder} is a shard of another corpus, or was made with other arguments, than {folders[0]}."
            )
        if shard["number"] in numbers:
            twin = folders[numbers.index(shard["number"])]
            raise ElmoError(f"{twin} and {folder} are the same shard; name one of them.")
        numbers.append(shard["number"])
    count = shards[0]["count"]  # type: ignore[index]  # refused above
    if missing := count - len(numbers):
        first = next(number for number in range(1, count + 1) if number not in numbers)
        others = f" and {missing - 1} more" if missing > 1 else ""
        raise ElmoError(f"{place} lacks shard {first}/{count}{others}; make what is missing.")
    return JoinedVectors([pieces[numbers.index(number)] for number in sorted(numbers)])


def read_index(folder: Folder) -> dict[str, Any]:
    """The content of `index.json`, checked, so that whoever opens the files can rely on it."""
    with folder.reading("index.json") as path:
        index = read_json(path / "index.json", MAX_INDEX)
    try:
        headers = [Header(**shard) for shard in index["shards"]]
        firsts = list(accumulate((header.sentences for header in headers), initial=0))
        is_whole = (
            [header.first for header in headers] == firsts[:-1]
            and (type(index["sentences"]), index["sentences"]) == (int, firsts[-1])
            and type(index["words"]) is int
            and index["format"] in FORMATS
            and all(isinstance(name, str) for name in index["columns"])
            and index["pool"] in (None, "mean", "max")
            and _is_shard(index.get("shard"))
        )
    except (TypeError, KeyError, ValueError):
        is_whole = False
    if not is_whole:
        path_of_index = folder.file("index.json")
        raise ElmoError(f"{path_of_index} is damaged; remove it and run the command that wrote it again.")
    return index


def _is_shard(shard: Any) -> bool:
    """Whether an entry of `index.json` is that of a whole corpus, or of a piece."""
    if shard is None:
        return True
    numbers = [shard["number"], shard["count"], shard["size"]]
    are_counts = all(type(number) is int and 0 <= number < 2**62 for number in numbers)
    return are_counts and 1 <= numbers[0] <= numbers[1] < 10**9 and isinstance(shard["job"], str)


def read_vectors(path: str | Path | Sequence[str | Path]) -> Vectors:
    """Open the vectors that `embed` wrote, or an HDF5 file of AllenNLP's `elmo` command.

    >>> vectors = embed(["He sat on the bank.", "Why?"], "vectors", TINY, progress=False)
    >>> [words for words, _ in read_vectors("vectors")]
    [['He', 'sat', 'on', 'the', 'bank', '.'], ['Why', '?']]

    Args:
        path: the folder that `embed` wrote, or its address, such as `s3://bucket/vectors`; an HDF5 file; or,
            for the shards of a corpus (`embed(..., shard="3/16")`), the folder around their folders or a list
            of these.

    Returns:
        A sequence of `(words, vectors)`, one for each sentence in the order of the input, read from the disk
        when it is indexed. `vectors` is (words, dim), or (layers, words, dim) where several layers were asked
        for; with pooling, (dim,) or (layers, dim).

    Raises:
        ElmoError: the path holds no vectors, or those of an unfinished job.
    """
    from elmo_hf.convert.hdf5 import is_hdf5

    if isinstance(path, list | tuple):
        if not path:
            raise ElmoError("no vectors can be read from an empty list; name the folders of the shards.")
        return _joined([open_folder(item) for item in path], "the list")
    folder = open_folder(path)
    file = None if isinstance(folder, RemoteFolder) else folder.path
    if file is not None and file.is_file():
        if not is_hdf5(file):
            raise ElmoError(f"{file} is no HDF5 file; name the folder that `embed` wrote.")
        return Hdf5Vectors(file, {})
    names = folder.names()
    if not {"index.json", "plan.json"} & {*names}:
        shards = [inner for inner in folder.subfolders() if inner.has("plan.json")] if names else []
        if shards:
            return _joined(shards, str(folder))
    return _open(folder)


def _open(folder: Folder) -> Vectors:
    if not folder.has("index.json"):
        state = "was not finished; run the same command again" if folder.has("plan.json") else "has none"
        raise ElmoError(f"no vectors can be read from {folder}: it {state}.")
    index = read_index(folder)
    if index["format"] != "hdf5":
        return ShardVectors(folder, index)
    with ExitStack() as copies:
        path = copies.enter_context(folder.reading("vectors.hdf5", "words.jsonl"))
        vectors = Hdf5Vectors(path / "vectors.hdf5", index, str(folder))
        weakref.finalize(vectors, copies.pop_all().close)  # the copies are read as long as it is
    return vectors
