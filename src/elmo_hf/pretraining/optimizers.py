"""Optimizers of pretraining: the original ELMo's Adagrad, or AdamW, with sparse updates of the softmax.

    dense = {name: p for name, p in model.named_parameters() if not name.startswith("lm_head.")}
    optimizer = make_optimizer(dense, model.lm_head.weight, model.lm_head.bias, OptimizerSettings())
    row_gradients = RowGradients()
    ...                                                  # for each micro-batch of a step:
    loss.backward()
    row_gradients.add(RowGradient(selected.ids, rows.grad, row_bias.grad))
    ...                                                  # then once a step:
    norm = optimizer.step(gather_rows(row_gradients.take(), accelerator))

With the sampled loss a step changes some 20,000 of the softmax's 800,000 rows, and only these are read and
written. With the full loss the softmax is one of the dense parameters, `make_optimizer(all_parameters, None,
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

from elmo_hf.errors import ElmoError

SCHEDULES = ("constant", "linear", "cosine")
ONLY_FOR = {"accumulator": "adagrad", "betas": "adamw", "epsilon": "adamw", "weight_decay": "adamw"}


@dataclass(frozen=True)
class OptimizerSettings:
    """Settings of the optimizer. The defaults are bilm-tf's, for the gradient of 20 times the loss.

    Args:
        name: "adagrad" or "adamw".
        learning_rate: the peak learning rate.
        clip: largest norm of all gradients together; `math.inf` for no limit.
        schedule: "constant", or "linear" or "cosine", which fall to zero at `total_steps`.
        warmup_steps: steps in which the learning rate rises from zero.
        accumulator: initial value of Adagrad's sums of squares.
        betas, epsilon, weight_decay: AdamW's; biases do not decay.
    """

    name: str = "adagrad"
    learning_rate: float = 0.2
    clip: float = 10.0
    schedule: str = "constant"
    warmup_steps: int = 0
    total_steps: int | None = None
    accumulator: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in ("adagrad", "adamw"):
            raise ElmoError(f"name must be adagrad or adamw, not {self.name!r}.")
        if self.schedule not in SCHEDULES:
            raise ElmoError(f"schedule must be one of {', '.join(SCHEDULES)}, not {self.schedule!r}.")
        for name in ("learning_rate", "clip", "accumulator", "epsilon"):
            if not getattr(self, name) > 0:
                raise ElmoError(f"{name} must be more than 0, not {getattr(self, name)}.")
        for name in ("warmup_steps", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ElmoError(f"{name} must not be negative, but it is {getattr(self, name)}.")
        if not all(0 < beta < 1 for beta in self.betas):
            raise ElmoError(f"betas must be between 0 and 1, not {self.betas}.")
        self._check_combinations()

    def _check_combinations(self) -> None:
        if self.schedule != "constant" and (self.total_steps or 0) <= self.warmup_steps:
            raise ElmoError(
                f"the {self.schedule} schedule needs more total_steps than the {self.warmup_steps} "
                f"warmup_steps, but total_steps is {self.total_steps}."
            )
        for field in fields(self):
            owner = ONLY_FOR.get(field.name, self.name)
            if owner != self.name and getattr(self, field.name) != field.default:
                raise ElmoError(
                    f"{field.name} is a setting of {owner}; {self.name} has none, so leave it out."
                )


# ---- gradients of rows


class RowGradient(NamedTuple):
    """The gradient of some rows of the softmax; the gradient of all other rows is zero."""

    ids: Tensor  # (m,) ascending, all different
    weight: Tensor  # (m, dim)
    bias: Tensor  # (m,)


class RowGradients:
    """The gradients of a step's micro-batches."""

    def __init__(self) -> None:
        self.gradients: list[RowGradient] = []

    def add(self, gradient: RowGradient) -> None:
        size = gradient.ids.shape
        if gradient.weight.shape[:1] != size or gradient.bias.shape != size:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in gradient)
            raise ElmoError(f"ids, weight and bias must be (m,), (m, dim) and (m,), but they are {shapes}.")
        self.gradients.append(gradient)

    def take(self) -> RowGradient:
        """Return the sum of all gradients, and forget them."""
        if not self.gradients:
            raise ElmoError("there are no gradients of rows to take; add those of each micro-batch first.")
        gradients, self.gradients = self.gradients, []
        return add_gradients(gradients)


def add_gradients(gradients: Sequence[RowGradient]) -> RowGradient:
    """Add them one after another. Each has every id once, so the sum is deterministic on a GPU, too."""
    if len(gradients) == 1:
        return gradients[0]
    ids = torch.unique(torch.cat([gradient.ids for gradient in gradients]))
    weight = gradients[0].weight.new_zeros(len(ids), gradients[0].weight.shape[1])
    bias = gradients[0].bias.new_zeros(len(ids))
    for gradient in gradients:
        index = torch.searchsorted(ids, gradient.ids)
        weight.index_add_(0, index, gradient.weight)
        bias.index_add_(0, index, gradient.bias)
    return RowGradient(ids, weight, bias)


def gather_rows(rows: RowGradient, accelerator: Accelerator) -> RowGradient:
    """Return the mean over all processes, the same in each of them. All processes must call it together."""
    processes = accelerator.num_processes
    if processes == 1:
        return rows
    # Processes have different numbers of rows: shorter ones are padded with the id -1.
    padded = (accelerator.pad_across_processes(tensor.contiguous(), dim=0, pad_index=-1) for tensor in rows)
    columns = (accelerator.gather(tensor).unflatten(0, (processes, -1)) for tensor in padded)
    gathered = [RowGradient(i[i >= 0], w[i >= 0], b[i >= 0]) for i, w, b in zip(*columns, strict=True)]
    total = add_gradients(gathered)
    return RowGradient(total.ids, total.weight / processes, total.bias / processes)


def clip_together(gradients: Sequence[Tensor], limit: float) -> Tensor:
    """Scale the gradients in place so that their common norm is at most `limit`; return the norm before.

    As `tf.clip_by_global_norm` does, after the gradients of a row that occurs several times have been added.
    """
    norm = nn.utils.get_total_norm(gradients)
    scale = (limit / norm).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale)
    return norm


# ---- sparse updates of the softmax


def _only(is_used: Tensor | None, rows: Tensor, others: Tensor | float = 0.0) -> Tensor:
    """The rows that are used, (m,) or (); in place of the others, those of `others`."""
    if is_used is None:
        return rows
    return torch.where(is_used[:, None] if rows.dim() == 2 and is_used.dim() else is_used, rows, others)


def _subtract(table: Tensor, ids: Tensor, change: Tensor, learning_rate: float | Tensor) -> None:
    if isinstance(learning_rate, Tensor):
        table.index_add_(0, ids, change * -learning_rate)
    else:
        table.index_add_(0, ids, change, alpha=-learning_rate)


class RowAdagrad:
    """TensorFlow's Adagrad on some rows: sum += g^2, row -= learning_rate * g / sqrt(sum)."""

    def __init__(self, weight: Tensor, bias: Tensor, settings: OptimizerSettings) -> None:
        self.tables = (weight, bias)
        self.sums = tuple(torch.full_like(table, settings.accumulator) for table in self.tables)

    @torch.no_grad()
    def step(self, rows: RowGradient, learning_rate: float | Tensor, is_used: Tensor | None = None) -> None:
        """Rows that are not used, (m,), are as they were."""
        for table, sums, gradient in zip(self.tables, self.sums, rows[1:], strict=True):
            gradient = _only(is_used, gradient)
            new_sums = sums[rows.ids].addcmul_(gradient, gradient)
            sums[rows.ids] = new_sums
            _subtract(table, rows.ids, gradient / new_sums.sqrt_(), learning_rate)

    def state(self) -> dict[str, Tensor]:
        return {"weight.sum": self.sums[0], "bias.sum": self.sums[1]}


class RowAdamW:
    """AdamW on some rows. Each row counts its own steps, and its means decay only in these steps."""

    def __init__(self, weight: Tensor, bias: Tensor, settings: OptimizerSettings) -> None:
        self.tables = (weight, bias)
        self.means = tuple(map(torch.zeros_like, self.tables))
        self.squares = tuple(map(torch.zeros_like, self.tables))
        self.steps = torch.zeros_like(bias)
        self.betas, self.epsilon = settings.betas, settings.epsilon
        self.decays = (settings.weight_decay, 0.0)

    @torch.no_grad()
    def step(self, rows: RowGradient, learning_rate: float | Tensor, is_used: Tensor | None = None) -> None:
        """Rows that are not used, (m,), are as they were."""
        steps = self.steps[rows.ids] + (1 if is_used is None else is_used)
        self.steps[rows.ids] = steps
        weight, bias = zip(self.tables, self.means, self.squares, rows[1:], self.decays, strict=True)
        if is_used is not None:
            steps = steps.clamp(min=1)
        self._update(rows.ids, steps[:, None], *weight, learning_rate, is_used)
        self._update(rows.ids, steps, *bias, learning_rate, is_used)

    def _update(
        self,
        ids: Tensor,
        steps: Tensor,
        table: Tensor,
        means: Tensor,
        squares: Tensor,
        gradient: Tensor,
        decay: float,
        learning_rate: float | Tensor,
        is_used: Tensor | None,
    ) -> None:
        first, second = self.betas
        old_mean, old_square = means[ids], squares[ids]
        mean = old_mean.lerp(gradient, 1 - first)
        square = (old_square * second).addcmul_(gradient, gradient, value=1 - second)
        if is_used is not None:
            mean, square = _only(is_used, mean, old_mean), _only(is_used, square, old_square)
        means[ids], squares[ids] = mean, square
        # 1 - beta ** steps, computed without cancellation while it is close to zero.
        first_share, second_share = (-torch.expm1(steps * math.log(beta)) for beta in self.betas)
        size = square.div_(second_share).sqrt_().add_(self.epsilon)
        change = mean.div_(first_share).div_(size).add_(table[ids], alpha=decay)
        _subtract(table, ids, _only(is_used, change), learning_rate)

    def state(self) -> dict[str, Tensor]:
        tensors = (*self.means, *self.squares, self.steps)
        names = ("weight.mean", "bias.mean", "weight.square", "bias.square", "steps")
        return dict(zip(names, tensors, strict=True))


# ---- the optimizer


class PretrainingOptimizer:
    """One step for all parameters: clip all gradients, update the dense parameters and the softmax's rows."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        dense: torch.optim.Optimizer,
        rows: RowAdagrad | RowAdamW | None,
        settings: OptimizerSettings,
    ) -> None:
        self.parameters, self.dense, self.rows, self.settings = dict(parameters), dense, rows, settings
        self.steps = 0
        self.plan(settings.total_steps)

    def plan(self, total_steps: int | None) -> None:
        """Set the step at which the schedule ends. The learning rate depends on this and on the number of
        steps alone, so the schedule has no state to save."""
        settings = self.settings
        if total_steps is not None:
            total_steps = max(total_steps, settings.warmup_steps + 1)
        warm = settings.schedule == "constant" and settings.warmup_steps > 0
        name = "constant_with_warmup" if warm else settings.schedule
        unused = torch.optim.SGD([torch.zeros(1)], lr=1.0)  # a scheduler would change the real one's `step`
        self._factor = get_scheduler(name, unused, settings.warmup_steps, total_steps).lr_lambdas[0]

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return self.settings.learning_rate * self._factor(self.steps)

    def step(self, rows: RowGradient | None = None) -> Tensor:
        """Clip the gradients in place, and update all weights.

        Args:
            rows: the gradient of the softmax's rows, for an optimizer that was made with a softmax.

        Returns:
            the gradients' norm before clipping. If it is not finite, nothing is updated.
        """
        if (rows is None) != (self.rows is None):
            raise ElmoError(
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

    def step_on_device(
        self, learning_rate: Tensor, rows: RowGradient | None = None, is_used: Tensor | None = None
    ) -> Tensor:
        """As `step`, without waiting for what a tensor holds, so that a CUDA graph can hold it.

        Args:
            learning_rate: () that of this step, which the caller counts by `count_step`.
            rows: the gradient of the softmax's rows.
            is_used: (m,) which of them take part; the others only make the number of rows a round one.

        Returns:
            the gradients' norm before clipping. If it is not finite, nothing is updated.
        """
        parameters = [p for p in self.parameters.values() if p.grad is not None]
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = clip_together([*gradients, *(rows[1:] if rows else ())], self.settings.clip)
        is_finite = norm.isfinite()
        if self.settings.name == "adagrad":
            self._adagrad_on_device(parameters, learning_rate, is_finite)
        else:
            self._adamw_on_device(learning_rate, is_finite)
        if rows is not None and self.rows is not None:
            is_used = is_finite.expand(len(rows.ids)) if is_used is None else is_used & is_finite
            self.rows.step(rows, learning_rate, is_used)
        return norm

    def count_step(self) -> None:
        """Count a step of `step_on_device`."""
        self.steps += 1
        if self.settings.name == "adagrad":  # PyTorch's counts are on the CPU
            for parameter in self.parameters.values():
                self.dense.state[parameter]["step"] += 1

    @torch.no_grad()
    def _adagrad_on_device(
        self, parameters: Sequence[nn.Parameter], learning_rate: Tensor, is_finite: Tensor
    ) -> None:
        gradients = [_only(is_finite, p.grad) for p in parameters if p.grad is not None]
        sums = [self.dense.state[p]["sum"] for p in parameters]
        torch._foreach_addcmul_(sums, gradients, gradients)
        changes = torch._foreach_div(gradients, torch._foreach_sqrt(sums))
        torch._foreach_mul_(changes, -learning_rate)
        torch._foreach_add_(list(parameters), changes)

    @torch.no_grad()
    def _adamw_on_device(self, learning_rate: Tensor, is_finite: Tensor) -> None:
        has_inf = (~is_finite).to(torch.float32)
        for group in self.dense.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            states = [self.dense.state[p] for p in parameters]
            steps = [state["step"] for state in states]
            torch._foreach_add_(steps, 1)
            torch._fused_adamw_(
                parameters,
                [p.grad for p in parameters],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                steps,
                lr=learning_rate,
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
                grad_scale=None,
                found_inf=has_inf,
            )
            torch._foreach_sub_(steps, [has_inf] * len(steps))

    def zero_grad(self) -> None:
        self.dense.zero_grad()

    def state_dict(self) -> dict[str, Tensor]:
        """The state as tensors, without copies: `steps`, `dense.<parameter>.<key>` and `softmax.<key>`."""
        state = {"steps": torch.tensor(self.steps)}
        for name, parameter in self.parameters.items():
            state |= {f"dense.{name}.{key}": tensor for key, tensor in self.dense.state[parameter].items()}
        if self.rows is not None:
            state |= {f"softmax.{key}": tensor for key, tensor in self.rows.state().items()}
        return state

    @torch.no_grad()
    def set_sums(self, sums: Mapping[str, Tensor]) -> None:
        """Copy Adagrad's sums of squares of some parameters, by their names in ElmoForPreTraining."""
        own = self.state_dict()
        for name, tensor in sums.items():
            place = f"dense.{name}" if name in self.parameters else name.replace("lm_head.", "softmax.")
            own[f"{place}.sum"].copy_(tensor)

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy a state of `state_dict`.

        Raises:
            ElmoError: the state is that of other parameters or of another optimizer.
        """
        own = self.state_dict()
        if wrong := sorted(own.keys() ^ state.keys()):
            where = "is missing from" if wrong[0] in own else "does not belong into"
            raise ElmoError(f"{wrong[0]} {where} the optimizer's state; {len(wrong)} names are wrong in all.")
        for name, tensor in own.items():
            if tensor.shape != state[name].shape:
                shapes = f"{tuple(state[name].shape)}, not {tuple(tensor.shape)}"
                raise ElmoError(f"{name} of the optimizer's state is {shapes}.")
        for name, tensor in own.items():
            tensor.copy_(state[name])
        self.steps = int(state["steps"])


# ---- factory


def make_optimizer(
    dense: Mapping[str, nn.Parameter],
    softmax_weight: Tensor | None,
    softmax_bias: Tensor | None,
    settings: OptimizerSettings,
) -> PretrainingOptimizer:
    """Make the optimizer of a model that is on its device already.

    Args:
        dense: the dense parameters by name.
        softmax_weight, softmax_bias: (vocab_size, dim) and (vocab_size,), to be updated by rows; None if they
            are among the dense parameters.
    """
    if not dense:
        raise ElmoError("there are no dense parameters to train.")
    if (softmax_weight is None) != (softmax_bias is None):
        raise ElmoError("the softmax's weight and bias are given together, or neither.")
    rows = None
    if softmax_weight is not None and softmax_bias is not None:
        if any(p is softmax_weight or p is softmax_bias for p in dense.values()):
            raise ElmoError("the softmax is also among the dense parameters; it can be one of both only.")
        make_rows = RowAdagrad if settings.name == "adagrad" else RowAdamW
        rows = make_rows(softmax_weight.detach(), softmax_bias.detach(), settings)
    return PretrainingOptimizer(dense, make_dense(dense, settings), rows, settings)


def make_dense(parameters: Mapping[str, nn.Parameter], settings: OptimizerSettings) -> torch.optim.Optimizer:
    """PyTorch's optimizer of the dense parameters. Its Adagrad equals TensorFlow's if epsilon is zero."""
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
    # PyTorch makes this state in the first step, which is too late to load a checkpoint into it.
    for parameter in parameters.values():
        optimizer.state[parameter] = {
            "step": torch.zeros((), device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    return optimizer
