"""The command line of the recipes finetune_<task>.py.

parser = make_parser(__doc__, batch_size=32, learning_rate=4e-4, epochs=75, patience=5, clip=5.0)
flags = parser.parse_args()
"""

import argparse
import shlex
import sys
from collections.abc import Callable
from typing import Any

from elmo_hf.errors import program_name
from elmo_hf.pretraining.trackers import NONE

SPLITS = ("train", "dev", "test")
MODULE = "python -m elmo_hf.finetuning"
LEAST = {"batch_size": 1, "learning_rate": 0.0, "epochs": 1, "patience": 1, "clip": 0.0}


def at_least(least: float) -> Callable[[str], Any]:
    """Return the type of an argument that is a number, whole if `least` is."""

    def parse(text: str) -> Any:
        value = type(least)(text)
        if not least <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"must be {least} or more, but is {text}")
        return value

    parse.__name__ = "whole number" if isinstance(least, int) else "number"  # argparse prints it
    return parse


def command() -> str:
    """Return the command line that started the recipe, as one would type it."""
    name = program_name()  # the recipe's file, or `python -m elmo_hf.finetuning TASK`
    start = name if name.startswith(MODULE) else f"python training/{name}"
    return shlex.join([*start.split(), *sys.argv[1:]])


def make_parser(doc: str, optimizer: str = "adam", **defaults: Any) -> argparse.ArgumentParser:
    """Return a parser of the flags that all recipes have.

    Args:
        doc: the recipe's docstring, for `--help`.
        optimizer: the default of `--optimizer`.
        defaults: the recipe's batch_size, learning_rate, epochs, patience and clip.
    """
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=program_name(), description=doc, formatter_class=formatter)
    _add_data(parser)
    parser.add_argument("--elmo", "--model", help="a pretrained biLM, a folder or a name on the Hub")
    parser.add_argument("--output", required=True, help="the folder of the run")
    parser.add_argument("--vectors", help="a text file of word vectors for the task's own words")
    help = "how often a word occurs in the train sentences to be one of the task's own (2)"
    parser.add_argument("--min-count", type=at_least(1), default=2, help=help)
    parser.add_argument("--seeds", type=at_least(0), nargs="+", default=[0], help="one run for each (0)")
    help = "where the layers of a frozen biLM are kept from epoch to epoch (memory)"
    parser.add_argument("--cache", choices=["memory", "disk", "none"], default="memory", help=help)
    help = "fields of ElmoConfig, such as elmo_at_output=true"
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help=help)
    parser.add_argument("--smoke", action="store_true", help="a small random biLM, few examples, few epochs")
    help = "threads of the processor; by default all that the machine has"
    parser.add_argument("--threads", type=at_least(1), metavar="N", help=help)
    help = "trackers of the Trainer, such as tensorboard, trackio, wandb (none)"
    parser.add_argument("--report-to", nargs="+", default=[NONE], metavar="TRACKER", help=help)
    parser.add_argument("--optimizer", default=optimizer, help=f"({optimizer})")
    for name, value in defaults.items():
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=at_least(LEAST[name]), default=value, help=f"({value})")
    return parser


def _add_data(parser: argparse.ArgumentParser) -> None:
    for split in SPLITS:
        parser.add_argument(f"--{split}", nargs="+", metavar="FILE", help=f"files of the {split} sentences")
    help = "in place of files: a dataset of `datasets`, a folder or a name on the Hub"
    parser.add_argument("--data", help=help)
    parser.add_argument("--limit", type=at_least(1), help="read only the first examples of each split")
    for split in SPLITS:
        help = f"only N of the {split} examples, drawn at random, the same for all seeds"
        parser.add_argument(f"--{split}-size", type=at_least(1), metavar="N", help=help)
    help = "how often an epoch reads the train examples before it is evaluated, for small data sets (1)"
    parser.add_argument("--passes", type=at_least(1), default=1, metavar="N", help=help)
