"""What is made from weights, kept for as long as the weights stay as they are."""

from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeVar

from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.weak import WeakIdKeyDictionary

Made = TypeVar("Made")

_kept: Any = WeakIdKeyDictionary()
_steps = 0  # of all optimizers: PyTorch's fused ones change weights, and count it as no change


def _count_step(*_: object) -> None:
    global _steps
    _steps += 1


register_optimizer_step_post_hook(_count_step)


def keep(owner: object, tensors: Iterable[Tensor], version: Hashable, make: Callable[[], Made]) -> Made:
    """What `make` gives, made anew when a tensor or the version has changed, and gone with its owner.

    An owner keeps one thing at a time.
    """
    state = (version, *map(_fingerprint, tensors))
    found = _kept.get(owner)
    if found is None or found[0] != state:
        _kept[owner] = found = (state, make())
    return found[1]


def _fingerprint(tensor: Tensor) -> tuple[int, int, int]:
    """Another one after every change. Tensors of inference mode count none, and then their place must do."""
    version = 0 if tensor.is_inference() else tensor._version
    return tensor.data_ptr(), version, _steps if tensor.requires_grad else 0
