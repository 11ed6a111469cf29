"""What is made from weights, kept for as long as the weights stay as they are."""

from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeVar

from torch import Tensor
from torch.autograd.graph import increment_version
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook
from torch.utils.weak import WeakIdKeyDictionary

Made = TypeVar("Made")
LOOKED_AT = 8  # of a weight's numbers

_kept: Any = WeakIdKeyDictionary()


def _count_change(optimizer: Optimizer, *_: object) -> None:
    """PyTorch's fused optimizers change weights, and count it as no change. Here it is counted."""
    every = [weight for group in optimizer.param_groups for weight in group["params"]]
    increment_version([weight for weight in every if weight.grad is not None and not weight.is_inference()])


register_optimizer_step_post_hook(_count_change)


def keep(owner: object, tensors: Iterable[Tensor], version: Hashable, make: Callable[[], Made]) -> Made:
    """What `make` gives, made anew when a tensor or the version has changed, and gone with its owner.

    An owner keeps one thing at a time.
    """
    state = (version, *map(state_of, tensors))
    found = _kept.get(owner)
    if found is None or found[0] != state:
        _kept[owner] = found = (state, make())
    return found[1]


def state_of(weight: Tensor) -> tuple[Any, ...]:
    """Another one after a change.

    PyTorch counts changes, but not those by `weight.data`, by which averages of weights are often written. So
    a few of the numbers are looked at, too, unless that would mean to wait for a GPU. Tensors of inference
    mode count none.
    """
    counted = 0 if weight.is_inference() else weight._version
    if weight.device.type != "cpu" or not weight.is_contiguous():
        return weight.data_ptr(), counted
    numbers = weight.detach().view(-1)[:: max(1, weight.numel() // LOOKED_AT)]
    return weight.data_ptr(), counted, *numbers.tolist()
