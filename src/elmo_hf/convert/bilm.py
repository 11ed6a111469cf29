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
import math
import reprlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import h5py
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor

from elmo_hf.configuration_elmo import ElmoConfig
from elmo_hf.convert.hdf5 import ConversionError, Hdf5Arrays, Shape, check_readable, is_hdf5, top_names
from elmo_hf.modeling_elmo import ElmoForPreTraining, ElmoModel
from elmo_hf.tokenization_elmo import ElmoTokenizer

logger = logging.getLogger(__name__)

MAX_JSON_BYTES = 1_000_000
MAX_VOCABULARY_BYTES = 1 << 28
CHARACTERS_IN_FILES = 261


def convert_from_bilm(sources: Sequence[Path], target: Path) -> Path:
    """Writes `target`, a Transformers folder, from one folder or several files; returns it.

    The model is an ElmoForPreTraining where a softmax is among the files, otherwise an ElmoModel.
    """
    with new_folder(Path(target)) as output, ExitStack() as open_files:
        files = recognise([Path(source) for source in sources])
        settings = settings_from_options(files.options, read_json(files.options))
        tokenizer = read_tokenizer(files.vocabulary, settings)
        weights, table, softmax = (
            open_files.enter_context(Hdf5Arrays(path)) if path else None
            for path in (files.weights, files.table_for(settings), files.softmax)
        )
        assert weights is not None
        if table is not None:
            settings = without_characters(settings)
        for arrays, dataset in word_rows(weights, table, softmax):
            check_words(arrays, dataset, files.vocabulary, tokenizer)
        config = make_config(files.options, settings, tokenizer, weights)
        model = build(config, pair_up(config, weights, table, softmax), with_head=softmax is not None)
        model.save_pretrained(output)
        tokenizer.save_pretrained(output)
        shutil.copyfile(files.options, output / "options.json")
        if files.vocabulary is not None:  # the tokenizer's own copy may differ in line ends
            shutil.copyfile(files.vocabulary, output / "vocab.txt")
    return target


def convert_to_bilm(folder: Path, target: Path) -> Path:
    """Writes `target`, a folder of HDF5 files, options and vocabulary, from a Transformers folder; returns it."""
    folder = Path(folder)
    with new_folder(Path(target)) as output:
        model = load(folder)
        if model.config.has_warm_state:
            logger.warning("%s: the warm initial state has no place in this format and is left out", folder)
        parameters = model.state_dict()
        write_hdf5(output / "weights.hdf5", weights_table(model.config), parameters)
        if isinstance(model, ElmoForPreTraining):
            write_hdf5(output / "softmax.hdf5", softmax_table(model.config), parameters)
        write_options(folder / "options.json", model.config, output / "options.json")
        if (folder / "vocab.txt").is_file():
            shutil.copyfile(folder / "vocab.txt", output / "vocab.txt")
    return target


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """An empty folder that becomes `target` when all went well, and is gone when anything did not."""
    place = target.resolve()
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise ConversionError(
            f"{target} exists and is not an empty folder; name another target or remove it."
        )
    try:
        # Beside the target, so that the last step is a mere renaming.
        above = next(parent for parent in place.parents if parent.exists())
        with tempfile.TemporaryDirectory(prefix=f".{place.name}-", dir=above) as temporary:
            folder = Path(temporary) / place.name
            folder.mkdir()
            yield folder
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.exists():
                place.rmdir()
            folder.rename(place)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConversionError(f"{target} cannot be written ({reason}); name another target.") from error


# ---- which file is what


@dataclass(frozen=True)
class Files:
    weights: Path
    options: Path
    softmax: Path | None
    vocabulary: Path | None
    table: Path | None
    table_is_named: bool

    def table_for(self, settings: dict[str, Any]) -> Path | None:
        """The table of word vectors, unless it only lies beside characters, which can do every word."""
        return self.table if self.table_is_named or settings["token_encoder"] == "words" else None


def recognise(sources: Sequence[Path]) -> Files:
    """Sorts files by what is in them. In a folder other files do not matter; a file named by itself must."""
    named: list[tuple[str, Path]] = []
    found: list[tuple[str, Path]] = []
    faults: list[ConversionError] = []
    for source in sources:
        if source.is_dir():
            for path in list_files(source):
                try:
                    found += [(role, path) for role in [role_of(path)] if role]
                except NotJson as fault:  # it may be anything, unless the options are not found elsewhere
                    faults.append(fault)
        else:
            named.append((role_of_named(source, sources), source))

    everything = named + found
    table = pick("table", named)
    files = {role: pick(role, everything) for role in ("weights", "options", "softmax", "vocabulary")}
    files["table"] = table or pick("table", found)
    for role, path in files.items():
        if path is not None:
            logger.info("%s: %s", role, path)
    return Files(**require(files, sources, faults), table_is_named=table is not None)


def list_files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise ConversionError(f"{folder} cannot be read ({error.strerror}); check its permissions.") from None


def role_of(path: Path) -> str | None:
    kind = path.suffix.lower()
    if kind in (".hdf5", ".h5") or is_hdf5(path):
        names = top_names(path)
        return (
            "weights"
            if "RNN_0" in names
            else "softmax"
            if "softmax" in names
            else ("table" if names == {"embedding"} else None)
        )
    if kind == ".json":
        content = read_json(path)
        return "options" if isinstance(content, dict) and "lstm" in content else None
    return "vocabulary" if kind == ".txt" and "vocab" in path.name.lower() else None


def role_of_named(path: Path, sources: Sequence[Path]) -> str:
    check_readable(path)
    role = role_of(path)
    if role is None and [other for other in sources if other.suffix.lower() == ".txt"] == [path]:
        role = "vocabulary"
    if role is None:
        raise ConversionError(
            f"{path} is no part of a biLM; give weights (HDF5 with 'RNN_0'), a softmax (HDF5 with 'softmax'), word "
            "vectors (HDF5 with 'embedding' alone), options (.json with 'lstm') or a vocabulary (.txt)."
        )
    return role


def pick(role: str, candidates: Iterable[tuple[str, Path]]) -> Path | None:
    paths = list({path.resolve(): path for candidate, path in candidates if candidate == role}.values())
    if len(paths) > 1:
        raise ConversionError(f"{' and '.join(map(str, paths))} both look like the {role}; give one of them.")
    return paths[0] if paths else None


def require(files: dict[str, Any], sources: Sequence[Path], faults: list[ConversionError]) -> dict[str, Any]:
    among = ", ".join(map(str, sources)) or "no files at all"
    if files["weights"] is None:
        raise ConversionError(f"there are no weights (HDF5 with 'RNN_0') in {among}; name the file.")
    if files["options"] is None:
        raise (
            faults[0]
            if faults
            else ConversionError(f"there are no options (.json with 'lstm') in {among}; name the file.")
        )
    return files


class NotJson(ConversionError):
    """A .json file that is none."""


def read_json(path: Path) -> Any:
    check_readable(path)
    if path.stat().st_size > MAX_JSON_BYTES:
        raise NotJson(
            f"{path} is larger than {MAX_JSON_BYTES:,} bytes, so it holds no options; give another file."
        )
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise NotJson(
            f"{path} is not JSON ({' '.join(str(error).split())}); give the options file."
        ) from None


# ---- options.json <-> ElmoConfig


@dataclass(frozen=True)
class Kind:
    description: str
    fits: Callable[[Any], bool]


def _whole(minimum: int, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and minimum <= value < 2**31


def _is_filters(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(pair, list) and len(pair) == 2 and all(_whole(1, number) for number in pair)
            for pair in value
        )
    )


def _is_limit(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**31


SIZE = Kind("a whole number from 1 to 2^31", lambda value: _whole(1, value))
COUNT = Kind("a whole number from 0 to 2^31", lambda value: _whole(0, value))
LENGTH = Kind("a whole number from 3 to 2^31", lambda value: _whole(3, value))
LIMIT = Kind("a number from 0 to 2^31", _is_limit)
SWITCH = Kind("true or false", lambda value: isinstance(value, bool))
FILTERS = Kind("a list of [width, number] pairs", _is_filters)
ACTIVATION = Kind("'relu' or 'tanh'", lambda value: value in ("relu", "tanh"))

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


def settings_from_options(path: Path, options: Any) -> dict[str, Any]:
    """What ElmoConfig needs to know. Options that only training reads do not matter."""
    if look_up(path, options, "bidirectional") not in (None, True):
        raise ConversionError(f"{path}: option 'bidirectional' must be true; one direction alone is no ELMo.")
    if look_up(path, options, "char_cnn") is None:
        return {"token_encoder": "words"} | {
            row.setting: read_option(path, options, row) for row in LSTM_OPTIONS
        }
    if look_up(path, options, "char_cnn.n_characters") not in (None, 261, 262):
        raise ConversionError(
            f"{path}: option 'char_cnn.n_characters' must be 261 or 262; characters are bytes."
        )
    rows = LSTM_OPTIONS + CHARACTER_OPTIONS
    return {"token_encoder": "characters"} | {row.setting: read_option(path, options, row) for row in rows}


def look_up(path: Path, options: Any, name: str) -> Any:
    """`"lstm.dim"` -> options["lstm"]["dim"]; None if it is not there."""
    value, keys = options, name.split(".")
    for depth, key in enumerate(keys):
        if not isinstance(value, dict):
            section = f"option '{'.'.join(keys[:depth])}'" if depth else "the content"
            raise ConversionError(
                f"{path}: {section} must be {{...}}, but is {reprlib.repr(value)}; correct it."
            )
        value = value.get(key)
        if value is None:
            return None
    return value


def read_option(path: Path, options: Any, option: Option) -> Any:
    value = look_up(path, options, option.name)
    if value is None:
        if option.default is REQUIRED:
            raise ConversionError(
                f"{path}: option '{option.name}' is missing; give the options of these weights."
            )
        return option.default
    if not option.kind.fits(value):
        raise ConversionError(
            f"{path}: option '{option.name}' must be {option.kind.description}, but is {reprlib.repr(value)}; "
            "correct it."
        )
    # AllenNLP reads a limit of 0 as none.
    return None if option.kind is LIMIT and value == 0 else value


def without_characters(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of the same LSTMs over a table of word vectors."""
    characters = {option.setting for option in CHARACTER_OPTIONS}
    return {name: value for name, value in settings.items() if name not in characters} | {
        "token_encoder": "words"
    }


def make_config(
    path: Path, settings: dict[str, Any], tokenizer: ElmoTokenizer, weights: Hdf5Arrays
) -> ElmoConfig:
    """Plain data as well: nothing as large as the options promise is made before the files agreed with them."""
    settings = {**settings, "vocab_size": tokenizer.vocab_size}
    if settings["token_encoder"] == "characters":
        num_filters = sum(number for _, number in settings["char_filters"])
        # bilm-tf has a projection where the sizes differ, AllenNLP always.
        settings["char_projection"] = (
            num_filters != settings["projection_dim"] or "CNN_proj" in weights.top_names
        )
    for name in ("bos_token_id", "eos_token_id", "unk_token_id", "pad_token_id"):
        settings[name] = getattr(tokenizer, name)
    try:
        return ElmoConfig(**settings)
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise ConversionError(f"{path}: {error.__cause__ or error}") from error


def options_from_config(config: ElmoConfig) -> dict[str, Any]:
    options: dict[str, Any] = {}
    is_characters = config.token_encoder == "characters"
    for option in LSTM_OPTIONS + (CHARACTER_OPTIONS if is_characters else ()):
        *sections, name = option.name.split(".")
        place = options
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = getattr(config, option.setting)
    if is_characters:
        options["char_cnn"]["n_characters"] = (
            CHARACTERS_IN_FILES + 1
        )  # with the padding, as both readers expect
    return options


def write_options(original: Path, config: ElmoConfig, path: Path) -> None:
    """The original to the byte if it is there and still says what the model is, otherwise new."""
    if original.is_file():
        try:
            settings = settings_from_options(original, read_json(original))
        except ConversionError as fault:
            logger.warning("%s; writing new options", fault)
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
            raise ConversionError(f"{vocabulary} is too large for a vocabulary; give one word a line.")
        if not vocabulary.read_bytes().strip():
            raise ConversionError(f"{vocabulary} is empty; give a vocabulary with one word a line.")
    length = settings.get("max_characters_per_token", 50)
    try:
        return ElmoTokenizer(vocab_file=vocabulary, max_characters_per_token=length)
    except ValueError as error:  # it names the file
        raise ConversionError(str(error)) from error


def word_rows(
    weights: Hdf5Arrays, table: Hdf5Arrays | None, softmax: Hdf5Arrays | None
) -> Iterator[tuple[Hdf5Arrays, str]]:
    """The datasets with one row a word."""
    if table is not None and "embedding" in weights:
        raise ConversionError(
            f"{weights.path} and {table.path} both hold dataset 'embedding'; give one of them."
        )
    if table is not None or "embedding" in weights:
        yield table or weights, "embedding"
    if softmax is not None:
        yield softmax, "softmax/W"


def check_words(arrays: Hdf5Arrays, dataset: str, vocabulary: Path | None, tokenizer: ElmoTokenizer) -> None:
    shape = arrays.shape(dataset)
    if vocabulary is None:
        raise ConversionError(
            f"{arrays.path}: dataset '{dataset}' has one row for each word, and without a vocabulary nobody knows "
            "which; give the vocabulary (.txt) as well."
        )
    if shape and shape[0] != tokenizer.vocab_size:
        raise ConversionError(
            f"{arrays.path}: dataset '{dataset}' has {shape[0]} rows, but {vocabulary} has {tokenizer.vocab_size} "
            "words, <S>, </S> and <UNK> included; give the vocabulary that belongs to it."
        )


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
    encoder, size = "elmo.token_encoder", config.char_embedding_dim
    shape: Shape = (CHARACTERS_IN_FILES, size)
    yield Row("char_embed", shape, f"{encoder}.char_embedding.weight", _without_padding)
    for i, (width, number) in enumerate(config.char_filters or []):
        convolution = f"{encoder}.convolutions.{i}"
        yield Row(f"CNN/W_cnn_{i}", (1, width, size, number), f"{convolution}.weight", _as_tensorflow)
        yield Row(f"CNN/b_cnn_{i}", (number,), f"{convolution}.bias")
    filters = config.num_filters
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


Pairs = list[tuple[Hdf5Arrays, Row]]


def pair_up(
    config: ElmoConfig, weights: Hdf5Arrays, table: Hdf5Arrays | None, softmax: Hdf5Arrays | None
) -> Pairs:
    """Every row with the file that holds it, all of the right shape, and nothing left over."""
    if table is None:
        pairs = matched(weights, weights_table(config))
    else:
        characters = {name for name in weights.top_names if name == "char_embed" or name.startswith("CNN")}
        pairs = matched(table, word_table(config)) + matched(weights, lstm_table(config), left_out=characters)
    return pairs + (matched(softmax, softmax_table(config)) if softmax is not None else [])


def matched(arrays: Hdf5Arrays, table: Iterator[Row], left_out: Iterable[str] = ()) -> Pairs:
    pairs: Pairs = []
    for (
        row
    ) in table:  # one by one: options may promise a billion layers, and the first that is missing ends it
        arrays.check_array(row.dataset, row.shape)
        pairs.append((arrays, row))
    arrays.check_nothing_else({row.dataset for _, row in pairs}.union(left_out))
    return pairs


def build(config: ElmoConfig, pairs: Pairs, with_head: bool) -> ElmoModel | ElmoForPreTraining:
    """The numbers go from the file to where the model keeps them, with no copy in between."""
    with torch.device("meta"):
        model = (ElmoForPreTraining if with_head else ElmoModel)(config)
    parameters = {name: torch.zeros(meta.shape) for name, meta in model.state_dict().items()}
    for arrays, row in pairs:
        arrays.read_into(row.view(parameters), row.dataset, row.first_row)
    model.load_state_dict(parameters, assign=True)
    return model


# ---- model -> HDF5


def load(folder: Path) -> ElmoModel | ElmoForPreTraining:
    """The model of a folder, whole: what the files lack would otherwise be made up at random."""
    architectures = read_architectures(folder)
    model_class = ElmoForPreTraining if "ElmoForPreTraining" in architectures else ElmoModel
    try:
        model, report = model_class.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # the library lets through whatever JSON, safetensors or torch raise
        reason = " ".join(str(error.__cause__ or error).split())
        raise ConversionError(f"{folder} cannot be loaded ({reason}); save it again.") from error
    for name in report["missing_keys"]:
        raise ConversionError(f"{folder}: the weights lack {name!r}; save the model again.")
    if report["unexpected_keys"]:
        logger.warning("%s: left out, having no place in this format: %s", folder, report["unexpected_keys"])
    return model


def read_architectures(folder: Path) -> list[str]:
    content = read_json(folder / "config.json")
    if not isinstance(content, dict) or content.get("model_type") != ElmoConfig.model_type:
        raise ConversionError(
            f"{folder / 'config.json'} is not of an ELMo; give a folder saved by ElmoModel."
        )
    return content.get("architectures") or []


def write_hdf5(path: Path, table: Iterator[Row], parameters: dict[str, Tensor]) -> None:
    with h5py.File(path, "w") as file:
        for row in table:
            numbers = row.view(parameters)
            dataset = file.require_dataset(row.dataset, row.shape, "float32")
            dataset[row.first_row : row.first_row + len(numbers)] = numbers.float().numpy()
