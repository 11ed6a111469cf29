"""What the demo reads: a text's sentences, the layers of each word, and a tagger's labels.

    reader = load("my-elmo", "my-tagger")       # folders, or names on the Hub; the tagger may be left out
    text = reader.read("He sat on the bank. The bank lent him money.")
    text.words, text.layers, text.note          # a Word each; arrays (words, dim); whether it was cut
    reader.tag("Ann lives in Rome.")            # [("Ann", "PER"), (" lives in ", None), ...]

Texts come from anybody, so there is a limit to their length, and a longer one is cut.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch

from elmo_hf.corpus.sentences import batches, split_sentences
from elmo_hf.loading import load as load_checked
from elmo_hf.loading import load_config
from elmo_hf.metrics.tags import spans
from elmo_hf.model.modeling_elmo import ElmoModel
from elmo_hf.model.modeling_elmo_tagging import ElmoForTokenClassification
from elmo_hf.model.tokenization_elmo import ElmoTokenizer

MOST_LETTERS, MOST_WORDS = 10_000, 1_000  # of a text
BATCH_WORDS = 4096
KEPT_TEXTS = 8


@dataclass(frozen=True)
class Word:
    form: str
    sentence: int
    place: int  # in its sentence

    @property
    def key(self) -> str:
        """What all occurrences of a word have in common."""
        return self.form.casefold()

    @property
    def is_word(self) -> bool:
        """No sign, such as a comma."""
        return any(letter.isalnum() for letter in self.form)


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
        counts: dict[str, int] = {}
        for word in self.words:
            if word.is_word:
                counts[word.key] = counts.get(word.key, 0) + 1
        return sorted(counts, key=lambda key: -counts[key])


class Reader:
    """The models behind a page. Several people may ask at once; they are answered one after the other."""

    def __init__(
        self,
        name: str,
        model: ElmoModel,
        tokenizer: ElmoTokenizer,
        tagger: ElmoForTokenClassification | None = None,
        tagger_tokenizer: ElmoTokenizer | None = None,
    ) -> None:
        self.name, self.model, self.tokenizer = name, model.eval(), tokenizer
        self.tagger = tagger.eval() if tagger is not None else None
        self.tagger_tokenizer = tagger_tokenizer or tokenizer
        self._lock = Lock()
        self.read = lru_cache(KEPT_TEXTS)(self._read)  # each move of a slider asks for the same text again

    @property
    def num_layers(self) -> int:
        return self.model.config.num_hidden_layers + 1

    @property
    def mixable(self) -> list[int]:
        """The layers of one width; without projections the words' own differs."""
        config = self.model.config
        return list(range(config.projection_dim != config.output_dim, self.num_layers))

    def _read(self, text: str) -> Text:
        sentences, note = split(text, self.tokenizer)
        words = [
            Word(form, number, place)
            for number, sentence in enumerate(sentences)
            for place, form in enumerate(sentence)
        ]
        with self._lock, torch.inference_mode():
            return Text(sentences, words, self._layers(sentences), note)

    def _layers(self, sentences: list[list[str]]) -> list[np.ndarray]:
        """Of all words in a row, each (words, dim)"""
        read: dict[int, list[np.ndarray]] = {}
        for batch in batches([len(sentence) for sentence in sentences], BATCH_WORDS):
            encoding = _encode(self.tokenizer, [sentences[number] for number in batch])
            hidden = self.model(**encoding, output_hidden_states=True, return_dict=True).hidden_states
            for place, number in enumerate(batch):
                read[number] = [layer[place, : len(sentences[number])].float().numpy() for layer in hidden]
        rows = [read[number] for number in range(len(sentences))]
        return [np.concatenate(layer) for layer in zip(*rows, strict=True)]

    def tag(self, text: str) -> list[tuple[str, str | None]]:
        """The text in pieces, each with its label or without; a line a sentence."""
        if self.tagger is None:
            return []
        sentences, _ = split(text, self.tagger_tokenizer)
        names: Any = self.tagger.config.id2label
        labels: dict[int, list[str]] = {}
        with self._lock, torch.inference_mode():
            for batch in batches([len(sentence) for sentence in sentences], BATCH_WORDS):
                encoding = _encode(self.tagger_tokenizer, [sentences[number] for number in batch])
                for number, row in zip(batch, self.tagger.decode(**encoding).tolist(), strict=True):
                    labels[number] = [names[label] for label in row[: len(sentences[number])]]
        lines = [pieces(sentence, labels[number]) for number, sentence in enumerate(sentences)]
        return [piece for line in lines for piece in [*line, ("\n", None)]][:-1]


def _encode(tokenizer: ElmoTokenizer, sentences: list[list[str]]) -> Any:
    return tokenizer(sentences, is_split_into_words=True, padding=True, return_tensors="pt")


def split(text: str, tokenizer: ElmoTokenizer) -> tuple[list[list[str]], str]:
    """The words of each sentence, of which a line may have several, and a note if the text was too long."""
    note = ""
    if len(text) > MOST_LETTERS:
        text, note = text[:MOST_LETTERS], f"The text is cut after {MOST_LETTERS:,} letters."
    found, room = [], MOST_WORDS
    for sentence in (sentence for line in text.splitlines() for sentence in split_sentences(line)):
        words = tokenizer.tokenize(sentence)
        if len(words) > room:
            words, note = words[:room], f"The text is cut after {MOST_WORDS:,} words."
        room -= len(words)
        if words:
            found.append(words)
    return found, note


def pieces(words: list[str], labels: list[str]) -> list[tuple[str, str | None]]:
    """A sentence in labelled and other pieces: spans if the labels are BIO, single words if not."""
    if all(label == "O" or label[:2] in ("B-", "I-") for label in labels):
        marked = spans(labels)
    else:
        marked = [(label, place, place + 1) for place, label in enumerate(labels) if label != "O"]
    found: list[tuple[str, str | None]] = []
    done = 0
    for kind, start, end in [*marked, (None, len(words), len(words))]:
        between = " ".join(words[done:start])
        space = " " if found else ""
        if between or (space and start < len(words)):
            found.append((space + between + (" " if between and start < len(words) else ""), None))
        if kind is not None:
            found.append((" ".join(words[start:end]), kind))
        done = end
    return found


# ---- loading


def load(model: str | Path, tagger: str | Path | None = None) -> Reader:
    """From folders, or by names on the Hub."""
    with_labels = load_tagger(tagger) if tagger is not None else ()
    return Reader(Path(model).name, *load_checked(model, ElmoModel), *with_labels)


def load_tagger(name: str | Path) -> tuple[ElmoForTokenClassification, ElmoTokenizer]:
    if ElmoForTokenClassification.__name__ not in (load_config(name).architectures or []):
        raise ValueError(
            f"{name} holds no ElmoForTokenClassification; --tagger takes a model that labels words, such as "
            "training/finetune_ner.py makes."
        )
    return load_checked(name, ElmoForTokenClassification)
