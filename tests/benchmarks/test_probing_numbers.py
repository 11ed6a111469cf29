"""The probes' classifier, look-up, similarity of layers and pictures, compared with other computations."""

import math
import re
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers.probing_naive import cosine, refused

pytest_plugins = ["tests.helpers.probing_fixtures"]

# ---- tags


def test_look_up(probes, texts):
    treebank = probes.tags.read_treebank(texts.folder)
    for tagset, column in (("upos", 1), ("xpos", 2)):
        train, test = (
            [(row[0], row[column]) for sentence in texts.treebank[split] for row in sentence]
            for split in ("train", "test")
        )
        right = 0
        for word, tag in test:
            same = [(other, tagged) for other, tagged in train if other == word]
            for length in (4, 3, 2, 1, 0):
                if not same:
                    end = word[max(0, len(word) - length) :]
                    same = [(other, tagged) for other, tagged in train if other.endswith(end)]
            counts = Counter(tagged for _, tagged in same)
            right += sorted(counts, key=lambda tag: (-counts[tag], tag))[0] == tag
        assert probes.tags.look_up(treebank, tagset) == round(100 * right / len(test), 2)


def clouds(rng, count):
    """Three classes of one covariance, for which linear discriminants are best."""
    ids = rng.integers(0, 3, count)
    centres = np.array([[0, 0, 0, 0], [2, 0, 1, 0], [0, 2, 0, 0]])
    shape = np.array([[1, 0.5, 0, 0], [0, 1, 0.3, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    return (5 + centres[ids] + rng.normal(size=(count, 4)) @ shape).astype(np.float32), ids


def test_classifier_is_as_good_as_the_best(probes, monkeypatch):
    monkeypatch.setattr(probes.tags, "LEARNING_RATE", 0.1)  # as these are few rows
    rng = np.random.default_rng(0)
    splits = {split: clouds(rng, count) for split, count in (("train", 6000), ("dev", 1000), ("test", 2000))}
    x, y = splits["train"]
    means = np.array([x[y == label].mean(axis=0) for label in range(3)])
    inverse = np.linalg.inv(np.cov((x - means[y]).T))
    scores = splits["test"][0] @ inverse @ means.T - 0.5 * np.einsum("cd,de,ce->c", means, inverse, means)
    expected = 100 * np.mean(scores.argmax(axis=1) == splits["test"][1])

    scaled = probes.tags.whiten({split: torch.from_numpy(rows) for split, (rows, _) in splits.items()})
    labels = probes.tags.Labels(
        list("abc"), {split: torch.from_numpy(ids) for split, (_, ids) in splits.items()}
    )
    scores_of_epoch = probes.tags.classify(scaled, labels, seed=0)
    assert 80 < expected < 95
    assert abs(scores_of_epoch["test"] - expected) < 1
    assert scores_of_epoch == probes.tags.classify(scaled, labels, seed=0)


def test_whitening(probes):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(500, 3)) @ [[1, 0, 0], [2, 0.01, 0], [0, 0, 10]] + [5, 0, -7]
    twice = np.concatenate([rows, rows[:, :2]], axis=1).astype(np.float32)  # five numbers, three of them new
    whitened = probes.tags.whiten({"train": torch.from_numpy(twice), "test": torch.from_numpy(twice[:7] + 1)})
    train, test = whitened["train"].double().numpy(), whitened["test"].double().numpy()
    assert train.shape == (500, 3)
    np.testing.assert_allclose(train.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(np.cov(train.T, bias=True), np.eye(3), atol=1e-3)
    shifts = test - train[:7]  # the same map for both
    np.testing.assert_allclose(shifts, shifts[:1].repeat(7, axis=0), atol=1e-2)


def test_dev_alone_chooses_the_epoch(probes, monkeypatch):
    accuracies = iter([50, 99, 70, 10, 60, 98] + [0] * 100)
    monkeypatch.setattr(probes.tags, "accuracy", lambda *_: next(accuracies))
    rows = {split: torch.zeros(3, 2) for split in probes.tags.SPLITS}
    labels = probes.tags.Labels(["a"], {split: torch.zeros(3, dtype=torch.long) for split in rows})
    assert probes.tags.classify(rows, labels, seed=0) == {"dev": 70, "test": 10, "epoch": 2}


def test_a_tag_that_training_lacks_is_never_right(probes, texts):
    treebank = probes.tags.read_treebank(texts.folder)
    labels = probes.tags.make_labels(treebank, "xpos")
    assert "FW" not in labels.names
    assert int((labels.ids["test"] == -1).sum()) == 1
    model = nn.Linear(2, 3)
    nn.init.zeros_(model.weight)
    with torch.no_grad():
        model.bias.copy_(torch.tensor([0.0, 1.0, 0.0]))
    assert probes.tags.accuracy(model, torch.zeros(4, 2), torch.tensor([1, -1, 0, 1])) == 50


# ---- layers


def test_cka_is_that_of_gram_matrices(probes):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 5))
    y = x @ rng.normal(size=(5, 7)) + rng.normal(size=(30, 7))

    def centred(rows):
        gram = rows @ rows.T
        return gram - gram.mean(axis=0) - gram.mean(axis=1)[:, None] + gram.mean()

    k, m = centred(x), centred(y)
    expected = (k * m).sum() / math.sqrt((k * k).sum() * (m * m).sum())
    assert probes.layers.linear_cka(x, y) == pytest.approx(expected)
    rotation = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    assert probes.layers.linear_cka(x, 3 * x @ rotation + 2) == pytest.approx(1)
    assert 0.1 < expected < 0.9


def test_principal_directions_are_those_of_the_covariance(probes):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 3)) * [5, 1, 3] + 10
    points, shares = probes.layers.principal(rows)
    values, vectors = np.linalg.eigh(np.cov(rows.T))
    for number, direction in enumerate((2, 1)):
        expected = (rows - rows.mean(axis=0)) @ vectors[:, direction]
        assert abs(np.corrcoef(points[:, number], expected)[0, 1]) == pytest.approx(1)
        assert points[:, number].var(ddof=1) == pytest.approx(values[direction])
        assert shares[number] == pytest.approx(values[direction] / values.sum())
    for number, direction in enumerate((0, 2)):  # which point to the plus side of what they mostly are
        assert np.corrcoef(points[:, number], rows[:, direction])[0, 1] > 0.9
    mirrored, _ = probes.layers.principal(-rows)
    np.testing.assert_allclose(mirrored, -points, atol=1e-9)
    still, shares = probes.layers.principal(np.ones((4, 3)))
    assert not still.any()
    assert not shares.any()


def test_same_sense_of_the_nearest(probes):
    rng = np.random.default_rng(0)
    rows, senses = rng.normal(size=(20, 3)), rng.integers(0, 2, 20).tolist()
    right = 0
    for number, row in enumerate(rows):
        others = [other for other in range(20) if other != number]
        right += senses[max(others, key=lambda o: cosine(row, rows[o]))] == senses[number]
    assert probes.layers.same_sense(rows, senses) == 100 * right / 20


def test_occurrences_of_a_word(probes, semcor):
    occurrences = probes.layers.find_occurrences(semcor, "bank")
    assert occurrences.keys == ["bank%1:14:00::", "bank%1:17:01::"]
    assert Counter(occurrences.senses) == {0: 8, 1: 5}  # the one that may have either sense is left out
    for sentence, place in zip(occurrences.sentences, occurrences.places, strict=True):
        assert sentence.words[place] == "bank"
    assert "'quick'" in refused(probes.layers.find_occurrences, semcor, "quick")


def test_a_sample_of_sentences_follows_the_seed(probes, semcor, monkeypatch):
    monkeypatch.setattr(probes.layers, "WORDS", 40)
    sample = probes.layers.sample_sentences(semcor, 1)
    assert 40 <= sum(len(sentence.words) for sentence in sample) < 55
    assert sample == probes.layers.sample_sentences(semcor, 1)
    assert sample != probes.layers.sample_sentences(semcor, 2)


def texts_of(figure):
    """Every text that is drawn, with its rectangle; but for numbers, as axes have some that are not shown."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [
        text for text in figure.findobj(Text) if text.get_visible() and re.search("[a-z]", text.get_text())
    ]
    return [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in texts]


def readable_texts(figure):
    texts, page = texts_of(figure), figure.bbox
    assert len(texts) > 10
    for text, box in texts:
        assert page.x0 <= box.x0, text
        assert page.y0 <= box.y0, text
        assert box.x1 <= page.x1, text
        assert box.y1 <= page.y1, text
    for number, (text, box) in enumerate(texts):
        for other, its_box in texts[:number]:
            is_tilted = (
                "layer" in text and "layer" in other and ":" not in text + other
            )  # rectangles too large
            assert is_tilted or not (box.overlaps(its_box) and text != other), (text, other)
    return " ".join(text for text, _ in texts)


def test_pictures_are_readable(probes):
    rng = np.random.default_rng(0)
    names = [f"{model}, layer {layer}" for model in ("trained", "random weights") for layer in range(3)]
    cka = {"names": names, "cka": rng.random((6, 6)).tolist(), "counts": {"words": 20_000}}
    text = readable_texts(probes.layers.draw_similarity(cka))
    assert all(name in text for name in names)
    keys = [*list(probes.data.GLOSSES)[:6], "play%5:00:00:averyverylongheadword:00"]
    senses = sorted(range(7)) * 5
    panels = [
        {
            "name": name,
            "nearest_has_same_sense": 50.0,
            "variance": [40.0, 9.5],
            "points": rng.normal(size=(35, 2)),
        }
        for name in names
        if not name.endswith("0")
    ]
    drawn = {"word": "play", "occurrences": dict.fromkeys(keys, 5), "senses": senses, "panels": panels}
    text = readable_texts(probes.layers.draw_map(drawn))
    assert all(key in text for key in keys)


def test_names_of_senses(probes):
    assert probes.data.sense_name("play%1:10:01::") == "noun: a drama, as a text"
    assert probes.data.sense_name("bank%1:17:01::") == "noun.object"
    assert probes.data.sense_name("fun%5:00:00:playful:00") == "adj.all"
    assert probes.data.sense_name("such%3:44:00::") == "adj.ppl"
    assert probes.data.sense_name("such%3:99:00::") == "such%3:99:00::"
    assert len(probes.data.LEXICOGRAPHER_FILES) == 45
