"""The demo without its page: what it computes, what it reads, its HTML, its errors, and the Space."""

import math
import runpy
import socket
import sys
from html.parser import HTMLParser
from itertools import combinations

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

import elmo_hf.demo
from elmo_hf import ElmoConfig, ElmoForTokenClassification, ElmoModel, ElmoTokenizer
from elmo_hf.cli import app
from elmo_hf.demo import free_port, load
from elmo_hf.demo.examples import EXAMPLES
from elmo_hf.demo.html import (
    FRAME,
    RADIUS,
    in_context,
    labels_of,
    map_html,
    message_html,
    table_html,
    words_html,
)
from elmo_hf.demo.maths import fit, flat_map, groups, mix, nearest, shares_of, spread
from elmo_hf.demo.reading import MOST_LETTERS, MOST_WORDS, Reader, pieces, split
from tests.helpers.paths import REPOSITORY

SPACE = REPOSITORY / "hub_cards" / "space"
SHAPE = {"lstm_dim": 16, "projection_dim": 8, "char_filters": [[1, 8], [3, 16]], "num_highway_layers": 1}
LABELS = dict(enumerate(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]))
TEXT = "He sat on the bank . The bank lent him money .\nBank on it , said the man on the bank !"


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def cosine(one, other):
    """By the definition, a number at a time."""
    dot = sum(a * b for a, b in zip(one.tolist(), other.tolist(), strict=True))
    return dot / math.sqrt(sum(a * a for a in one.tolist()) * sum(b * b for b in other.tolist()))


# ---- what it computes


def test_a_mix_is_the_weighted_mean():
    layers = [normal(3, 4, seed=seed) for seed in range(3)]
    found = mix(layers, [1, 0, 3])
    for word in range(3):
        for place in range(4):
            expected = (1 * layers[0][word, place] + 3 * layers[2][word, place]) / 4
            assert found[word, place] == pytest.approx(expected)
    assert shares_of([1, 0, 3]) == [0.25, 0, 0.75]
    assert shares_of([0, 0]) == [0, 0]
    with pytest.raises(ValueError, match="all weights are 0"):
        mix(layers, [0, 0, 0])


def test_the_nearest_words_stand_in_the_order_of_their_cosines():
    vectors = normal(9, 5)
    vectors[7] = vectors[2]
    among = [0, 2, 3, 5, 7, 8]
    expected = sorted(
        [(other, cosine(vectors[3], vectors[other])) for other in among if other != 3],
        key=lambda pair: (-pair[1], pair[0]),
    )
    found = nearest(vectors, 3, among)
    assert [other for other, _ in found] == [other for other, _ in expected]
    assert [one for _, one in found] == pytest.approx([one for _, one in expected])
    assert nearest(vectors, 3, among, most=2) == found[:2]
    assert nearest(vectors, 3, [3]) == []


def test_the_map_is_the_pca_of_unit_vectors():
    """By the eigenvectors of the covariance, each vector made a unit by itself."""
    vectors = normal(12, 6) * np.arange(1, 13)[:, None]
    points, shares = flat_map(vectors)
    rows = np.array([row / math.sqrt((row**2).sum()) for row in vectors])
    rows -= rows.mean(axis=0)
    sizes, directions = np.linalg.eigh(rows.T @ rows)
    expected = rows @ directions[:, [-1, -2]]
    np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-9)
    np.testing.assert_allclose(shares, sizes[[-1, -2]] / sizes.sum(), atol=1e-9)
    for column in points.T:
        assert column[np.abs(column).argmax()] > 0
    np.testing.assert_array_equal(flat_map(vectors)[0], points)


@pytest.mark.parametrize("words", [1, 2, 5])
def test_vectors_that_are_one_but_for_rounding_make_no_map(words):
    vectors = np.repeat(normal(1, 8), words, axis=0).astype(np.float32)
    points, shares = flat_map(vectors + 1e-6 * normal(words, 8, seed=1).astype(np.float32))
    assert points.tolist() == [[0, 0]] * words
    assert shares.tolist() == [0, 0]


def test_a_map_of_two_words_has_one_direction():
    points, shares = flat_map(normal(2, 8))
    assert shares == pytest.approx([1, 0])
    assert points[0, 0] == pytest.approx(-points[1, 0])
    assert points[:, 1] == pytest.approx([0, 0])


def likeness(vectors, one, other):
    cosines = [cosine(vectors[first], vectors[second]) for first in one for second in other]
    return sum(cosines) / len(cosines)


def slow_groups(vectors, number):
    found = [[word] for word in range(len(vectors))]
    while len(found) > number:
        one, other = max(combinations(found, 2), key=lambda pair: likeness(vectors, *pair))
        found = [group for group in found if group not in (one, other)] + [one + other]
    return {frozenset(group) for group in found}


@pytest.mark.parametrize("number", [1, 2, 3, 5, 11])
def test_groups_are_those_of_average_linkage(number):
    vectors = normal(11, 4, seed=number)
    found = groups(vectors, number)
    sets = {frozenset(word for word in range(11) if found[word] == one) for one in set(found)}
    assert sets == slow_groups(vectors, number)
    first = [found.index(one) for one in range(number)]
    assert first == sorted(first)  # numbered in the order of their first words
    assert groups(vectors[:2], 5) == [0, 1]


def test_points_fit_the_frame_by_one_scale():
    points = normal(20, 2) * [5, 0.2]
    found = fit(points, FRAME)
    assert (found >= np.array(FRAME[:2]) - 1e-9).all()
    assert (found <= np.array(FRAME[2:]) + 1e-9).all()
    scale = (found[0, 0] - found[1, 0]) / (points[0, 0] - points[1, 0])
    np.testing.assert_allclose(found[0, 1] - found[1, 1], -scale * (points[0, 1] - points[1, 1]))
    centre = [(FRAME[0] + FRAME[2]) / 2, (FRAME[1] + FRAME[3]) / 2]
    np.testing.assert_allclose(fit(np.zeros((2, 2)), FRAME), [centre, centre])


PLACES = {
    "one point": np.full((40, 2), 100.0),
    "a corner": np.full((12, 2), 0.0),
    "a line": np.stack([np.linspace(30, 60, 30), np.full(30, 100)], axis=1),
    "a crowd": 150 + 20 * normal(40, 2),
}


@pytest.mark.parametrize("name", PLACES)
def test_circles_make_room_for_each_other(name):
    places = spread(PLACES[name], RADIUS + 1, FRAME)
    for number, one in enumerate(places):
        assert FRAME[0] <= one[0] <= FRAME[2]
        assert FRAME[1] <= one[1] <= FRAME[3]
        for other in places[:number]:
            assert math.dist(one, other) >= 2 * RADIUS


def test_circles_with_room_stay_where_they_are():
    points = np.array([[50.0, 50.0], [120.0, 60.0], [200.0, 180.0]])
    np.testing.assert_allclose(spread(points, RADIUS, FRAME), points)


# ---- what it reads


def save_models(folder):
    """A model and a tagger, of random weights."""
    torch.manual_seed(0)
    names = {"id2label": LABELS, "label2id": {name: number for number, name in LABELS.items()}}
    tagger = ElmoConfig(**SHAPE, **names, task_hidden_size=8, task_num_layers=1)
    ElmoModel(ElmoConfig(**SHAPE)).save_pretrained(folder / "model")
    ElmoForTokenClassification(tagger).save_pretrained(folder / "tagger")
    for name in ("model", "tagger"):
        ElmoTokenizer().save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def reader(folders):
    return load(folders / "model", folders / "tagger")


def test_a_text_is_read_sentence_by_sentence(reader, folders):
    text = reader.read(TEXT)
    expected = [
        ["He", "sat", "on", "the", "bank", "."],
        ["The", "bank", "lent", "him", "money", "."],
        ["Bank", "on", "it", ",", "said", "the", "man", "on", "the", "bank", "!"],
    ]
    assert text.sentences == expected
    assert [word.form for word in text.words] == [word for sentence in expected for word in sentence]
    model, tokenizer = ElmoModel.from_pretrained(folders / "model").eval(), ElmoTokenizer()
    start = 0
    for sentence in expected:
        encoding = tokenizer([sentence], is_split_into_words=True, return_tensors="pt")
        with torch.no_grad():
            layers = model(**encoding, output_hidden_states=True).hidden_states
        for found, layer in zip(text.layers, layers, strict=True):
            np.testing.assert_allclose(found[start : start + len(sentence)], layer[0].numpy(), atol=1e-5)
        start += len(sentence)
    assert text.note == ""
    assert reader.read(TEXT) is text  # kept, as a slider asks for it again and again


def test_a_words_occurrences_have_either_case(reader):
    text = reader.read(TEXT)
    assert [text.words[number].form for number in text.occurrences("bank")] == [
        "bank",
        "bank",
        "Bank",
        "bank",
    ]
    assert text.keys()[:3] == ["the", "bank", "on"]
    assert not {",", ".", "!"} & {*text.keys()}
    assert labels_of(text, text.occurrences("bank")) == dict(
        zip(text.occurrences("bank"), ["1", "2", "3.1", "3.2"], strict=True)
    )


@pytest.mark.parametrize("text", ["", " \n\n ", "\x00"[:0]])
def test_a_text_without_words_is_none(reader, text):
    found = reader.read(text)
    assert (found.words, found.keys(), reader.tag(text)) == ([], [], [])


def test_a_long_text_is_cut_and_says_so():
    tokenizer = ElmoTokenizer()
    sentences, note = split("word " * (MOST_WORDS + 5), tokenizer)
    assert (sum(map(len, sentences)), note) == (MOST_WORDS, "The text is cut after 1,000 words.")
    sentences, note = split("a\n" * MOST_WORDS + "b", tokenizer)
    assert (len(sentences), note) == (MOST_WORDS, "The text is cut after 1,000 words.")
    sentences, note = split("x" * (MOST_LETTERS + 1), tokenizer)
    assert (sentences, note) == ([["x" * MOST_LETTERS]], "The text is cut after 10,000 letters.")
    assert split("word " * MOST_WORDS, tokenizer)[1] == ""


def test_layers_of_another_width_are_not_mixed(reader):
    wide = ElmoModel(ElmoConfig(**SHAPE | {"lstm_dim": 8, "projection_dim": 16}))
    other = Reader("wide", wide, ElmoTokenizer())
    assert [layer.shape for layer in other.read("Ice cream").layers] == [(2, 32), (2, 16), (2, 16)]
    assert other.mixable == [1, 2]
    assert reader.mixable == [0, 1, 2]


def test_the_taggers_labels_are_those_of_each_sentence_alone(reader, folders):
    model, tokenizer = ElmoForTokenClassification.from_pretrained(folders / "tagger").eval(), ElmoTokenizer()
    expected = []
    for sentence in reader.read(TEXT).sentences:
        encoding = tokenizer([sentence], is_split_into_words=True, return_tensors="pt")
        labels = [LABELS[label] for label in model.decode(**encoding)[0].tolist()]
        expected += [*pieces(sentence, labels), ("\n", None)]
    assert reader.tag(TEXT) == expected[:-1]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("B-PER I-PER O O B-LOC O", [("a b", "PER"), (" c d ", None), ("e", "LOC"), (" f", None)]),
        ("O O O O O O", [("a b c d e f", None)]),
        (
            "B-A B-B I-B B-B O O",
            [("a", "A"), (" ", None), ("b c", "B"), (" ", None), ("d", "B"), (" e f", None)],
        ),
        ("O O O O O B-A", [("a b c d e ", None), ("f", "A")]),
        ("X X O Y O O", [("a", "X"), (" ", None), ("b", "X"), (" c ", None), ("d", "Y"), (" e f", None)]),
    ],
)
def test_pieces_make_up_the_sentence(labels, expected):
    found = pieces(list("abcdef"), labels.split())
    assert found == expected
    assert "".join(piece for piece, _ in found) == "a b c d e f"


# ---- HTML


class Seen(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def test_every_word_can_be_clicked_and_those_that_are_picked_are_marked(reader):
    text = reader.read(TEXT)
    same = text.occurrences("bank")
    buttons = Seen(words_html(text, "bank", same[2])).all("button")
    assert [int(one["data-word"]) for one in buttons] == [
        number for number, word in enumerate(text.words) if word.form not in ".,!"
    ]
    kinds = {int(one["data-word"]): one["class"] for one in buttons}
    assert [number for number, kind in kinds.items() if kind == "picked"] == [same[2]]
    assert sorted(number for number, kind in kinds.items() if kind != "other") == same


def test_what_a_text_holds_is_no_html(reader):
    text = reader.read("<script>alert(1)</script> \"x\" onload='y' &amp; <img src=x> z")
    number = len(text.words) - 1
    for found in (
        words_html(text, "z", number),
        table_html(text, [(number, 0.5)], {}, {}),
        map_html(text, [number], np.zeros((1, 2)), np.zeros(2), [0], number),
        message_html("<script>"),
    ):
        seen = Seen(found)
        assert not seen.all("script")
        assert not seen.all("img")
        assert not any("onload" in attributes for _, attributes in seen.tags)
    assert "&amp;" in words_html(text, "z", number)


def test_the_table_has_a_row_for_each_word(reader):
    text = reader.read(TEXT)
    same = text.occurrences("bank")
    found = table_html(text, [(same[3], 0.98765), (same[0], -0.5)], labels_of(text, same), {same[3]: 1})
    seen = Seen(found)
    assert [row["data-word"] for row in seen.all("tr") if row] == [str(same[3]), str(same[0])]
    assert "0.988" in seen.text
    assert "-0.500" in seen.text
    assert "3.2" in seen.text
    assert "Bank on it , said the man on the <mark>bank</mark> !" in found


def test_of_a_long_sentence_the_table_shows_what_is_around_the_word(reader):
    text = reader.read(" ".join(f"w{number}" for number in range(60)))
    found = in_context(text, 30)
    assert found.startswith("… w16 ")
    assert found.endswith(" w44 …")
    assert "<mark>w30</mark>" in found
    assert in_context(text, 0).startswith("<mark>w0</mark> w1 ")


def test_the_map_has_a_numbered_circle_for_each_occurrence(reader):
    text = reader.read(TEXT)
    same = text.occurrences("bank")
    points = np.array([[-1.0, 0.0], [1.0, 0.5], [1.0, 0.5], [0.0, -0.5]])
    found = map_html(text, same, points, np.array([0.75, 0.25]), [0, 1, 1, 0], same[0])
    seen = Seen(found)
    circles = seen.all("circle")
    assert [circle["fill"] for circle in circles] == [circles[n]["fill"] for n in (0, 1, 1, 0)]
    assert circles[0]["fill"] != circles[1]["fill"]
    assert ["stroke" in circle for circle in circles] == [True, False, False, False]
    left, right = float(circles[0]["cx"]), float(circles[1]["cx"])
    assert left < float(circles[3]["cx"]) < right
    assert float(circles[3]["cy"]) > float(circles[0]["cy"])  # up is up
    assert len(seen.all("path")) == 1  # two points are one: a circle is there, the other beside it
    assert "75% and 25%" in seen.text


def test_examples_have_their_word_in_every_sentence(reader):
    for word, text in EXAMPLES.items():
        found = reader.read(text)
        assert len(found.sentences) == len(text.splitlines())
        assert [found.words[number].sentence for number in found.occurrences(word)] == list(
            range(len(found.sentences))
        )


# ---- mistakes


def test_what_cannot_be_loaded_is_told_in_a_sentence(folders, tmp_path):
    for folder, tagger, message in (
        (tmp_path / "nowhere", None, "no ELMo can be loaded from .*nowhere"),
        (folders / "model", tmp_path / "nowhere", "no ELMo can be loaded from .*nowhere"),
        (folders / "model", folders / "model", "holds no ElmoForTokenClassification; --tagger takes"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            load(folder, tagger)
        assert "\n" not in str(caught.value)


def test_a_port_that_is_taken(folders):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = CliRunner().invoke(app, ["demo", "--model", str(folders / "model"), "--port", str(port)])
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == (
            f"elmo-hf: port {port} is taken, or not allowed; choose another by --port.\n"
        )
    assert free_port(port=port) == port


def test_without_gradio_there_is_one_sentence(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    result = CliRunner().invoke(app, ["demo", "--model", str(folders / "model")])
    assert result.exit_code == 1
    assert result.stderr == "elmo-hf: the demo needs the package gradio; `pip install 'elmo-hf[demo]'`.\n"


def test_the_command_serves_what_it_is_told(folders, monkeypatch):
    served = []
    monkeypatch.setattr(elmo_hf.demo, "serve", lambda reader, **where: served.append((reader, where)))
    port = free_port()
    arguments = ["demo", "--tagger", str(folders / "tagger"), "--port", str(port), "--no-browser"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(app, ["demo", "--model", str(folders / "model")])
    assert result.exit_code == 0, result.output
    (tiny, first), (loaded, second) = served
    assert (tiny.name, loaded.name) == ("elmo-tiny", "model")
    assert tiny.tagger is not None
    assert loaded.tagger is None
    assert (first["port"], first["browser"], second["browser"]) == (port, False, True)
    assert 7860 <= second["port"] <= 7959


# ---- the Space


def test_the_space_starts_the_same_page(folders, monkeypatch):
    served = []
    monkeypatch.setattr(elmo_hf.demo, "serve", lambda reader, **where: served.append((reader, where)))
    monkeypatch.setenv("ELMO_MODEL", str(folders / "model"))
    monkeypatch.setenv("ELMO_TAGGER", str(folders / "tagger"))
    runpy.run_path(str(SPACE / "app.py"), run_name="__main__")
    [(reader, where)] = served
    assert isinstance(reader, Reader)
    assert reader.tagger is not None
    assert where == {"host": "0.0.0.0", "port": 7860}


def test_the_space_says_what_it_is():
    _, front, _ = (SPACE / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    front = yaml.safe_load(front)
    assert front["sdk"] == "gradio"
    assert (SPACE / front["app_file"]).is_file()
    assert len(front["short_description"]) <= 60  # the Hub's limit
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {front["colorFrom"], front["colorTo"]} <= colours
    assert (SPACE / "requirements.txt").read_text(encoding="utf-8").split() == ["elmo-hf[demo]"]
    project = (SPACE.parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    least = tuple(map(int, project.split("gradio>=")[1].split(",")[0].split(".")))
    assert tuple(map(int, front["sdk_version"].split("."))) >= least
