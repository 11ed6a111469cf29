"""The machine's own rate, as a contestant: what share of it a model's products reach."""

from __future__ import annotations

import time
import warnings

from benchmarks.speed import workloads
from benchmarks.speed.contestant import Contestant, start_torch


class Peak(Contestant):
    """The machine's rates for matrix products of the model's shapes, in GFLOP/s: with `torch.mm`, with oneDNN
    and packed weights, and with PyTorch's dynamic int8 product."""

    libraries = ("torch",)
    settings = tuple(workloads.SETTINGS)
    is_elmo = False

    def __init__(self, job):
        super().__init__(job)
        self.torch = start_torch(job)
        clock = time.process_time if job.clock == "cpu" else time.perf_counter
        self.clock, self.seconds = clock, 0.01 if job.size == "tiny" else 0.1

    def prepare(self, setting, sentences):
        return sentences

    def run(self, setting, prepared):
        rates = {}
        for name, rows, inner, columns in workloads.products(self.job.size):
            x, weight = self.torch.randn(rows, inner), self.torch.randn(columns, inner)
            for variant, product in self.variants(x, weight, name in workloads.LSTM_PRODUCTS):
                dtype, _, library = variant.partition(" ")
                rate = self.rate(product, 2 * rows * inner * columns)
                rates[f"{dtype} {name} {library}"] = round(rate / 1e9, 1)
        return {"gflops": rates}

    def variants(self, x, weight, is_lstm):
        """Only the LSTMs' products are measured in other types than float32."""
        yield from self.floats("float32", x, weight)
        if is_lstm:
            yield from self.floats("bfloat16", x.bfloat16(), weight.bfloat16())
            yield from self.eight_bits(x, weight)

    def floats(self, dtype, x, weight):
        torch = self.torch
        transposed = weight.t()
        yield f"{dtype} torch.mm", lambda: torch.mm(x, transposed)
        try:  # private operations of torch, which may be removed
            packed = torch.ops.mkldnn._reorder_linear_weight(weight, len(x))
            product = torch.ops.mkldnn._linear_pointwise
            product(x, packed, None, "none", [], "")
        except (RuntimeError, AttributeError, NotImplementedError):
            return
        yield f"{dtype} packed", lambda: product(x, packed, None, "none", [], "")

    def eight_bits(self, x, weight):
        torch = self.torch
        scales, zeros = torch.full((len(weight),), 0.03).double(), torch.zeros(len(weight), dtype=torch.int64)
        try:
            with warnings.catch_warnings():  # PyTorch deprecates quantized tensors
                warnings.simplefilter("ignore", UserWarning)
                rounded = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
            packed = torch.ops.quantized.linear_prepack(rounded, None)
        except (RuntimeError, AttributeError, NotImplementedError):
            return
        yield "int8 dynamic", lambda: torch.ops.quantized.linear_dynamic(x, packed)

    def rate(self, product, operations):
        with self.torch.inference_mode():
            product()
            start, done, now = self.clock(), 0, 0.0
            while now < self.seconds:
                product()
                done, now = done + 1, self.clock() - start
        return done * operations / now

    def work(self, setting, calls):
        return {}
