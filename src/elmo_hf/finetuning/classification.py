"""What the classifiers' recipes share: examples of one or two sentences, their batches, their scores."""

from collections.abc import Callable
from typing import Any

import evaluate
import numpy as np
import torch
from torch import Tensor
from transformers import EvalPrediction

from elmo_hf import metrics
from elmo_hf.errors import ElmoError
from elmo_hf.finetuning.data import Example, labels_of_model
from elmo_hf.finetuning.evaluation import check_class
from elmo_hf.loading import load_config
from elmo_hf.model.modeling_elmo_classification import ElmoForSequenceClassification
from elmo_hf.model.tokenization_elmo import ElmoTokenizer
from elmo_hf.model.words_elmo import split_text

SPLITTER = "penn"  # of raw texts


def example(label: str | None, labels: list[str], where: str, *sentences: list[str]) -> Example:
    """Return a checked example of one sentence, or of a pair; `tokens` are the words of all sentences.

    A label may be in capital or small letters, whatever the names in `labels` are.
    """
    if label not in labels and isinstance(label, str):
        label = {name.casefold(): name for name in labels}.get(label.strip().casefold(), label)
    if label not in labels:
        raise ElmoError(f"{where}: the label is {label!r}, and must be one of {', '.join(labels)}.")
    words = [word for sentence in sentences for word in sentence]
    return {"tokens": words, "sentences": sentences, "label": label}


def labels_of_classifier(name: str, classifier: str) -> list[str]:
    """Return the classes of a saved classifier; a model of another task is refused, and one that reads pairs
    where texts are read, or the reverse."""
    check_class(name, ElmoForSequenceClassification.__name__)
    config = load_config(name)
    if config.problem_type not in (None, "single_label_classification"):
        raise ElmoError(
            f"{name} is a model of {config.problem_type}, and this recipe judges one class for each example."
        )
    if config.classifier != classifier:
        raise ElmoError(
            f"{name} has the classifier {config.classifier!r}, and this recipe judges {classifier!r}; use "
            "the recipe that trained it."
        )
    return labels_of_model(name)


def as_words(text: Any, where: str) -> list[str]:
    """Return the words of a text, which is raw or a list of words."""
    is_list = isinstance(text, list) and all(isinstance(word, str) for word in text)
    if not is_list and not isinstance(text, str):
        raise ElmoError(f"{where} has {text!r:.60} in place of a text, or of a list of words.")
    return split_text(text, SPLITTER).words if isinstance(text, str) else list(text)


def collate_texts(labels: list[str]) -> Callable[[ElmoTokenizer, list[Example]], dict[str, Tensor]]:
    """Return a collator of examples with `sentences` and `label`."""
    ids = {label: number for number, label in enumerate(labels)}

    def collate(tokenizer: ElmoTokenizer, examples: list[Example]) -> dict[str, Tensor]:
        sides: Any = map(list, zip(*(example["sentences"] for example in examples), strict=True))
        options: Any = {"is_split_into_words": True, "padding": True, "return_tensors": "pt"}
        are_pairs = len(examples[0]["sentences"]) == 2  # whose words may be `</S>` and `<S>`
        batch = tokenizer(*sides, return_token_type_ids=are_pairs, **options)
        return dict(batch) | {"labels": torch.tensor([ids[example["label"]] for example in examples])}

    return collate


def score(evaluation: EvalPrediction) -> dict[str, float]:
    """`compute_metrics` of a classifier that is evaluated on its decisions: label ids (examples,)."""
    accuracy = evaluate.load(metrics.path("accuracy"), keep_in_memory=True)
    scores: dict[str, float] = accuracy.compute(
        predictions=evaluation.predictions, references=evaluation.label_ids
    )
    return scores


def score_classes(evaluation: EvalPrediction) -> dict[str, float]:
    """Accuracy, and the mean F1 of the classes that occur, each with the same weight."""
    predicted, gold = np.asarray(evaluation.predictions), np.asarray(evaluation.label_ids)
    values = []
    for label in np.union1d(predicted, gold):
        right = np.sum((predicted == label) & (gold == label))
        values.append(2 * right / (np.sum(predicted == label) + np.sum(gold == label)))
    return score(evaluation) | {"macro_f1": float(np.mean(values))}


def predicted_labels(labels: list[str]) -> Callable[[EvalPrediction, list[Example]], list[dict[str, Any]]]:
    """Return what `--predictions` writes: each example's sentences and label, and the predicted label."""

    def rows(evaluation: EvalPrediction, examples: list[Example]) -> list[dict[str, Any]]:
        predicted: Any = evaluation.predictions
        return [
            {
                "sentences": list(example["sentences"]),
                "label": example["label"],
                "predicted": labels[number],
            }
            for example, number in zip(examples, predicted.tolist(), strict=True)
        ]

    return rows
