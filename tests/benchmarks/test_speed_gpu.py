"""The GPU's benchmark runs on a CPU from end to end, and refuses mistakes before it measures."""

import json
import subprocess
import sys

import pytest
import torch

from benchmarks.speed import gpu

TIMED = ["products", "oracle", "training", "softmax", "graphs", "updates"]
NAMES = [*TIMED, "pretraining", "embed"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    (folder / "text.txt").write_text("Ice cream is cold .\nThe bank of the river was covered with flowers .")
    options = f"--device cpu --size tiny --quick --rounds 2 --sentences {folder}/text.txt"
    command = [
        sys.executable,
        "-m",
        "benchmarks.speed.gpu",
        *options.split(),
        "--output",
        folder / "out.json",
    ]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return json.loads((folder / "out.json").read_text())


def times_in(content):
    """Every time in the results, at any depth."""
    if isinstance(content, dict):
        if "median" in content:
            yield content
        content = content.values()
    elif not isinstance(content, list):
        return
    for nested in content:
        yield from times_in(nested)


def test_everything_is_measured(results):
    assert list(results) == ["facts", *NAMES]
    assert torch.__version__.startswith(results["facts"]["versions"]["torch"])  # then perhaps +cu130
    for name in TIMED:
        times = list(times_in(results[name]))
        assert times
        assert all(0 < time["min"] <= time["median"] <= time["max"] for time in times)
    for name in ("pretraining", "embed"):
        [row] = results[name]
        assert row["words_per_second"] > 0
        assert 0 <= row["waited"] <= 1
    assert results["updates"][0]["why_no_graph"] == "there is no GPU"
    assert list(results["oracle"][0]["us"]) == ["oracle", "ours"]
    assert len(results["products"]) == 7
    assert [row["kernels"] for row in results["training"]] == ["readable", "auto"]
    assert [row["samples"] for row in results["softmax"]] == [1000, 1000, "all"]  # of a small vocabulary
    assert {row["batch"] for row in results["graphs"]} == {1, 8, 32}
    for row in results["graphs"]:
        names = ["readable", "eager"] if row["what"] == "a layer" else ["readable", "auto"]
        assert list(row["us"]) == names  # a graph needs a GPU


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "PyTorch finds none"),
        (["--device", "cpu"], "name a file with --output FILE"),
        (["--device", "cpu", "--output", "x", "--rounds", "0"], "--rounds must be at least 1, but is 0"),
        (["--device", "cpu", "--output", "x", "--sentences", "nowhere"], "nowhere is not a file"),
        (["--only", "training"], "for a part of the measurements name a file with --output FILE"),
        (["--quick"], "for a part of the measurements name a file with --output FILE"),
        (["--only", "everything"], "invalid choice: 'everything'"),
    ],
)
def test_unmeasurable_settings_are_refused(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "part" in message)
    with pytest.raises(SystemExit) as error:
        gpu.parse_arguments(arguments)
    assert message in f"{error.value} {capsys.readouterr().err}"


def test_a_step_that_does_not_fit_in_memory_is_noted():
    def step():
        raise torch.OutOfMemoryError("full")

    options = gpu.parse_arguments(["--device", "cpu", "--output", "x"])
    assert gpu.time_of_training(options, step, 1) == {"failed": "out of memory"}
