"""The language model's loss: which words count, whole or in chunks. Numbers: test_against_reference.py."""

import pytest
import torch
from torch.nn import functional as F

from elmo_hf import ElmoConfig, ElmoForPreTraining
from elmo_hf.model import modeling_elmo_pretraining

MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]])
IDS = torch.tensor([[5, 6, 7, 8], [9, 3, 20, 20], [20, 20, 20, 20]])


def make_model(**options):
    torch.manual_seed(0)
    config = ElmoConfig(lstm_dim=6, projection_dim=4, vocab_size=20, token_encoder="words", **options)
    return ElmoForPreTraining(config).eval()


def test_the_loss_counts_each_word_and_one_boundary_in_each_direction():
    """Worked out by hand from the vectors that the model itself gives, sentence by sentence."""
    model = make_model()
    output = model(IDS, attention_mask=MASK)
    top = model.elmo(IDS, attention_mask=MASK, keep_boundaries=True).last_hidden_state
    forward, backward = [], []
    for row, words in enumerate([[5, 6, 7, 8], [9, 3], []]):
        places = [0, *range(1, len(words) + 1), 5]
        scores = model.lm_head(top[row, places].unflatten(-1, (2, -1)))
        forward.append(F.cross_entropy(scores[:-1, 0], torch.tensor([*words, 1]), reduction="none"))
        backward.append(F.cross_entropy(scores[1:, 1], torch.tensor([0, *words]), reduction="none"))
    torch.testing.assert_close(output.forward_loss, torch.cat(forward).mean())
    torch.testing.assert_close(output.backward_loss, torch.cat(backward).mean())
    torch.testing.assert_close(output.loss, 0.5 * (output.forward_loss + output.backward_loss))


def test_ignored_labels_do_not_count():
    model = make_model()
    labels = IDS.masked_fill(MASK == 0, -100)
    torch.testing.assert_close(model(IDS, attention_mask=MASK, labels=labels).loss, model(IDS).loss)
    labels[0, 1] = -100
    assert not torch.isclose(model(IDS, labels=labels).loss, model(IDS).loss)
    nothing = model(IDS[2:, :0], labels=labels[2:, :0]).loss  # begin and end remain
    assert torch.isfinite(nothing)


@pytest.mark.parametrize("limit", [1, 60, 2**25])
def test_the_loss_in_chunks_is_the_loss(limit, monkeypatch):
    def loss_and_gradients():
        model = make_model(dropout=0.0)
        loss = model(IDS).loss
        loss.backward()
        return loss, [parameter.grad for parameter in model.parameters()]

    whole = loss_and_gradients()
    monkeypatch.setattr(modeling_elmo_pretraining, "LOGITS_AT_ONCE", limit)
    torch.testing.assert_close(loss_and_gradients(), whole)


def test_eight_hundred_thousand_words_fit(monkeypatch):
    """At no time are more logits alive than the limit: 100 words would need 320 MB in one piece."""
    largest = []
    cross_entropy = F.cross_entropy

    def recorded(logits, *args, **kwargs):
        largest.append(logits.numel())
        return cross_entropy(logits, *args, **kwargs)

    monkeypatch.setattr(F, "cross_entropy", recorded)
    config = ElmoConfig(lstm_dim=4, projection_dim=2, vocab_size=800_000, char_filters=[[1, 4]])
    model = ElmoForPreTraining(config)
    ids = torch.randint(0, 800_000, (1, 100))
    loss = model(inputs_embeds=torch.randn(1, 100, 2), labels=ids).loss
    loss.backward()
    assert model.lm_head.weight.grad.abs().sum() > 0
    assert len(largest) >= 2 * 2 * 101 * 800_000 / 2**25  # forward and again backward, both directions
    assert max(largest) <= 2**25


def test_logits_predict_the_next_word_and_the_one_before():
    model = make_model()
    assert model(IDS).forward_logits is None
    output = model(IDS, output_logits=True)
    assert output.forward_logits.shape == output.backward_logits.shape == (3, 4, 20)
    scores = F.log_softmax(output.forward_logits[1, :2], dim=-1)
    changed = model(torch.tensor([[9, 4]]), output_logits=True)
    # At word 0 the forward half has not seen word 1, and the backward half has.
    torch.testing.assert_close(F.log_softmax(changed.forward_logits[0, 0], dim=-1), scores[0])
    assert not torch.allclose(changed.backward_logits[0, 0], output.backward_logits[1, 0])
    without_words = model(inputs_embeds=torch.randn(1, 3, 4))
    assert without_words.loss is None
    assert without_words.forward_logits.shape == (1, 3, 20)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (IDS[:, :2], r"labels must have the shape \(3, 4\)"),
        (IDS + 100, "labels must be from 0 to 19"),
        (IDS - 50, "labels must be from 0 to 19"),
    ],
)
def test_wrong_labels_are_refused_in_one_sentence(labels, message):
    with pytest.raises(ValueError, match=message):
        make_model()(IDS, attention_mask=MASK, labels=labels)
