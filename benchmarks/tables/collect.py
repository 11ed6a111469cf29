"""From the results of single runs to the paper's tables: means, deviations, error reductions, Markdown.

    tables = collect(Measured(results, TASKS, "elmo-tiny", seeds=[0, 1, 2]))
    tables["table1"]["rows"][0]["relative_error_reduction"]
    markdown_of("table1", tables["table1"])

A score is a percentage. A row says by `missing` which runs it lacks; where a cell has none, it is null, and
where baseline and ELMo were not run with the same seeds, they are not compared.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import write_json
from benchmarks.speed.table import fill_blocks, markdown
from benchmarks.tables.plan import GAP_TEXTS, TABLES, Run, Table, Task, baseline_of, recipe_flags, run_of
from benchmarks.tables.published import GAP, PUBLISHED

Result = dict[str, Any]
WITH_PUBLISHED = ("table1", "whole")  # whose baselines stand beside those of others
NOTHING = "–"
NOT_RUN = "not run"


# ---- numbers


def cell(values: dict[int, float]) -> Result | None:
    """Of scores by their seeds. One seed has no deviation."""
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
    """Which part of the baseline's errors are gone, in percent; scores are percentages, too."""
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
    """Results by their runs' names, and what they are to be results of. `told`: how a command names the biLM.
    `weights`: its fingerprint, if it is known; results of another one do not count."""

    results: dict[str, Result]
    plan: dict[str, Task]
    model: str
    seeds: list[int]
    weights: str | None = None
    told: str = "--elmo ELMO"

    def of(self, run: Run) -> Result | None:
        """Nothing, too, if it was measured by other settings than the plan's."""
        found = self.results.get(run.name(self.model))
        if found is None or found["flags"] != recipe_flags(run, self.plan):
            return None
        is_other = run.place != "none" and self.weights not in (None, found["weights"])
        return None if is_other else found


def collect(measured: Measured) -> dict[str, Any]:
    """All tables, each `{"title", "split", "model", "command", "rows"}`."""
    return {
        name: {
            "title": table.title,
            "split": table.split,
            "model": measured.model,
            "command": "python -m benchmarks.tables --collect",
            "rows": rows_of(name, table, measured),
        }
        for name, table in TABLES.items()
    }


def rows_of(name: str, table: Table, measured: Measured) -> list[Result]:
    rows = []
    for task in table.tasks:
        for variant in table.variants:
            rows.append(row_of(name, task, variant, measured))
        if name == "table1" and task == "coref":
            runs = [run_of(measured.plan, task, {}, seed) for seed in measured.seeds]
            check = {
                "task": f"GAP, {GAP_TEXTS} texts, by the models of LitBank",
                "metric": "f1",
                "paper": None,
            }
            rows.append(rows[-1] | check | compared(runs, measured, gap_score))
            rows[-1]["published"] = published(GAP, "f1", rows[-1]["baseline"])
    return rows


def row_of(name: str, task: str, variant: str, measured: Measured) -> Result:
    plan, table = measured.plan[task], TABLES[name]
    runs = [run_of(measured.plan, task, table.variants[variant], seed) for seed in measured.seeds]
    command = f"python -m benchmarks.tables --data DATA {measured.told} --only {name} --tasks {task}"
    row = {
        "task": plan.title,
        "variant": variant,
        "metric": plan.metric,
        **compared(runs, measured, score_of(plan, table.split, plan.metric)),
        "train_size": runs[0].train_size,
        "train_size_of": plan.of,
        "paper": paper_of(plan) if name == "table1" else None,
        "command": f"{command} --seeds {' '.join(map(str, measured.seeds))}",
    }
    row |= adapting(runs, measured)
    if name in WITH_PUBLISHED:
        metric = PUBLISHED[task].metric or plan.metric
        counted_so = compared(runs, measured, score_of(plan, table.split, metric))
        row["published"] = published(task, metric, counted_so["baseline"])
    return row


def adapting(runs: list[Run], measured: Measured) -> Result:
    """What the adapting of these runs' biLM brought, if it was adapted; it is the same for all."""
    for found in map(measured.of, runs):
        if found and "adapting" in found:
            told = found["adapting"]
            perplexity = [round(told[when]["mean"], 1) for when in ("before", "after")]
            field, words = told["domain"], told["train_words"]
            return {"adapting": {"field": field, "words": words, "perplexity": perplexity}}
    return {}


def published(task: str, metric: str, baseline: Result | None) -> Result:
    """Figures of others, and our baseline by the score that they are told in."""
    found = PUBLISHED[task]
    figures = [vars(figure) for figure in found.figures]
    return {"metric": metric, "baseline": baseline, "figures": figures, "why": found.why}


def score_of(task: Task, split: str, metric: str) -> Callable[[Result], float]:
    return lambda result: task.percent * result["scores"][split][metric]


def gap_score(result: Result) -> float:
    return 100 * result["gap"]["f1"]


def compared(runs: list[Run], measured: Measured, score: Callable[[Result], float]) -> Result:
    cells: list[Result | None] = []
    missing: list[str] = []
    for wanted in ([baseline_of(run) for run in runs], runs):
        found = {run: measured.of(run) for run in wanted}
        missing += [run.name(measured.model) for run, result in found.items() if result is None]
        cells.append(cell({run.seed: score(one) for run, one in found.items() if one is not None}))
    baseline, elmo = cells
    row: Result = {"baseline": baseline, "elmo": elmo, "relative_error_reduction": None, "helps": None}
    if baseline and elmo and baseline["seeds"] == elmo["seeds"]:
        row["relative_error_reduction"] = error_reduction(baseline["mean"], elmo["mean"])
        row["helps"] = verdict(baseline, elmo)
    return row | {"missing": missing}


def paper_of(task: Task) -> Result | None:
    if task.paper is None:
        return None
    name, baseline, elmo = task.paper
    reduction = error_reduction(baseline, elmo)
    return {"task": name, "baseline": baseline, "elmo": elmo, "relative_error_reduction": reduction}


# ---- Markdown


def markdown_of(name: str, table: Result) -> str:
    """A table for a README; a line, where nothing is measured."""
    rows = table["rows"]
    if not any(row["baseline"] or row["elmo"] for row in rows):
        return f"**{table['title']}.** Nothing of this is measured yet."
    lines = beside_the_paper(rows) if name == "table1" else by_variant(rows)
    return f"**{table['title']}.** {about(name, table)}\n\n{lines}"


def about(name: str, table: Result) -> str:
    part = "Test" if table["split"] == "test" else "Dev"
    picture = f"\n\n![{table['title']}](results/{name}.png)" if name in ("table1", "figure1") else ""
    scores = f"{table['model']}; {part} scores, mean ± deviation of the seeds."
    return f"{scores}{perplexities(table['rows'])}{picture}"


def perplexities(rows: list[Result]) -> str:
    """Of held-out text of the fields to which a biLM was adapted."""
    told_of = [row["adapting"] for row in rows if "adapting" in row]
    if not told_of:
        return ""
    found = []
    for one in told_of:
        before, after = one["perplexity"]
        found.append(f"{one['field']} {before:.1f} → {after:.1f} by {one['words']:,} words")
    return f" Perplexity of the field's held-out text: {', '.join(found)}."


def beside_the_paper(rows: list[Result]) -> str:
    head = ["task", "score", "train", "baseline", "+ ELMo", "fewer errors", "helps?", "the paper's", "fewer"]
    return markdown(head, [paper_row(row) for row in rows])


def paper_row(row: Result) -> list[str]:
    paper = row["paper"]
    return [
        row["task"],
        row["metric"],
        train_part(row["train_size"], row["train_size_of"]),
        shown(row["baseline"]),
        shown(row["elmo"]),
        percent(row["relative_error_reduction"]),
        row["helps"] or NOTHING,
        f"{paper['task']}: {paper['baseline']} → {paper['elmo']}" if paper else NOTHING,
        percent(paper["relative_error_reduction"]) if paper else NOTHING,
    ]


def train_part(size: int, of: str) -> str:
    return f"{size:,} of {of}" if of else f"{size:,}"


def beside_others(tables: dict[str, Result]) -> str:
    """Our baselines beside what is published of their data, a line for each figure; then why they differ."""
    rows = [row for name in WITH_PUBLISHED for row in tables[name]["rows"]]
    lines = []
    for row in rows:
        found = row["published"]
        ours = [row["task"], found["metric"], shown(found["baseline"])]
        for figure in found["figures"]:
            link = f"[{figure['source']}]({figure['url']})"
            lines.append([*ours, f"{figure['score']:.1f}", figure["system"], link])
        if not found["figures"]:
            lines.append([*ours, NOTHING, NOTHING, NOTHING])
    reasons = "\n".join(f"- {row['task']}: {row['published']['why']}" for row in rows)
    head = ["task", "score", "our baseline", "published", "system", "source"]
    return f"**Our baselines beside published ones.**\n\n{markdown(head, lines)}\n\n{reasons}"


def by_variant(rows: list[Result]) -> str:
    """A line for each task; where the variants have baselines of their own, these are a line above it."""
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    lines = []
    for task in dict.fromkeys(row["task"] for row in rows):
        own = {row["variant"]: row for row in rows if row["task"] == task}
        if len({row["train_size"] for row in own.values()}) > 1:
            lines.append([f"{task}, without", NOTHING, *(shown(own[one]["baseline"]) for one in variants)])
            lines.append([f"{task}, with ELMo", NOTHING, *(compared_cell(own[one]) for one in variants)])
        else:
            cells = [compared_cell(own[one]) for one in variants]
            lines.append([task, shown(own[variants[0]]["baseline"]), *cells])
    head = ["task", "without ELMo", *variants]
    columns = [
        number for number in range(len(head)) if number != 1 or any(line[1] != NOTHING for line in lines)
    ]
    return markdown(
        [head[number] for number in columns], [[line[number] for number in columns] for line in lines]
    )


def compared_cell(row: Result) -> str:
    reduction = row["relative_error_reduction"]
    note = f" ({percent(reduction)})" if reduction is not None else ""
    return f"{shown(row['elmo'])}{note}"


def shown(found: Result | None) -> str:
    if found is None:
        return NOT_RUN
    if found["std"] is None:
        return f"{found['mean']:.1f} (one seed)"
    return f"{found['mean']:.1f} ± {found['std']:.1f}"


def percent(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1f} %".replace("-", "−")


# ---- files


def write_tables(tables: dict[str, Any], folder: Path) -> None:
    for name, table in tables.items():
        write_json(folder / f"{name}.json", table)


def filled(text: str, tables: dict[str, Any], plan: dict[str, Task]) -> str:
    """A README with the tables between its markers `<!-- tables: table1 -->` and `<!-- /tables -->`."""

    def content(name: str) -> str:
        if name == "published":
            return beside_others(tables)
        return budget(plan) if name == "budget" else markdown_of(name, tables[name])

    return fill_blocks(text, "tables", content)


def budget(plan: dict[str, Task]) -> str:
    """What is learnt from how much, as a table."""
    rows = []
    for task in plan.values():
        sizes = ", ".join(f"{split} {size:,}" for split, size in task.sizes.items()) or "all"
        settings = " ".join(filter(None, [task.flags, *task.settings])) or NOTHING
        cells = [task.title, train_part(task.train_size, task.of), sizes, f"{task.epochs} ({task.patience})"]
        rows.append([*cells, f"`{settings}`" if settings != NOTHING else NOTHING])
    head = ["task", "train examples", "others", "epochs (patience)", "other than in the recipe"]
    return markdown(head, rows)
