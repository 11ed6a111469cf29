"""Questions on paragraphs that are in the pretraining text, and others: n-grams, parts, scores, mistakes."""

import json
import lzma
import re

import pytest

from benchmarks.report import PAGE, fill_blocks
from benchmarks.tables import overlap
from elmo_hf.corpus.source import InMemory, Source
from elmo_hf.files import read_json

READ = "The old lighthouse of Velmar, built in 1790, stands on a cliff; its lamp isn't lit any more."
OTHER = "Nobody in the valley knows why the seven bells of Oster rang twice on the night of the great storm."
QUESTIONS = {  # id: (paragraph, answers)
    "a": (READ, ["Velmar"]),
    "b": (READ, ["1790", "in 1790"]),
    "c": (OTHER, ["seven bells"]),
    "d": (OTHER, ["Oster"]),
    "not judged": (OTHER, ["twice"]),
}
# F1: a 100 and 100, b 0 and 100 ("in 1790"), c 0 and 200 * 1 / (1 + 2), d 0 and 0.
WITHOUT = {"a": "Velmar", "b": "a cliff", "c": "storm", "d": "why"}
WITH = {"a": "velmar", "b": "in 1790", "c": "bells", "d": "Nobody"}


def share(text: str, *lines: str) -> float:
    shares, _ = overlap.seen_shares([text], Source(InMemory(list(lines))))
    return shares[text]


def predictions(answers: dict[str, str]) -> list[dict[str, object]]:
    return [{"id": name, "answer": answers[name], "answers": QUESTIONS[name][1]} for name in answers]


def write_lines(path, rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    paragraphs = [
        {
            "context": context,
            "qas": [
                {
                    "id": name,
                    "question": "What is it?",
                    "answers": [{"text": text, "answer_start": context.index(text)} for text in answers],
                }
                for name, (paragraph, answers) in QUESTIONS.items()
                if paragraph == context
            ],
        }
        for context in (READ, OTHER)
    ]
    (tmp_path / "dev.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}), encoding="utf-8")
    (tmp_path / "books.txt").write_text("Nothing of it is here .\n", encoding="utf-8")
    with lzma.open(tmp_path / "wiki.txt.xz", "wt", encoding="utf-8") as file:
        file.write(f"Another line.\nSome say: {READ.upper()}\n")
    write_lines(tmp_path / "without.jsonl", predictions(WITHOUT))
    write_lines(tmp_path / "with.jsonl", reversed(predictions(WITH)))
    return tmp_path


def run(folder, **paths: str) -> dict:
    paths = {"questions": "dev.json", "without": "without.jsonl", "with": "with.jsonl"} | paths
    text = [str(folder / name) for name in paths.pop("text", "wiki.*.xz books.txt").split()]
    flags = [flag for name, path in paths.items() for flag in (f"--{name}", str(folder / path))]
    output = folder / "overlap.json"
    overlap.main(["--text", *text, *flags, "--output", str(output)])
    return json.loads(output.read_text(encoding="utf-8"))


def refusal(folder, capsys, **paths: str) -> str:
    with pytest.raises(SystemExit):
        run(folder, **paths)
    error = capsys.readouterr().err
    assert error.startswith("overlap: ")
    assert error.count("\n") == 1
    assert not (folder / "overlap.json").exists()
    return error


# ---- n-grams


@pytest.mark.parametrize(
    "line",
    [
        READ.lower(),
        f"Before it .  {READ}  And after it .",
        "the OLD lighthouse of velmar , built in 1790 , stands on a cliff ; its lamp isn ' t lit any more",
        "The old light-house of Velmar. THE OLD LIGHTHOUSE OF VELMAR (BUILT IN 1790) STANDS ON A CLIFF: "
        '"its lamp isn’t lit any more"',
    ],
)
def test_case_punctuation_and_blanks_play_no_part(line):
    assert share(READ, "First.", line) == 1.0


def test_other_words_and_other_orders_are_not_found():
    backwards = " ".join(reversed(READ.split()))
    assert share(READ, OTHER, backwards, "") == 0.0


def test_letters_beyond_ascii():
    text = "Die große Straße führt über den Fluß ins Élysée und weiter bis nach Łódź"
    assert share(text, text.upper()) == 1.0  # ß becomes SS


def test_an_ngram_over_the_end_of_a_line_is_not_found():
    words = [f"w{number}" for number in range(26)]
    text = " ".join(words)  # has 15 n-grams, two of which are in a line of 13 words
    assert share(text, " ".join(words[:13]), " ".join(words[13:])) == pytest.approx(4 / 15)


def test_a_short_paragraph_has_no_ngrams():
    assert share("Only a few words.", "Only a few words.") == 0.0


def test_all_words_of_the_text_are_counted():
    _, words = overlap.seen_shares([READ], Source(InMemory(["Two words!", "", "And three more."])))
    assert words == 5


# ---- parts and scores


def test_scores_are_those_by_hand(folder, capsys):
    result = run(folder)
    assert (result["n"], result["threshold"]) == (12, 0.5)
    assert result["paragraphs"] == {"all": 2, "with_a_common_ngram": 1, "seen": 1}
    assert [name.split("/")[1] for name in result["text"]["files"]] == ["wiki.txt.xz", "books.txt"]
    assert result["command"].startswith("python -m benchmarks.tables.overlap --text")
    assert result["machine"]["cores"]
    assert result["parts"]["seen"] == {
        "paragraphs": 1,
        "questions": 2,
        "without": {"exact_match": 50.0, "f1": 50.0},
        "with": {"exact_match": 100.0, "f1": 100.0},
        "error_reduction": {"exact_match": 100.0, "f1": 100.0},
    }
    assert result["parts"]["unseen"] == {
        "paragraphs": 1,
        "questions": 2,  # and one without predictions
        "without": {"exact_match": 0.0, "f1": 0.0},
        "with": {"exact_match": 0.0, "f1": 33.333},
        "error_reduction": {"exact_match": 0.0, "f1": 33.3},
    }
    whole = result["parts"]["all"]
    assert (whole["paragraphs"], whole["questions"], whole["with"]["f1"]) == (2, 4, 66.667)
    assert whole["error_reduction"]["f1"] == 55.6  # (66.667 - 25) / 75
    assert overlap.table(result) in capsys.readouterr().out
    assert "| 1 others | 2 | 0.0 (0.0) | 33.3 (0.0) | 33.3 % |" in overlap.table(result)


def test_half_of_the_ngrams_is_not_enough(folder, capsys):
    words = overlap.words_of(READ)
    assert len(words) == 19  # 8 n-grams, of which the first 15 words have 4, and the first 16 have 5
    (folder / "15.txt").write_text(" ".join(words[:15]), encoding="utf-8")
    (folder / "16.txt").write_text(" ".join(words[:16]), encoding="utf-8")
    assert "none of the paragraphs" in refusal(folder, capsys, text="15.txt")
    assert run(folder, text="16.txt")["paragraphs"] == {"all": 2, "with_a_common_ngram": 1, "seen": 1}


# ---- mistakes


@pytest.mark.parametrize("name", ["text", "questions", "without", "with"])
def test_a_missing_file(folder, capsys, name):
    assert "nowhere.json" in refusal(folder, capsys, **{name: "nowhere.json"})


def test_predictions_of_different_questions(folder, capsys):
    write_lines(folder / "less.jsonl", predictions({"a": "x", "b": "x", "c": "x"}))
    error = refusal(folder, capsys, **{"with": "less.jsonl"})
    assert "1 questions, such as d, are answered in only one of" in error


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "e", "answer": "x", "answers": ["y"]}, "line 5: question e is not in"),
        ({"id": "a", "answer": "x", "answers": ["y"]}, "line 5: question a is not in .* has other answers"),
        ({"id": "a", "answer": "x", "answers": ["Velmar"]}, "line 5: question a is answered for the second"),
        ({"id": "not judged", "answers": ["twice"]}, "line 5: 'answer' is missing or no str"),
        (["a"], "line 5: 'id' is missing or no str"),
    ],
)
def test_rows_that_are_no_predictions_on_the_file(folder, capsys, row, message):
    write_lines(folder / "bad.jsonl", [*predictions(WITH), row])
    assert re.search(message, refusal(folder, capsys, without="bad.jsonl"))


def test_a_file_without_predictions(folder, capsys):
    (folder / "empty.jsonl").write_text("\n", encoding="utf-8")
    assert "there are no predictions in" in refusal(folder, capsys, without="empty.jsonl")


def test_a_text_with_none_or_all_of_the_paragraphs(folder, capsys):
    assert "none of the paragraphs with predictions are in the text" in refusal(
        folder, capsys, text="books.txt"
    )
    (folder / "all.txt").write_text(f"{READ}\n{OTHER}\n", encoding="utf-8")
    assert "all of the paragraphs with predictions are in the text" in refusal(folder, capsys, text="all.txt")


# ---- the page


def test_the_page_has_what_is_stored():
    page = PAGE.read_text(encoding="utf-8")
    assert "<!-- overlap: " in page
    assert fill_blocks(page, "overlap", lambda _: overlap.table(read_json(overlap.FILE))) == page
