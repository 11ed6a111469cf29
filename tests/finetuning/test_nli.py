"""The recipe for entailment: tables of pairs, and a whole run."""

import json
import random

import pytest
from datasets import Dataset, DatasetDict
from transformers import AutoTokenizer, pipeline

from elmo_hf import ElmoForSequenceClassification, ElmoTokenizer
from tests.helpers.small_classifiers import make
from training import finetune_nli, finetune_text

HEADER = "genre\tsentence1\tsentence2\tlabel\n"


def test_pairs_are_read_by_the_names_of_their_columns(tmp_path):
    path = tmp_path / "pairs.tsv"
    rows = 'fiction\tA "dog runs .\tIt moves .\tentailment\r\nfiction\tA\tB\t-\n\nslate\t\tB c\tneutral\n'
    path.write_text(HEADER + rows, encoding="utf-8", newline="")
    first, second = finetune_nli.read(path)
    assert first["sentences"] == (["A", '"dog', "runs", "."], ["It", "moves", "."])
    assert first["tokens"] == ["A", '"dog', "runs", ".", "It", "moves", "."]
    assert first["label"] == "entailment"
    assert (second["sentences"], second["label"]) == (([], ["B", "c"]), "neutral")


def test_raw_pairs_and_gold_labels_are_read_as_multinli_has_them(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("sentence1\tsentence2\tlabel1\tgold_label\nIt runs.\tIt's here!\tneutral\tentailment\n")
    (raw,) = finetune_nli.read(path, raw=True)
    assert raw["sentences"] == (["It", "runs", "."], ["It", "'s", "here", "!"])
    assert raw["label"] == "entailment"
    (blanks,) = finetune_nli.read(path)
    assert blanks["sentences"] == (["It", "runs."], ["It's", "here!"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sentence1\tsentence2\tgold\n", "names no column label, but sentence1, sentence2, gold"),
        ("sentence1\tlabel\n", "the first line names no column sentence2, but sentence1, label"),
        (HEADER + "a\tb\tc\n", "line 2: 3 columns in place of 4"),
        (HEADER + "a\tb\tc\tmaybe\n", "line 2: the label is 'maybe', and must be one of entailment, neutral"),
    ],
)
def test_a_broken_table_is_named(tmp_path, text, message):
    (tmp_path / "pairs.tsv").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as error:
        finetune_nli.read(tmp_path / "pairs.tsv")
    assert "\n" not in str(error.value)


# ---- a whole run


def write_pairs(folder):
    """Made-up pairs: what runs moves, may be old, and does not sit."""
    draw = random.Random(0)
    flags = []
    for split, number in (("train", 300), ("dev", 40), ("test", 40)):
        lines = [HEADER.strip()]
        for _ in range(number):
            animal, label = draw.choice(["dog", "cat", "horse", "crow"]), draw.choice(finetune_nli.LABELS)
            second = dict(zip(finetune_nli.LABELS, ("moves", "is old", "sits"), strict=True))[label]
            lines.append(f"made-up\tThe {animal} runs .\tThe {animal} {second} .\t{label}")
        (folder / f"{split}.tsv").write_text("\n".join(lines), encoding="utf-8")
        flags += [f"--{split}", str(folder / f"{split}.tsv")]
    return flags


def test_a_run_learns_and_its_model_serves_a_pipeline(tmp_path, call):
    files = write_pairs(tmp_path)
    settings = ["--set", "task_word_dim=16", "task_dropout=0.0"]
    call(finetune_nli, "--smoke", *files, "--output", tmp_path / "run", "--learning-rate", 0.005,
         "--batch-size", 8, "--epochs", 4, *settings)  # fmt: skip
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["mean"]["test"]["accuracy"] > 0.9
    assert results["examples"] == {"train": 300, "dev": 40, "test": 40}
    assert results["config"]["classifier"] == "esim"
    classify = pipeline("text-classification", model=str(tmp_path / "run" / "seed-0"))
    pairs = [{"text": "The crow runs .", "text_pair": f"The crow {verb} ."} for verb in ("moves", "sits")]
    assert [answer["label"] for answer in classify(pairs)] == ["entailment", "contradiction"]
    named = {"text": "The <S> runs .", "text_pair": "</S> <S> moves ."}  # of a text; no boundaries
    expected = classify.model.predict(named["text"], classify.tokenizer, named["text_pair"])
    assert classify(named)["score"] == pytest.approx(expected["score"])
    assert classify.tokenizer.tokenize("<S>") == ["<", "S", ">"]


def test_long_pairs_are_left_out_of_training_and_cut_elsewhere(tmp_path, call, monkeypatch, capsys):
    files = write_pairs(tmp_path)
    long_pair = f"made-up\t{'The dog runs . ' * 200}\tThe dog moves .\tentailment"
    for split in ("train", "test"):
        path = tmp_path / f"{split}.tsv"
        header, *lines = path.read_text(encoding="utf-8").split("\n")
        path.write_text("\n".join([header, long_pair, *lines[:39]]), encoding="utf-8")
    longest = []
    tokenize = ElmoTokenizer.__call__
    monkeypatch.setattr(
        ElmoTokenizer,
        "__call__",
        lambda self, *sides, **options: (
            longest.append(max(len(words) for side in sides for words in side))
            or tokenize(self, *sides, **options)
        ),
    )
    call(finetune_nli, "--smoke", *files, "--output", tmp_path / "run", "--train-size", 16, "--max-words", 50)
    assert max(longest) == 50
    assert "1 of 80 pairs of dev and test are cut to --max-words, 50." in capsys.readouterr().err
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["left_out_of_training"] == 1
    assert results["examples"] == {"train": 16, "dev": 40, "test": 40}
    with pytest.raises(ValueError, match="no train pair has 3 words or fewer; set --max-words higher"):
        call(finetune_nli, "--smoke", *files, "--output", tmp_path / "other", "--max-words", 3)


def test_a_dataset_is_read_alike(tmp_path, call, capsys):
    rows = {
        "premise": ["It's a dog.", "Why?", "Why?"] * 5,
        "hypothesis": ["Why?", "It isn't.", "It isn't."] * 5,
        "label": ["neutral", "contradiction", "-"] * 5,
    }
    DatasetDict({name: Dataset.from_dict(rows) for name in ("train", "validation", "test")}).save_to_disk(
        tmp_path / "dataset"
    )
    call(
        finetune_nli,
        "--smoke",
        "--data",
        tmp_path / "dataset",
        "--output",
        tmp_path / "run",
        "--set",
        "task_word_dim=16",
    )
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["examples"] == {"train": 10, "dev": 10, "test": 10}
    place = f"the validation split of {tmp_path / 'dataset'}"
    assert f"{place}: 5 of 15 rows have no label, and are left out." in capsys.readouterr().err


def test_json_lines_of_snli_are_read_with_labels_in_any_case(tmp_path):
    path = tmp_path / "snli_1.0_dev.jsonl"
    rows = [
        {
            "annotator_labels": ["neutral"],
            "gold_label": "Neutral",
            "sentence1": "It's old.",
            "sentence2": "Why?",
        },
        {"annotator_labels": ["-"], "gold_label": "-", "sentence1": "A", "sentence2": "B"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    (pair,) = finetune_nli.read(path)
    assert pair["sentences"] == (["It", "'s", "old", "."], ["Why", "?"])
    assert pair["label"] == "neutral"


def test_classes_of_ones_own_no_penalty_on_a_baseline_and_predictions(tmp_path, call):
    files = write_pairs(tmp_path)
    for split in ("train", "dev", "test"):
        path = tmp_path / f"{split}.tsv"
        text = path.read_text(encoding="utf-8")
        for old, new in zip(finetune_nli.LABELS, ("Yes", "PERHAPS", "no"), strict=True):
            text = text.replace(f"\t{old}", f"\t{new}")
        path.write_text(text, encoding="utf-8")
    call(finetune_nli, "--smoke", *files, "--output", tmp_path / "run", "--labels", "yes", "perhaps", "no",
         "--epochs", 1, "--train-size", 40, "--predictions", "--set", "elmo_at_input=false",
         "elmo_at_output=false")  # fmt: skip
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert list(results["config"]["id2label"].values()) == ["yes", "perhaps", "no"]
    assert results["flags"]["l2"] == 0
    assert "mix" not in results["runs"]["0"]
    row = json.loads((tmp_path / "run" / "predictions" / "seed-0-dev.jsonl").read_text().split("\n")[0])
    assert row["predicted"] in ("yes", "perhaps", "no")
    call(finetune_nli, "--evaluate", tmp_path / "run" / "seed-0", "--test", tmp_path / "dev.tsv", "--output",
         tmp_path / "judged")  # fmt: skip
    judged = json.loads((tmp_path / "judged" / "evaluation.json").read_text())
    assert judged["scores"]["test"] == results["mean"]["dev"]
    with pytest.raises(ValueError, match=r"^--labels must name two classes or more, each once"):
        call(finetune_nli, "--smoke", *files, "--output", tmp_path / "other", "--labels", "a", "A")


@pytest.mark.parametrize(
    ("kind", "flags", "words"),
    [
        ("jsonl", [], ["It", "runs", "."]),
        ("tsv", ["--raw"], ["It", "runs", "."]),
        ("tsv", [], ["It", "runs."]),
    ],
)
def test_the_saved_model_splits_texts_as_the_recipe(
    tmp_path, call, same_file, elmo_of_blanks, kind, flags, words
):
    path = tmp_path / f"pairs.{kind}"
    rows = [("It runs.", "It moves.", label) for label in finetune_nli.LABELS]
    names = ("sentence1", "sentence2", "label")
    lines = [
        json.dumps(dict(zip(names, row, strict=True))) if kind == "jsonl" else "\t".join(row) for row in rows
    ]
    lines = lines if kind == "jsonl" else ["\t".join(names), *lines]
    path.write_text("\n".join(lines), encoding="utf-8")
    call(finetune_nli, "--elmo", elmo_of_blanks, *same_file(path), "--output", tmp_path / "run",
         "--epochs", 1, *flags, "--set", "task_hidden_size=8", "task_word_dim=4")  # fmt: skip
    assert finetune_nli.read(path, raw=bool(flags))[0]["sentences"][0] == words
    assert AutoTokenizer.from_pretrained(tmp_path / "run" / "seed-0")("It runs.").tokens() == words


def test_a_network_for_texts_reads_no_pairs_and_the_reverse(tmp_path, call):
    files = write_pairs(tmp_path)
    for classifier in ("bcn", "esim"):
        model = make(classifier, num_labels=3)
        model.config.id2label = dict(enumerate(finetune_nli.LABELS))
        model.save_pretrained(tmp_path / classifier)
        ElmoTokenizer().save_pretrained(tmp_path / classifier)
    (tmp_path / "texts.csv").write_text("text,label\nIt runs.,neutral\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"has its own classes; leave --labels out\.$"):
        call(
            finetune_nli,
            "--evaluate",
            tmp_path / "esim",
            "--test",
            tmp_path / "test.tsv",
            "--labels",
            "a",
            "b",
        )
    with pytest.raises(ValueError, match=r"bcn has the classifier 'bcn', and this recipe judges 'esim'; use"):
        call(finetune_nli, "--evaluate", tmp_path / "bcn", "--test", tmp_path / "test.tsv")
    with pytest.raises(
        ValueError, match=r"esim has the classifier 'esim', and this recipe judges 'bcn'; use"
    ):
        call(finetune_text, "--evaluate", tmp_path / "esim", "--test", tmp_path / "texts.csv")
    with pytest.raises(ValueError, match=r"^the examples of this recipe need the classifier 'esim'; leave"):
        call(finetune_nli, "--smoke", *files, "--output", tmp_path / "run", "--set", "classifier=bcn")
    assert not (tmp_path / "run").exists()


def test_words_of_a_sentence_may_be_those_between_sentences(tmp_path, call, same_file):
    path = tmp_path / "pairs.tsv"
    rows = ["It runs </S> <S> .\tIt moves\tentailment", "It </S>\t<S> sits\tcontradiction"]
    path.write_text("\n".join(["sentence1\tsentence2\tlabel", *rows]), encoding="utf-8")
    call(finetune_nli, "--smoke", *same_file(path), "--output", tmp_path / "run", "--epochs", 1,
         "--predictions", "--set", "task_hidden_size=8", "task_word_dim=4")  # fmt: skip
    lines = (tmp_path / "run" / "predictions" / "seed-0-test.jsonl").read_text(encoding="utf-8").splitlines()
    predictions = [json.loads(line) for line in lines]
    folder = tmp_path / "run" / "seed-0"
    model, tokenizer = (
        ElmoForSequenceClassification.from_pretrained(folder),
        ElmoTokenizer.from_pretrained(folder),
    )
    first, second = ([row["sentences"][side] for row in predictions] for side in (0, 1))
    answers = model.predict(first, tokenizer, second)
    assert [answer["label"] for answer in answers] == [row["predicted"] for row in predictions]


def test_labels_of_ones_own_may_be_numbers(tmp_path):
    row = {"sentence1": "It runs.", "sentence2": "Why?"}
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps(row | {"label": label}) + "\n" for label in (0, "1", 1, -1)), encoding="utf-8"
    )
    pairs = finetune_nli.read(tmp_path / "a.jsonl", labels=["0", "1"])
    assert [pair["label"] for pair in pairs] == ["0", "1", "1"]
    pairs = finetune_nli.read(tmp_path / "a.jsonl", labels=["-1", "0", "1"])
    assert [pair["label"] for pair in pairs] == ["0", "1", "1", "-1"]


def test_blanks_beside_no_label_are_no_part_of_it(tmp_path):
    rows = ["sentence1\tsentence2\tlabel", "A\tB\tneutral ", "A\tB\t- "]
    (tmp_path / "pairs.tsv").write_text("\n".join(rows), encoding="utf-8")
    assert [pair["label"] for pair in finetune_nli.read(tmp_path / "pairs.tsv")] == ["neutral"]


def test_pairs_without_a_label_are_counted(tmp_path, capsys):
    path = tmp_path / "pairs.tsv"
    rows = ["sentence1\tsentence2\tlabel", "A dog .\tA cat .\t-", "A dog .\tA cat .\tneutral"]
    path.write_text("\n".join(rows), encoding="utf-8")
    assert len(finetune_nli.read(path)) == 1
    assert f"{path}: 1 of 2 rows have no label, and are left out.\n" in capsys.readouterr().err


def test_raw_texts_that_are_not_said_to_be_raw_are_doubted(tmp_path, capsys):
    lines = [f"The dog runs, and the cat sits {place}.\tA dog runs.\tneutral" for place in range(30)]
    path = tmp_path / "pairs.tsv"
    for raw, shown in ((False, True), (True, False)):
        path.write_text("\n".join(["sentence1\tsentence2\tlabel", *lines]), encoding="utf-8")
        finetune_nli.read(path, raw)
        doubt = (
            f"{path} looks like raw text: words such as 'runs,' and 'runs.' keep their punctuation; use --raw"
        )
        assert (doubt in capsys.readouterr().err) is shown
    path.write_text(
        "\n".join(
            ["sentence1\tsentence2\tlabel", *(line.replace(".", " .").replace(",", " ,") for line in lines)]
        ),
        encoding="utf-8",
    )
    finetune_nli.read(path)
    assert not capsys.readouterr().err
