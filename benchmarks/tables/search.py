"""The search of dropout, learning rate and initial scale, the same for baseline and ELMo, on dev.

    OPTIONS="--data DATA --elmo my-elmo --vectors glove.6B.50d.txt"
    python -m benchmarks.tables.search $OPTIONS --dry-run
    python -m benchmarks.tables.search $OPTIONS --jobs 2 --minutes 120

`GRID` has the values. Each arm of a task (with ELMo, without) tries the values of one setting after the
other and keeps the best on dev: 5 runs of seed 100, which no table uses, on `--train-size` train examples (by
default a fourth of a task's, or half where a fourth teaches nothing). `--arms tuned` goes on from what is
chosen with a frozen biLM, and tries how fast a tuned one learns. Of the four sets of names, of the two
of coreference, and of entailment and questions one is searched, and its choices serve the others. All that
was tried goes to `results/tables/search/MODEL.TASK.ARM.json`. After an interruption the same command
continues. The tables use what is chosen there; an arm that is not searched has the settings of the plan.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS, ROOT, machine
from benchmarks.tables.inputs import make_inputs, missing_file
from benchmarks.tables.plan import (
    EVALUATION_SHARE,
    TABLE1,
    TASKS,
    Choice,
    Run,
    Task,
    arm_of,
    baseline_of,
    estimate,
    learning_rate,
    recipe_flags,
    run_of,
)
from benchmarks.tables.runs import Places, environment_of_a_run, local_command, recorded_word
from elmo_hf.errors import ElmoError, one_sentence
from elmo_hf.files import read_json, remove, write_json

# In the order in which they are tried; the first value of each is where the search starts. Learning rates are
# multiples of the plan's.
GRID: dict[str, tuple[float, ...]] = {
    "dropout": (0.3, 0.15, 0.5),
    "learning rate": (1.0, 0.5),
    "vector scale": (1.0, 4.0),
}
# Parts of the learning rate of the rest.
TUNED_GRID: dict[str, tuple[float, ...]] = {"learning rate of the biLM": (1.0, 0.3, 0.1)}
ARMS = ["none", "elmo", "tuned"]
SEED = 100
SHARE = 0.25  # of the train examples, if the plan says nothing else
LIMIT, PATIENCE = 20, 3  # epochs
SEARCHED = [name for name in TABLE1 if not TASKS[name].searched_with]
TEST = 1  # examples of test that a recipe must evaluate; nothing is read from them
Point = dict[str, float]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of the data")
    parser.add_argument("--elmo", required=True, help="a pretrained biLM")
    parser.add_argument("--vectors", type=Path, required=True, help="the file of word vectors")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=SEARCHED, metavar="TASK")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["none", "elmo"])
    parser.add_argument("--train-size", type=int, help="train examples of a run (a fourth or half)")
    parser.add_argument("--jobs", type=int, default=1, help="arms at the same time, each with one thread (1)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no run after so many")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "search")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--dry-run", action="store_true", help="only list what is left, and its time")
    options = parser.parse_args(arguments)
    with one_sentence("search"):
        search(options)


def search(options: argparse.Namespace) -> None:
    places = Places(options.data, options.elmo, options.runs, options.results, TASKS, options.vectors)
    runs = [small_run(name, arm, options) for name in options.tasks for arm in options.arms]
    if options.dry_run:
        print(listing(runs, places))
        return
    missing = missing_file(runs, TASKS, options.data)
    if missing is not None:
        raise ElmoError(f"{missing} is missing; is {options.data} the folder of the data?")
    for run in runs:
        start_of(run, places)  # refuses a tuned biLM whose frozen one is not searched
    options.runs.mkdir(parents=True, exist_ok=True)
    make_inputs(runs, TASKS, options.data, options.runs / "data")
    deadline = time.monotonic() + 60 * options.minutes
    with ThreadPoolExecutor(options.jobs) as pool:
        for line in pool.map(lambda run: search_arm(run, places, deadline), runs):
            print(line, flush=True)


def small_run(name: str, arm: str, options: argparse.Namespace) -> Run:
    task = TASKS[name]
    size = options.train_size or task.search_size or round(SHARE * task.train_size)
    run = replace(run_of(TASKS, name, {}, SEED), train_size=min(size, task.train_size))
    return runs_by_arm(run)[arm]


def runs_by_arm(run: Run) -> dict[str, Run]:
    """A run with ELMo, and those that differ from it in the arm."""
    return dict(zip(ARMS, (baseline_of(run), run, replace(run, biLM="tuned")), strict=True))


def small_task(run: Run) -> Task:
    """The task with the run's few train examples, each of which an epoch reads once."""
    task = TASKS[run.task]
    share = EVALUATION_SHARE + (1 - EVALUATION_SHARE) * run.train_size / task.train_size
    without, with_elmo = task.seconds
    return replace(task, train_size=run.train_size, seconds=(share * without, share * with_elmo))


# ---- one arm of one task


def search_arm(run: Run, places: Places, deadline: float) -> str:
    """Try the points that are not tried yet, and return a line on what is chosen."""
    path = file_of(run, places)
    tried: list[dict[str, Any]] = stored_search(run, places).get("tried", [])
    point = start_of(run, places)
    for name, values in grid_of(run).items():
        for value in values:
            other = point | {name: value}
            if score_of(tried, other) is None:
                if time.monotonic() > deadline:
                    return f"{run.task}, {arm_of(run)}: {len(tried)} of {size_of(run)} tried; out of time"
                tried.append({"point": other, **try_point(run, other, places)})
                write_json(path, content_of(run, tried, places))
        point = max((row["point"] for row in tried if differs_in(row["point"], point, name)),
                    key=lambda other: score_of(tried, other) or 0.0)  # fmt: skip
    write_json(path, content_of(run, tried, places) | {"chosen": point})
    return f"{run.task}, {arm_of(run)}: {point}, dev {100 * (score_of(tried, point) or 0):.2f} %"


def grid_of(run: Run) -> dict[str, tuple[float, ...]]:
    return TUNED_GRID if run.biLM == "tuned" else GRID


def size_of(run: Run) -> int:
    """How many points are tried."""
    return 1 + sum(len(values) - 1 for values in grid_of(run).values())


def start_of(run: Run, places: Places) -> Point:
    """The first values, beside what is chosen with a frozen biLM if this one is tuned."""
    first = {name: values[0] for name, values in grid_of(run).items()}
    if run.biLM != "tuned":
        return first
    frozen = stored_search(replace(run, biLM="frozen"), places)
    if "chosen" not in frozen:
        raise ElmoError(f"search {run.task} with a frozen biLM first: --tasks {run.task} --arms elmo.")
    return frozen["chosen"] | first


def stored_search(run: Run, places: Places) -> dict[str, Any]:
    """What was stored of this run's search; nothing if it was of other examples, settings, word vectors or
    another biLM, or began at another point."""
    path = file_of(run, places)
    before = read_json(path) if path.is_file() else {}
    is_own = all(before.get(name) == value for name, value in identity_of(run, places).items())
    if is_own and is_of_plan(before) and before["tried"][0]["point"] == start_of(run, places):
        return before
    return {}


def is_of_plan(content: dict[str, Any]) -> bool:
    """Whether the plan has the settings with which the points were tried."""
    run = Run(**content["run"])
    return all(row["flags"] == " ".join(flags_of(run, row["point"])) for row in content["tried"])


def differs_in(point: Point, other: Point, name: str) -> bool:
    """Whether two points are equal but for one setting."""
    return point | {name: 0.0} == other | {name: 0.0}


def score_of(tried: Iterable[dict[str, Any]], point: Point) -> float | None:
    return next((row["score"] for row in tried if row["point"] == point), None)


def identity_of(run: Run, places: Places) -> dict[str, Any]:
    """What a search is of; points of another one do not count."""
    weights = None if run.place == "none" else places.weights
    return {"run": vars(run), "weights": weights, "vectors": places.vectors_fingerprint}


def content_of(run: Run, tried: list[dict[str, Any]], places: Places) -> dict[str, Any]:
    grid = {name: list(values) for name, values in grid_of(run).items()}
    return identity_of(run, places) | {"grid": grid, "tried": tried, "machine": machine()}


def file_of(run: Run, places: Places, model: str | None = None) -> Path:
    """What was tried for a run's arm, with the biLM of this name (by default, that of the places)."""
    model = "baseline" if run.place == "none" else model or places.model
    return places.results / "tables" / "search" / f"{model}.{run.task}.{arm_of(run)}.json"


def try_point(run: Run, point: Point, places: Places) -> dict[str, Any]:
    """Train with the settings of a point, and return the best score on dev (from 0 to 1) and its cost."""
    task = TASKS[run.task]
    output = places.runs / f"{run.task}.{arm_of(run)}"
    remove(output)
    flags = flags_of(run, point)
    words = [f"training/{task.recipe}", "--elmo", "ELMO", "--output", f"RUNS/{output.name}", *flags]
    log = places.runs / f"{output.name}.log"
    with log.open("ab") as file:
        code = subprocess.run(
            local_command(places, words),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment_of_a_run(),
        ).returncode
    if code:
        raise ElmoError(f"a run of {run.task} ended with {code}; see {log}.")
    result = read_json(output / "results.json")["runs"][str(SEED)]
    remove(output)
    return {
        "flags": " ".join(flags),
        "score": round(result["dev"][task.metric] * task.percent / 100, 5),
        "epochs": result["epochs"],
        "best_epoch": result["best_epoch"],
        "processor_seconds": result["processor_seconds"],
        "command": " ".join(["python", *(recorded_word(word, places) for word in words)]),
    }


def flags_of(run: Run, point: Point) -> list[str]:
    """The flags of a run with the settings of a point; test has one example."""
    task = replace(small_task(run), epochs=LIMIT, patience=PATIENCE, chosen=(as_choice(run, point),))
    if "data" not in task.files:
        task = replace(task, sizes=task.sizes | {"test": TEST})
    return recipe_flags(run, {run.task: task})


def as_choice(run: Run, point: Point) -> Choice:
    """A point as flags and settings of the plan."""
    task = TASKS[run.task]
    rate = learning_rate(task, point["learning rate"])
    flags = ["--learning-rate", rate, "--vector-scale", f"{point['vector scale']:g}"]
    if run.biLM == "tuned":
        part = point["learning rate of the biLM"]
        flags += ["--elmo-learning-rate", learning_rate(task, part * point["learning rate"])]
    return Choice(arm_of(run), tuple(flags), (f"task_dropout={point['dropout']:g}",))


# ---- what the tables use


def with_choices(plan: dict[str, Task], places: Places, model: str | None = None) -> dict[str, Task]:
    """The plan with what was chosen for each arm, as far as a search has ended.

    With a `model`, the choices are those of the biLM of this name, also for another one: so one search
    serves all models of a curve.
    """
    return {name: replace(task, chosen=choices_of(name, places, model)) for name, task in plan.items()}


def choices_of(name: str, places: Places, model: str | None) -> tuple[Choice, ...]:
    run = run_of(TASKS, TASKS[name].searched_with or name, {}, SEED)
    choices = []
    for arm in runs_by_arm(run).values():
        content = used_search(arm, places, model)
        if content:
            choices.append(as_choice(arm, content["chosen"]))
    return tuple(choices)


def used_search(run: Run, places: Places, model: str | None = None) -> dict[str, Any]:
    """What was searched to its end for a run's arm; nothing if it was with other settings, word vectors or
    weights, or if a tuned biLM went on from what is no longer chosen with a frozen one."""
    path = file_of(run, places, model)
    content = read_json(path) if path.is_file() else {}
    has_weights = model is not None or content.get("weights") in (None, places.weights)
    has_vectors = places.vectors is None or content.get("vectors") == places.vectors_fingerprint
    if "chosen" not in content or not (has_weights and has_vectors and is_of_plan(content)):
        return {}
    if run.biLM == "tuned":
        frozen = used_search(replace(run, biLM="frozen"), places, model)
        of_rest = {name: value for name, value in content["chosen"].items() if name not in TUNED_GRID}
        return content if of_rest == frozen.get("chosen") else {}
    return content


def searches(places: Places) -> list[dict[str, Any]]:
    """What was searched to its end and is used, by task and arm, in the order of the plan."""
    runs = [run_of(TASKS, name, {}, SEED) for name in SEARCHED]
    contents = [used_search(arm, places) for run in runs for arm in runs_by_arm(run).values()]
    return [content for content in contents if content]


# ---- how long it takes


def listing(runs: list[Run], places: Places) -> str:
    lines, total = [], 0.0
    for run in runs:
        before = stored_search(run, places)
        tried = before.get("tried", [])
        seconds = [row["processor_seconds"] for row in tried]
        each = sum(seconds) / len(seconds) if seconds else estimate(run, {run.task: small_task(run)})
        minutes = 0.0 if "chosen" in before else (size_of(run) - len(tried)) * each / 60
        total += minutes
        lines.append(
            f"{minutes:6.1f} minutes  {run.task}, {arm_of(run)}: {len(tried)} of {size_of(run)} tried"
        )
    return "\n".join([*lines, f"about {total / 60:.1f} hours of one processor"])


if __name__ == "__main__":
    main(sys.argv[1:])
