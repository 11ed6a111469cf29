"""Where Triton fails, the plain cell serves, and says so once. And autocast stays outside of our loops."""

import importlib.util
import logging
import os
import subprocess
import sys
import textwrap

import pytest
import torch

from elmo_hf.kernels import cell as cuda_cell
from elmo_hf.kernels import training
from elmo_hf.model.modeling_elmo import lstm

LOGGER = "elmo_hf.kernels.cell"


def cell_tensors(seed=0):
    torch.manual_seed(seed)
    c, raw_c, hidden = torch.randn(2, 3, 5), torch.empty(2, 3, 5), torch.empty(2, 3, 5)
    return torch.randn(2, 3, 20), c, 0.4, raw_c, hidden


def forward_and_back(forward, backward):
    """What a step leaves in its tensors, there and back."""
    gates, c, limit, raw_c, hidden = cell_tensors()
    c_before, d_gates = c.clone(), torch.empty_like(gates)
    forward(gates, c, limit, raw_c, hidden)
    d_hidden, d_c = torch.linspace(-1, 1, 30).view(2, 3, 5), torch.ones(2, 3, 5)
    backward(d_hidden, d_c, gates, c_before, c, raw_c, d_gates, hidden)
    return gates, c, raw_c, hidden, d_gates, d_c


@pytest.fixture
def broken_triton(monkeypatch):
    """A kernel that fails as it is told, on tensors that pass for a GPU's. Counts how often it was tried."""
    tried = []

    def launch(*arguments):
        tried.append(len(arguments))
        raise launch.fault

    monkeypatch.setattr(cuda_cell, "_triton_failed", False)
    monkeypatch.setattr(cuda_cell, "HAS_TRITON", True)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    for name in ("triton_forward", "triton_backward"):
        monkeypatch.setattr(cuda_cell, name, launch)
    launch.tried = tried
    return launch


FAULTS = [
    RuntimeError("Failed to find C compiler. Please specify via CC environment variable.\nMore lines"),
    FileNotFoundError(2, "No such file or directory", "/usr/bin/cc"),
    subprocess.CalledProcessError(1, ["cc", "main.c"]),
    RuntimeError(),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_triton_that_fails_is_tried_once_and_the_numbers_are_right(fault, broken_triton, caplog):
    broken_triton.fault = fault
    expected = forward_and_back(cuda_cell.plain_forward, cuda_cell.plain_backward)
    with caplog.at_level(logging.WARNING, LOGGER):
        for _ in range(2):
            found = forward_and_back(cuda_cell.cell_forward, cuda_cell.cell_backward)
            torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert broken_triton.tried == [5]
    [record] = caplog.records
    said = (str(fault) or "RuntimeError").splitlines()[0]
    assert record.getMessage().endswith(f"slower operations do their work: {said}")
    assert "\n" not in record.getMessage()


def test_triton_that_fails_on_the_way_back_only(broken_triton, monkeypatch, caplog):
    broken_triton.fault = RuntimeError("PassManager::run failed")
    monkeypatch.setattr(cuda_cell, "triton_forward", cuda_cell.plain_forward)
    expected = forward_and_back(cuda_cell.plain_forward, cuda_cell.plain_backward)
    found = forward_and_back(cuda_cell.cell_forward, cuda_cell.cell_backward)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert broken_triton.tried == [8]
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    "fault", [torch.OutOfMemoryError("full"), torch.AcceleratorError("lost"), ValueError("gaps")]
)
def test_other_faults_are_told_as_they_are(fault, broken_triton, caplog):
    broken_triton.fault = fault
    with pytest.raises(type(fault), match=str(fault)):
        cuda_cell.cell_forward(*cell_tensors())
    assert not caplog.records
    assert cuda_cell.uses_triton(torch.ones(1))


REAL = """
    import torch
    from elmo_hf.kernels import cuda_cell

    torch.Tensor.is_cuda = True
    gates, c = torch.zeros(2, 3, 20), torch.ones(2, 3, 5)
    hidden = torch.zeros(2, 3, 5)
    for _ in range(2):
        cuda_cell.cell_forward(gates, c, None, torch.zeros(2, 3, 5), hidden)
    assert cuda_cell._triton_failed
    assert hidden.ne(0).all()
"""


COMPILE = """
    from elmo_hf.kernels import cuda_cell
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    def compiled_for(generation, kernel, number, **constants):
        signature = {}
        for name in kernel.arg_names:
            is_cell = name in ("c", "raw_c", "d_c", "c_before")
            signature[name] = "*fp32" if is_cell else "i64" if name.endswith("_gap") else number
        signature |= {"cells": "i32", **dict.fromkeys(constants, "constexpr")}
        values = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
        source = ASTSource(fn=kernel, signature=signature, constexprs=values)
        assert compile(source, target=GPUTarget("cuda", generation, 32)).asm["cubin"]

    for generation, number in ((75, "*fp16"), (80, "*fp32"), (90, "*bf16")):
        for limit in (None, 3.0):
            compiled_for(generation, cuda_cell._forward_kernel, number, LIMIT=limit, BLOCK=1024)
        for wants in (False, True):
            compiled_for(generation, cuda_cell._backward_kernel, number, WANTS_HIDDEN=wants, BLOCK=1024)
"""


def run_with_the_real_triton(code):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.skipif(torch.cuda.is_available(), reason="Triton finds its GPU")
def test_the_real_triton_without_a_gpu():
    said = run_with_the_real_triton(REAL)
    assert said.count("Triton cannot run the LSTM's kernels here") == 1


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_triton_compiles_the_kernels_for_gpus_that_are_not_here():
    run_with_the_real_triton(COMPILE)


# ---- autocast


def layer_tensors():
    torch.manual_seed(0)
    shapes = [(2, 3, 5, 4), (2, 3, 4), (2, 3, 6), (2, 4, 24), (2, 4, 24), (2, 24), (2, 6, 4)]
    x, *others = (torch.randn(shape).mul_(0.5).requires_grad_() for shape in shapes)
    return x, torch.rand(2, 3, 5) < 0.7, *others


def there_and_back(function, autocast_there, autocast_back):
    """Results and gradients of all inputs."""
    tensors = layer_tensors()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast_there):
        found = function(*tensors, 0.4, 0.3)
    loss = sum(part.float().square().sum() for part in found)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast_back):
        return *found, *torch.autograd.grad(loss, [leaf for leaf in tensors if leaf.requires_grad])


@pytest.mark.parametrize(("there", "back"), [(True, False), (True, True), (False, True)])
def test_autocast_gives_the_types_and_about_the_numbers_of_the_readable_lstm(there, back):
    expected = there_and_back(lstm, there, back)
    found = there_and_back(training.lstm, there, back)
    assert [part.dtype for part in found] == [part.dtype for part in expected]
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() < 0.03 * other.norm()


@pytest.mark.parametrize("there", [True, False])
def test_autocast_is_off_inside_of_the_layer(there, monkeypatch):
    """Types are chosen before the loops. Today's operators write where they are told, and autocast passes
    over such; whatever comes in their place must not be cast behind the layer's back."""
    seen, product = [], training.product

    def told(*arguments):
        seen.append(torch.is_autocast_enabled("cpu"))
        return product(*arguments)

    monkeypatch.setattr(training, "product", told)
    there_and_back(training.lstm, there, True)
    assert len(seen) > 10
    assert not any(seen)


def test_a_way_back_inside_of_autocast_is_as_one_outside(monkeypatch):
    """With an operator for products that autocast would cast to bfloat16."""

    def product(x, weight, out, bias=None):
        return out.copy_(x @ weight if bias is None else x @ weight + bias[:, None])

    monkeypatch.setattr(training, "product", product)
    outside, inside = (there_and_back(training.lstm, False, back) for back in (False, True))
    torch.testing.assert_close(inside, outside, rtol=0, atol=0)
