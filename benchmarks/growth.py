"""What a run of a billion words takes on more GPUs, computed from the constants that are measured on one.

    python -m benchmarks.growth                      # writes results/growth.json and the table of README.md

Measured: a whole step of the original size on one GPU (`results/gpu/original.json`), and the words/s of
readers of text (`results/feed.json`; without it, the feed is left out, and the table says so). Counted: the
bytes that processes exchange in a step, of the real model. Assumed: the networks, and that the processors
beside the GPUs read as fast as that of the feed's measurement. Not counted: evaluations and checkpoints.

A step waits for the exchange, as gradients are added up after the backward pass; texts are read meanwhile.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.report import PAGE, RESULTS, command, fill_page, markdown_table, versions
from elmo_hf.errors import ElmoError, one_sentence
from elmo_hf.files import write_json
from elmo_hf.model.configuration_elmo import ElmoConfig
from elmo_hf.model.modeling_elmo_pretraining import ElmoForPreTraining
from elmo_hf.pretraining.sampling import draw_samples, select_rows

VOCABULARY, SAMPLES, WINDOW = 793_471, 8192, 20  # of the paper
TEXT = "paragraphs"  # the kind of text that is read, of those of feed.py
WORDS, EPOCHS = 1_000_000_000, 10
GPUS = (1, 8, 64)
ON_EACH_MACHINE = 8
# Bytes/s that a GPU sends to its neighbour in a ring, within a machine and between two, and seconds a hop.
NETWORKS = {
    "NVLink, 400 Gb/s between machines": {"within": 300e9, "between": 50e9, "hop": 5e-6},
    "PCIe 4, 100 Gb/s between machines": {"within": 20e9, "between": 12.5e9, "hop": 10e-6},
    "PCIe 4, 10 Gb/s between machines": {"within": 20e9, "between": 1.25e9, "hop": 30e-6},
}
Network = dict[str, float]
Row = dict[str, Any]


# ---- bytes


def dense_bytes() -> int:
    """Of the gradients of all parameters but the softmax's, which `Learner` adds up in float32."""
    with torch.device("meta"):
        model = ElmoForPreTraining(ElmoConfig(vocab_size=VOCABULARY))
    softmax = sum(parameter.numel() for parameter in model.lm_head.parameters())
    return 4 * (sum(parameter.numel() for parameter in model.parameters()) - softmax)


def softmax_rows(rows: int, repeats: int = 3) -> int:
    """Rows of the softmax that a process changes in a step: its targets, by Zipf's law, and its samples."""
    frequencies = 1 / np.arange(1, VOCABULARY + 1)
    shares = np.cumsum(frequencies / frequencies.sum())
    counts = []
    for seed in range(repeats):
        drawn = np.random.default_rng(seed).random((2, rows * WINDOW))
        targets = torch.from_numpy(np.searchsorted(shares, drawn).clip(max=VOCABULARY - 1))
        counts.append(len(select_rows(targets, draw_samples(SAMPLES, VOCABULARY, (seed,))).ids))
    return round(sum(counts) / repeats)


def row_bytes() -> int:
    """Of a row's gradient: its id, its weights and its bias."""
    return 8 + 4 * (ElmoConfig().projection_dim + 1)


# ---- seconds


def exchange_seconds(gpus: int, dense: int, sparse: int, network: Network) -> float:
    """A ring: all dense gradients are reduced, and each process gets the softmax's rows of all others.

    In a ring through several machines, its slowest link sets the pace.
    """
    if gpus == 1:
        return 0.0
    speed = network["within"] if gpus <= ON_EACH_MACHINE else min(network["within"], network["between"])
    sent = 2 * (gpus - 1) / gpus * dense + (gpus - 1) * sparse
    return sent / speed + 3 * (gpus - 1) * network["hop"]


def feed_rate(feed: dict[int, float] | None, readers: int) -> float | None:
    """Words/s of so many readers together: the rate of each, as measured with as many or more of them. None
    for more than were measured."""
    enough = [count for count in feed or {} if count >= readers]
    return readers * feed[min(enough)] / min(enough) if feed and enough else None


def plan(gpus: int, rows: int, step: float, sparse_rows: int, network: Network, feed: float | None) -> Row:
    """
    Args:
        rows: on each GPU.
        step: seconds of a step on one GPU.
        sparse_rows: rows of the softmax that a GPU changes in a step.
        feed: words/s of all readers together.
    """
    exchange = exchange_seconds(gpus, dense_bytes(), sparse_rows * row_bytes(), network)
    words = gpus * rows * WINDOW  # of an update
    rate = words / (step + exchange)
    binds = "step" if step >= exchange else "exchange"
    if feed is not None and feed < rate:
        rate, binds = feed, "feed"
    total = WORDS * EPOCHS
    return {
        "gpus": gpus,
        "rows_on_each": rows,
        "updates": math.ceil(total / words),
        "step_ms": round(1000 * step, 2),
        "exchange_ms": round(1000 * exchange, 2),
        "feed": feed,
        "words_per_second": round(rate),
        "hours": round(total / rate / 3600, 2),
        "efficiency": round(rate / gpus / (rows * WINDOW / step), 3),
        "binds": binds,
    }


# ---- measured constants


def measured_steps(path: Path) -> dict[int, float]:
    """Seconds of a step by the rows on a GPU, with the kernel that is chosen there."""
    if not path.exists():
        raise ElmoError(f"there is no {path}; `python -m benchmarks.speed.gpu` measures it.")
    rows = json.loads(path.read_text(encoding="utf-8"))["training"]
    rows = [row for row in rows if row["kernels"] == "auto" and "us" in row]  # which fitted in memory
    return {row["batch"]: row["us"]["median"] / 1e6 for row in rows}


def measured_feed(path: Path) -> dict[int, float] | None:
    """Words/s of all readers of raw text together, by their number. None if there is no file."""
    if not path.exists():
        return None
    kinds = json.loads(path.read_text(encoding="utf-8"))["kinds"]
    if TEXT not in kinds:
        raise ElmoError(f"{path} has no {TEXT}; measure it again with these.")
    return {int(count): run["words_per_second_of_all"] for count, run in kinds[TEXT]["readers"].items()}


def compute(steps: dict[int, float], feed: dict[int, float] | None, readers: int) -> dict[str, Any]:
    sparse = {rows: softmax_rows(rows) for rows in steps}
    plans = []
    for name, network in NETWORKS.items():
        for gpus in GPUS:
            for rows, step in steps.items():
                feed_of_all = feed_rate(feed, readers * gpus)
                plans.append({"network": name} | plan(gpus, rows, step, sparse[rows], network, feed_of_all))
    return {
        "words": WORDS,
        "epochs": EPOCHS,
        "readers_on_each": readers,
        "assumed": {"networks": NETWORKS, "gpus_on_each_machine": ON_EACH_MACHINE},
        "counted": {
            "dense_bytes": dense_bytes(),
            "row_bytes": row_bytes(),
            "softmax_rows": {str(rows): number for rows, number in sparse.items()},
        },
        "measured": {"step_seconds": {str(k): v for k, v in steps.items()}, "feed": feed},
        "plans": plans,
    }


# ---- the table


def table(results: dict[str, Any]) -> str:
    """Of a JSON. On one GPU, the network plays no part."""
    head = ["network (assumed)", "GPUs", "rows on each", "updates", "step, ms", "exchange, ms"]
    head += ["words/s", "hours", "of linear", "binds"]
    rows, first = [], results["plans"][0]["network"]
    for entry in results["plans"]:
        if entry["gpus"] > 1 or entry["network"] == first:
            numbers = [entry["gpus"], entry["rows_on_each"], entry["updates"]]
            cells = ["" if entry["gpus"] == 1 else entry["network"], *(f"{number:,}" for number in numbers)]
            cells += [f"{entry['step_ms']:.1f}", f"{entry['exchange_ms']:.1f}"]
            cells += [f"{entry['words_per_second']:,}", f"{entry['hours']:,.1f}"]
            rows.append([*cells, f"{entry['efficiency']:.0%}", entry["binds"]])
    return f"{facts(results)}\n\n{markdown_table(head, rows)}"


def facts(results: dict[str, Any]) -> str:
    counted, feed = results["counted"], results["measured"]["feed"]
    lines = [
        f"{results['words'] * results['epochs']:,} words in all. Each step exchanges "
        f"{counted['dense_bytes'] / 1e6:.0f} MB of dense gradients and, of each GPU, rows of the softmax of "
        f"{counted['row_bytes']:,} bytes: "
        + ", ".join(f"{number:,} at {rows} rows" for rows, number in counted["softmax_rows"].items())
        + "."
    ]
    if feed is None:
        lines.append("The feed is not in the table, as there is no `results/feed.json`.")
    else:
        unknown = any(entry["feed"] is None for entry in results["plans"])
        lines.append(
            f"Readers of text for each GPU: {results['readers_on_each']}; measured: "
            + ", ".join(f"{rate:,.0f} words/s of {readers}" for readers, rate in feed.items())
            + ("; with more readers than that, the feed is not in the table." if unknown else ".")
        )
    return " ".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.growth", description=__doc__.split("\n")[0])
    parser.add_argument("--readers", type=int, default=1, help="readers of text for each GPU (1)")
    parser.add_argument("--output", type=Path, default=RESULTS / "growth.json", help="(results/growth.json)")
    options = parser.parse_args()
    with one_sentence("growth"):
        if options.readers < 1:
            raise ElmoError(f"--readers must be at least 1, but is {options.readers}.")
        steps = measured_steps(RESULTS / "gpu" / "original.json")
        results = compute(steps, measured_feed(RESULTS / "feed.json"), options.readers)
        arguments = ["--readers", str(options.readers)] if options.readers != 1 else []
        facts_of_run = {"command": command("growth", arguments), "versions": versions("torch", "elmo_hf")}
        write_json(options.output, facts_of_run | results)
        if options.output == RESULTS / "growth.json":
            fill_page(PAGE, "growth", lambda _: table(results))
        print(table(results))


if __name__ == "__main__":
    main()
