"""Whether weights are still what they were, told without a look at all their numbers."""

from typing import Any

from torch import Tensor

LOOKED_AT = 8  # of a weight's numbers


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
