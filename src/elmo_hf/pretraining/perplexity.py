"""The perplexity of a text under a language model, by the full softmax, in both directions.

    result = perplexity(model, "held-out.txt", tokenizer)        # or sentences: [["Ice", "cream"], ...]
    result.forward, result.backward, result.mean, result.tokens, result.unknown
    elmo-hf perplexity held-out.txt --model my-elmo --states carried

In a sentence of n words each direction predicts n + 1 tokens: forward the words and `</S>`, backward the
words and `<S>`. A word outside the vocabulary is read by its characters and predicted as `<UNK>`, so two
perplexities compare only if the vocabularies are the same, and never with that of a sampled softmax. Empty
lines are skipped.

`states` are the LSTM states at the start of a sentence. "zero": zeros. "warm": those that `warm_up` has
stored with the model. "carried": those at the end of the sentence before, as in training and in bilm-tf's
test, in rows of running text; a row takes the next sentence of the text when its last one ends. The number of
rows decides which sentence follows which, and so changes the perplexity a little.
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
from elmo_hf.errors import ElmoError
from elmo_hf.loading import evaluating
from elmo_hf.model.modeling_elmo import States
from elmo_hf.model.modeling_elmo_pretraining import ElmoForPreTraining
from elmo_hf.model.tokenization_elmo import ElmoTokenizer

STATES = ("zero", "warm", "carried")
MAX_LOSS = 69.0  # nats, a perplexity of nearly 1e30; larger ones are not read from the log of a run (log.py)
SORTED_AT_ONCE = 32_768  # words of the buffer from which sentences of similar length are batched
STEPS = 50  # words of a window of carried text; the result does not depend on it

# (2, 2 directions, steps) words: the inputs and the targets of both directions, each in its reading order.
Row = np.ndarray


@dataclass(frozen=True)
class Perplexity:
    """The result of an evaluation.

    Attributes:
        forward_loss, backward_loss: mean cross entropy of a token, in nats.
        tokens: tokens that each direction predicts: the words, and one boundary for each sentence.
        sentences: number of sentences with at least one word.
        unknown: share of the words that are predicted as `<UNK>`; boundaries are not counted.
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
        """The biLM's perplexity: exp of the mean of both losses."""
        return math.exp(0.5 * (self.forward_loss + self.backward_loss))

    @property
    def arithmetic_mean(self) -> float:
        """The arithmetic mean of both perplexities, which is a little higher than `mean`."""
        return 0.5 * (self.forward + self.backward)

    def to_dict(self) -> dict[str, float | int | str]:
        """Return all values as plain numbers, for JSON."""
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
    column: str | None = None,
    text_column: str | None = None,
    tokens_column: str | None = None,
    progress: bool = False,
) -> Perplexity:
    """Compute the perplexity of a text, on the model's device, without dropout.

    >>> language_model, tokenizer = load_language_model(str(TINY))
    >>> result = perplexity(language_model, ["He sat on the bank .", "Why ?"], tokenizer)
    >>> result.sentences
    2

    Args:
        model: the language model; it stays in the mode, training or evaluation, in which it is.
        source: a file of text, one sentence a line, or of JSON lines, Parquet or CSV, plain or packed
            (`.gz`, `.bz2`, `.xz`, `.zst`), or an iterable of texts, lists of words or dictionaries. It is
            read as a stream.
        tokenizer: the model's own; the lines of its vocabulary are the rows of the model's softmax.
        states: LSTM states at the start of a sentence: "zero", "warm" or "carried".
        raw: split text into words by the tokenizer's rule, not at whitespace.
        split_sentences: split each text, a paragraph, into sentences.
        rows: rows of running text, with carried states.
        batch_words: words of a batch, padding included, with zero or warm states.
        column: column of a record's text or words, by default "text" or "tokens".
        text_column, tokens_column: the older names of `column`; the one must hold text, the other words.
        progress: show a progress bar.

    Returns:
        the perplexities of both directions, with the numbers of tokens and sentences.

    Raises:
        ElmoError: a wrong argument, a model without a softmax or stored states, or a text without words.
    """
    _check(model, tokenizer, states, {"rows": rows, "batch_words": batch_words})
    corpus = open_records(source, text_column, tokens_column, column=column)
    text = _Text(corpus, tokenizer, raw, split_sentences)
    windows = text.windows(rows, STEPS) if states == "carried" else text.batches(batch_words)
    losses = _LossSums(model, tokenizer)
    with torch.no_grad(), evaluating(model.elmo), _bar(corpus, progress) as bar:
        carried: States | None = None
        for window in windows:
            start = _states(model, len(window), states) if carried is None else carried
            end = losses.add(window, start)
            carried = end if states == "carried" else None
            bar.update(sum(row.shape[-1] for row in window))
    return losses.result(corpus, text.sentences, states)


def _check(model: Any, tokenizer: Any, states: str, numbers: dict[str, Any]) -> None:
    if states not in STATES:
        raise ElmoError(f"states must be one of {', '.join(STATES)}, but is {states!r}.")
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ElmoError(f"{name} must be a whole number of at least 1, but is {value!r}.")
    if not isinstance(model, ElmoForPreTraining):
        raise ElmoError(f"perplexity needs an ElmoForPreTraining, but got {type(model).__name__}.")
    config = model.config
    if tokenizer.vocab_size == 3:  # only <S>, </S> and <UNK>, which every tokenizer has
        raise ElmoError(
            "the tokenizer has no vocabulary, so there is no word to predict; make it with "
            "ElmoTokenizer(vocab_file), a word a line in the order of the model's softmax."
        )
    names = ["vocab_size", "bos_token_id", "eos_token_id", "unk_token_id"]
    for name in [*names, "boundary_characters"] if config.token_encoder == "characters" else names:
        of_model, of_tokenizer = getattr(config, name), getattr(tokenizer, name)
        if of_model != of_tokenizer:
            raise ElmoError(
                f"the model has {name} {of_model}, but the tokenizer has {of_tokenizer}; pass the model's "
                "own."
            )
    if states == "warm":
        model.elmo.warm_states(1)  # raises an error if the model has none


def _states(model: ElmoForPreTraining, rows: int, states: str) -> States:
    return model.elmo.warm_states(rows) if states == "warm" else model.elmo.zero_states(rows)


@contextmanager
def _bar(corpus: Source, progress: bool) -> Iterator[Any]:
    total = None
    if progress and corpus.stream is None:  # reading takes little time beside the model
        total = sum(word_count(record) + 1 for record in corpus.records())
    with tqdm(total=total, unit=" tokens", unit_scale=True, disable=not progress) as bar:
        yield bar


# ---- rows of words


class _Text:
    """A corpus as batches or windows of rows; `sentences` counts the sentences read so far."""

    def __init__(self, corpus: Source, tokenizer: ElmoTokenizer, raw: bool, is_paragraphs: bool) -> None:
        self.corpus, self.tokenizer = corpus, tokenizer
        self.raw, self.is_paragraphs, self.sentences = raw, is_paragraphs, 0

    def batches(self, batch_words: int) -> Iterator[list[Row]]:
        """Batches of whole sentences of similar length."""
        for group in self._groups():
            for numbers in batches([row.shape[-1] for row in group], batch_words):
                yield [group[number] for number in numbers]

    def windows(self, rows: int, steps: int) -> Iterator[list[Row]]:
        """Windows of running text. The next sentence goes to the shortest row, so nothing is padded before
        the end of the text, and which sentence follows which does not depend on the window size."""
        queued = [np.empty((2, 2, 0), dtype=object)] * rows
        for sentence in chain.from_iterable(self._groups()):
            shortest = min(range(rows), key=lambda row: queued[row].shape[-1])
            queued[shortest] = np.concatenate([queued[shortest], sentence], axis=-1)
            while min(row.shape[-1] for row in queued) >= steps:
                yield [row[..., :steps] for row in queued]
                queued = [row[..., steps:] for row in queued]
        while any(row.size for row in queued):
            yield [row[..., :steps] for row in queued]
            queued = [row[..., steps:] for row in queued]

    def _groups(self) -> Iterator[list[Row]]:
        for records in grouped(self.corpus.records(), SORTED_AT_ONCE):
            sentences = [words for record in records for words in self._split(record) if words]
            self.sentences += len(sentences)
            yield [self._row(words) for words in sentences]

    def _split(self, record: str | list[str]) -> list[list[str]]:
        """The words of each sentence of a record."""
        if isinstance(record, list):
            return [record]
        texts = split_sentences(record) if self.is_paragraphs else [record]
        return [self.tokenizer.tokenize(text) if self.raw else text.split() for text in texts]

    def _row(self, words: list[str]) -> Row:
        forward = [self.tokenizer.bos_token, *words, self.tokenizer.eos_token]
        backward = forward[::-1]
        return np.array([[forward[:-1], backward[:-1]], [forward[1:], backward[1:]]], dtype=object)


# ---- losses


class _LossSums:
    """The summed losses of both directions."""

    def __init__(self, model: ElmoForPreTraining, tokenizer: ElmoTokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.losses, self.tokens, self.unknown = [0.0, 0.0], 0, 0

    def add(self, window: list[Row], states: States) -> States:
        """Add the losses of a window that starts from `states`; return the states after it."""
        lengths = torch.tensor([row.shape[-1] for row in window])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        mask = torch.stack([mask, mask])
        words, targets = np.concatenate(window, axis=-1)  # each (2 directions, tokens)
        target_ids = self._word_ids(targets)
        ids, mask = self._input_ids(words, mask).to(self.model.device), mask.to(self.model.device)
        top, states = self.model.elmo.read_windows(ids, mask, states)
        for direction in range(2):
            hidden, labels = top[direction][mask[direction]], target_ids[direction].to(self.model.device)
            self.losses[direction] += self.model.summed_loss(hidden, labels).item()
        self.tokens += target_ids.shape[1]
        self.unknown += int((target_ids[0] == self.tokenizer.unk_token_id).sum())
        return states

    def _word_ids(self, words: np.ndarray) -> Tensor:
        """Rows of the softmax, in the shape of `words`. A word without a row, such as `<PAD>`, is unknown."""
        ids = torch.tensor(self.tokenizer.convert_tokens_to_ids(words.flatten().tolist()))
        ids[ids >= self.model.config.vocab_size] = self.tokenizer.unk_token_id
        return ids.view(words.shape)

    def _input_ids(self, words: np.ndarray, mask: Tensor) -> Tensor:
        """(2, tokens) words -> (2, rows, steps[, characters]) ids for `ElmoModel.read_windows`."""
        if self.model.config.token_encoder == "words":
            rows = self._word_ids(words).flatten()
        else:
            length = self.model.config.max_characters_per_token
            rows = torch.from_numpy(self.tokenizer.char_rows(words.flatten().tolist(), length))
        ids = rows.new_zeros(*mask.shape, *rows.shape[1:])
        ids[mask] = rows
        return ids

    def result(self, corpus: Source, sentences: int, states: str) -> Perplexity:
        if not sentences:
            raise ElmoError(f"{corpus.name} is empty; there is no word in it.")
        forward, backward = (loss / self.tokens for loss in self.losses)
        for direction, loss in (("forward", forward), ("backward", backward)):
            if not loss < MAX_LOSS:  # a NaN ends here, too
                raise ElmoError(
                    f"the {direction} loss is {loss:g}, which has no perplexity; the model's weights are not "
                    "those of a trained model."
                )
        words = self.tokens - sentences
        return Perplexity(forward, backward, self.tokens, sentences, self.unknown / words, states)
