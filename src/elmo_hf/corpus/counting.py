"""From a corpus to a vocabulary on disk, as `elmo-hf vocab` does it: look, count, write, tell.

count_vocabulary(["news/*.txt"], "vocab.txt", min_count=3)
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm.auto import tqdm

from elmo_hf.corpus.look import doubts, heldout_unknown_share, rare_doubt
from elmo_hf.corpus.source import Source
from elmo_hf.corpus.vocabulary import (
    Vocabulary,
    WordCounts,
    check_options,
    count_words,
    counts_path,
    write_vocabulary,
)
from elmo_hf.errors import warn


def count_vocabulary(
    data: list[str],
    output: str | Path,
    *,
    min_count: int = 1,
    max_words: int | None = None,
    raw: bool = False,
    split_sentences: bool = False,
    column: str | None = None,
    split: str = "train",
    subset: str | None = None,
    heldout_every: int | None = None,
    progress: bool = True,
    tell: Callable[[str], object] = print,
) -> Vocabulary:
    """Count the words of a corpus, and write its vocabulary and `vocab.counts.tsv`.

    Args:
        data: files, patterns, or one folder, or one data set on the Hub.
        output: the file to write, such as `vocab.txt`.
        min_count: leave out rarer words, which then count as <UNK>.
        max_words: maximum number of words, without the three special ones.
        raw: split words by rule, not at whitespace.
        split_sentences: each line is a paragraph, not a sentence.
        column: the column of the text or the words. Default: text or tokens.
        split: the part of a folder or Hub data set.
        subset: the configuration of a Hub data set.
        heldout_every: leave out every so many lines (at least 2), which pretraining with this option holds
            out.
        progress: show words per second.
        tell: is given each line about what was counted.
    """
    check_options(output, min_count, max_words)
    source = Source(
        data[0] if len(data) == 1 else data,
        column=column,
        split=split,
        config=subset,
        raw=raw,
        split_sentences=split_sentences,
        heldout_every=heldout_every,
    )
    heldout = None if heldout_every is None else source.heldout()
    text_doubts = doubts(source)
    for doubt in text_doubts:
        warn(doubt)
    with tqdm(unit=" words", unit_scale=True, disable=not progress) as bar:
        counts = count_words(source, progress=bar.update)
    vocabulary = write_vocabulary(output, counts, min_count, max_words)
    for line in facts(counts, vocabulary, Path(output)):
        tell(line)
    if heldout is not None:
        share = heldout_unknown_share(heldout, vocabulary)
        tell(f"One line in {heldout_every:,} is held out: {share:.2%} of their words are <UNK>.")
    rare = rare_doubt(counts, vocabulary, max_words, bool(text_doubts))
    if rare is not None:
        warn(rare)
    return vocabulary


def facts(counts: WordCounts, vocabulary: Vocabulary, output: Path) -> Iterator[str]:
    yield f"{counts.sentences:,} sentences, {counts.tokens:,} words, {counts.types:,} distinct."
    if counts.forgotten:
        yield (
            f"The distinct words did not fit into memory: {counts.forgotten:,} occurrences of rare words "
            "were dropped, so the counts of rare words are too low."
        )
    unknown = vocabulary.counts[vocabulary.unknown_id] if vocabulary.counts else 0
    yield (
        f"{output}: {len(vocabulary):,} words. {1 - unknown / counts.tokens:.2%} of the text is in it, "
        f"{unknown / counts.tokens:.2%} is <UNK>."
    )
    yield f"{counts_path(output)}: how often each word occurs."
