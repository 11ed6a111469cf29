"""The parts of one training step, each measured alone: a process that `benchmarks.speed.steps` starts."""

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed.steps import WORKER
from elmo_hf.kernels.products import product
from elmo_hf.pretraining.learner import Learner
from elmo_hf.pretraining.optimizers import RowGradient
from elmo_hf.pretraining.sampling import full_loss, sampled_loss

ROUNDS = 5


def main() -> None:
    _, threads, _, flags = sys.argv
    names: dict[str, Any] = {"__name__": "worker"}
    sys.argv = ["worker", threads]
    exec(WORKER, names)
    learner, windows = names["make"](json.loads(flags))
    window = next(windows)
    learner.update([window], names["words_of"](window), 0)
    dtype = torch.bfloat16 if learner.settings.precision == "bf16" else torch.float32
    peak = product_peak(dtype)
    calls = {
        "characters": characters(learner, window),
        "LSTMs": lstms(learner, window),
        "softmax": softmax(learner, window),
        "optimizer": optimizer(learner, window),
        "feed": lambda: (next(windows), 0)[1],
        "step": lambda: (learner.update([window], names["words_of"](window), 1), 0)[1],
    }
    parts = {name: measure(call, peak) for name, call in calls.items()}
    print(json.dumps({"peak_gflops": round(peak / 1e9), "parts": parts}))


def measure(call: Callable[[], float], peak: float) -> dict[str, float]:
    """`call` returns the operations of its products."""
    call()
    seconds = []
    for _ in range(ROUNDS):
        start = time.process_time()
        operations = call()
        seconds.append(time.process_time() - start)
    middle = statistics.median(seconds)
    return {"seconds": middle, "gflop": round(operations / 1e9, 2), "of_peak": operations / middle / peak}


def product_peak(dtype: torch.dtype) -> float:
    """Operations a second of the processor's time."""
    x, weight = torch.randn(256, 512).to(dtype), torch.randn(512, 2048).to(dtype)
    times = []
    for _ in range(30):
        start = time.process_time()
        for _ in range(10):
            product(x, weight)
        times.append(time.process_time() - start)
    return 10 * 2 * 256 * 512 * 2048 / min(times)


def tensors_of(learner: Learner, window: Any) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(window.char_ids).long(), torch.from_numpy(window.mask)


def characters(learner: Learner, window: Any) -> Callable[[], float]:
    ids, _ = tensors_of(learner, window)
    encoder = learner.model.elmo.token_encoder
    distinct, config = len(ids.flatten(0, -2).unique(dim=0)), learner.model.config
    filters = config.num_filters
    of_a_word = 4 * filters * filters * config.num_highway_layers + 2 * filters * config.projection_dim

    def call() -> float:
        with learner.accelerator.autocast():
            words = encoder(ids)
        words.backward(torch.ones_like(words))
        encoder.zero_grad()
        return 3 * distinct * of_a_word

    return call


def lstms(learner: Learner, window: Any) -> Callable[[], float]:
    ids, mask = tensors_of(learner, window)
    model, config = learner.model.elmo, learner.model.config
    with torch.no_grad(), learner.accelerator.autocast():
        words = model.token_encoder(ids).float()
    cells, width = config.lstm_dim, config.projection_dim
    of_a_word = 2 * config.num_hidden_layers * 2 * (2 * width * 4 * cells + cells * width)

    def call() -> float:
        x = words.clone().requires_grad_()
        with learner.accelerator.autocast():
            (top,), _, _ = model._run_layers(x, mask, *learner.states)
        top.backward(torch.ones_like(top))
        model.zero_grad()
        return 3 * int(mask[0].sum()) * of_a_word

    return call


def softmax(learner: Learner, window: Any) -> Callable[[], float]:
    config, targets = learner.model.config, torch.from_numpy(window.targets)
    dtype = torch.bfloat16 if learner.settings.precision == "bf16" else torch.float32
    hidden = torch.randn(*targets.shape, config.output_dim).to(dtype).flatten(1, 2)
    columns = learner.samples or config.vocab_size

    def call() -> float:
        h = hidden.clone().requires_grad_()
        if learner.samples:
            selected, rows = learner._select_rows(targets, (0, 0, 0, 0))
            loss = sampled_loss(h, *rows, selected)
        else:
            head = learner.model.lm_head
            loss = full_loss(h, head.weight, head.bias, targets.flatten(1))
        loss.sum().backward()
        return 3 * 2 * targets.numel() * columns * config.output_dim

    return call


def optimizer(learner: Learner, window: Any) -> Callable[[], float]:
    """Its gradients are zeros."""
    selected, rows = learner._select_rows(torch.from_numpy(window.targets), (0, 0, 0, 0))
    gradients = [torch.zeros_like(table) for table in rows]

    def call() -> float:
        for parameter in learner.optimizer.parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        learner.optimizer.step(RowGradient(selected.ids, *gradients) if learner.samples else None)
        learner.optimizer.zero_grad()
        return 0.0

    return call


if __name__ == "__main__":
    main()
