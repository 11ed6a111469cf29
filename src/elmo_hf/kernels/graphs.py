"""The LSTM of `modeling_elmo.lstm` for reading a few sentences on a GPU: a whole layer as one CUDA graph.

With so few rows a GPU has done a step sooner than it is told the next one. A CUDA graph is work that was told
once, when it was captured, and is started again by a single call, the replay. It reads and writes the same
places in memory every time. So what comes in is copied to where the graph reads it, and what goes out from
where the graph left it; and batch and time are rounded up to a few sizes, each with a graph of its own.

A graph reads the weights where they lie. A change in place (an optimizer's step, `load_state_dict`) is
therefore seen by the next replay. Weights that lie elsewhere (after `.to`, or `.data = `) make the layer's
graphs worthless; they are then thrown away.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import cache, partial
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from elmo_hf.kernels.cell import clip_into
from elmo_hf.kernels.kept import keep
from elmo_hf.kernels.steps import Steps
from elmo_hf.kernels.training import HALF, Clips, Weights, product, read

MOST_ROWS = 32  # with more, the GPU's own work takes longer than the telling
TIMES = (1, 8, 16, 24, 32, 48, 64, 96, 128)  # so many words at a time; a single one is a sentence's begin
MOST_GRAPHS = 16  # that a layer keeps; the one not used for longest goes
WARM_UP = 3

FIRST_TIME = "so many words came for the first time; a graph is made at the second"

Found = tuple[Tensor, Tensor, Tensor]
Replay = Callable[[], Found]
# Runs a function on tensors once; what it returns does the same work again, on what these tensors then hold.
Capture = Callable[[Callable[..., Found], Sequence[Tensor]], Replay]


class NoGraph(Exception):
    """Why a call has to go without a graph."""


def serves(x: Tensor, *weights: Tensor | None) -> bool:
    """Whether these tensors are read without gradients, on a GPU, and few enough for a graph to pay."""
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, *weights)):
        return False
    return x.is_cuda and 0 < x.shape[1] <= MOST_ROWS and 0 < x.shape[2] <= TIMES[-1]


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
) -> Found:
    """As `training.lstm`, for what `serves` allows; raises `NoGraph` if there is none for this call."""
    weights = Weights(input_weight, recurrent_weight, bias, projection)
    obstacle = _obstacle(x, h, c, weights)
    if obstacle:
        raise NoGraph(obstacle)
    size = _round_up(*mask.shape[1:])
    clips = (cell_clip, None if projection is None else proj_clip)
    # A graph keeps the rounding of float32 products that was set when it was captured.
    key = (size, clips, torch.backends.cuda.matmul.fp32_precision)
    # Not the tensors' versions but their places: see above.
    places = ("graphs", *map(_place, weights))
    with _one_at_a_time:
        graphs = keep(input_weight, (), places, Graphs)
        return graphs.find(key, lambda: Graph(x, h, c, size, weights, clips))(x, mask, h, c)


# A graph's inputs are not to be overwritten before its results are copied, nor are two to share memory.
_one_at_a_time = threading.Lock()


def _obstacle(x: Tensor, h: Tensor, c: Tensor, weights: Weights) -> str:
    if torch.is_autocast_enabled(x.device.type):
        return "autocast is on"
    if torch.is_grad_enabled() and (h.requires_grad or c.requires_grad):
        return "gradients are needed"
    if any(tensor is not None and tensor.dtype != x.dtype for tensor in (h, c, *weights)):
        return "the tensors are not of one type"
    # Only the work of one stream is done in the order in which it was told; and where somebody else is
    # capturing, this is never the default one.
    if x.is_cuda and torch.cuda.current_stream(x.device) != torch.cuda.default_stream(x.device):
        return "the work is not on the GPU's default stream"
    return ""


def _round_up(batch: int, time: int) -> tuple[int, int]:
    """To the next power of two, and the next of `TIMES`."""
    return 1 << (batch - 1).bit_length(), next(most for most in TIMES if most >= time)


def _place(weight: Tensor | None) -> Hashable:
    return weight is not None and (weight.data_ptr(), weight.dtype, weight.shape, weight.stride())


# ---- graphs, kept


class Graphs:
    """A layer's graphs by what they were made for; the last was used last.

    One is made when its size comes for the second time. A single call is not worth it, nor are weights that
    are other tensors at each call (a replica's, for example), whose graphs would never be found again.
    """

    def __init__(self) -> None:
        self.kept: OrderedDict[Hashable, Graph | str] = OrderedDict()

    def find(self, key: Hashable, make: Callable[[], "Graph"]) -> "Graph":
        found = self.kept.pop(key, None)
        if found is None:
            found = FIRST_TIME
        elif found is FIRST_TIME:
            try:
                found = make()
            except RuntimeError as error:  # not tried again
                found = f"no CUDA graph could be captured: {str(error).splitlines()[0]}"
        self.kept[key] = found
        if len(self.kept) > MOST_GRAPHS:
            self.kept.popitem(last=False)
        if isinstance(found, str):
            raise NoGraph(found)
        return found


class Graph:
    """A layer captured for so many rows and words, with the places that it reads."""

    def __init__(
        self, x: Tensor, h: Tensor, c: Tensor, size: tuple[int, int], weights: Weights, clips: Clips
    ) -> None:
        batch, time = size
        cell_dtype = torch.float32 if x.dtype in HALF else x.dtype
        # Tensors made in inference mode could not be written to outside of it.
        with torch.inference_mode(False), torch.no_grad():
            self.x = x.new_zeros(2, batch, time, x.shape[-1])
            self.mask = x.new_zeros(2, batch, time, dtype=torch.bool)
            self.h = h.new_zeros(2, batch, h.shape[-1])
            self.c = c.new_zeros(2, batch, c.shape[-1], dtype=cell_dtype)
            # Detached, so that what is kept for a weight does not keep the weight.
            detached = Weights._make(None if weight is None else weight.detach() for weight in weights)
            work = partial(read_layer, weights=detached, clips=clips)
            self.replay = capture(work, (self.x, self.mask, self.h, self.c))

    def __call__(self, x: Tensor, mask: Tensor, h: Tensor, c: Tensor) -> Found:
        _, batch, time = mask.shape
        self.mask.zero_()  # what else is left from the call before is then never seen
        self.mask[:, :batch, :time].copy_(mask)
        self.x[:, :batch, :time].copy_(x)
        self.h[:, :batch].copy_(h)
        self.c[:, :batch].copy_(c)
        outputs, last_h, last_c = self.replay()
        outputs, last_h = outputs[:, :batch, :time].clone(), last_h[:, :batch].clone()
        return outputs, last_h, last_c[:, :batch].to(c.dtype, copy=True)


# ---- what is captured


def read_layer(x: Tensor, mask: Tensor, h: Tensor, c: Tensor, weights: Weights, clips: Clips) -> Found:
    """As `modeling_elmo.lstm`, without ever waiting for what a tensor holds: every step reads every row."""
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
    """Steps that read each row's words first and its padding after them, when nobody looks any more."""
    _, batch, time = mask.shape
    order = mask.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)
    row_starts = torch.arange(0, batch * time, time, device=mask.device)
    places = (order + row_starts[:, None]).transpose(1, 2).flatten(1)
    return Steps([batch] * time, list(range(0, batch * time, batch)), batch, time, None, places)


def _last(states: Tensor, first: Tensor, lengths: Tensor) -> Tensor:
    """states (2, time * batch, dim), first (2, batch, dim), lengths (2, batch) -> (2, batch, dim)"""
    by_step = states.unflatten(1, (-1, first.shape[1]))
    step = (lengths - 1).clamp(min=0)[:, None, :, None].expand(-1, -1, -1, first.shape[-1])
    return torch.where(lengths[..., None] > 0, by_step.gather(1, step)[:, 0], first)


# ---- CUDA's capture

# All graphs of a device share one memory: each overwrites what the others no longer need.
_alive: WeakKeyDictionary[torch.cuda.CUDAGraph, torch.device] = WeakKeyDictionary()


def capture(work: Callable[..., Found], inputs: Sequence[Tensor]) -> Replay:
    """A `Capture`: the work is done a few times as usual, since a first time makes things that last (Triton
    compiles, cuBLAS takes memory), and then told to a graph."""
    device = inputs[0].device
    graph, stream = torch.cuda.CUDAGraph(), _stream(device)
    with torch.cuda.device(device):
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                work(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        pool = next((other.pool() for other, place in _alive.items() if place == device), None)
        # Other threads may go on meanwhile: a data loader's ask for memory would otherwise end the capture.
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            outputs = work(*inputs)
    _alive[graph] = device

    def replay() -> Found:
        graph.replay()
        return outputs

    return replay


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Always the same: what one stream has freed, another does not get."""
    return torch.cuda.Stream(device)
