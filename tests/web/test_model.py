"""What the static page computes, run by node: the model's vectors, and the maths of the demo."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from elmo_hf.demo import maths
from tests.helpers.paths import REPOSITORY
from tests.helpers.static_page import NODE

pytestmark = pytest.mark.skipif(NODE is None, reason="the page's JavaScript is tested with node")
HERE = Path(__file__).parent
MATHS = REPOSITORY / "hub_cards" / "space-static" / "maths.js"
FRAME = (18.0, 18.0, 322.0, 232.0)


def run(script, *arguments):
    command = [NODE, HERE / script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_vectors_are_those_of_the_model(page_folder, sentences, expected_vectors, tmp_path):
    content = json.dumps({"sentences": sentences, "vectors": expected_vectors})
    (tmp_path / "expected.json").write_text(content, encoding="utf-8")
    result = run("check_vectors.mjs", page_folder, tmp_path / "expected.json")
    assert result["same"]
    assert result["vectors"] == 3 * sum(map(len, sentences))
    assert result["largest"] < 1e-4


def cases():
    """Vectors: random, in groups, few, equal, zeros."""
    generator = np.random.default_rng(0)
    grouped = generator.normal(size=(3, 16))[generator.integers(3, size=30)]
    arrays = [
        *(generator.normal(size=(words, 16)) for words in (1, 2, 3, 8, 40)),
        grouped + 0.1 * generator.normal(size=grouped.shape),
        np.ones((5, 16)),
        np.zeros((4, 16)),
    ]
    return [(array, groups) for array in arrays for groups in (1, 2, 5)]


def test_maths_is_that_of_the_demo(tmp_path):
    inputs = [{"vectors": array.tolist(), "groups": groups, "frame": FRAME} for array, groups in cases()]
    (tmp_path / "inputs.json").write_text(json.dumps(inputs), encoding="utf-8")
    results = run("check_maths.mjs", MATHS, tmp_path / "inputs.json")
    for (array, groups), result in zip(cases(), results, strict=True):
        words = range(len(array))
        points, variance = maths.project(array)
        fitted = maths.fit(points, FRAME)
        assert result["mean"] == pytest.approx(array.mean(axis=0))
        nearest = maths.nearest(array, 0, words)
        assert [word for word, _ in result["nearest"]] == [word for word, _ in nearest]
        assert [cosine for _, cosine in result["nearest"]] == pytest.approx([cosine for _, cosine in nearest])
        assert result["cluster"] == maths.cluster(array, groups)
        assert result["variance"] == pytest.approx(variance, abs=1e-9)
        for name, expected in [("points", points), ("fitted", fitted)]:
            np.testing.assert_allclose(result[name], expected, atol=1e-7)
        np.testing.assert_allclose(result["separated"], maths.separate(fitted, 12, FRAME), atol=1e-6)
