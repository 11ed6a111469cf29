"""The sampler and the losses against plain loops in float64 and results of TensorFlow 2.21."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elmo_hf import ElmoConfig, ElmoForPreTraining
from elmo_hf.kernels import softmax
from elmo_hf.pretraining import sampling
from elmo_hf.pretraining.sampling import (
    Samples,
    draw_samples,
    full_loss,
    log_expected_count,
    log_sum_exp,
    log_uniform_sample,
    sampled_loss,
    select_rows,
)

# ---- samples


def one_by_one(number, vocab_size, generator):
    """The sampler as in TensorFlow's C++: a set, and one draw at a time."""
    ids, draws = set(), 0
    while len(ids) < number:
        ids.add(int(math.exp(generator.random() * math.log(vocab_size + 1))) - 1)
        draws += 1
    return sorted(ids), draws


@pytest.mark.parametrize(
    ("number", "vocab_size"), [(1, 1), (1, 9), (7, 7), (50, 50), (20, 1000), (700, 793_471), (900, 1000)]
)
def test_bulk_draws_are_the_draws_one_by_one(number, vocab_size):
    for seed in range(5):
        ids, draws = log_uniform_sample(number, vocab_size, np.random.default_rng(seed))
        expected, expected_draws = one_by_one(number, vocab_size, np.random.default_rng(seed))
        assert ids.tolist() == expected
        assert ids.dtype == np.int64
        assert draws == expected_draws


def probabilities(vocab_size):
    ranks = np.arange(vocab_size)
    return (np.log(ranks + 2) - np.log(ranks + 1)) / np.log(vocab_size + 1)


def chances_of_pairs(chances):
    """The probability of each pair to be the first two different words."""
    results = {}
    for first, p in enumerate(chances):
        for second, q in enumerate(chances):
            if first != second:
                pair = (min(first, second), max(first, second))
                results[pair] = results.get(pair, 0) + p * q / (1 - p)
    return results


def chi_square(counts, chances):
    total = sum(counts.values())
    return sum((counts.get(pair, 0) - total * p) ** 2 / (total * p) for pair, p in chances.items())


# 15 pairs of 6 words have 14 degrees of freedom; a larger statistic has a probability of 1e-6.
CRITICAL_VALUE = 54.7


def test_frequencies_of_pairs():
    counts = {}
    for seed in range(10_000):
        ids, _ = log_uniform_sample(2, 6, np.random.default_rng([7, seed]))
        counts[tuple(ids.tolist())] = counts.get(tuple(ids.tolist()), 0) + 1
    assert chi_square(counts, chances_of_pairs(probabilities(6))) < CRITICAL_VALUE
    uniform, one_off = np.full(6, 1 / 6), np.log(np.arange(3, 9) / np.arange(2, 8)) / np.log(4)
    for wrong in (uniform, one_off):
        assert chi_square(counts, chances_of_pairs(wrong)) > CRITICAL_VALUE


def test_frequencies_of_words_are_the_expected_counts():
    """TensorFlow's formula ignores that the number of draws is random, so it is off by some percent."""
    vocab_size, drawn, expected = 500, np.zeros(500), np.zeros(500)
    for seed in range(2_000):
        ids, draws = log_uniform_sample(60, vocab_size, np.random.default_rng([8, seed]))
        drawn[ids] += 1
        expected += (
            log_expected_count(torch.arange(vocab_size), torch.tensor(draws), vocab_size).exp().numpy()
        )
    assert expected.sum() == pytest.approx(drawn.sum(), rel=0.01)
    for bucket in (slice(0, 5), slice(5, 30), slice(30, 150), slice(150, 500)):
        assert expected[bucket].sum() == pytest.approx(drawn[bucket].sum(), rel=0.02)


def test_expected_counts_of_a_large_vocabulary():
    ids = [0, 1, 1000, 793_470]
    expected = [
        math.log(-math.expm1(16_100 * math.log1p(-math.log1p(1 / (k + 1)) / math.log(793_472)))) for k in ids
    ]
    results = log_expected_count(torch.tensor(ids), torch.tensor(16_100), 793_471)
    torch.testing.assert_close(results, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


def test_the_seed_decides_the_words():
    samples = draw_samples(50, 1000, (1, 2, 3))
    assert samples.ids.shape == (2, 50)
    assert samples.draws.shape == (2, 1)
    assert not samples.ids[0].equal(samples.ids[1])
    assert samples.ids.equal(draw_samples(50, 1000, (1, 2, 3)).ids)
    for other in ((0, 2, 3), (1, 3, 3), (1, 2, 4)):
        assert not (draw_samples(50, 1000, other).ids == samples.ids).all(1).any()


@pytest.mark.parametrize("number", [0, 11])
def test_impossible_numbers_of_words(number):
    with pytest.raises(ValueError, match=f"{number} different words cannot be drawn from 10"):
        draw_samples(number, 10, (1,))


# ---- the sampled loss


def reference(hidden, weight, bias, targets, samples, draws):
    """Losses, and the gradients of their sum, by loops over groups and positions, in float64."""
    chances = probabilities(len(weight))
    d_hidden, d_weight, d_bias = np.zeros_like(hidden), np.zeros_like(weight), np.zeros_like(bias)
    losses = np.zeros(targets.shape)
    for g, t in np.ndindex(*targets.shape):
        true = targets[g, t]
        words = [true, *(k for k in samples[g] if k != true)]
        logits = weight[words] @ hidden[g, t] + bias[words]
        logits = logits - np.log(1 - (1 - chances[words]) ** draws[g])
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        losses[g, t] = -np.log(shares[0])
        shares[0] -= 1
        d_hidden[g, t] = shares @ weight[words]
        d_weight[words] += np.outer(shares, hidden[g, t])
        d_bias[words] += shares
    return losses, d_hidden, d_weight, d_bias


def run_sampled_loss(hidden, weight, bias, targets, samples, upstream=None):
    """The same from `sampled_loss`, with the gradients of its rows scattered into the whole table."""
    selected = select_rows(targets, samples)
    hidden = hidden.clone().requires_grad_()
    rows, row_bias = weight[selected.ids].requires_grad_(), bias[selected.ids].requires_grad_()
    losses = sampled_loss(hidden, rows, row_bias, selected)
    losses.backward(torch.ones_like(losses) if upstream is None else upstream)
    d_weight, d_bias = torch.zeros_like(weight), torch.zeros_like(bias)
    d_weight[selected.ids], d_bias[selected.ids] = rows.grad, row_bias.grad
    return losses.detach(), hidden.grad, d_weight, d_bias


def assert_same(results, expected, tolerance):
    for result, other in zip(results, expected, strict=True):
        other = torch.as_tensor(other, dtype=torch.float64)
        torch.testing.assert_close(result.double(), other, rtol=tolerance, atol=tolerance)


@settings(deadline=None, max_examples=60)
@given(
    groups=st.integers(1, 3),
    positions=st.integers(0, 7),
    dim=st.integers(1, 5),
    number=st.integers(1, 20),
    more=st.integers(0, 30),
    seed=st.integers(0, 2**16),
    dtype=st.sampled_from([torch.float64, torch.float32]),
    logits_at_once=st.sampled_from([1, 2**20]),
    keeps=st.booleans(),
)
def test_the_sampled_loss_equals_the_loops(
    groups, positions, dim, number, more, seed, dtype, logits_at_once, keeps
):
    vocab_size, generator = number + more, torch.Generator().manual_seed(seed)
    hidden = torch.randn(groups, positions, dim, generator=generator, dtype=dtype)
    weight = torch.randn(vocab_size, dim, generator=generator, dtype=dtype)
    bias = torch.randn(vocab_size, generator=generator, dtype=dtype)
    targets = torch.randint(0, vocab_size, (groups, positions), generator=generator)
    samples = draw_samples(number, vocab_size, (seed,), groups)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "LOGITS_ON_CPU", logits_at_once)
        patch.setattr(sampling, "MIN_COLUMNS", 3)
        patch.setattr(softmax, "BLOCK_LOGITS", logits_at_once)
        patch.setattr(softmax, "MAX_KEPT", 2**29 if keeps else -1)
        results = run_sampled_loss(hidden, weight, bias, targets, samples)
    arrays = [tensor.numpy().astype(np.float64) for tensor in (hidden, weight, bias)]
    expected = reference(*arrays, targets.numpy(), samples.ids.numpy(), samples.draws[:, 0].numpy())
    assert_same(results, expected, 2e-6 if dtype == torch.float64 else 1e-4)
    assert results[0].dtype == dtype


def test_each_loss_has_its_own_gradient():
    """The gradient of a weighted sum is the weighted sum of the gradients of each position's loss."""
    generator = torch.Generator().manual_seed(1)
    hidden, weight = torch.randn(2, 4, 3, generator=generator), torch.randn(9, 3, generator=generator)
    bias, upstream = torch.randn(9, generator=generator), torch.randn(2, 4, generator=generator)
    targets, samples = torch.tensor([[0, 8, 3, 3], [1, 0, 7, 2]]), draw_samples(5, 9, (4,))
    whole = run_sampled_loss(hidden, weight, bias, targets, samples, upstream)
    summed = [torch.zeros_like(gradient) for gradient in whole[1:]]
    for position in np.ndindex(2, 4):
        single = torch.zeros(2, 4)
        single[position] = 1.0
        gradients = run_sampled_loss(hidden, weight, bias, targets, samples, single)[1:]
        summed = [
            total + upstream[position] * gradient for total, gradient in zip(summed, gradients, strict=True)
        ]
    assert_same(whole[1:], summed, 1e-5)


def wave(function, *shape, start=0):
    return torch.tensor(
        function(np.arange(start, start + np.prod(shape))).reshape(shape), dtype=torch.float32
    )


# Results of tf.nn.sampled_softmax_loss with 12 words, 6 samples and the candidates of
# log_uniform_candidate_sampler, unique=True, seed=1 and seed=3; hidden, weight, bias and labels are those of
# the test below. Words 0, 1 and 3 are among the labels and the samples. The expected counts follow from 8 and
# 12 draws.
TENSORFLOW = {
    "samples": [[0, 1, 2, 4, 5, 9], [0, 1, 3, 4, 5, 7]],
    "draws": [8, 12],
    "target_counts": [
        [0.9195642471313477, 0.5171895623207092, 0.22402048110961914, 0.5171895623207092, 0.7475531697273254],
        [0.97718745470047, 0.6645212769508362, 0.31644195318222046, 0.6645212769508362, 0.8731603622436523],
    ],
    "losses": [
        [1.3113216161727905, 1.8321521282196045, 2.9986300468444824, 1.971944808959961, 2.8830225467681885],
        [0.8066884279251099, 2.0958056449890137, 2.801680088043213, 2.221611738204956, 2.5259556770324707],
    ],
    "first_hidden_gradients": [
        [-0.19631487131118774, 0.06468981504440308, 0.26621899008750916],
        [-0.32919612526893616, -0.07388615608215332, 0.24935436248779297],
    ],
    "row_3_gradients": [
        [1.1039631366729736, 1.666236162185669, 0.6965793371200562],
        [1.1914387941360474, 1.8021444082260132, 0.7559669017791748],
    ],
    "bias_gradients": [
        [
            -0.2595145,
            -0.5132990,
            1.0173193,
            -1.7007453,
            0.9674417,
            0.6501783,
            0,
            0,
            0,
            0.7887642,
            0,
            -0.9501447,
        ],
        [0.1758204, -0.5180701, 0, -1.6968565, 1.2493145, 0.5231585, 0, 1.2059250, 0, 0, 0, -0.9392920],
    ],
}


def test_the_sampled_loss_equals_tensorflows():
    hidden, weight = wave(np.sin, 5, 3, start=1), wave(np.cos, 12, 3)
    bias, targets = wave(np.sin, 12, start=1) / 2, torch.tensor([0, 3, 11, 3, 1])
    samples = Samples(torch.tensor(TENSORFLOW["samples"]), torch.tensor(TENSORFLOW["draws"])[:, None], 12)
    both = hidden.expand(2, 5, 3), weight, bias, targets.expand(2, 5), samples
    counts = select_rows(targets.expand(2, 5), samples).target_correction.exp()
    torch.testing.assert_close(counts, torch.tensor(TENSORFLOW["target_counts"]), rtol=2e-6, atol=0)
    losses, d_hidden, d_weight, d_bias = run_sampled_loss(*both)
    assert_same([losses, d_hidden[:, 0]], [TENSORFLOW["losses"], TENSORFLOW["first_hidden_gradients"]], 2e-6)
    rows, biases = np.sum(TENSORFLOW["row_3_gradients"], axis=0), np.sum(TENSORFLOW["bias_gradients"], axis=0)
    assert_same([d_weight[3], d_bias], [rows, biases], 4e-6)


def test_only_the_words_of_the_step_are_selected():
    targets, samples = torch.tensor([[5, 5, 900_000], [2, 0, 5]]), draw_samples(4, 10**6, (1,))
    selected = select_rows(targets, samples)
    assert selected.ids.tolist() == sorted({*targets.flatten().tolist(), *samples.ids.flatten().tolist()})
    assert selected.ids[selected.target_index].equal(targets)
    assert selected.ids[selected.sample_index].equal(samples.ids)
    assert all(tensor.device.type == "meta" for tensor in selected.to("meta"))


@pytest.mark.parametrize("target", [-100, 10])
def test_targets_outside_the_vocabulary(target):
    with pytest.raises(ValueError, match=f"targets must be 0 to 9, but there are .*{target}"):
        select_rows(torch.tensor([[5, target]]), draw_samples(3, 10, (1,), groups=1))


def test_shapes_that_do_not_fit():
    samples = draw_samples(3, 10, (1,))
    with pytest.raises(ValueError, match=r"targets must be \(2, positions\).*they are \(3, 4\)"):
        select_rows(torch.zeros(3, 4, dtype=torch.long), samples)
    selected = select_rows(torch.zeros(2, 4, dtype=torch.long), samples)
    rows, bias = torch.zeros(len(selected.ids), 5), torch.zeros(len(selected.ids))
    for hidden, some in ((torch.zeros(2, 1, 5), rows), (torch.zeros(2, 4, 5), rows[:1])):
        with pytest.raises(ValueError, match="do not fit"):
            sampled_loss(hidden, some, bias, selected)
    with pytest.raises(ValueError, match=r"hidden \(2, 5\) does not fit targets \(3,\)"):
        full_loss(torch.zeros(2, 5), torch.zeros(9, 5), torch.zeros(9), torch.zeros(3, dtype=torch.long))


# ---- the full loss, and log_sum_exp


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_full_loss_is_the_cross_entropy(monkeypatch, dtype, keeps):
    monkeypatch.setattr(softmax, "BLOCK_LOGITS", 30)
    monkeypatch.setattr(softmax, "MAX_KEPT", 2**29 if keeps else -1)
    monkeypatch.setattr(sampling, "LOGITS_ON_CPU", 1)
    monkeypatch.setattr(sampling, "MIN_COLUMNS", 4)
    generator = torch.Generator().manual_seed(3)
    shapes = (2, 6, 3), (11, 3), (11,)
    leaves = [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]
    targets, upstream = torch.randint(0, 11, (2, 6), generator=generator), torch.rand(2, 6, dtype=dtype)
    hidden, weight, bias = leaves
    logits = hidden @ weight.T + bias
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    results = full_loss(*leaves, targets)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    assert_same([results], [expected.view(2, 6)], tolerance)
    gradients = torch.autograd.grad(results, leaves, upstream)
    assert_same(gradients, torch.autograd.grad(expected.view(2, 6), leaves, upstream), tolerance)


def test_the_full_loss_equals_the_models():
    torch.manual_seed(0)
    small = {"lstm_dim": 5, "projection_dim": 4, "char_filters": [[1, 3]], "num_highway_layers": 1}
    model = ElmoForPreTraining(ElmoConfig(vocab_size=30, **small)).eval()
    char_ids = torch.randint(1, 200, (1, 6, 50))
    labels = torch.randint(3, 30, (1, 6))
    with torch.no_grad():
        expected = model(char_ids=char_ids, labels=labels).forward_loss
        hidden = model.elmo(char_ids=char_ids, keep_boundaries=True).last_hidden_state[:, :-1, :4]
        targets = torch.cat([labels, torch.tensor([[model.config.eos_token_id]])], dim=1)
        results = full_loss(hidden, model.lm_head.weight, model.lm_head.bias, targets)
    torch.testing.assert_close(results.mean(), expected)


@pytest.mark.parametrize("keeps", [True, False])
def test_gradients_by_finite_differences(keeps, monkeypatch):
    monkeypatch.setattr(softmax, "MAX_KEPT", 2**29 if keeps else -1)
    generator = torch.Generator().manual_seed(5)
    shapes = (2, 3, 2), (2, 5, 2), (2, 5)
    leaves = [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]
    hits = torch.tensor([[0, -1, 4], [2, 2, -1]])
    assert torch.autograd.gradcheck(lambda *tensors: log_sum_exp(*tensors, hits), leaves)


@pytest.mark.parametrize("keeps", [True, False])
def test_large_logits_and_a_lone_sample_that_is_the_target(keeps, monkeypatch):
    """Nothing overflows, and without any sample left the loss and its gradients are zero."""
    monkeypatch.setattr(softmax, "MAX_KEPT", 2**29 if keeps else -1)
    hidden, weight, bias = torch.full((1, 2, 1), 200.0), torch.tensor([[-1.0], [1.0]]), torch.zeros(2)
    samples = Samples(torch.tensor([[1]]), torch.tensor([[3]]), 2)
    losses, *gradients = run_sampled_loss(hidden, weight, bias, torch.tensor([[1, 0]]), samples)
    assert losses[0, 0] == 0
    assert losses[0, 1] == pytest.approx(400, rel=0.01)
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert gradients[0][0, 0] == 0


def test_products_in_bfloat16():
    """Of bfloat16 hidden states: losses in float32, numbers and gradients within what bfloat16 resolves."""
    generator = torch.Generator().manual_seed(6)
    hidden, weight = torch.randn(2, 90, 64, generator=generator), torch.randn(500, 64, generator=generator)
    hidden, weight, bias = hidden.bfloat16(), 0.2 * weight, torch.randn(500, generator=generator)
    targets, samples = torch.randint(0, 500, (2, 90), generator=generator), draw_samples(200, 500, (1,))
    expected = run_sampled_loss(hidden.double(), weight.double(), bias.double(), targets, samples)
    results = run_sampled_loss(hidden, weight, bias, targets, samples)
    assert [result.dtype for result in results] == [torch.float32, torch.bfloat16, *2 * [torch.float32]]
    for result, want in zip(results, expected, strict=True):
        assert 0 < (result.double() - want).norm() < 0.01 * want.norm()


def test_under_autocast_logits_stay_float32():
    generator = torch.Generator().manual_seed(6)
    hidden, weight = torch.randn(2, 8, 64, generator=generator), torch.randn(50, 64, generator=generator)
    bias, targets = torch.randn(50, generator=generator), torch.randint(0, 50, (2, 8), generator=generator)
    samples = draw_samples(20, 50, (1,))
    expected = run_sampled_loss(hidden, weight, bias, targets, samples)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        results = run_sampled_loss(hidden, weight, bias, targets, samples)
        assert full_loss(hidden.bfloat16(), weight, bias, targets).dtype == torch.float32
    for result, reference_result in zip(results, expected, strict=True):
        assert result.equal(reference_result)


@pytest.mark.parametrize("keeps", [True, False])
def test_what_is_saved_for_the_backward_pass(keeps, monkeypatch):
    """Autograd saves rows and hidden states; and the softmax's shares on a CPU where they are few."""
    monkeypatch.setattr(softmax, "MAX_KEPT", 2 * 300 * 400 * 4 if keeps else 2 * 300 * 400 * 4 - 1)
    saved = []
    samples = draw_samples(400, 1000, (1,))
    targets = torch.zeros(2, 300, dtype=torch.long)
    selected = select_rows(targets, samples)
    rows = torch.randn(len(selected.ids), 4).requires_grad_()
    bias = torch.zeros(len(selected.ids)).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        sampled_loss(torch.randn(2, 300, 4), rows, bias, selected)
    assert saved
    assert max(saved) == 2 * 300 * 400 if keeps else max(saved) <= 2 * 400 * 4
