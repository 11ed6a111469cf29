"""Windows of an encoded text against a reference that follows the contract sentence by sentence."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from elmo_hf.corpus.encoded import EncodedText, encode
from elmo_hf.corpus.encoded_windows import EncodedWindows
from elmo_hf.corpus.encoder import Encoder
from elmo_hf.corpus.source import Source
from elmo_hf.corpus.vocabulary import Vocabulary
from elmo_hf.corpus.windows import Plan, merge_states
from elmo_hf.errors import ElmoError
from elmo_hf.model.words_elmo import character_ids

WORDS = [f"w{number}" for number in range(30)]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    generator = np.random.default_rng(1)
    lengths = [*generator.integers(1, 12, 60), 1, 90, 1]
    lines = [" ".join(generator.choice(WORDS, length)) for length in lengths]
    (folder / "text.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    encode(Source(str(folder / "text.txt")), folder / "encoded")
    return EncodedText(folder / "encoded")


@pytest.fixture(scope="module")
def encoder():
    return Encoder(Vocabulary(["<S>", "</S>", "<UNK>", *WORDS[:20]]), max_characters=8)


def windows_of(text, encoder, plan, **options):
    windows = EncodedWindows(text, encoder, plan, **options)
    return windows, list(windows)


def rows_of(windows, shape):
    """What each direction of each row reads and predicts, as lists of numbers."""
    rows = {}
    for window in windows:
        for direction in range(2):
            for row in range(shape):
                now = window.mask[direction, row]
                pairs = zip(
                    window.input_ids[direction, row][now], window.targets[direction, row][now], strict=True
                )
                rows.setdefault((direction, row), []).extend((int(a), int(b)) for a, b in pairs)
    return rows


def reference(text, encoder, plan):
    """By sentences: an order for each direction, and sentence n for row n % rows."""
    sentences, rows = list(text), {}
    numbers = {word: number for number, word in enumerate(text.words)}
    for direction in range(2):
        order = []
        for epoch in range(plan.epochs):
            generator = np.random.default_rng([plan.seed, 0 if plan.shared else direction, epoch])
            size = len(sentences)
            order += generator.permutation(size).tolist() if plan.shuffle_sentences else range(size)
        for n, place in enumerate(order):
            words = ["<S>", *sentences[place], "</S>"][:: -1 if direction else 1]
            pairs = pairwise(words)
            row = rows.setdefault((direction, n % plan.rows), [])
            row += [(numbers[word], encoder.vocabulary.ids[target]) for word, target in pairs]
    return rows


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("rows", "steps", "shuffled"), [(1, 7, 100), (4, 3, 100), (4, 5, 0), (70, 2, 100)])
def test_rows_follow_the_contract(text, encoder, shared, rows, steps, shuffled):
    plan = Plan(rows=rows, steps=steps, seed=5, shared=shared, epochs=2, shuffle_sentences=shuffled)
    _, windows = windows_of(text, encoder, plan)
    assert rows_of(windows, rows) == reference(text, encoder, plan)
    assert len(windows) > 16 or rows == 70  # more than are made at once


def test_epochs_are_shuffled_anew_and_the_seed_decides(text, encoder):
    orders = [EncodedWindows(text, encoder, Plan(rows=1, seed=seed)).orders[0] for seed in (5, 5, 6)]
    assert (orders[0].permutation(0) == orders[1].permutation(0)).all()
    assert (orders[0].permutation(0) != orders[2].permutation(0)).any()
    assert (orders[0].permutation(0) != orders[0].permutation(1)).any()


def test_letters_are_those_of_the_words(text, encoder):
    windows = EncodedWindows(text, encoder, Plan(rows=2))
    assert windows.letters.tolist() == character_ids(text.words, 8).tolist()


def test_a_model_with_a_word_table_reads_ids(text):
    encoder = Encoder(Vocabulary(["<S>", "</S>", "<UNK>", *WORDS[:20]]), token_encoder="words")
    windows, [window, *_] = windows_of(text, encoder, Plan(rows=2, epochs=1))
    assert windows.letters is None
    ids = encoder.vocabulary.ids
    inputs = window.input_ids[0, 0].tolist()
    sentence = list(text)[windows.orders[0].permutation(0)[0]]
    assert inputs[: 1 + len(sentence)] == [ids["<S>"], *(ids[word] for word in sentence)]
    assert max(inputs) < len(encoder.vocabulary)


def test_sentence_starts(text, encoder):
    plan = Plan(rows=4, steps=3, seed=5, epochs=2)
    _, windows = windows_of(text, encoder, plan)
    starts = Counter(start for window in windows for start in window.sentence_starts)
    assert set(starts.values()) == {1}
    assert sorted(start[2:] for start in starts if start.direction == 1) == [
        (epoch, 0, place, 0) for epoch in range(2) for place in range(len(text))
    ]
    first = windows[0].sentence_starts[0]
    sentence = list(text)[first.line]
    assert [text.words[number] for number in windows[0].input_ids[0, first.row]][:2] == ["<S>", sentence[0]]


@pytest.mark.parametrize("shared", [True, False])
def test_processes_share_the_rows(text, encoder, shared):
    plan = Plan(rows=5, steps=3, seed=5, shared=shared, epochs=1)
    _, whole = windows_of(text, encoder, plan)
    halves = [EncodedWindows(text, encoder, plan, process=number, processes=2) for number in range(2)]
    for window in whole:
        parts = [half.window() for half in halves]
        for name in ("input_ids", "targets", "mask"):
            joined = np.concatenate([getattr(part, name) for part in parts], axis=1)
            assert (joined == getattr(window, name)).all()
        assert merge_states([part.state for part in parts]) == window.state


@pytest.mark.parametrize("shared", [True, False])
def test_windows_go_on_after_any_window(text, encoder, shared):
    plan = Plan(rows=4, steps=3, seed=5, shared=shared, epochs=2)
    _, windows = windows_of(text, encoder, plan)
    for number in [*range(0, len(windows) - 1, 7), len(windows) - 2]:
        _, others = windows_of(text, encoder, plan, state=windows[number].state)
        assert len(others) == len(windows) - number - 1
        for window, other in zip(windows[number + 1 :], others, strict=True):
            assert (window.input_ids == other.input_ids).all()
            assert (window.targets == other.targets).all()
            assert (window.mask == other.mask).all()
            assert window.state == other.state


@pytest.mark.parametrize("seed", range(5))
def test_each_word_is_read_once_whatever_the_numbers_of_rows(text, encoder, seed):
    """The number of rows changes four times, after a few windows or in the last ones."""
    generator, state, read = np.random.default_rng(seed), None, Counter()
    lasts = [*generator.integers(1, 12, 4), 10_000]
    for last in lasts:
        plan = Plan(rows=int(generator.integers(1, 9)), steps=3, seed=5, epochs=2)
        for number, window in enumerate(EncodedWindows(text, encoder, plan, state=state)):
            for (direction, _), pairs in rows_of([window], plan.rows).items():
                read.update((direction, *pair) for pair in pairs)
            state = window.state
            if number == last:
                break
    expected = Counter()
    for (direction, _), pairs in reference(text, encoder, Plan(rows=1, seed=5, epochs=2)).items():
        expected.update((direction, *pair) for pair in pairs)
    assert read == expected


def test_mistakes(text, encoder):
    plan = Plan(rows=2, epochs=1)
    with pytest.raises(ElmoError, match=r"2 rows are too few for 3 processes; each needs a row\."):
        EncodedWindows(text, encoder, plan, process=0, processes=3)
    other = Encoder(Vocabulary(["<S>", "</S>", "<UNK>", "house"]))
    with pytest.raises(ElmoError, match=r"none of the most frequent words of .* is in the vocabulary"):
        EncodedWindows(text, other, plan)
    state = EncodedWindows(text, encoder, plan).window().state
    state["settings"]["words"] += 1
    with pytest.raises(ElmoError, match="the training was begun with words"):
        EncodedWindows(text, encoder, plan, state=state)
