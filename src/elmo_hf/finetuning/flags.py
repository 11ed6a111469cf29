"""The flags of the recipes finetune_<task>.py.

parser = make_parser(__doc__, batch_size=32, learning_rate=4e-4, epochs=75, patience=5, clip=5.0)
flags = parser.parse_args()
"""

import argparse
from collections.abc import Callable
from typing import Any

SPLITS = ("train", "dev", "test")


def at_least(least: float) -> Callable[[str], Any]:
    """A flag's number, whole if `least` is."""

    def read(text: str) -> Any:
        value = type(least)(text)
        if not least <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"must be {least} or more, but is {text}")
        return value

    read.__name__ = "whole number" if isinstance(least, int) else "number"  # argparse says so
    return read


LEAST = {"batch_size": 1, "learning_rate": 0.0, "epochs": 1, "patience": 1, "clip": 0.0}


def make_parser(doc: str, optimizer: str = "adam", **recipe: Any) -> argparse.ArgumentParser:
    """Flags of all recipes; `recipe`: this one's batch_size, learning_rate, epochs, patience and clip."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for split in SPLITS:
        parser.add_argument(f"--{split}", nargs="+", metavar="FILE", help=f"files of the {split} sentences")
    parser.add_argument(
        "--data", help="in place of files: a dataset of `datasets`, a folder or a name on the Hub"
    )
    parser.add_argument("--elmo", help="a pretrained biLM, a folder or a name on the Hub")
    parser.add_argument("--output", required=True, help="the run's folder")
    parser.add_argument("--vectors", help="a text file of word vectors for the task's own words")
    help = "of the task's own words in the train sentences (2)"
    parser.add_argument("--min-count", type=at_least(1), default=2, help=help)
    parser.add_argument("--seeds", type=at_least(0), nargs="+", default=[0], help="a run for each (0)")
    parser.add_argument("--cache", choices=["memory", "disk", "none"], default="memory",
                        help="where a frozen biLM's layers are kept from epoch to epoch")  # fmt: skip
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="fields of ElmoConfig, "
                        "such as elmo_at_output=true")  # fmt: skip
    parser.add_argument("--limit", type=at_least(1), help="read only so many examples of each split")
    for split in SPLITS:
        help = f"only N of the {split} examples, drawn at random, the same for all seeds"
        parser.add_argument(f"--{split}-size", type=at_least(1), metavar="N", help=help)
    help = "an epoch, after which dev is looked at, reads the train examples so often; for few of them (1)"
    parser.add_argument("--passes", type=at_least(1), default=1, metavar="N", help=help)
    parser.add_argument("--smoke", action="store_true", help="a small random biLM, few examples, few epochs")
    parser.add_argument("--optimizer", default=optimizer, help=f"({optimizer})")
    for name, value in recipe.items():
        flag, kind = f"--{name.replace('_', '-')}", at_least(LEAST[name])
        parser.add_argument(flag, type=kind, default=value, help=f"({value})")
    return parser
