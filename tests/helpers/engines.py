"""Programs that start Ray or Spark on this machine, each in a process of its own."""

import importlib.util
import os
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet
import pytest

from tests.helpers.paths import REPOSITORY

TEXTS = ["He sat on the bank.", None, "", "Why?", "Ice is cold."]
# Without an account's token, and with time for a start on a busy machine.
RAY = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}
SPARK = {
    "SPARK_LOCAL_IP": "127.0.0.1",
    "PYSPARK_PYTHON": sys.executable,
    "PYSPARK_SUBMIT_ARGS": "pyspark-shell",
}


def needs(name):
    """Skip where an engine is not installed."""
    if importlib.util.find_spec({"ray": "ray", "spark": "pyspark"}[name]) is None:
        pytest.skip(f"needs `elmo-hf[{name}]`")
    if name == "spark" and shutil.which("java") is None:
        pytest.skip("Spark needs a Java")


def run(arguments, folder):
    """Run Python with these arguments in a folder; what it printed."""
    environment = os.environ | RAY | SPARK | {"PYTHONPATH": str(REPOSITORY / "src"), "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, f"{process.stdout[-2000:]}\n{process.stderr[-4000:]}"
    return process.stdout


def write_tables(folder, files=4):
    """Parquet files with 5 rows each."""
    folder.mkdir()
    for number in range(files):
        rows = {"id": list(range(5 * number, 5 * number + 5)), "text": TEXTS}
        pyarrow.parquet.write_table(pa.table(rows), folder / f"{number}.parquet")
