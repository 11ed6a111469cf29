"""The LSTM for training equals the readable LSTM: numbers and gradients, also under autocast.

The gradients of all inputs are compared, of a loss that reads all three results. Memory that is handed out
without a value is filled with NaN, so that reading it before it is written shows.
"""

from unittest import mock

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from elmo_hf.kernels import products, training, training_cpu
from elmo_hf.model.modeling_elmo import lstm

pytestmark = pytest.mark.usefixtures("nan_in_empty_tensors")

NAMES = ["x", "h", "c", "input_weight", "recurrent_weight", "bias", "projection"]


TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-5}


sizes = st.fixed_dictionaries(
    {
        "batch": st.integers(0, 5),
        "time": st.integers(0, 6),
        "width": st.integers(1, 7),
        "cells": st.integers(1, 9),
        "output": st.one_of(st.none(), st.integers(1, 6)),  # None: no projection
        "padding": st.sampled_from(["none", "right", "mirrored", "any", "all"]),
        "seed": st.integers(0, 2**16),
    }
)


clips = st.sampled_from([None, 0.1, 0.4, 100.0])


def lstm_for_cpus(*arguments):
    """`training.lstm` as it runs on a CPU where steps are long."""
    with mock.patch.object(training, "SHORT_STEP", -1):
        return training.lstm(*arguments)


def lstm_for_gpus(*arguments):
    """`training.lstm` as it runs on a GPU, and on a CPU where steps are short."""
    with mock.patch.object(training, "SHORT_STEP", 2**30):
        return training.lstm(*arguments)


LAYERS = pytest.mark.parametrize("function", [lstm_for_cpus, lstm_for_gpus])


MODULES = pytest.mark.parametrize(
    ("function", "module"), [(lstm_for_cpus, training_cpu), (lstm_for_gpus, training)]
)


def masks(batch, time, padding, generator):
    """(2, batch, time)"""
    if padding == "none":
        return torch.ones(2, batch, time, dtype=torch.bool)
    if padding == "all":
        return torch.zeros(2, batch, time, dtype=torch.bool)
    mask = torch.rand(2, batch, time, generator=generator) < 0.6  # holes, empty rows, unequal directions
    if padding == "any":
        return mask
    if padding == "right":
        mask[0] = torch.arange(time) < torch.randint(0, time + 1, (batch, 1), generator=generator)
    return torch.stack([mask[0], mask[0].flip(1)])


def make(batch=4, time=5, width=3, cells=6, output=4, padding="none", seed=0, dtype=torch.float32, scale=1.0):
    """x, mask, h, c and the weights"""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return (torch.randn(shape, generator=generator, dtype=torch.float64) * scale).to(dtype)

    mask = masks(batch, time, padding, generator)
    h_size = cells if output is None else output
    state = random(2, batch, h_size), random(2, batch, cells)
    weights = random(2, width, 4 * cells), random(2, h_size, 4 * cells), random(2, 4 * cells)
    projection = None if output is None else random(2, cells, output)
    return [random(2, batch, time, width), mask, *state, *weights, projection]


def results(function, tensors, limits, needed=NAMES, autocast=False):
    """Outputs, last h and c, and the gradients of the inputs that are needed."""
    mask, others = tensors[1], [tensors[0], *tensors[2:]]
    leaves = [None if tensor is None else tensor.detach().requires_grad_(False) for tensor in others]
    learning = [n for n, leaf in enumerate(leaves) if leaf is not None and NAMES[n] in needed]
    for n in learning:
        leaves[n].requires_grad_()
    with torch.autocast(mask.device.type, torch.bfloat16, enabled=autocast):
        outputs = function(leaves[0], mask, *leaves[1:], *limits)
    # Each number of a result has another weight, so that exchanging two of them changes the loss.
    loss = sum((o.double() * torch.linspace(1, 2, o.numel()).view(o.shape).to(o)).sum() for o in outputs)
    gradients = [torch.zeros_like(leaves[n]) for n in learning]
    if loss.requires_grad:
        computed = torch.autograd.grad(loss, [leaves[n] for n in learning], allow_unused=True)
        gradients = [zero if g is None else g for g, zero in zip(computed, gradients, strict=True)]
    names = ["outputs", "last h", "last c", *(NAMES[n] for n in learning)]
    return dict(zip(names, [*(output.detach() for output in outputs), *gradients], strict=True))


def assert_same(tensors, limits, needed=NAMES, autocast=False, function=training.lstm):
    expected = results(lstm, tensors, limits, needed, autocast)
    actual = results(function, tensors, limits, needed, autocast)
    assert actual.keys() == expected.keys()
    for name, want in expected.items():
        assert actual[name].dtype == want.dtype, name
        size = max(1.0, want.abs().max().item()) if want.numel() else 1.0
        torch.testing.assert_close(
            actual[name] / size,
            want / size,
            rtol=0,
            atol=TOLERANCE[want.dtype],
            msg=lambda text, name=name: f"{name}: {text}",
        )
    return expected


@LAYERS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=150, deadline=None)
@given(size=sizes, cell_clip=clips, proj_clip=clips)
@example(
    size={"batch": 3, "time": 4, "width": 3, "cells": 5, "output": 4, "padding": "any", "seed": 1},
    cell_clip=0.1,
    proj_clip=0.4,
)
def test_any_shape_equals_the_readable_lstm(function, dtype, size, cell_clip, proj_clip):
    """In float32 with smaller weights: with large ones gradients grow from step to step, and the readable
    LSTM's own error grows beyond 1e-5."""
    scale = 0.5 if dtype == torch.float32 else 1.0
    assert_same(make(**size, dtype=dtype, scale=scale), (cell_clip, proj_clip), function=function)


@LAYERS
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("padding", ["none", "right", "mirrored", "any", "all"])
def test_a_larger_batch_with_both_clips_at_work(function, padding, threads):
    torch.set_num_threads(threads)
    try:
        tensors = make(17, 9, 13, 70, 21, padding=padding, dtype=torch.float64)
        actual = assert_same(tensors, (0.5, 0.25), function=function)
        if padding != "all":
            outputs = actual["outputs"].abs()
            assert 0.05 < (outputs == 0.25).double().mean() < 0.95
            assert 0.05 < (actual["last c"].abs() == 0.5).double().mean() < 0.95
        tensors = [t if t.dtype == torch.bool else t.float() / 4 for t in tensors]
        assert_same(tensors, (0.5, 0.25), function=function)
    finally:
        torch.set_num_threads(1)


@LAYERS
@pytest.mark.parametrize("output", [3, None])
@pytest.mark.parametrize("padding", ["none", "right", "any"])
def test_gradients_equal_finite_differences(function, output, padding):
    x, mask, *others = make(2, 3, 2, 3, output, padding=padding, dtype=torch.float64, scale=0.5)
    leaves = [tensor.requires_grad_() for tensor in (x, *others) if tensor is not None]

    def of_leaves(x, *others):
        others = others if output else (*others, None)
        return function(x, mask, *others, 0.3, 0.2)

    assert torch.autograd.gradcheck(of_leaves, leaves)


@LAYERS
def test_a_value_at_the_limit_of_a_clip_passes_its_gradient(function):
    """Saturated gates keep a cell of exactly the limit as it is: raw = 1 * limit + 0. And a large cell gives
    exactly 1, which half the identity projects to exactly 0.5: without rounding on any platform."""
    edge = torch.tensor(0.5, requires_grad=True)
    edge.clamp(-0.5, 0.5).backward()
    if edge.grad == 0:
        pytest.skip("this PyTorch (2.15 does) cuts the gradient at the limit, so the readable LSTM differs")
    x, mask, h, c, *weights, projection = make(2, 3, 2, 3, 3, dtype=torch.float64)
    x, h, weights = x * 0, h * 0, [weight * 0 for weight in weights]
    weights[2].view(2, 4, 3)[:, 2:] = 100.0  # forget and output gates are 1
    projection = torch.eye(3, dtype=torch.float64).expand(2, 3, 3) * 0.5
    actual = assert_same([x, mask, h, c.sign() * 0.5, *weights, projection], (0.5, None), function=function)
    assert (actual["c"] != 0).all()
    actual = assert_same([x, mask, h, c.sign() * 40, *weights, projection], (None, 0.5), function=function)
    assert (actual["outputs"].abs().max() == 0.5).all()
    assert (actual["projection"] != 0).any()


@LAYERS
@pytest.mark.parametrize("needed", [[name] for name in NAMES] + [["x", "bias"], ["h", "projection"]])
@pytest.mark.parametrize("output", [4, None])
def test_only_required_tensors_get_a_gradient(function, needed, output):
    if needed != ["projection"] or output:
        assert_same(make(output=output, padding="right"), (0.4, 0.2), needed=needed, function=function)
    wants = [name in needed for name in NAMES]
    tensors = make(output=output)
    leaves = tensors[:1] + tensors[2:]
    for leaf, want in zip(leaves, wants, strict=True):
        if leaf is not None:
            leaf.requires_grad_(want)
    outputs, *_ = function(*tensors, None, None)
    if outputs.requires_grad:
        outputs.sum().backward()
    for leaf, want in zip(leaves, wants, strict=True):
        assert leaf is None or (leaf.grad is not None) == want


@MODULES
@pytest.mark.parametrize(("needed", "number"), [("c", 0), ("bias", 0), ("x", 1), ("input_weight", 1)])
def test_products_that_are_not_needed_are_not_made(function, module, needed, number, monkeypatch):
    tensors = dict(zip(["x", "mask", *NAMES[1:]], make(time=5), strict=True))
    tensors[needed].requires_grad_()
    outputs, *_ = function(*tensors.values(), None, None)
    calls, product = [], module.product
    monkeypatch.setattr(module, "product", lambda *a: calls.append(a) or product(*a))
    outputs.sum().backward()
    directions = 2 if module is training_cpu else 1  # that are read one after the other
    assert len(calls) == directions * (2 * 5 + number)  # two of each step


def test_without_gradients_nothing_is_kept():
    with torch.no_grad():
        actual = training.lstm(*make(), 1.0, 1.0)
    assert not any(result.requires_grad for result in actual)


@LAYERS
@pytest.mark.parametrize("padding", ["none", "right"])
def test_tensors_with_gaps(function, padding):
    def spread(tensor):
        if tensor.dtype == torch.bool or tensor.dim() < 3:
            return tensor
        wide = tensor.new_zeros(*tensor.shape[:-1], 2 * tensor.shape[-1])
        wide[..., ::2] = tensor
        turned = wide[..., ::2].transpose(1, 2).contiguous().transpose(1, 2)
        return turned if tensor.dim() == 3 else wide[..., ::2]

    tensors = [spread(tensor) for tensor in make(padding=padding)]
    assert not tensors[0].is_contiguous()
    assert not tensors[5].is_contiguous()
    assert_same(tensors, (0.4, 0.2), function=function)


@LAYERS
@pytest.mark.parametrize("shape", [(4, 5), (1, 5), (4, 1), (1, 1)])
@pytest.mark.parametrize("output", [4, None])
def test_results_and_inputs_may_be_changed_by_the_caller(function, shape, output):
    """The inputs are not written to, and the results are not what the backward pass reads."""
    tensors = make(*shape, output=output)
    x = tensors[0].requires_grad_()
    before = [None if tensor is None else tensor.clone() for tensor in tensors]
    outputs, h, c = function(*tensors, None, None)
    (want,) = torch.autograd.grad(outputs.sum(), x, retain_graph=True)
    loss = outputs.sum()
    with torch.no_grad():
        for result in (outputs, h, c):
            result.fill_(7.0)
    for _ in range(2):
        (again,) = torch.autograd.grad(loss, x, retain_graph=True)
        torch.testing.assert_close(again, want, rtol=0, atol=0)
    for tensor, was in zip(tensors, before, strict=True):
        assert tensor is None or torch.equal(tensor, was)


@LAYERS
@pytest.mark.parametrize("padding", ["none", "right"])
@pytest.mark.parametrize("output", [4, None])
def test_incoming_gradients_are_not_written_to(function, padding, output):
    x, mask, *others = make(padding=padding, output=output)
    actual = function(x.requires_grad_(), mask, *others, 0.4, 0.2)
    gradients = [torch.ones_like(result) for result in actual]
    torch.autograd.grad(actual, x, gradients)
    assert all((gradient == 1).all() for gradient in gradients)


@LAYERS
def test_a_second_derivative_is_refused(function):
    tensors = make()
    tensors[0].requires_grad_()
    outputs, *_ = function(*tensors, None, None)
    with pytest.raises(
        RuntimeError, match=r"no derivative here .*use\('readable'\)"
    ):  # also of a linear score
        torch.autograd.grad(outputs.sum(), tensors[0], create_graph=True)


def assert_close_in_norm(tensors, autocast, function):
    """In half precision a clip cuts other values now and then, and then a gradient differs."""
    for limits, most in (((100.0, 100.0), 0.03), ((0.4, 0.3), 0.2)):
        expected = results(lstm, tensors, limits, autocast=autocast)
        actual = results(function, tensors, limits, autocast=autocast)
        for name, want in expected.items():
            assert actual[name].dtype == want.dtype, name
            error = (actual[name].double() - want.double()).norm() / want.double().norm()
            assert error < (0.02 if name in ("outputs", "last h", "last c") else most), (name, limits)


@LAYERS
@pytest.mark.parametrize("padding", ["none", "right", "any"])
@pytest.mark.parametrize("output", [5, None])
def test_half_precision_stays_close(function, padding, output):
    tensors = make(5, 6, 8, 16, output, padding=padding, dtype=torch.bfloat16, scale=0.3)
    assert_close_in_norm(tensors, False, function)


@LAYERS
@pytest.mark.parametrize("padding", ["none", "right", "any"])
@pytest.mark.parametrize("output", [5, None])
def test_under_autocast_types_are_those_of_the_readable_lstm(function, padding, output):
    tensors = make(5, 6, 8, 16, output, padding=padding, scale=0.3)
    assert_close_in_norm(tensors, True, function)
    doubles = make(5, 6, 8, 16, output, padding=padding, dtype=torch.float64)
    assert_same(doubles, (0.4, 0.3), autocast=True, function=function)


def test_backward_inside_of_autocast():
    tensors = make(scale=0.3)
    tensors[0].requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        training.lstm(*tensors, 0.4, 0.3)[0].float().sum().backward()
    assert tensors[0].grad.isfinite().all()


def test_a_bias_keeps_its_digits_under_autocast():
    """It is added in float32: the cell's input gate is open by 1e-5 more than bfloat16 can say."""
    x, mask, h, c, *weights, projection = make(3, 5, 2, 4, None, scale=0.0)
    weights[2] = torch.full_like(weights[2], 1 + 2**-10)
    with torch.autocast("cpu", torch.bfloat16):
        _, _, actual = lstm_for_cpus(x, mask, h, c, *weights, projection, None, None)
    _, _, expected = lstm(
        *(
            t.double() if t is not None and t.is_floating_point() else t
            for t in (x, mask, h, c, *weights, projection)
        ),
        None,
        None,
    )
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=1e-6)


@LAYERS
def test_a_backward_pass_inside_of_autocast_equals_one_outside(function):
    tensors = make()
    leaves = [tensor.requires_grad_() for tensor in tensors if tensor.dtype == torch.float32]
    outputs = function(*tensors, 0.4, 0.3)[0].square().sum()
    expected = torch.autograd.grad(outputs, leaves, retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        actual = torch.autograd.grad(outputs, leaves)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@LAYERS
def test_cells_are_kept_in_float32_when_all_else_is_half(function):
    """A cell grows even where one step adds less than half precision resolves."""
    x, mask, h, c, *weights, projection = make(1, 200, 2, 3, 3, dtype=torch.bfloat16)
    x, h, c, weights = x * 0, h * 0, c * 0 + 4, [weight * 0 for weight in weights]
    bias = weights[2].view(2, 4, 3)
    bias[:, 2], bias[:, 1], bias[:, 0] = 100.0, 100.0, -6.0  # c + sigmoid(-6) = c + 0.0025 at each step
    _, _, last = function(x, mask, h, c, *weights, projection, None, None)
    torch.testing.assert_close(last.float(), torch.full((2, 1, 3), 4.4945), rtol=0, atol=0.02)


@MODULES
def test_padding_is_neither_read_nor_computed(function, module, monkeypatch):
    """The products have as many rows as words, and NaN at padding changes nothing."""
    rows = []
    product = module.product
    monkeypatch.setattr(module, "product", lambda x, *a: rows.append(x.shape[-2]) or product(x, *a))
    x, mask, *others = make(5, 6, padding="right", seed=3)
    clean = function(x, mask, *others, 0.4, 0.2)
    assert rows[0] == mask[0].sum() < mask[0].numel()
    dirty = function(x.masked_fill(~mask[..., None], float("nan")), mask, *others, 0.4, 0.2)
    torch.testing.assert_close(dirty, clean, rtol=0, atol=0)


@pytest.mark.parametrize("padding", ["none", "any"])
def test_memory_is_used_again(padding, monkeypatch):
    """Several autograd graphs at a time, whose memory comes from graphs that are freed."""
    monkeypatch.setattr(training_cpu, "LARGE", 1)
    monkeypatch.setattr(training_cpu, "_free", [])
    cases = [make(4, 5, padding=padding, seed=seed) for seed in range(3)]
    expected = [results(lstm, case, (0.4, 0.2)) for case in cases]
    for _ in range(3):
        leaves = [case[0].detach().requires_grad_() for case in cases]
        graphs = [lstm_for_cpus(leaf, *case[1:], 0.4, 0.2) for leaf, case in zip(leaves, cases, strict=True)]
        for leaf, graph, want in zip(leaves, graphs, expected, strict=True):
            weights = [torch.linspace(1, 2, result.numel()).view(result.shape) for result in graph]
            (actual,) = torch.autograd.grad(graph, leaf, weights)
            torch.testing.assert_close(actual, want["x"], rtol=0, atol=1e-5)
        del graphs, graph
    assert bool(training_cpu._free) == training_cpu.CAN_RECYCLE
    assert len(training_cpu._free) <= 3 * 6 + 1  # what three graphs keep, and one backward pass needs


@pytest.mark.skipif(not training_cpu.CAN_RECYCLE, reason="this system's memory is not recycled")
def test_memory_has_one_user_at_a_time(monkeypatch):
    monkeypatch.setattr(training_cpu, "LARGE", 8)
    monkeypatch.setattr(training_cpu, "_free", [])
    x = torch.ones(1, dtype=torch.float64)
    first, second = training_cpu.recycled_empty(x, 3, 5).fill_(1), training_cpu.recycled_empty(x, 15).fill_(2)
    assert first.shape == (3, 5)
    assert (first.dtype, first.sum()) == (torch.float64, 15)
    row = first[1]
    del first
    assert not training_cpu._free  # the row still reads it
    del row
    assert [len(block) for block in training_cpu._free] == [120]
    third = training_cpu.recycled_empty(x, 2, 7).fill_(3)  # a little less
    assert not training_cpu._free
    assert second.sum() == 30
    del second, third
    training_cpu.recycled_empty(x, 16)  # a little more: in place of one of them
    assert sorted(len(block) for block in training_cpu._free) == [120, 128]
    training_cpu.recycled_empty(x, 4)  # much less
    assert sorted(len(block) for block in training_cpu._free) == [32, 120, 128]


def test_without_onednn(monkeypatch):
    monkeypatch.setattr(products, "uses_onednn", lambda x, weight: False)
    for padding in ("none", "any"):
        assert_same(make(padding=padding), (0.4, 0.2), function=lstm_for_cpus)


@pytest.mark.parametrize(
    ("batch", "dtype"), [(1, torch.float64), (40, torch.float64), (40, torch.bfloat16), (40, torch.float16)]
)
def test_long_steps_use_the_layer_for_cpus(batch, dtype):
    x, *others = make(batch, 2, 2, 500, 2, dtype=dtype)
    outputs, *_ = training.lstm(x.requires_grad_(), *others, None, None)
    uses_cpu_layer = "CpuLayer" in str(
        [node for node, _ in outputs.grad_fn.next_functions] + [outputs.grad_fn]
    )
    assert uses_cpu_layer == (batch == 40 and dtype != torch.float16)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("padding", ["none", "right", "any"])
@pytest.mark.parametrize("output", [5, None])
def test_a_gpu_equals_the_readable_lstm(padding, output):
    tensors = make(5, 6, 8, 16, output, padding=padding, dtype=torch.float64)
    expected = results(lstm, tensors, (0.4, 0.3))
    actual = results(training.lstm, [None if t is None else t.cuda() for t in tensors], (0.4, 0.3))
    for name, want in expected.items():
        torch.testing.assert_close(actual[name].cpu(), want, rtol=1e-11, atol=1e-11)


def layer_tensors():
    torch.manual_seed(0)
    shapes = [(2, 3, 5, 4), (2, 3, 4), (2, 3, 6), (2, 4, 24), (2, 4, 24), (2, 24), (2, 6, 4)]
    x, *others = (torch.randn(shape).mul_(0.5).requires_grad_() for shape in shapes)
    return x, torch.rand(2, 3, 5) < 0.7, *others


def forward_and_backward(function, autocast_forward, autocast_backward):
    """Results and gradients of all inputs."""
    tensors = layer_tensors()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast_forward):
        results = function(*tensors, 0.4, 0.3)
    loss = sum(result.float().square().sum() for result in results)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast_backward):
        return *results, *torch.autograd.grad(loss, [leaf for leaf in tensors if leaf.requires_grad])


@pytest.mark.parametrize(("forward", "backward"), [(True, False), (True, True), (False, True)])
def test_types_and_numbers_under_autocast(forward, backward):
    expected = forward_and_backward(lstm, forward, backward)
    actual = forward_and_backward(training.lstm, forward, backward)
    assert [result.dtype for result in actual] == [result.dtype for result in expected]
    for result, want in zip(actual, expected, strict=True):
        assert (result - want).norm() < 0.03 * want.norm()


@pytest.mark.parametrize("forward", [True, False])
def test_autocast_is_off_inside_of_the_layer(forward, monkeypatch):
    """The layer chooses types before its loops. Autocast ignores the operators with `out=` that it uses
    today, but would cast inside of others."""
    is_enabled, product = [], training.product

    def record(*arguments):
        is_enabled.append(torch.is_autocast_enabled("cpu"))
        return product(*arguments)

    monkeypatch.setattr(training, "product", record)
    forward_and_backward(training.lstm, forward, True)
    assert len(is_enabled) > 10
    assert not any(is_enabled)


def test_a_backward_pass_inside_of_autocast_with_another_operator(monkeypatch):
    """With products by an operator that autocast casts to bfloat16."""

    def product(x, weight, out, bias=None):
        return out.copy_(x @ weight if bias is None else x @ weight + bias[:, None])

    monkeypatch.setattr(training, "product", product)
    outside, inside = (forward_and_backward(training.lstm, False, autocast) for autocast in (False, True))
    torch.testing.assert_close(inside, outside, rtol=0, atol=0)
