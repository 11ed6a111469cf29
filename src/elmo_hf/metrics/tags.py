"""Scores of labelled words: accuracy, F1 of spans, F1 of semantic roles.

Predictions come first, then the references (gold labels). Scores are from 0 to 1; a score over nothing is 0.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from elmo_hf.errors import ElmoError

Labels = Sequence[str]
Span = tuple[str, int, int]  # type, first word, the word after the last
Argument = tuple[str, tuple[tuple[int, int], ...]]  # role, and the (first, end) of each piece


def label_names(
    predictions: Any, label_ids: Any, names: Sequence[str], padding: int = -100
) -> tuple[list[list[str]], list[list[str]]]:
    """Turn label ids into names, without padding: what `compute_metrics` of a `Trainer` needs for a tagger.

    >>> label_names(np.array([[0, 1]]), np.array([[0, -100]]), ["O", "B-PER"])
    ([['O']], [['O']])

    Args:
        predictions: label ids (sentences, words), an array.
        label_ids: gold label ids (sentences, words), with `padding` where there is no word.
        names: the name of each label id.
        padding: the id of no label.

    Returns:
        The predicted and the gold names, a list for each sentence.
    """
    return (
        [
            [names[label] for label in row[gold != padding]]
            for row, gold in zip(predictions, label_ids, strict=True)
        ],
        [[names[label] for label in gold[gold != padding]] for gold in label_ids],
    )


def accuracy(predicted: Sequence[Sequence[Any]], gold: Sequence[Sequence[Any]]) -> float:
    """Return the share of words with the right label.

    >>> accuracy([["DET", "NOUN"]], [["DET", "VERB"]])
    0.5

    Args:
        predicted: a list of labels for each sentence.
        gold: the gold labels, in the same layout.
    """
    _check_rows(predicted, gold)
    pairs = [
        pair for rows in zip(predicted, gold, strict=True) for pair in zip(rows[0], rows[1], strict=True)
    ]
    return sum(label == reference for label, reference in pairs) / len(pairs) if pairs else 0.0


def spans(labels: Labels) -> list[Span]:
    """Return a sentence's spans by conlleval's rule: an I- that continues no span of its type begins one.

    >>> spans(["B-PER", "I-PER", "O", "I-LOC"])
    [('PER', 0, 2), ('LOC', 3, 4)]

    Args:
        labels: O, B-TYPE or I-TYPE for each word.

    Returns:
        (type, first word, word after the last) for each span, in order.
    """
    result: list[Span] = []
    start, span_type = 0, None
    for index, label in enumerate([*labels, "O"]):
        prefix, _, label_type = label.partition("-")
        if prefix not in ("O", "B", "I"):
            raise ElmoError(f"labels of spans are O, B-... or I-..., but word {index} has {label!r}.")
        if span_type is not None and (prefix != "I" or label_type != span_type):
            result.append((span_type, start, index))
            span_type = None
        if prefix == "B" or (prefix == "I" and span_type is None):
            start, span_type = index, label_type
    return result


def span_scores(predicted: Sequence[Labels], gold: Sequence[Labels]) -> dict[str, Any]:
    """Return precision, recall and F1 of spans; a span is right if its words and its type are.

    >>> span_scores([["B-PER", "O"]], [["B-PER", "I-PER"]])["f1"]
    0.0

    On O, B- and I- labels these are the numbers of conlleval and of seqeval's default mode, for legal label
    sequences and illegal ones. They differ from seqeval's in three cases:

    - seqeval's strict mode (`mode="strict", scheme=IOB2`) drops an I- that continues no span; here, as in
      conlleval, it begins one. On legal BIO sequences both modes are equal.
    - seqeval reads E- and S- as BIOES, and any other prefix with a warning; here they raise an error.
    - seqeval warns where a score is undefined (nothing predicted, or no gold span) and fails where there is
      no sentence; here the score is 0 without a warning.

    Args:
        predicted: O, B-TYPE or I-TYPE for each word of each sentence.
        gold: the gold labels, in the same layout.

    Returns:
        `precision`, `recall`, `f1`, `number` (of gold spans), and `by_type` with the same for each type.
    """
    return _scores(predicted, gold, spans)


def strict_span_scores(predicted: Sequence[Labels], gold: Sequence[Labels]) -> dict[str, Any]:
    """Return `span_scores` by seqeval's strict mode: an I- that continues no span of its type is no span.

    >>> strict_span_scores([["I-PER", "O"]], [["B-PER", "O"]])["recall"]
    0.0
    """
    from seqeval.scheme import IOB2, Tokens

    def strict_spans(labels: Labels) -> list[Span]:
        spans(labels)  # refuses other labels
        return [(span.tag, span.start, span.end) for span in Tokens(list(labels), IOB2).entities]

    return _scores(predicted, gold, strict_spans)


def arguments(labels: Labels) -> list[Argument]:
    """Return the arguments of a predicate as the CoNLL-2005 scorer sees them.

    The verb (V) is none. A span `C-X` is a further piece of the last X before it, or an X if there is none.

    >>> arguments(["B-ARG1", "B-V", "B-C-ARG1"])
    [('ARG1', ((0, 1), (2, 3)))]
    """
    result: list[tuple[str, list[tuple[int, int]]]] = []
    latest: dict[str, list[tuple[int, int]]] = {}
    for span_type, start, end in spans(labels):
        role = span_type.removeprefix("C-")
        if span_type != role and role in latest:
            latest[role].append((start, end))
        else:
            latest[role] = [(start, end)]
            result.append((role, latest[role]))
    return [(role, tuple(pieces)) for role, pieces in result if role != "V"]


def role_scores(predicted: Sequence[Labels], gold: Sequence[Labels]) -> dict[str, Any]:
    """Return precision, recall and F1 of arguments; one with several pieces is right if all of them are.

    >>> role_scores([["B-ARG0", "B-V", "O"]], [["B-ARG0", "B-V", "B-ARG1"]])["precision"]
    1.0

    Args:
        predicted: O, B-ROLE or I-ROLE for each word; a row is a sentence with one of its predicates.
        gold: the gold labels, in the same layout.

    Returns:
        `precision`, `recall`, `f1`, `number` (of gold arguments), and `by_type` with the same for each role.
    """
    return _scores(predicted, gold, arguments)


def _scores(
    predicted: Sequence[Labels], gold: Sequence[Labels], find: Callable[[Labels], Iterable[tuple[Any, ...]]]
) -> dict[str, Any]:
    _check_rows(predicted, gold)
    n_right: Counter[str] = Counter()
    n_gold: Counter[str] = Counter()
    n_predicted: Counter[str] = Counter()
    for labels, reference in zip(predicted, gold, strict=True):
        ours, theirs = set(find(labels)), set(find(reference))
        n_predicted.update(name for name, *_ in ours)
        n_gold.update(name for name, *_ in theirs)
        n_right.update(name for name, *_ in ours & theirs)
    types = sorted({*n_predicted, *n_gold})
    by_type = {name: _ratios(n_right[name], n_predicted[name], n_gold[name]) for name in types}
    return _ratios(n_right.total(), n_predicted.total(), n_gold.total()) | {"by_type": by_type}


def _ratios(n_right: int, n_predicted: int, n_gold: int) -> dict[str, Any]:
    return {
        "precision": n_right / n_predicted if n_predicted else 0.0,
        "recall": n_right / n_gold if n_gold else 0.0,
        "f1": 2 * n_right / (n_predicted + n_gold) if n_predicted + n_gold else 0.0,
        "number": n_gold,
    }


def _check_rows(predicted: Sequence[Sequence[Any]], gold: Sequence[Sequence[Any]]) -> None:
    if len(predicted) != len(gold):
        raise ElmoError(f"there are {len(predicted)} predicted rows for {len(gold)} gold rows.")
    for row, (labels, reference) in enumerate(zip(predicted, gold, strict=True)):
        if len(labels) != len(reference):
            raise ElmoError(
                f"row {row} has {len(labels)} predicted labels for {len(reference)} words; leave out padding."
            )
