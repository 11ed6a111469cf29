"""The GPU's benchmark runs on a CPU from end to end, counts clips as one would by hand, and refuses early."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from elmo_hf import ElmoConfig, ElmoModel, ElmoTokenizer
from tests.helpers.paths import BENCHMARKS

NAMES = ["products", "oracle", "training", "softmax", "graphs", "clips"]
SENTENCES = ["Ice cream is cold .", "No", "The bank of the river was covered with flowers ."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights of which many states stand at the clip, and text."""
    torch.manual_seed(0)
    found = tmp_path_factory.mktemp("gpu")
    small = {"lstm_dim": 6, "projection_dim": 4, "char_embedding_dim": 4, "char_filters": [[1, 4], [2, 4]]}
    model = ElmoModel(ElmoConfig(**small, cell_clip=0.3, proj_clip=0.05))
    with torch.no_grad():
        for layer in model.layers:
            layer.projection.mul_(3)
            layer.bias.normal_()
    model.save_pretrained(found / "model")
    (found / "text.txt").write_text("\n".join(SENTENCES))
    return found


@pytest.fixture(scope="module")
def results(folder):
    options = [
        "--device",
        "cpu",
        "--size",
        "tiny",
        "--quick",
        "--rounds",
        "2",
        "--output",
        folder / "out.json",
    ]
    files = ["--weights", folder / "model", "--sentences", folder / "text.txt"]
    command = [sys.executable, "-m", "benchmarks.speed.gpu", *options, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "out.json").read_text())


def times_in(found):
    """Every time in the results, wherever it stands."""
    if isinstance(found, dict):
        if "median" in found:
            yield found
        found = found.values()
    elif not isinstance(found, list):
        return
    for part in found:
        yield from times_in(part)


def test_everything_is_measured(results):
    assert list(results) == ["facts", *NAMES]
    assert torch.__version__.startswith(results["facts"]["versions"]["torch"])  # then perhaps +cu130
    for name in NAMES[:-1]:
        times = list(times_in(results[name]))
        assert times
        assert all(0 < time["min"] <= time["median"] <= time["max"] for time in times)
    assert len(results["products"]) == 7
    assert [row["kernels"] for row in results["training"]] == ["readable", "auto"]
    assert [row["samples"] for row in results["softmax"]] == [1000, 1000, "all"]  # of a small vocabulary
    assert {row["batch"] for row in results["graphs"]} == {1, 8, 32}
    for row in results["graphs"]:
        names = ["readable", "eager"] if row["what"] == "a layer" else ["readable", "auto"]
        assert list(row["us"]) == names  # a graph needs a GPU


def cells_and_outputs(x, weights, cell_clip, proj_clip):
    """An LSTM of one direction over one sentence (words, input), in NumPy."""
    sigmoid = lambda a: 1 / (1 + np.exp(-a))  # noqa: E731
    from_input, from_state, bias, projection = weights
    h, c, found = np.zeros(projection.shape[1]), np.zeros(projection.shape[0]), []
    for word in x:
        i, j, f, o = np.split(word @ from_input + h @ from_state + bias, 4)
        c = np.clip(sigmoid(f + 1) * c + sigmoid(i) * np.tanh(j), -cell_clip, cell_clip)
        h = np.clip((sigmoid(o) * np.tanh(c)) @ projection, -proj_clip, proj_clip)
        found.append((c, h))
    return [np.stack(part) for part in zip(*found, strict=True)]


def test_clips_are_counted_as_by_hand(results, folder):
    model = ElmoModel.from_pretrained(folder / "model").eval()
    cells, outputs = [[], []], [[], []]
    for sentence in SENTENCES:
        encoding = ElmoTokenizer()([sentence.split()], is_split_into_words=True, return_tensors="pt")
        with torch.no_grad():
            layers = model(**encoding, keep_boundaries=True, output_hidden_states=True).hidden_states
        for number, layer in enumerate(model.layers):
            halves = layers[number][0].double().numpy().reshape(-1, 2, 4)
            for direction, x in enumerate((halves[:, 0], halves[::-1, 1])):
                weights = (layer.input_weight, layer.recurrent_weight, layer.bias, layer.projection)
                one = [weight[direction].detach().double().numpy() for weight in weights]
                c, h = cells_and_outputs(x, one, 0.3, 0.05)
                cells[number].append(np.abs(c) >= 0.3)
                outputs[number].append(np.abs(h) >= 0.05)
    for number, found in enumerate(results["clips"]["layers"]):
        c, h = np.concatenate(cells[number]), np.concatenate(outputs[number])
        assert found["words"] == len(c)
        assert 0 < found["share_of_c"] == pytest.approx(c.mean(), abs=0.002)
        assert 0 < found["share_of_h"] == pytest.approx(h.mean(), abs=0.002)


@pytest.fixture
def gpu(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    from benchmarks.speed import gpu

    return gpu


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "this PyTorch finds none"),
        (["--device", "cpu"], "say --output FILE"),
        (["--device", "cpu", "--output", "x", "--rounds", "0"], "--rounds must be at least 1, but is 0"),
        (["--device", "cpu", "--output", "x", "--weights", "nowhere"], "nowhere has none"),
        (["--device", "cpu", "--output", "x", "--sentences", "nowhere"], "nowhere is none"),
        (["--only", "everything"], "invalid choice: 'everything'"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, said, gpu, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as reason:
        gpu.parse_arguments(arguments)
    assert said in f"{reason.value} {capsys.readouterr().err}"


def test_a_step_that_does_not_fit_in_memory_is_noted(gpu):
    def step():
        raise torch.OutOfMemoryError("full")

    options = gpu.parse_arguments(["--device", "cpu", "--output", "x"])
    assert gpu.time_of_training(options, step, 1) == {"failed": "out of memory"}
