"""The recipes for taggers: what they read, whole runs, and a sentence for each mistake."""

import argparse
import json
import lzma
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Sequence, Value
from transformers import AutoModelForTokenClassification, AutoTokenizer

from elmo_hf.finetuning import run as finetuning
from elmo_hf.finetuning.run import drawn, labels_of, read_columns, trimmed, with_names
from elmo_hf.finetuning.tagging import as_bio
from tests.helpers.paths import TRAINING
from training import (
    finetune_ner,
    finetune_pos,
    finetune_srl,
)

NER = (
    "-DOCSTART-\tO\n\nAda\tNNP\tI-PER\nLovelace\tNNP\tI-PER\nBabbage\tNNP\tB-PER\n\n"
    "in\tIN\tO\r\nParis\tNNP\tB-LOC\n"
)
SRL = """
s 0 He PRON PRP (TOP - - (ARG0*) *
s 1 bought VERB VBD * buy buy.01 (V*) *
s 2 old ADJ JJ * - - (ARG1* (ARG1*)
s 3 rusted VERB VBN * rust rust.01 * (V*)
s 4 cars NOUN NNS *) - - *) (ARG2*)
"""
UD = "# text = He'll go\n1-2\tHe'll" + 8 * "\t_" + "\n" + "".join(
    f"{n}\t{word}\t{word}\t{upos}\t{xpos}" + 5 * "\t_" + "\n"
    for n, word, upos, xpos in [(1, "He", "PRON", "PRP"), (2, "'ll", "AUX", "MD"), (3, "go", "VERB", "VB")]
)  # fmt: skip


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


def test_parts_of_speech_leave_ranges_out(tmp_path):
    path = tmp_path / "ud.conllu.xz"
    path.write_bytes(lzma.compress(UD.encode()))
    tokens = ["He", "'ll", "go"]
    assert finetune_pos.read(path, column=3) == [{"tokens": tokens, "labels": ["PRON", "AUX", "VERB"]}]
    assert finetune_pos.read(path, column=4) == [{"tokens": tokens, "labels": ["PRP", "MD", "VB"]}]


def test_roles_are_an_example_for_each_predicate(tmp_path):
    path = tmp_path / "srl.conll"
    path.write_text(SRL, encoding="utf-8")
    first, second = finetune_srl.read(path)
    assert first["labels"] == ["B-ARG0", "B-V", "B-ARG1", "I-ARG1", "I-ARG1"]
    assert second["labels"] == ["O", "O", "B-ARG1", "B-V", "B-ARG2"]
    assert (first["predicate_mask"], second["predicate_mask"]) == ([0, 1, 0, 0, 0], [0, 0, 0, 1, 0])
    assert first["tokens"] == second["tokens"] == ["He", "bought", "old", "rusted", "cars"]


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


WORDS = {"tokens": ["Ada", "sat"]}


@pytest.mark.parametrize(
    ("from_row", "row", "message"),
    [
        (finetune_ner.from_row, {"ner_tags": [1, 0]}, "a label is 1, and must be a name"),
        (finetune_ner.from_row, {"ner_tags": ["O", None]}, "a label is None, and must be a name"),
        (finetune_ner.from_row, {"ner_tags": None}, "labels must be a list, but is None"),
        (finetune_ner.from_row, {"ner_tags": ["O"]}, "there are 1 labels for 2 words"),
        (lambda row: finetune_pos.from_row(row, "upos"), {"upos": [3, 4]}, "a label is 3"),
        (
            finetune_srl.from_row,
            {"labels": ["O", "B-V"], "predicate_mask": [1]},
            "1 predicate_mask for 2 words",
        ),
    ],
)
def test_a_wrong_row_of_a_dataset_is_one_sentence(from_row, row, message):
    with pytest.raises(ValueError, match=message) as error:
        from_row(WORDS | row)
    assert str(error.value).startswith("a row of the dataset: ")


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (finetune_ner.read, "Ada X-PER\n", "file.conll, sentence 1: labels of spans .* word 0 has 'X-PER'"),
        (finetune_srl.read, SRL.replace(" (V*) *\n", " (V*)\n", 1), "sentence 1: not one column of spans"),
        (finetune_srl.read, SRL.replace("(ARG0*) *", "(ARG0* *"), "column 9: '.V..' is no span of roles"),
        (finetune_srl.read, SRL.replace("*) - - *)", "*) - - *"), "column 9: the span of ARG1 does not end"),
        (finetune_srl.read, SRL.replace("(ARG0*) *", "*) *"), r"column 9: '.*' is no span of roles"),
        (lambda path: finetune_pos.read(path, 3), "1\tHe\n", "sentence 1: a line of CoNLL-U has ten columns"),
        (read_columns, b"\xff\xfe", "is no text in UTF-8"),
    ],
)
def test_a_broken_file_is_named(tmp_path, read, text, message):
    path = tmp_path / "file.conll"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message) as error:
        read(path)
    assert "\n" not in str(error.value)


def test_files_that_are_absent_or_damaged_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.conll could not be read"):
        read_columns(tmp_path / "absent.conll")
    (tmp_path / "cut.xz").write_bytes(lzma.compress(b"some text")[:-5])
    with pytest.raises(ValueError, match="or is damaged"):
        read_columns(tmp_path / "cut.xz")


def test_every_i_label_has_its_b_label():
    data = {"train": [{"labels": ["O", "I-X"]}], "dev": [{"labels": ["B-Y"]}], "test": []}
    assert labels_of(data, scheme="BIO") == ["O", "B-X", "I-X", "B-Y"]
    assert labels_of(data) == ["O", "I-X", "B-Y"]


def test_scores_alone_are_kept():
    assert trimmed({"eval_f1": 0.5, "eval_loss": 1.0, "eval_runtime": 3.0, "epoch": 2.0}) == {
        "f1": 0.5,
        "loss": 1.0,
    }


# ---- whole runs


def ner_files(folder):
    """Made-up sentences in which a capital letter is a name."""
    generator = torch.Generator().manual_seed(0)

    def draw(words):
        return words[int(torch.randint(len(words), (1,), generator=generator))]

    for split, number in (("train", 120), ("dev", 30), ("test", 30)):
        lines = []
        for _ in range(number):
            for kind in (draw(["PER", "LOC"]), None, draw(["PER", "LOC"])):
                if kind is None:
                    lines += [f"{draw(['saw', 'left', 'liked'])} O"]
                else:
                    first = draw(["Ada", "Max", "Eva"]) if kind == "PER" else draw(["North", "South"])
                    second = draw(["Lee", "Poe"]) if kind == "PER" else draw(["Bay", "Hill"])
                    lines += [f"{first} B-{kind}", f"{second} I-{kind}"]
            lines.append("")
        (folder / f"{split}.conll").write_text("\n".join(lines), encoding="utf-8")
    return [
        part for split in ("train", "dev", "test") for part in (f"--{split}", str(folder / f"{split}.conll"))
    ]


@pytest.fixture
def call(monkeypatch):
    """Runs a recipe as a command would, in this process."""

    def run(recipe, *flags):
        monkeypatch.setattr(sys, "argv", [recipe.__name__, *map(str, flags)])
        recipe.main()

    return run


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_a_run_learns_writes_its_results_and_a_model_that_loads(tmp_path, call, cache):
    settings = ["--set", "task_word_dim=8", "elmo_at_output=true", "task_dropout=0.0"]
    files = ner_files(tmp_path)
    call(finetune_ner, *files, "--smoke", "--output", tmp_path / "run", "--cache", cache,
                  "--learning-rate", 0.02, "--batch-size", 8, "--epochs", 2, *settings)  # fmt: skip
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["mean"]["test"]["f1"] > 0.9
    assert results["runs"]["0"]["test"] == results["mean"]["test"]
    assert results["config"]["elmo_at_output"] is True
    assert results["examples"] == {"train": 120, "dev": 30, "test": 30}
    folder = tmp_path / "run" / "seed-0"
    model = AutoModelForTokenClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    words = [["Ada", "Lee", "saw", "North", "Bay"]]
    batch = tokenizer(words, is_split_into_words=True, return_tensors="pt")
    assert batch["input_ids"].unique().numel() == 5  # each is a word of the task's own vocabulary
    labels = [model.config.id2label[label] for label in model.decode(**batch)[0].tolist()]
    assert labels == ["B-PER", "I-PER", "O", "B-LOC", "I-LOC"]
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {"results.json", "seed-0", "vocab.txt"}
    assert not list((tmp_path / "run").rglob("*.bin"))  # no pickle
    one = results["runs"]["0"]
    assert 1 <= one["best_epoch"] <= one["epochs"] <= 2
    assert one["processor_seconds"] > 0
    with pytest.raises(ValueError, match="holds the results of a run"):
        call(finetune_ner, *files, "--smoke", "--output", tmp_path / "run")


def test_a_dataset_with_class_labels_is_read_alike(tmp_path, call):
    ner_files(tmp_path)
    names = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    features = Features({"tokens": Sequence(Value("string")), "ner_tags": Sequence(ClassLabel(names=names))})
    splits = {}
    for split, name in (("train", "train"), ("dev", "validation"), ("test", "test")):
        examples = finetune_ner.read(tmp_path / f"{split}.conll")
        rows = {
            "tokens": [one["tokens"] for one in examples],
            "ner_tags": [[names.index(label) for label in one["labels"]] for one in examples],
        }
        splits[name] = Dataset.from_dict(rows, features=features)
    DatasetDict(splits).save_to_disk(tmp_path / "dataset")
    call(finetune_ner, "--data", tmp_path / "dataset", "--smoke", "--output", tmp_path / "run",
                  "--limit", 10, "--seeds", 0, 1, "--cache", "none", "--epochs", 2)  # fmt: skip
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert list(results["runs"]) == ["0", "1"]
    assert set(results["config"]["id2label"].values()) == set(names)
    assert "f1_deviation" in results["mean"]["test"]


def test_parts_of_speech_and_roles_run(tmp_path, call):
    (tmp_path / "ud.conllu").write_text((UD + "\n") * 20, encoding="utf-8")
    (tmp_path / "srl.conll").write_text(SRL * 20, encoding="utf-8")
    runs = (finetune_pos, "ud.conllu", "accuracy"), (finetune_srl, "srl.conll", "f1")
    for recipe, name, score in runs:
        files = [part for split in ("train", "dev", "test") for part in (f"--{split}", tmp_path / name)]
        output = tmp_path / recipe.__name__
        call(recipe, *files, "--smoke", "--output", output, "--epochs", 2)
        results = json.loads((output / "results.json").read_text())
        assert 0 <= results["mean"]["dev"][score] <= 1


def test_a_treebank_without_these_parts_of_speech_is_refused(tmp_path, call):
    text = UD.replace("PRP", "_").replace("MD", "_").replace("VB\t", "_\t")
    (tmp_path / "ud.conllu").write_text(text, encoding="utf-8")
    files = [part for split in ("train", "dev", "test") for part in (f"--{split}", tmp_path / "ud.conllu")]
    with pytest.raises(ValueError, match=r"^the column xpos is empty in all files; name the other one"):
        call(finetune_pos, *files, "--smoke", "--column", "xpos", "--output", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_word_of_a_treebank_may_have_a_blank(tmp_path, call):
    (tmp_path / "ud.conllu").write_text((UD.replace("go\tgo", "10 000\tgo") + "\n") * 8, encoding="utf-8")
    assert finetune_pos.read(tmp_path / "ud.conllu", 3)[0]["tokens"] == ["He", "'ll", "10 000"]
    files = [part for split in ("train", "dev", "test") for part in (f"--{split}", tmp_path / "ud.conllu")]
    call(finetune_pos, *files, "--smoke", "--output", tmp_path / "run", "--epochs", 1)
    assert (tmp_path / "run" / "results.json").is_file()


def drawn_of(**sizes):
    data = {split: [f"{split} {number}" for number in range(50)] for split in ("train", "dev", "test")}
    return drawn(data, argparse.Namespace(**{f"{split}_size": size for split, size in sizes.items()}))


def test_fewer_examples_are_among_the_more_and_keep_their_order():
    few, more, all_of_it = (drawn_of(train=size, dev=7) for size in (5, 20, None))
    assert (len(few["train"]), len(more["train"]), len(few["dev"]), len(few["test"])) == (5, 20, 7, 50)
    assert set(few["train"]) < set(more["train"]) < set(all_of_it["train"])
    for found in (few, more, all_of_it):
        assert found["train"] == sorted(found["train"], key=lambda one: int(one.split()[1]))
    assert few["train"] != all_of_it["train"][:5]  # not the first ones
    assert few == drawn_of(train=5, dev=7)


def test_what_is_judged_is_read_longest_first():
    data = {split: [{"tokens": ["a"] * length} for length in (2, 5, 1)] for split in ("train", "dev", "test")}
    found = finetuning.longest_first(data)
    lengths = {split: [len(one["tokens"]) for one in examples] for split, examples in found.items()}
    assert lengths == {"train": [2, 5, 1], "dev": [5, 2, 1], "test": [5, 2, 1]}


@pytest.mark.parametrize("size", [0, 51])
def test_a_size_that_cannot_be_drawn(size):
    with pytest.raises(ValueError, match=f"--dev-size must be from 1 to 50, but is {size}"):
        drawn_of(dev=size)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_bar_on_a_terminal_and_none_in_a_file(tmp_path, call, capsys, monkeypatch, is_terminal):
    files = ner_files(tmp_path)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    call(finetune_ner, *files, "--smoke", "--output", tmp_path / "run", "--epochs", 2, "--train-size", 40,
         "--dev-size", 10, "--test-size", 20)  # fmt: skip
    said = capsys.readouterr().err.replace("\r", "\n").split("\n")
    # Those of saving and loading are the library's; a recipe that is run as a command switches them off.
    bars = [line for line in said if "%|" in line and not line.startswith(("Writing", "Loading"))]
    assert bool(bars) == is_terminal
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["examples"] == {"train": 40, "dev": 10, "test": 20}


def test_few_examples_are_read_several_times_an_epoch(tmp_path, call, monkeypatch):
    files, steps, words = ner_files(tmp_path), [], []
    learn = finetuning.DecodingTrainer.train
    monkeypatch.setattr(
        finetuning.DecodingTrainer, "train", lambda self: (learn(self), steps.append(self.state))
    )
    for passes in (1, 3):
        output = tmp_path / f"run-{passes}"
        call(finetune_ner, *files, "--smoke", "--output", output, "--epochs", 2, "--train-size", 40,
             "--dev-size", 10, "--test-size", 20, "--batch-size", 10, "--passes", passes)  # fmt: skip
        results = json.loads((output / "results.json").read_text())
        assert results["examples"]["train"] == 40
        words.append(results["config"]["vocab_size"])  # a word of one example is still rare
        assert results["runs"]["0"]["epochs"] == 2
    assert [state.global_step for state in steps] == [8, 24]
    assert words[0] == words[1]


def test_sentences_of_like_length_share_a_batch_where_the_task_says_so():
    trainer = finetuning.DecodingTrainer.__new__(finetuning.DecodingTrainer)
    trainer.args = SimpleNamespace(train_batch_size=4, train_sampling_strategy="random")
    torch.manual_seed(0)
    lengths = torch.randint(1, 50, (400,)).tolist()

    def padding(length):
        trainer.length = length
        examples = [{"tokens": ["a"] * length} for length in lengths]
        order = list(trainer._get_train_sampler(examples))
        assert sorted(order) == list(range(400))
        batches = [[lengths[i] for i in order[start : start + 4]] for start in range(0, 400, 4)]
        return sum(4 * max(batch) - sum(batch) for batch in batches) / sum(lengths)

    assert padding(lambda one: len(one["tokens"])) < 0.1
    assert padding(None) > 0.3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "name files by --train, --dev and --test, or a dataset by --data"),
        (["--train", "x", "--data", "y"], "name files by --train"),
        (["--train", "x"], "name the files of the dev sentences by --dev"),
        (["--train", "x", "--dev", "x", "--test", "x"], "x could not be read"),
    ],
)
def test_wrong_flags_are_one_sentence(tmp_path, call, flags, message):
    with pytest.raises(ValueError, match=message):
        call(finetune_ner, "--output", tmp_path / "run", *flags)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--smoke", "--vectors", "x", "--set", "task_word_dim=0"],
            "give them room by --set task_word_dim=N.",
        ),
        (["--smoke", "--seeds", "0", "1", "0"], "--seeds names one twice: 0 1 0."),
        (["--smoke", "--set", "task_hiden_size=3"], "did you mean 'task_hidden_size'?"),
        ([], "say by --elmo which pretrained biLM to read"),
        (["--elmo", "/absent/elmo"], "no ELMo can be loaded from /absent/elmo"),
        (["--smoke", "--optimizer", "sgd"], "--optimizer must be one of adam, but is 'sgd'."),
    ],
)
def test_a_wrong_start_leaves_nothing_behind(tmp_path, call, flags, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the message is compared below, word for word)
        call(finetune_ner, *ner_files(tmp_path), "--output", tmp_path / "run", *flags)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--epochs", "0", "argument --epochs: must be 1 or more, but is 0"),
        ("--epochs", "2.5", "argument --epochs: invalid whole number value: '2.5'"),
        ("--patience", "-1", "argument --patience: must be 1 or more, but is -1"),
        ("--clip", "-1", "argument --clip: must be 0.0 or more, but is -1"),
        ("--learning-rate", "nan", "argument --learning-rate: must be 0.0 or more, but is nan"),
        ("--limit", "0", "argument --limit: must be 1 or more, but is 0"),
        ("--seeds", "-3", "argument --seeds: must be 0 or more, but is -3"),
        ("--passes", "0", "argument --passes: must be 1 or more, but is 0"),
        ("--train-size", "0", "argument --train-size: must be 1 or more, but is 0"),
    ],
)
def test_a_wrong_number_is_named(tmp_path, call, capsys, flag, value, message):
    with pytest.raises(SystemExit):
        call(finetune_ner, *ner_files(tmp_path), "--smoke", "--output", tmp_path / "run", f"{flag}={value}")
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_in_the_place_of_a_file_is_refused(tmp_path, call):
    there = tmp_path / "there"
    there.touch()
    for output in (there, there / "run"):
        with pytest.raises(
            ValueError, match="there is a file, and no folder for a run; name another --output"
        ):
            call(finetune_ner, *ner_files(tmp_path), "--smoke", "--output", output)


def test_a_dataset_that_cannot_be_read_is_one_sentence(tmp_path, call):
    with pytest.raises(ValueError, match=r"no dataset could be read from .*absent") as error:
        call(finetune_ner, "--data", tmp_path / "absent", "--smoke", "--output", tmp_path / "run")
    assert "\n" not in str(error.value)


def test_a_command_that_fails_says_one_line():
    command = [sys.executable, str(TRAINING / "finetune_ner.py"), "--output", "run"]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr == (
        "finetune_ner.py: name files by --train, --dev and --test, or a dataset by --data.\n"
    )


def test_labels_of_a_dataset_become_names():
    """One for a row, as SNLI's, where -1 is none; or one for each word."""
    kind = ClassLabel(names=["yes", "no"])
    features = Features({"label": kind, "tags": Sequence(kind), "text": Value("string")})
    rows = {"label": [1, -1], "tags": [[0, 1], []], "text": ["a", "b"]}
    assert list(with_names(Dataset.from_dict(rows, features=features))) == [
        {"label": "no", "tags": ["yes", "no"], "text": "a"},
        {"label": None, "tags": [], "text": "b"},
    ]
