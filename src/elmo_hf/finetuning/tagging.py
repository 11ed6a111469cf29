"""What the taggers' recipes share: examples of labelled words, their batches, their scores."""

from collections.abc import Callable, Sequence
from typing import Any

import evaluate
import torch
from torch import Tensor
from transformers import EvalPrediction

from elmo_hf import metrics
from elmo_hf.errors import ElmoError
from elmo_hf.finetuning.data import Example
from elmo_hf.metrics.tags import spans
from elmo_hf.model.tokenization_elmo import ElmoTokenizer

LETTERS = [*"BIOESUL"]
# BIOES and BILOU mark a span of one word and the last word of a span.
PREFIXES = {"S": "B", "U": "B", "E": "I", "L": "I"}


def collate_words(labels: list[str]) -> Callable[[ElmoTokenizer, list[Example]], dict[str, Tensor]]:
    """Return a collator of examples with `tokens` and `labels`, and `predicate_mask` if they have one."""
    ids = {label: number for number, label in enumerate(labels)}

    def collate(tokenizer: ElmoTokenizer, examples: list[Example]) -> dict[str, Tensor]:
        sentences = [example["tokens"] for example in examples]
        batch = dict(tokenizer(sentences, is_split_into_words=True, padding=True, return_tensors="pt"))
        shape = batch["input_ids"].shape
        label_ids = [[ids[label] for label in example["labels"]] for example in examples]
        batch["labels"] = padded(label_ids, shape, -100)
        if "predicate_mask" in examples[0]:
            batch["predicate_mask"] = padded([example["predicate_mask"] for example in examples], shape, 0)
        return batch

    return collate


def padded(rows: list[list[int]], shape: Any, padding: int) -> Tensor:
    """Return the rows as a tensor (rows, longest row)."""
    table = torch.full(shape, padding)
    for target, row in zip(table, rows, strict=True):
        target[: len(row)] = torch.tensor(row, dtype=torch.long)
    return table


def scorer(
    metric: str, labels: list[str], names: Sequence[str]
) -> Callable[[EvalPrediction], dict[str, float]]:
    """Return `compute_metrics` of a tagger: these scores of a metric of `elmo_hf.metrics`.

    Args:
        metric: the metric's name; its predictions and references are names of labels.
        labels: the names of the label ids.
        names: the scores to report.
    """
    module = evaluate.load(metrics.path(metric), keep_in_memory=True)

    def score(evaluation: EvalPrediction) -> dict[str, float]:
        predicted, gold = metrics.label_names(evaluation.predictions, evaluation.label_ids, labels)
        if metric == "spans":  # a converted tagger may have another scheme
            predicted = [as_bio(row) for row in predicted]
        scores = module.compute(predictions=predicted, references=gold)
        return {name: scores[name] for name in names}

    return score


def predicted_words(labels: list[str]) -> Callable[[EvalPrediction, list[Example]], list[dict[str, Any]]]:
    """Return what `--predictions` writes: each example's words and labels, and the predicted labels."""

    def rows(evaluation: EvalPrediction, examples: list[Example]) -> list[dict[str, Any]]:
        predicted: Any = evaluation.predictions
        return [
            example | {"predicted": [labels[number] for number in row[row != -100][: len(example["tokens"])]]}
            for example, row in zip(examples, predicted, strict=True)
        ]

    return rows


def example(words: Any, labels: Any, where: str, bio: bool = False, **columns: Any) -> Example:
    """Return a checked example of labelled words.

    Args:
        words: a list of words.
        labels: a list with the label of each word.
        where: the place of the example, for error messages.
        bio: labels are spans in any scheme; they become BIO.
        columns: further lists with a value for each word.
    """
    for name, values in {"words": words, "labels": labels, **columns}.items():
        if not isinstance(values, Sequence) or isinstance(values, str):
            raise ElmoError(f"{where}: {name} must be a list, but is {values!r:.60}.")
        if len(values) != len(words):
            raise ElmoError(f"{where}: there are {len(values)} {name} for {len(words)} words.")
    for word in words:
        if not isinstance(word, str):
            raise ElmoError(f"{where}: a word is {word!r:.60}, and must be a text.")
    for label in labels:
        if not isinstance(label, str):
            raise ElmoError(
                f"{where}: a label is {label!r}, and must be a name; use a dataset whose label numbers have "
                "their names in a ClassLabel."
            )
    labels = [label.strip() for label in labels]
    try:
        return {"tokens": list(words), "labels": as_bio(labels) if bio else list(labels)} | columns
    except ElmoError as error:
        raise ElmoError(f"{where}: {error}") from None


def as_bio(labels: Sequence[str]) -> list[str]:
    """Return labels in IOB, BIO, BIOES or BILOU as BIO, where B- begins every span."""
    result = ["O"] * len(labels)
    for name, start, end in spans([begin_or_inside(label) for label in labels]):
        result[start:end] = [f"B-{name}"] + [f"I-{name}"] * (end - start - 1)
    return result


def begin_or_inside(label: str) -> str:
    """`S-PER` -> `B-PER`, `e-PER` -> `I-PER`, `o` -> `O`; the name of the type stays as it is."""
    prefix, dash, name = label.partition("-")
    capital = prefix.upper()
    return PREFIXES.get(capital, capital) + dash + name if capital in LETTERS else label
