"""How well mentions were gathered into clusters, as the CoNLL-2012 scorer counts it (Pradhan et al. 2014).

    scores = coreference_scores(predicted, gold)    # documents; a document is a list of clusters of mentions
    scores["conll_f1"]                              # the mean of the F1 of MUC, B-cubed and CEAF-e

A mention is whatever can be hashed, mostly (sentence, first word, last word). What only one side mentions
counts as it stands, and so does a cluster of one mention. The texts of CoNLL-2012 have none of these, so
leave them out of the gold clusters (`without_singletons`) where a model cannot find them. Numbers are added
up over documents before they are divided. Scores are from 0 to 1; 0 where there is nothing to count.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np

Cluster = Iterable[Hashable]
Clusters = list[frozenset[Hashable]]
# What was found and what there is, seen from the gold clusters (recall) and from the predicted ones.
Counts = tuple[float, float, float, float]


def coreference_scores(
    predicted: Sequence[Iterable[Cluster]], gold: Sequence[Iterable[Cluster]]
) -> dict[str, float]:
    """`{metric}_recall`, `_precision` and `_f1` for muc, b_cubed, ceaf_e (phi 4), ceaf_m (phi 3) and
    mentions, and `conll_f1`."""
    if len(predicted) != len(gold):
        raise ValueError(f"there are {len(predicted)} predicted documents for {len(gold)} that are right.")
    documents = [
        (_checked(ours, number, "predicted"), _checked(theirs, number, "gold"))
        for number, (ours, theirs) in enumerate(zip(predicted, gold, strict=True))
    ]
    scores: dict[str, float] = {}
    for name, count in METRICS.items():
        counts = np.zeros(4)
        for ours, theirs in documents:
            counts += count(ours, theirs)
        scores |= _ratios(name, *counts.tolist())
    scores["conll_f1"] = sum(scores[f"{name}_f1"] for name in ("muc", "b_cubed", "ceaf_e")) / 3
    return scores


def without_singletons(clusters: Iterable[Cluster]) -> Clusters:
    """The clusters of at least two mentions."""
    return [cluster for cluster in map(frozenset, clusters) if len(cluster) > 1]


def muc(predicted: Clusters, gold: Clusters) -> Counts:
    """Links between mentions: a cluster needs one less than it has mentions, and parts lack the links between
    them (Vilain et al. 1995)."""
    return (*_links(gold, predicted), *_links(predicted, gold))


def _links(clusters: Clusters, others: Clusters) -> tuple[int, int]:
    place = _places(others)
    found = there = 0
    for cluster in clusters:
        parts = {place[mention] for mention in cluster if mention in place}
        alone = sum(mention not in place for mention in cluster)
        found += len(cluster) - len(parts) - alone
        there += len(cluster) - 1
    return found, there


def b_cubed(predicted: Clusters, gold: Clusters) -> Counts:
    """For each mention, the share of its cluster that the other side has with it (Bagga and Baldwin 1998)."""
    common = _common(predicted, gold) ** 2
    ours, theirs = _sizes(predicted), _sizes(gold)
    recall, precision = (common / theirs).sum(), (common / ours[:, None]).sum()
    return float(recall), float(theirs.sum()), float(precision), float(ours.sum())


def ceaf_e(predicted: Clusters, gold: Clusters) -> Counts:
    """Clusters are paired off; a pair counts the Dice coefficient of its mentions (Luo 2005, phi 4)."""
    alike = 2 * _common(predicted, gold) / (_sizes(predicted)[:, None] + _sizes(gold))
    found = _of_best_pairs(alike)
    return found, len(gold), found, len(predicted)


def ceaf_m(predicted: Clusters, gold: Clusters) -> Counts:
    """Clusters are paired off; a pair counts its common mentions (Luo 2005, phi 3)."""
    found = _of_best_pairs(_common(predicted, gold))
    return found, float(_sizes(gold).sum()), found, float(_sizes(predicted).sum())


def mentions(predicted: Clusters, gold: Clusters) -> Counts:
    """Mentions that both sides have, whatever their clusters."""
    ours, theirs = set(_places(predicted)), set(_places(gold))
    return len(ours & theirs), len(theirs), len(ours & theirs), len(ours)


METRICS: dict[str, Callable[[Clusters, Clusters], Counts]] = {
    "muc": muc,
    "b_cubed": b_cubed,
    "ceaf_e": ceaf_e,
    "ceaf_m": ceaf_m,
    "mentions": mentions,
}


def best_pairs(alike: np.ndarray) -> list[tuple[int, int]]:
    """Rows and columns paired off so that the sum of `alike` (rows, columns) is greatest: the assignment
    problem, by Kuhn's and Munkres' method with shortest augmenting paths, in rows * rows * columns steps."""
    if alike.shape[0] > alike.shape[1]:
        return [(row, column) for column, row in best_pairs(alike.T)]
    cost = -alike.astype(float)
    rows, columns = cost.shape
    row_price, column_price = np.zeros(rows), np.zeros(columns)
    column_of, row_of = np.full(rows, -1), np.full(columns, -1)
    for new in range(rows):
        # The cheapest way from the new row to a free column, by columns whose rows would have to move on.
        shortest, came_from = np.full(columns, np.inf), np.full(columns, -1)
        visited = np.zeros(columns, dtype=bool)
        row, distance = new, 0.0
        while True:
            ways = distance + cost[row] - row_price[row] - column_price
            shorter = ~visited & (ways < shortest)
            shortest[shorter], came_from[shorter] = ways[shorter], row
            column = int(np.where(visited, np.inf, shortest).argmin())
            visited[column], distance = True, shortest[column]
            if row_of[column] < 0:
                break
            row = row_of[column]
        # Prices are such that no pair costs less than its two prices, and a chosen pair exactly these.
        moved = visited & (row_of >= 0)
        row_price[row_of[moved]] += distance - shortest[moved]
        row_price[new] += distance
        column_price[visited] -= distance - shortest[visited]
        row = -1
        while row != new:
            row = came_from[column]
            row_of[column], column_of[row], column = row, column, column_of[row]
    return list(enumerate(column_of.tolist()))


def _of_best_pairs(alike: np.ndarray) -> float:
    return float(sum(alike[pair] for pair in best_pairs(alike)))


def _checked(clusters: Iterable[Cluster], document: int, side: str) -> Clusters:
    found = [frozenset(cluster) for cluster in clusters]
    for mention, times in Counter(mention for cluster in found for mention in cluster).items():
        if times > 1:
            raise ValueError(
                f"document {document} has the mention {mention!r} in {times} {side} clusters; a mention is "
                "part of one cluster."
            )
    return [cluster for cluster in found if cluster]


def _places(clusters: Clusters) -> dict[Hashable, int]:
    """Each mention's cluster."""
    return {mention: number for number, cluster in enumerate(clusters) for mention in cluster}


def _sizes(clusters: Clusters) -> np.ndarray:
    return np.array([len(cluster) for cluster in clusters], dtype=float)


def _common(predicted: Clusters, gold: Clusters) -> np.ndarray:
    """How many mentions each two clusters have in common, (predicted, gold)."""
    ours, theirs = _places(predicted), _places(gold)
    common = np.zeros((len(predicted), len(gold)))
    for mention in ours.keys() & theirs.keys():
        common[ours[mention], theirs[mention]] += 1
    return common


def _ratios(name: str, recalled: float, there: float, precise: float, claimed: float) -> dict[str, float]:
    recall = recalled / there if there else 0.0
    precision = precise / claimed if claimed else 0.0
    f1 = 2 * recall * precision / (recall + precision) if recall + precision else 0.0
    return {f"{name}_recall": recall, f"{name}_precision": precision, f"{name}_f1": f1}


def pronoun_scores(
    predicted: Sequence[tuple[bool, bool]], gold: Sequence[tuple[bool, bool]]
) -> dict[str, float]:
    """Of pronouns that may mean either of two names, or neither (GAP, Webster et al. 2018): the share with
    both answers right, and precision, recall and F1 of the answers that are yes."""
    if len(predicted) != len(gold):
        raise ValueError(f"there are {len(predicted)} predicted pronouns for {len(gold)} that are right.")
    both = [
        pair for ours, theirs in zip(predicted, gold, strict=True) for pair in zip(ours, theirs, strict=True)
    ]
    right = sum(ours and theirs for ours, theirs in both)
    claimed, there = sum(ours for ours, _ in both), sum(theirs for _, theirs in both)
    exact = sum(tuple(ours) == tuple(theirs) for ours, theirs in zip(predicted, gold, strict=True))
    return {
        "accuracy": exact / len(gold) if gold else 0.0,
        "recall": right / there if there else 0.0,
        "precision": right / claimed if claimed else 0.0,
        "f1": 2 * right / (claimed + there) if claimed + there else 0.0,
        "number": len(gold),
    }
