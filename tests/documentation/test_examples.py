"""The examples, started as their README says, give the model's vectors, and load again what they wrote."""

import json
import re

import numpy as np
import pytest
import torch

from elmo_hf import ElmoConfig, ElmoModel, ElmoTokenizer
from tests.helpers.paths import EXAMPLES

README = (EXAMPLES / "README.md").read_text(encoding="utf-8")
LINES = re.findall(r"^python examples/(\w+\.py) (.*)$", README, re.MULTILINE)
TEXTS = ["He didn't sit on the bank.", "Why?", "Zürich lent\n\nhim 漢字 ."]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder where the README's reader stands, with a small model and some text."""
    place = tmp_path_factory.mktemp("examples")
    torch.manual_seed(0)
    config = ElmoConfig(lstm_dim=12, projection_dim=8, char_filters=[[1, 4], [3, 6]], vocab_size=3)
    ElmoModel(config).save_pretrained(place / "my-elmo")
    ElmoTokenizer().save_pretrained(place / "my-elmo")
    rows = [json.dumps({"text": text}) + "\n" for text in TEXTS]
    (place / "reviews.jsonl").write_text("".join(rows), encoding="utf-8")
    return place


SCRIPT = """
import runpy, sys
from pathlib import Path
sys.argv = sys.argv[1:]
sys.path.insert(0, str(Path(sys.argv[0]).parent))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def python(nursery, place):
    """What a program prints that stands where the README's reader does."""

    def run(program, *arguments):
        done = nursery.run(program, *arguments, cwd=place)
        assert done.code == 0, done.err
        return done.out

    return run


@pytest.fixture
def start(python):
    """Runs the README's line for an example."""

    def run(name):
        (arguments,) = [arguments for file, arguments in LINES if file == name]
        return python(SCRIPT, EXAMPLES / name, *arguments.split())

    return run


def averages(place, sentences):
    """The average of the layers for each of a sentence's words, one sentence a call."""
    model = ElmoModel.from_pretrained(place / "my-elmo").eval()
    found = []
    for words in sentences:
        batch = ElmoTokenizer()([words], is_split_into_words=True, return_tensors="pt")
        with torch.no_grad():
            layers = model(**batch, output_hidden_states=True).hidden_states
        found.append((sum(layers) / len(layers))[0].numpy())
    return found


def split(texts):
    return [ElmoTokenizer().tokenize(text) for text in texts]


def test_every_example_has_its_line():
    assert sorted(name for name, _ in LINES) == sorted(path.name for path in EXAMPLES.glob("*.py"))
    for name, arguments in LINES:
        assert f"\npython examples/{name} {arguments}\n" in (EXAMPLES / name).read_text(encoding="utf-8")


def test_sentence_transformers(place, python, start):
    pytest.importorskip("sentence_transformers", reason="needs `elmo-hf[sentence-transformers]`")
    printed = start("sentence_transformers_module.py")
    assert printed.count("1.0000") == 3  # a sentence beside itself
    again = (
        "import json, sys; from sentence_transformers import SentenceTransformer\n"
        "model = SentenceTransformer('my-sentences', trust_remote_code=True, device='cpu')\n"
        "print(json.dumps(model.encode(json.loads(sys.argv[1])).tolist()))\n"
    )
    found = json.loads(python(again, json.dumps([*TEXTS, ""])))
    wanted = [words.mean(axis=0) for words in averages(place, split(TEXTS))]
    np.testing.assert_allclose(found, [*wanted, np.zeros(16)], atol=1e-5, rtol=0)


def test_spacy(place, python, start):
    spacy = pytest.importorskip("spacy", reason="needs `elmo-hf[spacy]`")
    printed = start("spacy_component.py")
    assert printed.split()[0] == "He"
    assert len(printed.splitlines()) == 14
    again = (
        f"import json, sys; sys.path.append({str(EXAMPLES)!r}); import spacy, spacy_component\n"
        "docs = spacy.load('my-pipeline').pipe(json.loads(sys.argv[1]))\n"
        "print(json.dumps([doc.tensor.tolist() for doc in docs]))\n"
    )
    texts = ["He didn't sit on the bank. Why?", "Zürich lent\n\nhim 漢字.", ""]
    found = json.loads(python(again, json.dumps(texts)))
    sentences = [["He", "did", "n't", "sit", "on", "the", "bank", "."], ["Why", "?"]]
    sentences.append([token.text for token in spacy.blank("en")(texts[1]) if not token.is_space])
    wanted = averages(place, sentences)
    np.testing.assert_allclose(found[0], np.concatenate(wanted[:2]), atol=1e-5, rtol=0)
    assert not any(found[1][2])  # the blank between the lines is a token of spaCy's, but no word
    np.testing.assert_allclose(np.delete(found[1], 2, axis=0), wanted[2], atol=1e-5, rtol=0)
    assert found[2] == []


def test_datasets(place, start):
    datasets = pytest.importorskip("datasets", reason="needs `elmo-hf[corpus]`")
    start("datasets_map.py")
    rows = datasets.load_from_disk(str(place / "my-vectors"))
    assert rows["text"][:] == TEXTS
    for found, wanted in zip(rows["vectors"], averages(place, split(TEXTS)), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=0)
