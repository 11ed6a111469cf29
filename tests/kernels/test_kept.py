"""Tensors computed from weights are cached, and computed again after a change of the weights."""

from functools import partial

import pytest
import torch

from elmo_hf import ElmoConfig, ElmoModel, ElmoTokenizer, kernels
from elmo_hf.kernels import kept
from tests.helpers.small_elmo import read_texts, small_model

pytestmark = pytest.mark.usefixtures("default_kernels")


def test_changed_weights_are_prepared_again():
    model, other_model = small_model(), small_model()
    read_texts(model)
    with torch.no_grad():
        for parameter, target in zip(model.parameters(), other_model.parameters(), strict=True):
            parameter.mul_(0.5)
            target.mul_(0.5)
    expected = read_texts(other_model).hidden_states
    torch.testing.assert_close(read_texts(model).hidden_states, expected, atol=1e-6, rtol=0)
    model.layers[0].projection.data = torch.zeros_like(model.layers[0].projection)
    assert (read_texts(model).hidden_states[1] == 0).all()


def test_parameters_of_inference_mode():
    with torch.inference_mode():
        model = small_model()
        assert model.layers[0].bias.is_inference()
        read_texts(model)
    assert kernels.why_not() == ""


def tiny_model_and_batch():
    torch.manual_seed(0)
    config = ElmoConfig(lstm_dim=16, projection_dim=8, char_filters=[[1, 4], [2, 8]], num_highway_layers=1)
    batch = ElmoTokenizer()(["He sat .", "Why ?"], padding=True, return_tensors="pt")
    return ElmoModel(config).eval(), batch


@torch.no_grad()
def assert_reads_as_a_fresh_model(model, batch):
    fresh = ElmoModel(model.config).eval()
    fresh.load_state_dict(model.state_dict())
    actual, expected = (m(**batch).last_hidden_state for m in (model, fresh))
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=0)
    return actual


@pytest.mark.parametrize(
    "optimizer",
    [
        partial(torch.optim.AdamW, fused=True),  # does not count its changes; the default of Trainer
        partial(torch.optim.SGD, fused=True),
        partial(torch.optim.AdamW, foreach=True),
        torch.optim.Adagrad,
    ],
)
def test_changes_by_an_optimizer(optimizer):
    model, batch = tiny_model_and_batch()
    steps = optimizer(model.parameters(), lr=0.1)
    for _ in range(3):
        with torch.no_grad():
            model(**batch)  # lays the weights out
        model(**batch).last_hidden_state.square().sum().backward()
        steps.step()
        steps.zero_grad()
        assert_reads_as_a_fresh_model(model, batch)


def test_changes_through_data():
    """Averages of weights are often written so; PyTorch does not count it as a change."""
    model, batch = tiny_model_and_batch()
    for weight in model.parameters():
        with torch.no_grad():
            before = model(**batch).last_hidden_state
        weight.data.mul_(1.5).add_(0.1)
        assert not torch.equal(assert_reads_as_a_fresh_model(model, batch), before)


def test_frozen_weights_stay_prepared_while_others_learn():
    weight, trained = (
        torch.nn.Parameter(torch.ones(2), requires_grad=False),
        torch.nn.Parameter(torch.ones(2)),
    )
    calls = []
    steps = torch.optim.SGD([trained], lr=0.1)
    for _ in range(3):
        kept.keep(weight, [weight], None, lambda: calls.append(1))
        trained.grad = torch.ones(2)
        steps.step()
    assert calls == [1]


def test_weights_that_changed_between_two_times_of_being_frozen():
    weight, calls = torch.nn.Parameter(torch.ones(2), requires_grad=False), []
    steps = torch.optim.AdamW([weight], lr=0.1, fused=True)
    for count in (1, 2):
        kept.keep(weight, [weight], None, lambda: calls.append(1))
        assert len(calls) == count
        weight.requires_grad_(True)
        weight.grad = torch.ones(2)
        steps.step()
        weight.requires_grad_(False)
