"""What simple features reach on the tasks of the tables, to read the neural baselines by.

    pip install 'elmo-hf[tables]'
    python -m benchmarks.tables.simple --data DATA                   # results/tables/simple.json
    python -m benchmarks.tables.simple --data DATA --tasks nli sst

| tasks | method |
|---|---|
| names | a linear-chain CRF (CRFsuite) on words, shapes and affixes |
| roles | an averaged perceptron over label sequences (CRFsuite), on the same and the predicate |
| sentiment | logistic regression on n-grams of words |
| entailment | logistic regression on the second sentence's n-grams, on overlap, and on pairs of words |
| questions | a rule: near words of the question, the name, number or phrase that it asks for |
| coreference | a rule: names by equal words, pronouns to the nearest name |

Examples and scores are those of the recipes. Strengths of regularisation are chosen on dev.
"""

import argparse
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS, ROOT, command, machine, versions
from benchmarks.tables import simple_classes, simple_coreference, simple_questions, simple_tags
from benchmarks.tables.inputs import make_inputs
from benchmarks.tables.plan import TASKS, Run, Task, flag_of, run_of
from elmo_hf.errors import one_sentence
from elmo_hf.files import read_json, write_json
from elmo_hf.finetuning.data import Example, drawn, read_splits
from elmo_hf.finetuning.flags import SPLITS
from elmo_hf.finetuning.squad import cut, read_questions
from elmo_hf.metrics import coreference_scores, role_scores, span_scores, squad_scores
from training import finetune_coref, finetune_ner, finetune_nli, finetune_srl, finetune_sst

Data = dict[str, list[Example]]
Scores = dict[str, dict[str, float]]
FILE = RESULTS / "tables" / "simple.json"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of the data")
    names = [name for name in TASKS if not name.endswith("-all")]
    parser.add_argument("--tasks", nargs="+", choices=names, default=names, metavar="TASK")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "tables", help="for files that are made")
    parser.add_argument("--output", type=Path, default=FILE)
    parser.add_argument("--limit", type=int, help="only so many examples of each split, to try it")
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    with one_sentence("simple"):
        for name in options.tasks:
            result = measure(name, options)
            results = read_json(options.output) if options.output.is_file() else {}
            results[name] = result | {"command": command("tables.simple", arguments)}
            write_json(options.output, results)
            print(name, result["method"], result["scores"], f"{result['processor_seconds']} s", flush=True)


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """The scores of a task's simple method, and how they were made."""
    task = TASKS[name]
    make_inputs([run_of(TASKS, name, {}, 0)], TASKS, options.data, options.runs / "data")
    data = examples_of(run_of(TASKS, name, {}, 0), task, options)
    start = time.process_time()
    method, scores = METHODS[task.recipe](data)
    return {
        "method": method,
        "metric": task.metric,
        "scores": scores,
        "examples": {split: len(rows) for split, rows in data.items()},
        "processor_seconds": round(time.process_time() - start, 1),
        "versions": versions("scikit-learn", "python-crfsuite", "numpy"),
        "machine": machine(),
    }


# ---- the examples of the recipes


def examples_of(run: Run, task: Task, options: argparse.Namespace) -> Data:
    """The same train, dev and test examples as those of a run."""
    flags = Namespace(data=None, train=None, dev=None, test=None, limit=options.limit, smoke=False)
    flags.evaluate, flags.window, flags.phrases = None, 50, int(flag_of(task, "--phrases", "0"))
    for split, paths in task.files.items():
        files = [str(place(path, options)) for path in paths]
        setattr(flags, split, files if split in SPLITS else files[0])
    for split, size in {"train": run.train_size, **task.sizes}.items():
        setattr(flags, f"{split}_size", None if options.limit else size)
    return drawn(READERS[task.recipe](flags), flags)


def place(path: str, options: argparse.Namespace) -> Path:
    first, _, below = path.partition("/")
    folder: Path = {"DATA": options.data, "RUNS": options.runs}[first]
    return folder / below


def read_trees(flags: Namespace) -> Data:
    data = read_splits(flags, finetune_sst.read, finetune_sst.from_row)
    return data | {"train": finetune_sst.with_phrases(data["train"], flags.phrases)}


def read_pairs(flags: Namespace) -> Data:
    data = read_splits(flags, finetune_nli.read, finetune_nli.from_row)
    return finetune_nli.without_long(data, finetune_nli.MAX_WORDS)


def read_contexts(flags: Namespace) -> Data:
    data = read_questions(flags)
    return data | {"train": cut(data["train"], 10_000)}


READERS: dict[str, Callable[[Namespace], Data]] = {
    "finetune_ner.py": lambda flags: read_splits(flags, finetune_ner.read, finetune_ner.from_row),
    "finetune_srl.py": lambda flags: read_splits(flags, finetune_srl.read, finetune_srl.from_row),
    "finetune_sst.py": read_trees,
    "finetune_nli.py": read_pairs,
    "finetune_squad.py": read_contexts,
    "finetune_coref.py": finetune_coref.read,
}


# ---- methods and scores


def label_words(data: Data, score: Callable[..., dict[str, float]], roles: bool) -> tuple[str, Scores]:
    method, predicted = simple_tags.predict(data, roles)
    scores: Scores = {}
    for split, labels in predicted.items():
        values = score(labels, [example["labels"] for example in data[split]])
        scores[split] = {name: values[name] for name in ("f1", "precision", "recall")}
    return method, scores


def classify(data: Data, pairs: bool) -> tuple[str, Scores]:
    method, predicted = simple_classes.predict(data, pairs)
    return method, {
        split: {
            "accuracy": sum(label == row["label"] for label, row in zip(labels, data[split], strict=True))
            / len(labels)
        }
        for split, labels in predicted.items()
    }


def answer(data: Data) -> tuple[str, Scores]:
    scores: Scores = {}
    for split in ("dev", "test"):
        answers = {row["id"]: simple_questions.answer(row) for row in data[split]}
        scores[split] = squad_scores(answers, {row["id"]: row["answers"] for row in data[split]})
    return simple_questions.METHOD, scores


def resolve(data: Data) -> tuple[str, Scores]:
    scores: Scores = {}
    for split in ("dev", "test"):
        predicted = [simple_coreference.clusters_of(document["sentences"]) for document in data[split]]
        gold = [document["clusters"] for document in data[split]]
        larger = [[cluster for cluster in clusters if len(cluster) > 1] for clusters in gold]
        scores[split] = coreference_scores(predicted, larger)
        scores[split]["conll_f1_with_singletons"] = coreference_scores(predicted, gold)["conll_f1"]
    return simple_coreference.METHOD, scores


METHODS: dict[str, Callable[[Data], tuple[str, Scores]]] = {
    "finetune_ner.py": partial(label_words, score=span_scores, roles=False),
    "finetune_srl.py": partial(label_words, score=role_scores, roles=True),
    "finetune_sst.py": partial(classify, pairs=False),
    "finetune_nli.py": partial(classify, pairs=True),
    "finetune_squad.py": answer,
    "finetune_coref.py": resolve,
}


if __name__ == "__main__":
    main()
