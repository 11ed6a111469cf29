"""The rows of a corpus by shards: records whose vectors are written, and other columns beside them."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from elmo_hf.corpus.sentences import Record, grouped, word_count
from elmo_hf.corpus.source import Source
from elmo_hf.errors import ElmoError, reason_of

Row = tuple[Record, dict[str, Any]]  # a record, and the values of the other columns that are kept
ROWS_AT_ONCE = 1000
FAULTS = (ValueError, TypeError, OverflowError, NotImplementedError)  # of Arrow; its own are of these types


@dataclass
class ShardInput:
    """The rows of one shard. `words` is counted at whitespace."""

    number: int
    first: int  # number of the first sentence
    rows: list[Row]
    words: int
    digest: str

    @property
    def records(self) -> list[Record]:
        return [record for record, _ in self.rows]

    @property
    def others(self) -> list[dict[str, Any]]:
        return [others for _, others in self.rows]


def rows_of(corpus: Source, keeps: bool = False) -> Iterator[Row]:
    return corpus.rows() if keeps else ((record, {}) for record in corpus.records())


def survey(corpus: Source, kept: "KeptColumns | None" = None) -> tuple[dict[str, Any], int | None]:
    """Read and check every row once, which takes little time beside the model.

    Returns:
        What identifies the corpus, or its piece, in `plan.json`, and its words; of a stream, only the name
        of its type.
    """
    if corpus.stream is not None:
        return {"stream": corpus.stream}, None
    digest, sentences, words, has_words = hashlib.sha256(), 0, 0, False
    rows = rows_of(corpus, kept is not None)
    while batch := list(islice(rows, ROWS_AT_ONCE)):
        for record, others in batch:
            digest.update(row_bytes(record, others))
            sentences, words = sentences + 1, words + word_count(record)
            has_words = has_words or bool("".join(record).strip())
        if kept is not None:
            kept.add([others for _, others in batch])
    if not has_words and corpus.piece is None:  # a piece of a little text may have none
        raise ElmoError(f"{corpus.name} is empty; there is no word in it.")
    return {"sentences": sentences, "sha256": digest.hexdigest()}, words


def shard_inputs(corpus: Source, shard_words: int, keeps: bool = False) -> Iterator[ShardInput]:
    first = 0
    groups = grouped(rows_of(corpus, keeps), shard_words, lambda row: word_count(row[0]))
    for number, rows in enumerate(groups):
        digest = hashlib.sha256(b"".join(row_bytes(*row) for row in rows)).hexdigest()
        words = sum(word_count(record) for record, _ in rows)
        yield ShardInput(number, first, rows, words, digest)
        first += len(rows)


def row_bytes(record: Record, others: dict[str, Any]) -> bytes:
    text = record if isinstance(record, str) else "\x1f".join(record)
    text += f"\x1e{others!r}" if others else ""
    return text.encode("utf-8", "surrogatepass") + b"\n"


class KeptColumns:
    """The other columns of a corpus, such as `id` and `label`, and their Arrow types.

    A type is the one that the corpus declares, or one that holds all values.
    """

    def __init__(self, corpus: Source) -> None:
        self.name, self.declared = corpus.name, corpus.arrow_types()
        self.types: dict[str, Any] = {}
        self.is_complete = corpus.stream is None  # otherwise the first shard decides

    @property
    def plan(self) -> dict[str, str] | str:
        if not self.is_complete:
            return "those of the stream"
        return {name: str(arrow_type) for name, arrow_type in self.types.items()}

    def complete(self, first: ShardInput) -> None:
        """Take the types of a stream from its first shard; it cannot be read ahead."""
        if not self.is_complete:
            self.add(first.others)
            self.is_complete = True

    def add(self, others: list[dict[str, Any]]) -> None:
        """Make the types hold these values as well."""
        for name in dict.fromkeys(name for values in others for name in values):
            self.types[name] = self._type(name, [values.get(name) for values in others])

    def _type(self, name: str, values: list[Any]) -> Any:
        import pyarrow as pa

        if name in self.declared:
            return self._array(name, values, self.declared[name]).type
        new, old = self._array(name, values).type, self.types.get(name, pa.null())
        try:
            schemas = [pa.schema([(name, arrow_type)]) for arrow_type in (old, new)]
            return pa.unify_schemas(schemas, promote_options="permissive").field(name).type
        except FAULTS:
            raise self._error(name, f"it holds {old} and {new}") from None

    def arrays(self, others: list[dict[str, Any]]) -> dict[str, Any]:
        """The columns of some rows as Arrow arrays, a value a row."""
        return {
            name: self._array(name, [values.get(name) for values in others], arrow_type)
            for name, arrow_type in self.types.items()
        }

    def _array(self, name: str, values: Iterable[Any], arrow_type: Any = None) -> Any:
        import pyarrow as pa

        try:
            return pa.array(values, arrow_type)
        except FAULTS as error:
            raise self._error(name, reason_of(error)) from None

    def _error(self, name: str, reason: str) -> ElmoError:
        return ElmoError(
            f"column '{name}' of {self.name} cannot be kept in Parquet ({reason}); make its values of one "
            "type, or leave the other columns out by --no-keep-columns (keep_columns=False)."
        )
