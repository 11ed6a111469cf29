"""Whatever is done to a model, the fast code gives the numbers of the readable code, or steps aside.

python -m tests.kernels.test_random_sequences --steps 5000 --seed 0 --output random.json
python -m tests.kernels.test_random_sequences --alone       # each operation by itself
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pytest
import torch
import transformers

from elmo_hf import kernels
from tests.helpers.random_sequences import (
    OPERATIONS,
    Counts,
    Failure,
    Sequence,
    alone,
    run,
    sequences,
    shrink,
)
from tests.helpers.small_elmo import read_texts, small_model

CI_STEPS = 300
MOST_SHRUNK = 3  # of the failures with one last operation, as the first ones say enough


def run_all(
    planned: Iterable[Sequence], most_shrunk: int = MOST_SHRUNK, show: Callable[[Failure], None] | None = None
) -> tuple[Counts, list[Failure]]:
    """Run sequences, and shrink their failures, those with the same last operation only so many times."""
    counts, failures, seen = Counts(), [], Counter()
    for sequence in planned:
        failure = run(sequence, counts)
        if failure is None:
            continue
        last = failure.sequence.steps[-1].operation
        seen[last] += 1
        failures.append(shrink(failure) if seen[last] <= most_shrunk else failure)
        if show:
            show(failures[-1])
    return counts, failures


@pytest.fixture
def _quiet():
    """The library says much about what is loaded."""
    level = transformers.logging.get_verbosity()
    be_quiet()
    yield
    transformers.logging.set_verbosity(level)
    transformers.logging.enable_progress_bar()


def be_quiet() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


@pytest.mark.usefixtures("default_kernels", "_quiet")
def test_random_sequences():
    counts, failures = run_all(sequences(seed=0, steps=CI_STEPS), most_shrunk=1)
    if failures:
        pytest.fail(f"{len(failures)} sequences fail:\n" + "\n".join(map(str, failures)), pytrace=False)
    assert counts.fast_share > 1 / 4  # otherwise the fast code was hardly tested
    assert counts.steps > 0.75 * CI_STEPS
    assert len(counts.applied) > 0.8 * len(OPERATIONS)


PARTS = [
    "projection",
    "char_embedding",
    "convolutions.1",
    "highways.0",
    "highways.0.carry",
    "highways.1.transform",
]


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("change", ["register_forward_hook", "register_forward_pre_hook", "forward", "class"])
@pytest.mark.usefixtures("default_kernels")
def test_why_not_names_the_module(name, change):
    model = small_model()
    module = model.token_encoder.get_submodule(name)
    read_texts(model)
    assert kernels.why_not() == ""
    if change == "forward":
        module.forward = module.forward
    elif change == "class":
        module.__class__ = type("Other", (type(module),), {})
    else:
        handle = getattr(module, change)(lambda *_: None)
    read_texts(model)
    assert name in kernels.why_not()
    if "hook" in change:
        handle.remove()
        read_texts(model)
        assert kernels.why_not() == ""


def test_weights_that_were_used_can_be_swapped():
    """`module.to` swaps them where `torch.__future__` says so; a weak reference to one forbids it."""
    model = small_model()
    read_texts(model)
    for weight in model.parameters():
        torch.utils.swap_tensors(weight, torch.nn.Parameter(weight.detach().clone()))


# ---- the command


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    be_quiet()
    start = time.time()
    if options.alone:
        names = options.alone if options.alone != ["all"] else sorted(OPERATIONS)
        planned = (sequence for name in names for sequence in alone(name, options.models))
    else:
        planned = sequences(options.seed, options.steps)
    counts, failures = run_all(planned, show=partial(print, flush=True))
    result = report(options, counts, failures)
    print(f"{counts.steps} steps, {counts.calls} calls, {counts.fast_share:.0%} of them by the fast code,")
    print(f"{len(failures)} sequences failed; seed {options.seed}; {time.time() - start:.0f} s")
    for name, times in Counter(f.sequence.steps[-1].operation for f in failures).most_common():
        print(f"    {times:4d} after {name}")
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(bool(failures))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, default=CI_STEPS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="a JSON file with the counts and the failures")
    parser.add_argument(
        "--alone", nargs="*", metavar="OPERATION", help="each operation, or these, by themselves"
    )
    parser.add_argument("--models", type=int, default=12, help="with --alone: on so many models")
    options = parser.parse_args()
    if options.alone == []:
        options.alone = ["all"]
    return options


def report(options: argparse.Namespace, counts: Counts, failures: list[Failure]) -> dict:
    return {
        "seed": options.seed,
        "steps": counts.steps,
        "calls": counts.calls,
        "share_of_fast_calls": round(counts.fast_share, 3),
        "sequences_that_the_readable_code_refused": counts.without_reference,
        "operations": dict(sorted(counts.applied.items())),
        "refused_by_a_library": counts.refused,
        "failures": [str(failure) for failure in failures],
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    main()
