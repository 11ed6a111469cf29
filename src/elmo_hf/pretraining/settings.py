# ruff: noqa: RUF009 (`setting` makes dataclass fields)
"""The settings of a pretraining run: defaults, command line, YAML file, checks.

The defaults are the paper's recipe. A YAML file (`--config runs/paper.yaml`) sets any of them by name, and
options on the command line override the file.
"""

import argparse
import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from reprlib import repr as short
from typing import Any

from elmo_hf.errors import ElmoError, StoreOnce, program_name
from elmo_hf.files import read_bytes
from elmo_hf.hub.reading import MAX_BYTES, parse_yaml
from elmo_hf.model.configuration_elmo import ElmoConfig
from elmo_hf.pretraining.optimizers import SCHEDULES, OptimizerSettings
from elmo_hf.pretraining.trackers import tracker_names

LARGEST = 2**63  # of a number
UNPLANNED = 2**40  # steps of a run whose end is a time, until its speed is known
# The ranges of settings, as messages name them.
RANGES: dict[str, Callable[[float], bool]] = {
    "at least 1": lambda value: value >= 1,
    "at least 2": lambda value: value >= 2,
    "0 or more": lambda value: value >= 0,
    "above 0": lambda value: value > 0,
    "below 1": lambda value: value < 1,
    "at most 1": lambda value: value <= 1,
    "at most 4096": lambda value: value <= 4096,
}


def setting(default: Any, help: str, *ranges: str, choices: Sequence[str] | None = None) -> Any:
    """A field with a text for `--help`, and the values that it may have."""
    metadata = {"help": help, "ranges": ranges, "choices": choices}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass
class Settings:
    """All settings of a run. `python -m elmo_hf.pretraining --help` prints what each one means."""

    # ---- text
    data: list[str] = setting([], "text files, globs, a folder, or the name of a dataset on the Hub")
    split: str = setting("train", "split of a dataset on the Hub")
    subset: str | None = setting(None, "configuration of a dataset on the Hub")
    column: str | None = setting(None, "column to read; by default 'text' or 'tokens'")
    raw: bool = setting(False, "split text into words by the tokenizer's rules, not at whitespace")
    split_sentences: bool = setting(False, "split each line, a paragraph, into sentences")
    shuffle_sentences: int = setting(100_000, "sentences in the shuffle buffer; 0: no shuffling", "0 or more")
    shared_reading: bool = setting(False, "both directions read the same sentences at the same time")
    check_text: str = setting(
        "all",
        "on resuming, compare the text files by size and checksum (all), or by size alone (sizes)",
        choices=["all", "sizes"],
    )
    workers: int = setting(1, "text-reading processes for each training process; 0: none", "0 or more")
    vocab: str | None = setting(None, "file of `elmo-hf vocab`; by default the vocabulary of the start model")
    # ---- the run
    output: str = setting("", "folder of the run: checkpoints, log, final model")
    resume: str = setting("no", "no; auto: from the newest checkpoint, if any; or a checkpoint's folder")
    start: str | None = setting(
        None, "trained model to start from: a folder, a name on the Hub, or a TensorFlow checkpoint"
    )
    seed: int = setting(0, "seed of weights, dropout, samples and the order of sentences", "0 or more")
    processes: int | None = setting(None, "refuse to run in another number of processes", "at least 1")
    timeout: float = setting(
        300.0, "seconds to wait for other processes: at the start, and for a sign of life", "at least 1"
    )
    threads: int | None = setting(
        None,
        "threads of each process on a CPU; by default its share of the machine's cores",
        "at least 1",
        "at most 4096",
    )
    # ---- the model (with start, that model's own)
    lstm_dim: int = setting(4096, "cell size of an LSTM, per direction")
    projection_dim: int = setting(512, "output size of an LSTM, per direction, and size of a word vector")
    num_hidden_layers: int = setting(2, "number of biLSTM layers")
    char_embedding_dim: int = setting(16, "size of a character embedding")
    char_filters: list[list[int]] = setting(
        [[1, 32], [2, 32], [3, 64], [4, 128], [5, 256], [6, 512], [7, 1024]],
        "convolutions over characters: [[width, number of filters], ...]",
    )
    char_activation: str = setting("relu", "relu or tanh, after the convolutions", choices=["relu", "tanh"])
    num_highway_layers: int = setting(2, "number of highway layers after the convolutions")
    max_characters_per_token: int = setting(50, "longest word in bytes, with two for its begin and end")
    token_encoder: str = setting(
        "characters", "characters, or words for a table of word vectors", choices=["characters", "words"]
    )
    cell_clip: float | None = setting(3.0, "limit of the LSTMs' cell values; none: no limit")
    proj_clip: float | None = setting(3.0, "limit of the LSTMs' projected outputs; none: no limit")
    # ---- the recipe
    rows: int = setting(384, "batch size: rows of running text, over all processes", "at least 1")
    window: int = setting(20, "words per row and window: the length of backpropagation", "at least 1")
    restart_rows: float = setting(
        0.0, "share of rows whose LSTM states are reset before each window", "0 or more", "at most 1"
    )
    samples: int = setting(8192, "negative samples of the softmax; 0: full softmax", "0 or more")
    epochs: int = setting(10, "passes over the text, in each direction", "at least 1")
    max_steps: int | None = setting(None, "number of updates after which the run ends", "at least 1")
    max_minutes: float | None = setting(
        None, "minutes after which the run ends; a schedule is fitted to them", "above 0"
    )
    accumulate: int = setting(1, "windows per update, whose gradients are added up", "at least 1")
    optimizer: str = setting("adagrad", "adagrad or adamw", choices=["adagrad", "adamw"])
    learning_rate: float = setting(0.2, "peak learning rate", "above 0")
    schedule: str = setting(
        "constant", "constant; linear or cosine, which fall to zero at the run's end", choices=SCHEDULES
    )
    warmup_steps: int = setting(0, "updates in which the learning rate rises from zero", "0 or more")
    weight_decay: float = setting(0.0, "weight decay of adamw", "0 or more")
    loss_scale: float = setting(20.0, "factor on the loss, for its gradient; 20 as in bilm-tf", "above 0")
    clip: float = setting(10.0, "largest norm of the gradient", "above 0")
    dropout: float = setting(0.1, "dropout at each layer's input and at the output", "0 or more", "below 1")
    precision: str = setting("no", "type of the products: no (float32) or bf16", choices=["no", "bf16"])
    # ---- evaluating, saving, logging
    heldout: list[str] = setting([], "files of held-out text whose perplexity is logged")
    heldout_every: int | None = setting(
        None,
        "hold out every so many lines of the text: to be evaluated, and not trained on",
        "at least 2",
    )
    evaluate_every: int = setting(0, "updates between evaluations; 0: each epoch and at the end", "0 or more")
    evaluation_states: str = setting(
        "zero", "LSTM states before a held-out sentence: zero or carried", choices=["zero", "carried"]
    )
    save_every: int = setting(1000, "updates between checkpoints", "at least 1")
    keep: int = setting(2, "number of checkpoints to keep", "at least 1")
    keep_every: int = setting(0, "keep a checkpoint of every so many updates as well; 0: none", "0 or more")
    log_every: int = setting(20, "updates between entries of the log", "at least 1")
    trackers: list[str] = setting([], "accelerate's trackers, such as tensorboard, trackio, wandb; or none")
    audit: bool = setting(False, "log which sentences each update reads, in audit-*.jsonl")

    def model_config(self, **of_words: Any) -> ElmoConfig:
        names = [field.name for field in fields(ElmoConfig) if field.name in self.__dataclass_fields__]
        return ElmoConfig(**{name: getattr(self, name) for name in names}, **of_words)

    def optimizer_settings(self) -> OptimizerSettings:
        return OptimizerSettings(
            name=self.optimizer,
            learning_rate=self.learning_rate,
            clip=self.clip,
            schedule=self.schedule,
            warmup_steps=self.warmup_steps,
            total_steps=UNPLANNED if self.max_steps is None and self.max_minutes else self.max_steps,
            weight_decay=self.weight_decay,
        )


# Sections of --help, by their first setting.
GROUPS = {
    "data": "text",
    "output": "the run",
    "lstm_dim": "the model (with --start, that model's own)",
    "rows": "the recipe",
    "heldout": "evaluating, saving, logging",
}
# Settings of the architecture, which a trained model brings with it.
MODEL = [
    *("lstm_dim", "projection_dim", "num_hidden_layers", "char_embedding_dim", "char_filters"),
    *("char_activation", "num_highway_layers", "max_characters_per_token", "token_encoder"),
    *("cell_clip", "proj_clip"),
]
# Settings that a resumed run cannot change.
FIXED_ON_RESUME = [
    *("split", "subset", "column", "raw", "split_sentences", "shuffle_sentences", "shared_reading", "seed"),
    *("heldout_every", "start", "window", "samples", "optimizer", "loss_scale", "precision", *MODEL),
]


# ---- command line and YAML


def read_settings(arguments: list[str] | None = None) -> Settings:
    """Read and check the settings of the command line, and of the YAML file that `--config` names.

    Args:
        arguments: those of the command line, by default `sys.argv[1:]`.

    Raises:
        ElmoError: a setting is unknown, or has a wrong value.
    """
    options = vars(make_parser().parse_args(arguments))
    path = options.pop("config", None)
    settings = Settings(**(read_yaml(Path(path)) if path else {}) | options)
    check(settings)
    settings.trackers = tracker_names(settings.trackers)
    return settings


def make_parser() -> argparse.ArgumentParser:
    program = program_name()
    parser = argparse.ArgumentParser(
        prog=program,
        usage=f"{program} [--config FILE] [--data TEXT ...] [--vocab VOCAB] [--output OUTPUT] [options]",
        description="Pretrain an ELMo. Options override the settings of --config. (Defaults in parentheses.)",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument(
        "--config", metavar="FILE", help="YAML file of settings, such as training/runs/paper.yaml"
    )
    group: Any = parser
    for field in fields(Settings):
        if field.name in GROUPS:
            group = parser.add_argument_group(GROUPS[field.name])
        group.add_argument(*option_strings(field.name), **argument(field))
    return parser


def default_of(field: Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def option_strings(name: str) -> list[str]:
    """max_steps -> --max-steps, --max_steps"""
    others = ["--report-to", "--report_to"] if name == "trackers" else []  # as the Trainer calls it
    return [f"--{name.replace('_', '-')}", *([f"--{name}"] if "_" in name else []), *others]


def argument(field: Field[Any]) -> dict[str, Any]:
    """What `add_argument` is called with."""
    help = f"{field.metadata['help']} ({json.dumps(default_of(field))})".replace("%", "%%")
    if field.type is bool:
        return {"action": argparse.BooleanOptionalAction, "help": help}
    if field.type == list[str]:
        return {"action": StoreOnce, "help": help, "metavar": "TEXT"}
    parsers: dict[Any, Any] = {int: int, int | None: int, float: float, float | None: number_or_none}
    parse = json.loads if field.name == "char_filters" else parsers.get(field.type, str)
    return {"type": parse, "help": help, "choices": field.metadata["choices"]}


def number_or_none(text: str) -> float | None:
    return None if text.lower() in ("none", "null") else float(text)


def read_yaml(path: Path) -> dict[str, Any]:
    if not os.path.exists(path):  # noqa: PTH110 (`path.exists` raises for names that are too long)
        raise ElmoError(f"there is no settings file {path}.")
    try:
        text = read_bytes(path, MAX_BYTES).decode("utf-8")
    except UnicodeDecodeError:
        raise ElmoError(f"{path} is no text in UTF-8.") from None
    content = parse_yaml(str(path), text)
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise ElmoError(f"{path} must hold `name: value` lines.")
    values = {str(name).replace("-", "_"): value for name, value in content.items()}
    unknown = [name for name in values if name not in Settings.__dataclass_fields__]
    if unknown:
        raise ElmoError(f"{path}: there is no setting '{unknown[0]}'; see --help.")
    return {name: with_type(name, value) for name, value in values.items()}


def with_type(name: str, value: Any) -> Any:
    """Convert what YAML reads otherwise: a bare `no` as false, 1e-3 as a string, one file for a list."""
    expected = Settings.__dataclass_fields__[name].type
    if expected is str and value is False:
        return "no"
    if expected in (float, float | None) and isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value)
    return [value] if expected == list[str] and isinstance(value, str) else value


# ---- checks


def check(settings: Settings) -> None:
    """Raise an ElmoError for the first wrong value, or wrong combination of values."""
    if not settings.data:
        raise ElmoError("there is no --data; name the text to read.")
    if not settings.output:
        raise ElmoError("there is no --output; name a folder for the run.")
    if settings.vocab is None and settings.start is None:
        raise ElmoError("there is no --vocab; name a vocabulary, which `elmo-hf vocab` makes.")
    for field in fields(Settings):
        check_type(field, getattr(settings, field.name))
    for field in fields(Settings):
        check_value(field, getattr(settings, field.name))
    check_model(settings)
    if settings.schedule != "constant" and settings.max_steps is None and settings.max_minutes is None:
        raise ElmoError(
            f"the {settings.schedule} schedule needs --max-steps or --max-minutes, to know where it ends."
        )
    if settings.keep_every % settings.save_every:
        raise ElmoError(
            f"keep_every must be a multiple of save_every, {settings.save_every}, when checkpoints are "
            f"written, but is {settings.keep_every}."
        )
    settings.optimizer_settings()  # checks the combinations of the optimizer's settings


def check_value(field: Field[Any], value: Any) -> None:
    allowed = field.metadata["choices"]
    if allowed and value not in allowed:
        raise ElmoError(f"{field.name} must be {' or '.join(allowed)}, but is {short(value)}.")
    for name in field.metadata["ranges"]:
        if value is not None and not (RANGES[name](value) and abs(value) < LARGEST):
            raise ElmoError(f"{field.name} must be {name}, but is {short(value)}.")


def check_model(settings: Settings) -> None:
    if settings.start is None:
        return
    for field in fields(Settings):
        if field.name in MODEL and getattr(settings, field.name) != default_of(field):
            raise ElmoError(f"{field.name} is fixed by the model of --start; leave it out.")


TYPES: dict[Any, tuple[Any, str]] = {
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
    str: (str, "a text"),
    bool: (bool, "true or false"),
    list[str]: (list, "a list of texts"),
}


def check_type(field: Field[Any], value: Any) -> None:
    """YAML may hold any type: `learning_rate: high`, `rows: 2.5`."""
    if field.name == "char_filters":
        return  # ElmoConfig checks it
    expected, name = next(entry for type, entry in TYPES.items() if field.type in (type, type | None))
    if value is None and (field.default is None or field.name.endswith("_clip")):
        return
    is_wrong = isinstance(value, bool) and field.type is not bool
    is_wrong |= not isinstance(value, expected)
    is_wrong = is_wrong or (expected is list and not all(isinstance(item, str) for item in value))
    if is_wrong:
        raise ElmoError(f"{field.name} must be {name}, but is {short(value)}.")
