"""The static page, as `hub_cards/space_static.py` writes it from elmo-tiny."""

import pytest

from elmo_hf import TINY, ElmoModel, ElmoTokenizer
from elmo_hf.demo.examples import EXAMPLES
from elmo_hf.demo.reading import split
from tests.helpers import static_page
from tests.helpers.nasty_texts import LONG, nasty_texts
from tests.helpers.vectors_of import vectors_of


@pytest.fixture(scope="session")
def page_folder(tmp_path_factory):
    return static_page.build(tmp_path_factory)


@pytest.fixture(scope="session")
def sentences():
    """Sentences of words: ordinary ones, long ones, and words of all kinds."""
    texts = [*list(EXAMPLES.values())[:2], " ".join(LONG), "Why", "the " * 70, *nasty_texts()[-20:]]
    return [words for text in texts for words in split(text, ElmoTokenizer())[0]]


@pytest.fixture(scope="session")
def expected_vectors(sentences):
    """By sentence, word and layer, those of the model in torch, each sentence read alone."""
    model = ElmoModel.from_pretrained(TINY).eval()
    tokenizer = ElmoTokenizer.from_pretrained(TINY)
    return [vectors_of(model, tokenizer, words) for words in sentences]
