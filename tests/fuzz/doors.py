"""All doors by name."""

import torch
from transformers.utils import logging

from tests.fuzz import cards, conversions, jobs, models, runs, texts, uploads
from tests.fuzz.harness import Door

ALL = [
    *conversions.DOORS,
    *models.DOORS,
    *runs.DOORS,
    *jobs.DOORS,
    *cards.DOORS,
    *uploads.DOORS,
    *texts.DOORS,
]
DOORS: dict[str, Door] = {door.name: door for door in ALL}


def prepare_process() -> None:
    """Before the first fork."""
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
