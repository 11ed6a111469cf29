"""The recipe for named entities: schemes of labels, columns, rows of a dataset."""

import argparse
import json

import numpy as np
import pytest
import torch
from transformers import EvalPrediction

from elmo_hf.finetuning.tagging import as_bio, scorer
from training import finetune_ner

NER = (
    "-DOCSTART-\tO\n\nAda\tNNP\tI-PER\nLovelace\tNNP\tI-PER\nBabbage\tNNP\tB-PER\n\n"
    "in\tIN\tO\r\nParis\tNNP\tB-LOC\n"
)


def test_names_in_any_scheme_become_bio(tmp_path):
    path = tmp_path / "ner.conll"
    path.write_text(NER, encoding="utf-8", newline="")
    assert finetune_ner.read(path) == [
        {"tokens": ["Ada", "Lovelace", "Babbage"], "labels": ["B-PER", "I-PER", "B-PER"]},
        {"tokens": ["in", "Paris"], "labels": ["O", "B-LOC"]},
    ]
    assert as_bio(["I-A", "I-A", "I-B", "O", "B-A", "B-A"]) == ["B-A", "I-A", "B-B", "O", "B-A", "B-A"]
    bio = ["B-A", "I-A", "I-A", "B-A", "O", "B-B", "I-B"]
    assert as_bio(["B-A", "I-A", "E-A", "S-A", "O", "B-B", "E-B"]) == bio
    assert as_bio(["B-A", "I-A", "L-A", "U-A", "O", "B-B", "L-B"]) == bio


UNER = (
    "\ufeff# newdoc id = 1\n# text = In Ada's\n"
    + "1\tIn\tO\t-\t-\n2-3\tAda's\t_\t-\t-\n2\tAda\tB-PER\t-\tann\n3\t's\tO\t-\t-\n3.1\tx\t_\t-\t-\n"
)


def test_names_stand_in_the_columns_that_are_asked_for(tmp_path):
    path = tmp_path / "uner.iob2"
    path.write_text(UNER, encoding="utf-8")
    assert finetune_ner.read(path, [2, 3]) == [{"tokens": ["In", "Ada", "'s"], "labels": ["O", "B-PER", "O"]}]
    with pytest.raises(
        ValueError, match=r"sentence 1: a line has 5 columns, and --columns asks for \[2, 6\]"
    ):
        finetune_ner.read(path, [2, 6])


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "ner.conll"
    path.write_bytes(b"\xef\xbb\xbfAda B-PER\n")
    assert finetune_ner.read(path) == [{"tokens": ["Ada"], "labels": ["B-PER"]}]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"ner_tags": [1, 0]}, "a label is 1, and must be a name"),
        ({"ner_tags": ["O", None]}, "a label is None, and must be a name"),
        ({"ner_tags": None}, "labels must be a list, but is None"),
        ({"ner_tags": ["O"]}, "there are 1 labels for 2 words"),
        ({"tokens": ["Ada", None], "ner_tags": ["O", "O"]}, "a word is None, and must be a text"),
        ({"tokens": [1900, "Ada"], "ner_tags": ["O", "O"]}, "a word is 1900, and must be a text"),
    ],
)
def test_a_wrong_row_of_a_dataset_is_one_sentence(row, message):
    with pytest.raises(ValueError, match=message) as error:
        finetune_ner.from_row({"tokens": ["Ada", "sat"]} | row, "row 2 of the test split")
    assert str(error.value).startswith("row 2 of the test split: ")


def test_a_wrong_label_of_a_file_is_named(tmp_path):
    path = tmp_path / "file.conll"
    path.write_text("Ada X-PER\n", encoding="utf-8")
    message = (
        "file.conll, sentence 1: labels of spans .* word 0 has 'X-PER'; if the labels are not in the last"
    )
    with pytest.raises(ValueError, match=message) as error:
        finetune_ner.read(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("label", ["O", "I"])
def test_a_word_without_a_label_is_no_label_itself(tmp_path, label):
    path = tmp_path / "file.conll"
    path.write_text(f"Ada B-PER\n\nAnd O\n{label}\nsat O\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"sentence 2: a line has only '{label}', and needs a word and its"):
        finetune_ner.read(path)


def test_train_sentences_without_a_name_are_refused(tmp_path, call):
    path = tmp_path / "file.conll"
    path.write_text("Ada O\nsat O\n", encoding="utf-8")
    files = ["--train", path, "--dev", path, "--test", path]
    with pytest.raises(ValueError, match=r"all labels of the train sentences are O, no span; are they in"):
        call(finetune_ner, *files, "--smoke", "--output", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_numbers_may_go_on_from_sentence_to_sentence(tmp_path):
    path = tmp_path / "file.tsv"
    path.write_text("0\tAda\tB-PER\n1\tsat\tO\n\n2\tBob\tB-PER\n3\tran\tO\n", encoding="utf-8")
    with pytest.raises(ValueError, match="the first column numbers the words; name the columns of words"):
        finetune_ner.read(path)
    assert [example["tokens"] for example in finetune_ner.read(path, (2, 3))] == [
        ["Ada", "sat"],
        ["Bob", "ran"],
    ]


def test_an_empty_column_of_words_is_refused(tmp_path, call, same_file):
    path = tmp_path / "file.tsv"
    path.write_text("\tAda\tB-PER\n\tsat\tO\n", encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"^all words of the train sentences are ''; add the words to the data, or"
    ):
        call(finetune_ner, *same_file(path), "--smoke", "--output", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_spans_without_types_may_be_in_any_scheme():
    assert as_bio(["S", "O", "b", "I", "E", "U", "B", "L"]) == ["B-", "O", "B-", "I-", "I-", "B-", "B-", "I-"]


def test_letters_of_the_scheme_may_be_small():
    assert as_bio(["b-per", "i-per", "o", "u-Loc"]) == ["B-per", "I-per", "O", "B-Loc"]


def test_a_tagger_with_another_scheme_is_judged_by_its_spans():
    """Such as one that was converted from AllenNLP, which has BIOUL."""
    labels = ["O", "U-PER", "B-LOC", "I-LOC", "L-LOC", "B-PER"]  # the model's, and those of the file in BIO
    score = scorer("spans", labels, ["precision", "recall"])
    gold = np.array([[5, 0, 2, 3, 3], [0, 5, 0, 0, -100]])
    right = np.array([[1, 0, 2, 3, 4], [0, 1, 0, 0, -100]])
    assert score(EvalPrediction(right, gold)) == {"precision": 1, "recall": 1}
    wrong = np.array([[1, 0, 2, 4, 0], [0, 1, 0, 1, -100]])
    assert score(EvalPrediction(wrong, gold)) == pytest.approx({"precision": 2 / 4, "recall": 2 / 3})


def test_blanks_behind_a_label_are_no_part_of_it(tmp_path):
    (tmp_path / "file.conll").write_text("Anna\tB-PER \nLee\tI-PER\n", encoding="utf-8")
    assert finetune_ner.read(tmp_path / "file.conll")[0]["labels"] == ["B-PER", "I-PER"]


def test_columns_of_iob2_files_are_known(tmp_path):
    (tmp_path / "uner.iob2").write_text(UNER, encoding="utf-8")
    assert finetune_ner.read(tmp_path / "uner.iob2")[0]["labels"] == ["O", "B-PER", "O"]


def test_lambda_is_divided_by_the_words_of_a_batch(tmp_path, call, name_files):
    call(finetune_ner, *name_files, "--smoke", "--output", tmp_path / "run", "--epochs", 1, "--batch-size", 8,
         "--set", "task_word_dim=8", "elmo_at_output=true")  # fmt: skip
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    sentences = finetune_ner.read(tmp_path / "train.conll")[: results["examples"]["train"]]
    words = sum(len(example["tokens"]) for example in sentences) / len(sentences)
    assert results["config"]["mix_l2"] == pytest.approx(0.1 / (8 * words), rel=0.05)
    shares = results["runs"]["0"]["mix"]["output"]["shares"]
    assert len(shares) == 3
    assert max(shares) - min(shares) > 0


def test_lambda_is_divided_by_the_words_of_fewer_sentences_than_a_batch():
    train = [{"tokens": ["a"] * 5}] * 10
    few = [(None, 1, 0.1 / 50), (2, 1, 0.1 / 10), (2, 3, 0.1 / 30), (2, 9, 0.1 / 40)]
    for size, passes, expected in few:
        flags = argparse.Namespace(batch_size=8 if size else 32, train_size=size, passes=passes)
        assert finetune_ner.scaled_lambda(flags, train) == pytest.approx(expected, rel=0.05)


def test_a_model_is_judged_on_names_that_it_does_not_know(tmp_path, call, name_files):
    run = tmp_path / "run"
    call(finetune_ner, *name_files, "--smoke", "--output", run, "--epochs", 2, "--predictions",
         "--batch-size", 8, "--learning-rate", 0.02, "--set", "task_word_dim=8")  # fmt: skip
    known = json.loads((run / "results.json").read_text())["mean"]["test"]
    rows = list(map(json.loads, (run / "predictions" / "seed-0-test.jsonl").read_text().splitlines()))
    assert [row["tokens"] for row in rows] == [
        example["tokens"] for example in finetune_ner.read(tmp_path / "test.conll")
    ]
    assert rows[0].keys() == {"tokens", "labels", "predicted"}
    assert all(len(row["predicted"]) == len(row["tokens"]) for row in rows)
    text = (tmp_path / "test.conll").read_text(encoding="utf-8")
    (tmp_path / "other.conll").write_text(text + "\n\nsinger\tB-JOB\n", encoding="utf-8")
    call(
        finetune_ner,
        "--evaluate",
        run / "seed-0",
        "--test",
        tmp_path / "other.conll",
        "--output",
        run / "other",
    )
    other = json.loads((run / "other" / "evaluation.json").read_text())
    assert other["examples"]["test"] == len(rows) + 1
    assert 0 < other["scores"]["test"]["recall"] < known["recall"]
    with pytest.raises(ValueError, match=r"^name files by --test, or a dataset by --data\.$"):
        call(finetune_ner, "--evaluate", run / "seed-0")
    with pytest.raises(ValueError, match="which has its biLM; leave --elmo out"):
        call(finetune_ner, "--evaluate", run / "seed-0", "--elmo", "x", "--test", tmp_path / "other.conll")
    (run / "seed-0" / "vocab.txt").unlink()
    with pytest.raises(
        ValueError, match=r"seed-0 has a model with vocab_size \d+ and a tokenizer with 3; save"
    ):
        call(finetune_ner, "--evaluate", run / "seed-0", "--test", tmp_path / "other.conll")
    with pytest.raises(ValueError, match=r"as it is, on --test alone; leave --train and --dev and --set out"):
        call(finetune_ner, "--evaluate", run / "seed-0", *name_files, "--set", "use_crf=false")


WEBANNO = "12-1\t0-3\tAda\tB-PER\n12-2\t4-7\tsat\tO\n"
UNIVERSAL = "1\tAda\tB-PER\n2-3\tisn't\t_\n2\tis\tO\n3\tn't\tO\n3.1\tthere\tO\n"


@pytest.mark.parametrize(
    ("text", "columns", "words"),
    [(WEBANNO, (3, 4), ["Ada", "sat"]), (UNIVERSAL, (2, 3), ["Ada", "is", "n't"])],
)
def test_numbers_of_words_are_no_ranges(tmp_path, text, columns, words):
    path = tmp_path / "file.tsv"
    path.write_text("\n".join([text, text]), encoding="utf-8")
    assert [example["tokens"] for example in finetune_ner.read(path, columns)] == [words, words]


@pytest.mark.parametrize("text", [WEBANNO, UNIVERSAL, "0\tAda\tO\tB-PER\n2\tsat\tO\tO\n"])
def test_numbers_of_words_are_not_taken_for_words(tmp_path, text):
    path = tmp_path / "file.tsv"
    path.write_text("\n".join([text, text]), encoding="utf-8")
    message = "the first column numbers the words; name the columns of words and labels by --columns, such as"
    with pytest.raises(ValueError, match=message):
        finetune_ner.read(path)
    labelled = text.replace("\t_\n", "\tO\n")
    path.write_text("\n".join([labelled, "Ada\tx\tO\tO\n"]), encoding="utf-8")  # another sentence has words
    assert [example["tokens"][0] for example in finetune_ner.read(path)] == [text.split("\t")[0], "Ada"]


def test_a_saved_model_knows_the_words_of_a_new_file_by_its_vectors(tmp_path, call, name_files):
    sentences = finetune_ner.read(tmp_path / "train.conll")
    words = sorted({word for sentence in sentences for word in sentence["tokens"]})
    torch.manual_seed(0)
    vectors = {word: " ".join(f"{number:.3f}" for number in torch.randn(6).tolist()) for word in words}
    vectors["Zoe"] = vectors["Ada"]  # a new name, which is to be read as a known one is
    lines = [f"{word} {numbers}\n" for word, numbers in vectors.items()]
    (tmp_path / "vectors.txt").write_text("".join(lines), encoding="utf-8")
    flags = ["--smoke", "--epochs", 2, "--train-size", 40, "--vectors", tmp_path / "vectors.txt"]
    of_words = ["--set", "elmo_at_input=false", "task_char_filters=[]", "freeze_task_words=true"]
    call(finetune_ner, *name_files, *flags, "--vector-scale", 3, "--output", tmp_path / "run", *of_words)
    text = (tmp_path / "test.conll").read_text(encoding="utf-8")
    assert "Ada" in text
    (tmp_path / "new.conll").write_text(text.replace("Ada", "Zoe"), encoding="utf-8")
    judged = {}
    for name, more in (("test", []), ("new", ["--vectors", tmp_path / "vectors.txt"])):
        output = tmp_path / name
        call(finetune_ner, "--evaluate", tmp_path / "run" / "seed-0", "--test", tmp_path / f"{name}.conll",
             "--output", output, "--predictions", *more)  # fmt: skip
        rows = (output / "predictions" / "test.jsonl").read_text(encoding="utf-8").splitlines()
        content = json.loads((output / "evaluation.json").read_text())
        judged[name] = (content["scores"], [json.loads(row)["predicted"] for row in rows])
        assert content["added_words"] == (name == "new")
    assert judged["new"] == judged["test"]
