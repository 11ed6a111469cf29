"""Run `training/pretrain.py`, which the wheel carries.

accelerate launch -m elmo_hf.pretraining --config run.yaml --output runs/news
"""

import sys

from elmo_hf.errors import one_sentence
from elmo_hf.scripts import load_script

SCRIPT = "pretrain.py"


def main() -> None:
    sys.argv[0] = SCRIPT  # the program's name in its help and messages
    with one_sentence(SCRIPT):
        load_script(SCRIPT).main()


if __name__ == "__main__":
    main()
