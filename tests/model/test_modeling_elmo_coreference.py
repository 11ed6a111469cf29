"""Coreference: it is what the paper says, padding and order change nothing, mistakes are sentences."""

import pytest
import torch

from elmo_hf import ElmoLayerCache, ElmoTokenizer
from elmo_hf.model import modeling_elmo_coreference
from elmo_hf.model.modeling_elmo_coreference import best_spans, candidates, clusters_of, span_table
from tests.helpers.naive_coreference import NaiveCoreference, bucket, crosses
from tests.helpers.small_coreference import (
    AT,
    GOLD,
    NONE,
    SENTENCES,
    SHORT,
    SHORT_GOLD,
    encode,
    label,
    make,
    make_with_antecedents,
    without_labels,
)

# ---- what the paper says, slowly


@pytest.mark.parametrize("where", AT)
@pytest.mark.parametrize("max_antecedents", [3, 250])
def test_spans_loss_and_clusters_are_those_of_a_slow_implementation(where, max_antecedents, monkeypatch):
    monkeypatch.setattr(modeling_elmo_coreference, "MAX_BATCH_PAIRS", 7)
    monkeypatch.setattr(modeling_elmo_coreference, "MAX_BATCH_WORDS", 12)
    model = make_with_antecedents(max_span_width=5, max_antecedents=max_antecedents, mix_l2=0.0, **AT[where])
    slow = NaiveCoreference(model)
    batch = encode([SENTENCES], [GOLD])
    with torch.no_grad():
        output = model(**batch)
        expected = slow.loss(SENTENCES, [set(cluster) for cluster in GOLD])
        spans, choices = slow.choices(SENTENCES)
    assert output.spans[0].tolist() == [list(span[:3]) for span in spans]
    torch.testing.assert_close(output.loss, expected)
    for number, scores in enumerate(choices):
        logits = [output.logits[0, number, number - j] for j in scores]
        torch.testing.assert_close(torch.tensor(logits), torch.tensor([*scores.values()]))
        assert (output.logits[0, number] > NONE).sum() == len(scores) + 1
    assert (output.logits[0, :, 0] == 0).all()
    clusters = slow.clusters(SENTENCES)
    assert 1 < sum(map(len, clusters)) < len(spans)  # some are in clusters, and some are not
    assert model.predict(SENTENCES, ElmoTokenizer()) == clusters
    assert sorted(label(clusters).tolist()) == sorted(model.decode(**without_labels(batch))[0].tolist())


def test_the_gradient_is_that_of_the_slow_implementation(monkeypatch):
    """Also where pairs are taken some at a time and made anew."""
    monkeypatch.setattr(modeling_elmo_coreference, "MAX_BATCH_PAIRS", 5)
    model = make(elmo_at_output=True, mix_l2=0.0)
    learnt = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    model(**encode([SENTENCES], [GOLD])).loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in learnt.items()}
    model.zero_grad()
    NaiveCoreference(model).loss(SENTENCES, [set(cluster) for cluster in GOLD]).backward()
    for name, parameter in learnt.items():
        # It takes its scores of mentions apart, so a bias that cancels out is near zero in both.
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_dropout_is_the_same_when_pairs_are_computed_again():
    """The gradient of a step along it, with the same draws, is what the loss changes by."""
    model = make(task_dropout=0.3, elmo_dropout=0.0).train().double()
    batch = encode([SENTENCES], [GOLD])
    weight = model.pair_scorer.network.first.weight

    def loss():
        torch.manual_seed(1)
        return model(**batch).loss

    loss().backward()
    direction = weight.grad.clone()
    with torch.no_grad():
        weight += 1e-5 * direction
        after = loss()
        weight -= 2e-5 * direction
        before = loss()
    assert ((after - before) / 2e-5).item() == pytest.approx(direction.pow(2).sum().item(), rel=1e-4)


@pytest.mark.parametrize("count", [0, 3, 12, 1000])
def test_pruning_keeps_the_best_spans_that_cross_no_better_span(count):
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.tensor([4, 0, 9, 1])
        places, is_span = span_table(lengths, 4)
        scores = torch.randint(30, is_span.shape, generator=generator).float() / 7  # with ties
        pruned = best_spans(scores, is_span, count)
        starts = [0, 4, 4, 13]
        all_spans = [
            (number, first, last)
            for number, length in enumerate(lengths.tolist())
            for first in range(starts[number], starts[number] + length)
            for last in range(first, min(first + 4, starts[number] + length))
        ]
        assert is_span.sum() == len(all_spans)
        assert all(places[first, last - first] == last for _, first, last in all_spans)
        kept = []
        for span in sorted(all_spans, key=lambda span: -scores[span[1], span[2] - span[1]]):
            if len(kept) < count and not any(crosses(span, other) for other in kept):
                kept.append(span)
        assert pruned == sorted(span[1:] for span in kept)


def test_antecedents_are_the_nearest_and_distances_have_buckets():
    numbers = candidates(torch.tensor([0, 1, 2, 3, 0, 1]), 2)
    assert numbers.tolist() == [
        [False, False],
        [True, False],
        [True, True],
        [True, True],
        [False, False],
        [True, False],
    ]
    assert candidates(torch.tensor([], dtype=torch.long), 5).shape == (0, 0)
    distances = torch.arange(1, 300)
    buckets = torch.bucketize(distances, torch.tensor(modeling_elmo_coreference.DISTANCES))
    assert buckets.tolist() == [bucket(distance) for distance in range(1, 300)]


def test_chains_of_antecedents_are_clusters():
    assert clusters_of([0, 0, 2, 0, 2, 4, 0]) == [0, 1, 0, -1, 0, 1, -1]
    assert clusters_of([]) == []


# ---- what changes nothing


@pytest.mark.parametrize("where", ["input", "both", "none"])
def test_padding_and_other_rows_change_nothing(where):
    """Left or right, more of it; and the documents of a batch know nothing of each other."""
    model = make(**AT[where])
    documents, golds = [SENTENCES, SHORT], [GOLD, SHORT_GOLD]
    batch = encode(documents, golds)
    expected, decoded = model(**batch), model.decode(**without_labels(batch))
    padded = encode(documents, golds, padding_side="left", pad_to_multiple_of=16)
    padded["labels"] = torch.nn.functional.pad(padded["labels"], (0, 0, 1, 2), value=-100)
    of_padded = model(**padded)
    torch.testing.assert_close(of_padded.loss, expected.loss)
    torch.testing.assert_close(of_padded.logits, expected.logits)
    assert torch.equal(of_padded.spans, expected.spans)
    assert torch.equal(model.decode(**without_labels(padded)), decoded)
    losses = []
    for number, (document, gold) in enumerate(zip(documents, golds, strict=True)):
        alone = encode([document], [gold])
        del alone["document_ids"]  # one document
        output = model(**alone)
        spans, choices = output.logits.shape[1:]
        losses.append((output.loss - model.with_penalty(torch.tensor(0.0)), spans))
        torch.testing.assert_close(expected.logits[number, :spans, :choices], output.logits[0])
        assert torch.equal(expected.spans[number, :spans], output.spans[0])
        assert (expected.spans[number, spans:] == -100).all()
        mentions = model.decode(**without_labels(alone))[0]
        theirs = decoded[number][decoded[number][:, 0] >= 0]
        assert torch.equal(theirs[:, :3], mentions[:, :3])
        assert torch.equal(theirs[:, 3] - theirs[:1, 3], mentions[:, 3])
    total = sum(loss * spans for loss, spans in losses) / sum(spans for _, spans in losses)
    torch.testing.assert_close(expected.loss, model.with_penalty(total))


def test_the_order_of_documents_changes_nothing():
    model = make()
    batch, turned = (
        encode([SENTENCES, SHORT], [GOLD, SHORT_GOLD]),
        encode([SHORT, SENTENCES], [SHORT_GOLD, GOLD]),
    )
    output, expected = model(**turned), model(**batch)
    torch.testing.assert_close(output.loss, expected.loss)
    torch.testing.assert_close(output.logits, expected.logits.flip(0))
    assert torch.equal(output.spans, expected.spans.flip(0))


def test_the_layers_of_all_sentences_come_back_if_asked_for():
    model = make()
    batch = encode([SENTENCES], [GOLD], pad_to_multiple_of=12)
    output, expected = model(**batch, output_hidden_states=True), model(**batch)
    torch.testing.assert_close(output.logits, expected.logits)
    layers = model.elmo(**{name: batch[name] for name in ("char_ids", "attention_mask")},
                        output_hidden_states=True).hidden_states  # fmt: skip
    assert output.hidden_states[0].shape == (3, 12, 16)
    torch.testing.assert_close(output.hidden_states, layers)
    assert expected.hidden_states is None


def test_a_cache_changes_nothing():
    model = make()
    batch = encode([SENTENCES], [GOLD])
    expected = model(**batch)
    model.elmo_cache = ElmoLayerCache()
    for _ in range(2):
        torch.testing.assert_close(model(**batch).logits, expected.logits)
    assert (model.elmo_cache.encoded, model.elmo_cache.reused) == (3, 3)


@pytest.mark.parametrize("sentences", [[], [[]], [[], []], [["Why"]], [["Why"], [], ["He"]]])
def test_documents_with_very_few_words(sentences):
    model = make()
    assert model.predict(sentences, ElmoTokenizer()) == []
    assert model(**encode([sentences], [[]])).loss.isfinite()
    if sentences:
        batch = encode([sentences], [[]])
        output = model.train()(**batch)
        assert output.loss.isfinite()
        output.loss.backward()
        assert model.span_scorer.mention.last.weight.grad is not None


def test_a_long_document_fits_into_little_memory():
    """Some 2,500 words, as a book's chapter in LitBank; what a pair's long vectors would take all together
    is never there at once."""
    torch.manual_seed(0)
    names = ["Ada", "the old man", "he", "she", "walked to", "London", "with", "her", "."]
    document = [
        " ".join(names[int(n)] for n in torch.randint(9, (length,))).split()
        for length in torch.randint(5, 40, (90,)).tolist()
    ]
    assert sum(map(len, document)) > 2400
    model = make_with_antecedents(task_hidden_size=20)
    pairs = []
    model.pair_scorer.network.register_forward_hook(lambda _, args, out: pairs.append(len(out)))
    assert model.predict(document, ElmoTokenizer())
    assert max(pairs) == modeling_elmo_coreference.MAX_BATCH_PAIRS
    assert sum(pairs) > 40 * modeling_elmo_coreference.MAX_BATCH_PAIRS


# ---- what is refused


def mention(*numbers):
    return {"labels": torch.tensor([[numbers], [(-100,) * 4]])}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"labels": torch.zeros(1, 5, 4, dtype=torch.long)},
            r"must have the shape \(2, mentions, 4\), each",
        ),
        ({"labels": torch.zeros(2, 5, 3, dtype=torch.long)}, r"but have \(2, 5, 3\)"),
        ({"labels": torch.zeros(2, 4, dtype=torch.long)}, r"but have \(2, 4\)"),
        (
            {"labels": torch.zeros(2, 5, 4)},
            "labels must be a tensor of whole numbers, but is of torch.float32",
        ),
        ({"labels": torch.ones(2, 5, 4, dtype=torch.bool)}, "but is of torch.bool"),
        ({"labels": [[]]}, "labels must be a tensor of whole numbers, but is list"),
        ({"document_ids": [0] * 6}, "document_ids must be a tensor of whole numbers, but is list"),
        (mention(3, 0, 0, 0), r"document 0 has a mention .* of sentence 3, but its sentences are 0 to 2"),
        (mention(-100, 0, 0, 0), r"of sentence -100"),
        (mention(2, 3, 4, 0), r"from word 3 to word 4 of sentence 2, but the words there are 0 to 3"),
        (mention(2, 3, 2, 0), r"from word 3 to word 2 of sentence 2"),
        (mention(2, 0, 1, -1), r"in cluster -1; clusters are numbered from 0"),
        (
            {"labels": torch.tensor([[(0, 1, 2, 5), (0, 1, 2, 6)], [(-100,) * 4] * 2])},
            "from word 1 to word 2 of sentence 0 in two clusters, 5 and 6",
        ),
        ({"document_ids": torch.zeros(3, dtype=torch.long)}, r"document_ids must have the shape \(6,\)"),
        ({"document_ids": torch.tensor([0, 0, 1, 1, 0, 0])}, "must stand together"),
        ({"attention_mask": torch.ones(3, 2)}, r"attention_mask must have the shape \(6, 10\)"),
        ({"char_ids": None}, "needs char_ids"),
    ],
)
def test_mistakes_are_refused_in_one_sentence(change, message):
    batch = encode([SENTENCES, SHORT], [GOLD, SHORT_GOLD])
    with pytest.raises(ValueError, match=message) as error:
        make()(**batch | change)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("She left.", "a document is a list of sentences, but this is 'She left.'"),
        (None, "a document is a list of sentences, but this is None"),
        ([["She", "left"], "Why"], "sentence 1 is 'Why'; split text into words first"),
        ([None], "sentence 0 is None"),
        ([["She", 3]], "word 1 is 3, a int"),
    ],
)
def test_a_wrong_document_is_refused(document, message):
    with pytest.raises(ValueError, match=message) as error:
        make().predict(document, ElmoTokenizer())
    assert "\n" not in str(error.value)


def test_sentences_may_be_tuples_and_dropout_takes_no_part():
    model = make_with_antecedents(task_dropout=0.5, elmo_dropout=0.5)
    expected = model.predict(SENTENCES, ElmoTokenizer())
    assert expected
    model.train()
    for sentences in (SENTENCES, [*map(tuple, SENTENCES)], tuple(map(tuple, SENTENCES))):
        assert model.predict(sentences, ElmoTokenizer()) == expected
    assert model.training
