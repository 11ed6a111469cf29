"""The examples, run as their README says, give the model's vectors and load the files that they wrote."""

import json
import re
import shutil

import numpy as np
import pyarrow.parquet
import pytest
import torch

from elmo_hf import ElmoConfig, ElmoModel, ElmoTokenizer
from elmo_hf.convert import convert
from tests.helpers import engines
from tests.helpers.bilm_files import write_source
from tests.helpers.paths import EXAMPLES
from tests.helpers.reference import Elmo, options, random_weights

README = (EXAMPLES / "README.md").read_text(encoding="utf-8")
LINES = re.findall(r"^python examples/(\w+\.py) (.*)$", README, re.MULTILINE)
FASTA = ">P69905 Hemoglobin (a->b)\nMVLSPADK\nTNVKAAWg\n\n>sp|P01308|INS\n  MALW MRLL\n>x\nU"
PROTEINS = {"P69905": "MVLSPADKTNVKAAWG", "sp|P01308|INS": "MALWMRLL", "x": "U"}
TEXTS = ["He didn't sit on the bank.", "Why?", "Zürich lent\n\nhim 漢字 ."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a small model and some text."""
    folder = tmp_path_factory.mktemp("examples")
    torch.manual_seed(0)
    config = ElmoConfig(lstm_dim=12, projection_dim=8, char_filters=[[1, 4], [3, 6]], vocab_size=3)
    ElmoModel(config).save_pretrained(folder / "my-elmo")
    ElmoTokenizer().save_pretrained(folder / "my-elmo")
    rows = [json.dumps({"text": text}) + "\n" for text in TEXTS]
    (folder / "reviews.jsonl").write_text("".join(rows), encoding="utf-8")
    (folder / "proteins.fasta").write_text(FASTA, encoding="utf-8")
    return folder


RUN = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"


@pytest.fixture
def run(fork_server):
    """Run a program in the folder of the examples, where it can import them; return what it prints."""

    def run(program, *arguments):
        completed = fork_server.run(program, *arguments, cwd=EXAMPLES)
        assert completed.code == 0, completed.err
        return completed.out

    return run


@pytest.fixture
def start(run, folder):
    """Run the README's line for an example, with its files in `folder`."""

    def start(name):
        (line,) = [arguments for file, arguments in LINES if file == name]
        arguments = [word if word.startswith("--") else folder / word for word in line.split()]
        return run(RUN, name, *arguments)

    return start


def averages(folder, sentences):
    """The average of the layers of each word (words, dim), from one call of the model a sentence."""
    model = ElmoModel.from_pretrained(folder / "my-elmo").eval()
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


def test_sentence_transformers(folder, run, start):
    pytest.importorskip("sentence_transformers", reason="needs `elmo-hf[sentence-transformers]`")
    printed = start("sentence_transformers_module.py")
    assert printed.count("1.0000") == 3  # a sentence beside itself
    program = (
        "import json, sys; from sentence_transformers import SentenceTransformer\n"
        "import elmo_hf; model = SentenceTransformer(sys.argv[1], device='cpu')\n"
        "print(json.dumps(model.encode(json.loads(sys.argv[2])).tolist()))\n"
    )
    actual = json.loads(run(program, folder / "my-sentences", json.dumps([*TEXTS, ""])))
    expected = [words.mean(axis=0) for words in averages(folder, split(TEXTS))]
    np.testing.assert_allclose(actual, [*expected, np.zeros(16)], atol=1e-5, rtol=0)


def test_spacy(folder, run, start):
    spacy = pytest.importorskip("spacy", reason="needs `elmo-hf[spacy]`")
    printed = start("spacy_component.py")
    assert printed.split()[0] == "He"
    assert len(printed.splitlines()) == 15
    program = (
        "import json, spacy, sys\n"
        "docs = spacy.load(sys.argv[1]).pipe(json.loads(sys.argv[2]))\n"
        "print(json.dumps([doc.tensor.tolist() for doc in docs]))\n"
    )
    texts = ["He didn't sit on the bank. Why?", "Zürich lent\n\nhim 漢字.", ""]
    actual = json.loads(run(program, folder / "my-pipeline", json.dumps(texts)))
    sentences = [["He", "did", "n't", "sit", "on", "the", "bank", "."], ["Why", "?"]]
    sentences.append([token.text for token in spacy.blank("en")(texts[1]) if not token.is_space])
    expected = averages(folder, sentences)
    np.testing.assert_allclose(actual[0], np.concatenate(expected[:2]), atol=1e-5, rtol=0)
    assert not any(actual[1][2])  # spaCy has a token for the line breaks, which is no word
    np.testing.assert_allclose(np.delete(actual[1], 2, axis=0), expected[2], atol=1e-5, rtol=0)
    assert actual[2] == []


def test_datasets(folder, start):
    datasets = pytest.importorskip("datasets", reason="needs `elmo-hf[corpus]`")
    start("datasets_map.py")
    rows = datasets.load_from_disk(str(folder / "my-vectors"))
    assert rows["text"][:] == TEXTS
    for actual, expected in zip(rows["vectors"], averages(folder, split(TEXTS)), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "engine"), [("ray_data.py", "ray"), ("spark.py", "spark")])
def test_engines(folder, tmp_path, name, engine):
    engines.needs(engine)
    shutil.copytree(folder / "my-elmo", tmp_path / "my-elmo")
    engines.write_tables(tmp_path / "reviews", files=2)
    (line,) = [arguments for file, arguments in LINES if file == name]
    engines.run([EXAMPLES / name, *line.split()], tmp_path)
    table = pyarrow.parquet.read_table(tmp_path / line.split("--output ")[1].split()[0])
    rows = sorted(table.select(["id", "text", "vectors"]).to_pylist(), key=lambda row: row["id"])
    assert [row["text"] for row in rows] == 2 * engines.TEXTS
    filled = [row["vectors"] for row in rows if row["text"]]
    expected = [words.mean(axis=0) for words in averages(folder, split([t for t in engines.TEXTS if t]))]
    np.testing.assert_allclose(filled, 2 * expected, atol=1e-5, rtol=0)
    assert all(row["vectors"] is None for row in rows if not row["text"])


def test_proteins(folder, start, run):
    start("proteins.py")
    expected = [3 * vectors for vectors in averages(folder, [[*protein] for protein in PROTEINS.values()])]
    assert_proteins(folder / "my-proteins.npz", expected)
    arguments = ["--data", folder / "proteins.fasta", "--output", folder / "tiny.npz", "--per-protein"]
    run(RUN, "proteins.py", *arguments)
    assert {array.ndim for array in np.load(folder / "tiny.npz").values()} == {1}


@pytest.mark.parametrize("layers", [2, 4, 8])
def test_proteins_of_published_sizes(run, folder, tmp_path, layers):
    """SeqVec has two layers, catELMo two, four and eight."""
    settings = options(n_layers=layers)
    source = write_source(tmp_path / "source", settings, seed=layers)
    convert([source], tmp_path / "elmo")
    reference = Elmo(settings, random_weights(settings, layers))
    sums = [sum(reference.run([[*protein]])[0][0]) for protein in PROTEINS.values()]
    arguments = ["--model", tmp_path / "elmo", "--data", folder / "proteins.fasta", "--output"]
    run(RUN, "proteins.py", *arguments, tmp_path / "residues.npz")
    assert_proteins(tmp_path / "residues.npz", sums)
    run(RUN, "proteins.py", *arguments, tmp_path / "proteins.npz", "--per-protein")
    assert_proteins(tmp_path / "proteins.npz", [residues.mean(axis=0) for residues in sums])


def assert_proteins(path, expected):
    vectors = np.load(path)
    assert list(vectors) == list(PROTEINS)
    for actual, plain in zip(vectors.values(), expected, strict=True):
        np.testing.assert_allclose(actual, plain, atol=1e-5, rtol=0)
