"""Every sentence is read once by any number of processes and workers, also after resuming; the audit log."""

import json
import random
import subprocess
import sys
from collections import Counter
from itertools import chain, islice, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elmo_hf.corpus.order import START, Renumbering, SentenceOrder
from elmo_hf.corpus.windows import Plan, Reader, Windows, merge_states
from elmo_hf.files import append_line
from elmo_hf.pretraining.audit import cut_audit, entry_of
from tests.helpers.window_texts import (
    SENTENCES,
    TEXTS,
    same,
    until_the_end,
    words_of,
)

# Python 3.12 warns of every fork of a process with threads, as pyarrow's; the loader's workers are forks.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


# ---- who reads what


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_any_number_of_processes_and_workers_makes_the_same_windows(
    source, encoder, processes, workers, shared
):
    plan = Plan(rows=7, steps=5, seed=1, shuffle_sentences=10, epochs=2, shared=shared)
    whole = until_the_end(Reader(source, encoder, plan))
    by_process = []
    for process in range(processes):
        windows = Windows(
            source, encoder, plan, process=process, processes=processes, workers=workers, prefetch=2
        )
        by_process.append(list(windows))
        assert not windows.empty_window.mask.any()
        assert 0 < windows.waited <= windows.seconds
    counts = Counter(
        sentence for of_process in by_process for window in of_process for sentence in window.sentence_starts
    )
    assert set(counts.values()) == {1}
    assert len(counts) == 2 * 2 * len(TEXTS)  # directions, epochs
    start = 0
    for of_process in by_process:
        rows = of_process[0].mask.shape[1]
        for window, full in zip(of_process, whole, strict=False):
            for name in ("char_ids", "targets", "mask"):
                assert np.array_equal(getattr(window, name), getattr(full, name)[:, start : start + rows])
        assert not any(full.mask[:, start : start + rows].any() for full in whole[len(of_process) :])
        start += rows
    for step in range(min(map(len, by_process))):
        state = merge_states([of_process[step].state for of_process in by_process][::-1])
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
    state, all_windows, rows = None, [], draw.randint(1, 9)
    while True:
        plan = Plan(rows, draw.randint(1, 12), 5, shuffle, shared, epochs=2)
        steps = draw.choice([0, 1, 2, 5, 9])
        windows, state = play(source, encoder, plan, cuts(draw, rows), state, steps)
        all_windows += chain.from_iterable(windows)
        if windows and not any(window.mask.any() for window in windows[-1]):
            break
        rows = draw.choice([rows, rows, draw.randint(1, 9)])
    starts = Counter((s.direction, *s[2:]) for window in all_windows for s in window.sentence_starts)
    assert set(starts.values()) == {1}
    assert len(starts) == 2 * 2 * len(TEXTS)
    for direction, boundary in ((0, "<S>"), (1, "</S>")):
        read = Counter(
            word
            for window in all_windows
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
        following = whole[step + 1 : step + 5]
        assert all(same(*pair) for pair in zip(islice(reader, len(following)), following, strict=True))


def test_workers_resume_from_the_state_of_others(source, encoder):
    plan = Plan(rows=6, steps=6, seed=2, shuffle_sentences=9, epochs=3)
    whole = list(Windows(source, encoder, plan))
    for workers, processes in ((0, 2), (2, 1), (1, 2)):
        options = {"processes": processes, "workers": workers, "state": whole[8].state}
        by_process = [list(Windows(source, encoder, plan, process=p, **options)) for p in range(processes)]
        lengths = [len(windows) for windows in by_process]  # the rows of a process may end before the others
        assert max(lengths) == len(whole) - 9
        assert min(lengths) > len(whole) // 2
        for step, windows in enumerate(zip(*by_process, strict=False)):
            joined = np.concatenate([window.char_ids for window in windows], axis=1)
            assert np.array_equal(joined, whole[9 + step].char_ids)


@settings(max_examples=60)
@given(st.data())
def test_renumbering_covers_the_unread_sentences(data):
    rows = data.draw(st.integers(1, 5))
    started = data.draw(st.lists(st.integers(0, 6), min_size=rows, max_size=rows))
    used = [data.draw(st.integers(0, 4)) if count else 0 for count in started]
    numbers = np.arange(50)
    new, starts = Renumbering(rows, started, used).renumber(numbers, np.zeros_like(numbers))
    expected = [((started[row] - 1) * rows + row, used[row]) for row in range(rows) if used[row]]
    expected += [(number, 0) for number in range(50) if number // rows >= started[number % rows]]
    numbered = sorted(
        (n, number, start) for number, (n, start) in enumerate(zip(new, starts, strict=True)) if n >= 0
    )
    assert [(number, start) for _, number, start in numbered] == expected
    assert [n for n, *_ in numbered] == list(range(len(expected)))


STATE_OF_0_1_0 = {
    "settings": {
        **{"seed": 1, "shuffle_sentences": 10, "shared": False},
        **{"shards": 3, "raw": False, "split_sentences": False},
    },
    "rows": 3,
    "first": 0,
    "readings": [
        {
            **{"place": [0, 1, 0, 11, 10], "digest": 2577980523, "deals": []},
            **{"begun": [6, 11, 8], "used": [18, 4, 6]},
        },
        {
            **{"place": [0, 2, 0, 22, 20], "digest": 2542370889, "deals": []},
            **{"begun": [9, 10, 8], "used": [1, 14, 11]},
        },
    ],
}


def test_states_are_those_of_version_0_1_0(source, encoder):
    """It wrote the state after 20 windows, and then, with another number of rows, after 4 more."""
    plan = Plan(rows=3, steps=5, seed=1, shuffle_sentences=10)
    assert [*islice(Reader(source, encoder, plan), 20)][-1].state == STATE_OF_0_1_0
    shuffling_plan = Plan(rows=2, steps=5, seed=1, shuffle_sentences=10)
    last = [*islice(Reader(source, encoder, shuffling_plan, state=STATE_OF_0_1_0), 4)][-1]
    assert last.targets.tolist() == [
        [[1, 193, 194, 195, 196], [77, 78, 79, 80, 81]],
        [[2, 2, 2, 2, 2], [26, 25, 24, 23, 22]],
    ]
    readings = STATE_OF_0_1_0["readings"]
    assert last.state["readings"] == [
        reading | {"deals": [{"rows": 3, "begun": reading["begun"], "used": reading["used"]}]} | rows
        for reading, rows in zip(
            readings, ({"begun": [3, 2], "used": [4, 8]}, {"begun": [2, 2], "used": [28, 13]}), strict=True
        )
    ]


def test_the_state_stays_small_and_rows_do_not_pile_up(source, encoder):
    plan = Plan(rows=8, steps=5, shuffle_sentences=10)
    reader = Reader(source, encoder, plan)
    for window in islice(reader, 300):
        assert len(json.dumps(window.state)) < 600
    for rows in reader.rows:
        assert sum(map(len, rows.waiting)) < 4 * 10 + SENTENCES
        assert sum(map(len, rows.waiting)) == rows._groups[0].waiting


def test_reading_draws_nothing_from_torch(source, encoder):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    next(iter(Windows(source, encoder, Plan(rows=2), workers=1)))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_program_ends_with_its_workers(files, tmp_path):
    """Though it is in the midst of the windows: its workers are told to go, and need not be killed."""
    code = (
        "from elmo_hf.corpus.source import Source\n"
        "from elmo_hf.corpus.windows import Encoder, Plan, Windows\n"
        "from elmo_hf.corpus.vocabulary import Vocabulary\n"
        "vocabulary = Vocabulary(['<S>', '</S>', '<UNK>', 'w1_0'])\n"
        f"windows = iter(Windows(Source('{files}/*.txt'), Encoder(vocabulary), Plan(rows=2), workers=1))\n"
        "next(windows)\n"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (0, "")


@pytest.mark.parametrize(("hung", "tries"), [(1, 1000), (1000, 1)])
def test_workers_that_hang_in_their_fork_are_replaced(files, hung, tries):
    """As on a lock of the interpreter that another thread held: nothing of Python runs, signals included."""
    code = f"""
import multiprocessing, os, signal, time
from elmo_hf.corpus import windows
from elmo_hf.corpus.source import Source
from elmo_hf.corpus.vocabulary import Vocabulary

forks = []
def hang():
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(10_000)
os.register_at_fork(before=lambda: forks.append(1), after_in_child=lambda: len(forks) <= {hung} and hang())
multiprocessing.set_start_method("fork")
windows.TRIES, windows.PATIENCE = {tries}, 2.0
encoder = windows.Encoder(Vocabulary(["<S>", "</S>", "<UNK>", "w1_0"]))
def read(workers):
    source, plan = Source("{files}/*.txt"), windows.Plan(rows=3, epochs=1)
    return [window.targets.tolist() for window in windows.Windows(source, encoder, plan, workers=workers)]
try:
    assert read(2) == read(0)
except ValueError as error:
    print(error)
assert len(forks) > 2 or {tries} == 1
assert not multiprocessing.active_children()
"""
    command = [sys.executable, "-W", "ignore:.*use of fork:DeprecationWarning", "-c", code]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    sentence = "the 2 processes that read the text do not start; try --workers 0.\n" if tries == 1 else ""
    assert (process.returncode, process.stderr, process.stdout) == (0, "", sentence)


# ---- the audit log


def test_the_audit_log_counts_every_sentence_once(source, encoder, tmp_path):
    """A run of 3 processes is killed, one of 2 goes on from the last step that was saved."""
    plan = Plan(rows=6, steps=6, shuffle_sentences=10, epochs=1)
    saved = 4
    logs = [tmp_path / f"audit-{process}.jsonl" for process in range(3)]
    states = []
    for process, path in enumerate(logs):
        windows = list(Windows(source, encoder, plan, process=process, processes=3))
        for step, window in enumerate(windows[:8]):
            append_line(path, json.dumps(entry_of(step, process, window.sentence_starts)))
        states.append(windows[saved].state)
        with path.open("a") as file:
            file.write('{"step": 8, "proc')
    for path in logs:
        cut_audit(path, saved)
    for process in range(2):
        windows = Windows(source, encoder, plan, process=process, processes=2, state=merge_states(states))
        for step, window in enumerate(windows, start=saved + 1):
            append_line(logs[process], json.dumps(entry_of(step, process, window.sentence_starts)))
    entries = [json.loads(text) for path in logs for text in path.read_text().splitlines()]
    for direction in ("forward", "backward"):
        seen = Counter(tuple(sentence[1:]) for entry in entries for sentence in entry[direction])
        assert set(seen.values()) == {1}
        assert len(seen) == len(TEXTS)
    assert {entry["process"] for entry in entries if entry["step"] > saved} == {0, 1}


def test_blocks_are_the_same_from_any_place(source):
    order = SentenceOrder(source, 0, 3, 60, 2)
    whole = [(b.start, b.end, b.texts, b.digest) for b in order.blocks(START) if b is not None]
    assert None in list(order.blocks(START))  # a pause, in which a window can be made
    for number, (position, *_) in enumerate(whole):
        again = [(b.start, b.end, b.texts, b.digest) for b in order.blocks(position) if b is not None]
        assert again == whole[number:]
    assert [position.sentence for position, *_ in whole] == [
        0,
        *np.cumsum([len(texts) for _, _, texts, _ in whole])[:-1],
    ]
