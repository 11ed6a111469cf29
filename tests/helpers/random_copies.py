"""Changes to a model as a whole: optimizers, loading, saving, copying and casting; see `random_weights`."""

import copy
import functools
import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.helpers.random_elmo import OPERATIONS, NotApplicable, Subject, operation

# ---- optimizers


def dense(subject: Subject) -> list[Tensor]:
    """The weights without gaps or overlaps. PyTorch's fused steps would write beyond the memory of others."""
    return [w for w in subject.bilm.parameters() if w.is_floating_point() and w.is_contiguous()]


def optimize(make: Callable[..., Any], subject: Subject) -> None:
    weights = dense(subject)
    weights = subject.random.sample(weights, subject.random.randint(1, len(weights)))
    needed = [weight.requires_grad for weight in weights]
    if any(weight.is_inference() for weight in weights):
        raise NotApplicable("weights of inference mode do not learn")
    optimizer = make([weight.requires_grad_() for weight in weights])
    for _ in range(2):
        for weight in weights:
            weight.grad = subject.noise(weight, size=1.0)
        optimizer.step(lambda: torch.zeros(()))
        subject.use()
    for weight, need in zip(weights, needed, strict=True):
        weight.requires_grad_(need).grad = None


OPTIMIZERS = {
    "sgd": functools.partial(torch.optim.SGD, lr=0.05),
    "sgd_foreach": functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9, foreach=True),
    "sgd_fused": functools.partial(torch.optim.SGD, lr=0.05, fused=True),
    "adam": functools.partial(torch.optim.Adam, lr=0.05),
    "adamw_fused": functools.partial(torch.optim.AdamW, lr=0.05, fused=True),
    "adamw_foreach": functools.partial(torch.optim.AdamW, lr=0.05, foreach=True),
    "adagrad_fused": functools.partial(torch.optim.Adagrad, lr=0.05, fused=True),
    "adafactor": functools.partial(torch.optim.Adafactor, lr=0.05),
    "rmsprop": functools.partial(torch.optim.RMSprop, lr=0.01),
    "rprop": functools.partial(torch.optim.Rprop, lr=0.05),
    "lbfgs": functools.partial(torch.optim.LBFGS, lr=0.05, max_iter=1),
    "asgd": functools.partial(torch.optim.ASGD, lr=0.05),
}
for name, make in OPTIMIZERS.items():
    OPERATIONS[f"optimizer_{name}"] = functools.partial(optimize, make)


@operation
def fused_step_without_an_optimizer(subject: Subject) -> None:
    weights = dense(subject)
    numbers: Any = {"weight_decay": 0.0, "momentum": 0.0, "lr": 0.1, "dampening": 0.0}
    flags: Any = dict.fromkeys(["nesterov", "maximize", "is_first_step"], False)
    with torch.no_grad():
        torch._fused_sgd_(weights, [subject.noise(weight) for weight in weights], [], **numbers, **flags)


@operation
def foreach(subject: Subject) -> None:
    with torch.no_grad():
        torch._foreach_mul_(list(subject.bilm.parameters()), 0.9)


@operation
def moving_average(subject: Subject) -> None:
    """As such averages are often written: swapped in, used, and swapped back."""
    weights = list(subject.bilm.parameters())
    stored = [weight.data.clone() for weight in weights]
    for weight in weights:
        weight.data.lerp_(subject.noise(weight), 0.3)
    subject.use()
    if subject.random.random() < 0.5:
        for weight, old in zip(weights, stored, strict=True):
            weight.data.copy_(old)


@operation
def weights_initialised_again(subject: Subject) -> None:
    module, _ = subject.weight("weight")
    torch.manual_seed(subject.random.randrange(2**31))
    module.reset_parameters()  # type: ignore[operator]


# ---- loading, saving and copying


def other_state(subject: Subject) -> dict[str, Tensor]:
    return {
        k: v + subject.noise(v, 0.1) for k, v in subject.model.state_dict().items() if v.is_floating_point()
    }


@operation
def load_state_dict(subject: Subject) -> None:
    subject.model.load_state_dict(other_state(subject), strict=False)


@operation
def load_state_dict_assign(subject: Subject) -> None:
    state = other_state(subject)
    subject.model.load_state_dict(state, strict=False, assign=True)
    subject.use()
    next(iter(state.values())).mul_(0.9)  # the caller's tensors are now the parameters'
    subject.keep.append(next(iter(state.values())))


@operation
def load_part_of_a_state_dict(subject: Subject) -> None:
    state = other_state(subject)
    name = subject.random.choice(sorted(state))
    subject.model.load_state_dict({name: state[name]}, strict=False)


@operation
def load_the_same_state_dict(subject: Subject) -> None:
    subject.model.load_state_dict(copy.deepcopy(subject.model.state_dict()))


def take(subject: Subject, model: Any) -> None:
    """Go on with this model."""
    model.train(subject.model.training)
    if subject.has_cache:
        model.elmo_cache = subject.model.elmo_cache  # also one that was filled by another model
    subject.model = model


def from_pretrained(subject: Subject, **options: Any) -> None:
    folder = subject.folder / "saved"
    subject.model.save_pretrained(folder)
    take(subject, type(subject.model).from_pretrained(folder, **options))


@operation
def save_and_from_pretrained(subject: Subject) -> None:
    from_pretrained(subject)


@operation
def from_pretrained_with_low_memory(subject: Subject) -> None:
    from_pretrained(subject, low_cpu_mem_usage=True)


@operation
def from_pretrained_in_a_type(subject: Subject) -> None:
    dtype = subject.random.choice([torch.float32, torch.float32, torch.float64, torch.bfloat16])
    subject.undo.append(lambda: subject.model.float())
    from_pretrained(subject, dtype=dtype)


@operation
def loaded_in_inference_mode(subject: Subject) -> None:
    with torch.inference_mode():
        take(subject, copy.deepcopy(subject.model))
        for weight in subject.bilm.parameters():
            weight.data = weight.data.clone()
    for module, name in subject.weights():
        with torch.inference_mode():
            setattr(
                module, name, nn.Parameter(module._parameters[name].detach().clone(), requires_grad=False)
            )
    subject.use()
    module, name = subject.weight()
    weight = module._parameters[name]
    with torch.inference_mode():
        weight[subject.place(module, weight)] = 1.5


@operation
def deep_copy(subject: Subject) -> None:
    take(subject, copy.deepcopy(subject.model))


@operation
def shallow_copy(subject: Subject) -> None:
    """Which shares its modules with the old model."""
    old = subject.model
    take(subject, copy.copy(old))
    if subject.head == "biLM":
        subject.model.config = copy.deepcopy(old.config)


@operation
def pickled(subject: Subject) -> None:
    take(subject, pickle.loads(pickle.dumps(subject.model)))


@operation
def saved_whole(subject: Subject) -> None:
    path = subject.folder / "whole.pt"
    torch.save(subject.model, path)
    take(subject, torch.load(path, weights_only=False))


@operation
def to_meta_and_back(subject: Subject) -> None:
    state = other_state(subject)
    rest = {k: v for k, v in subject.model.state_dict().items() if k not in state}
    subject.model.to("meta")
    subject.model.to_empty(device="cpu")
    subject.model.load_state_dict(state | rest)


def cast(method: str, subject: Subject) -> None:
    getattr(subject.model, method)()
    subject.undo.append(lambda: subject.model.float())


for method in ("half", "bfloat16", "double", "float"):
    OPERATIONS[f"cast_to_{method}"] = functools.partial(cast, method)


@operation
def cast_there_and_back(subject: Subject) -> None:
    subject.model.to(torch.bfloat16)
    subject.use()
    subject.model.to(torch.float32)


@operation
def encoder_of_another_model(subject: Subject) -> None:
    """Which goes on to be used there."""
    other = copy.deepcopy(subject.bilm)
    subject.bilm.token_encoder = other.token_encoder
    with torch.no_grad():
        for weight in other.token_encoder.parameters():
            weight.mul_(0.9)
        subject.keep.append(other)
