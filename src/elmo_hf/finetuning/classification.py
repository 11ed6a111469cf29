"""What the recipes of classifiers share: examples of one or two sentences, their batches, their accuracy."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import EvalPrediction

from elmo_hf.finetuning.run import Example
from elmo_hf.metrics.tags import accuracy
from elmo_hf.model.tokenization_elmo import ElmoTokenizer
from elmo_hf.model.words_elmo import split_text


def example(label: str | None, labels: list[str], where: str, *sentences: list[str]) -> Example:
    """`tokens` are the words of all sentences; `sentences` are one, or two for a pair."""
    if label not in labels:
        raise ValueError(f"{where}: the label is {label!r}, and must be one of {', '.join(labels)}.")
    words = [word for sentence in sentences for word in sentence]
    return {"tokens": words, "sentences": sentences, "label": label}


def as_words(text: Any) -> list[str]:
    """Of a dataset's row, where a text is raw or a list of words."""
    if not isinstance(text, str | list):
        raise ValueError(f"a row of the dataset has {text!r:.60} in place of a text, or of a list of words.")
    return split_text(text, "penn").words if isinstance(text, str) else list(text)


def collate_texts(labels: list[str]) -> Callable[[ElmoTokenizer, list[Example]], dict[str, Tensor]]:
    numbers = {label: number for number, label in enumerate(labels)}

    def collate(tokenizer: ElmoTokenizer, examples: list[Example]) -> dict[str, Tensor]:
        sides: Any = zip(*(one["sentences"] for one in examples), strict=True)
        batch = tokenizer(*map(list, sides), is_split_into_words=True, padding=True, return_tensors="pt")
        return dict(batch) | {"labels": torch.tensor([numbers[one["label"]] for one in examples])}

    return collate


def score(evaluation: EvalPrediction) -> dict[str, float]:
    found: Any = evaluation.predictions
    gold: Any = evaluation.label_ids
    return {"accuracy": accuracy([found.tolist()], [gold.tolist()])}
