"""What the demo computes: a mix of layers, nearest words, a map, groups, and the layout of the map.

mix(layers, [1, 1, 2])                        # (words, dim)
nearest(vectors, word, candidates, limit=10)  # [(another word, its cosine), ...]
points, variance = project(vectors)           # (words, 2), and the share of the variance along each axis
cluster(vectors, 2)                           # a group for each word: [0, 0, 1, ...]
separate(points, radius=11, frame)            # centres of circles that do not overlap

Functions of numpy arrays, without HTML.
"""

from collections.abc import Sequence

import numpy as np

from elmo_hf.errors import ElmoError

EPSILON = 1e-6  # unit vectors of a smaller variance differ by rounding only

Frame = tuple[float, float, float, float]  # left, top, right, bottom


def mix(layers: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """The weighted mean of layers, each (words, dim). The weights need not sum to 1."""
    normalized = normalize(weights)
    if not any(normalized):
        raise ElmoError("all weights are 0, so there is nothing to mix; raise one of them.")
    mixed = sum(weight * layer for weight, layer in zip(normalized, layers, strict=True) if weight)
    return np.asarray(mixed)


def normalize(weights: Sequence[float]) -> list[float]:
    """The weights divided by their sum, or zeros if it is zero."""
    total = sum(weights)
    return [weight / total if total else 0.0 for weight in weights]


def unit(vectors: np.ndarray) -> np.ndarray:
    """Each row divided by its length; rows of zeros stay as they are."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def nearest(
    vectors: np.ndarray, word: int, candidates: Sequence[int], limit: int | None = None
) -> list[tuple[int, float]]:
    """The candidates except `word` by their cosine with it, the highest first; of equal ones the earlier."""
    others = np.array([other for other in candidates if other != word], dtype=int)
    if not len(others):
        return []
    cosines = unit(vectors[others]) @ unit(vectors[word])
    order = np.argsort(-cosines, kind="stable")[:limit]
    return [(int(others[index]), float(cosines[index])) for index in order]


def project(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """PCA of the unit vectors: points (words, 2), and the share of the variance along each axis (2,).

    Vectors that differ by rounding only are all at zero. The sign of an axis is such that its largest
    coordinate is positive, so that equal vectors give equal maps.
    """
    centred = unit(vectors.astype(np.float64))
    centred = centred - centred.mean(axis=0)
    points, variance = np.zeros((len(vectors), 2)), np.zeros(2)
    total = (centred**2).sum()
    if total / len(vectors) < EPSILON:
        return points, variance
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    axes = (left * singular)[:, :2]
    axes *= np.where(axes[np.abs(axes).argmax(axis=0), range(axes.shape[1])] < 0, -1, 1)
    points[:, : axes.shape[1]] = axes
    variance[: axes.shape[1]] = singular[:2] ** 2 / total
    return points, variance


def cluster(vectors: np.ndarray, number: int) -> list[int]:
    """Average linkage: merge the two groups of the highest mean cosine until `number` groups are left.

    Groups are numbered in the order of their first words.
    """
    units = unit(vectors.astype(np.float64))
    sums = units @ units.T  # of the cosines between two groups
    members = [[word] for word in range(len(vectors))]
    while len(members) > max(number, 1):
        sizes = np.array([len(group) for group in members])
        means = sums / np.outer(sizes, sizes)
        means[np.tril_indices(len(members))] = -np.inf  # each pair once, and none with itself
        first, second = divmod(int(means.argmax()), len(members))
        members[first] += members.pop(second)
        sums[first] += sums[second]
        sums[:, first] += sums[:, second]
        sums = np.delete(np.delete(sums, second, axis=0), second, axis=1)
    group_of = {word: group for group, words in enumerate(sorted(members, key=min)) for word in words}
    return [group_of[word] for word in range(len(vectors))]


def fit(points: np.ndarray, frame: Frame) -> np.ndarray:
    """Points around zero scaled into the frame, with the same scale on both axes and up as up."""
    left, top, right, bottom = frame
    centre = np.array([(left + right) / 2, (top + bottom) / 2])
    half = np.array([right - left, bottom - top]) / 2
    extent = np.abs(points).max(axis=0, initial=0)
    scale = min((side / far for side, far in zip(half, extent, strict=True) if far > 0), default=1.0)
    return centre + points * scale * [1, -1]


def separate(points: np.ndarray, radius: float, frame: Frame) -> np.ndarray:
    """The centre of a circle for each point, (circles, 2): each in turn takes the nearest free position.

    The frame is that of the centres. A circle without a free position stays at its point.
    """
    low, high = np.array(frame[:2]), np.array(frame[2:])
    offsets = _rings(radius / 2, float(np.linalg.norm(high - low)))
    centres = np.zeros((0, 2))
    for point in points.clip(low, high):
        positions = point + offsets
        inside = ((positions >= low) & (positions <= high)).all(axis=1)
        distances = np.linalg.norm(positions[:, None] - centres[None], axis=-1)
        free = inside & (distances >= 2 * radius).all(axis=1)
        centres = np.concatenate([centres, positions[[free.argmax()]]])  # argmax is 0, the point, if none is
    return centres


def _rings(step: float, limit: float) -> np.ndarray:
    """(offsets, 2): zero, and rings around it, the narrowest first."""
    radii = step * np.arange(1, int(limit / step) + 1)
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    rings = radii[:, None, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.concatenate([np.zeros((1, 2)), rings.reshape(-1, 2)])
