"""The demo's page in a real browser, as `elmo-hf demo` serves it: what it shows, and whom it asks.

It needs gradio, playwright (which drives the browser; its own browsers are not used) and chromium
(`apt-get install chromium`).
"""

import importlib.util
import shutil
import subprocess
import sys
from itertools import combinations

import pytest
import torch

from elmo_hf import ElmoModel, ElmoTokenizer
from elmo_hf.demo import free_port, load
from elmo_hf.demo.examples import EXAMPLES
from elmo_hf.demo.reading import MOST_WORDS
from tests.demo.test_demo import cosine, save_models

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = [name for name in ("gradio", "playwright") if importlib.util.find_spec(name) is None]
MISSING += [] if CHROMIUM else ["chromium"]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"a browser test needs {' and '.join(MISSING)}")
PATIENCE = 300_000  # milliseconds; a slow machine is no failure, and a wrong selector must not wait for ever

# The command, in a process that writes down whatever address it asks for that is not this machine's.
RUNNER = """
import sys
from pathlib import Path
log, hosts = Path(sys.argv.pop(1)), ("127.0.0.1", "localhost", "::1", "0.0.0.0", "", None)
def listen(event, arguments):
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    if host not in hosts:
        with log.open("a") as file:
            file.write(f"{host}\\n")
sys.addaudithook(listen)
from elmo_hf.cli import app
app(prog_name="elmo-hf")
"""

SENTENCES = [
    "The children play in the garden .",
    "She wrote a play about a play in Rome .",
    "Play it again , said Ann .",
    "He likes to play chess with < b > Tom & Jerry < / b > .",
]


class Site:
    def __init__(self, folder):
        self.folder, self.log = save_models(folder), folder / "asked.txt"
        self.address = f"http://127.0.0.1:{(port := free_port())}/"
        models = ["--model", str(folder / "model"), "--tagger", str(folder / "tagger")]
        with (folder / "stderr.txt").open("w") as errors:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    RUNNER,
                    self.log,
                    "demo",
                    *models,
                    "--port",
                    str(port),
                    "--no-browser",
                ],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline()

    def stop(self):
        self.process.terminate()
        self.process.communicate()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("site"))
    yield site
    site.stop()
    assert not site.log.exists(), site.log.read_text()  # it asked for nothing outside


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"], timeout=PATIENCE
        )
        yield browser
        browser.close()


@pytest.fixture
def visit(site, browser):
    """Opens the page; at the end, nothing has gone wrong in it, and nothing foreign was asked for."""
    assert site.said == f"The demo is at {site.address} until you press Ctrl-C.\n"
    pages, wrong = [], []

    def note(request):
        if not request.url.startswith((site.address, "data:", "blob:")):
            wrong.append(request.url)

    def visit(width=1280, height=900, scheme="light"):
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        page.set_default_timeout(PATIENCE)
        page.on("request", note)
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(site.address)
        page.locator("#map circle").first.wait_for()
        pages.append(page)
        return page

    yield visit
    for page in pages:
        page.close()
    assert wrong == []


def read(page, text):
    page.locator("#text textarea").fill(text)
    page.locator("#read").click()


# ---- what is shown


@pytest.fixture(scope="module")
def layers(site):
    """Of each sentence read alone: layers of words."""
    model, tokenizer = ElmoModel.from_pretrained(site.folder / "model").eval(), ElmoTokenizer()
    found = []
    for sentence in SENTENCES:
        with torch.no_grad():
            encoding = tokenizer([sentence.split()], is_split_into_words=True, return_tensors="pt")
            found.append([layer[0] for layer in model(**encoding, output_hidden_states=True).hidden_states])
    return found


def expected_rows(layers, weights, picked, is_wanted):
    """[(sentence, the word in it, cosine)], the nearest first; `picked` is (sentence, place)."""

    def vector(sentence, place):
        return sum(weight * layer[place] for weight, layer in zip(weights, layers[sentence], strict=True))

    rows = [
        (sentence, place, cosine(vector(sentence, place), vector(*picked)))
        for sentence, text in enumerate(SENTENCES)
        for place, word in enumerate(text.split())
        if is_wanted(word) and (sentence, place) != picked
    ]
    return sorted(rows, key=lambda row: -row[2])[:10]


def check_table(page, expected):
    """The table comes to hold these rows: their sentences, with the word marked, and cosines."""
    from playwright.sync_api import expect

    marked = []
    for sentence, place, _ in expected:
        words = SENTENCES[sentence].split()
        marked.append(" ".join([*words[:place], f"[{words[place]}]", *words[place + 1 :]]))
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


FILLS = "[...document.querySelectorAll('#map circle')].map(one => one.getAttribute('fill'))"


def is_play(word):
    return word.lower() == "play"


def test_a_visit(site, visit, layers):
    """Sentences are typed, words picked, layers chosen and mixed; table, map and labels follow."""
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
    expect(page.locator("#words button.picked")).to_have_text("Play")
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
    wanted = load(site.folder / "model", site.folder / "tagger").tag("\n".join(SENTENCES))
    shown = page.evaluate(
        "[...document.querySelectorAll('#tags .highlighted')].map("
        "token => [...token.querySelectorAll('.text, .label')].map(part => part.textContent.trim()))"
    )
    assert shown == [[text, label] for text, label in wanted if label]

    # an example
    page.get_by_role("button", name="light", exact=True).first.click()
    expect(page.locator("#word input")).to_have_value("light (8)")
    expect(page.locator("#text textarea")).to_have_value(EXAMPLES["light"])
    expect(page.locator("#map circle")).to_have_count(8)
    expect(page.locator("#words button.picked")).to_have_text("light")


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
    read(page, "word " * (MOST_WORDS + 1))
    expect(page.locator("#note")).to_have_text(f"The text is cut after {MOST_WORDS:,} words.")
    expect(page.locator("#map circle")).to_have_count(40)
    expect(page.locator("#map")).to_contain_text("The map has 40 of 1,000 occurrences.")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    read(page, "once")
    expect(page.locator("#nearest")).to_contain_text("“once” occurs once; write another sentence with it")
    expect(page.locator("#note")).to_have_text("")
    read(page, " ")
    expect(page.locator("#words")).to_have_text("There is no word in the text yet.")
    expect(page.locator("#map circle")).to_have_count(0)


# ---- how it looks

CUT = """() => [...document.querySelectorAll(
    '.elmo *, [data-testid="block-info"], label, button, h1, h3, p, #text textarea')].filter(one => {
  const box = one.getBoundingClientRect(), style = getComputedStyle(one);
  if (!box.width || one.closest('svg') && one.tagName != 'svg') return false;
  const inside = one.scrollWidth <= one.clientWidth + 1 && one.scrollHeight <= one.clientHeight + 1;
  return box.left < 0 || box.right > innerWidth || (style.display != 'inline' && !inside && one.clientWidth);
}).map(one => one.tagName + ' ' + one.id + ' ' + one.textContent.slice(0, 60))"""
CONTRAST = """() => {
  const channels = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = colour => channels(colour).slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, n) => sum + c * [0.2126, 0.7152, 0.0722][n], 0);
  const behind = one => {
    const colour = getComputedStyle(one).backgroundColor, alpha = channels(colour)[3] ?? 1;
    return alpha > 0 ? colour : one.parentElement ? behind(one.parentElement) : 'rgb(255, 255, 255)';
  };
  return [...document.querySelectorAll('.elmo p, .elmo td, .elmo mark, .elmo .number, .elmo button, h1, h3')]
    .map(one => {
      const [a, b] = [light(getComputedStyle(one).color), light(behind(one))].sort((x, y) => y - x);
      return (a + 0.05) / (b + 0.05);
    }).reduce((least, one) => Math.min(least, one));
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_is_cut_and_all_can_be_read(visit, width, scheme):
    page = visit(width, 900 if width > 800 else 800, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(CUT) == []
    assert page.evaluate(CONTRAST) >= 4.5
    assert page.evaluate("getComputedStyle(document.querySelector('#words .sentence')).color") == (
        page.evaluate("getComputedStyle(document.querySelector('h1')).color")
    )
    page.locator("#layer").get_by_text("layer 0").click()  # where all circles would be at one place
    page.get_by_text("All occurrences have one and the same vector here.").wait_for()
    boxes = page.locator("#map circle").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect()).map(b => [b.left, b.top, b.right, b.bottom])"
    )
    assert len(boxes) == 8
    left, top, right, bottom = page.locator("#map svg").evaluate(
        "one => (b => [b.left, b.top, b.right, b.bottom])(one.getBoundingClientRect())"
    )
    for one, other in combinations(boxes, 2):
        size = one[2] - one[0]
        between = ((one[0] - other[0]) ** 2 + (one[1] - other[1]) ** 2) ** 0.5
        assert between >= 0.9 * size  # the ring of the picked one counts as part of it
    for box in boxes:
        assert left <= box[0] < box[2] <= right
        assert top <= box[1] < box[3] <= bottom
    letters = page.locator("#map text").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect().height)"
    )
    assert min(letters) >= 10
