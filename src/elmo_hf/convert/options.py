"""options.json <-> ElmoConfig, by one table that both directions use.

settings = settings_from_options(path, read_json(path))    # checked keyword arguments of ElmoConfig
options = options_from_config(config)                      # the content of an options.json
"""

import json
import logging
import reprlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elmo_hf.convert.files import read_json
from elmo_hf.errors import ElmoError
from elmo_hf.model.configuration_elmo import ElmoConfig

logger = logging.getLogger(__name__)

# ---- types of values


@dataclass(frozen=True)
class ValueType:
    description: str
    accepts: Callable[[Any], bool]


def _is_number(value: Any, minimum: int) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and minimum <= value < 2**31


def _is_integer(value: Any, minimum: int) -> bool:
    return isinstance(value, int) and _is_number(value, minimum)


def _is_filter(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_is_integer(size, 1) for size in value)


SIZE = ValueType("a whole number from 1 to 2^31", lambda value: _is_integer(value, 1))
COUNT = ValueType("a whole number from 0 to 2^31", lambda value: _is_integer(value, 0))
LENGTH = ValueType("a whole number from 3 to 2^31", lambda value: _is_integer(value, 3))
CLIP = ValueType("a number from 0 to 2^31", lambda value: _is_number(value, 0))
SWITCH = ValueType("true or false", lambda value: isinstance(value, bool))
ACTIVATION = ValueType("'relu' or 'tanh'", lambda value: value in ("relu", "tanh"))
FILTERS = ValueType(
    "a list of [width, number] pairs",
    lambda value: isinstance(value, list) and value != [] and all(map(_is_filter, value)),
)

# ---- the table

REQUIRED = object()


@dataclass(frozen=True)
class Option:
    name: str  # in options.json; "lstm.dim" is options["lstm"]["dim"]
    setting: str  # in ElmoConfig
    type: ValueType
    default: Any = REQUIRED


LSTM_OPTIONS = (
    Option("lstm.dim", "lstm_dim", SIZE),
    Option("lstm.projection_dim", "projection_dim", SIZE),
    Option("lstm.n_layers", "num_hidden_layers", SIZE),
    Option("lstm.cell_clip", "cell_clip", CLIP, None),
    Option("lstm.proj_clip", "proj_clip", CLIP, None),
    Option("lstm.use_skip_connections", "use_skip_connections", SWITCH, False),
)
CHARACTER_OPTIONS = (
    Option("char_cnn.embedding.dim", "char_embedding_dim", SIZE),
    Option("char_cnn.filters", "char_filters", FILTERS),
    Option("char_cnn.activation", "char_activation", ACTIVATION),
    Option("char_cnn.n_highway", "num_highway_layers", COUNT, 0),
    Option("char_cnn.max_characters_per_token", "max_characters_per_token", LENGTH, 50),
)
N_CHARACTERS = (261, 262)  # without and with padding; AllenNLP expects 262


def options_of(token_encoder: str) -> tuple[Option, ...]:
    return LSTM_OPTIONS + (CHARACTER_OPTIONS if token_encoder == "characters" else ())


# ---- options.json -> ElmoConfig


def settings_from_options(path: Path, options: Any) -> dict[str, Any]:
    """The keyword arguments of ElmoConfig that options determine. Options of training alone are ignored."""
    if look_up(path, options, "bidirectional") not in (None, True):
        raise ElmoError(f"{path}: option 'bidirectional' must be true; ELMo needs both directions.")
    token_encoder = "words" if look_up(path, options, "char_cnn") is None else "characters"
    if look_up(path, options, "char_cnn.n_characters") not in (None, *N_CHARACTERS):
        raise ElmoError(f"{path}: option 'char_cnn.n_characters' must be 261 or 262; correct it.")
    settings = {option.setting: read_option(path, options, option) for option in options_of(token_encoder)}
    return {"token_encoder": token_encoder} | settings


def without_characters(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of the same LSTMs over a table of word vectors."""
    characters = {option.setting for option in CHARACTER_OPTIONS}
    return {name: settings[name] for name in settings.keys() - characters} | {"token_encoder": "words"}


def look_up(path: Path, options: Any, name: str) -> Any:
    """The value of an option, or None if it is not there."""
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
    if not option.type.accepts(value):
        description, actual = option.type.description, reprlib.repr(value)
        raise ElmoError(f"{path}: option '{name}' must be {description}, but is {actual}; correct it.")
    # AllenNLP reads a clip of 0 as none.
    return None if option.type is CLIP and value == 0 else value


# ---- ElmoConfig -> options.json


def options_from_config(config: ElmoConfig) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for option in options_of(config.token_encoder):
        *sections, name = option.name.split(".")
        section_options = options
        for section in sections:
            section_options = section_options.setdefault(section, {})
        section_options[name] = getattr(config, option.setting)
    if config.token_encoder == "characters":
        options["char_cnn"]["n_characters"] = max(N_CHARACTERS)
    return options


def write_options(original: Path, config: ElmoConfig, path: Path) -> None:
    """Copy the original options.json if it exists and describes this config, otherwise write a new one."""
    if original.is_file():
        try:
            settings = settings_from_options(original, read_json(original))
        except ElmoError as error:
            logger.warning("%s New options are written.", error)
        else:
            if all(getattr(config, name) == value for name, value in settings.items()):
                shutil.copyfile(original, path)
                return
    path.write_text(json.dumps(options_from_config(config), indent=2) + "\n", encoding="utf-8")
