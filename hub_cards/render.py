"""Write the model cards of all checkpoints in this folder, from their facts and results.

    python hub_cards/render.py            # writes each README.md
    python hub_cards/render.py --check    # says which is out of date, and fails

A checkpoint without results is not trained yet, and has no card.
"""

import argparse
import sys
from pathlib import Path

from elmo_hf.errors import one_sentence
from elmo_hf.hub.card import render_card, write_card

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a card is out of date")
    options = parser.parse_args()
    stale = []
    for folder in sorted(path.parent for path in HERE.glob("*/facts.yaml")):
        if not list((folder / "results").glob("*.json")):
            print(f"{folder.name}: no results yet, so it has no card.")
            continue
        card = folder / "README.md"
        if not card.exists() or card.read_text(encoding="utf-8") != render_card(folder):
            stale.append(folder.name)
            if not options.check:
                write_card(folder)
    print(f"{'Out of date' if options.check else 'Written'}: {', '.join(stale) or 'nothing'}")
    sys.exit(1 if options.check and stale else 0)


if __name__ == "__main__":
    with one_sentence("render.py"):
        main()
