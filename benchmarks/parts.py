"""Measurements of single parts of the package, for numbers that the documents quote.

    OMP_NUM_THREADS=1 python -m benchmarks.parts layer-cache --size original
    OMP_NUM_THREADS=1 python -m benchmarks.parts role-rules dev.conll.xz

| name | what is measured |
|---|---|
| layer-cache | epochs of a tagger on a frozen biLM whose layers are kept in memory, on disk, or not at all |
| role-rules | decoding of semantic roles with and without the constraints on roles |
| sentence | what the time of reading one sentence is spent on |

Times are seconds of the processor; those of a sentence are of the wall clock.
"""

import argparse
import contextlib
import json
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.report import RESULTS, command, machine
from benchmarks.speed.workloads import SIZES, made_up_sentences
from elmo_hf import (
    ElmoConfig,
    ElmoForTokenClassification,
    ElmoLayerCache,
    ElmoModel,
    ElmoTokenizer,
    kernels,
)
from elmo_hf.files import write_json
from elmo_hf.finetuning.data import labels_of
from elmo_hf.finetuning.tagging import collate_words
from elmo_hf.kernels import kept, reading
from elmo_hf.metrics import role_scores
from elmo_hf.model.crf_elmo import ElmoCRF
from elmo_hf.model.modeling_elmo_tagging import ElmoRoles, broken_roles
from training.finetune_ner import CONFIG
from training.finetune_srl import read


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parts = parser.add_subparsers(required=True, metavar="NAME")
    add_layer_cache(parts.add_parser("layer-cache", help="a tagger with and without the layer cache"))
    add_role_rules(parts.add_parser("role-rules", help="decoding with and without the constraints on roles"))
    add_sentence(parts.add_parser("sentence", help="what the time of one sentence is spent on"))
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    content = {"command": command("parts", arguments), "machine": machine(), **options.measure(options)}
    if options.output:
        write_json(options.output, content)
    print(json.dumps(content, indent=1))


# ---- the layer cache

LABELS = ["O", "B-A", "I-A", "B-B", "I-B"]
# Weights of the next label, by the type of the label before.
TRANSITIONS = {"O": [4, 1, 0, 1, 0], "A": [4, 1, 2, 1, 0], "B": [4, 1, 0, 1, 2]}


def add_layer_cache(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", choices=list(SIZES), default="small")
    parser.add_argument("--sentences", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS / "tasks" / "layer-cache.json")
    parser.set_defaults(measure=measure_layer_cache)


def measure_layer_cache(options: argparse.Namespace) -> dict[str, Any]:
    """The tagger of finetune_ner.py on random weights; all caches have the same start and batches."""
    torch.set_num_threads(1)
    examples, collate, tokenizer = made_up_examples(options.sentences), collate_words(LABELS), ElmoTokenizer()
    starts = range(0, len(examples), options.batch_size)
    batches = [collate(tokenizer, examples[start : start + options.batch_size]) for start in starts]
    caches = {
        cache: train_tagger(batches, options.size, cache, options.epochs)
        for cache in ("none", "memory", "disk")
    }
    later_epochs = {cache: sum(run["seconds"][1:]) for cache, run in caches.items()}
    return {
        "torch": torch.__version__,
        "size": options.size,
        "sentences": len(examples),
        "words": sum(len(example["tokens"]) for example in examples),
        "ways": caches,
        "faster_epochs": {
            cache: round(later_epochs["none"] / later_epochs[cache], 2) for cache in ("memory", "disk")
        },
    }


def made_up_examples(number: int) -> list[dict[str, Any]]:
    rng = random.Random(0)
    examples = []
    for words in made_up_sentences(number):
        labels = ["O"]
        while len(labels) < len(words):
            labels += rng.choices(LABELS, TRANSITIONS[labels[-1][-1]])
        examples.append({"tokens": words, "labels": labels})
    return examples


def train_tagger(batches: list[dict[str, Tensor]], size: str, cache: str, epochs: int) -> dict[str, Any]:
    """Seconds of each epoch, and the mean loss in the last one."""
    torch.manual_seed(0)
    labels = dict(enumerate(LABELS))
    config: dict[str, Any] = CONFIG | SIZES[size] | {"vocab_size": 3, "task_word_dim": 0, "id2label": labels}
    model = ElmoForTokenClassification(ElmoConfig(**config))
    with tempfile.TemporaryDirectory() as folder:
        if cache != "none":
            model.elmo_cache = ElmoLayerCache(folder if cache == "disk" else None)
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(parameters, lr=1e-3)
        seconds = []
        for _ in range(epochs):
            start, total = time.process_time(), 0.0
            for batch in batches:
                loss = model(**batch).loss
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, 5.0)
                optimizer.step()
                total += loss.item()
            seconds.append(time.process_time() - start)
    return {"seconds": seconds, "loss": total / len(batches)}


# ---- constraints on roles

ROLE_BATCH = 64


def add_role_rules(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="labelled roles, as training/finetune_srl.py reads them")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument(
        "--hard-rows", type=int, default=20, help="rows of the worst case, random labels (20)"
    )
    parser.add_argument("--output", type=Path, default=RESULTS / "tasks" / "role-rules.json")
    parser.set_defaults(measure=measure_role_rules)


def measure_role_rules(options: argparse.Namespace) -> dict[str, Any]:
    """No trained model is needed: a label's score is a random number (normal, deviation 1), and the right
    label gets `right` more. With 0 nearly every row breaks many constraints, which is the worst case."""
    torch.set_num_threads(1)
    examples = read(options.file)
    labels, gold = labels_of({"all": examples}, scheme="BIO"), [example["labels"] for example in examples]
    return {
        "torch": torch.__version__,
        "labels": len(labels),
        "right_labels": {"rows": len(gold), "broken": count_broken(gold)},
        "runs": [
            *(compare_decoding(gold[: options.rows], labels, right) for right in (6.0, 5.0, 4.0, 3.5)),
            compare_decoding(gold[: options.hard_rows], labels, 0.0),
        ],
    }


def compare_decoding(gold: list[list[str]], labels: list[str], right: float) -> dict[str, Any]:
    """`broken` rows break a constraint; `not_exact` batches have too many roles for an exact search."""
    crf, batches = ElmoCRF(labels, learned=False, scheme="BIO"), made_up_scores(gold, labels, right)
    run: dict[str, Any] = {"right": right, "rows": len(gold), "words": sum(map(len, gold))}
    for name, roles in (("bio", None), ("roles", ElmoRoles(labels))):
        rows, seconds, not_exact = decode(crf, batches, roles)
        scores = role_scores(rows, gold)
        run[name] = {metric: round(scores[metric], 5) for metric in ("f1", "precision", "recall")}
        run[name] |= {"seconds": seconds, "broken": count_broken(rows), "not_exact": not_exact}
    return run


def count_broken(rows: list[list[str]]) -> int:
    return sum(bool(broken_roles(row)) for row in rows)


def made_up_scores(rows: list[list[str]], labels: list[str], right: float) -> list[tuple[Tensor, Tensor]]:
    """Of each batch the scores (batch, words, labels) and the mask of words (batch, words)."""
    torch.manual_seed(0)
    batches = []
    for start in range(0, len(rows), ROLE_BATCH):
        batch = rows[start : start + ROLE_BATCH]
        lengths = torch.tensor([len(row) for row in batch])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        gold = torch.zeros(mask.shape, dtype=torch.long)
        gold[mask] = torch.tensor([labels.index(label) for row in batch for label in row])
        scores = torch.randn(*mask.shape, len(labels))
        batches.append((scores.scatter_add(2, gold[:, :, None], torch.full((*mask.shape, 1), right)), mask))
    return batches


def decode(
    crf: ElmoCRF, batches: list[tuple[Tensor, Tensor]], roles: ElmoRoles | None
) -> tuple[list[list[str]], float, int]:
    """The rows' labels, the seconds of decoding alone, and the number of warnings that it is not exact."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start = time.process_time()
        paths = [crf.decode(scores, mask, roles.repair if roles else None) for scores, mask in batches]
        seconds = time.process_time() - start
    rows = [[crf.labels[label] for label in row if label >= 0] for path in paths for row in path.tolist()]
    return rows, round(seconds, 2), len(caught)


# ---- one sentence

# What is timed, by the functions that do it; what they call of other rows counts there.
SPENT: dict[str, list[tuple[Any, str]]] = {
    "tokenizer": [(ElmoTokenizer, "__call__")],
    "checks of modules": [(kept, "settings")],
    "checks of bytes": [(kept, "_digest")],
    "characters": [(kernels, "encode")],
    "products with the input": [(reading, "product")],
    "products of a step": [(reading.PairProduct, "plus"), (reading.PairProduct, "__call__")],
    "products, laid out": [(reading.Product, "plus"), (reading.Product, "__call__")],
    "elementwise": [(reading.Cell, "__call__")],
    "steps in Python": [(reading, "lstm")],
}
REMAINDER = "model in Python"


def add_sentence(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=["original", "small", "elmo-tiny"])
    parser.add_argument("--lengths", nargs="+", type=int, default=[5, 20, 60])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=30, help="calls, whose median is taken (30)")
    parser.add_argument("--output", type=Path, default=RESULTS / "tasks" / "sentence.json")
    parser.set_defaults(measure=measure_sentence)


def measure_sentence(options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(options.threads)
    words, rows = [word for sentence in made_up_sentences(200) for word in sentence], []
    for size in options.sizes:
        torch.manual_seed(0)
        model = ElmoModel(ElmoConfig(**SIZES[size])).eval()
        for length in options.lengths:
            spent = spent_on(model, [words[:length]], options.repeats)
            total = sum(spent.values())
            shares = {name: round(seconds / total, 3) for name, seconds in spent.items()}
            rows.append({"size": size, "words": length, "ms": round(1000 * total, 3), "shares": shares})
    return {"torch": torch.__version__, "threads": options.threads, "rows": rows}


def spent_on(model: ElmoModel, sentence: list[list[str]], repeats: int) -> dict[str, float]:
    """The median seconds of each row of `SPENT`."""
    tokenizer, spent = ElmoTokenizer(), []
    with contextlib.ExitStack() as stack, torch.inference_mode():
        stopwatch = Stopwatch()
        for name, functions in SPENT.items():
            for owner, function in functions:
                timed = stopwatch.timed(name, getattr(owner, function))
                stack.enter_context(mock.patch.object(owner, function, timed))
        call = stopwatch.timed(
            REMAINDER,
            lambda: model(**tokenizer(sentence, is_split_into_words=True, return_tensors="pt")),
        )
        for _ in range(repeats + 2):
            stopwatch.seconds = dict.fromkeys([*SPENT, REMAINDER], 0.0)
            call()
            spent.append(stopwatch.seconds)
    return {name: statistics.median(seconds[name] for seconds in spent[2:]) for name in spent[0]}


class Stopwatch:
    """Seconds by name, without those of other names that are timed inside."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.inside = [0.0]

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.inside.append(0.0)
            start = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                seconds = time.perf_counter() - start
                self.seconds[name] += seconds - self.inside.pop()
                self.inside[-1] += seconds

        return call


if __name__ == "__main__":
    main()
