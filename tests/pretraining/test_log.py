"""Reading the log of a run, also of one that was killed and resumed."""

import json

import pytest

from elmo_hf.pretraining.log import read_log
from tests.helpers.run_logs import evaluation, start, step, whole_run, write


@pytest.fixture
def log_file(tmp_path):
    return tmp_path / "log.jsonl"


def test_a_log_is_read_as_it_was_written(log_file):
    entries = [*whole_run(name="Zürich"), {"kind": "note", "text": "passed over"}]
    assert read_log(write(log_file, entries)) == entries
    assert read_log(log_file.parent) == entries
    assert read_log(str(log_file)) == entries


@pytest.mark.parametrize("end", ['{"kind": "st', "{", '{"kind": "start", "settings": {}', "\x00\x00"])
def test_an_unfinished_last_line_is_left_out(log_file, end):
    entries = [start(), step(10)]
    assert read_log(write(log_file, entries, end)) == entries


def test_an_unfinished_last_letter_is_left_out(log_file):
    write(log_file, [start(), step(10)])
    log_file.write_bytes(log_file.read_bytes() + '{"kind": "Zü'.encode()[:-1])
    assert read_log(log_file) == [start(), step(10)]


def test_a_last_line_that_lacks_only_its_end_counts(log_file):
    assert read_log(write(log_file, [start()], json.dumps(step(10)))) == [start(), step(10)]


def test_steps_that_were_made_again_count_as_the_last_time(log_file):
    resume = {"kind": "resume", "step": 20}
    before = [start(), step(10), step(20), evaluation(20, 90.0), step(30, 1.0), evaluation(30, 80.0)]
    after = [step(30, 2.0), step(40, 3.0)]
    third = [{"kind": "resume", "step": 40}, evaluation(40, 70.0), step(50)]
    kept = [*before[:4], resume, *after, *third]
    assert read_log(write(log_file, [*before, resume, *after, *third])) == kept
    # Killed again before the next checkpoint; and an evaluation that was made on both sides of the kill.
    again = [*before, resume, step(30, 7.0), resume, evaluation(20, 91.0), *after]
    assert read_log(write(log_file, again)) == [*before[:3], resume, evaluation(20, 91.0), *after]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([json.dumps(step(1)), "{broken", json.dumps(step(2))], "line 2 is damaged: '{broken'"),
        ([json.dumps(step(1)), ""], "line 2 is damaged: ''"),
        (["[1, 2]"], "line 1 is damaged: '"),
        (['{"step": 3}'], "line 1 has no kind, so this is not the log of a pretraining run"),
        (['{"kind": "step", "step": 3}'], "line 1: loss of this step must be a number, but is None"),
        (['{"kind": "resume", "step": "3"}'], "line 1: step of this resume must be a number, but is '3'"),
        (['{"kind": "evaluation", "step": true}'], "step of this evaluation must be a number, but is True"),
        (
            [json.dumps(step(1)), json.dumps(evaluation(2) | {"mean": -1.0})],
            "of this evaluation is -1, which cannot be",
        ),
        ([json.dumps(evaluation(2) | {"mean": 0.0})], "line 1: mean of this evaluation is 0, which cannot"),
        ([json.dumps(evaluation(2) | {"mean": 2e30})], "of this evaluation is 2e+30, which"),
        ([json.dumps(step(1, -2e30))], "line 1: loss of this step is -2e+30, which"),
        ([json.dumps(step(1) | {"words": 1e40})], "line 1: words of this step is 1e+40, which"),
    ],
)
def test_a_damaged_log_is_refused_in_one_sentence(log_file, lines, message):
    log_file.write_text("".join(line + "\n" for line in lines))
    with pytest.raises(ValueError, match="log") as error:
        read_log(log_file)
    assert message in str(error.value)


@pytest.mark.parametrize("content", ["", '{"kind": "sta'])
def test_an_empty_log(log_file, content):
    with pytest.raises(ValueError, match=r"there is no log .*log\.jsonl; name the folder"):
        read_log(log_file.parent)
    log_file.write_text(content)
    with pytest.raises(ValueError, match=r"log\.jsonl is empty; the run has written nothing yet"):
        read_log(log_file)
