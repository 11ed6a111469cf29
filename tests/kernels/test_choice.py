"""The choice of kernels for whole models, their numbers compared with the readable code, and `why_not`."""

import os
import subprocess
import sys

import pytest
import torch

from elmo_hf import kernels
from tests.helpers.small_elmo import encoded_texts, read_texts, small_model

pytestmark = pytest.mark.usefixtures("default_kernels")


@pytest.mark.parametrize("output_states", [True, False])
@pytest.mark.parametrize("options", [{}, {"projection_dim": 12, "num_hidden_layers": 3}, {"cell_clip": None}])
def test_reading(options, output_states):
    model = small_model(**options)
    actual = read_texts(model, output_states=output_states)
    assert kernels.why_not() == ""
    kernels.use("readable")
    expected = read_texts(model, output_states=output_states)
    assert kernels.why_not() == "the readable code was asked for"
    torch.testing.assert_close(actual.to_tuple(), expected.to_tuple(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"projection_dim": 12}, {"num_hidden_layers": 3, "cell_clip": 0.2}])
def test_gradients(options):
    gradients = []
    for choice in ("readable", "auto"):
        kernels.use(choice)
        model = small_model(**options)
        output = model(**encoded_texts(), output_hidden_states=True, output_states=True)
        (sum(layer.square().sum() for layer in output.hidden_states) + output.states[1].sum()).backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert kernels.why_not() == ""
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-5, rtol=1e-5)


def test_transforms_of_torch_func_get_the_readable_code():
    model = small_model()

    def loss(weights):
        output = torch.func.functional_call(model, weights, kwargs=dict(encoded_texts()))
        return output.last_hidden_state.square().sum()

    actual = torch.func.grad(loss)(dict(model.named_parameters()))
    assert kernels.why_not() == "a transform of torch.func is active"
    loss(dict(model.named_parameters())).backward()
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("precision", "limit"), [("bf16", 0.03), ("int8", 0.08)])
@pytest.mark.parametrize("few_words", [True, False])
def test_reduced_precision_is_close_and_not_exact(precision, limit, few_words, monkeypatch):
    monkeypatch.setattr(kernels.characters, "MIN_BF16_WORDS", 1000 if few_words else 1)
    model = small_model(lstm_dim=64, projection_dim=16)
    exact = read_texts(model).hidden_states
    kernels.use(precision)
    rounded = read_texts(model).hidden_states
    start = 0 if precision == "bf16" and not few_words else 1
    assert torch.equal(rounded[0], exact[0]) == bool(start)  # then the characters are exact
    for layer, reference in zip(rounded[start:], exact[start:], strict=True):
        error = ((layer - reference).square().mean() / reference.square().mean()).sqrt()
        assert 0 < error < limit


def test_why_not():
    model, encoding = small_model(), encoded_texts()
    model(**encoding)
    assert kernels.why_not() == ""
    with torch.no_grad():
        model.double()(**encoding)
        assert kernels.why_not() == "the tensors are not float32"
        model.float()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            model(**encoding)
        assert kernels.why_not() == "autocast is on"
        model(**encoding)
    assert kernels.why_not() == ""


def test_an_unknown_choice_is_refused():
    with pytest.raises(ValueError, match=r"one of auto, readable, bf16, int8, but 'fast'"):
        kernels.use("fast")
    assert kernels.chosen() == "auto"


def test_the_environment_chooses():
    program = "from elmo_hf import kernels; print(kernels.chosen())"
    environment = os.environ | {"ELMO_HF_KERNELS": "readable"}
    result = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert result.stdout.strip() == "readable"
