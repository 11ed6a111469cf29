# ruff: noqa: RUF009 (`setting` makes dataclass fields)
"""What a pretraining run can be told, with the paper's recipe as what it does when told nothing.

A YAML file (`--config runs/paper.yaml`) holds settings by these names; flags go before the file.
"""

import argparse
import contextlib
import json
import math
import sys
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from elmo_hf.model.configuration_elmo import ElmoConfig
from elmo_hf.pretraining.optimizers import OptimizerSettings


def setting(default: Any, help: str, **more: Any) -> Any:
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": help, **more})
    return field(default=default, metadata={"help": help, **more})


@dataclass
class Settings:
    # ---- text
    data: list[str] = setting([], "files, globs, a folder, or the name of a dataset on the Hub")
    split: str = setting("train", "which split of a dataset")
    subset: str | None = setting(None, "which configuration of a dataset on the Hub")
    column: str | None = setting(None, "the column to read; if left out, 'text' or 'tokens'")
    raw: bool = setting(False, "split text into words by the tokenizer's rule; otherwise at whitespace")
    split_sentences: bool = setting(False, "a line is a paragraph; otherwise it is a sentence")
    shuffle_sentences: int = setting(
        100_000, "sentences that are held and shuffled at a time; 0 keeps their order"
    )
    shared_reading: bool = setting(False, "both directions read the same sentences at the same time")
    workers: int = setting(1, "processes a process that read and encode ahead; 0 for none")
    vocab: str | None = setting(None, "the vocabulary that `elmo-hf vocab` wrote; with --start, its own")
    # ---- the run
    output: str = setting("", "the run's folder")
    resume: str = setting("no", "auto: from the newest checkpoint, if any; no; or a checkpoint's folder")
    start: str | None = setting(None, "a checkpoint or a name on the Hub, to go on from on new text")
    seed: int = setting(0, "of everything that is random")
    processes: int | None = setting(None, "refuse to run with another number of them")
    # ---- the model (not with --start)
    lstm_dim: int = setting(4096, "cells of an LSTM, a direction")
    projection_dim: int = setting(512, "size of its output, and of a word's vector")
    num_hidden_layers: int = setting(2, "biLSTM layers")
    char_embedding_dim: int = setting(16, "size of a character's vector")
    char_filters: list[list[int]] = setting(
        [[1, 32], [2, 32], [3, 64], [4, 128], [5, 256], [6, 512], [7, 1024]],
        "convolutions over letters: [[width, number], ...]",
    )
    char_activation: str = setting("relu", "relu or tanh")
    num_highway_layers: int = setting(2, "highway layers after the filters")
    max_characters_per_token: int = setting(50, "letters of a word, and two more")
    token_encoder: str = setting("characters", "characters, or words for a table of word vectors")
    cell_clip: float | None = setting(3.0, "limit of the cells")
    proj_clip: float | None = setting(3.0, "limit of an LSTM's output")
    # ---- the recipe
    rows: int = setting(384, "rows of text that are read side by side, over all processes")
    window: int = setting(20, "words of a row that are read between two updates")
    restart_rows: float = setting(
        0.0, "share of the rows whose LSTM states restart from zeros at each window"
    )
    samples: int = setting(8192, "words against which a word is predicted in training; 0 for all")
    epochs: int = setting(10, "readings of the whole text, in each direction")
    max_steps: int | None = setting(None, "end after so many updates")
    accumulate: int = setting(1, "windows an update")
    optimizer: str = setting("adagrad", "adagrad or adamw")
    learning_rate: float = setting(0.2, "the greatest")
    schedule: str = setting("constant", "constant, linear or cosine")
    warmup_steps: int = setting(0, "updates in which the learning rate rises")
    weight_decay: float = setting(0.0, "of adamw")
    loss_scale: float = setting(20.0, "the gradient is that of so many times the loss")
    clip: float = setting(10.0, "limit of the gradient's norm")
    dropout: float = setting(0.1, "on each layer's input, and on the output")
    precision: str = setting("no", "no for float32, or bf16")
    # ---- judging, saving, watching
    heldout: list[str] = setting([], "files of held-out text, whose perplexity is told by their names")
    evaluate_every: int = setting(0, "updates between evaluations; 0: after each epoch and at the end")
    evaluation_states: str = setting("carried", "zero or carried")
    save_every: int = setting(1000, "updates between checkpoints")
    keep: int = setting(2, "checkpoints to keep")
    log_every: int = setting(20, "updates between lines of the log")
    trackers: list[str] = setting([], "accelerate's trackers, such as tensorboard")
    audit: bool = setting(False, "write down which sentence was read at which step")

    def model_config(self, vocab_size: int, **ids: Any) -> ElmoConfig:
        names = [one.name for one in fields(ElmoConfig) if one.name in self.__dataclass_fields__]
        return ElmoConfig(vocab_size=vocab_size, **{name: getattr(self, name) for name in names}, **ids)

    def optimizer_settings(self) -> OptimizerSettings:
        return OptimizerSettings(
            name=self.optimizer,
            learning_rate=self.learning_rate,
            clip=self.clip,
            schedule=self.schedule,
            warmup_steps=self.warmup_steps,
            total_steps=self.max_steps,
            weight_decay=self.weight_decay,
        )


CHOICES = {
    "char_activation": ["relu", "tanh"],
    "token_encoder": ["characters", "words"],
    "optimizer": ["adagrad", "adamw"],
    "schedule": ["constant", "linear", "cosine"],
    "precision": ["no", "bf16"],
    "evaluation_states": ["zero", "carried"],
}
AT_LEAST_ONE = [
    *("processes", "rows", "window", "epochs", "max_steps", "accumulate", "save_every", "keep", "log_every"),
]
AT_LEAST_ZERO = [
    *("shuffle_sentences", "workers", "samples", "warmup_steps", "weight_decay", "evaluate_every", "seed"),
    *("dropout", "restart_rows"),
]
ABOVE_ZERO = ["learning_rate", "loss_scale", "clip"]
# A trained model has its own.
MODEL = [
    *("lstm_dim", "projection_dim", "num_hidden_layers", "char_embedding_dim", "char_filters"),
    *("char_activation", "num_highway_layers", "max_characters_per_token", "token_encoder"),
    *("cell_clip", "proj_clip"),
]
# What a resumed run must have as it was; the rest may change.
LASTING = [
    *("split", "subset", "column", "raw", "split_sentences", "shuffle_sentences", "shared_reading", "seed"),
    *("start", "window", "samples", "optimizer", "loss_scale", "precision", *MODEL),
]


def read_settings(arguments: list[str] | None = None) -> Settings:
    """From flags and a YAML file, checked; ends with a sentence where they are wrong."""
    parser = make_parser()
    found = vars(parser.parse_args(arguments))
    path = found.pop("config", None)
    try:
        settings = Settings(**(read_yaml(Path(path)) if path else {}) | found)
        check(settings)
    except ValueError as error:
        sys.exit(f"pretrain.py: {error}")
    return settings


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pretrain.py",
        description="Pretrain an ELMo. Flags go before the settings of --config.",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--config", help="a YAML file of settings, such as training/runs/paper.yaml")
    for one in fields(Settings):
        parser.add_argument(*flags(one.name), **argument(one))
    return parser


def default_of(one: Field[Any]) -> Any:
    return one.default_factory() if one.default_factory is not MISSING else one.default


def flags(name: str) -> list[str]:
    return [f"--{name.replace('_', '-')}", *([f"--{name}"] if "_" in name else [])]


def argument(one: Field[Any]) -> dict[str, Any]:
    help = f"{one.metadata['help']} ({json.dumps(default_of(one))})".replace("%", "%%")
    if one.type is bool:
        return {"action": argparse.BooleanOptionalAction, "help": help}
    if one.type == list[str]:
        return {"nargs": "+", "help": help, "metavar": "TEXT"}
    kinds: dict[Any, Any] = {int: int, int | None: int, float: float, float | None: number_or_none}
    kind = json.loads if one.name == "char_filters" else kinds.get(one.type, str)
    return {"type": kind, "help": help, "choices": CHOICES.get(one.name)}


def number_or_none(text: str) -> float | None:
    return None if text.lower() in ("none", "null") else float(text)


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        raise ValueError(f"there is no settings file {path}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold `name: value` lines.")
    found = {str(name).replace("-", "_"): value for name, value in found.items()}
    found = {name: with_type(name, value) for name, value in found.items()}
    unknown = [name for name in found if name not in Settings.__dataclass_fields__]
    if unknown:
        raise ValueError(f"{path}: there is no setting '{unknown[0]}'; see --help.")
    return found


def with_type(name: str, value: Any) -> Any:
    """YAML reads a bare `no` as false, and 1e-3 as a text; and one file need not be written as a list."""
    kind = Settings.__dataclass_fields__[name].type if name in Settings.__dataclass_fields__ else None
    if kind is str and value is False:
        return "no"
    if kind in (float, float | None) and isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value)
    return [value] if kind == list[str] and isinstance(value, str) else value


def check(settings: Settings) -> None:
    if not settings.data:
        raise ValueError("say by --data what text to read.")
    if not settings.output:
        raise ValueError("say by --output which folder the run is to have.")
    if settings.vocab is None and settings.start is None:
        raise ValueError("say by --vocab which words to predict; `elmo-hf vocab` makes such a file.")
    for one in fields(Settings):
        check_type(one, getattr(settings, one.name))
    if settings.schedule != "constant" and settings.max_steps is None:
        raise ValueError(f"the {settings.schedule} schedule needs --max-steps, to know where it ends.")
    for name, allowed in CHOICES.items():
        if getattr(settings, name) not in allowed:
            raise ValueError(f"{name} must be {' or '.join(allowed)}, but is {getattr(settings, name)!r}.")
    for names, holds, wanted in (
        (AT_LEAST_ONE, lambda value: value >= 1, "at least 1"),
        (AT_LEAST_ZERO, lambda value: value >= 0, "0 or more"),
        (ABOVE_ZERO, lambda value: value > 0, "above 0"),
        (["dropout"], lambda value: value < 1, "below 1"),
        (["restart_rows"], lambda value: value <= 1, "at most 1"),
    ):
        for name in names:
            value = getattr(settings, name)
            if value is not None and not (holds(value) and math.isfinite(value)):
                raise ValueError(f"{name} must be {wanted}, but is {value}.")
    check_model(settings)
    settings.optimizer_settings()  # says what does not go together


def check_model(settings: Settings) -> None:
    for one in fields(Settings):
        if (
            settings.start is not None
            and one.name in MODEL
            and getattr(settings, one.name) != default_of(one)
        ):
            raise ValueError(f"{one.name} is that of the model of --start; leave it out.")


KINDS: dict[Any, tuple[Any, str]] = {
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
    str: (str, "a text"),
    bool: (bool, "true or false"),
    list[str]: (list, "a list of texts"),
}


def check_type(one: Field[Any], value: Any) -> None:
    """YAML gives what its writer wrote: `learning_rate: high`, `rows: 2.5`."""
    if one.name == "char_filters":
        return  # ElmoConfig says what is wrong with it
    kind, name = next(entry for type, entry in KINDS.items() if one.type in (type, type | None))
    if value is None and (one.default is None or one.name.endswith("_clip")):
        return
    is_wrong = isinstance(value, bool) and one.type is not bool
    is_wrong |= kind is list and not all(isinstance(part, str) for part in value)
    if is_wrong or not isinstance(value, kind):
        raise ValueError(f"{one.name} must be {name}, but is {value!r}.")
