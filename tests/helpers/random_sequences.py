"""Random sequences of changes to a model, with calls in between under `kernels.use("auto")` and "readable".

failure = run(Sequence(seed=0, steps=(Step("undo", 0, "read"),)))    # None if all numbers are equal
print(shrink(failure))                                               # with no step that is not needed
"""

import dataclasses
import random
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from elmo_hf import kernels
from tests.helpers import random_copies, random_modules, random_settings, random_weights
from tests.helpers.random_elmo import (
    CALLS,
    OPERATIONS,
    NotApplicable,
    Results,
    Subject,
    random_batch,
    step_length,
)

__all__ = [
    "OPERATIONS",
    "random_copies",
    "random_modules",
    "random_settings",
    "random_weights",
]  # which fill it
TOLERANCE = 1e-5
# Of half precision the error's length is compared. A clip cuts other values now and then, and then a gradient
# differs much; only that it is no other gradient is tested.
ROUNDED, ROUNDED_GRADIENT = 0.05, 0.5


@dataclass(frozen=True)
class Step:
    operation: str
    seed: int
    call: str


@dataclass(frozen=True)
class Sequence:
    seed: int
    steps: tuple[Step, ...]
    sure: tuple[tuple[str, Any], ...] = ()


@dataclass
class Failure:
    sequence: Sequence  # up to the step that failed
    call: str
    message: str
    why_not: str
    model: str

    def __str__(self) -> str:
        lines = [f"model {self.sequence.seed}: {self.model}"]
        lines += [
            f"    {number}. {step.operation} ({step.seed}), then {step.call}"
            for number, step in enumerate(self.sequence.steps, 1)
        ]
        reason = self.why_not or "served by the fast code"
        return "\n".join([*lines, f"    {self.call}: {self.message}; {reason}"])


@dataclass
class Counts:
    calls: int = 0
    not_cached: int = 0  # those in which the model certainly ran
    fast: int = 0  # of those
    without_reference: int = 0
    applied: Counter[str] = field(default_factory=Counter)
    not_applicable: Counter[str] = field(default_factory=Counter)
    refused: dict[str, str] = field(default_factory=dict)  # by PyTorch or a library, with its last words

    @property
    def steps(self) -> int:
        return sum(self.applied.values())

    @property
    def fast_share(self) -> float:
        return self.fast / max(1, self.not_cached)


class NoReference(Exception):
    """The readable code does not run on this model any more."""


# ---- one sequence


def run(sequence: Sequence, counts: Counts | None = None) -> Failure | None:
    """Apply each operation, and compare two calls after it. Whatever it changes in PyTorch is undone."""
    counts = counts or Counts()
    subject = Subject(sequence.seed, **dict(sequence.sure))
    with warnings.catch_warnings(), step_length(subject):
        warnings.simplefilter("ignore")
        try:
            subject.use()
            for number, step in enumerate(sequence.steps, 1):
                subject.random = random.Random(step.seed)
                apply(step.operation, subject, counts)
                for call in dict.fromkeys(("read", step.call)):
                    if difference := compare(subject, call, step.seed, counts):
                        done = dataclasses.replace(sequence, steps=sequence.steps[:number])
                        return Failure(done, call, *difference, str(subject))
                if subject.has_nan:
                    return None
        except NoReference:
            counts.without_reference += 1
        finally:
            subject.clean_up()
            kernels.use("auto")
            torch.set_num_threads(1)
            torch.set_flush_denormal(False)
    return None


def apply(operation: str, subject: Subject, counts: Counts) -> None:
    try:
        OPERATIONS[operation](subject)
        counts.applied[operation] += 1
    except NotApplicable:
        counts.not_applicable[operation] += 1
    except Exception as error:  # such as a second parametrization that does not go with a first
        counts.refused[operation] = f"{type(error).__name__}: {error}"[:200]


def compare(subject: Subject, call: str, seed: int, counts: Counts) -> tuple[str, str] | None:
    """The difference between the fast and the readable code, and `why_not`; None if there is none."""
    buffers = {name: buffer.clone() for name, buffer in subject.model.named_buffers() if not buffer.is_meta}
    actual = outcome(subject, call, "auto", seed)
    reason = kernels.why_not()
    for name, buffer in subject.model.named_buffers():
        # Power iteration goes on at each call. A write that is not needed would be seen as a change.
        if name in buffers and not torch.equal(buffer, buffers[name]) and not subject.has_nan:
            buffer.data.copy_(buffers[name])
    expected = outcome(subject, call, "readable", seed)
    if isinstance(expected, NotApplicable):
        return None
    if isinstance(expected, Exception):
        raise NoReference(call) from expected
    if isinstance(actual, ValueError) and subject.has_cache and "cache" in str(actual):
        return None  # what learns is not cached, which is said
    counts.calls += 1
    if isinstance(actual, Exception):
        return f"raised {type(actual).__name__}: {actual}"[:300], reason
    counts.not_cached += not subject.has_cache
    counts.fast += not (reason or subject.has_cache)
    is_rounded = subject.is_rounded or "autocast" in call
    if "autocast" in call and subject.has_cache:  # which returns the type of the weights
        expected = {name: tensor.to(actual.get(name, tensor)) for name, tensor in expected.items()}
    difference = difference_of(actual, expected, is_rounded, subject.has_nan)
    return (difference, reason) if difference else None


def outcome(subject: Subject, call: str, choice: str, seed: int) -> Results | Exception:
    cache = subject.model.elmo_cache if subject.has_cache else None
    if cache is not None and choice == "readable":
        subject.model.elmo_cache = None
    kernels.use(choice)
    torch.manual_seed(seed)  # of dropout
    try:
        return CALLS[call](subject, random_batch(random.Random(seed), subject.bilm.config))
    except Exception as error:
        return error
    finally:
        kernels.use("auto")
        if cache is not None:
            subject.model.elmo_cache = cache


def difference_of(actual: Results, expected: Results, is_rounded: bool, has_nan: bool) -> str:
    """The first tensor that differs, in words. A gradient that is missing is zero."""
    pairs = {}
    for name in [*expected, *(actual.keys() - expected.keys())]:
        is_gradient = name.startswith("gradient")
        if not is_gradient and (name not in actual or name not in expected):
            return f"{name} is returned by one of them only"
        pair = actual.get(name), expected.get(name)
        present = next(tensor for tensor in pair if tensor is not None)
        pairs[name] = [torch.zeros_like(present) if tensor is None else tensor for tensor in pair]
    gradients = {name: pair for name, pair in pairs.items() if name.startswith("gradient")}
    compared = {k: v for k, v in pairs.items() if k not in gradients} if has_nan or is_rounded else pairs
    if is_rounded and gradients and not has_nan:  # small ones may differ much, so together
        joined = [
            torch.cat([g.to_dense().flatten().double() for g in side])
            for side in zip(*gradients.values(), strict=True)
        ]
        compared["gradients"] = joined
    for name, pair in compared.items():
        if words := difference_of_tensors(*pair, is_rounded, name.startswith("gradient")):
            return f"{name} {words}"
    return ""


def difference_of_tensors(actual: Tensor, expected: Tensor, is_rounded: bool, is_gradient: bool) -> str:
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        kinds = [(tuple(tensor.shape), str(tensor.dtype)) for tensor in (actual, expected)]
        return f"is {kinds[0]} and not {kinds[1]}"
    actual, expected = actual.to_dense().double(), expected.to_dense().double()
    same = (actual == expected) | (actual.isnan() & expected.isnan())
    if same.all():
        return ""
    error = (actual - expected).where(~same, 0.0).nan_to_num(torch.inf)
    size = expected.nan_to_num(0.0, 0.0, 0.0).abs().max().clamp(min=1.0)
    if is_rounded:
        limit = ROUNDED_GRADIENT if is_gradient else ROUNDED
        length = expected.nan_to_num(0.0, 0.0, 0.0).norm().clamp(min=1.0)
        return f"differs by {error.norm() / length:.1%} in length" if error.norm() > limit * length else ""
    worst = error.abs().max()
    return f"differs by {worst:.1e}, where numbers are up to {size:.1e}" if worst > TOLERANCE * size else ""


# ---- many


def sequences(seed: int, steps: int, length: int = 6) -> Iterator[Sequence]:
    """Operations are dealt like cards, so that each comes as often; one in five undoes something."""
    chance, deck = random.Random(seed), []
    for number in range(-(-steps // length)):
        chosen = []
        for _ in range(length):
            deck = deck or chance.sample(sorted(OPERATIONS), len(OPERATIONS))
            operation = "undo" if chance.random() < 1 / 5 else deck.pop()
            chosen.append(Step(operation, chance.randrange(10**6), chance.choice(sorted(CALLS))))
        yield Sequence(seed * 10**6 + number, tuple(chosen))


def alone(operation: str, seeds: int) -> Iterator[Sequence]:
    """The operation by itself, on several models, before several calls."""
    calls = ["gradients", "read with states", "read the top layer"]
    for seed in range(seeds):
        yield Sequence(seed, (Step(operation, seed, calls[seed % len(calls)]),))


def shrink(failure: Failure) -> Failure:
    """Leave out every step, and every call, without which there still is a failure."""
    steps, number = failure.sequence.steps, 0
    while number < len(steps):
        step = steps[number]
        for instead in ((), (dataclasses.replace(step, call="read"),)):
            shorter = (*steps[:number], *instead, *steps[number + 1 :])
            again = shorter != steps and run(dataclasses.replace(failure.sequence, steps=shorter))
            if again:
                failure, steps = again, again.sequence.steps
                break
        if number < len(steps) and steps[number].operation == step.operation:
            number += 1
    return failure
