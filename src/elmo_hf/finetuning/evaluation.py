"""A saved task model on other data (`--evaluate MODEL --test FILE`), and predictions in files.

    python training/finetune_ner.py --evaluate runs/ner/seed-0 --test web.conll --predictions --output judged

A file of predictions has a line of JSON for each example, in the order of the data. A saved model has its own
vectors for the words of the texts that it was trained and evaluated on, and takes all others for unknown;
`--vectors`, the file with which it was trained, adds those of the new file.
"""

import argparse
import json
import platform
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers import TrainingArguments

from elmo_hf.errors import ElmoError
from elmo_hf.files import remove, whole_file, write_json
from elmo_hf.finetuning.data import Example, drawn, labels_in, labels_of_model, longest_first
from elmo_hf.finetuning.flags import command
from elmo_hf.finetuning.trainers import DecodingTrainer, Recorder
from elmo_hf.finetuning.word_vectors import add_words
from elmo_hf.loading import load, load_config
from elmo_hf.model.task_elmo import ElmoTaskModel
from elmo_hf.model.tokenization_elmo import ElmoTokenizer

if TYPE_CHECKING:
    from elmo_hf.finetuning.run import Task

EVALUATION_BATCHES = 4  # times the training batch: there are no gradients to keep
OF_TRAINING = ("train", "dev", "set")  # flags that an evaluation does not read
PREDICTIONS = "predictions"  # folder of the files
EVALUATION = "evaluation.json"


def check_task(task: "Task", flags: argparse.Namespace) -> None:
    """Refuse flags that exclude each other, or that this recipe cannot serve."""
    if flags.predictions and task.predicted is None:
        raise ElmoError(f"the recipe {task.name} writes no predictions; leave --predictions out.")
    if flags.predictions and flags.output is None:
        raise ElmoError("--predictions needs a folder for its files; name one by --output.")
    if flags.evaluate is not None and flags.elmo is not None:
        raise ElmoError("--evaluate names a saved model, which has its biLM; leave --elmo out.")
    unread = [f"--{name}" for name in OF_TRAINING if getattr(flags, name)]
    unread += ["--vector-scale"] if flags.vector_scale != 1 else []
    if flags.evaluate is not None and unread:
        raise ElmoError(
            f"--evaluate judges a saved model as it is, on --test alone; leave {' and '.join(unread)} out."
        )


def check_class(name: str, wanted: str) -> None:
    """Refuse a model of another task, whose weights would not fit."""
    classes = load_config(name).architectures or [wanted]
    if wanted not in classes:
        raise ElmoError(
            f"{name} is an {', '.join(classes)}, and this recipe judges an {wanted}; use the recipe that "
            "trained it."
        )


def check_labels(name: str, examples: list[Example]) -> None:
    """Refuse words whose labels are all unknown to the model: it would be wrong everywhere."""
    labels = labels_in(examples) - {"O"}
    own = labels_of_model(name)
    if labels and labels.isdisjoint(own):
        raise ElmoError(
            f"{name} predicts labels such as {own[-1]}, and none of those of the test sentences, such as "
            f"{min(labels)}; is it a model of this task, and are the labels in the right column?"
        )


def check_output(output: Path) -> None:
    nearest = next(path for path in (output, *output.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise ElmoError(f"{nearest} is a file, and no folder for a run; name another --output.")


def judge(task: "Task", flags: argparse.Namespace, data: dict[str, list[Example]]) -> dict[str, Any]:
    """Evaluate the saved model that `--evaluate` names on the test examples.

    Returns:
        The scores and what they are of, which are printed, and written to `evaluation.json` if there is a
        folder for it.
    """
    check_class(flags.evaluate, task.model_class.__name__)
    check_labels(flags.evaluate, data["test"])
    if flags.output is not None:
        check_output(Path(flags.output))
    examples = drawn({"test": data["test"]}, flags)["test"]
    model, tokenizer = load(flags.evaluate, task.model_class)
    own_words = model.config.vocab_size
    if flags.vectors:
        words = (word for example in examples for word in example["tokens"])
        tokenizer = add_words(model, tokenizer, words, flags.vectors)
    scores, rows = predict(task, flags, model, tokenizer, examples)
    results: dict[str, Any] = {"task": task.name, "model": str(flags.evaluate), "command": command()}
    results |= {"examples": {"test": len(examples)}, "added_words": model.config.vocab_size - own_words}
    results |= {"scores": {"test": scores}, "versions": versions()}
    if flags.output is not None:
        folder = Path(flags.output)
        predictions = folder / PREDICTIONS / "test.jsonl"
        remove(predictions)  # of another evaluation
        if flags.predictions:
            write_predictions(predictions, rows)
        write_json(folder / EVALUATION, results)
    print(json.dumps({"model": results["model"], "test": scores}), flush=True)
    return results


def predict(
    task: "Task",
    flags: argparse.Namespace,
    model: ElmoTaskModel,
    tokenizer: ElmoTokenizer,
    examples: list[Example],
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Return the scores of a model, and (with `--predictions`) a row for each example, in their order."""
    longest: Any = longest_first({"test": examples})["test"]
    recorder = Recorder(task.score)
    with tempfile.TemporaryDirectory() as folder:
        trainer = (task.trainer or DecodingTrainer)(
            model,
            evaluation_arguments(flags, folder),
            data_collator=lambda batch: task.collate(tokenizer, batch),
            eval_dataset=longest,
            processing_class=tokenizer,
            compute_metrics=recorder,
        )
        scores = rounded(trainer.evaluate(longest))
    if not flags.predictions or task.predicted is None or recorder.last is None:
        return scores, []
    rows = dict(zip(map(id, longest), task.predicted(recorder.last, longest), strict=True))
    return scores, [rows[id(example)] for example in examples]


def evaluation_arguments(flags: argparse.Namespace, folder: str) -> TrainingArguments:
    return TrainingArguments(
        output_dir=folder,
        per_device_eval_batch_size=EVALUATION_BATCHES * flags.batch_size,
        label_names=["labels"],
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
    )


def write_predictions(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as unfinished:
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        # A half of a character, which UTF-8 cannot hold, becomes JSON's own `\udXXX`.
        unfinished.write_text("".join(lines), encoding="utf-8", errors="backslashreplace")


def rounded(scores: dict[str, float]) -> dict[str, float]:
    """Return the scores of an evaluation with five digits, without its times."""
    times = ("runtime", "per_second", "epoch", "preparation_time")
    return {
        name.removeprefix("eval_"): round(value, 5)
        for name, value in scores.items()
        if not any(word in name for word in times)
    }


def versions() -> dict[str, str]:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu"
    return {"torch": torch.__version__, "transformers": transformers.__version__, "device": device}
