"""Matrix products on a CPU, by the library that is fastest for them.

On some processors oneDNN is twice as fast as the library that PyTorch multiplies with; PyTorch reaches it
only by operators of its own, which not every build has.

For reading, a weight is multiplied again and again. oneDNN can lay it out once for all these products:
`Product` does so, and times both libraries with the weight itself when it is made. For training, weights
change at each step; `product` and `add_product` use oneDNN wherever they can, without timing, so that
training twice gives the same numbers twice.
"""

import platform
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# The number of rows that oneDNN lays the weight out for. The layout suits one row as well as hundreds.
TYPICAL_ROWS = 32
FEW_ROWS = 4
TRIALS = 5


def lay_out(
    weight: Tensor, bias: Tensor | None = None, precision: str = "float32"
) -> "Product | Int8Product":
    """Prepare a weight (inputs, outputs) and a bias (outputs) in precision "float32", "bf16" or "int8"."""
    if precision == "int8":
        return Int8Product(weight, bias)
    return Product(weight, bias, torch.bfloat16 if precision == "bf16" else torch.float32)


class Product:
    """`x @ weight + bias` and `x @ weight + other`: x (..., rows, inputs), weight (inputs, outputs)."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None, dtype: torch.dtype | None = None) -> None:
        self.dtype = dtype or weight.dtype
        self.weight: Tensor | None = weight.detach().to(self.dtype).contiguous()
        self.bias = bias.detach().to(self.dtype).contiguous() if bias is not None else None
        self.packed = _pack(self.weight)
        # The answers differ: with one row it is memory that limits, with many it is arithmetic.
        self.packs_few = self.packed is not None and self._packed_is_faster(rows=1)
        self.packs_many = self.packed is not None and self._packed_is_faster(rows=TYPICAL_ROWS)
        if not (self.packs_few or self.packs_many):
            self.packed = None
        if self.packs_few and self.packs_many:
            self.weight = None

    def __call__(self, x: Tensor) -> Tensor:
        return self._packed_product(x) if self._uses_packed(x) else self._plain_product(x)

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

    def _plain_product(self, x: Tensor) -> Tensor:
        assert self.weight is not None
        result = x @ self.weight
        return result if self.bias is None else result.add_(self.bias)

    def _packed_is_faster(self, rows: int) -> bool:
        assert self.weight is not None
        x = torch.ones(rows, len(self.weight), dtype=self.weight.dtype)
        return _seconds(lambda: self._packed_product(x)) < _seconds(lambda: self._plain_product(x))


class PairProduct:
    """`x @ weight` and `x @ weight + other` for both directions: x (2, rows, inputs), weight (2, inputs,
    outputs). With one or two rows a batched product keeps two processors busy, where `Product` keeps one."""

    dtype = torch.float32

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight.detach().contiguous()

    def __call__(self, x: Tensor) -> Tensor:
        return torch.bmm(x, self.weight)

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        return torch.bmm(x, self.weight).add_(other)


class Int8Product:
    """As `Product`, with x and weights rounded to eight bits, the weights with a scale for each output."""

    dtype = torch.float32  # of x and of the result

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        weight = weight.detach().t().float().contiguous()
        scales = (weight.abs().amax(dim=1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
        zeros = torch.zeros(len(weight), dtype=torch.int64)
        with warnings.catch_warnings():  # PyTorch plans to drop these tensors and has no substitute yet
            warnings.simplefilter("ignore", UserWarning)
            rounded = torch.quantize_per_channel(weight, scales.double(), zeros, 0, torch.qint8)
        self.packed = torch.ops.quantized.linear_prepack(rounded, bias.detach() if bias is not None else None)
        # Processors without VNNI add in 16 bits, which numbers of seven bits do not overflow.
        self.seven_bits = not torch.cpu._is_vnni_supported()

    def __call__(self, x: Tensor) -> Tensor:
        return torch.ops.quantized.linear_dynamic(x, self.packed, self.seven_bits)

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        return self(x).add_(other)


def _pack(weight: Tensor) -> Any:
    """oneDNN's layout of the weight, or None where oneDNN cannot be used."""
    if not _has_onednn():
        return None
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.t().contiguous(), TYPICAL_ROWS)
        x = torch.ones(1, len(weight), dtype=weight.dtype)
        torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")
    except (RuntimeError, NotImplementedError, AttributeError):
        return None  # an operator of another version, or a type that this processor lacks
    return packed


def _has_onednn() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _seconds(call: Callable[[], object]) -> float:
    call()
    times = []
    for _ in range(TRIALS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


# ---- for training


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (n, k) @ weight (k, m) + bias (m)"""
    if uses_onednn(x, weight):
        bias = bias.contiguous() if bias is not None else None  # oneDNN reads it as if it were
        return torch.ops.mkldnn._linear_pointwise(x, weight.t(), bias, "none", [], "")
    return x @ weight if bias is None else torch.addmm(bias, x, weight)


def add_product(other: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """other + x @ weight; `other` may be overwritten."""
    if uses_onednn(x, weight):
        return torch.ops.mkldnn._linear_pointwise.binary(x, other, weight.t(), None, "add")
    return torch.addmm(other, x, weight, out=other)


def has_bf16() -> bool:
    """Whether this processor has products in bfloat16. (oneDNN emulates them on others, which is slow.)"""
    if platform.machine().lower() in ("x86_64", "amd64"):
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return _has_onednn() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def uses_onednn(x: Tensor, weight: Tensor) -> bool:
    return x.dtype == torch.float32 and x.numel() > 0 and weight.numel() > 0 and _has_onednn()
