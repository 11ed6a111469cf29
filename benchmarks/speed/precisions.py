"""The loss curves of pretraining in float32 and in bfloat16 on a CPU, over several seeds.

    python -m benchmarks.speed.precisions --threads 2    # elmo-tiny's shape, 3 seeds, 400 updates each

Both precisions of a seed start from the same weights and read the same made-up text. `difference` is the mean
of bfloat16's loss minus float32's over the last updates, by seed; `between_seeds` is how far float32's losses
of different seeds are from each other over the same updates, as a standard deviation.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.report import PAGE, RESULTS, command, fill_page, machine
from benchmarks.speed.steps import PRECISIONS, SHAPES, WORKER, write_text
from elmo_hf.files import write_json


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--shape", default="elmo-tiny", choices=list(SHAPES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--last", type=int, default=100, help="updates at the end that are compared (100)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS / "training" / "precisions.json")
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    curves: dict[str, dict[str, list[float]]] = {precision: {} for precision in PRECISIONS}
    with tempfile.TemporaryDirectory() as folder:
        text = write_text(Path(folder))
        for seed in options.seeds:
            for precision in PRECISIONS:
                flags = [*SHAPES[options.shape], *text, "--precision", precision, "--seed", str(seed)]
                curves[precision][str(seed)] = losses(flags, options.updates, options.threads)
                print(seed, precision, curves[precision][str(seed)][-1], flush=True)
    content = {"command": command("speed.precisions", arguments), "machine": machine()}
    content |= {"shape": options.shape, "updates": options.updates, "last": options.last}
    content |= compare(curves, options.last)
    write_json(options.output, content | {"losses": curves})
    if options.output == RESULTS / "training" / "precisions.json":
        fill_page(PAGE, "precisions", lambda _: sentence(content))
    print(json.dumps(content, indent=1))


def sentence(content: dict[str, Any]) -> str:
    """Of a JSON."""
    seeds, apart = len(content["difference"]), content["between_seeds"]
    noise = f"; the losses of different seeds are {apart:.4f} apart" if apart is not None else ""
    return (
        f"Loss curves of {content['shape']}, {content['updates']} updates, {seeds} seeds: over the last "
        f"{content['last']} updates, bfloat16's loss minus float32's is {content['mean_difference']:+.4f} "
        f"(by seed {', '.join(f'{value:+.4f}' for value in content['difference'].values())}){noise}. "
        f"`{content['command']}`"
    )


def losses(flags: list[str], updates: int, threads: int) -> list[float]:
    names: dict[str, Any] = {"__name__": "worker"}
    sys.argv = ["worker", str(threads)]
    exec(WORKER, names)
    learner, windows = names["make"](flags)
    curve = []
    for step in range(updates):
        window = next(windows)
        curve.append(round(learner.update([window], names["words_of"](window), step)["loss"], 5))
    return curve


def compare(curves: dict[str, dict[str, list[float]]], last: int) -> dict[str, Any]:
    ends = {p: {s: curve[-last:] for s, curve in of_seeds.items()} for p, of_seeds in curves.items()}
    differences = {
        seed: statistics.mean(b - a for a, b in zip(ends["no"][seed], ends["bf16"][seed], strict=True))
        for seed in ends["no"]
    }
    steps = list(zip(*ends["no"].values(), strict=True))
    return {
        "final_loss": {p: statistics.mean(map(statistics.mean, of.values())) for p, of in ends.items()},
        "difference": differences,
        "mean_difference": statistics.mean(differences.values()),
        "between_seeds": statistics.mean(map(statistics.stdev, steps)) if len(ends["no"]) > 1 else None,
    }


if __name__ == "__main__":
    main()
