"""Kills a pretraining run (kill -9) at many random steps, and compares its end with that of a run left alone.

    python -m benchmarks.kill_pretrain --kills 20 --processes 2

Prints where it was killed, and ends with exit code 1 if a weight, state, loss or sentence differs.
"""

import argparse
import random
import tempfile
from pathlib import Path

from tests.helpers.launcher import Launcher, small_run, steps_of
from tests.pretraining.test_resuming import assert_every_sentence_once, assert_same_end, end, kill_at


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    with Launcher() as launcher:
        settings = {"epochs": 4, "save_every": 7}
        end(launcher, small_run(folder, "whole", **settings), given.processes)
        last = steps_of(folder / "whole")[-1]["step"]
        steps = sorted(random.Random(given.seed).sample(range(1, last), given.kills))
        arguments = small_run(folder, "killed", audit=True, **settings)
        for step in steps:
            killed = kill_at(launcher.start(arguments, given.processes), folder / "killed", step)
            print(f"step {step} of {last}: {'killed' if killed else 'it had ended'}", flush=True)
        end(launcher, arguments, given.processes)
    assert_same_end(folder / "killed", folder / "whole")
    assert_every_sentence_once(folder / "killed", (150, 20, 60), epochs=4)
    print(
        f"{given.processes} process(es), {given.kills} kills in {last} steps: the end is the same to the bit."
    )


if __name__ == "__main__":
    main()
