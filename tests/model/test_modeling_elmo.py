"""Invariants of every ELMo: no influence of future words, padding, other sentences or earlier calls."""

import pytest
import torch

from elmo_hf import ElmoConfig, ElmoModel, ElmoTokenizer
from elmo_hf.kernels import products
from elmo_hf.model.modeling_elmo import ElmoLayer, lstm

SENTENCES = ["Ice cream is cold .", "No", "", "The bank of the river was covered with flowers in May ."]


def make_config(**options):
    small = {"lstm_dim": 12, "projection_dim": 8, "char_embedding_dim": 4, "char_filters": [[1, 4], [3, 6]]}
    return ElmoConfig(**(small | {"cell_clip": 0.5, "proj_clip": 0.2, "vocab_size": 30} | options))


def make_model(scale=1.0, **options):
    torch.manual_seed(0)
    model = ElmoModel(make_config(**options)).eval()
    with torch.no_grad():
        for layer in model.layers:
            layer.recurrent_weight.mul_(scale)
    return model


def read(model, sentences, side="right", **options):
    encoding = ElmoTokenizer(word_splitter="whitespace")(
        sentences, padding=True, padding_side=side, return_tensors="pt"
    )
    with torch.no_grad():
        output = model(**encoding, output_hidden_states=True, **options)
    layers = torch.stack(output.hidden_states)
    return [layers[:, row, mask.bool()] for row, mask in enumerate(encoding["attention_mask"])], output


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3], [3, 3, 0]])
def test_neither_padding_nor_order_nor_neighbours_change_a_vector(side, order):
    model = make_model(scale=3.0)
    alone = [read(model, [sentence])[0][0] for sentence in SENTENCES]
    together, output = read(model, [SENTENCES[number] for number in order], side=side)
    for number, layers in zip(order, together, strict=True):
        assert layers.shape == alone[number].shape == (3, len(SENTENCES[number].split()), 16)
        torch.testing.assert_close(layers, alone[number], atol=1e-6, rtol=0)
    assert all(torch.isfinite(layer).all() for layer in output.hidden_states)


def test_padding_is_zero_and_its_content_does_not_matter():
    model = make_model()
    encoding = ElmoTokenizer()(SENTENCES, padding=True, return_tensors="pt")
    output = model(**encoding, output_hidden_states=True)
    padding = encoding["attention_mask"] == 0
    assert padding.any()
    assert all((layer[padding] == 0).all() for layer in output.hidden_states)
    embeds = model.token_encoder(encoding["char_ids"])
    embeds = embeds.masked_fill(padding[:, :, None], float("nan"))
    nan_in_empty_tensors = model(
        inputs_embeds=embeds, attention_mask=encoding["attention_mask"], output_hidden_states=True
    )
    torch.testing.assert_close(nan_in_empty_tensors.hidden_states, output.hidden_states, atol=1e-6, rtol=0)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("place", [0, 3, 6])
def test_the_forward_half_sees_no_future_and_the_backward_half_no_past(place, side, monkeypatch):
    # As in models of usual size; in PyTorch's product, which small ones take, last digits depend on the row.
    monkeypatch.setattr(products, "FEW_NUMBERS", 1)
    model = make_model(num_hidden_layers=3)
    words = ["one", "two", "three", "four", "five", "six", "seven"]
    changed = [*words[:place], "xyz", *words[place + 1 :]]
    batch = [" ".join(words) + " eight nine", " ".join(words)]
    before = read(model, batch, side)[0][1]
    after = read(model, [batch[0], " ".join(changed)], side)[0][1]
    moved = ((before - after).abs() > 1e-9).unflatten(-1, (2, -1)).any(dim=-1)  # (layers, words, directions)
    places = torch.arange(7)
    assert torch.equal(moved[0, :, 0], places == place)  # the word itself, without context
    for layer in (1, 2, 3):
        assert torch.equal(moved[layer, :, 0], places >= place)
        assert torch.equal(moved[layer, :, 1], places <= place)


def test_no_state_is_kept_between_calls():
    model = make_model()
    first, second = read(model, SENTENCES)[1], read(model, SENTENCES)[1]
    assert torch.equal(first.last_hidden_state, second.last_hidden_state)
    zeros = (torch.zeros(2, 2, 4, 8), torch.zeros(2, 2, 4, 12))
    from_zeros = read(model, SENTENCES, states=zeros)[1].last_hidden_state  # reads the begin in every row
    torch.testing.assert_close(from_zeros, first.last_hidden_state, atol=1e-6, rtol=0)
    assert first.states is None


def test_states_continue_where_the_last_call_stopped():
    model = make_model()
    _, output = read(model, SENTENCES[:2], output_states=True)
    h, c = output.states
    assert h.shape == (2, 2, 2, 8)
    assert c.shape == (2, 2, 2, 12)
    carried = read(model, SENTENCES[:1], states=output.states, output_states=True)[1]
    fresh = read(model, SENTENCES[:1])[1]
    assert not torch.allclose(carried.last_hidden_state, fresh.last_hidden_state, atol=1e-4)
    # The second row was not read, so its state is as it was.
    assert torch.equal(carried.states[0][:, :, 1], h[:, :, 1])
    assert torch.equal(carried.states[1][:, :, 1], c[:, :, 1])
    # A third row starts from zeros.
    grown = read(model, [SENTENCES[1], SENTENCES[1], SENTENCES[0]], states=output.states)[0][2]
    torch.testing.assert_close(grown, read(model, [SENTENCES[0]])[0][0], atol=1e-6, rtol=0)


def test_a_warm_state_is_stored_and_used_only_when_asked_for(tmp_path):
    model = make_model()
    cold = read(model, SENTENCES)[1].last_hidden_state
    with pytest.raises(ValueError, match="no warm state"):
        model.warm_states(1)
    model.warm_up("Some text .\n\nAnd some more of it .")
    assert torch.equal(read(model, SENTENCES)[1].last_hidden_state, cold)

    _, first = read(model, ["Some text ."], output_states=True)
    _, second = read(model, ["And some more of it ."], states=first.states, output_states=True)
    torch.testing.assert_close(model.warm_states(1), second.states)

    model.save_pretrained(tmp_path)
    loaded = ElmoModel.from_pretrained(tmp_path, use_warm_state=True).eval()
    warm = read(loaded, SENTENCES)[1].last_hidden_state
    asked = read(model, SENTENCES, states=model.warm_states(4))[1].last_hidden_state
    torch.testing.assert_close(warm, asked, atol=1e-6, rtol=0)
    assert not torch.allclose(warm, cold, atol=1e-4)
    with pytest.raises(ValueError, match="only empty lines"):
        model.warm_up(" \n")


@pytest.mark.parametrize("char_embeds", [True, False])
def test_inputs_embeds_stand_for_characters_or_words(char_embeds):
    model = make_model()
    encoding = ElmoTokenizer()(SENTENCES, padding=True, return_tensors="pt")
    expected = model(**encoding).last_hidden_state
    encoder = model.token_encoder
    source = model.get_input_embeddings() if char_embeds else encoder
    embeds = source(encoding["char_ids"])
    assert embeds.dim() == (4 if char_embeds else 3)
    vectors = model(inputs_embeds=embeds, attention_mask=encoding["attention_mask"]).last_hidden_state
    torch.testing.assert_close(vectors, expected)


def test_boundaries_are_dropped_unless_kept():
    model = make_model()
    encoding = ElmoTokenizer()("Ice cream", return_tensors="pt")
    dropped = model(**encoding).last_hidden_state
    kept = model(**encoding, output_hidden_states=True, keep_boundaries=True)
    assert dropped.shape == (1, 2, 16)
    torch.testing.assert_close(kept.last_hidden_state[:, 1:-1], dropped)
    rows = ElmoTokenizer()(["<S>", "</S>"], is_split_into_words=True, return_tensors="pt")["char_ids"]
    begin, end = model.token_encoder(rows)[0]
    torch.testing.assert_close(kept.hidden_states[0][0, 0], begin.repeat(2))
    torch.testing.assert_close(kept.hidden_states[0][0, -1], end.repeat(2))


# ---- gradients


def random_lstm(has_projection):
    """Three rows: padding on the right (and, for the other direction, on the left), nothing else, none."""
    torch.manual_seed(1)
    double = {"dtype": torch.float64}
    cells, output = (3, 2) if has_projection else (2, 2)
    x = torch.randn(2, 3, 3, 2, **double)
    mask = torch.ones(2, 3, 3, dtype=torch.bool)
    mask[:, 0] = torch.tensor([[True, True, False], [False, True, True]])
    mask[:, 1] = False
    h, c = torch.randn(2, 3, output, **double) * 0.1, torch.randn(2, 3, cells, **double)
    weights = [
        torch.randn(2, 2, 4 * cells, **double),
        torch.randn(2, output, 4 * cells, **double),
        torch.randn(2, 4 * cells, **double),
    ]
    weights.append(torch.randn(2, cells, output, **double) if has_projection else None)
    return x, mask, h, c, weights


@pytest.mark.parametrize("has_projection", [True, False])
@pytest.mark.parametrize(("cell_clip", "proj_clip"), [(None, None), (0.4, 0.3)])
def test_gradcheck_of_the_lstm(has_projection, cell_clip, proj_clip):
    x, mask, h, c, weights = random_lstm(has_projection)
    outputs, last_h, last_c = lstm(x, mask, h, c, *weights, cell_clip, proj_clip)
    if cell_clip is not None:  # both clips cut some numbers and leave others
        assert 0 < (last_c[:, 2].abs() == cell_clip).sum() < last_c[:, 2].numel()
        if has_projection:
            assert 0 < (outputs[:, 2].abs() == proj_clip).sum() < outputs[:, 2].numel()
    assert torch.equal(last_h[:, 1], h[:, 1])  # nothing but padding: the state passes by
    assert (outputs[:, 1] == 0).all()

    tensors = [tensor.requires_grad_() for tensor in (x, h, c, *weights) if tensor is not None]

    def function(x, h, c, *weights):
        weights = [*weights, *([None] if len(weights) == 3 else [])]
        return lstm(x, mask, h, c, *weights, cell_clip, proj_clip)

    assert torch.autograd.gradcheck(function, tensors)


def test_gradcheck_of_a_whole_model_through_residual_mask_and_states():
    torch.manual_seed(0)
    model = ElmoModel(make_config(lstm_dim=3, projection_dim=2, dropout=0.0)).double()
    with torch.no_grad():
        for layer in model.layers:
            layer.recurrent_weight.normal_()
            layer.input_weight.normal_()
    mask = torch.tensor([[1, 1, 0], [0, 1, 1], [0, 0, 0]])
    words = torch.randn(3, 3, 2, dtype=torch.float64, requires_grad=True)
    states = [torch.randn(2, 2, 3, size, dtype=torch.float64, requires_grad=True) for size in (2, 3)]

    def function(words, h, c):
        output = model(
            inputs_embeds=words, attention_mask=mask, states=(h, c), output_states=True, keep_boundaries=True
        )
        return output.last_hidden_state, *output.states

    assert torch.autograd.gradcheck(function, (words, *states))


def test_a_hidden_state_has_a_gradient_and_it_is_the_whole_gradient():
    """The word layer feeds everything above, so its gradient equals that of the words put in."""
    model = make_model()
    words = torch.randn(2, 4, 8, requires_grad=True)
    output = model(inputs_embeds=words, output_hidden_states=True)
    output.hidden_states[0].retain_grad()
    output.last_hidden_state.square().sum().backward()
    forward, backward = output.hidden_states[0].grad.chunk(2, dim=-1)
    torch.testing.assert_close(forward + backward, words.grad)


# ---- training


def test_dropout_falls_on_a_layers_input_before_the_residual():
    """With weights of zero an LSTM puts out zero, so a residual layer shows its own dropped input."""
    layer = ElmoLayer(make_config(dropout=0.25), index=1).train()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    x, mask = torch.ones(2, 3, 50, 8), torch.ones(2, 3, 50, dtype=torch.bool)
    zeros = torch.zeros(2, 3, 8), torch.zeros(2, 3, 12)
    outputs = layer(x, mask, *zeros)[0]
    assert outputs.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert 0.15 < (outputs == 0).float().mean() < 0.35
    first = ElmoLayer(make_config(dropout=0.25), index=0)
    assert not first.adds_input


def test_weights_start_as_in_bilm_tf():
    def spread(tensor):
        return tensor.std().item()

    torch.manual_seed(0)
    config = ElmoConfig(
        lstm_dim=200, projection_dim=50, char_filters=[[1, 32], [5, 128]], num_hidden_layers=1, vocab_size=9
    )
    relu, tanh = ElmoModel(config), ElmoModel(ElmoConfig(**(config.to_dict() | {"char_activation": "tanh"})))
    letters = relu.token_encoder.char_embedding.weight
    assert (letters[0] == 0).all()
    assert letters[1:].abs().max() <= 1
    assert spread(letters[1:]) == pytest.approx(3**-0.5, rel=0.05)
    conv = relu.token_encoder.convolutions[1].weight
    assert 0.049 < conv.abs().max() <= 0.05
    assert spread(tanh.token_encoder.convolutions[1].weight) == pytest.approx((5 * 16) ** -0.5, rel=0.05)
    highway = relu.token_encoder.highways[0]
    assert (highway.carry.bias == -2).all()
    assert (highway.transform.bias == 0).all()
    assert spread(highway.transform.weight) == pytest.approx(160**-0.5, rel=0.05)
    assert spread(relu.token_encoder.projection.weight) == pytest.approx(160**-0.5, rel=0.05)
    layer = relu.layers[0]
    limit = (6 / (50 + 50 + 800)) ** 0.5
    assert layer.input_weight.abs().max().item() == pytest.approx(limit, rel=0.01)
    assert layer.recurrent_weight.abs().max().item() == pytest.approx(limit, rel=0.01)
    assert layer.projection.abs().max().item() == pytest.approx((6 / 250) ** 0.5, rel=0.01)
    assert (layer.bias == 0).all()


# ---- mistakes


def chars(*shape, length=50, value=1):
    return torch.full((*shape, length), value)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "needs char_ids"),
        ({"input_ids": torch.zeros(1, 2, dtype=torch.long)}, "needs char_ids"),
        ({"char_ids": chars(1, 2, length=20)}, "max_characters_per_token=50"),
        ({"char_ids": chars(2)}, r"\(batch, words, 50\)"),
        ({"char_ids": chars(1, 2, value=262)}, "char_ids must be from 0 to 261, but holds 262"),
        ({"char_ids": chars(1, 2, value=-1)}, "but holds -1"),
        ({"char_ids": chars(1, 2), "attention_mask": torch.ones(1, 3)}, r"\(1, 2\) of the words"),
        ({"inputs_embeds": torch.ones(1, 2, 9)}, r"\(batch, words, 8\) or \(batch, words, 50, 4\)"),
        (
            {"char_ids": chars(1, 2), "states": (torch.ones(2, 2, 1, 8), torch.ones(2, 2, 1, 9))},
            "states must",
        ),
    ],
)
def test_wrong_inputs_are_refused_in_one_sentence(inputs, message):
    with pytest.raises(ValueError, match=message) as error:
        make_model()(**inputs)
    assert "\n" not in str(error.value)


def test_a_word_table_takes_word_ids():
    model = make_model(token_encoder="words")
    ids = torch.tensor([[3, 4, 5], [6, 30, 30]])
    output = model(ids)
    torch.testing.assert_close(output.last_hidden_state[1:, :1], model(ids[1:, :1]).last_hidden_state)
    assert (output.last_hidden_state[1, 1:] == 0).all()
    assert model.get_input_embeddings().weight.shape == (30, 8)
    for wrong, message in (
        (None, "needs input_ids"),
        (ids[0], r"\(batch, words\)"),
        (ids + 5, "from 0 to 30"),
    ):
        with pytest.raises(ValueError, match=message):
            model(wrong)
    with pytest.raises(ValueError, match="warm_up\\(text, tokenizer\\)"):
        model.warm_up("text")


def test_the_vocabulary_cannot_be_resized_in_place():
    with pytest.raises(ValueError, match="cannot be resized"):
        make_model().resize_token_embeddings(40)
