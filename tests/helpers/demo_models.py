"""Small random models for the demo, and a cosine that shares no code with it."""

import math

import torch

from elmo_hf import ElmoConfig, ElmoForTokenClassification, ElmoModel, ElmoTokenizer

SHAPE = {"lstm_dim": 16, "projection_dim": 8, "char_filters": [[1, 8], [3, 16]], "num_highway_layers": 1}
LABELS = dict(enumerate(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]))
TEXT = "He sat on the bank . The bank lent him money .\nBank on it , said the man on the bank !"


def save_models(folder):
    """Save a model and a tagger of random weights as `folder/model` and `folder/tagger`."""
    torch.manual_seed(0)
    names = {"id2label": LABELS, "label2id": {name: number for number, name in LABELS.items()}}
    tagger = ElmoConfig(**SHAPE, **names, task_hidden_size=8, task_num_layers=1)
    ElmoModel(ElmoConfig(**SHAPE)).save_pretrained(folder / "model")
    ElmoForTokenClassification(tagger).save_pretrained(folder / "tagger")
    for name in ("model", "tagger"):
        ElmoTokenizer().save_pretrained(folder / name)
    return folder


def cosine(first, second):
    """By the definition, one number at a time."""
    dot = sum(a * b for a, b in zip(first.tolist(), second.tolist(), strict=True))
    return dot / math.sqrt(sum(a * a for a in first.tolist()) * sum(b * b for b in second.tolist()))
