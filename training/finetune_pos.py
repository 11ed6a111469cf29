"""Parts of speech with the tagger without a CRF: a word's label hardly depends on its neighbours' labels.

    FILES="--train ud/train.conllu.xz --dev ud/dev.conllu.xz --test ud/test.conllu.xz"
    python training/finetune_pos.py --elmo my-elmo $FILES --output runs/pos --seeds 0 1 2
    python training/finetune_pos.py --elmo my-elmo --data my-dataset --column xpos --output runs/pos
    python training/finetune_pos.py --smoke $FILES --output runs/smoke

Files are CoNLL-U. A dataset has the columns `tokens` and `upos` (or `xpos`, by `--column`), or `labels`.
"""

from functools import partial
from pathlib import Path
from typing import Any

from elmo_hf import ElmoForTokenClassification
from elmo_hf.errors import ElmoError
from elmo_hf.finetuning.data import (
    Example,
    first_column,
    labels_in,
    read_columns,
    read_splits,
    task_labels,
    without_ranges,
)
from elmo_hf.finetuning.flags import make_parser
from elmo_hf.finetuning.run import Task, finetune, run
from elmo_hf.finetuning.tagging import collate_words, example, predicted_words, scorer

CONFIG: dict[str, Any] = {
    "task_word_dim": 50,
    "task_char_filters": [[3, 128]],
    "task_hidden_size": 200,
    "task_num_layers": 1,
    "task_dropout": 0.5,
    "elmo_dropout": 0.0,  # task_dropout is on the same input
    "mix_l2": 0.001,
    "use_crf": False,
    "tag_scheme": "none",
}
COLUMNS = {"upos": 3, "xpos": 4}  # of CoNLL-U, from 0


def main() -> None:
    parser = make_parser(__doc__, batch_size=32, learning_rate=1e-3, epochs=40, patience=5, clip=5.0)
    parser.add_argument("--column", choices=list(COLUMNS), default="upos", help="which labels (upos)")
    flags = parser.parse_args()
    read_file = partial(read, column=COLUMNS[flags.column])
    data = read_splits(flags, read_file, partial(from_row, name=flags.column))
    for split, examples in data.items():
        if labels_in(examples) == {"_"}:
            column = flags.column
            raise ElmoError(
                f"the column {column} is empty in the {split} sentences; name the other one by --column."
            )
    labels = task_labels(flags, data)
    score = scorer("accuracy", labels, ["accuracy"])
    task = Task("pos", ElmoForTokenClassification, CONFIG, collate_words(labels), score, best="accuracy")
    task.predicted = predicted_words(labels)
    finetune(task, flags, data, id2label=dict(enumerate(labels)))


def read(path: Path, column: int) -> list[Example]:
    examples = []
    for number, lines in enumerate(read_columns(path), start=1):
        words, where = without_ranges(lines), f"{path}, sentence {number}"
        if any(len(line) != 10 or not line[0].isdecimal() for line in words):
            raise ElmoError(f"{where}: a line of CoNLL-U has ten columns, the number of the word first.")
        examples.append(example([line[1] for line in words], [line[column] for line in words], where))
    return examples


def from_row(row: Example, where: str, name: str) -> list[Example]:
    """Return the example of a row. As of files, ranges such as "don't" before its "do" and "n't" are left
    out, which some datasets keep: their `upos` is `_`."""
    labels = first_column(row, (name, "labels", "pos_tags"), where)
    result = example(first_column(row, ("tokens", "words"), where), labels, where)
    upos = row.get("upos") or []
    kept = [number for number, label in enumerate(upos) if label != "_"]
    if kept and len(upos) == len(result["tokens"]):
        result = {column: [values[number] for number in kept] for column, values in result.items()}
    return [result]


if __name__ == "__main__":
    run(main)
