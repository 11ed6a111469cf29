"""The demo as a Space on the Hub: the same page as `elmo-hf demo`.

The Space's variables ELMO_MODEL and ELMO_TAGGER name folders in it or models on the Hub. The default is
elmo-tiny and no labels.
"""

import os

from elmo_hf import TINY
from elmo_hf.demo import load, serve

serve(load(os.environ.get("ELMO_MODEL", TINY), os.environ.get("ELMO_TAGGER")), host="0.0.0.0", port=7860)
