"""Coreference with end-to-end span ranking (Lee et al. 2017) over [own words; ELMo].

    python training/finetune_coref.py --elmo my-elmo --data litbank_coref_entities.tar.xz --output runs/coref
    FILES="--train train.conll --dev dev.conll --test test.conll"
    python training/finetune_coref.py --elmo my-elmo $FILES --output runs/coref --vectors glove.6B.50d.txt
    python training/finetune_coref.py --smoke --data litbank_coref_entities.tar.xz --output runs/smoke

Files are those of CoNLL-2012 (the word in the fourth column, clusters in the last), those of OntoGUM (the
word in the second of three columns), or tar archives of such files. Of an archive that `--data` names, such
as LitBank's, of every ten documents in the order of their names eight are train, the ninth is dev and the
tenth is test; parts of a document stay together. A dataset has the columns `sentences` and `clusters`,
lists of mentions [sentence, first word, last word]. The model is trained on windows of at most `--window`
sentences, and evaluated on whole documents.

The score is that of CoNLL-2012, the mean F1 of MUC, B-cubed and CEAF-e. As there, clusters of one mention do
not count: the model cannot find them, and the loss ignores them. LitBank has many, and most published results
on it count them; `conll_f1_with_singletons` does.
"""

from pathlib import Path
from typing import Any

import evaluate
from transformers import EvalPrediction

from elmo_hf import ElmoForCoreferenceResolution, metrics
from elmo_hf.errors import ElmoError
from elmo_hf.finetuning.coreference import (
    as_clusters,
    check_clusters,
    collate_documents,
    from_row,
    predicted_clusters,
    read_archive,
    read_documents,
    split_documents,
    windows,
)
from elmo_hf.finetuning.data import Example, check_inputs, check_words, read_splits, splits_of_run
from elmo_hf.finetuning.flags import make_parser
from elmo_hf.finetuning.run import Task, finetune, run

# Lee et al. (2017), and Peters et al. (2018), A.6. The vectors of `--vectors` are not trained. Theirs differs
# in this: its word vectors are GloVe's 300 and Turian's 50 numbers; words and letters have dropout of 0.5;
# speakers and genres are known; the learning rate falls by 0.1 % every 100 steps; a window is drawn for each
# epoch; the loss is the sum over the spans and not their mean, which makes no difference to Adam except where
# the gradient's norm is clipped.
CONFIG: dict[str, Any] = {
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
    parser.add_argument("--window", type=int, default=50, help="sentences of a train window (50)")
    flags = parser.parse_args()
    task = Task("coref", ElmoForCoreferenceResolution, CONFIG, collate_documents, score, best="conll_f1")
    task.predicted = predicted_clusters
    finetune(task, flags, read(flags), freeze_task_words=flags.vectors is not None)


def read(flags: Any) -> dict[str, list[Example]]:
    if flags.window < 1:
        raise ElmoError(f"--window must be at least 1, but is {flags.window}.")
    if flags.data and Path(flags.data).is_file():
        check_inputs(flags)
        data = split_documents(read_archive(Path(flags.data)))
        data = {split: data[split] for split in splits_of_run(flags)}
        for split, documents in data.items():
            check_words(split, documents)
    else:
        data = read_splits(flags, read_documents, from_row)
    for split, documents in data.items():
        if not documents:
            raise ElmoError(f"there are too few documents in {flags.data}; none is left for {split}.")
        data[split] = documents[: flags.limit]
        if flags.smoke:
            data[split] = [windows(each, SMOKE["window"])[0] for each in data[split][: SMOKE[split]]]
    if flags.evaluate is not None:
        return data
    check_clusters(data["train"])
    return data | {"train": [window for each in data["train"] for window in windows(each, flags.window)]}


def score(evaluation: EvalPrediction) -> dict[str, float]:
    coreference = evaluate.load(metrics.path("coreference"), keep_in_memory=True)
    arrays: Any = evaluation.predictions, evaluation.label_ids
    predicted, gold = map(as_clusters, arrays)
    larger = [[cluster for cluster in clusters if len(cluster) > 1] for clusters in gold]
    scores: dict[str, float] = coreference.compute(predictions=predicted, references=larger)
    with_singletons = coreference.compute(predictions=predicted, references=gold)
    return scores | {"conll_f1_with_singletons": with_singletons["conll_f1"]}


if __name__ == "__main__":
    run(main)
