"""Whether one sentence follows from another: ESIM on SNLI, MultiNLI and their like.

    FILES="--train nli/train.tsv --dev nli/dev.tsv --test nli/test.tsv"
    python training/finetune_nli.py --elmo my-elmo $FILES --output runs/nli --vectors glove.840B.300d.txt
    python training/finetune_nli.py --elmo my-elmo --data my-pairs --output runs/nli
    python training/finetune_nli.py --smoke $FILES --output runs/smoke

A file's first line names its columns, separated by tabs; those read are `sentence1`, `sentence2` (words
separated by spaces, or raw texts, with `--raw`), and `label` or `gold_label`. A dataset has them, or
`premise`, `hypothesis` and `label`. Pairs on whose label the annotators did not agree (`-`) are left out.
Every word of a sentence is compared with every word of the other, and some copies of MultiNLI have a
"sentence" of thirty thousand words, because of a stray quotation mark. So pairs of more than `--max-words`
words are left out of training, and longer dev and test sentences are cut.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import SchedulerType, TrainingArguments

from elmo_hf import ElmoForSequenceClassification
from elmo_hf.errors import ElmoError
from elmo_hf.finetuning.classification import as_words, collate_texts, example, score
from elmo_hf.finetuning.data import Example, first_column, read_splits, read_text
from elmo_hf.finetuning.flags import at_least, make_parser
from elmo_hf.finetuning.run import DecodingTrainer, Task, finetune, run

LABELS = ["entailment", "neutral", "contradiction"]
# Peters et al. (2018), A.3, with `--l2 0` for a baseline without ELMo, as there. AllenNLP's published
# configuration (pair_classification/esim_elmo.jsonnet) has neither word vectors nor layer normalisation nor
# the penalty, ELMo at the input alone, and clips the gradient's norm at 10.
CONFIG = {
    "classifier": "esim",
    "task_word_dim": 300,
    "task_hidden_size": 300,
    "task_num_layers": 1,
    "task_dropout": 0.5,
    "elmo_at_input": True,
    "elmo_at_output": True,
    "elmo_dropout": 0.0,  # task_dropout is on the same input
    "mix_layer_norm": True,
    "mix_l2": 0.001,
}


class HalvingTrainer(DecodingTrainer):
    """Halves the learning rate after each epoch without a better dev accuracy; adds `l2` times the sum of the
    squares of the classifier's weight matrices to the loss."""

    def __init__(self, model: nn.Module, args: TrainingArguments, l2: float, **others: Any) -> None:
        args.lr_scheduler_type = SchedulerType.REDUCE_ON_PLATEAU
        args.lr_scheduler_kwargs = {"mode": "max", "factor": 0.5, "patience": 0}
        self.l2 = l2
        super().__init__(model, args, **others)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        result: Any = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        classifier: Any = self.accelerator.unwrap_model(model).classifier
        penalty = self.l2 * squares(classifier)
        return (result[0] + penalty, result[1]) if return_outputs else result + penalty


def squares(network: nn.Module) -> Tensor:
    """Return the sum of the squares of all weight matrices, without biases."""
    matrices = [weight.square().sum() for weight in network.parameters() if weight.dim() > 1]
    return torch.stack(matrices).sum()


def main() -> None:
    parser = make_parser(__doc__, batch_size=32, learning_rate=4e-4, epochs=75, patience=5, clip=5.0)
    help = "the weight of the sum of the squared weight matrices in the loss (0.0001)"
    parser.add_argument("--l2", type=at_least(0.0), default=1e-4, help=help)
    help = "words of a train pair, or of another sentence (400)"
    parser.add_argument("--max-words", type=at_least(1), default=400, help=help)
    help = "sentences of files are raw texts, as in SNLI's and MultiNLI's own"
    parser.add_argument("--raw", action="store_true", help=help)
    flags = parser.parse_args()
    data = read_splits(flags, partial(read, split=as_words if flags.raw else str.split), from_row)
    train = [example for example in data["train"] if len(example["tokens"]) <= flags.max_words]
    if not train:
        raise ElmoError(f"no train pair has {flags.max_words} words or fewer; set --max-words higher.")
    left_out = len(data["train"]) - len(train)
    evaluated = {split: [cut(pair, flags.max_words) for pair in data[split]] for split in ("dev", "test")}
    task = Task("nli", ElmoForSequenceClassification, CONFIG, collate_texts(LABELS), score, best="accuracy")
    task.trainer = partial(HalvingTrainer, l2=flags.l2)
    task.length = lambda example: len(example["sentences"][0])  # the hypothesis's may depend on the label
    task.details = lambda config: {"left_out_of_training": left_out}
    freeze = flags.vectors is not None
    data = {"train": train, **evaluated}
    finetune(task, flags, data, id2label=dict(enumerate(LABELS)), freeze_task_words=freeze)


def cut(pair: Example, words: int) -> Example:
    return example(pair["label"], LABELS, "", *(sentence[:words] for sentence in pair["sentences"]))


def read(path: Path, split: Callable[[str], list[str]] = str.split) -> list[Example]:
    header, *lines = (line.rstrip("\r").split("\t") for line in read_text(path).split("\n"))
    columns = {*header, "label"} if "gold_label" in header else {*header}
    missing = [name for name in ("sentence1", "sentence2", "label") if name not in columns]
    if missing:
        raise ElmoError(f"{path}: the first line names no column {missing[0]}, but {', '.join(header)}.")
    examples = []
    for number, fields in enumerate(lines, start=2):
        if fields == [""]:
            continue
        if len(fields) != len(header):
            raise ElmoError(f"{path}, line {number}: {len(fields)} columns in place of {len(header)}.")
        examples += from_columns(dict(zip(header, fields, strict=True)), split, f"{path}, line {number}")
    return examples


def from_columns(row: Example, split: Callable[[Any], list[str]], where: str) -> list[Example]:
    """Return the example of a row, or none if it has no label."""
    label = first_column(row, ("label", "gold_label"))
    if label in ("-", -1, None):
        return []
    first = split(first_column(row, ("sentence1", "premise")))
    return [example(label, LABELS, where, first, split(first_column(row, ("sentence2", "hypothesis"))))]


def from_row(row: Example) -> list[Example]:
    return from_columns(row, as_words, "a row of the dataset")


if __name__ == "__main__":
    run(main)
