"""Weights averaged over the steps of training, by which a model is judged, and which are what is saved.

    task = Task(..., trainer=AveragingTrainer)

After each step `average = d * average + (1 - d) * weight`. d is 0.999, as for the paper's question answering,
but at step n no more than (1 + n) / (10 + n), so that short runs are not judged by what they began with.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from elmo_hf.finetuning.run import DecodingTrainer

DECAY = 0.999


class WeightAverage(TrainerCallback):
    """Keeps the average from the begin of training to its end, when the best epoch's has been loaded."""

    def __init__(self) -> None:
        self.values: dict[str, Tensor] = {}
        self.steps = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.steps = 0
        self.values = {name: weight.detach().clone() for name, weight in learnt(others["model"])}

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.steps += 1
        share = 1 - min(DECAY, (1 + self.steps) / (10 + self.steps))
        for name, weight in learnt(others["model"]):
            self.values[name].lerp_(weight.detach(), share)

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.values = {}

    @contextmanager
    def in_place(self, model: nn.Module) -> Iterator[None]:
        """The average stands in the model; afterwards the weights are there again."""
        self._exchange(model)
        try:
            yield
        finally:
            self._exchange(model)

    @torch.no_grad()
    def _exchange(self, model: nn.Module) -> None:
        for name, weight in learnt(model):
            if name in self.values:
                kept = weight.clone()
                weight.copy_(self.values[name])
                self.values[name].copy_(kept)


def learnt(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]


class AveragingTrainer(DecodingTrainer):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.average = WeightAverage()
        self.add_callback(self.average)

    @property
    def network(self) -> nn.Module:
        assert isinstance(self.model, nn.Module)
        return self.model

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        with self.average.in_place(self.network):
            return super().evaluate(*args, **kwargs)

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        with self.average.in_place(self.network):
            super().save_model(*args, **kwargs)
