"""Common to all task models: where ELMo enters, what is frozen, the penalty, own words, the layer cache.

Shown on the tagger, which is the simplest of them.
"""

import copy
import pickle

import pytest
import torch
from torch import nn

from elmo_hf import ElmoConfig, ElmoForTokenClassification, ElmoLayerCache, ElmoTokenizer

SENTENCES = [["He", "sat", "on", "the", "bank", "."], ["Why", "?"], ["The", "bank"]]
SMALL = {"lstm_dim": 12, "projection_dim": 8, "char_filters": [[1, 4], [2, 6]], "task_hidden_size": 5}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    words = sorted({word for sentence in SENTENCES for word in sentence})
    path = tmp_path_factory.mktemp("words") / "vocab.txt"
    path.write_text("\n".join(["<S>", "</S>", "<UNK>", *words]), encoding="utf-8")
    return ElmoTokenizer(path)


@pytest.fixture
def encoding(tokenizer):
    return tokenizer(SENTENCES, is_split_into_words=True, padding=True, return_tensors="pt")


def make(tokenizer, **options):
    torch.manual_seed(0)
    config = ElmoConfig(**SMALL | {"vocab_size": tokenizer.vocab_size, "num_labels": 3} | options)
    return ElmoForTokenClassification(config)


OWN_WORDS = {"task_word_dim": 7, "task_char_filters": [[2, 3], [3, 4]]}


@pytest.mark.parametrize(
    ("options", "read", "beside"),
    [
        ({}, 16, 0),
        ({"elmo_at_output": True}, 16, 16),
        ({"elmo_at_input": False, "elmo_at_output": True, "task_word_dim": 7}, 7, 16),
        ({"elmo_at_input": False, "task_word_dim": 7}, 7, 0),
        ({"elmo_at_input": False, "task_char_filters": [[2, 3]]}, 3, 0),
        (OWN_WORDS, 16 + 7 + 3 + 4, 0),
        ({"elmo_layers": "top", "elmo_at_output": True}, 16, 16),
    ],
)
def test_elmo_at_input_and_output_follows_the_config(tokenizer, encoding, options, read, beside):
    model = make(tokenizer, freeze_elmo=False, **options)
    words = model.read(**encoding)
    assert words.x.shape == (3, 6, read) == (3, 6, model.input_size)
    assert words.beside(words.x).shape[-1] == read + beside
    assert model.classifier.in_features == 10 + beside
    assert (words.x[1, 2:] == 0).all()
    model(**encoding, labels=torch.zeros(3, 6, dtype=torch.long)).loss.backward()
    idle = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.grad is None
    ]
    assert not idle
    assert any(name.startswith("elmo.") for name, _ in model.named_parameters()) == model.config.reads_elmo


def test_the_mixes_are_those_of_the_biLMs_layers(tokenizer, encoding):
    model = make(tokenizer, elmo_at_output=True, task_word_dim=7).eval()
    with torch.no_grad():
        model.input_mix.weights.copy_(torch.tensor([[0.0, 1.0, -1.0]]))
        model.input_mix.gamma.fill_(3.0)
        model.output_mix.weights.copy_(torch.tensor([[50.0, 0.0, 0.0]]))
        layers = model.elmo(**encoding, output_hidden_states=True).hidden_states
        words = model.read(**encoding, output_hidden_states=True)
    shares = torch.tensor([0.0, 1.0, -1.0]).softmax(0)
    expected = 3 * sum(share * layer for share, layer in zip(shares, layers, strict=True))
    torch.testing.assert_close(words.x[:, :, 7:], expected)
    torch.testing.assert_close(words.at_output, layers[0])
    torch.testing.assert_close(words.hidden_states, layers)
    top = make(tokenizer, elmo_layers="top").eval()
    with torch.no_grad():
        torch.testing.assert_close(top.read(**encoding).x, top.elmo(**encoding).last_hidden_state)


def test_the_config_selects_what_the_mix_learns(tokenizer):
    def learnt(**options):
        named = make(tokenizer, **options).input_mix.named_parameters()
        return {name for name, parameter in named if parameter.requires_grad}

    assert learnt() == {"weights", "gamma"}
    assert learnt(mix_gamma=False) == {"weights"}
    assert learnt(elmo_layers="top") == {"gamma"}
    assert learnt(elmo_layers="top", mix_gamma=False) == set()


def test_the_penalty_of_both_mixes_is_in_the_loss(tokenizer, encoding):
    labels, losses = torch.zeros(3, 6, dtype=torch.long), []
    for mix_l2 in (0.0, 0.5):
        model = make(tokenizer, elmo_at_output=True, mix_l2=mix_l2).eval()
        with torch.no_grad():
            model.input_mix.weights.copy_(torch.tensor([[1.0, 2.0, 3.0]]))
            model.output_mix.weights.copy_(torch.tensor([[0.0, -1.0, 0.0]]))
        losses.append(model(**encoding, labels=labels).loss)
    assert (losses[1] - losses[0]).item() == pytest.approx(0.5 * (14 + 1), rel=1e-5)


def test_a_frozen_biLM_has_no_gradient_and_no_dropout(tokenizer, encoding, tmp_path):
    make(tokenizer, elmo_dropout=0.0, dropout=0.5).save_pretrained(tmp_path)
    loaded = ElmoForTokenClassification.from_pretrained(tmp_path)
    for model in (make(tokenizer, elmo_dropout=0.0, dropout=0.5), loaded.train()):
        assert model.training
        torch.testing.assert_close(model.read(**encoding).x, model.eval().read(**encoding).x, rtol=0, atol=0)
        model.train()(**encoding, labels=torch.zeros(3, 6, dtype=torch.long)).loss.backward()
        assert all(parameter.grad is None for parameter in model.elmo.parameters())
        assert not any(parameter.requires_grad for parameter in model.elmo.parameters())
        assert model.input_mix.weights.grad.abs().sum() > 0


def test_a_tuned_biLM_learns_and_has_dropout(tokenizer, encoding):
    model = make(tokenizer, elmo_dropout=0.0, dropout=0.5, freeze_elmo=False)
    assert not torch.equal(model.read(**encoding).x, model.read(**encoding).x)
    model(**encoding, labels=torch.zeros(3, 6, dtype=torch.long)).loss.backward()
    assert all(parameter.grad is not None for parameter in model.elmo.parameters())


def test_own_words_are_rows_of_a_table_beside_letters(tokenizer, encoding):
    """By hand: each word's row, and the greatest response of each filter over its letters."""
    model = make(tokenizer, elmo_at_input=False, **OWN_WORDS).eval()
    x, own = model.read(**encoding).x, model.task_words
    for position, word in enumerate(SENTENCES[0]):
        torch.testing.assert_close(x[0, position, :7], own.word_table.weight[tokenizer.get_vocab()[word]])
        letters = own.char_embedding(encoding["char_ids"][0, position])  # (50, 16)
        expected = []
        for conv in own.convolutions:
            width = conv.kernel_size[0]
            windows = letters.unfold(0, width, 1)  # (places, 16, width)
            responses = torch.einsum("pcw,ncw->pn", windows, conv.weight) + conv.bias
            expected.append(responses.amax(dim=0).clamp(min=0))
        torch.testing.assert_close(x[0, position, 7:], torch.cat(expected))


def test_frozen_word_vectors_are_not_learnt(tokenizer):
    assert not make(tokenizer, **OWN_WORDS, freeze_task_words=True).task_words.word_table.weight.requires_grad
    assert make(tokenizer, **OWN_WORDS).task_words.word_table.weight.requires_grad


def test_new_weights_are_in_a_useful_range(tokenizer):
    model = make(tokenizer, **OWN_WORDS | {"task_word_dim": 100})
    lengths = model.task_words.word_table.weight.norm(dim=1)
    assert 0.8 < lengths.mean() < 1.2
    for lstm in (*model.rnn.forward_layers, *model.rnn.backward_layers):
        assert isinstance(lstm, nn.LSTM)
        for gate in lstm.weight_hh_l0.split(5):
            torch.testing.assert_close(gate @ gate.T, torch.eye(5))
        assert lstm.bias_ih_l0.tolist() == [0.0] * 5 + [1.0] * 5 + [0.0] * 10
        assert (lstm.bias_hh_l0 == 0).all()
    assert all((parameter == 0).all() for parameter in model.crf.parameters())


def test_a_pretrained_biLM_is_loaded_and_the_head_is_new(tokenizer, encoding, tmp_path):
    """What a backbone's folder lacks starts as in a new model, not as what memory held."""
    source = make(tokenizer)
    source.elmo.save_pretrained(tmp_path)
    model = ElmoForTokenClassification.from_pretrained(tmp_path, num_labels=5, **OWN_WORDS)
    for name, value in source.elmo.state_dict().items():
        assert torch.equal(model.elmo.state_dict()[name], value)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    assert (model.crf.transitions == 0).all()
    for gate in model.rnn.backward_layers[0].weight_hh_l0.split(5):
        torch.testing.assert_close(gate @ gate.T, torch.eye(5))
    assert model(**encoding).logits.shape == (3, 6, 5)


@pytest.mark.parametrize(
    ("options", "left_out", "message"),
    [
        ({"lstm_dim": 8, "projection_dim": 12}, None, "words have 24 numbers and its layers 16"),
        ({}, "char_ids", "reads words letter by letter and needs char_ids"),
        ({"task_word_dim": 7}, "input_ids", "needs input_ids"),
    ],
)
def test_mistakes_are_refused_in_one_sentence(tokenizer, encoding, options, left_out, message):
    inputs = {name: value for name, value in encoding.items() if name != left_out}
    with pytest.raises(ValueError, match=message) as error:
        make(tokenizer, **options)(**inputs)
    assert "\n" not in str(error.value)


# ---- the layer cache


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("elmo_layers", ["mix", "top"])
def test_a_sentence_is_encoded_once_and_its_layers_are_bit_equal(
    tokenizer, tmp_path, monkeypatch, on_disk, elmo_layers
):
    model = make(tokenizer, elmo_at_output=True, elmo_layers=elmo_layers).eval()
    calls, run = [], ElmoLayerCache._read  # a hook on the biLM would switch the cache off
    monkeypatch.setattr(ElmoLayerCache, "_read", lambda *arguments: calls.append(1) or run(*arguments))

    def read(sentences, **options):
        encoding = tokenizer(
            sentences, is_split_into_words=True, padding=True, return_tensors="pt", **options
        )
        with torch.no_grad():
            return model.read(**encoding)

    plain = read(SENTENCES)
    model.elmo_cache = ElmoLayerCache(tmp_path if on_disk else None)
    first = read(SENTENCES)
    assert calls == [1]
    assert torch.equal(first.x, plain.x)
    assert torch.equal(first.at_output, plain.at_output)
    # In another order, on the other side, with other padding: the same numbers.
    again = read(SENTENCES[::-1], padding_side="left", pad_to_multiple_of=8)
    assert calls == [1]
    assert (model.elmo_cache.encoded, model.elmo_cache.reused) == (3, 3)
    for sentence, x, expected in zip(SENTENCES[::-1], again.x, plain.x.flip(0), strict=True):
        assert torch.equal(x[-len(sentence) :], expected[: len(sentence)])
        assert (x[: -len(sentence)] == 0).all()
    read([["Why", "?"], ["Why", "not"], ["Why", "not"]])
    assert (model.elmo_cache.encoded, model.elmo_cache.reused) == (4, 5)
    assert not list(tmp_path.iterdir())  # the file has no name


def test_the_cache_starts_over_when_the_weights_change(tokenizer, encoding, tmp_path):
    model, folder = make(tokenizer).eval(), tmp_path
    for cache in (ElmoLayerCache(), ElmoLayerCache(folder)):
        model.elmo_cache = cache
        before = model.read(**encoding).x
        model.elmo.layers[0].bias.data.add_(0.1)  # which PyTorch does not count as a change
        after = model.read(**encoding).x
        model.elmo_cache = None
        assert not torch.allclose(before, after)
        assert torch.equal(after, model.read(**encoding).x)


def test_the_cache_stays_when_the_same_weights_are_loaded_again(tokenizer, encoding):
    """As a recipe does when it goes back to its best epoch."""
    model = make(tokenizer).eval()
    model.elmo_cache = ElmoLayerCache()
    model.read(**encoding)
    model.load_state_dict({name: weight.clone() for name, weight in model.state_dict().items()})
    model.read(**encoding)
    assert (model.elmo_cache.encoded, model.elmo_cache.reused) == (3, 3)


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copied_model_has_an_empty_cache_of_its_own(tokenizer, encoding, tmp_path, on_disk, copied):
    model = make(tokenizer).eval()
    model.elmo_cache = ElmoLayerCache(tmp_path if on_disk else None)
    expected = model.read(**encoding).x
    duplicate = copied(model)
    assert duplicate.elmo_cache.encoded == 0
    assert torch.equal(duplicate.read(**encoding).x, expected)
    assert (duplicate.elmo_cache.encoded, model.elmo_cache.encoded) == (3, 3)


def test_the_cache_keeps_all_layers_apart_from_the_top_alone(tokenizer, encoding):
    model = make(tokenizer, elmo_layers="top").eval()
    model.elmo_cache = ElmoLayerCache()
    top = model.read(**encoding)
    all_layers = model.read(**encoding, output_hidden_states=True)
    assert top.hidden_states is None
    assert len(all_layers.hidden_states) == 3
    torch.testing.assert_close(all_layers.x, top.x)


def test_a_cache_in_no_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="absent is no folder for the cache's file"):
        ElmoLayerCache(tmp_path / "absent")


def test_a_tuned_biLM_is_not_cached(tokenizer, encoding):
    model = make(tokenizer, freeze_elmo=False)
    model.elmo_cache = ElmoLayerCache()
    with pytest.raises(ValueError, match="a biLM that is tuned cannot be cached"):
        model(**encoding)


def test_training_with_the_cache_is_training_without_it(tokenizer, encoding):
    losses = []
    for cache in (None, ElmoLayerCache()):
        model = make(tokenizer, dropout=0.5)
        model.elmo_cache = cache
        optimizer = torch.optim.Adam(
            (parameter for parameter in model.parameters() if parameter.requires_grad), lr=0.01
        )
        torch.manual_seed(1)
        for _ in range(5):
            loss = model(**encoding, labels=torch.ones(3, 6, dtype=torch.long)).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[0] == losses[1]
