"""The run of elmo-small from the text to what comes back from the other machine, at a small size."""

import json
import lzma
import os
import subprocess
import sys
import time

import pytest

from elmo_hf.loading import load_language_model
from elmo_hf.pretraining.log import read_log
from tests.helpers.launcher import PRETRAIN, SMOKE, Program
from tests.helpers.paths import REPOSITORY

SCRIPT = REPOSITORY / "training" / "runs" / "elmo_small.sh"
SMALL = """
raw: true
split_sentences: true
shared_reading: true
lstm_dim: 16
projection_dim: 8
char_embedding_dim: 4
char_filters: [[1, 4], [2, 8]]
num_highway_layers: 1
rows: 8
window: 10
samples: 32
optimizer: adamw
learning_rate: 0.01
schedule: linear
loss_scale: 1
clip: 1
epochs: 1000
precision: bf16
evaluate_every: 1000000
log_every: 1
"""


@pytest.fixture
def data(tmp_path):
    """A folder with the names of the real texts."""
    lines = SMOKE.read_text(encoding="utf-8").replace(" .\n", ".\n").splitlines(keepends=True)
    texts = {"lm_pretrain/train.books-00": lines[:300], "lm_pretrain/train.wiki-00": lines[300:500]}
    texts |= {"lm_small/train.wiki": lines[500:600]}
    texts |= {f"lm_pretrain/valid.{name}": lines[600:620] for name in ("books", "wiki")}
    for name, part in texts.items():
        path = tmp_path / "data" / f"{name}.txt.xz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lzma.compress("".join(part).encode()))
    return tmp_path / "data"


# A `python` that lets the test start its programs, which have everything imported.
PYTHON = """#!/usr/bin/env bash
[ "$1" != -c ] || exec {python} "$@"
request=$(mktemp -p {queue})
printf '%s\\n' "$@" > "$request.part"
mv "$request.part" "$request.ready"
while [ ! -f "$request.code" ]; do sleep 0.02; done
cat "$request.err" >&2
cat "$request.out"
exit "$(cat "$request.code")"
"""


@pytest.fixture
def run(launcher, tmp_path):
    """Run the script; a full minute is kept, so that training gets its least time."""
    queue, programs = tmp_path / "queue", tmp_path / "bin"
    config = tmp_path / "small.yaml"
    config.write_text(SMALL, encoding="utf-8")
    for folder in (queue, programs):
        folder.mkdir()
    for name in ("python", "python3"):
        (programs / name).write_text(PYTHON.format(python=sys.executable, queue=queue), encoding="utf-8")
        (programs / name).chmod(0o755)
    variables = {
        "RUN": str(tmp_path / "run"),
        "CONFIG": str(config),
        "WHEELS": "",
        "MINUTES": "1",
        "PART_SIZE": "8K",
    }
    variables |= {"OMP_NUM_THREADS": "1", "PATH": f"{programs}:{os.environ['PATH']}"}

    def start(*arguments):
        script = subprocess.Popen(
            ["bash", SCRIPT, *map(str, arguments)],
            env=os.environ | variables,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while script.poll() is None:
            for request in queue.glob("*.ready"):
                serve(launcher, request)
            time.sleep(0.02)
        out, err = script.communicate()
        assert script.returncode == 0, err
        return out

    return start


def serve(launcher, request):
    words = request.read_text(encoding="utf-8").splitlines()
    request.unlink()
    program, arguments = PRETRAIN, words[1:]
    if words[0] == "-m":
        program, arguments = Program(words[1], "main", words[1]), words[2:]
    run = launcher.start(arguments, program=program)
    [code] = run.wait()
    for suffix, text in ((".out", run.out), (".err", run.err), (".code", str(code))):
        part = request.with_suffix(".part")
        part.write_text(text, encoding="utf-8")
        part.rename(request.with_suffix(suffix))


def test_text_goes_there_and_a_model_comes_back(data, run, tmp_path):
    run("pack", data)
    folder = tmp_path / "run"
    packed = {path.name for path in folder.glob("packed/*")}
    texts = {name for name in packed if name.startswith("text.")}
    assert len(texts) > 2
    assert packed - texts == {"valid.books.txt.xz", "valid.wiki.txt.xz", "vocab.counts.tsv", "vocab.txt"}
    # The other machine has only what was packed.
    for name in ("encoded", "vocab.txt", "vocab.counts.tsv"):
        (folder / name).rename(tmp_path / name)
    out = run("train")
    assert "minutes of training" in out
    for name in ("ids.npy", "words.json"):
        assert (folder / "encoded" / name).read_bytes() == (tmp_path / "encoded" / name).read_bytes()
    pieces = sorted((folder / "back").iterdir())
    assert all(piece.stat().st_size <= 15_000_000 for piece in pieces)
    (tmp_path / "here").mkdir()
    joined = b"".join(piece.read_bytes() for piece in pieces)
    subprocess.run(["tar", "-xf", "-"], input=joined, cwd=tmp_path / "here", check=True)
    trained = tmp_path / "here" / "trained"
    model, _ = load_language_model(str(trained))
    assert model.config.lstm_dim == 16
    log = read_log(trained / "log.jsonl")
    steps = [entry for entry in log if entry["kind"] == "step"]
    assert steps[-1]["lr"] < 0.01
    assert {entry["text"] for entry in log if entry["kind"] == "evaluation"} == {
        "valid.books.txt.xz",
        "valid.wiki.txt.xz",
    }
    summary = json.loads((trained / "run.json").read_text(encoding="utf-8"))
    assert summary["finished"]
    assert json.loads((trained / "feed.json").read_text(encoding="utf-8"))["words_per_second"] > 0


def test_a_wrong_call_is_refused(tmp_path):
    result = subprocess.run(["bash", SCRIPT], capture_output=True, text=True)
    assert result.returncode != 0
    assert "pack DATA, train, judge DATA, or DATA" in result.stderr
