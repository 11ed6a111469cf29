"""Random weights of a size: for all contestants a Transformers folder and HDF5, or a model to load."""

from pathlib import Path

import torch

from benchmarks.speed.workloads import SIZES
from elmo_hf import ElmoConfig, ElmoModel, ElmoTokenizer
from elmo_hf.convert import convert_to_bilm


def write_weights(size: str, folder: Path) -> None:
    torch.manual_seed(0)
    # Without dropout, as in AllenNLP, a training step gives all contestants the same loss.
    ElmoModel(ElmoConfig(**SIZES[size], dropout=0.0)).save_pretrained(folder / "transformers")
    convert_to_bilm(folder / "transformers", folder / "bilm")


def write_random_model(size: str, folder: Path) -> Path:
    """A model with its tokenizer and a small vocabulary; the folder."""
    torch.manual_seed(0)
    ElmoModel(ElmoConfig(**SIZES[size], vocab_size=3)).save_pretrained(folder)
    ElmoTokenizer().save_pretrained(folder)
    return folder
