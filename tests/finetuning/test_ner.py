"""The recipe for named entities: schemes of labels, columns, rows of a dataset."""

import pytest

from elmo_hf.finetuning.tagging import as_bio
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
    ],
)
def test_a_wrong_row_of_a_dataset_is_one_sentence(row, message):
    with pytest.raises(ValueError, match=message) as error:
        finetune_ner.from_row({"tokens": ["Ada", "sat"]} | row)
    assert str(error.value).startswith("a row of the dataset: ")


def test_a_wrong_label_of_a_file_is_named(tmp_path):
    path = tmp_path / "file.conll"
    path.write_text("Ada X-PER\n", encoding="utf-8")
    message = (
        "file.conll, sentence 1: labels of spans .* word 0 has 'X-PER'; if the labels are not in the last"
    )
    with pytest.raises(ValueError, match=message) as error:
        finetune_ner.read(path)
    assert "\n" not in str(error.value)
