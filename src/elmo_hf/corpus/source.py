"""The one reader of text: files, data sets and Python iterables as records, sentences and words.

    source = Source("corpus/*.txt.gz")                              # a sentence a line, blanks between words
    source = Source("wiki.jsonl", raw=True, split_sentences=True)   # paragraphs of plain text
    source = Source("Salesforce/wikitext", config="wikitext-103-raw-v1", split="train")
    for words in source: ...
    for record in open_records(["Ice is cold .", "Why ?"]).records(): ...

A record is a line of text or a row of a table. `readers` and `parquet` read the files, also those of a folder
or of a data set on the Hub; `datasets` reads what is no file of these kinds. Nothing is held in memory but
the records that are being read. A shard is a file, or what `datasets` calls so.
"""

import copy
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from elmo_hf.corpus.names import files_of, is_hub_name, is_usual, kind_of, offline_without_hub
from elmo_hf.corpus.parquet import parquet_schema, read_parquet, read_whole_parquet
from elmo_hf.corpus.readers import (
    READING_ERRORS,
    RECORDS_AT_ONCE,
    Columns,
    check_file,
    num_rows,
    read_csv,
    read_json,
    read_text,
    rows_between,
    undecodable_line,
)
from elmo_hf.corpus.sections import Section, cut_files, sections_from
from elmo_hf.corpus.sentences import Record, split_sentences
from elmo_hf.corpus.unpacking import Span
from elmo_hf.corpus.words import RawWords
from elmo_hf.errors import ElmoError, reason_of
from elmo_hf.remote import is_address, reachable

READERS: dict[str, Callable[[str, str | None, Span | None], Iterator[Columns]]] = {
    "text": read_text,
    "csv": read_csv,
    "parquet": read_parquet,
}
_BOUNDARY = re.compile(r"(?<!\S)</?S>(?!\S)")


@dataclass
class InMemory:
    """Texts, lists of words or dictionaries of a Python iterable, as the `data` of a `Source`."""

    records: Iterable[Any]


@dataclass(frozen=True)
class Piece:
    """Piece `number` of `count`, from 1 on; `size` is the corpus's, in bytes of its files or in records."""

    number: int
    count: int
    size: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


class Source:
    """A corpus. A mistake in its files' names or in its first record is raised on construction.

    Iterating gives each sentence as a list of words, in the order of the corpus. `<S>` and `</S>` in the text
    end a sentence and are not words; `<UNK>` is the unknown word.

    Args:
        data: a path, a pattern with `*`, a folder, an address, a list of these files, a name on the Hub,
            a `datasets.IterableDataset` or `Dataset`, or `InMemory` records. Files are text, JSON lines (an
            object with its columns, a text or a list of words a line) or one JSON array, Parquet, CSV or TSV,
            plain or packed (.gz, .bz2, .xz, .zst). A stream must give the same records every time.
        column: the column of the text, or of the lists of words. Default: "text" or "tokens".
        split, config: which part of a folder or Hub data set is read.
        raw: split text into words by the rule of the published models' text ("penn"); otherwise words are
            what stands between blanks.
        split_sentences: a record is a paragraph, to be split into sentences; otherwise it is one sentence.
        holds_words: whether the column holds lists of words. Default: as the first record has it.
        heldout_every: leave out the held-out lines: every so many of those that are not empty.

    Attributes:
        stream: the type of data that may be readable only once; None for files, data sets and lists.
        piece: which piece of a corpus this is, if it is one that `pieces` has cut.
    """

    def __init__(
        self,
        data: Any,
        *,
        column: str | None = None,
        split: str = "train",
        config: str | None = None,
        raw: bool = False,
        split_sentences: bool = False,
        holds_words: bool | None = None,
        heldout_every: int | None = None,
    ) -> None:
        if heldout_every is not None and heldout_every < 2:
            raise ElmoError(f"heldout_every must be at least 2, but is {heldout_every}.")
        self.heldout_every, self.is_heldout = heldout_every, False
        self.raw, self.split_sentences = raw, split_sentences
        self._raw_words = RawWords()
        self.files: list[str] = []
        self.spans: dict[int, Span] = {}  # of shards that are read in part; set by `pieces`
        self.piece: Piece | None = None
        self.stream: str | None = None
        self.name = _name(data)
        self._rows_in_memory: Iterable[Any] | None = None
        self._kind = ""  # of the files
        self.num_shards = 1
        if isinstance(data, InMemory):
            self._rows_in_memory = data.records
            if not isinstance(data.records, Sized):
                self.stream = type(data.records).__name__
        else:
            with self._readable(self.name):
                self.dataset = self._open(data, split, config)
            self.num_shards = len(self.files) or self.dataset.num_shards
        self.column = column
        self._choose_column(self._first_row(), column, holds_words)

    # ---- opening

    def _open(self, data: Any, split: str, config: str | None) -> Any:
        import datasets

        if isinstance(data, datasets.Dataset):
            return data.to_iterable_dataset()
        if isinstance(data, datasets.IterableDataset):
            self.stream = type(data).__name__
            return data
        if isinstance(data, Mapping):
            names = ", ".join(map(str, data))
            raise ElmoError(f"{self.name} is a dictionary; pass one of its parts: {names}.")
        if isinstance(data, str | Path):
            if Path(data).is_dir() or is_hub_name(str(data)):
                return self._open_data_set(str(data), split, config)
            data = [data]
        if not isinstance(data, list | tuple) or not data:
            raise ElmoError(f"a corpus is a file, files, a folder or a data set, but got {data!r:.60}.")
        if config is not None:
            raise ElmoError(f"{self.name} is no data set, so there is no configuration {config!r} of it.")
        self.files = [file for item in data for file in files_of(item)]
        self._kind = kind_of(self.files)
        return None

    def _open_data_set(self, name: str, split: str, config: str | None) -> Any:
        """Take the files of a folder or Hub data set, or its stream if it has options of its own."""
        import datasets

        is_here = Path(name).exists()
        try:
            with nullcontext() if is_here else offline_without_hub():
                builder = datasets.load_dataset_builder(name, config)
        except READING_ERRORS as error:
            if is_here:
                raise
            raise ElmoError(
                f"there is no file {name}, and as a data set of the Hub, {name} cannot be read: "
                f"{reason_of(error)}."
            ) from None
        files = builder.config.data_files or {}
        if split not in files or not is_usual(builder.config):
            return datasets.load_dataset(name, config, split=split, streaming=True)
        self.files = [str(path) for path in files[split]]
        for file in self.files:
            check_file(file)
        self._kind = kind_of(self.files)
        return None

    def _first_row(self) -> Any:
        if self.stream is not None and self._rows_in_memory is not None:
            rows = iter(self._rows_in_memory)
            first = list(islice(rows, 1))
            self._rows_in_memory = chain(first, rows)
        else:
            first = list(islice(chain.from_iterable(map(self._rows, self._shards())), 1))
        if not first:
            raise ElmoError(f"{self.name} is empty; there is no line in it.")
        return first[0]

    def _choose_column(self, row: Any, column: str | None, holds_words: bool | None) -> None:
        if isinstance(row, dict):
            names = _listed(row)
            if column is None:
                usual = [name for name in ("text", "tokens") if name in row]
                if len(usual) != 1:
                    raise ElmoError(f"name the column of {self.name} to read; it has {names or 'none'}.")
                self.column = usual[0]
            elif column not in row:
                raise ElmoError(f"{self.name} has no column '{column}'; it has {names or 'none'}.")
        elif column is not None:
            raise ElmoError(f"{self.name} has no columns, so there is no column '{column}'.")
        value = self._value(row)
        self.is_words = _is_list(value) if holds_words is None else holds_words
        self._record(value, 0, 0)
        if self.is_words and (self.raw or self.split_sentences):
            option = "raw" if self.raw else "split_sentences"
            raise ElmoError(f"{option} is for text, but {self._field} of {self.name} holds words.")

    # ---- reading

    def records(self) -> Iterator[Record]:
        """Every record, empty ones too: its text, or its words."""
        for shard in self._shards():
            yield from chain.from_iterable(self._records(shard, 0))

    def rows(self) -> Iterator[tuple[Record, dict[str, Any]]]:
        """Every record, as `records` has it, with the values of the other columns of its row."""
        for shard in self._shards():
            for number, row in enumerate(self._rows(shard, whole=True)):
                is_table = self.column is not None and isinstance(row, dict)
                others = {str(name): _plain(value) for name, value in row.items()} if is_table else {}
                others.pop(str(self.column), None)
                yield self._record(self._value(row), shard.shard, number), others

    def arrow_types(self) -> dict[str, Any]:
        """The Arrow types of the columns, as far as the files or the data set declare them."""
        if not self.files:
            features = getattr(getattr(self, "dataset", None), "features", None)
            schema = features.arrow_schema if features else ()
        elif self._kind == "parquet":
            with self._readable(self.place(0)):
                schema = parquet_schema(self.files[0])
        else:
            schema = ()
        return {field.name: field.type for field in schema}

    def _shard(self, shard: int) -> Section:
        """A shard, or as much of it as is read of a piece."""
        return Section(shard, span=self.spans.get(shard))

    def _shards(self) -> Iterator[Section]:
        return map(self._shard, range(self.num_shards))

    @cached_property
    def sections(self) -> list[Section]:
        """The sections of the corpus, in its order. Large texts are read for it once. A piece is not cut."""
        if not self.files or self.piece is not None:
            return [*self._shards()]
        with self._readable(self.name):
            sections = cut_files(self.files, self._kind)
        if self.heldout_every is None:
            return sections
        return [section._replace(filled=filled) for section, filled in self._with_filled(sections)]

    def _with_filled(self, sections: list[Section]) -> Iterator[tuple[Section, int]]:
        """Each section with the number of lines of its shard before it that are not empty."""
        filled, shard = 0, 0
        for section in sections:
            filled, shard = filled if section.shard == shard else 0, section.shard
            yield section, filled
            if not section.is_whole:
                texts = chain.from_iterable(map(_as_texts, self._records(section, 0)))
                filled += sum(bool(text) and not text.isspace() for text in texts)

    def lines(self, shard: int, skip: int = 0) -> Iterator[list[str]]:
        """The records of a shard from number `skip` on as text, some at a time.

        Held-out lines are empty, and so the numbers of the others are the same with and without them.
        """
        return self.lines_of(self._shard(shard), skip)

    def lines_of(self, section: Section, skip: int = 0) -> Iterator[list[str]]:
        """The same of a section. What is before line `skip` is not read, if the file's format allows it."""
        if self.heldout_every is not None:
            yield from self._lines_of_side(section, skip, self.heldout_every)
            return
        sections = [section]
        if skip and section.is_whole and self.files:
            with self._readable(self.place(section.shard), section):
                sections = sections_from(self.files[section.shard], self._kind, section, skip)
        for inner in sections:
            for records in self._records(inner, max(0, section.first + skip - inner.first)):
                yield _as_texts(records)

    def _lines_of_side(self, section: Section, skip: int, every: int) -> Iterator[list[str]]:
        """A line's side depends on how many lines before it in its shard are not empty. The count begins at
        the shard's number, so that of many small files some have held-out lines."""
        number = section.shard + section.filled
        for records in self._records(section, 0):
            lines = _as_texts(records)
            for index, line in enumerate(lines):
                number += bool(line) and not line.isspace()
                if (number % every == 0) != self.is_heldout:
                    lines[index] = ""
            if skip < len(lines):
                yield lines[skip:]
            skip = max(0, skip - len(lines))

    def heldout(self) -> "Source":
        """The held-out lines of the same corpus; there is a word in them."""
        source = copy.copy(self)
        source.is_heldout = True
        if not any(source):
            raise ElmoError(
                f"{self.name} has too few lines: with heldout_every {self.heldout_every:,} none is held out; "
                "lower it, or name held-out text of its own."
            )
        return source

    def sentences(self, line: str) -> list[str]:
        """The sentences of a line as text; none of an empty one."""
        texts = _BOUNDARY.split(line) if "S>" in line else [line]
        if self.split_sentences:
            return [sentence for text in texts for sentence in split_sentences(text)]
        return [text for text in texts if text and not text.isspace()]

    def words(self, sentence: str) -> list[str]:
        """The words of a sentence."""
        return self._raw_words.split(sentence) if self.raw else sentence.split()

    def __iter__(self) -> Iterator[list[str]]:
        """Every sentence's words, in the order of the corpus."""
        for shard in range(self.num_shards):
            for line in chain.from_iterable(self.lines(shard)):
                yield from map(self.words, self.sentences(line))

    @property
    def is_plain_text(self) -> bool:
        """Whether a record is a line of a text file or of memory, and not the column of a table."""
        return self._kind == "text" or self.column is None

    @property
    def identity(self) -> dict[str, Any]:
        """What must be the same for the sentences to be the same."""
        facts = {"shards": self.num_shards, "raw": self.raw, "split_sentences": self.split_sentences}
        return facts if self.heldout_every is None else facts | {"heldout_every": self.heldout_every}

    def place(self, shard: int) -> str:
        """The name of a shard, for messages."""
        if len(self.files) == self.num_shards:
            span = self.spans.get(shard)
            return self.files[shard] if span is None else span.of(self.files[shard])
        return f"{self.name}, part {shard + 1} of {self.num_shards}" if self.num_shards > 1 else self.name

    # ---- rows of a shard, their values in the column, and these as records

    def _rows(self, section: Section, whole: bool = False) -> Iterator[Any]:
        """Rows; those of a Parquet file have only the column that is read, unless they are to be whole."""
        if self._rows_in_memory is not None:
            yield from self._rows_in_memory  # what it raises comes from the caller's code, and is left alone
        elif self._kind == "json":
            with self._readable(self.place(section.shard), section):
                yield from read_json(self.files[section.shard], section.span)
        else:
            for columns in self._columns(section, 0, whole):
                for number in range(num_rows(columns)):
                    yield {name: values[number] for name, values in columns.items()}

    def _columns(self, section: Section, skip: int, whole: bool = False) -> Iterator[Columns]:
        """The rows of a table from number `skip` on, some at a time."""
        shard = section.shard
        with self._readable(self.place(shard), section):
            if not self.files:
                rows = self.dataset.shard(self.num_shards, shard)
                yield from (rows.skip(skip) if skip else rows).iter(batch_size=RECORDS_AT_ONCE)
                return
            reader = read_whole_parquet if whole and self._kind == "parquet" else READERS[self._kind]
            columns = reader(self.files[shard], self.column, section.span)
            yield from rows_between(columns, Span(skip, sys.maxsize) if skip else None)

    def _records(self, section: Section, skip: int) -> Iterator[list[Record]]:
        values: Iterator[Sequence[Any]]
        if self._kind == "json" or self._rows_in_memory is not None:
            rows = islice(self._rows(section), skip, None)
            size = RECORDS_AT_ONCE if self._kind == "json" else 1  # records in memory may be long
            values = iter(lambda: [self._value(row) for row in islice(rows, size)], [])
        else:
            column: Any = self.column
            batches = self._columns(section, skip)
            values = (batch[column] if column in batch else [None] * num_rows(batch) for batch in batches)
        if self._kind == "text" and not self.is_words:
            yield from map(list, values)  # lines need no check
            return
        first = section.first + skip
        for batch in values:
            yield [self._record(value, section.shard, first + number) for number, value in enumerate(batch)]
            first += len(batch)

    def _value(self, row: Any) -> Any:
        if self.column is None:
            return row
        return row.get(self.column) if isinstance(row, dict) else None

    def _record(self, value: Any, shard: int, number: int) -> Record:
        if isinstance(value, str) and not self.is_words:
            return without_surrogates(value)
        if self.is_words and _is_list(value) and all(isinstance(word, str) for word in value):
            return [without_surrogates(word) for word in value]
        expected = "a list of words" if self.is_words else "text"
        raise ElmoError(
            f"{self.place(shard)}, record {number + 1}: {self._field} should be {expected}, but is "
            f"{' '.join(repr(value).split()):.60}."
        )

    @property
    def _field(self) -> str:
        return f"column '{self.column}'" if self.column is not None else "the record"

    @contextmanager
    def _readable(self, place: str, section: Section | None = None) -> Iterator[None]:
        """One sentence for whatever `datasets` and the readers below it raise."""
        try:
            yield
        except ElmoError:
            raise
        except StopIteration:  # of an empty JSON file
            raise ElmoError(f"{place} is empty; there is no line in it.") from None
        except UnicodeDecodeError as error:
            with suppress(*READING_ERRORS):  # of what is damaged behind that line
                if section is not None and self._kind in ("text", "json", "csv"):
                    place = undecodable_line(self.files[section.shard], section.span) or place
            raise ElmoError(f"{place} is not UTF-8 text: {error.reason}.") from None
        except EOFError:
            raise ElmoError(f"{place} ends in the middle; it was not written whole.") from None
        except READING_ERRORS as error:
            raise ElmoError(f"{place} cannot be read: {reason_of(error)}.") from None
        except Exception as error:
            if not is_address(place):
                raise
            with reachable(place):  # of a library for the address, which has errors of its own
                raise error from None


def open_records(
    data: Any,
    text_column: str | None = None,
    tokens_column: str | None = None,
    *,
    column: str | None = None,
    split: str = "train",
    subset: str | None = None,
) -> Source:
    """A corpus for `embed` and `perplexity`: a list is not one of files, but of texts or lists of words.

    Args:
        data: what `Source` reads, except lists of files; or an iterable of texts, lists of words or
            dictionaries.
        column: the column of the text, or of the lists of words. Default: "text" or "tokens".
        text_column, tokens_column: the same, where the one must hold text, and the other lists of words.
        split, subset: which part of a folder or Hub data set is read.
    """
    given = [name for name in (column, text_column, tokens_column) if name is not None]
    if len(given) > 1:
        raise ElmoError(
            "column, text_column and tokens_column cannot both be given; a sentence is in one of them."
        )
    if not isinstance(data, str | Path | Iterable):
        raise ElmoError(f"a corpus is a file or an iterable, but got {type(data).__name__}.")
    is_data_set = type(data).__module__.split(".")[0] == "datasets" and "Column" not in type(data).__name__
    if not isinstance(data, str | Path | Mapping) and not is_data_set:
        data = InMemory(data)
    holds_words = None if text_column is None and tokens_column is None else tokens_column is not None
    chosen = given[0] if given else None
    return Source(data, column=chosen, split=split, config=subset, holds_words=holds_words)


# ---- names and values


def _name(data: Any) -> str:
    if isinstance(data, str | Path):
        return str(data)
    if isinstance(data, list | tuple) and data:
        return f"{data[0]}" + (f" and {len(data) - 1} more" if len(data) > 1 else "")
    return f"the {type(data.records if isinstance(data, InMemory) else data).__name__}"


def _as_texts(records: list[Record]) -> list[str]:
    return [record if isinstance(record, str) else " ".join(record) for record in records]


def _listed(names: Iterable[Any]) -> str:
    """The first names, for messages."""
    first = [f"{name!s:.40}" for name in islice(names, 21)]
    return ", ".join(first[:20]) + (" and more" if len(first) > 20 else "")


def _plain(value: Any) -> Any:
    """A value of numpy as Python's own."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | np.ndarray)


def without_surrogates(text: str) -> str:
    """Half a letter has no bytes, so that nothing could be written; the tokenizer passes over it as well."""
    return text if text.isascii() else text.encode("utf-8", "ignore").decode("utf-8")
