"""`modeling_elmo.lstm` for reading a few sentences on a GPU: a whole layer as one CUDA graph.

With few rows a GPU finishes a step before Python has launched the next one. A CUDA graph is a recording of
launches: captured once, it is started again, replayed, by a single call. A replay reads and writes the same
memory each time. So inputs are copied to where the graph reads them and results from where it leaves them;
and batch and time are rounded up to a few sizes, each with a graph of its own.

A graph reads the weights at their addresses. It sees changes in place (an optimizer's step,
`load_state_dict`) at the next replay. Weights at other addresses (after `.to` or `.data = `) make a layer's
graphs useless; they are then dropped.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import cache, partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from elmo_hf.kernels.cell import Clips, LstmWeights, clip_into
from elmo_hf.kernels.kept import keep
from elmo_hf.kernels.steps import Steps
from elmo_hf.kernels.training import product, read

MAX_ROWS = 32  # with more rows, the GPU's work takes longer than the launches
TIMES = (1, 8, 16, 24, 32, 48, 64, 96, 128)  # sizes of time; 1 is for the sentence begin alone
MAX_GRAPHS = 16  # of one layer; the least recently used one is dropped
WARM_UPS = 3

FIRST_TIME = "this batch size and length came for the first time; a CUDA graph is captured at the second"

Results = tuple[Tensor, Tensor, Tensor]


class NoGraph(Exception):
    """There is no graph for a call; the message says why."""


def serves(x: Tensor, *weights: Tensor | None) -> bool:
    """Whether these tensors are read without gradients, on a GPU, and few enough for a graph to pay."""
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, *weights)):
        return False
    return x.is_cuda and 0 < x.shape[1] <= MAX_ROWS and 0 < x.shape[2] <= TIMES[-1]


def lstm(
    x: Tensor,
    mask: Tensor,
    h: Tensor,
    c: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    bias: Tensor,
    projection: Tensor | None,
    cell_clip: float | None,
    proj_clip: float | None,
    owner: object = None,
) -> Results:
    """As `training.lstm`, for tensors that `serves` accepts; raises `NoGraph` if this call has no graph.

    The graphs are kept under the owner, which is the module or, by default, the input weight.
    """
    weights = LstmWeights(input_weight, recurrent_weight, bias, projection)
    reason = _why_not(x, h, c, weights)
    if reason:
        raise NoGraph(reason)
    size = _round_up(*mask.shape[1:])
    clips = (cell_clip, None if projection is None else proj_clip)
    # A graph keeps the rounding of float32 products that was set when it was captured.
    key = (size, clips, torch.backends.cuda.matmul.fp32_precision)
    # Graphs depend on the weights' addresses and not on their numbers.
    version = ("graphs", *map(_layout, weights))
    with _lock:
        graphs = keep(input_weight if owner is None else owner, (), version, Graphs, "graphs")
        return graphs.get(key, lambda: Graph(x, h, c, size, weights, clips))(x, mask, h, c)


# A graph's inputs must not be overwritten before its results are copied, and graphs share memory.
_lock = threading.Lock()


def _why_not(x: Tensor, h: Tensor, c: Tensor, weights: LstmWeights) -> str:
    if torch.is_autocast_enabled(x.device.type):
        return "autocast is on"
    if torch.is_grad_enabled() and (h.requires_grad or c.requires_grad):
        return "gradients are needed"
    if any(tensor is not None and tensor.dtype != x.dtype for tensor in (h, c, *weights)):
        return "the tensors are not of one type"
    # Only within one stream is work done in the order of its launches. This also excludes calls that are
    # themselves captured, which is never done on the default stream.
    if x.is_cuda and torch.cuda.current_stream(x.device) != torch.cuda.default_stream(x.device):
        return "the work is not on the GPU's default stream"
    return ""


def _round_up(batch: int, time: int) -> tuple[int, int]:
    """Batch to the next power of two, time to the next of `TIMES`."""
    return 1 << (batch - 1).bit_length(), next(size for size in TIMES if size >= time)


def _layout(weight: Tensor | None) -> Hashable:
    return weight is not None and (weight.data_ptr(), weight.dtype, weight.shape, weight.stride())


# ---- graphs, kept


class Graphs:
    """A layer's graphs, from the least to the most recently used.

    A graph is captured when its key comes for the second time. A single call does not repay the capture, and
    weights that are new tensors at each call (those of a replica, for example) would never find their graphs
    again.
    """

    def __init__(self) -> None:
        self.entries: OrderedDict[Hashable, Graph | str] = OrderedDict()  # a graph, or why there is none

    def get(self, key: Hashable, make: Callable[[], "Graph"]) -> "Graph":
        entry = self.entries.pop(key, None)
        if entry is None:
            entry = FIRST_TIME
        elif entry is FIRST_TIME:
            try:
                entry = make()
            except RuntimeError as error:  # not tried again
                entry = f"no CUDA graph could be captured: {str(error).splitlines()[0]}"
        self.entries[key] = entry
        if len(self.entries) > MAX_GRAPHS:
            self.entries.popitem(last=False)
        if isinstance(entry, str):
            raise NoGraph(entry)
        return entry


class Graph:
    """A layer captured for one size (batch, time), with the tensors that it reads."""

    def __init__(
        self, x: Tensor, h: Tensor, c: Tensor, size: tuple[int, int], weights: LstmWeights, clips: Clips
    ) -> None:
        batch, time = size
        cell_dtype = torch.promote_types(x.dtype, torch.float32)
        # Tensors made in inference mode could not be written to outside of it.
        with torch.inference_mode(False), torch.no_grad():
            self.x = x.new_zeros(2, batch, time, x.shape[-1])
            self.mask = x.new_zeros(2, batch, time, dtype=torch.bool)
            self.h = h.new_zeros(2, batch, h.shape[-1])
            self.c = c.new_zeros(2, batch, c.shape[-1], dtype=cell_dtype)
            # Detached, since the graph is kept under a weight, which it would otherwise keep alive.
            detached = LstmWeights._make(None if weight is None else weight.detach() for weight in weights)
            work = partial(read_layer, weights=detached, clips=clips)
            self.replay = capture(work, (self.x, self.mask, self.h, self.c))

    def __call__(self, x: Tensor, mask: Tensor, h: Tensor, c: Tensor) -> Results:
        _, batch, time = mask.shape
        self.mask.zero_()  # hides what the call before has left in the other tensors
        self.mask[:, :batch, :time].copy_(mask)
        self.x[:, :batch, :time].copy_(x)
        self.h[:, :batch].copy_(h)
        self.c[:, :batch].copy_(c)
        outputs, last_h, last_c = self.replay()
        outputs, last_h = outputs[:, :batch, :time].clone(), last_h[:, :batch].clone()
        return outputs, last_h, last_c[:, :batch].to(c.dtype, copy=True)


# ---- the work that is captured


def read_layer(x: Tensor, mask: Tensor, h: Tensor, c: Tensor, weights: LstmWeights, clips: Clips) -> Results:
    """As `modeling_elmo.lstm`, without waiting for what a tensor holds: every step reads every row."""
    steps = words_first(mask)
    words = steps.pack(x)
    gates = words.new_empty(*words.shape[:2], weights.bias.shape[-1])
    product(words, weights.from_input, gates, weights.bias)
    all_h, all_c = read(gates, h.clone(), c.clone(), weights, steps, clips)  # before their clips
    clip_into(all_h, clips[1], out=all_h)
    clip_into(all_c, clips[0], out=all_c)
    outputs = steps.unpack(all_h).masked_fill(~mask[..., None], 0)
    lengths = mask.sum(dim=-1)
    return outputs, _last(all_h, h, lengths), _last(all_c, c, lengths)


def words_first(mask: Tensor) -> Steps:
    """Steps that read each row's words first and then its padding, whose results are not used."""
    _, batch, time = mask.shape
    order = mask.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)
    row_starts = torch.arange(0, batch * time, time, device=mask.device)
    positions = (order + row_starts[:, None]).transpose(1, 2).flatten(1)
    return Steps([batch] * time, list(range(0, batch * time, batch)), batch, time, None, positions)


def _last(states: Tensor, first: Tensor, lengths: Tensor) -> Tensor:
    """states (2, time * batch, dim), first (2, batch, dim), lengths (2, batch) -> (2, batch, dim)"""
    by_step = states.unflatten(1, (-1, first.shape[1]))
    step = (lengths - 1).clamp(min=0)[:, None, :, None].expand(-1, -1, -1, first.shape[-1])
    return torch.where(lengths[..., None] > 0, by_step.gather(1, step)[:, 0], first)


# ---- CUDA

# The graphs of a device share one memory pool: each overwrites what the others no longer need.
_alive: WeakKeyDictionary[torch.cuda.CUDAGraph, torch.device] = WeakKeyDictionary()


def capture(
    work: Callable[..., Any], inputs: Sequence[Tensor], warm_ups: int = WARM_UPS
) -> Callable[[], Any]:
    """Run a function on tensors once; returns a function that does the same work on their later contents.

    The work is first run a few times, since a first run makes things that last (Triton compiles, cuBLAS takes
    memory) and must not be captured. Work that changes what is kept, such as weights,
    has no warm-ups here; its caller has run it by `run_aside`."""
    device = inputs[0].device
    graph, stream = torch.cuda.CUDAGraph(), _stream(device)
    with torch.cuda.device(device):
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(warm_ups):
                work(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        pool = next((other.pool() for other, place in _alive.items() if place == device), None)
        # "thread_local": otherwise a data loader's thread that allocates memory would end the capture.
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            outputs = work(*inputs)
    _alive[graph] = device

    def replay() -> Any:
        graph.replay()
        return outputs

    return replay


def run_aside(work: Callable[..., Any], inputs: Sequence[Tensor]) -> Any:
    """Run work on the stream on which it will be captured; the results serve the current stream."""
    stream = _stream(inputs[0].device)
    with torch.cuda.device(inputs[0].device):
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            results = work(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
    return results


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One stream for all captures, since memory that one stream has freed is not given to another."""
    return torch.cuda.Stream(device)
