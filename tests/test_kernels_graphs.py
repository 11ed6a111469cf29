"""A layer's graph is the readable LSTM, on any shape, in any order of calls, and with the weights of today.

What CUDA does is played here on the CPU by `Recorder`, which keeps CUDA's rules: work is done on the tensors
that were there when it was captured, and results lie in the same place each time. The last tests need a GPU.
"""

import contextlib
import gc
import threading
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from elmo_hf import ElmoConfig, ElmoModel, ElmoTokenizer, kernels
from elmo_hf.kernels import cuda_cell, graphs, training
from elmo_hf.modeling_elmo import lstm

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


class Recorder:
    """A `graphs.Capture` for the CPU."""

    def __init__(self):
        self.captures = self.replays = 0
        self.fault = None
        self.works = []

    def __call__(self, work, inputs):
        self.captures += 1
        self.works.append(weakref.ref(work))
        if self.fault is not None:
            raise self.fault
        results = work(*inputs)

        def replay():
            self.replays += 1
            for place, new in zip(results, work(*inputs), strict=True):
                place.copy_(new)
            return results

        return replay


@pytest.fixture(autouse=True)
def recorder(monkeypatch):
    found = Recorder()
    monkeypatch.setattr(graphs, "capture", found)
    return found


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """The choice of code is that of a GPU."""
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(cuda_cell, "HAS_TRITON", False)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "default_stream", lambda device: 0)
    monkeypatch.setattr(kernels, "_obstacle", lambda *tensors: kernels.NOT_CPU)


def make_weights(width=3, cells=5, output=4, seed=0, dtype=torch.float32, device="cpu"):
    """Random weights; without a projection if `output` is None."""
    generator = torch.Generator().manual_seed(seed)
    rows = cells if output is None else output
    shapes = [(2, width, 4 * cells), (2, rows, 4 * cells), (2, 4 * cells), (2, cells, rows)]
    found = [nn.Parameter(torch.randn(s, generator=generator).to(device, dtype)) for s in shapes]
    return found if output is not None else [*found[:3], None]


def make_call(weights, batch=3, time=5, words=0.7, seed=0):
    """x, mask, h and c that fit the weights."""
    generator = torch.Generator().manual_seed(seed)
    width, rows, cells = weights[0].shape[1], weights[1].shape[1], weights[2].shape[1] // 4
    mask = torch.rand(2, batch, time, generator=generator) < words
    found = [torch.randn(2, batch, n, generator=generator) for n in (time * width, rows, cells)]
    x, h, c = (tensor.to(weights[0]) for tensor in found)
    return x.unflatten(2, (time, width)), mask.to(weights[0].device), h * 0.1, c


@torch.no_grad()
def read(weights, call, clips=(0.4, 0.3)):
    """By a graph, if need be with a first call that only makes its size known."""
    with contextlib.suppress(graphs.NoGraph):
        return graphs.lstm(*call, *weights, *clips)
    return graphs.lstm(*call, *weights, *clips)


def assert_same(weights, call, clips=(0.4, 0.3), tolerance=1e-5):
    with torch.no_grad():
        expected = lstm(*call, *weights, *clips)
    found = read(weights, call, clips)
    assert [part.dtype for part in found] == [part.dtype for part in expected]
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)
    return found


# ---- the numbers

SIZES = st.tuples(st.integers(1, 5), st.integers(1, 10), st.sampled_from([0.0, 0.4, 0.8, 1.0]))
CLIPS = st.sampled_from([None, 0.1, 0.4])


@settings(deadline=None, max_examples=100)
@given(
    sizes=st.lists(SIZES, min_size=1, max_size=4),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 6), st.one_of(st.none(), st.integers(1, 5))),
    clips=st.tuples(CLIPS, CLIPS),
    seed=st.integers(0, 2**16),
)
def test_any_shape_is_as_the_readable_lstm(sizes, shape, clips, seed):
    """Several sizes in turn, so that each call finds what the one before has left."""
    weights = make_weights(*shape, seed=seed)
    for number, (batch, time, words) in enumerate([*sizes, *sizes]):
        assert_same(weights, make_call(weights, batch, time, words, seed + number), clips)


def test_nothing_unwritten_is_read(poisoned):
    weights = make_weights()
    for seed in range(3):
        assert_same(weights, make_call(weights, seed=seed))


def test_whatever_stands_at_padding_is_not_seen():
    weights = make_weights()
    x, *others = make_call(weights, batch=3, time=5)
    mask = others[0]
    clean = read(weights, (x, *others))
    read(
        weights,
        (torch.full_like(x[:, :, :1].expand(-1, -1, 8, -1), float("nan")), *make_call(weights, time=8)[1:]),
    )
    dirty = read(weights, (x.masked_fill(~mask[..., None], float("nan")), *others))
    for one, other in zip(clean, dirty, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert (dirty[0][~mask] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("output", [4, None])
def test_other_types(dtype, output):
    weights = make_weights(output=output, dtype=dtype)
    tolerance = 1e-11 if dtype == torch.float64 else 0.05
    assert_same(weights, make_call(weights), tolerance=tolerance)


def test_cells_are_kept_in_float32_when_all_else_is_half():
    """A cell that grows by less than half precision can see at a time grows nevertheless."""
    weights = make_weights(dtype=torch.bfloat16)
    with torch.no_grad():
        for weight in weights:
            weight.zero_()
        gates = weights[2].view(2, 4, 5)
        gates[:, 2], gates[:, 1], gates[:, 0] = 100.0, 100.0, -6.0  # c + sigmoid(-6) = c + 0.0025 a step
    x, mask, h, c = make_call(weights, time=128, words=1.0)
    _, _, last = read(weights, (x, mask | True, h, c * 0 + 4), clips=(None, None))
    torch.testing.assert_close(last.float(), torch.full_like(last, 4.3165).float(), rtol=0, atol=0.02)


def test_no_step_waits_for_what_a_tensor_holds():
    """Tensors of the device "meta" have shapes and no numbers: to ask for one is an error."""
    weights = make_weights(device="meta")
    call = [tensor.to("meta") for tensor in make_call(make_weights())]
    with torch.no_grad():
        outputs, h, c = graphs.read_layer(*call, training.Weights(*weights), (0.4, 0.3))
    assert [tuple(part.shape) for part in (outputs, h, c)] == [(2, 3, 5, 4), (2, 3, 4), (2, 3, 5)]


def test_results_and_inputs_are_their_owners():
    weights = make_weights()
    call, other = make_call(weights, seed=1), make_call(weights, seed=2)
    before = [tensor.clone() for tensor in call]
    first = read(weights, call)
    kept = [part.clone() for part in first]
    for part in read(weights, other):
        part.fill_(7.0)
    torch.testing.assert_close(first, tuple(kept), rtol=0, atol=0)
    for part in first:
        part.fill_(7.0)
    torch.testing.assert_close(read(weights, call), tuple(kept), rtol=0, atol=0)
    assert all(torch.equal(tensor, was) for tensor, was in zip(call, before, strict=True))


def test_states_with_gaps():
    weights = make_weights()
    x, mask, h, c = make_call(weights)
    h, c = h[:, :1].expand(-1, 3, -1), c.transpose(1, 2).contiguous().transpose(1, 2)
    assert_same(weights, (x.transpose(1, 2).contiguous().transpose(1, 2), mask, h, c))


@pytest.mark.parametrize(
    "modes", [(torch.inference_mode, torch.no_grad), (torch.no_grad, torch.inference_mode)]
)
def test_a_graph_serves_inference_mode_and_no_grad(modes, recorder):
    weights = make_weights()
    for mode in (*modes, *modes):
        with mode():
            call = make_call(weights)
            assert_same(weights, call)
    assert recorder.captures == 1


# ---- which graph


def test_sizes_are_rounded_up():
    assert [graphs._round_up(batch, 1)[0] for batch in (1, 2, 3, 5, 16, 17, 32)] == [1, 2, 4, 8, 16, 32, 32]
    times = [graphs._round_up(1, time)[1] for time in (1, 2, 8, 9, 22, 33, 49, 65, 97, 128)]
    assert times == [1, 8, 8, 16, 24, 48, 64, 96, 128, 128]


def test_a_graph_is_made_at_the_second_call_of_its_size(recorder):
    weights = make_weights()
    with torch.no_grad(), pytest.raises(graphs.NoGraph, match="first time"):
        graphs.lstm(*make_call(weights, batch=3, time=5), *weights, None, None)
    assert (recorder.captures, recorder.replays) == (0, 0)
    for number, (batch, time) in enumerate([(4, 8), (3, 2), (3, 5)]):  # all are four rows of eight words
        graphs.lstm(*make_call(weights, batch, time), *weights, None, None)
        assert (recorder.captures, recorder.replays) == (1, number + 1)
    with torch.no_grad(), pytest.raises(graphs.NoGraph, match="first time"):
        graphs.lstm(*make_call(weights, batch=5, time=5), *weights, None, None)


def test_other_clips_are_other_graphs(recorder):
    weights = make_weights()
    for captures, clips in enumerate([(None, None), (0.4, None), (0.4, 0.3), (0.1, 0.3)]):
        assert_same(weights, make_call(weights), clips)
        assert recorder.captures == captures + 1
    assert_same(weights, make_call(weights), (None, None))
    assert recorder.captures == 4


def test_another_rounding_of_products_is_another_graph(recorder):
    weights, before = make_weights(), torch.backends.cuda.matmul.fp32_precision
    read(weights, make_call(weights))
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        read(weights, make_call(weights))
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
    assert recorder.captures == 2


def test_without_a_projection_its_clip_is_no_matter(recorder):
    weights = make_weights(output=None)
    for clips in ((0.4, None), (0.4, 0.1)):
        assert_same(weights, make_call(weights), clips)
    assert recorder.captures == 1


def test_the_graph_not_used_for_longest_goes(recorder, monkeypatch):
    monkeypatch.setattr(graphs, "MOST_GRAPHS", 2)
    weights = make_weights()
    small, middle, large = (make_call(weights, time=time) for time in (1, 8, 16))
    for call, captures in (
        (small, 1),
        (middle, 2),
        (small, 2),
        (large, 3),
        (small, 3),
        (middle, 4),
        (large, 5),
    ):
        assert_same(weights, call)
        assert recorder.captures == captures


# ---- weights of today


def test_weights_changed_in_place_are_seen_without_a_new_graph(recorder):
    weights = make_weights()
    before = read(weights, make_call(weights))
    with torch.no_grad():
        for weight in weights:
            weight.mul_(0.5)
    assert not torch.equal(assert_same(weights, make_call(weights))[0], before[0])
    optimizer = torch.optim.SGD(weights, lr=0.1)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert_same(weights, make_call(weights))
    assert recorder.captures == 1


@pytest.mark.parametrize("number", range(4))
def test_weights_that_lie_elsewhere_get_new_graphs(number, recorder):
    """Any one of the four: by `.data`, as `.to` does it, or as another tensor."""
    weights = make_weights()
    read(weights, make_call(weights))
    weights[number].data = weights[number].detach() * 0.5
    assert_same(weights, make_call(weights))
    assert recorder.captures == 2
    weights[number] = nn.Parameter(weights[number].detach() * 0.5)
    assert_same(weights, make_call(weights))
    assert recorder.captures == 3


def test_a_new_look_at_the_same_memory_is_another_weight():
    weights = make_weights(width=4, cells=1, output=4)
    read(weights, make_call(weights))
    square = weights[0].detach()
    weights[0].data = square.mT  # as large, and at the same place
    assert weights[0].data_ptr() == square.data_ptr()
    assert_same(weights, make_call(weights))


def test_graphs_go_with_their_weights(recorder):
    weights = make_weights()
    read(weights, make_call(weights))
    [work] = recorder.works
    gc.collect()
    assert work() is not None
    del weights
    gc.collect()
    assert work() is None


# ---- where there is none


def obstacle_of(weights, call):
    with pytest.raises(graphs.NoGraph) as reason:
        graphs.lstm(*call, *weights, None, None)
    return str(reason.value)


def test_obstacles(as_on_a_gpu, monkeypatch):
    weights = make_weights()
    x, mask, h, c = call = make_call(weights)
    read(weights, call)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert obstacle_of(weights, call) == "autocast is on"
    assert obstacle_of(weights, (x, mask, h, c.clone().requires_grad_())) == "gradients are needed"
    assert obstacle_of(weights, (x, mask, h, c.double())) == "the tensors are not of one type"
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: 1)
    assert obstacle_of(weights, call) == "the work is not on the GPU's default stream"


def test_a_capture_that_fails_is_not_tried_again(recorder):
    weights, recorder.fault = make_weights(), RuntimeError("operation not permitted\nCompile with ...")
    reasons = [obstacle_of(weights, make_call(weights)) for _ in range(3)]
    assert reasons[0] == graphs.FIRST_TIME
    assert set(reasons[1:]) == {"no CUDA graph could be captured: operation not permitted"}
    assert recorder.captures == 1


def test_a_fault_of_ours_is_not_hidden(recorder):
    weights, recorder.fault = make_weights(), TypeError("ours")
    obstacle_of(weights, make_call(weights))
    with pytest.raises(TypeError, match="ours"):
        graphs.lstm(*make_call(weights), *weights, None, None)


def test_what_is_served(as_on_a_gpu, monkeypatch):
    weights = make_weights()
    for batch, time, expected in [
        *((1, 1, True), (32, 128, True), (33, 128, False), (32, 129, False)),
        *((0, 5, False), (5, 0, False)),
    ]:
        with torch.no_grad():
            assert graphs.serves(make_call(weights, batch, time)[0], *weights) == expected
    x = make_call(weights)[0]
    assert not graphs.serves(x, *weights)
    for weight in weights:
        weight.requires_grad_(False)
    assert graphs.serves(x, *weights)
    assert not graphs.serves(x.requires_grad_(), *weights)
    monkeypatch.setattr(torch.Tensor, "is_cuda", False)
    with torch.no_grad():
        assert not graphs.serves(x, *weights)


def test_threads_take_turns(recorder, monkeypatch):
    """A call that came between another's copying in and out would spoil it."""
    weights = make_weights()
    calls = [make_call(weights, seed=seed) for seed in range(4)]
    expected = [read(weights, call) for call in calls]
    both, faults = threading.Barrier(4), []
    inner = graphs.Graph.__call__

    def slow(graph, x, mask, h, c):
        found = inner(graph, x, mask, h, c)
        graph.x.fill_(float("nan"))
        return found

    monkeypatch.setattr(graphs.Graph, "__call__", slow)

    def many(number):
        both.wait()
        for _ in range(30):
            found = read(weights, calls[number])
            faults.extend(
                not torch.equal(one, other) for one, other in zip(found, expected[number], strict=True)
            )

    threads = [threading.Thread(target=many, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults
    assert not any(faults)


# ---- the choice

TEXTS = ["Ice cream is cold .", "No", "", "The bank of the river was covered with flowers in May ."]


def model_and_words(seed=0):
    torch.manual_seed(seed)
    config = {"lstm_dim": 12, "projection_dim": 8, "char_embedding_dim": 4, "char_filters": [[1, 4], [5, 6]]}
    encoding = ElmoTokenizer()(TEXTS, padding=True, return_tensors="pt")
    return ElmoModel(ElmoConfig(**config)).eval(), encoding


@pytest.fixture
def by_choice():
    """A model's answer by one of the choices of kernels, and why it was not the quickest."""

    @torch.no_grad()
    def answer(choice, model, encoding, **options):
        kernels.use(choice)
        return model(**encoding, output_hidden_states=True, **options).to_tuple(), kernels.why_not()

    yield answer
    kernels.use("auto")


@pytest.mark.parametrize("output_states", [True, False])
def test_a_whole_model(output_states, as_on_a_gpu, by_choice, recorder):
    model, encoding = model_and_words()
    expected, _ = by_choice("readable", model, encoding, output_states=output_states)
    reasons = []
    for _ in range(3):
        found, reason = by_choice("auto", model, encoding, output_states=output_states)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        reasons.append(reason)
    assert reasons == [graphs.FIRST_TIME, "", ""]
    assert recorder.captures == 2  # a layer each; what follows a sentence's begin is kept and not read again

    model.load_state_dict(model_and_words(seed=1)[0].state_dict())
    expected, _ = by_choice("readable", model, encoding)
    torch.testing.assert_close(by_choice("auto", model, encoding)[0], expected, atol=1e-5, rtol=1e-5)


def test_a_failure_is_told_and_the_numbers_are_right(as_on_a_gpu, by_choice, recorder):
    recorder.fault = RuntimeError("out of luck")
    model, encoding = model_and_words()
    expected, _ = by_choice("readable", model, encoding)
    for reason in (graphs.FIRST_TIME, *["no CUDA graph could be captured: out of luck"] * 2):
        found, told = by_choice("auto", model, encoding)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        assert told == reason


def test_training_and_large_batches_go_without(as_on_a_gpu, recorder):
    model, encoding = model_and_words()
    kernels.use("auto")
    for _ in range(3):
        model(**encoding).last_hidden_state.square().sum().backward()
    many = {name: tensor.repeat(9, *[1] * (tensor.dim() - 1)) for name, tensor in encoding.items()}
    with torch.no_grad():
        for _ in range(3):
            model(**many, output_states=True)
            assert kernels.why_not() == ""
    assert recorder.captures == 0


@pytest.mark.parametrize("choice", ["readable", "auto"])
def test_states_get_their_gradient_from_a_frozen_model_on_a_cpu(choice):
    model, encoding = model_and_words()
    model.requires_grad_(False)
    kernels.use(choice)
    states = [torch.zeros(2, 2, 4, size, requires_grad=True) for size in (8, 12)]
    model(**encoding, states=states).last_hidden_state.square().sum().backward()
    assert all(state.grad.abs().sum() > 0 for state in states)
    kernels.use("auto")


# ---- CUDA's capture


class FakeCuda:
    """Writes down what `capture` asks of CUDA."""

    def __init__(self, monkeypatch):
        self.log = []
        fake = self

        class Graph:
            def replay(self):
                fake.log.append("replay")

            def pool(self):
                return "a pool"

        class Stream:
            def __init__(self, name):
                self.name = name

            def wait_stream(self, other):
                fake.log.append(f"{self.name} waits for {other.name}")

        def told(name):
            def context(*args, **kwargs):
                fake.log.append((name, kwargs))
                return contextlib.nullcontext()

            return context

        usual, side = Stream("usual"), Stream("side")
        monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: usual)
        monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
        monkeypatch.setattr(torch.cuda, "stream", told("stream"))
        monkeypatch.setattr(torch.cuda, "graph", lambda graph, **kwargs: told("graph")(**kwargs))
        monkeypatch.setattr(graphs, "_stream", lambda device: side)
        monkeypatch.setattr(graphs, "_alive", weakref.WeakKeyDictionary())


def test_a_capture_is_warmed_up_beside_and_shares_its_memory(monkeypatch):
    monkeypatch.undo()  # the real `capture`
    cuda = FakeCuda(monkeypatch)

    def work(x):
        cuda.log.append("work")
        return (x,)

    def options(pool):
        return {"pool": pool, "stream": graphs._stream(None), "capture_error_mode": "thread_local"}

    x = torch.ones(1)
    replays = []
    for pool in (None, "a pool"):
        cuda.log.clear()
        replays.append(graphs.capture(work, [x]))
        warm_up = ["side waits for usual", ("stream", {}), *["work"] * graphs.WARM_UP, "usual waits for side"]
        assert cuda.log == [*warm_up, ("graph", options(pool)), "work"]
    cuda.log.clear()
    assert replays[0]() == (x,)
    assert cuda.log == ["replay"]
    replays.clear()
    gc.collect()
    graphs.capture(work, [x])
    assert ("graph", options(None)) in cuda.log  # the memory went with the last graph


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_on_a_gpu(dtype, monkeypatch):
    monkeypatch.undo()  # the real `capture`
    tolerance = {torch.float64: 1e-11, torch.float32: 1e-5, torch.float16: 0.02}[dtype]
    for output in (4, None):
        weights = make_weights(8, 16, output, dtype=dtype, device="cuda")
        for seed, (batch, time) in enumerate([(1, 1), (3, 5), (32, 22), (4, 8), (1, 1), (20, 17)]):
            assert_same(weights, make_call(weights, batch, time, seed=seed), tolerance=tolerance)


@needs_gpu
def test_a_model_on_a_gpu(by_choice, monkeypatch):
    monkeypatch.undo()
    model, encoding = model_and_words()
    model, encoding = model.cuda(), encoding.to("cuda")
    expected, _ = by_choice("readable", model, encoding)
    for reason in (graphs.FIRST_TIME, "", ""):
        found, told = by_choice("auto", model, encoding)
        assert told == reason
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    with torch.cuda.stream(torch.cuda.Stream()):
        assert by_choice("auto", model, encoding)[1] == "the work is not on the GPU's default stream"
