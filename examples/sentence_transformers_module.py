"""ELMo in sentence-transformers: a sentence's vector is the mean of its words' averages of layers.

python examples/sentence_transformers_module.py --model my-elmo --output my-sentences
import elmo_hf; SentenceTransformer("my-sentences")

`SentenceTransformer("my-elmo")` needs no file like this one: it takes the mean of the top layer. The weights
of the layers, which are equal here, are learned if the model is trained.
"""

import argparse

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer, WeightedLayerPooling

from elmo_hf import TINY


def averaging(folder: str) -> SentenceTransformer:
    words = Transformer(folder, config_kwargs={"output_hidden_states": True})
    config = words.auto_model.config
    layers = WeightedLayerPooling(config.hidden_size, config.num_hidden_layers, layer_start=0)
    return SentenceTransformer(modules=[words, layers, Pooling(config.hidden_size)], device="cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default=str(TINY), help="an ELMo's folder (elmo-tiny)")
    parser.add_argument("--output", required=True, help="the folder to write")
    options = parser.parse_args()
    model = averaging(options.model)
    model.save_pretrained(options.output)
    vectors = model.encode(["He sat on the bank.", "The bank lent him money.", "Why?"])
    print(model.similarity(vectors, vectors))


if __name__ == "__main__":
    main()
