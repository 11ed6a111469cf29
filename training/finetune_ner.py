"""Named entities with the paper's tagger: two layers of biLSTM and a CRF over [own words; ELMo].

    FILES="--train ner/train.conll --dev ner/dev.conll --test ner/test.conll"
    python training/finetune_ner.py --elmo my-elmo $FILES --output runs/ner --seeds 0 1 2
    python training/finetune_ner.py --elmo my-elmo --data conll2003 --output runs/ner --vectors glove.txt
    python training/finetune_ner.py --smoke $FILES --output runs/smoke

A line of a file is a word with its label in the last column, or in the columns that `--columns` names (2 and
3 in a file `.iob2`, as Universal NER has them). Labels are IOB, BIO, BIOES or BILOU. A dataset has the
columns `tokens` and `ner_tags` or `labels`. The paper's ablations are settings: `--set elmo_at_input=false`,
`elmo_at_output=true`, `elmo_layers=top`, `mix_l2=0.001`, `freeze_elmo=false`.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from elmo_hf import ElmoForTokenClassification
from elmo_hf.errors import ElmoError
from elmo_hf.finetuning.data import (
    Example,
    are_numbered,
    first_column,
    kind_of,
    read_columns,
    read_splits,
    task_labels,
    without_ranges,
)
from elmo_hf.finetuning.flags import at_least, make_parser
from elmo_hf.finetuning.run import Task, finetune, run
from elmo_hf.finetuning.tagging import collate_words, example, predicted_words, scorer

# The lambda of the paper is that of a loss summed over a batch, as in AllenNLP's CRF. Ours is the mean over
# the words of a batch, so `mix_l2` is LAMBDA divided by their number, unless `--set mix_l2` says otherwise.
LAMBDA = 0.1
# Peters et al. (2018), A.7. The paper's second layer has half the cells and its word vectors are Senna's;
# AllenNLP's published configuration (tagging/ner_elmo.jsonnet) has 200 in both layers, GloVe, BIOUL in
# place of BIO labels, batches of 64 and a patience of 25.
CONFIG: dict[str, Any] = {
    "task_word_dim": 50,
    "task_char_filters": [[3, 128]],
    "task_char_embedding_dim": 16,
    "task_hidden_size": 200,
    "task_num_layers": 2,
    "task_dropout": 0.5,
    "elmo_at_input": True,
    "elmo_at_output": False,
    "elmo_dropout": 0.0,  # task_dropout is on the same input
    "use_crf": True,
    "tag_scheme": "BIO",
}


def main() -> None:
    parser = make_parser(__doc__, batch_size=32, learning_rate=1e-3, epochs=75, patience=15, clip=5.0)
    help = "the columns of words and labels, from 1 (the first and the last; in .iob2: 2 3)"
    parser.add_argument("--columns", type=at_least(1), nargs=2, metavar=("WORD", "LABEL"), help=help)
    flags = parser.parse_args()
    data = read_splits(flags, partial(read, columns=flags.columns), from_row)
    labels = task_labels(flags, data, scheme="BIO")
    score = scorer("spans", labels, ["f1", "precision", "recall"])
    task = Task("ner", ElmoForTokenClassification, CONFIG, collate_words(labels), score, best="f1")
    task.predicted = predicted_words(labels)
    names = dict(enumerate(labels))
    finetune(task, flags, data, id2label=names, mix_l2=scaled_lambda(flags, data.get("train", [])))


def scaled_lambda(flags: Any, train: list[Example]) -> float:
    """Return the paper's lambda over the mean number of words in a batch, in two digits."""
    sentences = min(flags.batch_size, flags.passes * (flags.train_size or len(train)))
    words = sum(len(example["tokens"]) for example in train) / max(1, len(train)) * sentences
    return float(f"{LAMBDA / max(1.0, words):.2g}")


def read(path: Path, columns: Sequence[int] | None = None) -> list[Example]:
    examples = []
    columns = (2, 3) if columns is None and kind_of(path) == ".iob2" else columns
    sentences = read_columns(path)
    if columns is None and sentences and min(map(len, sentences[0])) > 2 and are_numbered(sentences):
        raise ElmoError(
            f"{path}: the first column numbers the words; name the columns of words and labels by --columns, "
            "such as --columns 2 3."
        )
    for number, lines in enumerate(sentences, start=1):
        where = f"{path}, sentence {number}"
        pairs = select(lines, columns, where) if columns else first_and_last(lines, where)
        words, labels = [word for word, _ in pairs], [label for _, label in pairs]
        try:
            examples.append(example(words, labels, where, bio=True))
        except ElmoError as error:
            hint = "if the labels are not in the last column, name their column by --columns."
            raise ElmoError(str(error) if columns else f"{str(error).rstrip('.')}; {hint}") from None
    return examples


def first_and_last(lines: list[list[str]], where: str) -> list[tuple[str, str]]:
    """Return the words and labels of lines with the word first and the label last."""
    for line in lines:
        if len(line) == 1:
            raise ElmoError(f"{where}: a line has only {line[0]!r:.60}, and needs a word and its label.")
    return [(line[0], line[-1]) for line in lines]


def select(lines: list[list[str]], columns: Sequence[int], where: str) -> list[tuple[str, str]]:
    """Return the words and labels in these columns."""
    shortest = min(len(line) for line in lines)
    if shortest < max(columns):
        raise ElmoError(f"{where}: a line has {shortest} columns, and --columns asks for {columns}.")
    word, label = (column - 1 for column in columns)
    lines = without_ranges(lines) if word > 0 else lines
    return [(line[word], line[label]) for line in lines]


def from_row(row: Example, where: str) -> list[Example]:
    labels = first_column(row, ("ner_tags", "labels", "tags"), where)
    return [example(first_column(row, ("tokens", "words"), where), labels, where, bio=True)]


if __name__ == "__main__":
    run(main)
