"""The examples, started as their README says, give the model's vectors and load what they wrote."""

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
    """A folder with a small model and some text."""
    place = tmp_path_factory.mktemp("examples")
    torch.manual_seed(0)
    config = ElmoConfig(lstm_dim=12, projection_dim=8, char_filters=[[1, 4], [3, 6]], vocab_size=3)
    ElmoModel(config).save_pretrained(place / "my-elmo")
    ElmoTokenizer().save_pretrained(place / "my-elmo")
    rows = [json.dumps({"text": text}) + "\n" for text in TEXTS]
    (place / "reviews.jsonl").write_text("".join(rows), encoding="utf-8")
    return place


RUN = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"


@pytest.fixture
def run(nursery):
    """What a program prints. It runs in the folder of the examples, where it can import them."""

    def run(program, *arguments):
        done = nursery.run(program, *arguments, cwd=EXAMPLES)
        assert done.code == 0, done.err
        return done.out

    return run


@pytest.fixture
def start(run, place):
    """Run the README's line for an example, with its files in `place`."""

    def start(name):
        (line,) = [arguments for file, arguments in LINES if file == name]
        arguments = [word if word.startswith("--") else place / word for word in line.split()]
        return run(RUN, name, *arguments)

    return start


def averages(place, sentences):
    """The average of the layers for each of a sentence's words, one sentence a call."""
    model = ElmoModel.from_pretrained(place / "my-elmo").eval()
    vectors = []
    for words in sentences:
        batch = ElmoTokenizer()([words], is_split_into_words=True, return_tensors="pt")
        with torch.no_grad():
            layers = model(**batch, output_hidden_states=True).hidden_states
        vectors.append((sum(layers) / len(layers))[0].numpy())
    return vectors


def split(texts):
    return [ElmoTokenizer().tokenize(text) for text in texts]


def test_every_example_has_its_line_in_the_readme():
    assert sorted(name for name, _ in LINES) == sorted(path.name for path in EXAMPLES.glob("*.py"))
    for name, arguments in LINES:
        assert f"\npython examples/{name} {arguments}\n" in (EXAMPLES / name).read_text(encoding="utf-8")


def test_sentence_transformers(place, run, start):
    pytest.importorskip("sentence_transformers", reason="needs `elmo-hf[sentence-transformers]`")
    printed = start("sentence_transformers_module.py")
    assert printed.count("1.0000") == 3  # a sentence beside itself
    program = (
        "import json, sys; from sentence_transformers import SentenceTransformer\n"
        "model = SentenceTransformer(sys.argv[1], trust_remote_code=True, device='cpu')\n"
        "print(json.dumps(model.encode(json.loads(sys.argv[2])).tolist()))\n"
    )
    actual = json.loads(run(program, place / "my-sentences", json.dumps([*TEXTS, ""])))
    expected = [words.mean(axis=0) for words in averages(place, split(TEXTS))]
    np.testing.assert_allclose(actual, [*expected, np.zeros(16)], atol=1e-5, rtol=0)


def test_spacy(place, run, start):
    spacy = pytest.importorskip("spacy", reason="needs `elmo-hf[spacy]`")
    printed = start("spacy_component.py")
    assert printed.split()[0] == "He"
    assert len(printed.splitlines()) == 14
    program = (
        "import json, spacy, sys; import spacy_component\n"
        "docs = spacy.load(sys.argv[1]).pipe(json.loads(sys.argv[2]))\n"
        "print(json.dumps([doc.tensor.tolist() for doc in docs]))\n"
    )
    texts = ["He didn't sit on the bank. Why?", "Zürich lent\n\nhim 漢字.", ""]
    actual = json.loads(run(program, place / "my-pipeline", json.dumps(texts)))
    sentences = [["He", "did", "n't", "sit", "on", "the", "bank", "."], ["Why", "?"]]
    sentences.append([token.text for token in spacy.blank("en")(texts[1]) if not token.is_space])
    expected = averages(place, sentences)
    np.testing.assert_allclose(actual[0], np.concatenate(expected[:2]), atol=1e-5, rtol=0)
    assert not any(actual[1][2])  # spaCy has a token for the line breaks, which is no word
    np.testing.assert_allclose(np.delete(actual[1], 2, axis=0), expected[2], atol=1e-5, rtol=0)
    assert actual[2] == []


def test_datasets(place, start):
    datasets = pytest.importorskip("datasets", reason="needs `elmo-hf[corpus]`")
    start("datasets_map.py")
    rows = datasets.load_from_disk(str(place / "my-vectors"))
    assert rows["text"][:] == TEXTS
    for actual, expected in zip(rows["vectors"], averages(place, split(TEXTS)), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-5, rtol=0)
