"""What the recipes finetune_<task>.py share: flags, sentences from files, a model to start from, the run.

A recipe says in a `Task` what its model, its settings, its batches and its scores are, and calls `finetune`:
for every seed a `Trainer` learns until the dev score has not risen for some epochs, goes back to the best
epoch, and is judged on the test set. `results.json` in the run's folder holds every setting and every score.
"""

import argparse
import json
import lzma
import platform
import random
import shlex
import shutil
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from torch.utils.data import Sampler
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.utils import logging as transformers_logging

from elmo_hf.files import write_json
from elmo_hf.finetuning.flags import SPLITS
from elmo_hf.finetuning.word_vectors import load_word_vectors, read_word_vectors
from elmo_hf.loading import load_config, load_model, load_tokenizer, special_ids
from elmo_hf.model.cache_elmo import ElmoLayerCache
from elmo_hf.model.configuration_elmo import ElmoConfig
from elmo_hf.model.task_elmo import ElmoTaskModel
from elmo_hf.model.tokenization_elmo import ElmoTokenizer

Example = dict[str, Any]  # `tokens` and what the task wants to know of them
EVALUATED_TIMES = 4  # as many examples at once as in training: there are no gradients to keep
SMOKE_EPOCHS = 8
SMOKE_EXAMPLES = {"train": 300, "dev": 100, "test": 100}
# The biLM of a smoke run is random and small, and so is what stands on it.
SMOKE_CONFIG = {"task_hidden_size": 40, "task_num_layers": 2}
SMOKE_ELMO: dict[str, Any] = {
    "lstm_dim": 64,
    "projection_dim": 32,
    "char_filters": [[1, 16], [2, 16], [3, 32]],
    "vocab_size": 3,
}


def number_of_words(one: Example) -> int:
    return len(one["tokens"])


@dataclass
class Task:
    """What a recipe knows of its task."""

    name: str
    model_class: type[ElmoTaskModel]
    config: dict[str, Any]  # fields of ElmoConfig
    collate: Callable[[ElmoTokenizer, list[Example]], dict[str, torch.Tensor]]
    score: Callable[[EvalPrediction], dict[str, float]]  # of what `model.decode` gave
    best: str  # the score that decides when to stop
    optimizers: Mapping[str, Callable[..., torch.optim.Optimizer]] = field(
        default_factory=dict
    )  # besides Adam
    trainer: Callable[..., "DecodingTrainer"] | None = None  # DecodingTrainer, if left out
    # Examples of like length share a batch, so that less padding is read. None, where an example's label may
    # go with its length: batches of one label teach badly.
    length: Callable[[Example], int] | None = number_of_words


# ---- sentences


def read_splits(
    flags: argparse.Namespace,
    read: Callable[[Path], list[Example]],
    from_row: Callable[[Example], list[Example]],
) -> dict[str, list[Example]]:
    """Examples of train, dev and test: from files by `read`, or from a dataset's rows by `from_row`."""
    if (flags.data is None) == (flags.train is None):
        raise ValueError("name files by --train, --dev and --test, or a dataset by --data.")
    if flags.data is None:
        for split in SPLITS:
            if not getattr(flags, split):
                raise ValueError(f"name the files of the {split} sentences by --{split}.")
        data = {
            split: [one for path in getattr(flags, split) for one in read(Path(path))] for split in SPLITS
        }
    else:
        data = read_dataset(flags.data, from_row)
    for split, examples in data.items():
        if not examples:
            raise ValueError(f"there are no examples in the {split} sentences.")
        limit = flags.limit or (SMOKE_EXAMPLES[split] if flags.smoke else None)
        data[split] = examples[:limit]
    return data


def read_dataset(name: str, from_row: Callable[[Example], list[Example]]) -> dict[str, list[Example]]:
    found = load_dataset(name)
    names = {"train": "train", "dev": "dev" if "dev" in found else "validation", "test": "test"}
    return {
        split: [one for row in with_names(rows) for one in from_row(row)]
        for split, rows in splits_of(name, found, names).items()
    }


def load_dataset(name: str) -> Mapping[str, Any]:
    """Its splits, from a folder or the Hub."""
    import datasets

    try:
        saved = Path(name, "dataset_dict.json").exists()
        return datasets.load_from_disk(name) if saved else datasets.load_dataset(name)
    except OSError as error:
        raise ValueError(f"no dataset could be read from {name} ({str(error).splitlines()[0]}).") from None


def splits_of(name: str, found: Mapping[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """By our names for them, which stand before those of the dataset."""
    for wanted in names.values():
        if wanted not in found:
            raise ValueError(f"{name} has no split '{wanted}', but {', '.join(found)}.")
    return {split: found[theirs] for split, theirs in names.items()}


def with_names(dataset: Any) -> Any:
    """Rows with labels as names, where the dataset holds them as numbers of a `ClassLabel`: one number, or
    one for each word."""
    kinds = {name: getattr(kind, "feature", kind) for name, kind in dataset.features.items()}
    for row in dataset:
        yield {name: named(value, getattr(kinds[name], "names", None)) for name, value in row.items()}


def named(value: Any, names: Sequence[str] | None) -> Any:
    """Below zero there is no label, as where SNLI's annotators did not agree."""
    if names is None or value is None:
        return value
    if isinstance(value, int):
        return names[value] if value >= 0 else None
    return [named(number, names) for number in value]


def first_column(row: Example, names: Sequence[str]) -> Any:
    for name in names:
        if name in row:
            return row[name]
    raise ValueError(f"the dataset has no column {' or '.join(names)}, but {', '.join(row)}.")


def read_columns(path: Path) -> list[list[list[str]]]:
    """Sentences of lines of columns, from a file in which a blank line ends a sentence; `.xz` is unpacked.

    Sentences `-DOCSTART-` are left out, and so are comments: lines that begin with `#` and have not the
    columns of the others, for `#` may also be a word.
    """
    sentences: list[list[str]] = [[]]
    for line in read_text(path).split("\n"):
        line = line.rstrip("\r")
        if line.strip():
            sentences[-1].append(line)
        else:
            sentences.append([])
    usual = next((line for lines in sentences for line in lines if not line.startswith("#")), "")
    found = (without_comments(lines, usual) for lines in sentences)
    return [sentence for sentence in found if sentence and sentence[0][0] != "-DOCSTART-"]


def without_comments(lines: list[str], usual: str) -> list[list[str]]:
    """The columns of a sentence's lines. `usual` is a line of another one, if this has comments alone."""
    word = next((line for line in reversed(lines) if not line.startswith("#")), usual)
    rows = [(line, columns_of(line)) for line in lines]
    return [
        columns
        for line, columns in rows
        if not line.startswith("#")
        or (("\t" in line) == ("\t" in word) and len(columns) == len(columns_of(word)))
    ]


def columns_of(line: str) -> list[str]:
    return line.split("\t") if "\t" in line else line.split()


def read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
        return (lzma.decompress(content) if path.suffix == ".xz" else content).decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path} could not be read ({error.strerror}).") from None
    except (UnicodeDecodeError, lzma.LZMAError):
        raise ValueError(f"{path} is no text in UTF-8, or is damaged.") from None


def drawn(data: dict[str, list[Example]], flags: argparse.Namespace) -> dict[str, list[Example]]:
    """As many examples as `--train-size` and its like say, in their order. They are the same for all runs,
    and those of a smaller size are among those of a larger one."""
    kept = {}
    for split, examples in data.items():
        size = getattr(flags, f"{split}_size", None)
        if size is not None and not 1 <= size <= len(examples):
            raise ValueError(f"--{split}-size must be from 1 to {len(examples)}, but is {size}.")
        shuffled = random.Random(0).sample(range(len(examples)), len(examples))
        kept[split] = [examples[place] for place in sorted(shuffled[:size])]
    return kept


def longest_first(data: dict[str, list[Example]]) -> dict[str, list[Example]]:
    """Dev and test examples in the order of their length, so that little padding is read, and too little
    memory shows at once."""
    return data | {split: sorted(data[split], key=number_of_words, reverse=True) for split in ("dev", "test")}


def labels_of(data: dict[str, list[Example]], scheme: str | None = None) -> list[str]:
    """Names of all labels, in an order that does not depend on the sentences'. With scheme BIO, every I- has
    its B-, and O is there."""
    found = {label for examples in data.values() for one in examples for label in one["labels"]}
    if scheme == "BIO":
        found |= {"O"} | {"B-" + label[2:] for label in found if label.startswith("I-")}
    return sorted(found, key=lambda label: (label != "O", label[2:], label))


# ---- what to start from


@dataclass
class Start:
    """What every seed starts from, looked at before anything is written."""

    flags: argparse.Namespace
    model_class: type[ElmoTaskModel]
    config: dict[str, Any]  # fields of ElmoConfig, without those of the biLM
    elmo: ElmoConfig
    tokenizer: ElmoTokenizer
    words: list[str] | None  # the task's own, if it has vectors of words

    def make(self) -> tuple[ElmoTaskModel, ElmoTokenizer]:
        """A model with the pretrained biLM, and its tokenizer with the task's own words."""
        flags, tokenizer, config = self.flags, self.tokenizer, self.config
        if self.words is not None:
            path = Path(flags.output) / "vocab.txt"
            path.write_text("".join(word + "\n" for word in self.words), encoding="utf-8")
            tokenizer = ElmoTokenizer(path, self.elmo.max_characters_per_token, tokenizer.word_splitter)
            config = config | {"vocab_size": tokenizer.vocab_size, **special_ids(tokenizer)}
        if flags.elmo:
            model, _ = load_model(flags.elmo, self.model_class, needs="elmo.", **config)
        else:
            model = self.model_class(ElmoConfig(**SMOKE_ELMO | config))
        if flags.vectors and model.config.task_word_dim:
            load_word_vectors(model, tokenizer, flags.vectors)
        if flags.cache != "none" and model.config.reads_elmo and model.config.freeze_elmo:
            model.elmo_cache = ElmoLayerCache(flags.output if flags.cache == "disk" else None)
        return model, tokenizer


def prepare(task: Task, flags: argparse.Namespace, data: dict[str, list[Example]], **config: Any) -> Start:
    if flags.optimizer not in optimizers_of(task):
        known = ", ".join(optimizers_of(task))
        raise ValueError(f"--optimizer must be one of {known}, but is {flags.optimizer!r}.")
    smoke = SMOKE_CONFIG if flags.smoke else {}
    config = task.config | smoke | config | dict(parse_setting(text) for text in flags.set)
    checked = ElmoConfig(**config)  # says what is wrong with it
    if flags.vectors and not checked.task_word_dim:
        raise ValueError(
            "--vectors are those of the task's own words; give them room by --set task_word_dim=N."
        )
    if flags.elmo is None and not flags.smoke:
        raise ValueError("say by --elmo which pretrained biLM to read, or try things out with --smoke.")
    elmo = load_config(flags.elmo) if flags.elmo else ElmoConfig(**SMOKE_ELMO)
    tokenizer = load_tokenizer(flags.elmo) if flags.elmo else ElmoTokenizer()
    # A biLM with a word table has words of its own, and the task shares them.
    has_words = checked.task_word_dim > 0 and elmo.token_encoder == "characters"
    words = own_words(flags, data, checked.task_word_dim) if has_words else None
    return Start(flags, task.model_class, config, elmo, tokenizer, words)


def parse_setting(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def own_words(flags: argparse.Namespace, data: dict[str, list[Example]], dim: int) -> list[str]:
    """Words of the train sentences, and all that the file of vectors knows; rarer ones are read as <UNK>."""
    counts = Counter(word for one in data["train"] for word in one["tokens"])
    words = [word for word, count in counts.most_common() if count >= flags.min_count]
    if flags.vectors:
        others = sorted(
            {word for examples in data.values() for one in examples for word in one["tokens"]} - {*words}
        )
        known = read_word_vectors(flags.vectors, others, dim)[1].tolist()
        words += [word for word, is_known in zip(others, known, strict=True) if is_known]
    special = ["<S>", "</S>", "<UNK>"]
    return special + [word for word in words if word not in special and word.split() == [word]]


# ---- the run


class DecodingTrainer(Trainer):
    """Is judged by what the model decides, `decode`, and not by its logits. Nothing is chosen by the loss on
    other examples than those of training, so nobody waits for it."""

    length: Callable[[Example], int] | None = None  # see Task

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        if self.length is None:
            return super()._get_train_sampler(train_dataset)
        examples: Any = self.train_dataset if train_dataset is None else train_dataset
        return LengthGroupedSampler(
            self.args.train_batch_size, lengths=[self.length(one) for one in examples]
        )

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Any, Any, Any]:
        inputs = self._prepare_inputs(inputs)
        labels = {name: value for name, value in inputs.items() if name in self.label_names}
        read = {name: value for name, value in inputs.items() if name not in labels}
        found = self.accelerator.unwrap_model(model).decode(**read)
        return None, found, tuple(labels.values()) if len(labels) > 1 else next(iter(labels.values()))


def finetune(
    task: Task, flags: argparse.Namespace, data: dict[str, list[Example]], **config: Any
) -> dict[str, Any]:
    """A run for each seed; returns what stands in results.json."""
    output = Path(flags.output)
    check_output(output)
    if len(set(flags.seeds)) < len(flags.seeds):
        raise ValueError(f"--seeds names one twice: {' '.join(map(str, flags.seeds))}.")
    data = longest_first(drawn(data, flags))
    start = prepare(task, flags, data, **config)
    output.mkdir(parents=True, exist_ok=True)
    runs: dict[str, Any] = {}
    for seed in flags.seeds:
        runs[str(seed)], used = run_seed(task, start, data, seed)
        sizes = {split: len(examples) for split, examples in data.items()}
        results = {"task": task.name, "flags": vars(flags), "examples": sizes, "config": used, "runs": runs}
        results |= {"mean": mean_scores(runs), "versions": versions()}
        write_json(output / "results.json", results)
        print(json.dumps({"seed": seed} | runs[str(seed)]), flush=True)
    return results


def check_output(output: Path) -> None:
    if (output / "results.json").exists():
        raise ValueError(f"{output} holds the results of a run; name another --output.")
    there = next(path for path in (output, *output.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ValueError(f"{there} is a file, and no folder for a run; name another --output.")


def run_seed(
    task: Task, start: Start, data: dict[str, Any], seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores, and the settings of the model."""
    set_seed(seed)
    flags = start.flags
    model, tokenizer = start.make()
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    trainer = (task.trainer or DecodingTrainer)(
        model,
        arguments(flags, seed, task.best),
        data_collator=lambda examples: task.collate(tokenizer, examples),
        train_dataset=flags.passes * data["train"],
        eval_dataset=data["dev"],
        processing_class=tokenizer,
        compute_metrics=task.score,
        optimizers=(optimizers_of(task)[flags.optimizer](learnt, lr=flags.learning_rate), None),
        callbacks=[EarlyStoppingCallback(flags.patience)],
    )
    trainer.length = task.length
    begun, begun_working = time.perf_counter(), time.process_time()
    trainer.train()
    scores: dict[str, Any] = {split: trimmed(trainer.evaluate(data[split])) for split in ("dev", "test")}
    seconds, working = time.perf_counter() - begun, time.process_time() - begun_working
    folder = Path(flags.output) / f"seed-{seed}"
    model.save_pretrained(folder)  # not by Trainer, which would add a pickle, training_args.bin
    tokenizer.save_pretrained(folder)
    write_evaluation(folder / "results" / f"evaluation-{task.name}.json", scores, seed)
    shutil.rmtree(str(trainer.args.output_dir))  # the best checkpoint, which has just been saved
    scores |= {"epochs": round(trainer.state.epoch or 0), "best_epoch": best_epoch(trainer)}
    times = {"seconds": round(seconds, 1), "processor_seconds": round(working, 1)}
    return scores | times, model.config.to_diff_dict()


def optimizers_of(task: Task) -> dict[str, Callable[..., torch.optim.Optimizer]]:
    return {"adam": partial(torch.optim.Adam, fused=True), **task.optimizers}


def write_evaluation(path: Path, scores: dict[str, Any], seed: int) -> None:
    """A seed's scores beside its model, as `elmo-hf card` reads them."""
    path.parent.mkdir()
    command = shlex.join(["python", f"training/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    write_json(path, {"command": command, "seed": seed, "mean": scores})


def best_epoch(trainer: Trainer) -> int:
    """The one that the model went back to."""
    steps_an_epoch = trainer.state.max_steps / trainer.args.num_train_epochs
    return round((trainer.state.best_global_step or 0) / steps_an_epoch)


def arguments(flags: argparse.Namespace, seed: int, best: str) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(Path(flags.output) / f"checkpoints-{seed}"),
        num_train_epochs=min(flags.epochs, SMOKE_EPOCHS) if flags.smoke else flags.epochs,
        per_device_train_batch_size=flags.batch_size,
        per_device_eval_batch_size=EVALUATED_TIMES * flags.batch_size,
        max_grad_norm=flags.clip,
        lr_scheduler_type="constant",
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="epoch",
        save_total_limit=1,
        save_only_model=True,
        load_best_model_at_end=True,
        metric_for_best_model=best,
        greater_is_better=True,
        label_names=["labels"],
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=not sys.stderr.isatty(),  # a file would hold a line for every step
        dataloader_pin_memory=torch.cuda.is_available(),
        seed=seed,
    )


def trimmed(scores: dict[str, float]) -> dict[str, float]:
    timing = ("runtime", "per_second", "epoch")
    return {
        name.removeprefix("eval_"): round(value, 5)
        for name, value in scores.items()
        if not any(word in name for word in timing)
    }


def mean_scores(runs: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Over the seeds; with several, their standard deviation beside it."""
    means: dict[str, dict[str, float]] = {}
    for split in ("dev", "test"):
        means[split] = {}
        for name in next(iter(runs.values()))[split]:
            values = [run[split][name] for run in runs.values()]
            means[split][name] = round(statistics.mean(values), 5)
            if len(values) > 1:
                means[split][f"{name}_deviation"] = round(statistics.stdev(values), 5)
    return means


def versions() -> dict[str, str]:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu"
    return {"torch": torch.__version__, "transformers": transformers.__version__, "device": device}


def run(main: Callable[[], Any]) -> None:
    """A recipe; a mistake in its input ends it with a sentence."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        main()
    except ValueError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
