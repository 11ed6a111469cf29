"""The LSTM for reading equals the readable LSTM on any shape and reads no memory that it has not written."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elmo_hf.kernels import products, reading
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


def make_arguments(
    batch=3,
    time=6,
    width=3,
    cells=5,
    output=2,
    has_projection=True,
    cell_clip=0.3,
    proj_clip=0.2,
    words=1.0,
    seed=3,
    threads=1,
):
    """The arguments of `lstm`; `words` is the share of the places that hold a word."""
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
def test_any_shape_equals_the_readable_lstm(shape):
    arguments = make_arguments(**shape)
    with torch.inference_mode():
        expected = lstm(*arguments)
        actual = reading.lstm(*arguments)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_unwritten_memory_is_not_read(nan_in_empty_tensors, batch):
    assert torch.empty(1).isnan().all()
    arguments = make_arguments(batch, words=0.6)
    with torch.no_grad():
        torch.testing.assert_close(reading.lstm(*arguments), lstm(*arguments))
        outputs = reading.lstm(*arguments)[0]
    assert (outputs[~arguments[1]] == 0).all()


@pytest.fixture
def directions(monkeypatch):
    """How many directions each call of `reading.read` reads together."""
    read, numbers = reading.read, []

    def recording(x, *others, **options):
        numbers.append(len(x))
        return read(x, *others, **options)

    monkeypatch.setattr(reading, "read", recording)
    return numbers


@pytest.mark.parametrize("precision", ["float32", "bf16", "int8"])
@pytest.mark.parametrize(("batch", "together"), [(1, True), (2, True), (3, False)])
def test_few_sentences_are_read_with_the_weights_themselves(batch, together, precision, directions):
    arguments = make_arguments(batch)
    with torch.no_grad():
        actual = reading.lstm(*arguments, precision=precision)
    assert directions == ([2] if together else [1, 1])
    if together or precision == "float32":  # which is exact, whatever precision is asked for
        torch.testing.assert_close(actual, lstm(*arguments))


@pytest.mark.parametrize("precision", ["float32", "bf16", "int8"])
@pytest.mark.parametrize("frozen", [False, True])
def test_large_weights_are_laid_out_for_long_sentences(precision, frozen, directions, monkeypatch):
    monkeypatch.setattr(reading, "LARGE_BYTES", 100)
    if frozen:
        monkeypatch.setattr(reading, "is_frozen", lambda weights: True)
    for time in (reading.MIN_WORDS[precision] - 1, reading.MIN_WORDS[precision]):
        arguments = make_arguments(batch=1, time=time)
        with torch.no_grad():
            actual = reading.lstm(*arguments, precision=precision)
        tolerance = {"float32": 1e-5, "bf16": 0.1, "int8": 0.1}[precision]
        torch.testing.assert_close(actual, lstm(*arguments), atol=tolerance, rtol=1e-5)
    assert directions == ([1, 1, 1, 1] if frozen else [2, 1, 1])


@pytest.mark.parametrize(
    ("large_bytes", "bf16", "taken"), [(100, True, "int8"), (2**24, True, "bf16"), (2**24, False, "int8")]
)
def test_int8_is_for_large_layers(large_bytes, bf16, taken, monkeypatch):
    precisions, lay_out = set(), reading.lay_out
    monkeypatch.setattr(reading, "LARGE_BYTES", large_bytes)
    monkeypatch.setattr(reading, "has_bf16", lambda: bf16)
    monkeypatch.setattr(reading, "lay_out", lambda w, b, p: precisions.add(p) or lay_out(w, b, p))
    with torch.no_grad():
        reading.lstm(*make_arguments(batch=3), precision="int8")
    assert precisions == {taken}


def kept_bytes(precision):
    """Which of the weights are looked at when three sentences are read."""
    arguments, looked_at = make_arguments(batch=3), []
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        keep = reading.keep
        patch.setattr(
            reading, "keep", lambda o, tensors, *v: looked_at.extend(tensors) or keep(o, tensors, *v)
        )
        reading.lstm(*arguments, precision=precision)
    return [number for number, weight in enumerate(arguments[4:8]) if any(weight is t for t in looked_at)]


def test_what_is_not_copied_is_not_looked_at():
    assert kept_bytes("float32") == [1, 3]  # the recurrent weight and the projection
    assert kept_bytes("bf16") == kept_bytes("int8") == [0, 1, 2, 3]


# ---- a first state of zeros


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_the_product_of_a_state_of_zeros_is_left_out(batch, monkeypatch):
    arguments, products_made = list(make_arguments(batch)), []
    for kind in (products.PairProduct, products.Product):
        plus = kind.plus
        monkeypatch.setattr(kind, "plus", lambda *args, plus=plus: products_made.append(1) or plus(*args))
    with torch.no_grad():
        for state, left_out in ((arguments[2], 0), (torch.zeros_like(arguments[2]), 1)):
            arguments[2] = state
            products_made.clear()
            torch.testing.assert_close(reading.lstm(*arguments), lstm(*arguments))
            assert len(products_made) == (1 if batch <= 2 else 2) * (arguments[0].shape[2] - left_out)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("name", ["input", "state", "bias", "projection"])
@pytest.mark.parametrize("has_clips", [True, False])
def test_numbers_that_are_not_finite(name, number, batch, has_clips):
    """Zeros times an infinite weight are no zeros."""
    limits = {} if has_clips else {"cell_clip": None, "proj_clip": None}
    arguments = make_arguments(batch, **limits)
    arguments[2].zero_()
    arguments[4 + ["input", "state", "bias", "projection"].index(name)].flatten()[3] = number
    with torch.no_grad():
        torch.testing.assert_close(reading.lstm(*arguments), lstm(*arguments), equal_nan=True)


# ---- products


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 40])
@pytest.mark.parametrize("has_packing", [True, False])
def test_products(rows, has_packing, monkeypatch):
    if not has_packing:
        monkeypatch.setattr(products, "_pack", lambda weight: None)
    torch.manual_seed(0)
    weight, bias, x, addend = torch.randn(7, 5), torch.randn(5), torch.randn(rows, 7), torch.randn(rows, 5)
    with torch.no_grad():
        torch.testing.assert_close(products.Product(weight, bias)(x), x @ weight + bias)
        torch.testing.assert_close(products.Product(weight)(x), x @ weight)
        torch.testing.assert_close(products.Product(weight).plus(x, addend.clone()), x @ weight + addend)
        with_direction = products.Product(weight).plus(x[None], addend[None].clone())
        torch.testing.assert_close(with_direction, (x @ weight + addend)[None])
        for precision, tolerance in (("bf16", 0.06), ("int8", 0.15)):
            product = products.lay_out(weight, bias, precision)
            rounded = product(x.to(product.dtype)).float()
            torch.testing.assert_close(rounded, x @ weight + bias, atol=tolerance, rtol=0.02)


@pytest.mark.parametrize("rows", [1, 2])
def test_products_of_both_directions(rows):
    torch.manual_seed(0)
    weight, x, addend = torch.randn(2, 7, 5), torch.randn(2, rows, 7), torch.randn(2, rows, 5)
    product = products.PairProduct(weight)
    torch.testing.assert_close(product(x), x @ weight)
    for view in (addend, addend.mT.contiguous().mT):
        torch.testing.assert_close(product.plus(x, view), x @ weight + addend)


def test_bfloat16_is_for_processors_that_have_it(monkeypatch):
    weight = torch.randn(7, 5)
    for pays, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(products, "has_bf16", lambda pays=pays: pays)
        assert products.lay_out(weight, precision="bf16").dtype == dtype
