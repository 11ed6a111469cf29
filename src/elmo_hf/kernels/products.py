"""`x @ weight` for a weight that stays the same: the quickest way this machine has.

oneDNN can lay a weight out once for all the products to come, which on some processors is twice as fast as
the usual library. PyTorch reaches it only by operators of its own, so their absence, or a machine where they
are slower, falls back to `torch.mm`: both are tried with the weight itself when it is first used.
"""

import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# Rows that oneDNN lays the weight out for. It serves one row as well as hundreds.
TYPICAL_ROWS = 32
FEW_ROWS = 4
TRIALS = 5


def lay_out(
    weight: Tensor, bias: Tensor | None = None, precision: str = "float32"
) -> "Product | Int8Product":
    if precision == "int8":
        return Int8Product(weight, bias)
    return Product(weight, bias, torch.bfloat16 if precision == "bf16" else torch.float32)


class Product:
    """`x @ weight + bias` and `x @ weight + other`: x (..., rows, inputs), weight (inputs, outputs)."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None, dtype: torch.dtype | None = None) -> None:
        self.dtype = dtype or weight.dtype
        self.weight: Tensor | None = weight.detach().to(self.dtype).contiguous()
        self.bias = bias.detach().to(self.dtype) if bias is not None else None
        self.packed = _pack(self.weight)
        # The answers differ: for a single row it is memory that counts, and not the processor.
        self.packs_few = self.packed is not None and self._packed_is_faster(rows=1)
        self.packs_many = self.packed is not None and self._packed_is_faster(rows=TYPICAL_ROWS)
        if not (self.packs_few or self.packs_many):
            self.packed = None
        if self.packs_few and self.packs_many:
            self.weight = None

    def __call__(self, x: Tensor) -> Tensor:
        return self._packed_product(x) if self._uses_packed(x) else self._usual_product(x)

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """`x @ weight + other`; `other` may be overwritten."""
        if self._uses_packed(x):
            return torch.ops.mkldnn._linear_pointwise.binary(x, other, self.packed, None, "add")
        assert self.weight is not None
        rows = other.view(-1, other.shape[-1])  # never a copy
        torch.addmm(rows, x.flatten(0, -2), self.weight, out=rows)
        return other

    def _uses_packed(self, x: Tensor) -> bool:
        return self.packs_many if x.shape[-2] > FEW_ROWS else self.packs_few

    def _packed_product(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")

    def _usual_product(self, x: Tensor) -> Tensor:
        assert self.weight is not None
        product = x @ self.weight
        return product if self.bias is None else product.add_(self.bias)

    def _packed_is_faster(self, rows: int) -> bool:
        assert self.weight is not None
        x = torch.ones(rows, len(self.weight), dtype=self.weight.dtype)
        return _seconds(lambda: self._packed_product(x)) < _seconds(lambda: self._usual_product(x))


class PairProduct:
    """`x @ weight` and `x @ weight + other` for both directions: x (2, rows, inputs), weight (2, inputs,
    outputs). With one row or two, a batched product keeps two processors busy, where `Product` keeps one."""

    dtype = torch.float32

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight.detach().contiguous()

    def __call__(self, x: Tensor) -> Tensor:
        return torch.bmm(x, self.weight)

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        return torch.bmm(x, self.weight).add_(other)


class Int8Product:
    """The same with weights of eight bits, a scale an output, and x rounded to eight bits as it comes."""

    dtype = torch.float32  # of x and of the result

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        weight = weight.detach().t().float().contiguous()
        scales = (weight.abs().amax(dim=1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
        zeros = torch.zeros(len(weight), dtype=torch.int64)
        with warnings.catch_warnings():  # PyTorch means to drop these tensors, and has no like of them yet
            warnings.simplefilter("ignore", UserWarning)
            rounded = torch.quantize_per_channel(weight, scales.double(), zeros, 0, torch.qint8)
        self.packed = torch.ops.quantized.linear_prepack(rounded, bias.detach() if bias is not None else None)
        # Processors without VNNI add up in 16 bits, which seven-bit numbers do not overflow.
        self.seven_bits = not torch.cpu._is_vnni_supported()

    def __call__(self, x: Tensor) -> Tensor:
        return torch.ops.quantized.linear_dynamic(x, self.packed, self.seven_bits)

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        return self(x).add_(other)


def _pack(weight: Tensor) -> Any:
    """oneDNN's layout of the weight, or None where there is none for it."""
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise") or not torch.backends.mkldnn.is_available():
        return None
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.t().contiguous(), TYPICAL_ROWS)
        x = torch.ones(1, len(weight), dtype=weight.dtype)
        torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")
    except (RuntimeError, NotImplementedError, AttributeError):
        return None  # an operator of another version, or a type that this processor lacks
    return packed


def _seconds(call: Callable[[], object]) -> float:
    call()
    times = []
    for _ in range(TRIALS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)
