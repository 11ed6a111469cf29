"""`elmo_hf.Embed` in Ray Data and in Spark on this machine; skipped where they are not installed."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from elmo_hf import TINY, encode
from tests.helpers.engines import TEXTS, needs, run, write_tables

DYING_ACTOR = """
import os, signal, ray
from elmo_hf import Embed

class Dying(Embed):
    def __call__(self, batch):
        try:
            os.close(os.open("MARK", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return super().__call__(batch)
        os.kill(os.getpid(), signal.SIGKILL)

ray.init(num_cpus=4, include_dashboard=False, object_store_memory=2**28)
texts = ray.data.read_parquet("IN")
actors = ray.data.ActorPoolStrategy(size=2)
texts.map_batches(Dying, fn_constructor_kwargs={"pool": "mean"}, batch_format="pyarrow", compute=actors,
                  batch_size=5).write_parquet("actors")
texts.map_batches(Embed(pool="mean"), batch_size=3).write_parquet("tasks")
"""
CHECKPOINT = """
import ray
from ray.data.checkpoint import CheckpointConfig
from elmo_hf import Embed

class Failing(Embed):
    def __call__(self, batch):
        if 17 in batch.column("id").to_pylist():
            raise KeyError("a fault")
        return super().__call__(batch)

ray.init(num_cpus=4, include_dashboard=False, object_store_memory=2**28)
ray.data.DataContext.get_current().checkpoint_config = CheckpointConfig("id", "FOLDER/done")
for kind in (Failing, Embed):
    try:
        ray.data.read_parquet("IN").map_batches(kind, fn_constructor_kwargs={"pool": "mean"}, batch_size=5,
            batch_format="pyarrow", compute=ray.data.ActorPoolStrategy(size=1)).write_parquet("FOLDER/out")
    except Exception:
        print("failed")
"""
SPARK = """
import json
from pyspark.sql import SparkSession
from elmo_hf import Embed

spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
texts = spark.read.parquet("IN")
pooled = "id long, text string, vectors array<float>"
words = "id long, text string, vectors array<array<float>>"
for name, frame in {
    "mean": texts.mapInArrow(Embed(pool="mean"), pooled),
    "words": texts.mapInArrow(Embed(), words),
    "pandas": texts.mapInPandas(Embed(pool="mean"), pooled),
}.items():
    print(json.dumps([name, [[row.id, row.text, row.vectors] for row in frame.collect()]]))
"""


@pytest.fixture(scope="module")
def expected():
    filled = [text for text in TEXTS if text]
    return {"mean": encode(filled, TINY, pool="mean"), "words": encode(filled, TINY)}


def assert_rows(ids, texts, vectors, expected):
    """Each row once, with its own text, and the vector of that."""
    assert sorted(ids) == list(range(20))
    filled = [text for text in TEXTS if text]
    for number, text, vector in zip(ids, texts, vectors, strict=True):
        assert text == TEXTS[number % 5]
        assert (vector is None) == (not text)
        if text:
            np.testing.assert_allclose(vector, expected[filled.index(text)], atol=2e-6)


def assert_table(path, expected):
    table = pyarrow.parquet.read_table(path)
    assert table.schema.field("vectors").type.list_size == 256
    assert table.schema.field("vectors").type.value_type == pa.float32()
    assert_rows(*(table[name].to_pylist() for name in ("id", "text", "vectors")), expected)
    return table


def test_ray_with_an_actor_that_is_killed(tmp_path, expected):
    """Its rows are there once; and so they are of tasks, with arrays of numpy."""
    needs("ray")
    write_tables(tmp_path / "in")
    program = DYING_ACTOR.replace("IN", str(tmp_path / "in")).replace("MARK", str(tmp_path / "mark"))
    (tmp_path / "run.py").write_text(program)
    run(["run.py"], tmp_path)
    assert (tmp_path / "mark").exists()
    table = assert_table(tmp_path / "actors", expected["mean"])
    assert json.loads(table.schema.metadata[b"elmo_hf"])["vectors"]["pool"] == "mean"
    assert_table(tmp_path / "tasks", expected["mean"])


def test_ray_with_checkpoints_is_run_again_after_a_fault(tmp_path, expected):
    """The ids are kept as `CheckpointConfig` needs them; both runs together write each row once."""
    needs("ray")
    write_tables(tmp_path / "in")
    program = CHECKPOINT.replace("IN", str(tmp_path / "in")).replace("FOLDER", str(tmp_path))
    (tmp_path / "run.py").write_text(program)
    assert run(["run.py"], tmp_path).count("failed") == 1
    assert_table(tmp_path / "out", expected["mean"])


def test_spark(tmp_path, expected):
    needs("spark")
    write_tables(tmp_path / "in")
    (tmp_path / "run.py").write_text(SPARK.replace("IN", str(tmp_path / "in")))
    printed = [json.loads(line) for line in run(["run.py"], tmp_path).splitlines() if line.startswith("[")]
    assert [name for name, _ in printed] == ["mean", "words", "pandas"]
    for name, rows in printed:
        assert_rows(*zip(*rows, strict=True), expected["words" if name == "words" else "mean"])
