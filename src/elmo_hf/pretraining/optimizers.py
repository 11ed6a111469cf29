"""How pretraining changes weights: Adagrad as the original ELMo had it, or AdamW, and the softmax row by row.

    dense = {name: p for name, p in model.named_parameters() if not name.startswith("lm_head.")}
    optimizer = make_optimizer(dense, model.lm_head.weight, model.lm_head.bias, OptimizerSettings())
    gathered = RowGradients()
    ...                                                  # for each of the micro-batches of a step:
    loss.backward()
    gathered.add(RowGradient(wanted.ids, rows.grad, row_bias.grad))
    ...                                                  # and then once:
    norm = optimizer.step(gather_rows(gathered.take(), accelerator))

With the sampled loss a step changes some 20,000 of the softmax's 800,000 rows, so only these are read and
written. With the full loss the softmax is among the dense parameters, `make_optimizer(all_parameters, None,
None, settings)`, and `step()` takes no rows.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import get_scheduler

SCHEDULES = ("constant", "linear", "cosine")
ONLY_FOR = {"accumulator": "adagrad", "betas": "adamw", "epsilon": "adamw", "weight_decay": "adamw"}


@dataclass(frozen=True)
class OptimizerSettings:
    """What is set is bilm-tf's, which takes the gradient of the loss times its 20 steps: do so, too."""

    name: str = "adagrad"  # or adamw
    learning_rate: float = 0.2
    clip: float = 10.0  # of the norm of all gradients together; math.inf: never
    schedule: str = "constant"  # linear and cosine fall to zero at total_steps
    warmup_steps: int = 0  # in which the learning rate rises from zero
    total_steps: int | None = None
    accumulator: float = 1.0  # where Adagrad's sums of squares start
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.0  # never of a bias

    def __post_init__(self) -> None:
        if self.name not in ("adagrad", "adamw"):
            raise ValueError(f"name must be adagrad or adamw, not {self.name!r}.")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, not {self.schedule!r}.")
        for name in ("learning_rate", "clip", "accumulator", "epsilon"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be more than 0, not {getattr(self, name)}.")
        for name in ("warmup_steps", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, but it is {getattr(self, name)}.")
        if not all(0 < beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be between 0 and 1, not {self.betas}.")
        self._check_combinations()

    def _check_combinations(self) -> None:
        if self.schedule != "constant" and (self.total_steps or 0) <= self.warmup_steps:
            raise ValueError(
                f"the {self.schedule} schedule needs more total_steps than the {self.warmup_steps} "
                f"warmup_steps, but total_steps is {self.total_steps}."
            )
        for field in fields(self):
            owner = ONLY_FOR.get(field.name, self.name)
            if owner != self.name and getattr(self, field.name) != field.default:
                raise ValueError(
                    f"{field.name} is a setting of {owner}; {self.name} has none, so leave it out."
                )


# ---- gradients of rows


class RowGradient(NamedTuple):
    """The gradient of some rows of the softmax; all others have none."""

    ids: Tensor  # (m,) ascending, all different
    weight: Tensor  # (m, dim)
    bias: Tensor  # (m,)


class RowGradients:
    """The sum over the micro-batches of a step."""

    def __init__(self) -> None:
        self.parts: list[RowGradient] = []

    def add(self, part: RowGradient) -> None:
        if part.weight.shape[:1] != part.ids.shape or part.bias.shape != part.ids.shape:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in part)
            raise ValueError(f"ids, weight and bias must be (m,), (m, dim) and (m,), but they are {shapes}.")
        self.parts.append(part)

    def take(self) -> RowGradient:
        """The sum, with every id once; after it there is nothing."""
        if not self.parts:
            raise ValueError("there are no gradients of rows to take; add those of each micro-batch first.")
        parts, self.parts = self.parts, []
        return sum_of(parts)


def sum_of(parts: Sequence[RowGradient]) -> RowGradient:
    """Added part after part: as no id is twice in one, a GPU, too, gives the same sum every time."""
    if len(parts) == 1:
        return parts[0]
    ids = torch.unique(torch.cat([part.ids for part in parts]))
    weight = parts[0].weight.new_zeros(len(ids), parts[0].weight.shape[1])
    bias = parts[0].bias.new_zeros(len(ids))
    for part in parts:
        places = torch.searchsorted(ids, part.ids)
        weight.index_add_(0, places, part.weight)
        bias.index_add_(0, places, part.bias)
    return RowGradient(ids, weight, bias)


def gather_rows(rows: RowGradient, accelerator: Accelerator) -> RowGradient:
    """The mean over all processes, which call this together; the same in every one of them."""
    processes = accelerator.num_processes
    if processes == 1:
        return rows
    # Processes have different words, and not equally many: short ones are filled up with the id -1.
    padded = (accelerator.pad_across_processes(part.contiguous(), dim=0, pad_index=-1) for part in rows)
    ids, weight, bias = (accelerator.gather(part).unflatten(0, (processes, -1)) for part in padded)
    parts = [RowGradient(i[i >= 0], w[i >= 0], b[i >= 0]) for i, w, b in zip(ids, weight, bias, strict=True)]
    total = sum_of(parts)
    return RowGradient(total.ids, total.weight / processes, total.bias / processes)


def clip_together(gradients: Sequence[Tensor], limit: float) -> Tensor:
    """Scale all of them, in place, so that their common norm is at most the limit. Returns the norm before.

    As tf.clip_by_global_norm, where rows that occur several times have been added up before.
    """
    norm = nn.utils.get_total_norm(gradients)
    scale = (limit / norm).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale)
    return norm


# ---- rows of large tables


class RowAdagrad:
    """TensorFlow's Adagrad, of the given rows: sum += g^2, row -= learning_rate * g / sqrt(sum)"""

    def __init__(self, weight: Tensor, bias: Tensor, settings: OptimizerSettings) -> None:
        self.tables = (weight, bias)
        self.sums = tuple(torch.full_like(table, settings.accumulator) for table in self.tables)

    @torch.no_grad()
    def step(self, rows: RowGradient, learning_rate: float) -> None:
        for table, sums, gradient in zip(self.tables, self.sums, rows[1:], strict=True):
            some = sums[rows.ids].addcmul_(gradient, gradient)
            sums[rows.ids] = some
            table.index_add_(0, rows.ids, gradient / some.sqrt_(), alpha=-learning_rate)

    def state(self) -> dict[str, Tensor]:
        return {"weight.sum": self.sums[0], "bias.sum": self.sums[1]}


class RowAdamW:
    """AdamW, of the given rows: a row knows only the steps that it had a part in, and counts them itself."""

    def __init__(self, weight: Tensor, bias: Tensor, settings: OptimizerSettings) -> None:
        self.tables = (weight, bias)
        self.means = tuple(map(torch.zeros_like, self.tables))
        self.squares = tuple(map(torch.zeros_like, self.tables))
        self.steps = torch.zeros_like(bias)
        self.betas, self.epsilon = settings.betas, settings.epsilon
        self.decays = (settings.weight_decay, 0.0)

    @torch.no_grad()
    def step(self, rows: RowGradient, learning_rate: float) -> None:
        steps = self.steps[rows.ids] + 1
        self.steps[rows.ids] = steps
        weight, bias = zip(self.tables, self.means, self.squares, rows[1:], self.decays, strict=True)
        self._update(rows.ids, steps[:, None], *weight, learning_rate)
        self._update(rows.ids, steps, *bias, learning_rate)

    def _update(
        self,
        ids: Tensor,
        steps: Tensor,
        table: Tensor,
        means: Tensor,
        squares: Tensor,
        gradient: Tensor,
        decay: float,
        learning_rate: float,
    ) -> None:
        first, second = self.betas
        mean = means[ids].lerp_(gradient, 1 - first)
        square = squares[ids].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        means[ids], squares[ids] = mean, square
        # 1 - beta ** steps, which is near zero at first, with all digits that float32 has.
        first_share, second_share = (-torch.expm1(steps * math.log(beta)) for beta in self.betas)
        size = square.div_(second_share).sqrt_().add_(self.epsilon)
        change = mean.div_(first_share).div_(size).add_(table[ids], alpha=decay)
        table.index_add_(0, ids, change, alpha=-learning_rate)

    def state(self) -> dict[str, Tensor]:
        tensors = (*self.means, *self.squares, self.steps)
        names = ("weight.mean", "bias.mean", "weight.square", "bias.square", "steps")
        return dict(zip(names, tensors, strict=True))


# ---- everything together


class PretrainingOptimizer:
    """One step for all parameters: clip together, change the dense ones, change the softmax's rows."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        dense: torch.optim.Optimizer,
        rows: RowAdagrad | RowAdamW | None,
        settings: OptimizerSettings,
    ) -> None:
        self.parameters, self.dense, self.rows, self.settings = dict(parameters), dense, rows, settings
        self.steps = 0
        # The learning rate is a function of the number of steps alone, so there is nothing else to save.
        warm = settings.schedule == "constant" and settings.warmup_steps > 0
        name = "constant_with_warmup" if warm else settings.schedule
        schedule = get_scheduler(name, dense, settings.warmup_steps, settings.total_steps)
        self._factor = schedule.lr_lambdas[0]

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return self.settings.learning_rate * self._factor(self.steps)

    def step(self, rows: RowGradient | None = None) -> Tensor:
        """Clips the gradients in place, and returns their norm before. If it is not finite, no weight and no
        state has changed, and the step is not counted."""
        if (rows is None) != (self.rows is None):
            raise ValueError(
                "a step needs the gradient of the softmax's rows if the optimizer was made with a softmax, "
                "and takes none if it was made without."
            )
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        norm = clip_together([*gradients, *(rows[1:] if rows else ())], self.settings.clip)
        if norm.isfinite():
            for group in self.dense.param_groups:
                group["lr"] = self.learning_rate
            self.dense.step()
            if rows is not None and self.rows is not None:
                self.rows.step(rows, self.learning_rate)
            self.steps += 1
        return norm

    def zero_grad(self) -> None:
        self.dense.zero_grad()

    def state_dict(self) -> dict[str, Tensor]:
        """Plain tensors with names that stay: `dense.<parameter>.<what>`, `softmax.<what>` and `steps`. They
        are the optimizer's own, not copies."""
        state = {"steps": torch.tensor(self.steps)}
        for name, parameter in self.parameters.items():
            state |= {f"dense.{name}.{what}": tensor for what, tensor in self.dense.state[parameter].items()}
        if self.rows is not None:
            state |= {f"softmax.{what}": tensor for what, tensor in self.rows.state().items()}
        return state

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what `state_dict` gave; refuses whatever is not of the same parameters and settings."""
        own = self.state_dict()
        if wrong := sorted(own.keys() ^ state.keys()):
            where = "is missing from" if wrong[0] in own else "does not belong into"
            raise ValueError(
                f"{wrong[0]} {where} the optimizer's state; {len(wrong)} names are wrong in all."
            )
        for name, tensor in own.items():
            if tensor.shape != state[name].shape:
                shapes = f"{tuple(state[name].shape)}, not {tuple(tensor.shape)}"
                raise ValueError(f"{name} of the optimizer's state is {shapes}.")
        for name, tensor in own.items():
            tensor.copy_(state[name])
        self.steps = int(state["steps"])


# ---- making one


def make_optimizer(
    dense: Mapping[str, nn.Parameter],
    softmax_weight: Tensor | None,
    softmax_bias: Tensor | None,
    settings: OptimizerSettings,
) -> PretrainingOptimizer:
    """Of the dense parameters by their names, and of the softmax (vocab_size, dim) and (vocab_size,), unless
    it is one of them. They must be where they stay: move the model to its device before."""
    if not dense:
        raise ValueError("there are no dense parameters to train.")
    if (softmax_weight is None) != (softmax_bias is None):
        raise ValueError("the softmax's weight and bias are given together, or neither.")
    rows = None
    if softmax_weight is not None and softmax_bias is not None:
        if any(p is softmax_weight or p is softmax_bias for p in dense.values()):
            raise ValueError("the softmax is also among the dense parameters; it can be one of both only.")
        kind = RowAdagrad if settings.name == "adagrad" else RowAdamW
        rows = kind(softmax_weight.detach(), softmax_bias.detach(), settings)
    return PretrainingOptimizer(dense, make_dense(dense, settings), rows, settings)


def make_dense(parameters: Mapping[str, nn.Parameter], settings: OptimizerSettings) -> torch.optim.Optimizer:
    """PyTorch's own. With no epsilon its Adagrad is TensorFlow's."""
    if settings.name == "adagrad":
        return torch.optim.Adagrad(
            parameters.values(),
            lr=settings.learning_rate,
            initial_accumulator_value=settings.accumulator,
            eps=0.0,
        )
    biases = [p for name, p in parameters.items() if name.endswith("bias")]
    others = [p for name, p in parameters.items() if not name.endswith("bias")]
    groups: list[dict[str, Any]] = [{"params": others}, {"params": biases, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.epsilon,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    for (
        parameter
    ) in parameters.values():  # which PyTorch makes at the first step; then it could not be loaded
        optimizer.state[parameter] = {
            "step": torch.zeros((), device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    return optimizer
