"""The run of a recipe: a model on a pretrained biLM, a Trainer for each seed, results.json.

A recipe describes its model, settings, batches and scores in a `Task`, and calls `finetune`. For each seed
a `Trainer` trains until the dev score has not risen for some epochs, returns to the best epoch, and is
evaluated on the test set. `results.json` in the folder of the run has every setting and every score.
"""

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    PreTrainedConfig,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.integrations.integration_utils import (
    INTEGRATION_TO_CALLBACK,
    get_available_reporting_integrations,
)
from transformers.utils import logging as transformers_logging

from elmo_hf import kernels
from elmo_hf.errors import ElmoError, one_sentence, program_name
from elmo_hf.files import locked_folder, remove, whole_folder, write_json
from elmo_hf.finetuning.data import Example, drawn, longest_first, number_of_words
from elmo_hf.finetuning.evaluation import (
    EVALUATION_BATCHES,
    PREDICTIONS,
    check_output,
    check_task,
    judge,
    predict,
    rounded,
    versions,
    write_predictions,
)
from elmo_hf.finetuning.flags import RESULTS, command
from elmo_hf.finetuning.resuming import inputs_of, read_before, written_to
from elmo_hf.finetuning.trainers import AveragingTrainer as AveragingTrainer
from elmo_hf.finetuning.trainers import DecodingTrainer, trained
from elmo_hf.finetuning.trainers import WeightAverage as WeightAverage
from elmo_hf.finetuning.word_vectors import (
    check_known,
    is_word_of_a_file,
    load_word_vectors,
    read_word_vectors,
    vector_size,
    with_words,
)
from elmo_hf.hub.results import Result, with_results
from elmo_hf.loading import damaged_weight, load_config, load_model, load_tokenizer, vocabulary_fields
from elmo_hf.model.cache_elmo import ElmoLayerCache
from elmo_hf.model.checks_elmo import shapes_of
from elmo_hf.model.configuration_elmo import ElmoConfig
from elmo_hf.model.modeling_elmo import ElmoModel
from elmo_hf.model.task_elmo import ElmoTaskModel
from elmo_hf.model.tokenization_elmo import ElmoTokenizer
from elmo_hf.pretraining.trackers import check_trackers, end_run, keep_offline, tracker_names
from elmo_hf.threads import use_threads

SMOKE_EPOCHS = 8
LOGS = "logs"  # folder of a tracker's files
NOT_PRINTED = ("dev_by_epoch",)  # what results.json has beside the line of a seed
# Fields of the config that no `--set` changes, besides those of every model of Transformers.
OF_THE_DATA = ("num_labels", "vocab_size", "bos_token_id", "eos_token_id", "unk_token_id", "pad_token_id")
OF_EVERY_MODEL = {*PreTrainedConfig.__annotations__, "torch_dtype"}  # the older name of "dtype"
OF_THE_EXAMPLES = ("classifier", "tag_scheme")  # each recipe has examples for one of them
CONFIG_FIELDS = [*ElmoConfig.__annotations__]  # in the order of the class
# Those of the biLM come first. Its weights fit no other values, even where their sizes are the same.
OF_THE_BILM = {*CONFIG_FIELDS[: CONFIG_FIELDS.index("elmo_at_input")]} - {"dropout", "use_warm_state"}
# The biLM of a smoke run is random and small, and so is the task model.
SMOKE_CONFIG = {"task_hidden_size": 40, "task_num_layers": 2}
SMOKE_ELMO: dict[str, Any] = {
    "lstm_dim": 64,
    "projection_dim": 32,
    "char_filters": [[1, 16], [2, 16], [3, 32]],
    "vocab_size": 3,
}


@dataclass
class Task:
    """What a recipe defines.

    Attributes:
        name: the task's name in the results.
        model_class: the task model.
        config: fields of ElmoConfig.
        collate: examples to a batch.
        score: `compute_metrics` of the Trainer, on what `model.decode` returned.
        best: the score that decides when to stop.
        optimizers: further optimizers by name; "adam" is always there.
        trainer: the class of the Trainer; None for DecodingTrainer.
        length: examples of similar length share a batch, for less padding. None where the label may depend on
            the length, since batches of one label train badly.
        details: further entries of results.json, from the model's config.
        splitter: how the task's texts are split into words, if not by the biLM's own rule.
        predicted: what `--predictions` writes for each example, from the Trainer's evaluation.
    """

    name: str
    model_class: type[ElmoTaskModel]
    config: dict[str, Any]
    collate: Callable[[ElmoTokenizer, list[Example]], dict[str, Tensor]]
    score: Callable[[EvalPrediction], dict[str, float]]
    best: str
    optimizers: Mapping[str, Callable[..., torch.optim.Optimizer]] = field(default_factory=dict)
    trainer: Callable[..., "DecodingTrainer"] | None = None
    length: Callable[[Example], int] | None = number_of_words
    details: Callable[[ElmoConfig], dict[str, Any]] = lambda config: {}
    splitter: str | None = None
    predicted: Callable[[EvalPrediction, list[Example]], list[dict[str, Any]]] | None = None


# ---- the model to start from


@dataclass
class Start:
    """What every seed starts from, checked before anything is written."""

    flags: argparse.Namespace
    model_class: type[ElmoTaskModel]
    fields: dict[str, Any]  # of ElmoConfig, without those of the biLM
    config: ElmoConfig  # of these fields
    elmo: ElmoConfig  # of the biLM
    tokenizer: ElmoTokenizer
    words: list[str] | None  # the task's own, if it has word vectors

    def make(self) -> tuple[ElmoTaskModel, ElmoTokenizer]:
        """Return a model with the pretrained biLM, and its tokenizer with the task's own words."""
        flags, tokenizer, config = self.flags, self.tokenizer, self.fields
        if self.words is not None:
            tokenizer = with_words(tokenizer, self.words)
            config = config | vocabulary_fields(tokenizer)
        if flags.elmo:
            model, _ = load_model(flags.elmo, self.model_class, needs="elmo.", **config)
        else:
            model = self.model_class(ElmoConfig(**SMOKE_ELMO | config))
        if flags.vectors and model.config.task_word_dim:
            load_word_vectors(model, tokenizer, flags.vectors, flags.vector_scale)
        elif model.config.task_word_dim and flags.vector_scale != 1:
            with torch.no_grad():
                model.task_words.word_table.weight.mul_(flags.vector_scale)
        if flags.cache != "none" and model.config.reads_elmo and model.config.freeze_elmo:
            model.elmo_cache = ElmoLayerCache(flags.output if flags.cache == "disk" else None)
        return model, tokenizer


def prepare(task: Task, flags: argparse.Namespace, data: dict[str, list[Example]], **fields: Any) -> Start:
    """Check the flags, the config and the biLM; `fields` are further fields of ElmoConfig."""
    if flags.optimizer not in optimizers_of(task):
        known = ", ".join(optimizers_of(task))
        raise ElmoError(f"--optimizer must be one of {known}, but is {flags.optimizer!r}.")
    smoke = SMOKE_CONFIG if flags.smoke else {}
    settings = settings_of(task, flags)
    fields = task.config | smoke | fields | settings
    if flags.vectors and "task_word_dim" not in settings and fields.get("task_word_dim"):
        fields["task_word_dim"] = vector_size(flags.vectors)
    config = ElmoConfig(**fields)  # raises where a field is wrong
    if flags.vectors and not config.task_word_dim:
        raise ElmoError("--vectors needs a table of the task's own words; add --set task_word_dim=N.")
    if flags.elmo_learning_rate is not None and (config.freeze_elmo or not config.reads_elmo):
        raise ElmoError("--elmo-learning-rate needs a biLM that learns; add --set freeze_elmo=false.")
    if flags.elmo is None and not flags.smoke:
        raise ElmoError("name a pretrained biLM by --elmo, or try a random one by --smoke.")
    elmo = load_config(flags.elmo) if flags.elmo else ElmoConfig(**SMOKE_ELMO | fields)
    check_model(task.model_class, fields, elmo)
    tokenizer = (
        load_tokenizer(flags.elmo)
        if flags.elmo
        else ElmoTokenizer(max_characters_per_token=elmo.max_characters_per_token)
    )
    tokenizer.split_special_tokens = True  # `<S>` in a text is no boundary, also for the saved model's users
    if task.splitter is not None:
        tokenizer.word_splitter = task.splitter  # which is saved with it
    # A biLM with a word table has a vocabulary, which the task shares.
    elmo_has_words = elmo.token_encoder == "words" or elmo.reads_word_column
    has_words = config.task_word_dim > 0 and not elmo_has_words
    words = own_words(flags, data, config.task_word_dim) if has_words else None
    return Start(flags, task.model_class, fields, config, elmo, tokenizer, words)


def settings_of(task: Task, flags: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of `--set`; one that the recipe or its data decide is refused."""
    settings = dict(parse_setting(text) for text in flags.set)
    for name, value in settings.items():
        if name in OF_THE_DATA or name in OF_EVERY_MODEL:
            raise ElmoError(f"{name} follows from the data and the biLM; leave --set {name} out.")
        needed = task.config.get(name)
        if name in OF_THE_EXAMPLES and needed and value not in (needed, "none"):
            raise ElmoError(
                f"the examples of this recipe need the {name} {needed!r}; leave --set {name} out."
            )
    return settings


def check_model(model_class: type[ElmoTaskModel], fields: dict[str, Any], elmo: ElmoConfig) -> None:
    """Refuse fields that make no model, or one for a biLM of another size. This takes no memory."""
    shapes = shapes_of(model_class, ElmoConfig(**elmo.to_dict() | fields))
    wanted = {name: shape for name, shape in shapes.items() if name.startswith("elmo.")}
    pretrained = {f"elmo.{name}": shape for name, shape in shapes_of(ElmoModel, elmo).items()}
    if wanted and wanted != pretrained:  # a baseline without ELMo has no biLM
        raise ElmoError("--set gives the biLM other sizes than its weights have; set what is of the task.")
    for name in fields:
        if name in OF_THE_BILM and fields[name] != getattr(elmo, name):
            raise ElmoError(
                f"the biLM was trained with {name}={json.dumps(getattr(elmo, name))}; leave --set {name} out."
            )


def parse_setting(text: str) -> tuple[str, Any]:
    """Return the name and value of `--set NAME=VALUE`; the value is JSON, or otherwise a string."""
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def own_words(flags: argparse.Namespace, data: dict[str, list[Example]], dim: int) -> list[str]:
    """Return the words of the train sentences that are not rare, and those of all that `--vectors` has."""
    counts = Counter(word for example in data["train"] for word in example["tokens"])
    words = [word for word, count in counts.most_common() if count >= flags.min_count]
    if flags.vectors:
        all_words = {word for examples in data.values() for example in examples for word in example["tokens"]}
        candidates = sorted(all_words)
        is_known = read_word_vectors(flags.vectors, candidates, dim)[1]
        check_known(flags.vectors, is_known, dim, "task")
        known = {word for word, is_there in zip(candidates, is_known.tolist(), strict=True) if is_there}
        words += sorted(known - {*words})
    special = ["<S>", "</S>", "<UNK>"]
    return special + [word for word in words if word not in special and is_word_of_a_file(word)]


# ---- the run


def finetune(
    task: Task, flags: argparse.Namespace, data: dict[str, list[Example]], **fields: Any
) -> dict[str, Any]:
    """Train and evaluate a model for each seed.

    Args:
        task: the recipe's definitions.
        flags: the command line's, of `make_parser`.
        data: the train, dev and test examples.
        fields: fields of ElmoConfig besides those of the task.

    The same command goes on with the seeds that are not finished, also with further seeds.

    Returns:
        The content of results.json, which is written after each seed; with `--evaluate`, which trains
        nothing, that of evaluation.json.
    """
    check_task(task, flags)
    use_threads(flags.threads)
    if flags.evaluate is not None:
        return judge(task, flags, data)
    output = Path(flags.output)
    check_output(output)
    if (output / "config.json").exists():
        raise ElmoError(f"{output} is the folder of a model; name another --output for the run.")
    keep_offline(flags.report_to)
    installed = get_available_reporting_integrations()
    check_trackers(tracker_names(flags.report_to), INTEGRATION_TO_CALLBACK, installed)
    if len(set(flags.seeds)) < len(flags.seeds):
        raise ElmoError(f"--seeds names a seed twice: {' '.join(map(str, flags.seeds))}.")
    given = drawn(data, flags)
    data = longest_first(given)
    start = prepare(task, flags, data, **fields)
    settings = {"task": task.name, "flags": vars(flags), "inputs": inputs_of(flags, data)}
    settings["examples"] = {split: len(examples) for split, examples in data.items()}
    details = task.details(start.config)
    with locked_folder(output):
        results = read_before(output, settings)
        runs = results.get("runs", {})
        for seed in flags.seeds:
            if str(seed) not in runs:
                with written_to(output):
                    runs[str(seed)], config = run_seed(task, start, data, seed)
                results = settings | {"config": config, "runs": runs, "mean": mean_scores(runs)}
                results |= {"versions": versions(), **details}
                write_json(output / RESULTS, results)
            if flags.predictions:
                write_missing_predictions(task, flags, given, seed)
            scores = {name: value for name, value in runs[str(seed)].items() if name not in NOT_PRINTED}
            print(json.dumps({"seed": seed} | scores), flush=True)
    return results


def prediction_files(flags: argparse.Namespace, seed: int) -> dict[str, Path]:
    folder = Path(flags.output) / PREDICTIONS
    return {split: folder / f"seed-{seed}-{split}.jsonl" for split in ("dev", "test")}


def write_missing_predictions(
    task: Task, flags: argparse.Namespace, data: dict[str, list[Example]], seed: int
) -> None:
    """Write the predictions of a seed's saved model, if they are not there."""
    output, files = Path(flags.output), prediction_files(flags, seed)
    missing = [split for split, path in files.items() if not path.exists()]
    if not missing:
        return
    model, _ = load_model(output / f"seed-{seed}", task.model_class)
    tokenizer = load_tokenizer(output / f"seed-{seed}")
    for split in missing:
        _, rows = predict(task, flags, model, tokenizer, data[split])
        write_predictions(files[split], rows)


def run_seed(
    task: Task, start: Start, data: dict[str, Any], seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the scores of a seed, and the config of its model."""
    set_seed(seed)
    flags = start.flags
    folder, checkpoints = Path(flags.output) / f"seed-{seed}", checkpoints_of(flags, seed)
    for old in (checkpoints, *prediction_files(flags, seed).values()):  # of a run that was killed or given up
        remove(old)
    model, tokenizer = start.make()
    trainer = make_trainer(task, flags, data, seed, model, tokenizer)
    wall_start, cpu_start = time.perf_counter(), time.process_time()
    # A cached biLM is frozen, so its weights need not be compared for each batch.
    with kernels.frozen(model.elmo) if model.elmo_cache is not None else nullcontext():
        trainer.train()
    if damaged_weight(model) is not None:
        remove(checkpoints)
        raise ElmoError("the training diverged: the weights became infinite; lower --learning-rate.")
    by_epoch = epochs_of(trainer.state.log_history)
    scores: dict[str, Any] = {split: rounded(trainer.evaluate(data[split])) for split in ("dev", "test")}
    end_run(flags.report_to)
    seconds, cpu_seconds = time.perf_counter() - wall_start, time.process_time() - cpu_start
    with whole_folder(folder) as unfinished:
        model.save_pretrained(unfinished)  # not by the Trainer, which would add a pickle, training_args.bin
        tokenizer.save_pretrained(unfinished)
        write_evaluation(unfinished / "results" / f"evaluation-{task.name}.json", scores, seed)
    remove(checkpoints)  # the best epoch, which has just been saved
    scores |= {"epochs": round(trainer.state.epoch or 0), "best_epoch": best_epoch(trainer)}
    times = {"seconds": round(seconds, 1), "processor_seconds": round(cpu_seconds, 1)}
    scores |= times | {"dev_by_epoch": by_epoch}
    return scores | mixes_of(model), model.config.to_diff_dict()


def epochs_of(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """Return the mean train loss and the dev scores of each epoch, from a Trainer's log."""
    epochs: dict[int, dict[str, float]] = {}
    for entry in history:
        epoch = epochs.setdefault(round(entry["epoch"]), {})
        epoch |= {"loss": round(entry["loss"], 5)} if "loss" in entry else {}
        epoch |= rounded({name: value for name, value in entry.items() if name.startswith("eval_")})
    return [{"epoch": number} | scores for number, scores in sorted(epochs.items())]


def mixes_of(model: ElmoTaskModel) -> dict[str, Any]:
    """Return the shares of the layers in each learnt mix, from the bottom layer up, and its scale."""
    mixes = {"input": model.input_mix, "output": model.output_mix}
    learnt = {
        name: {
            "shares": [round(share, 5) for share in mix.weights[0].softmax(dim=-1).tolist()],
            "gamma": round(float(mix.gamma[0].detach()), 5),
        }
        for name, mix in mixes.items()
        if mix is not None
    }
    return {"mix": learnt} if learnt else {}


def make_trainer(
    task: Task,
    flags: argparse.Namespace,
    data: dict[str, Any],
    seed: int,
    model: ElmoTaskModel,
    tokenizer: ElmoTokenizer,
) -> DecodingTrainer:
    trainer = (task.trainer or DecodingTrainer)(
        model,
        arguments(flags, seed, task.best),
        data_collator=lambda examples: task.collate(tokenizer, examples),
        train_dataset=flags.passes * data["train"],
        eval_dataset=data["dev"],
        processing_class=tokenizer,
        compute_metrics=task.score,
        optimizers=(make_optimizer(task, flags, model), None),
        callbacks=[EarlyStoppingCallback(flags.patience)],
    )
    trainer.length = task.length
    for callback in trainer.callback_handler.callbacks:
        if getattr(callback, "logging_dir", "") is None:  # tensorboard's would be in the checkpoints' folder
            callback.logging_dir = str(Path(flags.output) / LOGS / f"seed-{seed}")
    return trainer


def make_optimizer(task: Task, flags: argparse.Namespace, model: ElmoTaskModel) -> torch.optim.Optimizer:
    """A biLM that is tuned with the task may have a learning rate of its own."""
    make = optimizers_of(task)[flags.optimizer]
    if flags.elmo_learning_rate is None:
        return make([weight for _, weight in trained(model)], lr=flags.learning_rate)
    of_elmo = [weight for name, weight in trained(model) if name.startswith("elmo.")]
    others = [weight for name, weight in trained(model) if not name.startswith("elmo.")]
    groups = [{"params": others}, {"params": of_elmo, "lr": flags.elmo_learning_rate}]
    return make(groups, lr=flags.learning_rate)


def optimizers_of(task: Task) -> dict[str, Callable[..., torch.optim.Optimizer]]:
    return {"adam": partial(torch.optim.Adam, fused=True), **task.optimizers}


def write_evaluation(path: Path, scores: dict[str, Any], seed: int) -> None:
    """Write a seed's scores beside its model, as `evaluation-DATA.json` of its card's results."""
    rows = [
        {"dataset": path.stem.partition("-")[2], "split": split, "metric": metric, "value": value}
        for split, metrics in scores.items()
        for metric, value in metrics.items()
    ]
    content = {"command": command(), "seed": seed, "mean": scores}
    write_json(path, with_results(content, Result("evaluation", rows)))


def best_epoch(trainer: Trainer) -> int:
    """Return the epoch whose weights the model has."""
    steps_an_epoch = trainer.state.max_steps / trainer.args.num_train_epochs
    return round((trainer.state.best_global_step or 0) / steps_an_epoch)


def checkpoints_of(flags: argparse.Namespace, seed: int) -> Path:
    return Path(flags.output) / f"checkpoints-{seed}"


def arguments(flags: argparse.Namespace, seed: int, best: str) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(checkpoints_of(flags, seed)),
        num_train_epochs=min(flags.epochs, SMOKE_EPOCHS) if flags.smoke else flags.epochs,
        per_device_train_batch_size=flags.batch_size,
        per_device_eval_batch_size=EVALUATION_BATCHES * flags.batch_size,
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
        report_to=tracker_names(flags.report_to),
        run_name=f"{Path(flags.output).resolve().name}-seed-{seed}",
        project="elmo",
        disable_tqdm=not sys.stderr.isatty(),  # a file would get a line for every step
        dataloader_pin_memory=torch.cuda.is_available(),
        seed=seed,
    )


def mean_scores(runs: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return the mean of each score over the seeds; with several seeds, also its standard deviation."""
    means: dict[str, dict[str, float]] = {}
    for split in ("dev", "test"):
        means[split] = {}
        for name in next(iter(runs.values()))[split]:
            values = [run[split][name] for run in runs.values()]
            means[split][name] = round(statistics.mean(values), 5)
            if len(values) > 1:
                means[split][f"{name}_deviation"] = round(statistics.stdev(values), 5)
    return means


def run(main: Callable[[], Any]) -> None:
    """Run a recipe; a mistake in its input ends it with one sentence."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    with one_sentence(program_name()):
        main()
