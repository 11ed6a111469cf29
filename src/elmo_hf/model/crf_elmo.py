"""A linear-chain conditional random field: the labels of a whole sentence at once, and the BIO rules.

    crf = ElmoCRF(labels=["O", "B-PER", "I-PER"], learned=True, scheme=None)
    log_probabilities, loss = crf(scores, mask, gold)    # scores (batch, words, labels)
    paths = crf.decode(scores, mask)                     # the best sequence of labels, (batch, words)

A path y is one label for each word of a row. Its score and its probability are

    s(y) = start[y_1] + sum_t scores[t, y_t] + sum_t transitions[y_t, y_(t+1)] + end[y_n]
    p(y) = exp(s(y)) / sum over all paths y' of exp(s(y'))

Every sum over paths is exact, by dynamic programming. Words are where the mask is True, at any place of a
row.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .checks_elmo import IGNORED, is_any
from .layers_elmo import words_first

# Score of what is not allowed. The gradient of minus infinity would be NaN; the exponential of this is zero.
FORBIDDEN = -10_000.0


# In BIOUL a chunk is one U-X, or a B-X, any number of I-X, and an L-X.
PREFIXES = {"BIO": ("B-", "I-"), "BIOUL": ("B-", "I-", "U-", "L-")}
INSIDE = {"BIO": ("I-",), "BIOUL": ("I-", "L-")}  # these follow a B-X or I-X of the same X
OPEN = {"BIO": (), "BIOUL": ("B-", "I-")}  # these need one of `INSIDE` after them
FAULTS = {"BIO": "an I-X follows neither B-X nor I-X", "BIOUL": "a label does not fit the label before it"}


def is_bio(labels: Sequence[str]) -> bool:
    return _fit("BIO", labels)


def _fit(scheme: str, labels: Sequence[str]) -> bool:
    return all(label == "O" or label.startswith(PREFIXES[scheme]) for label in labels)


def scheme_of(labels: Sequence[str], scheme: str | None) -> str:
    """The scheme, which is by default BIO if all labels are of it."""
    if scheme is None:
        return "BIO" if is_bio(labels) else "none"
    if scheme != "none" and not _fit(scheme, labels):
        wrong = next(label for label in labels if not _fit(scheme, [label]))
        names = ", ".join(f"{prefix}..." for prefix in PREFIXES[scheme][:-1])
        raise ValueError(
            f"tag_scheme is {scheme}, but label {wrong!r} is not O, {names} or {PREFIXES[scheme][-1]}...; "
            "rename it in config.id2label, or set tag_scheme='none'."
        )
    return scheme


def forbidden_transitions(labels: Sequence[str], scheme: str | None) -> np.ndarray:
    """(labels + 1, labels): whether label j may not follow label i; the last row is for the first word."""
    scheme = scheme_of(labels, scheme)
    forbidden = np.zeros((len(labels) + 1, len(labels)), dtype=bool)
    if scheme == "none":
        return forbidden
    kinds = {name: number for number, name in enumerate({label[2:] for label in labels})}
    kind_of = np.array([kinds[label[2:]] for label in labels])
    is_inside = np.array([label.startswith(INSIDE[scheme]) for label in labels])
    goes_on = np.array([label.startswith(("B-", "I-")) for label in labels])
    same_chunk = goes_on[:, None] & (kind_of[:, None] == kind_of)
    forbidden[:-1] = is_inside & ~same_chunk
    forbidden[:-1] |= forbidden_ends(labels, scheme)[:, None] & ~is_inside
    forbidden[-1] = is_inside
    return forbidden


def forbidden_ends(labels: Sequence[str], scheme: str | None) -> np.ndarray:
    """(labels,): whether a label may not be that of the last word."""
    scheme = scheme_of(labels, scheme)
    return np.array([scheme != "none" and label.startswith(OPEN[scheme]) for label in labels], dtype=bool)


def path_sums(scores: Tensor, mask: Tensor, start: Tensor, transitions: Tensor) -> Tensor:
    """The forward algorithm: at each word and label, the log of the sum of exp(score) of all paths up to it.

    Several chains are computed at once: scores (chains, batch, words, labels), mask (chains, batch, words),
    start (chains, labels), transitions (chains, labels, labels), from the first label to the second. Padding
    repeats the sums of the word before it, or is zero.
    """
    has_begun = mask.cumsum(dim=2) > mask.long()
    alpha, sums = torch.zeros_like(scores[:, :, 0]), []
    for t in range(scores.shape[2]):
        reached = torch.logsumexp(alpha[..., None] + transitions[:, None], dim=2)
        new = torch.where(has_begun[:, :, t, None], reached, start[:, None]) + scores[:, :, t]
        alpha = torch.where(mask[:, :, t, None], new, alpha)
        sums.append(alpha)
    return torch.stack(sums, dim=2)


def best_paths(
    scores: Tensor,
    mask: Tensor,
    start: Tensor,
    transitions: Tensor,
    end: Tensor,
    before: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None,
) -> Tensor:
    """The Viterbi algorithm: the path with the highest score of each row, (batch, words), `IGNORED` at
    padding.

    Args as those of `path_sums`, for one chain; end (labels,). `before` may know a shorter way to the best
    label before each label, (batch, labels) -> its score and its number, both (batch, labels).
    """
    before = before or (lambda best: (best[:, :, None] + transitions).max(dim=1))
    has_begun = mask.cumsum(dim=1) > mask.long()
    best, sources = torch.zeros_like(scores[:, 0]), []
    same = torch.arange(scores.shape[2], device=scores.device).expand_as(best)
    for t in range(scores.shape[1]):
        reached, source = before(best)
        new = torch.where(has_begun[:, t, None], reached, start) + scores[:, t]
        is_word = mask[:, t, None]
        best = torch.where(is_word, new, best)
        sources.append(torch.where(is_word & has_begun[:, t, None], source, same))
    label = (best + end).argmax(dim=1, keepdim=True)
    path = []
    for source in reversed(sources):
        path.append(label)
        label = source.gather(1, label)
    return torch.cat(path[::-1], dim=1).masked_fill(~mask, IGNORED)


class ElmoBIOSteps:
    """The best label before each label, where the only rule is BIO: any before O and B-X, B-X or I-X before
    I-X. That is two comparisons a label in place of one with each label.

    pairs: the numbers of B-X and I-X for each I-X, (inside, 2).
    """

    def __init__(self, labels: Sequence[str]) -> None:
        numbers = {label: number for number, label in enumerate(labels)}
        self.inside = [number for label, number in numbers.items() if label.startswith("I-")]
        self.pairs = [sorted((numbers["B-" + labels[number][2:]], number)) for number in self.inside]

    @staticmethod
    def fits(labels: Sequence[str], scheme: str) -> bool:
        insides = [label for label in labels if label.startswith("I-")]
        return scheme == "BIO" and all("B-" + label[2:] in labels for label in insides)

    def __call__(self, best: Tensor) -> tuple[Tensor, Tensor]:
        reached, source = best.max(dim=1, keepdim=True)
        reached, source = reached.repeat(1, best.shape[1]), source.repeat(1, best.shape[1])
        if self.inside:
            pairs = torch.tensor(self.pairs, device=best.device)
            reached[:, self.inside], chosen = best[:, pairs].max(dim=2)
            source[:, self.inside] = pairs.expand(len(best), -1, -1).gather(2, chosen[:, :, None]).squeeze(2)
        return reached, source


class ElmoCRF(nn.Module):
    """A conditional random field over the labels of a sentence.

    Args:
        labels: names of the labels.
        learned: whether transitions have scores. Otherwise each word has a softmax of its own, and only
            `decode` knows which transitions are allowed.
        scheme: `"BIO"`, `"BIOUL"`, `"none"`, or None for BIO exactly when all labels are `O`, `B-...` or
            `I-...`.
    """

    def __init__(self, labels: Sequence[str], learned: bool, scheme: str | None) -> None:
        super().__init__()
        self.labels = list(labels)
        # Not a buffer, because `from_pretrained` builds on the meta device, where its values would be lost.
        self.scheme = scheme_of(self.labels, scheme)
        self.forbidden = forbidden_transitions(self.labels, self.scheme)
        self.forbidden_last = forbidden_ends(self.labels, self.scheme)
        self.learned = learned
        if learned:
            self.start = nn.Parameter(torch.zeros(len(self.labels)))
            self.end = nn.Parameter(torch.zeros(len(self.labels)))
            self.transitions = nn.Parameter(torch.zeros(len(self.labels), len(self.labels)))

    def forward(
        self, scores: Tensor, mask: Tensor, gold: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The labels' log-probabilities, and the loss.

        Args:
            scores: (batch, words, labels).
            mask: (batch, words), True for a word.
            gold: (batch, words). The probability of a row with labels of `IGNORED` is the sum over all labels
                that these words may have.

        Returns:
            The log-probability of each label at each word, (batch, words, labels), zero at padding; and, with
            gold, the sum of the rows' negative log-probabilities, divided by the number of known labels.
        """
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        known = mask & (gold != IGNORED) if gold is not None else None
        if gold is not None and known is not None:
            gold = gold.long().masked_fill(~known, IGNORED)  # padding may have any label
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
        # Forward and backward sums at once. Each of them counts the score of the word itself.
        left, right = path_sums(
            torch.stack([scores, scores.flip(1)]),
            torch.stack([mask, mask.flip(1)]),
            torch.stack([start, end]),
            torch.stack([transitions, transitions.T]),
        )
        total = torch.logsumexp(left[:, -1] + end, dim=-1).masked_fill(~mask.any(dim=1), 0)
        # A word's sums add up to the partition. Normalising them by their own sum is exact also where the
        # sums of a long sentence are large.
        marginals = (left + right.flip(1) - scores).log_softmax(dim=-1)
        return marginals.masked_fill(~mask[:, :, None], 0), total

    def _log_partition(self, scores: Tensor, mask: Tensor) -> Tensor:
        """Log of the sum of exp(score) of all paths of each row, (batch,)."""
        start, transitions, end = self._chain(scores)
        (left,) = path_sums(scores[None], mask[None], start[None], transitions[None])
        return torch.logsumexp(left[:, -1] + end, dim=-1).masked_fill(~mask.any(dim=1), 0)

    def _chain(self, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores of the first label (labels,), of transitions (labels, labels), and of the last label."""
        rules = FORBIDDEN * torch.from_numpy(self.forbidden).to(scores)
        start, transitions = rules[-1], rules[:-1]
        end = FORBIDDEN * torch.from_numpy(self.forbidden_last).to(scores)
        if self.learned:
            start, transitions, end = start + self.start, transitions + self.transitions, end + self.end
        return start.to(scores.dtype), transitions.to(scores.dtype), end.to(scores.dtype)

    @torch.no_grad()
    def decode(self, scores: Tensor, mask: Tensor, repair: Callable[..., Tensor] | None = None) -> Tensor:
        """The best allowed path, (batch, words), `IGNORED` at padding.

        Args:
            scores: (batch, words, labels).
            mask: (batch, words), True for a word.
            repair: a function that replaces paths which break further rules. It gets the paths, scores and
                mask, and the scores of the first label, of transitions and of the last label.
        """
        if mask.shape[1] == 0:
            return mask.long()
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        if not self.learned:
            scores = scores.log_softmax(dim=-1)
        chain = self._chain(scores)
        has_rules_alone = not self.learned and ElmoBIOSteps.fits(self.labels, self.scheme)
        steps = ElmoBIOSteps(self.labels) if has_rules_alone else None
        paths = best_paths(scores, mask, *chain, before=steps)
        return paths if repair is None else repair(paths, scores, mask, *chain)

    def _check(self, gold: Tensor, mask: Tensor) -> None:
        """Refuse labels that the scheme forbids: their probability is zero, and cannot be learnt."""
        if not self.forbidden.any():
            return
        labels = gold.gather(1, words_first(mask))  # padding, which is IGNORED, behind the words
        before = F.pad(labels, (1, 0), value=len(self.labels))[:, :-1]
        forbidden = torch.from_numpy(self.forbidden).to(gold.device)[before.clamp(min=0), labels.clamp(min=0)]
        wrong = forbidden & (before != IGNORED) & (labels != IGNORED)
        advice = f"which {self.scheme} labels never do; convert them, or set tag_scheme='none'."
        if is_any(wrong, f"labels: {FAULTS[self.scheme]}, {advice}"):
            row, word = wrong.nonzero()[0].tolist()
            place = f"follows {self.labels[before[row, word]]}" if word else "begins a row"
            raise ValueError(f"labels of row {row}: {self.labels[labels[row, word]]} {place}, {advice}")
        if self.forbidden_last.any():
            self._check_ends(labels, mask, advice)

    def _check_ends(self, labels: Tensor, mask: Tensor, advice: str) -> None:
        if mask.shape[1] == 0:
            return
        last = labels.gather(1, (mask.sum(dim=1, keepdim=True) - 1).clamp(min=0))[:, 0]
        ends = torch.from_numpy(self.forbidden_last).to(labels.device)[last.clamp(min=0)]
        if is_any(ends & (last != IGNORED), f"labels: a chunk ends with a row, {advice}"):
            row = int((ends & (last != IGNORED)).nonzero()[0])
            raise ValueError(f"labels of row {row}: {self.labels[last[row]]} ends a row, {advice}")
