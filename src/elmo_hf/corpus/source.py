"""A corpus for training: whatever `datasets` can stream, read shard by shard, and its lines as sentences.

    source = Source("corpus/*.txt.gz")                              # a sentence a line, blanks between words
    source = Source("wiki.jsonl", raw=True, split_sentences=True)   # paragraphs of plain text
    source = Source("Salesforce/wikitext", config="wikitext-103-raw-v1", split="train")
    for words in source: ...

A source is text, JSON lines, Parquet or CSV, plain or packed (.gz, .bz2, .xz, .zst): one file or several, a
pattern, a folder, an address, a data set on the Hub, or a stream of `datasets` itself. Nothing is held in
memory but the lines that are being read. A shard is what `datasets` calls so: mostly a file.
"""

import glob
import lzma
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from elmo_hf.corpus.zstd import check_whole
from elmo_hf.model.words_elmo import split_sentences, split_text

KINDS: dict[str, tuple[str, dict[str, Any]]] = {  # what `datasets` calls a kind of file, and its options
    ".jsonl": ("json", {}),
    ".json": ("json", {}),
    ".ndjson": ("json", {}),
    ".parquet": ("parquet", {}),
    ".csv": ("csv", {}),
    ".tsv": ("csv", {"sep": "\t"}),
}
TEXT: tuple[str, dict[str, Any]] = ("text", {"encoding": "utf-8-sig"})  # a byte order mark is no letter
PACKED = {".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip"}
LINES_AT_ONCE = 100
LONGEST_WORD = 10_000  # letters; the model reads the first 48 bytes of a word
_BOUNDARY = re.compile(r"(?<!\S)</?S>(?!\S)")
_ON_THE_HUB = re.compile(r"[\w.-]+/[\w.-]+|\w[\w-]*")


class Source:
    """
    Args:
        data: a path, a pattern with `*`, a folder, an address, a list of these files, a name on the Hub, or
            a `datasets.IterableDataset` or `Dataset`. A stream must give the same records every time.
        column: where a record has its text, or a list of its words. Left out: "text" or "tokens".
        split, config: which part of a folder or Hub data set is read.
        raw: split text into words by the rule of the published models' text ("penn"); otherwise words are
            what stands between blanks.
        split_sentences: a line is a paragraph, to be split into sentences; otherwise it is one sentence.

    `<S>` and `</S>` in the text end a sentence and are no words; `<UNK>` is the unknown word.
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
    ) -> None:
        self.raw, self.split_sentences = raw, split_sentences
        self.files: list[str] = []
        self.name = _name(data)
        with self._readable(self.name):
            self.dataset = self._open(data, split, config)
        self.num_shards: int = self.dataset.num_shards
        self._choose_column(column)

    # ---- opening

    def _open(self, data: Any, split: str, config: str | None) -> Any:
        datasets = _datasets()
        if isinstance(data, datasets.Dataset):
            return data.to_iterable_dataset()
        if isinstance(data, datasets.IterableDataset):
            return data
        if isinstance(data, dict):
            raise _Refused(f"the data is a dictionary; pass one of its parts: {', '.join(map(str, data))}.")
        if isinstance(data, str | Path):
            if Path(data).is_dir() or _is_on_the_hub(str(data)):
                return datasets.load_dataset(str(data), config, split=split, streaming=True)
            data = [data]
        if not isinstance(data, list | tuple) or not data:
            raise _Refused(f"a corpus is a file, files, a folder or a data set, but got {data!r:.60}.")
        self.files = [file for item in data for file in _files(item)]
        for file in self.files:
            _check_packed(file)
        kind, options = _kind(self.files)
        return datasets.load_dataset(kind, data_files=self.files, split="train", streaming=True, **options)

    def _choose_column(self, column: str | None) -> None:
        """Whatever is wrong with the first record is found here."""
        first = next((batch for shard in range(self.num_shards) for batch in self._raw(shard, 0)), None)
        if not first:
            raise ValueError(f"{self.name} is empty; there is no line in it.")
        names = ", ".join(map(str, first))
        if column is None:
            there = [name for name in ("text", "tokens") if name in first]
            if len(there) != 1:
                raise ValueError(f"say by column what to read of {self.name}; it has {names}.")
            column = there[0]
        elif column not in first:
            raise ValueError(f"{self.name} has no column '{column}'; it has {names}.")
        self.column = column
        self.is_words = isinstance(first[column][0], list | tuple)
        if self.is_words and (self.raw or self.split_sentences):
            option = "raw" if self.raw else "split_sentences"
            raise ValueError(f"{option} is for text, but column '{column}' of {self.name} holds words.")

    # ---- reading

    def lines(self, shard: int, skip: int = 0) -> Iterator[list[str]]:
        """The lines of a shard from line `skip` on, some at a time."""
        for batch in self._raw(shard, skip):
            values = batch.get(self.column)
            if values is None:
                raise ValueError(f"{self.place(shard)}, line {skip + 1}: there is no column '{self.column}'.")
            yield [self._text(value, shard, skip + number) for number, value in enumerate(values)]
            skip += len(values)

    def sentences(self, line: str) -> list[str]:
        """The sentences of a line as text; none of an empty one."""
        parts = _BOUNDARY.split(line) if "S>" in line else [line]
        if self.split_sentences:
            return [sentence for part in parts for sentence in split_sentences(part)]
        return [part for part in parts if part and not part.isspace()]

    def words(self, sentence: str) -> list[str]:
        if not self.raw:
            return sentence.split()
        return split_text(_without_endless_words(sentence), "penn", whole=("<UNK>",)).words

    def __iter__(self) -> Iterator[list[str]]:
        """Every sentence's words, in the order of the corpus."""
        for shard in range(self.num_shards):
            for lines in self.lines(shard):
                for line in lines:
                    yield from map(self.words, self.sentences(line))

    @property
    def identity(self) -> dict[str, Any]:
        """What must be the same for the sentences to be the same."""
        return {"shards": self.num_shards, "raw": self.raw, "split_sentences": self.split_sentences}

    def _raw(self, shard: int, skip: int) -> Iterator[dict[str, list[Any]]]:
        part = self.dataset.shard(self.num_shards, shard)
        with self._readable(self.place(shard)):
            yield from (part.skip(skip) if skip else part).iter(batch_size=LINES_AT_ONCE)

    def _text(self, value: Any, shard: int, number: int) -> str:
        if isinstance(value, str) and not self.is_words:
            return _without_surrogates(value)
        is_list = self.is_words and isinstance(value, list | tuple)
        if is_list and all(isinstance(word, str) for word in value):
            return _without_surrogates(" ".join(value))
        wanted = "a list of words" if self.is_words else "text"
        raise ValueError(
            f"{self.place(shard)}, line {number + 1}: '{self.column}' should be {wanted}, but is "
            f"{value!r:.60}."
        )

    def place(self, shard: int) -> str:
        if len(self.files) == self.num_shards:
            return self.files[shard]
        return f"{self.name}, part {shard + 1} of {self.num_shards}"

    @contextmanager
    def _readable(self, place: str) -> Iterator[None]:
        """One sentence for whatever `datasets` and the readers below it raise."""
        try:
            yield
        except _Refused as error:
            raise ValueError(str(error)) from None
        except StopIteration:  # of an empty JSON file
            raise ValueError(f"{place} is empty; there is no line in it.") from None
        except UnicodeDecodeError as error:
            raise ValueError(f"{place} is not UTF-8 text: {error.reason}.") from None
        except _reading_errors() as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ValueError(f"{place} cannot be read: {reason.rstrip('.')}.") from None


class _Refused(ValueError):
    """A sentence of our own, which needs no other around it."""


def _datasets() -> Any:
    try:
        import datasets
    except ImportError:
        raise _Refused("a corpus is read by the package datasets; `pip install datasets`.") from None
    return datasets


def _reading_errors() -> tuple[type[BaseException], ...]:
    """Of files that are missing, damaged, cut off, or of another kind than their name says."""
    errors: list[type[BaseException]] = [
        ValueError,
        OSError,
        EOFError,
        RuntimeError,
        ImportError,
        lzma.LZMAError,
        zlib.error,
    ]
    try:
        from zstandard import ZstdError
    except ImportError:
        return tuple(errors)
    return (*errors, ZstdError)


# ---- names of files


def _name(data: Any) -> str:
    if isinstance(data, str | Path):
        return str(data)
    if isinstance(data, list | tuple) and data:
        return f"{data[0]}" + (f" and {len(data) - 1} more" if len(data) > 1 else "")
    return f"the {type(data).__name__}"


def _is_on_the_hub(name: str) -> bool:
    """ "org/name" or "name", unless a file could be meant: its folder is here, or it ends like a file."""
    suffix = Path(name).suffix
    is_like_a_file = Path(name).exists() or suffix in KINDS or suffix in PACKED or suffix == ".txt"
    is_in_a_folder = "/" in name and Path(name).parent.is_dir()
    return not is_like_a_file and not is_in_a_folder and _ON_THE_HUB.fullmatch(name) is not None


def _files(item: Any) -> list[str]:
    """The files that a path, a pattern or an address stands for, in an order that does not change."""
    name = str(item)
    if "://" in name or Path(name).is_file():
        return [name]
    if Path(name).is_dir():
        raise _Refused(f"{name} is a folder, which can only be read alone; say {name}/* for the files in it.")
    found = sorted(path for path in glob.glob(name, recursive=True) if Path(path).is_file())  # noqa: PTH207
    if not found:
        raise _Refused(f"there is no file {name}.")
    return found


def _check_packed(file: str) -> None:
    """Of all that packs, only zstd's reader does not notice that a file was cut off."""
    if Path(file).suffix == ".zst" and Path(file).is_file():
        try:
            check_whole(file)
        except ValueError as error:
            raise _Refused(str(error)) from None


def _kind(files: list[str]) -> tuple[str, dict[str, Any]]:
    kinds = {}
    for file in files:
        path = Path(file)
        suffix = Path(path.stem).suffix if path.suffix in PACKED else path.suffix
        kinds[file] = KINDS.get(suffix, TEXT)
    for file in files:
        if kinds[file] != kinds[files[0]]:
            raise _Refused(f"{files[0]} and {file} are files of different kinds; read one kind at a time.")
    return kinds[files[0]]


def _without_surrogates(text: str) -> str:
    """Half a letter has no bytes, so that no vocabulary could be written."""
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
