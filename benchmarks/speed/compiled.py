"""torch.compile on an ELMo: what compiling costs, how fast the result is, and what makes it compile again.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.compiled     # needs a C++ compiler; some minutes
    python -m benchmarks.comparison                           # the tables of docs/compile.md

The contestants read the same batches in turns; a ratio is taken within a round, and the result is the median.
One thread, seconds of the processor; those of compiling include the C++ compiler's, without a cache.
"""

import argparse
import copy
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch._dynamo as dynamo
from torch import Tensor

from benchmarks.report import RESULTS, command, in_turns, machine
from benchmarks.speed.workloads import SIZES
from elmo_hf import TINY, ElmoConfig, ElmoForTokenClassification, ElmoModel, ElmoTokenizer, kernels
from elmo_hf.files import write_json

BASELINE = "readable"
SHAPES = {"one sentence of 10 words": (1, 10), "32 sentences of 10 words": (32, 10)}
LENGTHS = range(2, 14)  # words of a sentence; more than torch.compile keeps graphs
BATCHES = (2, 3, 4, 5, 8)  # sentences
Batch = dict[str, Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=TINY, help="a folder; by default elmo-tiny")
    parser.add_argument("--backend", default="inductor")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, default=RESULTS / "compile.json")
    options = parser.parse_args()
    os.environ |= {"TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    torch.set_num_threads(1)
    model = ElmoModel.from_pretrained(options.model).eval()
    content = {
        "command": command("speed.compiled", sys.argv[1:]),
        "machine": machine(),
        "torch": torch.__version__,
        "model": options.model.name,
        "backend": options.backend,
        "rounds": options.rounds,
        "shapes": {
            name: measure(model, batch_of(*shape), options.backend, options.rounds)
            for name, shape in SHAPES.items()
        },
        "graphs": count_graphs(),
        "whole_graphs": whole_graphs(),
    }
    write_json(options.output, content)
    print(json.dumps(content, indent=1))


def batch_of(sentences: int, words: int) -> Batch:
    """Sentences of made-up words, all different."""
    texts = [[f"word{row * words + place}" for place in range(words)] for row in range(sentences)]
    return dict(ElmoTokenizer()(texts, is_split_into_words=True, return_tensors="pt"))


# ---- speed


def measure(model: ElmoModel, batch: Batch, backend: str, rounds: int) -> dict[str, Any]:
    """What compiling for this batch costs, and the time of a call of each contestant."""
    dynamo.reset()
    readers = {choice: reader(copy.deepcopy(model), choice) for choice in ("readable", "auto")}
    readers["compiled"] = reader(torch.compile(copy.deepcopy(model), backend=backend), "auto")
    start = processor_seconds()
    vectors = readers["compiled"](batch)
    compiling = processor_seconds() - start
    times = in_turns({name: timed(read, batch) for name, read in readers.items()}, rounds, warmup=2)
    ratios = {
        name: statistics.median(base / value for base, value in zip(times[BASELINE], values, strict=True))
        for name, values in times.items()
    }
    return {
        "compile_seconds": round(compiling, 1),
        "difference": float((vectors - readers[BASELINE](batch)).abs().max()),
        "milliseconds": {name: round(1000 * statistics.median(values), 2) for name, values in times.items()},
        "ratio": {name: round(ratio, 2) for name, ratio in ratios.items()},
    }


def reader(model: Any, choice: str) -> Callable[[Batch], Tensor]:
    def read(batch: Batch) -> Tensor:
        kernels.use(choice)
        with torch.no_grad():
            return model(**batch).last_hidden_state

    return read


def timed(read: Callable[[Batch], Tensor], batch: Batch) -> Callable[[int], float]:
    def call(_: int) -> float:
        start = time.process_time()
        read(batch)
        return time.process_time() - start

    return call


def processor_seconds() -> float:
    """Of this process and of those that it has started and waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


# ---- what is compiled


def count_graphs() -> dict[str, Any]:
    """How many graphs there are after sentences of each length, and after batches of each size."""
    model = ElmoModel(ElmoConfig(**SIZES["tiny"], vocab_size=3)).eval()
    return {
        "lengths": graphs_after(model, {words: batch_of(2, words) for words in LENGTHS}),
        "batches": graphs_after(model, {rows: batch_of(rows, 4) for rows in BATCHES}),
        "limit": dynamo.config.recompile_limit,
    }


def graphs_after(model: ElmoModel, batches: dict[int, Batch]) -> dict[int, int]:
    dynamo.reset()
    dynamo.utils.counters.clear()
    read = reader(torch.compile(model, backend="eager"), "auto")
    counts = {}
    for size, batch in batches.items():
        read(batch)
        counts[size] = dynamo.utils.counters["stats"]["unique_graphs"]
    return counts


def whole_graphs() -> dict[str, bool]:
    """Whether `fullgraph=True` compiles a model."""
    config = ElmoConfig(**SIZES["tiny"], vocab_size=3, task_hidden_size=5)
    classes: Iterable[Any] = (ElmoModel, ElmoForTokenClassification)
    return {cls.__name__: compiles_whole(cls(config).eval()) for cls in classes}


def compiles_whole(model: Any) -> bool:
    dynamo.reset()
    try:
        torch.compile(model, backend="eager", fullgraph=True)(**batch_of(2, 4))
    except dynamo.exc.Unsupported:
        return False
    return True


if __name__ == "__main__":
    main()
