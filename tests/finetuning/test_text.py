"""The recipe for texts in classes of one's own: files of three kinds, classes, a run that is judged again."""

import json
import random
import zipfile

import pytest
from transformers import AutoTokenizer, pipeline

from elmo_hf import TINY, ElmoTokenizer
from tests.helpers.small_classifiers import make
from training import finetune_ner, finetune_text

TOPICS = {"sport": ["goal", "match", "coach"], "Food": ["soup", "bread", "salt"], "art": ["paint", "brush"]}


def write(folder, kind, number=60, seed=0):
    """Made-up texts with a word of their topic."""
    draw, rows = random.Random(seed), []
    for _ in range(number):
        topic = draw.choice(list(TOPICS))
        text = f'The {draw.choice(["old", "new"])} {draw.choice(TOPICS[topic])}, "really".'
        rows.append({"text": text, "label": draw.choice([str, str.upper, str.title])(topic)})
    path = folder / f"{seed}.{kind}"
    if kind == "jsonl":
        lines = [json.dumps(row) for row in rows]
    elif kind == "csv":
        quoted = ['"' + row["text"].replace('"', '""') + f'",{row["label"]}' for row in rows]
        lines = ["text,label", *quoted]
    else:
        lines = ["text\tlabel", *(f"{row['text']}\t{row['label']}" for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl", "tsv"])
def test_files_of_all_kinds_give_the_same_rows(tmp_path, kind):
    rows = finetune_text.read(write(tmp_path, kind, number=20))
    reference = finetune_text.read(write(tmp_path, "tsv", number=20))
    assert [(row["words"], row["label"]) for row in rows] == [
        (row["words"], row["label"]) for row in reference
    ]
    assert rows[0]["words"][0] == "The"
    assert rows[0]["words"][-4:] == ['"', "really", '"', "."]


@pytest.mark.parametrize("indent", [None, 1])
def test_an_array_of_objects_is_rows(tmp_path, indent):
    lines = write(tmp_path, "jsonl", number=20)
    rows = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=indent), encoding="utf-8")
    given = [{"text": row["words"], "label": row["label"]} for row in finetune_text.read(lines)]
    assert [
        {"text": row["words"], "label": row["label"]} for row in finetune_text.read(tmp_path / "a.json")
    ] == given
    (tmp_path / "b.json").write_text(json.dumps([*rows, 7], indent=indent), encoding="utf-8")
    with pytest.raises(ValueError, match=r"b\.json, entry 21 is no JSON object with columns, but 7\.$"):
        finetune_text.read(tmp_path / "b.json")
    (tmp_path / "c.json").write_text(json.dumps(rows, indent=indent)[:-30], encoding="utf-8")
    with pytest.raises(ValueError, match=r"c\.json"):
        finetune_text.read(tmp_path / "c.json")


def test_a_packed_file_and_a_long_text(tmp_path):
    text = "word " * 40_000
    content = f'text,label\n"{text}",a\n'
    with zipfile.ZipFile(tmp_path / "a.csv.zip", "w") as archive:
        archive.writestr("a.csv", content)
    [row] = finetune_text.read(tmp_path / "a.csv.zip")
    assert (len(row["words"]), row["label"]) == (40_000, "a")


def test_words_that_no_file_of_words_can_hold(tmp_path, call):
    rows = [{"text": f"A\0b \ud83d goal {number % 2}", "label": "ab"[number % 2]} for number in range(12)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    files = [word for split in ("train", "dev", "test") for word in (f"--{split}", path)]
    call(finetune_text, *files, "--smoke", "--output", tmp_path / "run", "--epochs", 1, "--predictions")
    lines = (tmp_path / "run" / "predictions" / "seed-0-test.jsonl").read_text(encoding="utf-8").splitlines()
    given = [row["words"] for row in finetune_text.read(path)]
    assert [json.loads(line)["sentences"][0] for line in lines] == given
    words = (tmp_path / "run" / "seed-0" / "vocab.txt").read_text(encoding="utf-8").split("\n")
    assert "goal" in words
    assert not any("\0" in word or "\ud83d" in word for word in words)


def test_classes_are_the_labels_in_any_case_and_numbers_in_their_order():
    rows = [{"label": name} for name in ("10", "9", "b", "B", "a")]
    assert finetune_text.class_names(rows) == ["a", "b", "9", "10"]


def test_one_class_is_refused():
    with pytest.raises(ValueError, match=r"have only the label 'b', and a classifier takes 2 .* column\?$"):
        finetune_text.class_names([{"label": "b"}, {"label": "B"}])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "words,label\na,b\n", "there is no column text or sentence or tokens, but words, label"),
        ("a.csv", 'text,label\n"a,b\n', "line 2 is no CSV"),
        ("a.csv", "", r"a\.csv has no rows\.$"),
        ("a.tsv", "\r\n \n", r"a\.tsv has no rows\.$"),
        ("a.jsonl", "\n", r"a\.jsonl has no rows\.$"),
        ("a.json", "[]", r"a\.json has no rows\.$"),
        ("a.csv", "text,label\na,b,c\n", "line 2: 3 columns in place of 2"),
        (
            "a.csv",
            "text,label\na,b\ntext,label\n",
            "line 3 repeats the names of the columns; leave that line",
        ),
        ("a.csv", "text,label,label,,\na,b,c,,\n", "line 1 names the column 'label' twice; rename"),
        ("a.tsv", "text\tlabel\ttext\na\tb\tc\n", "line 1 names the column 'text' twice; rename"),
        ("a.jsonl", '{"text": "a", "label": "b"}\n{"text": \n', "line 2 is no JSON"),
        ("a.jsonl", "[1]\n", r"line 1 is no JSON object with columns, but \[1\]"),
        ("a.jsonl", '{"text": "a", "label": null}\n', "line 1: the label is None, and must be a name"),
        (
            "a.jsonl",
            '{"text": "a", "label": "b"}\n{"text": 3, "label": "b"}\n',
            "line 2 has 3 in place of a text",
        ),
        ("a.jsonl", '{"text": ["a", 3], "label": "b"}\n', r"line 1 has \['a', 3\] in place of a text"),
        ("a.jsonl", '{"text": "a", "label": "b"}\n{"label": "b"}\n', "line 2 has no column text or sentence"),
        ("a.tsv", "text\tlabel\na\t \n", "line 2: the label is ' ', and must be a name"),
    ],
)
def test_a_broken_file_is_one_sentence(tmp_path, name, text, message):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as error:
        finetune_text.read(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_run_learns_and_its_model_is_judged_on_another_file(tmp_path, call):
    files = [
        word
        for seed, split in enumerate(["train", "dev", "test"])
        for word in (f"--{split}", write(tmp_path, "csv", 150 if split == "train" else 30, seed))
    ]
    call(finetune_text, "--smoke", *files, "--output", tmp_path / "run", "--predictions", "--batch-size", 8,
         "--learning-rate", 0.001, "--epochs", 3, "--passes", 4, "--set", "task_dropout=0.0")  # fmt: skip
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["mean"]["test"]["accuracy"] > 0.9
    assert results["mean"]["test"]["macro_f1"] > 0.9
    seed = results["runs"]["0"]
    assert [epoch["epoch"] for epoch in seed["dev_by_epoch"]] == list(range(1, seed["epochs"] + 1))
    best = seed["dev_by_epoch"][seed["best_epoch"] - 1]
    assert {name: best[name] for name in seed["dev"]} == seed["dev"]
    assert sum(seed["mix"]["input"]["shares"]) == pytest.approx(1, abs=1e-4)
    rows = (tmp_path / "run" / "predictions" / "seed-0-test.jsonl").read_text().splitlines()
    rows = [json.loads(row) for row in rows]
    given = finetune_text.read(tmp_path / "2.csv")
    assert [row["sentences"][0] for row in rows] == [row["words"] for row in given]  # in the file's order
    right = [row["label"] == row["predicted"] for row in rows]
    assert sum(right) / len(right) == pytest.approx(seed["test"]["accuracy"], abs=1e-4)
    classify = pipeline("text-classification", model=str(tmp_path / "run" / "seed-0"))
    assert classify(["The new soup."])[0]["label"].casefold() == "food"

    model = tmp_path / "run" / "seed-0"
    call(finetune_text, "--evaluate", model, "--test", tmp_path / "2.csv", "--predictions", "--output",
         tmp_path / "judged")  # fmt: skip
    judged = json.loads((tmp_path / "judged" / "evaluation.json").read_text())
    assert judged["scores"]["test"] == seed["test"]
    again = (tmp_path / "judged" / "predictions" / "test.jsonl").read_text().splitlines()
    assert [json.loads(row) for row in again] == rows
    other = write(tmp_path, "jsonl", 10, seed=7)
    call(finetune_text, "--evaluate", model, "--test", other)  # needs no folder
    (tmp_path / "names.conll").write_text("Ada B-PER\n", encoding="utf-8")
    with pytest.raises(ValueError, match="is an ElmoForSequenceClassification, and this recipe judges an"):
        call(finetune_ner, "--evaluate", model, "--test", tmp_path / "names.conll")
    (tmp_path / "new.csv").write_text("text,label\nA new soup.,music\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 2: the label is 'music', and must be one of"):
        call(finetune_text, "--evaluate", model, "--test", tmp_path / "new.csv")
    with pytest.raises(ValueError, match="elmo-tiny is an ElmoForPreTraining, and this recipe judges an"):
        call(finetune_text, "--evaluate", TINY, "--test", other)
    with pytest.raises(
        ValueError, match=r"--predictions needs a folder for its files; name one by --output\.$"
    ):
        call(finetune_text, "--evaluate", model, "--test", other, "--predictions")


def test_the_saved_model_splits_texts_as_the_recipe(tmp_path, call, same_file, elmo_of_blanks):
    path = write(tmp_path, "jsonl", number=12)
    call(finetune_text, "--elmo", elmo_of_blanks, *same_file(path), "--output", tmp_path / "run",
         "--epochs", 1, "--set", "task_hidden_size=8", "task_word_dim=4")  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "seed-0")
    texts = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
    assert [tokenizer(text).tokens() for text in texts] == [row["words"] for row in finetune_text.read(path)]


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
def test_a_model_that_gives_no_single_class_is_not_judged(tmp_path, call, problem):
    make("bcn", num_labels=1, problem_type=problem).save_pretrained(tmp_path / "model")
    ElmoTokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "a.csv").write_text("text,label\nx,LABEL_0\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"model is a model of {problem}, and this recipe judges one class"):
        call(finetune_text, "--evaluate", tmp_path / "model", "--test", tmp_path / "a.csv")
