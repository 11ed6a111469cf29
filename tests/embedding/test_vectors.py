"""The files that `embed` writes, read by other programs and by `read_vectors`."""

import json

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset

import elmo_hf
from elmo_hf import read_vectors
from tests.helpers.embed_corpora import (
    FORMATS,
    SMALL,
    expected,
    layers_of,
)

# ---- what comes out


@pytest.mark.parametrize(("layers", "shape"), [("all", (3, 4, 16)), ("average", (4, 16))])
def test_readers_of_allennlp_files_read_ours(model, tmp_path, layers, shape):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("Ice is cold .\nWhy ?\nIce is cold .\n", encoding="utf-8")
    elmo_hf.embed(corpus, tmp_path / "out", model, layers=layers, format="hdf5", whitespace=True, **SMALL)
    with h5py.File(tmp_path / "out" / "vectors.hdf5") as file:
        assert sorted(file) == ["0", "1", "2", "sentence_to_index"]
        assert file["sentence_to_index"].shape == (1,)
        assert json.loads(file["sentence_to_index"][0]) == {"Ice is cold .": "2", "Why ?": "1"}
        assert file["0"].shape == shape
        assert file["0"].dtype == np.float32
        assert file["1"].shape == (*shape[:-2], 2, 16)
        vectors = expected(layers_of(model, ["Ice", "is", "cold", "."]), layers, None)
        np.testing.assert_allclose(file["0"][()], vectors, atol=2e-6)
        first = file["0"][()]
    # The file by itself is read as AllenNLP's own; of equal sentences it knows the last one's words.
    alone = read_vectors(tmp_path / "out" / "vectors.hdf5")
    assert [sentence.words for sentence in alone] == [None, ["Why", "?"], ["Ice", "is", "cold", "."]]
    assert np.array_equal(alone[0].vectors, first)


def test_tables_for_other_programs(model, tmp_path):
    lines = [["Ice", "is"], [], ["cold"]]
    elmo_hf.embed(lines, tmp_path / "rows", model, layers="0,2", format="parquet", **SMALL)
    table = pyarrow.parquet.read_table(tmp_path / "rows" / "vectors-00000.parquet")
    assert table.column_names == ["sentence", "word", "layer_0", "layer_2"]
    assert table["sentence"].to_pylist() == [0, 0, 2]
    assert table["word"].to_pylist() == ["Ice", "is", "cold"]
    states = layers_of(model, ["Ice", "is"])
    np.testing.assert_allclose(table["layer_2"].to_pylist()[1], states[2, 1], atol=2e-6)
    loaded = Dataset.from_parquet(str(tmp_path / "rows" / "*.parquet"), cache_dir=str(tmp_path / "cache"))
    np.testing.assert_allclose(loaded[0]["layer_0"], states[0, 0], atol=2e-6)
    elmo_hf.embed(lines, tmp_path / "pooled", model, pool="max", format="parquet", **SMALL)
    table = pyarrow.parquet.read_table(tmp_path / "pooled" / "vectors-00000.parquet")
    assert table["words"].to_pylist() == lines
    assert table["vector"].to_pylist()[1] == [0.0] * 16


def test_arrays_for_numpy(model, tmp_path):
    lines = [["Ice", "is"], [], ["cold"]]
    for pool, shape in ((None, (2, 3, 16)), ("max", (2, 3, 16))):
        output = tmp_path / str(pool)
        elmo_hf.embed(lines, output, model, layers="0,2", format="npy", pool=pool, **SMALL)
        assert sorted(path.name for path in output.iterdir()) == [
            "index.json",
            "plan.json",
            "vectors-00000.json",
            "vectors-00000.npy",
        ]
        array = np.load(output / "vectors-00000.npy")
        assert array.shape == shape
        states = layers_of(model, ["Ice", "is"])[[0, 2]]
        wanted = states[:, 1] if pool is None else states.max(axis=1)
        np.testing.assert_allclose(array[:, 1 if pool is None else 0], wanted, atol=2e-6)
        content = json.loads((output / "vectors-00000.json").read_text(encoding="utf-8"))
        assert content["tokens"] == lines


@pytest.mark.parametrize("format", FORMATS)
def test_vectors_are_a_sequence(model, corpus, tmp_path, format):
    sentences = elmo_hf.embed(corpus, tmp_path / "out", model, format=format, **SMALL)
    listed = list(sentences)
    assert len(listed) == len(sentences) == 60
    for index in (0, 59, -1, -60, 31):
        assert sentences[index].words == listed[index].words
        assert np.array_equal(sentences[index].vectors, listed[index].vectors)
    assert [sentence.words for sentence in sentences[50:4:-9]] == [listed[n].words for n in range(50, 4, -9)]
    assert sentences[3].vectors.flags.writeable
    with pytest.raises(IndexError, match="60 sentences"):
        sentences[60]


def test_all_files_are_readable_by_whom_the_folder_is(model, corpus, tmp_path):
    elmo_hf.embed(corpus, tmp_path / "out", model, **SMALL)
    assert len({path.stat().st_mode for path in (tmp_path / "out").iterdir()}) == 1
