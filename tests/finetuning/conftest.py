"""Fixtures of the tests of the recipes."""

import shutil
import sys

import evaluate
import pytest

from elmo_hf import TINY, ElmoTokenizer
from elmo_hf.finetuning.flags import SPLITS
from tests.helpers.named_entities import write_files


@pytest.fixture(autouse=True)
def metrics_cache(tmp_path_factory, monkeypatch):
    """Keep the rows of metrics out of the user's cache."""
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path_factory.getbasetemp() / "metrics")


@pytest.fixture
def call(monkeypatch):
    """Run a recipe in this process with the flags of a command line."""

    def run(recipe, *flags):
        name = recipe.__name__.removeprefix("training.")
        monkeypatch.setattr(sys, "argv", [f"training/{name}.py", *map(str, flags)])
        recipe.main()

    return run


@pytest.fixture
def same_file():
    """Flags that name one file for train, dev and test."""

    def flags(path):
        return [word for split in SPLITS for word in (f"--{split}", str(path))]

    return flags


@pytest.fixture
def name_files(tmp_path):
    """Flags of files of made-up sentences, in which a capitalised word is a name and determines its type."""
    return write_files(tmp_path)


@pytest.fixture
def elmo_of_blanks(tmp_path):
    """A biLM whose tokenizer splits texts at blanks alone, as one that was trained without `--raw`."""
    folder = shutil.copytree(TINY, tmp_path / "elmo")
    ElmoTokenizer.from_pretrained(TINY, word_splitter="whitespace").save_pretrained(folder)
    return folder
