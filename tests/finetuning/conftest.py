"""Fixtures of the tests of the recipes."""

import random
import sys

import evaluate
import pytest

from elmo_hf.finetuning.flags import SPLITS


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
    draw = random.Random(0)
    words = {"PER": (["Ada", "Max", "Eva"], ["Lee", "Poe"]), "LOC": (["North", "South"], ["Bay", "Hill"])}

    def name():
        type_ = draw.choice(["PER", "LOC"])
        first, second = map(draw.choice, words[type_])
        return [f"{first} B-{type_}", f"{second} I-{type_}"]

    flags = []
    for split, number in (("train", 120), ("dev", 30), ("test", 30)):
        lines = []
        for _ in range(number):
            lines += [*name(), f"{draw.choice(['saw', 'left', 'liked'])} O", *name(), ""]
        (tmp_path / f"{split}.conll").write_text("\n".join(lines), encoding="utf-8")
        flags += [f"--{split}", str(tmp_path / f"{split}.conll")]
    return flags
