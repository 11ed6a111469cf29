"""Jobs that stop and are resumed, in one process or several; their memory. `tests/kills` has killed jobs."""

import json
import multiprocessing
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import elmo_hf
from elmo_hf import ElmoModel
from tests.helpers.embed_corpora import (
    FORMATS,
    SMALL,
    contents,
    sentences,
)


@pytest.fixture(scope="module")
def server():
    """Starts processes in which the package and its libraries are loaded."""
    old = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["elmo_hf.embedding.job", "datasets", "h5py", "pyarrow.parquet"])
    run(context, int, ())  # starts the server, which inherits the present environment
    yield context
    if old is None:
        del os.environ["OMP_NUM_THREADS"]
    else:
        os.environ["OMP_NUM_THREADS"] = old


def run(context, function, arguments, **options):
    """Call a function in a process of its own."""
    child = context.Process(target=function, args=arguments, kwargs=options)
    child.start()
    child.join()
    assert child.exitcode == 0


class Died(Exception):
    pass


def dying(real, lives):
    """A method that works so many times. Locks and unfinished files do not count."""
    left = list(range(lives))

    def method(path, *arguments, **options):
        is_ours = path.suffix != ".lock" and "missing_ok" not in options
        if is_ours and not left:
            raise Died
        if is_ours:
            left.pop()
        return real(path, *arguments, **options)

    return method


@pytest.mark.parametrize("name", ["replace", "unlink"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_crash_at_every_rename_or_unlink(model, corpus, tmp_path, monkeypatch, format, name):
    """Files appear by `replace` and go by `unlink`; the job dies before each in turn."""
    options = SMALL | {"format": format, "shard_words": 150}
    elmo_hf.embed(corpus, tmp_path / "whole", model, **options)
    whole, deaths = contents(tmp_path / "whole"), 0
    while True:
        output = tmp_path / str(deaths)
        with monkeypatch.context() as patch:
            patch.setattr(Path, name, dying(getattr(Path, name), deaths))
            try:
                elmo_hf.embed(corpus, output, model, **options)
                break
            except Died:
                names = [path.name for path in output.iterdir()] if output.exists() else []
        if name == "replace":  # what has its name is whole, and nothing has it before
            assert sum(not file.endswith(".partial") for file in names) == deaths
        deaths += 1
        assert len(elmo_hf.embed(corpus, output, model, **options)) == 60
        assert contents(output) == whole
    shards = len(json.loads(whole["index.json"])["shards"])
    assert shards > 1
    files = shards * (1 + (format == "npy")) + 2 + 2 * (format == "hdf5")
    assert deaths == (files if name == "replace" else shards * (format == "hdf5"))


def test_a_damaged_shard_is_made_again(model, corpus, tmp_path):
    elmo_hf.embed(corpus, tmp_path / "out", model, **SMALL)
    whole = contents(tmp_path / "out")
    shard = tmp_path / "out" / "vectors-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-9])
    (tmp_path / "out" / "index.json").unlink()
    elmo_hf.embed(corpus, tmp_path / "out", model, **SMALL)
    assert contents(tmp_path / "out") == whole


def test_a_finished_job_is_not_done_again(model, corpus, tmp_path, monkeypatch):
    elmo_hf.embed(corpus, tmp_path / "out", model, **SMALL)
    monkeypatch.setattr(ElmoModel, "forward", None)
    assert len(elmo_hf.embed(corpus, tmp_path / "out", model, **SMALL)) == 60


def launch(processes, *arguments):
    """`elmo-hf embed` by torchrun in so many processes; what they said."""
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        str(processes),
    ]
    return subprocess.run(
        [*torchrun, "-m", "elmo_hf.cli", "embed", *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )


def test_two_processes_write_the_bytes_of_one(server, folder, corpus, tmp_path):
    options = SMALL | {"format": "hdf5", "layers": "average"}
    run(server, elmo_hf.embed, (corpus, tmp_path / "one", folder), **options)
    flags = "--format hdf5 --layers average --shard-words 40 --batch-words 24 --device cpu"
    process = launch(2, corpus, tmp_path / "two", "--model", folder, *flags.split())
    assert "process 0 of 2" in process.stderr
    assert "process 1 of 2" in process.stderr
    shards = [int(number) for number in re.findall(r"made (\d+) of \d+ shards", process.stderr)]
    assert len(shards) == 2
    assert sum(shards) == len(json.loads((tmp_path / "two" / "index.json").read_text())["shards"])
    assert max(shards) - min(shards) <= 1
    assert process.stdout.count("the vectors of 60 sentences") == 1
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def embed_and_report(pipe, *arguments, **options):
    torch.set_num_threads(1)
    elmo_hf.embed(*arguments, **options)
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def test_memory_does_not_grow_with_the_corpus(server, folder, tmp_path):
    """Ten times the sentences, and the peak is the same within 8 MB; their vectors are some 25 MB."""
    peaks = []
    for number in (2_000, 20_000):
        corpus = tmp_path / f"{number}.txt"
        corpus.write_text("\n".join(sentences(number)), encoding="utf-8")
        options = {"layers": "all", "shard_words": 4096, "progress": False, "device": "cpu"}
        receiver, sender = server.Pipe(duplex=False)
        run(server, embed_and_report, (sender, corpus, tmp_path / f"out-{number}", folder), **options)
        peaks.append(receiver.recv() / 1024)
    grown = sum(path.stat().st_size for path in (tmp_path / "out-20000").iterdir()) / 2**20
    print(f"peaks in MB: {peaks}; the vectors: {grown:.0f} MB")
    assert grown > 20
    assert peaks[1] - peaks[0] < 8


def test_the_bar_shows_speed_and_time_left(folder, corpus, tmp_path, capsys):
    elmo_hf.embed(corpus, tmp_path / "out", folder, **(SMALL | {"progress": True}))
    last = capsys.readouterr().err.split("\r")[-1]
    assert "100%" in last
    assert re.search(r"\[\d\d:\d\d<\d\d:\d\d, +[\d.]+[kM]? words/s\]", last)
    # What was made before is not counted as this run's speed.
    (tmp_path / "out" / "index.json").unlink()
    elmo_hf.embed(corpus, tmp_path / "out", folder, **(SMALL | {"progress": True}))
    last = capsys.readouterr().err.split("\r")[-1]
    assert "100%" in last
    assert not re.search(r"[\d.]+[kM]? words/s", last)
