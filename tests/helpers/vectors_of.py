"""The layers of a sentence's words, read alone by the model in torch."""

import torch


def vectors_of(model, tokenizer, words):
    """By word and layer, a list of numbers."""
    encoding = tokenizer([words], is_split_into_words=True, return_tensors="pt")
    with torch.no_grad():
        hidden_states = model(**encoding, output_hidden_states=True).hidden_states
    return torch.stack([layer[0] for layer in hidden_states], dim=1).tolist()
