"""The memory of a pretraining run and its workers after every 200 of 2,000 steps.

python -m benchmarks.memory_pretrain
"""

import tempfile
from pathlib import Path

from tests.helpers.launcher import Launcher, memory_of_run


def main() -> None:
    steps = list(range(200, 2001, 200))
    with Launcher() as launcher:
        folder = Path(tempfile.mkdtemp())
        found = memory_of_run(launcher, folder, steps, epochs=100, max_steps=2020, save_every=250)
    for step, megabytes in zip(steps, found, strict=True):
        print(f"step {step:,}: {megabytes:.1f} MB")


if __name__ == "__main__":
    main()
