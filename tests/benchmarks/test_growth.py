"""The arithmetic of growth, with numbers that can be done by hand; the page has the table of the JSON."""

import json

import pytest
import torch

from benchmarks import growth
from benchmarks.report import RESULTS, fill_blocks
from elmo_hf import ElmoConfig, ElmoForPreTraining
from elmo_hf.pretraining.learner import Network

NETWORK = {"within": 100.0, "between": 10.0, "hop": 0.5}


def test_the_page_has_the_table():
    text = growth.PAGE.read_text(encoding="utf-8")
    results = json.loads((RESULTS / "growth.json").read_text(encoding="utf-8"))
    assert fill_blocks(text, "growth", lambda _: growth.table(results)) == text


def test_dense_bytes_are_those_that_a_learner_reduces():
    with torch.device("meta"):
        network = Network(ElmoForPreTraining(ElmoConfig(vocab_size=1000)), has_softmax=False)
    assert growth.dense_bytes() == sum(weight.nbytes for weight in network.parameters())


def test_softmax_rows_are_between_samples_and_all_words():
    """Both directions draw 8,192 different words; 20 targets in each add few, 5,000 add some thousand."""
    few, many = growth.softmax_rows(1), growth.softmax_rows(250)
    assert growth.SAMPLES < few < 2 * growth.SAMPLES + 40
    assert few < many < few + 2 * 250 * growth.WINDOW
    assert growth.row_bytes() == 8 + 4 * 512 + 4


@pytest.mark.parametrize(
    ("gpus", "seconds"),
    [
        (1, 0.0),
        (2, (2 / 2 * 400 + 30) / 100 + 3 * 0.5),
        (8, (2 * 7 / 8 * 400 + 7 * 30) / 100 + 3 * 7 * 0.5),
        (64, (2 * 63 / 64 * 400 + 63 * 30) / 10 + 3 * 63 * 0.5),  # the network between machines sets the pace
    ],
)
def test_seconds_of_an_exchange(gpus, seconds):
    assert growth.exchange_seconds(gpus, 400, 30, NETWORK) == pytest.approx(seconds)


def test_the_rate_of_a_feed():
    """A reader is as fast as where as many or more read; nothing is known of more than that."""
    feed = {1: 100.0, 4: 320.0, 16: 800.0}
    assert [growth.feed_rate(feed, n) for n in (1, 2, 4, 8, 16, 17)] == [100, 160, 320, 400, 800, None]
    assert growth.feed_rate(None, 1) is None


@pytest.mark.parametrize(
    ("step", "feed", "rate", "binds"),
    [
        (30.0, None, 200 / 40, "step"),
        (5.0, None, 200 / 15, "exchange"),
        (30.0, 4.0, 4.0, "feed"),
        (30.0, 6.0, 200 / 40, "step"),
    ],
)
def test_what_binds(monkeypatch, step, feed, rate, binds):
    monkeypatch.setattr(growth, "exchange_seconds", lambda *_: 10.0)
    monkeypatch.setattr(growth, "dense_bytes", lambda: 1)
    monkeypatch.setattr(growth, "WORDS", 36_000)
    plan = growth.plan(2, 5, step, 1, NETWORK, feed)
    assert plan["updates"] == 1800  # of 200 words each
    assert plan["words_per_second"] == round(rate)
    assert plan["hours"] == round(360_000 / rate / 3600, 2)
    assert plan["efficiency"] == round(rate / (200 / step), 3)
    assert plan["binds"] == binds


def test_measured_constants(tmp_path):
    assert growth.measured_feed(tmp_path / "feed.json") is None
    (tmp_path / "feed.json").write_text(json.dumps({"kinds": {"one file": {}}}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"feed.json has no paragraphs; measure it again with these."):
        growth.measured_feed(tmp_path / "feed.json")
    with pytest.raises(ValueError, match=r"there is no .*; `python -m benchmarks.speed.gpu` measures it."):
        growth.measured_steps(tmp_path / "gpu.json")


def test_the_table_says_what_is_not_measured(monkeypatch):
    monkeypatch.setattr(growth, "softmax_rows", lambda rows: 1000)
    steps = {128: 0.01}
    without = growth.table(growth.compute(steps, None, 1))
    assert "The feed is not in the table, as there is no `results/feed.json`." in without
    assert "| feed |" not in without
    few = growth.table(growth.compute(steps, {1: 1000.0, 8: 8000.0}, 1))
    assert "1,000 words/s of 1, 8,000 words/s of 8; with more readers than that, the feed is not in" in few
    assert few.count("| feed |") == 1 + len(growth.NETWORKS)  # 1 GPU once, 8 GPUs for each network
    enough = growth.table(growth.compute(steps, {64: 1e12}, 1))
    assert "| feed |" not in enough
    assert enough.startswith("10,000,000,000 words in all.")
