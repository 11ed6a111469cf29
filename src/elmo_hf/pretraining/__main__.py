"""Run the pretraining recipe, `training/pretrain.py`, which the wheel installs as `elmo_hf.recipes.pretrain`.

accelerate launch -m elmo_hf.pretraining --config run.yaml --output runs/news
"""

import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

INSTALLED = "elmo_hf.recipes"
SOURCE = Path(__file__).resolve().parents[3] / "training" / "pretrain.py"


def main() -> None:
    if find_spec(INSTALLED):
        runpy.run_module(f"{INSTALLED}.pretrain", run_name="__main__", alter_sys=True)
    elif SOURCE.is_file():
        runpy.run_path(str(SOURCE), run_name="__main__")
    else:
        sys.exit("elmo_hf.pretraining: the recipe pretrain.py is not installed; install elmo-hf's wheel.")


if __name__ == "__main__":
    main()
