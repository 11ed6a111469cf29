"""One update against a reference in float64 that computes the formulas word by word."""

import pytest
import torch
from accelerate import Accelerator

from elmo_hf.corpus.source import Source
from elmo_hf.corpus.vocabulary import Vocabulary
from elmo_hf.corpus.windows import Encoder, Plan, Windows
from elmo_hf.model import modeling_elmo
from elmo_hf.pretraining.learner import Learner
from elmo_hf.pretraining.sampling import draw_samples
from elmo_hf.pretraining.settings import Settings
from elmo_hf.pretraining.start import fresh_model
from tests.helpers.launcher import SMOKE
from tests.helpers.paths import TRAINING

VOCAB = TRAINING / "runs" / "smoke_vocab.txt"
ROWS, STEPS = 3, 7


def make_settings(**changes):
    small = {"lstm_dim": 12, "projection_dim": 6, "char_embedding_dim": 4, "char_filters": [[1, 3], [3, 5]]}
    small |= {"num_highway_layers": 1, "max_characters_per_token": 12, "cell_clip": 0.4, "proj_clip": 0.2}
    return Settings(vocab=str(VOCAB), rows=ROWS, window=STEPS, dropout=0.0, **small | changes)


def make_learner(dtype, **changes):
    settings = make_settings(**changes)
    torch.manual_seed(3)
    model, _ = fresh_model(settings)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.3 * torch.randn_like(
                weight
            )  # biases, too; large enough for cells to reach their clips
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return Learner(model.to(dtype), settings, Accelerator(cpu=True))


def make_windows(number):
    plan = Plan(rows=ROWS, steps=STEPS, seed=5, epochs=1)
    windows = Windows(Source(str(SMOKE)), Encoder(Vocabulary.load(VOCAB), 12), plan)
    return [window for window, _ in zip(windows, range(number), strict=False)]


# ---- the reference


def weights_of(model):
    copies = {name: weight.detach().double().clone() for name, weight in model.named_parameters()}
    return {name: weight.requires_grad_() for name, weight in copies.items()}


def word_vector(weights, characters):
    embedded = torch.stack(
        [weights["elmo.token_encoder.char_embedding.weight"][int(character)] for character in characters]
    )
    pooled = []
    for number in range(2):
        weight = weights[f"elmo.token_encoder.convolutions.{number}.weight"]
        bias = weights[f"elmo.token_encoder.convolutions.{number}.bias"]
        width = weight.shape[2]
        starts = range(len(characters) - width + 1)
        scores = [torch.einsum("kc,fck->f", embedded[start : start + width], weight) for start in starts]
        pooled.append(torch.relu(torch.stack(scores).max(dim=0).values + bias))
    x = torch.cat(pooled)
    prefix = "elmo.token_encoder.highways.0."
    gate = torch.sigmoid(weights[prefix + "carry.weight"] @ x + weights[prefix + "carry.bias"])
    new = torch.relu(weights[prefix + "transform.weight"] @ x + weights[prefix + "transform.bias"])
    x = gate * new + (1 - gate) * x
    return weights["elmo.token_encoder.projection.weight"] @ x + weights["elmo.token_encoder.projection.bias"]


def lstm_step(weights, layer, direction, x, h, c):
    prefix = f"elmo.layers.{layer}."
    gates = (
        x @ weights[prefix + "input_weight"][direction] + h @ weights[prefix + "recurrent_weight"][direction]
    )
    i, j, f, o = (gates + weights[prefix + "bias"][direction]).split(12)
    c = (torch.sigmoid(f + 1) * c + torch.sigmoid(i) * torch.tanh(j)).clamp(-0.4, 0.4)
    h = ((torch.sigmoid(o) * torch.tanh(c)) @ weights[prefix + "projection"][direction]).clamp(-0.2, 0.2)
    return h, c


def word_loss(weights, hidden, target, samples, direction):
    scores = weights["lm_head.weight"] @ hidden + weights["lm_head.bias"]
    if samples is None:
        return torch.logsumexp(scores, 0) - scores[target]
    numbers = torch.arange(len(scores), dtype=torch.float64)
    chance = torch.log((numbers + 2) / (numbers + 1)) / torch.log(torch.tensor(len(scores) + 1.0).double())
    scores = scores - torch.log(1 - (1 - chance) ** int(samples.draws[direction]))
    others = [int(word) for word in samples.ids[direction] if int(word) != target]
    return torch.logsumexp(scores[[target, *others]], 0) - scores[target]


def reference_losses(weights, window, states, samples):
    """The summed losses of both directions, and the states after the window, by (layer, direction, row)."""
    sums, after = [torch.zeros((), dtype=torch.float64) for _ in range(2)], {}
    for direction in range(2):
        for row in range(ROWS):
            now = {layer: states[layer, direction, row] for layer in range(2)}
            for step in range(STEPS):
                if not window.mask[direction, row, step]:
                    continue
                x = word_vector(weights, window.char_ids[direction, row, step])
                now[0] = lstm_step(weights, 0, direction, x, *now[0])
                now[1] = lstm_step(weights, 1, direction, now[0][0], *now[1])
                hidden = now[1][0] + now[0][0]
                target = int(window.targets[direction, row, step])
                sums[direction] = sums[direction] + word_loss(weights, hidden, target, samples, direction)
            after |= {(layer, direction, row): now[layer] for layer in range(2)}
    return sums, {place: (h.detach(), c.detach()) for place, (h, c) in after.items()}


def zero_states():
    zeros = torch.zeros(6, dtype=torch.float64), torch.zeros(12, dtype=torch.float64)
    return {
        (layer, direction, row): zeros for layer in range(2) for direction in range(2) for row in range(ROWS)
    }


def reference(weights, windows, words, samples):
    """Mean losses (2,) over windows with carried states, and the gradient of 20 times the summed loss divided
    by the number of positions, with or without a word."""
    states, total, places = zero_states(), [0.0, 0.0], len(windows) * ROWS * STEPS
    for window, drawn in zip(windows, samples, strict=True):
        sums, states = reference_losses(weights, window, states, drawn)
        means = [loss / words[direction] for direction, loss in enumerate(sums)]
        (20 * 0.5 * (sums[0] + sums[1]) / places).backward()
        total = [sum_ + float(mean.detach()) for sum_, mean in zip(total, means, strict=True)]
    return total, {name: weight.grad for name, weight in weights.items()}


# ---- the comparison


@pytest.mark.parametrize("samples", [0, 40])
@pytest.mark.parametrize("variant", ["kernels", "readable", "float64"])
def test_an_update_follows_the_formulas(monkeypatch, samples, variant):
    """With two windows per update; the second starts from the states after the first."""
    if variant != "kernels":
        monkeypatch.setattr(modeling_elmo, "kernels", None)
    learner = make_learner(
        torch.float64 if variant == "float64" else torch.float32, samples=samples, clip=3.0, accumulate=2
    )
    compare_update(learner, make_windows(2), samples, tolerance=1e-6 if variant == "float64" else 5e-5)


def test_words_have_the_same_weight_at_the_end_of_the_text():
    """There, more and more rows are empty."""
    windows = [window for window in make_windows(10_000) if window.mask.any(axis=(1, 2)).all()][-2:]
    assert sum(window.mask.sum() for window in windows) < 2 * ROWS * STEPS
    learner = make_learner(torch.float64, samples=40, clip=0.3, accumulate=2)
    compare_update(learner, windows, 40, tolerance=1e-6)


def compare_update(learner, windows, samples, tolerance):
    """Compare losses, gradients, new weights and states with those of the reference."""
    weights, clip = weights_of(learner.model), learner.settings.clip
    words = torch.tensor(sum(window.mask.sum(axis=(1, 2)) for window in windows))
    size = learner.model.config.vocab_size
    drawn = [draw_samples(samples, size, (0, 9, 0, number)) if samples else None for number in range(2)]
    losses, gradients = reference(weights, windows, words, drawn)
    result = learner.update(windows, words, step=9)

    assert [result["forward_loss"], result["backward_loss"]] == pytest.approx(losses, rel=tolerance)
    assert result["loss"] == pytest.approx(sum(losses) / 2, rel=tolerance)
    norm = float(sum(gradient.square().sum() for gradient in gradients.values()).sqrt())
    assert result["norm"] == pytest.approx(norm, rel=tolerance)
    assert norm > clip
    for name, weight in learner.model.named_parameters():
        gradient = gradients[name] * clip / norm
        expected = weights[name].detach() - 0.2 * gradient / (1 + gradient.square()).sqrt()
        torch.testing.assert_close(weight.double(), expected, rtol=tolerance, atol=tolerance)
        assert float(gradient.abs().max()) > 1e-3, name
    h, _ = learner.states
    _, states = reference_losses(weights, windows[0], zero_states(), drawn[0])
    _, states = reference_losses(weights, windows[1], states, drawn[1])
    for (layer, direction, row), (expected, _) in states.items():
        torch.testing.assert_close(
            h[layer, direction, row].double(), expected, rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize(("share", "restarted"), [(1.0, ROWS), (0.0, 0), (0.5, None)])
def test_restarted_rows(share, restarted):
    """Their states are zero, and those of the other rows unchanged; the step alone decides which."""
    window = make_windows(1)[0]
    words = torch.tensor(window.mask.sum(axis=(1, 2)))
    learner, fresh = (make_learner(torch.float32, samples=0, restart_rows=share) for _ in range(2))
    before = tuple(torch.randn_like(state) for state in learner.states)
    learner.states = before
    learner._restart_rows((0, 4, 0, 0))
    is_zero = (learner.states[0] == 0).all(dim=-1).all(dim=1).all(dim=0)
    for state, old in zip(learner.states, before, strict=True):
        assert torch.equal(state, old * ~is_zero[:, None])
    assert int(is_zero.sum()) == restarted or (restarted is None and 0 < int(is_zero.sum()) < ROWS)
    if share == 1.0:
        learner.states = before
        losses, expected = (each.update([window], words, step=4) for each in (learner, fresh))
        assert losses == expected
