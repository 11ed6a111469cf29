"""The recipe for semantic roles: columns of spans, rows of a dataset, a run."""

import json

import pytest

from training import finetune_srl

SRL = """
s 0 He PRON PRP (TOP - - (ARG0*) *
s 1 bought VERB VBD * buy buy.01 (V*) *
s 2 old ADJ JJ * - - (ARG1* (ARG1*)
s 3 rusted VERB VBN * rust rust.01 * (V*)
s 4 cars NOUN NNS *) - - *) (ARG2*)
"""


def test_roles_are_an_example_for_each_predicate(tmp_path):
    path = tmp_path / "srl.conll"
    path.write_text(SRL, encoding="utf-8")
    first, second = finetune_srl.read(path)
    assert first["labels"] == ["B-ARG0", "B-V", "B-ARG1", "I-ARG1", "I-ARG1"]
    assert second["labels"] == ["O", "O", "B-ARG1", "B-V", "B-ARG2"]
    assert (first["predicate_mask"], second["predicate_mask"]) == ([0, 1, 0, 0, 0], [0, 0, 0, 1, 0])
    assert first["tokens"] == second["tokens"] == ["He", "bought", "old", "rusted", "cars"]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([1], "there are 1 predicate_mask for 2 words"),
        ([0, None], "predicate_mask has None, and must have 1 or 0 for each word"),
        (["0", "1"], "predicate_mask has '0', and must have 1 or 0"),
        ([0, 2], "predicate_mask has 2, and must have 1 or 0"),
    ],
)
def test_a_wrong_row_of_a_dataset_is_one_sentence(mask, message):
    row = {"tokens": ["Ada", "sat"], "labels": ["O", "B-V"], "predicate_mask": mask}
    with pytest.raises(ValueError, match=f"^row 2 of the test split: {message}"):
        finetune_srl.from_row(row, "row 2 of the test split")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SRL.replace(" (V*) *\n", " (V*)\n", 1), "sentence 1: not one column of spans"),
        (SRL.replace("(ARG0*) *", "(ARG0* *"), "column 9: '.V..' is no span of roles"),
        (SRL.replace("*) - - *)", "*) - - *"), "column 9: the span of ARG1 does not end"),
        (SRL.replace("s 2 old ADJ JJ * - - (ARG1* (ARG1*)", "s 2"), "sentence 1: a line has 2 columns, and"),
        (
            SRL + "\ns 0 He PRON PRP * -\n",
            "file.conll, sentence 2: a line has 7 columns, and needs at least 8",
        ),
        (SRL.replace("(ARG0*) *", "*) *"), r"column 9: '.*' is no span of roles"),
    ],
)
def test_a_broken_file_is_named(tmp_path, text, message):
    path = tmp_path / "file.conll"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as error:
        finetune_srl.read(path)
    assert "\n" not in str(error.value)


def test_spans_of_other_predicates_are_refused(tmp_path):
    path = tmp_path / "file.conll"
    swapped = "\n".join(
        " ".join([*cells[:8], *reversed(cells[8:])]) for cells in map(str.split, SRL.split("\n"))
    )
    path.write_text(swapped, encoding="utf-8")
    with pytest.raises(ValueError, match="in 2 of 2 columns of spans the predicate is not in the span V"):
        finetune_srl.read(path)
    path.write_text(swapped + SRL, encoding="utf-8")
    assert len(finetune_srl.read(path)) == 4  # well-kept data have a few such spans


def test_a_run(tmp_path, call, same_file):
    (tmp_path / "srl.conll").write_text(SRL * 20, encoding="utf-8")
    flags = [*same_file(tmp_path / "srl.conll"), "--smoke", "--epochs", 2]
    call(finetune_srl, *flags, "--output", tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert set(results["mean"]["dev"]) == {"f1", "precision", "recall"}
    assert 0 <= results["mean"]["dev"]["f1"] <= 1
