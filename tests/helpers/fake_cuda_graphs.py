"""A CPU stand-in for CUDA graphs, for the tests of `elmo_hf.kernels.graphs`.

`FakeCapture` follows CUDA's rules: a replay reads the tensors of its capture and writes its results to the
same memory each time.
"""

import contextlib
import weakref

import torch
from torch import nn

from elmo_hf.kernels import graphs
from elmo_hf.model.modeling_elmo import lstm


class FakeCapture:
    """`graphs.capture` for the CPU."""

    def __init__(self):
        self.captures = self.replays = 0
        self.error = None
        self.works = []

    def __call__(self, work, inputs):
        self.captures += 1
        self.works.append(weakref.ref(work))
        if self.error is not None:
            raise self.error
        results = work(*inputs)

        def replay():
            self.replays += 1
            for result, new in zip(results, work(*inputs), strict=True):
                result.copy_(new)
            return results

        return replay


def make_weights(width=3, cells=5, output=4, seed=0, dtype=torch.float32, device="cpu"):
    """Random weights; without a projection if `output` is None."""
    generator = torch.Generator().manual_seed(seed)
    rows = cells if output is None else output
    shapes = [(2, width, 4 * cells), (2, rows, 4 * cells), (2, 4 * cells), (2, cells, rows)]
    weights = [nn.Parameter(torch.randn(s, generator=generator).to(device, dtype)) for s in shapes]
    return weights if output is not None else [*weights[:3], None]


def make_call(weights, batch=3, time=5, words=0.7, seed=0):
    """x, mask, h and c that fit the weights; `words` is the share of places that hold a word."""
    generator = torch.Generator().manual_seed(seed)
    width, rows, cells = weights[0].shape[1], weights[1].shape[1], weights[2].shape[1] // 4
    mask = torch.rand(2, batch, time, generator=generator) < words
    numbers = [torch.randn(2, batch, n, generator=generator) for n in (time * width, rows, cells)]
    x, h, c = (tensor.to(weights[0]) for tensor in numbers)
    return x.unflatten(2, (time, width)), mask.to(weights[0].device), h * 0.1, c


@torch.no_grad()
def read(weights, call, clips=(0.4, 0.3)):
    """Read by a graph; the first call of a size has none, and is then repeated."""
    with contextlib.suppress(graphs.NoGraph):
        return graphs.lstm(*call, *weights, *clips)
    return graphs.lstm(*call, *weights, *clips)


def assert_same(weights, call, clips=(0.4, 0.3), tolerance=1e-5):
    with torch.no_grad():
        expected = lstm(*call, *weights, *clips)
    actual = read(weights, call, clips)
    assert [result.dtype for result in actual] == [result.dtype for result in expected]
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)
    return actual
