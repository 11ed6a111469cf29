"""A text as the numbers of its words, read from the disk as fast as it can be copied.

    python -m elmo_hf.corpus.encoded 'news/*.txt' encoded --raw --split-sentences
    accelerate launch training/pretrain.py --data encoded --vocab vocab.txt --raw ...

    encoded/words.json      the distinct words: <S>, </S>, and the others by falling frequency
    encoded/ids.npy         (numbers,) every sentence as <S> w1 ... wn </S>, one after another
    encoded/corpus.json     how the text was split, its sentences and words

The text is split into words once, and not again in each epoch of each run. Any sentence can be read without
those before it. The numbers do not depend on a vocabulary or on a model: `encoded_windows.py` looks up what a
model reads and predicts.
"""

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from elmo_hf.corpus.source import Source
from elmo_hf.corpus.vocabulary import BEGIN, END, UNKNOWN, WordCounts, check_options, write_vocabulary
from elmo_hf.errors import ElmoError, one_sentence, reason_of
from elmo_hf.files import new_folder, read_json

PROGRAM = "elmo_hf.corpus.encoded"
FORMAT = 1
FACTS, WORDS, IDS = "corpus.json", "words.json", "ids.npy"
MAX_BYTES = 2**30  # of words.json
BEGIN_ID, END_ID = 0, 1
SPLITTING = ("raw", "split_sentences")


# ---- reading


class EncodedText:
    """The folder that `encode` has written.

    Attributes:
        words: the distinct words; a number in `ids` is a word's index.
        ids: (numbers,) int32, mapped from the disk.
        begins, ends: (sentences,) indices of each sentence's `<S>` and `</S>` in `ids`.
        num_words: words of all sentences.
        name, files: as in `Source`.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder, self.name = Path(folder), str(folder)
        self.files = [str(self.folder / name) for name in (FACTS, WORDS, IDS)]
        facts = _read_facts(self.folder)
        self.splitting = {name: facts[name] for name in SPLITTING}
        self.words: list[str] = _read_words(self.folder)
        self.ids = _read_array(self.folder / IDS, np.int32)
        self.begins, self.ends = self._sentences()
        self.num_words = len(self.ids) - 2 * len(self.begins)

    def _sentences(self) -> tuple[np.ndarray, np.ndarray]:
        ids = self.ids
        begins, ends = np.flatnonzero(ids == BEGIN_ID), np.flatnonzero(ids == END_ID)
        is_whole = len(begins) == len(ends) > 0 and begins[0] == 0 and ends[-1] == len(ids) - 1
        is_whole = is_whole and bool((begins[1:] == ends[:-1] + 1).all() and (ends > begins + 1).all())
        if not is_whole or ids.min() < 0 or ids.max() >= len(self.words):
            raise ElmoError(f"{self.folder / IDS} is damaged; encode the text again.")
        return begins, ends

    def __len__(self) -> int:
        """How many sentences there are."""
        return len(self.begins)

    def __iter__(self) -> Iterator[list[str]]:
        """Every sentence's words, in the order of the text."""
        for begin, end in zip(self.begins.tolist(), self.ends.tolist(), strict=True):
            yield [self.words[number] for number in self.ids[begin + 1 : end].tolist()]

    def place(self, shard: int) -> str:
        return f"{self.name}, which has a sentence a line"

    @property
    def identity(self) -> dict[str, Any]:
        """What must be the same for the sentences to be the same."""
        return {"shards": 1, "sentences": len(self), "words": self.num_words, **self.splitting}

    def check_splitting(self, raw: bool, split_sentences: bool) -> None:
        """Refuse settings by which a text would be split into other words."""
        for name, value in zip(SPLITTING, (raw, split_sentences), strict=True):
            if self.splitting[name] != value:
                option, old = name.replace("_", "-"), self.splitting[name]
                raise ElmoError(
                    f"{self.name} was encoded {'with' if old else 'without'} --{option}; say "
                    f"--{'' if old else 'no-'}{option}, or encode the text again."
                )


def is_encoded(path: str | Path) -> bool:
    """Whether a folder holds an encoded text."""
    return (Path(path) / IDS).is_file() and (Path(path) / FACTS).is_file()


def _read_facts(folder: Path) -> dict[str, Any]:
    facts = read_json(folder / FACTS)
    if not isinstance(facts, dict) or any(not isinstance(facts.get(name), bool) for name in SPLITTING):
        raise ElmoError(f"{folder / FACTS} is damaged; encode the text again.")
    if facts.get("format") != FORMAT:
        raise ElmoError(f"{folder} has a form that this version does not read; encode the text again.")
    return facts


def _read_words(folder: Path) -> list[str]:
    words = read_json(folder / WORDS, MAX_BYTES)
    is_list = isinstance(words, list) and all(isinstance(word, str) and word for word in words)
    if not is_list or words[:2] != [BEGIN, END] or len(set(words)) != len(words):
        raise ElmoError(f"{folder / WORDS} is damaged; encode the text again.")
    return words


def _read_array(path: Path, dtype: type) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ElmoError(f"{path} cannot be read ({reason_of(error)}); encode the text again.") from None
    if array.dtype != dtype or array.ndim != 1 or not len(array):
        raise ElmoError(f"{path} is damaged; encode the text again.")
    return array


# ---- writing


def encode(source: Source, folder: Path, workers: int = 1) -> WordCounts:
    """Write the sentences of a text as numbers, and return the counts of its words.

    Args:
        folder: a new one, or an empty one.
        workers: processes that share the files of the text.

    Raises:
        ElmoError: the text cannot be read or has no word in it, or the folder holds something.
    """
    if workers < 1:
        raise ElmoError(f"workers must be at least 1, but is {workers}.")
    with new_folder(folder) as unfinished, TemporaryDirectory(dir=unfinished) as scratch:
        shards = list(_encode_shards(source, Path(scratch), workers))
        counts: Counter[str] = Counter()
        for shard in shards:
            counts.update(dict(zip(shard.words, np.load(shard.counts).tolist(), strict=True)))
        sentences, tokens = sum(shard.sentences for shard in shards), counts.total()
        if not tokens:
            raise ElmoError(f"{source.name} is empty; there is no word in it.")
        words = [
            BEGIN,
            END,
            *(word for word, _ in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))),
        ]
        _write_ids(unfinished / IDS, shards, words, tokens + 2 * sentences)
        (unfinished / WORDS).write_text(json.dumps(words, ensure_ascii=False), encoding="utf-8")
        facts = {"format": FORMAT, "sentences": sentences, "words": tokens, "distinct_words": len(words)}
        facts |= {name: getattr(source, name) for name in SPLITTING} | {"files": source.files}
        (unfinished / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    counts.pop(UNKNOWN, None)
    return WordCounts(counts, sentences, tokens)


class _Shard(NamedTuple):
    """What was read of a file: its words numbered by their first place, and its sentences in a file each."""

    words: list[str]
    counts: Path
    ids: Path
    sentences: int


def _encode_shards(source: Source, scratch: Path, workers: int) -> Iterator[_Shard]:
    arguments = [(source, shard, scratch) for shard in range(source.num_shards)]
    if min(workers, len(arguments)) == 1:
        yield from (_encode_shard(*each) for each in arguments)
        return
    # Started anew, since a process with threads may not be forked.
    with ProcessPoolExecutor(min(workers, len(arguments)), get_context("spawn")) as pool:
        try:
            yield from pool.map(_encode_shard, *zip(*arguments, strict=True))
        except BrokenProcessPool:
            raise ElmoError(
                "a process that reads the text has been killed, or had no memory left; use fewer --workers."
            ) from None


def _encode_shard(source: Source, shard: int, scratch: Path) -> _Shard:
    numbers: defaultdict[str, int] = defaultdict(None, {BEGIN: BEGIN_ID, END: END_ID})
    numbers.default_factory = numbers.__len__  # a word has the number of words before its first place
    counts_path, ids_path, sentences = scratch / f"counts-{shard}.npy", scratch / f"ids-{shard}.bin", 0
    counts = np.zeros(0, dtype=np.int64)
    with ids_path.open("wb") as file:
        for lines in source.lines(shard):
            split = [
                words for line in lines for text in source.sentences(line) if (words := source.words(text))
            ]
            flat = [word for words in split for word in (BEGIN, *words, END)]
            ids = np.fromiter(map(numbers.__getitem__, flat), dtype=np.int32, count=len(flat))
            # A word of the text that is spelled like a boundary is not one; `Source` splits there.
            file.write(ids.tobytes())
            sentences += len(split)
            counts = _add(counts, np.bincount(ids, minlength=len(numbers)))
    np.save(counts_path, counts[2:])
    return _Shard(list(numbers)[2:], counts_path, ids_path, sentences)


def _add(counts: np.ndarray, more: np.ndarray) -> np.ndarray:
    if len(more) <= len(counts):
        counts[: len(more)] += more
        return counts
    more[: len(counts)] += counts
    return more


def _write_ids(path: Path, shards: list[_Shard], words: list[str], size: int) -> None:
    """The shards one after another, with the numbers that their words have in the whole text."""
    numbers = {word: number for number, word in enumerate(words)}
    ids: Any = np.lib.format.open_memmap(path, mode="w+", dtype=np.int32, shape=(size,))
    start = 0
    for shard in shards:
        new = np.array([BEGIN_ID, END_ID, *map(numbers.__getitem__, shard.words)], dtype=np.int32)
        old = np.fromfile(shard.ids, dtype=np.int32)
        ids[start : start + len(old)] = new[old]
        start += len(old)
    ids.flush()


# ---- the command


def main() -> None:
    parser = argparse.ArgumentParser(
        prog=f"python -m {PROGRAM}", description="Write a text as the numbers of its words, to be trained on."
    )
    parser.add_argument("data", nargs="+", help="text files or globs, or a folder, or a data set on the Hub")
    parser.add_argument("folder", type=Path, help="folder to write")
    parser.add_argument("--raw", action="store_true", help="split text by the tokenizer's rules")
    parser.add_argument("--split-sentences", action="store_true", help="split each line into sentences")
    parser.add_argument("--column", help="column to read; by default 'text' or 'tokens'")
    parser.add_argument("--split", default="train", help="split of a data set on the Hub (train)")
    parser.add_argument("--subset", help="configuration of a data set on the Hub")
    parser.add_argument("--workers", type=int, default=1, help="processes that share the files (1)")
    parser.add_argument("--vocab", type=Path, help="write a vocabulary, too, to this file")
    parser.add_argument("--min-count", type=int, default=1, help="of its words (1)")
    parser.add_argument("--max-words", type=int, help="most words of it")
    with one_sentence(PROGRAM):
        run(parser.parse_args())


def run(options: argparse.Namespace) -> None:
    if options.vocab is not None:
        check_options(options.vocab, options.min_count, options.max_words)
    source = Source(
        options.data[0] if len(options.data) == 1 else options.data,
        column=options.column,
        split=options.split,
        config=options.subset,
        raw=options.raw,
        split_sentences=options.split_sentences,
    )
    counts = encode(source, options.folder, options.workers)
    size = f"{counts.tokens:,} words, {counts.sentences:,} sentences, {counts.types:,} distinct words"
    print(f"{options.folder}: {size}")
    if options.vocab is not None:
        vocabulary = write_vocabulary(options.vocab, counts, options.min_count, options.max_words)
        print(f"{options.vocab}: {len(vocabulary):,} words")


if __name__ == "__main__":
    main()
