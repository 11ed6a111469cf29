"""A small coreference model and documents for its tests."""

import torch
from torch.nn.utils.rnn import pad_sequence

from elmo_hf import ElmoConfig, ElmoForCoreferenceResolution, ElmoTokenizer

SENTENCES = [
    ["Ada", "met", "the", "old", "man", "'s", "brother", "in", "London", "."],
    ["He", "gave", "her", "his", "book", "and", "left", "."],
    ["She", "read", "it", "."],
]
GOLD = [[(0, 0, 0), (1, 2, 2), (2, 0, 0)], [(0, 2, 6), (1, 0, 0), (1, 3, 3)], [(1, 3, 4), (2, 2, 2)]]
SHORT = [["Why", "?"], [], ["He", "asked", "why", "he", "asked", "."]]
SHORT_GOLD = [[(2, 0, 0), (2, 3, 3)], [(2, 2, 2)]]
SMALL = {
    "lstm_dim": 12,
    "projection_dim": 8,
    "char_filters": [[1, 4], [2, 6]],
    "vocab_size": 3,
    "task_hidden_size": 6,
    "task_num_layers": 1,
    "span_hidden_size": 7,
    "span_feature_dim": 3,
}
NONE = torch.finfo(torch.float32).min  # where there is no antecedent
AT = {
    "input": {},
    "output": {"elmo_at_input": False, "elmo_at_output": True, "task_char_filters": [[2, 5]]},
    "both": {"elmo_at_output": True},
    "none": {"elmo_at_input": False, "task_char_filters": [[2, 5]]},
}


def make(**options):
    torch.manual_seed(0)
    model = ElmoForCoreferenceResolution(ElmoConfig(**SMALL | options))
    for name, parameter in model.named_parameters():
        if name.endswith(".bias") and "scorer" in name:
            torch.nn.init.normal_(parameter)
    return model.eval()


def make_with_antecedents(**options):
    """A model for which about a fifth of the pairs score above zero."""
    model = make(mix_layer_norm=True, **options)
    with torch.no_grad():
        scores = model(**encode([SENTENCES], [GOLD])).logits[:, :, 1:]
        model.pair_scorer.network.last.bias -= scores[scores > NONE].quantile(0.8)
    return model


def label(clusters):
    """Clusters of (sentence, first, last) -> (mentions, 4)"""
    mentions = [(*mention, number) for number, cluster in enumerate(clusters) for mention in cluster]
    return torch.tensor(sorted(mentions), dtype=torch.long).view(-1, 4)


def encode(documents, golds, **options):
    """Documents of sentences as one batch."""
    sentences = [sentence for document in documents for sentence in document]
    batch = ElmoTokenizer()(sentences, is_split_into_words=True, padding=True, return_tensors="pt", **options)
    numbers = [number for number, document in enumerate(documents) for _ in document]
    labels = pad_sequence([label(gold) for gold in golds], batch_first=True, padding_value=-100)
    return {**batch, "document_ids": torch.tensor(numbers), "labels": labels}


def without_labels(batch):
    return {name: value for name, value in batch.items() if name != "labels"}
