"""The sizes of a model of ELMoForManyLangs, a JSON file, as arguments of ElmoConfig.

settings = settings_from_sizes(path, read_json(path))
"""

import reprlib
from pathlib import Path
from typing import Any

from elmo_hf.convert.options import (
    ACTIVATION,
    CLIP,
    COUNT,
    FILTERS,
    LENGTH,
    SIZE,
    Option,
    look_up,
    read_option,
)
from elmo_hf.errors import ElmoError

# The files of sizes that came with the library, which are alike, and most models only name.
PUBLISHED_NAMES = ("cnn_50_100_512_4096_sample.json", "cnn_0_100_512_4096_sample.json")
PUBLISHED: dict[str, Any] = {
    "encoder": {
        "name": "elmo",
        "projection_dim": 512,
        "cell_clip": 3,
        "proj_clip": 3,
        "dim": 4096,
        "n_layers": 2,
    },
    "token_embedder": {
        "name": "cnn",
        "activation": "relu",
        "filters": [[1, 32], [2, 32], [3, 64], [4, 128], [5, 256], [6, 512], [7, 1024]],
        "n_highway": 2,
        "word_dim": 100,
        "char_dim": 50,
        "max_characters_per_token": 50,
    },
}

ENCODER_OPTIONS = (
    Option("encoder.dim", "lstm_dim", SIZE),
    Option("encoder.projection_dim", "projection_dim", SIZE),
)
CLIPS = (
    Option("encoder.cell_clip", "cell_clip", CLIP, None),
    Option("encoder.proj_clip", "proj_clip", CLIP, None),
)
LAYERS = Option("encoder.n_layers", "num_hidden_layers", SIZE)
WORD_OPTIONS = (
    Option("token_embedder.word_dim", "word_embedding_dim", COUNT),
    Option("token_embedder.char_dim", "char_embedding_dim", COUNT),
)
LETTER_OPTIONS = (
    Option("token_embedder.filters", "char_filters", FILTERS),
    Option("token_embedder.activation", "char_activation", ACTIVATION),
    Option("token_embedder.n_highway", "num_highway_layers", COUNT),
)
LENGTH_OPTION = Option("token_embedder.max_characters_per_token", "max_characters_per_token", LENGTH)
SHORTEST_ROW = len("<bos>") + 2  # its library encodes this name letter by letter too, as far as its length


def settings_from_sizes(path: Path, content: Any) -> dict[str, Any]:
    """The keyword arguments of ElmoConfig that the file of sizes determines."""
    return {**_encoder_settings(path, content), **_embedder_settings(path, content)}


def _encoder_settings(path: Path, content: Any) -> dict[str, Any]:
    name = look_up(path, content, "encoder.name")
    if name not in ("elmo", "lstm"):
        raise ElmoError(
            f"{path}: option 'encoder.name' must be 'elmo' or 'lstm', not {reprlib.repr(name)}; correct it."
        )
    settings = {option.setting: read_option(path, content, option) for option in ENCODER_OPTIONS}
    settings["lstm_projection"] = True
    layers = read_option(path, content, LAYERS)
    if name == "lstm":
        return settings | {"num_hidden_layers": 1, "stacked_lstm_layers": layers}
    for option in CLIPS:
        if option.name.rpartition(".")[2] not in content["encoder"]:
            raise ElmoError(f"{path}: option '{option.name}' is missing; give the file of these weights.")
        settings[option.setting] = read_option(path, content, option)
    return settings | {"num_hidden_layers": layers, "use_skip_connections": True}


def _embedder_settings(path: Path, content: Any) -> dict[str, Any]:
    name = look_up(path, content, "token_embedder.name")
    kind = name.lower() if isinstance(name, str) else name
    if kind not in ("cnn", "lstm"):
        raise ElmoError(
            f"{path}: option 'token_embedder.name' must be 'cnn' or 'lstm', but is {reprlib.repr(name)}; "
            "correct it."
        )
    settings = {option.setting: read_option(path, content, option) for option in WORD_OPTIONS}
    has_letters = settings["char_embedding_dim"] > 0
    if not has_letters and not settings["word_embedding_dim"]:
        raise ElmoError(f"{path}: word_dim and char_dim are both 0, so words have no vectors; correct it.")
    if kind == "lstm" and has_letters:
        raise ElmoError(
            f"{path}: an LSTM that reads letters (token_embedder 'lstm') never ran in ELMoForManyLangs: its "
            "code joins its outputs along a dimension that they lack, so there are no vectors to reproduce; "
            "give a model whose token_embedder is 'cnn'."
        )
    if kind == "cnn":
        settings["max_characters_per_token"] = read_option(path, content, LENGTH_OPTION)
    if not has_letters:
        del settings["char_embedding_dim"]
        return settings | {"token_encoder": "words"}
    if settings["max_characters_per_token"] < SHORTEST_ROW:
        raise ElmoError(
            f"{path}: option '{LENGTH_OPTION.name}' must be at least {SHORTEST_ROW}, as ELMoForManyLangs "
            "demands for <bos>; correct it."
        )
    settings |= {option.setting: read_option(path, content, option) for option in LETTER_OPTIONS}
    return settings | {"token_encoder": "characters", "char_projection": True}
