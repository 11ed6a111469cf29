"""Pictures of the demo's page, wide and narrow, light and dark, to be looked at; one of them is the README's.

    python docs/screenshots.py pictures/                # four pictures of the whole page
    cp pictures/demo-wide-light.png docs/demo.png

It needs `pip install -e ".[dev]"` and a chromium.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from elmo_hf.demo import free_port

WIDTHS = {"wide": 1280, "narrow": 390}
DEMO = [sys.executable, "-m", "elmo_hf.cli", "demo", "--no-browser", "--port"]


def take(browser: Browser, address: str, width: int, scheme: str, path: Path) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(address)
    page.locator("#map circle").first.wait_for()
    page.wait_for_timeout(1000)  # what was drawn last settles
    page.screenshot(path=path, full_page=True)
    page.close()
    Image.open(path).convert("RGB").quantize(128).save(
        path, optimize=True
    )  # half as large, and looks the same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path, help="the folder to write into")
    folder = parser.parse_args().output
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        sys.exit("screenshots.py: there is no chromium here; `apt-get install chromium` brings one.")
    folder.mkdir(parents=True, exist_ok=True)
    port = str(free_port())
    with (
        subprocess.Popen([*DEMO, port], stdout=subprocess.PIPE, text=True) as demo,
        sync_playwright() as play,
    ):
        assert demo.stdout is not None
        demo.stdout.readline()  # it is there
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, width in WIDTHS.items():
            for scheme in ("light", "dark"):
                path = folder / f"demo-{name}-{scheme}.png"
                take(browser, f"http://127.0.0.1:{port}/", width, scheme, path)
                print(f"Wrote {path}.")
        browser.close()
        demo.terminate()


if __name__ == "__main__":
    main()
