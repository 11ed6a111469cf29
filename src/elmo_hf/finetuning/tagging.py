"""What the recipes of taggers share: batches of labelled words, and names of what the model decided."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import EvalPrediction

from elmo_hf.finetuning.run import Example
from elmo_hf.metrics.tags import spans
from elmo_hf.model.tokenization_elmo import ElmoTokenizer

# Of a name's single word and of its last one, as BIOES and BILOU have them.
PREFIXES = {"S-": "B-", "U-": "B-", "E-": "I-", "L-": "I-"}


def collate_words(
    labels: list[str],
) -> Callable[[ElmoTokenizer, list[Example]], dict[str, Tensor]]:
    """Batches of `tokens` and `labels`, and of `predicate_mask` where there is one."""
    numbers = {label: number for number, label in enumerate(labels)}

    def collate(tokenizer: ElmoTokenizer, examples: list[Example]) -> dict[str, Tensor]:
        sentences = [one["tokens"] for one in examples]
        batch = dict(tokenizer(sentences, is_split_into_words=True, padding=True, return_tensors="pt"))
        shape = batch["input_ids"].shape
        batch["labels"] = rows([[numbers[label] for label in one["labels"]] for one in examples], shape, -100)
        if "predicate_mask" in examples[0]:
            batch["predicate_mask"] = rows([one["predicate_mask"] for one in examples], shape, 0)
        return batch

    return collate


def rows(values: list[list[int]], shape: Any, padding: int) -> Tensor:
    table = torch.full(shape, padding)
    for row, one in zip(table, values, strict=True):
        row[: len(one)] = torch.tensor(one, dtype=torch.long)
    return table


def decided(evaluation: EvalPrediction, labels: list[str]) -> tuple[list[list[str]], list[list[str]]]:
    """Labels by name, (predicted, gold), without padding."""
    found: Any = evaluation.predictions
    gold: Any = evaluation.label_ids
    return (
        [[labels[one] for one in row[known]] for row, known in zip(found, gold != -100, strict=True)],
        [[labels[one] for one in row[row != -100]] for row in gold],
    )


def example(words: Any, labels: Any, where: str, bio: bool = False, **more: Any) -> Example:
    """With `bio`, labels of any scheme become BIO."""
    for name, values in {"words": words, "labels": labels, **more}.items():
        if not isinstance(values, Sequence) or isinstance(values, str):
            raise ValueError(f"{where}: {name} must be a list, but is {values!r:.60}.")
        if len(values) != len(words):
            raise ValueError(f"{where}: there are {len(values)} {name} for {len(words)} words.")
    for label in labels:
        if not isinstance(label, str):
            raise ValueError(
                f"{where}: a label is {label!r}, and must be a name; those of a dataset's numbers are in its "
                "ClassLabel."
            )
    try:
        return {"tokens": list(words), "labels": as_bio(labels) if bio else list(labels)} | more
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def as_bio(labels: Sequence[str]) -> list[str]:
    """The same spans, each begun by B-, whether they were written in IOB, BIO, BIOES or BILOU."""
    found = ["O"] * len(labels)
    for kind, start, end in spans([PREFIXES.get(label[:2], label[:2]) + label[2:] for label in labels]):
        found[start:end] = [f"B-{kind}"] + [f"I-{kind}"] * (end - start - 1)
    return found
