"""Coreference with end-to-end span ranking (Lee et al. 2017) over [own words; ELMo].

    python training/finetune_coref.py --elmo my-elmo --data litbank_coref_entities.tar.xz --output runs/coref
    FILES="--train train.conll --dev dev.conll --test test.conll"
    python training/finetune_coref.py --elmo my-elmo $FILES --output runs/coref --vectors glove.6B.50d.txt
    python training/finetune_coref.py --smoke --data litbank_coref_entities.tar.xz --output runs/smoke

Files are those of CoNLL-2012 (the word in the fourth column, clusters in the last), or a tar archive of them,
such as LitBank's; of the archive's documents in the order of their names, eight of ten are learnt from, the
ninth is for dev and the tenth for test. A dataset has the columns `sentences` and `clusters`, lists of
mentions [sentence, first word, last word]. The model learns from pieces of at most `--window` sentences, and
is judged on whole documents.

The score is that of CoNLL-2012, the mean F1 of MUC, B-cubed and CEAF-e. As there, clusters of one mention do
not count: the model cannot find them, and the loss does not know of them. LitBank has many, and what is
published of it mostly counts them; `conll_f1_with_singletons` does.
"""

from pathlib import Path
from typing import Any

from transformers import EvalPrediction

from elmo_hf import ElmoForCoreferenceResolution
from elmo_hf.finetuning.coreference import (
    as_clusters,
    checked_document,
    collate_documents,
    read_archive,
    read_conll,
    split_documents,
    windows,
)
from elmo_hf.finetuning.flags import make_parser
from elmo_hf.finetuning.run import Example, Task, finetune, first_column, read_splits, run
from elmo_hf.metrics.coreference import coreference_scores, without_singletons

# Lee et al. (2017), and Peters et al. (2018), A.6. Theirs differs in this: its word vectors are GloVe's 300
# and Turian's 50 numbers; words and letters have dropout of 0.5; speakers and genres are known; the
# learning rate falls by 0.1 % every 100 steps; a window is drawn for each epoch; the loss is the sum over
# the spans and not their mean, which Adam hardly tells apart but for the cut of the gradient's norm.
CONFIG = {
    "task_word_dim": 50,
    "task_char_filters": [[3, 50], [4, 50], [5, 50]],
    "task_char_embedding_dim": 8,
    "task_hidden_size": 200,
    "task_num_layers": 1,
    "task_dropout": 0.2,
    "elmo_at_input": True,
    "elmo_at_output": False,
    "elmo_dropout": 0.5,
    "mix_l2": 0.0,
    "max_span_width": 10,
    "spans_per_word": 0.4,
    "max_antecedents": 250,
    "span_hidden_size": 150,
    "span_feature_dim": 20,
}
SMOKE = {"train": 8, "dev": 1, "test": 1, "window": 10}


def main() -> None:
    parser = make_parser(__doc__, batch_size=1, learning_rate=1e-3, epochs=150, patience=10, clip=5.0)
    parser.add_argument("--window", type=int, default=50, help="sentences of a piece to learn from (50)")
    flags = parser.parse_args()
    task = Task("coref", ElmoForCoreferenceResolution, CONFIG, collate_documents, score, best="conll_f1")
    finetune(task, flags, read(flags))


def read(flags: Any) -> dict[str, list[Example]]:
    if flags.window < 1:
        raise ValueError(f"--window must be at least 1, but is {flags.window}.")
    if flags.data and not flags.train and Path(flags.data).is_file():
        data = split_documents(read_archive(Path(flags.data)))
    else:
        data = read_splits(flags, read_conll, from_row)
    for split, documents in data.items():
        if not documents:
            raise ValueError(f"there are too few documents in {flags.data}; none is left for {split}.")
        data[split] = documents[: flags.limit]
    if flags.smoke:
        data = {split: [windows(one, SMOKE["window"])[0] for one in documents[: SMOKE[split]]]
                for split, documents in data.items()}  # fmt: skip
    return data | {"train": [piece for one in data["train"] for piece in windows(one, flags.window)]}


def from_row(row: Example) -> list[Example]:
    sentences, clusters = first_column(row, ("sentences",)), first_column(row, ("clusters",))
    if not lists_of(sentences, list) or not all(lists_of(one, str) for one in sentences):
        raise ValueError(f"`sentences` of a dataset are lists of words, but a row has {sentences!r:.60}.")
    if not lists_of(clusters, list) or not all(lists_of(one, list) for one in clusters):
        raise ValueError(f"`clusters` of a dataset are lists of mentions, but a row has {clusters!r:.60}.")
    clusters = [[tuple(mention) for mention in cluster] for cluster in clusters]
    try:
        return [checked_document("a row of the dataset", sentences, clusters)]
    except ValueError as error:
        begin = " ".join(word for sentence in sentences for word in sentence)
        raise ValueError(f"the dataset's row that begins {begin!r:.40}: {error}.") from None


def lists_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(one, kind) for one in value)


def score(evaluation: EvalPrediction) -> dict[str, float]:
    arrays: Any = evaluation.predictions, evaluation.label_ids
    predicted, gold = map(as_clusters, arrays)
    scores = coreference_scores(predicted, [without_singletons(clusters) for clusters in gold])
    every = coreference_scores(predicted, gold)["conll_f1"]
    return scores | {"conll_f1_with_singletons": every}


if __name__ == "__main__":
    run(main)
