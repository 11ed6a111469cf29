"""AllenNLP's archives (model.tar.gz) and state dicts (weights.th, best.th): the biLM of a task model.

The biLM is under any name in the model, with the mixes of its layers that the task has trained. A tagger that
we have as well (a biLSTM, and a CRF) is taken whole; see `allennlp_tagger.py`. Of other models, the biLM and
its mixes are taken, and all other weights are left.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from elmo_hf.convert.allennlp_tagger import NotTheSame, Tagger, is_tagger, tagger_in
from elmo_hf.convert.archives import extract, is_archive
from elmo_hf.convert.files import MAX_JSON_BYTES, Recognised, read_json
from elmo_hf.convert.options import settings_from_options
from elmo_hf.convert.pickled import StateDictArrays, is_state_dict, names_of
from elmo_hf.convert.plan import Choices, Family, Plan
from elmo_hf.convert.table import Entry, Pairs, match, without_padding
from elmo_hf.convert.torch_layout import cell_table, highway_table
from elmo_hf.convert.vocabulary import read_tokenizer
from elmo_hf.errors import ElmoError, quoted
from elmo_hf.loading import vocabulary_fields
from elmo_hf.model.configuration_elmo import ElmoConfig
from elmo_hf.model.modeling_elmo import ElmoModel
from elmo_hf.model.modeling_elmo_tagging import ElmoForTokenClassification
from elmo_hf.model.tokenization_elmo import ElmoTokenizer
from elmo_hf.model.words_elmo import MAX_VOCABULARY, NUM_CHARACTER_IDS

# ---- the files

ROLES = {
    "archive": "AllenNLP's archive (model.tar.gz)",
    "state": "AllenNLP's weights (weights.th, best.th)",
    "epoch": "AllenNLP's weights of an epoch (model_state_epoch_0.th)",
    "training": "AllenNLP's config.json",
}
STATE_FILES = ("weights.th", "best.th", "default.th")
CHARACTERS = "_token_embedder._char_embedding_weights"  # every biLM has it
MAX_WEIGHTS = 1 << 40  # bytes; an archive's own size limits it further


def role_of(path: Path) -> str | None:
    """The role of a file by its content, or None if it has none in this format."""
    if path.suffix == ".json":
        content = read_json(path)
        is_training = isinstance(content, dict) and isinstance(content.get("model"), dict)
        return "training" if is_training and path.name == "config.json" else None
    if path.suffix in (".th", ".pt", ".bin", ".pkl") and is_state_dict(path):
        role = "state" if path.name in STATE_FILES else "epoch"
        try:
            return role if any(name.endswith(CHARACTERS) for name in names_of(path)) else None
        except ElmoError:
            return role if role == "state" else None  # it is refused when it is read
    return "archive" if path.suffix in (".gz", ".tgz", ".tar") and is_archive(path) else None


@dataclass
class Source:
    """What belongs to a model."""

    files: dict[str, Path]  # that the user has
    weights: Path
    training: Any = None  # the content of config.json
    options: list[tuple[Path, Any]] = field(default_factory=list)  # of biLMs, with their content
    vocabulary: dict[str, Path] = field(default_factory=dict)  # files by their names without ".txt"


def find_source(files: Recognised, members: dict[Path, str], open_files: ExitStack) -> Source:
    """An archive or a state dict that is named comes before the files of a folder."""
    for get in (files.get_named, files.get):
        for role in ("state", "archive", "epoch"):
            path = get(role)
            if path is not None:
                if role == "archive":
                    source = unpack(path, members, open_files)
                else:
                    source = find_beside(path, role, files)
                if (options := files.get("options")) is not None:
                    source.options = [(options, read_json(options))]
                    source.files["options"] = options
                return source
    raise files.missing("archive", "state")


@contextmanager
def member_names() -> Iterator[dict[Path, str]]:
    """Names for messages: those of unpacked files, which are nowhere when somebody reads the message."""
    names: dict[Path, str] = {}
    try:
        yield names
    except ElmoError as error:
        text = str(error)
        for path, name in names.items():
            text = text.replace(str(path), name)
        raise ElmoError(text) from error


def unpack(path: Path, names: dict[Path, str], open_files: ExitStack) -> Source:
    folder = Path(open_files.enter_context(TemporaryDirectory()))
    members = extract(path, wanted, folder)
    names |= {member: f"{path}: {name}" for name, member in members.items()}
    weights = [name for name in members if name in STATE_FILES]
    if len(weights) != 1:
        held = "none" if not weights else " and ".join(weights)
        raise ElmoError(f"{path} must hold weights.th, but holds {held}; give AllenNLP's archive of a model.")
    training = read_json(members["config.json"]) if "config.json" in members else None
    source = Source({"archive": path}, members[weights[0]], training)
    for name, member in members.items():
        if name.startswith("vocabulary/"):
            source.vocabulary[Path(name).stem] = member
        elif is_options_name(name, training):
            source.options.append((path, read_json(member)))
    return source


def wanted(name: str) -> int | None:
    """The largest size of a file that is taken from an archive."""
    if name in STATE_FILES:
        return MAX_WEIGHTS
    if re.fullmatch(r"vocabulary/[^/]+\.txt", name):
        return MAX_VOCABULARY
    is_json = name.endswith((".json", "options_file")) and name.count("/") < 2
    return MAX_JSON_BYTES if is_json else None


def find_beside(path: Path, role: str, files: Recognised) -> Source:
    """A state dict, with the other files of its folder if the folder was named."""
    training_file = files.get("training")
    source = Source({role: path}, path)
    if training_file is not None:
        source.training = read_json(training_file)
        source.files["training"] = training_file
    if path.parent in files.sources:
        source.vocabulary = {file.stem: file for file in (path.parent / "vocabulary").glob("*.txt")}
        for name in options_names(source.training):
            if (path.parent / name).is_file():
                source.options.append((path.parent / name, read_json(path.parent / name)))
    return source


def is_options_name(name: str, training: Any) -> bool:
    """AllenNLP archives the file of an option as fta/ and the option's name."""
    is_archived = name.startswith("fta/") and name.endswith("options_file")
    return is_archived or name.removeprefix("fta/") in options_names(training)


def options_names(training: Any) -> set[str]:
    """The base names of all options_file in a config.json. Its settings may be nested in any way."""
    values = (settings.get("options_file") for settings in objects_in(training))
    names = {re.split(r"[/\\]", value)[-1] for value in values if isinstance(value, str)}
    return names - {"", ".", "..", "config.json"}


def objects_in(value: Any) -> Iterator[dict[str, Any]]:
    """Every object of nested JSON, however deep it is."""
    inner = [value]
    while inner:
        value = inner.pop()
        if isinstance(value, dict):
            yield value
        if isinstance(value, dict | list):
            inner += value.values() if isinstance(value, dict) else value


# ---- the biLM in a state dict


@dataclass(frozen=True)
class Place:
    """Where a biLM is: the beginnings of its names."""

    bilm: str  # such as "text_field_embedder.token_embedder_elmo._elmo._elmo_lstm."

    @property
    def mixes(self) -> str:
        return self.bilm.removesuffix("_elmo_lstm.")

    @property
    def name(self) -> str:
        """For people, and for `--name`."""
        return self.mixes.removesuffix("_elmo.").rstrip(".") or "elmo"


class Weights(StateDictArrays):
    def sizes(self, name: str, dimensions: int) -> tuple[int, ...]:
        shape = self.shape(name)
        if shape is None or len(shape) != dimensions or 0 in shape:
            raise self.error(name, f"must have {dimensions} sizes, but has {shape}")
        return shape


def find_place(arrays: Weights, name: str | None) -> Place:
    places = [Place(key.removesuffix(CHARACTERS)) for key in sorted(arrays.names) if key.endswith(CHARACTERS)]
    if not places:
        raise ElmoError(f"{arrays.path} holds no biLM, whose name would end with {CHARACTERS}; give another.")
    fitting = [place for place in places if name in (None, place.name)]
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(quoted(place.name) for place in places[:20])
    fault = "holds several biLMs" if name is None else f"holds no single biLM named {quoted(name)!r}"
    raise ElmoError(f"{arrays.path} {fault}; choose one by --name: {names}.")


def settings_from_shapes(arrays: Weights, place: Place) -> dict[str, Any]:
    base = place.bilm
    letters, char_dim = arrays.sizes(base + CHARACTERS, 2)
    if letters != NUM_CHARACTER_IDS:
        raise arrays.error(base + CHARACTERS, f"has {letters} rows, not {NUM_CHARACTER_IDS}")
    convolution = base + "_token_embedder.char_conv_{}.weight"
    filters = [arrays.sizes(convolution.format(i), 3) for i in range(arrays.count(convolution))]
    projection, cells = arrays.sizes(base + "_elmo_lstm.forward_layer_0.state_projection.weight", 2)
    return {
        "token_encoder": "characters",
        "char_embedding_dim": char_dim,
        "char_filters": [[width, number] for number, _, width in filters],
        "num_highway_layers": arrays.count(base + "_token_embedder._highways._layers.{}.weight"),
        "char_projection": True,
        "projection_dim": projection,
        "lstm_dim": cells,
        "lstm_projection": True,
        "num_hidden_layers": arrays.count(base + "_elmo_lstm.forward_layer_{}.state_projection.weight"),
        "num_mixes": arrays.count(place.mixes + "scalar_mix_{}.gamma"),
    }


# What a state dict does not hold, in the published models; AllenNLP always has residual connections.
ASSUMED: dict[str, Any] = {
    "cell_clip": 3.0,
    "proj_clip": 3.0,
    "char_activation": "relu",
    "max_characters_per_token": 50,
    "use_skip_connections": True,
}


def settings_from_files(source: Source, shapes: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the biLM, {} if there are none. Those of other biLMs have other sizes."""
    options = [settings_from_options(path, content) for path, content in source.options]
    fitting = [settings for settings in options if _agree(settings, shapes)] or options[:1]
    if any(settings != fitting[0] for settings in fitting[1:]):
        path = source.options[0][0]
        raise ElmoError(f"{path} holds several options that fit the weights; give an options.json beside it.")
    return fitting[0] if fitting else {}


def _agree(settings: Mapping[str, Any], shapes: Mapping[str, Any]) -> bool:
    return all(settings[name] == value for name, value in shapes.items() if name in settings)


def mix_layer_norm(training: Any) -> bool:
    """Whether AllenNLP normalises layers before it mixes them."""
    return any(settings.get("do_layer_norm") is True for settings in objects_in(training))


# ---- the table of names


def bilm_table(config: ElmoConfig, place: Place) -> Iterator[Entry]:
    """Every array of a biLM."""
    base, encoder = place.bilm + "_token_embedder.", "elmo.token_encoder"
    letters = (NUM_CHARACTER_IDS, config.char_embedding_dim)
    # Row 0, padding, is zero in both.
    yield Entry(place.bilm + CHARACTERS, letters, f"{encoder}.char_embedding.weight", without_padding, 1)
    for i, (width, number) in enumerate(config.char_filters or []):
        shape, name = (number, config.char_embedding_dim, width), f"{encoder}.convolutions.{i}"
        yield Entry(f"{base}char_conv_{i}.weight", shape, f"{name}.weight")
        yield Entry(f"{base}char_conv_{i}.bias", (number,), f"{name}.bias")
    for k in range(config.num_highway_layers):
        name = f"{encoder}.highways.{k}"
        yield from highway_table(f"{base}_highways._layers.{k}", name, config.num_filters)
    shape2 = (config.projection_dim, config.num_filters)
    yield Entry(f"{base}_projection.weight", shape2, f"{encoder}.projection.weight")
    yield Entry(f"{base}_projection.bias", (config.projection_dim,), f"{encoder}.projection.bias")
    for layer in range(config.num_hidden_layers):
        for direction, name in enumerate(("forward", "backward")):
            cell = f"{place.bilm}_elmo_lstm.{name}_layer_{layer}"
            yield from cell_table(cell, config, layer, direction)


def mix_table(config: ElmoConfig, place: Place, number: int, parameter: str, row: int) -> Iterator[Entry]:
    """A mix of a biLM's layers: a number for each, and its scale."""
    mix = f"{place.mixes}scalar_mix_{number}"
    yield Entry(f"{mix}.gamma", (1,), f"{parameter}.gamma", lambda gamma: gamma[row : row + 1])
    for layer in range(config.num_hidden_layers + 1):
        yield Entry(f"{mix}.scalar_parameters.{layer}", (1,), f"{parameter}.weights", _one_weight(row, layer))


def _one_weight(row: int, layer: int) -> Any:
    return lambda weights: weights[row, layer : layer + 1]


# ---- files -> plan


def plan(files: Recognised, choices: Choices, open_files: ExitStack) -> Plan:
    """What to make of an archive or a state dict."""
    with member_names() as names:
        return plan_of(find_source(files, names, open_files), choices, open_files)


def plan_of(source: Source, choices: Choices, open_files: ExitStack) -> Plan:
    arrays = open_files.enter_context(Weights(source.weights))
    arrays.path = next(iter(source.files.values()))  # for messages
    place = find_place(arrays, choices.name)
    shapes = settings_from_shapes(arrays, place)
    stored = settings_from_files(source, shapes)
    settings = {**ASSUMED, **shapes, "mix_layer_norm": mix_layer_norm(source.training), **stored}
    tagger, reason = find_tagger(source, arrays, place)
    settings |= {**(tagger.settings(source.training) if tagger else {}), **choices.settings}
    longest = settings["max_characters_per_token"]
    tokenizer = tagger.tokenizer(longest, open_files) if tagger else read_tokenizer(None, longest)
    config = make_config(arrays.path, settings, tokenizer)
    others = arrays.names  # arrays of the task, which are left
    pairs = match(arrays, bilm_table(config, place), others)
    if tagger is not None:
        pairs += match(arrays, mix_table(config, place, 0, "input_mix", 0), others)
        pairs += match(arrays, tagger.table(arrays, config.hidden_size, config.vocab_size), others)
    for number in range(config.num_mixes):
        pairs += match(arrays, mix_table(config, place, number, "elmo.scalar_mix", number), others)
    return Plan(
        family="AllenNLP's weights of a model",
        files=source.files,
        config=config,
        tokenizer=tokenizer,
        pairs=pairs,
        model_class=ElmoForTokenClassification if tagger else ElmoModel,
        assumed=list(assumptions(stored, choices.settings)),
        left=[*reason, *left_out(arrays, pairs, place)],
        changed=list(changes(arrays, config, place)),
    )


def find_tagger(source: Source, arrays: Weights, place: Place) -> tuple[Tagger | None, list[str]]:
    """The tagger, or the reason why one that there is cannot be taken."""
    if not is_tagger(arrays):
        return None, []
    known = {name for name in arrays.names if name.startswith(place.mixes)}
    try:
        return tagger_in(arrays, place.bilm, source.training, source.vocabulary, known), []
    except NotTheSame as error:
        return None, [f"the tagger, since {error}"]


def make_config(path: Path, settings: Mapping[str, Any], tokenizer: ElmoTokenizer) -> ElmoConfig:
    settings = {**settings, **vocabulary_fields(tokenizer)}
    try:
        return ElmoConfig(**settings)
    except ValueError as error:
        raise ElmoError(f"{path}: {str(error).rstrip('.')}; give other options.") from error


def assumptions(stored: Mapping[str, Any], chosen: Mapping[str, Any]) -> Iterator[str]:
    for name, value in ASSUMED.items():
        if name not in stored and name not in chosen:
            yield f"{name} is {value}, as in the published models, since the files do not say it"


def left_out(arrays: Weights, pairs: Pairs, place: Place) -> Iterator[str]:
    """Other tensors of the model, by the first words of their names."""
    taken = {entry.array for _, entry in pairs}
    if "crf.transitions" in taken:
        taken.add("crf._constraint_mask")  # the config has its rules
    cached = {place.bilm + name for name in ("_word_embedding.weight", "_bos_embedding", "_eos_embedding")}
    if not cached.isdisjoint(arrays.names):
        yield "vectors of words that were computed beforehand; the letters give them anew"
    others = Counter(_module_of(name) for name in arrays.names - taken - cached)
    for module, number in sorted(others.items())[:50]:
        yield f"{number} {'tensor' if number == 1 else 'tensors'} of {quoted(module)!r}"


def _module_of(name: str) -> str:
    """text_field_embedder.token_embedder_tokens.weight -> text_field_embedder.token_embedder_tokens"""
    words = name.split(".")
    return ".".join(words[: 2 if "embedder" in words[0] else 1])


def changes(arrays: Weights, config: ElmoConfig, place: Place) -> Iterator[str]:
    differing, largest, cells = 0, 0.0, config.lstm_dim
    for layer in range(config.num_hidden_layers):
        for name in ("forward", "backward"):
            array = f"{place.bilm}_elmo_lstm.{name}_layer_{layer}.state_linearity.bias"
            forget = arrays.rows(array, cells, 2 * cells).astype(np.float32)
            difference = np.abs((forget - np.float32(1)) + np.float32(1) - forget)
            differing += int((difference > 0).sum())
            largest = max(largest, float(difference.max(initial=0)))
    total = 2 * config.num_hidden_layers * cells
    yield (
        f"the forget gates' bias is stored without the 1 that the model adds when it runs: {differing:,} of "
        f"{total:,} numbers then differ, by at most {largest:.1g}"
    )
    if config.mix_layer_norm and config.num_mixes:
        yield "the mix normalises layers over words; AllenNLP counts a sentence's beginning and end as well"


FAMILY = Family(ROLES, role_of, mains=("state", "archive", "epoch"), plan=plan)
