"""The faster code for reading equals the readable code on odd shapes, and reads only what it wrote."""

import os
import subprocess
import sys
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elmo_hf import ElmoConfig, ElmoModel, ElmoTokenizer, kernels
from elmo_hf.kernels import characters, kept, products
from elmo_hf.kernels import reading as inference
from elmo_hf.model.modeling_elmo import lstm

pytestmark = pytest.mark.usefixtures("default_kernels")

SHAPES = st.fixed_dictionaries(
    {
        "batch": st.integers(0, 5),
        "time": st.integers(0, 7),
        "width": st.integers(1, 9),
        "cells": st.integers(1, 9),
        "output": st.integers(1, 6),
        "has_projection": st.booleans(),
        "cell_clip": st.sampled_from([None, 0.3]),
        "proj_clip": st.sampled_from([None, 0.2]),
        "words": st.sampled_from([0.0, 0.5, 0.8, 1.0]),
        "seed": st.integers(0, 2**16),
        "threads": st.sampled_from([1, 2]),
    }
)


def arguments(batch, time, width, cells, output, has_projection, cell_clip, proj_clip, words, seed, threads):
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    output = output if has_projection else cells
    weights = [torch.randn(2, width, 4 * cells), torch.randn(2, output, 4 * cells), torch.randn(2, 4 * cells)]
    weights.append(torch.randn(2, cells, output) if has_projection else None)
    x, mask = torch.randn(2, batch, time, width), torch.rand(2, batch, time) < words
    h, c = torch.randn(2, batch, output) * 0.1, torch.randn(2, batch, cells)
    return x, mask, h, c, *weights, cell_clip, proj_clip


@settings(deadline=None, max_examples=150)
@given(SHAPES)
def test_the_lstm_for_reading_is_the_lstm(shape):
    given_arguments = arguments(**shape)
    with torch.inference_mode():
        expected = lstm(*given_arguments)
        found = inference.lstm(*given_arguments)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_nothing_unwritten_is_read(poisoned, batch):
    shape = {"batch": batch, "time": 6, "width": 3, "cells": 5, "output": 2, "has_projection": True}
    shape |= {"cell_clip": 0.3, "proj_clip": 0.2, "words": 0.6, "seed": 3, "threads": 1}
    assert torch.empty(1).isnan().all()
    given_arguments = arguments(**shape)
    with torch.no_grad():
        torch.testing.assert_close(inference.lstm(*given_arguments), lstm(*given_arguments))
        outputs = inference.lstm(*given_arguments)[0]
    assert (outputs[~given_arguments[1]] == 0).all()


@pytest.mark.parametrize(("batch", "together"), [(1, True), (2, True), (3, False)])
def test_a_few_sentences_are_read_in_both_directions_together(batch, together, monkeypatch):
    shape = {"batch": batch, "time": 6, "width": 3, "cells": 5, "output": 2, "has_projection": True}
    shape |= {"cell_clip": 0.3, "proj_clip": 0.2, "words": 1.0, "seed": 3, "threads": 1}
    read, directions = inference.read, []
    monkeypatch.setattr(inference, "read", lambda x, *rest: directions.append(len(x)) or read(x, *rest))
    given_arguments = arguments(**shape)
    with torch.no_grad():
        torch.testing.assert_close(inference.lstm(*given_arguments), lstm(*given_arguments))
        assert directions == ([2] if together else [1, 1])
        monkeypatch.setattr(inference, "FEW_BYTES", 100)  # weights too large for the cache
        torch.testing.assert_close(inference.lstm(*given_arguments), lstm(*given_arguments))
    assert directions[-2:] == [1, 1]


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 40])
@pytest.mark.parametrize("has_packing", [True, False])
def test_products(rows, has_packing, monkeypatch):
    if not has_packing:
        monkeypatch.setattr(products, "_pack", lambda weight: None)
    torch.manual_seed(0)
    weight, bias, x, other = torch.randn(7, 5), torch.randn(5), torch.randn(rows, 7), torch.randn(rows, 5)
    with torch.no_grad():
        torch.testing.assert_close(products.Product(weight, bias)(x), x @ weight + bias)
        torch.testing.assert_close(products.Product(weight)(x), x @ weight)
        torch.testing.assert_close(products.Product(weight).plus(x, other.clone()), x @ weight + other)
        one = products.Product(weight).plus(x[None], other[None].clone())  # with a direction before the rows
        torch.testing.assert_close(one, (x @ weight + other)[None])
        for precision, tolerance in (("bf16", 0.06), ("int8", 0.15)):
            product = products.lay_out(weight, bias, precision)
            rounded = product(x.to(product.dtype)).float()
            torch.testing.assert_close(rounded, x @ weight + bias, atol=tolerance, rtol=0.02)


@pytest.mark.parametrize(("few", "many"), [(True, True), (True, False), (False, True), (False, False)])
def test_products_by_either_way(few, many, monkeypatch):
    """Whatever the clock says on this machine, each of the four outcomes gives the product."""
    monkeypatch.setattr(products.Product, "_packed_is_faster", lambda self, rows: few if rows == 1 else many)
    torch.manual_seed(0)
    weight, bias = torch.randn(7, 5), torch.randn(5)
    product = products.Product(weight, bias)
    with torch.no_grad():
        for rows in (1, 40):
            x = torch.randn(rows, 7)
            torch.testing.assert_close(product(x), x @ weight + bias)
            torch.testing.assert_close(product.plus(x, torch.zeros(rows, 5)), x @ weight)


def small_model(**options):
    torch.manual_seed(0)
    config = {"lstm_dim": 12, "projection_dim": 8, "char_embedding_dim": 4, "char_filters": [[1, 4], [5, 6]]}
    return ElmoModel(ElmoConfig(**(config | options))).eval()


WORDS = ["a", "word", "a", "", "x" * 47, "y" * 48, "z" * 60, "été", "<S>", "</S>", "word"]


@pytest.mark.parametrize("by_tables", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"char_activation": "tanh", "num_highway_layers": 0},
        {"char_filters": [[3, 8]], "max_characters_per_token": 5},
        {"char_filters": [[7, 3]], "char_projection": True, "max_characters_per_token": 7},
    ],
)
def test_the_character_network_with_less_work_is_the_character_network(by_tables, options):
    encoder = small_model(**options).token_encoder
    length = encoder.config.max_characters_per_token
    rows = ElmoTokenizer(max_characters_per_token=length)(WORDS, is_split_into_words=True)["char_ids"]
    torch.manual_seed(1)
    noise = torch.randint(0, 262, (20, length))
    cases = [
        torch.tensor(rows),
        torch.tensor(rows[:1]),
        torch.tensor(rows)[:0],
        noise,
        torch.zeros_like(noise),
    ]
    for rows in cases:
        with torch.no_grad():
            expected = encoder.from_embeddings(encoder.char_embedding(rows))
            found = characters.encode(encoder, rows, by_tables)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_equal_words_are_encoded_once_and_gradients_are_the_same():
    encoder = small_model().train().token_encoder
    rows = torch.tensor(ElmoTokenizer()(WORDS, is_split_into_words=True)["char_ids"])
    distinct, places = characters.distinct_rows(rows)
    assert len(distinct) == len(set(WORDS))
    assert torch.equal(distinct[places], rows)
    gradients = []
    for choice in ("readable", "auto"):
        kernels.use(choice)
        encoder.zero_grad()
        encoder(rows).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in encoder.parameters()])
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-5, rtol=1e-5)


def test_rows_with_one_key_are_told_apart(monkeypatch):
    monkeypatch.setattr(
        torch, "randint", lambda high, size, generator=None: torch.zeros(size, dtype=torch.int64)
    )
    rows = torch.tensor([[1, 2], [3, 4], [1, 2]])
    distinct, places = characters.distinct_rows(rows)
    assert len(distinct) == 2
    assert torch.equal(distinct[places], rows)


TEXTS = ["Ice cream is cold .", "No", "", "The bank of the river was covered with flowers in May ."]


def read(model, **options):
    encoding = ElmoTokenizer()(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        return model(**encoding, output_hidden_states=True, **options)


@pytest.mark.parametrize("output_states", [True, False])
@pytest.mark.parametrize("options", [{}, {"projection_dim": 12, "num_hidden_layers": 3}, {"cell_clip": None}])
def test_whole_models(options, output_states):
    model = small_model(**options)
    found = read(model, output_states=output_states)
    assert kernels.why_not() == ""
    kernels.use("readable")
    expected = read(model, output_states=output_states)
    assert kernels.why_not() == "the readable code was asked for"
    torch.testing.assert_close(found.to_tuple(), expected.to_tuple(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"projection_dim": 12}, {"num_hidden_layers": 3, "cell_clip": 0.2}])
def test_gradients_of_whole_models(options):
    gradients = []
    for choice in ("readable", "auto"):
        kernels.use(choice)
        model = small_model(**options)
        encoding = ElmoTokenizer()(TEXTS, padding=True, return_tensors="pt")
        output = model(**encoding, output_hidden_states=True, output_states=True)
        (sum(layer.square().sum() for layer in output.hidden_states) + output.states[1].sum()).backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert kernels.why_not() == ""
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-5, rtol=1e-5)


def test_transforms_of_torch_func_get_the_readable_code():
    model = small_model()
    encoding = ElmoTokenizer()(TEXTS, padding=True, return_tensors="pt")

    def loss(weights):
        output = torch.func.functional_call(model, weights, kwargs=dict(encoding))
        return output.last_hidden_state.square().sum()

    found = torch.func.grad(loss)(dict(model.named_parameters()))
    assert kernels.why_not() == "a transform of torch.func is active"
    loss(dict(model.named_parameters())).backward()
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_changed_weights_are_laid_out_anew():
    model, other = small_model(), small_model()
    read(model)
    with torch.no_grad():
        for parameter, target in zip(model.parameters(), other.parameters(), strict=True):
            parameter.mul_(0.5)
            target.mul_(0.5)
    torch.testing.assert_close(read(model).hidden_states, read(other).hidden_states, atol=1e-6, rtol=0)
    model.layers[0].projection.data = torch.zeros_like(model.layers[0].projection)
    assert (read(model).hidden_states[1] == 0).all()


@pytest.mark.parametrize(("precision", "limit"), [("bf16", 0.03), ("int8", 0.08)])
def test_reduced_precision_is_close_and_not_exact(precision, limit):
    model = small_model(lstm_dim=64, projection_dim=16)
    exact = read(model).hidden_states
    kernels.use(precision)
    rounded = read(model).hidden_states
    assert torch.equal(rounded[0], exact[0]) == (precision == "int8")  # which leaves the characters exact
    start = 1 if precision == "int8" else 0
    for layer, other in zip(rounded[start:], exact[start:], strict=True):
        error = ((layer - other).square().mean() / other.square().mean()).sqrt()
        assert 0 < error < limit


def test_the_choice_says_why_it_is_not_the_quickest():
    model = small_model()
    encoding = ElmoTokenizer()(TEXTS, padding=True, return_tensors="pt")
    model(**encoding)
    assert kernels.why_not() == ""
    with torch.no_grad():
        model.double()(**encoding)
        assert kernels.why_not() == "the tensors are not float32"
        model.float()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            model(**encoding)
        assert kernels.why_not() == "autocast is on"
        model(**encoding)
    assert kernels.why_not() == ""
    with pytest.raises(ValueError, match=r"one of auto, readable, bf16, int8, but 'fast'"):
        kernels.use("fast")
    assert kernels.chosen() == "auto"


def test_the_environment_chooses():
    program = "from elmo_hf import kernels; print(kernels.chosen())"
    environment = os.environ | {"ELMO_HF_KERNELS": "readable"}
    result = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert result.stdout.strip() == "readable"


def test_parameters_of_inference_mode_serve_as_well():
    with torch.inference_mode():
        model = small_model()
        assert model.layers[0].bias.is_inference()
        read(model)
    assert kernels.why_not() == ""


@pytest.mark.parametrize(
    "optimizer",
    [
        partial(torch.optim.AdamW, fused=True),  # counts no version of what it changes; Trainer's default
        partial(torch.optim.SGD, fused=True),
        partial(torch.optim.AdamW, foreach=True),
        torch.optim.Adagrad,
    ],
)
def test_weights_that_an_optimizer_changed_are_read_anew(optimizer):
    torch.manual_seed(0)
    config = ElmoConfig(lstm_dim=16, projection_dim=8, char_filters=[[1, 4], [2, 8]], num_highway_layers=1)
    model = ElmoModel(config).eval()
    batch = ElmoTokenizer()(["He sat .", "Why ?"], padding=True, return_tensors="pt")
    steps = optimizer(model.parameters(), lr=0.1)
    for _ in range(3):
        with torch.no_grad():
            model(**batch)  # lays the weights out
        model(**batch).last_hidden_state.square().sum().backward()
        steps.step()
        steps.zero_grad()
        fresh = ElmoModel(config).eval()
        fresh.load_state_dict(model.state_dict())
        with torch.no_grad():
            found, wanted = (one(**batch).last_hidden_state for one in (model, fresh))
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)


def test_frozen_weights_stay_laid_out_while_others_learn():
    """What a frozen model has made of its weights lasts through the steps of a task's head."""
    weight, other = torch.nn.Parameter(torch.ones(2), requires_grad=False), torch.nn.Parameter(torch.ones(2))
    made = []
    steps = torch.optim.SGD([other], lr=0.1)
    for _ in range(3):
        kept.keep(weight, [weight], None, lambda: made.append(1))
        other.grad = torch.ones(2)
        steps.step()
    assert made == [1]


def test_weights_that_changed_between_two_times_of_being_frozen_are_laid_out_anew():
    weight, made = torch.nn.Parameter(torch.ones(2), requires_grad=False), []
    steps = torch.optim.AdamW([weight], lr=0.1, fused=True)
    for count in (1, 2):
        kept.keep(weight, [weight], None, lambda: made.append(1))
        assert len(made) == count
        weight.requires_grad_(True)
        weight.grad = torch.ones(2)
        steps.step()
        weight.requires_grad_(False)


def test_weights_that_were_changed_by_their_data_are_read_anew():
    """As averages of weights are often put in place, which PyTorch does not count as a change."""
    torch.manual_seed(0)
    config = ElmoConfig(lstm_dim=16, projection_dim=8, char_filters=[[1, 4], [2, 8]], num_highway_layers=1)
    model = ElmoModel(config).eval()
    batch = ElmoTokenizer()(["He sat .", "Why ?"], padding=True, return_tensors="pt")
    for weight in model.parameters():
        with torch.no_grad():
            before = model(**batch).last_hidden_state
            weight.data.mul_(1.5).add_(0.1)
            found = model(**batch).last_hidden_state
        assert not torch.equal(found, before)
        fresh = ElmoModel(config).eval()
        fresh.load_state_dict(model.state_dict())
        with torch.no_grad():
            torch.testing.assert_close(found, fresh(**batch).last_hidden_state, atol=1e-6, rtol=0)
