"""Small classifiers and input rows for their tests."""

import torch

from elmo_hf import ElmoConfig, ElmoForSequenceClassification, ElmoTokenizer

FIRST = [
    ["Ada", "Lovelace", "lived", "in", "London", "."],
    ["He", "sat"],
    ["Why", "not", "?"],
]
SECOND = [["She", "lived"], ["The", "bank", "gave", "way", "."], ["Why"]]
LABELS = torch.tensor([2, 0, 1])
CLASSIFIERS = ["bcn", "esim"]
SMALL = {
    "lstm_dim": 12,
    "projection_dim": 8,
    "char_filters": [[1, 4], [2, 6]],
    "vocab_size": 3,
    "num_labels": 4,
    "task_hidden_size": 5,
}


def make(classifier, **options):
    torch.manual_seed(0)
    return ElmoForSequenceClassification(ElmoConfig(**SMALL | {"classifier": classifier} | options))


def make_with_large_weights(classifier, **options):
    """In float64, with weights so large that every module of the classifier changes its logits."""
    model = make(classifier, **options).double().eval()
    for parameter in [*model.task_words.parameters(), *model.classifier.parameters()]:
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def make_trainable(classifier, **options):
    """Without dropout, and with a random biLM whose vectors are about as long as a trained one's."""
    model = make(classifier, task_dropout=0.0, elmo_dropout=0.0, **options)
    with torch.no_grad():
        model.input_mix.gamma.fill_(20.0)
    return model


def encode(classifier, rows=(0, 1, 2), tokenizer=None, **options):
    first = [FIRST[row] for row in rows]
    second = [SECOND[row] for row in rows] if classifier == "esim" else None
    tokenizer = tokenizer or ElmoTokenizer()
    options = {"is_split_into_words": True, "padding": True, "return_tensors": "pt"} | options
    return tokenizer(first, second, **options)
