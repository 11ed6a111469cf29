"""All doors by name."""

import torch
from transformers.utils import logging

from tests.fuzz import (
    allennlp_doors,
    cards,
    conversions,
    jobs,
    manylangs,
    models,
    recipes,
    runs,
    shards,
    tasks,
    texts,
    uploads,
)
from tests.fuzz.harness import Door

MODULES = (conversions, allennlp_doors, manylangs, models, shards, recipes, runs, jobs, cards, uploads)
MODULES += (texts, tasks)
DOORS: dict[str, Door] = {door.name: door for module in MODULES for door in module.DOORS}


def prepare_process() -> None:
    """Before the first fork."""
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
