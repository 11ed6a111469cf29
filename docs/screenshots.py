"""Pictures of the demo's page and of the static page, to be looked at; one of them is the README's.

    python docs/screenshots.py pictures/                    # the demo: wide and narrow, light and dark, texts
    python docs/screenshots.py pictures/ --static my-page/  # the same of a folder that space_static.py wrote
    cp pictures/demo-wide-light.png docs/demo.png

The texts are Arabic, Chinese and long. It needs `pip install -e ".[dev]"`, a chromium and fonts for them.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from elmo_hf.demo import free_port

WIDTHS = {"wide": 1280, "narrow": 390}
TEXTS = {
    "arabic": "ذهب الرجل إلى البنك ليودع المال.\nجلسنا على ضفة النهر، قرب البنك.\n"
    "قال: هل البنك مفتوح؟ نعم، البنك مفتوح.\nHe said السلام عليكم and went home.",
    "chinese": "他 在 银行 工作 。\n我们 坐 在 河岸 上 ， 银行 在 对面 。\n"
    "她把钱存进了银行，然后沿着河岸慢慢地走回家，路上遇见了许多老朋友。\n银行 关门 了 。",
    "long": ("The bank lent him the money, and he sat on the bank of the river until it was dark. " * 30)
    + "x" * 120,
}
DEMO = [sys.executable, "-m", "elmo_hf.cli", "demo", "--no-browser", "--port"]
SERVER = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory"]


@contextmanager
def served(command: list[str]) -> Iterator[None]:
    """Run a server until the end; it is there when it has written a line."""
    with subprocess.Popen(
        [command[0], "-u", *command[1:]], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as server:
        assert server.stdout is not None
        server.stdout.readline()
        try:
            yield
        finally:
            server.terminate()


def visit(browser: Browser, address: str, width: int, scheme: str) -> Page:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(address)
    page.locator("#map circle").first.wait_for(timeout=120_000)
    page.wait_for_timeout(3000)  # what was drawn last settles
    return page


def take(page: Page, path: Path) -> None:
    """A picture of the whole page, with few colours: half as large, and looks the same."""
    page.screenshot(path=path, full_page=True)
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)
    print(f"Wrote {path}.")


def take_all(browser: Browser, address: str, textbox: str, prefix: Path) -> None:
    for name, width in WIDTHS.items():
        for scheme in ("light", "dark"):
            page = visit(browser, address, width, scheme)
            take(page, prefix.with_name(f"{prefix.name}-{name}-{scheme}.png"))
            for text, content in TEXTS.items() if scheme == "light" else []:
                page.locator(textbox).fill(content)
                page.locator("#read").click()
                page.wait_for_timeout(4000)
                take(page, prefix.with_name(f"{prefix.name}-{name}-{text}.png"))
            page.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path, help="the folder to write into")
    parser.add_argument("--static", type=Path, help="the static page's folder, in place of the demo")
    options = parser.parse_args()
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        sys.exit("screenshots.py: there is no chromium here; `apt-get install chromium` brings one.")
    options.output.mkdir(parents=True, exist_ok=True)
    port = str(free_port())
    is_static = options.static is not None
    command = [*SERVER, str(options.static), port] if is_static else [*DEMO, port]
    with served(command), sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        textbox, name = ("#text", "static") if is_static else ("#text textarea", "demo")
        take_all(browser, f"http://127.0.0.1:{port}/", textbox, options.output / name)
        browser.close()


if __name__ == "__main__":
    main()
