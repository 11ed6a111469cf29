"""The run of a recipe: its training, its output and its errors, with the recipe for named entities."""

import json
import re
import shutil
import sqlite3
import sys
from contextlib import closing
from types import SimpleNamespace

import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Sequence, Value
from transformers import AutoModel, AutoModelForTokenClassification, AutoTokenizer

from elmo_hf import TINY
from elmo_hf.finetuning import run as finetuning
from elmo_hf.finetuning.run import rounded
from tests.helpers.launcher import Program
from training import finetune_ner


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_a_run_learns_writes_its_results_and_a_model_that_loads(tmp_path, call, name_files, cache):
    settings = ["--set", "task_word_dim=8", "elmo_at_output=true", "task_dropout=0.0"]
    call(finetune_ner, *name_files, "--smoke", "--output", tmp_path / "run", "--cache", cache,
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
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert written == {"results.json", "seed-0"}
    assert not list((tmp_path / "run").rglob("*.bin"))  # no pickle
    evaluation = json.loads((folder / "results" / "evaluation-ner.json").read_text())
    assert evaluation["command"].startswith("python training/finetune_ner.py --train ")
    assert (evaluation["seed"], evaluation["mean"]["test"]) == (0, results["mean"]["test"])
    run = results["runs"]["0"]
    assert 1 <= run["best_epoch"] <= run["epochs"] <= 2
    assert run["processor_seconds"] > 0
    with pytest.raises(ValueError, match="holds the results of a run"):
        call(finetune_ner, *name_files, "--smoke", "--output", tmp_path / "run")


def test_a_dataset_with_class_labels_is_read_alike(tmp_path, call, name_files):
    names = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    features = Features({"tokens": Sequence(Value("string")), "ner_tags": Sequence(ClassLabel(names=names))})
    splits = {}
    for split, name in (("train", "train"), ("dev", "validation"), ("test", "test")):
        examples = finetune_ner.read(tmp_path / f"{split}.conll")
        rows = {
            "tokens": [example["tokens"] for example in examples],
            "ner_tags": [[names.index(label) for label in example["labels"]] for example in examples],
        }
        splits[name] = Dataset.from_dict(rows, features=features)
    DatasetDict(splits).save_to_disk(tmp_path / "dataset")
    call(finetune_ner, "--data", tmp_path / "dataset", "--smoke", "--output", tmp_path / "run",
                  "--limit", 10, "--seeds", 0, 1, "--cache", "none", "--epochs", 2)  # fmt: skip
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert list(results["runs"]) == ["0", "1"]
    assert set(results["config"]["id2label"].values()) == set(names)
    assert "f1_deviation" in results["mean"]["test"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "tag_scheme=BIOUL",
            "the examples of this recipe need the tag_scheme 'BIO'; leave --set tag_scheme out",
        ),
        ("num_labels=5", "num_labels follows from the data and the biLM; leave --set num_labels out"),
        ('id2label={"0": "a"}', "id2label follows from the data"),
        ("problem_type=regression", "problem_type follows from the data"),
        ("vocab_size=9", "vocab_size follows from the data"),
        ("lstm_dim=8", "this biLM's words have 256 numbers and its layers 16, so they cannot be mixed"),
        (
            "char_activation=tanh",
            'the biLM was trained with char_activation="relu"; leave --set char_activation out',
        ),
        ("cell_clip=null", "the biLM was trained with cell_clip=3.0; leave --set cell_clip out"),
        ("use_skip_connections=false", "the biLM was trained with use_skip_connections=true"),
        ("num_hidden_layers=1", "--set gives the biLM other sizes than its weights have"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_before_anything_is_written(
    tmp_path, call, name_files, setting, message
):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        call(finetune_ner, *name_files, "--elmo", TINY, "--output", tmp_path / "run", "--set", setting)
    assert not (tmp_path / "run").exists()


def test_an_epoch_may_read_the_examples_several_times(tmp_path, call, name_files, monkeypatch):
    steps, words = [], []
    train = finetuning.DecodingTrainer.train
    monkeypatch.setattr(
        finetuning.DecodingTrainer, "train", lambda self: (train(self), steps.append(self.state))
    )
    for passes in (1, 3):
        output = tmp_path / f"run-{passes}"
        call(finetune_ner, *name_files, "--smoke", "--output", output, "--epochs", 2, "--train-size", 40,
             "--dev-size", 10, "--test-size", 20, "--batch-size", 10, "--passes", passes)  # fmt: skip
        results = json.loads((output / "results.json").read_text())
        assert results["examples"]["train"] == 40
        words.append(results["config"]["vocab_size"])  # a word of one example is still rare
        assert results["runs"]["0"]["epochs"] == 2
    assert [state.global_step for state in steps] == [8, 24]
    assert words[0] == words[1]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_bar_on_a_terminal_and_none_in_a_file(tmp_path, call, name_files, capsys, monkeypatch, is_terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    sizes = ["--train-size", 40, "--dev-size", 10, "--test-size", 20]
    call(finetune_ner, *name_files, "--smoke", "--output", tmp_path / "run", "--epochs", 2, *sizes)
    lines = capsys.readouterr().err.replace("\r", "\n").split("\n")
    # The library draws those of saving and loading; a recipe that is run as a command switches them off.
    bars = [line for line in lines if "%|" in line and not line.startswith(("Writing", "Loading"))]
    assert bool(bars) == is_terminal
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["examples"] == {"train": 40, "dev": 10, "test": 20}


def test_a_tuned_bilm_may_have_a_learning_rate_of_its_own(tmp_path, call, name_files):
    before = AutoModel.from_pretrained(TINY).state_dict()
    settings = ["--elmo", TINY, "--learning-rate", 0.01, "--epochs", 1, "--train-size", 20]
    settings += ["--set", "freeze_elmo=false"]
    changes = []
    for number, more in enumerate([[], ["--elmo-learning-rate", 0.0001], ["--elmo-learning-rate", 0]]):
        output = tmp_path / f"run-{number}"
        call(finetune_ner, *name_files, "--output", output, *settings, *more)
        model = AutoModelForTokenClassification.from_pretrained(output / "seed-0")
        weights = model.elmo.state_dict()
        changes.append(max(float((weights[name] - before[name]).abs().max()) for name in weights))
    assert changes[0] > 10 * changes[1] > 0 == changes[2]


def test_sentences_of_similar_length_share_a_batch_if_the_task_has_a_length():
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

    assert padding(lambda example: len(example["tokens"])) < 0.1
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
            "add --set task_word_dim=N.",
        ),
        (["--smoke", "--seeds", "0", "1", "0"], "--seeds names a seed twice: 0 1 0."),
        (["--smoke", "--set", "task_hiden_size=3"], "did you mean 'task_hidden_size'?"),
        ([], "name a pretrained biLM by --elmo"),
        (
            ["--smoke", "--elmo-learning-rate", "0.1"],
            "needs a biLM that learns; add --set freeze_elmo=false.",
        ),
        (["--elmo", "/absent/elmo"], "no ELMo can be loaded from /absent/elmo"),
        (["--smoke", "--optimizer", "sgd"], "--optimizer must be one of adam, but is 'sgd'."),
    ],
)
def test_a_wrong_start_leaves_nothing_behind(tmp_path, call, name_files, flags, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the message is compared below, word for word)
        call(finetune_ner, *name_files, "--output", tmp_path / "run", *flags)
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
        ("--elmo", "", "argument --elmo: must not be empty"),
        ("--vectors", "", "argument --vectors: must not be empty"),
        ("--evaluate", "", "argument --evaluate: must not be empty"),
        ("--report-to", "", "argument --report-to: must not be empty"),
        ("--train-size", "0", "argument --train-size: must be 1 or more, but is 0"),
    ],
)
def test_a_wrong_number_is_named(tmp_path, call, name_files, capsys, flag, value, message):
    with pytest.raises(SystemExit):
        call(finetune_ner, *name_files, "--smoke", "--output", tmp_path / "run", f"{flag}={value}")
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flag", ["--set", "--seeds", "--train", "--report-to"])
def test_an_option_of_several_values_is_given_once(tmp_path, call, name_files, capsys, flag):
    values = {"--set": "use_crf=false", "--seeds": "1", "--train": name_files[1], "--report-to": "wandb"}
    flags = [*name_files, *(() if flag == "--train" else (flag, values[flag])), flag, values[flag]]
    with pytest.raises(SystemExit):
        call(finetune_ner, *flags, "--smoke", "--output", tmp_path / "run")
    message = f"argument {flag}: is given twice; write all its values behind one {flag}"
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_folder_of_a_run_is_no_model(tmp_path, call, name_files, capsys):
    (tmp_path / "results.json").write_text("{}", encoding="utf-8")
    with pytest.raises(SystemExit):
        call(finetune_ner, "--evaluate", tmp_path, "--test", name_files[1])
    message = f"{tmp_path} is the folder of a run; name one of its models, such as {tmp_path / 'seed-0'}"
    assert message in capsys.readouterr().err


def test_an_output_that_is_a_file_is_refused(tmp_path, call, name_files):
    file = tmp_path / "file"
    file.touch()
    for output in (file, file / "run"):
        with pytest.raises(
            ValueError, match="file is a file, and no folder for a run; name another --output"
        ):
            call(finetune_ner, *name_files, "--smoke", "--output", output)


def test_a_dataset_that_cannot_be_read_is_one_sentence(tmp_path, call):
    with pytest.raises(ValueError, match=r"no dataset could be read from .*absent") as error:
        call(finetune_ner, "--data", tmp_path / "absent", "--smoke", "--output", tmp_path / "run")
    assert "\n" not in str(error.value)


def test_times_are_no_scores():
    assert rounded({"eval_f1": 0.5, "eval_loss": 1.0, "eval_runtime": 3.0, "epoch": 2.0}) == {
        "f1": 0.5,
        "loss": 1.0,
    }


def test_trackers_get_the_scores(tmp_path, call, name_files, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    sizes = ["--train-size", 40, "--dev-size", 10, "--test-size", 20, "--epochs", 2]
    flags = [*name_files, "--smoke", "--output", tmp_path / "run", *sizes, "--seeds", 0, 1]
    call(finetune_ner, *flags, "--report-to", "tensorboard")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    for seed in ("0", "1"):
        events = EventAccumulator(str(tmp_path / "run" / "logs" / f"seed-{seed}"))
        events.Reload()
        values = [event.value for event in events.Scalars("eval/f1")]
        assert values[-1] == pytest.approx(results["runs"][seed]["test"]["f1"], abs=1e-4)
    call(finetune_ner, *flags)  # who watches is no setting of the run
    assert json.loads((tmp_path / "run" / "results.json").read_text())["runs"] == results["runs"]


def test_trackio_gets_a_run_for_each_seed(launcher, tmp_path, name_files):
    pytest.importorskip("trackio")
    sizes = ["--train-size", 20, "--dev-size", 10, "--test-size", 10, "--epochs", 1]
    flags = ["--smoke", "--output", tmp_path / "run", *sizes, "--seeds", 0, 1, "--report-to", "trackio"]
    hook = f"import os; os.environ['TRACKIO_DIR'] = {str(tmp_path / 'trackio')!r}"
    recipe = Program("training.finetune_ner", "main", "training/finetune_ner.py")
    run = launcher.start([*name_files, *flags], hook=hook, program=recipe)
    assert run.wait() == [0], run.err
    with closing(sqlite3.connect(tmp_path / "trackio" / "elmo.db")) as base:
        rows = base.execute("select distinct run_name from metrics order by run_name").fetchall()
    assert rows == [("run-seed-0",), ("run-seed-1",)]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["aim"], "there is no tracker aim; there are azure_ml, comet_ml, "),
        (["clearml"], r"the tracker clearml is not installed; `pip install clearml`\.$"),
        (["none", "tensorboard"], "trackers are none, or some of them, but not both: none tensorboard"),
    ],
)
def test_trackers_that_are_not_there(tmp_path, call, name_files, names, message):
    with pytest.raises(ValueError, match=message):
        call(finetune_ner, *name_files, "--smoke", "--output", tmp_path / "run", "--report-to", *names)
    assert not (tmp_path / "run").exists()


def test_vectors_of_other_words_are_refused_before_anything_is_written(tmp_path, call, name_files):
    (tmp_path / "vectors.txt").write_text("zzz 1 2\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"vectors\.txt has none of the task's \d+ words\.$"):
        call(finetune_ner, *name_files, "--smoke", "--output", tmp_path / "run", "--vectors",
             tmp_path / "vectors.txt")  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_a_models_folder_is_no_output(tmp_path, call, name_files):
    folder = shutil.copytree(TINY, tmp_path / "elmo")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(ValueError, match="elmo is the folder of a model; name another --output for the run"):
        call(finetune_ner, *name_files, "--elmo", folder, "--output", folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_a_file_beside_the_run_is_left_alone(tmp_path, call, name_files):
    (tmp_path / "vocab.txt").write_text("mine\n", encoding="utf-8")
    call(finetune_ner, *name_files, "--smoke", "--epochs", 1, "--train-size", 20, "--output", tmp_path)
    assert (tmp_path / "vocab.txt").read_text(encoding="utf-8") == "mine\n"
    assert "North" in (tmp_path / "seed-0" / "vocab.txt").read_text(encoding="utf-8").split("\n")


def test_a_run_that_diverges_leaves_nothing(tmp_path, call, name_files):
    flags = [*name_files, "--smoke", "--epochs", 1, "--train-size", 20, "--set", "use_crf=false"]
    with pytest.raises(
        ValueError, match="the training diverged: the weights became infinite; lower --learning"
    ):
        call(finetune_ner, *flags, "--learning-rate", "1e38", "--output", tmp_path / "run")
    assert not list((tmp_path / "run").rglob("*"))


def test_a_smoke_run_takes_shorter_words(tmp_path, call, name_files):
    flags = [*name_files, "--smoke", "--epochs", 1, "--train-size", 20, "--output", tmp_path / "run"]
    call(finetune_ner, *flags, "--set", "max_characters_per_token=20")
    assert AutoTokenizer.from_pretrained(tmp_path / "run" / "seed-0").max_characters_per_token == 20


def test_an_evaluation_removes_the_predictions_of_another_one(tmp_path, call, name_files):
    flags = [*name_files, "--smoke", "--epochs", 1, "--train-size", 20, "--output", tmp_path / "run"]
    call(finetune_ner, *flags)
    judged = ["--evaluate", tmp_path / "run" / "seed-0", "--output", tmp_path / "judged", "--test"]
    call(finetune_ner, *judged, tmp_path / "test.conll", "--predictions")
    assert (tmp_path / "judged" / "predictions" / "test.jsonl").exists()
    call(finetune_ner, *judged, tmp_path / "dev.conll")
    assert not (tmp_path / "judged" / "predictions" / "test.jsonl").exists()
    (tmp_path / "genes.conll").write_text("Ada B-GENE\nsat O\n", encoding="utf-8")
    message = "predicts labels such as I-PER, and none of those of the test sentences, such as B-GENE; is it"
    with pytest.raises(ValueError, match=message):
        call(finetune_ner, *judged, tmp_path / "genes.conll")
    (tmp_path / "none.conll").write_text("Sun O\nsat O\n", encoding="utf-8")  # no span, but no other task
    call(finetune_ner, *judged, tmp_path / "none.conll")
