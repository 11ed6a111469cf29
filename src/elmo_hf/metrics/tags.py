"""How well a task was done: pure functions of plain lists, equal to the official scorers.

    accuracy([["DET", "NOUN"]], [["DET", "VERB"]])                         # 0.5
    span_scores([["B-PER", "O"]], [["B-PER", "I-PER"]])["f1"]              # as conlleval and seqeval
    role_scores([["B-ARG0", "B-V"]], [["B-ARG0", "B-V"]])["f1"]            # as the CoNLL-2005 scorer

What was predicted comes first, then what is right. Scores are from 0 to 1; 0 where there is nothing to count.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

Labels = Sequence[str]
Span = tuple[str, int, int]  # its type, its first word, and the word after its last
Argument = tuple[str, tuple[tuple[int, int], ...]]  # its role, and its pieces


def accuracy(predicted: Sequence[Sequence[Any]], gold: Sequence[Sequence[Any]]) -> float:
    """The share of words with the right label: `accuracy([["DET", "NOUN"]], [["DET", "VERB"]])` is 0.5."""
    _check(predicted, gold)
    pairs = [
        pair for both in zip(predicted, gold, strict=True) for pair in zip(both[0], both[1], strict=True)
    ]
    return sum(one == other for one, other in pairs) / len(pairs) if pairs else 0.0


def spans(labels: Labels) -> list[Span]:
    """The names in a sentence by conlleval's rule: an I- that continues nothing of its type begins a span."""
    found: list[Span] = []
    start, kind = 0, None
    for place, label in enumerate([*labels, "O"]):
        prefix, _, new = label.partition("-")
        if prefix not in ("O", "B", "I"):
            raise ValueError(f"labels of spans are O, B-... or I-..., but word {place} has {label!r}.")
        if kind is not None and (prefix != "I" or new != kind):
            found.append((kind, start, place))
            kind = None
        if prefix == "B" or (prefix == "I" and kind is None):
            start, kind = place, new
    return found


def span_scores(predicted: Sequence[Labels], gold: Sequence[Labels]) -> dict[str, Any]:
    """Precision, recall and F1 of spans, over all and by type; both its words and its type must be right."""
    return _scores(predicted, gold, spans)


def arguments(labels: Labels) -> list[Argument]:
    """A predicate's arguments as the CoNLL-2005 scorer sees them.

    The verb is none. A span `C-X` is a further piece of the last X before it, or an X if there is none.
    """
    found: list[tuple[str, list[tuple[int, int]]]] = []
    last: dict[str, list[tuple[int, int]]] = {}
    for kind, start, end in spans(labels):
        role = kind.removeprefix("C-")
        if kind != role and role in last:
            last[role].append((start, end))
        else:
            last[role] = [(start, end)]
            found.append((role, last[role]))
    return [(role, tuple(pieces)) for role, pieces in found if role != "V"]


def role_scores(predicted: Sequence[Labels], gold: Sequence[Labels]) -> dict[str, Any]:
    """Precision, recall and F1 of arguments; one with several pieces counts if all of them are right.

    A row is a sentence with one predicate.
    """
    return _scores(predicted, gold, arguments)


def _scores(
    predicted: Sequence[Labels], gold: Sequence[Labels], find: Callable[[Labels], Iterable[tuple[Any, ...]]]
) -> dict[str, Any]:
    _check(predicted, gold)
    right: Counter[str] = Counter()
    there: Counter[str] = Counter()
    claimed: Counter[str] = Counter()
    for one, other in zip(predicted, gold, strict=True):
        ours, theirs = set(find(one)), set(find(other))
        claimed.update(kind for kind, *_ in ours)
        there.update(kind for kind, *_ in theirs)
        right.update(kind for kind, *_ in ours & theirs)
    by_type = {kind: _ratios(right[kind], claimed[kind], there[kind]) for kind in sorted({*claimed, *there})}
    return _ratios(right.total(), claimed.total(), there.total()) | {"by_type": by_type}


def _ratios(right: int, claimed: int, there: int) -> dict[str, Any]:
    return {
        "precision": right / claimed if claimed else 0.0,
        "recall": right / there if there else 0.0,
        "f1": 2 * right / (claimed + there) if claimed + there else 0.0,
        "number": there,
    }


def _check(predicted: Sequence[Sequence[Any]], gold: Sequence[Sequence[Any]]) -> None:
    if len(predicted) != len(gold):
        raise ValueError(f"there are {len(predicted)} predicted rows for {len(gold)} that are right.")
    for row, (one, other) in enumerate(zip(predicted, gold, strict=True)):
        if len(one) != len(other):
            raise ValueError(
                f"row {row} has {len(one)} predicted labels for {len(other)} words; leave out padding."
            )
