"""A whole run of the probes: its output, its seed and its errors."""

import itertools
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from elmo_hf import ElmoConfig, ElmoModel
from tests.helpers.probing_naive import SHAPE, refused, save_model

pytest_plugins = ["tests.helpers.probing_fixtures"]

# ---- all of it


def start(probes, texts, model, output, *more):
    arguments = ["--model", model, "--data", texts.folder, "--output", output, *more]
    probes.main.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def run(probes, texts, model_folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "results" / "probes-some.json"
    start(probes, texts, model_folder, output)
    return output


def test_a_run(probes, run, texts):
    assert sorted(path.name for path in run.parent.iterdir()) == [
        *("probes-some-layers.png", "probes-some-map.png", "probes-some.json", "probes-some.md")
    ]
    result = json.loads(run.read_text())
    assert list(result["probes"]) == list(result["seconds"]) == ["senses", "tags", "neighbours", "layers"]
    assert result["model"].endswith("/some-elmo")
    assert result["shape"]["lstm_dim"] == 24
    assert result["command"].startswith("python -m benchmarks.probing --model ")
    assert result["versions"]["torch"] == torch.__version__
    for name in ("date", "machine", "seed", "peak_memory_mb"):
        assert name in result
    for layer in range(3):
        for model in ("trained", "random weights"):
            assert f"{model}, layer {layer}" in result["probes"]["senses"]["f1"]
            assert f"{model}, layer {layer}" in result["probes"]["tags"]["accuracy"]["upos"]
    words = sum(len(sentence) for sentence in texts.treebank["dev"])
    assert result["probes"]["tags"]["counts"]["words"]["dev"] == words
    assert np.array(result["probes"]["layers"]["likeness"]["cka"]).diagonal().tolist() == [1] * 6
    for path in run.parent.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
    text = run.with_suffix(".md").read_text()
    assert "| trained, layer 2 |" in text
    assert "](probes-some-map.png)" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    for line, following in itertools.pairwise(lines):
        if following.startswith("| ---"):
            assert line.count("|") == following.count("|")


def test_the_seed_gives_every_figure(probes, run, texts, model_folder, tmp_path):
    def figures(path):
        return json.loads(path.read_text())["probes"]

    start(probes, texts, model_folder, tmp_path / "again.json")
    assert figures(tmp_path / "again.json") == figures(run)
    start(probes, texts, model_folder, tmp_path / "other.json", "--seed", "1", "--probes", "layers")
    first, other = (figures(path)["layers"]["map"] for path in (run, tmp_path / "other.json"))
    for panel, other_panel in zip(first["panels"], other["panels"], strict=True):
        assert (panel == other_panel) == panel["name"].startswith("trained")


def test_the_control_is_a_fresh_model_of_that_seed(probes, texts, tmp_path):
    folder = save_model(tmp_path / "fresh", seed=7)
    start(
        probes, texts, folder, tmp_path / "f.json", "--seed", "7", "--probes", "senses", "tags", "--word", "x"
    )
    result = json.loads((tmp_path / "f.json").read_text())["probes"]
    for scores in (result["senses"]["f1"], *result["tags"]["accuracy"].values()):
        for layer in range(3):
            assert scores[f"trained, layer {layer}"] == scores[f"random weights, layer {layer}"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.json", "f.md", "fresh"]


def test_mistakes_are_reported_before_anything_is_written(probes, texts, model_folder, tmp_path, capsys):
    output = tmp_path / "out" / "x.json"

    def message(*more, model=model_folder, data=texts):
        with pytest.raises(SystemExit, match="1"):
            start(probes, data, model, output, *more)
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert not output.parent.exists()
        return error

    assert "there is no such folder" in message(model=tmp_path / "nothing")
    assert "there is no folder" in message(data=SimpleNamespace(folder=tmp_path / "nothing"))
    assert "there is no file" in message(data=SimpleNamespace(folder=tmp_path))
    assert "should end in .json" in message("--output", str(output.with_suffix(".txt")))
    assert "--seed must be 0 or more" in message("--seed", "-1")
    assert "no two senses of 'zebra'" in message("--word", "zebra", "--probes", "layers")


def test_models_without_vectors(probes, tmp_path):
    load = probes.vectors.load_reader
    bare = save_model(tmp_path / "bare", seed=0)
    (bare / "model.safetensors").unlink()
    assert "no ELMo can be loaded" in refused(load, bare)
    cut = save_model(tmp_path / "cut", seed=0)
    content = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(content[: len(content) // 2])
    assert "are damaged" in refused(load, cut)
    smaller = save_model(tmp_path / "smaller", seed=0, num_hidden_layers=1)
    save_model(tmp_path / "whole", seed=0)
    (tmp_path / "whole" / "config.json").replace(smaller / "config.json")
    assert "lacks" in refused(load, smaller)
    wide = save_model(tmp_path / "wide", seed=0)
    config = json.loads((wide / "config.json").read_text())
    (wide / "config.json").write_text(json.dumps(config | {"lstm_dim": 30}))
    assert "not of the shape" in refused(load, wide)
    (wide / "config.json").write_text("{")
    assert "no ELMo can be loaded" in refused(load, wide)
    flat = save_model(tmp_path / "flat", seed=0)
    torch.manual_seed(0)
    ElmoModel(ElmoConfig(**SHAPE | {"lstm_dim": 6})).save_pretrained(flat)
    assert "layers of one width" in refused(load, flat)
    broken = probes.vectors.load_reader(save_model(tmp_path / "broken", seed=0))
    nn.init.constant_(broken.model.layers[0].bias, math.nan)
    assert "not finite" in refused(broken.vectors, [["a", "b"]], "")


def test_results_of_the_probes_are_no_speeds(probes, run, tmp_path):
    from benchmarks.speed import table

    (tmp_path / "probes-some.json").write_bytes(run.read_bytes())
    assert table.read_results(tmp_path) == []
