"""Random weights of one size for everybody: as a Transformers folder, and as HDF5 and options.json.

python -m benchmarks.speed.weights small /tmp/weights
"""

import sys
from pathlib import Path

import torch

from benchmarks.speed.workloads import SIZES
from elmo_hf import ElmoConfig, ElmoModel
from elmo_hf.convert import convert_to_bilm


def write_weights(size: str, folder: Path) -> None:
    torch.manual_seed(0)
    # No dropout, as AllenNLP's has none: a training step then gives everybody the same loss.
    ElmoModel(ElmoConfig(**SIZES[size], dropout=0.0)).save_pretrained(folder / "transformers")
    convert_to_bilm(folder / "transformers", folder / "bilm")


if __name__ == "__main__":
    write_weights(sys.argv[1], Path(sys.argv[2]))
