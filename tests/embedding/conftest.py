"""What most of these tests share: a small random model, its folder, a corpus with words of all kinds."""

import pytest

from tests.helpers.embed_corpora import save_model, small_model, write_corpus


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "corpus.txt")


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    return save_model(model, tmp_path_factory.mktemp("model"))
