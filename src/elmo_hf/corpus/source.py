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
import glob
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, fields
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from elmo_hf.corpus.parquet import parquet_schema, read_parquet, read_whole_parquet
from elmo_hf.corpus.readers import (
    PACKED,
    READING_ERRORS,
    RECORDS_AT_ONCE,
    Columns,
    Span,
    check_file,
    read_csv,
    read_json,
    read_text,
    suffix_of,
    undecodable_line,
)
from elmo_hf.corpus.sentences import Record, split_sentences
from elmo_hf.errors import ElmoError, reason_of
from elmo_hf.model.words_elmo import split_text
from elmo_hf.remote import is_address, local_path, matching, reachable

KINDS = {  # of files by their suffix, as `datasets` calls them; any other file is text
    ".jsonl": "json",
    ".json": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
}
READERS: dict[str, Callable[[str, str | None, Span | None], Iterator[Columns]]] = {
    "text": read_text,
    "csv": read_csv,
    "parquet": read_parquet,
}
SECONDS_FOR_HUB = 10  # until it answers
LONGEST_WORD = 10_000  # letters; the model reads the first 48 bytes of a word
_BOUNDARY = re.compile(r"(?<!\S)</?S>(?!\S)")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+|\w[\w-]*")


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
            if Path(data).is_dir() or _is_hub_name(str(data)):
                return self._open_data_set(str(data), split, config)
            data = [data]
        if not isinstance(data, list | tuple) or not data:
            raise ElmoError(f"a corpus is a file, files, a folder or a data set, but got {data!r:.60}.")
        if config is not None:
            raise ElmoError(f"{self.name} is no data set, so there is no configuration {config!r} of it.")
        self.files = [file for item in data for file in _files(item)]
        self._kind = _kind_of(self.files)
        return None

    def _open_data_set(self, name: str, split: str, config: str | None) -> Any:
        """Take the files of a folder or Hub data set, or its stream if it has options of its own."""
        import datasets

        is_here = Path(name).exists()
        try:
            with nullcontext() if is_here else _offline_without_hub():
                builder = datasets.load_dataset_builder(name, config)
        except READING_ERRORS as error:
            if is_here:
                raise
            raise ElmoError(
                f"there is no file {name}, and as a data set of the Hub, {name} cannot be read: "
                f"{reason_of(error)}."
            ) from None
        files = builder.config.data_files or {}
        if split not in files or not _is_usual(builder.config):
            return datasets.load_dataset(name, config, split=split, streaming=True)
        self.files = [str(path) for path in files[split]]
        for file in self.files:
            check_file(file)
        self._kind = _kind_of(self.files)
        return None

    def _first_row(self) -> Any:
        if self.stream is not None and self._rows_in_memory is not None:
            rows = iter(self._rows_in_memory)
            first = list(islice(rows, 1))
            self._rows_in_memory = chain(first, rows)
        else:
            first = list(islice(chain.from_iterable(map(self._rows, range(self.num_shards))), 1))
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
        for shard in range(self.num_shards):
            yield from chain.from_iterable(self._records(shard, 0))

    def rows(self) -> Iterator[tuple[Record, dict[str, Any]]]:
        """Every record, as `records` has it, with the values of the other columns of its row."""
        for shard in range(self.num_shards):
            for number, row in enumerate(self._rows(shard, whole=True)):
                is_table = self.column is not None and isinstance(row, dict)
                others = {str(name): _plain(value) for name, value in row.items()} if is_table else {}
                others.pop(str(self.column), None)
                yield self._record(self._value(row), shard, number), others

    def arrow_types(self) -> dict[str, Any]:
        """The Arrow types of the columns, as far as the files or the data set declare them."""
        if not self.files:
            features = getattr(getattr(self, "dataset", None), "features", None)
            schema = features.arrow_schema if features else ()
        elif self._kind == "parquet":
            with self._readable(self.place(0), 0):
                schema = parquet_schema(self.files[0])
        else:
            schema = ()
        return {field.name: field.type for field in schema}

    def lines(self, shard: int, skip: int = 0) -> Iterator[list[str]]:
        """The records of a shard from number `skip` on as text, some at a time.

        Held-out lines are empty, and so the numbers of the others are the same with and without them.
        """
        if self.heldout_every is not None:
            yield from self._lines_of_side(shard, skip, self.heldout_every)
            return
        for records in self._records(shard, skip):
            yield [record if isinstance(record, str) else " ".join(record) for record in records]

    def _lines_of_side(self, shard: int, skip: int, every: int) -> Iterator[list[str]]:
        """A line's side depends on how many lines before it in its shard are not empty. The count begins at
        the shard's number, so that of many small files some have held-out lines."""
        number = shard
        for records in self._records(shard, 0):
            lines = [record if isinstance(record, str) else " ".join(record) for record in records]
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
        parts = _BOUNDARY.split(line) if "S>" in line else [line]
        if self.split_sentences:
            return [sentence for part in parts for sentence in split_sentences(part)]
        return [part for part in parts if part and not part.isspace()]

    def words(self, sentence: str) -> list[str]:
        """The words of a sentence."""
        if not self.raw:
            return sentence.split()
        return split_text(_without_endless_words(sentence), "penn", whole=("<UNK>",)).words

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
            file, span = self.files[shard], self.spans.get(shard)
            return span.of(file) if span else file
        return f"{self.name}, part {shard + 1} of {self.num_shards}" if self.num_shards > 1 else self.name

    # ---- rows of a shard, their values in the column, and these as records

    def _rows(self, shard: int, whole: bool = False) -> Iterator[Any]:
        """Rows; those of a Parquet file have only the column that is read, unless they are to be whole."""
        if self._rows_in_memory is not None:
            yield from self._rows_in_memory  # what it raises comes from the caller's code, and is left alone
        elif self._kind == "json":
            with self._readable(self.place(shard), shard):
                yield from read_json(self.files[shard], self.spans.get(shard))
        else:
            for columns in self._columns(shard, 0, whole):
                for number in range(_num_rows(columns)):
                    yield {name: values[number] for name, values in columns.items()}

    def _columns(self, shard: int, skip: int, whole: bool = False) -> Iterator[Columns]:
        """The rows of a table from number `skip` on, some at a time."""
        with self._readable(self.place(shard), shard):
            if not self.files:
                rows = self.dataset.shard(self.num_shards, shard)
                yield from (rows.skip(skip) if skip else rows).iter(batch_size=RECORDS_AT_ONCE)
                return
            reader = read_whole_parquet if whole and self._kind == "parquet" else READERS[self._kind]
            for columns in reader(self.files[shard], self.column, self.spans.get(shard)):
                size = _num_rows(columns)
                if not skip:
                    yield columns
                elif skip < size:
                    yield {name: values[skip:] for name, values in columns.items()}
                skip = max(0, skip - size)

    def _records(self, shard: int, skip: int) -> Iterator[list[Record]]:
        values: Iterator[Sequence[Any]]
        if self._kind == "json" or self._rows_in_memory is not None:
            rows = islice(self._rows(shard), skip, None)
            size = RECORDS_AT_ONCE if self._kind == "json" else 1  # records in memory may be long
            values = iter(lambda: [self._value(row) for row in islice(rows, size)], [])
        else:
            column: Any = self.column
            batches = self._columns(shard, skip)
            values = (batch[column] if column in batch else [None] * _num_rows(batch) for batch in batches)
        for batch in values:
            yield [self._record(value, shard, skip + number) for number, value in enumerate(batch)]
            skip += len(batch)

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
    def _readable(self, place: str, shard: int | None = None) -> Iterator[None]:
        """One sentence for whatever `datasets` and the readers below it raise."""
        try:
            yield
        except ElmoError:
            raise
        except StopIteration:  # of an empty JSON file
            raise ElmoError(f"{place} is empty; there is no line in it.") from None
        except UnicodeDecodeError as error:
            is_file = shard is not None and self._kind in ("text", "json", "csv")
            number = None
            with suppress(*READING_ERRORS):  # of what is damaged behind that line
                if is_file and shard is not None:
                    number = undecodable_line(self.files[shard], self.spans.get(shard))
            line = f", line {number}" if number else ""
            raise ElmoError(f"{place}{line} is not UTF-8 text: {error.reason}.") from None
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


# ---- files


def _name(data: Any) -> str:
    if isinstance(data, str | Path):
        return str(data)
    if isinstance(data, list | tuple) and data:
        return f"{data[0]}" + (f" and {len(data) - 1} more" if len(data) > 1 else "")
    return f"the {type(data.records if isinstance(data, InMemory) else data).__name__}"


def _is_hub_name(name: str) -> bool:
    """ "org/name" or "name", unless a file could be meant: its folder is here, or it ends like a file."""
    suffix = Path(name).suffix
    is_like_a_file = Path(name).exists() or suffix in KINDS or suffix in PACKED or suffix == ".txt"
    is_in_a_folder = "/" in name and Path(name).parent.is_dir()
    return not is_like_a_file and not is_in_a_folder and _HUB_NAME.fullmatch(name) is not None


@contextmanager
def _offline_without_hub() -> Iterator[None]:
    """If the Hub does not answer, `datasets` looks at once for what was downloaded before. By itself, it
    would try for most of a minute first, also for a mistyped file's name."""
    import datasets
    from huggingface_hub.utils import get_session

    was_offline = datasets.config.HF_HUB_OFFLINE
    try:
        if not was_offline:
            get_session().head(datasets.config.HF_ENDPOINT, timeout=SECONDS_FOR_HUB)
    except Exception:  # of a library below, which may be another one tomorrow
        datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = was_offline


def _files(item: Any) -> list[str]:
    """The files that a path, a pattern or an address stands for, in an order that does not change."""
    name = str(item)
    if is_address(name):
        path = local_path(name)
        return matching(name) if path is None else _files(path)
    if Path(name).is_file():
        return [name]
    if Path(name).is_dir():
        raise ElmoError(
            f"{name} is a folder, which can only be read alone; say {name}/* for the files in it."
        )
    files = sorted(path for path in glob.glob(name, recursive=True) if Path(path).is_file())  # noqa: PTH207
    if not files:
        check_file(name)
        raise ElmoError(f"there is no file {name}.")
    return files


def _kind_of(files: list[str]) -> str:
    kinds = [(suffix_of(file) == ".tsv", KINDS.get(suffix_of(file), "text")) for file in files]
    for file, kind in zip(files, kinds, strict=True):
        if kind != kinds[0]:
            raise ElmoError(f"{files[0]} and {file} are files of different kinds; read one kind at a time.")
    return kinds[0][1]


def _is_usual(config: Any) -> bool:
    """Whether `datasets` would read these files with no other options than ours."""
    kind = type(config).__name__.removesuffix("Config").lower()
    files = [file for files in config.data_files.values() for file in files]
    if kind not in {*READERS, "json"} or {KINDS.get(suffix_of(file), "text") for file in files} != {kind}:
        return False
    usual = type(config)(**{"sep": "\t"} if suffix_of(files[0]) == ".tsv" else {})
    ignored = ("name", "version", "data_dir", "data_files", "description")
    names = [field.name for field in fields(config) if field.name not in ignored]
    return all(getattr(config, name) == getattr(usual, name) for name in names)


def _num_rows(columns: Columns) -> int:
    return len(next(iter(columns.values()), ()))


def _listed(names: Iterable[Any]) -> str:
    """The first names, for messages."""
    first = [f"{name!s:.40}" for name in islice(names, 21)]
    return ", ".join(first[:20]) + (" and more" if len(first) > 20 else "")


# ---- values


def _plain(value: Any) -> Any:
    """A value of numpy as Python's own."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | np.ndarray)


def without_surrogates(text: str) -> str:
    """Half a letter has no bytes, so that nothing could be written; the tokenizer passes over it as well."""
    return text if text.isascii() else text.encode("utf-8", "ignore").decode("utf-8")


def _without_endless_words(text: str) -> str:
    """Letters without a blank for pages, as files of all kinds have, cut where no word would reach."""
    if len(text) <= LONGEST_WORD:
        return text
    words = text.split()
    if max(map(len, words), default=0) <= LONGEST_WORD:
        return text
    starts = ((word, range(0, len(word), LONGEST_WORD)) for word in words)
    return " ".join(word[start : start + LONGEST_WORD] for word, places in starts for start in places)
