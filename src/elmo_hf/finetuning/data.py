"""Examples of a task, from files in columns or from a dataset of `datasets`.

    data = read_splits(flags, read_file, from_row)    # {"train": [...], "dev": [...], "test": [...]}
    labels = labels_of(data, scheme="BIO")

An example is a dictionary with `tokens`, a list of words, and what else the task needs.
"""

import argparse
import csv
import io
import json
import random
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import datasets

from elmo_hf.corpus.readers import (
    READING_ERRORS,
    are_json_lines,
    check_file,
    read_blocks,
    read_json,
    suffix_of,
    undecodable_line,
)
from elmo_hf.errors import ElmoError, reason_of, warn
from elmo_hf.finetuning.flags import SPLITS
from elmo_hf.loading import load_config

Example = dict[str, Any]
DOCUMENT = "-DOCSTART-"  # the first column of a line between two documents
LONGEST_TEXT = 2**29  # characters of a file; SNLI's have half as many
PLACEHOLDERS = {"", "_", "[WORD]"}  # in place of the words, in data that may not be published with them
RANGE = re.compile(r"\d+[-.]\d+")  # the numbers of several words, or of a word that is not written
JSON_LINES = (".jsonl", ".json", ".ndjson")
_QUOTED = re.compile(r'(?:^|\t)"[^\t\n]*""[^\t\n]*"(?:\t|\r?$)', re.M)  # a field "She said ""no"" to it."
SMOKE_EXAMPLES = {"train": 300, "dev": 100, "test": 100}


def number_of_words(example: Example) -> int:
    return len(example["tokens"])


# ---- splits


def read_splits(
    flags: argparse.Namespace,
    read: Callable[[Path], list[Example]],
    from_row: Callable[[Example, str], list[Example]],
) -> dict[str, list[Example]]:
    """Read the train, dev and test examples that the flags name.

    Args:
        flags: the command line's, of `make_parser`.
        read: the examples of a file (`--train`, `--dev`, `--test`).
        from_row: the examples of a row of a dataset (`--data`), given the row and its place.
    """
    splits = splits_of_run(flags)
    check_inputs(flags)
    if flags.data is None:
        data = read_files(flags, read, splits)
    else:
        data = read_dataset(flags.data, from_row, splits)
    for split, examples in data.items():
        if not examples:
            raise ElmoError(f"there are no examples in the {split} sentences.")
        check_words(split, examples)
        data[split] = examples[: flags.limit or (SMOKE_EXAMPLES[split] if flags.smoke else None)]
    return data


def check_words(split: str, examples: list[Example]) -> None:
    """Refuse data without their words, as some are published, and a column that is empty."""
    words = set()
    for word in chain.from_iterable(example.get("tokens", ()) for example in examples):
        if word not in PLACEHOLDERS:
            return
        words.add(word)
    if words:
        raise ElmoError(
            f"all words of the {split} sentences are {' or '.join(map(repr, sorted(words)))}; add the words "
            "to the data, or name their column."
        )


def check_inputs(flags: argparse.Namespace, files: str | None = None) -> None:
    """Refuse files beside a dataset, which would not be read, and neither of them. `files` names the flags
    that a run needs, by default those of its splits."""
    are_named = any(getattr(flags, split) for split in SPLITS)
    if (flags.data is None) != are_named:
        needed = ", ".join(f"--{split}" for split in splits_of_run(flags))
        files = files or " and ".join(needed.rsplit(", ", 1))
        raise ElmoError(f"name files by {files}, or a dataset by --data.")


def splits_of_run(flags: argparse.Namespace) -> tuple[str, ...]:
    """Return the splits that a run needs: all, or with `--evaluate` test alone."""
    return SPLITS if getattr(flags, "evaluate", None) is None else ("test",)


def read_files(
    flags: argparse.Namespace, read: Callable[[Path], list[Example]], splits: Sequence[str] = SPLITS
) -> dict[str, list[Example]]:
    for split in splits:
        if not getattr(flags, split):
            raise ElmoError(f"name the files of the {split} sentences by --{split}.")
    return {
        split: [example for path in getattr(flags, split) for example in read(Path(path))] for split in splits
    }


def read_dataset(
    name: str, from_row: Callable[[Example, str], list[Example]], splits: Sequence[str] = SPLITS
) -> dict[str, list[Example]]:
    dataset = load_dataset(name)
    theirs = {"train": "train", "dev": "dev" if "dev" in dataset else "validation", "test": "test"}
    names = {split: theirs[split] for split in splits}
    data = {}
    for split, rows in splits_of(name, dataset, names).items():
        place = f"the {names[split]} split"
        numbered = enumerate(with_names(rows), start=1)
        data[split] = [
            example for number, row in numbered for example in from_row(row, f"row {number} of {place}")
        ]
        warn_of_unlabelled(f"{place} of {name}", len(rows), len(data[split]))
    return data


def warn_of_unlabelled(place: str, rows: int, examples: int) -> None:
    """Say how many rows gave no example, because nobody could label them."""
    if rows > examples:
        warn(f"{place}: {rows - examples:,} of {rows:,} rows have no label, and are left out.")


def load_dataset(name: str) -> Mapping[str, Any]:
    """Return the splits of a dataset: a folder that `save_to_disk` wrote, or what `load_dataset` takes."""
    try:
        is_saved = Path(name, "dataset_dict.json").exists()
        return datasets.load_from_disk(name) if is_saved else datasets.load_dataset(name)
    except Exception as error:  # `datasets` passes on whatever its readers of files raise
        raise ElmoError(f"no dataset could be read from {name} ({reason_of(error):.300}).") from None


def splits_of(name: str, dataset: Mapping[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Return splits by our names; `names` has the dataset's name of each."""
    for split in names.values():
        if split not in dataset:
            raise ElmoError(f"{name} has no split '{split}', but {', '.join(dataset)}.")
    return {split: dataset[theirs] for split, theirs in names.items()}


def drawn(data: dict[str, list[Example]], flags: argparse.Namespace) -> dict[str, list[Example]]:
    """Draw as many examples as `--train-size`, `--dev-size` and `--test-size` say, and keep their order.

    The draw is the same in all runs, and a smaller one is part of a larger one.
    """
    result = {}
    for split, examples in data.items():
        size = getattr(flags, f"{split}_size", None)
        if size is not None and not 1 <= size <= len(examples):
            raise ElmoError(f"--{split}-size must be from 1 to {len(examples)}, but is {size}.")
        shuffled = random.Random(0).sample(range(len(examples)), len(examples))
        result[split] = [examples[index] for index in sorted(shuffled[:size])]
    return result


def longest_first(data: dict[str, list[Example]]) -> dict[str, list[Example]]:
    """Sort the dev and test examples by length: batches have little padding, and a lack of memory shows in
    the first one."""
    judged = [split for split in ("dev", "test") if split in data]
    return data | {split: sorted(data[split], key=number_of_words, reverse=True) for split in judged}


def labels_of(data: dict[str, list[Example]], scheme: str | None = None) -> list[str]:
    """Return the names of all labels, in an order that does not depend on the order of the examples.

    With scheme "BIO", O and the B- of each I- are among them.
    """
    labels = set().union(*map(labels_in, data.values()))
    if scheme == "BIO":
        labels |= {"O"} | {"B-" + label[2:] for label in labels if label.startswith("I-")}
    return sorted(labels, key=lambda label: (label != "O", label[2:], label))


def labels_in(examples: list[Example]) -> set[str]:
    return {label for example in examples for label in example.get("labels", ())}


def task_labels(
    flags: argparse.Namespace, data: dict[str, list[Example]], scheme: str | None = None
) -> list[str]:
    """Return the names of the label ids: those of the data; or, with `--evaluate`, those of the model, and
    behind them any that only the data have, which the model never predicts."""
    names = labels_of(data, scheme)
    if getattr(flags, "evaluate", None) is None:
        if scheme == "BIO" and labels_in(data["train"]) == {"O"}:
            raise ElmoError("all labels of the train sentences are O, no span; are they in the right column?")
        check_known(data)
        return names
    own = labels_of_model(flags.evaluate)
    return own + [name for name in names if name not in own]


def check_known(data: dict[str, list[Example]]) -> None:
    """Refuse dev or test labels of which train has none: the scores would be 0."""
    known = labels_in(data["train"]) - {"O"}
    for split in ("dev", "test"):
        labels = labels_in(data[split]) - {"O"}
        if labels and labels.isdisjoint(known):
            raise ElmoError(
                f"the labels of the {split} sentences, such as {min(labels)}, are not among those of the "
                f"train sentences, such as {min(known, default='O')}; write them alike in all files."
            )


def labels_of_model(name: str) -> list[str]:
    labels: Any = load_config(name).id2label
    return [labels[number] for number in range(len(labels))]


# ---- rows of a dataset


def with_names(dataset: Any) -> Iterator[Example]:
    """Yield the rows with label names in place of the numbers of a `ClassLabel` (one, or one a word)."""
    features = {name: getattr(feature, "feature", feature) for name, feature in dataset.features.items()}
    for row in dataset:
        yield {name: named(value, getattr(features[name], "names", None)) for name, value in row.items()}


def named(value: Any, names: Sequence[str] | None) -> Any:
    """Return the name of a label number, or the names of several; a number below zero is no label."""
    if names is None or value is None:
        return value
    if isinstance(value, int):
        return names[value] if value >= 0 else None
    return [named(number, names) for number in value]


def first_column(row: Example, names: Sequence[str], where: str) -> Any:
    """Return the first of these columns that the row has."""
    for name in names:
        if name in row:
            return row[name]
    raise ElmoError(f"{where} has no column {' or '.join(names)}, but {', '.join(row)}.")


# ---- files


def read_columns(path: Path) -> list[list[list[str]]]:
    """Read the sentences of a file with one word a line in columns; a packed one is unpacked.

    A blank line or a line of `-DOCSTART-` ends a sentence. Left out are comments. A line that begins with `#`
    is a comment unless it has as many columns as the words have, since `#` may be a word.
    """
    if kind_of(path) in JSON_LINES:
        raise ElmoError(
            f"{path} is JSON, and a file of this task has a word a line, in columns; put the JSON lines of "
            "all splits into a folder (train.jsonl, dev.jsonl, test.jsonl), and name that by --data."
        )
    sentences: list[list[str]] = [[]]
    text = read_text(path)
    for line in text.split("\n" if "\n" in text else "\r"):
        line = line.rstrip("\r")
        if line.strip() and columns_of(line)[0] != DOCUMENT:
            sentences[-1].append(line)
        else:
            sentences.append([])
    typical = next((line for lines in sentences for line in lines if not line.startswith("#")), "")
    rows = (without_comments(lines, typical) for lines in sentences)
    return [sentence for sentence in rows if sentence]


def without_comments(lines: list[str], typical: str) -> list[list[str]]:
    """Return the columns of a sentence's lines; `typical` is a word's line, for sentences of `#` alone."""
    word = next((line for line in reversed(lines) if not line.startswith("#")), typical)
    rows = [(line, columns_of(line)) for line in lines]
    return [
        columns
        for line, columns in rows
        if not line.startswith("#")
        or (("\t" in line) == ("\t" in word) and len(columns) == len(columns_of(word)))
    ]


def columns_of(line: str) -> list[str]:
    """Return the fields between tabs, or else between blanks; other white space, such as a no-break space,
    belongs to a word."""
    if "\t" in line:
        return [field.strip(" ") for field in line.split("\t")]
    return [field for field in line.split(" ") if field]


def without_ranges(lines: list[list[str]]) -> list[list[str]]:
    """Leave out the ranges (1-2) and empty words (1.1) of a sentence whose first column numbers its words, as
    in CoNLL-U."""
    words = [line for line in lines if not RANGE.fullmatch(line[0])]
    return words if words and all(line[0].isdecimal() for line in words) else lines


def are_numbered(sentences: list[list[list[str]]]) -> bool:
    """Whether the first column of all sentences has rising numbers: `1`, `2` ... or `7-1`, `7-2` ..."""
    for lines in sentences:
        fields = [line[0].rpartition("-")[2] for line in without_ranges(lines)]
        if not all(field.isdecimal() for field in fields):
            return False
        numbers = [int(field) for field in fields]
        if any(later <= earlier for earlier, later in pairwise(numbers)):
            return False
    return True


def read_rows(path: Path) -> Iterator[tuple[str, Example]]:
    """Yield the place and the columns of each row of a file: JSON lines (`.jsonl`), CSV (`.csv`), or columns
    separated by tabs, without quotation marks. The first line of CSV and columns names them."""
    kind = kind_of(path)
    if kind in JSON_LINES:
        yield from json_rows(path)
        return
    text = read_text(path)
    if not text.strip():
        raise ElmoError(f"{path} has no rows.")
    lines: Iterator[tuple[int, list[str]]]
    if kind == ".csv":
        lines = csv_rows(text, path)
    else:
        warn_of_quotes(text, path)
        lines = ((number, line.rstrip("\r").split("\t")) for number, line in enumerate(text.split("\n"), 1))
    _, header = next(lines, (1, [""]))
    twice = [name for name in header if name and header.count(name) > 1]
    if twice:
        raise ElmoError(f"{path}, line 1 names the column {twice[0]!r:.60} twice; rename one of them.")
    yield f"{path}, line 1", dict.fromkeys(header)
    for number, fields in lines:
        if len(fields) < 2 and not "".join(fields).strip():
            continue
        if fields == header:
            raise ElmoError(f"{path}, line {number} repeats the names of the columns; leave that line out.")
        if len(fields) != len(header):
            raise ElmoError(f"{path}, line {number}: {len(fields)} columns in place of {len(header)}.")
        yield f"{path}, line {number}", dict(zip(header, fields, strict=True))


def kind_of(path: Path) -> str:
    """Return the suffix of a name without that of a packed file."""
    return suffix_of(str(path)).lower()


def warn_of_quotes(text: str, path: Path) -> None:
    if _QUOTED.search(text):
        warn(
            f"{path} has quotation marks around fields, as in CSV, but between tabs they are part of the "
            "text; if that is wrong, save it as .csv, with commas."
        )


def csv_rows(text: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(LONGEST_TEXT)
    reader = csv.reader(io.StringIO(text), strict=True)
    try:
        for fields in reader:
            yield reader.line_num, fields
    except csv.Error as error:
        raise ElmoError(f"{path}, line {reader.line_num} is no CSV ({error}).") from None


def json_rows(path: Path) -> Iterator[tuple[str, Example]]:
    """Yield the place and each object. The first is the columns of the first object, all None."""
    is_first = True
    for where, row in json_values(path):
        if not isinstance(row, dict):
            raise ElmoError(f"{where} is no JSON object with columns, but {reprlib.repr(row)}.")
        if is_first:
            yield where, dict.fromkeys(row)
            is_first = False
        yield where, row
    if is_first:
        raise ElmoError(f"{path} has no rows.")


def json_values(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the place and the value of each line; or of each entry of an array, or of longer objects."""
    with readable(path):
        if kind_of(path) == ".json" and not are_json_lines(str(path)):
            for number, value in enumerate(read_json(str(path)), start=1):
                yield f"{path}, entry {number}", value
            return
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        where = f"{path}, line {number}"
        if line.strip():
            try:
                yield where, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ElmoError(f"{where} is no JSON ({reason_of(error):.200}).") from None


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, which is unpacked if its name says so (`.xz`, `.gz` ...)."""
    blocks: list[str] = []
    size = 0
    with readable(path):
        for block in read_blocks(str(path), newline=""):
            blocks.append(block)
            size += len(block)
            if size > LONGEST_TEXT:
                raise ElmoError(f"{path} has more than {LONGEST_TEXT:,} characters; cut it into files.")
    return "".join(blocks)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """One sentence for whatever reading a file raises."""
    try:
        check_file(str(path))
        yield
    except ElmoError:
        raise
    except OSError as error:
        raise ElmoError(f"{path} could not be read ({reason_of(error)}).") from None
    except UnicodeDecodeError:
        place = None
        with suppress(*READING_ERRORS):  # of what is damaged behind that line
            place = undecodable_line(str(path))
        where = f" (in {place})" if place else ""
        raise ElmoError(f"{path} is no text in UTF-8, or is damaged{where}.") from None
    except READING_ERRORS:
        raise ElmoError(f"{path} is no text in UTF-8, or is damaged.") from None
