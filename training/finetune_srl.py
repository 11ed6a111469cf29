"""Semantic roles: the deep interleaved biLSTM of He et al. (2017) over [own words; ELMo; predicate].

    FILES="--train srl/train.conll.xz --dev srl/dev.conll.xz --test srl/test.conll.xz"
    python training/finetune_srl.py --elmo my-elmo $FILES --output runs/srl --vectors glove.6B.100d.txt
    python training/finetune_srl.py --elmo my-elmo --data my-dataset --output runs/srl
    python training/finetune_srl.py --smoke $FILES --output runs/smoke

The columns of a file are: sentence, number, word, two parts of speech, parse, lemma, roleset (`-` where there
is no predicate), and one column of spans for each predicate, as in CoNLL-2005. A dataset has a row for each
predicate, with the columns `tokens`, `labels` (B-ARG0 ...) and `predicate_mask`. The score is that of the
CoNLL-2005 scorer.
"""

import re
from functools import partial
from pathlib import Path
from typing import Any

import torch

from elmo_hf import ElmoForSemanticRoleLabeling
from elmo_hf.errors import ElmoError
from elmo_hf.finetuning.data import Example, first_column, read_columns, read_splits, task_labels
from elmo_hf.finetuning.flags import make_parser
from elmo_hf.finetuning.run import Task, finetune, run
from elmo_hf.finetuning.tagging import collate_words, example, predicted_words, scorer

# He et al. (2017), and Peters et al. (2018), A.5. Theirs stops only after 200 epochs without a better dev
# score (`--patience 200`), clips each number of the gradient at 1 and not its norm (He et al.: the norm, as
# here), and starts from an orthogonal output layer. `--set role_rules=true` decodes under all constraints
# of He et al., who found that they do not raise F1, and reported scores under BIO alone.
CONFIG: dict[str, Any] = {
    "task_word_dim": 100,
    "task_char_filters": [[3, 50]],  # He et al. have no letters: `--set task_char_filters=[]`
    "predicate_dim": 100,
    "task_hidden_size": 300,
    "task_num_layers": 8,
    "task_dropout": 0.1,
    "elmo_dropout": 0.5,
    "mix_l2": 0.001,
    "use_crf": False,
    "tag_scheme": "BIO",
}
WORD, ROLESET, FIRST_SPANS = 2, 7, 8  # columns, from 0


def main() -> None:
    defaults = {"batch_size": 80, "learning_rate": 1.0, "epochs": 500, "patience": 20, "clip": 1.0}
    flags = make_parser(__doc__, optimizer="adadelta", **defaults).parse_args()
    data = read_splits(flags, read, from_row)
    labels = task_labels(flags, data, scheme="BIO")
    score = scorer("roles", labels, ["f1", "precision", "recall"])
    task = Task("srl", ElmoForSemanticRoleLabeling, CONFIG, collate_words(labels), score, best="f1")
    task.predicted = predicted_words(labels)
    task.optimizers = {"adadelta": partial(torch.optim.Adadelta, rho=0.95)}
    finetune(task, flags, data, id2label=dict(enumerate(labels)))


def read(path: Path) -> list[Example]:
    """Return an example for each predicate of each sentence."""
    examples = []
    for number, lines in enumerate(read_columns(path), start=1):
        shortest = min(len(line) for line in lines)
        if shortest < FIRST_SPANS:
            raise ElmoError(
                f"{path}, sentence {number}: a line has {shortest} columns, and needs at least {FIRST_SPANS}."
            )
        words = [line[WORD] for line in lines]
        predicates = [position for position, line in enumerate(lines) if line[ROLESET] != "-"]
        if any(len(line) != FIRST_SPANS + len(predicates) for line in lines):
            raise ElmoError(f"{path}, sentence {number}: not one column of spans for each predicate.")
        for column, predicate in enumerate(predicates, start=FIRST_SPANS):
            where = f"{path}, sentence {number}, column {column + 1}"
            labels = labels_of_spans([line[column] for line in lines], where)
            mask = [int(position == predicate) for position in range(len(words))]
            examples.append(example(words, labels, where, predicate_mask=mask))
    check_predicates(examples, path)
    return examples


def check_predicates(examples: list[Example], path: Path) -> None:
    """Refuse a file whose spans are of other predicates. A few such spans are in well-kept data, too."""
    labels = [each["labels"][each["predicate_mask"].index(1)] for each in examples if "B-V" in each["labels"]]
    elsewhere = sum(label not in ("B-V", "I-V") for label in labels)
    if 2 * elsewhere > len(labels):
        raise ElmoError(
            f"{path}: in {elsewhere:,} of {len(labels):,} columns of spans the predicate is not in the span "
            "V; the columns of spans must be in the order of the predicates."
        )


def labels_of_spans(cells: list[str], where: str) -> list[str]:
    """`(ARG0*`, `*)`, `(V*)`, `*` -> B-ARG0 I-ARG0 B-V O"""
    labels, role = [], ""
    for cell in cells:
        match = re.fullmatch(r"(?:\(([^()*]+))?\*(\)?)", cell)
        if not match or bool(match[1] and role) or bool(match[2] and not (match[1] or role)):
            raise ElmoError(f"{where}: {cell!r} is no span of roles that do not overlap.")
        role = match[1] or role
        labels.append(("B-" if match[1] else "I-") + role if role else "O")
        role = "" if match[2] else role
    if role:
        raise ElmoError(f"{where}: the span of {role} does not end.")
    return labels


def from_row(row: Example, where: str) -> list[Example]:
    names = ("tokens", "words"), ("labels", "tags"), ("predicate_mask",)
    words, labels, mask = (first_column(row, column, where) for column in names)
    result = example(words, labels, where, bio=True, predicate_mask=mask)
    for value in mask:
        if value not in (0, 1):
            raise ElmoError(f"{where}: predicate_mask has {value!r:.60}, and must have 1 or 0 for each word.")
    return [result]


if __name__ == "__main__":
    run(main)
