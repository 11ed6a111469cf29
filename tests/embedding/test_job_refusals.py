"""Mistakes that `embed` refuses in one sentence before it writes anything."""

import ast
import gzip
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

import elmo_hf
from elmo_hf import ElmoConfig, ElmoModel, read_vectors
from elmo_hf.cli import app
from elmo_hf.corpus.sentences import grouped
from tests.helpers.embed_corpora import SMALL, contents, sentences

SOURCE = Path(elmo_hf.__file__).parent


def write_corpora(path):
    (path / "empty.txt").write_text("")
    (path / "blank.txt").write_text("\n \n")
    (path / "bad.txt").write_bytes(b"fine\n\xff\xfe\n")
    (path / "bad.jsonl").write_text('{"text": "a"}\n{"text": \n')
    (path / "gap.jsonl").write_text('{"text": "a"}\n{"txt": "b"}\n')
    (path / "number.jsonl").write_text('{"text": 5}\n')
    (path / "both.jsonl").write_text('{"text": "a", "tokens": ["a"]}\n')
    (path / "none.jsonl").write_text('{"body": "a"}\n')
    (path / "bad.parquet").write_text("no parquet")
    (path / "bad.txt.gz").write_bytes(gzip.compress(b"hello\n" * 1000)[:-20])
    (path / "used").mkdir()
    (path / "used" / "thesis.tex").write_text("years of work")


MISTAKES = [
    ("nowhere.txt", {}, "there is no file nowhere.txt"),
    ("empty.txt", {}, "empty.txt is empty"),
    ("blank.txt", {}, "there is no word in it"),
    ("bad.txt", {}, "bad.txt, line 2 is not UTF-8"),
    ("bad.jsonl", {}, "bad.jsonl, line 2 is no JSON"),
    ("gap.jsonl", {}, "gap.jsonl, record 2: column 'text' should be text, but is None"),
    ("number.jsonl", {}, "record 1: column 'text' should be text, but is 5"),
    ("both.jsonl", {}, "name the column of both.jsonl to read; it has text, tokens"),
    ("none.jsonl", {}, "name the column of none.jsonl to read; it has body"),
    ("none.jsonl", {"text_column": "title"}, "has no column 'title'; it has body"),
    ("none.jsonl", {"tokens_column": "body"}, "'body' should be a list of words, but is 'a'"),
    ("none.jsonl", {"tokens_column": "body", "text_column": "body"}, "cannot both be given"),
    ("bad.parquet", {}, "bad.parquet cannot be read: Parquet magic bytes not found"),
    ("bad.txt.gz", {}, "bad.txt.gz ends in the middle"),
    ("corpus.txt", {"text_column": "title"}, "has no column 'title'; it has text"),
    ("corpus.txt", {"tokens_column": "text"}, "record 1: column 'text' should be a list of words"),
    ("corpus.txt", {"layers": "3"}, "numbers from 0 to 2 of this model's 3 layers, such as 0,2, but is '3'"),
    ("corpus.txt", {"layers": "0,0"}, "different numbers"),
    ("corpus.txt", {"layers": "first"}, "layers must be top, average, all"),
    ("corpus.txt", {"layers": [0, -1]}, "but is '0,-1'"),
    ("corpus.txt", {"format": "csv"}, "format must be one of safetensors, hdf5, parquet, npy, but is 'csv'"),
    ("corpus.txt", {"pool": "sum"}, "pool must be one of None, mean, max, but is 'sum'"),
    ("corpus.txt", {"dtype": "int8"}, "dtype must be one of"),
    ("corpus.txt", {"batch_words": 0}, "batch_words must be a whole number of at least 1, but is 0"),
    ("corpus.txt", {"cache_words": -1}, "cache_words must be a whole number of at least 0"),
    ("corpus.txt", {"device": "teapot"}, "there is no device 'teapot'"),
    ("corpus.txt", {"output": "used"}, r"holds something else \(thesis.tex\)"),
    ("corpus.txt", {"output": "corpus.txt"}, "is a file; name a folder"),
    ("corpus.txt", {"model": "no/such/folder"}, "no ELMo can be loaded from no/such/folder"),
]


@pytest.mark.parametrize(("name", "options", "message"), MISTAKES)
def test_mistakes_before_anything_is_written(model, corpus, tmp_path, monkeypatch, name, options, message):
    monkeypatch.chdir(tmp_path)
    write_corpora(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    arguments = {"output": "out", "model": model, "progress": False} | options
    with pytest.raises(ValueError, match=message) as caught:
        elmo_hf.embed(name, arguments.pop("output"), arguments.pop("model"), **arguments)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "options",
    [{"layers": "all"}, {"batch_words": 25}, {"pool": "max"}, {"format": "hdf5"}, {"whitespace": True}],
)
def test_another_plan_is_refused(model, corpus, tmp_path, options):
    elmo_hf.embed(corpus, tmp_path / "out", model, **SMALL)
    before = contents(tmp_path / "out")
    with pytest.raises(ValueError, match=f"was begun with another {next(iter(options))}"):
        elmo_hf.embed(corpus, tmp_path / "out", model, **(SMALL | options))
    assert contents(tmp_path / "out") == before


def test_another_model_or_input_is_refused(model, corpus, tmp_path):
    elmo_hf.embed(corpus, tmp_path / "out", model, **SMALL)
    other_model = ElmoModel(model.config)
    with pytest.raises(ValueError, match="was begun with another model"):
        elmo_hf.embed(corpus, tmp_path / "out", other_model, **SMALL)
    with corpus.open("a", encoding="utf-8") as file:
        file.write("One more .\n")
    with pytest.raises(ValueError, match="was begun with another input"):
        elmo_hf.embed(corpus, tmp_path / "out", model, **SMALL)


def test_a_stream_that_changed_is_refused(model, tmp_path):
    lines = [line for line in sentences(40) if line]
    elmo_hf.embed(iter(lines), tmp_path / "out", model, **SMALL)
    (tmp_path / "out" / "index.json").unlink()
    with pytest.raises(ValueError, match="made from other sentences"):
        elmo_hf.embed(iter(lines[::-1]), tmp_path / "out", model, **SMALL)
    first = next(grouped(lines, SMALL["shard_words"]))
    with pytest.raises(ValueError, match="longer before"):
        elmo_hf.embed(iter(first), tmp_path / "out", model, **SMALL)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "a corpus is a file or an iterable, but got NoneType"),
        ({"train": ["a"]}, "is a dictionary; pass one of its parts: train"),
        ([], "is empty"),
        ([["a", 5]], "record 1: the record should be a list of words, but is .'a', 5."),
        (["a", ["b"]], "record 2: the record should be text"),
        ("nobody/nothing", "there is no file nobody/nothing"),
    ],
)
def test_wrong_arguments(model, tmp_path, source, message):
    with pytest.raises(ValueError, match=message):
        elmo_hf.embed(source, tmp_path / "out", model, **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_layers_of_different_sizes_cannot_be_together(corpus, tmp_path):
    model = ElmoModel(ElmoConfig(lstm_dim=8, projection_dim=12, char_filters=[[1, 4]], vocab_size=5))
    with pytest.raises(ValueError, match="layer 0 of this model has 24 numbers and the others have 16"):
        elmo_hf.embed(corpus, tmp_path / "out", model, layers="average", **SMALL)
    assert elmo_hf.embed(corpus, tmp_path / "out", model, layers=0, **SMALL)[0].vectors.shape[1] == 24


def test_folders_that_cannot_be_read_back(tmp_path, corpus):
    with pytest.raises(ValueError, match="it has none"):
        read_vectors(tmp_path)
    with pytest.raises(ValueError, match="is no HDF5 file"):
        read_vectors(corpus)
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(ValueError, match="not finished; run the same command again"):
        read_vectors(tmp_path)


def test_errors_of_the_command(folder, corpus, tmp_path):
    arguments = ["embed", str(corpus), str(tmp_path / "out"), "--model", str(folder)]
    result = CliRunner().invoke(app, [*arguments, "--layers", "9"])
    assert result.exit_code == 1
    assert result.stderr.startswith("elmo-hf: layers must be")
    assert result.stderr.count("\n") == 1
    result = CliRunner().invoke(app, [*arguments, "--layers", "0,1", "--pool", "mean", "--no-progress"])
    assert result.exit_code == 0, result.stderr
    assert read_vectors(tmp_path / "out")[0].vectors.shape == (2, 16)


def test_slow_and_optional_libraries_are_imported_on_use():
    for name in ("corpus/source", "embedding/job", "embedding/embedder", "embedding/vectors"):
        tree = ast.parse((SOURCE / f"{name}.py").read_text(encoding="utf-8"))
        top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        text = " ".join(map(ast.unparse, top))
        assert "import" in text
        assert not re.search("h5py|pyarrow |pyarrow[.]|datasets|accelerate", text)
