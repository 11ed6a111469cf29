"""ELMo in sentence-transformers: a sentence's vector is the mean of its words' vectors.

python examples/sentence_transformers_module.py --model my-elmo --output my-sentences
SentenceTransformer("my-sentences", trust_remote_code=True)    # the folder has a copy of this file
"""

import argparse
import importlib
import shutil
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import InputModule, Pooling

from elmo_hf import TINY, ElmoModel, ElmoTokenizer


class ElmoWords(InputModule):
    """A text's words, each as the average of its layers."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.elmo = ElmoModel.from_pretrained(folder)
        self.tokenizer = ElmoTokenizer.from_pretrained(folder)

    def preprocess(self, inputs: list[str], prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
        texts = [(prompt or "") + text for text in inputs]
        return dict(self.tokenizer(texts, padding=True, return_tensors="pt"))

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        inputs = {name: features[name] for name in self.tokenizer.model_input_names}
        layers = self.elmo(**inputs, output_hidden_states=True).hidden_states
        return {**features, "token_embeddings": torch.stack(layers).mean(dim=0)}

    def save(self, output_path: str, **kwargs: Any) -> None:
        self.elmo.save_pretrained(output_path)
        self.tokenizer.save_pretrained(output_path)
        shutil.copy(__file__, output_path)

    @classmethod
    def load(cls, model_name_or_path: str, **kwargs: Any) -> "ElmoWords":
        names = ("subfolder", "token", "cache_folder", "revision", "local_files_only")
        download = {name: kwargs[name] for name in names if name in kwargs}
        return cls(cls.load_dir_path(model_name_or_path, **download))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default=TINY, help="an ELMo's folder (elmo-tiny)")
    parser.add_argument("--output", required=True, help="the folder to write")
    options = parser.parse_args()
    words = ElmoWords(options.model)
    model = SentenceTransformer(modules=[words, Pooling(words.elmo.config.hidden_size)], device="cpu")
    model.save_pretrained(options.output)
    vectors = model.encode(["He sat on the bank.", "The bank lent him money.", "Why?"])
    print(model.similarity(vectors, vectors))


if (
    __name__ == "__main__"
):  # imported, since the folder stores the module's name, which must not be "__main__"
    importlib.import_module("sentence_transformers_module").main()
