"""Which shape of a small ELMo, and which recipe, learns most in the same time on this machine?

    elmo-hf vocab train.txt vocab.txt --max-words 20000
    python -m benchmarks.speed.shapes --data train.txt --vocab vocab.txt --heldout heldout.txt --minutes 5 \
        --output hub_cards/elmo-tiny/results/shapes.json

First the speed of each candidate is measured, in turns and a few steps at a time, so that a busy moment hits
all alike. Then each is trained for as many steps as it would do in the given minutes, and judged by the full
softmax on the held-out text, every sentence from zero states. A candidate is a set of flags of pretrain.py.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from transformers.utils import logging

from benchmarks.report import ROOT, command, machine, write_json
from elmo_hf import ElmoForPreTraining

PRETRAIN = ROOT / "training" / "pretrain.py"
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
    speeds = measure_speeds(options)
    rows = [train(options, name, speeds[name]) for name in options.candidates]
    result = {
        "command": command("speed.shapes", sys.argv[1:]),
        "machine": machine(),
        "minutes": options.minutes,
        "rows": rows,
    }
    write_json(options.output, result)
    print(f"Wrote {options.output}.")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--vocab", required=True)
    parser.add_argument("--heldout", required=True)
    parser.add_argument("--raw", action="store_true", help="split words by rule, not at blanks")
    parser.add_argument("--split-sentences", action="store_true", help="a line is a paragraph")
    parser.add_argument("--candidates", nargs="+", default=list(CANDIDATES), choices=list(CANDIDATES))
    parser.add_argument("--minutes", type=float, default=5.0, help="of training for each (5)")
    parser.add_argument("--turns", type=int, default=2, help="in which the speeds are measured (2)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    return parser.parse_args()


def measure_speeds(options: argparse.Namespace) -> dict[str, float]:
    """Words a second of each candidate: the median over all turns."""
    found: dict[str, list[float]] = {name: [] for name in options.candidates}
    for _ in range(options.turns):
        for name in options.candidates:
            with tempfile.TemporaryDirectory() as folder:
                run = Path(folder) / "run"
                log = pretrain(options, run, name, max_steps=30, log_every=5, schedule="constant")
            speeds = [line["words_per_second"] for line in log if line["kind"] == "step"]
            found[name] += speeds[2:]  # the first steps make tables and fill caches
    return {name: statistics.median(speeds) for name, speeds in found.items()}


def train(options: argparse.Namespace, name: str, speed: float) -> dict[str, Any]:
    candidate = CANDIDATES[name]
    words_a_step = flags_of(candidate)["rows"] * 20
    steps = max(1, round(options.minutes * 60 * speed / words_a_step))
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        log = pretrain(options, run, name, max_steps=steps, heldout=options.heldout)
        parameters = ElmoForPreTraining.from_pretrained(run / "final").num_parameters()
    judged = [line for line in log if line["kind"] == "evaluation"][-1]
    figures = ("forward", "backward", "mean", "tokens", "unknown")
    row = {
        "name": name,
        "settings": flags_of(candidate),
        "parameters": parameters,
        "words_per_second": round(speed, 1),
        "steps": steps,
        "words": steps * words_a_step,
        "perplexity": {figure: judged[figure] for figure in figures},
    }
    print(json.dumps(row), flush=True)
    return row


def flags_of(candidate: dict[str, Any]) -> dict[str, Any]:
    settings = COMMON | candidate
    filters = FILTERS[settings.pop("filters")]
    return settings | {"char_filters": json.dumps(filters).replace(" ", "")}


def pretrain(options: argparse.Namespace, run: Path, name: str, **more: Any) -> list[dict[str, Any]]:
    """A run from its beginning -> the lines of its log"""
    settings = flags_of(CANDIDATES[name]) | {
        "vocab": options.vocab,
        "output": str(run),
        "raw": options.raw,
        "split_sentences": options.split_sentences,
        "seed": options.seed,
        "evaluation_states": "zero",
        "save_every": 1_000_000,
        "epochs": 100,
        **more,
    }
    arguments = [sys.executable, str(PRETRAIN), "--data", *options.data, *arguments_of(settings)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-2000:]}")
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def arguments_of(settings: dict[str, Any]) -> list[str]:
    switches = [f"--{name}" for name, value in settings.items() if value is True]
    others = {name: str(value) for name, value in settings.items() if not isinstance(value, bool)}
    return [*switches, *(part for name, value in others.items() for part in (f"--{name}", value))]


if __name__ == "__main__":
    main()
