"""The static page's tokenizer, run by node, equals Python's on thousands of texts."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from elmo_hf import ElmoTokenizer
from elmo_hf.corpus.sentences import split_sentences
from elmo_hf.demo.reading import split
from elmo_hf.model.words_elmo import character_ids
from tests.helpers.nasty_texts import nasty_texts
from tests.helpers.paths import REPOSITORY

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="the page's JavaScript is tested with node")
WORDS = REPOSITORY / "hub_cards" / "space-static" / "words.js"
CHECK = Path(__file__).with_name("check_words.mjs")
LENGTH = 50


def expected_results():
    """For each function, its inputs and Python's results."""
    texts = nasty_texts()
    penn, whitespace = ElmoTokenizer(), ElmoTokenizer(word_splitter="whitespace")
    words = sorted({word for text in texts for word in penn.tokenize(text) + whitespace.tokenize(text)})
    return {
        "length": LENGTH,
        "penn": [(text, penn.tokenize(text)) for text in texts],
        "whitespace": [(text, whitespace.tokenize(text)) for text in texts],
        "sentences": [(text, split_sentences(text)) for text in texts],
        "page": [(text, split(text, penn)[0]) for text in texts],
        "ids": list(zip(words, character_ids(words, LENGTH).tolist(), strict=True)),
        "short": list(zip(words[::10], character_ids(words[::10], 5).tolist(), strict=True)),
    }


def compare(program, folder):
    (folder / "expected.json").write_text(json.dumps(expected_results()), encoding="utf-8")
    command = [NODE, CHECK, program, folder / "expected.json"]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8")


def test_words_sentences_and_ids_are_those_of_python(tmp_path):
    done = compare(WORDS, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[0]) > 30_000
