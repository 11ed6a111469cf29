"""Sentiment in five classes with the biattentive classification network, on the Stanford Sentiment Treebank.

    FILES="--train trees/train.txt --dev trees/dev.txt --test trees/test.txt"
    python training/finetune_sst.py --elmo my-elmo $FILES --output runs/sst --vectors glove.840B.300d.txt
    python training/finetune_sst.py --elmo my-elmo $FILES --output runs/sst --phrases 0
    python training/finetune_sst.py --elmo my-elmo --data SetFit/sst5 --output runs/sst
    python training/finetune_sst.py --smoke $FILES --output runs/smoke

A line of a file is a tree, `(3 (2 It) (4 (2 's) (4 good)))`, with a class from 0 to 4 for each phrase. The
score is that of whole sentences; `--phrases` adds phrases to the train set. A dataset has sentences alone, in
the column `text`, `sentence` or `tokens`, and `label`.

The phrases are many texts, and the cache in memory holds the layers of all; with a large biLM use
`--cache disk` or `--cache none`.
"""

import re
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
    score,
)
from elmo_hf.finetuning.data import SMOKE_EXAMPLES, Example, first_column, read_splits, read_text
from elmo_hf.finetuning.flags import make_parser
from elmo_hf.finetuning.run import Task, finetune, run

LABELS = ["very negative", "negative", "neutral", "positive", "very positive"]
# Peters et al. (2018), A.8, who give no rate of the dropout. `--set maxout_pieces=4` is the network of
# McCann et al. (2017), without their batch normalisation in its maxout layers. AllenNLP's published
# configuration (classification/biattentive_classification_network_elmo.jsonnet) has maxout of 4 pieces, ELMo
# at the input alone without a penalty, all phrases (`--phrases 1`), batches of 100, a learning rate of
# 0.001, and dropout of 0.5 on the words, 0.25, 0.1, 0.2 and 0.3 on the layers above.
CONFIG: dict[str, Any] = {
    "classifier": "bcn",
    "maxout_pieces": 0,
    "task_word_dim": 300,
    "task_char_filters": [[3, 50]],  # the paper's has none; McCann et al.'s has vectors of letter n-grams
    "task_hidden_size": 300,
    "task_num_layers": 1,
    "task_dropout": 0.3,
    "elmo_at_input": True,
    "elmo_at_output": True,
    "elmo_dropout": 0.0,  # task_dropout is on the same input
    "mix_l2": 0.001,
}
LONG = 10  # words of a phrase whose length says little about its class
# How the treebank writes characters that have a meaning in its trees.
ESCAPES = {"-LRB-": "(", "-RRB-": ")", "\\/": "/", "\\*": "*"}


def main() -> None:
    parser = make_parser(__doc__, batch_size=32, learning_rate=1e-4, epochs=40, patience=5, clip=5.0)
    help = "train also on phrases of at least this many words; 0 for whole sentences alone (4)"
    parser.add_argument("--phrases", type=int, default=4, metavar="WORDS", help=help)
    flags = parser.parse_args()
    labels = LABELS if flags.evaluate is None else labels_of_classifier(flags.evaluate, CONFIG["classifier"])
    if {*labels} != {*LABELS}:
        raise ElmoError(
            f"{flags.evaluate} tells {', '.join(labels)} apart, and not this task's {', '.join(LABELS)}; use "
            "finetune_text.py."
        )
    data = read_splits(flags, read, from_row)
    if "train" in data:
        data["train"] = with_phrases(data["train"], flags.phrases)
    if flags.smoke and "train" in data:
        data["train"] = data["train"][: SMOKE_EXAMPLES["train"]]
    task = Task("sst", ElmoForSequenceClassification, CONFIG, collate_texts(labels), score, best="accuracy")
    task.predicted = predicted_labels(labels)
    if flags.data is not None:
        task.splitter = SPLITTER  # `model.predict` splits raw texts as here, whatever the biLM's own rule is
    if 0 < flags.phrases < LONG:
        task.length = None  # most of the short phrases are neutral
    finetune(task, flags, data, id2label=dict(enumerate(labels)), freeze_task_words=flags.vectors is not None)


def read(path: Path) -> list[Example]:
    """Return an example for each tree, with its phrases; the last phrase is the sentence."""
    examples = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            phrases = [
                example(name_of(label), LABELS, where, words) for label, words in read_tree(line, where)
            ]
            examples.append(phrases[-1] | {"phrases": phrases})
    return examples


def read_tree(line: str, where: str) -> list[tuple[str, list[str]]]:
    """Return the class and the words of each phrase, in the order of their ends."""
    phrases: list[tuple[str, list[str]]] = []
    words: list[str] = []
    open_phrases: list[tuple[str, int]] = []  # the class, and the number of words before the phrase
    for token in re.findall(r"\([^\s()]*|\)|[^\s()]+", line):
        if token[0] == "(":
            open_phrases.append((token[1:], len(words)))
        elif not open_phrases:
            raise ElmoError(f"{where}: {token!r} is outside of all phrases.")
        elif token == ")":
            label, start = open_phrases.pop()
            if start == len(words):
                raise ElmoError(f"{where}: the phrase of class {label!r} has no words.")
            phrases.append((label, words[start:]))
        else:
            words.append(re.sub(r"-[LR]RB-|\\[/*]", lambda match: ESCAPES[match[0]], token))
    if open_phrases or not phrases or len(phrases[-1][1]) != len(words):
        raise ElmoError(f"{where} is not one tree `(class ...)`.")
    return phrases


def name_of(label: str | int) -> str | None:
    """Return the name of a class, given its number or its name."""
    if str(label) in ("0", "1", "2", "3", "4"):
        return LABELS[int(label)]
    return str(label)


def with_phrases(sentences: list[Example], least_words: int) -> list[Example]:
    """Return the sentences and their phrases of at least this many words, or no phrases if it is 0."""
    if least_words < 0:
        raise ElmoError(f"--phrases must be 0 or more, but is {least_words}.")
    if least_words == 0:
        return sentences
    return [
        phrase
        for sentence in sentences
        for phrase in [*sentence.get("phrases", [sentence])[:-1], sentence]
        if phrase is sentence or len(phrase["tokens"]) >= least_words
    ]


def from_row(row: Example, where: str) -> list[Example]:
    words = as_words(first_column(row, ("tokens", "text", "sentence"), where), where)
    return [example(name_of(first_column(row, ("label", "labels"), where)), LABELS, where, words)]


if __name__ == "__main__":
    run(main)
