"""Seconds and memory from the start of a process to its first vectors, stage by stage.

    python -m benchmarks.speed.first_call                        # elmo-tiny, and the original size at random
    python -m benchmarks.speed.table                             # the table in benchmarks/README.md

Each round is a fresh process for each model, in turns; the figures are medians. Seconds are those of the
processor, in one thread. Of memory, `private` is what the process has for itself (its weights once they are
laid out anew, results, libraries' data), and `file` what it reads from files that the system may drop and
share (the weights file, libraries).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import elmo_hf
from benchmarks.report import RESULTS, command, in_turns, machine, versions
from benchmarks.speed.weights import write_random_model
from benchmarks.speed.workloads import SIZES, made_up_sentences
from elmo_hf.files import write_json

STAGES = {
    "torch": "import torch",
    "transformers": "import PreTrainedModel of transformers",
    "elmo_hf": "import ElmoModel and ElmoTokenizer",
    "load": "load tokenizer and weights",
    "first": "first sentence",
    "second": "second sentence",
}
# Runs in a fresh interpreter: nothing is imported before its stage.
PROGRAM = """
import json, sys, time

seconds, memory = {}, {}

def end(stage, start):
    seconds[stage] = time.process_time() - start
    with open("/proc/self/status") as file:
        lines = dict(line.split(":", 1) for line in file)
    names = {"private": "RssAnon", "file": "RssFile", "peak": "VmHWM"}
    memory[stage] = {name: int(lines[key].split()[0]) / 1024 for name, key in names.items()}
    return time.process_time()

folder, sentences = sys.argv[1], json.loads(sys.argv[2])
start = 0.0  # the interpreter's own start counts
import torch
start = end("torch", start)
from transformers import PreTrainedModel
start = end("transformers", start)
from elmo_hf import ElmoModel, ElmoTokenizer
start = end("elmo_hf", start)
tokenizer, model = ElmoTokenizer.from_pretrained(folder), ElmoModel.from_pretrained(folder).eval()
start = end("load", start)
for stage, sentence in zip(("first", "second"), sentences):
    with torch.inference_mode():
        model(**tokenizer([sentence], is_split_into_words=True, return_tensors="pt"))
    start = end(stage, start)
print(json.dumps({"seconds": seconds, "memory": memory}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", nargs="*", choices=list(SIZES), default=["original"], help="(original)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS / "first_call.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folders = {"elmo-tiny": elmo_hf.TINY}
        folders |= {size: write_random_model(size, Path(temporary) / size) for size in options.sizes}
        models = measure(folders, options.rounds)
    content = {
        "command": command("speed.first_call", sys.argv[1:]),
        "machine": machine(),
        "versions": versions("torch", "transformers"),
        "rounds": options.rounds,
        "stages": STAGES,
        "models": models,
    }
    write_json(options.output, content)
    print(json.dumps(models, indent=1))


def measure(folders: dict[str, Path], rounds: int) -> dict[str, Any]:
    sentences = made_up_sentences(2)

    def run(folder: Path, _: int) -> Any:
        process = [sys.executable, "-c", PROGRAM, str(folder), json.dumps(sentences)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return json.loads(subprocess.run(process, env=environment, check=True, stdout=subprocess.PIPE).stdout)

    runs = in_turns({name: partial(run, folder) for name, folder in folders.items()}, rounds)
    return {name: summarise(folders[name], own) for name, own in runs.items()}


def summarise(folder: Path, runs: list[Any]) -> dict[str, Any]:
    """The medians of the rounds, in seconds and megabytes."""
    first = runs[0]
    return {
        "weights_mb": round(sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 2**20, 1),
        "seconds": {stage: median([run["seconds"][stage] for run in runs], 4) for stage in first["seconds"]},
        "memory_mb": {
            stage: {kind: median([run["memory"][stage][kind] for run in runs], 1) for kind in kinds}
            for stage, kinds in first["memory"].items()
        },
    }


def median(values: list[float], digits: int) -> float:
    return round(statistics.median(values), digits)


if __name__ == "__main__":
    main()
