"""The vocabulary of a language model: counted, written, read.

    counts = count_words(Source("corpus/*.txt"))
    write_vocabulary("vocab.txt", counts, min_count=3)
    vocabulary = Vocabulary.load("vocab.txt")
    elmo-hf vocab corpus/*.txt vocab.txt --min-count 3

`vocab.txt` has bilm-tf's form: a word a line, `<S>`, `</S>` and `<UNK>` first, then by falling frequency,
which the log-uniform sampler relies on. `vocab.counts.tsv` beside it has the same words in the same order,
each with a tab and its count. The count of `<S>` and `</S>` is the number of sentences, that of `<UNK>` the
number of words outside the vocabulary.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

from elmo_hf.corpus.source import Source
from elmo_hf.errors import ElmoError, warn
from elmo_hf.files import whole_file
from elmo_hf.model.words_elmo import MAX_VOCABULARY, MAX_WORDS, read_vocabulary

BEGIN, END, UNKNOWN = SPECIALS = ("<S>", "</S>", "<UNK>")
MOST_TYPES = 20_000_000  # distinct words that are counted at a time; about 2 GB


# ---- counting


@dataclass
class WordCounts:
    """The words of a corpus.

    counts: how often each word occurs, `<UNK>` excluded.
    sentences, tokens: sentences and words of the text, `<UNK>` included.
    forgotten: words of the text whose counts were dropped, because there were too many distinct words.
    """

    counts: Counter[str] = field(default_factory=Counter)
    sentences: int = 0
    tokens: int = 0
    forgotten: int = 0

    @property
    def types(self) -> int:
        return len(self.counts)

    def forget_rare(self, most: int) -> None:
        """Drop the words with the lowest counts until at most half of `most` are left."""
        before, limit = self.counts.total(), 0
        while len(self.counts) > most // 2:
            limit += 1
            self.counts = Counter({word: count for word, count in self.counts.items() if count > limit})
        self.forgotten += before - self.counts.total()


def count_words(
    source: Source, most_types: int = MOST_TYPES, progress: Callable[[int], object] | None = None
) -> WordCounts:
    """Count the words of a corpus.

    Args:
        most_types: with more distinct words, the rarest so far are dropped, so that memory does not grow with
            the corpus. A dropped word that occurs again is counted from 0.
        progress: called after each sentence with its number of words.
    """
    result = WordCounts()
    for words in source:
        result.counts.update(words)
        result.sentences += 1
        result.tokens += len(words)
        if len(result.counts) > most_types:
            result.forget_rare(most_types)
        if progress is not None:
            progress(len(words))
    if not result.tokens:
        raise ElmoError(f"{source.name} is empty; there is no word in it.")
    result.counts.pop(UNKNOWN, None)
    return result


def choose_words(
    words: WordCounts, min_count: int = 1, max_words: int | None = None
) -> list[tuple[str, int]]:
    """Words and counts by falling count, equal ones in alphabetical order, without the special words, and
    without those with a NUL, with which no vocabulary is read."""
    frequent = [
        (word, count) for word, count in words.counts.items() if count >= min_count and "\0" not in word
    ]
    return sorted(frequent, key=lambda entry: (-entry[1], entry[0]))[:max_words]


# ---- files


def counts_path(path: str | Path) -> Path:
    """vocab.txt -> vocab.counts.tsv"""
    return Path(path).with_suffix(".counts.tsv")


def check_options(path: str | Path, min_count: int = 1, max_words: int | None = None) -> None:
    """Refuse, before hours of counting, options and paths with which no vocabulary could be written."""
    for name, value in (("min_count", min_count), ("max_words", max_words)):
        if value is not None and value < 1:
            raise ElmoError(f"{name} must be at least 1, but is {value}.")
    if max_words is not None and max_words > MAX_WORDS - len(SPECIALS):
        most = MAX_WORDS - len(SPECIALS)
        raise ElmoError(f"max_words must be at most {most:,}, as no more are read, but is {max_words:,}.")
    for file in (Path(path), counts_path(path)):
        if file.exists():
            raise ElmoError(f"{file} exists already; name another file, or delete it.")
    if not Path(path).absolute().parent.is_dir():
        raise ElmoError(f"there is no folder {Path(path).parent} to write {Path(path).name} in.")


def write_vocabulary(
    path: str | Path, words: WordCounts, min_count: int = 1, max_words: int | None = None
) -> "Vocabulary":
    """Write a vocabulary and its counts, and return it.

    Args:
        min_count: rarer words are left out, and are `<UNK>` then.
        max_words: the most words that are written, besides the three special ones.
    """
    check_options(path, min_count, max_words)
    chosen = _readable(choose_words(words, min_count, max_words), path)
    if not chosen:
        raise ElmoError(f"no word occurs {min_count} times, so there is no vocabulary; lower min_count.")
    unknown = words.tokens - sum(count for _, count in chosen)
    rows = [(BEGIN, words.sentences), (END, words.sentences), (UNKNOWN, unknown), *chosen]
    names = [word for word, _ in rows]
    _write(Path(path), names)
    _write(counts_path(path), [f"{word}\t{count}" for word, count in rows])
    return Vocabulary(names, [count for _, count in rows], name=str(path))


def _readable(chosen: list[tuple[str, int]], path: str | Path) -> list[tuple[str, int]]:
    """As many words as `read_vocabulary` reads of both files; a warning if that is not all."""
    most_bytes = MAX_VOCABULARY - 2**10  # room for the special words and their counts
    sizes = accumulate(len(f"{word}\t{count}\n".encode()) for word, count in chosen)
    kept = chosen[: min(bisect_right(list(sizes), most_bytes), MAX_WORDS - len(SPECIALS))]
    if len(kept) < len(chosen):
        warn(f"{path} has the {len(kept):,} most frequent of {len(chosen):,} words, as no more are read.")
    return kept


def _write(path: Path, lines: list[str]) -> None:
    with whole_file(path) as partial:
        partial.write_bytes("".join(line + "\n" for line in lines).encode("utf-8"))


class Vocabulary:
    """Words and their ids, which are the rows of a language model's softmax.

    Args:
        words: in the order of their ids.
        counts: how often each occurs, if that is known.
        name: of the vocabulary, for messages.
        specials: its words for the begin and the end of a sentence, and for a word that it lacks.
        max_letters: words are cut to so many letters before they are looked up; None for no limit.

    `vocabulary.ids[word]` is the id of `<UNK>` for a word outside the vocabulary. `<S>` and `</S>` have the
    ids of the begin and the end of a sentence, whatever their words are.
    """

    def __init__(
        self,
        words: list[str],
        counts: list[int] | None = None,
        name: str = "the vocabulary",
        specials: tuple[str, str, str] = SPECIALS,
        max_letters: int | None = None,
    ) -> None:
        self.words, self.counts, self.name = words, counts, name
        numbers = {word: number for number, word in enumerate(words)}
        for special in specials:
            if special not in numbers:
                raise ElmoError(
                    f"{name} has no line {special}; a language model needs {', '.join(specials)}."
                )
        begin, end, unknown = (numbers[special] for special in specials)
        self.ids = _Ids(numbers | {BEGIN: begin, END: end}, unknown, max_letters)
        for number, word in enumerate(words):
            if not word:
                raise ElmoError(f"{name}, line {number + 1} is empty; every line must be a word.")
            if numbers[word] != number:
                raise ElmoError(
                    f"{name}: {word!r} stands in line {number + 1} and in line {numbers[word] + 1}; "
                    "a word has one id."
                )

    def __len__(self) -> int:
        return len(self.words)

    @property
    def unknown_id(self) -> int:
        return self.ids.unknown

    @classmethod
    def load(cls, path: str | Path) -> "Vocabulary":
        """Read a vocabulary, and its counts if their file is beside it."""
        if not Path(path).is_file():
            raise ElmoError(f"there is no vocabulary {path}.")
        words, counts = read_vocabulary(path), None
        if counts_path(path).is_file():
            counts = _read_counts(counts_path(path), words)
        return cls(words, counts, name=str(path))


class _Ids(dict[str, int]):
    """Ids by words; a word outside the vocabulary has the id of the unknown word."""

    def __init__(self, numbers: dict[str, int], unknown: int, max_letters: int | None = None) -> None:
        if max_letters is not None:  # no longer word is looked up
            numbers = {word: number for word, number in numbers.items() if len(word) <= max_letters}
        super().__init__(numbers)
        self.unknown, self.max_letters = unknown, max_letters

    def __missing__(self, word: str) -> int:
        is_cut = self.max_letters is not None and len(word) > self.max_letters
        return self.get(word[: self.max_letters], self.unknown) if is_cut else self.unknown

    def __reduce__(self) -> tuple[type["_Ids"], tuple[dict[str, int], int, int | None]]:
        return _Ids, (dict(self), self.unknown, self.max_letters)


def _read_counts(path: Path, words: list[str]) -> list[int]:
    lines = read_vocabulary(path)
    if len(lines) != len(words):
        raise ElmoError(f"{path} has {len(lines)} lines for {len(words)} words; count the corpus again.")
    counts: list[int] = []
    for number, (line, word) in enumerate(zip(lines, words, strict=True)):
        counted_word, _, count = line.partition("\t")
        if counted_word != word or not (count.isascii() and count.isdigit()):
            raise ElmoError(
                f"{path}, line {number + 1} should be {word!r}, a tab and a count, but is {line!r}."
            )
        if word not in SPECIALS and number and words[number - 1] not in SPECIALS and int(count) > counts[-1]:
            raise ElmoError(
                f"{path}, line {number + 1}: {word!r} occurs {count} times, more often than the word before "
                "it; a vocabulary goes by falling frequency."
            )
        counts.append(int(count))
    return counts
