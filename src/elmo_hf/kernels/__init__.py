"""Faster replacements for what `modeling_elmo.py` defines readably, chosen here and nowhere else.

    from elmo_hf import kernels
    kernels.use("readable")                # "auto" again; also by the environment: ELMO_HF_KERNELS=readable
    kernels.why_not()                      # why the last call did not get the quickest

| choice | what it does |
|---|---|
| `auto` | the quickest that gives the same numbers: for reading on a CPU or a GPU, and for training |
| `readable` | always the definition in `modeling_elmo.py` |
| `bf16` | reading on a CPU with weights in bfloat16: quicker, and no longer exact |
| `int8` | the LSTMs' weights with eight bits and a scale for each gate of each cell: quickest, least exact |

Every replacement has the signature of what it replaces and is tested against it.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from elmo_hf.kernels import characters, graphs, training
from elmo_hf.kernels import reading as inference
from elmo_hf.kernels.kept import Made, keep, state_of

__all__ = ["chosen", "state_of", "use", "why_not"]

CHOICES = ("auto", "readable", "bf16", "int8")

NOT_CPU, GRADIENTS = "the tensors are not on the CPU", "gradients are needed"

_choice = "auto"
_reason = "nothing was read yet"


def use(choice: str) -> None:
    """Chooses the code that reads and trains, from the next call of any model on.

    Args:
        choice: "auto", the quickest that gives the same numbers within 1e-5; "readable", the definition;
            "bf16", reading on a CPU with weights in bfloat16; "int8", the LSTMs' weights with eight bits. The
            last two are quicker and not exact. The environment's `ELMO_HF_KERNELS` chooses, too.
    """
    global _choice
    if choice not in CHOICES:
        raise ValueError(f"kernels are one of {', '.join(CHOICES)}, but {choice!r} was asked for.")
    _choice = choice


def chosen() -> str:
    return _choice


def why_not() -> str:
    """Why the last call did not get the quickest code, as a text; an empty one if it did."""
    return _reason


def choose_lstm(x: Tensor, *weights: Tensor | None) -> Callable[..., tuple[Tensor, Tensor, Tensor]] | None:
    """A replacement for `modeling_elmo.lstm` on these tensors, or None."""
    global _reason
    _reason = _never()
    if _reason:
        return None
    obstacle = _obstacle(x, *weights)
    if not obstacle:
        return _for_reading
    if obstacle in (GRADIENTS, NOT_CPU):
        return _by_graph if graphs.serves(x, *weights) else training.lstm
    _reason = obstacle
    return None


def _for_reading(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """On a CPU; unless the states that come in, which the choice did not see, are not for reading alone."""
    if _obstacle(*arguments[2:4]):
        return training.lstm(*arguments)
    read = partial(inference.lstm, precision="float32" if _choice == "auto" else _choice)
    return read(*arguments)


def _by_graph(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """A graph's replay, or what serves where there is none."""
    global _reason
    try:
        return graphs.lstm(*arguments)
    except graphs.NoGraph as reason:
        _reason = str(reason)
        return training.lstm(*arguments)


def encode(encoder: Any, char_ids: Tensor) -> Tensor | None:
    """What `ElmoCharacterEncoder` makes of the characters, or None if it has to see for itself."""
    if _never():
        return None
    with torch.no_grad():  # the tables have gradients, too
        by_tables = not _obstacle(*encoder.parameters())
    return characters.encode(encoder, char_ids, by_tables, "bf16" if _choice == "bf16" else "float32")


def constant(model: Any, make: Callable[[], Made]) -> Made:
    """What `make` gives from the model's weights alone, not worked out again while they stay the same."""
    weights = [*model.parameters(), *model.buffers()]
    is_learning = torch.is_grad_enabled() and any(weight.requires_grad for weight in weights)
    if _never() or is_learning or torch.is_autocast_enabled(weights[0].device.type):
        return make()
    return keep(model, weights, (_choice, model.config.use_warm_state), make)


def _never() -> str:
    """What keeps every replacement away."""
    if _choice == "readable":
        return "the readable code was asked for"
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return "the model is being traced or compiled"
    if torch._C._are_functorch_transforms_active():
        return "a transform of torch.func is active"
    return ""


def _obstacle(*tensors: Tensor | None) -> str:
    """What keeps the code for reading on a CPU from these tensors."""
    found = [tensor for tensor in tensors if tensor is not None]
    if any(tensor.device.type != "cpu" for tensor in found):
        return NOT_CPU
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in found):
        return GRADIENTS
    if torch.is_autocast_enabled("cpu"):
        return "autocast is on"
    if any(tensor.dtype != torch.float32 for tensor in found):
        return "the tensors are not float32"
    return ""


use(os.environ.get("ELMO_HF_KERNELS", "auto"))
