"""A small ELMo with random weights and a few sentences, for the tests of the kernels."""

import torch

from elmo_hf import ElmoConfig, ElmoModel, ElmoTokenizer

TEXTS = ["Ice cream is cold .", "No", "", "The bank of the river was covered with flowers in May ."]


def small_model(seed=0, **options):
    torch.manual_seed(seed)
    config = {"lstm_dim": 12, "projection_dim": 8, "char_embedding_dim": 4, "char_filters": [[1, 4], [5, 6]]}
    return ElmoModel(ElmoConfig(**(config | options))).eval()


def encoded_texts():
    return ElmoTokenizer()(TEXTS, padding=True, return_tensors="pt")


@torch.no_grad()
def read_texts(model, **options):
    return model(**encoded_texts(), output_hidden_states=True, **options)


def save_small_elmo(folder, model_class=ElmoModel, **options):
    """Save such a model with its tokenizer; return the folder."""
    torch.manual_seed(0)
    config = {"lstm_dim": 12, "projection_dim": 8, "char_filters": [[1, 4], [3, 6]], "vocab_size": 3}
    model_class(ElmoConfig(**(config | options))).save_pretrained(folder)
    ElmoTokenizer().save_pretrained(folder)
    return folder
