"""The single runs of the tables: which are missing, their commands as processes, their results.

    places = Places(data, "my-elmo", runs, results, TASKS)
    runs = missing_runs(places, ["table1"], ["srl"], [0, 1, 2])
    run_jobs(jobs_of(places, runs), 2, None, ended)      # two processes at a time
    record(places, run)                                  # keep the scores of a finished run, delete its model

In commands `DATA` stands for the folder of the data, `RUNS` for that of the runs, and `ELMO` for the biLM, so
that recorded commands contain no path of a machine.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from benchmarks.report import ROOT, machine
from benchmarks.tables.collect import Measured, Result
from benchmarks.tables.plan import GAP, GAP_FLAGS, VECTORS, Run, Task, estimate, planned, recipe_flags
from elmo_hf.errors import ElmoError
from elmo_hf.files import read_json, update_digest, write_json

SMOKE_GAP = "3"
STOPPED = 143  # the exit code of a program that SIGTERM has ended
POLL = 0.1  # seconds between two looks at the running processes


@dataclass(frozen=True)
class Places:
    data: Path | None
    elmo: str | None  # a folder; None for a random biLM in a smoke run
    runs: Path
    results: Path
    plan: dict[str, Task]
    vectors: Path | None = None  # the file of word vectors

    @property
    def model(self) -> str:
        return "smoke" if self.elmo is None else Path(self.elmo).name

    @property
    def elmo_folder(self) -> Path:
        """Relative to the working directory, or else to the repository."""
        assert self.elmo is not None
        return Path(self.elmo) if Path(self.elmo).exists() else ROOT / self.elmo

    @property
    def weights(self) -> str | None:
        """A fingerprint of the biLM's weights, if they exist."""
        return None if self.elmo is None else fingerprint([self.elmo_folder / "model.safetensors"])

    @cached_property
    def vectors_fingerprint(self) -> str | None:
        """That of the word vectors: a file, or the files of a folder."""
        if self.vectors is None:
            return None
        return fingerprint(sorted(self.vectors.iterdir()) if self.vectors.is_dir() else [self.vectors])

    @property
    def elmo_argument(self) -> str:
        """The biLM in recorded commands: a relative path, or the name of the folder."""
        is_relative = self.elmo is not None and not Path(self.elmo).is_absolute()
        return str(self.elmo) if is_relative else self.model

    def measured(self, seeds: list[int]) -> Measured:
        flag = "--smoke" if self.elmo is None else f"--elmo {self.elmo_argument}"
        results = stored_results(self.run_results)
        return Measured(results, self.plan, self.model, seeds, self.weights, self.vectors_fingerprint, flag)

    @property
    def run_results(self) -> Path:
        return self.results / "tables" / "runs"

    def folder(self, run: Run) -> Path:
        return self.runs / run.name(self.model)

    def adapted(self, run: Run) -> str | None:
        """The folder of the biLM that is adapted to the domain of this run, if the run uses one."""
        folder = "-".join(name for name in ("adapted", self.model, self.weights) if name)
        return f"{folder}/{self.plan[run.task].domain}" if run.biLM == "adapted" else None

    def adapted_result(self, adapted: str) -> Path:
        """What `benchmarks.language_models.domain` writes at its very end, after the biLM."""
        return self.runs / f"{adapted}.json"


def fingerprint(files: list[Path]) -> str | None:
    """Of the content of files; None if there are none."""
    digest = hashlib.blake2b(digest_size=6)
    found = [path for path in files if path.is_file()]
    for path in found:
        update_digest(digest, path)
    return digest.hexdigest() if found else None


# ---- results


def stored_results(folder: Path) -> dict[str, Result]:
    """The results of a folder by the names of their runs."""
    results = {}
    for path in sorted(folder.glob("*.json")):
        try:
            results[path.stem] = json.loads(path.read_text(encoding="utf-8"))
            is_result = {"flags", "scores", "seed"} <= results[path.stem].keys()
        except (ValueError, AttributeError):
            is_result = False
        if not is_result:
            raise ElmoError(f"{path} is not the result of a run; delete it, and the run will be repeated.")
    return results


def missing_runs(places: Places, tables: list[str], tasks: list[str], seeds: list[int]) -> list[Run]:
    """The planned runs without a result, in the plan's order."""
    measured = places.measured(seeds)
    runs = planned(places.plan, tables, tasks, seeds)
    return [
        run
        for run in runs
        if measured.of(run) is None or (run.task == "coref" and measured.gap_of(run) is None)
    ]


def run_of_result(result: Result) -> Run:
    return Run(**{column.name: result[column.name] for column in fields(Run)})


def unused_results(places: Places) -> list[str]:
    """The stored results of baselines and of this biLM that have other settings, weights or vectors."""
    measured = places.measured([])
    return [
        name
        for name, result in measured.results.items()
        if result["model"] in (None, places.model) and measured.of(run_of_result(result)) is None
    ]


def is_trained(places: Places, run: Run) -> bool:
    """Whether a run with these commands and weights ended before its result was recorded."""
    folder = places.folder(run)
    try:
        begun = json.loads((folder / "begun.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return begun == identity(places, run) and (folder / "results.json").is_file()


def identity(places: Places, run: Run) -> Any:
    commands = recorded_commands(places, run)
    return {"commands": commands, "weights": places.weights, "vectors": places.vectors_fingerprint}


def record_finished(places: Places, runs: Sequence[Run]) -> None:
    """Record the runs that ended when this program was no longer there to do it."""
    for run in runs:
        is_judged = run.task != "coref" or (places.folder(run) / "gap.json").is_file()
        if is_trained(places, run) and is_judged:
            record(places, run)


def record(places: Places, run: Run) -> None:
    """Write a run's scores and settings to a small file, and delete its folder with the model."""
    folder, name = places.folder(run), run.name(places.model)
    results = read_json(folder / "results.json")
    result = results["runs"][str(run.seed)]
    content: dict[str, Any] = {
        "name": name,
        **vars(run),
        "model": None if run.place == "none" else places.model,
        "examples": results["examples"],
        "scores": {split: result[split] for split in ("dev", "test")},
    }
    content |= {key: result[key] for key in ("epochs", "best_epoch", "seconds", "processor_seconds")}
    content |= {key: result[key] for key in ("dev_by_epoch", "mix") if key in result}
    if places.plan[run.task].scales_lambda and "config" in results:
        content["scaled_mix_l2"] = results["config"].get("mix_l2")
    content |= {key: results[key] for key in ("ceiling", "left_out_of_training") if key in results}
    if run.task == "coref":
        content["gap"] = read_json(folder / "gap.json")["scores"]
        content["gap_flags"] = GAP_FLAGS
    adapted = places.adapted(run)
    if adapted is not None:
        content["adapting"] = read_json(places.adapted_result(adapted))["rows"][0]
    content["weights"] = None if run.place == "none" else places.weights
    content["vectors"] = places.vectors_fingerprint if places.plan[run.task].vectors else None
    content |= {"flags": recipe_flags(run, places.plan), "commands": recorded_commands(places, run)}
    content |= {"versions": results["versions"], "machine": machine()}
    write_json(places.run_results / f"{name}.json", content)
    shutil.rmtree(folder)


# ---- commands


def commands_of(places: Places, run: Run) -> list[list[str]]:
    adapted = places.adapted(run)
    elmo = ["--smoke"] if places.elmo is None else ["--elmo", f"RUNS/{adapted}/final" if adapted else "ELMO"]
    output = f"RUNS/{run.name(places.model)}"
    flags = recipe_flags(run, places.plan)
    commands = [[f"training/{places.plan[run.task].recipe}", *elmo, "--output", output, *flags]]
    if run.task == "coref":
        flags = ["--gap", GAP, "--limit", SMOKE_GAP] if places.elmo is None else GAP_FLAGS
        model, scores = f"{output}/seed-{run.seed}", f"{output}/gap.json"
        commands.append(["training/evaluate_gap.py", "--model", model, *flags, "--output", scores])
    return commands


def adapting_command(adapted: str) -> list[str]:
    """One epoch on the text of the domain."""
    folder, domain = adapted.split("/")
    flags = ["--model", "ELMO", "--domains", f"{domain}=RUNS/data/{domain}.txt", "--keep", f"RUNS/{folder}"]
    return ["-m", "benchmarks.language_models.domain", *flags, "--output", f"RUNS/{adapted}.json"]


def local_command(places: Places, words: list[str]) -> list[str]:
    """A command with the paths of this machine."""
    folders = {"DATA": places.data, "RUNS": places.runs}
    command = [sys.executable, words[0] if words[0] == "-m" else str(ROOT / words[0])]
    for word in words[1:]:
        name, equals_sign, path = word.rpartition("=")
        first, slash, below = path.partition("/")
        folder = folders.get(first) if slash else None
        if folder is not None:
            word = f"{name}{equals_sign}{folder.resolve() / below}"
        if word == "ELMO":
            word = str(places.elmo_folder.resolve())
        elif word == VECTORS and places.vectors is not None:
            word = str(places.vectors.resolve())
        command.append(word)
    return command


def recorded_commands(places: Places, run: Run) -> list[str]:
    """The commands as a reader can type them."""
    commands = commands_of(places, run)
    adapted = places.adapted(run)
    if adapted is not None:
        commands.insert(0, adapting_command(adapted))
    return [" ".join(["python", *(recorded_word(word, places) for word in words)]) for words in commands]


def recorded_word(word: str, places: Places) -> str:
    """A word of a command as a reader can type it."""
    if word == "ELMO":
        return places.elmo_argument
    if word == VECTORS and places.vectors is not None:
        return places.vectors.name
    return word.replace("RUNS/", "runs/tables/")


# ---- processes


def environment_of_a_run() -> dict[str, str]:
    """One thread for each process."""
    return os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass
class Job:
    """Commands, run one after the other when the file `needs`, which another job makes, exists."""

    name: str
    commands: list[list[str]]
    log: Path
    needs: Path | None = None
    run: Run | None = None
    prepare: Callable[[], None] | None = None  # called before the first command
    process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)
    started_at: float = 0.0
    started_commands: int = 0

    def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.unlink(missing_ok=True)
        self.started_at = time.monotonic()
        if self.prepare is not None:
            self.prepare()
        self._start_next()

    def _start_next(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.commands[self.started_commands],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment_of_a_run(),
            )
        self.started_commands += 1

    def has_ended(self) -> bool:
        """Start the next command when one has succeeded; True after the last, or after a failure."""
        assert self.process is not None
        code = self.process.poll()
        if code == 0 and self.started_commands < len(self.commands):
            self._start_next()
            return False
        return code is not None

    def failure(self) -> str | None:
        """The exit code and the last line of the log of a failed command."""
        assert self.process is not None
        if self.process.returncode == 0:
            return None
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        last_line = next((line for line in reversed(lines) if line.strip()), "its log is empty")
        return f"ended with {self.process.returncode}: {last_line:.200}"

    def minutes(self) -> float:
        return (time.monotonic() - self.started_at) / 60

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait()


def jobs_of(places: Places, runs: Sequence[Run]) -> list[Job]:
    """The jobs in the order of the runs; an adaptation comes before the first run that needs it."""
    jobs: dict[str, Job] = {}
    for run in runs:
        adapted = places.adapted(run)
        needs = places.adapted_result(adapted) if adapted else None
        if adapted and needs and not needs.exists():
            commands = [local_command(places, adapting_command(adapted))]
            jobs.setdefault(adapted, Job(adapted, commands, places.runs / f"{adapted}.log"))
        name = run.name(places.model)
        commands = [local_command(places, words) for words in commands_of(places, run)]
        job = Job(name, commands, places.runs / f"{name}.log", needs, run)
        if is_trained(places, run):
            job.commands = job.commands[1:]
        else:
            job.prepare = partial(begin, places, run)
        jobs[name] = job
    return list(jobs.values())


def begin(places: Places, run: Run) -> None:
    """Make an empty folder for a run, without what an interrupted one has left."""
    folder = places.folder(run)
    if folder.exists():
        shutil.rmtree(folder)
    write_json(folder / "begun.json", identity(places, run))


def run_jobs(jobs: Sequence[Job], parallel: int, minutes: float | None, ended: Callable[[Job], None]) -> None:
    """Run `parallel` jobs at a time, and call `ended` with each, failed or not. After so many minutes no job
    is started, and the running ones end."""
    deadline = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
    waiting = list(jobs)
    running: list[Job] = []
    with stopping(running):
        while True:
            while len(running) < parallel and time.monotonic() < deadline:
                job = next((job for job in waiting if job.needs is None or job.needs.exists()), None)
                if job is None:
                    break
                waiting.remove(job)
                running.append(job)
                job.start()
            if not running:
                return
            for job in [job for job in running if job.has_ended()]:
                running.remove(job)
                ended(job)
            time.sleep(POLL)


@contextmanager
def stopping(running: list[Job]) -> Iterator[None]:
    """Stop the running jobs at the end, also after an error or SIGTERM."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED))
    try:
        yield
    finally:
        for job in running:
            job.stop()
        signal.signal(signal.SIGTERM, before)


# ---- how long it takes


def measured_over_estimated(places: Places) -> dict[Any, float]:
    """Processor seconds of the stored runs over the estimated ones, by type of run, and of all (None)."""
    ratios: dict[Any, list[float]] = {}
    for result in stored_results(places.run_results).values():
        run = run_of_result(result)
        if result["flags"] == recipe_flags(run, places.plan):
            ratio = result["processor_seconds"] / estimate(run, places.plan)
            for key in (run_type(run), None):
                ratios.setdefault(key, []).append(ratio)
    return {key: sum(values) / len(values) for key, values in ratios.items()}


def run_type(run: Run) -> tuple[str, bool, bool]:
    return run.task, run.place == "none", run.biLM == "tuned"


def minutes_left(places: Places, runs: Sequence[Run]) -> list[float]:
    """The estimated minutes of each run, corrected by what stored runs of its type have taken."""
    ratios = measured_over_estimated(places)
    return [
        estimate(run, places.plan) * ratios.get(run_type(run), ratios.get(None, 1.0)) / 60 for run in runs
    ]


def listing(places: Places, runs: Sequence[Run], parallel: int) -> str:
    minutes = minutes_left(places, runs)
    lines = [f"{own:6.1f} minutes  {run.name(places.model)}" for own, run in zip(minutes, runs, strict=True)]
    return "\n".join([*lines, summary(minutes, parallel)])


def progress(places: Places, job: Job, failure: str | None, runs: Sequence[Run], parallel: int) -> str:
    left = summary(minutes_left(places, runs), parallel)
    return f"{job.name}: {failure or 'done'} in {job.minutes():.1f} minutes; {left}"


def summary(minutes: Sequence[float], parallel: int) -> str:
    return f"{len(minutes)} runs left, about {sum(minutes) / parallel / 60:.1f} hours"
