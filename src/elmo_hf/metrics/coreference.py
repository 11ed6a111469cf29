"""Scores of coreference clusters as the CoNLL-2012 scorer computes them (Pradhan et al. 2014), and GAP's.

A mention is any hashable value, mostly (sentence, first word, last word). Mentions that only one side has,
and clusters of one mention, count as they are. The annotation of CoNLL-2012 has no such clusters: remove them
from the gold clusters (`without_singletons`) where a model cannot find them. Counts are summed over documents
before they are divided. Scores are from 0 to 1; a score over nothing is 0.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np

from elmo_hf.errors import ElmoError

Cluster = Iterable[Hashable]
Clusters = list[frozenset[Hashable]]
Counts = tuple[float, float, float, float]  # the numerator and denominator of recall, and of precision


def coreference_scores(
    predicted: Sequence[Iterable[Cluster]], gold: Sequence[Iterable[Cluster]]
) -> dict[str, float]:
    """Return the scores of all metrics of the CoNLL-2012 scorer.

    >>> document = [[(0, 0, 0), (1, 0, 0)], [(0, 2, 3), (1, 4, 4)]]  # two clusters of two mentions
    >>> coreference_scores([document], [document])["conll_f1"]  # the mean F1 of MUC, B-cubed and CEAF-e
    1.0

    Args:
        predicted: the clusters of each document; a cluster is an iterable of mentions.
        gold: the gold clusters of each document.

    Returns:
        `{metric}_recall`, `{metric}_precision` and `{metric}_f1` for muc, b_cubed, ceaf_e (phi 4), ceaf_m
        (phi 3) and mentions, and `conll_f1`.

    Raises:
        ElmoError: if the numbers of documents differ, or a mention is in two clusters of one side.
    """
    _check_lengths(predicted, gold, "documents")
    documents = [
        (_checked(ours, number, "predicted"), _checked(theirs, number, "gold"))
        for number, (ours, theirs) in enumerate(zip(predicted, gold, strict=True))
    ]
    scores: dict[str, float] = {}
    for name, count in METRICS.items():
        totals = np.zeros(4)
        for ours, theirs in documents:
            totals += count(ours, theirs)
        scores |= _ratios(name, *totals.tolist())
    scores["conll_f1"] = sum(scores[f"{name}_f1"] for name in ("muc", "b_cubed", "ceaf_e")) / 3
    return scores


def without_singletons(clusters: Iterable[Cluster]) -> Clusters:
    """Return the clusters of at least two mentions.

    >>> [sorted(cluster) for cluster in without_singletons([["Ada", "she"], ["Bob"]])]
    [['Ada', 'she']]
    """
    return [cluster for cluster in map(frozenset, clusters) if len(cluster) > 1]


def muc(predicted: Clusters, gold: Clusters) -> Counts:
    """MUC (Vilain et al. 1995): a cluster of n mentions has n - 1 links, and loses one for each cut that the
    other side makes in it.

    >>> muc([frozenset("ab")], [frozenset("abc")])  # right and all links of recall, and of precision
    (1, 2, 1, 1)
    """
    return (*_links(gold, predicted), *_links(predicted, gold))


def _links(clusters: Clusters, others: Clusters) -> tuple[int, int]:
    """Return (links that the other side has, all links)."""
    cluster_of = _cluster_of(others)
    shared = total = 0
    for cluster in clusters:
        met = {cluster_of[mention] for mention in cluster if mention in cluster_of}
        missing = sum(mention not in cluster_of for mention in cluster)
        shared += len(cluster) - len(met) - missing
        total += len(cluster) - 1
    return shared, total


def b_cubed(predicted: Clusters, gold: Clusters) -> Counts:
    """B-cubed (Bagga and Baldwin 1998): for each mention, the share of its cluster that the other side puts
    together with it.

    >>> b_cubed([frozenset("ab")], [frozenset("ab")])
    (2.0, 2.0, 2.0, 2.0)
    """
    overlap = _overlap(predicted, gold) ** 2
    ours, theirs = _sizes(predicted), _sizes(gold)
    recall, precision = (overlap / theirs).sum(), (overlap / ours[:, None]).sum()
    return float(recall), float(theirs.sum()), float(precision), float(ours.sum())


def ceaf_e(predicted: Clusters, gold: Clusters) -> Counts:
    """CEAF by entities (Luo 2005, phi 4): the Dice coefficients of clusters that are matched one to one.

    >>> ceaf_e([frozenset("ab")], [frozenset("ab")])
    (1.0, 1, 1.0, 1)
    """
    dice = 2 * _overlap(predicted, gold) / (_sizes(predicted)[:, None] + _sizes(gold))
    total = _best_matching(dice)
    return total, len(gold), total, len(predicted)


def ceaf_m(predicted: Clusters, gold: Clusters) -> Counts:
    """CEAF by mentions (Luo 2005, phi 3): the common mentions of clusters that are matched one to one.

    >>> ceaf_m([frozenset("ab")], [frozenset("abc")])
    (2.0, 3.0, 2.0, 2.0)
    """
    total = _best_matching(_overlap(predicted, gold))
    return total, float(_sizes(gold).sum()), total, float(_sizes(predicted).sum())


def mentions(predicted: Clusters, gold: Clusters) -> Counts:
    """Mentions that both sides have, whatever their clusters.

    >>> mentions([frozenset("ab")], [frozenset("abc")])
    (2, 3, 2, 2)
    """
    ours, theirs = set(_cluster_of(predicted)), set(_cluster_of(gold))
    return len(ours & theirs), len(theirs), len(ours & theirs), len(ours)


METRICS: dict[str, Callable[[Clusters, Clusters], Counts]] = {
    "muc": muc,
    "b_cubed": b_cubed,
    "ceaf_e": ceaf_e,
    "ceaf_m": ceaf_m,
    "mentions": mentions,
}


def _best_matching(similarity: np.ndarray) -> float:
    """Return the greatest sum of `similarity` (predicted, gold) over one-to-one matchings of clusters."""
    from scipy.optimize import linear_sum_assignment

    return float(similarity[linear_sum_assignment(similarity, maximize=True)].sum())


def _checked(clusters: Iterable[Cluster], document: int, side: str) -> Clusters:
    sets = [frozenset(cluster) for cluster in clusters]
    for mention, times in Counter(mention for cluster in sets for mention in cluster).items():
        if times > 1:
            raise ElmoError(
                f"document {document} has the mention {mention!r} in {times} {side} clusters; a mention is "
                "part of one cluster."
            )
    return [cluster for cluster in sets if cluster]


def _cluster_of(clusters: Clusters) -> dict[Hashable, int]:
    """Return the number of each mention's cluster."""
    return {mention: number for number, cluster in enumerate(clusters) for mention in cluster}


def _sizes(clusters: Clusters) -> np.ndarray:
    return np.array([len(cluster) for cluster in clusters], dtype=float)


def _overlap(predicted: Clusters, gold: Clusters) -> np.ndarray:
    """Return how many mentions each two clusters have in common, (predicted, gold)."""
    ours, theirs = _cluster_of(predicted), _cluster_of(gold)
    overlap = np.zeros((len(predicted), len(gold)))
    for mention in ours.keys() & theirs.keys():
        overlap[ours[mention], theirs[mention]] += 1
    return overlap


def _ratios(
    name: str, recalled: float, n_gold: float, precise: float, n_predicted: float
) -> dict[str, float]:
    recall = recalled / n_gold if n_gold else 0.0
    precision = precise / n_predicted if n_predicted else 0.0
    f1 = 2 * recall * precision / (recall + precision) if recall + precision else 0.0
    return {f"{name}_recall": recall, f"{name}_precision": precision, f"{name}_f1": f1}


def pronoun_scores(
    predicted: Sequence[tuple[bool, bool]], gold: Sequence[tuple[bool, bool]]
) -> dict[str, float]:
    """Return the scores of GAP (Webster et al. 2018): does a pronoun mean name A, name B, or neither?

    >>> pronoun_scores([(True, False), (False, False)], [(True, False), (False, True)])["accuracy"]
    0.5

    Args:
        predicted: (means A, means B) for each pronoun.
        gold: the gold answers, in the same layout.

    Returns:
        `accuracy`, the share of pronouns with both answers right; `precision`, `recall` and `f1` of the
        answers that are yes; `number`, how many pronouns there are.
    """
    _check_lengths(predicted, gold, "pronouns")
    pairs = [
        pair for ours, theirs in zip(predicted, gold, strict=True) for pair in zip(ours, theirs, strict=True)
    ]
    n_right = sum(ours and theirs for ours, theirs in pairs)
    n_predicted, n_gold = sum(ours for ours, _ in pairs), sum(theirs for _, theirs in pairs)
    exact = sum(tuple(ours) == tuple(theirs) for ours, theirs in zip(predicted, gold, strict=True))
    return {
        "accuracy": exact / len(gold) if gold else 0.0,
        "recall": n_right / n_gold if n_gold else 0.0,
        "precision": n_right / n_predicted if n_predicted else 0.0,
        "f1": 2 * n_right / (n_predicted + n_gold) if n_predicted + n_gold else 0.0,
        "number": len(gold),
    }


def _check_lengths(predicted: Sequence[object], gold: Sequence[object], items: str) -> None:
    if len(predicted) != len(gold):
        raise ElmoError(f"there are {len(predicted)} predicted {items} for {len(gold)} gold {items}.")
