"""A layer's graph equals the readable LSTM on any shape, in any order of calls, and after weights changed.

`FakeCapture` imitates CUDA on the CPU.
"""

import gc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from elmo_hf.kernels import graphs
from elmo_hf.kernels.cell import LstmWeights
from tests.helpers.fake_cuda_graphs import FakeCapture, assert_same, make_call, make_weights, read


@pytest.fixture(autouse=True)
def capture(monkeypatch):
    capture = FakeCapture()
    monkeypatch.setattr(graphs, "capture", capture)
    return capture


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
def test_any_shape_equals_the_readable_lstm(sizes, shape, clips, seed):
    """Several sizes in turn, so that each call runs on what the one before has left in memory."""
    weights = make_weights(*shape, seed=seed)
    for number, (batch, time, words) in enumerate([*sizes, *sizes]):
        assert_same(weights, make_call(weights, batch, time, words, seed + number), clips)


def test_unwritten_memory_is_not_read(nan_in_empty_tensors):
    weights = make_weights()
    for seed in range(3):
        assert_same(weights, make_call(weights, seed=seed))


def test_padding_is_not_read():
    weights = make_weights()
    x, *states = make_call(weights, batch=3, time=5)
    mask = states[0]
    clean = read(weights, (x, *states))
    read(
        weights,
        (torch.full_like(x[:, :, :1].expand(-1, -1, 8, -1), float("nan")), *make_call(weights, time=8)[1:]),
    )
    dirty = read(weights, (x.masked_fill(~mask[..., None], float("nan")), *states))
    torch.testing.assert_close(dirty, clean, rtol=0, atol=0)
    assert (dirty[0][~mask] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("output", [4, None])
def test_other_types(dtype, output):
    weights = make_weights(output=output, dtype=dtype)
    tolerance = 1e-11 if dtype == torch.float64 else 0.05
    assert_same(weights, make_call(weights), tolerance=tolerance)


def test_cells_are_kept_in_float32_when_all_else_is_half():
    """A cell grows even where one step adds less than half precision resolves."""
    weights = make_weights(dtype=torch.bfloat16)
    with torch.no_grad():
        for weight in weights:
            weight.zero_()
        gates = weights[2].view(2, 4, 5)
        gates[:, 2], gates[:, 1], gates[:, 0] = 100.0, 100.0, -6.0  # c + sigmoid(-6) = c + 0.0025 a step
    x, mask, h, c = make_call(weights, time=128, words=1.0)
    _, _, last = read(weights, (x, mask | True, h, c * 0 + 4), clips=(None, None))
    torch.testing.assert_close(last.float(), torch.full_like(last, 4.3165).float(), rtol=0, atol=0.02)


def test_no_step_reads_a_tensor_back():
    """Tensors of the device "meta" have shapes and no numbers: to ask for one is an error."""
    weights = make_weights(device="meta")
    call = [tensor.to("meta") for tensor in make_call(make_weights())]
    with torch.no_grad():
        outputs, h, c = graphs.read_layer(*call, LstmWeights(*weights), (0.4, 0.3))
    assert [tuple(result.shape) for result in (outputs, h, c)] == [(2, 3, 5, 4), (2, 3, 4), (2, 3, 5)]


def test_results_and_inputs_belong_to_the_caller():
    weights = make_weights()
    call, other_call = make_call(weights, seed=1), make_call(weights, seed=2)
    before = [tensor.clone() for tensor in call]
    first = read(weights, call)
    expected = tuple(result.clone() for result in first)
    for result in read(weights, other_call):
        result.fill_(7.0)
    torch.testing.assert_close(first, expected, rtol=0, atol=0)
    for result in first:
        result.fill_(7.0)
    torch.testing.assert_close(read(weights, call), expected, rtol=0, atol=0)
    assert all(torch.equal(tensor, was) for tensor, was in zip(call, before, strict=True))


def test_states_that_are_not_contiguous():
    weights = make_weights()
    x, mask, h, c = make_call(weights)
    h, c = h[:, :1].expand(-1, 3, -1), c.transpose(1, 2).contiguous().transpose(1, 2)
    assert_same(weights, (x.transpose(1, 2).contiguous().transpose(1, 2), mask, h, c))


@pytest.mark.parametrize(
    "modes", [(torch.inference_mode, torch.no_grad), (torch.no_grad, torch.inference_mode)]
)
def test_a_graph_serves_inference_mode_and_no_grad(modes, capture):
    weights = make_weights()
    for mode in (*modes, *modes):
        with mode():
            call = make_call(weights)
            assert_same(weights, call)
    assert capture.captures == 1


# ---- which graph


def test_sizes_are_rounded_up():
    assert [graphs._round_up(batch, 1)[0] for batch in (1, 2, 3, 5, 16, 17, 32)] == [1, 2, 4, 8, 16, 32, 32]
    times = [graphs._round_up(1, time)[1] for time in (1, 2, 8, 9, 22, 33, 49, 65, 97, 128)]
    assert times == [1, 8, 8, 16, 24, 48, 64, 96, 128, 128]


def test_a_graph_is_made_at_the_second_call_of_its_size(capture):
    weights = make_weights()
    with torch.no_grad(), pytest.raises(graphs.NoGraph, match="first time"):
        graphs.lstm(*make_call(weights, batch=3, time=5), *weights, None, None)
    assert (capture.captures, capture.replays) == (0, 0)
    for number, (batch, time) in enumerate([(4, 8), (3, 2), (3, 5)]):  # all are four rows of eight words
        graphs.lstm(*make_call(weights, batch, time), *weights, None, None)
        assert (capture.captures, capture.replays) == (1, number + 1)
    with torch.no_grad(), pytest.raises(graphs.NoGraph, match="first time"):
        graphs.lstm(*make_call(weights, batch=5, time=5), *weights, None, None)


def test_other_clips_are_other_graphs(capture):
    weights = make_weights()
    for captures, clips in enumerate([(None, None), (0.4, None), (0.4, 0.3), (0.1, 0.3)]):
        assert_same(weights, make_call(weights), clips)
        assert capture.captures == captures + 1
    assert_same(weights, make_call(weights), (None, None))
    assert capture.captures == 4


def test_another_rounding_of_products_is_another_graph(capture):
    weights, before = make_weights(), torch.backends.cuda.matmul.fp32_precision
    read(weights, make_call(weights))
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        read(weights, make_call(weights))
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
    assert capture.captures == 2


def test_without_a_projection_its_clip_is_ignored(capture):
    weights = make_weights(output=None)
    for clips in ((0.4, None), (0.4, 0.1)):
        assert_same(weights, make_call(weights), clips)
    assert capture.captures == 1


def test_the_least_recently_used_graph_is_dropped(capture, monkeypatch):
    monkeypatch.setattr(graphs, "MAX_GRAPHS", 2)
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
        assert capture.captures == captures


# ---- weights that change


def test_weights_changed_in_place_are_seen_without_a_new_graph(capture):
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
    assert capture.captures == 1


@pytest.mark.parametrize("number", range(4))
def test_weights_at_another_address_get_new_graphs(number, capture):
    """Any of the four weights, changed through `.data`, as `.to` does it, or replaced by another tensor."""
    weights = make_weights()
    read(weights, make_call(weights))
    weights[number].data = weights[number].detach() * 0.5
    assert_same(weights, make_call(weights))
    assert capture.captures == 2
    weights[number] = nn.Parameter(weights[number].detach() * 0.5)
    assert_same(weights, make_call(weights))
    assert capture.captures == 3


def test_other_strides_at_the_same_address_are_another_weight():
    weights = make_weights(width=4, cells=1, output=4)
    read(weights, make_call(weights))
    square = weights[0].detach()
    weights[0].data = square.mT  # as large, and at the same place
    assert weights[0].data_ptr() == square.data_ptr()
    assert_same(weights, make_call(weights))


def test_graphs_are_freed_with_their_weights(capture):
    weights = make_weights()
    read(weights, make_call(weights))
    [work] = capture.works
    gc.collect()
    assert work() is not None
    del weights
    gc.collect()
    assert work() is None
