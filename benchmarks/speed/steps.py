"""The training step of pretraining on a CPU: two versions of the package, and both precisions, in alternating
rounds; and what share of the processor's product peak each part of the step reaches.

    git worktree add ../before f8014c0
    python -m benchmarks.speed.steps ../before --shapes elmo-tiny small original --threads 2 --clock wall
    python -m benchmarks.speed.steps                      # no other version: the precisions and the parts

Each version has a process of its own, which waits while the other one works, on one made-up text. A ratio
is that of two times of one round; the result is the median of the ratios. `before` is the other version in
float32, with as many threads. The parts are measured alone, as they come in a step, and their operations are
those of `workloads.py`; the peak is that of one product of [256, 512] @ [512, 2048] in the same type.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.report import (
    PAGE,
    RESULTS,
    ROOT,
    command,
    fill_page,
    in_turns,
    machine,
    markdown_table,
    spread,
)
from benchmarks.speed.table import conditions
from benchmarks.speed.versions import Version
from benchmarks.speed.workloads import made_up_sentences
from elmo_hf.files import write_json

# By shape: each version's own recipe, and settings that are the same in all of them.
SHAPES: dict[str, list[str]] = {
    "elmo-tiny": ["--config", "training/runs/elmo_tiny.yaml"],
    "small": ["--config", "training/runs/elmo_small.yaml", "--rows", "256", "--max-steps", "65000"],
    "original": ["--config", "training/runs/paper.yaml", "--rows", "128", "--heldout", "none"],
}
PRECISIONS = ("no", "bf16")
NAMES = {"before": "before", "no": "float32", "bf16": "bfloat16"}  # in the tables
PARTS = ("characters", "LSTMs", "softmax", "optimizer", "feed")
VOCABULARY = 25_000

# Runs in each version: reads lines of settings and a number of updates, and answers with seconds of a word.
WORKER = """
import json, sys, time
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from elmo_hf.corpus.source import Source
from elmo_hf.corpus.vocabulary import Vocabulary
from elmo_hf.corpus.windows import Encoder, Plan, Windows
from elmo_hf.pretraining.learner import Learner
from elmo_hf.pretraining.settings import read_settings
from elmo_hf.pretraining.start import start_model

torch.set_num_threads(int(sys.argv[1]))


def make(options):
    settings = read_settings(options)
    start = start_model(settings, None)
    AcceleratorState._reset_state(True)
    learner = Learner(start.model, settings, Accelerator(cpu=True, mixed_precision=settings.precision))
    encoder = Encoder(Vocabulary.load(settings.vocab), tokenizer=start.tokenizer)
    shape = {"rows": settings.rows, "steps": settings.window, "shared": settings.shared_reading}
    plan = Plan(seed=settings.seed, shuffle_sentences=10_000, **shape)
    return learner, iter(Windows(Source(settings.data[0]), encoder, plan))


def words_of(window):
    return torch.from_numpy(window.mask.sum(axis=(1, 2)))


if __name__ == "__main__":
    learners = {}
    for line in sys.stdin:
        options, number = json.loads(line)
        key = json.dumps(options)
        if key not in learners:
            learners.clear()
            learners[key] = make(options)
        learner, windows = learners[key]
        batch = [next(windows) for _ in range(number + 1)]
        learner.update(batch[:1], words_of(batch[0]), 0)
        wall, cpu = time.perf_counter(), time.process_time()
        for step, window in enumerate(batch[1:]):
            losses = learner.update([window], words_of(window), step)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        words = batch[1].mask[0].size
        print(json.dumps({"wall": wall / number / words, "cpu": cpu / number / words, **losses}), flush=True)
"""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("before", type=Path, nargs="?", help="the folder of a checkout of the other version")
    parser.add_argument("--shapes", nargs="+", default=["elmo-tiny", "small"], choices=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=4, help="updates of a turn (4)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="cpu")
    parser.add_argument("--output", type=Path, default=RESULTS / "training" / "steps.json")
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    if options.before is not None and not (options.before / "src" / "elmo_hf").is_dir():
        parser.error(f"{options.before} is no checkout: it has no folder src/elmo_hf.")
    with tempfile.TemporaryDirectory() as folder:
        text = write_text(Path(folder))
        rows = [compare(shape, text, options) for shape in options.shapes]
        parts = [parts_of(shape, text, options) for shape in options.shapes]
    content: dict[str, Any] = {"command": command("speed.steps", arguments), "machine": machine()}
    content |= {name: getattr(options, name) for name in ("threads", "clock", "rounds", "updates")}
    content |= {"steps": rows, "parts": parts}
    write_json(options.output, content)
    if options.output == RESULTS / "training" / "steps.json":
        fill_page(PAGE, "steps", lambda _: page(content))
    print(page(content))


def write_text(folder: Path) -> list[str]:
    """Made-up text and its vocabulary; returns the options that name them."""
    sentences = made_up_sentences(20_000)
    (folder / "text.txt").write_text("".join(" ".join(words) + "\n" for words in sentences), encoding="utf-8")
    counts = Counter(word for words in sentences for word in words)
    vocabulary = ["</S>", "<S>", "<UNK>", *(word for word, _ in counts.most_common(VOCABULARY))]
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in vocabulary), encoding="utf-8")
    names = ["--data", str(folder / "text.txt"), "--vocab", str(folder / "vocab.txt")]
    return [*names, "--output", str(folder / "run"), "--workers", "0", "--no-raw", "--no-split-sentences"]


# ---- whole steps


def compare(shape: str, text: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """One process for each contestant: only one of them works at a time."""
    contestants = {
        name: (ROOT, precision) for name, precision in zip(("no", "bf16"), PRECISIONS, strict=True)
    }
    if options.before is not None:
        contestants = {"before": (options.before, "no")} | contestants
    calls: dict[str, Callable[[int], dict[str, float]]] = {}
    versions = []
    for name, (source, precision) in contestants.items():
        version = Version(source, WORKER, options.threads)
        versions.append(version)
        flags = [*SHAPES[shape], *text, "--precision", precision]
        calls[name] = partial(turn, version, flags, options.updates)
    turns = in_turns(calls, options.rounds)
    for version in versions:
        version.process.terminate()
    row: dict[str, Any] = {"shape": shape}
    seconds = {name: [turn[options.clock] for turn in each] for name, each in turns.items()}
    row["words_per_second"] = {
        name: spread([1 / second for second in each]) for name, each in seconds.items()
    }
    base = "before" if options.before is not None else "no"
    for name in [name for name in seconds if name != base]:
        row[f"{name}/{base}"] = spread([b / a for a, b in zip(seconds[name], seconds[base], strict=True)])
    row["loss"] = {name: each[-1]["loss"] for name, each in turns.items()}
    print(shape, json.dumps(row), flush=True)
    return row


def turn(version: Version, flags: list[str], updates: int, _: int) -> dict[str, float]:
    return version.seconds(flags, updates)


# ---- parts of a step


def parts_of(shape: str, text: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of the processor and share of the product peak of each part, in each precision."""
    result: dict[str, Any] = {"shape": shape}
    for precision in PRECISIONS:
        environment = os.environ | {
            "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
            "OMP_NUM_THREADS": str(options.threads),
        }
        flags = json.dumps([*SHAPES[shape], *text, "--precision", precision])
        arguments = [
            sys.executable,
            "-m",
            "benchmarks.speed.parts_of_steps",
            str(options.threads),
            shape,
            flags,
        ]
        output = subprocess.run(
            arguments, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        result[precision] = json.loads(output.stdout.splitlines()[-1])
    return result


def page(content: dict[str, Any]) -> str:
    """Both tables of a JSON."""
    facts = f"{conditions(content)} {content['rounds']} rounds: `{content['command']}`"
    return "\n\n".join([facts, table(content["steps"]), table_of_parts(content["parts"])])


def table(rows: list[dict[str, Any]]) -> str:
    ratios = [name for row in rows for name in row if "/" in name]
    ratios = list(dict.fromkeys(ratios))
    cells = []
    for row in rows:
        speeds = [row["words_per_second"].get(name) for name in NAMES]
        shown = [f"{speed['median']:,.0f}" if speed else "" for speed in speeds]
        cells.append([row["shape"], *shown, *(f"{row[name]['median']:.2f}" for name in ratios)])
    names_of_ratios = ["/".join(NAMES[name] for name in ratio.split("/")) for ratio in ratios]
    return markdown_table(["words/s", *NAMES.values(), *names_of_ratios], cells)


def table_of_parts(parts: list[dict[str, Any]]) -> str:
    cells = []
    for row in parts:
        for precision in PRECISIONS:
            shown = [row[precision]["parts"][part] for part in PARTS]
            texts = [f"{1000 * part['seconds']:.0f} ms, {part['of_peak']:.0%}" for part in shown]
            cells.append([row["shape"], NAMES[precision], *texts])
    return markdown_table(["processor time of a step, share of the peak", "", *PARTS], cells, 2)


if __name__ == "__main__":
    main()
