"""The benchmark of the exported file runs, and all contestants read the same vectors."""

import json
import sys

import numpy as np
import pytest
import torch

from benchmarks.speed import table

onnxruntime = pytest.importorskip("onnxruntime", reason="the export needs `elmo-hf[export]`")
pytest.importorskip("onnx", reason="the export needs `elmo-hf[export]`")


def test_it_runs_and_all_contestants_read_the_same(tmp_path, monkeypatch, capsys, default_kernels):
    from benchmarks.speed import onnx as benchmark  # imports onnxruntime

    vectors = {}

    def remember(name, read):
        def reading(batch):
            output = read(batch)
            vectors.setdefault(name, []).append(output)
            return output

        return reading

    measure = benchmark.measure
    monkeypatch.setattr(
        benchmark,
        "measure",
        lambda readers, *rest: measure({n: remember(n, r) for n, r in readers.items()}, *rest),
    )
    output = tmp_path / "new" / "export.json"
    monkeypatch.setattr(sys, "argv", ["onnx", "--size", "tiny", "--rounds", "1", "--output", str(output)])
    benchmark.main()
    content = json.loads(output.read_text(encoding="utf-8"))
    assert json.loads(capsys.readouterr().out) == content
    assert table.export_table(content).count("\n") == 8
    names = ["torch-readable", "torch-auto", "torch-int8", "onnx", "onnx-int8"]
    for speeds in content["settings"].values():
        assert list(speeds) == names
        assert speeds["torch-readable"]["ratio"] == 1
        assert all(speed["words_per_second"] > 0 for speed in speeds.values())
    assert list(vectors) == names
    for name in names:
        for output, expected in zip(vectors[name], vectors["torch-readable"], strict=True):
            limit = 0.1 if "int8" in name else 1e-5
            np.testing.assert_allclose(output, expected, atol=limit, rtol=0)
    assert content["exports"]["onnx"]["bytes"] > content["exports"]["onnx-int8"]["bytes"]
    assert content["torch"] == torch.__version__
    assert content["onnxruntime"] == onnxruntime.__version__
