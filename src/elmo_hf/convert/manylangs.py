"""Folders of ELMoForManyLangs: models of 44 languages that read letters as code points, words beside them.

    convert([Path("161")], Path("elmo-de"))

A folder holds two lexicons, char.dic and word.dic, the weights in token_embedder.pkl and encoder.pkl, and
sometimes a softmax in classifier.pkl. Its config.json only names the file that has the sizes, which is often
one of two that came with the library.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from elmo_hf.convert.arrays import Shape
from elmo_hf.convert.files import Recognised, read_json
from elmo_hf.convert.lexicons import (
    MAX_LETTERS_BYTES,
    MAX_WORDS_BYTES,
    Ids,
    check_ids,
    one_row_each,
    read_lexicon,
)
from elmo_hf.convert.manylangs_sizes import PUBLISHED, PUBLISHED_NAMES, settings_from_sizes
from elmo_hf.convert.pickled import StateDictArrays
from elmo_hf.convert.plan import Choices, Family, Plan
from elmo_hf.convert.table import Entry, match, single_row
from elmo_hf.convert.torch_layout import ROUNDING, cell_table, highway_table
from elmo_hf.errors import ElmoError, quoted
from elmo_hf.loading import vocabulary_fields
from elmo_hf.model.configuration_elmo import ElmoConfig
from elmo_hf.model.modeling_elmo import ElmoModel
from elmo_hf.model.modeling_elmo_pretraining import ElmoForPreTraining
from elmo_hf.model.tokenization_elmo import ElmoTokenizer

# ---- the files

EMBEDDER, ENCODER, CLASSIFIER = "token embedder", "encoder", "classifier"
LETTERS, WORDS, ARGUMENTS, SIZES = "letters", "words", "arguments", "sizes"
ROLES = {
    EMBEDDER: "weights of ELMoForManyLangs (token_embedder.pkl)",
    ENCODER: "weights of ELMoForManyLangs' LSTMs (encoder.pkl)",
    CLASSIFIER: "its softmax (classifier.pkl)",
    LETTERS: "its letters (char.dic)",
    WORDS: "its words (word.dic)",
    ARGUMENTS: "its arguments (.json with 'config_path')",
    SIZES: "its sizes (.json with 'token_embedder')",
}
# Its library reads these files by their names.
BY_NAME = {
    "token_embedder.pkl": EMBEDDER,
    "encoder.pkl": ENCODER,
    "classifier.pkl": CLASSIFIER,
    "char.dic": LETTERS,
    "word.dic": WORDS,
}


def role_of(path: Path) -> str | None:
    if path.name in BY_NAME:
        return BY_NAME[path.name]
    if path.suffix.lower() != ".json":
        return None
    content = read_json(path)
    if not isinstance(content, dict):
        return None
    if "token_embedder" in content and "encoder" in content:
        return SIZES
    return ARGUMENTS if "config_path" in content else None


def needed_file(files: Recognised, role: str) -> Path:
    path = files.get(role)
    if path is None:
        raise files.missing(role)
    return path


@dataclass(frozen=True)
class Sizes:
    path: Path  # of the file that holds them, or names them
    content: Any
    assumed: str | None = None


def find_sizes(files: Recognised) -> Sizes:
    """The sizes in the file that was named, or that config.json names. None outside its folder is read."""
    arguments, named = files.get(ARGUMENTS), files.get_named(SIZES)
    if named is None and arguments is None:
        named = files.get(SIZES)
    if named is not None:
        return Sizes(named, read_json(named))
    if arguments is None:
        raise files.missing(ARGUMENTS, SIZES)
    name = read_json(arguments)["config_path"]
    if not isinstance(name, str):
        raise ElmoError(f"{arguments}: option 'config_path' must be a name; correct it.")
    base = name.rpartition("/")[2]
    for path in (_inside(arguments.parent, name), _inside(arguments.parent, base)):
        if path is not None:
            return Sizes(path, read_json(path))
    if base in PUBLISHED_NAMES:
        return Sizes(arguments, PUBLISHED, f"sizes: those of the {base} that came with ELMoForManyLangs")
    raise ElmoError(
        f"{arguments} names {quoted(name)!r}, but there is no {quoted(base)!r} beside it; put that file "
        "there, or name it as well."
    )


def _inside(folder: Path, name: str) -> Path | None:
    """The file of this name in a folder, or below it; None if there is none, and for any other place."""
    path = Path(os.path.normpath(folder / name)) if "\0" not in name else folder
    try:
        is_inside = path.parent.resolve().is_relative_to(folder.resolve())
        return path if is_inside and path.is_file() else None
    except OSError:  # a name that is too long, or a folder that may not be read
        return None


# ---- letters and words

LETTER_NAMES = {  # the names of a word's begin and end are swapped in the library's own code
    "sentence_begin": "<bos>",
    "sentence_end": "<eos>",
    "word_begin": "<eow>",
    "word_end": "<bow>",
    "padding": "<pad>",
    "unknown": "<oov>",
}
BOUNDARIES = ("sentence_begin", "sentence_end", "word_begin", "word_end", "padding")
WORD_NAMES = ("<oov>", "<pad>")
SENTENCE_NAMES = ("<bos>", "<eos>")  # without a row of their own they are unknown words


@dataclass(frozen=True)
class Lexicon:
    """Names and their ids, each of its own.

    Args:
        ids: of the names.
        rows: of the table in the file.
        total: rows of the table that the model needs.
        copies: rows that hold the numbers of others.
    """

    path: Path
    ids: Ids
    rows: int
    total: int
    copies: Mapping[int, int]

    def table(self, array: str, dim: int, parameter: str, first: int = 0) -> Iterator[Entry]:
        """The entries of a table of vectors.

        Args:
            first: the row of the parameter that holds the first row of the file.
        """
        shape, rows = (self.rows, dim), slice(first, first + self.rows)
        yield Entry(array, shape, parameter, lambda weight: weight[rows])
        for row, original in self.copies.items():
            yield Entry(array, shape, parameter, single_row(first + row), original)


def read_letters(path: Path, rows: int) -> Lexicon:
    ids = read_lexicon(path, MAX_LETTERS_BYTES)
    _check_count(path, ids, rows, "letters")
    used = {name: id_ for name, id_ in ids.items() if len(name) == 1 or name in LETTER_NAMES.values()}
    check_ids(path, used, LETTER_NAMES.values(), rows)
    used, copies = one_row_each(path, used, rows)
    return Lexicon(path, used, rows, rows, copies)


def read_words(path: Path, rows: int) -> Lexicon:
    ids = read_lexicon(path, MAX_WORDS_BYTES)
    _check_count(path, ids, rows, "words")
    check_ids(path, ids, WORD_NAMES, rows)
    for name in ids:
        if "\0" in name:
            raise ElmoError(f"{path} has a word with NUL, which no text has; remove it.")
    added = {name: ids["<oov>"] for name in SENTENCE_NAMES if name not in ids}
    total = rows + len(added)
    ids, copies = one_row_each(path, ids | added, total)
    return Lexicon(path, ids, rows, total, copies)


def _check_count(path: Path, ids: Ids, rows: int, noun: str) -> None:
    if len(ids) != rows:
        raise ElmoError(
            f"{path} has {len(ids):,} different {noun}, but their table has {rows:,} rows; give the file of "
            "these weights."
        )


def make_tokenizer(
    letters: Lexicon | None, words: Lexicon | None, settings: Mapping[str, Any], open_files: ExitStack
) -> ElmoTokenizer:
    folder = Path(open_files.enter_context(TemporaryDirectory()))
    letters_file = vocabulary = None
    if letters is not None:
        letters_file = folder / "letters.json"
        letters_file.write_text(json.dumps(letters_content(letters)) + "\n", encoding="utf-8")
    if words is not None:
        vocabulary = folder / "vocab.txt"
        lines = sorted(words.ids, key=words.ids.__getitem__)
        vocabulary.write_bytes("".join(f"{line}\n" for line in lines).encode("utf-8"))
    return ElmoTokenizer(
        vocabulary,
        settings.get("max_characters_per_token", 50),
        word_splitter="whitespace",
        bos_token="<bos>",
        pad_token=padding_name(words),
        eos_token="<eos>",
        unk_token="<oov>",
        letters_file=letters_file,
        word_column=letters is not None and settings["word_embedding_dim"] > 0,
        cut_words="max_characters_per_token" in settings,
        strip_words=False,
    )


def padding_name(words: Lexicon | None) -> str:
    """A name for padding that is no word of theirs, unlike <pad>, and none of a text, as <PAD> might be."""
    name = "<no word>"
    while words is not None and name in words.ids:
        name = f"<{name}>"
    return name


def letters_content(letters: Lexicon) -> dict[str, Any]:
    """The content of letters.json, with ids as the model reads them: 0 is for "no word here"."""
    ids = {name: id_ + 1 for name, id_ in letters.ids.items()}
    return {"letters": ids, **{entry: ids[name] for entry, name in LETTER_NAMES.items()}}


# ---- the tables of names


def embedder_table(config: ElmoConfig, letters: Lexicon | None, words: Lexicon | None) -> Iterator[Entry]:
    """Every array of token_embedder.pkl."""
    encoder, width = "elmo.token_encoder", 0
    if words is not None and config.word_embedding_dim:
        array, parameter = "word_emb_layer.embedding.weight", f"{encoder}.word_embedding.weight"
        yield from words.table(array, config.word_embedding_dim, parameter)
        width += config.word_embedding_dim
    if letters is not None:
        array, parameter = "char_emb_layer.embedding.weight", f"{encoder}.char_embedding.weight"
        yield from letters.table(array, config.char_embedding_dim, parameter, first=1)
        yield from letter_network_table(config)
        width += config.num_filters
    yield Entry("projection.weight", (config.projection_dim, width), f"{encoder}.projection.weight")
    yield Entry("projection.bias", (config.projection_dim,), f"{encoder}.projection.bias")


def letter_network_table(config: ElmoConfig) -> Iterator[Entry]:
    """The convolutions and highway layers."""
    encoder = "elmo.token_encoder"
    for i, (width, number) in enumerate(config.char_filters or []):
        shape, name = (number, config.char_embedding_dim, width), f"convolutions.{i}"
        yield Entry(f"{name}.weight", shape, f"{encoder}.{name}.weight")
        yield Entry(f"{name}.bias", (number,), f"{encoder}.{name}.bias")
    for k in range(config.num_highway_layers):
        yield from highway_table(f"highways._layers.{k}", f"{encoder}.highways.{k}", config.num_filters)


def encoder_table(config: ElmoConfig) -> Iterator[Entry]:
    """Every array of encoder.pkl."""
    if config.stacked_lstm_layers:
        yield from stacked_table(config)
        return
    for layer in range(config.num_hidden_layers):
        for direction, name in enumerate(("forward", "backward")):
            yield from cell_table(f"{name}_layer_{layer}", config, layer, direction)


def stacked_table(config: ElmoConfig) -> Iterator[Entry]:
    """Encoder "lstm": PyTorch's own stack of bidirectional LSTMs, and a projection."""
    cells, width, layer = config.lstm_dim, config.projection_dim, "elmo.layers.0"
    for k in range(config.stacked_lstm_layers):
        size = 2 * cells if k else width
        shapes: dict[str, Shape] = {"weight_ih": (4 * cells, size), "weight_hh": (4 * cells, cells)}
        shapes |= {"bias_ih": (4 * cells,), "bias_hh": (4 * cells,)}
        for direction, end in (("forward", ""), ("backward", "_reverse")):
            for name, shape in shapes.items():
                parameter = f"{layer}.rnn.{direction}_layers.{k}.{name}_l0"
                yield Entry(f"encoder.{name}_l{k}{end}", shape, parameter)
    yield Entry("projection.weight", (width, cells), f"{layer}.projection.weight")
    yield Entry("projection.bias", (width,), f"{layer}.projection.bias")


def softmax_table(config: ElmoConfig, names: set[str]) -> Iterator[Entry]:
    """The softmax of classifier.pkl."""
    words, width = config.vocab_size, config.output_dim
    if "hidden2tag.weight" in names:
        yield Entry("hidden2tag.weight", (words, width), "lm_head.weight")
        yield Entry("hidden2tag.bias", (words,), "lm_head.bias")
        return
    yield Entry("column_emb.weight", (words, width), "lm_head.weight")
    yield Entry("column_bias.weight", (words, 1), "lm_head.bias", _as_column)


def _as_column(bias: Tensor) -> Tensor:
    return bias[:, None]


# ---- files -> plan

SPLITTING = "words: what white space separates, since the model's text was split into words beforehand"


class Weights(StateDictArrays):
    other_options = "give the files of one model"

    def rows_of(self, name: str) -> int:
        shape = self.shape(name)
        if not shape:
            raise self.error(name, "is missing, or no table", self.other_options)
        return shape[0]


def plan(files: Recognised, choices: Choices, open_files: ExitStack) -> Plan:
    """What to make of a folder."""
    sizes = find_sizes(files)
    settings = settings_from_sizes(sizes.path, sizes.content) | dict(choices.settings)
    embedder = open_files.enter_context(Weights(needed_file(files, EMBEDDER)))
    encoder = open_files.enter_context(Weights(needed_file(files, ENCODER)))
    left: list[str] = []
    softmax = find_softmax(files, settings, left, open_files)
    letters = find_letters(files, settings, embedder)
    words = find_words(files, settings, embedder, softmax, left)
    if softmax is not None and words is not None and words.copies:
        left.append(f"{softmax.path}: some words of {words.path} have no row of their own")
        softmax = None
    tokenizer = make_tokenizer(letters, words, settings, open_files)
    config = make_config(sizes.path, settings, letters, tokenizer)
    pairs = match(embedder, embedder_table(config, letters, words))
    pairs += match(encoder, encoder_table(config))
    if softmax is not None:
        pairs += match(softmax, softmax_table(config, softmax.names), {"oov_column"})
    sources = {EMBEDDER: embedder, ENCODER: encoder, CLASSIFIER: softmax, LETTERS: letters, WORDS: words}
    return Plan(
        family="a folder of ELMoForManyLangs",
        files={SIZES: sizes.path} | {role: x.path for role, x in sources.items() if x is not None},
        config=config,
        tokenizer=tokenizer,
        pairs=pairs,
        model_class=ElmoModel if softmax is None else ElmoForPreTraining,
        assumed=[text for text in (sizes.assumed, SPLITTING) if text is not None],
        left=left,
        changed=list(changes(config, letters, words)),
    )


def find_softmax(
    files: Recognised, settings: Mapping[str, Any], left: list[str], open_files: ExitStack
) -> Weights | None:
    """The softmax, if it is one of the top layer's outputs."""
    path = files.get(CLASSIFIER)
    if path is None:
        return None
    softmax = open_files.enter_context(Weights(path))
    if not {"hidden2tag.weight", "column_emb.weight", "corr.weight"} & softmax.names:
        raise ElmoError(f"{path} holds no softmax of ELMoForManyLangs; give the file of this model.")
    if "corr.weight" in softmax.names:
        left.append(f"{path}: a softmax of words' letters (cnn_softmax), which no model here has")
        return None
    if settings.get("stacked_lstm_layers"):
        left.append(f"{path}: a softmax of stacked LSTMs, which have seen the words that they predict")
        return None
    if settings["num_hidden_layers"] != 2:
        left.append(f"{path}: a softmax of the second of {settings['num_hidden_layers']} layers")
        return None
    return softmax


def find_letters(files: Recognised, settings: Mapping[str, Any], embedder: Weights) -> Lexicon | None:
    if settings["token_encoder"] == "words":
        return None
    return read_letters(needed_file(files, LETTERS), embedder.rows_of("char_emb_layer.embedding.weight"))


def find_words(
    files: Recognised,
    settings: Mapping[str, Any],
    embedder: Weights,
    softmax: Weights | None,
    left: list[str],
) -> Lexicon | None:
    """The words of the table beside the letters, or of the softmax."""
    if settings["word_embedding_dim"]:
        rows = embedder.rows_of("word_emb_layer.embedding.weight")
        return read_words(needed_file(files, WORDS), rows)
    if softmax is not None:
        table = "hidden2tag.weight" if "hidden2tag.weight" in softmax.names else "column_emb.weight"
        return read_words(needed_file(files, WORDS), softmax.rows_of(table))
    if files.get(WORDS) is not None:
        left.append(f"{files.get(WORDS)}: the model has no table of words")
    return None


def make_config(
    path: Path, settings: Mapping[str, Any], letters: Lexicon | None, tokenizer: ElmoTokenizer
) -> ElmoConfig:
    """The config alone: no parameter is allocated before its size matches the files."""
    settings = {**settings, **vocabulary_fields(tokenizer)}
    if letters is not None:
        content = letters_content(letters)
        boundaries = [content[entry] for entry in BOUNDARIES]
        settings |= {"num_characters": letters.total + 1, "boundary_characters": boundaries}
    try:
        return ElmoConfig(**settings)
    except ValueError as error:
        raise ElmoError(f"{path}: {str(error).rstrip('.')}; correct it.") from error


def changes(config: ElmoConfig, letters: Lexicon | None, words: Lexicon | None) -> Iterator[str]:
    if not config.stacked_lstm_layers:
        yield ROUNDING
    for lexicon in (letters, words):
        if lexicon is not None and lexicon.copies:
            yield f"{len(lexicon.copies)} names of {lexicon.path} share an id; each has a row of its own now"


FAMILY = Family(ROLES, role_of, mains=(EMBEDDER,), plan=plan)
