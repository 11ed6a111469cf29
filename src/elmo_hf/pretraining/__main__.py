"""Run the pretraining recipe, `training/pretrain.py`, as the package carries it.

accelerate launch -m elmo_hf.pretraining --config run.yaml --output runs/news
"""

import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

IN_WHEEL = "elmo_hf.recipes"
IN_SOURCES = Path(__file__).resolve().parents[3] / "training" / "pretrain.py"


def main() -> None:
    if find_spec(IN_WHEEL):
        runpy.run_module(f"{IN_WHEEL}.pretrain", run_name="__main__")
    elif IN_SOURCES.is_file():
        runpy.run_path(str(IN_SOURCES), run_name="__main__")
    else:
        sys.exit("elmo_hf.pretraining: this installation has no recipes; install elmo-hf from its wheel.")


if __name__ == "__main__":
    main()
