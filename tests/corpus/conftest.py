"""What the tests of windows share: a corpus of three files, and the encoder of its words."""

import pytest

from elmo_hf.corpus.source import Source
from elmo_hf.corpus.windows import Encoder
from tests.helpers.window_texts import VOCABULARY, write_files


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def source(files):
    return Source(f"{files}/*.txt")


@pytest.fixture(scope="module")
def encoder():
    return Encoder(VOCABULARY, max_characters=16)
