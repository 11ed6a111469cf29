"""The command `elmo-hf vectors`: sentences from its arguments, files or standard input, and its output.

    elmo-hf vectors "He sat on the bank." "The bank lent him money."
    elmo-hf vectors --file corpus.txt --pool mean --output corpus.npy
    cat corpus.txt | elmo-hf vectors - --format json

An argument is a sentence. One that could be a file's name or stand for standard input is never taken for a
sentence, unless `--as-text` says that all are.
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from tqdm.auto import tqdm

from elmo_hf.corpus.names import KINDS
from elmo_hf.corpus.source import Source, open_records
from elmo_hf.corpus.standard_input import as_file
from elmo_hf.corpus.unpacking import PACKED
from elmo_hf.demo.terminal import comparisons, numbers, repeated_words
from elmo_hf.embedding.embedder import Embedder, Options, parse_layers
from elmo_hf.embedding.encode import SECONDS_WITHOUT_BAR, encoded
from elmo_hf.embedding.rows import survey
from elmo_hf.embedding.shards import Embedded, write_npy
from elmo_hf.errors import HIDDEN, ElmoError, quoted
from elmo_hf.files import whole_file
from elmo_hf.loading import load
from elmo_hf.model.modeling_elmo import ElmoModel

SUFFIXES = {".npy": "npy", ".json": "json", ".jsonl": "json"}


@dataclass(frozen=True)
class Output:
    format: str  # text, json or npy
    path: Path | None


def write_vectors(
    sentences: Sequence[str],
    files: Sequence[str],
    output: Output,
    model: str | Path,
    *,
    as_text: bool = False,
    column: str | None = None,
    layers: str = "average",
    pool: str | None = None,
    whitespace: bool = False,
    progress: bool = True,
) -> None:
    """Read the sentences, and print or write their vectors."""
    options = Options(pool=pool, whitespace=whitespace)
    check_output(output, files)
    with opened(sentences, files, as_text, column) as corpus:
        words = survey(corpus)[1]
        elmo, tokenizer = load(model, ElmoModel)
        embedder = Embedder(elmo, tokenizer, parse_layers(layers, elmo.config), options)
        if not files and list(sentences) != ["-"]:
            check_have_words(embedder, sentences)
        is_hidden = not progress or (output.path is None and sys.stdout.isatty())
        with tqdm(
            total=words, unit=" words", unit_scale=True, delay=SECONDS_WITHOUT_BAR, disable=is_hidden
        ) as bar:
            write(encoded(embedder, corpus.records(), bar.update), embedder, output)


# ---- what is read


@contextmanager
def opened(
    sentences: Sequence[str], files: Sequence[str], as_text: bool, column: str | None
) -> Iterator[Source]:
    """The sentences of the arguments, or of files; "-" is standard input."""
    if not sentences and not files:
        raise ElmoError("there is no sentence; give some in quotes, or --file FILE, or - for standard input.")
    if sentences and files:
        raise ElmoError("sentences and --file cannot both be given; put the sentences into a file.")
    if not as_text:
        check_are_sentences(sentences)
    names = list(files) if files else ["-"] if list(sentences) == ["-"] and not as_text else []
    if not names:
        yield open_records(list(sentences), column=column)
    elif names == ["-"]:
        with as_file("-") as path:
            yield Source(path, column=column)
    elif "-" in names:
        raise ElmoError("--file - is standard input, which cannot be read together with other files.")
    else:
        yield Source(names[0] if len(names) == 1 else names, column=column)


def check_are_sentences(arguments: Sequence[str]) -> None:
    """Refuse what could be meant for a file or for standard input."""
    for argument in arguments:
        if argument == "-" and len(arguments) > 1:
            raise ElmoError(
                "- is standard input, which cannot be read together with other sentences; give it alone, or "
                "--as-text if a dash is a sentence of yours."
            )
        if argument != "-" and argument.strip() and could_be_path(argument):
            name = quoted(argument, 200)
            is_there = "is a file or folder here" if os.path.lexists(argument) else "looks like a file's name"
            raise ElmoError(
                f"{name} {is_there}; say --file {name} to read the sentences in it, or --as-text if it is a "
                "sentence itself."
            )


def could_be_path(argument: str) -> bool:
    if os.path.lexists(argument):
        return True
    if any(character.isspace() for character in argument):
        return False
    suffixes = {*KINDS, *PACKED, ".txt", ".npy"}
    is_rooted = argument.startswith(("/", "./", "../", "~/")) or "://" in argument
    is_in_folder = "/" in argument and Path(argument).parent.is_dir()
    is_name = Path(argument).suffix.lower() in suffixes and Path(argument).stem.strip(".") != ""
    return is_rooted or is_in_folder or is_name


def check_have_words(embedder: Embedder, sentences: Iterable[str]) -> None:
    for number, sentence in enumerate(sentences, start=1):
        if not embedder.split(sentence):
            raise ElmoError(f"sentence {number} has no words; give each sentence at least one.")


# ---- what is written


def choose_output(format: str | None, as_json: bool, path: Path | None) -> Output:
    """`--json` is `--format json`; by default, the name of the output says the format."""
    if as_json and format not in (None, "json"):
        raise ElmoError(f"--json and --format {format} cannot both be given.")
    suffix = path.suffix.lower() if path is not None else ""
    chosen = format or ("json" if as_json else SUFFIXES.get(suffix, "text"))
    if chosen == "npy" and suffix != ".npy":
        raise ElmoError("the format npy needs a file to write; say --output NAME.npy.")
    return Output(chosen, path)


def check_output(output: Output, files: Sequence[str]) -> None:
    path = output.path
    if path is None:
        return
    words = path.with_suffix(".json")
    if path.is_dir():
        raise ElmoError(f"the output {path} is a folder; name a file.")
    if not path.parent.is_dir():
        raise ElmoError(f"the folder {path.parent} of the output does not exist; make it first.")
    targets = [path, words] if output.format == "npy" else [path]
    if {target.resolve() for target in targets} & {Path(file).resolve() for file in files}:
        raise ElmoError(f"the output {path} would replace a file that is read; name another one.")
    if output.format == "npy" and words.exists() and not path.exists():
        raise ElmoError(f"{words} would be replaced by the words of {path}; name another output.")


def write(sentences: Iterator[Embedded], embedder: Embedder, output: Output) -> None:
    if output.format == "npy":
        assert output.path is not None
        write_array(list(sentences), embedder, output.path)
        return
    lines = json_lines if output.format == "json" else text_lines
    if output.path is None:
        write_lines(lines(sentences, embedder), sys.stdout)
        return
    with whole_file(output.path) as partial, partial.open("w", encoding="utf-8") as file:
        write_lines(lines(sentences, embedder), file)
    print(f"Wrote {output.path}.")


def write_lines(lines: Iterable[str], file: TextIO) -> None:
    for line in lines:
        print(line, file=file)


def text_lines(sentences: Iterable[Embedded], embedder: Embedder) -> Iterator[str]:
    """Some numbers of each vector; and where a word occurs more than once, how its vectors differ."""
    embedded = list(sentences)
    words = [sentence.words or [] for sentence in embedded]
    pooled = embedder.options.pool is not None
    columns = embedder.layers.columns
    yield from numbers(words, [sentence.vectors for sentence in embedded], columns, pooled)
    if not pooled and repeated_words(words):
        config = embedder.model.config
        first = 0 if config.projection_dim == config.output_dim else 1  # layers of one width
        chosen = parse_layers(list(range(first, config.num_hidden_layers + 1)), config)
        every = Embedder(embedder.model, embedder.tokenizer, chosen, embedder.options)
        layers = [sentence.vectors for sentence in encoded(every, words)]
        if len(chosen.numbers) == 1:
            layers = [vectors[None] for vectors in layers]
        yield from comparisons(words, layers, first)


def json_lines(sentences: Iterable[Embedded], embedder: Embedder) -> Iterator[str]:
    """A line for each word, or for each sentence if pooled, with the number of its sentence, from 0 on."""
    columns = embedder.layers.columns
    for number, (words, vectors) in enumerate(sentences):
        layers = vectors if len(columns) > 1 else vectors[None]
        if embedder.options.pool is not None:
            yield json_line({"sentence": number, "words": words} | named(columns, layers))
            continue
        for index, word in enumerate(words or ()):
            yield json_line({"word": word} | named(columns, layers[:, index]) | {"sentence": number})


def named(columns: Sequence[str], vectors: np.ndarray) -> dict[str, Any]:
    return dict(zip(columns, vectors.tolist(), strict=True))


def json_line(content: dict[str, Any]) -> str:
    """JSON in which no character steers a terminal: such a one is written as \\u...., and so read again."""
    return HIDDEN.sub(lambda hidden: json.dumps(hidden[0])[1:-1], json.dumps(content, ensure_ascii=False))


def write_array(sentences: list[Embedded], embedder: Embedder, path: Path) -> None:
    pooled, columns = embedder.options.pool is not None, embedder.layers.columns
    arrays = [sentence.vectors[..., None, :] if pooled else sentence.vectors for sentence in sentences]
    vectors = np.concatenate(arrays, axis=-2)
    about = {"layers": embedder.layers.name, "columns": columns, "pool": embedder.options.pool}
    write_npy(path, vectors, [sentence.words or [] for sentence in sentences], about)
    row = "sentence" if pooled else "word"
    print(
        f"Wrote {path}: {' x '.join(map(str, vectors.shape))} numbers, a row for each {row}; "
        f"{path.with_suffix('.json')}: the words."
    )
