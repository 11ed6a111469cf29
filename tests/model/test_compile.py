"""torch.compile gives the numbers of the model that it compiles, and docs/compile.md says what it does."""

import json
import sys

import pytest
import torch
import torch._dynamo as dynamo

from elmo_hf import ElmoConfig, ElmoForTokenClassification, ElmoModel, ElmoTokenizer, kernels

SMALL = {
    "lstm_dim": 6,
    "projection_dim": 4,
    "char_filters": [[1, 4]],
    "num_highway_layers": 1,
    "vocab_size": 3,
}


@pytest.fixture(autouse=True)
def fresh(default_kernels):
    """Nothing is compiled before a test."""
    torch.manual_seed(0)
    dynamo.reset()
    dynamo.utils.counters.clear()
    yield
    dynamo.reset()


def batch_of(*lengths):
    words = [["word"] * length for length in lengths]
    return dict(ElmoTokenizer()(words, is_split_into_words=True, padding=True, return_tensors="pt"))


def graphs():
    return dynamo.utils.counters["stats"]["unique_graphs"]


def test_vectors_layers_states_and_gradients():
    model, batch = ElmoModel(ElmoConfig(**SMALL)).eval(), batch_of(3, 1)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    results = {}
    for name, call in (("compiled", compiled), ("eager", model)):
        model.zero_grad()
        output = call(**batch, output_hidden_states=True, output_states=True)
        output.last_hidden_state.square().mean().backward()
        gradients = [parameter.grad.clone() for parameter in model.parameters()]
        results[name] = [output.last_hidden_state, *output.hidden_states, *output.states, *gradients]
        if name == "compiled":
            assert kernels.why_not() == "the model is being traced or compiled"
    assert graphs() == 1
    assert any(gradient.abs().max() > 0 for gradient in gradients)
    torch.testing.assert_close(results["compiled"], results["eager"], atol=1e-6, rtol=0)


@dynamo.config.patch(recompile_limit=2)
def test_a_graph_for_each_length_up_to_the_limit():
    model = ElmoModel(ElmoConfig(**SMALL)).eval()
    compiled = torch.compile(model, backend="eager")
    reasons = []
    with torch.no_grad():
        for length in (2, 3, 4):
            batch = batch_of(length, length)
            torch.testing.assert_close(compiled(**batch).last_hidden_state, model(**batch).last_hidden_state)
            compiled(**batch)
            reasons.append(kernels.why_not())
    assert graphs() == 2
    # Beyond the limit, the package's fast code reads.
    assert reasons == ["the model is being traced or compiled"] * 2 + [""]


def test_a_task_model_compiles_in_pieces():
    config = ElmoConfig(**SMALL, task_hidden_size=3, task_num_layers=1, num_labels=3, use_crf=False)
    model, batch = ElmoForTokenClassification(config).eval(), batch_of(3, 2)
    with torch.no_grad():
        expected = model(**batch).logits
        torch.testing.assert_close(torch.compile(model, backend="eager")(**batch).logits, expected)
        dynamo.reset()
        with pytest.raises(dynamo.exc.Unsupported, match="LSTM"):
            torch.compile(model, backend="eager", fullgraph=True)(**batch)


def test_the_benchmark_runs(tmp_path, monkeypatch, capsys):
    from benchmarks import comparison
    from benchmarks.speed import compiled

    ElmoModel(ElmoConfig(**SMALL)).save_pretrained(tmp_path / "model")
    monkeypatch.setattr(compiled, "SHAPES", {"a sentence": (1, 3)})
    monkeypatch.setattr(compiled, "LENGTHS", (2, 3))
    monkeypatch.setattr(compiled, "BATCHES", (2,))
    for name in ("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "TORCHINDUCTOR_COMPILE_THREADS"):
        monkeypatch.setenv(name, "1")  # the benchmark sets them
    output = tmp_path / "compile.json"
    flags = [
        "--model",
        str(tmp_path / "model"),
        "--backend",
        "eager",
        "--rounds",
        "2",
        "--output",
        str(output),
    ]
    monkeypatch.setattr(sys, "argv", ["compiled", *flags])
    compiled.main()
    content = json.loads(output.read_text(encoding="utf-8"))
    assert json.loads(capsys.readouterr().out) == content
    assert content["graphs"]["lengths"] == {"2": 1, "3": 2}
    assert content["whole_graphs"] == {"ElmoModel": True, "ElmoForTokenClassification": False}
    (shape,) = content["shapes"].values()
    assert shape["difference"] < 1e-6
    assert list(shape["milliseconds"]) == list(shape["ratio"]) == ["readable", "auto", "compiled"]
    assert shape["ratio"]["readable"] == 1
    monkeypatch.setattr(comparison, "RESULTS", tmp_path)
    assert "| a sentence |" in comparison.compiling()
    assert "| graphs so far | 1 | 2 |" in comparison.graphs()
