"""What the demo reads: a text's sentences, the layers of each word, and a tagger's labels.

    reader = load("my-elmo", "my-tagger")       # folders, or names on the Hub; the tagger is optional
    text = reader.read("He sat on the bank. The bank lent him money.")
    text.words, text.layers, text.note          # a Word each; arrays (words, dim); whether it was cut
    reader.tag("Ann lives in Rome.")            # [("Ann", "PER"), (" lives in ", None), ...]

Anybody may send a text, so its length is limited, and a longer one is cut.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import torch

from elmo_hf.corpus.sentences import batches, split_sentences
from elmo_hf.errors import ElmoError, visible
from elmo_hf.loading import load as load_checked
from elmo_hf.loading import load_config
from elmo_hf.metrics.tags import spans
from elmo_hf.model.modeling_elmo import ElmoModel
from elmo_hf.model.modeling_elmo_tagging import ElmoForTokenClassification
from elmo_hf.model.tokenization_elmo import ElmoTokenizer

MAX_CHARACTERS, MAX_WORDS = 10_000, 1_000  # of a text
BATCH_WORDS = 4096
CACHED_TEXTS = 8

Result = TypeVar("Result")


@dataclass(frozen=True)
class Word:
    form: str
    sentence: int
    index: int  # in its sentence

    @property
    def key(self) -> str:
        """What all occurrences of a word have in common."""
        return self.form.casefold()

    @property
    def is_word(self) -> bool:
        """False for punctuation."""
        return any(character.isalnum() for character in self.form)


@dataclass(frozen=True)
class Text:
    """Sentences as words; the words of all of them in a row; the layers, bottom up, (words, dim)."""

    sentences: list[list[str]]
    words: list[Word]
    layers: list[np.ndarray]
    note: str

    def occurrences(self, key: str) -> list[int]:
        return [number for number, word in enumerate(self.words) if word.key == key]

    def keys(self) -> list[str]:
        """The different words, the most frequent first, then in the order of the text."""
        return [key for key, _ in Counter(word.key for word in self.words if word.is_word).most_common()]


class Reader:
    """The models behind a page. Calls from several threads run one after another."""

    def __init__(
        self,
        model: ElmoModel,
        tokenizer: ElmoTokenizer,
        tagger: ElmoForTokenClassification | None = None,
        tagger_tokenizer: ElmoTokenizer | None = None,
    ) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        self.tagger = tagger.eval() if tagger is not None else None
        self.tagger_tokenizer = tagger_tokenizer or tokenizer
        self._lock = Lock()
        self.read = lru_cache(CACHED_TEXTS)(self._read)  # each move of a slider reads the same text again

    @property
    def num_layers(self) -> int:
        return self.model.config.num_hidden_layers + 1

    @property
    def mixable(self) -> list[int]:
        """The layers of equal width; without an LSTM projection, layer 0 may have another."""
        config = self.model.config
        return list(range(config.projection_dim != config.output_dim, self.num_layers))

    def _read(self, text: str) -> Text:
        sentences, note = split(text, self.tokenizer)
        words = [
            Word(form, number, index)
            for number, sentence in enumerate(sentences)
            for index, form in enumerate(sentence)
        ]
        rows = self._by_sentence(self.tokenizer, sentences, self._hidden_states)
        by_sentence = [
            [layer[: len(sentence)].float().numpy() for layer in layers]
            for sentence, layers in zip(sentences, rows, strict=True)
        ]
        layers = [np.concatenate(layer) for layer in zip(*by_sentence, strict=True)]
        return Text(sentences, words, layers, note)

    def _hidden_states(self, encoding: Any) -> Iterable[Any]:
        """For each row, its layers (words, dim)."""
        hidden = self.model(**encoding, output_hidden_states=True, return_dict=True).hidden_states
        return zip(*hidden, strict=True)

    def _by_sentence(
        self,
        tokenizer: ElmoTokenizer,
        sentences: list[list[str]],
        run: Callable[[Any], Iterable[Result]],
    ) -> list[Result]:
        """The result of `run` for each sentence. Sentences of similar length share a batch."""
        results: dict[int, Result] = {}
        with self._lock, torch.inference_mode():
            for batch in batches([len(sentence) for sentence in sentences], BATCH_WORDS):
                rows = [sentences[number] for number in batch]
                encoding = tokenizer(rows, is_split_into_words=True, padding=True, return_tensors="pt")
                results |= zip(batch, run(encoding), strict=True)
        return [results[number] for number in range(len(sentences))]

    def tag(self, text: str) -> list[tuple[str, str | None]]:
        """The text in pieces, each with its label or None; one sentence a line."""
        tagger = self.tagger
        if tagger is None:
            return []
        sentences, _ = split(text, self.tagger_tokenizer)
        names: Any = tagger.config.id2label
        rows = self._by_sentence(
            self.tagger_tokenizer, sentences, lambda encoding: tagger.decode(**encoding).tolist()
        )
        labelled: list[tuple[str, str | None]] = []
        for sentence, row in zip(sentences, rows, strict=True):
            labelled += pieces(sentence, [names[label] for label in row[: len(sentence)]])
            labelled.append(("\n", None))
        return labelled[:-1]


def split(text: str, tokenizer: ElmoTokenizer) -> tuple[list[list[str]], str]:
    """The words of each sentence (a line may hold several), and a note if the text was too long."""
    note = ""
    if len(text) > MAX_CHARACTERS:
        text, note = text[:MAX_CHARACTERS], f"The text is cut after {MAX_CHARACTERS:,} letters."
    sentences, remaining = [], MAX_WORDS
    for sentence in (sentence for line in text.splitlines() for sentence in split_sentences(visible(line))):
        words = tokenizer.tokenize(sentence)
        if len(words) > remaining:
            words, note = words[:remaining], f"The text is cut after {MAX_WORDS:,} words."
        remaining -= len(words)
        if words:
            sentences.append(words)
    return sentences, note


def pieces(words: list[str], labels: list[str]) -> list[tuple[str, str | None]]:
    """A sentence in labelled and other pieces: spans if the labels are BIO, otherwise single words."""
    if all(label == "O" or label[:2] in ("B-", "I-") for label in labels):
        labelled = spans(labels)
    else:
        labelled = [(label, index, index + 1) for index, label in enumerate(labels) if label != "O"]
    sentence: list[tuple[str, str | None]] = []
    end = 0
    for label, start, next_end in [*labelled, (None, len(words), len(words))]:
        between = " ".join(words[end:start])
        space = " " if sentence else ""
        if between or (space and start < len(words)):
            sentence.append((space + between + (" " if between and start < len(words) else ""), None))
        if label is not None:
            sentence.append((" ".join(words[start:next_end]), label))
        end = next_end
    return sentence


# ---- loading


def load(model: str | Path, tagger: str | Path | None = None) -> Reader:
    """Load a model, and optionally a tagger, from folders or names on the Hub.

    Raises:
        ElmoError: One of them cannot be loaded, or `tagger` is no `ElmoForTokenClassification`.
    """
    tagger_and_tokenizer = load_tagger(tagger) if tagger is not None else ()
    return Reader(*load_checked(model, ElmoModel), *tagger_and_tokenizer)


def load_tagger(name: str | Path) -> tuple[ElmoForTokenClassification, ElmoTokenizer]:
    if ElmoForTokenClassification.__name__ not in (load_config(name).architectures or []):
        raise ElmoError(
            f"{name} holds no ElmoForTokenClassification; --tagger takes a model that labels words, such as "
            "training/finetune_ner.py makes."
        )
    return load_checked(name, ElmoForTokenClassification)
