"""Every way to change what a model's modules do: each a function of a `Subject`, by name in `OPERATIONS`.

Hooks, other forwards, other classes and attributes. What can be undone is undone at the end; the operation
`undo` does it in the middle of a sequence.
"""

import functools
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as global_hooks
from transformers.utils import ModelOutput

from elmo_hf.model import encoders_elmo, modeling_elmo
from tests.helpers.random_elmo import OPERATIONS, NotApplicable, Subject, operation


def scaled(value: Any, factor: float = 1.5) -> Any:
    """All numbers of an output times the factor; ids in reverse, so that they also change."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            return value * factor
        return value if value.dtype == torch.bool else value.flip(-1)
    if isinstance(value, ModelOutput):
        return type(value)(**{k: scaled(v, factor) for k, v in value.items()})
    return type(value)(scaled(v, factor) for v in value) if type(value) in (tuple, list) else value


@operation
def undo(subject: Subject) -> None:
    if not subject.undo:
        raise NotApplicable("nothing to undo")
    subject.undo.pop(subject.random.randrange(len(subject.undo)))()


# ---- hooks


def hook(method: str, function: Callable[..., Any], subject: Subject, **options: Any) -> None:
    _, module = subject.module()
    subject.undo.append(getattr(module, method)(function, **options).remove)


def after(module: Any, arguments: Any, output: Any) -> Any:
    return scaled(output)


def after_with_kwargs(module: Any, arguments: Any, kwargs: Any, output: Any) -> Any:
    return scaled(output)


def before(module: Any, arguments: Any) -> Any:
    return scaled(arguments)


def before_with_kwargs(module: Any, arguments: Any, kwargs: Any) -> Any:
    return scaled(arguments), {k: scaled(v) if k == "inputs_embeds" else v for k, v in kwargs.items()}


def gradients(module: Any, *gradients: Any) -> Any:
    return scaled(gradients[0])


HOOKS: dict[str, Callable[[Subject], None]] = {
    "forward_hook": functools.partial(hook, "register_forward_hook", after),
    "forward_hook_prepended": functools.partial(hook, "register_forward_hook", after, prepend=True),
    "forward_hook_always": functools.partial(hook, "register_forward_hook", after, always_call=True),
    "forward_hook_kwargs": functools.partial(
        hook, "register_forward_hook", after_with_kwargs, with_kwargs=True
    ),
    "forward_pre_hook": functools.partial(hook, "register_forward_pre_hook", before),
    "forward_pre_hook_kwargs": functools.partial(
        hook, "register_forward_pre_hook", before_with_kwargs, with_kwargs=True
    ),
    "backward_hook": functools.partial(hook, "register_full_backward_hook", gradients),
    "backward_pre_hook": functools.partial(hook, "register_full_backward_pre_hook", gradients),
}
OPERATIONS |= HOOKS


def global_hook(register: Callable[..., Any], function: Callable[..., Any], subject: Subject) -> None:
    kind = subject.random.choice([nn.Linear, nn.Conv1d, nn.Embedding, encoders_elmo.ElmoHighway])

    def for_a_class(module: Any, *values: Any) -> Any:
        return function(module, *values) if isinstance(module, kind) else None

    subject.undo.append(register(for_a_class).remove)


OPERATIONS |= {
    "global_forward_hook": functools.partial(global_hook, global_hooks.register_module_forward_hook, after),
    "global_forward_pre_hook": functools.partial(
        global_hook, global_hooks.register_module_forward_pre_hook, before
    ),
    "global_backward_hook": functools.partial(
        global_hook, global_hooks.register_module_full_backward_hook, gradients
    ),
}


@operation
def hook_that_changes_weights(subject: Subject) -> None:
    """As the older forms of weight normalisation do."""
    _, module = subject.module((nn.Linear, nn.Conv1d, nn.Embedding, modeling_elmo.ElmoLayer))
    name, weight = next(iter(module.named_parameters(recurse=False)), ("", None))
    if weight is None:
        raise NotApplicable("no weight")

    def set_weight(module: Any, arguments: Any) -> None:
        getattr(module, name).data.clamp_(-0.3, 0.3)

    subject.undo.append(module.register_forward_pre_hook(set_weight).remove)


@operation
def hook_of_a_weight(subject: Subject) -> None:
    weight = subject.parameter()
    if not weight.requires_grad or weight.is_inference():
        raise NotApplicable("it does not learn")
    subject.undo.append(weight.register_hook(lambda gradient: gradient * 2).remove)


@operation
def hook_after_accumulation(subject: Subject) -> None:
    weight = subject.parameter()
    if not weight.requires_grad or weight.is_inference():
        raise NotApplicable("it does not learn")
    subject.undo.append(weight.register_post_accumulate_grad_hook(lambda p: p.grad.mul_(2)).remove)


# ---- other forwards


def restore(target: Any, name: str) -> Callable[[], None]:
    """What restores an attribute of an object or a class as it is now."""
    if name in vars(target):
        return functools.partial(setattr, target, name, vars(target)[name])
    return functools.partial(delattr, target, name)


@operation
def forward_of_an_instance(subject: Subject) -> None:
    _, module = subject.module()
    old = module.forward
    subject.undo.append(restore(module, "forward"))
    module.forward = lambda *a, **k: scaled(old(*a, **k))


@operation
def forward_of_an_instance_as_a_method(subject: Subject) -> None:
    _, module = subject.module()
    old = type(module).forward
    subject.undo.append(restore(module, "forward"))
    module.forward = types.MethodType(lambda self, *a, **k: scaled(old(self, *a, **k)), module)


@operation
def from_embeddings_of_an_instance(subject: Subject) -> None:
    encoder = characters_of(subject)
    old = encoder.from_embeddings
    subject.undo.append(restore(encoder, "from_embeddings"))
    encoder.from_embeddings = lambda *a: scaled(old(*a))


def characters_of(subject: Subject) -> Any:
    encoder = subject.bilm.token_encoder
    if not isinstance(encoder, encoders_elmo.ElmoCharacterEncoder):
        raise NotApplicable("no characters")
    return encoder


def forward_of_a_class(cls: Any, method: str, subject: Subject) -> None:
    old = getattr(cls, method)
    subject.undo.append(restore(cls, method))
    setattr(cls, method, lambda self, *a, **k: scaled(old(self, *a, **k), 1.25))


CLASSES: list[Any] = [nn.Linear, nn.Conv1d, nn.Embedding, nn.Dropout, nn.Identity, encoders_elmo.ElmoCarry]
CLASSES += [encoders_elmo.ElmoHighway, modeling_elmo.ElmoLayer, encoders_elmo.ElmoCharacterEncoder]
for cls in CLASSES:
    OPERATIONS[f"forward_of_{cls.__name__}"] = functools.partial(forward_of_a_class, cls, "forward")
OPERATIONS["conv_forward_of_Conv1d"] = functools.partial(forward_of_a_class, nn.Conv1d, "_conv_forward")
OPERATIONS["from_embeddings_of_the_encoder"] = functools.partial(
    forward_of_a_class, encoders_elmo.ElmoCharacterEncoder, "from_embeddings"
)


# ---- other classes


class Scaled(nn.Module):
    """Around another module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *arguments: Any, **options: Any) -> Any:
        return scaled(self.module(*arguments, **options))


def with_own(method: str, cls: Any) -> Any:
    """A subclass with a forward or a call of its own."""
    return type(
        f"Own{cls.__name__}", (cls,), {method: lambda self, *a: scaled(getattr(cls, method)(self, *a))}
    )


def put(subject: Subject, name: str, new: Any) -> None:
    subject.undo.append(functools.partial(subject.bilm.set_submodule, name, subject.bilm.get_submodule(name)))
    subject.bilm.set_submodule(name, new)


@operation
def class_of_an_instance(subject: Subject) -> None:
    _, module = subject.module(all_of_it=False)
    subject.undo.append(functools.partial(setattr, module, "__class__", type(module)))
    module.__class__ = with_own(subject.random.choice(["forward", "__call__"]), type(module))


@operation
def module_of_a_subclass(subject: Subject) -> None:
    name, old = subject.module((nn.Linear, nn.Embedding))
    arguments = (
        (old.in_features, old.out_features)
        if isinstance(old, nn.Linear)
        else (old.num_embeddings, old.embedding_dim)
    )
    new = with_own("forward", type(old))(*arguments).to(old.weight)
    new.load_state_dict(old.state_dict(), strict=False)
    put(subject, name, new)


@operation
def encoder_of_a_subclass(subject: Subject) -> None:
    encoder = characters_of(subject)
    subject.undo.append(functools.partial(setattr, encoder, "__class__", type(encoder)))
    encoder.__class__ = with_own("from_embeddings", type(encoder))


@operation
def module_in_a_wrapper(subject: Subject) -> None:
    name, old = subject.module(all_of_it=False)
    if isinstance(old, nn.Embedding) or name == "token_encoder":
        raise NotApplicable("the model reads its attributes")
    put(subject, name, Scaled(old))


@operation
def module_in_a_sequence(subject: Subject) -> None:
    kinds = (nn.Linear, nn.Conv1d, nn.Identity, encoders_elmo.ElmoHighway)
    name, old = subject.module(kinds)
    put(subject, name, nn.Sequential(old, subject.random.choice([nn.Identity(), nn.Tanh(), nn.Hardtanh()])))


@operation
def module_left_out(subject: Subject) -> None:
    name, _ = subject.module((encoders_elmo.ElmoHighway, encoders_elmo.ElmoCarry))
    put(subject, name, nn.Identity())


@operation
def number_of_highways(subject: Subject) -> None:
    encoder = characters_of(subject)
    old = encoder.highways
    dim = subject.bilm.config.num_filters
    made = encoders_elmo.ElmoHighway(dim).to(encoder.char_embedding.weight)
    new = [*old, made] if subject.random.random() < 0.5 or not len(old) else list(old)[1:]
    subject.undo.append(functools.partial(setattr, encoder, "highways", old))
    encoder.highways = nn.ModuleList(new)


@operation
def modules_exchanged(subject: Subject) -> None:
    encoder = subject.bilm.token_encoder
    modules = subject.random.choice([subject.bilm.layers, getattr(encoder, "highways", [])])
    if len(modules) < 2:
        raise NotApplicable("nothing to exchange")
    modules[0], modules[-1] = modules[-1], modules[0]


@operation
def module_used_twice(subject: Subject) -> None:
    encoder = subject.bilm.token_encoder
    modules = subject.random.choice([subject.bilm.layers, getattr(encoder, "highways", [])])
    if len(modules) < 2:
        raise NotApplicable("only one")
    modules[-1] = modules[0]


@operation
def filter_of_another_width(subject: Subject) -> None:
    encoder = characters_of(subject)
    number = subject.random.randrange(len(encoder.convolutions))
    old = encoder.convolutions[number]
    width = old.kernel_size[0] + subject.random.choice([-1, 2]) if old.kernel_size[0] > 1 else 3
    new = nn.Conv1d(old.in_channels, old.out_channels, width).to(old.weight)
    put(subject, f"token_encoder.convolutions.{number}", new)


@operation
def embedding_of_another_module(subject: Subject) -> None:
    table = subject.bilm.get_input_embeddings()
    new = nn.Embedding(*table.weight.shape).to(table.weight)
    subject.undo.append(functools.partial(subject.model.set_input_embeddings, table))
    subject.model.set_input_embeddings(new)


@operation
def no_bias(subject: Subject) -> None:
    _, module = subject.module((nn.Linear, nn.Conv1d))
    if getattr(module, "bias", None) is None:
        raise NotApplicable("no bias")
    subject.undo.append(functools.partial(setattr, module, "bias", module.bias))
    module.bias = None


ATTRIBUTES: list[tuple[Any, str, list[Any]]] = [
    (nn.Conv1d, "stride", [(2,)]),
    (nn.Conv1d, "dilation", [(2,)]),
    (nn.Conv1d, "padding", [(1,), (2,)]),
    (nn.Embedding, "max_norm", [0.5]),
    (nn.Embedding, "padding_idx", [None, ord("e") + 1]),
    (nn.Embedding, "scale_grad_by_freq", [True]),
    (nn.Embedding, "sparse", [True]),
    (nn.Dropout, "p", [0.0, 0.5]),
    (modeling_elmo.ElmoLayer, "adds_input", [True, False]),
]


def attribute(cls: Any, name: str, values: list[Any], subject: Subject) -> None:
    _, module = subject.module(cls)
    subject.undo.append(functools.partial(setattr, module, name, getattr(module, name)))
    setattr(module, name, subject.random.choice(values))


for cls, name, values in ATTRIBUTES:
    OPERATIONS[f"{cls.__name__}_{name}"] = functools.partial(attribute, cls, name, values)
