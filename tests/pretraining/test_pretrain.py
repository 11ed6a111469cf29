"""training/pretrain.py as a user runs it: its training, its log and its errors."""

import json
import math
import os
import re
import subprocess
import sys
from dataclasses import asdict, fields

import pytest
import torch
import yaml
from typer.testing import CliRunner

from elmo_hf import ElmoTokenizer
from elmo_hf.cli import app
from elmo_hf.errors import ElmoError
from elmo_hf.loading import load_language_model
from elmo_hf.pretraining.settings import Settings, read_settings
from elmo_hf.pretraining.start import check_resumed
from tests.helpers.launcher import (
    SMOKE,
    memory_of_run,
    read_lines,
    small_run,
    steps_of,
    wait_until,
    write_corpus,
)
from tests.helpers.paths import REPOSITORY, TRAINING

VOCAB = TRAINING / "runs" / "smoke_vocab.txt"


def end(launcher, arguments, processes=1, hook=""):
    run = launcher.start(arguments, processes, hook)
    assert run.wait() == [0] * processes, run.err
    assert run.err == ""
    return run


def files(folder):
    """When each file was written; folders change when the lock file comes and goes."""
    return {path: path.is_file() and path.stat().st_mtime_ns for path in folder.rglob("*")}


def error_of(launcher, tmp_path, count=1, hook="", **changes):
    """The one sentence with which a run refuses to start; it has written nothing."""
    arguments = small_run(tmp_path, **changes)
    before = files(tmp_path)
    run = launcher.start(arguments, count, hook)
    assert run.wait() == [1] * count, run.err
    assert files(tmp_path) == before
    return only_sentence(run)


def only_sentence(run):
    lines = run.err.split("\n")
    assert len(lines) == 1, run.err
    assert lines[0].startswith("pretrain.py: ")
    return lines[0].removeprefix("pretrain.py: ")


# ---- mistakes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "/nowhere/*.txt"}, "there is no file /nowhere/*.txt"),
        ({"vocab": "/nowhere/vocab.txt"}, "there is no vocabulary /nowhere/vocab.txt"),
        ({"config": "/nowhere/run.yaml"}, "there is no settings file /nowhere/run.yaml"),
        ({"start": "/nowhere/elmo", "vocab": None, "lstm_dim": None}, "projection_dim is fixed by the model"),
        ({"rows": 0}, "rows must be at least 1, but is 0"),
        ({"max_steps": -1}, "max_steps must be at least 1"),
        ({"save_every": 20, "keep_every": 50}, "keep_every must be a multiple of save_every, 20, when"),
        ({"dropout": 1.0}, "dropout must be below 1"),
        ({"learning_rate": "nan"}, "learning_rate must be above 0"),
        ({"schedule": "linear"}, "needs --max-steps"),
        ({"weight_decay": 0.1}, "weight_decay is a setting of adamw"),
        ({"char_filters": "[[1, 0]]"}, "char_filters must be [width, number] pairs"),
        ({"rows": 2, "workers": 3}, "2 rows are too few"),
        ({"processes": 2}, "processes is 2, but 1 run"),
        ({"trackers": "notebook"}, "there is no tracker notebook; there are aim,"),
        ({"resume": "/nowhere/checkpoint-1"}, "is not an intact checkpoint"),
        ({"heldout": "/nowhere/held.txt"}, "there is no file /nowhere/held.txt"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_settings(launcher, tmp_path, changes, message):
    assert message in error_of(launcher, tmp_path, **changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lstm_dimm: 3", "there is no setting 'lstm_dimm'"),
        ("rows: many", "rows must be a whole number, but is 'many'"),
        ("window: 2.5", "window must be a whole number, but is 2.5"),
        ("audit: 3", "audit must be true or false, but is 3"),
        ("heldout: [1]", "heldout must be a list of texts, but is [1]"),
        ("optimizer: sgd", "optimizer must be adagrad or adamw, but is 'sgd'"),
        ("char_filters: wide", "ElmoConfig: Field 'char_filters'"),
        ("- rows", "must hold `name: value` lines"),
        ("rows: [", "is no YAML"),
    ],
)
def test_bad_yaml(launcher, tmp_path, text, message):
    (tmp_path / "run.yaml").write_text(text, encoding="utf-8")
    name = text.split(":")[0].strip("- ")
    changes = {name: None} if name in ("rows", "window", "char_filters") else {}
    assert message in error_of(launcher, tmp_path, config=tmp_path / "run.yaml", **changes)


@pytest.mark.parametrize(
    ("text", "vocabulary", "message"),
    [
        ("", None, "is empty"),
        ("\n \n\n", None, "is empty"),
        ("Ann sings .\n", "<S>\n</S>\n.\nAnn\n", "has no line <UNK>"),
        ("Ann sings .\n", "<S>\n</S>\n<UNK>\nAnn\nAnn\n", "'Ann' stands in line 4 and in line 5"),
        ("Ann sings .\n", "<S>\n</S>\n<UNK>\nBob\n", "no word of the first"),
        ("Ann sings .\n", "<S>\t1\n</S>\t1\n<UNK>\t0\nAnn\t1\nsings\t2\n", "a vocabulary goes by falling"),
    ],
    ids=["empty", "blank", "no <UNK>", "twice", "only unknown", "unsorted"],
)
def test_bad_texts(launcher, tmp_path, text, vocabulary, message):
    (tmp_path / "text-0.txt").write_text(text, encoding="utf-8")
    vocab = VOCAB
    if vocabulary is not None:
        vocab = tmp_path / "vocab.txt"
        if "\t" in vocabulary:
            (tmp_path / "vocab.counts.tsv").write_text(vocabulary, encoding="utf-8")
            vocabulary = "".join(line.split("\t")[0] + "\n" for line in vocabulary.splitlines())
        vocab.write_text(vocabulary, encoding="utf-8")
    assert message in error_of(launcher, tmp_path, vocab=vocab)


def test_an_error_of_several_processes_is_printed_once(launcher, tmp_path):
    assert "7 rows cannot be shared evenly by 2" in error_of(launcher, tmp_path, count=2, rows=7)
    assert "there is no file" in error_of(launcher, tmp_path, count=2, data="/nowhere/*.txt")
    hook = "if rank:\n  pretrain.open_text = lambda *_: open('/nowhere/text')"
    assert "/nowhere/text" in error_of(launcher, tmp_path, count=2, hook=hook)


def test_an_error_in_the_text_after_the_first_steps(launcher, tmp_path):
    """In a worker of one of two processes."""
    write_corpus(tmp_path, [1100])
    (tmp_path / "text-1.txt").write_bytes(b"Ann \xff sings .\n")
    run = launcher.start(small_run(tmp_path, seed=1, rows=30, save_every=20), 2)  # text-0.txt first
    assert run.wait() == [1, 1]
    assert "is not UTF-8 text" in only_sentence(run)
    assert list((tmp_path / "run").glob("checkpoint-*"))


def test_settings_of_a_resumed_run(launcher, tmp_path):
    end(launcher, small_run(tmp_path, max_steps=4))
    assert "holds a run; --resume auto continues it" in error_of(launcher, tmp_path, resume="no")
    assert "was begun with lstm_dim 16, and now it is 24" in error_of(launcher, tmp_path, lstm_dim=24)
    assert "was begun with window 5" in error_of(launcher, tmp_path, window=6)
    (tmp_path / "vocab.txt").write_text("<S>\n</S>\n<UNK>\nthe\n", encoding="utf-8")
    assert "has other words" in error_of(launcher, tmp_path, vocab=tmp_path / "vocab.txt")
    text = tmp_path / "text-0.txt"
    text.write_text("The text was changed .\n" * 150, encoding="utf-8")
    run = launcher.start(small_run(tmp_path, max_steps=9))
    assert run.wait() == [1]
    assert "text-0.txt has changed since the run was begun (it has 3,450 bytes" in only_sentence(run)


# ---- failures during a run


def damage(checkpoint):
    weights = checkpoint / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)


def test_damaged_checkpoints(launcher, tmp_path):
    """The run resumes from the checkpoint before a damaged one, which --keep does not remove."""
    end(launcher, small_run(tmp_path, max_steps=12, save_every=4, keep=2))
    output = tmp_path / "run"
    expected = (output / "checkpoint-0000012" / "model.safetensors").read_bytes()
    damage(output / "checkpoint-0000012")
    for max_steps, last in ((10, 8), (12, 10)):
        run = launcher.start(small_run(tmp_path, max_steps=max_steps, keep=1))
        assert run.wait() == [0]
        assert "checkpoint-0000012 is damaged (model.safetensors is not what was" in only_sentence(run)
        assert run.out.startswith(f"Resuming after step {last}.")
    assert [path.name for path in output.glob("checkpoint-*")] == ["checkpoint-0000012"]
    assert (output / "checkpoint-0000012" / "model.safetensors").read_bytes() == expected
    assert [step["step"] for step in steps_of(output)] == list(range(1, 13))
    damage(output / "checkpoint-0000012")
    run = launcher.start(small_run(tmp_path, max_steps=12))
    assert run.wait() == [1]
    assert "every checkpoint" in run.err


def test_full_disk(launcher, tmp_path):
    """No file may grow beyond 15 kB, which the log keeps to and a checkpoint does not."""
    arguments = small_run(tmp_path, save_every=5, max_steps=20)
    end(launcher, small_run(tmp_path, save_every=5, max_steps=10), 2)
    output = tmp_path / "run"
    before = {path.relative_to(output) for path in output.rglob("*")}
    hook = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (15_000, 15_000))"
    run = launcher.start(arguments, 2, hook)
    assert run.wait() == [1, 1]
    message = only_sentence(run)
    assert "the checkpoint of step 15 could not be written" in message
    assert "checkpoint-0000010 is as it was" in message
    assert {path.relative_to(output) for path in output.rglob("*")} == before
    end(launcher, arguments, 2)


@pytest.mark.parametrize("processes", [1, 2])
def test_loss_that_is_not_finite(launcher, tmp_path, processes):
    """A bias becomes NaN before step 13."""
    hook = """
import torch
from elmo_hf.pretraining import learner
update = learner.Learner.update
def broken(self, windows, words, step):
    if step == 12:
        with torch.no_grad():
            self.model.elmo.layers[0].bias[0, 0] = float("nan")
    return update(self, windows, words, step)
learner.Learner.update = broken
"""
    run = launcher.start(small_run(tmp_path, save_every=5), processes, hook)
    assert run.wait() == [1] * processes
    message = only_sentence(run)
    assert message.startswith(
        "step 13: the loss or its gradient is not a finite number (it was reading line "
    )
    assert "text-0.txt" in message
    assert message.count("checkpoint-0000010") == 1
    end(launcher, small_run(tmp_path, save_every=5, max_steps=20), processes)
    assert all(step["loss"] < 20 for step in steps_of(tmp_path / "run"))


def test_lines_of_ten_megabytes(launcher, tmp_path):
    lines = SMOKE.read_text(encoding="utf-8").splitlines(keepends=True)[:100]
    lines[10] = "Ann sings . " * 800_000 + "\n"
    lines[20] = "a" * 10_000_000 + "\n"
    (tmp_path / "text-0.txt").write_text("".join(lines), encoding="utf-8")
    end(launcher, small_run(tmp_path, max_steps=60, workers=2))


# ---- learning, logging


def perplexities(run):
    return [math.exp(step["loss"]) for step in steps_of(run)]


def test_smoke_text_is_learned(launcher, tmp_path):
    """The text has 130 words, so the perplexity of an untrained model is near 130."""
    sizes = {"rows": 8, "window": 10, "lstm_dim": 32, "projection_dim": 16}
    end(launcher, small_run(tmp_path, data=SMOKE, **sizes, samples=0, max_steps=400, save_every=1000))
    values = perplexities(tmp_path / "run")
    assert values[0] > 80
    assert sum(values[-20:]) / 20 < 20


def test_smoke_run_is_the_same_every_time(launcher, tmp_path):
    config = ["--config", TRAINING / "runs" / "smoke_cpu.yaml", "--max_steps", "25"]
    for name in ("first", "second"):
        end(launcher, [*config, "--output", tmp_path / name])
    first, second = (tmp_path / name / "final" / "model.safetensors" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    assert steps_of(tmp_path / "first") == steps_of(tmp_path / "second")
    assert len(steps_of(tmp_path / "first")) == 1


def test_toy_text_of_bilm_tf(launcher, tmp_path, shared_fixtures):
    toy = shared_fixtures / "bilm-tf" / "train"
    text = {"data": toy / "data.txt", "vocab": toy / "vocab.txt", "samples": 0, "rows": 2, "window": 10}
    run = launcher.start(small_run(tmp_path, **text, epochs=35, lstm_dim=32, projection_dim=16))
    assert run.wait() == [0], run.err
    assert "36% of the first words" in run.err  # are not in this vocabulary
    assert sum(perplexities(tmp_path / "run")[-20:]) / 20 < 20


def test_evaluation_equals_the_perplexity_command(launcher, tmp_path):
    heldout = TRAINING / "runs" / "smoke_heldout.txt"
    for states in ("zero", "carried"):
        settings = {"heldout": heldout, "evaluation_states": states, "max_steps": 20, "precision": "bf16"}
        end(launcher, small_run(tmp_path, states, **settings))
        *_, logged, _ = read_lines(tmp_path / states / "log.jsonl")
        command = ["perplexity", str(heldout), "--model", str(tmp_path / states / "final"), "--json"]
        output = CliRunner().invoke(app, [*command, "--states", states, "--no-progress"]).stdout
        expected = json.loads(output)
        for name in ("command", "schema", "results"):
            expected.pop(name)
        assert logged["text"] == "smoke_heldout.txt"
        assert logged["states"] == expected.pop("states") == states
        assert {name: logged[name] for name in expected} == pytest.approx(expected, rel=1e-6)


BREAKS_AT_13 = """
from elmo_hf.pretraining import learner
update = learner.Learner.update
def broken(self, windows, words, step):
    assert step != 13
    return update(self, windows, words, step)
learner.Learner.update = broken
"""


def test_a_resumed_run_equals_an_undisturbed_one(launcher, tmp_path):
    """With other optimizers, precisions and models than the defaults."""
    variants = {
        "adamw": {"optimizer": "adamw", "learning_rate": 0.01, "weight_decay": 0.1, "schedule": "cosine"},
        "bf16": {"precision": "bf16", "samples": 0, "accumulate": 3, "schedule": "linear", "warmup_steps": 5},
        "words": {"token_encoder": "words", "shared_reading": True, "optimizer": "adamw", "workers": 0},
    }
    for name, variant in variants.items():
        variant = {"max_steps": 24, "save_every": 24} | variant
        end(launcher, small_run(tmp_path, name, **variant))
        broken = small_run(tmp_path, f"{name}-broken", **variant | {"save_every": 6})
        assert launcher.start(broken, hook=BREAKS_AT_13).wait() == [1]
        end(launcher, broken)
        for file in ("checkpoint-0000024/training/optimizer.safetensors", "final/model.safetensors"):
            resumed, expected = ((tmp_path / run / file).read_bytes() for run in (f"{name}-broken", name))
            assert resumed == expected
        steps = steps_of(tmp_path / name)
        assert steps[-1]["loss"] < steps[0]["loss"]
        assert steps_of(tmp_path / f"{name}-broken") == steps
    rates = [step["lr"] for step in steps_of(tmp_path / "bf16")]
    assert max(rates) == rates[4] == 0.2
    assert rates[-1] == 0


@pytest.mark.parametrize(
    "name",
    [
        *(
            "split",
            "subset",
            "column",
            "raw",
            "split_sentences",
            "shuffle_sentences",
            "shared_reading",
            "seed",
        ),
        *("heldout_every", "start", "window", "samples", "optimizer", "loss_scale", "precision"),
        *("lstm_dim", "projection_dim", "num_hidden_layers", "char_embedding_dim", "char_filters"),
        *("char_activation", "num_highway_layers", "max_characters_per_token", "token_encoder"),
        *("cell_clip", "proj_clip"),
    ],
)
def test_what_a_resumed_run_cannot_change(name):
    settings = asdict(read_settings(["--data", "a.txt", "--vocab", "vocab.txt", "--output", "run"]))
    check_resumed(settings, dict(settings))
    with pytest.raises(ElmoError, match=rf"^the run was begun with {name} 'another', and now it is "):
        check_resumed(settings | {name: "another"}, settings)


def test_trackers_and_plot(launcher, tmp_path):
    pytest.importorskip("tensorboard")
    heldout = [TRAINING / "runs" / "smoke_heldout.txt", tmp_path / "text-1.txt"]
    arguments = [*small_run(tmp_path, max_steps=6, report_to="tensorboard"), "--heldout", *heldout]
    end(launcher, arguments)
    assert list((tmp_path / "run" / "elmo").glob("**/events.*"))
    log = read_lines(tmp_path / "run" / "log.jsonl")
    texts = [entry["text"] for entry in log if entry["kind"] == "evaluation"]
    assert texts == ["smoke_heldout.txt", "text-1.txt"]
    assert CliRunner().invoke(app, ["plot", str(tmp_path / "run")]).exit_code == 0
    assert (tmp_path / "run" / "log.png").is_file()


def test_memory_does_not_grow(launcher, tmp_path):
    """Of the process and its worker."""
    sizes = memory_of_run(launcher, tmp_path, [150, 300, 450], epochs=20, max_steps=470)
    assert sizes[-1] - sizes[0] < 12.0  # keeping a window of each step would add 30


# ---- starting from a trained model


def test_new_text_with_new_words(launcher, tmp_path):
    """Domain adaptation: words that both vocabularies have keep their rows of the softmax."""
    end(launcher, small_run(tmp_path, "old", max_steps=40))
    old = tmp_path / "old" / "final"
    model = dict.fromkeys(("lstm_dim", "projection_dim", "char_embedding_dim", "char_filters"))
    model |= {"num_highway_layers": None, "num_hidden_layers": None, "max_characters_per_token": None}
    words = VOCAB.read_text(encoding="utf-8").split()
    new_words = [*words[:3], "zebra", *words[4:60], "okapi"]
    (tmp_path / "new.txt").write_text("\n".join(new_words) + "\n", encoding="utf-8")
    (tmp_path / "held.txt").write_text("The zebra sees the okapi .\n" * 5, encoding="utf-8")
    same = {"start": old, **model, "heldout": tmp_path / "held.txt", "max_steps": 1, "learning_rate": 1e-30}
    run = launcher.start(small_run(tmp_path, "new", vocab=tmp_path / "new.txt", **same))
    assert run.wait() == [0]
    assert re.fullmatch(
        r"37% of the first words of \S+ are not in \S+/new\.txt, .* split otherwise\.", only_sentence(run)
    )
    before, _ = load_language_model(str(old))
    after, tokenizer = load_language_model(str(tmp_path / "new" / "final"))
    assert after.config.vocab_size == len(new_words)
    for new, word in enumerate(new_words):
        assert tokenizer.convert_tokens_to_ids(word) == new
        if word in words:
            row = before.lm_head.weight[words.index(word)]
            assert torch.equal(after.lm_head.weight[new], row)
            assert after.lm_head.bias[new] == before.lm_head.bias[words.index(word)]
    for name, weight in before.elmo.state_dict().items():
        assert torch.equal(after.elmo.state_dict()[name], weight), name

    before.elmo.save_pretrained(tmp_path / "vectors")  # as AllenNLP's files: no softmax, no vocabulary
    ElmoTokenizer(max_characters_per_token=12).save_pretrained(tmp_path / "vectors")
    bare = same | {"start": tmp_path / "vectors"}
    run = launcher.start(small_run(tmp_path, "refused", vocab=None, **bare))
    assert run.wait() == [1]
    assert "has no softmax" in run.err
    assert launcher.start(small_run(tmp_path, "bare", vocab=tmp_path / "new.txt", **bare)).wait() == [0]
    after, _ = load_language_model(str(tmp_path / "bare" / "final"))
    assert after.config.vocab_size == len(new_words)
    for name, weight in before.elmo.state_dict().items():
        assert torch.equal(after.elmo.state_dict()[name], weight), name

    same |= {"epochs": 2, "learning_rate": 0.2, "max_steps": None, "dropout": 0.3}
    run = launcher.start(small_run(tmp_path, "adapted", data=tmp_path / "text-1.txt", vocab=None, **same))
    assert run.wait() == [0]
    assert "33% of the first words of" in only_sentence(run)  # of the held-out text
    log = read_lines(tmp_path / "adapted" / "log.jsonl")
    evaluations = [entry for entry in log if entry["kind"] == "evaluation"]
    assert [entry["epoch"] for entry in evaluations] == [0, 1, 2]
    assert evaluations[0]["step"] == 0
    assert load_language_model(str(tmp_path / "adapted" / "final"))[0].config.dropout == 0.3


# ---- settings files and launching


def test_settings_files():
    """paper.yaml lists all settings with their defaults and help texts."""
    paper = read_settings(["--config", str(TRAINING / "runs" / "paper.yaml")])
    written = yaml.safe_load((TRAINING / "runs" / "paper.yaml").read_text(encoding="utf-8"))
    assert list(written) == [field.name for field in fields(Settings)]
    plain = Settings(data=paper.data, vocab=paper.vocab, output=paper.output)
    assert asdict(paper) == asdict(plain)
    lines = (TRAINING / "runs" / "paper.yaml").read_text(encoding="utf-8").splitlines()
    comments = {line.split(":")[0]: line.partition("  # ")[2] for line in lines if "  # " in line}
    assert comments == {field.name: field.metadata["help"] for field in fields(Settings)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: 7", r"^data must be a list of texts, but is 7\.$"),
        ("heldout: 1_000", r"^heldout must be a list of texts, but is 1000\.$"),
        ("heldout: true", r"^heldout must be a list of texts, but is True\.$"),
        ("data: &a [x]\nheldout: *a", r"run.yaml has an anchor or alias, 'a'; write the value out\.$"),
        ("data: [" + "a," * 50_000 + "]", r"run.yaml has more than 100,000 letters"),
        ("data: \udcff", r"run.yaml is no text in UTF-8\.$"),
    ],
    ids=lambda value: value[:20],
)
def test_a_settings_file_with_other_values(tmp_path, text, message):
    (tmp_path / "run.yaml").write_text(text, encoding="utf-8", errors="surrogateescape")
    arguments = ["--config", str(tmp_path / "run.yaml"), "--vocab", "v", "--output", "o"]
    arguments += [] if text.startswith("data") else ["--data", "a.txt"]
    with pytest.raises(ElmoError, match=message):
        read_settings(arguments)


def test_texts_are_named_behind_one_option(capsys):
    with pytest.raises(SystemExit):
        read_settings(["--data", "a.txt", "--data", "b.txt", "--vocab", "vocab.txt", "--output", "run"])
    assert (
        "argument --data: is given twice; write all its values behind one --data" in capsys.readouterr().err
    )


def test_a_settings_file_that_does_not_end(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 3 << 30)
    for name, message in [("pipe", "no.* plain"), ("device", "no.* plain"), ("large", "more than 1,000,000")]:
        with pytest.raises(ElmoError, match=f"{name} .*{message}"):
            read_settings(["--config", str(tmp_path / name)])


def test_options_override_the_file(tmp_path):
    (tmp_path / "run.yaml").write_text(
        "data: a.txt\nlearning-rate: 1e-3\nresume: no\nrows: 3\n", encoding="utf-8"
    )
    flags = ["--config", str(tmp_path / "run.yaml"), "--rows", "5", "--vocab", "v", "--output", "o"]
    settings = read_settings(flags)
    values = (settings.data, settings.learning_rate, settings.resume, settings.rows)
    assert values == (["a.txt"], 1e-3, "no", 5)


def test_the_package_runs_the_recipe(launcher, tmp_path):
    """`-m elmo_hf.pretraining` gives the weights of training/pretrain.py."""
    end(launcher, small_run(tmp_path, "script", max_steps=4))
    run_module = "runpy.run_module('elmo_hf.pretraining', run_name='__main__', alter_sys=True)"
    end(
        launcher,
        small_run(tmp_path, "module", max_steps=4),
        hook=f"import runpy\n{run_module}\nraise SystemExit",
    )
    script, module = (tmp_path / name / "final" / "model.safetensors" for name in ("script", "module"))
    assert script.read_bytes() == module.read_bytes()


def test_accelerate_launch(tmp_path):
    """A run of the package in two processes, resumed by the script in one, which a signal stops."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    settings = ["--config", "training/runs/smoke_cpu.yaml", "--output", str(tmp_path / "run")]
    several = ["--multi_gpu", "--main_process_port", "0", "--num_processes", "2"]
    known = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", *known]
    command = [
        *launch,
        *several,
        "-m",
        "elmo_hf.pretraining",
        *settings,
        "--max_steps",
        "9",
        "--processes",
        "2",
    ]
    run = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
    assert "words/s" in run.stderr
    assert "arning" not in run.stderr
    start = read_lines(tmp_path / "run" / "log.jsonl")[0]
    assert (start["processes"], start["threads"]) == (2, 1)  # threads as the user's variable says

    settings += ["--max_steps", "100000", "--epochs", "1000", "--log_every", "1", "--resume", "auto"]
    run = subprocess.Popen(
        [*launch, "--cpu", "--num_processes", "1", "training/pretrain.py", *settings],
        cwd=REPOSITORY,
        env=environment,
    )
    wait_until(lambda: len(steps_of(tmp_path / "run")) > 20 or run.poll() is not None)
    run.terminate()
    run.wait()
    wait_until(lambda: len(list((tmp_path / "run").glob("checkpoint-*"))) == 2)
    wait_until(lambda: is_saved(tmp_path / "run", steps_of(tmp_path / "run")[-1]["step"]))


def is_saved(run, step):
    return (run / f"checkpoint-{step:07d}" / "manifest.json").is_file()
