"""Published models to convert."""

from pathlib import Path

import pytest

from tests.helpers.bilm_files import write_source
from tests.helpers.reference import options


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of options.json and weights.hdf5."""
    return write_source(tmp_path / "source", options())


@pytest.fixture
def language_model(tmp_path: Path) -> Path:
    """A folder of options.json, weights.hdf5, softmax.hdf5 and vocab.txt."""
    return write_source(tmp_path / "language_model", options(), softmax=True)
