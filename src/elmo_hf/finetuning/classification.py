"""What the classifiers' recipes share: examples of one or two sentences, their batches, their accuracy."""

from collections.abc import Callable
from typing import Any

import evaluate
import torch
from torch import Tensor
from transformers import EvalPrediction

from elmo_hf import metrics
from elmo_hf.errors import ElmoError
from elmo_hf.finetuning.data import Example
from elmo_hf.model.tokenization_elmo import ElmoTokenizer
from elmo_hf.model.words_elmo import split_text


def example(label: str | None, labels: list[str], where: str, *sentences: list[str]) -> Example:
    """Return a checked example of one sentence, or of a pair; `tokens` are the words of all sentences."""
    if label not in labels:
        raise ElmoError(f"{where}: the label is {label!r}, and must be one of {', '.join(labels)}.")
    words = [word for sentence in sentences for word in sentence]
    return {"tokens": words, "sentences": sentences, "label": label}


def as_words(text: Any) -> list[str]:
    """Return the words of a dataset's text, which is raw or a list of words."""
    if not isinstance(text, str | list):
        raise ElmoError(f"a row of the dataset has {text!r:.60} in place of a text, or of a list of words.")
    return split_text(text, "penn").words if isinstance(text, str) else list(text)


def collate_texts(labels: list[str]) -> Callable[[ElmoTokenizer, list[Example]], dict[str, Tensor]]:
    """Return a collator of examples with `sentences` and `label`."""
    ids = {label: number for number, label in enumerate(labels)}

    def collate(tokenizer: ElmoTokenizer, examples: list[Example]) -> dict[str, Tensor]:
        sides: Any = zip(*(example["sentences"] for example in examples), strict=True)
        batch = tokenizer(*map(list, sides), is_split_into_words=True, padding=True, return_tensors="pt")
        return dict(batch) | {"labels": torch.tensor([ids[example["label"]] for example in examples])}

    return collate


def score(evaluation: EvalPrediction) -> dict[str, float]:
    """`compute_metrics` of a classifier that is evaluated on its decisions: label ids (examples,)."""
    accuracy = evaluate.load(metrics.path("accuracy"), keep_in_memory=True)
    scores: dict[str, float] = accuracy.compute(
        predictions=evaluation.predictions, references=evaluation.label_ids
    )
    return scores
