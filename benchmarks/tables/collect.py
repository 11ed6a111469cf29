"""From the results of single runs to the paper's tables: means, deviations, error reductions.

    tables = collect(Measured(results, TASKS, "elmo-tiny", seeds=[0, 1, 2]))
    tables["table1"]["rows"][0]["relative_error_reduction"]

A score is a percentage. `missing` of a row names the runs without a result. A cell without results is null.
The cells of a task are means over the seeds that all of them have; without such a seed they are not compared.
"""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks.tables.plan import (
    GAP_FLAGS,
    GAP_TEXTS,
    TABLES,
    Run,
    Table,
    Task,
    baseline_of,
    recipe_flags,
    run_of,
)
from benchmarks.tables.published import GAP, PUBLISHED
from elmo_hf.errors import ElmoError
from elmo_hf.files import read_json, write_json

Result = dict[str, Any]
FIGURE2 = "Figure 2. Learnt shares of the layers"
WITH_PUBLISHED = ("table1", "whole")  # the tables whose baselines are compared with published ones


# ---- numbers


def cell(values: dict[int, float]) -> Result | None:
    """Mean and deviation of scores by seed. One seed has no deviation."""
    if not values:
        return None
    scores = list(values.values())
    deviation = round(statistics.stdev(scores), 3) if len(scores) > 1 else None
    return {
        "mean": round(statistics.mean(scores), 3),
        "std": deviation,
        "seeds": list(values),
        "scores": [round(score, 3) for score in scores],
    }


def error_reduction(baseline: float, elmo: float) -> float | None:
    """(ELMo - baseline) / (100 - baseline), in percent."""
    return round(100 * (elmo - baseline) / (100 - baseline), 1) if baseline < 100 else None


def verdict(baseline: Result, elmo: Result) -> str:
    """Whether ELMo helps: "yes" if it is better by more than both deviations together."""
    difference = elmo["mean"] - baseline["mean"]
    if difference <= 0:
        return "no"
    if baseline["std"] is None or elmo["std"] is None:
        return "one seed"
    return "yes" if difference > baseline["std"] + elmo["std"] else "within the deviations"


# ---- rows


@dataclass(frozen=True)
class Measured:
    """The stored results by the names of their runs, for one plan, model and list of seeds.

    `weights` and `vectors` are the fingerprints of the biLM and of the word vectors, if known; results of
    others do not count. `elmo_flag` names the biLM in recorded commands.
    """

    results: dict[str, Result]
    plan: dict[str, Task]
    model: str
    seeds: list[int]
    weights: str | None = None
    vectors: str | None = None
    elmo_flag: str = "--elmo ELMO"

    def of(self, run: Run) -> Result | None:
        """The result of a run; None if there is none with the plan's settings, these weights and vectors."""
        result = self.results.get(run.name(self.model))
        if result is None or result["flags"] != recipe_flags(run, self.plan):
            return None
        has_other_weights = run.place != "none" and self.weights not in (None, result["weights"])
        has_other_vectors = self.plan[run.task].vectors and self.vectors not in (None, result.get("vectors"))
        return None if has_other_weights or has_other_vectors else result

    def gap_of(self, run: Run) -> Result | None:
        """The result of a run of coreference, if its model was evaluated on GAP as the plan says."""
        result = self.of(run)
        return result if result is not None and result.get("gap_flags") == GAP_FLAGS else None


def collect(measured: Measured, simple: Result | None = None) -> dict[str, Any]:
    """All tables, each `{"title", "split", "model", "command", "rows"}`.

    Args:
        simple: what simple features reach, by task (simple.py).
    """
    if measured.vectors is None:
        check_vectors(measured.results)
    tables: dict[str, Any] = {
        name: {
            "title": table.title,
            "split": table.split,
            "model": measured.model,
            "command": "python -m benchmarks.tables --collect",
            "rows": rows_of(name, table, measured),
        }
        for name, table in TABLES.items()
    }
    add_simple(tables["table1"]["rows"], measured.plan, simple or {})
    return tables


def check_vectors(results: dict[str, Result]) -> None:
    """Refuse results of more than one file of word vectors, as none of them is known to be the tables'."""
    runs = {result["vectors"]: name for name, result in results.items() if result.get("vectors")}
    if len(runs) > 1:
        first, other, *_ = runs.values()
        raise ElmoError(
            f"the runs {first} and {other} were made with different word vectors; name those of the tables "
            "with --vectors."
        )


def simple_results(folder: Path) -> Result:
    path = folder / "tables" / "simple.json"
    return dict(read_json(path)) if path.is_file() else {}


def add_simple(rows: list[Result], plan: dict[str, Task], simple: Result) -> None:
    """Add what simple features reach to the rows of tasks, where it was measured on the same examples."""
    names = {task.title: name for name, task in plan.items()}
    for row in rows:
        result = simple.get(names.get(row["task"], ""))
        if result is None:
            continue
        task = plan[names[row["task"]]]
        sizes = {"train": task.train_size, **task.sizes}
        if sizes.items() <= result["examples"].items():
            score = task.percent * result["scores"]["test"][task.metric]
            row["simple"] = {"score": round(score, 3), "method": result["method"]}


def rows_of(name: str, table: Table, measured: Measured) -> list[Result]:
    rows = []
    for task in table.tasks:
        columns = {
            variant: [run_of(measured.plan, task, settings, seed) for seed in measured.seeds]
            for variant, settings in table.variants.items()
        }
        seeds = shared_seeds(columns.values(), measured)
        for variant, runs in columns.items():
            shared = [run for run in runs if run.seed in seeds]
            rows.append(
                row_of(name, task, variant, shared, measured) | {"missing": missing_of(runs, measured)}
            )
        if name == "table1" and task == "coref":  # whose only column this is
            rows += rows_on_gap(rows[-1], shared, measured)
    return rows


def rows_on_gap(row: Result, runs: list[Run], measured: Measured) -> list[Result]:
    """The row of GAP beside that of LitBank, or none if no two arms were evaluated on it."""
    runs = [run for run in runs if measured.gap_of(baseline_of(run)) and measured.gap_of(run)]
    if not runs:
        return []
    gap = {"task": f"GAP, {GAP_TEXTS} texts, by the models of LitBank", "metric": "f1"}
    of_litbank: Result = {"paper": None, "mix": {}, "minutes": {}}  # not of GAP's texts
    row = row | gap | of_litbank | compared(runs, measured, gap_score)
    return [row | {"published": published(GAP, "f1", row["baseline"])}]


def arms_of(runs: list[Run]) -> tuple[list[Run], list[Run]]:
    """The runs without ELMo, and those with it."""
    return [baseline_of(run) for run in runs], runs


def shared_seeds(columns: Iterable[list[Run]], measured: Measured) -> set[int]:
    """The seeds with a result in every column that has results; all seeds if there is none."""
    arms = chain.from_iterable(map(arms_of, columns))
    found = [{run.seed for run in arm if measured.of(run) is not None} for arm in arms]
    everywhere = set.intersection(*filter(None, found)) if any(found) else set()
    return everywhere or set(measured.seeds)


def missing_of(runs: list[Run], measured: Measured) -> list[str]:
    needed = chain.from_iterable(arms_of(runs))
    return [run.name(measured.model) for run in needed if measured.of(run) is None]


def row_of(name: str, task: str, variant: str, runs: list[Run], measured: Measured) -> Result:
    plan, table = measured.plan[task], TABLES[name]
    command = f"python -m benchmarks.tables --data DATA {measured.elmo_flag} --only {name} --tasks {task}"
    row = {
        "task": plan.title,
        "variant": variant,
        "metric": plan.metric,
        **compared(runs, measured, score_of(plan, table.split, plan.metric)),
        "mix": mixes_of(runs, measured),
        "minutes": minutes_of(runs, measured),
        "train_size": runs[0].train_size,
        "train_size_of": plan.of,
        "paper": paper_of(plan) if name == "table1" else None,
        "command": f"{command} --seeds {' '.join(map(str, measured.seeds))}",
    }
    row |= adaptation(runs, measured)
    if name in WITH_PUBLISHED:
        metric = PUBLISHED[task].metric or plan.metric
        by_metric = compared(runs, measured, score_of(plan, table.split, metric))
        row["published"] = published(task, metric, by_metric["baseline"])
    return row


def mixes_of(runs: list[Run], measured: Measured) -> Result:
    """The mean shares of the layers in the mixes at the input and at the output, over the seeds."""
    found: dict[str, list[list[float]]] = {}
    for result in filter(None, map(measured.of, runs)):
        for place, mix in result.get("mix", {}).items():
            found.setdefault(place, []).append(mix["shares"])
    return {
        place: [round(statistics.mean(shares), 4) for shares in zip(*rows, strict=True)]
        for place, rows in found.items()
    }


def minutes_of(runs: list[Run], measured: Measured) -> Result:
    """The mean processor minutes of a run without and with ELMo: training and evaluation."""
    minutes = {}
    for name, column in zip(("baseline", "elmo"), arms_of(runs), strict=True):
        seconds = [result["processor_seconds"] for result in map(measured.of, column) if result]
        minutes[name] = round(statistics.mean(seconds) / 60, 1) if seconds else None
    return minutes


def adaptation(runs: list[Run], measured: Measured) -> Result:
    """The perplexities before and after the adaptation of these runs' biLM, which they share, if any."""
    for result in map(measured.of, runs):
        if result and "adapting" in result:
            row = result["adapting"]
            perplexity = [round(row[when]["mean"], 1) for when in ("before", "after")]
            unknown = round(row["after"]["unknown"], 3)
            text = {"field": row["domain"], "words": row["train_words"], "unknown": unknown}
            return {"adapting": text | {"perplexity": perplexity}}
    return {}


def published(task: str, metric: str, baseline: Result | None) -> Result:
    """Published figures, our baseline by the same metric, and why they differ."""
    known = PUBLISHED[task]
    figures = [vars(figure) for figure in known.figures]
    of_ours = {"metric": metric, "baseline": baseline, "is_alike": known.is_alike}
    return of_ours | {"figures": figures, "why": known.why}


def score_of(task: Task, split: str, metric: str) -> Callable[[Result], float]:
    return lambda result: task.percent * result["scores"][split][metric]


def gap_score(result: Result) -> float:
    return 100 * result["gap"]["f1"]


def compared(runs: list[Run], measured: Measured, score: Callable[[Result], float]) -> Result:
    cells: list[Result | None] = []
    for column in arms_of(runs):
        results = {run: measured.of(run) for run in column}
        cells.append(cell({run.seed: score(result) for run, result in results.items() if result is not None}))
    baseline, elmo = cells
    row: Result = {"baseline": baseline, "elmo": elmo, "relative_error_reduction": None, "helps": None}
    if baseline and elmo and baseline["seeds"] == elmo["seeds"]:
        row["relative_error_reduction"] = error_reduction(baseline["mean"], elmo["mean"])
        row["helps"] = verdict(baseline, elmo)
    return row


def paper_of(task: Task) -> Result | None:
    if task.paper is None:
        return None
    name, baseline, elmo = task.paper
    reduction = error_reduction(baseline, elmo)
    return {"task": name, "baseline": baseline, "elmo": elmo, "relative_error_reduction": reduction}


# ---- files


def write_tables(tables: dict[str, Any], folder: Path) -> None:
    for name, table in tables.items():
        write_json(folder / f"{name}.json", table)
