"""The demo's computations equal naive definitions, one number at a time."""

import math
from itertools import combinations

import numpy as np
import pytest

from elmo_hf.demo.html import FRAME, RADIUS
from elmo_hf.demo.maths import cluster, fit, mix, nearest, normalize, project, separate
from elmo_hf.errors import ElmoError
from tests.helpers.demo_models import cosine


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def test_mix_is_the_weighted_mean():
    layers = [normal(3, 4, seed=seed) for seed in range(3)]
    mixed = mix(layers, [1, 0, 3])
    for word in range(3):
        for index in range(4):
            expected = (1 * layers[0][word, index] + 3 * layers[2][word, index]) / 4
            assert mixed[word, index] == pytest.approx(expected)
    assert normalize([1, 0, 3]) == [0.25, 0, 0.75]
    assert normalize([0, 0]) == [0, 0]
    with pytest.raises(ElmoError, match="all weights are 0"):
        mix(layers, [0, 0, 0])


def test_nearest_words_are_in_the_order_of_their_cosines():
    vectors = normal(9, 5)
    vectors[7] = vectors[2]
    candidates = [0, 2, 3, 5, 7, 8]
    expected = sorted(
        [(other, cosine(vectors[3], vectors[other])) for other in candidates if other != 3],
        key=lambda pair: (-pair[1], pair[0]),
    )
    rows = nearest(vectors, 3, candidates)
    assert [other for other, _ in rows] == [other for other, _ in expected]
    assert [value for _, value in rows] == pytest.approx([value for _, value in expected])
    assert nearest(vectors, 3, candidates, limit=2) == rows[:2]
    assert nearest(vectors, 3, [3]) == []


def test_map_is_the_pca_of_unit_vectors():
    """The expected map uses the eigenvectors of the covariance."""
    vectors = normal(12, 6) * np.arange(1, 13)[:, None]
    points, variance = project(vectors)
    rows = np.array([row / math.sqrt((row**2).sum()) for row in vectors])
    rows -= rows.mean(axis=0)
    sizes, directions = np.linalg.eigh(rows.T @ rows)
    expected = rows @ directions[:, [-1, -2]]
    np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-9)
    np.testing.assert_allclose(variance, sizes[[-1, -2]] / sizes.sum(), atol=1e-9)
    for column in points.T:
        assert column[np.abs(column).argmax()] > 0
    np.testing.assert_array_equal(project(vectors)[0], points)


@pytest.mark.parametrize("words", [1, 2, 5])
def test_vectors_that_differ_by_rounding_are_all_at_zero(words):
    vectors = np.repeat(normal(1, 8), words, axis=0).astype(np.float32)
    points, variance = project(vectors + 1e-6 * normal(words, 8, seed=1).astype(np.float32))
    assert points.tolist() == [[0, 0]] * words
    assert variance.tolist() == [0, 0]


def test_map_of_two_words_has_one_axis():
    points, variance = project(normal(2, 8))
    assert variance == pytest.approx([1, 0])
    assert points[0, 0] == pytest.approx(-points[1, 0])
    assert points[:, 1] == pytest.approx([0, 0])


def mean_cosine(vectors, group, other):
    cosines = [cosine(vectors[first], vectors[second]) for first in group for second in other]
    return sum(cosines) / len(cosines)


def slow_cluster(vectors, number):
    groups = [[word] for word in range(len(vectors))]
    while len(groups) > number:
        first, second = max(combinations(groups, 2), key=lambda pair: mean_cosine(vectors, *pair))
        groups = [group for group in groups if group not in (first, second)] + [first + second]
    return {frozenset(group) for group in groups}


@pytest.mark.parametrize("number", [1, 2, 3, 5, 11])
def test_groups_are_those_of_average_linkage(number):
    vectors = normal(11, 4, seed=number)
    groups = cluster(vectors, number)
    sets = {frozenset(word for word in range(11) if groups[word] == group) for group in set(groups)}
    assert sets == slow_cluster(vectors, number)
    first_words = [groups.index(group) for group in range(number)]
    assert first_words == sorted(first_words)
    assert cluster(vectors[:2], 5) == [0, 1]


def test_points_fit_the_frame_with_one_scale():
    points = normal(20, 2) * [5, 0.2]
    fitted = fit(points, FRAME)
    assert (fitted >= np.array(FRAME[:2]) - 1e-9).all()
    assert (fitted <= np.array(FRAME[2:]) + 1e-9).all()
    scale = (fitted[0, 0] - fitted[1, 0]) / (points[0, 0] - points[1, 0])
    np.testing.assert_allclose(fitted[0, 1] - fitted[1, 1], -scale * (points[0, 1] - points[1, 1]))
    centre = [(FRAME[0] + FRAME[2]) / 2, (FRAME[1] + FRAME[3]) / 2]
    np.testing.assert_allclose(fit(np.zeros((2, 2)), FRAME), [centre, centre])


POINTS = {
    "one point": np.full((40, 2), 100.0),
    "a corner": np.full((12, 2), 0.0),
    "a line": np.stack([np.linspace(30, 60, 30), np.full(30, 100)], axis=1),
    "a crowd": 150 + 20 * normal(40, 2),
}


@pytest.mark.parametrize("name", POINTS)
def test_circles_do_not_overlap(name):
    centres = separate(POINTS[name], RADIUS + 1, FRAME)
    for number, centre in enumerate(centres):
        assert FRAME[0] <= centre[0] <= FRAME[2]
        assert FRAME[1] <= centre[1] <= FRAME[3]
        for other in centres[:number]:
            assert math.dist(centre, other) >= 2 * RADIUS


def test_circles_that_do_not_overlap_stay():
    points = np.array([[50.0, 50.0], [120.0, 60.0], [200.0, 180.0]])
    np.testing.assert_allclose(separate(points, RADIUS, FRAME), points)
