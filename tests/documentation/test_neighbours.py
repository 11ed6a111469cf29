"""The sections of docs/neighbours.md run, each where its library is installed."""

import shutil

import numpy as np
import pytest
import torch

from elmo_hf import TINY, ElmoModel, ElmoTokenizer
from elmo_hf.export import static
from tests.helpers.documents import PYTHON, REPOSITORY, DocumentRunner, read_blocks

PAGE = REPOSITORY / "docs" / "neighbours.md"
MODULES = {
    "spaCy": "spacy",
    "sentence-transformers": "sentence_transformers",
    "gensim": "gensim",
    "model2vec": "model2vec",
    "ONNX": "onnxruntime",
}


def sections():
    """The titles of the page's sections, and the text of each."""
    parts = PAGE.read_text(encoding="utf-8").split("\n## ")[1:]
    return {part.split("\n")[0]: part for part in parts}


@pytest.fixture
def section(tmp_path, monkeypatch, launcher):
    """Run the blocks of a section in a folder with a model and a list of words; return the variables."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(TINY, "my-elmo")
    (tmp_path / "words.txt").write_text("bank\nmoney\nsat\n", encoding="utf-8")

    def section(title):
        pytest.importorskip(MODULES[title], reason=f"the section needs the package {MODULES[title]}")
        runner = DocumentRunner(tmp_path, launcher)
        runner.run(PAGE, only=sections()[title])
        assert all(line.startswith("pip install ") for line in runner.skipped)
        return runner.names

    return section


def test_every_section_is_run_here():
    assert list(sections()) == list(MODULES)
    blocks = read_blocks(PAGE)
    assert len(blocks) == sum(text.count("\n```") // 2 for text in sections().values())
    assert sum(block.language in PYTHON for block in blocks) >= 8


def test_spacy(section):
    names = section("spaCy")
    found = [(entity.text, entity.label_) for entity in names["tagger"]("Ada Lovelace sat in Paris.").ents]
    assert found == [("Ada Lovelace", "PER"), ("Paris", "LOC")]
    assert names["nlp"].pipe_names == ["sentencizer", "elmo"]
    doc = names["nlp"]("He sat on the bank. The bank lent him money.")
    assert (doc[4].text, doc[7].text, doc.tensor.shape) == ("bank", "bank", (12, 256))
    assert doc[4].similarity(doc[7]) < 0.99


def test_sentence_transformers(section):
    """A sentence's vector is the mean over its words: of the top layer, or of the average of the layers."""
    names = section("sentence-transformers")
    model, tokenizer = ElmoModel.from_pretrained(TINY).eval(), ElmoTokenizer.from_pretrained(TINY)
    for text in ("He sat on the bank.", "Why?"):
        with torch.no_grad():
            output = model(**tokenizer([text], return_tensors="pt"), output_hidden_states=True)
        for name, words in (("model", output.last_hidden_state), ("average", sum(output.hidden_states) / 3)):
            vectors = names[name].encode([text, "The bank lent him money."])
            np.testing.assert_allclose(vectors[0], words[0].mean(dim=0), atol=1e-5, rtol=0)


def test_gensim(section, monkeypatch):
    """With the more frequent words of the vocabulary only, since gensim takes its time."""
    own_words = static.own_words
    monkeypatch.setattr(static, "own_words", lambda *arguments: own_words(*arguments)[:5000])
    vectors = section("gensim")["vectors"]
    assert len(vectors) == 5000
    near = [word for word, _ in vectors.most_similar("seven", topn=3)]
    assert set(near) <= {"five", "six", "eight", "nine", "ten", "eleven", "twelve"}


def test_model2vec(section):
    assert section("model2vec")["model"].dim == 256


def test_onnx(section, tmp_path):
    section("ONNX")
    assert (tmp_path / "my-onnx" / "model.onnx").is_file()
