"""Small models take the ways of large ones."""

import pytest

from elmo_hf.kernels import products


@pytest.fixture(autouse=True)
def no_product_is_small(monkeypatch):
    monkeypatch.setattr(products, "FEW_NUMBERS", 1)
