"""A checkpoint to upload, the message of a refusal, and a local Hub, for the tests of uploading."""

import json

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

from elmo_hf.hub.push import push
from elmo_hf.loading import describe_model
from tests.helpers.card_folders import FACTS, RESULTS, RUN, save_checkpoint, write
from tests.helpers.hub_server import Hub

NAME = "someone/elmo-test"
# The files of code beside an ElmoModel.
BACKBONE = {
    f"{name}_elmo"
    for name in (
        "cells",
        "checks",
        "config_checks",
        "configuration",
        "encoders",
        "examples",
        "folder",
        "layers",
        "letters",
        "modeling",
        "tokenization",
        "words",
    )
}
CODE = sorted(f"{name}.py" for name in BACKBONE | {"modeling_elmo_pretraining"})
FILES = [
    "README.md",
    *CODE,
    "config.json",
    "facts.yaml",
    "model.safetensors",
    "tokenizer_config.json",
    "vocab.txt",
]
RESULT_FILES = [f"results/{name}.json" for name in [*RESULTS, "run"]]


def refused(folder, repo=NAME, **options):
    """The sentence with which `push` refuses."""
    with pytest.raises(ValueError, match=r"\.$") as error:
        push(folder, repo, **options)
    sentence = str(error.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


def edit(path, **changes):
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | changes), encoding="utf-8")


def save_with_card(folder):
    """A checkpoint with its facts and results."""
    save_checkpoint(folder)
    return write(folder, FACTS, RESULTS | {"run": RUN | {"model": describe_model(folder)}})


def served(monkeypatch):
    """A local Hub, which huggingface_hub uses in place of the real one during a test."""
    with Hub({"secret": {"someone"}, "guest": {"guest"}}) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
        monkeypatch.setenv("HF_TOKEN", "secret")
        disable_progress_bars()
        yield server
        enable_progress_bars()
