"""The demo's page in a real browser, as `elmo-hf demo` serves it: what it shows, and its requests.

It needs gradio, playwright (which drives the browser; its own browsers are not used) and chromium
(`apt-get install chromium`).
"""

import importlib.util
import shutil
from itertools import combinations
from threading import Event, Thread

import pytest
import torch

from elmo_hf import ElmoModel, ElmoTokenizer
from elmo_hf.demo import load
from elmo_hf.demo.examples import EXAMPLES
from elmo_hf.demo.reading import MAX_WORDS
from tests.helpers.appearance import CONTRAST, CUT
from tests.helpers.demo_models import cosine
from tests.helpers.demo_site import unused_port
from tests.helpers.launcher import wait_until

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = [name for name in ("gradio", "playwright") if importlib.util.find_spec(name) is None]
MISSING += [] if CHROMIUM else ["chromium"]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"a browser test needs {' and '.join(MISSING)}")
TIMEOUT = 300_000  # milliseconds; long enough for a slow machine, and a wrong selector ends the test

SENTENCES = [
    "The children play in the garden .",
    "She wrote a play about a play in Rome .",
    "Play it again , said Ann .",
    "He likes to play chess with < b > Tom & Jerry < / b > .",
]


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=TIMEOUT)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=TIMEOUT)
        yield browser
        browser.close()


@pytest.fixture
def visit(site, browser):
    """Open the page; at the end, there were no errors in it and no requests to other machines."""
    assert site.printed == f"The demo is at {site.address} until you press Ctrl-C.\n"
    pages, errors = [], []

    def check_address(request):
        if not request.url.startswith((site.address, "data:", "blob:")):
            errors.append(request.url)

    def visit(width=1280, height=900, scheme="light"):
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        page.set_default_timeout(TIMEOUT)
        page.on("request", check_address)
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(site.address)
        page.locator("#map circle").first.wait_for()
        pages.append(page)
        return page

    yield visit
    for page in pages:
        page.close()
    assert errors == []


def read(page, text):
    page.locator("#text textarea").fill(text)
    page.locator("#read").click()


# ---- contents


@pytest.fixture(scope="module")
def layers(site):
    """The layers of each sentence, read alone."""
    model, tokenizer = ElmoModel.from_pretrained(site.folder / "model").eval(), ElmoTokenizer()
    layers = []
    for sentence in SENTENCES:
        with torch.no_grad():
            encoding = tokenizer([sentence.split()], is_split_into_words=True, return_tensors="pt")
            layers.append([layer[0] for layer in model(**encoding, output_hidden_states=True).hidden_states])
    return layers


def expected_rows(layers, weights, picked, is_candidate):
    """[(sentence, index of the word in it, cosine)], the nearest first; `picked` is (sentence, index)."""

    def vector(sentence, index):
        return sum(weight * layer[index] for weight, layer in zip(weights, layers[sentence], strict=True))

    rows = [
        (sentence, index, cosine(vector(sentence, index), vector(*picked)))
        for sentence, text in enumerate(SENTENCES)
        for index, word in enumerate(text.split())
        if is_candidate(word) and (sentence, index) != picked
    ]
    return sorted(rows, key=lambda row: -row[2])[:10]


def check_table(page, expected):
    """Wait until the table holds these rows: their sentences, with the word marked, and cosines."""
    from playwright.sync_api import expect

    marked = []
    for sentence, index, _ in expected:
        words = SENTENCES[sentence].split()
        marked.append(" ".join([*words[:index], f"[{words[index]}]", *words[index + 1 :]]))
    rows = page.locator("#nearest tbody tr")
    expect(rows).to_have_count(len(expected))
    first = f"{expected[0][2]:.3f}"
    expect(rows.first.locator("td.cosine")).to_have_text(first)
    shown = page.evaluate(
        """() => [...document.querySelectorAll('#nearest tbody tr')].map(row => {
             const cell = row.cells[2].cloneNode(true), mark = cell.querySelector('mark');
             mark.textContent = '[' + mark.textContent + ']';
             return [row.cells[0].textContent, row.cells[1].textContent, cell.textContent];
           })"""
    )
    assert [text for _, _, text in shown] == marked
    assert [float(number) for _, number, _ in shown] == pytest.approx([row[2] for row in expected], abs=6e-4)
    assert [label.split(".")[0] for label, _, _ in shown] == [str(row[0] + 1) for row in expected]


FILLS = "[...document.querySelectorAll('#map circle')].map(circle => circle.getAttribute('fill'))"


def is_play(word):
    return word.lower() == "play"


def test_a_visit(site, visit, layers):
    """Type sentences, pick words, choose and mix layers; the table, the map and the labels change."""
    from playwright.sync_api import expect

    page = visit()
    expect(page.locator("#map circle")).to_have_count(8)  # of the first example
    read(page, "\n".join(SENTENCES))
    expect(page.locator("#words .sentence")).to_have_count(len(SENTENCES))
    expect(page.locator("#word input")).to_have_value("play (5)")
    expect(page.locator("#map circle")).to_have_count(5)
    third = [1 / 3] * 3
    check_table(page, expected_rows(layers, third, (0, 2), is_play))
    expect(page.locator("#shares")).to_have_text("0.33 × layer 0 + 0.33 × layer 1 + 0.33 × layer 2")

    # a word is clicked
    page.locator("#words .sentence").nth(2).get_by_role("button", name="Play").click()
    expect(page.locator("#words .word.picked")).to_have_text("Play")
    expect(page.locator("#occurrence input")).to_have_value("3: Play it again , said …")
    check_table(page, expected_rows(layers, third, (2, 0), is_play))

    # another occurrence from the list
    page.locator("#occurrence input").click()
    page.get_by_role("option", name="2.2:").click()
    check_table(page, expected_rows(layers, third, (1, 6), is_play))

    # weights, and single layers
    page.locator("#weight-0 input[type=number]").fill("0")
    page.locator("#weight-0 input[type=number]").press("Enter")
    expect(page.locator("#shares")).to_have_text("0.00 × layer 0 + 0.50 × layer 1 + 0.50 × layer 2")
    check_table(page, expected_rows(layers, [0, 0.5, 0.5], (1, 6), is_play))
    page.locator("#layer").get_by_text("layer 2").click()
    expect(page.locator("#weight-0")).to_be_hidden()
    expect(page.locator("#shares")).to_have_text("")
    check_table(page, expected_rows(layers, [0, 0, 1], (1, 6), is_play))
    page.locator("#among").get_by_text("all words").click()
    expected = expected_rows(layers, [0, 0, 1], (1, 6), lambda word: any(map(str.isalnum, word)))
    check_table(page, expected)

    # more groups, more colours
    assert page.evaluate(f"new Set({FILLS}).size") == 2
    page.locator("#groups input[type=number]").fill("4")
    page.locator("#groups input[type=number]").press("Enter")
    page.wait_for_function(f"new Set({FILLS}).size == 4")

    # the labels are the tagger's
    expected = load(site.folder / "model", site.folder / "tagger").tag("\n".join(SENTENCES))
    shown = page.evaluate(
        "[...document.querySelectorAll('#tags .highlighted')].map("
        "token => [...token.querySelectorAll('.text, .label')].map(node => node.textContent.trim()))"
    )
    assert shown == [[text, label] for text, label in expected if label]

    # an example
    page.get_by_role("button", name="light", exact=True).first.click()
    expect(page.locator("#word input")).to_have_value("light (8)")
    expect(page.locator("#text textarea")).to_have_value(EXAMPLES["light"])
    expect(page.locator("#map circle")).to_have_count(8)
    expect(page.locator("#words .word.picked")).to_have_text("light")


@pytest.fixture
def slow_page(reader, browser, monkeypatch):
    """The page, the weights that it has answered for, and a function that makes it answer slowly.

    The function asks the page for something, and returns an event: the answer waits for it, or so long.
    """
    import uvicorn

    from elmo_hf.demo.page import _Page, app, build

    held, answered, show, port = [], [], _Page.show, unused_port()

    def slow_show(self, *values):
        if held:
            started, go_on, seconds = held.pop()
            started.set()
            go_on.wait(seconds)
        answer = show(self, *values)
        answered.append(values[6:])
        return answer

    def ask_slowly(seconds=TIMEOUT / 1000):
        started, go_on = Event(), Event()
        answered.clear()
        held.append((started, go_on, seconds))
        page.locator("#among").get_by_text("all words").click()
        assert started.wait(TIMEOUT / 1000)
        return go_on

    monkeypatch.setattr(_Page, "show", slow_show)
    config = uvicorn.Config(app(build(reader), "127.0.0.1"), port=port, ws="none", log_level="warning")
    server = uvicorn.Server(config)
    thread = Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started)
    page = browser.new_page()
    page.set_default_timeout(TIMEOUT)
    page.goto(f"http://127.0.0.1:{port}")
    page.locator("#map circle").first.wait_for()
    yield page, answered, ask_slowly
    page.close()
    server.should_exit = True
    thread.join()


def test_the_newest_answer_is_shown(slow_page):
    """A weight changes while the page answers something else, slowly."""
    from playwright.sync_api import expect

    page, answered, ask_slowly = slow_page
    ask_slowly(seconds=5)  # as long as a newer answer might take that does not wait for this one
    page.locator("#weight-0 input[type=number]").fill("0")
    wait_until(lambda: len(answered) == 2)
    assert answered == [(1, 1, 1), (0, 1, 1)]
    expect(page.locator("#shares")).to_have_text("0.00 × layer 0 + 0.50 × layer 1 + 0.50 × layer 2")


def test_no_choice_is_dropped(slow_page):
    """Vectors are chosen twice while the page answers something else: it ends at the second choice."""
    from playwright.sync_api import expect

    page, answered, ask_slowly = slow_page
    go_on = ask_slowly()
    for choice in ("layer 2", "a mix of layers"):
        page.locator("#layer").get_by_text(choice).click()
    go_on.set()
    wait_until(lambda: len(answered) == 3)
    expect(page.locator("#weight-0")).to_be_visible()
    expect(page.locator("#shares")).to_have_text("0.33 × layer 0 + 0.33 × layer 1 + 0.33 × layer 2")


def test_text_that_is_hostile_long_or_empty(visit):
    from playwright.sync_api import expect

    page = visit()
    title = page.title()
    bad = (
        "<img src=x onerror=\"document.title='gone'\"> <script>document.title='gone'</script> a word , a word"
    )
    read(page, bad)
    expect(page.locator("#words")).to_contain_text("onerror")
    expect(page.locator("#word input")).to_have_value("document.title (2)")
    assert page.title() == title
    assert page.locator(".elmo img, .elmo script, #tags img").count() == 0
    read(page, "word " * (MAX_WORDS + 1))
    expect(page.locator("#note")).to_have_text(f"The text is cut after {MAX_WORDS:,} words.")
    expect(page.locator("#map circle")).to_have_count(40)
    expect(page.locator("#map")).to_contain_text("The map has 40 of 1,000 occurrences.")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    read(page, "once")
    expect(page.locator("#nearest")).to_contain_text("“once” occurs once; write another sentence with it")
    expect(page.locator("#note")).to_have_text("")
    read(page, " ")
    expect(page.locator("#words")).to_have_text("There is no word in the text yet.")
    expect(page.locator("#map circle")).to_have_count(0)


def test_lines_from_the_right(visit):
    """Each line has its own direction, and a word is picked by a key, too."""
    from playwright.sync_api import expect

    page = visit()
    read(page, "ذهب الرجل إلى البنك .\nHe said السلام عليكم to me .\nقال : البنك بعيد .")
    expect(page.locator("#words .sentence")).to_have_count(3)
    spans = "[...document.querySelectorAll('#words .sentence > span:last-child')]"
    directions = page.evaluate(f"{spans}.map(span => getComputedStyle(span).direction)")
    assert directions == ["rtl", "ltr", "rtl"]
    left = [page.get_by_role("button", name=word).bounding_box()["x"] for word in ("السلام", "عليكم")]
    assert left[0] > left[1]  # also inside an English line
    textarea = page.locator("#text textarea")
    assert textarea.evaluate("node => getComputedStyle(node).unicodeBidi") == "plaintext"
    page.locator("#words .sentence").nth(2).get_by_role("button", name="البنك").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#occurrence input")).to_have_value("3: \u2068قال : البنك بعيد .\u2069")
    expect(page.locator("#word input")).to_have_value("\u2068البنك\u2069 (2)")
    style = page.locator("#nearest td").last.evaluate(
        "node => (style => [style.direction, style.textAlign])(getComputedStyle(node))"
    )
    assert style == ["rtl", "start"]


# ---- appearance

BOXES = '.elmo *, [data-testid="block-info"], label, button, h1, h3, p, #text textarea'
TEXTS = ".elmo p, .elmo td, .elmo mark, .elmo .number, .elmo .word, h1, h3"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_is_cut_and_contrast_suffices(visit, width, scheme):
    page = visit(width, 900 if width > 800 else 800, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(CUT, BOXES) == []
    assert page.evaluate(CONTRAST, TEXTS) >= 4.5
    assert page.evaluate("getComputedStyle(document.querySelector('#words .sentence')).color") == (
        page.evaluate("getComputedStyle(document.querySelector('h1')).color")
    )
    page.locator("#layer").get_by_text("layer 0").click()  # where all points coincide
    page.get_by_text("All occurrences have one and the same vector here.").wait_for()
    boxes = page.locator("#map circle").evaluate_all(
        "all => all.map(node => node.getBoundingClientRect()).map(b => [b.left, b.top, b.right, b.bottom])"
    )
    assert len(boxes) == 8
    left, top, right, bottom = page.locator("#map svg").evaluate(
        "node => (b => [b.left, b.top, b.right, b.bottom])(node.getBoundingClientRect())"
    )
    for first, second in combinations(boxes, 2):
        size = first[2] - first[0]
        distance = ((first[0] - second[0]) ** 2 + (first[1] - second[1]) ** 2) ** 0.5
        assert distance >= 0.9 * size  # the box of the picked circle includes its ring
    for box in boxes:
        assert left <= box[0] < box[2] <= right
        assert top <= box[1] < box[3] <= bottom
    letters = page.locator("#map text").evaluate_all(
        "all => all.map(node => node.getBoundingClientRect().height)"
    )
    assert min(letters) >= 10
