"""The `evaluate` metrics: equal to the plain functions, batch by batch, without a network."""

import math
import socket

import evaluate
import numpy as np
import pytest
import torch
from transformers import Trainer

import elmo_hf
from elmo_hf import ElmoConfig, ElmoForTokenClassification, ElmoTokenizer, metrics
from elmo_hf.finetuning.tagging import collate_words
from tests.helpers.trainers import arguments

LABELS = [["B-A0", "I-A0", "B-V"], ["O"], [], ["B-A1", "B-C-A1", "I-X"]]
GUESSES = [["B-A0", "O", "B-V"], ["I-A0"], [], ["B-A1", "B-C-A1", "B-X"]]
CLUSTERS = [[[[0, 0, 0], [1, 2, 2]], [[0, 2, 4]]], [], [[[0, 1, 1], [3, 0, 0], [5, 2, 2]]]]
GUESSED_CLUSTERS = [[[[0, 0, 0], [0, 2, 4]], [[1, 2, 2]]], [[[0, 0, 0]]], [[[0, 1, 1], [3, 0, 0]]]]
PRONOUNS = [[True, False], [False, True], [False, False]]
GUESSED_PRONOUNS = [[True, False], [True, False], [False, True]]
ANSWERS = {"1": "the Ada", "2": "1816", "3": "London"}
GOLD_ANSWERS = {"1": ["Ada", "Ada Lovelace"], "2": ["1815"], "3": ["in London"]}


def tuples(documents):
    return [[[tuple(mention) for mention in cluster] for cluster in document] for document in documents]


CASES = {
    "accuracy": (GUESSES, LABELS, {"accuracy": metrics.accuracy(GUESSES, LABELS)}),
    "spans": (GUESSES, LABELS, metrics.span_scores(GUESSES, LABELS)),
    "roles": (GUESSES, LABELS, metrics.role_scores(GUESSES, LABELS)),
    "coreference": (
        GUESSED_CLUSTERS,
        CLUSTERS,
        metrics.coreference_scores(tuples(GUESSED_CLUSTERS), tuples(CLUSTERS)),
    ),
    "pronouns": (GUESSED_PRONOUNS, PRONOUNS, metrics.pronoun_scores(GUESSED_PRONOUNS, PRONOUNS)),
    "squad": (
        [{"id": name, "prediction_text": answer} for name, answer in ANSWERS.items()],
        [{"id": name, "answers": {"text": texts, "answer_start": [0] * len(texts)}}
         for name, texts in GOLD_ANSWERS.items()],
        metrics.squad_scores(ANSWERS, GOLD_ANSWERS),
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """No row of a test is left in the user's cache."""
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path)


def test_every_metric_has_a_case():
    names = {module.stem for module in metrics.MODULES.glob("[a-z]*.py")}
    assert names == {*CASES, "perplexity"}
    message = r"there is no metric 'ner'; the metrics are accuracy, coreference, .*, squad\."
    with pytest.raises(elmo_hf.errors.ElmoError, match=message):
        metrics.path("ner")


@pytest.mark.parametrize("keep_in_memory", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_a_metric_equals_its_function_whole_and_by_batches(name, keep_in_memory):
    predictions, references, expected = CASES[name]
    metric = evaluate.load(metrics.path(name), keep_in_memory=keep_in_memory)
    for size in (1, 2):
        for start in range(0, len(references), size):
            metric.add_batch(
                predictions=predictions[start : start + size], references=references[start : start + size]
            )
        assert metric.compute() == expected
    assert metric.compute(predictions=predictions, references=references) == expected


def test_a_perplexity_by_batches():
    probabilities = [0.5, 0.25, 0.1, 0.9, 0.05]
    losses = [-math.log(probability) for probability in probabilities]
    expected = math.prod(probabilities) ** (-1 / 5)
    metric = evaluate.load(metrics.path("perplexity"), keep_in_memory=True)
    metric.add_batch(losses=np.array([sum(losses[:3])]), counts=np.array([3]))
    metric.add_batch(losses=losses[3:], counts=[1, 1])
    scores = metric.compute()
    assert scores["perplexity"] == pytest.approx(expected, rel=1e-14)
    assert scores["tokens"] == 5
    assert metric.compute(losses=[1e6], counts=[1])["perplexity"] == math.inf
    for counts in ([0, 0], [3, -1]):
        with pytest.raises(ValueError, match="a perplexity is over one token or more"):
            metric.compute(losses=[1.0, 1.0], counts=counts)


def test_metrics_combine():
    scores = evaluate.combine([metrics.path("spans"), metrics.path("accuracy")])
    scores.add_batch(predictions=GUESSES, references=LABELS)
    combined = scores.compute()
    assert combined["f1"] == CASES["spans"][2]["f1"]
    assert combined["accuracy"] == CASES["accuracy"][2]["accuracy"]
    both = evaluate.combine([metrics.path("pronouns"), metrics.path("perplexity")])
    both.add_batch(predictions=GUESSED_PRONOUNS, references=PRONOUNS, losses=[0.0] * 3, counts=[1] * 3)
    assert both.compute() == CASES["pronouns"][2] | {"perplexity": 1.0, "tokens": 3}


@pytest.mark.parametrize(("predictions", "references"), [
    (["yes", "no", "no"], ["yes", "yes", "no"]),
    (np.array([3, 0, 0]), np.array([3, 3, 0])),
    ([[1], [], [2, 2]], [[1], [], [1, 2]]),
])  # fmt: skip
def test_accuracy_of_names_ids_and_rows(predictions, references):
    metric = evaluate.load(metrics.path("accuracy"), keep_in_memory=True)
    assert metric.compute(predictions=predictions, references=references) == {"accuracy": 2 / 3}


def test_accuracy_over_nothing_is_0():
    metric = evaluate.load(metrics.path("accuracy"), keep_in_memory=True)
    assert metric.compute(predictions=[], references=[]) == {"accuracy": 0.0}
    with pytest.raises(ValueError, match="there are 0 predicted rows for 1 gold rows"):
        metric.compute(predictions=[], references=["yes"])


def test_a_question_that_occurs_twice_is_refused():
    predictions, references, _ = CASES["squad"]
    metric = evaluate.load(metrics.path("squad"), keep_in_memory=True)
    with pytest.raises(ValueError, match="a question's id occurs twice"):
        metric.compute(predictions=predictions[:1] * 2, references=references[:2])


@pytest.mark.parametrize("name", [*CASES, "perplexity"])
def test_metrics_use_no_network(name, monkeypatch):
    def refuse(*_):
        raise RuntimeError("a metric asks the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert isinstance(evaluate.load(metrics.path(name)), evaluate.Metric)


def test_metrics_load_where_the_hub_is_switched_off(fork_server):
    code = (
        "import os, evaluate, elmo_hf.metrics as metrics\n"
        "assert os.environ['HF_HUB_OFFLINE'] == '1'\n"
        "for name in sorted(module.stem for module in metrics.MODULES.glob('[a-z]*.py')):\n"
        "    print(type(evaluate.load(metrics.path(name))).__name__)"
    )
    result = fork_server.run(code)
    assert result.out.split() == [name.capitalize() for name in sorted([*CASES, "perplexity"])], result.err


def test_a_trainer_of_ones_own(tmp_path):
    """`compute_metrics` of a tagger: logits and label ids, -100 where there is no word."""
    names, sentences = ["O", "B-X", "I-X"], [["a", "b", "c"], ["d"]]
    examples = [
        {"tokens": words, "labels": labels}
        for words, labels in zip(sentences, [["B-X", "I-X", "O"], ["B-X"]], strict=True)
    ]
    spans = evaluate.load(metrics.path("spans"), keep_in_memory=True)
    seen = []

    def compute_metrics(evaluation):
        predicted, gold = metrics.label_names(evaluation.predictions.argmax(-1), evaluation.label_ids, names)
        seen.append((predicted, gold))
        scores = spans.compute(predictions=predicted, references=gold)
        return {name: scores[name] for name in ("f1", "precision", "recall")}

    torch.manual_seed(0)
    config = {"lstm_dim": 12, "projection_dim": 8, "char_filters": [[1, 4]], "vocab_size": 3}
    model = ElmoForTokenClassification(ElmoConfig(**config, id2label=dict(enumerate(names))))
    trainer = Trainer(
        model,
        arguments(tmp_path, 1, 0.1, remove_unused_columns=False),
        eval_dataset=examples,
        data_collator=lambda rows: collate_words(names)(ElmoTokenizer(), rows),
        compute_metrics=compute_metrics,
    )
    scores = trainer.evaluate()
    [(predicted, gold)] = seen
    assert gold == [["B-X", "I-X", "O"], ["B-X"]]
    assert [len(row) for row in predicted] == [3, 1]
    assert scores["eval_f1"] == metrics.span_scores(predicted, gold)["f1"]
