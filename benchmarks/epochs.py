"""Processor seconds of an epoch of each recipe, as the tables run it: training, and evaluation on dev.

    export OMP_NUM_THREADS=1
    python -m benchmarks.epochs --data DATA  # results/tasks/epochs.json
    python -m benchmarks.epochs --data DATA --tasks srl --examples 400

Each task is measured with ELMo and without on `--examples` train and dev examples (a document counts as 40),
with the layers of the biLM kept, as from the second epoch on. `epoch` is what that makes for all examples of
the tables' run. `before` are the same batches with the plain definitions that were there before: a Viterbi
step that compares all pairs of labels, letters with all of their padding, highway LSTMs that store their
steps also where there is no gradient, and torch's GRU. Both have a turn in each of `--rounds` rounds; the
numbers are medians.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.report import RESULTS, ROOT, command, in_turns, machine
from benchmarks.tables.inputs import make_inputs
from benchmarks.tables.plan import TABLE1, TASKS, Run, baseline_of, elmo_settings, run_of
from benchmarks.tables.simple import examples_of
from elmo_hf import (
    ElmoForCoreferenceResolution,
    ElmoForQuestionAnswering,
    ElmoForSemanticRoleLabeling,
    ElmoForSequenceClassification,
    ElmoForTokenClassification,
    ElmoLayerCache,
)
from elmo_hf.errors import one_sentence
from elmo_hf.files import write_json
from elmo_hf.finetuning import squad
from elmo_hf.finetuning.classification import collate_texts
from elmo_hf.finetuning.coreference import collate_documents
from elmo_hf.finetuning.data import Example, labels_of, longest_first
from elmo_hf.finetuning.run import parse_setting
from elmo_hf.finetuning.tagging import collate_words
from elmo_hf.loading import load_model, load_tokenizer
from elmo_hf.model import cells_elmo, crf_elmo, task_elmo
from elmo_hf.model.task_elmo import ElmoTaskModel
from training import finetune_coref, finetune_ner, finetune_nli, finetune_squad, finetune_srl, finetune_sst

ELMO = "src/elmo_hf/checkpoints/elmo-tiny"
DOCUMENT = 40  # examples
# For each recipe its model, settings and batch size.
RECIPES: dict[str, tuple[type[ElmoTaskModel], dict[str, Any], int]] = {
    "finetune_ner.py": (ElmoForTokenClassification, finetune_ner.CONFIG, 16),
    "finetune_srl.py": (ElmoForSemanticRoleLabeling, finetune_srl.CONFIG, 40),
    "finetune_sst.py": (ElmoForSequenceClassification, finetune_sst.CONFIG, 32),
    "finetune_nli.py": (ElmoForSequenceClassification, finetune_nli.CONFIG, 32),
    "finetune_squad.py": (ElmoForQuestionAnswering, finetune_squad.CONFIG, 16),
    "finetune_coref.py": (ElmoForCoreferenceResolution, finetune_coref.CONFIG, 1),
}
Collate = Callable[..., dict[str, Tensor]]
LABELS = ("labels", "start_positions", "end_positions")
VECTORS = {"task_word_dim": 50}  # the size of the tables' word vectors


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of the data")
    parser.add_argument("--elmo", default=str(ROOT / ELMO), help=f"a pretrained biLM ({ELMO})")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TABLE1), metavar="TASK")
    parser.add_argument("--examples", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "tables", help="for files that are made")
    parser.add_argument("--output", type=Path, default=RESULTS / "tasks" / "epochs.json")
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with one_sentence("epochs"):
        tasks = {}
        for name in options.tasks:
            tasks[name] = measure(name, options)
            print(name, tasks[name], flush=True)
            content = {"command": command("epochs", arguments), "machine": machine()}
            write_json(options.output, content | {"torch": torch.__version__, "tasks": tasks})


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    run = run_of(TASKS, name, {}, 0)
    make_inputs([run], TASKS, options.data, options.runs / "data")
    limit = argparse.Namespace(data=options.data, runs=options.runs, limit=None)
    data = examples_of(run, TASKS[name], limit)
    result: dict[str, Any] = {"examples": options.examples}
    for arm, one in (("without ELMo", baseline_of(run)), ("with ELMo", run)):
        result[arm] = measure_arm(one, data, options)
    return result


def measure_arm(run: Run, data: dict[str, list[Example]], options: argparse.Namespace) -> dict[str, Any]:
    recipe = TASKS[run.task].recipe
    number = options.examples // (DOCUMENT if recipe == "finetune_coref.py" else 1)
    parts = {split: data[split][: max(1, number)] for split in ("train", "dev")}
    if recipe == "finetune_squad.py":
        parts["train"] = squad.cut(parts["train"], 200)
    model, batches = prepared(run, parts, data, options.elmo)
    train, evaluate = (
        partial(train_epoch, model, batches["train"]),
        partial(evaluate_epoch, model, batches["dev"]),
    )
    calls: dict[str, Callable[[int], tuple[float, float]]] = {
        "now": lambda _: (seconds(train), seconds(evaluate)),
        "before": lambda _: plain_seconds(train, evaluate),
    }
    figures = in_turns(calls, options.rounds)
    shares = [len(data[split]) / len(parts[split]) for split in ("train", "dev")]
    result: dict[str, Any] = {}
    for way, rows in figures.items():
        medians = [statistics.median(column) for column in zip(*rows, strict=True)]
        epoch = sum(value * share for value, share in zip(medians, shares, strict=True))
        values = {"train": medians[0], "evaluation": medians[1], "epoch": epoch}
        result[way] = {key: float(f"{value:.3g}") for key, value in values.items()}
    return result


def prepared(
    run: Run, parts: dict[str, list[Example]], data: dict[str, list[Example]], elmo: str
) -> tuple[ElmoTaskModel, dict[str, list[dict[str, Tensor]]]]:
    """A new task model, and the batches of both parts."""
    task = TASKS[run.task]
    model_class, config, size = RECIPES[task.recipe]
    collate, labels = collator(task.recipe, data)
    settings = dict(parse_setting(text) for text in [*task.settings, *elmo_settings(run)])
    fields = config | VECTORS | settings
    if labels:
        fields["id2label"] = dict(enumerate(labels))
    tokenizer = load_tokenizer(elmo)
    fields["vocab_size"] = tokenizer.vocab_size
    torch.manual_seed(0)
    model, _ = load_model(elmo, model_class, needs="elmo.", **fields)
    if model.config.reads_elmo:
        model.elmo_cache = ElmoLayerCache()
    parts = longest_first(parts) | {"train": sorted(parts["train"], key=lambda row: len(row["tokens"]))}
    batches = {
        split: [collate(tokenizer, rows[start : start + size]) for start in range(0, len(rows), size)]
        for split, rows in parts.items()
    }
    return model, batches


def collator(recipe: str, data: dict[str, list[Example]]) -> tuple[Collate, list[str]]:
    if recipe in ("finetune_ner.py", "finetune_srl.py"):
        labels = labels_of(data, scheme="BIO")
        return collate_words(labels), labels
    if recipe in ("finetune_sst.py", "finetune_nli.py"):
        labels = finetune_sst.LABELS if recipe == "finetune_sst.py" else finetune_nli.LABELS
        return collate_texts(labels), labels
    return (squad.collate if recipe == "finetune_squad.py" else collate_documents), []


def train_epoch(model: ElmoTaskModel, batches: list[dict[str, Tensor]]) -> None:
    model.train()
    learnt = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(learnt, lr=1e-4, fused=True)
    for batch in batches:
        optimizer.zero_grad()
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(learnt, 5.0)
        optimizer.step()


def evaluate_epoch(model: Any, batches: list[dict[str, Tensor]]) -> None:
    model.eval()
    for batch in batches:
        model.decode(**{name: value for name, value in batch.items() if name not in LABELS})


def seconds(call: Callable[[], None]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def plain_seconds(*calls: Callable[[], None]) -> Any:
    with plain_definitions():
        return tuple(seconds(call) for call in calls)


@contextmanager
def plain_definitions() -> Iterator[None]:
    """What was there before: all pairs of labels, all padding of letters, all steps of highway LSTMs kept,
    and torch's GRU."""
    steps = cells_elmo._highway_steps
    with (
        patch.object(crf_elmo.ElmoBIOSteps, "fits", staticmethod(lambda labels, scheme: False)),
        patch.object(task_elmo.ElmoTaskWords, "_without_padding", lambda self, characters: characters),
        patch.object(cells_elmo, "_highway_steps", lambda *inputs, keeps_steps=True: steps(*inputs)),
        patch.object(cells_elmo.ElmoGRU, "forward", torch.nn.GRU.forward),
    ):
        yield


if __name__ == "__main__":
    main()
