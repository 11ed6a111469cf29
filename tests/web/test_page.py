"""The static page in a real browser: what it shows, its vectors, and what it says when something is missing.

It needs playwright, chromium (`apt-get install chromium`), and npm, from which onnxruntime-web comes.
"""

import importlib.util
import re
import shutil

import pytest
import torch

from elmo_hf.demo.examples import EXAMPLES
from elmo_hf.demo.reading import MAX_WORDS
from tests.helpers.appearance import CONTRAST, CUT
from tests.helpers.demo_models import cosine
from tests.helpers.static_page import served

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = [] if importlib.util.find_spec("playwright") else ["playwright"]
MISSING += [] if CHROMIUM else ["chromium"]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"a browser test needs {' and '.join(MISSING)}")
TIMEOUT = 60_000  # milliseconds; long enough for a slow machine, and a wrong selector ends the test
WHOLE = "the page's folder is not whole."


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=TIMEOUT)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=TIMEOUT)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(page_folder):
    with served(page_folder) as address:
        yield address


@pytest.fixture(scope="module")
def pages(browser, address):
    """Opens pages; at the end there were no errors in them, and no requests to another host."""
    errors = []

    def open_page(script=None, missing=None, expected_error=None):
        page = browser.new_page()
        page.set_default_timeout(TIMEOUT)
        if script:
            page.add_init_script(script)
        if missing:
            page.route(re.compile(missing), lambda route: route.fulfill(status=404))

        def check_request(request):
            if not request.url.startswith((address, "data:")):
                errors.append(request.url)

        def check_message(message):
            if message.type == "error" and not (expected_error and expected_error in message.text):
                errors.append(message.text)

        page.on("request", check_request)
        page.on("console", check_message)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        return page

    yield open_page
    assert errors == []


@pytest.fixture
def open_page(pages):
    opened = []

    def open_page(**options):
        opened.append(pages(**options))
        return opened[-1]

    yield open_page
    for page in opened:
        page.close()


@pytest.fixture(scope="module")
def ready(pages):
    """A page that has read its first example, and the sentences of all; tests type their own texts."""
    from playwright.sync_api import expect

    page = pages()
    expect(page.locator("#others td.label", has_text="e")).not_to_have_count(0)
    yield page
    page.close()


def read(page, text):
    from playwright.sync_api import expect

    page.locator("#text").fill(text)
    page.locator("#read").click()
    expect(page.locator("#read")).to_be_enabled()  # when it is read


def read_example(page, word):
    from playwright.sync_api import expect

    page.locator("#examples").get_by_role("button", name=word).click()
    expect(page.locator("#read")).to_be_enabled()


def table(page, section):
    """The rows of a table: label, cosines, and the sentence with the word in brackets."""
    return page.evaluate(
        """section => [...document.querySelectorAll(section + ' tbody tr')].map(row => {
             const cell = row.querySelector('.context').cloneNode(true), mark = cell.querySelector('mark');
             mark.textContent = '[' + mark.textContent + ']';
             const cosines = [...row.querySelectorAll('.cosine')].map(cell => Number(cell.textContent));
             return [row.querySelector('.label').textContent, cosines, cell.textContent];
           })""",
        section,
    )


# ---- contents


def test_vectors_are_those_of_the_model(open_page, sentences, expected_vectors):
    page, sentences, expected_vectors = open_page(), sentences[::3], expected_vectors[::3]
    actual = page.evaluate(
        """async sentences => {
             const settings = await (await fetch('settings.json')).json();
             const worker = new Worker('worker.js', {type: 'module'});
             return new Promise((resolve, reject) => {
               worker.onmessage = ({data}) => {
                 if (data.ready) worker.postMessage({number: 0, sentences});
                 if (data.fault) reject(new Error(data.fault));
                 if (data.vectors) resolve(data.vectors.map(s => s.map(w => w.map(v => Array.from(v)))));
               };
               worker.postMessage({settings});
             });
           }""",
        sentences,
    )
    for sentence, expected in zip(actual, expected_vectors, strict=True):
        torch.testing.assert_close(torch.tensor(sentence), torch.tensor(expected), rtol=0, atol=1e-4)


def test_a_visit(ready, expected_vectors, sentences):
    """The first example: tables of the picked word by layer, another word, another layer, more groups."""
    from playwright.sync_api import expect

    page, bank = ready, [(number, words.index("bank")) for number, words in enumerate(sentences[:8])]

    def cosines(number, other):
        first, second = (torch.tensor(expected_vectors[n][dict(bank)[n]]) for n in (number, other))
        pairs = [(first.mean(dim=0), second.mean(dim=0)), *zip(first, second, strict=True)]
        return [cosine(a, b) for a, b in pairs]

    read_example(page, "bank")
    expect(page.locator("#text")).to_have_value(EXAMPLES["bank"])
    expect(page.locator("#word")).to_have_value("bank")
    expect(page.locator("#map circle")).to_have_count(8)
    rows = table(page, "#same")
    expected = sorted(((str(n + 1), cosines(0, n)) for n in range(1, 8)), key=lambda row: -row[1][0])
    assert [label for label, _, _ in rows] == [label for label, _ in expected]
    for (_, shown, _), (_, computed) in zip(rows, expected, strict=True):
        assert shown == pytest.approx(computed, abs=6e-3)
    assert "[bank]" in rows[0][2]

    # the second sentence's, by the top layer
    page.locator("#sentences .sentence").nth(1).get_by_role("button", name="bank").click()
    page.get_by_label("layer 2: the top").check()
    expect(page.locator("#same-title")).to_have_text("“\u2068bank\u2069” of sentence 2, and elsewhere")
    expect(page.locator("[aria-pressed=true]")).to_have_count(1)
    top = sorted((n for n in range(8) if n != 1), key=lambda n: -cosines(1, n)[3])
    assert [label for label, _, _ in table(page, "#same")] == [str(n + 1) for n in top]

    # a keyboard suffices
    page.locator("#sentences .sentence").nth(3).get_by_role("button", name="boat").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#same-title")).to_contain_text("boat")
    page.locator("#word").select_option("bank")
    expect(page.locator("#same-title")).to_contain_text("bank")
    page.locator("#groups").focus()
    page.keyboard.press("ArrowRight")
    fills = "new Set([...document.querySelectorAll('#map circle')].map(c => getComputedStyle(c).fill)).size"
    assert page.evaluate(fills) == 3


def test_own_sentences_and_examples(ready):
    """A word that occurs once is compared with the examples'; without them it stands alone."""
    from playwright.sync_api import expect

    page = ready
    read(page, "I walked to the bank.")
    page.get_by_label("a mix of layers").check()
    page.locator("#sentences").get_by_role("button", name="bank").click()
    expect(page.locator("#same tbody tr")).to_have_count(8)
    page.locator("#with-examples").uncheck()
    expect(page.locator("#same")).to_have_text(
        "“\u2068bank\u2069” occurs once; write another sentence with it."
    )
    others = {marked for _, _, text in table(page, "#others") for marked in re.findall(r"\[(.+)\]", text)}
    assert others == {"I", "walked", "to", "the"}
    page.locator("#with-examples").check()
    read_example(page, "spring")
    expect(page.locator("#word")).to_have_value("spring")
    expect(page.locator("#text")).to_have_value(EXAMPLES["spring"])


def test_several_occurrences_in_a_sentence(ready):
    page = ready
    read(page, "The left hand left the left bag.\nHe left.")
    page.locator("#word").select_option("left")
    page.locator("#with-examples").uncheck()
    labels = page.locator("#map text").all_text_contents()
    assert labels == ["1.1", "1.2", "1.3", "2"]
    assert sorted(label for label, _, _ in table(page, "#same")) == ["1.2", "1.3", "2"]
    page.locator("#with-examples").check()


def test_direction_of_each_line(ready):
    page = ready
    read(page, "ذهب الرجل إلى البنك.\nHe said السلام عليكم to me.\n他 在 银行 工作。")
    directions = "[...document.querySelectorAll('.words')].map(words => getComputedStyle(words).direction)"
    assert page.evaluate(directions) == ["rtl", "ltr", "ltr"]
    left, right = (
        box.bounding_box()["x"] for box in page.locator(".sentence").first.locator("span").all()[:2]
    )
    assert left > right  # the number of a line from the right is on the right
    # the first word of two Arabic ones in an English line is on the right
    left = [page.get_by_role("button", name=word).bounding_box()["x"] for word in ("السلام", "عليكم")]
    assert left[0] > left[1]


def test_nothing_of_a_text_is_markup(ready):
    page = ready
    text = "<b>bold</b> <img src=x onerror=alert(1)> & \u202eevil\u0000 \ud800 <script>"
    page.evaluate("text => document.getElementById('text').value = text", text)
    page.locator("#read").click()
    page.locator("#sentences", has_text="evil").wait_for()
    shown = page.locator("#sentences .words").inner_text()
    assert "< img src = x onerror = alert ( 1 ) >" in shown
    assert "\u202e" not in shown


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_nothing_is_cut_and_contrast_suffices(ready, width, scheme):
    page = ready
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    for text in (EXAMPLES["left"], "a " * 600 + "b" * 300, "ذهب الرجل إلى البنك ذهب"):
        read(page, text)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert (
            page.evaluate(CUT, "label, button, legend, h1, h2, p, td, th, mark, .number, svg, select") == []
        )
        assert (
            page.evaluate(CONTRAST, "p, td, th, mark, .number, .word, h1, h2, label, button, legend") >= 4.5
        )


# ---- what is said


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("", "There is no word in the text yet."),
        (" \n ", "There is no word in the text yet."),
        ("x " * (MAX_WORDS + 1), "The text is cut after 1,000 words."),
        ("x" * 10_001, "The text is cut after 10,000 letters."),
        ("x" * 10_000, ""),
    ],
    ids=["empty", "blank", "words", "letters", "longest"],
)
def test_note_about_the_text(ready, text, note):
    from playwright.sync_api import expect

    read(ready, text)
    expect(ready.locator("#note")).to_have_text(note)
    assert ready.locator("section.same").is_visible() == bool(text.strip())


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("settings.json", f"settings.json could not be loaded; {WHOLE}"),
        ("model.onnx", f"model.onnx could not be loaded (the server answers 404); {WHOLE}"),
        ("wasm$", f"ort-wasm-simd-threaded.wasm could not be loaded (the server answers 404); {WHOLE}"),
        ("ort.wasm.min.js", f"ort.wasm.min.js could not be loaded; {WHOLE}"),
        (
            "model.js",
            "worker.js could not be started; the page's folder is not whole, or the browser is too old.",
        ),
        ("view.js", "This page did not start: it needs JavaScript, all files of"),
    ],
)
def test_missing_file(open_page, missing, sentence):
    from playwright.sync_api import expect

    page = open_page(missing=missing, expected_error="404")
    expect(page.locator("#status")).to_contain_text(sentence)
    expect(page.locator("#status")).to_be_visible()
    expect(page.locator("#progress")).to_be_hidden()


def test_browser_without_webassembly(open_page):
    from playwright.sync_api import expect

    page = open_page(script="delete globalThis.WebAssembly")
    expect(page.locator("#status")).to_have_text(
        "This browser has no WebAssembly, in which the model runs; use a current browser, or allow it."
    )


def test_damaged_model(open_page, page_folder):
    from playwright.sync_api import expect

    page = open_page(expected_error="onnxruntime")
    content = (page_folder / "model.onnx").read_bytes()
    page.route("**/model.onnx", lambda route: route.fulfill(body=content[:1000]))
    page.reload()
    expect(page.locator("#status")).to_have_text(
        f"model.onnx came with 1,000 bytes in place of {len(content):,}; load the page again."
    )
    page.unroute_all()
    page.route("**/model.onnx", lambda route: route.fulfill(body=b"\0" * len(content)))
    page.reload()
    expect(page.locator("#status")).to_contain_text("The model could not be started (")
