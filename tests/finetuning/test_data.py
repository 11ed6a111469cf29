"""Examples from files in columns and from datasets: reading, drawing and sorting."""

import argparse
import lzma
import os

import pytest
from datasets import ClassLabel, Dataset, Features, Sequence, Value

from elmo_hf.finetuning.data import drawn, labels_of, longest_first, read_columns, read_rows, with_names


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The DT O\n# NN B-MONEY\n5 CD I-MONEY\n", [["The", "#", "5"]]),
        ("# O\nNo O\n\n# O\n", [["#", "No"], ["#"]]),
        ("# a file of names\n\n# one\nAda NNP I-PER\n", [["Ada"]]),
        ("# sent_id = 1\n# text = Ada sat\n1\tAda\tB-PER\n#hash\tx\tO\n", [["1", "#hash"]]),
        ("", []),
    ],
)
def test_a_hash_may_be_a_word_or_begin_a_comment(tmp_path, text, words):
    path = tmp_path / "file.conll"
    path.write_text(text, encoding="utf-8")
    assert [[line[0] for line in lines] for lines in read_columns(path)] == words


def test_files_that_are_absent_or_damaged_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.conll could not be read"):
        read_columns(tmp_path / "absent.conll")
    os.mkfifo(tmp_path / "pipe.conll")
    with pytest.raises(ValueError, match=r"pipe\.conll is a pipe"):
        read_columns(tmp_path / "pipe.conll")
    (tmp_path / "cut.xz").write_bytes(lzma.compress(b"some text")[:-5])
    (tmp_path / "bytes.conll").write_bytes(b"\xff\xfe")
    for name in ("cut.xz", "bytes.conll"):
        with pytest.raises(ValueError, match=f"{name} is no text in UTF-8, or is damaged") as error:
            read_columns(tmp_path / name)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "-DOCSTART- -X- O O\n\nAda NNP B-PER\nsat VBD O\n\nBob NNP B-PER\n",
        "-DOCSTART- -X- O O\nAda NNP B-PER\nsat VBD O\n-DOCSTART- -X- O O\nBob NNP B-PER\n",
        "Ada NNP B-PER\nsat VBD O\n-DOCSTART-\n\nBob NNP B-PER",
        "-DOCSTART-\tO\nAda\tB-PER\nsat\tO\n\nBob\tB-PER\n",
    ],
)
def test_a_line_between_documents_ends_a_sentence_and_is_none(tmp_path, text):
    (tmp_path / "file.conll").write_text(text, encoding="utf-8")
    words = [[line[0] for line in lines] for lines in read_columns(tmp_path / "file.conll")]
    assert words == [["Ada", "sat"], ["Bob"]]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r\r\n", "\r"])
def test_lines_may_end_as_on_any_system(tmp_path, end):
    lines = ["Ada B-PER", "sat O", "", "Bob B-PER", ""]
    (tmp_path / "file.conll").write_bytes(end.join(lines).encode())
    words = [[line[0] for line in lines] for lines in read_columns(tmp_path / "file.conll")]
    assert words == [["Ada", "sat"], ["Bob"]]


def test_other_white_space_belongs_to_a_word(tmp_path):
    (tmp_path / "file.conll").write_text("10\u00a0000  B-NUM\n\u00a0 O\n", encoding="utf-8")
    assert read_columns(tmp_path / "file.conll") == [[["10\u00a0000", "B-NUM"], ["\u00a0", "O"]]]


def test_blanks_around_a_word_are_no_part_of_it(tmp_path):
    (tmp_path / "file.conll").write_text("EU \tB-ORG\n 10 000\t O\n", encoding="utf-8")
    assert read_columns(tmp_path / "file.conll") == [[["EU", "B-ORG"], ["10 000", "O"]]]


def test_json_and_folders_are_no_files_of_columns(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"tokens": ["Ada"], "labels": ["O"]}\n', encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"train\.jsonl is JSON, and .* a word a line, in columns; put the JSON"
    ):
        read_columns(tmp_path / "train.jsonl")
    with pytest.raises(ValueError, match="is a folder; name the files in it"):
        read_columns(tmp_path)


@pytest.mark.parametrize(
    ("line", "is_quoted"),
    [
        ('"She said ""no"" to it."\tneg', True),
        ('neg\t"She said ""no"""\r', True),
        ('"She said no."\tneg', False),
        ('She said ""no"" to it.\tneg', False),
        ('"\t""\t"', False),
    ],
)
def test_quoted_fields_between_tabs_are_warned_of(tmp_path, capsys, line, is_quoted):
    path = tmp_path / "rows.tsv"
    header = "\t".join(f"column{number}" for number in range(line.count("\t") + 1))
    path.write_text(f"{header}\n{line}\n", encoding="utf-8", newline="")
    (_, row), *_ = list(read_rows(path))[1:]
    assert list(row.values()) == line.rstrip("\r").split("\t")  # read as it stands
    assert ("has quotation marks around fields, as in CSV" in capsys.readouterr().err) == is_quoted


def test_every_i_label_has_its_b_label():
    data = {"train": [{"labels": ["O", "I-X"]}], "dev": [{"labels": ["B-Y"]}], "test": []}
    assert labels_of(data, scheme="BIO") == ["O", "B-X", "I-X", "B-Y"]
    assert labels_of(data) == ["O", "I-X", "B-Y"]


def test_labels_of_a_dataset_become_names():
    """One a row, as in SNLI, where -1 is no label; or one a word."""
    label = ClassLabel(names=["yes", "no"])
    features = Features({"label": label, "tags": Sequence(label), "text": Value("string")})
    rows = {"label": [1, -1], "tags": [[0, 1], []], "text": ["a", "b"]}
    assert list(with_names(Dataset.from_dict(rows, features=features))) == [
        {"label": "no", "tags": ["yes", "no"], "text": "a"},
        {"label": None, "tags": [], "text": "b"},
    ]


def drawn_of(**sizes):
    data = {split: [f"{split} {number}" for number in range(50)] for split in ("train", "dev", "test")}
    return drawn(data, argparse.Namespace(**{f"{split}_size": size for split, size in sizes.items()}))


def test_a_smaller_draw_is_part_of_a_larger_one_in_the_same_order():
    few, more, all_rows = (drawn_of(train=size, dev=7) for size in (5, 20, None))
    assert (len(few["train"]), len(more["train"]), len(few["dev"]), len(few["test"])) == (5, 20, 7, 50)
    assert set(few["train"]) < set(more["train"]) < set(all_rows["train"])
    for data in (few, more, all_rows):
        assert data["train"] == sorted(data["train"], key=lambda example: int(example.split()[1]))
    assert few["train"] != all_rows["train"][:5]  # not the first ones
    assert few == drawn_of(train=5, dev=7)


@pytest.mark.parametrize("size", [0, 51])
def test_a_size_that_cannot_be_drawn(size):
    with pytest.raises(ValueError, match=f"--dev-size must be from 1 to 50, but is {size}"):
        drawn_of(dev=size)


def test_evaluation_reads_long_examples_first():
    data = {split: [{"tokens": ["a"] * length} for length in (2, 5, 1)] for split in ("train", "dev", "test")}
    lengths = {
        split: [len(example["tokens"]) for example in examples]
        for split, examples in longest_first(data).items()
    }
    assert lengths == {"train": [2, 5, 1], "dev": [5, 2, 1], "test": [5, 2, 1]}


@pytest.mark.parametrize("kind", ["tsv", "csv"])
def test_a_line_of_blanks_is_no_row(tmp_path, kind):
    path = tmp_path / f"rows.{kind}"
    lines = ["text,label", "a,b", "", "   ", " ,d", " "]
    path.write_text("\n".join(lines).replace(",", {"tsv": "\t", "csv": ","}[kind]), encoding="utf-8")
    (_, header), *rows = read_rows(path)
    assert list(header) == ["text", "label"]
    assert [row for _, row in rows] == [{"text": "a", "label": "b"}, {"text": " ", "label": "d"}]
