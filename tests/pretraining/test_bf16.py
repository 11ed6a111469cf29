"""Runs with products in bfloat16 on a CPU: as good as in float32, and as reproducible."""

import statistics

import pytest

from elmo_hf.pretraining.processes import NO_BF16
from tests.helpers.launcher import small_run, steps_of

# The small model's steps are too short for the layer that long steps use.
HOOK = "from elmo_hf.kernels import training; training.SHORT_STEP = -1\n"
HOOK += "from elmo_hf.pretraining import processes; processes.has_bf16 = lambda: {}\n"


def start(launcher, tmp_path, name, has_bf16=True, **changes):
    settings = {"threads": 1, "optimizer": "adamw", "learning_rate": 0.02, "dropout": 0.0, "clip": 1.0}
    settings |= {"loss_scale": 1, "workers": 0, "save_every": 1000}
    return launcher.start(small_run(tmp_path, name, **settings | changes), hook=HOOK.format(has_bf16))


def train(*arguments, **changes):
    run = start(*arguments, **changes)
    assert run.wait() == [0], run.err
    return run


def losses(folder):
    return [entry["loss"] for entry in steps_of(folder)]


def test_the_loss_curve_is_that_of_float32_within_noise(launcher, tmp_path):
    """Over three seeds, at no step do the precisions differ as much as two seeds do on average."""
    names = {(p, seed): f"{p}-{seed}" for p in ("no", "bf16") for seed in (1, 2, 3)}
    runs = [
        start(launcher, tmp_path, name, precision=precision, seed=seed, max_steps=40)
        for (precision, seed), name in names.items()
    ]
    assert [run.wait() for run in runs] == 6 * [[0]]
    curves = {key: losses(tmp_path / name) for key, name in names.items()}
    first, last = curves["no", 1][0], statistics.mean(curves["no", 1][-10:])
    assert last < first - 0.5  # it has learnt
    between_precisions = max(
        abs(a - b)
        for seed in (1, 2, 3)
        for a, b in zip(curves["no", seed], curves["bf16", seed], strict=True)
    )
    between_seeds = statistics.mean(abs(a - b) for a, b in zip(curves["no", 1], curves["no", 2], strict=True))
    assert 0 < between_precisions < between_seeds
    means = [
        statistics.mean(curves["bf16", seed][-20:]) - statistics.mean(curves["no", seed][-20:])
        for seed in (1, 2, 3)
    ]
    assert abs(statistics.mean(means)) < 0.02  # of a loss of about 4


def test_a_resumed_run_is_bit_equal(launcher, tmp_path):
    train(launcher, tmp_path, "whole", precision="bf16", max_steps=30)
    train(launcher, tmp_path, "parts", precision="bf16", max_steps=13)
    train(launcher, tmp_path, "parts", precision="bf16", max_steps=30)
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
    weights = [tmp_path / name / "final" / "model.safetensors" for name in ("whole", "parts")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.parametrize(("precision", "has_bf16"), [("bf16", True), ("bf16", False), ("no", False)])
def test_a_processor_without_bfloat16_is_said_once(launcher, tmp_path, precision, has_bf16):
    run = train(launcher, tmp_path, "run", has_bf16, precision=precision, max_steps=1)
    assert run.err.count(NO_BF16) == (precision == "bf16" and not has_bf16)
