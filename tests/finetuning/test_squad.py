"""The recipe for SQuAD: its input, a run, and its errors."""

import json
import lzma
import random
import sys

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from transformers import AutoModelForQuestionAnswering, AutoTokenizer, EvalPrediction

from elmo_hf import ElmoTokenizer
from elmo_hf.finetuning.flags import make_parser
from elmo_hf.finetuning.squad import (
    answers_at,
    ceiling,
    collate,
    context_start,
    cut,
    from_rows,
    hold_out,
    read_questions,
    read_squad,
    score,
    words_of,
)
from elmo_hf.metrics.squad import squad_scores
from training import finetune_squad

CONTEXT = "In\u00a01815–52, “Ada”  lived; she’s\tknown."


def layout(questions, context=CONTEXT):
    """SQuAD's own layout; questions: (id, question, answers)."""
    rows = [
        {
            "id": name,
            "question": question,
            "answers": [{"text": text, "answer_start": context.index(text)} for text in answers],
        }
        for name, question, answers in questions
    ]
    return {"title": "Ada", "paragraphs": [{"context": context, "qas": rows}]}


def write(path, articles):
    path.write_text(json.dumps({"version": "1.1", "data": articles}), encoding="utf-8")
    return path


QUESTIONS = [("1", "When?", ["1815–52", "1815"]), ("2", "Who lived?", ["Ada"]), ("3", "And?", ["lived; she"])]


def test_answers_become_words_and_words_become_the_texts_characters(tmp_path):
    examples = list(read_squad(write(tmp_path / "squad.json", [layout(QUESTIONS)])))
    assert [example["id"] for example in examples] == ["1", "2", "3"]
    for example in examples:
        words = [CONTEXT[start:end] for start, end in example["offsets"]]
        assert words == example["context_words"] == ElmoTokenizer().tokenize(CONTEXT)
        assert example["tokens"] == example["question_words"] + words
        for (first, last), answer in zip(example["spans"], example["answers"], strict=True):
            assert answer in CONTEXT[example["offsets"][first][0] : example["offsets"][last][1]]
            assert answer not in CONTEXT[example["offsets"][first][1] : example["offsets"][last][1]]
    batch = collate(ElmoTokenizer(), examples)
    places = list(zip(batch["start_positions"].tolist(), batch["end_positions"].tolist(), strict=True))
    assert answers_at(examples, places) == {"1": "1815–52", "2": "Ada", "3": "lived; she"}
    # A tokenizer that pads elsewhere does not move the labels away from their words.
    left = collate(ElmoTokenizer(padding_side="left"), examples)
    assert all((batch[name] == left[name]).all() for name in batch)


def test_packed_files_and_datasets_read_alike(tmp_path):
    path = write(tmp_path / "squad.json", [layout(QUESTIONS), layout([("4", "Known?", ["known"])])])
    packed = tmp_path / "squad.json.xz"
    packed.write_bytes(lzma.compress(path.read_bytes()))
    expected = list(read_squad(path))
    assert list(read_squad(packed)) == expected
    rows = [
        {
            "id": example["id"],
            "context": CONTEXT,
            "question": question,
            "answers": {"text": answers, "answer_start": [CONTEXT.index(text) for text in answers]},
        }
        for example, (_, question, answers) in zip(
            expected, [*QUESTIONS, ("4", "Known?", ["known"])], strict=True
        )
    ]
    assert list(from_rows(Dataset.from_list(rows), "the test split")) == expected


@pytest.mark.parametrize(("start", "end", "expected"), [
    (0, 1, (0, 0)), (0, 3, (0, 1)), (2, 3, (1, 1)), (1, 9, (0, 2)), (4, 5, None), (5, 6, (2, 2))
])  # fmt: skip
def test_words_that_hold_an_answer(start, end, expected):
    assert words_of([(0, 2), (2, 4), (5, 9)], start, end) == expected


def test_long_texts_are_cut_in_training_and_their_late_questions_left_out(tmp_path):
    examples = list(read_squad(write(tmp_path / "squad.json", [layout(QUESTIONS)])))
    number = examples[0]["context_words"].index("Ada") + 1
    kept = cut(examples, number)
    assert [example["id"] for example in kept] == ["1", "2"]
    assert all(example["context_words"] == examples[0]["context_words"][:number] for example in kept)
    assert len(collate(ElmoTokenizer(), kept)["input_ids"][0]) == number + 2 + 3  # Who lived ?
    assert [len(example["context_words"]) for example in examples] == [len(examples[0]["offsets"])] * 3


def test_held_out_questions_are_on_other_texts():
    examples = [{"context": str(number // 3)} for number in range(120)]
    train, dev = hold_out(examples)
    assert len(train) + len(dev) == 120
    assert {example["context"] for example in dev} == {"38", "39"}
    assert not {example["context"] for example in train} & {example["context"] for example in dev}


def test_the_ceiling_is_the_score_of_whole_words(tmp_path):
    context = "Ada Lovelace’s pre-war house (built 1815) stood in London"
    articles = [
        layout([("1", "Who?", ["Ada Lovelace"]), ("2", "When?", ["war"]), ("3", "What?", [context])], context)
    ]
    examples = list(read_squad(write(tmp_path / "squad.json", articles)))
    words = ElmoTokenizer().tokenize(context)
    assert "pre-war" in words
    first_three = context[: context.index(" pre-war")]
    expected = squad_scores(
        {"1": "Ada Lovelace", "2": "pre-war", "3": first_three},
        {"1": ["Ada Lovelace"], "2": ["war"], "3": [context]},
    )
    assert ceiling(examples, 3) == pytest.approx(expected)
    assert expected["exact_match"] == pytest.approx(100 / 3)


def test_halves_of_characters_are_scored_as_they_are(tmp_path):
    article = layout([("\ud800", "Who?", ["\ud83d Ada"])], context="\ud83d Ada left.")
    examples = list(read_squad(write(tmp_path / "squad.json", [article])))
    positions = np.array([examples[0]["spans"][0]]) + context_start(examples[0])
    scores = score(EvalPrediction(positions, positions, inputs=examples))
    assert scores == {"exact_match": 100.0, "f1": 100.0}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "'data' is missing or no list"),
        ({"data": [{}]}, "article 1: 'paragraphs' is missing or no list"),
        ({"data": [{"paragraphs": [{"context": 3}]}]}, "article 1: 'context' is missing or no str"),
        (
            {"data": [{"paragraphs": [{"context": "x", "qas": ["y"]}]}]},
            "article 1: 'id' is missing or no str",
        ),
        ([("7", "Who?", [])], "question 7 has no answer"),
        ([("7", " ", ["Ada"])], "question 7: the question has no words"),
        ([("7", "Who?", [" "])], "question 7: the answer ' ' is not at character"),
    ],
)
def test_a_broken_file_is_named(tmp_path, content, message):
    path = tmp_path / "squad.json"
    if isinstance(content, list):
        content = {"data": [layout(content)]}
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=message) as error:
        list(read_squad(path))
    assert "\n" not in str(error.value)


def test_an_answer_that_is_elsewhere_is_refused(tmp_path):
    article = layout(QUESTIONS)
    article["paragraphs"][0]["qas"][1]["answers"][0]["answer_start"] += 1
    with pytest.raises(ValueError, match="question 2: the answer 'Ada' is not at character 14"):
        list(read_squad(write(tmp_path / "squad.json", [article])))
    article["paragraphs"][0]["qas"][1]["answers"][0]["text"] = ""  # which is everywhere, but no answer
    with pytest.raises(ValueError, match="question 2: the answer '' is not at character 14"):
        list(read_squad(write(tmp_path / "squad.json", [article])))
    row = {"question": "Who?", "context": "Ada", "answers": {"text": ["Ada"], "answer_start": []}}
    with pytest.raises(
        ValueError, match=r"^row 1 of the test split: 1 answers have 0 values of answer_start"
    ):
        list(from_rows([row], "the test split"))
    with pytest.raises(ValueError, match=r"^row 1 of the test split: 'answers' is missing or no dict"):
        list(from_rows([{"question": "Who?", "context": "Ada"}], "the test split"))


@pytest.mark.parametrize(
    ("text", "start", "message"),
    [
        ("Ada", 0.0, r"^row 1 of the test split: 'answer_start' is missing or no int"),
        ("Ada", "0", r"^row 1 of the test split: 'answer_start' is missing or no int"),
        (None, 0, r"^row 1 of the test split: 'text' is missing or no str"),
    ],
)
def test_the_answers_of_a_dataset_have_the_types_of_a_files(text, start, message):
    row = {"question": "Who?", "context": "Ada", "answers": {"text": [text], "answer_start": [start]}}
    with pytest.raises(ValueError, match=message):
        list(from_rows([row], "the test split"))


# ---- whole runs


def squad_files(folder):
    """Texts of who is where; a question names a person, its answer is the place."""
    draw = random.Random(0)
    names, towns = ["Ada", "Max", "Eva", "Tom"], ["Paris", "New York", "Rome", "San Marino", "Oslo"]
    paths = {}
    for split, number in (("train", 60), ("test", 15)):
        articles = []
        for text in range(number):
            pairs = [(name, draw.choice(towns)) for name in draw.sample(names, 3)]
            context = f"({text})  " + " ".join(f"{name} is in {town}." for name, town in pairs)
            questions = [(f"{split}-{text}-{name}", f"Where is {name}?", [town]) for name, town in pairs]
            articles.append(layout(questions, context))
            for row, (name, _) in zip(articles[-1]["paragraphs"][0]["qas"], pairs, strict=True):
                start = context.index(f"{name} is in ") + len(f"{name} is in ")
                row["answers"][0]["answer_start"] = start
        paths[split] = write(folder / f"{split}.json", articles)
    return [word for split, path in paths.items() for word in (f"--{split}", path)]


def test_a_run_learns_writes_its_results_and_a_model_that_answers(call, tmp_path):
    settings = ["--set", "task_word_dim=20", "task_dropout=0.0", "elmo_dropout=0.0"]
    call(finetune_squad, *squad_files(tmp_path), "--smoke", "--output", tmp_path / "run", "--batch-size", 6,
         "--max-context", 16, "--predictions", *settings)  # fmt: skip
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["ceiling"] == {split: {"exact_match": 100, "f1": 100} for split in ("dev", "test")}
    assert results["examples"]["dev"] == 6
    assert results["examples"]["train"] + results["left_out_of_training"] == 114
    assert results["left_out_of_training"] > 0
    assert set(results["mean"]["test"]) == {"exact_match", "f1"}
    # It answers with a town, if not always with the right one of three.
    assert results["mean"]["test"]["f1"] >= results["mean"]["test"]["exact_match"] > 25
    folder = tmp_path / "run" / "seed-0"
    model, tokenizer = (
        AutoModelForQuestionAnswering.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
    )
    assert tokenizer.word_splitter == "penn"
    # The results are those of the saved model's answers.
    rows = [
        (paragraph["context"], row)
        for article in json.loads((tmp_path / "test.json").read_text())["data"]
        for paragraph in article["paragraphs"]
        for row in paragraph["qas"]
    ][:40]
    answers = model.answer([row["question"] for _, row in rows], [text for text, _ in rows], tokenizer)
    predicted = {row["id"]: answer["answer"] for (_, row), answer in zip(rows, answers, strict=True)}
    references = {row["id"]: [answer["text"] for answer in row["answers"]] for _, row in rows}
    scores = squad_scores(predicted, references)
    assert scores["f1"] == pytest.approx(results["mean"]["test"]["f1"], abs=1e-4)
    assert scores["exact_match"] == pytest.approx(results["mean"]["test"]["exact_match"], abs=1e-4)
    rows = (tmp_path / "run" / "predictions" / "seed-0-test.jsonl").read_text().splitlines()
    assert {row["id"]: row["answer"] for row in map(json.loads, rows)} == predicted
    call(finetune_squad, "--evaluate", folder, "--test", tmp_path / "test.json", "--limit", 40, "--output",
         tmp_path / "judged")  # fmt: skip
    judged = json.loads((tmp_path / "judged" / "evaluation.json").read_text())
    assert judged["scores"]["test"] == results["mean"]["test"]


def test_a_dataset_has_the_splits_of_the_files(tmp_path):
    files = squad_files(tmp_path)
    splits = {}
    for split, name in (("train", "train"), ("test", "validation")):
        articles = json.loads((tmp_path / f"{split}.json").read_text())["data"]
        splits[name] = Dataset.from_list(
            [
                {
                    "id": row["id"],
                    "context": paragraph["context"],
                    "question": row["question"],
                    "answers": {
                        "text": [answer["text"] for answer in row["answers"]],
                        "answer_start": [answer["answer_start"] for answer in row["answers"]],
                    },
                }
                for article in articles
                for paragraph in article["paragraphs"]
                for row in paragraph["qas"]
            ]
        )
    DatasetDict(splits).save_to_disk(tmp_path / "dataset")
    parser = make_parser("")
    flags = parser.parse_args(["--data", str(tmp_path / "dataset"), "--smoke", "--output", "x"])
    data = read_questions(flags)
    assert {split: len(examples) for split, examples in data.items()} == {"train": 114, "dev": 6, "test": 40}
    flags = parser.parse_args([*map(str, files), "--smoke", "--output", "x"])
    assert read_questions(flags) == data
    DatasetDict(validation=splits["validation"]).save_to_disk(tmp_path / "judged")
    flags = parser.parse_args(["--data", str(tmp_path / "judged"), "--smoke", "--evaluate", "model"])
    assert read_questions(flags) == {"test": data["test"]}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "name files by --train and --test"),
        (["--train", "x", "--data", "y"], "name files by --train and --test"),
        (["--train", "x"], "name the files to evaluate on by --test"),
        (["--test", "x"], "name the files to train on by --train"),
        (["--data", "TRAIN", "--test", "x"], "name files by --train and --test"),
        (["--train", "absent", "--test", "absent"], "absent could not be read"),
        (["--data", "EMPTY"], "no dataset could be read from .*empty"),
        (["--data", "TRAIN"], "has no split 'validation', but train"),
        (["--max-context", "0"], "--max-context must be at least 1, but is 0"),
        (["FILES", "--max-context", "2"], "no train question has its answer in the first 2 words"),
        (["FILES"], "name a pretrained biLM by --elmo"),
        (["TWICE", "--limit", "200"], "question train-0-.* occurs 2 times in the train set"),
        (["FILES", "--limit", "3"], "all train questions are on one text"),
    ],
)
def test_wrong_flags_are_one_sentence(tmp_path, flags, message, monkeypatch):
    files = [str(word) for word in squad_files(tmp_path)]
    if flags[:1] == ["TWICE"]:
        files.insert(2, files[1])
    if flags[:1] in (["FILES"], ["TWICE"]):
        flags = files + flags[1:]
    (tmp_path / "empty").mkdir()
    DatasetDict(train=Dataset.from_dict({"question": ["Who?"]})).save_to_disk(tmp_path / "saved")
    folders = {"EMPTY": str(tmp_path / "empty"), "TRAIN": str(tmp_path / "saved")}
    flags = [folders.get(flag, flag) for flag in flags]
    monkeypatch.setattr(sys, "argv", ["finetune_squad.py", "--output", str(tmp_path / "run"), *flags])
    with pytest.raises(ValueError, match=message) as error:
        finetune_squad.main()
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
