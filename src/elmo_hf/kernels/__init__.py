"""Faster replacements for the readable code of `modeling_elmo.py`, and the choice between them.

    from elmo_hf import kernels
    kernels.use("readable")    # "auto" undoes it; the environment chooses, too: ELMO_HF_KERNELS=readable
    kernels.why_not()          # why the last call was not served by the fastest code

| choice | what it does |
|---|---|
| `auto` | the fastest code with the same numbers: for reading on a CPU or a GPU, and for training |
| `readable` | always the definition in `modeling_elmo.py` |
| `bf16` | reading on a CPU with weights in bfloat16: faster, and not exact |
| `int8` | reading on a CPU with LSTM weights of eight bits: fastest for large models, and least exact |

Where `bf16` or `int8` would be slower, the weights stay as they are, or `int8` takes `bf16`.

| file | what it makes faster |
|---|---|
| `characters.py` | the character encoder |
| `reading.py` | the LSTM without gradients on a CPU |
| `graphs.py` | the LSTM without gradients on a GPU, for a few sentences |
| `sentences.py` | the same from the words' letters to all layers, where the whole model is plain |
| `training.py` | the LSTM with gradients, and all that the two above do not serve |
| `training_cpu.py` | the LSTM with gradients on a CPU, where steps are long |
| `softmax.py` | the sum in a softmax's loss, with gradients on a CPU |

These use `cell.py` (the elementwise part of a step), `steps.py` (no arithmetic for padding), `products.py`
(matrix products), `plain.py` (whether modules are as they were written) and `kept.py` (results that last as
long as the weights). Every replacement has the signature of what it replaces and is tested against it,
forward and backward. This package imports nothing else of `elmo_hf`.

A replacement is used only where it cannot differ: `plain.py` looks at every module that it skips, in every
call, and `kept.py` at every byte of the weights that it keeps something of.

`choose_lstm`, `encode` and `constant` are called by `modeling_elmo.py`, also by the copies of it that model
folders carry, which may be older than this package: their signatures must stay.
"""

import os
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils._device import DeviceContext

from elmo_hf.kernels import characters, graphs, reading, sentences, training
from elmo_hf.kernels.kept import (
    Value,
    checks_once,
    frozen,
    is_frozen,
    is_plain_in_call,
    keep,
    settings_of,
    state_of,
    with_boundaries,
)
from elmo_hf.kernels.plain import NotPlain, is_original, weights_of, why_not_plain, why_not_root

__all__ = [
    "checks_once",
    "choose_lstm",
    "chosen",
    "constant",
    "encode",
    "fingerprint",
    "frozen",
    "keep_constant",
    "no_lstm",
    "read_sentences",
    "state_of",
    "use",
    "why_not",
]

CHOICES = ("auto", "readable", "bf16", "int8")

NOT_CPU, GRADIENTS = "the tensors are not on the CPU", "gradients are needed"
NOT_OWN = "the weights are computed, and not parameters of the module"

_choice = "auto"
# Why the last call did not use the fastest code, for each thing that is replaced.
_reasons = {"characters": "no model was called yet", "lstm": ""}


def use(choice: str) -> None:
    """Choose the code that reads and trains, from the next call of any model on.

    >>> kernels.use("readable")
    >>> output = model(**batch)
    >>> kernels.use("auto")

    The environment variable `ELMO_HF_KERNELS` sets the choice at the start.

    Args:
        choice: "auto", the fastest code whose numbers are the same within 1e-5; "readable", the definition;
            "bf16", reading on a CPU with weights in bfloat16; "int8", reading on a CPU with LSTM weights of
            eight bits. The last two are faster and not exact.

    Raises:
        ValueError: if there is no such choice.
    """
    global _choice
    if choice not in CHOICES:
        raise ValueError(f"kernels are one of {', '.join(CHOICES)}, but {choice!r} was asked for.")
    _choice = choice


def chosen() -> str:
    """Return the current choice."""
    return _choice


def why_not() -> str:
    """Return why the last call was not served by the fastest code; an empty text if it was.

    >>> kernels.use("readable")
    >>> output = model(**batch)
    >>> kernels.why_not()
    'the readable code was asked for'
    >>> kernels.use("auto")
    """
    return "; ".join(dict.fromkeys(reason for reason in _reasons.values() if reason))


def choose_lstm(
    x: Tensor,
    *weights: Tensor | None,
    states: Sequence[Tensor] = (),
    definition: Callable[..., Any] | None = None,
    owner: object = None,
) -> Callable[..., tuple[Tensor, Tensor, Tensor]] | None:
    """Return a replacement for `modeling_elmo.lstm` on these tensors, or None if the definition must run.

    Args:
        x: (2, batch, time, input)
        weights: input_weight, recurrent_weight, bias and projection, as `modeling_elmo.lstm` takes them.
        states: h and c.
        definition: the function to be replaced, which must not have been patched.
        owner: the module, under which is kept what is laid out.
    """
    reason = _why_readable(x, *states, *weights)
    if not reason and definition is not None and not is_original(definition):
        reason = "the definition of the LSTM is patched"
    obstacle = reason or _why_not_reading(x, *weights)
    if not obstacle and any(weight is not None and type(weight) is not nn.Parameter for weight in weights):
        obstacle = NOT_OWN  # nothing can be kept for them
    _reasons["lstm"] = "" if obstacle in (GRADIENTS, NOT_CPU, NOT_OWN) else obstacle
    if not obstacle:
        return partial(_read, owner)
    if obstacle == NOT_OWN:
        return training.lstm
    if obstacle in (GRADIENTS, NOT_CPU):
        return partial(_read_by_graph, owner) if graphs.serves(x, *weights) else training.lstm
    return None


def no_lstm(reason: str) -> None:
    """Note why no LSTM of this call can be replaced."""
    _reasons["lstm"] = _why_readable() or reason


def read_sentences(
    model: Any, ids: Tensor, mask: Tensor, definition: Callable[..., Any]
) -> list[Tensor] | None:
    """Return all layers of sentences that start from states of zeros, or None if the model must read them.

    Args:
        model: the `ElmoModel`.
        ids: (batch, words), or (batch, words, characters)
        mask: (batch, words), True for a word.
        definition: the LSTM of the model's file, which must not have been patched.

    Returns:
        the layers, each (batch, words, dim), the words' vectors first.
    """
    if not ids.is_cuda or model.config.stacked_lstm_layers:
        return None
    if _why_readable(ids, mask, *weights_of(model)) or not is_original(definition):
        return None
    if not sentences.serves(model, ids, mask):
        return None
    try:
        layers = sentences.read(model, ids, mask, settings_of(model))
    except (NotPlain, graphs.NoGraph):  # the layers have graphs of their own, and say why not
        return None
    _reasons.update(characters="", lstm="")
    return layers


def _read(owner: object, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """`reading.lstm`; or `training.lstm` if the states need gradients."""
    if _why_not_reading(*arguments[2:4]):
        return training.lstm(*arguments)
    return reading.lstm(*arguments, precision="float32" if _choice == "auto" else _choice, owner=owner)  # type: ignore[misc]


def _read_by_graph(owner: object, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """`graphs.lstm`, or `training.lstm` if there is no graph for this call."""
    try:
        return graphs.lstm(*arguments, owner=owner)  # type: ignore[misc]
    except graphs.NoGraph as reason:
        _reasons["lstm"] = str(reason)
        return training.lstm(*arguments)


def encode(encoder: Any, char_ids: Tensor) -> Tensor | None:
    """Return what an `ElmoCharacterEncoder` makes of characters, or None if its own code must run.

    Args:
        encoder: the `ElmoCharacterEncoder`.
        char_ids: (..., characters)

    Returns:
        (..., projection_dim)
    """
    weights = weights_of(encoder)
    reason = _why_readable(char_ids, *weights)
    if not reason and not is_plain_in_call(encoder):
        reason = why_not_plain(encoder, "the character encoder")
    _reasons["characters"] = reason
    if reason:
        return None
    by_tables = _serves_tables(weights)
    precision = "bf16" if _choice == "bf16" else "float32"
    run = partial(characters.encode, encoder, by_tables=by_tables, precision=precision)
    # A frozen model keeps the state after its sentence begin, and needs no vectors of the boundaries.
    return run(char_ids) if is_frozen(weights) else with_boundaries(encoder, char_ids, run)


def _serves_tables(weights: Sequence[Tensor]) -> bool:
    """Whether `characters.py` may sum rows of tables: in reading, and in training, also in bfloat16."""
    is_learning = torch.is_grad_enabled() and any(weight.requires_grad for weight in weights)
    if is_learning and torch.get_autocast_dtype("cpu") == torch.bfloat16:
        return all(weight.device.type == "cpu" and weight.dtype == torch.float32 for weight in weights)
    with torch.no_grad():  # gradients are no obstacle
        return not _why_not_reading(*weights)


def constant(model: Any, make: Callable[[], Value]) -> Value:
    """Return the result of `make`, which depends on the model's weights alone; kept until they change."""
    kept = keep_constant(model, make)
    return make() if kept is None else kept


def keep_constant(model: Any, make: Callable[[], Value], rows: int | None = None) -> Value | None:
    """As `constant`, but None where the result cannot be kept, or is computed faster for so few rows.

    It is kept only if nothing but the weights and the settings of plain modules can enter, and if looking at
    all weights does not have to wait for a GPU.
    """
    weights = weights_of(model)
    if rows is not None and rows <= reading.FEW_SENTENCES and not is_frozen(weights):
        return None
    is_learning = torch.is_grad_enabled() and any(weight.requires_grad for weight in weights)
    if is_learning or _why_readable(*weights) or torch.is_autocast_enabled(weights[0].device.type):
        return None
    if any(weight.device.type != "cpu" for weight in weights) and not is_frozen(weights):
        return None
    try:
        version = (_choice, settings_of(model))
    except NotPlain:
        return None
    if is_plain_in_call(model.token_encoder) and not is_frozen(weights):
        # The first words stand for the encoder's weights, which are many and are read with the words anyway.
        weights = [*weights_of(model.layers), *model._buffers.values(), model.token_encoder.boundaries()]
    return keep(model, weights, version, make)


def fingerprint(model: Any) -> Hashable | None:
    """A value that differs whenever a model may give other vectors for the same words: its weights and
    settings, and the choice of kernels. None if anything else can enter, such as a hook."""
    try:
        version = settings_of(model)
    except NotPlain:
        return None
    weights = weights_of(model)
    if why_not_root(model) or any(type(weight) not in (nn.Parameter, Tensor) for weight in weights):
        return None
    return _choice, version, tuple(map(state_of, weights))


def _why_readable(*tensors: Tensor | None) -> str:
    """Why no replacement may be used at all."""
    if _choice == "readable":
        return "the readable code was asked for"
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return "the model is being traced or compiled"
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return "a transform of torch.func is active"
    if torch._C._len_torch_dispatch_stack() or _other_function_mode():
        return "a mode that intercepts PyTorch's functions is active"
    for tensor in tensors:
        if tensor is not None:
            if type(tensor) is not nn.Parameter and type(tensor) is not Tensor:
                return f"a tensor is of the class {type(tensor).__name__}"
            if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
                return "a tensor is sparse, quantized or without data"
            if tensor.dtype == torch.float16 and tensor.device.type == "cpu":
                return "float16 is for GPUs"  # where autocast takes other types, its operators refuse it
    return ""


def _other_function_mode() -> bool:
    """Whether a `TorchFunctionMode` is active other than that of the default device of the model."""
    if not torch._C._len_torch_function_stack():
        return False
    modes = torch.overrides._get_current_function_mode_stack()
    return any(not isinstance(mode, DeviceContext) or mode.device.type == "meta" for mode in modes)


def _why_not_reading(*tensors: Tensor | None) -> str:
    """Why the code for reading on a CPU cannot take these tensors."""
    present = [tensor for tensor in tensors if tensor is not None]
    if any(tensor.device.type != "cpu" for tensor in present):
        return NOT_CPU
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in present):
        return GRADIENTS
    if torch.is_autocast_enabled("cpu"):
        return "autocast is on"
    if any(tensor.dtype != torch.float32 for tensor in present):
        return "the tensors are not float32"
    return ""


use(os.environ.get("ELMO_HF_KERNELS", "auto"))
