"""Hostile options are refused in one sentence that names file and option, with nothing left behind."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.bilm_files import refused
from tests.helpers.reference import options


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["not JSON"]),
        ("<!DOCTYPE html>", ["not JSON"]),
        ('{"lstm": ' + "[" * 100_000, ["not JSON"]),
        ('{"lstm": {"dim": ' + "9" * 5000 + "}}", ["not JSON"]),
        ("[1, 2]", ["no options"]),
        ('{"char_cnn": {}}', ["no options"]),
        ('{"lstm": "' + "x" * 2_000_000 + '"}', ["options.json", "1,000,000 bytes"]),
        ('{"lstm": 5}', ["options.json", "'lstm'", "but is 5"]),
        ('{"lstm": {}, "char_cnn": [1]}', ["options.json", "'char_cnn'"]),
    ],
)
def test_hostile_options_file(source: Path, content: str, words: list[str]) -> None:
    (source / "options.json").write_text(content)
    refused([source], str(source), *words)


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("lstm.dim", None, "missing"),
        ("lstm.projection_dim", None, "missing"),
        ("lstm.n_layers", None, "missing"),
        ("char_cnn.embedding.dim", None, "missing"),
        ("char_cnn.embedding", 4, "{...}"),
        ("char_cnn.filters", None, "missing"),
        ("char_cnn.activation", None, "missing"),
        ("lstm.dim", "12", "'12'"),
        ("lstm.dim", 12.0, "12.0"),
        ("lstm.dim", True, "True"),
        ("lstm.dim", 0, "0"),
        ("lstm.dim", -(10**4000), "..."),
        ("lstm.dim", 10**4000, "..."),
        ("lstm.n_layers", [2], "[2]"),
        ("lstm.cell_clip", -3, "-3"),
        ("lstm.cell_clip", "3", "'3'"),
        ("lstm.cell_clip", float("nan"), "nan"),
        ("lstm.proj_clip", float("inf"), "inf"),
        ("lstm.use_skip_connections", 1, "1"),
        ("char_cnn.filters", [], "[]"),
        ("char_cnn.filters", [[1, 4], [2]], "[2]"),
        ("char_cnn.filters", [[1, 4], [2, -5]], "-5"),
        ("char_cnn.filters", {"1": 4}, "{"),
        ("char_cnn.n_highway", -1, "-1"),
        ("char_cnn.max_characters_per_token", 2, "2"),
        ("char_cnn.activation", "swish", "swish"),
        ("char_cnn.activation", ["relu"], "relu"),
        ("char_cnn.n_characters", 263, "261"),
        ("bidirectional", False, "true"),
    ],
)
def test_wrong_option(source: Path, name: str, value: Any, word: str) -> None:
    content = options()
    *sections, key = name.split(".")
    section_options = content
    for section in sections:
        section_options = section_options[section]
    section_options[key] = value
    (source / "options.json").write_text(json.dumps(content))
    message = refused([source], str(source / "options.json"), f"'{name}'", word)
    assert len(message) < 400 + len(str(source))


def test_options_that_contradict_each_other(source: Path) -> None:
    content = options(filters=((9, 4),), max_characters=5)
    (source / "options.json").write_text(json.dumps(content))
    refused([source], str(source / "options.json"), "width 9", "5")


@pytest.mark.parametrize(
    ("changes", "dataset"),
    [
        ({"n_layers": 256}, "Cell2"),
        ({"n_highway": 256}, "CNN_high_2"),
        ({"dim": 2**20}, "Cell0"),
        ({"projection_dim": 2**20}, "CNN_proj"),
        ({"char_dim": 2**16}, "char_embed"),
        ({"filters": ((1, 2**20),)}, "W_cnn_0"),
    ],
)
def test_options_for_more_than_the_file_holds(source: Path, changes: dict, dataset: str) -> None:
    """Shapes are compared before anything of that size is allocated."""
    (source / "options.json").write_text(json.dumps(options(**changes)))
    refused([source], str(source / "weights.hdf5"), dataset)


def test_options_for_more_than_any_model_has(source: Path) -> None:
    for changes in ({"n_layers": 2_000_000_000}, {"dim": 2**21}, {"filters": ((1, 2_000_000_000),)}):
        (source / "options.json").write_text(json.dumps(options(**changes)))
        refused([source], str(source / "options.json"), "at most")


@pytest.mark.parametrize(
    ("changes", "dataset"),
    [
        ({"n_layers": 1}, "Cell1"),
        ({"n_highway": 1}, "CNN_high_1"),
        ({"filters": ((1, 4), (2, 5))}, "CNN_high_0"),
        ({"word_level": True}, "'embedding'"),
    ],
)
def test_options_for_less_than_the_file_holds(source: Path, changes: dict, dataset: str) -> None:
    (source / "options.json").write_text(json.dumps(options(**changes)))
    refused([source], str(source / "weights.hdf5"), dataset)
