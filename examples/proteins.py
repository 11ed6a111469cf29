"""Proteins as sentences: a vector for each residue, or for each protein, as SeqVec and catELMo make them.

python examples/proteins.py --model my-elmo --data proteins.fasta --output my-proteins.npz
numpy.load("my-proteins.npz")["P69905"]    # (residues, dim); with --per-protein (dim,)

The weights of SeqVec and catELMo (2, 4 or 8 layers) are HDF5 files with an options.json, of which `elmo-hf
convert` makes the folder for --model. Without it, elmo-tiny shows the way, but knows no proteins.
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from elmo_hf import TINY, ElmoModel, ElmoTokenizer


def read_fasta(path: str | Path) -> Iterator[tuple[str, str]]:
    """The name of each protein, and its residues as capital letters."""
    for record in re.split(r"^>", Path(path).read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        header, *lines = record.split("\n")
        yield header.split()[0], "".join("".join(lines).split()).upper()


@torch.inference_mode()
def residue_vectors(model: ElmoModel, tokenizer: ElmoTokenizer, protein: str) -> torch.Tensor:
    """(residues, dim): each residue is a word, and its vector the sum of all layers."""
    batch = tokenizer(list(protein), is_split_into_words=True, return_tensors="pt")
    layers = model(**batch.to(model.device), output_hidden_states=True).hidden_states
    return torch.stack(layers).sum(dim=0)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default=TINY, help="an ELMo's folder (elmo-tiny)")
    parser.add_argument("--data", required=True, help="proteins in FASTA format")
    parser.add_argument("--per-protein", action="store_true", help="the mean of the residues' vectors")
    parser.add_argument("--output", required=True, help="the .npz file to write")
    options = parser.parse_args()
    model = ElmoModel.from_pretrained(options.model).eval()
    tokenizer = ElmoTokenizer.from_pretrained(options.model)
    vectors = {}
    for name, protein in read_fasta(options.data):
        residues = residue_vectors(model, tokenizer, protein)
        vectors[name] = (residues.mean(dim=0) if options.per_protein else residues).numpy(force=True)
    np.savez(options.output, **vectors)


if __name__ == "__main__":
    main()
