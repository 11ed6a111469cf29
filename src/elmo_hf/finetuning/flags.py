"""The command line of the recipes finetune_<task>.py.

parser = make_parser(__doc__, batch_size=32, learning_rate=4e-4, epochs=75, patience=5, clip=5.0)
flags = parser.parse_args()
"""

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from elmo_hf.errors import StoreOnce, program_name
from elmo_hf.pretraining.trackers import NONE

SPLITS = ("train", "dev", "test")
RESULTS = "results.json"  # a run writes it into its folder
MODULE = "python -m elmo_hf.finetuning"
LEAST = {"batch_size": 1, "learning_rate": 0.0, "epochs": 1, "patience": 1, "clip": 0.0}
MEANINGS = {
    "batch_size": "examples of an update",
    "learning_rate": "size of an update",
    "epochs": "largest number of passes over the train examples",
    "patience": "epochs without a better dev score after which the training ends",
    "clip": "largest norm of the gradient; 0: no limit",
}


def at_least(least: float) -> Callable[[str], Any]:
    """Return the type of an argument that is a number, whole if `least` is."""

    def parse(text: str) -> Any:
        value = type(least)(text)
        if not least <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"must be {least} or more, but is {text}")
        return value

    parse.__name__ = "whole number" if isinstance(least, int) else "number"  # argparse prints it
    return parse


class RecipeParser(argparse.ArgumentParser):
    """A parser whose `--output` is needed to train, and not to evaluate.

    Empty values are refused: those of a shell's variable that is not set must not pass for a flag left out.
    """

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        flags = super().parse_args(*args, **kwargs)
        for name, value in vars(flags).items():
            if "" in (value if isinstance(value, list) else [value]):
                self.error(f"argument --{name.replace('_', '-')}: must not be empty")
        if flags.evaluate and is_run(Path(flags.evaluate)):
            self.error(
                f"argument --evaluate: {flags.evaluate} is the folder of a run; name one of its models, such "
                f"as {Path(flags.evaluate, f'seed-{flags.seeds[0]}')}"
            )
        if flags.output is None and flags.evaluate is None:
            self.error("the following arguments are required: --output")
        return flags


def is_run(folder: Path) -> bool:
    """Whether the folder has the results of a run, and not a model."""
    return (folder / RESULTS).is_file() and not (folder / "config.json").exists()


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
    parser = RecipeParser(prog=program_name(), description=doc, formatter_class=formatter)
    _add_data(parser)
    parser.add_argument("--elmo", "--model", help="a pretrained biLM, a folder or a name on the Hub")
    parser.add_argument("--output", help="the folder of the run")
    help = "judge this saved model on --test (or on the dataset's test split), and train nothing"
    parser.add_argument("--evaluate", metavar="MODEL", help=help)
    help = "write what the model predicts for each dev and test example to OUTPUT/predictions/"
    parser.add_argument("--predictions", action="store_true", help=help)
    help = (
        "word vectors for the task's own words: text (.gz, .xz ...), word2vec's .bin, or a folder with .npy"
    )
    parser.add_argument("--vectors", metavar="FILE", help=help)
    help = "how much larger the task's own word vectors start (1)"
    parser.add_argument("--vector-scale", type=at_least(0.0), default=1.0, metavar="FACTOR", help=help)
    help = "how often a word occurs in the train sentences to be one of the task's own (2)"
    parser.add_argument("--min-count", type=at_least(1), default=2, help=help)
    parser.add_argument(
        "--seeds", type=at_least(0), action=StoreOnce, default=[0], help="one run for each (0)"
    )
    help = "where the layers of a frozen biLM are kept from epoch to epoch (%(default)s)"
    parser.add_argument("--cache", choices=["memory", "disk", "none"], default="memory", help=help)
    help = "fields of ElmoConfig, such as elmo_at_output=true"
    parser.add_argument("--set", action=StoreOnce, default=[], metavar="NAME=VALUE", help=help)
    parser.add_argument("--smoke", action="store_true", help="a small random biLM, few examples, few epochs")
    help = "threads of the processor; by default all that the machine has"
    parser.add_argument("--threads", type=at_least(1), metavar="N", help=help)
    help = "trackers of the Trainer, such as tensorboard, trackio, wandb (none)"
    parser.add_argument("--report-to", action=StoreOnce, default=[NONE], metavar="TRACKER", help=help)
    parser.add_argument(
        "--optimizer", default=optimizer, help=f"adam, or another that the recipe has ({optimizer})"
    )
    for name, value in defaults.items():
        flag = f"--{name.replace('_', '-')}"
        help = f"{MEANINGS[name]} ({value})"
        parser.add_argument(flag, type=at_least(LEAST[name]), default=value, help=help)
    help = "the learning rate of a biLM that is tuned, by --set freeze_elmo=false (that of --learning-rate)"
    parser.add_argument("--elmo-learning-rate", type=at_least(0.0), metavar="RATE", help=help)
    return parser


def _add_data(parser: argparse.ArgumentParser) -> None:
    for split in SPLITS:
        help = f"files of the {split} sentences"
        parser.add_argument(f"--{split}", action=StoreOnce, metavar="FILE", help=help)
    help = "in place of files: a dataset of `datasets`, a folder or a name on the Hub"
    parser.add_argument("--data", help=help)
    parser.add_argument("--limit", type=at_least(1), help="read only the first examples of each split")
    for split in SPLITS:
        help = f"only N of the {split} examples, drawn at random, the same for all seeds"
        parser.add_argument(f"--{split}-size", type=at_least(1), metavar="N", help=help)
    help = "how often an epoch reads the train examples before it is evaluated, for small data sets (1)"
    parser.add_argument("--passes", type=at_least(1), default=1, metavar="N", help=help)
