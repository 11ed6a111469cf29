"""Two versions of the package, and a frozen model, in alternating rounds.

    python -m benchmarks.speed.versions ../before    # a checkout of another version

Each version has a process of its own, which waits while the other one works. A ratio is that of two times of
one round; the result is the median of the ratios. `frozen` is this version within `kernels.frozen`, which
does not compare the bytes of the weights in each call.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS, ROOT, command, machine, markdown_table, spread
from elmo_hf.files import write_json

SETTINGS = {
    "single": "one sentence of 20 words",
    "batch": "32 sentences of 5 to 39 words",
    "tagger": "one sentence, by a tagger",
    "train": "a training step of 32 sentences",
}
SIZES = ("elmo-tiny", "small", "original")
SECONDS = 0.5  # of work in a turn, about

# Runs in each version: reads lines of a size, a setting, "auto" or "frozen" and a number of calls.
WORKER = """
import contextlib, json, sys, time
import torch
import elmo_hf
from elmo_hf import ElmoConfig, ElmoForTokenClassification, ElmoModel, ElmoTokenizer, kernels

torch.set_num_threads(int(sys.argv[1]))
sizes = {"elmo-tiny": ElmoConfig.from_pretrained(elmo_hf.TINY).to_dict(), "original": {}}
sizes["small"] = {"lstm_dim": 1024, "projection_dim": 128, "num_highway_layers": 1}
tokenizer, calls = ElmoTokenizer(), {}


def sentences(lengths):
    texts = [[f"w{word * word % 997}" for word in range(start, start + length)] for start, length in lengths]
    return tokenizer(texts, is_split_into_words=True, padding=True, return_tensors="pt")


def prepare(size, setting):
    torch.manual_seed(0)
    names = ("lstm_dim", "projection_dim", "char_filters", "num_highway_layers", "num_hidden_layers")
    config = {name: sizes[size][name] for name in names if name in sizes[size]}
    many = setting in ("batch", "train")
    batch = sentences([(31 * i, 5 + 11 * i % 35) for i in range(32)] if many else [(0, 20)])
    if setting == "tagger":
        model = ElmoForTokenClassification(ElmoConfig(**config, num_labels=9, task_hidden_size=100)).eval()
    else:
        model = ElmoModel(ElmoConfig(**config)).train(setting == "train")

    def call():
        with torch.set_grad_enabled(setting == "train"):
            output = model(**batch)
            if setting == "train":
                model.zero_grad()
                output.last_hidden_state.square().mean().backward()

    return model, call


for line in sys.stdin:
    size, setting, choice, number = json.loads(line)
    if (size, setting) not in calls:
        calls.clear()
        calls[size, setting] = prepare(size, setting)
    model, call = calls[size, setting]
    with kernels.frozen(model) if choice == "frozen" else contextlib.nullcontext():
        call()
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(number):
            call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps({"wall": wall / number, "cpu": cpu / number}), flush=True)
"""


class Version:
    """A process of one version of the package, which runs a worker's code."""

    def __init__(self, source: Path, worker: str, threads: int) -> None:
        source = source.resolve()
        environment = os.environ | {"PYTHONPATH": str(source / "src"), "OMP_NUM_THREADS": str(threads)}
        arguments = [sys.executable, "-c", worker, str(threads)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(arguments, cwd=source, env=environment, **pipes)

    def seconds(self, *task: Any) -> dict[str, float]:
        """What the worker measures for a task, which it reads as one line of JSON."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(task), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit("a version has ended with an error; see above.")
        return json.loads(answer)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("before", type=Path, help="the folder of a checkout of the other version")
    parser.add_argument("--sizes", nargs="+", default=SIZES, choices=SIZES)
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="cpu")
    parser.add_argument("--output", type=Path, default=RESULTS / "reliability" / "price.json")
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    if not (options.before / "src" / "elmo_hf").is_dir():
        parser.error(f"{options.before} is no checkout: it has no folder src/elmo_hf.")
    before, after = (Version(source, WORKER, options.threads) for source in (options.before, ROOT))
    rows = [measure(before, after, size, s, options) for size in options.sizes for s in options.settings]
    write_json(
        options.output,
        {
            "command": command("speed.versions", arguments),
            "machine": machine(),
            **{name: getattr(options, name) for name in ("threads", "clock", "rounds")},
            "rows": rows,
        },
    )
    print(table(rows))


def measure(
    before: Version, after: Version, size: str, setting: str, options: argparse.Namespace
) -> dict[str, Any]:
    once = after.seconds(size, setting, "auto", 1)["wall"]
    number = max(1, round(SECONDS / once))
    turns = [("before", before, "auto"), ("after", after, "auto"), ("frozen", after, "frozen")]
    if setting == "train":  # nothing is kept
        turns.pop()
    times: dict[str, list[float]] = {name: [] for name, _, _ in turns}
    for _ in range(options.rounds):
        turns = turns[1:] + turns[:1]  # who comes first has an advantage now and then
        for name, version, choice in turns:
            times[name].append(version.seconds(size, setting, choice, number)[options.clock])
    row: dict[str, Any] = {"size": size, "setting": setting, "ms": {}}
    row["ms"] = {name: spread([1000 * value for value in values]) for name, values in times.items()}
    for name in [name for name in times if name != "before"]:
        row[f"{name}/before"] = spread([a / b for a, b in zip(times[name], times["before"], strict=True)])
    print(f"{size:10} {setting:7} " + str({k: v["median"] for k, v in row.items() if "/" in k}), flush=True)
    return row


def table(rows: list[dict[str, Any]]) -> str:
    cells = [
        [
            row["size"],
            SETTINGS[row["setting"]],
            *(
                f"{row['ms'][name]['median']:.1f}" if name in row["ms"] else ""
                for name in ("before", "after")
            ),
            *(
                f"{row[name]['median']:.3f}" if name in row else ""
                for name in ("after/before", "frozen/before")
            ),
        ]
        for row in rows
    ]
    return markdown_table(["size", "", "before, ms", "after, ms", "after/before", "frozen/before"], cells, 2)


if __name__ == "__main__":
    main()
