"""A corpus as a stream of sentences, and cut into the pieces that become shards.

    corpus = Corpus("corpus.txt")
    for piece in corpus.pieces(shard_words=32_768): ...

One sentence is a line of a text file, or a record of JSON lines, Parquet or a `datasets` stream: its text, or
its words. Nothing here holds more than one piece at a time.
"""

import bz2
import gzip
import hashlib
import json
import lzma
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np

Record = str | list[str]  # a sentence as it stands in the corpus: its text, or its words


@dataclass
class Survey:
    """What a first walk over a corpus found; of a stream, which can be walked once, nothing but its type."""

    identity: dict[str, Any]
    words: int | None


@dataclass
class Piece:
    """The records of one shard."""

    number: int
    first: int  # number of the first sentence
    records: list[Record]
    words: int
    digest: str


class Corpus:
    """Sentences from a file or an iterable. Whatever is wrong with the first is found on construction."""

    def __init__(self, source: Any, text_column: str | None, tokens_column: str | None) -> None:
        self.is_file = isinstance(source, str | Path)
        self.name = str(source) if self.is_file else f"the {type(source).__name__}"
        if text_column is not None and tokens_column is not None:
            raise ValueError("text_column and tokens_column cannot both be given; a sentence is one of them.")
        self.source, self.column, self.is_words = source, text_column or tokens_column, False
        if self.is_file and not Path(source).is_file():
            raise ValueError(f"there is no input file {source}.")
        if isinstance(source, Mapping):
            raise ValueError(f"{self.name} is a dictionary; pass one of its parts: {', '.join(source)}.")
        if not isinstance(source, str | Path | Iterable):
            raise ValueError(f"a corpus is a file or an iterable, but got {type(source).__name__}.")
        rows = self._rows()
        first = next(rows, None)
        if first is None:
            raise ValueError(f"{self.name} is empty; there is nothing to read.")
        self._choose_field(first, tokens_column is not None)
        self._stream = None if self._can_walk_twice else chain([first], rows)
        self._take(first, 0)

    @property
    def _can_walk_twice(self) -> bool:
        return self.is_file or isinstance(self.source, Sized)

    def _rows(self, columns: list[str] | None = None) -> Iterator[Any]:
        return _file_rows(Path(self.source), columns) if self.is_file else iter(self.source)

    def _choose_field(self, first: Any, is_words: bool) -> None:
        if not isinstance(first, dict):
            if self.column is not None:
                raise ValueError(f"{self.name} has no columns, so there is no column '{self.column}'.")
            self.is_words = not isinstance(first, str)
            return
        there = [name for name in ("text", "tokens") if name in first]
        names = ", ".join(map(str, first)) or "none"
        if self.column is None:
            if len(there) != 1:
                raise ValueError(f"say by text_column or tokens_column what to read of {self.name}: {names}.")
            self.column = there[0]
            is_words = self.column == "tokens"
        elif self.column not in first:
            raise ValueError(f"{self.name} has no column '{self.column}'; it has {names}.")
        self.is_words = is_words

    def _take(self, row: Any, number: int) -> Record:
        value = row
        if self.column is not None:
            value = row.get(self.column) if isinstance(row, dict) else None
        if self.is_words and isinstance(value, list | tuple | np.ndarray):
            words = list(value)
            if all(isinstance(word, str) for word in words):
                return [_without_surrogates(word) for word in words]
        elif not self.is_words and isinstance(value, str):
            return _without_surrogates(value)
        what = f"'{self.column}'" if self.column is not None else "the record"
        wanted = "a list of words" if self.is_words else "text"
        raise ValueError(
            f"{self.name}, record {number + 1}: {what} should be {wanted}, but is {value!r:.60}."
        )

    def records(self) -> Iterator[Record]:
        columns = [self.column] if self.column is not None else None
        rows = self._rows(columns) if self._stream is None else self._stream
        return (self._take(row, number) for number, row in enumerate(rows))

    def survey(self) -> Survey:
        """Every record read and checked once, which takes little time beside that of the model."""
        if self._stream is not None:
            return Survey({"stream": type(self.source).__name__}, None)
        digest, count, words, is_empty = hashlib.sha256(), 0, 0, True
        for record in self.records():
            digest.update(_bytes(record))
            count, words = count + 1, words + size(record)
            is_empty = is_empty and not "".join(record).strip()
        if is_empty:
            raise ValueError(f"{self.name} is empty; there is no word in it.")
        return Survey({"sentences": count, "sha256": digest.hexdigest()}, words)

    def pieces(self, shard_words: int) -> Iterator[Piece]:
        number = first = words = 0
        records: list[Record] = []
        for record in self.records():
            records.append(record)
            words += size(record)
            if words >= shard_words:
                yield Piece(number, first, records, words, _digest(records))
                number, first, words, records = number + 1, first + len(records), 0, []
        if records:
            yield Piece(number, first, records, words, _digest(records))


def size(record: Record) -> int:
    """About a record's number of words, without the work of splitting it: at least 1, and more for text
    that has no blanks."""
    return max(1, len(record) if isinstance(record, list) else max(len(record.split()), len(record) // 16))


def _bytes(record: Record) -> bytes:
    text = record if isinstance(record, str) else "\x1f".join(record)
    return text.encode("utf-8") + b"\n"


def _digest(records: list[Record]) -> str:
    return hashlib.sha256(b"".join(map(_bytes, records))).hexdigest()


def _without_surrogates(text: str) -> str:
    """Half a letter, which JSON can hold, cannot be written; the tokenizer passes over it as well."""
    return text if text.isascii() else text.encode("utf-8", "ignore").decode("utf-8")


# ---- files


def _file_rows(path: Path, columns: list[str] | None) -> Iterator[Any]:
    packed = {".gz", ".bz2", ".xz"}
    kind = Path(path.stem).suffix if path.suffix in packed else path.suffix
    if kind == ".parquet":
        yield from _parquet_rows(path, columns)
        return
    for number, line in enumerate(_lines(path, path.suffix if path.suffix in packed else "")):
        if kind not in (".jsonl", ".json", ".ndjson"):
            yield line.rstrip("\n")
            continue
        try:
            if line.strip():
                yield json.loads(line)
        except ValueError:
            raise ValueError(f"{path}, line {number + 1} is no JSON: {line.strip()!r:.60}.") from None


def _lines(path: Path, packing: str) -> Iterator[str]:
    with _opened(path, packing) as file:
        try:
            yield from file
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 text: {error.reason}.") from None
        except EOFError:
            raise ValueError(f"{path} ends in the middle; it was not written whole.") from None


def _opened(path: Path, packing: str) -> IO[str]:
    """As text; a byte order mark at the front is no letter of it."""
    readers: dict[str, Callable[..., Any]] = {"": open, ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    return readers[packing](path, "rt", encoding="utf-8-sig")


def _parquet_rows(path: Path, columns: list[str] | None) -> Iterator[dict[str, Any]]:
    import pyarrow

    try:
        with pyarrow_parquet().ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024, columns=columns):
                yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}.") from None


def pyarrow_parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise ValueError("Parquet files need the package pyarrow; `pip install pyarrow`.") from None
    return pyarrow.parquet
