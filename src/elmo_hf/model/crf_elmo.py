"""Labels of a whole sentence at once: a linear-chain conditional random field, and rules for labels.

    crf = ElmoCRF(labels=["O", "B-PER", "I-PER"], learned=True, scheme=None)
    log_probabilities, loss = crf(scores, mask, gold)    # scores (batch, words, labels)
    paths = crf.decode(scores, mask)                     # the best sequence of labels, (batch, words)

A path is one label for each word of a row. Its score is the sum of its words' scores, of a transition between
each two neighbours, and of how the row begins and ends; its probability is `exp(score) / sum over all paths`.
Every sum over paths is exact, by dynamic programming. Words are where the mask is True, wherever that is.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from .roles_elmo import ElmoRoles

IGNORED = -100  # a label that is not known, as everywhere in Transformers
# Score of what is not allowed. Not minus infinity, of which a gradient would be NaN; its exponential is zero.
FORBIDDEN = -10_000.0


def is_bio(labels: Sequence[str]) -> bool:
    return all(label == "O" or label[:2] in ("B-", "I-") for label in labels)


def forbidden_transitions(labels: Sequence[str], scheme: str | None) -> np.ndarray:
    """(labels + 1, labels): whether a label may not follow another; the last row is the sentence's begin."""
    if scheme is None:
        scheme = "BIO" if is_bio(labels) else "none"
    forbidden = np.zeros((len(labels) + 1, len(labels)), dtype=bool)
    if scheme == "none":
        return forbidden
    if not is_bio(labels):
        wrong = next(label for label in labels if not is_bio([label]))
        raise ValueError(
            f"tag_scheme is BIO, but label {wrong!r} is not O, B-... or I-...; rename it in config.id2label, "
            "or set tag_scheme='none'."
        )
    for place, label in enumerate(labels):
        if label.startswith("I-"):
            before = [other[:2] in ("B-", "I-") and other[2:] == label[2:] for other in labels]
            forbidden[:, place] = ~np.array([*before, False])
    return forbidden


def path_sums(scores: Tensor, mask: Tensor, start: Tensor, transitions: Tensor) -> Tensor:
    """At each word and label, the log of the summed exponentials of all paths from the first word to there.

    Several chains are summed at once: scores (chains, batch, words, labels), mask (chains, batch, words),
    start (chains, labels), transitions (chains, labels, labels), from the first label to the second. At
    padding stand the sums of the word before it, or zeros.
    """
    has_begun = mask.cumsum(dim=2) > mask.long()
    here, sums = torch.zeros_like(scores[:, :, 0]), []
    for t in range(scores.shape[2]):
        come = torch.logsumexp(here[..., None] + transitions[:, None], dim=2)
        new = torch.where(has_begun[:, :, t, None], come, start[:, None]) + scores[:, :, t]
        here = torch.where(mask[:, :, t, None], new, here)
        sums.append(here)
    return torch.stack(sums, dim=2)


def best_paths(scores: Tensor, mask: Tensor, start: Tensor, transitions: Tensor, end: Tensor) -> Tensor:
    """Viterbi: each row's path with the highest score, (batch, words); at padding there is `IGNORED`."""
    has_begun = mask.cumsum(dim=1) > mask.long()
    here, sources = torch.zeros_like(scores[:, 0]), []
    same = torch.arange(scores.shape[2], device=scores.device).expand_as(here)
    for t in range(scores.shape[1]):
        come, source = (here[:, :, None] + transitions).max(dim=1)
        new = torch.where(has_begun[:, t, None], come, start) + scores[:, t]
        is_word = mask[:, t, None]
        here = torch.where(is_word, new, here)
        sources.append(torch.where(is_word & has_begun[:, t, None], source, same))
    label = (here + end).argmax(dim=1, keepdim=True)
    path = []
    for source in reversed(sources):
        path.append(label)
        label = source.gather(1, label)
    return torch.cat(path[::-1], dim=1).masked_fill(~mask, IGNORED)


class ElmoCRF(nn.Module):
    r"""
    Args:
        labels: their names.
        learned: whether transitions have scores; otherwise each word has its own softmax, and only the best
            path minds which transitions are allowed.
        scheme: `"BIO"`, `"none"`, or None for BIO exactly when all labels look so.
    """

    def __init__(self, labels: Sequence[str], learned: bool, scheme: str | None) -> None:
        super().__init__()
        self.labels = list(labels)
        # No buffer: it follows from the config, and a buffer's values would be lost on the meta device.
        self.forbidden = forbidden_transitions(self.labels, scheme)
        self.learned = learned
        if learned:
            self.start = nn.Parameter(torch.zeros(len(self.labels)))
            self.end = nn.Parameter(torch.zeros(len(self.labels)))
            self.transitions = nn.Parameter(torch.zeros(len(self.labels), len(self.labels)))

    def forward(
        self, scores: Tensor, mask: Tensor, gold: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """scores (batch, words, labels) -> log-probability of each label at each word, zeros at padding; and,
        given gold (batch, words), the mean over known labels of minus their sentences' log-probability.

        A gold label of `IGNORED` is not known: its row's probability is summed over what it may be.
        """
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        known = mask & (gold != IGNORED) if gold is not None else None
        if gold is not None and known is not None:
            gold = gold.long().masked_fill(~known, IGNORED)  # whatever stands at padding
            self._check(gold, mask)
        if not self.learned:
            marginals = scores.log_softmax(dim=-1).masked_fill(~mask[:, :, None], 0)
            if gold is None or known is None:
                return marginals, None
            chosen = marginals.gather(2, gold.clamp(min=0)[:, :, None]).squeeze(2)
            return marginals, -chosen[known].sum() / known.sum().clamp(min=1)
        if mask.shape[1] == 0:
            return scores, scores.sum() if gold is not None else None
        marginals, total = self._marginals(scores, mask)
        if gold is None or known is None:
            return marginals, None
        is_other = torch.ones_like(scores, dtype=torch.bool).scatter(2, gold.clamp(min=0)[:, :, None], False)
        through_gold = scores + FORBIDDEN * (is_other & known[:, :, None])
        loss = (total - self._log_partition(through_gold, mask)).sum() / known.sum().clamp(min=1)
        return marginals, loss

    def _marginals(self, scores: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities (batch, words, labels), and the log-partition of each row (batch,)."""
        start, transitions, end = self._chain(scores)
        # From both ends at once. What comes from the left and what from the right both count the word itself.
        left, right = path_sums(
            torch.stack([scores, scores.flip(1)]),
            torch.stack([mask, mask.flip(1)]),
            torch.stack([start, end]),
            torch.stack([transitions, transitions.T]),
        )
        total = torch.logsumexp(left[:, -1] + end, dim=-1).masked_fill(~mask.any(dim=1), 0)
        # Those of a word sum up to the partition; taken from themselves, it is a number of their own size.
        marginals = (left + right.flip(1) - scores).log_softmax(dim=-1)
        return marginals.masked_fill(~mask[:, :, None], 0), total

    def _log_partition(self, scores: Tensor, mask: Tensor) -> Tensor:
        """Log of the summed exponentials of all paths of each row, (batch,)."""
        start, transitions, end = self._chain(scores)
        (left,) = path_sums(scores[None], mask[None], start[None], transitions[None])
        return torch.logsumexp(left[:, -1] + end, dim=-1).masked_fill(~mask.any(dim=1), 0)

    def _chain(self, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores of how a path begins (labels,), of its transitions (labels, labels), and of how it ends."""
        rules = FORBIDDEN * torch.from_numpy(self.forbidden).to(scores)
        start, transitions, end = rules[-1], rules[:-1], torch.zeros_like(rules[0])
        if self.learned:
            start, transitions, end = start + self.start, transitions + self.transitions, end + self.end
        return start.to(scores.dtype), transitions.to(scores.dtype), end.to(scores.dtype)

    @torch.no_grad()
    def decode(self, scores: Tensor, mask: Tensor, roles: ElmoRoles | None = None) -> Tensor:
        """scores (batch, words, labels) -> the best allowed path, (batch, words), `IGNORED` at padding.

        With `roles`, the best that keeps their rules."""
        if mask.shape[1] == 0:
            return mask.long()
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        if not self.learned:
            scores = scores.log_softmax(dim=-1)
        chain = self._chain(scores)
        paths = best_paths(scores, mask, *chain)
        return paths if roles is None else roles.mend(paths, scores, mask, *chain)

    def _check(self, gold: Tensor, mask: Tensor) -> None:
        """A sentence that the rules forbid has no probability that could be learnt."""
        if not self.forbidden.any():
            return
        for number, (row, words) in enumerate(zip(gold.tolist(), mask.tolist(), strict=True)):
            before = len(self.labels)
            for label in (label for label, is_word in zip(row, words, strict=True) if is_word):
                if label != IGNORED and before != IGNORED and self.forbidden[before, label]:
                    place = f"follows {self.labels[before]}" if before < len(self.labels) else "begins a row"
                    raise ValueError(
                        f"labels of row {number}: {self.labels[label]} {place}, which BIO labels never do; "
                        "convert them, or set tag_scheme='none'."
                    )
                before = label
