"""Coreference: it learns, is what the paper says, padding and order change nothing, folders are whole."""

import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from slow_coreference import SlowCoreference, bucket, crosses
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModel, AutoTokenizer, Trainer, TrainingArguments

from elmo_hf import (
    ElmoConfig,
    ElmoForCoreferenceResolution,
    ElmoLayerCache,
    ElmoModel,
    ElmoTokenizer,
    modeling_elmo_coreference,
    spans_elmo,
)
from elmo_hf.metrics_coreference import coreference_scores
from elmo_hf.spans_elmo import best_spans, candidates, clusters_of, span_table

SENTENCES = [
    ["Ada", "met", "the", "old", "man", "'s", "brother", "in", "London", "."],
    ["He", "gave", "her", "his", "book", "and", "left", "."],
    ["She", "read", "it", "."],
]
GOLD = [[(0, 0, 0), (1, 2, 2), (2, 0, 0)], [(0, 2, 6), (1, 0, 0), (1, 3, 3)], [(1, 3, 4), (2, 2, 2)]]
SHORT = [["Why", "?"], [], ["He", "asked", "why", "he", "asked", "."]]
SHORT_GOLD = [[(2, 0, 0), (2, 3, 3)], [(2, 2, 2)]]
SMALL = {
    "lstm_dim": 12,
    "projection_dim": 8,
    "char_filters": [[1, 4], [2, 6]],
    "vocab_size": 3,
    "task_hidden_size": 6,
    "task_num_layers": 1,
    "span_hidden_size": 7,
    "span_feature_dim": 3,
}
NONE = torch.finfo(torch.float32).min  # where there is no antecedent
AT = {
    "input": {},
    "output": {"elmo_at_input": False, "elmo_at_output": True, "task_char_filters": [[2, 5]]},
    "both": {"elmo_at_output": True},
    "none": {"elmo_at_input": False, "task_char_filters": [[2, 5]]},
}


def make(**options):
    torch.manual_seed(0)
    model = ElmoForCoreferenceResolution(ElmoConfig(**SMALL | options))
    for name, parameter in model.named_parameters():
        if name.endswith(".bias") and "scorer" in name:
            torch.nn.init.normal_(parameter)
    return model.eval()


def make_choosy(**options):
    """Whose pairs score above zero now and then."""
    model = make(mix_layer_norm=True, **options)
    with torch.no_grad():
        scores = model(**encode([SENTENCES], [GOLD])).logits[:, :, 1:]
        model.pair_scorer.network.last.bias -= scores[scores > NONE].quantile(0.8)
    return model


def label(clusters):
    """Clusters of (sentence, first, last) -> (mentions, 4)"""
    mentions = [(*mention, number) for number, cluster in enumerate(clusters) for mention in cluster]
    return torch.tensor(sorted(mentions), dtype=torch.long).view(-1, 4)


def encode(documents, golds, **options):
    """Documents of sentences as one batch."""
    sentences = [sentence for document in documents for sentence in document]
    batch = ElmoTokenizer()(sentences, is_split_into_words=True, padding=True, return_tensors="pt", **options)
    numbers = [number for number, document in enumerate(documents) for _ in document]
    labels = pad_sequence([label(gold) for gold in golds], batch_first=True, padding_value=-100)
    return {**batch, "document_ids": torch.tensor(numbers), "labels": labels}


def without_labels(batch):
    return {name: value for name, value in batch.items() if name != "labels"}


# ---- what the paper says, slowly


@pytest.mark.parametrize("where", AT)
@pytest.mark.parametrize("max_antecedents", [3, 250])
def test_spans_loss_and_clusters_are_those_of_a_slow_implementation(where, max_antecedents, monkeypatch):
    monkeypatch.setattr(spans_elmo, "PAIRS_AT_ONCE", 7)
    monkeypatch.setattr(modeling_elmo_coreference, "WORDS_AT_ONCE", 12)
    model = make_choosy(max_span_width=5, max_antecedents=max_antecedents, mix_l2=0.0, **AT[where])
    slow = SlowCoreference(model)
    batch = encode([SENTENCES], [GOLD])
    with torch.no_grad():
        output = model(**batch)
        expected = slow.loss(SENTENCES, [set(cluster) for cluster in GOLD])
        spans, choices = slow.choices(SENTENCES)
    assert output.spans[0].tolist() == [list(span[:3]) for span in spans]
    torch.testing.assert_close(output.loss, expected)
    for number, scores in enumerate(choices):
        found = [output.logits[0, number, number - j] for j in scores]
        torch.testing.assert_close(torch.tensor(found), torch.tensor([*scores.values()]))
        assert (output.logits[0, number] > NONE).sum() == len(scores) + 1
    assert (output.logits[0, :, 0] == 0).all()
    clusters = slow.clusters(SENTENCES)
    assert 1 < sum(map(len, clusters)) < len(spans)  # some are in clusters, and some are not
    assert model.predict(SENTENCES, ElmoTokenizer()) == clusters
    assert sorted(label(clusters).tolist()) == sorted(model.decode(**without_labels(batch))[0].tolist())


def test_the_gradient_is_that_of_the_slow_implementation(monkeypatch):
    """Also where pairs are taken some at a time and made anew."""
    monkeypatch.setattr(spans_elmo, "PAIRS_AT_ONCE", 5)
    model = make(elmo_at_output=True, mix_l2=0.0)
    learnt = {name: one for name, one in model.named_parameters() if one.requires_grad}
    model(**encode([SENTENCES], [GOLD])).loss.backward()
    found = {name: one.grad.clone() for name, one in learnt.items()}
    model.zero_grad()
    SlowCoreference(model).loss(SENTENCES, [set(cluster) for cluster in GOLD]).backward()
    for name, one in learnt.items():
        # It takes its scores of mentions apart, so a bias that cancels out is near zero in both.
        torch.testing.assert_close(found[name], one.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_dropout_is_the_same_when_pairs_are_made_anew():
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
def test_pruning_keeps_the_best_that_cross_none_better(count):
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.tensor([4, 0, 9, 1])
        places, is_span = span_table(lengths, 4)
        scores = torch.randint(30, is_span.shape, generator=generator).float() / 7  # with ties
        found = best_spans(scores, is_span, count)
        starts = [0, 4, 4, 13]
        every = [
            (number, first, last)
            for number, length in enumerate(lengths.tolist())
            for first in range(starts[number], starts[number] + length)
            for last in range(first, min(first + 4, starts[number] + length))
        ]
        assert is_span.sum() == len(every)
        assert all(places[first, last - first] == last for _, first, last in every)
        kept = []
        for span in sorted(every, key=lambda span: -scores[span[1], span[2] - span[1]]):
            if len(kept) < count and not any(crosses(span, other) for other in kept):
                kept.append(span)
        assert found == sorted(span[1:] for span in kept)


def test_antecedents_are_the_nearest_and_distances_have_buckets():
    found = candidates(torch.tensor([0, 1, 2, 3, 0, 1]), 2)
    assert found.tolist() == [
        [False, False],
        [True, False],
        [True, True],
        [True, True],
        [False, False],
        [True, False],
    ]
    assert candidates(torch.tensor([], dtype=torch.long), 5).shape == (0, 0)
    distances = torch.arange(1, 300)
    buckets = torch.bucketize(distances, torch.tensor(spans_elmo.DISTANCES))
    assert buckets.tolist() == [bucket(distance) for distance in range(1, 300)]


def test_chains_of_antecedents_are_clusters():
    assert clusters_of([0, 0, 2, 0, 2, 4, 0]) == [0, 1, 0, -1, 0, 1, -1]
    assert clusters_of([]) == []


# ---- what changes nothing


@pytest.mark.parametrize("where", ["input", "both", "none"])
def test_padding_and_company_change_nothing(where):
    """Left or right, more of it; and the documents of a batch know nothing of each other."""
    model = make(**AT[where])
    documents, golds = [SENTENCES, SHORT], [GOLD, SHORT_GOLD]
    batch = encode(documents, golds)
    expected, decoded = model(**batch), model.decode(**without_labels(batch))
    padded = encode(documents, golds, padding_side="left", pad_to_multiple_of=16)
    padded["labels"] = torch.nn.functional.pad(padded["labels"], (0, 0, 1, 2), value=-100)
    found = model(**padded)
    torch.testing.assert_close(found.loss, expected.loss)
    torch.testing.assert_close(found.logits, expected.logits)
    assert torch.equal(found.spans, expected.spans)
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
    found, expected = model(**turned), model(**batch)
    torch.testing.assert_close(found.loss, expected.loss)
    torch.testing.assert_close(found.logits, expected.logits.flip(0))
    assert torch.equal(found.spans, expected.spans.flip(0))


def test_the_layers_of_all_sentences_come_back_if_asked_for():
    model = make()
    batch = encode([SENTENCES], [GOLD], pad_to_multiple_of=12)
    found, expected = model(**batch, output_hidden_states=True), model(**batch)
    torch.testing.assert_close(found.logits, expected.logits)
    layers = model.elmo(**{name: batch[name] for name in ("char_ids", "attention_mask")},
                        output_hidden_states=True).hidden_states  # fmt: skip
    assert found.hidden_states[0].shape == (3, 12, 16)
    torch.testing.assert_close(found.hidden_states, layers)
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
def test_documents_of_next_to_nothing(sentences):
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
    model = make_choosy(task_hidden_size=20)
    pairs = []
    model.pair_scorer.network.register_forward_hook(lambda _, args, out: pairs.append(len(out)))
    assert model.predict(document, ElmoTokenizer())
    assert max(pairs) == spans_elmo.PAIRS_AT_ONCE
    assert sum(pairs) > 40 * spans_elmo.PAIRS_AT_ONCE


# ---- it learns


def story(number):
    """A short story whose clusters follow from its words: names, and pronouns for whoever of their sex was
    named last."""
    generator = torch.Generator().manual_seed(number)

    def pick(*choices):
        return choices[int(torch.randint(len(choices), (1,), generator=generator))]

    sentences, clusters, last = [], {}, {}
    while len(sentences) < 17:
        words, sentence = [], len(sentences)

        def mention(who, *parts, words=words, sentence=sentence):
            clusters.setdefault(who, []).append((sentence, len(words), len(words) + len(parts) - 1))
            words.extend(parts)

        sex, name = pick(("f", "Ada"), ("f", "Mary"), ("m", "Tom"), ("m", "John"))
        if sex in last and pick(True, False):
            mention(last[sex], {"f": "She", "m": "He"}[sex])
        else:
            mention(name, name, *pick((), ({"f": "Smith", "m": "Jones"}[sex],)))
            last[sex] = name
        words += pick(["saw"], ["spoke", "to"], ["never", "liked"])
        if pick(True, False):
            mention(last[sex], {"f": "her", "m": "his"}[sex])
            words += pick(["mother"], ["dog"])
        else:
            words += pick(["the", "house"], ["a", "long", "letter"])
        sentences.append([*words, "."])
    return sentences, [cluster for cluster in clusters.values() if len(cluster) > 1]


def test_stories_are_learnt_by_heart():
    """Three of them, of fifty sentences together. What looks no more like a mention than other spans is
    never kept, and not learnt; so here are places for most of the short spans."""
    stories = [story(number) for number in range(3)]
    assert sum(len(sentences) for sentences, _ in stories) > 50
    options = {"task_hidden_size": 40, "task_dropout": 0.0, "elmo_dropout": 0.0, "span_hidden_size": 40}
    options |= {"task_char_filters": [[3, 30]], "spans_per_word": 0.8, "max_span_width": 3}
    model = make(lstm_dim=32, projection_dim=16, **options).train()
    model.elmo_cache = ElmoLayerCache()
    batches = [encode([sentences], [gold]) for sentences, gold in stories]
    optimizer = torch.optim.Adam((one for one in model.parameters() if one.requires_grad), lr=0.01)
    gold = [clusters for _, clusters in stories]
    for _ in range(60):
        losses = []
        for batch in batches:
            loss = model(**batch).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        if max(losses) < 0.005:
            break
    model.eval()
    found = [model.predict(sentences, ElmoTokenizer()) for sentences, _ in stories]
    assert coreference_scores(found, gold)["conll_f1"] == 1


def test_the_trainer_trains_it(tmp_path):
    """Two documents a batch, and the last of them alone."""
    model = make(task_dropout=0.0, elmo_dropout=0.0, task_char_filters=[[3, 10]])
    documents = [(SENTENCES, GOLD), (SHORT, SHORT_GOLD), story(0)]
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=30,
        learning_rate=0.01,
        per_device_train_batch_size=2,
        per_device_eval_batch_size=2,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        logging_strategy="no",
        use_cpu=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=documents,
        eval_dataset=documents,
        data_collator=lambda pairs: encode([one for one, _ in pairs], [gold for _, gold in pairs]),
    )
    before = trainer.evaluate()["eval_loss"]
    frozen = [parameter.clone() for parameter in model.elmo.parameters()]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < 0.7 * before
    assert all(torch.equal(old, new) for old, new in zip(frozen, model.elmo.parameters(), strict=True))


@pytest.mark.parametrize("where", AT)
def test_every_parameter_has_a_gradient(where):
    model = make(freeze_elmo=False, **AT[where]).train()
    model(**encode([SENTENCES], [GOLD])).loss.backward()
    assert not [name for name, one in model.named_parameters() if one.requires_grad and one.grad is None]


# ---- what is refused


def mention(*numbers):
    return {"labels": torch.tensor([[numbers], [(-100,) * 4]])}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"labels": torch.zeros(1, 5, 4, dtype=torch.long)},
            r"whole numbers of the shape \(2, mentions, 4\)",
        ),
        ({"labels": torch.zeros(2, 5, 3, dtype=torch.long)}, r"of the shape \(2, 5, 3\)"),
        ({"labels": torch.zeros(2, 4, dtype=torch.long)}, r"of the shape \(2, 4\)"),
        ({"labels": torch.zeros(2, 5, 4)}, r"but are torch.float32"),
        (mention(3, 0, 0, 0), r"document 0 has a mention .* of sentence 3, but its sentences are 0 to 2"),
        (mention(-100, 0, 0, 0), r"of sentence -100"),
        (mention(2, 3, 4, 0), r"from word 3 to word 4 of sentence 2, but the words there are 0 to 3"),
        (mention(2, 3, 2, 0), r"from word 3 to word 2 of sentence 2"),
        (mention(2, 0, 1, -1), r"in cluster -1; clusters are numbered from 0"),
        (
            {"labels": torch.tensor([[(0, 1, 2, 5), (0, 1, 2, 6)], [(-100,) * 4] * 2])},
            "from word 1 to word 2 of sentence 0 in two clusters, 5 and 6",
        ),
        ({"document_ids": torch.zeros(3)}, r"document_ids must have the shape \(6,\)"),
        ({"document_ids": torch.tensor([0, 0, 1, 1, 0, 0])}, "must stand together"),
        ({"attention_mask": torch.ones(3, 2)}, r"attention_mask must have the shape \(6, 10\)"),
        ({"char_ids": None}, "needs char_ids"),
    ],
)
def test_mistakes_are_said_in_one_sentence(change, message):
    batch = encode([SENTENCES, SHORT], [GOLD, SHORT_GOLD])
    with pytest.raises(ValueError, match=message) as error:
        make()(**batch | change)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("She left.", "sentence 0 is text"),
        ([["She", "left"], "Why"], "sentence 1 is text"),
        ([["She", 3]], "word 1 is 3, a int"),
    ],
)
def test_a_document_is_sentences_of_words(document, message):
    with pytest.raises(ValueError, match=message) as error:
        make().predict(document, ElmoTokenizer())
    assert "\n" not in str(error.value)


# ---- saved, and loaded elsewhere


@pytest.mark.parametrize("where", AT)
def test_saving_and_loading_changes_nothing(where, tmp_path):
    model = make(**AT[where])
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is ElmoForCoreferenceResolution
    weights = model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in loaded.state_dict().items())
    batch = encode([SENTENCES], [GOLD])
    # Where a weight lies in memory decides which product is used, and so the last bit.
    torch.testing.assert_close(loaded(**batch).logits, model(**batch).logits, rtol=1e-5, atol=1e-6)
    assert loaded.predict(SENTENCES, ElmoTokenizer()) == model.predict(SENTENCES, ElmoTokenizer())
    if model.config.reads_elmo:
        assert torch.equal(ElmoModel.from_pretrained(tmp_path).layers[0].bias, model.elmo.layers[0].bias)


def test_a_backbones_folder_is_taken_over_and_the_rest_is_new(tmp_path):
    source = make()
    source.elmo.save_pretrained(tmp_path)
    assert type(AutoModel.from_pretrained(tmp_path)) is ElmoModel
    model = ElmoForCoreferenceResolution.from_pretrained(tmp_path)
    assert torch.equal(model.elmo.layers[0].bias, source.elmo.layers[0].bias)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    assert model(**encode([SENTENCES], [GOLD])).loss.isfinite()


REMOTE = """
    import sys
    sys.modules["elmo_hf"] = None  # importing it fails, as where it is not installed
    import json
    from transformers import AutoConfig, AutoModel, AutoTokenizer
    folder, sentences = sys.argv[1], json.loads(sys.argv[2])
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    batch = tokenizer(sentences, is_split_into_words=True, padding=True, return_tensors="pt")
    logits, clusters = model(**batch).logits[0, :, :2], model.predict(sentences, tokenizer)
    found = {"logits": logits.tolist(), "clusters": clusters}
    model.save_pretrained(sys.argv[3])
    tokenizer.save_pretrained(sys.argv[3])
    assert not any(name == "elmo_hf" and module for name, module in sys.modules.items())
    print(json.dumps(found))
"""


def run_without_the_package(folder, target, cache):
    environment = os.environ | {"HF_HOME": str(cache), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(REMOTE), str(folder), json.dumps(SENTENCES), str(target)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment,
        cwd=cache,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_a_saved_folder_brings_its_code(tmp_path):
    """With tokenizer, where the package cannot be imported; saved there, and loaded again."""
    model = make_choosy()
    model.save_pretrained(tmp_path / "first")
    ElmoTokenizer().save_pretrained(tmp_path / "first")
    (tmp_path / "cache").mkdir()
    found = run_without_the_package(tmp_path / "first", tmp_path / "second", tmp_path / "cache")
    logits = model(**encode([SENTENCES], [GOLD])).logits[0, :, :2]
    torch.testing.assert_close(torch.tensor(found["logits"]), logits)
    clusters = [[tuple(mention) for mention in cluster] for cluster in found["clusters"]]
    assert clusters == model.predict(SENTENCES, ElmoTokenizer())
    again = AutoModel.from_pretrained(tmp_path / "second")
    assert again.predict(SENTENCES, AutoTokenizer.from_pretrained(tmp_path / "second")) == clusters
