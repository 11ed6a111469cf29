"""Summarize a pretraining run for its model card: recipe, words read, hours, held-out perplexities.

    python -m elmo_hf.pretraining.summary runs/news -o hub_cards/news/results/run.json

It reads the run's log.jsonl, the settings in its newest checkpoint, and the model in `final` (or in that
checkpoint, if the run has not ended). Hours are those of the steps that count, over all restarts: the words
between two log entries divided by the words per second of the later entry. The start of the program and steps
that a kill has undone are not counted.

Paths are reduced to their last part, so that no folder of this machine gets into the summary.
"""

import argparse
import json
import os
import platform
import shlex
from dataclasses import fields
from pathlib import Path
from reprlib import repr as short
from typing import Any

import torch
import transformers

from elmo_hf.corpus.vocabulary import Vocabulary
from elmo_hf.errors import ElmoError, one_sentence
from elmo_hf.files import write_json
from elmo_hf.hub.results import without_folders
from elmo_hf.loading import describe_model
from elmo_hf.pretraining.checkpoints import checkpoints
from elmo_hf.pretraining.log import Entry, log_path, read_log
from elmo_hf.pretraining.progress import PROGRESS, read_progress
from elmo_hf.pretraining.settings import Settings, default_of, option_strings

PROGRAM = "elmo_hf.pretraining.summary"
PATHS = ("data", "vocab", "output", "start", "heldout", "resume")
# Settings that do not belong to the recipe: the folder, and how the run was watched.
NOT_IN_RECIPE = (
    "output",
    "resume",
    "trackers",
    "log_every",
    "keep",
    "keep_every",
    "audit",
    "processes",
    "check_text",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file to write: results/run.json")
    parser.add_argument("--machine", help="description of the machine that it ran on, if it is not this one")
    options = parser.parse_args()
    with one_sentence(PROGRAM):
        summary = summarize(options.run, options.machine)
        write_json(options.output, summary)
    print(f"{options.output}: {summary['words']:,} words in {summary['hours']:.2f} hours.")


def summarize(run: Path, machine: str | None = None) -> Entry:
    """Return the content of results/run.json: the run up to its newest checkpoint.

    Args:
        run: the run's folder.
        machine: a description of the machine, by default of this one.

    Raises:
        ElmoError: the run has no start in its log, no step or no checkpoint yet.
    """
    log, saved = read_log(run), checkpoints(run)
    start = next((entry for entry in log if entry["kind"] == "start"), None)
    if not saved or start is None:
        raise ElmoError(f"{run} has no {'checkpoint yet; let it run on' if start else 'start in its log'}.")
    progress = read_progress(saved[-1])
    settings, words = progress.settings, progress.words
    check_entries(log_path(run), start, {"settings": dict, "processes": int, "device": str})
    check_entries(saved[-1] / PROGRESS, settings, {"seed": int, "vocab": str | None})
    log = [entry for entry in log if entry.get("step", 0) <= progress.step]
    hours, text_words = hours_worked(log, words), words_of_text(settings)
    if text_words and not progress.epoch - 0.5 <= words / text_words <= progress.epoch + 1.5:
        text_words = None  # the vocabulary was counted on another text
    return {
        "command": command(settings, start["processes"]),
        "settings": {
            name: short_setting(name, value) for name, value in settings.items() if name not in NOT_IN_RECIPE
        },
        "changed": [name for name, value in settings.items() if start["settings"].get(name, value) != value],
        "seed": settings["seed"],
        "processes": start["processes"],
        "device": start["device"],
        "machine": machine if machine is not None else this_machine(start["device"]),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "steps": progress.step,
        "words": words,
        "text_words": text_words,
        "epochs": round(words / text_words, 3) if text_words else progress.epoch,
        "hours": round(hours, 6),
        "words_per_second": round(words / hours / 3600, 1),
        "resumed": sum(entry["kind"] == "resume" for entry in log),
        "finished": any(entry["kind"] == "end" for entry in log),
        "heldout": heldout(log),
        "model": describe_model(run / "final" if (run / "final").is_dir() else saved[-1]),
    }


def check_entries(path: Path, entries: Entry, types: dict[str, Any]) -> None:
    for name, expected in types.items():
        if name not in entries or not isinstance(entries[name], expected):
            raise ElmoError(f"{path} is damaged: {name} is {short(entries.get(name))}.")


def hours_worked(log: list[Entry], words: int) -> float:
    """Add up the words of each entry divided by its speed; words after the last entry count at its speed."""
    steps = [entry for entry in log if entry["kind"] == "step"]
    if not steps:
        raise ElmoError("the run's log has no step, so its time is not known.")
    ends = [*(entry["words"] for entry in steps), words]
    speeds = [*(entry["words_per_second"] for entry in steps), steps[-1]["words_per_second"]]
    starts = [0, *ends[:-1]]
    if min(speeds) <= 0 or max(ends) <= 0:
        raise ElmoError("the run's log has a step without words or speed, so its time is not known.")
    if any(start > end for start, end in zip(starts, ends, strict=True)):
        raise ElmoError(
            "the run's log has a step with fewer words than an earlier step; its time is not known."
        )
    seconds = sum((end - start) / speed for start, end, speed in zip(starts, ends, speeds, strict=True))
    return seconds / 3600


def heldout(log: list[Entry]) -> dict[str, Entry]:
    """The first, best and last evaluation of each text; the best is that of the lowest mean perplexity.

    If the LSTM states at the start of a sentence were changed in between, those before do not compare.
    """
    by_text: dict[str, list[Entry]] = {}
    for entry in log:
        if entry["kind"] == "evaluation":
            values = {name: value for name, value in entry.items() if name not in ("kind", "text")}
            entries = by_text.setdefault(entry.get("text", "held-out text"), [])
            if entries and entries[-1].get("states") != values.get("states"):
                entries.clear()
            entries.append(values)
    return {
        text: {
            "first": entries[0],
            "best": min(entries, key=lambda entry: entry["mean"]),
            "last": entries[-1],
        }
        for text, entries in by_text.items()
    }


def words_of_text(settings: Entry) -> int | None:
    """Words that each direction predicts in one pass over the text, if the vocabulary has counts."""
    if not settings["vocab"] or not Path(settings["vocab"]).is_file():
        return None
    vocabulary = Vocabulary.load(settings["vocab"])
    counts = vocabulary.counts
    return sum(counts) - counts[vocabulary.words.index("<S>")] if counts is not None else None


# ---- the settings as a command


def command(settings: Entry, processes: int) -> str:
    """The command line of the run, with every setting that differs from the default, and the seed."""
    launch = ["--num_processes", str(processes)] if processes > 1 else []
    words = ["accelerate", "launch", *launch, "training/pretrain.py"]
    for field in fields(Settings):
        name, default = field.name, default_of(field)
        value = short_setting(name, settings.get(name, default))
        if name in (*NOT_IN_RECIPE[1:], "seed") or value == default:
            continue
        option = option_strings(name)[0]
        if isinstance(value, bool):
            words.append(option if value else option.replace("--", "--no-", 1))
        elif isinstance(value, list) and name != "char_filters":
            words += [option, *value]
        else:
            words += [
                option,
                value if isinstance(value, str) else "none" if value is None else json.dumps(value),
            ]
    return shlex.join([*words, "--seed", str(settings["seed"])])


def short_setting(name: str, value: Any) -> Any:
    """The last part of a path that leads out of the working directory; other settings unchanged."""
    if name not in PATHS or value is None:
        return value
    if isinstance(value, list):
        return [short_setting(name, item) for item in value]
    return without_folders(value)


def this_machine(device: str) -> Entry:
    """CPU, cores, and GPU if the run used one."""
    cpu = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text(encoding="utf-8").splitlines()
        cpu = next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), cpu)
    machine: Entry = {"cpu": cpu, "cores": os.cpu_count()}
    if device.startswith("cuda") and torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()
    return machine


if __name__ == "__main__":
    main()
