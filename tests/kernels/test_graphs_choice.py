"""When a layer's graph is used, also in whole models, and how it is captured.

`FakeCapture` imitates CUDA on the CPU. The last tests need a GPU.
"""

import contextlib
import gc
import threading
import weakref

import pytest
import torch

from elmo_hf import kernels
from elmo_hf.kernels import cell, graphs
from tests.helpers.fake_cuda_graphs import FakeCapture, assert_same, make_call, make_weights, read
from tests.helpers.small_elmo import encoded_texts, small_model

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.fixture(autouse=True)
def capture(monkeypatch):
    capture = FakeCapture()
    monkeypatch.setattr(graphs, "capture", capture)
    return capture


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Code is chosen as on a GPU."""
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(cell, "HAS_TRITON", False)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "default_stream", lambda device: 0)
    monkeypatch.setattr(kernels, "_why_not_reading", lambda *tensors: kernels.NOT_CPU)


# ---- calls without a graph


def why_no_graph(weights, call):
    with pytest.raises(graphs.NoGraph) as reason:
        graphs.lstm(*call, *weights, None, None)
    return str(reason.value)


def test_calls_without_a_graph(as_on_a_gpu, monkeypatch):
    weights = make_weights()
    x, mask, h, c = call = make_call(weights)
    read(weights, call)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert why_no_graph(weights, call) == "autocast is on"
    assert why_no_graph(weights, (x, mask, h, c.clone().requires_grad_())) == "gradients are needed"
    assert why_no_graph(weights, (x, mask, h, c.double())) == "the tensors are not of one type"
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: 1)
    assert why_no_graph(weights, call) == "the work is not on the GPU's default stream"


def test_a_capture_that_fails_is_not_tried_again(capture):
    weights, capture.error = make_weights(), RuntimeError("operation not permitted\nCompile with ...")
    reasons = [why_no_graph(weights, make_call(weights)) for _ in range(3)]
    assert reasons[0] == graphs.FIRST_TIME
    assert set(reasons[1:]) == {"no CUDA graph could be captured: operation not permitted"}
    assert capture.captures == 1


def test_other_errors_are_raised(capture):
    weights, capture.error = make_weights(), TypeError("wrong type")
    why_no_graph(weights, make_call(weights))
    with pytest.raises(TypeError, match="wrong type"):
        graphs.lstm(*make_call(weights), *weights, None, None)


def test_serves(as_on_a_gpu, monkeypatch):
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


def test_threads_take_turns(capture, monkeypatch):
    """A call between the moments when another copies its inputs and its results would change these."""
    weights = make_weights()
    calls = [make_call(weights, seed=seed) for seed in range(4)]
    expected = [read(weights, call) for call in calls]
    start, differs = threading.Barrier(4), []
    inner = graphs.Graph.__call__

    def overwriting(graph, x, mask, h, c):
        results = inner(graph, x, mask, h, c)
        graph.x.fill_(float("nan"))
        return results

    monkeypatch.setattr(graphs.Graph, "__call__", overwriting)

    def read_often(number):
        start.wait()
        for _ in range(30):
            pairs = zip(read(weights, calls[number]), expected[number], strict=True)
            differs.extend(not torch.equal(ours, theirs) for ours, theirs in pairs)

    threads = [threading.Thread(target=read_often, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(differs) == 4 * 30 * 3
    assert not any(differs)


# ---- the choice


@pytest.fixture
def by_choice():
    """Reads with a choice of kernels, and returns `why_not()` with the results."""

    @torch.no_grad()
    def read_with(choice, model, encoding, **options):
        kernels.use(choice)
        return model(**encoding, output_hidden_states=True, **options).to_tuple(), kernels.why_not()

    yield read_with
    kernels.use("auto")


@pytest.mark.parametrize("output_states", [True, False])
def test_a_whole_model(output_states, as_on_a_gpu, by_choice, capture):
    model, encoding = small_model(), encoded_texts()
    expected, _ = by_choice("readable", model, encoding, output_states=output_states)
    reasons = []
    for _ in range(3):
        actual, reason = by_choice("auto", model, encoding, output_states=output_states)
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
        reasons.append(reason)
    assert reasons == [graphs.FIRST_TIME, "", ""]
    # One for each layer where the states are asked for, otherwise one from the letters to the layers.
    assert capture.captures == (2 if output_states else 1)

    model.load_state_dict(small_model(seed=1).state_dict())
    expected, _ = by_choice("readable", model, encoding)
    torch.testing.assert_close(by_choice("auto", model, encoding)[0], expected, atol=1e-5, rtol=1e-5)


def test_a_failed_capture_is_reported_and_the_numbers_are_right(as_on_a_gpu, by_choice, capture):
    capture.error = RuntimeError("out of luck")
    model, encoding = small_model(), encoded_texts()
    expected, _ = by_choice("readable", model, encoding)
    for reason in (graphs.FIRST_TIME, *["no CUDA graph could be captured: out of luck"] * 2):
        actual, why_not = by_choice("auto", model, encoding)
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
        assert why_not == reason


def test_training_and_large_batches_use_no_graph(as_on_a_gpu, capture):
    model, encoding = small_model(), encoded_texts()
    kernels.use("auto")
    for _ in range(3):
        model(**encoding).last_hidden_state.square().sum().backward()
    many = {name: tensor.repeat(9, *[1] * (tensor.dim() - 1)) for name, tensor in encoding.items()}
    with torch.no_grad():
        for _ in range(3):
            model(**many, output_states=True)
            assert kernels.why_not() == ""
    assert capture.captures == 0


@pytest.mark.parametrize("choice", ["readable", "auto"])
def test_states_get_their_gradient_from_a_frozen_model_on_a_cpu(choice):
    model, encoding = small_model(), encoded_texts()
    model.requires_grad_(False)
    kernels.use(choice)
    states = [torch.zeros(2, 2, 4, size, requires_grad=True) for size in (8, 12)]
    model(**encoding, states=states).last_hidden_state.square().sum().backward()
    assert all(state.grad.abs().sum() > 0 for state in states)
    kernels.use("auto")


# ---- CUDA's capture


class FakeCuda:
    """Logs the calls of CUDA that `capture` makes."""

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

        def log_context(name):
            def context(*args, **kwargs):
                fake.log.append((name, kwargs))
                return contextlib.nullcontext()

            return context

        usual, side = Stream("usual"), Stream("side")
        monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: usual)
        monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
        monkeypatch.setattr(torch.cuda, "stream", log_context("stream"))
        monkeypatch.setattr(torch.cuda, "graph", lambda graph, **kwargs: log_context("graph")(**kwargs))
        monkeypatch.setattr(graphs, "_stream", lambda device: side)
        monkeypatch.setattr(graphs, "_alive", weakref.WeakKeyDictionary())


def test_a_capture_is_warmed_up_on_a_side_stream_and_shares_its_memory(monkeypatch):
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
        warm_up = [
            "side waits for usual",
            ("stream", {}),
            *["work"] * graphs.WARM_UPS,
            "usual waits for side",
        ]
        assert cuda.log == [*warm_up, ("graph", options(pool)), "work"]
    cuda.log.clear()
    assert replays[0]() == (x,)
    assert cuda.log == ["replay"]
    replays.clear()
    gc.collect()
    graphs.capture(work, [x])
    assert ("graph", options(None)) in cuda.log  # the memory pool was freed with the last graph


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
    model, encoding = small_model(), encoded_texts()
    model, encoding = model.cuda(), encoding.to("cuda")
    expected, _ = by_choice("readable", model, encoding)
    for reason in (graphs.FIRST_TIME, "", ""):
        actual, why_not = by_choice("auto", model, encoding)
        assert why_not == reason
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    with torch.cuda.stream(torch.cuda.Stream()):
        assert by_choice("auto", model, encoding)[1] == "the work is not on the GPU's default stream"
