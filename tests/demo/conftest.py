"""Models and a reader for the demo."""

import pytest

from elmo_hf.demo import load
from tests.helpers.demo_models import save_models


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """A folder with a `model` and a `tagger`."""
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def reader(folders):
    return load(folders / "model", folders / "tagger")
