"""Corpora and states that cannot be read are refused in one sentence."""

from itertools import islice

import pytest
from datasets import IterableDataset

from elmo_hf.corpus.source import Source
from elmo_hf.corpus.windows import Plan, Reader, Windows, merge_states
from tests.helpers.window_texts import LINES

# Python 3.12 warns of every fork of a process with threads, as pyarrow's; the loader's workers are forks.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


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
def test_errors_while_reading_are_one_sentence(tmp_path, encoder, workers):
    path = tmp_path / "late.txt"
    path.write_bytes(b"w0_0\n" * 2000 + b"\xff\n")
    stream = IterableDataset.from_generator(failing_late)
    windows = Windows(Source(stream), encoder, Plan(rows=2, shuffle_sentences=10), workers=workers)
    refused("the IterableDataset cannot be read: the disk is full", lambda: list(windows))
    plan = Plan(rows=2)
    late = "late.txt, line 2001 is not UTF-8"
    refused(late, lambda: list(Windows(Source(path), encoder, plan, workers=workers)))


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
    fewer_files = Source([f"{files}/a.txt", f"{files}/b.txt"])
    refused("begun with shards 3, now it is 2", Windows, fewer_files, encoder, plan, state=state)
    states = [Reader(source, encoder, plan, first, last).state() for first, last in ((0, 1), (1, 3), (3, 4))]
    assert merge_states(states) == state
    refused("has 1 of 4 rows", Windows, source, encoder, plan, state=states[0])
    refused("has 2 of 4 rows", Windows, source, encoder, plan, state=states[1])
    refused("row 1 is in no state", merge_states, [states[0], states[2]])
    refused("row 3 is in no state, or in two", merge_states, [*states[:2], states[1]])


def test_a_changed_corpus_is_noticed(tmp_path, encoder):
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(LINES), encoding="utf-8")
    plan = Plan(rows=2, shuffle_sentences=20)
    state = [*islice(Reader(Source(path), encoder, plan), 5)][-1].state
    path.write_text("\n".join(LINES[::-1]), encoding="utf-8")
    refused("has changed since", lambda: list(Windows(Source(path), encoder, plan, state=state)))
