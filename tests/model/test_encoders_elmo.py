"""Letters of a lexicon, words beside them, stacked LSTMs and stored mixes equal a numpy reference.

All layers and gradients do, with any padding, and kernels on and off.
"""

import json

import numpy as np
import pytest
import torch

from elmo_hf import ElmoConfig, ElmoForTokenClassification, ElmoLayerCache, ElmoModel, kernels
from tests.helpers import naive_elmo
from tests.helpers.varied_elmo import KINDS, scramble, varied_batch, varied_config, varied_model, weights_of

pytestmark = pytest.mark.usefixtures("default_kernels")

STACKS = [kind for kind in KINDS if "stack" in kind]


def assert_equals_the_reference(hidden_states, mask, model, sentences, atol=1e-5):
    weights = weights_of(model)
    for row, sentence in enumerate(sentences):
        expected = naive_elmo.read(model.config, weights, sentence)
        assert len(hidden_states) == len(expected)
        for actual, layer in zip(hidden_states, expected, strict=True):
            assert (actual[row][mask[row] == 0] == 0).all()
            words = actual[row][mask[row] == 1].detach().numpy()
            np.testing.assert_allclose(words, layer.reshape(words.shape), atol=atol, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["right", "left", "between"])
@pytest.mark.parametrize("choice", ["auto", "readable"])
def test_all_layers_equal_the_reference(kind, side, choice):
    kernels.use(choice)
    model = varied_model(kind)
    batch, sentences = varied_batch(model, seed=1, side=side)
    for learns in (False, True):
        with torch.set_grad_enabled(learns):
            hidden_states = model(**batch, output_hidden_states=True).hidden_states
        assert_equals_the_reference(hidden_states, batch["attention_mask"], model, sentences)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("choice", ["auto", "readable"])
def test_gradients_equal_differences_of_the_reference(kind, choice):
    """In the direction of a random change of all weights."""
    kernels.use(choice)
    model = varied_model(kind, cell_clip=None, proj_clip=None, char_activation="tanh").double()
    batch, sentences = varied_batch(model, seed=2)
    is_word = batch["attention_mask"].bool()
    layers = model(**batch, output_hidden_states=True).hidden_states
    sum(layer[is_word].sin().sum() for layer in layers).backward()
    random = np.random.default_rng(0)
    gradients = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    change = {name: random.normal(size=gradient.shape) for name, gradient in gradients.items()}
    expected = sum((gradients[name] * change[name]).sum() for name in change)

    def loss(step):
        weights = {name: w + step * change.get(name, 0) for name, w in weights_of(model).items()}
        read = [naive_elmo.read(model.config, weights, sentence) for sentence in sentences]
        return sum(np.sin(layer).sum() for sentence in read for layer in sentence)

    # Row 0 of the letters has no gradient, and no sentence reads it.
    assert (
        "char_embedding" not in "".join(gradients)
        or not gradients["token_encoder.char_embedding.weight"][0].any()
    )
    assert (loss(1e-6) - loss(-1e-6)) / 2e-6 == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "num_mixes" in KINDS[kind]])
def test_stored_mixes(kind, tmp_path):
    model = varied_model(kind)
    model.save_pretrained(tmp_path)
    loaded = ElmoModel.from_pretrained(tmp_path).eval()
    batch, sentences = varied_batch(model)
    mixes = loaded.scalar_mix(loaded(**batch, output_hidden_states=True).hidden_states)
    mixes = [mixes] if isinstance(mixes, torch.Tensor) else mixes
    assert len(mixes) == model.config.num_mixes
    weights = weights_of(model)
    for row, sentence in enumerate(sentences):
        expected = naive_elmo.mix(weights, naive_elmo.read(model.config, weights, sentence))
        for actual, mix in zip(mixes, expected, strict=True):
            words = actual[row, : len(sentence)].detach().numpy()
            np.testing.assert_allclose(words, mix.reshape(words.shape), atol=1e-5, rtol=0)


def test_a_mix_that_the_checkpoint_lacks_starts_as_the_mean(tmp_path):
    varied_model("letters").save_pretrained(tmp_path)
    model = ElmoModel.from_pretrained(tmp_path, num_mixes=2)
    assert (model.scalar_mix.weights == 0).all()
    assert (model.scalar_mix.gamma == 1).all()
    assert ElmoModel.from_pretrained(tmp_path).scalar_mix is None


@pytest.mark.parametrize("freeze_elmo", [True, False])
def test_a_stored_mix_is_not_trained(freeze_elmo, tmp_path):
    config = varied_config("words beside letters", freeze_elmo=freeze_elmo, task_hidden_size=3, num_labels=2)
    ElmoForTokenClassification(config).save_pretrained(tmp_path)
    head = ElmoForTokenClassification.from_pretrained(tmp_path).train()
    batch, _ = varied_batch(head.elmo)
    head(**batch, labels=torch.zeros_like(batch["attention_mask"])).loss.backward()
    trained = {name for name, parameter in head.named_parameters() if parameter.requires_grad}
    assert any(name.startswith("elmo.") for name in trained) is not freeze_elmo
    assert trained == {name for name, parameter in head.named_parameters() if parameter.grad is not None}
    assert not any("scalar_mix" in name for name in trained)
    assert {"elmo.scalar_mix.weights", "elmo.scalar_mix.gamma"} <= head.state_dict().keys()


REMOTE = """
    import sys
    import json
    import torch
    from transformers import AutoModel
    layers = []
    for folder, ids, new in zip(*map(json.loads, sys.argv[1:]), strict=True):
        model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
        model.save_pretrained(new)
        hidden_states = model(char_ids=torch.tensor(ids), output_hidden_states=True).hidden_states
        layers.append([layer.tolist() for layer in (*hidden_states, *model.scalar_mix(hidden_states))])
    print(json.dumps(layers))
"""


def test_saved_folders_load_without_the_package(fork_server, tmp_path):
    kinds, folders, ids, expected = ["words beside letters", "a stack"], [], [], []
    for kind in kinds:
        model = varied_model(kind, num_mixes=2)
        model.save_pretrained(tmp_path / kind)
        assert (tmp_path / kind / "encoders_elmo.py").is_file()
        batch, _ = varied_batch(model)
        hidden_states = model(**batch, output_hidden_states=True).hidden_states
        expected.append([*hidden_states, *model.scalar_mix(hidden_states)])
        folders.append(tmp_path / kind)
        ids.append(batch["char_ids"].tolist())
    for copy in ("second", "third"):
        new = [str(tmp_path / copy / kind) for kind in kinds]
        arguments = [json.dumps(values) for values in (list(map(str, folders)), ids, new)]
        actual = fork_server.run_without_the_package(REMOTE, *arguments)
        for layers, want in zip(actual, expected, strict=True):
            for layer, wanted in zip(layers, want, strict=True):
                torch.testing.assert_close(torch.tensor(layer), wanted)
        folders = new


# ---- task models and caches


@pytest.mark.parametrize("kind", ["words beside letters", "letters", "a stack", "a stack on words"])
def test_a_cache_of_layers(kind):
    config = varied_config(kind, task_hidden_size=3, num_labels=2, use_crf=False)
    head = scramble(ElmoForTokenClassification(config))
    batch, _ = varied_batch(head.elmo)
    expected = head(**batch).logits
    head.elmo_cache = ElmoLayerCache()
    for _ in range(2):
        torch.testing.assert_close(head(**batch).logits, expected, atol=1e-6, rtol=1e-5)
    rows = len(batch["attention_mask"])
    assert (head.elmo_cache.encoded, head.elmo_cache.reused) == (rows, rows)


def test_a_cache_notices_a_changed_weight_of_a_stack():
    config = varied_config("a stack", task_hidden_size=3, num_labels=2, use_crf=False)
    head = scramble(ElmoForTokenClassification(config))
    head.elmo_cache = ElmoLayerCache()
    batch, _ = varied_batch(head.elmo)
    before = head(**batch).logits
    head.elmo.layers[0].rnn.backward_layers[1].weight_hh_l0.data[0] += 1
    after = head(**batch).logits
    assert not torch.equal(after, before)
    head.elmo_cache = None
    torch.testing.assert_close(head(**batch).logits, after)


def test_the_characters_of_a_task_are_the_letters_without_the_word():
    options = {"task_char_filters": [[1, 2], [2, 3]], "task_char_embedding_dim": 2, "task_hidden_size": 3}
    head = scramble(
        ElmoForTokenClassification(varied_config("words beside letters", **options, num_labels=2))
    )
    network = head.task_words
    assert network.char_embedding.num_embeddings == 40
    batch, _ = varied_batch(head.elmo)
    ids, mask = batch["char_ids"], batch["attention_mask"].bool()
    words = network(None, ids, mask)
    other = ids.clone()
    other[..., -1] = torch.where(mask, 1, 0)  # other words of the same letters
    assert torch.equal(network(None, other, mask), words)
    x = network.char_embedding(ids[0, :1, :8]).transpose(1, 2)
    expected = torch.cat([conv(x).amax(-1).relu() for conv in network.convolutions], dim=-1)
    torch.testing.assert_close(words[0, :1], expected)


# ---- weights at the start


def test_weights_start():
    torch.manual_seed(0)
    options = {"lstm_dim": 40, "projection_dim": 20, "vocab_size": 500, "word_embedding_dim": 30}
    model = ElmoModel(varied_config("a stack", **options))
    letters, words = model.token_encoder.char_embedding.weight, model.token_encoder.word_embedding.weight
    assert (letters[0] == 0).all()
    for weight in (letters[1:], words):
        assert 0.9 < weight.abs().max() <= 1
    for lstm in [*model.layers[0].rnn.forward_layers, *model.layers[0].rnn.backward_layers]:
        for gate in lstm.weight_hh_l0.chunk(4):
            torch.testing.assert_close(gate @ gate.T, torch.eye(40), atol=1e-5, rtol=0)
        forget = (lstm.bias_ih_l0 + lstm.bias_hh_l0).reshape(4, 40)
        assert forget.mean(dim=1).tolist() == [0, 1, 0, 0]
    assert (model.layers[0].projection.bias == 0).all()
    assert model.layers[0].projection.weight.std().item() == pytest.approx(40**-0.5, rel=0.1)


# ---- mistakes


@pytest.mark.parametrize("kind", STACKS)
def test_a_stack_has_no_states(kind):
    model = varied_model(kind)
    batch, _ = varied_batch(model)
    ids = next(iter(batch.values()))
    calls = [
        lambda: model(**batch, output_states=True),
        lambda: model(**batch, states=model.zero_states(4)),
        lambda: model.read_windows(torch.stack([ids, ids.flip(1)])),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"^this ELMo has no states, .*\.$"):
            call()
    kept = model(**batch, keep_boundaries=True).last_hidden_state[1:2, :8]  # the longest, 6 words
    torch.testing.assert_close(kept[:, 1:7], model(**batch).last_hidden_state[1:2, :6])


def test_why_a_stack_is_not_served():
    model = varied_model("a stack")
    model(**varied_batch(model)[0])
    assert kernels.why_not() == "stacked LSTMs have no faster code"
    kernels.use("readable")
    model(**varied_batch(model)[0])
    assert kernels.why_not() == "the readable code was asked for"


def rows(*shape, value=1, length=9):
    return torch.full((*shape, length), value)


def with_last(ids, value):
    ids[..., -1] = value
    return ids


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            {"char_ids": rows(1, 2, length=8)},
            r"the shape \(batch, words, 9\), .*per_token=8, and word_column",
        ),
        (
            {"char_ids": with_last(rows(1, 2), 13)},
            r"the last column of char_ids .* from 0 to 12, but holds 13",
        ),
        ({"char_ids": with_last(rows(1, 2, value=40), 3)}, "char_ids must be from 0 to 39, but holds 40"),
        ({"inputs_embeds": torch.ones(1, 2, 8, 3)}, r"\(batch, words, 4\), but has .* also reads words"),
    ],
)
def test_wrong_inputs_are_refused_in_one_sentence(inputs, message):
    with pytest.raises(ValueError, match=message) as error:
        varied_model("words beside letters")(**inputs)
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(".")


def test_the_last_id_of_a_word_is_read():
    model = varied_model("words beside letters")
    model(char_ids=with_last(rows(1, 2), 12))


@pytest.mark.parametrize("kind", ["letters", "words beside bytes"])
def test_warming_up_needs_the_tokenizer_of_the_letters(kind):
    with pytest.raises(
        ValueError, match=r"letters of its own needs its tokenizer: warm_up\(text, tokenizer\)"
    ):
        varied_model(kind).warm_up("Some text .")


def test_as_many_letters_as_bytes_are_still_letters():
    model = varied_model("letters", num_characters=262)
    assert not model.config.reads_bytes
    with pytest.raises(ValueError, match="letters of its own needs its tokenizer"):
        model.warm_up("Some text .")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_characters": 0}, "num_characters must be at least 1, but is 0"),
        ({"num_characters": 2**22}, "num_characters must be at most 2097152"),
        ({"num_characters": 261}, r"boundary_characters must be five different ids .* from 1 to 260"),
        ({"boundary_characters": [1, 2, 3, 4]}, "must be five different ids"),
        ({"boundary_characters": [1, 2, 3, 4, 4]}, "must be five different ids"),
        ({"boundary_characters": [0, 2, 3, 4, 5]}, "must be five different ids"),
        ({"boundary_characters": [1, 2, 3, 4, 262]}, "from 1 to 261, but are"),
        ({"boundary_characters": "abcde"}, "boundary_characters"),
        ({"word_embedding_dim": -1}, "word_embedding_dim must be 0 or more"),
        ({"word_embedding_dim": 3, "char_projection": False}, "words beside characters .* need one"),
        ({"word_embedding_dim": 3, "bos_token_id": None}, "need bos_token_id and eos_token_id"),
        ({"stacked_lstm_layers": 2}, "num_hidden_layers=1"),
        ({"stacked_lstm_layers": 2, "num_hidden_layers": 1, "has_warm_state": True}, "no warm state"),
        ({"stacked_lstm_layers": 2, "num_hidden_layers": 1, "lstm_projection": False}, "lstm_projection"),
        ({"num_mixes": -1}, "num_mixes must be 0 or more"),
        ({"num_mixes": 1, "lstm_projection": False}, "num_mixes is 1, but .* cannot be mixed"),
        ({"lstm_projection": 1}, "lstm_projection"),
    ],
)
def test_wrong_settings_are_refused_in_one_sentence(options, message):
    with pytest.raises(ValueError, match=rf"^ElmoConfig: .*{message}") as error:
        ElmoConfig(**options)
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(".")


def test_the_library_of_0_1_0_reads_the_config_of_a_model_without_these_options(tmp_path):
    ElmoConfig(vocab_size=9).save_pretrained(tmp_path / "old")
    varied_config("words beside letters").save_pretrained(tmp_path / "new")
    names = ["num_characters", "boundary_characters", "word_embedding_dim", "num_mixes"]
    names += ["lstm_projection", "stacked_lstm_layers"]
    old, new = ((tmp_path / name / "config.json").read_text() for name in ("old", "new"))
    assert not any(name in old for name in names)
    assert all(f'"{name}"' in new for name in names[:4])
    loaded = ElmoConfig.from_pretrained(tmp_path / "new")
    assert loaded.boundary_characters == [35, 36, 38, 37, 39]
    assert (loaded.num_characters, loaded.word_embedding_dim, loaded.num_mixes) == (40, 3, 1)
    assert ElmoConfig.from_pretrained(tmp_path / "old").boundary_characters == [257, 258, 259, 260, 261]
