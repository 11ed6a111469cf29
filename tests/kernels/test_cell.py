"""The elementwise step: Triton kernels equal their definition, which runs where Triton fails."""

import importlib.util
import logging
import os
import subprocess
import sys
import textwrap

import pytest
import torch

from elmo_hf.kernels import cell

LOGGER = "elmo_hf.kernels.cell"
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)


def cell_tensors(seed=0):
    torch.manual_seed(seed)
    c, raw_c, hidden = torch.randn(2, 3, 5), torch.empty(2, 3, 5), torch.empty(2, 3, 5)
    return torch.randn(2, 3, 20), c, 0.4, raw_c, hidden


def forward_and_back(forward, backward):
    """What a step and its gradient write into their tensors."""
    gates, c, limit, raw_c, hidden = cell_tensors()
    c_before, d_gates = c.clone(), torch.empty_like(gates)
    forward(gates, c, limit, raw_c, hidden)
    d_hidden, d_c = torch.linspace(-1, 1, 30).view(2, 3, 5), torch.ones(2, 3, 5)
    backward(d_hidden, d_c, cell.ForwardValues(gates, c_before, c, raw_c), d_gates, hidden)
    return gates, c, raw_c, hidden, d_gates, d_c


@pytest.fixture
def broken_triton(monkeypatch):
    """Kernels that raise `error`, on tensors that pass for a GPU's; `calls` has a number for each call."""
    calls = []

    def launch(*arguments):
        calls.append(len(arguments))
        raise launch.error

    monkeypatch.setattr(cell, "_triton_failed", False)
    monkeypatch.setattr(cell, "HAS_TRITON", True)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    for name in ("triton_forward", "triton_backward"):
        monkeypatch.setattr(cell, name, launch)
    launch.calls = calls
    return launch


ERRORS = [
    RuntimeError("Failed to find C compiler. Please specify via CC environment variable.\nMore lines"),
    FileNotFoundError(2, "No such file or directory", "/usr/bin/cc"),
    subprocess.CalledProcessError(1, ["cc", "main.c"]),
    RuntimeError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_failing_triton_is_tried_once_and_the_numbers_are_right(error, broken_triton, caplog):
    broken_triton.error = error
    expected = forward_and_back(cell.plain_forward, cell.plain_backward)
    with caplog.at_level(logging.WARNING, LOGGER):
        for _ in range(2):
            actual = forward_and_back(cell.cell_forward, cell.cell_backward)
            torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    assert broken_triton.calls == [5]
    [record] = caplog.records
    first_line = (str(error) or "RuntimeError").splitlines()[0]
    assert record.getMessage().endswith(f"slower PyTorch operations are used: {first_line}")
    assert "\n" not in record.getMessage()


def test_a_triton_that_fails_only_backward(broken_triton, monkeypatch, caplog):
    broken_triton.error = RuntimeError("PassManager::run failed")
    monkeypatch.setattr(cell, "triton_forward", cell.plain_forward)
    expected = forward_and_back(cell.plain_forward, cell.plain_backward)
    actual = forward_and_back(cell.cell_forward, cell.cell_backward)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    assert broken_triton.calls == [5]
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("full"), torch.AcceleratorError("lost"), ValueError("gaps")]
)
def test_other_errors_are_raised(error, broken_triton, caplog):
    broken_triton.error = error
    with pytest.raises(type(error), match=str(error)):
        cell.cell_forward(*cell_tensors())
    assert not caplog.records
    assert cell.uses_triton(torch.ones(1))


REAL = """
    import torch
    from elmo_hf.kernels import cell

    torch.Tensor.is_cuda = True
    gates, c = torch.zeros(2, 3, 20), torch.ones(2, 3, 5)
    hidden = torch.zeros(2, 3, 5)
    for _ in range(2):
        cell.cell_forward(gates, c, None, torch.zeros(2, 3, 5), hidden)
    assert cell._triton_failed
    assert hidden.ne(0).all()
"""


COMPILE = """
    from elmo_hf.kernels import cell
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    def compiled_for(generation, kernel, number, **constants):
        signature = {}
        for name in kernel.arg_names:
            is_cell = name in ("c", "raw_c", "d_c", "c_before")
            signature[name] = "*fp32" if is_cell else "i64" if name.endswith("_stride") else number
        signature |= {"cells": "i32", **dict.fromkeys(constants, "constexpr")}
        values = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
        source = ASTSource(fn=kernel, signature=signature, constexprs=values)
        assert compile(source, target=GPUTarget("cuda", generation, 32)).asm["cubin"]

    for generation, number in ((75, "*fp16"), (80, "*fp32"), (90, "*bf16")):
        for limit in (None, 3.0):
            compiled_for(generation, cell._forward_kernel, number, LIMIT=limit, BLOCK=1024)
        for writes in (False, True):
            compiled_for(generation, cell._backward_kernel, number, WRITES_HIDDEN=writes, BLOCK=1024)
"""


def run_with_the_real_triton(code):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return process.stderr


@needs_triton
@pytest.mark.skipif(torch.cuda.is_available(), reason="Triton finds its GPU")
def test_the_real_triton_without_a_gpu():
    errors = run_with_the_real_triton(REAL)
    assert errors.count("Triton cannot run the LSTM kernels here") == 1


@needs_triton
def test_triton_compiles_the_kernels_for_several_gpus():
    run_with_the_real_triton(COMPILE)


KERNEL_TEST = """
    import torch
    from elmo_hf.kernels import cell

    def tensors(dtype, rows, cells, seed):
        torch.manual_seed(seed)
        wide = [torch.randn(2, rows + 3, n * cells).to(dtype) for n in (4, 1, 4, 1)]
        c_dtype = torch.float64 if dtype == torch.float64 else torch.float32
        exact = [torch.randn(2, rows + 2, cells).to(c_dtype) for _ in range(4)]
        return [tensor.to(DEVICE)[:, :rows] for tensor in wide + exact]  # directions lie apart

    def forward(function, limit, *case):
        gates, hidden, _, _, c, raw_c, _, _ = tensors(*case)
        function(gates, c, limit, raw_c, hidden)
        return gates, c, raw_c, hidden

    def backward(function, limit, writes_hidden, *case):
        gates, d_hidden, d_gates, hidden, c_before, raw_c, d_c, _ = tensors(*case)
        gates = gates.sigmoid()
        c = raw_c.clone() if limit is None else raw_c.clamp(-limit, limit)
        values = cell.ForwardValues(gates, c_before, c, raw_c)
        function(d_hidden, d_c, values, d_gates, hidden if writes_hidden else None)
        return d_c, d_gates, gates, c, hidden

    tolerance = {torch.float32: 1e-6, torch.float64: 1e-14, torch.bfloat16: 0.02}
    for dtype, atol in tolerance.items():
        for case in ((dtype, 1, 1, 0), (dtype, 3, 5, 1), (dtype, 2, 1030, 2)):
            for limit in (None, 0.1, 1.7):
                expected = forward(cell.plain_forward, limit, *case)
                actual = forward(cell.triton_forward, limit, *case)
                for writes in (True, False):
                    expected += backward(cell.plain_backward, limit, writes, *case)
                    actual += backward(cell.triton_backward, limit, writes, *case)
                torch.testing.assert_close(actual, expected, rtol=atol, atol=atol)
    print("the kernels equal their definition")
"""


@needs_triton
@pytest.mark.parametrize("device", DEVICES)
def test_the_triton_kernels_equal_their_definition(device):
    """On a CPU with Triton's interpreter. It must be chosen before Triton is imported: in a new process."""
    environment = {**os.environ, "TRITON_INTERPRET": "1" if device == "cpu" else "0"}
    code = f"DEVICE = {device!r}\n" + textwrap.dedent(KERNEL_TEST)
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert "equal their definition" in process.stdout


def test_a_cpu_uses_the_plain_functions():
    assert not cell.uses_triton(torch.ones(1))


def test_the_kernels_refuse_rows_that_are_not_contiguous():
    with pytest.raises(ValueError, match="contiguous rows"):
        cell.direction_stride(torch.ones(2, 3, 8)[:, :, :4])
