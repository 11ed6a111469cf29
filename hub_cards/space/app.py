"""The demo as a Space: the same page as `elmo-hf demo`, for everyone.

ELMO_MODEL and ELMO_TAGGER, variables of the Space, name folders in it or models on the Hub. Without the first
it is elmo-tiny, without the second there are no labels.
"""

import os

from elmo_hf import TINY
from elmo_hf.demo import load, serve

serve(load(os.environ.get("ELMO_MODEL", TINY), os.environ.get("ELMO_TAGGER")), host="0.0.0.0", port=7860)
