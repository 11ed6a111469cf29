"""`elmo_hf.Embed`: batches of columns of every kind get a column of vectors, those of `encode`."""

import json
import pickle
import sys
from types import SimpleNamespace

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import elmo_hf
from elmo_hf import ElmoError, Embed, encode
from elmo_hf.embedding import columns
from tests.helpers.embed_corpora import small_model

TEXTS = ["He sat on the bank of the river.", None, "", "Why?", " \n ", "Ice is cold."]
FILLED = [0, 3, 5]
WORDS = [["He", "sat"], None, [], ["Why", "?", "Ice"], [], ["cold"]]


def assert_vectors(actual, expected, dtype="float32"):
    """The vectors of the filled rows, in order, and None for the others."""
    assert [row for row, vector in enumerate(actual) if vector is not None] == FILLED
    for row, vector in zip(FILLED, expected, strict=True):
        assert np.array_equal(np.array(actual[row], dtype=dtype), vector)


OPTIONS = [
    {"pool": "mean"},
    {},
    {"pool": "max", "layers": "all"},
    {"layers": [0, 2], "dtype": "float16"},
    {"pool": "mean", "layers": "average", "batch_words": 5, "whitespace": True, "cache_words": 0},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("column", ["text", "tokens"])
def test_every_kind_of_batch_gets_the_vectors_of_encode(folder, options, column):
    values = {"text": TEXTS, "tokens": WORDS}[column]
    expected = encode([values[row] for row in FILLED], folder, **options)
    dtype = options.get("dtype", "float32")
    embed = Embed(folder, **options)
    rows = {"id": list(range(6)), column: values}
    of_lists = embed(rows)
    assert list(of_lists) == ["id", column, "vectors"]
    assert list(rows) == ["id", column]
    assert of_lists["id"] is rows["id"]
    assert isinstance(of_lists["vectors"], list)
    assert_vectors(of_lists["vectors"], expected)
    of_arrays = embed({"id": np.arange(6), column: np.array(values, dtype=object)})
    assert isinstance(of_arrays["vectors"], np.ndarray)
    assert_vectors(of_arrays["vectors"], expected)
    frame = pd.DataFrame(rows, index=list("abcdef"))
    of_frame = embed(frame)
    assert list(of_frame.columns) == ["id", column, "vectors"]
    assert list(frame.columns) == ["id", column]
    assert list(of_frame.index) == list("abcdef")
    assert_vectors(list(of_frame["vectors"]), expected)
    table = pa.table(rows).replace_schema_metadata({"theirs": "kept"})
    for batch in (table, pa.concat_tables([table.slice(0, 2), table.slice(2)]), table.to_batches()[0]):
        result = embed(batch)
        assert type(result) is type(batch)
        result.validate(full=True)
        assert result.schema.names == ["id", column, "vectors"]
        assert result.column("id").to_pylist() == rows["id"]
        assert result.schema.metadata[b"theirs"] == b"kept"
        assert_vectors(result.column("vectors").to_pylist(), expected, dtype)
    results = list(embed(iter(table.to_batches(max_chunksize=4))))
    assert [type(batch) for batch in results] == [pa.RecordBatch] * 2
    assert pa.Table.from_batches(results)["id"].to_pylist() == rows["id"]
    assert [len(part["id"]) for part in embed(part for part in [rows, rows])] == [6, 6]


def test_types_of_arrow(folder):
    """Vectors have a fixed size, and an empty batch has the same type as another."""
    vector = pa.list_(pa.float32(), 16)
    types = {
        ("mean", "top"): vector,
        (None, "top"): pa.list_(vector),
        ("mean", "all"): pa.list_(vector, 3),
        (None, "all"): pa.list_(pa.list_(vector), 3),
    }
    table = pa.table({"text": TEXTS})
    for (pool, layers), expected in types.items():
        embed = Embed(folder, pool=pool, layers=layers)
        for batch in (table, table.slice(0, 0), table.slice(1, 1), table.to_batches()[0].slice(3, 2)):
            result = embed(batch)
            result.validate(full=True)
            assert result.schema.field("vectors").type == expected
            assert result.num_rows == batch.num_rows
            assert result.schema.metadata == embed(table).schema.metadata
    half = Embed(folder, pool="mean", dtype="float16")(table)
    assert half.schema.field("vectors").type == pa.list_(pa.float16(), 16)


@pytest.mark.parametrize(
    "arrow_type", ["large_string", "string_view", pa.dictionary(pa.int8(), pa.string())], ids=str
)
def test_texts_of_other_arrow_types(folder, arrow_type):
    embed = Embed(folder, pool="mean")
    array = pa.array(TEXTS).cast(pa.type_for_alias(arrow_type) if isinstance(arrow_type, str) else arrow_type)
    assert_vectors(
        embed(pa.table({"text": array}))["vectors"].to_pylist(),
        encode([TEXTS[row] for row in FILLED], folder, pool="mean"),
    )


def test_missing_values_of_all_kinds(folder):
    embed = Embed(folder, pool="mean")
    frame = pd.DataFrame({"text": [None, np.nan, pd.NA, "", "Why?"]})
    assert embed(frame)["vectors"].isna().tolist() == [True, True, True, True, False]
    table = pa.table({"text": pa.nulls(3)})
    assert embed(table)["vectors"].null_count == 3
    tokens = {"tokens": [np.array(["a", "b"]), np.array([]), None]}
    assert [vector is None for vector in embed(tokens)["vectors"]] == [False, True, True]


def test_the_metadata_name_the_model_and_the_settings(folder):
    table = Embed(folder, layers="average", pool="mean")(pa.table({"text": TEXTS}))
    table = Embed(folder, output="words", column="text", whitespace=True)(table)
    about = json.loads(table.schema.metadata[b"elmo_hf"])
    assert list(about) == ["vectors", "words"]
    assert about["vectors"]["model"] == str(folder)
    assert (about["vectors"]["layers"], about["vectors"]["pool"]) == ("average", "mean")
    assert about["words"] | {"fingerprint": ""} == {
        **{"model": str(folder), "revision": None, "fingerprint": "", "layers": "top", "pool": None},
        **{"dtype": "float32", "whitespace": True},
    }
    assert about["words"]["fingerprint"] == about["vectors"]["fingerprint"]


def test_a_pickle_has_the_settings_alone(folder, monkeypatch, tmp_path):
    embed = Embed(folder, pool="mean", layers=[0, 1])
    before = pickle.dumps(embed)
    expected = embed({"text": TEXTS})["vectors"]
    assert pickle.dumps(embed) == before
    assert len(before) < 1000
    copied = pickle.loads(before)
    assert copied == embed
    assert hash(copied) == hash(embed)
    monkeypatch.setattr(columns, "load", None)  # the process has the model
    assert_vectors(copied({"text": TEXTS})["vectors"], [expected[row] for row in FILLED])
    monkeypatch.chdir(folder.parent)
    assert Embed(folder.name).model == str(folder.resolve())


def test_datasets(folder):
    rows = datasets.Dataset.from_dict({"text": TEXTS, "id": list(range(6))})
    embed = Embed(folder, pool="mean")
    expected = encode([TEXTS[row] for row in FILLED], folder, pool="mean")
    for format in (None, "numpy", "arrow", "pandas"):
        mapped = rows.with_format(format).map(embed, batched=True, batch_size=6, keep_in_memory=True)
        assert mapped.column_names == ["text", "id", "vectors"]
        assert_vectors(mapped.with_format(None)["vectors"][:], expected)
        if format == "arrow":
            assert mapped.features["vectors"] == datasets.List(datasets.Value("float32"), length=16)
    stream = rows.to_iterable_dataset().map(embed, batched=True, batch_size=6)
    assert_vectors([row["vectors"] for row in stream], expected)
    with pytest.raises(ElmoError, match=r"column 'text' holds str, .*pass rows in batches \(batched=True"):
        rows.map(embed)


def test_lists_for_spark(folder, monkeypatch):
    """Spark's reader refuses FixedSizeList and float16, so that in its tasks there are none."""
    table = pa.table({"text": TEXTS})
    plain = pa.list_(pa.float32())
    types = {("mean", "top"): plain, (None, "top"): pa.list_(plain), (None, "all"): pa.list_(pa.list_(plain))}
    for (pool, layers), expected in types.items():
        embed = Embed(folder, pool=pool, layers=layers)
        fixed = embed(table)["vectors"].to_pylist()
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "pyspark", SimpleNamespace(TaskContext=SimpleNamespace(get=Worker)))
            (result,) = embed(iter(table.to_batches()))
            with pytest.raises(ElmoError, match="Spark has no float16"):
                Embed(folder, dtype="float16")(table)
        result.validate(full=True)
        assert result.schema.field("vectors").type == expected
        assert result.column("vectors").to_pylist() == fixed


class Worker:
    pass


def test_a_worker_of_a_pool_uses_one_thread(folder, monkeypatch):
    chosen = []
    monkeypatch.setattr(columns.torch, "set_num_threads", chosen.append)
    Embed(folder)({"text": ["a"]})
    assert chosen == []
    Embed(folder, threads=3)({"text": ["a"]})
    monkeypatch.setattr(columns.multiprocessing, "parent_process", Worker)
    Embed(folder)({"text": ["a"]})
    Embed(folder, threads=2)({"text": ["a"]})
    assert chosen == [3, 1, 2]


ARGUMENTS = [
    ({"pool": "sum"}, "pool must be one of None, mean, max, but is 'sum'"),
    ({"layers": "7"}, "numbers from 0 to 2 of this model's 3 layers"),
    ({"dtype": "int8"}, "dtype must be one of"),
    ({"output": None}, "output must be the name of a column, but is None"),
    ({"column": 5}, "column must be the name of a column, but is 5"),
    ({"threads": 0}, "threads must be a whole number of at least 1, but is 0"),
    ({"model": small_model}, "Embed needs a model's folder or name, which travels to other processes"),
]


@pytest.mark.parametrize(("arguments", "message"), ARGUMENTS)
def test_wrong_arguments(folder, arguments, message):
    with pytest.raises(ElmoError, match=message) as error:
        Embed(**{"model": folder} | arguments)
    assert "\n" not in str(error.value)


BATCHES = [
    ({"body": ["a"], "id": [1]}, {}, r"name the column to read \(column=...\); the batch has body, id\."),
    ({"text": ["a"], "tokens": [["a"]]}, {}, "name the column to read"),
    ({"text": ["a"]}, {"column": "body"}, "the batch has no column 'body'; it has text"),
    ({"text": ["a"], "vectors": [1]}, {}, "has a column 'vectors' already; choose another output"),
    ({"text": ["a"]}, {"output": "text"}, "has a column 'text' already; choose another output"),
    ({"text": [1, 2]}, {}, "row 1 of the batch: column 'text' should be text or a list of words, but is 1"),
    ({"text": ["a", ["b", 3]]}, {}, "row 2 of the batch: column 'text' should be text or a list of words"),
    ({"text": [b"a"]}, {}, "should be text or a list of words, but is b'a'"),
    ({"text": "a"}, {}, "column 'text' holds str, not the values of a batch"),
    (["a", "b"], {}, "Embed takes a batch of columns: .*; but got list"),
    ("a", {}, "Embed takes a batch of columns: .*; but got str"),
    (pa.table({"text": [1]}), {}, "row 1 of the batch: column 'text' should be"),
    (pa.table({"body": ["a"]}), {}, "the batch has body"),
    (pa.table([["a"], ["b"]], names=["text", "text"]), {"column": "text"}, "has several columns 'text'"),
    (pd.DataFrame({"text": [1.5]}), {}, "row 1 of the batch: column 'text' should be"),
]


@pytest.mark.parametrize(("batch", "options", "message"), BATCHES)
def test_batches_that_are_refused(folder, batch, options, message):
    with pytest.raises(ElmoError, match=message) as error:
        Embed(folder, **options)(batch)
    assert "\n" not in str(error.value)


def test_a_model_that_is_nowhere(tmp_path):
    embed = Embed("no/such/folder")  # it may be on the machine that reads
    with pytest.raises(ElmoError, match="no ELMo can be loaded from no/such/folder"):
        embed({"text": ["a"]})


def test_the_default_is_the_model_of_the_package():
    assert Embed().model == str(elmo_hf.TINY.resolve())
