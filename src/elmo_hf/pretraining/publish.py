"""Write a trained language model in the form in which it is published: half precision, shards, model code.

    python -m elmo_hf.pretraining.publish runs/elmo-tiny/final src/elmo_hf/checkpoints/elmo-tiny --half
    python -m elmo_hf.pretraining.publish runs/elmo-small/final published/elmo-small --code --shards 50MB

Half-precision weights load as float32, as the config says; `elmo-hf perplexity` measures what the rounding
costs. `--code` adds the model's code for users of `trust_remote_code`; the package itself needs none.
"""

import argparse
import json
import re
from pathlib import Path

import torch
from transformers.utils import logging

from elmo_hf.errors import ElmoError, one_sentence
from elmo_hf.files import whole_folder
from elmo_hf.loading import load_language_model

PROGRAM = "elmo_hf.pretraining.publish"


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description=__doc__.split("\n")[0])
    parser.add_argument("source", help="folder of a trained model")
    parser.add_argument("target", type=Path, help="folder to write; an existing one is replaced")
    parser.add_argument("--half", action="store_true", help="store the weights in half precision")
    parser.add_argument("--code", action="store_true", help="store the model's code with its weights")
    parser.add_argument("--shards", metavar="SIZE", default="5GB", help="largest size of a file (5GB)")
    options = parser.parse_args()
    logging.disable_progress_bar()
    with one_sentence(PROGRAM):
        publish(options.source, options.target, half=options.half, code=options.code, shards=options.shards)


def publish(
    source: str, target: Path, *, half: bool = False, code: bool = False, shards: str = "5GB"
) -> None:
    """Write the model in `source` to `target`, whole or not at all.

    Args:
        half: store the weights in half precision.
        code: store the model's code with its weights.
        shards: largest size of a file, such as "50MB".

    Raises:
        ElmoError: there is no language model in `source`, or half precision cannot hold its weights.
    """
    if not re.fullmatch(r"[1-9][0-9]*[KMG]B", shards):
        raise ElmoError(f"--shards must be a size such as 50MB, not {shards!r}.")
    model, tokenizer = load_language_model(source)
    if half:
        check_range(source, model)
        model.half()

    with whole_folder(target) as folder:
        model.save_pretrained(folder, max_shard_size=shards)
        tokenizer.save_pretrained(folder)
        edit_json(folder / "config.json", dtype="float32")
        if not code:
            for path in folder.glob("*.py"):
                path.unlink()
            for name in ("config.json", "tokenizer_config.json"):
                edit_json(folder / name, auto_map=None)


def check_range(source: str, model: torch.nn.Module) -> None:
    largest = float(torch.stack([weight.detach().float().abs().max() for weight in model.parameters()]).max())
    if not largest < torch.finfo(torch.float16).max:
        raise ElmoError(f"{source} has a weight of {largest:g}, which half precision cannot hold.")


def edit_json(path: Path, **entries: str | None) -> None:
    """Set entries of a JSON file; None removes one."""
    content = json.loads(path.read_text(encoding="utf-8")) | entries
    kept = {name: value for name, value in content.items() if name not in entries or value is not None}
    path.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
