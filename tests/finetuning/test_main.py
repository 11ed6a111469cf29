"""`python -m elmo_hf.finetuning TASK`, and a recipe's file, as commands."""

import json
import re
import runpy
import sys

import pytest
import transformers

from tests.helpers.paths import TRAINING


@pytest.fixture
def start(monkeypatch, capsys):
    """Runs `python ...` in this process; returns the exit code, the output and the errors."""

    def run(*words):
        is_module = words[0] == "-m"
        monkeypatch.setattr(sys, "argv", [str(word) for word in (words[1:] if is_module else words)])
        code = 0
        try:
            if is_module:
                runpy.run_module(words[1], run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(str(words[0]), run_name="__main__")
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    yield run
    transformers.utils.logging.set_verbosity_warning()  # a command makes the library silent
    transformers.utils.logging.enable_progress_bar()


MODULE = ("-m", "elmo_hf.finetuning")


def test_help_lists_every_task(start):
    code, out, errors = start(*MODULE, "--help")
    assert (code, errors) == (0, "")
    tasks = re.findall(r"^  (\w+) +[A-Z].*\.$", out, re.MULTILINE)
    assert tasks == ["coref", "ner", "nli", "pos", "squad", "srl", "sst", "text"]
    assert start(*MODULE) == (code, out, errors)


def test_help_of_a_task_is_the_recipes(start):
    code, out, _ = start(*MODULE, "ner", "--help")
    assert code == 0
    assert out.startswith("usage: python -m elmo_hf.finetuning ner [-h]")
    assert "--columns" in out


def test_an_unknown_task_is_one_sentence(start):
    code, out, errors = start(*MODULE, "parsing", "--smoke")
    assert (code, out) == (1, "")
    assert errors == (
        "python -m elmo_hf.finetuning: there is no task 'parsing'; "
        "the tasks are coref, ner, nli, pos, squad, srl, sst, text.\n"
    )


@pytest.mark.parametrize(
    ("words", "program"),
    [
        ([TRAINING / "finetune_ner.py"], "finetune_ner.py"),
        ([*MODULE, "ner"], "python -m elmo_hf.finetuning ner"),
    ],
)
def test_a_mistake_is_one_line(start, words, program):
    code, out, errors = start(*words, "--output", "run")
    assert (code, out) == (1, "")
    assert errors == f"{program}: name files by --train, --dev and --test, or a dataset by --data.\n"


def test_a_run_records_its_command(start, name_files, tmp_path):
    sizes = ["--train-size", 20, "--dev-size", 10, "--test-size", 10]
    flags = [*name_files, "--smoke", "--epochs", 1, *sizes, "--output", tmp_path / "run"]
    code, _, errors = start(*MODULE, "ner", *flags)
    assert code == 0, errors
    path = tmp_path / "run" / "seed-0" / "results" / "evaluation-ner.json"
    expected = " ".join(["python -m elmo_hf.finetuning ner", *map(str, flags)])
    assert json.loads(path.read_text())["command"] == expected
