"""Models and a reader for the demo."""

import pytest

from elmo_hf.demo import load
from tests.helpers.demo_models import save_models
from tests.helpers.demo_site import Site


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """A folder with a `model` and a `tagger`."""
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def reader(folders):
    return load(folders / "model", folders / "tagger")


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The page, which sends no request to another machine and prints no traceback."""
    site = Site(tmp_path_factory.mktemp("site"))
    yield site
    site.stop()
    assert not site.log.exists(), site.log.read_text()
    assert "Traceback" not in site.errors.read_text()
