"""Paths of the repository, and of data that is not part of it."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
TRAINING = REPOSITORY / "training"
BENCHMARKS = REPOSITORY / "benchmarks"
EXAMPLES = REPOSITORY / "examples"
SHARED = Path(os.environ.get("ELMO_HF_SHARED", REPOSITORY.parent / "shared"))
