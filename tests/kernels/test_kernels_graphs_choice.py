"""Where a layer's graph is used and where not, in whole models too, and what is asked of CUDA for it.

What CUDA does is played here on the CPU by `Recorder`. The last tests need a GPU.
"""

import contextlib
import gc
import threading
import weakref

import pytest
import torch

from elmo_hf import ElmoConfig, ElmoModel, ElmoTokenizer, kernels
from elmo_hf.kernels import cell as cuda_cell
from elmo_hf.kernels import graphs
from tests.helpers.graph_recorder import Recorder, assert_same, make_call, make_weights, read

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


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
