"""Texts in classes of your own, such as topics or intents, with the biattentive classification network.

    FILES="--train train.csv --dev dev.csv --test test.csv"
    python training/finetune_text.py --elmo my-elmo $FILES --output runs/text --vectors glove.6B.50d.txt
    python training/finetune_text.py --elmo my-elmo --data ag_news --output runs/text
    python training/finetune_text.py --evaluate runs/text/seed-0 --test b.jsonl --predictions --output judged
    python training/finetune_text.py --smoke $FILES --output runs/smoke

Files are CSV (`.csv`), JSON lines (`.jsonl`), or columns separated by tabs, where quotation marks are part of
the text. They have the columns `text` (or `sentence`) and `label`, or those that `--columns` names. A text is
raw, or in JSON a list of words; a label is any name or number. The classes are the labels of the train file.
A dataset has the same columns.

The scores are accuracy and `macro_f1`, the mean F1 of the classes that occur. The best epoch on dev is that
with the best accuracy, or by `--best macro_f1` that with the best mean F1.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from elmo_hf import ElmoForSequenceClassification
from elmo_hf.errors import ElmoError
from elmo_hf.finetuning.classification import (
    SPLITTER,
    as_words,
    collate_texts,
    example,
    labels_of_classifier,
    predicted_labels,
    score_classes,
)
from elmo_hf.finetuning.data import Example, first_column, read_rows, read_splits
from elmo_hf.finetuning.flags import make_parser
from elmo_hf.finetuning.run import Task, finetune, run

TEXTS, LABELS = ("text", "sentence", "tokens"), ("label", "labels", "class")
# The network of finetune_sst.py, smaller, as most sets of one's own are small.
CONFIG: dict[str, Any] = {
    "classifier": "bcn",
    "maxout_pieces": 0,
    "task_word_dim": 100,
    "task_char_filters": [[3, 50]],
    "task_hidden_size": 100,
    "task_num_layers": 1,
    "task_dropout": 0.3,
    "elmo_at_input": True,
    "elmo_at_output": True,
    "elmo_dropout": 0.0,  # task_dropout is on the same input
    "mix_l2": 0.001,
}
MOST_CLASSES = 2**14


def main() -> None:
    parser = make_parser(__doc__, batch_size=32, learning_rate=1e-3, epochs=40, patience=5, clip=5.0)
    help = "the columns of the texts and of the labels (text and label)"
    parser.add_argument("--columns", nargs=2, metavar=("TEXT", "LABEL"), help=help)
    help = "the score that decides which epoch is the best (accuracy)"
    parser.add_argument("--best", choices=["accuracy", "macro_f1"], default="accuracy", help=help)
    flags = parser.parse_args()
    read_row = partial(from_row, columns=flags.columns)
    data = read_splits(flags, partial(read, columns=flags.columns), read_row)
    names = (
        labels_of_classifier(flags.evaluate, CONFIG["classifier"])
        if flags.evaluate is not None
        else class_names(data["train"])
    )
    data = {split: [in_classes(row, names) for row in rows] for split, rows in data.items()}
    task = Task(
        "text", ElmoForSequenceClassification, CONFIG, collate_texts(names), score_classes, best=flags.best
    )
    task.length, task.predicted = None, predicted_labels(names)
    task.splitter = SPLITTER  # `model.predict` splits texts as here, whatever the biLM's own rule is
    freeze = flags.vectors is not None
    finetune(task, flags, data, id2label=dict(enumerate(names)), freeze_task_words=freeze)


def read(path: Path, columns: Sequence[str] | None = None) -> list[Example]:
    """Return a row `{"words", "label", "where"}` for each text of a file."""
    rows = read_rows(path)
    _, header = next(rows)
    for names in wanted(columns):
        if not {*names} & {*header}:
            raise ElmoError(
                f"{path}: there is no column {' or '.join(names)}, but {', '.join(header)}; name yours by "
                "--columns."
            )
    return [example for where, row in rows for example in from_row(row, where, columns)]


def wanted(columns: Sequence[str] | None) -> tuple[Sequence[str], Sequence[str]]:
    return (TEXTS, LABELS) if columns is None else ((columns[0],), (columns[1],))


def from_row(row: Example, where: str, columns: Sequence[str] | None = None) -> list[Example]:
    texts, labels = wanted(columns)
    label = first_column(row, labels, where)
    if not isinstance(label, (str, int)) or not str(label).strip():
        raise ElmoError(f"{where}: the label is {label!r:.60}, and must be a name or a whole number.")
    words = as_words(first_column(row, texts, where), where)
    return [{"words": words, "label": str(label).strip(), "where": where}]


def class_names(rows: list[Example]) -> list[str]:
    """Return the labels of the train texts, numbers in the order of their size; names that differ only in
    capitals are one class."""
    names: dict[str, str] = {}
    for row in rows:
        names.setdefault(row["label"].casefold(), row["label"])
    if not 2 <= len(names) <= MOST_CLASSES:
        found = (
            f"{len(names):,} different labels"
            if len(names) > 1
            else f"only the label {rows[0]['label']!r:.60}"
        )
        raise ElmoError(
            f"the train texts have {found}, and a classifier takes 2 to {MOST_CLASSES:,}; is it the right "
            "column?"
        )
    return sorted(names.values(), key=lambda name: (len(name) if name.isdecimal() else 0, name))


def in_classes(row: Example, names: list[str]) -> Example:
    return example(row["label"], names, row["where"], row["words"])


if __name__ == "__main__":
    run(main)
