"""The single runs of tables.py: what is done, what is not, their commands, their results.

    places = Places(data, "my-elmo", runs, results, TASKS)
    runs = waiting(places, ["table1"], ["srl"], [0, 1, 2])
    jobs_of(places, runs)       # processes to be
    record(places, run)         # of one that ended: its scores are kept, its model goes

In commands, `DATA` stands for the folder of the data, `RUNS` for that of the runs, and `ELMO` for the biLM,
so that what is recorded names no place on a machine.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.report import ROOT, machine, write_json
from benchmarks.tables.collect import Measured, Result
from benchmarks.tables.plan import GAP, GAP_TEXTS, Run, Task, estimate, planned, recipe_flags
from benchmarks.tables.work import Job

SMOKE_GAP = 3


@dataclass(frozen=True)
class Places:
    data: Path | None
    elmo: str | None  # a folder; None for a random biLM, and a smoke run
    runs: Path
    results: Path
    plan: dict[str, Task]

    @property
    def model(self) -> str:
        return "smoke" if self.elmo is None else Path(self.elmo).name

    @property
    def elmo_folder(self) -> Path:
        """From where we stand, or from the repository."""
        assert self.elmo is not None
        return Path(self.elmo) if Path(self.elmo).exists() else ROOT / self.elmo

    @property
    def weights(self) -> str | None:
        """A fingerprint of the biLM's weights, where they are at hand."""
        path = None if self.elmo is None else self.elmo_folder / "model.safetensors"
        if path is None or not path.is_file():
            return None
        return hashlib.blake2b(path.read_bytes(), digest_size=6).hexdigest()

    @property
    def told(self) -> str:
        """The biLM as a reader may type it: no place on a machine."""
        is_ours = self.elmo is not None and not Path(self.elmo).is_absolute()
        return str(self.elmo) if is_ours else self.model

    def measured(self, seeds: list[int]) -> Measured:
        told = "--smoke" if self.elmo is None else f"--elmo {self.told}"
        return Measured(stored(self), self.plan, self.model, seeds, self.weights, told)

    def folder(self, run: Run) -> Path:
        return self.runs / run.name(self.model)

    def adapted(self, run: Run) -> str | None:
        """The folder of the biLM that was adapted to the field of this run, if it wants one."""
        parts = ["adapted", self.model, self.weights]
        folder = "-".join(part for part in parts if part)
        return f"{folder}/{self.plan[run.task].domain}" if run.biLM == "adapted" else None


# ---- what is done


def stored(places: Places) -> dict[str, Result]:
    found = {}
    for path in sorted((places.results / "tables" / "runs").glob("*.json")):
        try:
            found[path.stem] = json.loads(path.read_text(encoding="utf-8"))
            is_result = {"flags", "scores", "seed"} <= found[path.stem].keys()
        except (ValueError, AttributeError):
            is_result = False
        if not is_result:
            raise ValueError(f"{path} is no run's result; remove it, and the run will be done again.")
    return found


def waiting(places: Places, tables: list[str], tasks: list[str], seeds: list[int]) -> list[Run]:
    """What is not done, in the plan's order."""
    measured = places.measured(seeds)
    return [run for run in planned(places.plan, tables, tasks, seeds) if measured.of(run) is None]


def has_learnt(places: Places, run: Run) -> bool:
    """Whether it ended before, by these very commands and weights, and its results were not kept yet."""
    folder = places.folder(run)
    try:
        begun = json.loads((folder / "begun.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return begun == identity(places, run) and (folder / "results.json").is_file()


def identity(places: Places, run: Run) -> Any:
    return {"commands": told(places, run), "weights": places.weights}


def keep_finished(places: Places, runs: Sequence[Run]) -> None:
    """Results that a killed tables.py did not come to record."""
    for run in runs:
        if has_learnt(places, run) and (run.task != "coref" or (places.folder(run) / "gap.json").is_file()):
            record(places, run)


def record(places: Places, run: Run) -> None:
    """A small file of what matters; the run's folder goes, with its model."""
    folder, name = places.folder(run), run.name(places.model)
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    found = results["runs"][str(run.seed)]
    content: dict[str, Any] = {
        "name": name,
        **vars(run),
        "model": None if run.place == "none" else places.model,
        "examples": results["examples"],
        "scores": {split: found[split] for split in ("dev", "test")},
    }
    content |= {key: found[key] for key in ("epochs", "best_epoch", "seconds", "processor_seconds")}
    content |= {key: results[key] for key in ("ceiling", "left_out_of_training") if key in results}
    if run.task == "coref":
        content["gap"] = json.loads((folder / "gap.json").read_text(encoding="utf-8"))["scores"]
    adapted = places.adapted(run)
    if adapted is not None:
        told_of = told_by_adapting(places, adapted).read_text(encoding="utf-8")
        content["adapting"] = json.loads(told_of)["rows"][0]
    content["weights"] = None if run.place == "none" else places.weights
    content |= {"flags": recipe_flags(run, places.plan), "commands": told(places, run)}
    content |= {"versions": results["versions"], "machine": machine()}
    write_json(places.results / "tables" / "runs" / f"{name}.json", content)
    shutil.rmtree(folder)


# ---- commands


def jobs_of(places: Places, runs: Sequence[Run]) -> list[Job]:
    """In the order of the runs; before the first one that wants an adapted biLM, its adapting."""
    jobs: dict[str, Job] = {}
    for run in runs:
        adapted = places.adapted(run)
        needs = told_by_adapting(places, adapted) if adapted else None
        if adapted and needs and not needs.exists():
            commands = [resolved(places, adapting(adapted))]
            jobs.setdefault(adapted, Job(adapted, commands, places.runs / f"{adapted}.log"))
        name = run.name(places.model)
        commands = [resolved(places, words) for words in commands_of(places, run)]
        job = Job(name, commands, places.runs / f"{name}.log", needs, run)
        if has_learnt(places, run):
            job.commands = job.commands[1:]
        else:
            job.prepare = partial(begin, places, run)
        jobs[name] = job
    return list(jobs.values())


def begin(places: Places, run: Run) -> None:
    """An empty folder, whatever an earlier run has left."""
    folder = places.folder(run)
    if folder.exists():
        shutil.rmtree(folder)
    write_json(folder / "begun.json", identity(places, run))


def commands_of(places: Places, run: Run) -> list[list[str]]:
    adapted = places.adapted(run)
    elmo = ["--smoke"] if places.elmo is None else ["--elmo", f"RUNS/{adapted}/final" if adapted else "ELMO"]
    output = f"RUNS/{run.name(places.model)}"
    flags = recipe_flags(run, places.plan)
    commands = [[f"training/{places.plan[run.task].recipe}", *elmo, "--output", output, *flags]]
    if run.task == "coref":
        texts = str(SMOKE_GAP if places.elmo is None else GAP_TEXTS)
        check = ["--model", f"{output}/seed-{run.seed}", "--gap", GAP, "--limit", texts]
        commands.append(["training/evaluate_gap.py", *check, "--output", f"{output}/gap.json"])
    return commands


def adapting(name: str) -> list[str]:
    """Once through the field's text, by `benchmarks.language_models.domain`."""
    folder, field = name.split("/")
    told = ["--model", "ELMO", "--domains", f"{field}=RUNS/data/{field}.txt", "--keep", f"RUNS/{folder}"]
    return ["-m", "benchmarks.language_models.domain", *told, "--output", f"RUNS/{name}.json"]


def told_by_adapting(places: Places, name: str) -> Path:
    """What `benchmarks.language_models.domain` writes at its very end, when the biLM is there."""
    return places.runs / f"{name}.json"


def resolved(places: Places, words: list[str]) -> list[str]:
    """A command of this machine."""
    folders = {"DATA": places.data, "RUNS": places.runs}
    is_module = words[0] == "-m"
    command = [sys.executable, words[0] if is_module else str(ROOT / words[0])]
    for word in words[1:]:
        name, is_named, path = word.rpartition("=")
        head, slash, rest = path.partition("/")
        folder = folders.get(head) if slash else None
        if folder is not None:
            word = f"{name}{is_named}{folder.resolve() / rest}"
        command.append(str(places.elmo_folder.resolve()) if word == "ELMO" else word)
    return command


def told(places: Places, run: Run) -> list[str]:
    """The commands as a reader may type them."""
    commands = commands_of(places, run)
    adapted = places.adapted(run)
    if adapted is not None:
        commands.insert(0, adapting(adapted))
    names = {"ELMO": places.told}
    return [
        " ".join(["python", *(names.get(word, word).replace("RUNS/", "runs/tables/") for word in words)])
        for words in commands
    ]


# ---- how long it takes


def paces(places: Places) -> dict[Any, float]:
    """Seconds of a processor over those estimated: for each kind of run that was done, and for all (None)."""
    taken: dict[Any, list[float]] = {}
    for result in stored(places).values():
        run = Run(**{one.name: result[one.name] for one in fields(Run)})
        if result["flags"] == recipe_flags(run, places.plan):
            for kind in (kind_of(run), None):
                taken.setdefault(kind, []).append(result["processor_seconds"] / estimate(run, places.plan))
    return {kind: sum(values) / len(values) for kind, values in taken.items()}


def kind_of(run: Run) -> tuple[str, bool, bool]:
    return run.task, run.place == "none", run.biLM == "tuned"


def minutes_left(places: Places, runs: Sequence[Run]) -> list[float]:
    """Of each run, by what was measured of its kind so far."""
    known = paces(places)
    return [estimate(run, places.plan) * known.get(kind_of(run), known.get(None, 1.0)) / 60 for run in runs]


def listing(places: Places, runs: Sequence[Run], side_by_side: int) -> str:
    minutes = minutes_left(places, runs)
    lines = [f"{one:6.1f} minutes  {run.name(places.model)}" for one, run in zip(minutes, runs, strict=True)]
    return "\n".join([*lines, summary(minutes, side_by_side)])


def progress(places: Places, job: Job, fault: str | None, runs: Sequence[Run], side_by_side: int) -> str:
    left = summary(minutes_left(places, runs), side_by_side)
    return f"{job.name}: {fault or 'done'} in {job.minutes():.1f} minutes; {left}"


def summary(minutes: Sequence[float], side_by_side: int) -> str:
    return f"{len(minutes)} runs left, about {sum(minutes) / side_by_side / 60:.1f} hours"
