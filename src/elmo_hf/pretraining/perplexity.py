"""How well a language model predicts a text: the perplexity by the full softmax, in both directions.

    found = perplexity(model, "held-out.txt", tokenizer)        # or sentences: [["Ice", "cream"], ...]
    found.forward, found.backward, found.mean, found.tokens, found.unknown
    elmo-hf perplexity held-out.txt --model my-elmo --states carried

In a sentence of n words each direction predicts n + 1 tokens: forward the words and `</S>`, backward the
words and `<S>`. A word outside of the vocabulary is read letter by letter and predicted as `<UNK>`, so two
figures compare only where the vocabulary is one, and never with the perplexity of a sampled softmax. Empty
lines are passed over.

`states` is what the LSTMs start a sentence from. "zero": from zeros, each sentence alone. "warm": from the
state that `warm_up` has stored with the model, each sentence alone. "carried": from what the sentence before
has left, as in training and in bilm-tf's test: rows of running text, each of which takes the text's next
sentence when its last one ends. Which sentence follows which, and so a little of the figure, depends on
the number of rows.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from elmo_hf.corpus.sentences import batches, grouped, split_sentences, word_count
from elmo_hf.corpus.source import Source, open_records
from elmo_hf.loading import evaluating
from elmo_hf.model.modeling_elmo import States
from elmo_hf.model.modeling_elmo_pretraining import ElmoForPreTraining
from elmo_hf.model.tokenization_elmo import ElmoTokenizer
from elmo_hf.model.words_elmo import character_ids

STATES = ("zero", "warm", "carried")
SORTED_AT_ONCE = 32_768  # words, among which sentences of like length are looked for
STEPS = 50  # of a window of carried text; the figure does not depend on it

# What both directions read, then what they predict, each in its own order: (2, 2 directions, steps) words.
Row = np.ndarray


@dataclass(frozen=True)
class Perplexity:
    """What one evaluation found.

    forward_loss, backward_loss: mean cross entropy of a token, in nats.
    tokens: what each direction predicts: the words, and for each sentence one boundary.
    sentences: those with at least one word.
    unknown: share of the words that are predicted as `<UNK>`; the boundaries are not counted.
    states: "zero", "warm" or "carried".
    """

    forward_loss: float
    backward_loss: float
    tokens: int
    sentences: int
    unknown: float
    states: str

    @property
    def forward(self) -> float:
        return math.exp(self.forward_loss)

    @property
    def backward(self) -> float:
        return math.exp(self.backward_loss)

    @property
    def mean(self) -> float:
        """The biLM's perplexity: of the mean of both losses."""
        return math.exp(0.5 * (self.forward_loss + self.backward_loss))

    @property
    def arithmetic_mean(self) -> float:
        """The mean of both perplexities, which is a little higher."""
        return 0.5 * (self.forward + self.backward)

    def to_dict(self) -> dict[str, float | int | str]:
        """All of it as plain numbers, for JSON."""
        names = ["forward", "backward", "mean", "arithmetic_mean", "forward_loss", "backward_loss"]
        names += ["tokens", "sentences", "unknown", "states"]
        return {name: getattr(self, name) for name in names}


def perplexity(
    model: ElmoForPreTraining,
    source: str | Path | Iterable[Any],
    tokenizer: ElmoTokenizer,
    *,
    states: str = "zero",
    raw: bool = False,
    split_sentences: bool = False,
    rows: int = 32,
    batch_words: int = 4096,
    text_column: str | None = None,
    tokens_column: str | None = None,
    progress: bool = False,
) -> Perplexity:
    """Reads a text with the model as it is, on its device, and leaves it in the mode in which it was.

    Args:
        source: a file of text, one sentence a line, or of JSON lines, Parquet or CSV, plain or packed
            (`.gz`, `.bz2`, `.xz`, `.zst`), or an iterable of texts, lists of words or dictionaries. It is
            read as a stream, and never held as a whole.
        tokenizer: with the vocabulary whose lines are the rows of the model's softmax.
        states: "zero", "warm" or "carried".
        raw: split text into words by the tokenizer's rule; otherwise it is split at whitespace.
        split_sentences: a text is a paragraph, to be split into sentences; otherwise it is one sentence.
        rows: rows of running text, with carried states.
        batch_words: words of a batch, with its padding, with the other states.
        text_column, tokens_column: where a record has its text, or its words. Left out: "text" or "tokens".
        progress: show tokens a second, and the time left.
    """
    _check(model, tokenizer, states, {"rows": rows, "batch_words": batch_words})
    corpus = open_records(source, text_column, tokens_column)
    text = _Text(corpus, tokenizer, raw, split_sentences)
    windows = text.windows(rows, STEPS) if states == "carried" else text.batches(batch_words)
    judge = _Judge(model, tokenizer)
    with torch.no_grad(), evaluating(model.elmo), _bar(corpus, progress) as bar:
        carried: States | None = None
        for window in windows:
            start = _states(model, len(window), states) if carried is None else carried
            after = judge.read(window, start)
            carried = after if states == "carried" else None
            bar.update(sum(row.shape[-1] for row in window))
    return judge.verdict(corpus, text.sentences, states)


def _check(model: Any, tokenizer: Any, states: str, numbers: dict[str, Any]) -> None:
    if states not in STATES:
        raise ValueError(f"states must be one of {', '.join(STATES)}, but is {states!r}.")
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, but is {value!r}.")
    if not isinstance(model, ElmoForPreTraining):
        raise ValueError(f"perplexity needs an ElmoForPreTraining, but got {type(model).__name__}.")
    config = model.config
    if tokenizer.vocab_size == 3:  # <S>, </S> and <UNK>, which it always has
        raise ValueError(
            "the tokenizer has no vocabulary, so there is no word to predict; make it with "
            "ElmoTokenizer(vocab_file), a word a line in the order of the model's softmax."
        )
    for name in ("vocab_size", "bos_token_id", "eos_token_id", "unk_token_id"):
        ours, theirs = getattr(config, name), getattr(tokenizer, name)
        if ours != theirs:
            raise ValueError(
                f"the model has {name} {ours}, but the tokenizer has {theirs}; pass the model's own."
            )
    if states == "warm":
        model.elmo.warm_states(1)  # says so if there is none


def _states(model: ElmoForPreTraining, rows: int, states: str) -> States:
    return model.elmo.warm_states(rows) if states == "warm" else model.elmo.zero_states(rows)


@contextmanager
def _bar(corpus: Source, progress: bool) -> Iterator[Any]:
    total = None
    if progress and corpus.stream is None:  # reading takes little time beside the model
        total = sum(word_count(record) + 1 for record in corpus.records())
    with tqdm(total=total, unit=" tokens", unit_scale=True, disable=not progress) as bar:
        yield bar


# ---- text to rows of words


class _Text:
    """A corpus as rows to be read and predicted; `sentences` counts those that were taken so far."""

    def __init__(self, corpus: Source, tokenizer: ElmoTokenizer, raw: bool, is_paragraphs: bool) -> None:
        self.corpus, self.tokenizer = corpus, tokenizer
        self.raw, self.is_paragraphs, self.sentences = raw, is_paragraphs, 0

    def batches(self, batch_words: int) -> Iterator[list[Row]]:
        """Whole sentences, those of like length together."""
        for group in self._groups():
            for numbers in batches([row.shape[-1] for row in group], batch_words):
                yield [group[number] for number in numbers]

    def windows(self, rows: int, steps: int) -> Iterator[list[Row]]:
        """Running text: the next sentence goes to the row that ends first, so that nothing is padded before
        the text runs out. Where a window ends makes no difference to who follows whom."""
        ahead = [np.empty((2, 2, 0), dtype=object)] * rows
        for sentence in chain.from_iterable(self._groups()):
            first = min(range(rows), key=lambda row: ahead[row].shape[-1])
            ahead[first] = np.concatenate([ahead[first], sentence], axis=-1)
            while min(row.shape[-1] for row in ahead) >= steps:
                yield [row[..., :steps] for row in ahead]
                ahead = [row[..., steps:] for row in ahead]
        while any(row.size for row in ahead):
            yield [row[..., :steps] for row in ahead]
            ahead = [row[..., steps:] for row in ahead]

    def _groups(self) -> Iterator[list[Row]]:
        for records in grouped(self.corpus.records(), SORTED_AT_ONCE):
            sentences = [words for record in records for words in self._split(record) if words]
            self.sentences += len(sentences)
            yield [self._row(words) for words in sentences]

    def _split(self, record: str | list[str]) -> list[list[str]]:
        """A record's sentences, each its words"""
        if isinstance(record, list):
            return [record]
        texts = split_sentences(record) if self.is_paragraphs else [record]
        return [self.tokenizer.tokenize(text) if self.raw else text.split() for text in texts]

    def _row(self, words: list[str]) -> Row:
        forward = [self.tokenizer.bos_token, *words, self.tokenizer.eos_token]
        backward = forward[::-1]
        return np.array([[forward[:-1], backward[:-1]], [forward[1:], backward[1:]]], dtype=object)


# ---- rows of words to losses


class _Judge:
    """Adds up the losses of both directions, row after row."""

    def __init__(self, model: ElmoForPreTraining, tokenizer: ElmoTokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.losses, self.tokens, self.unknown = [0.0, 0.0], 0, 0

    def read(self, window: list[Row], states: States) -> States:
        """The rows' text goes into the sums; returns the states after it."""
        lengths = torch.tensor([row.shape[-1] for row in window])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        mask = torch.stack([mask, mask])
        words, targets = np.concatenate(window, axis=-1)  # each (2 directions, tokens)
        wanted = self._word_ids(targets)
        ids, mask = self._input_ids(words, mask).to(self.model.device), mask.to(self.model.device)
        top, states = self.model.elmo.read_windows(ids, mask, states)
        for direction in range(2):
            hidden, goal = top[direction][mask[direction]], wanted[direction].to(self.model.device)
            self.losses[direction] += self.model.summed_loss(hidden, goal).item()
        self.tokens += wanted.shape[1]
        self.unknown += int((wanted[0] == self.tokenizer.unk_token_id).sum())
        return states

    def _word_ids(self, words: np.ndarray) -> Tensor:
        """The rows of the softmax, of the same shape; what has none, as padding's name, is unknown."""
        ids = torch.tensor(self.tokenizer.convert_tokens_to_ids(words.flatten().tolist()))
        ids[ids >= self.model.config.vocab_size] = self.tokenizer.unk_token_id
        return ids.view(words.shape)

    def _input_ids(self, words: np.ndarray, mask: Tensor) -> Tensor:
        """(2, tokens) -> (2, rows, steps[, characters]), as `ElmoModel.read_windows` reads them"""
        if self.model.config.token_encoder == "words":
            rows = self._word_ids(words).flatten()
        else:
            names, special = words.flatten().tolist(), (self.tokenizer.bos_token, self.tokenizer.eos_token)
            rows = torch.from_numpy(
                character_ids(names, self.model.config.max_characters_per_token, *special)
            )
        ids = rows.new_zeros(*mask.shape, *rows.shape[1:])
        ids[mask] = rows
        return ids

    def verdict(self, corpus: Source, sentences: int, states: str) -> Perplexity:
        if not sentences:
            raise ValueError(f"{corpus.name} is empty; there is no word in it.")
        forward, backward = (loss / self.tokens for loss in self.losses)
        for direction, loss in (("forward", forward), ("backward", backward)):
            if not loss < 700:  # beyond, e to its power is no number; nor is it of what is not a number
                raise ValueError(
                    f"the {direction} loss is {loss:g}, which has no perplexity; the model's weights are not "
                    "those of a trained model."
                )
        words = self.tokens - sentences
        return Perplexity(forward, backward, self.tokens, sentences, self.unknown / words, states)
