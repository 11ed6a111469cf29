"""How far each row of a batch has come in the text, and what a checkpoint says of it."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from elmo_hf.corpus.windows import SentenceStart, Window
from elmo_hf.errors import ElmoError


class Rows:
    """The rows of this process.

    Args:
        first: the number of its first row among those of all processes.
        last_epoch: the passes over the text after which a row has ended.

    Attributes:
        epochs: (rows, 2), the pass over the text that each is in, by direction.
    """

    def __init__(self, count: int, first: int, last_epoch: int) -> None:
        self.count, self.first, self.last_epoch = count, first, last_epoch
        self.epochs = torch.zeros(count, 2, dtype=torch.int64)
        self._last_sentences: dict[tuple[int, int], list[SentenceStart]] = {}  # two, by direction and row

    @property
    def own(self) -> slice:
        """Those of this process among the rows of all."""
        return slice(self.first, self.first + self.count)

    def follow(self, window: Window) -> None:
        """Keep track of the sentences and epochs that the rows are in."""
        for sentence in window.sentence_starts:
            direction, row = sentence.direction, sentence.row - self.first
            before = self._last_sentences.get((direction, row), [])
            self._last_sentences[direction, row] = [*before[-1:], sentence]
            # With another number of rows, a row may read groups that are in different epochs.
            self.epochs[row, direction] = max(int(self.epochs[row, direction]), sentence.epoch)
        has_ended = ~torch.from_numpy(window.mask[:, :, -1]).T
        self.epochs[has_ended] = self.last_epoch

    def ahead_of(self, epoch: int) -> int:
        """How many rows, by direction, are in a later pass over the text."""
        return int((self.epochs > epoch).sum())

    def sentences(self, rows: Iterable[tuple[int, int]]) -> list[SentenceStart]:
        """The sentences that some rows, as (direction, row), are reading."""
        return [sentence for row in rows for sentence in self._last_sentences.get(row, [])]


def check_rows(
    path: Path, rows: dict[str, Tensor], count: int, states: tuple[Tensor, Tensor], epoch: int
) -> None:
    """Refuse a checkpoint's rows of another shape, or of passes over the text that do not fit its counter.

    Args:
        rows: "epochs" (rows, 2), and the states "h" and "c" with the rows first.
        states: those of this process's rows, which stand third.
    """
    h, c = (state.movedim(2, 0) for state in states)
    shapes = {"epochs": (count, 2), "h": (count, *h.shape[1:]), "c": (count, *c.shape[1:])}
    if {name: tuple(tensor.shape) for name, tensor in rows.items()} != shapes:
        raise ElmoError(f"{path} does not have the states of {count} rows of this model.")
    if rows["epochs"].dtype != torch.int64 or rows["epochs"].min() < epoch:
        raise ElmoError(f"{path} is not that of the checkpoint: rows are in an earlier pass over the text.")
