"""ELMo in a spaCy pipeline: `doc.tensor` has a row for each of spaCy's tokens.

python examples/spacy_component.py --model my-elmo --output my-pipeline
import spacy_component; spacy.load("my-pipeline")    # the import registers "elmo" with spaCy
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import spacy
import torch
from spacy.language import Language
from spacy.tokens import Doc

from elmo_hf import TINY, ElmoModel, ElmoTokenizer


@Language.factory("elmo", assigns=["doc.tensor"])
class ElmoTensor:
    """Each token's average of layers in its sentence, or in the whole text if spaCy marked no sentences."""

    def __init__(self, nlp: Language, name: str) -> None:
        self.name = name

    def __call__(self, doc: Doc) -> Doc:
        sentences = doc.sents if doc.has_annotation("SENT_START") else [doc]
        words = [[token for token in sentence if not token.is_space] for sentence in sentences]
        texts = [[token.text for token in sentence] for sentence in words]
        batch = self.tokenizer(texts, is_split_into_words=True, padding=True, return_tensors="pt")
        with torch.inference_mode():
            layers = self.model(**batch, output_hidden_states=True).hidden_states
        vectors = torch.stack(layers).mean(dim=0)[batch["attention_mask"].bool()]
        doc.tensor = np.zeros((len(doc), vectors.shape[-1]), dtype=np.float32)
        doc.tensor[[token.i for sentence in words for token in sentence]] = vectors.numpy()
        return doc

    def to_disk(self, path: str | Path, **kwargs: Any) -> None:
        self.model.save_pretrained(path)
        self.tokenizer.save_pretrained(path)

    def from_disk(self, path: str | Path, **kwargs: Any) -> "ElmoTensor":
        self.model = ElmoModel.from_pretrained(path).eval()
        self.tokenizer = ElmoTokenizer.from_pretrained(path)
        return self


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default=TINY, help="an ELMo's folder (elmo-tiny)")
    parser.add_argument("--output", required=True, help="the folder to write")
    options = parser.parse_args()
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    nlp.add_pipe("elmo").from_disk(options.model)  # `to_disk` writes such a folder, too
    nlp.to_disk(options.output)
    doc = nlp("He didn't sit on the bank. The bank lent him money.")
    for token, vector in zip(doc, doc.tensor, strict=True):
        print(f"{token.text:>8}", *(f"{number:+.3f}" for number in vector[:6]))


if __name__ == "__main__":
    main()
