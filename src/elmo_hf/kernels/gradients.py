"""Gradients that are written out, and what they cannot do."""

import functools
from collections.abc import Callable
from typing import Any

import torch

Backward = Callable[..., Any]


def refuses_second_derivative(advice: str) -> Callable[[Backward], Backward]:
    """Make the `backward` of an autograd function refuse `create_graph=True`, with advice what to do instead.

    PyTorch's `once_differentiable` refuses it only if the incoming gradient needs a gradient itself. If it
    does not (the score is linear in the vectors), it drops the second derivative in silence.
    """

    def decorate(backward: Backward) -> Backward:
        @functools.wraps(backward)
        def refusing(ctx: Any, *gradients: Any) -> Any:
            if torch.is_grad_enabled():
                raise RuntimeError(f"the gradient has no derivative here (create_graph=True); {advice}.")
            return backward(ctx, *gradients)

        return refusing

    return decorate


READABLE = "call elmo_hf.kernels.use('readable') before the model is called"
