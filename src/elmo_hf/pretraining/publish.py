"""Writes a trained language model as it is published: in half precision, in shards, with its code.

    python -m elmo_hf.pretraining.publish runs/elmo-tiny/final src/elmo_hf/checkpoints/elmo-tiny --half
    python -m elmo_hf.pretraining.publish runs/elmo-small/final published/elmo-small --code --shards 50MB

Half-precision weights are read in float32 again, as the config says. What the rounding costs is told by
`elmo-hf perplexity`. The code goes along with --code, for the Hub; the package needs none.
"""

import argparse
import json
import re
import sys
from pathlib import Path

import torch
from transformers.utils import logging

from elmo_hf.files import whole_folder
from elmo_hf.loading import load_language_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", help="the folder of a trained model")
    parser.add_argument("target", type=Path, help="the folder to write; what it holds is replaced")
    parser.add_argument("--half", action="store_true", help="weights in half precision")
    parser.add_argument("--code", action="store_true", help="the model's code beside its weights")
    parser.add_argument("--shards", metavar="SIZE", default="5GB", help="the greatest of a file (5GB)")
    given = parser.parse_args()
    logging.disable_progress_bar()
    try:
        ship(given.source, given.target, half=given.half, code=given.code, shards=given.shards)
    except ValueError as error:
        sys.exit(f"ship.py: {error}")


def ship(source: str, target: Path, *, half: bool = False, code: bool = False, shards: str = "5GB") -> None:
    if not re.fullmatch(r"[1-9][0-9]*[KMG]B", shards):
        raise ValueError(f"--shards must be a size such as 50MB, not {shards!r}.")
    model, tokenizer = load_language_model(source)
    if half:
        check_range(source, model)
        model.half()

    with whole_folder(target) as folder:
        model.save_pretrained(folder, max_shard_size=shards)
        tokenizer.save_pretrained(folder)
        edit(folder / "config.json", dtype="float32")
        if not code:
            for path in folder.glob("*.py"):
                path.unlink()
            for name in ("config.json", "tokenizer_config.json"):
                edit(folder / name, auto_map=None)


def check_range(source: str, model: torch.nn.Module) -> None:
    largest = max(float(weight.detach().abs().max()) for weight in model.parameters())
    if not largest < torch.finfo(torch.float16).max:
        raise ValueError(f"{source} has a weight of {largest:g}, which half precision cannot hold.")


def edit(path: Path, **entries: str | None) -> None:
    """None takes an entry away."""
    found = json.loads(path.read_text(encoding="utf-8")) | entries
    kept = {name: value for name, value in found.items() if name not in entries or value is not None}
    path.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
