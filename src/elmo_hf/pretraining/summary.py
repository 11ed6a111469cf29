"""Sums up a pretraining run for its model card: recipe, words read, hours worked, held-out perplexities.

    python -m elmo_hf.pretraining.summary runs/news -o hub_cards/news/results/run.json

It reads the run's log.jsonl, the settings in its newest checkpoint, and the model in `final` (or, before the
end, in that checkpoint). Hours are those of work that counted, over all restarts: between two lines of the
log the words that were read, by the words per second that the line tells. The start of processes, and steps
that were lost with a kill and made again, are not among them.

Of folders only the last part is kept: where the text lay on somebody's machine is nobody else's business.
"""

import argparse
import json
import os
import platform
import shlex
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
import transformers

from elmo_hf.corpus.vocabulary import Vocabulary
from elmo_hf.loading import describe_model
from elmo_hf.pretraining.checkpoints import checkpoints
from elmo_hf.pretraining.plot import read_log
from elmo_hf.pretraining.settings import Settings, default_of, flags

PATHS = ("data", "vocab", "output", "start", "heldout", "resume")
# Not part of the recipe: the folder, and how it was watched.
LEFT_OUT = ("output", "resume", "trackers", "log_every", "keep", "audit", "processes")
Entry = dict[str, Any]


def summarize(run: Path, machine: str | None = None) -> Entry:
    """What results/run.json holds: the run as far as its newest checkpoint."""
    log, saved = read_log(run), checkpoints(run)
    start = next((entry for entry in log if entry["kind"] == "start"), None)
    if not saved or start is None:
        raise ValueError(f"{run} has no {'checkpoint yet; let it run on' if start else 'start in its log'}.")
    progress = json.loads((saved[-1] / "training" / "progress.json").read_text(encoding="utf-8"))
    settings, words = progress["settings"], progress["words"]
    log = [entry for entry in log if entry.get("step", 0) <= progress["step"]]
    hours, text_words = hours_worked(log, words), words_of_text(settings)
    if text_words and not progress["epoch"] - 0.5 <= words / text_words <= progress["epoch"] + 1.5:
        text_words = None  # the vocabulary was counted over another text
    return {
        "command": command(settings, start["processes"]),
        "settings": {name: bare(name, value) for name, value in settings.items() if name not in LEFT_OUT},
        "changed": [name for name, value in settings.items() if start["settings"].get(name, value) != value],
        "seed": settings["seed"],
        "processes": start["processes"],
        "device": start["device"],
        "machine": machine if machine is not None else this_machine(start["device"]),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "steps": progress["step"],
        "words": words,
        "text_words": text_words,
        "epochs": round(words / text_words, 3) if text_words else progress["epoch"],
        "hours": round(hours, 6),
        "words_per_second": round(words / hours / 3600, 1),
        "resumed": sum(entry["kind"] == "resume" for entry in log),
        "finished": any(entry["kind"] == "end" for entry in log),
        "heldout": heldout(log),
        "model": describe_model(run / "final" if (run / "final").is_dir() else saved[-1]),
    }


def hours_worked(log: list[Entry], words: int) -> float:
    """Each line's words by its words per second; what came after the last line, at the last line's speed."""
    steps = [entry for entry in log if entry["kind"] == "step"]
    if not steps:
        raise ValueError("the run's log tells of no step, so nobody knows how long it took.")
    ends = [*(entry["words"] for entry in steps), words]
    speeds = [*(entry["words_per_second"] for entry in steps), steps[-1]["words_per_second"]]
    seconds = sum((end - begin) / speed for begin, end, speed in zip([0, *ends], ends, speeds, strict=False))
    return seconds / 3600


def heldout(log: list[Entry]) -> dict[str, Entry]:
    """For each text its first, its best and its last evaluation, the best by the mean of both directions."""
    found: dict[str, list[Entry]] = {}
    for entry in log:
        if entry["kind"] == "evaluation":
            plain = {name: value for name, value in entry.items() if name not in ("kind", "text")}
            found.setdefault(entry["text"], []).append(plain)
    return {
        text: {"first": many[0], "best": min(many, key=lambda one: one["mean"]), "last": many[-1]}
        for text, many in found.items()
    }


def words_of_text(settings: Entry) -> int | None:
    """What one reading of the text gives to predict, by the counts beside the vocabulary, if any."""
    if not settings["vocab"] or not Path(settings["vocab"]).is_file():
        return None
    vocabulary = Vocabulary.load(settings["vocab"])
    counts = vocabulary.counts
    return sum(counts) - counts[vocabulary.words.index("<S>")] if counts is not None else None


# ---- the settings, as one would type them


def command(settings: Entry, processes: int) -> str:
    """The run's command, with every setting that is not the default."""
    several = ["--num_processes", str(processes)] if processes > 1 else []
    words = ["accelerate", "launch", *several, "training/pretrain.py"]
    for one in fields(Settings):
        value = bare(one.name, settings.get(one.name, default_of(one)))
        if one.name in (*LEFT_OUT[1:], "seed") or value == default_of(one):
            continue
        flag = flags(one.name)[0]
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        elif isinstance(value, list) and one.name != "char_filters":
            words += [flag, *value]
        else:
            words += [flag, "none" if value is None else json.dumps(value).strip('"')]
    return shlex.join([*words, "--seed", str(settings["seed"])])


def bare(name: str, value: Any) -> Any:
    """Without the folders of this machine."""
    if name not in PATHS or value is None:
        return value
    if isinstance(value, list):
        return [bare(name, one) for one in value]
    path = Path(value)
    return path.name if path.is_absolute() or ".." in path.parts else value


def this_machine(device: str) -> Entry:
    cpu = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text(encoding="utf-8").splitlines()
        cpu = next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), cpu)
    found: Entry = {"cpu": cpu, "cores": os.cpu_count()}
    if device.startswith("cuda") and torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="summarize_run.py", description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="the file to write: results/run.json"
    )
    parser.add_argument("--machine", help="what it ran on, if not on this machine")
    options = parser.parse_args()
    try:
        found = summarize(options.run, options.machine)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        unfinished = options.output.with_name(f".{options.output.name}.unfinished")
        unfinished.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        unfinished.replace(options.output)
    except (ValueError, OSError) as error:
        sys.exit(f"summarize_run.py: {error}")
    print(f"{options.output}: {found['words']:,} words in {found['hours']:.2f} hours.")


if __name__ == "__main__":
    main()
