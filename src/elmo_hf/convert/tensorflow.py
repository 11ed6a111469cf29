"""TensorFlow's files: bilm-tf's training checkpoints, TF-Hub modules, SavedModels, Spark NLP's annotators.

All of them hold the same variables under names that differ a little between versions. `hdf5_name` gives each
one its name in bilm-tf's HDF5, so the table of names is that of `bilm.py`. A training checkpoint also holds
the softmax and Adagrad's sums of squares. Files without an options.json tell the sizes by their shapes.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from elmo_hf.convert import bilm
from elmo_hf.convert.arrays import Arrays, Shape
from elmo_hf.convert.files import VOCABULARY, Recognised, distinct, list_files, read_json
from elmo_hf.convert.options import settings_from_options
from elmo_hf.convert.plan import Choices, Family, Plan
from elmo_hf.convert.table import Entry, Pairs, match
from elmo_hf.convert.tensor_bundle import BundleArrays, is_bundle
from elmo_hf.convert.tensor_zip import is_zip, unpack
from elmo_hf.convert.vocabulary import check_rows, read_tokenizer
from elmo_hf.errors import ElmoError, quoted
from elmo_hf.files import read_bytes
from elmo_hf.model.configuration_elmo import ElmoConfig
from elmo_hf.model.modeling_elmo import ElmoModel
from elmo_hf.model.modeling_elmo_pretraining import ElmoForPreTraining

CHECKPOINT, BESIDE = "checkpoint", "files of a checkpoint"
ROLES = {
    CHECKPOINT: "a TensorFlow checkpoint (.index) or Spark NLP's elmo_tensorflow",
    BESIDE: "files beside a checkpoint (.data-00000-of-00001, .meta)",
    "options": bilm.ROLES["options"],
    VOCABULARY: bilm.ROLES[VOCABULARY],
}
NEWEST = "checkpoint"  # the file that names the newest checkpoint of a folder
NAMES_BESIDE = {NEWEST, "saved_model.pb", "tfhub_module.pb"}


def role_of(path: Path) -> str | None:
    """The role of a file by its content, or None if it has none in this format."""
    if is_bundle(path) or is_zip(path):
        return CHECKPOINT
    if path.name in NAMES_BESIDE or re.fullmatch(r".+\.(data-\d{5}-of-\d{5}|meta)", path.name):
        return BESIDE
    return bilm.role_beside_weights(path)


def plan(files: Recognised, choices: Choices, open_files: ExitStack) -> Plan:
    """What to make of these files. A softmax needs its vocabulary, and is left out without one."""
    source, left = find_checkpoint(files)
    bundle = open_bundle(source, open_files)
    weights = Weights(bundle, find_scope(bundle, choices.name))
    options, vocabulary = files.get("options") or options_beside(source), files.get(VOCABULARY)
    settings, assumed = read_settings(weights, options, choices.settings)
    tokenizer = read_tokenizer(vocabulary, settings.get("max_characters_per_token", 50))
    has_softmax = weights.has_softmax and vocabulary is not None
    named_by_words = ("embedding", "softmax/W", "softmax/b") if has_softmax else ("embedding",)
    check_rows([weights], named_by_words, vocabulary, tokenizer)
    mix = find_mix(weights)
    if mix:
        settings, assumed = settings | {"num_mixes": 1}, [*assumed, MIX_ASSUMED]
    config = bilm.make_config(options or source, settings, tokenizer, weights)
    table = list(names_table(config, weights, has_softmax))
    ignored = SOFTMAX if weights.has_softmax and not has_softmax else ()
    pairs = match(weights, table, ignored) + pair_mix(bundle, mix, config)
    slots = Weights(bundle, weights.scope, ADAGRAD)
    accumulators, notes = pair_accumulators(slots, table, ignored)
    taken = {weights.variables[entry.array] for entry in table} | mix.keys()
    taken |= {slots.variables[entry.array] for _, entry in accumulators}
    copies = {"options.json": options, "vocab.txt": vocabulary}
    return Plan(
        family="variables of TensorFlow",
        files=roles_of(source, bundle, options, vocabulary),
        config=config,
        tokenizer=tokenizer,
        pairs=pairs,
        model_class=ElmoForPreTraining if has_softmax else ElmoModel,
        accumulators=accumulators,
        copies={name: path for name, path in copies.items() if path is not None},
        assumed=assumed,
        left=[*left, *notes, *describe_left(weights, taken)],
    )


# ---- names

CELL = re.compile(
    r"RNN_(?P<direction>[01])/(?:rnn|RNN)(?:/(?:multi_rnn_cell|MultiRNNCell)/(?:cell_|Cell)(?P<layer>\d{1,4}))?"
    r"(?:/rnn)?/(?:lstm_cell|LSTMCell)/(?P<kind>[\w/]+)"
)
KINDS = {
    "W_0": ("kernel", "weights", "W_0"),  # of TensorFlow since 1.2, 1.0 and before
    "B": ("bias", "biases", "B"),
    "W_P_0": ("projection/kernel", "projection/weights", "W_P_0"),
}
SOFTMAX = ("softmax/W", "softmax/b")
OTHERS = re.compile(
    r"char_embed|embedding|CNN/[Wb]_cnn_\d+|CNN_high_\d+/[Wb]_(?:carry|transform)|CNN_proj/[Wb]_proj|softmax/[Wb]"
)
ADAGRAD = "/Adagrad"  # ends the name of a variable's sums of squares
STATE = re.compile(r"Variable(_\d+)?")  # of the LSTMs, in bilm-tf's graph for inference


def hdf5_name(name: str) -> str | None:
    """The name in bilm-tf's HDF5 of a variable of a scope, or None if it is no weight of an ELMo."""
    cell = CELL.fullmatch(name)
    if cell is None:
        return name if OTHERS.fullmatch(name) else None
    kind = next((kind for kind, spellings in KINDS.items() if cell["kind"] in spellings), None)
    place = bilm.CELL.format(direction=cell["direction"], layer=int(cell["layer"] or 0))
    return f"{place}/{kind}" if kind else None


def find_scope(bundle: BundleArrays, wanted: str | None) -> str:
    """What precedes the names of an ELMo's variables: "lm/" in training, "bilm/" in modules."""
    places = {name: name.rfind("RNN_0/") for name in bundle.names if "RNN_0/" in name}
    scopes = sorted({name[:place] for name, place in places.items() if hdf5_name(name[place:])})
    if wanted is not None:
        scopes = [scope for scope in scopes if scope.strip("/") == wanted.strip("/")]
    if len(scopes) == 1:
        return scopes[0]
    if scopes:
        names = ", ".join(quoted(scope.strip("/"), 40) for scope in scopes[:5])
        raise ElmoError(f"{bundle.path} holds several models ({names}); give the name of one (--name).")
    one_way = re.compile(r"(?!.*RNN_)(.*/)?rnn/(multi_rnn_cell|lstm_cell)/.*")
    if any(map(one_way.fullmatch, bundle.names)):
        raise ElmoError(
            f"{bundle.path} holds a language model of one direction; ELMo needs both, so give another file."
        )
    which = f" named {quoted(wanted, 40)!r}" if wanted is not None else ""
    raise ElmoError(f"{bundle.path} holds no ELMo{which} (variables 'RNN_0/...'); give another file.")


class Weights(Arrays):
    """The variables of a scope by their names in HDF5, or Adagrad's sums of them.

    Args:
        suffix: ends the variables' names.
    """

    noun = "variable"

    def __init__(self, bundle: BundleArrays, scope: str, suffix: str = "") -> None:
        super().__init__(bundle.path)
        self.bundle, self.scope, self.suffix = bundle, scope, suffix
        self.variables: dict[str, str] = {}
        for variable in sorted(bundle.names):
            if not (variable.startswith(scope) and variable.endswith(suffix)):
                continue
            name = hdf5_name(variable[len(scope) : len(variable) - len(suffix)])
            if name in self.variables:
                raise self.error(name, f"is there twice, also as {quoted(variable)!r}")
            if name is not None:
                self.variables[name] = variable

    @property
    def has_softmax(self) -> bool:
        return "softmax/b" in self.variables and not {"softmax/W", "embedding"}.isdisjoint(self.variables)

    @property
    def names(self) -> set[str]:
        return set(self.variables)

    def shape(self, name: str) -> Shape | None:
        return self.bundle.shape(self.variables[name]) if name in self.variables else None

    def dtype(self, name: str) -> np.dtype:
        return self.bundle.dtype(self.variables[name])

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        return self.bundle.rows(self.variables[name], start, stop)

    def place(self, name: str) -> str:
        return self.bundle.place(self.variables.get(name, f"{self.scope}{name}{self.suffix}"))


def names_table(config: ElmoConfig, weights: Weights, has_softmax: bool) -> Iterator[Entry]:
    """That of HDF5, but for a row of padding before the characters, and a softmax that is the word table."""
    for entry in bilm.weights_table(config):
        if entry.array == "char_embed" and has_padding_row(weights):
            entry = replace(entry, shape=(1 + entry.shape[0], *entry.shape[1:]), first_row=1)
        yield entry
    for entry in bilm.softmax_table(config) if has_softmax else ():
        is_shared = entry.array == "softmax/W" and "softmax/W" not in weights.names
        yield replace(entry, array="embedding") if is_shared else entry


def has_padding_row(weights: Weights) -> bool:
    return (weights.shape("char_embed") or (0,))[:1] == (1 + bilm.CHARACTERS_IN_FILES,)


def pair_accumulators(
    slots: Weights, table: list[Entry], ignored: Collection[str]
) -> tuple[Pairs, list[str]]:
    """Adagrad's sums, which are there for all variables or for none."""
    if not slots.names:
        return [], []
    missing = sorted({entry.array for entry in table} - slots.names)
    if missing:
        return [], [f"Adagrad's sums of squares, as that of {missing[0]} is missing"]
    return match(slots, table, ignored), []


# ---- the trained mix of the layers in modules

MIX_ASSUMED = "aggregation/weights are mixed after a softmax, and aggregation/scaling multiplies the sum"


def find_mix(weights: Weights) -> dict[str, Shape]:
    """The variables of the mix with their shapes: its weights and its factor; empty if there are none."""
    above = weights.scope.rstrip("/").rpartition("/")
    prefix = "".join(above[:2])
    names = [f"{prefix}aggregation/{name}" for name in ("weights", "scaling")]
    shapes = {name: shape for name in names if (shape := weights.bundle.shape(name)) is not None}
    return shapes if len(shapes) == len(names) else {}


def pair_mix(bundle: BundleArrays, mix: Mapping[str, Shape], config: ElmoConfig) -> Pairs:
    pairs: Pairs = []
    shapes: list[Shape] = [(config.num_hidden_layers + 1,), ()]
    for name, parameter, shape in zip(mix, ("weights", "gamma"), shapes, strict=False):
        bundle.check_array(name, shape)
        pairs.append((bundle, Entry(name, shape, f"elmo.scalar_mix.{parameter}", itemgetter(0))))
    return pairs


# ---- files


def find_checkpoint(files: Recognised) -> tuple[Path, list[str]]:
    """The checkpoint to take, and what is said of others. The folder's file names the newest."""
    paths = files.all(CHECKPOINT)
    if len(distinct(paths)) == 1:
        return paths[0], []
    places = sorted({path.parent for path in paths})
    name = newest_checkpoint(places[0]) if len(places) == 1 and not files.has_named(CHECKPOINT) else None
    newest = [path for path in paths if path.name == f"{name}.index"]
    if not newest:
        names = ", ".join(path.name for path in paths[:5])
        raise ElmoError(f"there are several checkpoints in {places[0]} ({names}); name the .index of one.")
    others = [path.stem for path in paths if path not in newest]
    return newest[0], [
        f"{', '.join(others[:5])}, as the file {NEWEST!r} names {newest[0].stem} as the newest"
    ]


def newest_checkpoint(folder: Path) -> str | None:
    """The name in the file `checkpoint` of a training folder. A path before it may be another machine's."""
    if not (folder / NEWEST).is_file():
        return None
    content = read_bytes(folder / NEWEST, 1_000_000).decode("utf-8", "replace")
    line = re.search(r'^model_checkpoint_path: *"(?:.*[/\\])?([^"/\\]+)" *$', content, re.MULTILINE)
    return line[1] if line else None


def holds_checkpoint(path: Path) -> bool:
    """Whether this is a checkpoint, or a folder with one that is not a model of ours."""
    try:
        if path.is_file():
            return is_bundle(path) or is_zip(path)
        is_model = not path.is_dir() or (path / "config.json").exists()
    except OSError:  # a name that is too long, or no permission
        return False
    return not is_model and any(is_bundle(file) or is_zip(file) for file in list_files(path))


def options_beside(source: Path) -> Path | None:
    """The options.json of the training folder of a checkpoint that was named alone."""
    path = source.parent / "options.json"
    try:
        return path if path.is_file() and bilm.role_beside_weights(path) == "options" else None
    except ElmoError:  # no JSON
        return None


def open_bundle(source: Path, open_files: ExitStack) -> BundleArrays:
    if not is_zip(source):
        return open_files.enter_context(BundleArrays(source))
    index = unpack(source, open_files)
    try:
        bundle = open_files.enter_context(BundleArrays(index))
    except ElmoError as error:
        raise ElmoError(str(error).replace(str(index.parent), str(source))) from None
    bundle.path = source / index.name  # in messages
    return bundle


def roles_of(
    source: Path, bundle: BundleArrays, options: Path | None, vocabulary: Path | None
) -> dict[str, Path]:
    shards = [] if is_zip(source) else bundle.files
    numbers = {f"numbers {i + 1} of {len(shards)}": path for i, path in enumerate(shards)}
    others = {"options": options, VOCABULARY: vocabulary}
    return {CHECKPOINT: source, **numbers} | {role: path for role, path in others.items() if path is not None}


# ---- settings

ASSUMED: dict[str, tuple[Any, str]] = {
    "cell_clip": (3.0, "cells are clipped at 3 (--cell-clip)"),
    "proj_clip": (3.0, "outputs of LSTMs are clipped at 3 (--proj-clip)"),
    "use_skip_connections": (True, "layers have skip connections (--no-skip-connections)"),
    "char_activation": ("relu", "the activation of the convolutions is relu (--activation)"),
    "max_characters_per_token": (
        50,
        "a word has 50 characters at most, with its begin and end (--max-characters)",
    ),
}
OF_CHARACTERS = ("char_activation", "max_characters_per_token")


def read_settings(
    weights: Weights, options: Path | None, chosen: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """The settings of the model, and those that the files do not hold, as sentences."""
    if options is not None:
        return settings_from_options(options, read_json(options)) | dict(chosen), []
    settings = settings_from_shapes(weights)
    has_characters = settings["token_encoder"] == "characters"
    assumed = {name: pair for name, pair in ASSUMED.items() if has_characters or name not in OF_CHARACTERS}
    settings |= {name: value for name, (value, _) in assumed.items()} | dict(chosen)
    return settings, [sentence for name, (_, sentence) in assumed.items() if name not in chosen]


def settings_from_shapes(weights: Weights) -> dict[str, Any]:
    def sizes(name: str, rank: int) -> Shape:
        shape = weights.shape(name)
        if shape is None:
            raise weights.error(name, "is missing", weights.other_options)
        if len(shape) != rank:
            raise weights.error(name, f"must have {rank} dimensions, but has shape {shape}")
        return shape

    cell = "RNN_0/RNN/MultiRNNCell/Cell{}/LSTMCell/B"
    settings: dict[str, Any] = {
        "lstm_dim": sizes(cell.format(0), 1)[0] // 4,
        "num_hidden_layers": weights.count(cell),
    }
    if "char_embed" not in weights.names:
        return settings | {"token_encoder": "words", "projection_dim": sizes("embedding", 2)[1]}
    filters = [sizes(f"CNN/W_cnn_{i}", 4)[1::2] for i in range(weights.count("CNN/W_cnn_{}"))]
    is_projected = "CNN_proj/W_proj" in weights.names
    return settings | {
        "token_encoder": "characters",
        "char_embedding_dim": sizes("char_embed", 2)[1],
        "char_filters": [list(pair) for pair in filters],
        "num_highway_layers": weights.count("CNN_high_{}/W_carry"),
        "projection_dim": sizes("CNN_proj/W_proj", 2)[1] if is_projected else sum(n for _, n in filters),
    }


# ---- what is left out


def describe_left(weights: Weights, taken: Collection[str]) -> Iterator[str]:
    bundle, left = weights.bundle, sorted(weights.bundle.names - set(taken))
    if "softmax/b" in weights.names and weights.variables["softmax/b"] not in taken:
        yield f"the softmax ({weights.scope}softmax/...); give its vocabulary (.txt) to take it, too"
        left = [name for name in left if not name.startswith(weights.scope + "softmax/")]
    elif weights.has_softmax and "softmax/W" not in weights.names:
        yield "that the words' table and the softmax are one; each has its copy"
    if (
        "global_step" in left
        and bundle.shape("global_step") == ()
        and bundle.dtype("global_step").kind in "if"
    ):
        left.remove("global_step")
        yield f"global_step, the counter of training steps ({bundle.rows('global_step', 0, 1).item():.0f})"
    states = [name for name in left if STATE.fullmatch(name.removeprefix(weights.scope))]
    for names, what in (
        (states, "states of the LSTMs"),
        (sorted(set(left) - set(states)), "other variables"),
    ):
        if names:
            more = ", ..." if len(names) > 3 else ""
            yield f"{what} ({', '.join(quoted(name, 60) for name in names[:3])}{more})"


FAMILY = Family(ROLES, role_of, mains=(CHECKPOINT,), plan=plan)
