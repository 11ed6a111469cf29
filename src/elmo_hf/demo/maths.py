"""What the demo computes: a mix of layers, nearest words, a map, groups, and room for labels on the map.

mix(layers, [1, 1, 2])                   # (words, dim)
nearest(vectors, word, among, most=10)   # [(another word, its cosine), ...]
points, shares = flat_map(vectors)       # (words, 2), and how much of the variance each direction shows
groups(vectors, 2)                       # a number for each word: [0, 0, 1, ...]
spread(points, radius=11, frame)         # where circles go, so that none covers another

Plain numpy on arrays of numbers; nothing here knows of pages.
"""

from collections.abc import Sequence

import numpy as np

SAME = 1e-6  # a variance of unit vectors that is rounding, and no difference


def mix(layers: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """The weighted mean of layers, each (words, dim); what the weights sum to does not matter."""
    shares = shares_of(weights)
    if not any(shares):
        raise ValueError("all weights are 0, so there is nothing to mix; raise one of them.")
    mixed = sum(share * layer for share, layer in zip(shares, layers, strict=True) if share)
    return np.asarray(mixed)


def shares_of(weights: Sequence[float]) -> list[float]:
    """The weights, divided by their sum; all zero if they are."""
    total = sum(weights)
    return [weight / total if total else 0.0 for weight in weights]


def unit(vectors: np.ndarray) -> np.ndarray:
    """Each row at length 1; a row of zeros stays one."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def nearest(
    vectors: np.ndarray, word: int, among: Sequence[int], most: int | None = None
) -> list[tuple[int, float]]:
    """The words of `among` but `word` itself, by their cosine with it; of two alike the earlier first."""
    others = np.array([other for other in among if other != word], dtype=int)
    if not len(others):
        return []
    cosines = unit(vectors[others]) @ unit(vectors[word])
    order = np.argsort(-cosines, kind="stable")[:most]
    return [(int(others[place]), float(cosines[place])) for place in order]


def flat_map(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """PCA of the unit vectors: points (words, 2), and each direction's share of the variance (2,).

    Vectors that are one but for rounding all stand at zero. A direction's sign is such that its greatest
    number is positive, so that the same vectors always give the same map.
    """
    centred = unit(vectors.astype(np.float64))
    centred = centred - centred.mean(axis=0)
    points, shares = np.zeros((len(vectors), 2)), np.zeros(2)
    total = (centred**2).sum()
    if total / len(vectors) < SAME:
        return points, shares
    left, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    found = (left * lengths)[:, :2]
    found *= np.where(found[np.abs(found).argmax(axis=0), range(found.shape[1])] < 0, -1, 1)
    points[:, : found.shape[1]] = found
    shares[: found.shape[1]] = lengths[:2] ** 2 / total
    return points, shares


def groups(vectors: np.ndarray, number: int) -> list[int]:
    """Average linkage: the two groups of the highest mean cosine become one, until so many are left.

    A group's number is 0 if it has the first word, 1 if it has the first word outside of that, and so on.
    """
    similar = unit(vectors.astype(np.float64))
    sums = similar @ similar.T  # of the cosines between two groups
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
    found = {word: place for place, group in enumerate(sorted(members, key=min)) for word in group}
    return [found[word] for word in range(len(vectors))]


def fit(points: np.ndarray, frame: tuple[float, float, float, float]) -> np.ndarray:
    """Points around zero into the frame (left, top, right, bottom), by one scale; up is up."""
    left, top, right, bottom = frame
    centre = np.array([(left + right) / 2, (top + bottom) / 2])
    room = np.array([right - left, bottom - top]) / 2
    furthest = np.abs(points).max(axis=0, initial=0)
    scale = min((side / far for side, far in zip(room, furthest, strict=True) if far > 0), default=1.0)
    return centre + points * scale * [1, -1]


def spread(points: np.ndarray, radius: float, frame: tuple[float, float, float, float]) -> np.ndarray:
    """A place for a circle at each point, (circles, 2): one after the other takes the nearest free one.

    The frame is that of the centres. A circle for which there is no room stays at its point.
    """
    low, high = np.array(frame[:2]), np.array(frame[2:])
    steps = _steps(radius / 2, float(np.linalg.norm(high - low)))
    places = np.zeros((0, 2))
    for point in points.clip(low, high):
        spots = point + steps
        inside = ((spots >= low) & (spots <= high)).all(axis=1)
        distance = np.linalg.norm(spots[:, None] - places[None], axis=-1)
        free = inside & (distance >= 2 * radius).all(axis=1)
        places = np.concatenate([places, spots[[free.argmax()]]])  # the first, which is the point, if none is
    return places


def _steps(width: float, furthest: float) -> np.ndarray:
    """(spots, 2): zero, and rings around it, the narrowest first."""
    rings = width * np.arange(1, int(furthest / width) + 1)
    turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    around = rings[:, None, None] * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    return np.concatenate([np.zeros((1, 2)), around.reshape(-1, 2)])
