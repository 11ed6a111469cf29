"""The HTML of the page."""

from html.parser import HTMLParser

import numpy as np

from elmo_hf.demo.html import in_context, isolated, labels_of, map_html, message_html, table_html, words_html
from tests.helpers.demo_models import TEXT


class Parsed(HTMLParser):
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


def test_every_word_is_a_button_and_occurrences_are_marked(reader):
    text = reader.read(TEXT)
    same = text.occurrences("bank")
    buttons = [span for span in Parsed(words_html(text, "bank", same[2])).all("span") if "role" in span]
    assert [int(button["data-word"]) for button in buttons] == [
        number for number, word in enumerate(text.words) if word.form not in ".,!"
    ]
    assert {(button["role"], button["tabindex"]) for button in buttons} == {("button", "0")}
    assert [int(button["data-word"]) for button in buttons if button["aria-pressed"] == "true"] == [same[2]]
    classes = {int(button["data-word"]): button["class"].removeprefix("word ") for button in buttons}
    assert [number for number, css in classes.items() if css == "picked"] == [same[2]]
    assert sorted(number for number, css in classes.items() if css != "other") == same


def test_texts_are_escaped(reader):
    text = reader.read("<script>alert(1)</script> \"x\" onload='y' &amp; <img src=x> z")
    number = len(text.words) - 1
    for html in (
        words_html(text, "z", number),
        table_html(text, [(number, 0.5)], {}, {}),
        map_html(text, [number], np.zeros((1, 2)), np.zeros(2), [0], number),
        message_html("<script>"),
    ):
        parsed = Parsed(html)
        assert not parsed.all("script")
        assert not parsed.all("img")
        assert not any("onload" in attributes for _, attributes in parsed.tags)
    assert "&amp;" in words_html(text, "z", number)


def test_table_has_a_row_for_each_word(reader):
    text = reader.read(TEXT)
    same = text.occurrences("bank")
    html = table_html(text, [(same[3], 0.98765), (same[0], -0.5)], labels_of(text, same), {same[3]: 1})
    parsed = Parsed(html)
    assert [row["data-word"] for row in parsed.all("tr") if row] == [str(same[3]), str(same[0])]
    assert "0.988" in parsed.text
    assert "-0.500" in parsed.text
    assert "3.2" in parsed.text
    assert "Bank on it , said the man on the <mark>bank</mark> !" in html


def test_lines_from_the_right_are_isolated(reader):
    assert isolated("bank") == "bank"
    assert isolated("א bank") == "\u2068א bank\u2069"
    assert isolated("بنك") == "\u2068بنك\u2069"
    text = reader.read("ذهب إلى البنك .")
    assert Parsed(words_html(text, "", None)).all("div")[1] == {"class": "sentence", "dir": "auto"}
    assert Parsed(table_html(text, [(0, 0.5)], {}, {})).all("td")[-1] == {"dir": "auto"}


def test_long_sentences_are_cut_around_the_word(reader):
    text = reader.read(" ".join(f"w{number}" for number in range(60)))
    html = in_context(text, 30)
    assert html.startswith("… w16 ")
    assert html.endswith(" w44 …")
    assert "<mark>w30</mark>" in html
    assert in_context(text, 0).startswith("<mark>w0</mark> w1 ")


def test_map_has_a_numbered_circle_for_each_occurrence(reader):
    text = reader.read(TEXT)
    same = text.occurrences("bank")
    points = np.array([[-1.0, 0.0], [1.0, 0.5], [1.0, 0.5], [0.0, -0.5]])
    html = map_html(text, same, points, np.array([0.75, 0.25]), [0, 1, 1, 0], same[0])
    parsed = Parsed(html)
    circles = parsed.all("circle")
    assert [circle["fill"] for circle in circles] == [circles[n]["fill"] for n in (0, 1, 1, 0)]
    assert circles[0]["fill"] != circles[1]["fill"]
    assert ["stroke" in circle for circle in circles] == [True, False, False, False]
    left, right = float(circles[0]["cx"]), float(circles[1]["cx"])
    assert left < float(circles[3]["cx"]) < right
    assert float(circles[3]["cy"]) > float(circles[0]["cy"])  # up is up
    single = Parsed(map_html(text, same[:1], points[:1] * 0, np.zeros(2), [0], same[0]))
    assert single.text.endswith("Numbers are sentences, colours are groups.")
    assert len(parsed.all("path")) == 1  # two points coincide, so that one circle is moved
    assert "75% and 25%" in parsed.text
