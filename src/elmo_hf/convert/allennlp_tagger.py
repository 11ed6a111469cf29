"""AllenNLP's `crf_tagger` as an `ElmoForTokenClassification`, if that computes the same labels.

It does if the tagger reads ELMo, and perhaps a table of words as they are, by an `lstm` in both directions.
Letters that AllenNLP reads beside ELMo are read without the signs of a word's ends, and words in lower case
need a look-up that our tokenizer does not have; `tagger_in` says why a tagger cannot be taken.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elmo_hf.convert.arrays import Shape
from elmo_hf.convert.pickled import StateDictArrays
from elmo_hf.convert.table import Entry, single_row
from elmo_hf.convert.vocabulary import read_tokenizer
from elmo_hf.errors import ElmoError, quoted
from elmo_hf.files import read_bytes
from elmo_hf.model.crf_elmo import forbidden_ends, forbidden_transitions
from elmo_hf.model.tokenization_elmo import ElmoTokenizer
from elmo_hf.model.words_elmo import MAX_VOCABULARY

EMBEDDER = "text_field_embedder.token_embedder_"
SCHEMES = ("none", "BIO", "BIOUL")
MAX_LABELS = 1000
UNKNOWN = "@@UNKNOWN@@"


class NotTheSame(Exception):
    """Why a tagger cannot be taken, as the end of a sentence."""


@dataclass
class Tagger:
    """What the files say of a tagger."""

    labels: list[str]
    scheme: str
    size: int  # cells of its LSTM
    layers: int
    elmo: str  # the name of the embedder with the biLM
    words: str | None = None  # the name of that with the table of words
    word_dim: int = 0
    vocabulary: list[str] = field(default_factory=list)  # of that table, without its row of padding

    def settings(self, training: Any) -> dict[str, Any]:
        """The options of ElmoConfig; those of a training come from config.json as well."""
        embedders = _embedders(training)
        dropout, elmo = _get(training, "model", "dropout"), embedders[self.elmo]
        return {
            "id2label": dict(enumerate(self.labels)),
            "label2id": {label: number for number, label in enumerate(self.labels)},
            "tag_scheme": self.scheme,
            "use_crf": True,
            "task_hidden_size": self.size,
            "task_num_layers": self.layers,
            "task_dropout": _fraction(dropout, 0.0),
            "task_word_dim": self.word_dim,
            "freeze_task_words": _get(embedders, self.words or "", "trainable") is False,
            "elmo_at_input": True,
            "elmo_at_output": False,
            "elmo_layers": "mix",
            "elmo_dropout": _fraction(elmo.get("dropout"), 0.5),
            "freeze_elmo": elmo.get("requires_grad") is not True,
            "mix_l2": 0.0,
            "num_mixes": 0,
        }

    def tokenizer(self, max_characters: int, open_files: ExitStack) -> ElmoTokenizer:
        """With the table's words in the order of its rows."""
        if self.words is None:
            return read_tokenizer(None, max_characters)
        path = Path(open_files.enter_context(TemporaryDirectory())) / "vocab.txt"
        words = ["<UNK>" if word == UNKNOWN else word for word in self.vocabulary]
        path.write_bytes("".join(f"{word}\n" for word in words).encode("utf-8"))
        return read_tokenizer(path, max_characters)

    def table(self, arrays: StateDictArrays, hidden_size: int, vocab_size: int) -> Iterator[Entry]:
        """Every array of the tagger but those of the biLM and its mix."""
        count = len(self.labels)
        yield from self._rnn_table(hidden_size)
        projection = "tag_projection_layer._module"
        yield Entry(f"{projection}.weight", (count, 2 * self.size), "classifier.weight")
        yield Entry(f"{projection}.bias", (count,), "classifier.bias")
        yield Entry("crf.transitions", (count, count), "crf.transitions")
        for name in ("start", "end"):
            if f"crf.{name}_transitions" in arrays.names:
                yield Entry(f"crf.{name}_transitions", (count,), f"crf.{name}")
        if self.words is not None:
            yield from self._word_table(vocab_size)

    def _rnn_table(self, hidden_size: int) -> Iterator[Entry]:
        for layer in range(self.layers):
            width = 2 * self.size if layer else hidden_size + self.word_dim
            shapes: dict[str, Shape] = {"weight_ih": (4 * self.size, width)}
            shapes |= {"weight_hh": (4 * self.size, self.size)}
            shapes |= {"bias_ih": (4 * self.size,), "bias_hh": (4 * self.size,)}
            for direction, end in (("forward", ""), ("backward", "_reverse")):
                for name, shape in shapes.items():
                    adjust = self._words_first if name == "weight_ih" and layer == 0 else None
                    ours = f"rnn.{direction}_layers.{layer}.{name}_l0"
                    yield Entry(f"encoder._module.{name}_l{layer}{end}", shape, ours, adjust=adjust)

    def _words_first(self, weight: Tensor) -> None:
        """AllenNLP joins embedders in the order of their names; ours are a word's own vector, and ELMo."""
        if self.words is not None and self.elmo < self.words:
            weight.copy_(torch.roll(weight, self.word_dim, dims=1))

    def _word_table(self, vocab_size: int) -> Iterator[Entry]:
        """Row 0 is padding, which our table has not. <S> and </S>, if they are no words, are unknown ones."""
        count, unknown = len(self.vocabulary), self.vocabulary.index(UNKNOWN) + 1
        array, ours = f"{EMBEDDER}{self.words}.weight", "task_words.word_table.weight"
        shape = (count + 1, self.word_dim)
        yield Entry(array, shape, ours, lambda table: table[:count], 1)
        for row in range(count, vocab_size):
            yield Entry(array, shape, ours, single_row(row), unknown)


def is_tagger(arrays: StateDictArrays) -> bool:
    return {"crf.transitions", "tag_projection_layer._module.weight"} <= arrays.names


def tagger_in(
    arrays: StateDictArrays, bilm: str, training: Any, vocabulary: Mapping[str, Path], known: set[str]
) -> Tagger:
    """What the files say of a tagger; NotTheSame if ours would not compute the same.

    Args:
        bilm: the beginning of the biLM's names.
        vocabulary: AllenNLP's files of words and labels.
        known: names of tensors that belong to the biLM.
    """
    if training is None or "labels" not in vocabulary:
        raise NotTheSame("config.json or vocabulary/labels.txt is not there")
    if _get(training, "model", "type") != "crf_tagger":
        raise NotTheSame(f"its type is {quoted(_get(training, 'model', 'type'))!r}, not 'crf_tagger'")
    if _get(training, "model", "label_weights") is not None:
        raise NotTheSame("its labels have weights")
    elmo, words = _two_embedders(arrays, bilm, training)
    size, layers = _encoder(arrays, training)
    labels = _lines(vocabulary["labels"])
    tagger = Tagger(labels, _scheme(arrays, labels), size, layers, elmo)
    if words is not None:
        _add_words(tagger, words, arrays, training, vocabulary)
    taken = {entry.array for entry in tagger.table(arrays, 0, 0)} | {"crf._constraint_mask"}
    if others := sorted(arrays.names - taken - known):
        raise NotTheSame(f"it has more weights, such as {quoted(others[0])!r}")
    return tagger


def _two_embedders(arrays: StateDictArrays, bilm: str, training: Any) -> tuple[str, str | None]:
    """The names of the embedder with the biLM, and of that with a table of words, if there is one."""
    elmo = bilm.removeprefix(EMBEDDER).removesuffix("._elmo._elmo_lstm.")
    embedders = _embedders(training)
    others = sorted(embedders.keys() - {elmo})
    if bilm != f"{EMBEDDER}{elmo}._elmo._elmo_lstm." or elmo not in embedders or len(others) > 1:
        raise NotTheSame(f"it reads {', '.join(map(quoted, others)) or 'other vectors'} beside ELMo")
    settings, indexer = embedders[elmo], _indexer(training, elmo)
    if settings.get("do_layer_norm") or settings.get("projection_dim"):
        raise NotTheSame("it normalises or projects ELMo's layers")
    if indexer.get("type") != "elmo_characters" or indexer.keys() - {"type", "namespace"}:
        raise NotTheSame("it reads letters in another way than ELMo")
    if f"{EMBEDDER}{elmo}._elmo.scalar_mix_1.gamma" in arrays.names:
        raise NotTheSame("it has several mixes")
    return elmo, others[0] if others else None


def _encoder(arrays: StateDictArrays, training: Any) -> tuple[int, int]:
    encoder = _get(training, "model", "encoder")
    kind = encoder.get("type") if isinstance(encoder, dict) else None
    if kind != "lstm" or encoder.get("bidirectional") is not True or encoder.get("stateful"):
        raise NotTheSame(f"its encoder is no bidirectional 'lstm', but {quoted(kind)!r}")
    layers = 0
    while f"encoder._module.weight_hh_l{layers}" in arrays.names:
        layers += 1
    shape = arrays.shape("encoder._module.weight_hh_l0")
    if shape is None or len(shape) != 2:
        raise NotTheSame("its encoder has no weights")
    return shape[1], layers


def _scheme(arrays: StateDictArrays, labels: Sequence[str]) -> str:
    """The scheme whose rules are those of the file. The mask has 1 for what is allowed; its last two rows and
    columns are for what is before the first word and after the last."""
    count, name = len(labels), "crf._constraint_mask"
    if len(set(labels)) != count or not 0 < count <= MAX_LABELS or "" in labels:
        raise NotTheSame("its labels have no names of their own")
    if arrays.shape("crf.transitions") != (count, count):
        raise NotTheSame(f"vocabulary/labels.txt has {count} labels, but the tagger has others")
    if arrays.shape(name) != (count + 2, count + 2):
        raise NotTheSame("its rules of labels are not there")
    mask = arrays.rows(name, 0, count + 2)
    for scheme in SCHEMES:
        try:
            rules, ends = forbidden_transitions(labels, scheme), forbidden_ends(labels, scheme)
        except ValueError:  # the labels are no labels of it
            continue
        if np.array_equal(mask[: count + 1, :count], ~rules) and np.array_equal(mask[:count, -1], ~ends):
            return scheme
    raise NotTheSame("its rules of labels are neither BIO nor BIOUL")


def _add_words(
    tagger: Tagger, words: str, arrays: StateDictArrays, training: Any, vocabulary: Mapping[str, Path]
) -> None:
    indexer, settings = _indexer(training, words), _embedders(training)[words]
    if indexer.get("lowercase_tokens"):
        raise NotTheSame("it looks words up in lower case")
    if indexer.get("type") != "single_id" or indexer.keys() - {"type", "lowercase_tokens", "namespace"}:
        raise NotTheSame(f"it reads {quoted(words)!r} beside ELMo, which are no words as they are")
    if indexer.get("namespace", "tokens") != "tokens" or "tokens" not in vocabulary:
        raise NotTheSame("vocabulary/tokens.txt, the words of its table, is not there")
    shape = arrays.shape(f"{EMBEDDER}{words}.weight")
    lines = _lines(vocabulary["tokens"])
    plain = all(word == word.strip() != "" and "@@NEWLINE@@" not in word for word in lines)
    if not plain or len(set(lines)) != len(lines) or UNKNOWN not in lines or "<UNK>" in lines:
        raise NotTheSame("vocabulary/tokens.txt has words that our tokenizer cannot tell apart")
    if shape is None or len(shape) != 2 or shape[0] != len(lines) + 1 or settings.get("projection_dim"):
        raise NotTheSame(f"its table of words is not one of the {len(lines)} words of vocabulary/tokens.txt")
    tagger.words, tagger.word_dim, tagger.vocabulary = words, shape[1], lines


def _lines(path: Path) -> list[str]:
    try:
        text = read_bytes(path, MAX_VOCABULARY).decode("utf-8")
    except UnicodeDecodeError:
        raise ElmoError(f"{path} is no UTF-8 text; take the files of one model.") from None
    return text.replace("\r\n", "\n").removesuffix("\n").split("\n")


# ---- config.json, of which nothing is believed


def _get(value: Any, *names: str) -> Any:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _embedders(training: Any) -> dict[str, dict[str, Any]]:
    """The settings of the embedders; older files have them without "token_embedders"."""
    field_embedder = _get(training, "model", "text_field_embedder")
    embedders = _get(field_embedder, "token_embedders") or field_embedder
    if not isinstance(embedders, dict):
        return {}
    return {name: value for name, value in embedders.items() if isinstance(value, dict)}


def _indexer(training: Any, name: str) -> dict[str, Any]:
    indexer = _get(training, "dataset_reader", "token_indexers", name)
    return indexer if isinstance(indexer, dict) else {}


def _fraction(value: Any, default: float) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < 1 else default
