"""The recipe for sentiment: trees, the choice of phrases, a run."""

import json
import random

import pytest
import torch
from datasets import Dataset, DatasetDict
from transformers import AutoTokenizer, pipeline

from elmo_hf import ElmoForSequenceClassification
from elmo_hf.errors import ElmoError
from tests.helpers.paths import SHARED
from training import finetune_sst
from training.finetune_sst import LABELS, read_tree, with_phrases

TREE = "(3 (2 It) (4 (2 's) (4 (3 really) (3 good))))"
ODD = "(1 (2 (2 -LRB-) (2 and\\/or)) (2 (0 bad) (2 -RRB-)))"


def test_a_tree_is_its_phrases_in_the_order_of_their_ends():
    assert read_tree(TREE, "here") == [
        ("2", ["It"]),
        ("2", ["'s"]),
        ("3", ["really"]),
        ("3", ["good"]),
        ("4", ["really", "good"]),
        ("4", ["'s", "really", "good"]),
        ("3", ["It", "'s", "really", "good"]),
    ]
    assert read_tree(ODD, "here")[-1] == ("1", ["(", "and/or", "bad", ")"])


def test_sentences_alone_or_with_their_phrases(tmp_path):
    path = tmp_path / "trees.txt"
    path.write_text(f"{TREE}\n{ODD}\r\n\n", encoding="utf-8")
    sentences = finetune_sst.read(path)
    assert [(sentence["label"], sentence["tokens"]) for sentence in sentences] == [
        ("positive", ["It", "'s", "really", "good"]),
        ("negative", ["(", "and/or", "bad", ")"]),
    ]
    assert with_phrases(sentences, 0) == sentences

    def lengths(least):
        return [len(phrase["tokens"]) for phrase in with_phrases(sentences, least)]

    assert lengths(1) == [1, 1, 1, 1, 2, 3, 4, 1, 1, 2, 1, 1, 2, 4]
    assert lengths(3) == [3, 4, 4]
    assert lengths(9) == [4, 4]  # a sentence stays, however short it is


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("(3 (2 It) (4 good)", "line 1 is not one tree"),
        ("(3 It) (2 is)", "line 1 is not one tree"),
        ("(3)", "line 1: the phrase of class '3' has no words"),
        ("(3 (2 ) It)", "line 1: the phrase of class '2' has no words"),
        ("(3 It))", r"line 1: '\)' is outside of all phrases"),
        ("no tree", "line 1: 'no' is outside of all phrases"),
        ("(5 It)", "line 1: the label is '5', and must be one of very negative, negative, neutral"),
        ("((2 It))", "line 1: the label is ''"),
    ],
)
def test_a_broken_tree_is_named(tmp_path, line, message):
    (tmp_path / "trees.txt").write_text(line, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as error:
        finetune_sst.read(tmp_path / "trees.txt")
    assert "\n" not in str(error.value)


def test_the_treebank_has_its_known_size():
    path = SHARED / "data" / "sst" / "trees" / "dev.txt.xz"
    if not path.exists():
        pytest.skip(f"no Sentiment Treebank at {path}; ELMO_HF_SHARED names the folder above `data`")
    sentences = finetune_sst.read(path)
    assert len(sentences) == 1101
    assert len(with_phrases(sentences, 1)) == 41447


# ---- a whole run


def write_trees(folder):
    """Made-up sentences whose class is that of their last word."""
    draw = random.Random(0)
    words = dict(zip(["awful", "bad", "long", "good", "superb"], range(5), strict=True))
    flags = []
    for split, number in (("train", 200), ("dev", 40), ("test", 40)):
        lines = []
        for _ in range(number):
            verdict, first = draw.choice(list(words)), draw.choice(["It", "This", "That"])
            lines.append(
                f"({words[verdict]} (2 {first}) ({words[verdict]} (2 is) ({words[verdict]} {verdict})))"
            )
        (folder / f"{split}.txt").write_text("\n".join(lines), encoding="utf-8")
        flags += [f"--{split}", str(folder / f"{split}.txt")]
    return flags


def test_a_run_learns_and_its_model_serves_a_pipeline(tmp_path, call):
    files = write_trees(tmp_path)
    settings = ["--phrases", 2, "--set", "task_word_dim=16", "task_dropout=0.0"]
    call(finetune_sst, "--smoke", *files, "--output", tmp_path / "run", "--learning-rate", 0.005,
         "--batch-size", 8, "--epochs", 4, *settings)  # fmt: skip
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["mean"]["test"]["accuracy"] > 0.9
    assert results["examples"] == {"train": 300, "dev": 40, "test": 40}
    assert results["config"]["maxout_pieces"] == 0
    classify = pipeline("text-classification", model=str(tmp_path / "run" / "seed-0"))
    assert [answer["label"] for answer in classify(["This is superb", "That is awful"])] == [
        LABELS[4],
        LABELS[0],
    ]


def test_a_model_is_judged_by_its_own_order_of_the_classes(tmp_path, call):
    """finetune_text.py sorts them by name."""
    files = write_trees(tmp_path)
    call(
        finetune_sst,
        "--smoke",
        *files,
        "--output",
        tmp_path / "run",
        "--epochs",
        1,
        "--set",
        "task_word_dim=4",
    )
    folder = tmp_path / "run" / "seed-0"
    test = str(tmp_path / "test.txt")
    call(finetune_sst, "--evaluate", folder, "--test", test, "--output", tmp_path / "a", "--predictions")
    model = ElmoForSequenceClassification.from_pretrained(folder)
    order = sorted(range(5), key=LABELS.__getitem__)
    last = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
    assert last.out_features == 5
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.copy_(parameter[order])
    model.config.id2label = dict(enumerate(LABELS[number] for number in order))
    model.save_pretrained(folder)
    call(finetune_sst, "--evaluate", folder, "--test", test, "--output", tmp_path / "b", "--predictions")
    predicted = [(tmp_path / name / "predictions" / "test.jsonl").read_text() for name in "ab"]
    assert predicted[0] == predicted[1]
    scores = [json.loads((tmp_path / name / "evaluation.json").read_text())["scores"] for name in "ab"]
    assert scores[0] == scores[1]
    model.config.id2label = dict(enumerate("abcde"))
    model.save_pretrained(folder)
    with pytest.raises(ElmoError, match=r"seed-0 tells a, b, c, d, e apart, and not this task's"):
        call(finetune_sst, "--evaluate", folder, "--test", test)


def test_a_dataset_has_sentences_alone(tmp_path, call):
    rows = {"text": ["It's good.", "It isn't."] * 10, "label": [3, 1] * 10}
    DatasetDict({name: Dataset.from_dict(rows) for name in ("train", "validation", "test")}).save_to_disk(
        tmp_path / "dataset"
    )
    call(
        finetune_sst,
        "--smoke",
        "--data",
        tmp_path / "dataset",
        "--output",
        tmp_path / "run",
        "--set",
        "task_word_dim=16",
    )
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["examples"] == {"train": 20, "dev": 20, "test": 20}
    [row] = finetune_sst.from_row({"text": "It's good.", "label": 1}, "row 1 of the test split")
    assert row["tokens"] == ["It", "'s", "good", "."]


def test_a_wrong_number_of_words_is_one_sentence(tmp_path, call):
    with pytest.raises(ValueError, match=r"^--phrases must be 0 or more, but is -1\.$"):
        call(finetune_sst, "--smoke", *write_trees(tmp_path), "--output", tmp_path / "run", "--phrases", -1)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("is_dataset", "words"), [(True, ["It", "'s", "good", "."]), (False, ["It's", "good."])]
)
def test_the_saved_model_splits_texts_of_a_dataset_as_the_recipe(
    tmp_path, call, same_file, elmo_of_blanks, is_dataset, words
):
    rows = Dataset.from_dict({"text": ["It's good.", "It isn't."] * 4, "label": [3, 1] * 4})
    splits = dict.fromkeys(("train", "validation", "test"), rows)
    DatasetDict(splits).save_to_disk(tmp_path / "dataset")
    (tmp_path / "trees.txt").write_text(TREE, encoding="utf-8")
    data = ["--data", tmp_path / "dataset"] if is_dataset else same_file(tmp_path / "trees.txt")
    call(finetune_sst, "--elmo", elmo_of_blanks, *data, "--output", tmp_path / "run", "--epochs", 1,
         "--set", "task_hidden_size=8", "task_word_dim=4")  # fmt: skip
    assert AutoTokenizer.from_pretrained(tmp_path / "run" / "seed-0")("It's good.").tokens() == words
