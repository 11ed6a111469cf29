"""Values that are computed from weights, kept until the weights change.

Laying weights out for fast products takes longer than reading a sentence with them. `keep` does it once, and
computes again when any byte of the weights differs: by an optimizer, by `load_state_dict`, through
`weight.data` or a numpy view, by another process. So a kept value is never that of other weights. To compare
all bytes in every call costs a few per cent of it (`benchmarks/parts.py`); two things keep it low:

    @checks_once          a method of a model: within a call of it, each weight is looked at once
    with frozen(model):   who promises that the weights stay as they are
"""

import ctypes
import functools
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary
from xxhash import xxh3_128_digest

from elmo_hf.kernels.plain import NotPlain, settings, weights_of

Value = TypeVar("Value")

_kept: Any = WeakIdKeyDictionary()


class _Frozen:
    """A weight that is promised to stay as it is, with the checksum that was made of it since."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight  # held, so that its id stays its own
        self.holders = 0  # `frozen` contexts
        self.traced: Any = None
        self.digest = b""


_frozen: dict[int, _Frozen] = {}  # by the weight's id; a weak reference would forbid to swap weights


class _Call(threading.local):
    """The outermost call of a `checks_once` method that runs in this thread."""

    digests: dict[int, tuple[Tensor, Hashable]] | None = None  # by the weight's id
    model: Any = None  # whose modules were looked at
    settings: tuple[Any, ...] | None = None  # of the model; None if it is not plain
    # The characters of its sentence begin and end and their vectors, once words of the call were encoded.
    boundaries: tuple[Tensor, Tensor] | None = None


_call = _Call()


def keep(
    owner: object,
    tensors: Iterable[Tensor | None],
    version: Hashable,
    make: Callable[[], Value],
    slot: str = "",
) -> Value:
    """Return the result of `make`, computed again only when a tensor or the version has changed.

    Args:
        owner: the result is kept under this object, and freed with it.
        tensors: the weights that `make` reads; None counts as no weight.
        version: whatever else the result depends on.
        make: computes the result.
        slot: of the owner, which holds one result at a time.
    """
    state = (version, *(state_of(tensor) for tensor in tensors if tensor is not None))
    slots = _kept.setdefault(owner, {})
    if slot not in slots or slots[slot][0] != state:
        slots[slot] = (state, make())
    return slots[slot][1]


def state_of(weight: Tensor) -> Hashable:
    """A value that differs after the weight has changed: its type, its shape and a checksum of its bytes."""
    digests = _call.digests
    if digests is None:
        return _state_of(weight)
    if id(weight) not in digests:
        digests[id(weight)] = (weight, _state_of(weight))  # holds the weight, so that its id stays its own
    return digests[id(weight)][1]


def _state_of(weight: Tensor) -> Hashable:
    frozen = _frozen.get(id(weight))
    if frozen is None:
        return weight.dtype, weight.shape, _digest(weight.detach())
    version = 0 if weight.is_inference() else weight._version
    traced = (weight.data_ptr(), version, weight.dtype, weight.shape)  # changes that PyTorch counts
    if frozen.traced != traced:
        frozen.traced, frozen.digest = traced, _digest(weight.detach())
    return weight.dtype, weight.shape, frozen.digest


def _digest(weight: Tensor) -> bytes:
    if weight.device.type == "cpu":
        plain = weight.resolve_conj().resolve_neg().contiguous()
        return xxh3_128_digest((ctypes.c_char * plain.nbytes).from_address(plain.data_ptr()))
    # Elsewhere the sums of rows and columns, since a copy of all would take too long.
    numbers = weight.contiguous().view(-1).view(torch.uint8)
    width = int(numbers.numel() ** 0.5) or 1
    square = nn.functional.pad(numbers, (0, -numbers.numel() % width)).view(-1, width)
    sums = torch.cat([square.sum(dim=dim, dtype=torch.int64) for dim in (0, 1)])
    return xxh3_128_digest(sums.cpu().numpy().data)


# ---- one call


def checks_once(method: Callable[..., Value]) -> Callable[..., Value]:
    """Make a method of a model (or of a model that has one as `elmo`) look at each weight once in a call.

    This is safe only where no code of others runs within the call, so not in a model that is not plain.
    """

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Value:
        if torch.compiler.is_compiling() or _call.digests is not None:
            return method(self, *args, **kwargs)
        with _one_call(getattr(self, "elmo", self)):
            return method(self, *args, **kwargs)

    return call


@contextmanager
def _one_call(model: nn.Module) -> Iterator[None]:
    with suppress(NotPlain):  # then every weight is looked at wherever it is used
        _call.settings = settings(model, "the model")
        _call.model, _call.digests = model, {}
    try:
        yield
    finally:
        _call.digests = _call.model = _call.settings = _call.boundaries = None


def settings_of(model: nn.Module) -> tuple[Any, ...]:
    """The settings of a model, as `plain.settings`; looked at once within a call.

    Raises:
        NotPlain: if the model is not plain.
    """
    if _call.settings is not None and _call.model is model:
        return _call.settings
    return settings(model, "the model")


def is_plain_in_call(module: nn.Module) -> bool:
    """Whether a part of a model is known to be plain, because the whole model is and runs its call."""
    return _call.settings is not None and getattr(_call.model, "token_encoder", None) is module


def with_boundaries(encoder: Any, char_ids: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
    """`encode(char_ids)`; the first time in a call, sentence begin and end are encoded with the words.

    A call needs both, and two more rows cost nothing, where a pass over the encoder's weights would.
    """
    if not is_plain_in_call(encoder) or not hasattr(encoder, "boundary_ids"):
        return encode(char_ids)
    if _call.boundaries is None:
        ids = encoder.boundary_ids()
        vectors = encode(torch.cat([ids, char_ids.flatten(0, -2)]))
        _call.boundaries = (ids, vectors[:2])
        return vectors[2:].unflatten(0, char_ids.shape[:-1])
    ids, vectors = _call.boundaries
    is_asked_for = char_ids.shape == ids.shape and torch.equal(char_ids, ids)
    return vectors if is_asked_for else encode(char_ids)


# ---- frozen


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Promise that nothing changes a model's weights in here behind PyTorch's back.

    >>> with torch.no_grad(), kernels.frozen(model):
    ...     for _ in range(2):
    ...         output = model(**batch)

    The bytes of the weights are then compared once instead of in each call, and a GPU keeps what it computes
    from them. Changes that PyTorch counts (`load_state_dict`, `copy_`, an optimizer that is not fused) are
    noticed still; changes through `weight.data`, a numpy view or another process are not.
    """
    weights = weights_of(model)
    for weight in weights:
        _frozen.setdefault(id(weight), _Frozen(weight)).holders += 1
    try:
        yield
    finally:
        for weight in weights:
            _frozen[id(weight)].holders -= 1
            if not _frozen[id(weight)].holders:
                del _frozen[id(weight)]


def is_frozen(weights: Iterable[Tensor]) -> bool:
    return all(id(weight) in _frozen for weight in weights)
