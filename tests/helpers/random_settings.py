"""Changes to the settings of a model and of PyTorch, parametrizations, pruning, and what libraries put in."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import accelerate
import torch
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from elmo_hf import kernels
from elmo_hf.model import modeling_elmo
from tests.helpers.random_elmo import OPERATIONS, NotApplicable, Subject, operation
from tests.helpers.random_modules import characters_of, put, scaled

# ---- settings


SETTINGS: dict[str, list[Any]] = {
    "cell_clip": [None, 0.05, 0.3, 3.0],
    "proj_clip": [None, 0.03, 0.2, 3.0],
    "char_activation": ["relu", "tanh"],
    "use_warm_state": [True, False],
    "bos_token_id": [3, 4],
    "eos_token_id": [5, 6],
    "num_highway_layers": [0, 5],
    "use_skip_connections": [True, False],
    "dropout": [0.0, 0.4],
}


def setting(name: str, subject: Subject) -> None:
    config = subject.bilm.config
    if name == "use_warm_state" and not config.has_warm_state:
        raise NotApplicable("no warm state")
    subject.undo.append(functools.partial(setattr, config, name, getattr(config, name)))
    setattr(config, name, subject.random.choice(SETTINGS[name]))


for name in SETTINGS:
    OPERATIONS[f"config_{name}"] = functools.partial(setting, name)


@operation
def config_of_a_layer(subject: Subject) -> None:
    _, layer = subject.module(modeling_elmo.ElmoLayer)
    subject.undo.append(functools.partial(setattr, layer, "config", layer.config))
    layer.config = copy.deepcopy(layer.config)
    layer.config.cell_clip = layer.config.proj_clip = 0.1


@operation
def config_of_the_encoder(subject: Subject) -> None:
    encoder = characters_of(subject)
    subject.undo.append(functools.partial(setattr, encoder, "config", encoder.config))
    encoder.config = copy.deepcopy(encoder.config)
    encoder.config.char_activation = "tanh" if encoder.config.char_activation == "relu" else "relu"


@operation
def config_of_the_model(subject: Subject) -> None:
    bilm = subject.bilm
    subject.undo.append(functools.partial(setattr, bilm, "config", bilm.config))
    bilm.config = copy.deepcopy(bilm.config)
    bilm.config.cell_clip = 0.1  # which the layers do not read


def flag(read: Callable[[], Any], write: Callable[[Any], Any], value: Any, subject: Subject) -> None:
    """A setting of PyTorch."""
    subject.undo.append(functools.partial(write, read()))
    write(value)


OPERATIONS |= {
    "two_threads": functools.partial(flag, torch.get_num_threads, torch.set_num_threads, 2),
    "default_dtype": functools.partial(flag, torch.get_default_dtype, torch.set_default_dtype, torch.float64),
    "flush_denormal": functools.partial(flag, lambda: False, torch.set_flush_denormal, True),
    "deterministic": functools.partial(flag, lambda: False, torch.use_deterministic_algorithms, True),
    "matmul_precision": functools.partial(
        flag, torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "medium"
    ),
    "training_mode": lambda subject: (subject.model.train(), subject.undo.append(subject.model.eval)),
    "evaluation_mode": lambda subject: subject.model.eval(),
    "all_learns": lambda subject: subject.model.requires_grad_(True),
    "nothing_learns": lambda subject: subject.bilm.requires_grad_(False),
    "one_weight_learns": lambda subject: (
        subject.bilm.requires_grad_(False),
        subject.parameter().requires_grad_(True),
    ),
}


@operation
def gradient_checkpointing(subject: Subject) -> None:
    subject.undo.append(subject.model.gradient_checkpointing_disable)
    subject.model.gradient_checkpointing_enable({"use_reentrant": subject.random.random() < 0.3})
    subject.undo.append(subject.model.eval)
    subject.model.train()


@operation
def other_kernels_in_between(subject: Subject) -> None:
    for choice in ("bf16", "int8"):
        kernels.use(choice)
        subject.use()
        kernels.use("auto")


# ---- parametrizations and pruning


class Mask(nn.Module):
    """With a buffer, a parameter and a number of its own."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones_like(weight))
        self.scale = nn.Parameter(torch.ones((), dtype=weight.dtype))
        self.number = 1.0

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask * self.scale * self.number


@operation
def parametrization(subject: Subject) -> None:
    module, name = subject.weight()
    parametrize.register_parametrization(module, name, Mask(module._parameters[name].detach()))
    subject.undo.append(functools.partial(parametrize.remove_parametrizations, module, name))


@operation
def parametrization_changes(subject: Subject) -> None:
    if not any(isinstance(module, Mask) for module in subject.bilm.modules()):
        parametrization(subject)
        subject.use()
    _, mask = subject.module(Mask)
    how = subject.random.randrange(5)
    if how == 0:
        mask.mask.data.view(-1)[subject.random.randrange(mask.mask.numel())] = 3.0
    elif how == 1:
        mask.mask.mul_(0.5)
    elif how == 2:
        mask.scale.data.mul_(0.7)
    elif how == 3:
        mask.number *= 0.7
    else:
        mask.mask = mask.mask * 0.6


@operation
def parametrization_removed(subject: Subject) -> None:
    parametrization_changes(subject)
    subject.use()
    modules = [module for module in subject.bilm.modules() if parametrize.is_parametrized(module)]
    module = subject.random.choice(modules)
    name = next(iter(module.parametrizations))
    parametrize.remove_parametrizations(module, name, leave_parametrized=subject.random.random() < 0.5)


def norm(make: Callable[..., Any], subject: Subject) -> None:
    module, name = subject.weight("weight", "input_weight", "projection")
    make(module, name)
    if parametrize.is_parametrized(module):
        subject.undo.append(functools.partial(parametrize.remove_parametrizations, module, name))


OPERATIONS |= {
    "weight_norm": functools.partial(norm, parametrizations.weight_norm),
    "spectral_norm": functools.partial(norm, parametrizations.spectral_norm),
    "old_weight_norm": functools.partial(norm, nn.utils.weight_norm),
    "old_spectral_norm": functools.partial(norm, nn.utils.spectral_norm),
}


def pruned(method: Callable[..., Any], subject: Subject, **options: Any) -> None:
    module, name = subject.weight()
    method(module, name, **options)
    subject.undo.append(functools.partial(prune.remove, module, name))


@operation
def prune_custom(subject: Subject) -> None:
    module, name = subject.weight()
    if name.endswith("_orig"):  # pruned twice: then PyTorch's own hooks are a call behind each other
        raise NotApplicable
    generator = torch.Generator().manual_seed(subject.random.randrange(2**32))
    prune.custom_from_mask(
        module, name, torch.rand(module._parameters[name].shape, generator=generator) < 0.7
    )
    subject.undo.append(functools.partial(prune.remove, module, name))


@operation
def prune_mask_changes(subject: Subject) -> None:
    prune_custom(subject)
    subject.use()
    names = [(m, name) for m in subject.bilm.modules() for name in m._buffers if name.endswith("_mask")]
    module, name = subject.random.choice(names)
    mask = module._buffers[name]
    target = mask.data if subject.random.random() < 0.5 else mask
    place = tuple(subject.random.randrange(size) for size in mask.shape)
    target[place] = 1 - target[place]


OPERATIONS |= {
    "prune_random": functools.partial(pruned, prune.random_unstructured, amount=0.3),
    "prune_l1": functools.partial(pruned, prune.l1_unstructured, amount=0.3),
}


# ---- adapters and offloading


class ScalingHook(ModelHook):
    def post_forward(self, module: nn.Module, output: Any) -> Any:
        return scaled(output)


@operation
def accelerate_hook(subject: Subject) -> None:
    _, module = subject.module()
    add_hook_to_module(module, ScalingHook(), append=subject.random.random() < 0.5)
    subject.undo.append(functools.partial(remove_hook_from_module, module))


@operation
def cpu_offload(subject: Subject) -> None:
    accelerate.cpu_offload(subject.bilm, execution_device=torch.device("cpu"))
    subject.undo.append(functools.partial(remove_hook_from_module, subject.bilm, recurse=True))


@operation
def dispatched(subject: Subject) -> None:
    accelerate.dispatch_model(subject.model, {"": "cpu"}, force_hooks=True)
    subject.undo.append(functools.partial(remove_hook_from_module, subject.model, recurse=True))


@operation
def lora(subject: Subject) -> None:
    try:
        import peft
    except ImportError:
        raise NotApplicable("peft is not installed") from None
    names = [name for name, module in subject.bilm.named_modules() if isinstance(module, nn.Linear)]
    targets = subject.random.sample(names, min(len(names), 2))
    if not targets:
        raise NotApplicable("no Linear")
    config = peft.LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
    torch.manual_seed(subject.random.randrange(2**31))
    peft.inject_adapter_in_model(config, subject.bilm)


@operation
def quantize_dynamic(subject: Subject) -> None:
    encoder = characters_of(subject)
    if not any(isinstance(module, nn.Linear) for module in encoder.modules()):
        raise NotApplicable("no Linear")
    put(subject, "token_encoder", torch.ao.quantization.quantize_dynamic(encoder, {nn.Linear}))
