"""AllenNLP's and bilm-tf's files to a Transformers folder and back, every number unchanged.

    convert_from_bilm([Path("elmo_weights.hdf5"), Path("elmo_options.json")], Path("elmo"))
    convert_to_bilm(Path("elmo"), Path("elmo-as-bilm"))

The format: HDF5 weights, their shape in an options.json, and, where there are any, the language model's
softmax, a table of word vectors, and the vocabulary that names the rows of both. Files of this kind were
published under all sorts of names, so they are known by what is in them.

Two tables hold all there is to know, and both directions use them: `LSTM_OPTIONS` and `CHARACTER_OPTIONS`
pair the options with ElmoConfig, `weights_table` and `softmax_table` pair datasets with parameters.
"""

import json
import logging
import reprlib
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import h5py
import torch
from torch import Tensor

from elmo_hf.convert.files import Files, recognise
from elmo_hf.convert.hdf5 import Hdf5Arrays, Shape, check_readable, read_json
from elmo_hf.errors import ElmoError, reason_of
from elmo_hf.files import new_folder
from elmo_hf.model.configuration_elmo import ElmoConfig
from elmo_hf.model.modeling_elmo import ElmoModel
from elmo_hf.model.modeling_elmo_pretraining import ElmoForPreTraining
from elmo_hf.model.tokenization_elmo import ElmoTokenizer
from elmo_hf.model.words_elmo import read_vocabulary

logger = logging.getLogger(__name__)

MAX_VOCABULARY_BYTES = 1 << 28
CHARACTERS_IN_FILES = 261


def convert_from_bilm(sources: Sequence[Path], target: Path) -> Path:
    """A published ELMo (AllenNLP, bilm-tf) becomes a Transformers folder, as by `elmo-hf convert`.

    The model is an `ElmoForPreTraining` where a softmax is among the files, otherwise an `ElmoModel`.

    Args:
        sources: a folder, or files, known by their content: the weights' HDF5, options.json, and, where there
            are any, the softmax, the vocabulary and a table of word vectors.
        target: the folder to write, which is returned; it must not exist, or be empty.
    """
    target = Path(target)
    with new_folder(target) as output, ExitStack() as open_files:
        files = recognise([Path(source) for source in sources])
        settings = settings_from_options(files.options, read_json(files.options))
        if files.table_is_named:
            settings = without_characters(settings)
        elif settings["token_encoder"] == "characters":
            files.table = None  # it only lies beside the characters, which can do every word
        files.log()
        tokenizer = read_tokenizer(files.vocabulary, settings)
        arrays = open_arrays(files, open_files)
        check_words(arrays, files.vocabulary, tokenizer)
        config = make_config(files.options, settings, tokenizer, arrays.weights)
        model = build(config, pair_up(config, arrays), with_head=arrays.softmax is not None)
        model.save_pretrained(output)
        tokenizer.save_pretrained(output)
        shutil.copyfile(files.options, output / "options.json")
        if files.vocabulary is not None:  # the tokenizer's own copy may differ in line ends
            shutil.copyfile(files.vocabulary, output / "vocab.txt")
    return target


def convert_to_bilm(folder: Path, target: Path) -> Path:
    """The way back: a Transformers folder becomes the originals' files, each array equal to the byte.

    Args:
        folder: of an `ElmoModel` or an `ElmoForPreTraining`.
        target: the folder of weights.hdf5, options.json and so on, which is returned; it must not exist, or
            be empty.
    """
    folder, target = Path(folder), Path(target)
    with new_folder(target) as output:
        model = load(folder)
        if model.config.has_warm_state:
            logger.warning("%s: the warm initial state has no place in this format and is left out", folder)
        parameters = as_float32(folder, model.state_dict())
        write_hdf5(output / "weights.hdf5", weights_table(model.config), parameters)
        if isinstance(model, ElmoForPreTraining):
            write_hdf5(output / "softmax.hdf5", softmax_table(model.config), parameters)
        write_options(folder / "options.json", model.config, output / "options.json")
        if (folder / "vocab.txt").is_file():
            shutil.copyfile(folder / "vocab.txt", output / "vocab.txt")
    return target


# ---- options.json <-> ElmoConfig


@dataclass(frozen=True)
class Kind:
    description: str
    fits: Callable[[Any], bool]


def _is_number(value: Any, minimum: int) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and minimum <= value < 2**31


def _is_whole(value: Any, minimum: int) -> bool:
    return isinstance(value, int) and _is_number(value, minimum)


def _is_filter(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_is_whole(size, 1) for size in value)


SIZE = Kind("a whole number from 1 to 2^31", lambda value: _is_whole(value, 1))
COUNT = Kind("a whole number from 0 to 2^31", lambda value: _is_whole(value, 0))
LENGTH = Kind("a whole number from 3 to 2^31", lambda value: _is_whole(value, 3))
LIMIT = Kind("a number from 0 to 2^31", lambda value: _is_number(value, 0))
SWITCH = Kind("true or false", lambda value: isinstance(value, bool))
ACTIVATION = Kind("'relu' or 'tanh'", lambda value: value in ("relu", "tanh"))
FILTERS = Kind(
    "a list of [width, number] pairs",
    lambda value: isinstance(value, list) and value != [] and all(map(_is_filter, value)),
)
REQUIRED = object()


@dataclass(frozen=True)
class Option:
    name: str
    setting: str
    kind: Kind
    default: Any = REQUIRED


LSTM_OPTIONS = (
    Option("lstm.dim", "lstm_dim", SIZE),
    Option("lstm.projection_dim", "projection_dim", SIZE),
    Option("lstm.n_layers", "num_hidden_layers", SIZE),
    Option("lstm.cell_clip", "cell_clip", LIMIT, None),
    Option("lstm.proj_clip", "proj_clip", LIMIT, None),
    Option("lstm.use_skip_connections", "use_skip_connections", SWITCH, False),
)
CHARACTER_OPTIONS = (
    Option("char_cnn.embedding.dim", "char_embedding_dim", SIZE),
    Option("char_cnn.filters", "char_filters", FILTERS),
    Option("char_cnn.activation", "char_activation", ACTIVATION),
    Option("char_cnn.n_highway", "num_highway_layers", COUNT, 0),
    Option("char_cnn.max_characters_per_token", "max_characters_per_token", LENGTH, 50),
)


def options_of(token_encoder: str) -> tuple[Option, ...]:
    return LSTM_OPTIONS + (CHARACTER_OPTIONS if token_encoder == "characters" else ())


def settings_from_options(path: Path, options: Any) -> dict[str, Any]:
    """What ElmoConfig needs to know. Options that only training reads do not matter."""
    if look_up(path, options, "bidirectional") not in (None, True):
        raise ElmoError(f"{path}: option 'bidirectional' must be true; one direction alone is no ELMo.")
    encoder = "words" if look_up(path, options, "char_cnn") is None else "characters"
    if look_up(path, options, "char_cnn.n_characters") not in (None, 261, 262):
        raise ElmoError(f"{path}: option 'char_cnn.n_characters' must be 261 or 262; correct it.")
    rows = options_of(encoder)
    return {"token_encoder": encoder} | {row.setting: read_option(path, options, row) for row in rows}


def look_up(path: Path, options: Any, name: str) -> Any:
    """`"lstm.dim"` -> options["lstm"]["dim"]; None if it is not there."""
    value, keys = options, name.split(".")
    for depth, key in enumerate(keys):
        if not isinstance(value, dict):
            section = f"option '{'.'.join(keys[:depth])}'" if depth else "the content"
            raise ElmoError(f"{path}: {section} must be {{...}}, but is {reprlib.repr(value)}; correct it.")
        value = value.get(key)
        if value is None:
            return None
    return value


def read_option(path: Path, options: Any, option: Option) -> Any:
    value, name = look_up(path, options, option.name), option.name
    if value is None:
        if option.default is REQUIRED:
            raise ElmoError(f"{path}: option '{name}' is missing; give the options of these weights.")
        return option.default
    if not option.kind.fits(value):
        must_be, found = option.kind.description, reprlib.repr(value)
        raise ElmoError(f"{path}: option '{name}' must be {must_be}, but is {found}; correct it.")
    # AllenNLP reads a limit of 0 as none.
    return None if option.kind is LIMIT and value == 0 else value


def without_characters(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of the same LSTMs over a table of word vectors."""
    characters = {option.setting for option in CHARACTER_OPTIONS}
    return {name: settings[name] for name in settings.keys() - characters} | {"token_encoder": "words"}


def make_config(
    path: Path, settings: dict[str, Any], tokenizer: ElmoTokenizer, weights: Hdf5Arrays
) -> ElmoConfig:
    """Plain data, too: nothing as large as the options promise is made before the files agreed with them."""
    if settings["token_encoder"] == "characters":
        # bilm-tf has a projection where the sizes differ, AllenNLP always.
        num_filters = sum(number for _, number in settings["char_filters"])
        is_there = any(name.startswith("CNN_proj/") for name in weights.names)
        settings = {**settings, "char_projection": is_there or num_filters != settings["projection_dim"]}
    special = ("bos_token_id", "eos_token_id", "unk_token_id", "pad_token_id")
    ids = {name: getattr(tokenizer, name) for name in special}
    try:
        return ElmoConfig(vocab_size=tokenizer.vocab_size, **settings, **ids)
    except ValueError as error:
        raise ElmoError(f"{path}: {str(error).rstrip('.')}; correct it.") from error


def options_from_config(config: ElmoConfig) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for option in options_of(config.token_encoder):
        *sections, name = option.name.split(".")
        place = options
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = getattr(config, option.setting)
    if config.token_encoder == "characters":
        options["char_cnn"]["n_characters"] = CHARACTERS_IN_FILES + 1  # with padding, as AllenNLP expects
    return options


def write_options(original: Path, config: ElmoConfig, path: Path) -> None:
    """The original to the byte if it is there and still says what the model is, otherwise new."""
    if original.is_file():
        try:
            settings = settings_from_options(original, read_json(original))
        except ElmoError as fault:
            logger.warning("%s It is written anew.", fault)
        else:
            if all(getattr(config, name) == value for name, value in settings.items()):
                shutil.copyfile(original, path)
                return
    path.write_text(json.dumps(options_from_config(config), indent=2) + "\n", encoding="utf-8")


# ---- vocabulary


def read_tokenizer(vocabulary: Path | None, settings: dict[str, Any]) -> ElmoTokenizer:
    if vocabulary is not None:
        check_readable(vocabulary)
        if vocabulary.stat().st_size > MAX_VOCABULARY_BYTES:
            raise ElmoError(f"{vocabulary} is too large for a vocabulary; give one word a line.")
        if not vocabulary.read_bytes().strip():
            raise ElmoError(f"{vocabulary} is empty; give a vocabulary with one word a line.")
    length = settings.get("max_characters_per_token", 50)
    try:
        return ElmoTokenizer(vocab_file=vocabulary, max_characters_per_token=length)
    except ValueError as error:  # it names the file
        raise ElmoError(f"{str(error).rstrip('.')}; save it with one word a line.") from error


def check_words(arrays: "Arrays", vocabulary: Path | None, tokenizer: ElmoTokenizer) -> None:
    """Every dataset with one row a word has as many rows as there are words."""
    lines = len(read_vocabulary(vocabulary)) if vocabulary is not None else 0
    words = f"{vocabulary} has {lines} lines; give the vocabulary that belongs to it."
    if lines < tokenizer.vocab_size:
        words = f"{vocabulary} lacks <S>, </S> or <UNK>, which need rows as well; use another table."
    for file in (arrays.weights, arrays.table, arrays.softmax):
        for dataset in ("embedding", "softmax/W"):
            shape = file.shape(dataset) if file is not None else None
            if file is None or not shape:
                continue
            if vocabulary is None:
                raise ElmoError(
                    f"{file.path}: dataset '{dataset}' has one row a word, and only a vocabulary says which; "
                    "give the vocabulary (.txt) as well."
                )
            if shape[0] != tokenizer.vocab_size:
                raise ElmoError(f"{file.path}: dataset '{dataset}' has {shape[0]} rows, but {words}")


# ---- datasets <-> parameters


@dataclass(frozen=True)
class Row:
    """Some rows of a dataset, and the part of a parameter that holds them."""

    dataset: str
    shape: Shape  # of the whole dataset
    parameter: str  # in ElmoForPreTraining; ElmoModel's names lack "elmo."
    part: Callable[[Tensor], Tensor] = lambda parameter: parameter  # a view, shaped like the dataset's rows
    first_row: int = 0

    def view(self, parameters: dict[str, Tensor]) -> Tensor:
        name = self.parameter
        return self.part(parameters[name if name in parameters else name.removeprefix("elmo.")])


def _transposed(weight: Tensor) -> Tensor:
    return weight.T


def _without_padding(table: Tensor) -> Tensor:
    """Row 0 is for "no character", which the files do not hold; it is zero."""
    return table[1:]


def _as_tensorflow(kernel: Tensor) -> Tensor:
    """(filters, dim, width) -> (1, width, dim, filters)"""
    return kernel.permute(2, 1, 0).unsqueeze(0)


def weights_table(config: ElmoConfig) -> Iterator[Row]:
    yield from word_table(config) if config.token_encoder == "words" else character_table(config)
    yield from lstm_table(config)


def word_table(config: ElmoConfig) -> Iterator[Row]:
    shape = (config.vocab_size, config.projection_dim)
    yield Row("embedding", shape, "elmo.token_encoder.word_embedding.weight")


def character_table(config: ElmoConfig) -> Iterator[Row]:
    encoder, size, filters = "elmo.token_encoder", config.char_embedding_dim, config.num_filters
    shape: Shape = (CHARACTERS_IN_FILES, size)
    yield Row("char_embed", shape, f"{encoder}.char_embedding.weight", _without_padding)
    for i, (width, number) in enumerate(config.char_filters or []):
        convolution = f"{encoder}.convolutions.{i}"
        yield Row(f"CNN/W_cnn_{i}", (1, width, size, number), f"{convolution}.weight", _as_tensorflow)
        yield Row(f"CNN/b_cnn_{i}", (number,), f"{convolution}.bias")
    for k in range(config.num_highway_layers):
        for gate in ("carry", "transform"):
            linear = f"{encoder}.highways.{k}.{gate}"
            yield Row(f"CNN_high_{k}/W_{gate}", (filters, filters), f"{linear}.weight", _transposed)
            yield Row(f"CNN_high_{k}/b_{gate}", (filters,), f"{linear}.bias")
    if config.has_char_projection:
        shape = (filters, config.projection_dim)
        yield Row("CNN_proj/W_proj", shape, f"{encoder}.projection.weight", _transposed)
        yield Row("CNN_proj/b_proj", (config.projection_dim,), f"{encoder}.projection.bias")


def lstm_table(config: ElmoConfig) -> Iterator[Row]:
    cells, output = config.lstm_dim, config.output_dim
    for layer in range(config.num_hidden_layers):
        width, name = config.projection_dim if layer == 0 else output, f"elmo.layers.{layer}"
        for direction in range(2):
            cell = f"RNN_{direction}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"
            part, shape = itemgetter(direction), (width + output, 4 * cells)
            yield Row(f"{cell}/W_0", shape, f"{name}.input_weight", part)
            yield Row(f"{cell}/W_0", shape, f"{name}.recurrent_weight", part, first_row=width)
            yield Row(f"{cell}/B", (4 * cells,), f"{name}.bias", part)
            if config.has_lstm_projection:
                yield Row(f"{cell}/W_P_0", (cells, output), f"{name}.projection", part)


def softmax_table(config: ElmoConfig) -> Iterator[Row]:
    yield Row("softmax/W", (config.vocab_size, config.output_dim), "lm_head.weight")
    yield Row("softmax/b", (config.vocab_size,), "lm_head.bias")


# ---- HDF5 -> model


@dataclass(frozen=True)
class Arrays:
    weights: Hdf5Arrays
    table: Hdf5Arrays | None  # only where it stands for the token encoder of the weights
    softmax: Hdf5Arrays | None


def open_arrays(files: Files, open_files: ExitStack) -> Arrays:
    def opened(path: Path | None) -> Hdf5Arrays | None:
        return open_files.enter_context(Hdf5Arrays(path)) if path is not None else None

    weights = open_files.enter_context(Hdf5Arrays(files.weights))
    return Arrays(weights, opened(files.table), opened(files.softmax))


Pairs = list[tuple[Hdf5Arrays, Row]]


def pair_up(config: ElmoConfig, arrays: Arrays) -> Pairs:
    """Every row with the file that holds it, all of the right shape, and nothing left over."""
    if arrays.table is None:
        pairs = matched(arrays.weights, weights_table(config))
    else:
        replaced = {name for name in arrays.weights.names if name.startswith(("char_embed", "CNN"))}
        pairs = matched(arrays.table, word_table(config))
        pairs += matched(arrays.weights, lstm_table(config), replaced)
    return pairs + (matched(arrays.softmax, softmax_table(config)) if arrays.softmax is not None else [])


def matched(arrays: Hdf5Arrays, table: Iterator[Row], left_out: Collection[str] = ()) -> Pairs:
    pairs: Pairs = []
    # One by one: options may promise a billion layers, and the first that is missing ends the loop.
    for row in table:
        arrays.check_array(row.dataset, row.shape)
        pairs.append((arrays, row))
    arrays.check_nothing_else({row.dataset for _, row in pairs}.union(left_out))
    return pairs


def build(config: ElmoConfig, pairs: Pairs, with_head: bool) -> ElmoModel | ElmoForPreTraining:
    """The numbers go from the file to where the model keeps them, a block at a time."""
    with torch.device("meta"):
        model = ElmoForPreTraining(config) if with_head else ElmoModel(config)
    parameters = {
        name: torch.zeros(meta.shape, dtype=torch.float32) for name, meta in model.state_dict().items()
    }
    for arrays, row in pairs:
        arrays.read_into(row.view(parameters), row.dataset, row.first_row)
    model.load_state_dict(parameters, assign=True)
    return model


# ---- model -> HDF5


def load(folder: Path) -> ElmoModel | ElmoForPreTraining:
    """The model of a folder, whole: what its files lack would otherwise be made up at random."""
    content = read_json(folder / "config.json")
    if not isinstance(content, dict) or content.get("model_type") != ElmoConfig.model_type:
        raise ElmoError(f"{folder / 'config.json'} is not of an ELMo; give a folder saved by ElmoModel.")
    has_head = content.get("architectures") == ["ElmoForPreTraining"]
    model_class: Any = ElmoForPreTraining if has_head else ElmoModel
    try:
        model, report = model_class.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # the library lets through whatever JSON, safetensors or torch raise
        reason = reason_of(error)
        raise ElmoError(f"{folder} cannot be loaded ({reason}); save the model again.") from error
    for name in report["missing_keys"]:
        raise ElmoError(f"{folder}: the weights lack '{name}'; save the model again.")
    if report["unexpected_keys"]:
        logger.warning("%s: left out, as this format has no place: %s", folder, report["unexpected_keys"])
    return model


def as_float32(folder: Path, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """The format knows float32 alone; smaller types fit into it, and larger ones only sometimes."""
    for name, numbers in parameters.items():
        if not torch.equal(numbers.float().to(numbers.dtype), numbers):
            raise ElmoError(
                f"{folder}: parameter '{name}' holds NaN or more digits than float32; save other numbers."
            )
    return {name: numbers.float() for name, numbers in parameters.items()}


def write_hdf5(path: Path, table: Iterator[Row], parameters: dict[str, Tensor]) -> None:
    with h5py.File(path, "w") as file:
        for row in table:
            numbers = row.view(parameters)
            dataset = file.require_dataset(row.dataset, row.shape, "float32")
            dataset[row.first_row : row.first_row + len(numbers)] = numbers.numpy()
