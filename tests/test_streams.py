"""Windows of running text against a reference of a few lines; every sentence once, whoever reads it."""

import json
import lzma
import random
import subprocess
import sys
import tracemalloc
from collections import Counter
from itertools import chain, islice, pairwise
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from datasets import IterableDataset
from hypothesis import given, settings
from hypothesis import strategies as st

from elmo_hf.reading import START, Deal, Reading
from elmo_hf.sources import Source
from elmo_hf.streams import AuditLog, Encoder, Plan, Reader, Windows, cut_audit, merge_states
from elmo_hf.vocabulary import SPECIALS, Vocabulary
from elmo_hf.words_elmo import character_ids

# Python 3.12 warns of every fork of a process with threads, as pyarrow's; the loader's workers are forks.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

SENTENCES = 83


def line(number):
    """A sentence whose words are found nowhere else, of 1 to 31 words, and every ninth line empty."""
    length = 0 if number % 9 == 4 else 1 + (number * number) % 31
    return " ".join(f"w{number}_{place}" for place in range(length))


LINES = [line(number) for number in range(SENTENCES)]
TEXTS = [text for text in LINES if text]
VOCABULARY = Vocabulary(["<S>", "</S>", "<UNK>", *chain.from_iterable(map(str.split, TEXTS[::2]))])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The corpus in three files of unlike size."""
    folder = tmp_path_factory.mktemp("corpus")
    for name, part in (("a", LINES[:11]), ("b", LINES[11:60]), ("c", LINES[60:])):
        (folder / f"{name}.txt").write_text("\n".join(part) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def source(files):
    return Source(f"{files}/*.txt")


@pytest.fixture(scope="module")
def encoder():
    return Encoder(VOCABULARY, max_characters=16)


def spelled(row):
    """A row of character ids as the word that it spells, byte by byte."""
    if row[1] == 257:
        return "<S>"
    if row[1] == 258:
        return "</S>"
    end = list(row).index(260)
    return bytes(int(number) - 1 for number in row[1:end]).decode()


def words_of(window, direction, row):
    """What a row reads in a window."""
    return [
        spelled(letters)
        for letters, real in zip(window.char_ids[direction, row], window.mask[direction, row], strict=True)
        if real
    ]


def texts_of(windows, direction):
    """What every row reads, window after window."""
    rows = range(windows[0].mask.shape[1])
    return [[word for window in windows for word in words_of(window, direction, row)] for row in rows]


def targets_of(windows, direction):
    rows = range(windows[0].mask.shape[1])
    return [
        [*chain(*(w.targets[direction, r][w.mask[direction, r]].tolist() for w in windows))] for r in rows
    ]


def until_the_end(windows):
    """Of a reader, which gives windows without words in the end."""
    return [*iter_until_empty(windows)]


def iter_until_empty(windows):
    for window in windows:
        if not window.mask.any():
            return
        yield window


def same(one, other):
    return (
        np.array_equal(one.char_ids, other.char_ids)
        and np.array_equal(one.targets, other.targets)
        and np.array_equal(one.mask, other.mask)
        and sorted(one.begun) == sorted(other.begun)
    )


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
        begun = chain.from_iterable(window.begun for window in until_the_end(Reader(source, encoder, plan)))
        found = [s for s in begun if s.direction == direction]
        return [[(s.shard, s.line) for s in found if s.epoch == epoch] for epoch in (0, 1)]

    orders = [*order(3, 0), *order(3, 1), *order(4, 0)]
    assert len({tuple(one) for one in orders}) == 6
    assert all(sorted(one) == sorted(orders[0]) for one in orders)
    assert order(3, 0) == orders[:2]
    # The shards in an order of their own: the first block is not always of the first.
    assert len({one[0][0] for one in orders}) > 1


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
    assert [sentence.part for sentence in window.begun if sentence.direction == 0] == [0, 0, 1, 0]


# ---- who reads what


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_any_number_of_processes_and_workers_makes_the_same_windows(
    source, encoder, processes, workers, shared
):
    plan = Plan(rows=7, steps=5, seed=1, shuffle_sentences=10, epochs=2, shared=shared)
    whole = until_the_end(Reader(source, encoder, plan))
    parts = []
    for process in range(processes):
        windows = Windows(
            source, encoder, plan, process=process, processes=processes, workers=workers, prefetch=2
        )
        parts.append(list(windows))
        assert not windows.nothing.mask.any()
        assert 0 < windows.waited <= windows.seconds
    counts = Counter(sentence for part in parts for window in part for sentence in window.begun)
    assert set(counts.values()) == {1}
    assert len(counts) == 2 * 2 * len(TEXTS)  # directions, epochs
    start = 0
    for part in parts:
        rows = part[0].mask.shape[1]
        for window, full in zip(part, whole, strict=False):
            for name in ("char_ids", "targets", "mask"):
                assert np.array_equal(getattr(window, name), getattr(full, name)[:, start : start + rows])
        assert not any(full.mask[:, start : start + rows].any() for full in whole[len(part) :])
        start += rows
    for step in range(min(map(len, parts))):
        state = merge_states([part[step].state for part in parts][::-1])
        assert state == whole[step].state


def play(source, encoder, plan, bounds, state, steps):
    """Some windows of readers for the rows between `bounds`, and the state after them."""
    readers = [Reader(source, encoder, plan, first, last, state) for first, last in pairwise(bounds)]
    windows = []
    for _ in range(steps):
        windows.append([reader.window() for reader in readers])
        if not any(window.mask.any() for window in windows[-1]):
            break
    return windows, json.loads(json.dumps(merge_states([reader.state() for reader in readers])))


def cuts(draw, rows):
    """Rows cut at random between up to three readers."""
    inner = draw.sample(range(1, rows), k=draw.randint(0, min(2, rows - 1)))
    return [0, *sorted(inner), rows]


@pytest.mark.parametrize("seed", range(25))
def test_killed_anywhere_and_resumed_with_any_rows(source, encoder, seed):
    """Rows, readers, length of windows: all change at random, and still every word is read once an epoch."""
    draw = random.Random(seed)
    shuffle, shared = draw.choice([0, 6, 10, 1000]), draw.random() < 0.3
    state, every, rows = None, [], draw.randint(1, 9)
    while True:
        plan = Plan(rows, draw.randint(1, 12), 5, shuffle, shared, epochs=2)
        steps = draw.choice([0, 1, 2, 5, 9])
        windows, state = play(source, encoder, plan, cuts(draw, rows), state, steps)
        every += chain.from_iterable(windows)
        if windows and not any(window.mask.any() for window in windows[-1]):
            break
        rows = draw.choice([rows, rows, draw.randint(1, 9)])
    begun = Counter((s.direction, *s[2:]) for window in every for s in window.begun)
    assert set(begun.values()) == {1}
    assert len(begun) == 2 * 2 * len(TEXTS)
    for direction, boundary in ((0, "<S>"), (1, "</S>")):
        read = Counter(
            word
            for window in every
            for row in range(window.mask.shape[1])
            for word in words_of(window, direction, row)
        )
        assert read.pop(boundary) == 2 * len(TEXTS)
        assert read == Counter(dict.fromkeys(" ".join(TEXTS).split(), 2))


@pytest.mark.parametrize("shared", [False, True])
def test_resumed_with_the_same_rows_it_is_the_same_stream(source, encoder, shared):
    plan = Plan(rows=5, steps=6, seed=2, shuffle_sentences=9, shared=shared, epochs=2)
    whole = until_the_end(Reader(source, encoder, plan))
    for step in range(0, len(whole), 3):
        state = json.loads(json.dumps(whole[step].state))
        reader = Reader(source, encoder, plan, state=state)
        assert reader.state() == state
        assert all(same(*pair) for pair in zip(islice(reader, 4), whole[step + 1 :], strict=False))


def test_workers_go_on_where_others_stopped(source, encoder):
    plan = Plan(rows=6, steps=6, seed=2, shuffle_sentences=9, epochs=3)
    whole = list(Windows(source, encoder, plan))
    for workers, processes in ((0, 2), (2, 1), (1, 2)):
        options = {"processes": processes, "workers": workers, "state": whole[8].state}
        parts = [list(Windows(source, encoder, plan, process=p, **options)) for p in range(processes)]
        for step, windows in enumerate(zip(*parts, strict=False)):
            joined = np.concatenate([window.char_ids for window in windows], axis=1)
            assert np.array_equal(joined, whole[9 + step].char_ids)


@settings(max_examples=60)
@given(st.data())
def test_a_deal_numbers_anew_what_was_not_read(data):
    rows = data.draw(st.integers(1, 5))
    begun = data.draw(st.lists(st.integers(0, 6), min_size=rows, max_size=rows))
    used = [data.draw(st.integers(0, 4)) if count else 0 for count in begun]
    numbers = np.arange(50)
    new, starts = Deal(rows, begun, used).renumber(numbers, np.zeros_like(numbers))
    expected = [((begun[row] - 1) * rows + row, used[row]) for row in range(rows) if used[row]]
    expected += [(number, 0) for number in range(50) if number // rows >= begun[number % rows]]
    found = sorted(
        (n, number, start) for number, (n, start) in enumerate(zip(new, starts, strict=True)) if n >= 0
    )
    assert [(number, start) for _, number, start in found] == expected
    assert [n for n, *_ in found] == list(range(len(expected)))


def test_the_state_stays_small_and_rows_do_not_pile_up(source, encoder):
    plan = Plan(rows=8, steps=5, shuffle_sentences=10)
    reader = Reader(source, encoder, plan)
    for window in islice(reader, 300):
        assert len(json.dumps(window.state)) < 600
    for rows in reader.parts:
        assert sum(map(len, rows.waiting)) < 4 * 10 + SENTENCES
        assert sum(map(len, rows.waiting)) == rows._ahead


def test_reading_draws_nothing_from_torch(source, encoder):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    next(iter(Windows(source, encoder, Plan(rows=2), workers=1)))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_program_ends_with_its_workers(files, tmp_path):
    """Though it is in the midst of the windows: its workers are told to go, and need not be killed."""
    code = (
        "from elmo_hf.sources import Source\n"
        "from elmo_hf.streams import Encoder, Plan, Windows\n"
        "from elmo_hf.vocabulary import Vocabulary\n"
        "vocabulary = Vocabulary(['<S>', '</S>', '<UNK>', 'w1_0'])\n"
        f"windows = iter(Windows(Source('{files}/*.txt'), Encoder(vocabulary), Plan(rows=2), workers=1))\n"
        "next(windows)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")


# ---- other sources


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "stream", "xz"])
def test_other_kinds_stop_and_go_on_as_well(files, tmp_path, encoder, kind):
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
    rest = list(Windows(source, encoder, plan, workers=2, state=whole[5].state))
    assert len(rest) == len(whole) - 6
    assert all(same(*pair) for pair in zip(whole[6:], rest, strict=True))


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


# ---- what is refused


def refused(match, call, *args, **options):
    with pytest.raises(ValueError, match=match) as error:
        call(*args, **options)
    text = str(error.value)
    assert "\n" not in text
    assert "Traceback" not in text
    assert text.endswith(".")


def test_corpora_that_cannot_be_trained_on(tmp_path, encoder, source):
    path = tmp_path / "blank.txt"
    path.write_text("\n \n\t\n", encoding="utf-8")
    plan = Plan(rows=2)
    refused("blank.txt is empty; there is no word in it", Windows, Source(path), encoder, plan)
    refused("blank.txt is empty", Reader(Source(path), encoder, plan).window)
    path.write_text("nobody knows\nthese words\n", encoding="utf-8")
    refused(r"no word of the first 1000 .*\(such as 'nobody'\)", Windows, Source(path), encoder, plan)
    refused("2 rows are too few for 1 processes with 3 workers", Windows, source, encoder, plan, workers=3)
    refused("2 rows are too few for 3 processes", Windows, source, encoder, plan, processes=3)
    for name in ("rows", "steps", "epochs", "seed", "shuffle_sentences"):
        refused(f"{name} must be at least", lambda name=name: Plan(**{"rows": 1, name: -1}))


@pytest.mark.parametrize("workers", [0, 2])
def test_what_fails_on_the_way_is_said_in_one_sentence(tmp_path, encoder, workers):
    path = tmp_path / "late.txt"
    path.write_bytes(b"w0_0\n" * 2000 + b"\xff\n")
    stream = IterableDataset.from_generator(failing_late)
    windows = Windows(Source(stream), encoder, Plan(rows=2, shuffle_sentences=10), workers=workers)
    refused("part 1 of 1 cannot be read: the disk is full", lambda: list(windows))
    refused(
        "late.txt is not UTF-8", lambda: list(Windows(Source(path), encoder, Plan(rows=2), workers=workers))
    )


def failing_late():
    for _ in range(3000):
        yield {"text": "w0_0 w1_0"}
    raise OSError("the disk is full")


def test_states_that_do_not_fit(files, source, encoder):
    plan = Plan(rows=4, shuffle_sentences=10)
    state = Reader(source, encoder, plan).state()
    refused(
        "begun with seed 0, now it is 1",
        Windows,
        source,
        encoder,
        Plan(4, seed=1, shuffle_sentences=10),
        state=state,
    )
    refused("begun with shuffle_sentences 10", Windows, source, encoder, Plan(4), state=state)
    refused(
        "begun with shared False",
        Windows,
        source,
        encoder,
        Plan(4, shuffle_sentences=10, shared=True),
        state=state,
    )
    other = Source([f"{files}/a.txt", f"{files}/b.txt"])
    refused("begun with shards 3, now it is 2", Windows, other, encoder, plan, state=state)
    parts = [Reader(source, encoder, plan, first, last).state() for first, last in ((0, 1), (1, 3), (3, 4))]
    assert merge_states(parts) == state
    refused("has 1 of 4 rows", Windows, source, encoder, plan, state=parts[0])
    refused("has 2 of 4 rows", Windows, source, encoder, plan, state=parts[1])
    refused("row 1 is in no state", merge_states, [parts[0], parts[2]])
    refused("row 3 is in no state, or in two", merge_states, [*parts[:2], parts[1]])


def test_a_changed_corpus_is_noticed(tmp_path, encoder):
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(LINES), encoding="utf-8")
    plan = Plan(rows=2, shuffle_sentences=20)
    state = [*islice(Reader(Source(path), encoder, plan), 5)][-1].state
    path.write_text("\n".join(LINES[::-1]), encoding="utf-8")
    refused("has changed since", lambda: list(Windows(Source(path), encoder, plan, state=state)))


# ---- the audit log


def test_the_audit_log_counts_every_sentence_once(source, encoder, tmp_path):
    """A run of 3 processes is killed, one of 2 goes on from the last step that was saved."""
    plan = Plan(rows=6, steps=6, shuffle_sentences=10, epochs=1)
    saved = 4
    logs = [tmp_path / f"audit-{process}.jsonl" for process in range(3)]
    parts = []
    for process, path in enumerate(logs):
        windows = list(Windows(source, encoder, plan, process=process, processes=3))
        log = AuditLog(path, process)
        for step, window in enumerate(windows[:8]):
            log.write(step, window)
        log.close()
        parts.append(windows[saved].state)
        with path.open("a") as file:
            file.write('{"step": 8, "proc')
    for path in logs:
        cut_audit(path, saved)
    for process in range(2):
        log = AuditLog(logs[process], process)
        windows = Windows(source, encoder, plan, process=process, processes=2, state=merge_states(parts))
        for step, window in enumerate(windows, start=saved + 1):
            log.write(step, window)
        log.close()
    entries = [json.loads(text) for path in logs for text in path.read_text().splitlines()]
    for direction in ("forward", "backward"):
        seen = Counter(tuple(sentence[1:]) for entry in entries for sentence in entry[direction])
        assert set(seen.values()) == {1}
        assert len(seen) == len(TEXTS)
    assert {entry["process"] for entry in entries if entry["step"] > saved} == {0, 1}


def test_blocks_are_the_same_from_any_place(source):
    reading = Reading(source, 0, 3, 60, 2)
    whole = [(b.place, b.end, b.texts, b.digest) for b in reading.blocks(START) if b is not None]
    assert None in list(reading.blocks(START))  # a pause, in which a window can be made
    for number, (place, *_) in enumerate(whole):
        again = [(b.place, b.end, b.texts, b.digest) for b in reading.blocks(place) if b is not None]
        assert again == whole[number:]
    assert [place.sentence for place, *_ in whole] == [
        0,
        *np.cumsum([len(texts) for _, _, texts, _ in whole])[:-1],
    ]
