"""spaCy's "elmo": vectors of the model itself, batches, saved pipelines, and components that learn on it."""

import pickle

import numpy as np
import pytest
import torch

from elmo_hf import TINY, ElmoError, ElmoModel, ElmoTokenizer
from tests.helpers.small_elmo import save_small_elmo

spacy = pytest.importorskip("spacy", reason="needs `elmo-hf[spacy]`")


TEXTS = ["He didn't sit on the bank. The bank lent him money.", "", "Zürich lent\n\nhim 漢字.", " "]
SENTENCES = [
    [["He", "did", "n't", "sit", "on", "the", "bank", "."], ["The", "bank", "lent", "him", "money", "."]],
    [],
    [["Zürich", "lent", "him", "漢字", "."]],
    [],
]
NER = """
[nlp]
lang = "en"
pipeline = ["elmo", "ner"]

[components]

[components.elmo]
factory = "elmo"
model = MODEL

[components.ner]
factory = "ner"

[components.ner.model]
@architectures = "spacy.TransitionBasedParser.v2"
state_type = "ner"
extra_state_tokens = false
hidden_width = 64
maxout_pieces = 2
use_upper = true

[components.ner.model.tok2vec]
TOK2VEC

[corpora]

[corpora.train]
@readers = "spacy.Corpus.v1"
path = "train.spacy"

[corpora.dev]
@readers = "spacy.Corpus.v1"
path = "train.spacy"

[training]
max_steps = 80
eval_frequency = 80
"""
LISTENER = '@architectures = "spacy.Tok2VecListener.v1"\nwidth = 256'
OWN = '@architectures = "elmo_hf.Tok2Vec.v1"\nmodel = MODEL\nlayers = "top"'
TAGGED = [
    ("Ada Lovelace sat in Paris .", [(0, 12, "PER"), (20, 25, "LOC")]),
    ("Charles Babbage lent Mary money .", [(0, 15, "PER"), (21, 25, "PER")]),
    ("The bank in London was closed .", [(12, 18, "LOC")]),
    ("He sat on the bank .", []),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_small_elmo(tmp_path_factory.mktemp("spacy") / "my-elmo")


def pipeline(folder, sentences=True, **options):
    nlp = spacy.blank("en")
    if sentences:
        nlp.add_pipe("sentencizer")
    nlp.add_pipe("elmo", config={"model": str(folder)} | options)
    return nlp


def layers_of(folder, words):
    """(layers, words, dim), from one call of the model."""
    batch = ElmoTokenizer.from_pretrained(folder)([words], is_split_into_words=True, return_tensors="pt")
    with torch.no_grad():
        output = ElmoModel.from_pretrained(folder).eval()(**batch, output_hidden_states=True)
    return torch.stack(output.hidden_states)[:, 0].numpy()


def averages(folder, sentences):
    vectors = [layers_of(folder, words).mean(axis=0) for words in sentences]
    return np.concatenate(vectors) if vectors else np.zeros((0, 16), dtype=np.float32)


def rows_of(doc):
    return doc.tensor[[token.i for token in doc if not token.is_space]]


def test_vectors_are_those_of_the_model(folder):
    nlp = pipeline(folder)
    for text, sentences in zip(TEXTS, SENTENCES, strict=True):
        doc = nlp(text)
        assert doc.tensor.shape == (len(doc), 16)
        np.testing.assert_allclose(rows_of(doc), averages(folder, sentences), atol=1e-6, rtol=0)
        assert not any(doc.tensor[token.i].any() for token in doc if token.is_space)


def test_pipe_reads_batches_and_gives_the_same(folder, monkeypatch):
    nlp, calls = pipeline(folder, batch_words=20), []
    single = [nlp(text).tensor for text in TEXTS]
    forward = ElmoModel.forward
    monkeypatch.setattr(ElmoModel, "forward", lambda *args, **kw: calls.append(1) or forward(*args, **kw))
    docs = list(nlp.pipe(5 * TEXTS, batch_size=20))
    for doc, expected in zip(docs, 5 * single, strict=True):
        np.testing.assert_allclose(doc.tensor, expected, atol=1e-6, rtol=0)
    assert 5 * (14 + 5) // 20 <= len(calls) < 5 * 3  # of 15 sentences, 95 words


def test_without_sentences_a_text_is_read_as_a_whole(folder):
    doc = pipeline(folder, sentences=False)(TEXTS[0])
    np.testing.assert_allclose(
        doc.tensor, averages(folder, [[*SENTENCES[0][0], *SENTENCES[0][1]]]), atol=1e-6, rtol=0
    )
    assert not np.allclose(doc.tensor, averages(folder, SENTENCES[0]), atol=1e-3)


@pytest.mark.parametrize("layers", ["top", "all", "0", 1, [0, 2]])
def test_layers(folder, layers):
    doc = pipeline(folder, layers=layers)(TEXTS[2])
    expected = layers_of(folder, SENTENCES[2][0])
    numbers = {"top": [2], "all": [0, 1, 2], "0": [0], 1: [1]}.get(str(layers) if layers != 1 else 1, [0, 2])
    np.testing.assert_allclose(rows_of(doc), np.concatenate(expected[numbers], axis=-1), atol=1e-6, rtol=0)


def test_vectors_and_similarity_of_tokens_spans_and_texts(folder):
    """Two occurrences of a word differ, which spaCy's own rule denies; white space counts for nothing."""
    nlp = pipeline(folder)
    doc, other = nlp(TEXTS[0]), nlp(TEXTS[2])
    first, second = doc[6], doc[9]
    assert first.text == second.text == "bank"
    cosine = np.dot(doc.tensor[6], doc.tensor[9])
    cosine /= np.linalg.norm(doc.tensor[6]) * np.linalg.norm(doc.tensor[9])
    assert first.similarity(second) == pytest.approx(cosine, abs=1e-6)
    assert first.similarity(second) < 0.9999
    np.testing.assert_array_equal(first.vector, doc.tensor[6])
    np.testing.assert_allclose(other.vector, other.tensor[[0, 1, 3, 4, 5]].mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(other[1:4].vector, other.tensor[[1, 3]].mean(axis=0), atol=1e-6)
    assert doc.similarity(doc) == pytest.approx(1)
    assert doc[0:2].similarity(other) == pytest.approx(other.similarity(doc[0:2]))
    assert (other[1].has_vector, other[2].has_vector, other[2:3].has_vector) == (True, False, False)
    assert nlp("")[0:0].vector.tolist() == [0] * 16
    assert other[2].similarity(doc[0]) == 0
    np.testing.assert_array_equal(doc[2:5].as_doc()[1].vector, doc.tensor[3])


def test_vectors_replace_those_of_the_vocabulary(folder):
    nlp = pipeline(folder)
    nlp.vocab.set_vector("bank", np.ones(3, dtype=np.float32))
    doc = nlp(TEXTS[0])
    np.testing.assert_array_equal(doc[6].vector, doc.tensor[6])
    with pytest.raises(ElmoError, match="16 numbers cannot be compared with one of 3"):
        doc[6].similarity(nlp.vocab["bank"])


def test_saved_pipelines(folder, tmp_path):
    nlp = pipeline(folder, layers="all")
    expected = nlp(TEXTS[0]).tensor
    nlp.to_disk(tmp_path / "pipeline")
    config = (tmp_path / "pipeline" / "config.cfg").read_text(encoding="utf-8")
    nowhere = config.replace(str(folder), str(folder / "moved"))  # the pipeline has its own copy
    (tmp_path / "pipeline" / "config.cfg").write_text(nowhere, encoding="utf-8")
    assert 'layers = "all"' in nowhere
    loaded = spacy.load(tmp_path / "pipeline")
    from_bytes = spacy.blank("en").from_config(nlp.config).from_bytes(nlp.to_bytes())
    for copy in (loaded, from_bytes, pickle.loads(pickle.dumps(nlp))):
        np.testing.assert_array_equal(copy(TEXTS[0]).tensor, expected)
    assert ElmoModel.from_pretrained(tmp_path / "pipeline" / "elmo").config.projection_dim == 8
    doc = pickle.loads(pickle.dumps(nlp(TEXTS[0])))
    np.testing.assert_array_equal(doc[6].vector, expected[6])


@pytest.mark.filterwarnings("ignore:.W109")  # the hooks do not travel, as docs/neighbours.md tells
def test_several_processes_give_the_same(folder):
    nlp = pipeline(folder)
    docs = list(nlp.pipe(TEXTS, n_process=2, batch_size=2))
    for doc, text in zip(docs, TEXTS, strict=True):
        np.testing.assert_allclose(doc.tensor, nlp(text).tensor, atol=1e-6, rtol=0)
    np.testing.assert_array_equal(docs[0][6].vector, docs[0].tensor[6])


def test_a_folder_is_read_by_from_disk(folder):
    nlp = spacy.blank("en")
    nlp.add_pipe("elmo").from_disk(folder)
    assert nlp(TEXTS[0]).tensor.shape[1] == 16
    assert spacy.blank("en").add_pipe("elmo").shim.width == 256  # elmo-tiny


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Train on elmo-tiny as `spacy train` does; return the best pipeline."""
    from spacy.cli.init_config import fill_config
    from spacy.cli.train import train

    monkeypatch.chdir(tmp_path)
    nlp, docs = spacy.blank("en"), spacy.tokens.DocBin()
    for text, entities in 3 * TAGGED:
        doc = nlp(text)
        doc.ents = [doc.char_span(*span[:2], span[2]) for span in entities]
        docs.add(doc)
    docs.to_disk("train.spacy")

    def run(tok2vec, **overrides):
        config = NER.replace("TOK2VEC", tok2vec).replace("MODEL", "null")
        (tmp_path / "base.cfg").write_text(config, encoding="utf-8")
        fill_config(tmp_path / "config.cfg", tmp_path / "base.cfg", silent=True)
        train(tmp_path / "config.cfg", tmp_path / "out", overrides=overrides)
        return spacy.load(tmp_path / "out" / "model-best")

    return run


def learned(nlp):
    return [
        [(entity.start_char, entity.end_char, entity.label_) for entity in doc.ents]
        for doc in nlp.pipe(text for text, _ in TAGGED)
    ]


FROZEN = {"training.frozen_components": ["elmo"], "training.annotating_components": ["elmo"]}


@pytest.mark.parametrize("overrides", [FROZEN, {}], ids=["frozen", "listening"])
def test_entities_are_learned_by_a_listener(train, overrides, tmp_path):
    nlp = train(LISTENER, **overrides)
    assert learned(nlp) == [entities for _, entities in TAGGED]
    before, after = (
        ElmoModel.from_pretrained(path).state_dict() for path in (TINY, tmp_path / "out/model-best/elmo")
    )
    assert all(torch.equal(before[name], after[name]) for name in before)
    nlp.replace_listeners("elmo", "ner", ["model.tok2vec"])
    nlp.remove_pipe("elmo")
    nlp.to_disk(tmp_path / "alone")
    assert learned(spacy.load(tmp_path / "alone")) == [entities for _, entities in TAGGED]


def test_entities_are_learned_by_the_architecture(train):
    nlp = train(OWN, **{"nlp.pipeline": ["ner"]})
    assert learned(nlp) == [entities for _, entities in TAGGED]
    assert [len(doc.tensor) for doc in nlp.pipe(["He sat."])] == [0]


def test_mistakes_are_one_sentence(train, folder, tmp_path):
    with pytest.raises(
        ElmoError, match=r"ner listens for vectors of 96 numbers, .* elmo have 256; set width"
    ):
        train(LISTENER.replace("256", "96"))
    with pytest.raises(ElmoError, match="layers must be top, average, all, mix or different numbers"):
        pipeline(folder, layers="5")("Why?")
    with pytest.raises(ElmoError, match="there is no such folder"):
        pipeline(tmp_path / "a b" / "nothing")("Why?")
    with pytest.raises(ElmoError, match="batch_words must be a whole number of at least 1"):
        pipeline(folder, batch_words=0)
