"""Does a step of the sampled softmax cost more when the vocabulary is larger? It should not.

    OMP_NUM_THREADS=1 python -m benchmarks.softmax_step     # 7 GB of memory for 800,000 x 512

A step draws the samples, gathers the rows, computes the loss forward and backward, clips, and updates the
rows with Adagrad: 2 directions of 2,560 words against 8,192 samples each. The targets are drawn like words of
a text, P(k) about 1 / (k + 1). Vocabularies take turns; a ratio is taken within a round, the median is told.
Times are seconds of the processor.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.report import RESULTS, machine
from elmo_hf.pretraining.optimizers import OptimizerSettings, RowGradient, make_optimizer
from elmo_hf.pretraining.sampling import draw_samples, sampled_loss, select_rows


class Softmax:
    """One table of weights, and what trains it."""

    def __init__(self, vocab_size: int, dim: int, places: int, samples: int) -> None:
        self.vocab_size, self.samples, self.shape = vocab_size, samples, (2, places, dim)
        self.weight, self.bias = torch.randn(vocab_size, dim).mul_(dim**-0.5), torch.zeros(vocab_size)
        self.scale = nn.Parameter(torch.ones(1))  # the dense part of a model, as small as it can be
        settings = OptimizerSettings()
        self.optimizer = make_optimizer({"scale": self.scale}, self.weight, self.bias, settings)

    def targets(self, seed: int) -> Tensor:
        powers = np.random.default_rng(seed).random(self.shape[:2]) * np.log1p(self.vocab_size)
        return torch.from_numpy((np.exp(powers) - 1).astype(np.int64))

    def step(self, number: int) -> dict[str, Any]:
        """Seconds of each part, and how many different words there were."""
        targets = self.targets(number)
        hidden = torch.randn(self.shape, generator=torch.Generator().manual_seed(number))
        times = [time.process_time()]
        samples = draw_samples(self.samples, self.vocab_size, (1, number, 0))
        wanted = select_rows(targets, samples)
        times.append(time.process_time())
        rows, bias = self.weight[wanted.ids].requires_grad_(), self.bias[wanted.ids].requires_grad_()
        times.append(time.process_time())
        loss = sampled_loss(hidden * self.scale, rows, bias, wanted).mean()
        times.append(time.process_time())
        (20 * loss).backward()
        times.append(time.process_time())
        assert rows.grad is not None
        assert bias.grad is not None
        self.optimizer.step(RowGradient(wanted.ids, rows.grad, bias.grad))
        self.optimizer.zero_grad()
        times.append(time.process_time())
        names = ["draw", "gather", "forward", "backward", "update"]
        parts = {name: b - a for name, a, b in zip(names, times, times[1:], strict=False)}
        return {**parts, "step": times[-1] - times[0], "words": len(wanted.ids)}


def compare(dim: int, options: argparse.Namespace) -> dict[str, Any]:
    softmaxes = {size: Softmax(size, dim, options.places, options.samples) for size in options.vocab_size}
    rounds = []
    for number in range(options.rounds + 1):  # the first does not count
        rounds.append({size: softmax.step(number) for size, softmax in softmaxes.items()})
    rounds = rounds[1:]
    small, large = min(options.vocab_size), max(options.vocab_size)
    medians = {
        str(size): {name: statistics.median(r[size][name] for r in rounds) for name in rounds[0][size]}
        for size in softmaxes
    }
    ratio = statistics.median(r[large]["step"] / r[small]["step"] for r in rounds)
    return {"dim": dim, "rounds": len(rounds), "ratio": ratio, "median": medians}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--vocab-size", type=int, nargs=2, default=[50_000, 800_000])
    parser.add_argument("--dim", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--places", type=int, default=2560, help="words a step and direction (2560)")
    parser.add_argument("--samples", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, default=RESULTS / "training" / "softmax-step.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    for dim in options.dim:
        results.append(compare(dim, options))
        print(json.dumps(results[-1], indent=2), flush=True)
    settings = {"places": options.places, "samples": options.samples, "torch": torch.__version__}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine(), **settings, "results": results}
    options.output.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
