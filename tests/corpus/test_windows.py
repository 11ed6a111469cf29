"""Windows of running text from every type of source, compared with a naive reference."""

import json
import lzma
import tracemalloc
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from datasets import IterableDataset
from hypothesis import given
from hypothesis import strategies as st

from elmo_hf.corpus.source import Source
from elmo_hf.corpus.vocabulary import SPECIALS
from elmo_hf.corpus.windows import Encoder, Plan, Reader, Windows
from elmo_hf.model.words_elmo import character_ids
from tests.helpers.window_texts import (
    LINES,
    TEXTS,
    VOCABULARY,
    iter_until_empty,
    same,
    until_the_end,
    words_of,
)

# Python 3.12 warns of every fork of a process with threads, as pyarrow's; the loader's workers are forks.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


def texts_of(windows, direction):
    """What every row reads, window after window."""
    rows = range(windows[0].mask.shape[1])
    return [[word for window in windows for word in words_of(window, direction, row)] for row in rows]


def targets_of(windows, direction):
    rows = range(windows[0].mask.shape[1])
    return [
        [*chain(*(w.targets[direction, r][w.mask[direction, r]].tolist() for w in windows))] for r in rows
    ]


# ---- what is in a window


def expected_row(texts, direction):
    """Inputs and targets of a row that reads these sentences, as one long text."""
    inputs, targets = [], []
    for text in texts:
        words = text.split()
        if direction == 0:
            inputs += ["<S>", *words]
            targets += [*words, "</S>"]
        else:
            inputs += ["</S>", *words[::-1]]
            targets += [*words[::-1], "<S>"]
    known = {word: number for number, word in enumerate(VOCABULARY.words)}
    return inputs, [known.get(word, 2) for word in targets]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("rows", [1, 4])
def test_windows_are_the_text_packed(source, encoder, rows, shared):
    """In the order of the corpus; epochs end in the midst of windows."""
    plan = Plan(rows=rows, steps=7, shuffle_sentences=0, epochs=2, shared=shared)
    windows = until_the_end(Reader(source, encoder, plan))
    for direction in (0, 1):
        inputs, targets = texts_of(windows, direction), targets_of(windows, direction)
        for row in range(rows):
            assert (inputs[row], targets[row]) == expected_row((TEXTS * 2)[row::rows], direction)
    for window in windows:
        assert window.char_ids.shape == (2, rows, 7, 16)
        assert window.char_ids.dtype == np.int16
        assert window.targets.dtype == np.int64
        assert not window.char_ids[~window.mask].any()
        assert not window.targets[~window.mask].any()
    if shared:
        assert all(np.array_equal(window.mask[0], window.mask[1]) for window in windows)


def test_shuffling_is_by_block_seed_epoch_and_direction(source, encoder):
    def order(seed, direction):
        plan = Plan(rows=1, steps=7, seed=seed, shuffle_sentences=20, epochs=2)
        windows = until_the_end(Reader(source, encoder, plan))
        starts = [s for window in windows for s in window.sentence_starts if s.direction == direction]
        return [[(s.shard, s.line) for s in starts if s.epoch == epoch] for epoch in (0, 1)]

    orders = [*order(3, 0), *order(3, 1), *order(4, 0)]
    assert len({tuple(epoch) for epoch in orders}) == 6
    assert all(sorted(epoch) == sorted(orders[0]) for epoch in orders)
    assert order(3, 0) == orders[:2]
    # The shards in an order of their own: the first block is not always of the first.
    assert len({epoch[0][0] for epoch in orders}) > 1


def test_words_of_a_table(source):
    encoder = Encoder(VOCABULARY, token_encoder="words")
    plan = Plan(rows=3, steps=7, shuffle_sentences=0)
    window = Reader(source, encoder, plan).window()
    letters = Reader(source, Encoder(VOCABULARY, 16), plan).window()
    assert window.char_ids is None
    assert window.input_ids.shape == (2, 3, 7)
    known = {word: number for number, word in enumerate(VOCABULARY.words)}
    ids = [known.get(word, 2) for word in texts_of([letters], 0)[0]]
    assert window.input_ids[0, 0].tolist() == ids
    with pytest.raises(ValueError, match="token_encoder must be"):
        Encoder(VOCABULARY, token_encoder="letters")


@given(
    st.lists(
        st.lists(st.sampled_from(["a", "bb", "ccc", "é", "d", "e", "f", *SPECIALS]), max_size=9), max_size=9
    )
)
def test_the_spelling_cache_may_be_small(batches):
    encoder = Encoder(VOCABULARY, 9, cache_words=4)
    for words in batches:
        assert np.array_equal(encoder.inputs(words), character_ids(words, 9))


def test_special_words_in_the_text(encoder, tmp_path):
    path = tmp_path / "special.txt"
    path.write_text("<S> a b </S>\nc </S> <S> d <UNK>\n<S>\n</S> </S>\nx<S>y\n", encoding="utf-8")
    plan = Plan(rows=1, steps=20, shuffle_sentences=0, epochs=1)
    window = Reader(Source(path), encoder, plan).window()
    assert " ".join(words_of(window, 0, 0)) == "<S> a b <S> c <S> d <UNK> <S> x<S>y"
    assert {*window.targets[0, 0][window.mask[0, 0]].tolist()} == {1, 2}  # no target is <S> forward
    assert [start.sentence for start in window.sentence_starts if start.direction == 0] == [0, 0, 1, 0]


# ---- other sources


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "stream", "xz"])
def test_other_sources_resume(files, tmp_path, encoder, kind):
    """With workers, which are forks of a process that has read some of it already."""
    jsonl = "".join(json.dumps({"text": text}) + "\n" for text in LINES)
    (tmp_path / "text.jsonl").write_text(jsonl, encoding="utf-8")
    pyarrow.parquet.write_table(pyarrow.table({"text": LINES}), tmp_path / "text.parquet", row_group_size=7)
    (tmp_path / "text.xz").write_bytes(lzma.compress("\n".join(LINES).encode()))
    stream = {"names": [f"{files}/{name}.txt" for name in "abc"]}
    source = {
        "jsonl": lambda: Source(tmp_path / "text.jsonl"),
        "parquet": lambda: Source(tmp_path / "text.parquet"),
        "stream": lambda: Source(IterableDataset.from_generator(lines_of, gen_kwargs=stream)),
        "xz": lambda: Source(tmp_path / "text.xz"),
    }[kind]()
    plan = Plan(rows=4, steps=9, shuffle_sentences=20, epochs=2)
    whole = list(Windows(source, encoder, plan))
    resumed = list(Windows(source, encoder, plan, workers=2, state=whole[5].state))
    assert len(resumed) == len(whole) - 6
    assert all(same(*pair) for pair in zip(whole[6:], resumed, strict=True))


def lines_of(names):
    for name in names:
        for text in Path(name).read_text(encoding="utf-8").splitlines():
            yield {"text": text}


def test_a_line_of_a_megabyte(tmp_path, encoder):
    """One sentence of 200,000 words among short ones: its row reads it alone, and the state stays small."""
    path = tmp_path / "long.txt"
    path.write_text(
        "a b\n" + "word " * 200_000 + "\n" + "c d\n" * 50 + "x" * 300_000 + "\n", encoding="utf-8"
    )
    plan = Plan(rows=2, steps=1000, shuffle_sentences=0, epochs=1)
    windows = until_the_end(Reader(Source(path), encoder, plan))
    assert len(windows) == 201
    assert all(len(json.dumps(window.state)) < 700 for window in windows)
    resumed = Reader(Source(path), encoder, plan, state=windows[99].state).window()
    assert same(resumed, windows[100])


def test_memory_does_not_grow_with_the_corpus(tmp_path, encoder):
    def peak(lines):
        path = tmp_path / f"{lines}.txt"
        path.write_text("".join(f"w{n % 50}_0 " * 20 + "\n" for n in range(lines)), encoding="utf-8")
        reader = Reader(Source(path), encoder, Plan(rows=4, shuffle_sentences=100, epochs=1))
        tracemalloc.start()
        count = sum(1 for _ in iter_until_empty(reader))
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count > lines // 4
        return used

    assert peak(6000) < 1.5 * peak(2000)
