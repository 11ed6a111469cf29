"""Values that are computed from weights, kept until the weights change.

Laying weights out for fast products takes longer than reading a sentence with them. `keep` does it once.
"""

from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeVar

from torch import Tensor
from torch.autograd.graph import increment_version
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook
from torch.utils.weak import WeakIdKeyDictionary

Value = TypeVar("Value")
SAMPLED_NUMBERS = 8  # of each weight

_kept: Any = WeakIdKeyDictionary()


def _count_change(optimizer: Optimizer, *_: object) -> None:
    """Increment the version of the weights that an optimizer changed; PyTorch's fused optimizers do not."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    increment_version([weight for weight in weights if weight.grad is not None and not weight.is_inference()])


register_optimizer_step_post_hook(_count_change)


def keep(
    owner: object, tensors: Iterable[Tensor | None], version: Hashable, make: Callable[[], Value]
) -> Value:
    """Return the result of `make`, computed again only when a tensor or the version has changed.

    Args:
        owner: the result is kept under this object, one at a time, and freed with it.
        tensors: the weights that `make` reads; None counts as no weight.
        version: whatever else the result depends on.
        make: computes the result.
    """
    state = (version, *(state_of(tensor) for tensor in tensors if tensor is not None))
    entry = _kept.get(owner)
    if entry is None or entry[0] != state:
        _kept[owner] = entry = (state, make())
    return entry[1]


def state_of(weight: Tensor) -> tuple[Any, ...]:
    """Return a value that differs after the weight has changed.

    It holds the weight's address, PyTorch's count of changes, and a few of the numbers. PyTorch does not
    count changes through `weight.data`, with which averages of weights are often written; the numbers show
    those. They are left out where reading them would mean waiting for a GPU. Tensors of inference mode have
    no count.
    """
    version = 0 if weight.is_inference() else weight._version
    if weight.device.type != "cpu" or not weight.is_contiguous():
        return weight.data_ptr(), version
    numbers = weight.detach().view(-1)[:: max(1, weight.numel() // SAMPLED_NUMBERS)]
    return weight.data_ptr(), version, *numbers.tolist()
