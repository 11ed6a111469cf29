"""Whether one sentence follows from another: ESIM on SNLI, MultiNLI and their like.

    FILES="--train nli/train.tsv --dev nli/dev.tsv --test nli/test.tsv"
    python training/finetune_nli.py --elmo my-elmo $FILES --output runs/nli --vectors glove.840B.300d.txt
    python training/finetune_nli.py --elmo my-elmo --data my-pairs --output runs/nli
    python training/finetune_nli.py --smoke $FILES --output runs/smoke

A file's first line names its columns, with tabs between them; those read are `sentence1`, `sentence2` (words
with blanks between them) and `label`. A dataset has them, or `premise`, `hypothesis` and `label`. Pairs on
whose label the annotators did not agree (`-`) are left out.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from classification import as_words, collate_texts, example, score
from finetuning import Example, Task, finetune, first_column, make_parser, read_splits, read_text, run

from elmo_hf import ElmoForSequenceClassification

LABELS = ["entailment", "neutral", "contradiction"]
# Peters et al. (2018), A.3. Theirs has an L2 penalty on the weights besides, and halves the learning rate
# where the dev accuracy stops to rise.
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


def main() -> None:
    parser = make_parser(__doc__, batch_size=32, learning_rate=4e-4, epochs=75, patience=5, clip=5.0)
    flags = parser.parse_args()
    data = read_splits(flags, read, from_row)
    task = Task("nli", ElmoForSequenceClassification, CONFIG, collate_texts(LABELS), score, best="accuracy")
    names = dict(enumerate(LABELS))
    finetune(task, flags, data, id2label=names, freeze_task_words=flags.vectors is not None)


def read(path: Path) -> list[Example]:
    header, *lines = (line.rstrip("\r").split("\t") for line in read_text(path).split("\n"))
    missing = [name for name in ("sentence1", "sentence2", "label") if name not in header]
    if missing:
        raise ValueError(f"{path}: the first line names no column {missing[0]}, but {', '.join(header)}.")
    examples = []
    for number, fields in enumerate(lines, start=2):
        if fields == [""]:
            continue
        if len(fields) != len(header):
            raise ValueError(f"{path}, line {number}: {len(fields)} columns in place of {len(header)}.")
        examples += pair(dict(zip(header, fields, strict=True)), str.split, f"{path}, line {number}")
    return examples


def pair(row: Example, split: Callable[[Any], list[str]], where: str) -> list[Example]:
    """The row's example, or none where there is no label."""
    label = first_column(row, ("label", "gold_label"))
    if label in ("-", -1, None):
        return []
    first = split(first_column(row, ("sentence1", "premise")))
    return [example(label, LABELS, where, first, split(first_column(row, ("sentence2", "hypothesis"))))]


def from_row(row: Example) -> list[Example]:
    return pair(row, as_words, "a row of the dataset")


if __name__ == "__main__":
    run(main)
