"""The simple features: what each method must get right on made-up examples."""

import ctypes
import random
from argparse import Namespace

import pytest

from benchmarks.tables import simple, simple_classes, simple_coreference, simple_questions, simple_tags
from benchmarks.tables.collect import add_simple
from benchmarks.tables.page import markdown_of
from benchmarks.tables.plan import TASKS
from elmo_hf.finetuning.squad import as_example
from training import finetune_nli


def test_a_crf_learns_names_from_shapes_and_neighbours():
    pytest.importorskip("pycrfsuite", reason="python-crfsuite is not installed (the extra `tables`)")
    draw = random.Random(0)

    def example():
        name = "".join(draw.choices("abcdefg", k=5)).title()
        verb = draw.choice(["met", "saw"])
        return {
            "tokens": ["we", verb, "Mr.", name, "in", name + "burg"],
            "labels": ["O", "O", "O", "B-PER", "O", "B-LOC"],
        }

    data = {
        split: [example() for _ in range(number)]
        for split, number in (("train", 60), ("dev", 9), ("test", 9))
    }
    method, predicted = simple_tags.predict(data, roles=False)
    assert "CRF" in method
    assert predicted["test"] == [row["labels"] for row in data["test"]]
    assert simple_tags.shape("U.S.-1990s") == "X.X.-0x"


def test_roles_depend_on_the_predicate():
    pytest.importorskip("pycrfsuite", reason="python-crfsuite is not installed (the extra `tables`)")
    words = ["dogs", "eat", "and", "cats", "sleep"]
    rows = [
        {"tokens": words, "labels": ["B-A0", "B-V", "O", "O", "O"], "predicate_mask": [0, 1, 0, 0, 0]},
        {"tokens": words, "labels": ["O", "O", "O", "B-A0", "B-V"], "predicate_mask": [0, 0, 0, 0, 1]},
    ]
    for seed in range(8):  # whatever drew random numbers before: four of ten orders are not learnt
        ctypes.CDLL(None).srand(seed)
        _, predicted = simple_tags.predict(dict.fromkeys(("train", "dev", "test"), rows * 5), roles=True)
        assert predicted["test"][:2] == [row["labels"] for row in rows]


def test_logistic_regression_learns_classes_and_overlap():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed (the extra `tables`)")
    draw = random.Random(0)

    def pair():
        first = draw.sample(["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"], 5)
        same = draw.random() < 0.5
        second = first[:3] if same else draw.sample(["k", "l", "m", "n"], 3)
        return {"tokens": first, "sentences": (first, second), "label": "yes" if same else "no"}

    data = {
        split: [pair() for _ in range(number)]
        for split, number in (("train", 200), ("dev", 30), ("test", 30))
    }
    _, predicted = simple_classes.predict(data, pairs=True)
    assert predicted["test"] == [row["label"] for row in data["test"]]
    texts = {
        split: [{"tokens": ["so", word], "label": label} for word, label in (("good", "+"), ("bad", "-"))] * 5
        for split in data
    }
    _, predicted = simple_classes.predict(texts, pairs=False)
    assert predicted["dev"] == ["+", "-"] * 5


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Who paid the bill?", "Ada Lee"),
        ("When did she pay the bill?", "1843"),
        ("How many dollars was the bill?", "30"),
    ],
)
def test_questions_are_answered_by_the_type_that_they_ask_for(question, answer):
    context = "At last Ada Lee paid the bill in 1843. The bill was 30 dollars. Tom slept in Rome."
    row = as_example("1", question, context, [(answer, context.index(answer))], "here")
    assert simple_questions.answer(row) == answer


def test_pairs_of_dev_and_test_are_cut_and_not_left_out(tmp_path):
    long = "a " * (finetune_nli.MAX_WORDS + 1)
    lines = ["sentence1\tsentence2\tlabel", f"{long}\tb\tneutral", "a\tb\tneutral", ""]
    (tmp_path / "pairs.tsv").write_text("\n".join(lines), encoding="utf-8")
    files = {split: [str(tmp_path / "pairs.tsv")] for split in ("train", "dev", "test")}
    data = simple.read_pairs(Namespace(data=None, limit=None, smoke=False, evaluate=None, **files))
    assert len(data["train"]) == 1
    for split in ("dev", "test"):  # as in finetune_nli.py
        assert [len(pair["sentences"][0]) for pair in data[split]] == [finetune_nli.MAX_WORDS, 1]


def test_names_and_pronouns_are_linked():
    sentences = [
        ["Mr.", "Lee", "saw", "the", "dog", "."],
        ["At", "last", "Lee", "fed", "the", "dog", ",", "and", "he", "slept", "."],
    ]
    clusters = simple_coreference.clusters_of(sentences)
    assert clusters == [[(0, 0, 1), (1, 2, 2), (1, 8, 8)], [(0, 3, 4), (1, 4, 5)]]


def test_the_row_of_simple_features_stands_beside_the_baseline():
    cell = {"mean": 60.0, "std": 1.0, "seeds": [0, 1], "scores": [59.0, 61.0]}
    row = {
        "task": TASKS["nli"].title,
        "metric": "accuracy",
        "train_size": 10,
        "train_size_of": "",
        "helps": "no",
    }
    row |= {"baseline": cell, "elmo": cell, "relative_error_reduction": 0.0, "paper": None}
    table = {"title": "Table 1", "model": "tiny", "split": "test", "rows": [row]}
    assert "simple features" not in markdown_of("table1", table)
    examples = {"train": TASKS["nli"].train_size, "dev": 1000, "test": 2476}
    result = {"scores": {"test": {"accuracy": 0.566}}, "method": "logistic regression"}
    for of_other_examples in (examples | {"train": 5000}, examples | {"dev": 500}):
        add_simple(table["rows"], TASKS, {"nli": result | {"examples": of_other_examples}})
        assert "simple" not in row
    add_simple(table["rows"], TASKS, {"nli": result | {"examples": examples}})
    text = markdown_of("table1", table)
    assert "| Entailment, MNLI-20k | accuracy | 10 | 56.6 | 60.0 ± 1.0 (two seeds) | 60.0 ± 1.0 (two" in text
    assert "- Entailment, MNLI-20k: logistic regression." in text
