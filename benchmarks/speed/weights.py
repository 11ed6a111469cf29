"""Random weights of one size for all contestants: a Transformers folder, and HDF5 with options.json."""

from pathlib import Path

import torch

from benchmarks.speed.workloads import SIZES
from elmo_hf import ElmoConfig, ElmoModel
from elmo_hf.convert import convert_to_bilm


def write_weights(size: str, folder: Path) -> None:
    torch.manual_seed(0)
    # Without dropout, as in AllenNLP, a training step gives all contestants the same loss.
    ElmoModel(ElmoConfig(**SIZES[size], dropout=0.0)).save_pretrained(folder / "transformers")
    convert_to_bilm(folder / "transformers", folder / "bilm")
