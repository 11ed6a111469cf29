"""Folders saved by version 0.1.0 carry code that calls the kernels of whatever version is installed."""

from pathlib import Path

import pytest
import torch

from elmo_hf import ElmoConfig, ElmoTokenizer, kernels
from elmo_hf.files import sha256
from elmo_hf.kernels import characters, plain, reading, training
from tests.helpers import saved_by_0_1_0
from tests.helpers.small_elmo import TEXTS

pytestmark = pytest.mark.usefixtures("default_kernels")


@pytest.fixture
def is_released(monkeypatch):
    """The stand-in for the code of 0.1.0 is known as such."""
    path = Path(saved_by_0_1_0.__file__)
    monkeypatch.setattr(plain, "RELEASED", {"0.1.0": sha256(path)})
    forget_files_and_classes()
    yield
    forget_files_and_classes()


def forget_files_and_classes():
    plain._is_known_content.cache_clear()
    plain._known.clear()


@pytest.fixture
def char_ids():
    return ElmoTokenizer()(TEXTS, padding=True, return_tensors="pt")["char_ids"]


@pytest.fixture
def calls(monkeypatch):
    """The names of the replacements in the order of their calls."""
    names = []

    def record(module, function, name):
        original = getattr(module, function)
        monkeypatch.setattr(module, function, lambda *a, **k: names.append(name) or original(*a, **k))

    record(characters, "encode", "characters")
    record(reading, "lstm", "reading")
    record(training, "lstm", "training")
    return names


def make_model(**options):
    torch.manual_seed(0)
    config = {"lstm_dim": 12, "projection_dim": 8, "char_embedding_dim": 4, "char_filters": [[1, 4], [5, 6]]}
    return saved_by_0_1_0.Model(ElmoConfig(**(config | options))).eval()


OPTIONS = pytest.mark.parametrize("options", [{}, {"projection_dim": 12}, {"char_activation": "tanh"}])


@OPTIONS
@pytest.mark.usefixtures("is_released")
def test_reading(options, char_ids, calls, monkeypatch):
    model = make_model(**options)
    with torch.no_grad():
        actual = [model(char_ids) for _ in range(2)]
        # The constant is computed in the first call, and needs no LSTM in the second.
        assert calls == ["characters", "reading", "reading", "characters", "reading"]
        kernels.use("readable")
        actual.append(model(char_ids))
        assert len(calls) == 5
        monkeypatch.setattr(saved_by_0_1_0, "kernels", None)
        expected = model(char_ids)
    for outputs in actual:
        torch.testing.assert_close(outputs, expected, atol=1e-5, rtol=1e-5)


@OPTIONS
@pytest.mark.usefixtures("is_released")
def test_gradients(options, char_ids, calls, monkeypatch):
    model = make_model(**options)
    model(char_ids).square().sum().backward()
    assert calls == ["characters", "training", "training"]
    actual = {name: parameter.grad for name, parameter in model.named_parameters()}
    monkeypatch.setattr(saved_by_0_1_0, "kernels", None)
    model.zero_grad()
    model(char_ids).square().sum().backward()
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_an_edited_copy_is_not_replaced(char_ids, calls):
    """Whoever changes the definition in a copy of the code gets what the copy says."""
    model = make_model()
    with torch.no_grad():
        model(char_ids)
    assert "characters" not in calls
    assert "CharacterEncoder) is of a class that the kernels do not know" in kernels.why_not()
