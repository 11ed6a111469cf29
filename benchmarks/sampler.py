"""How long drawing the words of a sampled softmax takes, beside drawing them one by one.

    OMP_NUM_THREADS=1 python -m benchmarks.sampler

Seconds of the processor, in turns; the JSON has milliseconds a draw of one direction.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.report import machine
from elmo_hf.pretraining.sampling import log_uniform_sample

RESULTS = Path(__file__).resolve().parent / "results" / "training"


def one_by_one(number: int, vocab_size: int, generator: np.random.Generator) -> tuple[list[int], int]:
    """What TensorFlow's C++ does, in Python."""
    found: set[int] = set()
    tries = 0
    while len(found) < number:
        found.add(int(math.exp(generator.random() * math.log1p(vocab_size))) - 1)
        tries += 1
    return sorted(found), tries


def milliseconds(sample: Callable, number: int, vocab_size: int, seed: int) -> float:
    start = time.process_time()
    sample(number, vocab_size, np.random.default_rng([seed, 0]))
    return (time.process_time() - start) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--number", type=int, default=8192)
    parser.add_argument("--vocab-size", type=int, nargs="+", default=[793_471, 50_000])
    parser.add_argument("--rounds", type=int, default=101)
    parser.add_argument("--output", type=Path, default=RESULTS / "sampler.json")
    options = parser.parse_args()
    results = []
    for vocab_size in options.vocab_size:
        samplers = {"ours": log_uniform_sample, "one by one": one_by_one}
        times: dict[str, list[float]] = {name: [] for name in samplers}
        for seed in range(options.rounds):
            for name, sample in samplers.items():
                times[name].append(milliseconds(sample, options.number, vocab_size, seed))
        medians = {name: round(statistics.median(values), 3) for name, values in times.items()}
        print(f"{options.number:,} of {vocab_size:,}: {medians} ms")
        results.append({"number": options.number, "vocab_size": vocab_size, "median_ms": medians})
    options.output.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine(), "numpy": np.__version__, "rounds": options.rounds, "results": results}
    options.output.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
