"""Made-up text, a small model and its expected vectors, for the tests of `embed`."""

import random

import numpy as np
import torch

from elmo_hf import ElmoConfig, ElmoModel, ElmoTokenizer

FORMATS = ("safetensors", "hdf5", "parquet", "npy")
# Options for a quick run with several shards and batches.
SMALL = {"progress": False, "device": "cpu", "shard_words": 40, "batch_words": 24}


def sentences(number, seed=0):
    """Lines of made-up text, some empty, some long, with letters of several bytes."""
    draw = random.Random(seed)
    vocabulary = ["Bank", "the", "sat", "he", "didn't", "naïve", "1,000.50", "文字", "x" * 70, "U.S.", ","]
    vocabulary += ["".join(draw.choices("abcdefgh", k=draw.randint(1, 9))) for _ in range(60)]
    return [" ".join(draw.choices(vocabulary, k=draw.choice([0, 1, 3, 6, 6, 9, 17]))) for _ in range(number)]


def contents(path):
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def layers_of(model, words):
    """All layers (layers, words, dim) of one sentence, from one call of the model."""
    if not words:
        return np.zeros((3, 0, model.config.hidden_size), dtype=np.float32)
    encoding = ElmoTokenizer()([words], is_split_into_words=True, return_tensors="pt")
    with torch.no_grad():
        return torch.stack(model(**encoding, output_hidden_states=True).hidden_states)[:, 0].numpy()


def expected(states, layers, pool):
    """What `embed` must write for a sentence; states: (layers, words, dim)."""
    choices = {"top": states[-1], "average": states.mean(0), "all": states}
    choices |= {"1": states[1], "2,0": states[[2, 0]]}
    vectors = choices[layers]
    if pool is None:
        return vectors
    if not vectors.shape[-2]:
        return np.zeros_like(vectors, shape=(*vectors.shape[:-2], vectors.shape[-1]))
    return vectors.mean(axis=-2) if pool == "mean" else vectors.max(axis=-2)


def write_corpus(path):
    """60 lines."""
    path.write_text("\n".join(sentences(60)) + "\n", encoding="utf-8")
    return path


def small_model():
    torch.manual_seed(0)
    config = ElmoConfig(lstm_dim=16, projection_dim=8, char_filters=[[1, 4], [3, 8]], num_highway_layers=1)
    return ElmoModel(config).eval()


def save_model(model, folder):
    model.save_pretrained(folder)
    ElmoTokenizer().save_pretrained(folder)
    return folder
