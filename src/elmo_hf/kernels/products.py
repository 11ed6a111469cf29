"""Matrix products on a CPU, by the library that is fastest for them.

On some processors oneDNN is twice as fast as the library that PyTorch multiplies with; PyTorch reaches it
only by operators of its own, which not every build has. Which library a product takes depends on the number
of rows and on the processor, never on a measured time, so that the same call gives the same numbers twice.
"""

import platform
import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor

# The number of rows that oneDNN lays the weight out for. The layout suits one row as well as hundreds.
TYPICAL_ROWS = 32
# With so few rows, oneDNN takes longer to read a weight that is not laid out.
FEW_ROWS = 2
# With fewer numbers, PyTorch's own product is as fast. oneDNN keeps code for each number of rows (200 KB),
# of the last thousand products.
FEW_NUMBERS = 2**16


def lay_out(weight: Tensor, bias: Tensor | None = None, precision: str = "float32") -> Any:
    """Prepare a weight (inputs, outputs) and a bias (outputs) in precision "float32", "bf16" or "int8"."""
    if precision == "int8":
        return Int8Product(weight, bias)
    return Product(weight, bias, torch.bfloat16 if precision == "bf16" and has_bf16() else torch.float32)


class Product:
    """`x @ weight + bias` and `x @ weight + other`: x (..., rows, inputs), weight (inputs, outputs)."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None, dtype: torch.dtype | None = None) -> None:
        self.dtype = dtype or weight.dtype
        weight = weight.detach().to(self.dtype)
        self.bias = bias.detach().to(self.dtype).contiguous() if bias is not None else None
        is_small = self.dtype == torch.float32 and weight.numel() < FEW_NUMBERS
        self.packed = None if is_small else _pack(weight)
        self.weight = weight.contiguous() if self.packed is None else None

    def __call__(self, x: Tensor) -> Tensor:
        if self.weight is None:
            return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return x @ self.weight if self.bias is None else x @ self.weight + self.bias

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """`x @ weight + other`; `other` may be overwritten."""
        if self.weight is None:
            return torch.ops.mkldnn._linear_pointwise.binary(x, other, self.packed, None, "add")
        return other.add_(x @ self.weight)


class PairProduct:
    """`x @ weight` and `x @ weight + other` for both directions: x (2, rows, inputs), weight (2, inputs,
    outputs). With one or two rows a batched product keeps two processors busy, where others keep one."""

    dtype = torch.float32

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight.detach()
        self.sums: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        return torch.bmm(x, self.weight)

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """The next call with as many rows overwrites the result."""
        if self.sums is None or self.sums.shape[1] != x.shape[1]:
            self.sums = other.new_empty(other.shape)
        return torch.baddbmm(other, x, self.weight, out=self.sums)


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


# ---- with the weight itself


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., n, k) @ weight (k, m) + bias (m)"""
    if uses_onednn(x, weight):
        bias = bias.contiguous() if bias is not None else None  # oneDNN reads it as if it were
        return torch.ops.mkldnn._linear_pointwise(x, weight.t(), bias, "none", [], "")
    return x @ weight if bias is None else x @ weight + bias


def add_product(other: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """other + x @ weight; `other` may be overwritten."""
    if uses_onednn(x, weight):
        return torch.ops.mkldnn._linear_pointwise.binary(x, other, weight.t(), None, "add")
    return torch.addmm(other, x, weight, out=other)


@cache
def has_bf16() -> bool:
    """Whether this processor has products in bfloat16. (oneDNN emulates them on others, which is slow.)"""
    if platform.machine().lower() in ("x86_64", "amd64"):
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return _has_onednn() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def uses_onednn(x: Tensor, weight: Tensor) -> bool:
    is_read_fast = x.dtype == torch.float32 and x.shape[-2] > FEW_ROWS and weight.numel() >= FEW_NUMBERS
    return is_read_fast and x.numel() > 0 and _has_onednn()
