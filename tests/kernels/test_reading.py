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


@pytest.mark.parametrize(("batch", "together"), [(1, True), (2, True), (3, False)])
def test_few_sentences_are_read_in_both_directions_together(batch, together, monkeypatch):
    read, directions = reading.read, []
    monkeypatch.setattr(reading, "read", lambda x, *others: directions.append(len(x)) or read(x, *others))
    arguments = make_arguments(batch)
    with torch.no_grad():
        torch.testing.assert_close(reading.lstm(*arguments), lstm(*arguments))
        assert directions == ([2] if together else [1, 1])
        monkeypatch.setattr(reading, "PAIR_BYTES", 100)  # weights too large for the cache
        torch.testing.assert_close(reading.lstm(*arguments), lstm(*arguments))
    assert directions[-2:] == [1, 1]


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


@pytest.mark.parametrize(("few", "many"), [(True, True), (True, False), (False, True), (False, False)])
def test_products_with_either_library(few, many, monkeypatch):
    """Whichever library is faster on this machine, each of the four outcomes gives the product."""
    monkeypatch.setattr(products.Product, "_packed_is_faster", lambda self, rows: few if rows == 1 else many)
    torch.manual_seed(0)
    weight, bias = torch.randn(7, 5), torch.randn(5)
    product = products.Product(weight, bias)
    with torch.no_grad():
        for rows in (1, 40):
            x = torch.randn(rows, 7)
            torch.testing.assert_close(product(x), x @ weight + bias)
            torch.testing.assert_close(product.plus(x, torch.zeros(rows, 5)), x @ weight)
