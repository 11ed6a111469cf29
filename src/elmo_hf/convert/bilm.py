"""AllenNLP's and bilm-tf's HDF5 files: what to make of them, and the way back, every number unchanged.

    convert_to_bilm(Path("elmo"), Path("elmo-as-bilm"))

The format: HDF5 weights, their sizes in an options.json, and, optionally, the language model's softmax, a
table of word vectors, and the vocabulary that names the rows of both. `weights_table` and `softmax_table`
pair the names in HDF5 with our parameters; both directions use them.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from torch import Tensor, equal

from elmo_hf.convert.arrays import Arrays, Shape
from elmo_hf.convert.files import VOCABULARY, Recognised, read_json
from elmo_hf.convert.hdf5 import Hdf5Arrays, is_hdf5, top_names
from elmo_hf.convert.options import settings_from_options, without_characters, write_options
from elmo_hf.convert.plan import Choices, Family, Plan
from elmo_hf.convert.table import Entry, Pairs, match, without_padding, write_hdf5
from elmo_hf.convert.vocabulary import check_rows, copy_vocabulary, read_tokenizer
from elmo_hf.errors import ElmoError, reason_of
from elmo_hf.files import new_folder
from elmo_hf.loading import vocabulary_fields
from elmo_hf.model.configuration_elmo import ElmoConfig
from elmo_hf.model.modeling_elmo import ElmoModel
from elmo_hf.model.modeling_elmo_pretraining import ElmoForPreTraining
from elmo_hf.model.tokenization_elmo import ElmoTokenizer

logger = logging.getLogger(__name__)


def convert_from_bilm(sources: Sequence[Path], target: Path) -> Path:
    """Convert HDF5 weights (AllenNLP, bilm-tf), as `convert` does, and no other format.

    Returns:
        `target`, with an `ElmoForPreTraining` if a softmax is among the files, otherwise an `ElmoModel`.
    """
    from elmo_hf.convert.conversion import convert  # which imports this module for `FAMILY`

    convert(sources, target, families=[FAMILY])
    return Path(target)


def plan(files: Recognised, choices: Choices, open_files: ExitStack) -> Plan:
    """What to make of these files. A word table that is named as a file replaces the characters."""
    taken = find_files(files)
    settings = settings_from_options(taken.options, read_json(taken.options))
    if taken.table_is_named:
        settings = without_characters(settings)
    elif settings["token_encoder"] == "characters":
        taken.table = None  # the characters encode every word, those of the table included
    settings |= choices.settings
    tokenizer = read_tokenizer(taken.vocabulary, settings.get("max_characters_per_token", 50))
    arrays = open_arrays(taken, open_files)
    check_rows(arrays.opened(), ("embedding", "softmax/W"), taken.vocabulary, tokenizer)
    config = make_config(taken.options, settings, tokenizer, arrays.weights)
    return Plan(
        family="an HDF5 file of bilm-tf's layout",
        files=taken.roles(),
        config=config,
        tokenizer=tokenizer,
        pairs=pair_up(config, arrays),
        model_class=ElmoModel if arrays.softmax is None else ElmoForPreTraining,
        copies=taken.copies(),
    )


def convert_to_bilm(folder: Path, target: Path) -> Path:
    """Convert a Transformers folder to the originals' files, each array equal to the byte.

    >>> sorted(path.name for path in convert_to_bilm(TINY, Path("back")).iterdir())
    ['options.json', ...]

    Args:
        folder: The folder of an `ElmoModel` or an `ElmoForPreTraining`.
        target: The folder to write weights.hdf5, options.json and so on into. It must not exist, or be empty.

    Returns:
        `target`.

    Raises:
        ElmoError: The model cannot be loaded, or the format cannot hold it: it has letters of its own, LSTMs
            that are stacked in each direction, or numbers that float32 cannot hold. Nothing is written then.
    """
    folder, target = Path(folder), Path(target)
    with new_folder(target) as output:
        model = load(folder)
        check_held(folder, model.config)
        warn_of_left_out(folder, model.config)
        parameters = as_float32(folder, model.state_dict())
        write_hdf5(output / "weights.hdf5", weights_table(model.config), parameters)
        if isinstance(model, ElmoForPreTraining):
            write_hdf5(output / "softmax.hdf5", softmax_table(model.config), parameters)
        write_options(folder / "options.json", model.config, output / "options.json")
        if os.path.lexists(folder / "vocab.txt"):
            copy_vocabulary(folder / "vocab.txt", output / "vocab.txt")
    return target


# ---- the table of names

CHARACTERS_IN_FILES = 261  # without the row of padding


# Where a layer's arrays are; bilm-tf wrote a single layer in a way that its own reader does not know.
CELL = "RNN_{direction}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"
SINGLE_CELL = "RNN_{direction}/RNN/LSTMCell"


def weights_table(config: ElmoConfig, cell: str = CELL) -> Iterator[Entry]:
    """Every array of weights.hdf5."""
    yield from word_table(config) if config.token_encoder == "words" else character_table(config)
    yield from lstm_table(config, cell)


def word_table(config: ElmoConfig) -> Iterator[Entry]:
    shape = (config.vocab_size, config.projection_dim)
    yield Entry("embedding", shape, "elmo.token_encoder.word_embedding.weight")


def character_table(config: ElmoConfig) -> Iterator[Entry]:
    encoder, dim, filters = "elmo.token_encoder", config.char_embedding_dim, config.num_filters
    shape: Shape = (CHARACTERS_IN_FILES, dim)
    yield Entry("char_embed", shape, f"{encoder}.char_embedding.weight", without_padding)
    for i, (width, number) in enumerate(config.char_filters or []):
        convolution = f"{encoder}.convolutions.{i}"
        yield Entry(f"CNN/W_cnn_{i}", (1, width, dim, number), f"{convolution}.weight", _as_tensorflow)
        yield Entry(f"CNN/b_cnn_{i}", (number,), f"{convolution}.bias")
    for k in range(config.num_highway_layers):
        for gate in ("carry", "transform"):
            linear = f"{encoder}.highways.{k}.{gate}"
            yield Entry(f"CNN_high_{k}/W_{gate}", (filters, filters), f"{linear}.weight", _transposed)
            yield Entry(f"CNN_high_{k}/b_{gate}", (filters,), f"{linear}.bias")
    if config.has_char_projection:
        shape = (filters, config.projection_dim)
        yield Entry("CNN_proj/W_proj", shape, f"{encoder}.projection.weight", _transposed)
        yield Entry("CNN_proj/b_proj", (config.projection_dim,), f"{encoder}.projection.bias")


def lstm_table(config: ElmoConfig, cell_name: str = CELL) -> Iterator[Entry]:
    cells, output = config.lstm_dim, config.output_dim
    for layer in range(config.num_hidden_layers):
        width, name = config.projection_dim if layer == 0 else output, f"elmo.layers.{layer}"
        for direction in range(2):  # forward, backward
            cell = cell_name.format(direction=direction, layer=layer)
            half, shape = itemgetter(direction), (width + output, 4 * cells)
            yield Entry(f"{cell}/W_0", shape, f"{name}.input_weight", half)
            yield Entry(f"{cell}/W_0", shape, f"{name}.recurrent_weight", half, first_row=width)
            yield Entry(f"{cell}/B", (4 * cells,), f"{name}.bias", half)
            if config.has_lstm_projection:
                yield Entry(f"{cell}/W_P_0", (cells, output), f"{name}.projection", half)


def softmax_table(config: ElmoConfig) -> Iterator[Entry]:
    """Every array of softmax.hdf5."""
    yield Entry("softmax/W", (config.vocab_size, config.output_dim), "lm_head.weight")
    yield Entry("softmax/b", (config.vocab_size,), "lm_head.bias")


def _transposed(weight: Tensor) -> Tensor:
    return weight.T


def _as_tensorflow(kernel: Tensor) -> Tensor:
    """(filters, dim, width) -> (1, width, dim, filters)"""
    return kernel.permute(2, 1, 0).unsqueeze(0)


# ---- the files

ROLES = {
    "weights": "weights (HDF5 with 'RNN_0')",
    "softmax": "a softmax (HDF5 with 'softmax')",
    "table": "a word table (HDF5 with only 'embedding')",
    "options": "options (.json with 'lstm')",
    VOCABULARY: "a vocabulary (.txt)",
}


def role_of(path: Path) -> str | None:
    """The role of a file by its content, or None if it has none in this format."""
    suffix = path.suffix.lower()
    if suffix in (".hdf5", ".h5") or is_hdf5(path):
        names = top_names(path)
        fits = {"weights": "RNN_0" in names, "softmax": "softmax" in names, "table": names == {"embedding"}}
        return next((role for role, is_true in fits.items() if is_true), None)
    return role_beside_weights(path)


def role_beside_weights(path: Path) -> str | None:
    """The role of a file that other formats of these models have as well."""
    suffix = path.suffix.lower()
    if suffix == ".json":
        content = read_json(path)
        return "options" if isinstance(content, dict) and "lstm" in content else None
    return VOCABULARY if suffix == ".txt" and "vocab" in path.name.lower() else None


@dataclass
class Files:
    weights: Path
    options: Path
    softmax: Path | None
    vocabulary: Path | None
    table: Path | None
    table_is_named: bool

    def roles(self) -> dict[str, Path]:
        paths = {role: getattr(self, role) for role in ROLES}
        return {role: path for role, path in paths.items() if path is not None}

    def copies(self) -> dict[str, Path]:
        """The tokenizer's own copy of a vocabulary may differ in line ends."""
        vocabulary = {"vocab.txt": self.vocabulary} if self.vocabulary is not None else {}
        return {"options.json": self.options, **vocabulary}


def find_files(files: Recognised) -> Files:
    weights, options = files.get("weights"), files.get("options")
    softmax, vocabulary = files.get("softmax"), files.get(VOCABULARY)
    named_table = files.get_named("table")
    if weights is None:
        raise files.missing("weights")
    if options is None:
        raise files.missing("options")
    table = named_table or files.get("table")
    return Files(weights, options, softmax, vocabulary, table, table_is_named=named_table is not None)


# ---- files -> model


@dataclass(frozen=True)
class OpenFiles:
    weights: Hdf5Arrays
    table: Hdf5Arrays | None  # only if it is the token encoder
    softmax: Hdf5Arrays | None

    def opened(self) -> list[Hdf5Arrays]:
        return [arrays for arrays in (self.weights, self.table, self.softmax) if arrays is not None]


def open_arrays(files: Files, open_files: ExitStack) -> OpenFiles:
    def optional(path: Path | None) -> Hdf5Arrays | None:
        return open_files.enter_context(Hdf5Arrays(path)) if path is not None else None

    weights = open_files.enter_context(Hdf5Arrays(files.weights))
    return OpenFiles(weights, optional(files.table), optional(files.softmax))


def make_config(
    path: Path, settings: dict[str, Any], tokenizer: ElmoTokenizer, weights: Arrays
) -> ElmoConfig:
    """The config alone: no parameter is allocated before its size in the options matches the files."""
    if settings["token_encoder"] == "characters":
        # bilm-tf has a projection only if the sizes differ, AllenNLP always.
        num_filters = sum(number for _, number in settings["char_filters"])
        is_stored = any(name.startswith("CNN_proj/") for name in weights.names)
        settings = {**settings, "char_projection": is_stored or num_filters != settings["projection_dim"]}
    settings = {**settings, **vocabulary_fields(tokenizer)}
    try:
        return ElmoConfig(**settings)
    except ValueError as error:
        raise ElmoError(f"{path}: {str(error).rstrip('.')}; correct it.") from error


def pair_up(config: ElmoConfig, arrays: OpenFiles) -> Pairs:
    """Every entry of the tables with the file that holds its array."""
    cell = (
        SINGLE_CELL if any(name.startswith("RNN_0/RNN/LSTMCell/") for name in arrays.weights.names) else CELL
    )
    if arrays.table is None:
        pairs = match(arrays.weights, weights_table(config, cell))
    else:
        replaced = {name for name in arrays.weights.names if name.startswith(("char_embed", "CNN"))}
        pairs = match(arrays.table, word_table(config))
        pairs += match(arrays.weights, lstm_table(config, cell), replaced)
    return pairs + (match(arrays.softmax, softmax_table(config)) if arrays.softmax is not None else [])


FAMILY = Family(ROLES, role_of, mains=("weights",), plan=plan)


# ---- model -> files


def load(folder: Path) -> ElmoModel | ElmoForPreTraining:
    """The model of a folder. Missing weights are an error, weights that the format cannot hold a warning.

    Unlike `elmo_hf.loading`, it never asks the Hub, and it reports such weights.
    """
    content = read_json(folder / "config.json")
    if not isinstance(content, dict) or content.get("model_type") != ElmoConfig.model_type:
        raise ElmoError(f"{folder / 'config.json'} is not of an ELMo; give a folder saved by ElmoModel.")
    has_softmax = content.get("architectures") == ["ElmoForPreTraining"]
    model_class: Any = ElmoForPreTraining if has_softmax else ElmoModel
    try:
        model, report = model_class.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # Transformers passes on whatever JSON, safetensors or torch raise
        raise ElmoError(f"{folder} cannot be loaded ({reason_of(error)}); save the model again.") from error
    for name in report["missing_keys"]:
        raise ElmoError(f"{folder}: the weights lack '{name}'; save the model again.")
    if report["unexpected_keys"]:
        logger.warning("%s: this format cannot hold %s; left out", folder, report["unexpected_keys"])
    return model


def check_held(folder: Path, config: ElmoConfig) -> None:
    """Refuse a model of another family, which the format has no arrays for, or a reader would misread."""
    reads_words = config.token_encoder == "words"
    parts = {
        "LSTMs that are stacked in each direction": config.stacked_lstm_layers > 0,
        "letters of its own, or words beside them": not reads_words and not config.reads_bytes,
        "a projection of its table of words": reads_words and config.word_embedding_dim > 0,
        f"LSTMs of {config.lstm_dim} cells with {config.projection_dim} outputs, as it has them": (
            config.has_lstm_projection != (config.projection_dim < config.lstm_dim)
        ),
    }
    for part, is_there in parts.items():
        if is_there:
            raise ElmoError(f"{folder} has {part}, which bilm-tf's format cannot hold; keep it as it is.")


def warn_of_left_out(folder: Path, config: ElmoConfig) -> None:
    parts = {
        "the warm initial state": config.has_warm_state,
        "the trained mix of its layers": config.num_mixes > 0,
    }
    for part, is_there in parts.items():
        if is_there:
            logger.warning("%s: this format cannot hold %s, which is left out", folder, part)


def as_float32(folder: Path, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """Parameters in float32, the only type of the format; an error if that would change a number."""
    for name, values in parameters.items():
        if not equal(values.float().to(values.dtype), values):
            raise ElmoError(
                f"{folder}: parameter '{name}' holds NaN or more digits than float32; save other numbers."
            )
    return {name: values.float() for name, values in parameters.items()}
