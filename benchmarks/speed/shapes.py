"""Which shape of a small ELMo, and which training settings, learn most in the same time on this machine?

    elmo-hf vocab train.txt vocab.txt --max-words 20000
    python -m benchmarks.speed.shapes --data train.txt --vocab vocab.txt --heldout heldout.txt --minutes 5 \
        --output hub_cards/elmo-tiny/results/shapes.json

First the speed of each candidate is measured, in turns and a few steps at a time. Then each is trained for as
many steps as it would do in the given minutes, and its perplexity is measured by the full softmax on the
held-out text, every sentence from zero states. A candidate is a set of options of training/pretrain.py.
"""

import argparse
import json
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from transformers.utils import logging

from benchmarks.language_models.domain import WINDOW, pretrain
from benchmarks.report import command, in_turns, machine
from elmo_hf import ElmoForPreTraining
from elmo_hf.files import write_json
from elmo_hf.hub.results import Result, with_results

FILTERS = {  # numbers of filters by width: a quarter, a half and the whole of the published small shape's
    "tiny": [[1, 16], [2, 16], [3, 32], [4, 64], [5, 128]],
    "small": [[1, 16], [2, 32], [3, 64], [4, 128], [5, 256]],
    "full": [[1, 32], [2, 32], [3, 64], [4, 128], [5, 256], [6, 512]],
}
ADAMW = {"optimizer": "adamw", "learning_rate": 0.005, "schedule": "linear", "loss_scale": 1, "clip": 1}
ADAGRAD = {"optimizer": "adagrad", "learning_rate": 0.2, "schedule": "constant"}
COMMON: dict[str, Any] = {
    "filters": "small",
    "rows": 64,
    "samples": 2048,
    "dropout": 0.0,
    "num_highway_layers": 1,
    "restart_rows": 0.02,
    "shared_reading": True,
    **ADAMW,
}
CANDIDATES: dict[str, dict[str, Any]] = {
    "256/128": {"lstm_dim": 256, "projection_dim": 128, "filters": "tiny"},
    "512/64": {"lstm_dim": 512, "projection_dim": 64, "filters": "tiny"},
    "512/128": {"lstm_dim": 512, "projection_dim": 128},
    "768/128": {"lstm_dim": 768, "projection_dim": 128},
    "1024/128": {"lstm_dim": 1024, "projection_dim": 128, "filters": "full"},
    "512/128, 32 rows": {"lstm_dim": 512, "projection_dim": 128, "rows": 32},
    "512/128, 128 rows": {"lstm_dim": 512, "projection_dim": 128, "rows": 128},
    "512/128, adagrad": {"lstm_dim": 512, "projection_dim": 128, "loss_scale": 20, "clip": 10, **ADAGRAD},
}


def main() -> None:
    options = read_options()
    logging.disable_progress_bar()
    calls = {name: partial(speeds_of_steps, options, name) for name in options.candidates}
    speeds = in_turns(calls, options.turns, warmup=0)
    rows = [
        train(options, name, statistics.median(speed for turn in speeds[name] for speed in turn))
        for name in options.candidates
    ]
    result = {
        "command": command("speed.shapes", sys.argv[1:]),
        "machine": machine(),
        "minutes": options.minutes,
        "rows": rows,
    }
    write_json(options.output, with_results(result, card_table(rows, options.minutes)))
    print(f"Wrote {options.output}.")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--vocab", required=True)
    parser.add_argument("--heldout", required=True)
    parser.add_argument("--raw", action="store_true", help="tokenize the text by rules")
    parser.add_argument("--split-sentences", action="store_true", help="a line is a paragraph")
    parser.add_argument("--candidates", nargs="+", default=list(CANDIDATES), choices=list(CANDIDATES))
    parser.add_argument("--minutes", type=float, default=5.0, help="of training for each (5)")
    parser.add_argument("--turns", type=int, default=2, help="in which the speeds are measured (2)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    return parser.parse_args()


def card_table(rows: list[dict[str, Any]], minutes: float) -> Result:
    """What a model card shows: no settings, and of a perplexity the mean of both directions."""
    columns = [row | {"perplexity": row["perplexity"]["mean"]} for row in rows]
    for row in columns:
        del row["settings"]
    note = f"Each was trained for {minutes:g} minutes."
    return Result("table", columns, "Other shapes, in equal time", note)


def speeds_of_steps(options: argparse.Namespace, name: str, turn: int) -> list[float]:
    """Words a second in the logged steps of a short run."""
    with tempfile.TemporaryDirectory() as folder:
        log = run(options, Path(folder) / "run", name, max_steps=30, log_every=5, schedule="constant")
    speeds = [entry["words_per_second"] for entry in log if entry["kind"] == "step"]
    return speeds[2:]  # the first steps make tables and fill caches


def train(options: argparse.Namespace, name: str, speed: float) -> dict[str, Any]:
    settings = settings_of(CANDIDATES[name])
    words_per_step = settings["rows"] * WINDOW
    steps = max(1, round(options.minutes * 60 * speed / words_per_step))
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        log = run(options, output, name, max_steps=steps, heldout=options.heldout)
        parameters = ElmoForPreTraining.from_pretrained(output / "final").num_parameters()
    evaluation = [entry for entry in log if entry["kind"] == "evaluation"][-1]
    row = {
        "name": name,
        "settings": settings,
        "parameters": parameters,
        "words_per_second": round(speed, 1),
        "steps": steps,
        "words": steps * words_per_step,
        "perplexity": {key: evaluation[key] for key in ("forward", "backward", "mean", "tokens", "unknown")},
    }
    print(json.dumps(row), flush=True)
    return row


def settings_of(candidate: dict[str, Any]) -> dict[str, Any]:
    settings = COMMON | candidate
    filters = FILTERS[settings.pop("filters")]
    return settings | {"char_filters": json.dumps(filters).replace(" ", "")}


def run(options: argparse.Namespace, output: Path, name: str, **changes: Any) -> list[dict[str, Any]]:
    settings = settings_of(CANDIDATES[name]) | {
        "vocab": options.vocab,
        "raw": options.raw,
        "split_sentences": options.split_sentences,
        "seed": options.seed,
        "evaluation_states": "zero",
        "save_every": 1_000_000,
        "epochs": 100,
        **changes,
    }
    return pretrain(output, options.data, settings)


if __name__ == "__main__":
    main()
