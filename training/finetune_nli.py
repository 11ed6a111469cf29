"""Whether one sentence follows from another: ESIM on SNLI, MultiNLI and their like.

    FILES="--train nli/train.tsv --dev nli/dev.tsv --test nli/test.tsv"
    python training/finetune_nli.py --elmo my-elmo $FILES --output runs/nli --vectors glove.840B.300d.txt
    python training/finetune_nli.py --elmo my-elmo --data my-pairs --output runs/nli
    python training/finetune_nli.py --smoke $FILES --output runs/smoke

A file's first line names its columns, separated by tabs; those read are `sentence1`, `sentence2` (words
separated by spaces, or raw texts, with `--raw`), and `label` or `gold_label`. The `.jsonl` of SNLI and
MultiNLI, whose texts are raw, has the same names. A dataset has them, or `premise`, `hypothesis` and `label`.
Pairs on whose label the annotators did not agree (`-`) are left out, with a warning. `--labels` names classes
of your own.

Every word of a sentence is compared with every word of the other, and some copies of MultiNLI have a
"sentence" of thirty thousand words, because of a stray quotation mark. So pairs of more than `--max-words`
words are left out of training, and longer dev and test sentences are cut, with a warning.

As in the paper, the layers are normalised before they are mixed (`mix_layer_norm`), over all words of a batch
as in its code. So a prediction near the border of two classes may depend on the batch.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import SchedulerType, TrainingArguments

from elmo_hf import ElmoForSequenceClassification
from elmo_hf.corpus.look import raw_doubt
from elmo_hf.errors import ElmoError, StoreOnce, warn
from elmo_hf.finetuning.classification import (
    SPLITTER,
    as_words,
    collate_texts,
    example,
    labels_of_classifier,
    predicted_labels,
    score,
)
from elmo_hf.finetuning.data import (
    JSON_LINES,
    Example,
    first_column,
    kind_of,
    read_rows,
    read_splits,
    warn_of_unlabelled,
)
from elmo_hf.finetuning.flags import at_least, make_parser
from elmo_hf.finetuning.run import DecodingTrainer, Task, finetune, parse_setting, run

LABELS = ["entailment", "neutral", "contradiction"]
MAX_WORDS = 400
# Peters et al. (2018), A.3: a baseline without ELMo has no penalty (`--l2`), as there. AllenNLP's published
# configuration (pair_classification/esim_elmo.jsonnet) has neither word vectors nor layer normalisation nor
# the penalty, ELMo at the input alone, and clips the gradient's norm at 10.
CONFIG: dict[str, Any] = {
    "classifier": "esim",
    "task_word_dim": 300,
    "task_char_filters": [],  # as in the paper; with letters it learnt less from few pairs
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


def read_flags() -> Any:
    parser = make_parser(__doc__, batch_size=32, learning_rate=4e-4, epochs=75, patience=5, clip=5.0)
    help = "the weight of the sum of the squared weight matrices in the loss (0.0001; 0 without ELMo)"
    parser.add_argument("--l2", type=at_least(0.0), help=help)
    help = f"the names of the classes ({' '.join(LABELS)})"
    parser.add_argument("--labels", action=StoreOnce, metavar="NAME", help=help)
    help = f"words of a train pair, or of another sentence ({MAX_WORDS})"
    parser.add_argument("--max-words", type=at_least(1), default=MAX_WORDS, help=help)
    help = "sentences of files are raw texts, as in SNLI's and MultiNLI's own"
    parser.add_argument("--raw", action="store_true", help=help)
    return parser.parse_args()


def main() -> None:
    flags = read_flags()
    labels = labels_of_run(flags)
    data = read_splits(flags, partial(read, raw=flags.raw, labels=labels), partial(from_row, labels=labels))
    all_train = data.get("train", [])
    data = without_long(data, flags.max_words)
    task = Task("nli", ElmoForSequenceClassification, CONFIG, collate_texts(labels), score, best="accuracy")
    flags.l2 = penalty_of(flags) if flags.l2 is None else flags.l2
    task.trainer = partial(HalvingTrainer, l2=flags.l2)
    task.length = lambda example: len(example["sentences"][0])  # the hypothesis's may depend on the label
    task.predicted = predicted_labels(labels)
    if flags.evaluate is not None:
        finetune(task, flags, data)
        return
    if are_raw(flags):
        task.splitter = SPLITTER  # `model.predict` splits raw texts as here, whatever the biLM's own rule is
    if not data["train"]:
        raise ElmoError(f"no train pair has {flags.max_words} words or fewer; set --max-words higher.")
    left_out = len(all_train) - len(data["train"])
    task.details = lambda config: {"left_out_of_training": left_out}
    freeze = flags.vectors is not None
    finetune(task, flags, data, id2label=dict(enumerate(labels)), freeze_task_words=freeze)


def are_raw(flags: Any) -> bool:
    """Whether the train sentences are raw texts."""
    files = map(Path, flags.train or [])
    return flags.raw or flags.data is not None or any(kind_of(file) in JSON_LINES for file in files)


def labels_of_run(flags: Any) -> list[str]:
    """Return the classes: those of the model that is evaluated, those of `--labels`, or the usual ones."""
    if flags.evaluate is not None:
        if flags.labels is not None:
            raise ElmoError("a model that is evaluated has its own classes; leave --labels out.")
        return labels_of_classifier(flags.evaluate, CONFIG["classifier"])
    labels = flags.labels or LABELS
    if len({label.casefold() for label in labels}) < max(2, len(labels)):
        raise ElmoError(f"--labels must name two classes or more, each once, but is {' '.join(labels)}.")
    return list(labels)


def penalty_of(flags: Any) -> float:
    """Return the default of `--l2`, which is 0 for a baseline without ELMo."""
    config = CONFIG | dict(parse_setting(text) for text in flags.set)
    return 1e-4 if config["elmo_at_input"] or config["elmo_at_output"] else 0.0


def without_long(data: dict[str, list[Example]], words: int) -> dict[str, list[Example]]:
    """Leave out train pairs of more words, and cut the other sentences to as many."""
    judged = [pair for split, pairs in data.items() if split != "train" for pair in pairs]
    are_long = [max(map(len, pair["sentences"])) > words for pair in judged]
    if any(are_long):
        warn(f"{sum(are_long):,} of {len(judged):,} pairs of dev and test are cut to --max-words, {words}.")
    return {
        split: [pair for pair in pairs if len(pair["tokens"]) <= words]
        if split == "train"
        else [cut(pair, words) for pair in pairs]
        for split, pairs in data.items()
    }


def cut(pair: Example, words: int) -> Example:
    label = pair["label"]
    return example(label, [label], "", *(sentence[:words] for sentence in pair["sentences"]))


def read(path: Path, raw: bool = False, labels: list[str] = LABELS) -> list[Example]:
    rows = read_rows(path)
    raw = raw or kind_of(path) in JSON_LINES
    _, header = next(rows)
    columns = {*header, "label"} if "gold_label" in header else {*header}
    missing = [name for name in ("sentence1", "sentence2", "label") if name not in columns]
    if missing:
        raise ElmoError(f"{path}: the first line names no column {missing[0]}, but {', '.join(header)}.")
    pairs_of_rows = [from_columns(row, where, raw, labels) for where, row in rows]
    pairs = [pair for pairs in pairs_of_rows for pair in pairs]
    warn_of_unlabelled(str(path), len(pairs_of_rows), len(pairs))
    doubt = None if raw else raw_doubt(" ".join(sentence) for pair in pairs for sentence in pair["sentences"])
    if doubt:
        warn(f"{path} {doubt}")
    return pairs


def from_columns(row: Example, where: str, raw: bool, labels: list[str] = LABELS) -> list[Example]:
    """Return the example of a row, or none if it has no label."""
    label = first_column(row, ("label", "gold_label"), where)
    label = str(label).strip() if isinstance(label, (str, int)) else label
    if label in ("-", "-1", None) and label not in labels:
        return []
    columns = (("sentence1", "premise"), ("sentence2", "hypothesis"))
    texts = [first_column(row, names, where) for names in columns]
    sentences = [as_words(text, where) if raw else text.split() for text in texts]
    return [example(label, labels, where, *sentences)]


def from_row(row: Example, where: str, labels: list[str] = LABELS) -> list[Example]:
    return from_columns(row, where, True, labels)


if __name__ == "__main__":
    run(main)
