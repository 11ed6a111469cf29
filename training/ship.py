"""Makes a trained language model small enough to be sent about: its weights are written in half precision.

    python training/ship.py runs/elmo-tiny/final src/elmo_hf/checkpoints/elmo-tiny

They are read in float32 again, as the config says. What the rounding costs is told by `elmo-hf perplexity`.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from checkpoints import write_folder
from transformers.utils import logging

from elmo_hf.perplexity import load_language_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", help="the folder of a trained model")
    parser.add_argument("target", type=Path, help="the folder to write; what it holds is replaced")
    given = parser.parse_args()
    logging.disable_progress_bar()
    try:
        ship(given.source, given.target)
    except ValueError as error:
        sys.exit(f"ship.py: {error}")


def ship(source: str, target: Path) -> None:
    model, tokenizer = load_language_model(source)
    largest = max(float(weight.detach().abs().max()) for weight in model.parameters())
    if not largest < torch.finfo(torch.float16).max:
        raise ValueError(f"{source} has a weight of {largest:g}, which half precision cannot hold.")

    def write(folder: Path) -> None:
        model.half().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        for path in folder.glob("*.py"):  # the package has the code
            path.unlink()
        edit(folder / "config.json", auto_map=None, dtype="float32")
        edit(folder / "tokenizer_config.json", auto_map=None)

    write_folder(target, write)


def edit(path: Path, **entries: str | None) -> None:
    """None takes an entry away."""
    found = json.loads(path.read_text(encoding="utf-8")) | entries
    kept = {name: value for name, value in found.items() if name not in entries or value is not None}
    path.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
