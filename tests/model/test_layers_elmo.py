"""The scalar mix: weights, gamma, penalty, several mixes. Its numbers: test_against_reference.py."""

import pytest
import torch

from elmo_hf import ElmoScalarMix

LAYERS = [torch.full((2, 3, 4), value) for value in (1.0, 2.0, 6.0)]


def test_a_new_mix_is_the_average_and_gamma_scales_it():
    mix = ElmoScalarMix(3)
    torch.testing.assert_close(mix(LAYERS), torch.full((2, 3, 4), 3.0))
    with torch.no_grad():
        mix.gamma.fill_(0.5)
        mix.weights.copy_(torch.tensor([[-1e9, 0.0, -1e9]]))
    torch.testing.assert_close(mix(LAYERS), torch.full((2, 3, 4), 1.0))


def test_several_mixes_are_independent():
    mix = ElmoScalarMix(3, num_mixes=2, initial_weights=[0.0, 0.0, 50.0])
    with torch.no_grad():
        mix.gamma[1] = 2.0
    first, second = mix(LAYERS)
    torch.testing.assert_close(first, LAYERS[2])
    torch.testing.assert_close(second, 2 * LAYERS[2])


def test_the_penalty_is_on_the_raw_weights_and_pulls_to_the_average():
    mix = ElmoScalarMix(3, initial_weights=[1.0, -2.0, 3.0], l2=0.1)
    assert mix.penalty().item() == pytest.approx(0.1 * 14)
    for strength, weights_may_differ in ((1e-6, True), (50.0, False)):
        mix = ElmoScalarMix(3, l2=strength)
        optimizer = torch.optim.SGD(mix.parameters(), lr=0.005)
        for _ in range(500):
            optimizer.zero_grad()
            ((mix(LAYERS) - 6.0) ** 2).mean().add(mix.penalty()).backward()
            mix.gamma.grad = None
            optimizer.step()
        spread = mix.weights.max() - mix.weights.min()
        assert (spread > 1).item() == weights_may_differ
        assert (spread < 0.2).item() != weights_may_differ


def test_a_frozen_mix_has_nothing_to_train():
    assert not any(parameter.requires_grad for parameter in ElmoScalarMix(3, trainable=False).parameters())
    assert all(parameter.requires_grad for parameter in ElmoScalarMix(3).parameters())


def test_dropout_follows_the_mix_in_training_only():
    mix = ElmoScalarMix(3, dropout=0.5)
    assert (mix(LAYERS) == 0).any()
    assert (mix.eval()(LAYERS) != 0).all()


def test_layer_norm_ignores_padding_and_survives_a_batch_of_nothing_else():
    torch.manual_seed(0)
    mix = ElmoScalarMix(1, layer_norm=True)
    layer, mask = torch.randn(2, 3, 4), torch.tensor([[1, 1, 0], [1, 0, 0]])
    normal = mix([layer], mask)
    words = normal[mask.bool()]
    assert words.mean().item() == pytest.approx(0, abs=1e-6)
    assert words.var(unbiased=False).item() == pytest.approx(1, abs=1e-5)
    assert (normal[~mask.bool()] == 0).all()
    torch.testing.assert_close(mix([layer + 100 * (1 - mask[:, :, None])], mask), normal)
    assert (mix([layer], torch.zeros(2, 3)) == 0).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ElmoScalarMix(0), "at least one layer"),
        (lambda: ElmoScalarMix(3, num_mixes=0), "one mix"),
        (lambda: ElmoScalarMix(3, initial_weights=[1.0]), "must hold 3 numbers"),
        (lambda: ElmoScalarMix(2)(LAYERS), "made for 2 layers, but got 3"),
        (lambda: ElmoScalarMix(2)([LAYERS[0], LAYERS[1][:1]]), "layers of one shape"),
    ],
)
def test_mistakes_are_refused_in_one_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()
