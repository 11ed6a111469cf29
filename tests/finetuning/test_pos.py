"""The recipe for parts of speech: CoNLL-U, rows of a dataset, a run."""

import json
import lzma

import pytest

from training import finetune_pos

UD = "# text = He'll go\n1-2\tHe'll" + 8 * "\t_" + "\n" + "".join(
    f"{n}\t{word}\t{word}\t{upos}\t{xpos}" + 5 * "\t_" + "\n"
    for n, word, upos, xpos in [(1, "He", "PRON", "PRP"), (2, "'ll", "AUX", "MD"), (3, "go", "VERB", "VB")]
)  # fmt: skip


def test_parts_of_speech_leave_ranges_out(tmp_path):
    path = tmp_path / "ud.conllu.xz"
    path.write_bytes(lzma.compress(UD.encode()))
    tokens = ["He", "'ll", "go"]
    assert finetune_pos.read(path, column=3) == [{"tokens": tokens, "labels": ["PRON", "AUX", "VERB"]}]
    assert finetune_pos.read(path, column=4) == [{"tokens": tokens, "labels": ["PRP", "MD", "VB"]}]


@pytest.mark.parametrize("labels", ["upos", "xpos"])
def test_a_row_has_the_words_of_its_file(labels):
    row = {
        "tokens": ["He'll", "He", "'ll", "go"],
        "upos": ["_", "PRON", "AUX", "VERB"],
        "xpos": ["_", "PRP", "_", "VB"],
    }
    (example,) = finetune_pos.from_row(row, "row 1", labels)
    assert example == {"tokens": row["tokens"][1:], "labels": row[labels][1:]}
    unlabelled = row | {"upos": ["_"] * 4}
    assert finetune_pos.from_row(unlabelled, "row 1", "upos")[0]["labels"] == ["_"] * 4


def test_a_treebank_without_its_words_is_refused(tmp_path, call, same_file):
    text = UD.replace("\tHe\tHe", "\t_\t_").replace("\t'll\t'll", "\t_\t_").replace("\tgo\tgo", "\t_\t_")
    (tmp_path / "ud.conllu").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"^all words of the train sentences are '_'; add the words"):
        call(finetune_pos, *same_file(tmp_path / "ud.conllu"), "--smoke", "--output", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("split", ["dev", "test"])
def test_labels_that_train_does_not_have_are_refused(tmp_path, call, split):
    text = UD.replace("PRON", "pron").replace("AUX", "aux").replace("VERB", "verb")
    files = {name: tmp_path / f"{name}.conllu" for name in ("train", "dev", "test")}
    for name, path in files.items():
        path.write_text(text if name == split else UD, encoding="utf-8")
    flags = [part for name, path in files.items() for part in (f"--{name}", path)]
    message = f"^the labels of the {split} sentences, such as aux, are not among those of the train sentences"
    with pytest.raises(ValueError, match=message):
        call(finetune_pos, *flags, "--smoke", "--output", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("wrong", ["number", "columns", "words"])
def test_a_wrong_row_or_line_is_named(tmp_path, wrong):
    path = tmp_path / "file.conll"
    path.write_text("He\tPRON\n" if wrong == "words" else "1\tHe\n", encoding="utf-8")
    if wrong == "number":
        with pytest.raises(ValueError, match=r"^row 2 of the test split: a label is 3"):
            finetune_pos.from_row(
                {"tokens": ["Ada", "sat"], "upos": [3, 4]}, "row 2 of the test split", "upos"
            )
    else:
        with pytest.raises(ValueError, match="sentence 1: a line of CoNLL-U has ten columns"):
            finetune_pos.read(path, 3)


def test_a_run_with_a_word_that_has_a_space(tmp_path, call, same_file):
    (tmp_path / "ud.conllu").write_text((UD.replace("go\tgo", "10 000\tgo") + "\n") * 20, encoding="utf-8")
    assert finetune_pos.read(tmp_path / "ud.conllu", 3)[0]["tokens"] == ["He", "'ll", "10 000"]
    flags = [*same_file(tmp_path / "ud.conllu"), "--smoke", "--epochs", 2]
    call(finetune_pos, *flags, "--output", tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert set(results["mean"]["dev"]) == {"accuracy"}
    assert 0 <= results["mean"]["dev"]["accuracy"] <= 1


def test_a_treebank_without_these_parts_of_speech_is_refused(tmp_path, call, same_file):
    text = UD.replace("PRP", "_").replace("MD", "_").replace("VB\t", "_\t")
    (tmp_path / "ud.conllu").write_text(text, encoding="utf-8")
    flags = [*same_file(tmp_path / "ud.conllu"), "--smoke", "--column", "xpos"]
    with pytest.raises(
        ValueError, match=r"^the column xpos is empty in the train sentences; name the other one"
    ):
        call(finetune_pos, *flags, "--output", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("split", ["dev", "test"])
def test_a_split_without_labels_is_refused(tmp_path, call, split):
    (tmp_path / "ud.conllu").write_text(UD, encoding="utf-8")
    blank = "\n".join(
        "\t".join([*columns[:3], "_", *columns[4:]])
        for columns in (line.split("\t") for line in UD.split("\n"))
        if len(columns) == 10
    )
    (tmp_path / "blank.conllu").write_text(blank, encoding="utf-8")
    names = {"train": "ud", "dev": "ud", "test": "ud"} | {split: "blank"}
    files = [word for name, file in names.items() for word in (f"--{name}", tmp_path / f"{file}.conllu")]
    with pytest.raises(
        ValueError, match=f"^the column upos is empty in the {split} sentences; name the other"
    ):
        call(finetune_pos, *files, "--smoke", "--output", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_line_without_the_number_of_a_word_is_refused(tmp_path):
    (tmp_path / "ud.conllu").write_text(UD.replace("\n3\t", "\n3a\t"), encoding="utf-8")
    with pytest.raises(ValueError, match="sentence 1: a line of CoNLL-U has ten columns, the number of the"):
        finetune_pos.read(tmp_path / "ud.conllu", 3)
