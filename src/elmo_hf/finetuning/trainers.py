"""Trainers that are evaluated on a task model's decisions, also with an average of the weights."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import EvalPrediction, Trainer, TrainerCallback
from transformers.trainer_pt_utils import LengthGroupedSampler

from elmo_hf import kernels
from elmo_hf.finetuning.data import Example

AVERAGE_DECAY = 0.999


class DecodingTrainer(Trainer):
    """A Trainer that is evaluated on the model's decisions, `decode`, and not on its logits.

    It computes no evaluation loss, since no choice depends on it.
    """

    length: Callable[[Example], int] | None = None  # see Task

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        if self.length is None:
            return super()._get_train_sampler(train_dataset)
        examples: Any = self.train_dataset if train_dataset is None else train_dataset
        lengths = [self.length(example) for example in examples]
        return LengthGroupedSampler(self.args.train_batch_size, lengths=lengths)

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Any, Any, Any]:
        inputs = self._prepare_inputs(inputs)
        labels = {name: value for name, value in inputs.items() if name in self.label_names}
        features = {name: value for name, value in inputs.items() if name not in labels}
        decisions = self.accelerator.unwrap_model(model).decode(**features)
        return None, decisions, tuple(labels.values()) if len(labels) > 1 else next(iter(labels.values()))


class WeightAverage(TrainerCallback):
    """An exponential moving average of the trained weights, from the begin of training to its end.

    After each step `average = d * average + (1 - d) * weight`. d is 0.999, as in the paper's question
    answering, and at most (1 + n) / (10 + n) at step n, so that short runs forget their initial weights.
    """

    def __init__(self) -> None:
        self.values: dict[str, Tensor] = {}
        self.steps = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.steps = 0
        self.values = {name: weight.detach().clone() for name, weight in trained(others["model"])}

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.steps += 1
        share = 1 - min(AVERAGE_DECAY, (1 + self.steps) / (10 + self.steps))
        for name, weight in trained(others["model"]):
            self.values[name].lerp_(weight.detach(), share)

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.values = {}

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Put the average into the model, and the weights back at the end."""
        self._swap(model)
        try:
            yield
        finally:
            self._swap(model)

    @torch.no_grad()
    def _swap(self, model: nn.Module) -> None:
        for name, weight in trained(model):
            if name in self.values:
                current = weight.clone()
                weight.copy_(self.values[name])
                self.values[name].copy_(current)


def trained(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return the parameters that training changes, by name."""
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]


class AveragingTrainer(DecodingTrainer):
    """Evaluates and saves the average of the weights."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.average = WeightAverage()
        self.add_callback(self.average)

    @property
    def network(self) -> nn.Module:
        assert isinstance(self.model, nn.Module)
        return self.model

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        with self.average.applied(self.network), kernels.frozen(self.network):
            return super().evaluate(*args, **kwargs)

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        with self.average.applied(self.network):
            super().save_model(*args, **kwargs)


class Recorder:
    """`compute_metrics` of a Trainer that keeps what it was computed from.

    Args:
        score: the scores of an evaluation.
    """

    def __init__(self, score: Callable[[EvalPrediction], dict[str, float]]) -> None:
        self.score = score
        self.last: EvalPrediction | None = None

    def __call__(self, evaluation: EvalPrediction) -> dict[str, float]:
        self.last = evaluation
        return self.score(evaluation)
