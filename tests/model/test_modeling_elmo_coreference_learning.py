"""Coreference learns, by hand and by the Trainer, and is saved and loaded elsewhere."""

import json

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from elmo_hf import ElmoForCoreferenceResolution, ElmoLayerCache, ElmoModel, ElmoTokenizer
from elmo_hf.metrics.coreference import coreference_scores
from tests.helpers.small_coreference import (
    AT,
    GOLD,
    SENTENCES,
    SHORT,
    SHORT_GOLD,
    encode,
    make,
    make_with_antecedents,
)
from tests.helpers.trainers import learns_in_half_precision, train_until_learned

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

        def mention(who, *mention_words, words=words, sentence=sentence):
            clusters.setdefault(who, []).append((sentence, len(words), len(words) + len(mention_words) - 1))
            words.extend(mention_words)

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


def test_stories_are_memorised():
    """Three of them, of fifty sentences together. What looks no more like a mention than other spans is
    never kept, and not learnt; so here are places for most of the short spans."""
    stories = [story(number) for number in range(3)]
    assert sum(len(sentences) for sentences, _ in stories) > 50
    options = {"task_hidden_size": 40, "task_dropout": 0.0, "elmo_dropout": 0.0, "span_hidden_size": 40}
    options |= {"task_char_filters": [[3, 30]], "spans_per_word": 0.8, "max_span_width": 3}
    model = make(lstm_dim=32, projection_dim=16, **options).train()
    model.elmo_cache = ElmoLayerCache()
    batches = [encode([sentences], [gold]) for sentences, gold in stories]
    optimizer = torch.optim.Adam(
        (parameter for parameter in model.parameters() if parameter.requires_grad), lr=0.01
    )
    gold = [clusters for _, clusters in stories]
    for _ in range(120):  # half of them are enough on some machines
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
    predicted = [model.predict(sentences, ElmoTokenizer()) for sentences, _ in stories]
    assert coreference_scores(predicted, gold)["conll_f1"] == 1


def test_the_trainer_trains_it(tmp_path):
    """Two documents a batch, and the last of them alone."""
    model = make(task_dropout=0.0, elmo_dropout=0.0, task_char_filters=[[3, 10]])
    documents = [(SENTENCES, GOLD), (SHORT, SHORT_GOLD), story(0)]

    def collate(pairs):
        return encode([document for document, _ in pairs], [gold for _, gold in pairs])

    batches = {"per_device_eval_batch_size": 2, "remove_unused_columns": False}
    train_until_learned(
        model, documents, collate, tmp_path, steps=30, learning_rate=0.01, share=0.7, **batches
    )


def test_half_precision():
    learns_in_half_precision(make(), encode([SENTENCES], [GOLD]))


@pytest.mark.parametrize("where", AT)
def test_every_parameter_has_a_gradient(where):
    model = make(freeze_elmo=False, **AT[where]).train()
    model(**encode([SENTENCES], [GOLD])).loss.backward()
    assert not [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.grad is None
    ]


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


def test_a_backbone_is_loaded_and_the_head_is_new(tmp_path):
    source = make()
    source.elmo.save_pretrained(tmp_path)
    assert type(AutoModel.from_pretrained(tmp_path)) is ElmoModel
    model = ElmoForCoreferenceResolution.from_pretrained(tmp_path)
    assert torch.equal(model.elmo.layers[0].bias, source.elmo.layers[0].bias)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    assert model(**encode([SENTENCES], [GOLD])).loss.isfinite()


REMOTE = """
    import sys
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
    print(json.dumps(found))
"""


def test_a_saved_folder_loads_without_the_package(fork_server, tmp_path):
    """With tokenizer, where the package cannot be imported; saved there, and loaded again."""
    model = make_with_antecedents()
    model.save_pretrained(tmp_path / "first")
    ElmoTokenizer().save_pretrained(tmp_path / "first")
    sentences = json.dumps(SENTENCES)
    output = fork_server.run_without_the_package(REMOTE, tmp_path / "first", sentences, tmp_path / "second")
    logits = model(**encode([SENTENCES], [GOLD])).logits[0, :, :2]
    torch.testing.assert_close(torch.tensor(output["logits"]), logits)
    clusters = [[tuple(mention) for mention in cluster] for cluster in output["clusters"]]
    assert clusters == model.predict(SENTENCES, ElmoTokenizer())
    again = AutoModel.from_pretrained(tmp_path / "second")
    assert again.predict(SENTENCES, AutoTokenizer.from_pretrained(tmp_path / "second")) == clusters
