"""The optimizers of pretraining against loops in numpy and float64, and across two real processes."""

import textwrap
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from elmo_hf.pretraining import optimizers


def adagrad(weight, gradients, rate, accumulator=1.0):
    """TensorFlow's Adagrad in float64, a gradient or None for each step -> weight, sums"""
    weight, sums = weight.astype(np.float64), np.full(weight.shape, accumulator)
    for gradient in gradients:
        if gradient is not None:
            sums += gradient.astype(np.float64) ** 2
            weight -= rate * gradient / np.sqrt(sums)
    return weight, sums


def adamw(weight, gradients, rates, betas=(0.9, 0.999), epsilon=1e-8, decay=0.0):
    """Algorithm 2 of Loshchilov and Hutter; a step without a gradient is skipped."""
    weight = weight.astype(np.float64)
    mean, square, t = np.zeros_like(weight), np.zeros_like(weight), 0
    for gradient, rate in zip(gradients, rates, strict=True):
        if gradient is not None:
            t += 1
            mean = betas[0] * mean + (1 - betas[0]) * gradient
            square = betas[1] * square + (1 - betas[1]) * gradient.astype(np.float64) ** 2
            step = mean / (1 - betas[0] ** t) / (np.sqrt(square / (1 - betas[1] ** t)) + epsilon)
            weight = weight - rate * (step + decay * weight)
    return weight


def assert_close(result, expected, tolerance=1e-6):
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(result.detach().double(), expected, rtol=tolerance, atol=tolerance)


SIZE, DIM, STEPS = 12, 3, 6


class Scene:
    """Two dense parameters and a softmax, with the gradients of some steps."""

    def __init__(self, settings, seed=0, scale=1.0):
        self.random = np.random.default_rng(seed)
        self.start = {
            name: self.random.normal(size=shape).astype(np.float32)
            for name, shape in {"lstm": (4, 5), "lstm.bias": (5,), "W": (SIZE, DIM), "b": (SIZE,)}.items()
        }
        tensors = {name: torch.from_numpy(array.copy()) for name, array in self.start.items()}
        self.dense = {name: nn.Parameter(tensors[name]) for name in ("lstm", "lstm.bias")}
        self.weight, self.bias = nn.Parameter(tensors["W"]), nn.Parameter(tensors["b"])
        self.settings = settings
        self.optimizer = optimizers.make_optimizer(self.dense, self.weight, self.bias, settings)
        self.steps = [self.draw(scale) for _ in range(STEPS)]

    def draw(self, scale):
        ids = np.sort(self.random.permutation(SIZE)[:7])
        shapes = {"lstm": (4, 5), "lstm.bias": (5,), "W": (7, DIM), "b": (7,)}
        result = {name: (scale * self.random.normal(size=s)).astype(np.float32) for name, s in shapes.items()}
        return {**result, "ids": ids}

    def step(self, gradients):
        for name, parameter in self.dense.items():
            parameter.grad = torch.from_numpy(gradients[name].copy())
        rows = optimizers.RowGradient(*(torch.from_numpy(gradients[k].copy()) for k in ("ids", "W", "b")))
        norm = self.optimizer.step(rows)
        self.optimizer.zero_grad()
        return norm

    def run(self, steps=slice(None)):
        for gradients in self.steps[steps]:
            self.step(gradients)

    def row_gradients(self, name, row):
        """The row's gradient at each step, or None."""
        for gradients in self.steps:
            index = np.flatnonzero(gradients["ids"] == row)
            yield gradients[name][index[0]] if len(index) else None

    def tensors(self):
        """Copies of everything that a step may change."""
        parameters = {**self.dense, "W": self.weight, "b": self.bias, **self.optimizer.state_dict()}
        return {name: tensor.detach().clone() for name, tensor in parameters.items()}


@pytest.fixture
def scene():
    def make(seed=0, scale=1.0, **settings):
        return Scene(optimizers.OptimizerSettings(**{"clip": float("inf"), **settings}), seed, scale)

    return make


# ---- updates


def test_adagrad_equals_tensorflows(scene):
    it = scene()
    it.run()
    state = it.optimizer.state_dict()
    for name, parameter in it.dense.items():
        weight, sums = adagrad(it.start[name], [step[name] for step in it.steps], 0.2)
        assert_close(parameter, weight)
        assert_close(state[f"dense.{name}.sum"], sums)
    for row in range(SIZE):
        for name, table, key in (("W", it.weight, "weight"), ("b", it.bias, "bias")):
            weight, sums = adagrad(np.asarray(it.start[name][row]), it.row_gradients(name, row), 0.2)
            assert_close(table[row], weight)
            assert_close(state[f"softmax.{key}.sum"][row], sums)


def test_adamw_equals_the_papers(scene):
    it = scene(name="adamw", learning_rate=0.01, weight_decay=0.1, betas=(0.8, 0.95), epsilon=1e-4)
    it.run()
    rates = [0.01] * STEPS
    for name, parameter in it.dense.items():
        decay = 0.0 if name == "lstm.bias" else 0.1
        gradients = [step[name] for step in it.steps]
        assert_close(parameter, adamw(it.start[name], gradients, rates, (0.8, 0.95), 1e-4, decay))
    for row in range(SIZE):
        for name, table, decay in (("W", it.weight, 0.1), ("b", it.bias, 0.0)):
            gradients = list(it.row_gradients(name, row))
            expected = adamw(np.asarray(it.start[name][row]), gradients, rates, (0.8, 0.95), 1e-4, decay)
            assert_close(table[row], expected)


@pytest.mark.parametrize("name", ["adagrad", "adamw"])
def test_updating_all_rows_equals_a_dense_parameter(name):
    """The same table as rows of a softmax and as a dense parameter of PyTorch's optimizer."""
    settings = optimizers.OptimizerSettings(name=name, learning_rate=0.1)
    generator = torch.Generator().manual_seed(1)
    tables = [torch.randn(9, 4, generator=generator), torch.randn(9, generator=generator)]
    dense = {name: nn.Parameter(t.clone()) for name, t in zip(("weight", "bias"), tables, strict=True)}
    rows = optimizers.make_optimizer({"other": nn.Parameter(torch.zeros(1))}, *tables, settings)
    whole = optimizers.make_optimizer(dense, None, None, settings)
    for _ in range(20):
        gradients = [torch.randn(table.shape, generator=generator) for table in tables]
        for parameter, gradient in zip(dense.values(), gradients, strict=True):
            parameter.grad = gradient.clone()
        norm = rows.step(optimizers.RowGradient(torch.arange(9), *gradients))
        torch.testing.assert_close(norm, whole.step())
    torch.testing.assert_close(tables, [parameter.detach() for parameter in dense.values()])


@pytest.mark.parametrize("name", ["adagrad", "adamw"])
def test_other_rows_are_not_even_written(scene, name):
    """NaN in all other rows and their state is neither overwritten nor spread."""
    it = scene(name=name)
    touched = it.steps[0]["ids"]
    untouched = np.setdiff1d(np.arange(SIZE), touched)
    tables = [it.weight.data, it.bias.data]
    tables += [t for key, t in it.optimizer.state_dict().items() if key.startswith("softmax.")]
    for table in tables:
        table[untouched] = float("nan")
    it.step(it.steps[0])
    for table in tables:
        assert table[untouched].isnan().all()
        assert table[touched].isfinite().all()
        assert len(table) == SIZE


# ---- clipping


def norm_of(gradients):
    arrays = [gradients[name].astype(np.float64) for name in ("lstm", "lstm.bias", "W", "b")]
    return np.sqrt(sum((array**2).sum() for array in arrays))


@pytest.mark.parametrize("name", ["adagrad", "adamw"])
def test_dense_and_rows_are_clipped_together(scene, name):
    """A step with large gradients equals the step with these gradients scaled to the limit."""
    clipped, ready = scene(scale=5.0, name=name, clip=10.0), scene(scale=5.0, name=name)
    for gradients in clipped.steps:
        norm = norm_of(gradients)
        assert norm > 10.0
        result = clipped.step(gradients)
        assert result.item() == pytest.approx(norm, rel=1e-6)
        scaled = {
            k: v if k == "ids" else (v * (10.0 / norm)).astype(np.float32) for k, v in gradients.items()
        }
        ready.step(scaled)
    for key, tensor in ready.tensors().items():
        torch.testing.assert_close(clipped.tensors()[key], tensor, rtol=1e-5, atol=1e-6)


def test_gradients_below_the_limit_are_unchanged():
    gradients = [torch.tensor([3.0, 4.0]), torch.tensor([[12.0]])]
    assert optimizers.clip_together(gradients, 13.5) == 13.0
    assert [g.flatten().tolist() for g in gradients] == [[3.0, 4.0], [12.0]]
    assert optimizers.clip_together(gradients, 6.5) == 13.0
    assert [g.flatten().tolist() for g in gradients] == [[1.5, 2.0], [6.0]]
    zero = [torch.zeros(2)]
    assert optimizers.clip_together(zero, 1.0) == 0
    assert zero[0].tolist() == [0, 0]


@pytest.mark.parametrize("name", ["adagrad", "adamw"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["lstm", "W", "b"])
def test_a_norm_that_is_not_finite_changes_nothing(scene, name, bad, where):
    it = scene(name=name, clip=10.0, schedule="linear", total_steps=9)
    it.run(slice(0, 2))
    before, rate = it.tensors(), it.optimizer.learning_rate
    gradients = {key: value.copy() for key, value in it.steps[2].items()}
    gradients[where].flat[1] = bad
    assert not it.step(gradients).isfinite()
    after = it.tensors()
    assert all(tensor.equal(after[key]) for key, tensor in before.items())
    assert it.optimizer.learning_rate == rate
    assert it.step(it.steps[2]).isfinite()
    assert not it.tensors()["W"].equal(before["W"])


# ---- schedules, saving and loading


@pytest.mark.parametrize(
    ("schedule", "warmup", "total", "expected"),
    [
        ("constant", 0, None, [1, 1, 1, 1, 1, 1]),
        ("constant", 4, 99, [0, 0.25, 0.5, 0.75, 1, 1]),
        ("linear", 0, 4, [1, 0.75, 0.5, 0.25, 0, 0]),
        ("linear", 2, 4, [0, 0.5, 1, 0.5, 0, 0]),
        ("cosine", 1, 5, [0, 1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2, 0]),
    ],
)
@pytest.mark.parametrize("name", ["adagrad", "adamw"])
def test_the_learning_rate_follows_the_schedule(scene, name, schedule, warmup, total, expected):
    it = scene(name=name, learning_rate=0.4, schedule=schedule, warmup_steps=warmup, total_steps=total)
    rates = []
    for gradients in it.steps:
        rates.append(it.optimizer.learning_rate)
        it.step(gradients)
    assert rates == pytest.approx([0.4 * factor for factor in expected], abs=1e-12)
    if name == "adamw":  # the reported rate is the rate that is used
        result = adamw(it.start["lstm"], [step["lstm"] for step in it.steps], rates)
        assert_close(it.dense["lstm"], result, 1e-5)
        rows = adamw(it.start["W"][4], list(it.row_gradients("W", 4)), rates)
        assert_close(it.weight[4], rows, 1e-5)


@pytest.mark.parametrize("name", ["adagrad", "adamw"])
@pytest.mark.parametrize("steps", [0, 3])
def test_a_loaded_state_continues_the_run(scene, tmp_path, name, steps):
    from safetensors.torch import load_file, save_file

    settings = {"name": name, "schedule": "cosine", "total_steps": 8, "warmup_steps": 1, "clip": 2.0}
    whole, first, second = scene(**settings), scene(**settings), scene(**settings)
    whole.run()
    first.run(slice(0, steps))
    save_file(first.optimizer.state_dict(), tmp_path / "optimizer.safetensors")
    with torch.no_grad():
        for name_, parameter in first.dense.items():
            second.dense[name_].copy_(parameter)
        second.weight.copy_(first.weight)
        second.bias.copy_(first.bias)
    second.optimizer.load_state_dict(load_file(tmp_path / "optimizer.safetensors"))
    second.run(slice(steps, None))
    assert second.tensors().keys() == whole.tensors().keys()
    assert all(tensor.equal(second.tensors()[key]) for key, tensor in whole.tensors().items())


def test_names_of_the_state(scene):
    dense = {f"dense.{name}.{key}" for name in ("lstm", "lstm.bias") for key in ("step", "sum")}
    assert scene().optimizer.state_dict().keys() == {
        *dense,
        *("softmax.weight.sum", "softmax.bias.sum", "steps"),
    }
    moments = [f"softmax.{table}.{key}" for table in ("weight", "bias") for key in ("mean", "square")]
    dense = [f"dense.lstm{bias}.{w}" for bias in ("", ".bias") for w in ("step", "exp_avg", "exp_avg_sq")]
    result = scene(name="adamw").optimizer.state_dict().keys()
    assert result == {*dense, *moments, "softmax.steps", "steps"}


def test_a_state_that_does_not_fit_is_refused_before_anything_is_written(scene):
    it = scene()
    it.run()
    before, state = it.tensors(), scene(seed=1).optimizer.state_dict()
    missing = {key: tensor for key, tensor in state.items() if key != "softmax.bias.sum"}
    wrong = {
        "softmax.bias.sum is missing from": missing,
        "dense.x.sum does not belong into": {**state, "dense.x.sum": torch.zeros(1)},
        r"softmax.bias.sum of .* is \(3,\), not \(12,\)": {**state, "softmax.bias.sum": torch.zeros(3)},
    }
    for message, bad in wrong.items():
        with pytest.raises(ValueError, match=message):
            it.optimizer.load_state_dict(bad)
        assert all(tensor.equal(it.tensors()[key]) for key, tensor in before.items())


# ---- gradients of rows


def scattered(gradient, size):
    """As a dense gradient (size, dim + 1), the bias last."""
    result = torch.zeros(size, gradient.weight.shape[1] + 1)
    for number, word in enumerate(gradient.ids.tolist()):
        result[word, :-1] += gradient.weight[number]
        result[word, -1] += gradient.bias[number]
    return result


def some_rows(generator, number, size, dim=3):
    ids = torch.randperm(size, generator=generator)[:number].sort().values
    return optimizers.RowGradient(
        ids, torch.randn(number, dim, generator=generator), torch.randn(number, generator=generator)
    )


def test_micro_batches_are_added_up():
    generator = torch.Generator().manual_seed(2)
    gathered, batches = optimizers.RowGradients(), [some_rows(generator, n, 30) for n in (5, 12, 1, 20)]
    for batch in batches:
        gathered.add(batch)
    total = gathered.take()
    assert total.ids.tolist() == sorted(set(torch.cat([batch.ids for batch in batches]).tolist()))
    torch.testing.assert_close(scattered(total, 30), sum(scattered(batch, 30) for batch in batches))
    gathered.add(batches[0])
    assert all(tensor.equal(other) for tensor, other in zip(gathered.take(), batches[0], strict=True))
    with pytest.raises(ValueError, match="no gradients of rows to take"):
        gathered.take()
    with pytest.raises(ValueError, match=r"\(m,\), but they are \(5,\), \(12, 3\), \(5,\)"):
        gathered.add(batches[0]._replace(weight=batches[1].weight))


def test_one_process_has_nothing_to_gather():
    rows = some_rows(torch.Generator().manual_seed(3), 4, 9)
    assert optimizers.gather_rows(rows, SimpleNamespace(num_processes=1)) is rows


CHILD = """
    import sys
    import torch
    from accelerate import Accelerator
    from elmo_hf.pretraining.optimizers import *

    accelerator = Accelerator(cpu=True)
    rank, others = accelerator.process_index, accelerator.num_processes
    assert others == 2, others
    generator = torch.Generator().manual_seed(10 + rank)
    number = 9 if rank else 4
    ids = 1 + torch.randperm(19, generator=generator)[:number].sort().values  # no process has row 0
    weight, bias = torch.randn(number, 3, generator=generator), torch.randn(number, generator=generator)
    mean = gather_rows(RowGradient(ids, weight, bias), accelerator)
    gathered = [part.clone() for part in mean]  # a step scales its gradients in place
    torch.manual_seed(0)
    table, table_bias, dense = torch.randn(20, 3), torch.randn(20), torch.nn.Parameter(torch.ones(2))
    optimizer = make_optimizer({"dense": dense}, table, table_bias, OptimizerSettings(clip=0.5))
    dense.grad = torch.ones(2)
    norm = optimizer.step(mean)
    torch.save([[ids, weight, bias], gathered, table, table_bias, norm], f"{sys.argv[1]}/{rank}.pt")
    accelerator.end_training()
    sys.exit()  # the pretraining that would follow is not run
"""


def test_two_processes_take_the_step_of_one(launcher, tmp_path):
    """Each has its own rows; both end with the weights that one process gets from the mean gradient."""
    run = launcher.start([tmp_path], processes=2, hook=textwrap.dedent(CHILD))
    assert run.wait() == [0, 0], run.err
    (gradient_of_first, *first), (gradient_of_second, *second) = (
        torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)
    )
    for mine, theirs in zip(first[1:], second[1:], strict=True):
        assert mine.equal(theirs)
    for mine, theirs in zip(first[0], second[0], strict=True):
        assert mine.equal(theirs)
    mean, table, table_bias, norm = first
    gradients = [optimizers.RowGradient(*gradient_of_first), optimizers.RowGradient(*gradient_of_second)]
    expected = sum(scattered(rows, 20) for rows in gradients) / 2
    assert mean[0].tolist() == sorted({*gradients[0].ids.tolist(), *gradients[1].ids.tolist()})
    torch.testing.assert_close(scattered(optimizers.RowGradient(*mean), 20), expected)
    assert norm == pytest.approx((expected.square().sum() + 2).sqrt().item(), rel=1e-6)
    torch.manual_seed(0)
    start, gradient = torch.cat([torch.randn(20, 3), torch.randn(20)[:, None]], 1), expected * (0.5 / norm)
    stepped = start - 0.2 * gradient / (1 + gradient**2).sqrt()
    torch.testing.assert_close(torch.cat([table, table_bias[:, None]], 1), stepped)


# ---- mistakes


def test_invalid_settings():
    wrong = {
        "name must be adagrad or adamw, not 'sgd'": {"name": "sgd"},
        "schedule must be one of constant, linear, cosine": {"schedule": "step"},
        "learning_rate must be more than 0, not 0": {"learning_rate": 0.0},
        "clip must be more than 0, not nan": {"clip": float("nan")},
        "warmup_steps must not be negative": {"warmup_steps": -1},
        "betas must be between 0 and 1": {"name": "adamw", "betas": (0.9, 1.0)},
        "linear schedule needs more total_steps than the 0 warmup_steps": {"schedule": "linear"},
        "needs more total_steps than the 5": {"schedule": "cosine", "warmup_steps": 5, "total_steps": 5},
        "weight_decay is a setting of adamw; adagrad has none": {"weight_decay": 0.1},
        "accumulator is a setting of adagrad; adamw has none": {"name": "adamw", "accumulator": 0.1},
    }
    for message, settings in wrong.items():
        with pytest.raises(ValueError, match=message):
            optimizers.OptimizerSettings(**settings)


def test_invalid_parameters(scene):
    weight, bias = nn.Parameter(torch.zeros(4, 2)), nn.Parameter(torch.zeros(4))
    settings = optimizers.OptimizerSettings()
    for dense, softmax, message in (
        ({}, (weight, bias), "no dense parameters"),
        ({"head": weight}, (weight, bias), "also among the dense parameters"),
        ({"head": weight}, (None, bias), "given together, or neither"),
    ):
        with pytest.raises(ValueError, match=message):
            optimizers.make_optimizer(dense, *softmax, settings)
    with pytest.raises(ValueError, match="needs the gradient of the softmax's rows"):
        scene().optimizer.step()
    whole = optimizers.make_optimizer({"head": weight}, None, None, settings)
    with pytest.raises(ValueError, match="takes none if it was made without"):
        whole.step(
            optimizers.RowGradient(torch.zeros(1, dtype=torch.long), torch.zeros(1, 2), torch.zeros(1))
        )
