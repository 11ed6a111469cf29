"""The paper's tables on the page of the benchmarks, in Markdown.

fill_tables(PAGE, tables, TASKS, searches)    # tables of collect.py, what search.py has stored
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import EMPTY, fill_page, markdown_table
from benchmarks.tables.collect import FIGURE2, Result
from benchmarks.tables.plan import Task, learning_rate

NOT_RUN = "not run"


def fill_tables(
    page: Path, tables: dict[str, Any], plan: dict[str, Task], searches: Sequence[Result]
) -> None:
    """Fill the page between its markers `<!-- tables: table1 -->` and `<!-- /tables -->`."""

    def content(name: str) -> str:
        if name == "published":
            return table_with_published(tables)
        if name == "choices":
            return table_of_choices(searches, plan)
        if name == "figure2":
            return table_of_shares(tables["table1"])
        return budget(plan) if name == "budget" else markdown_of(name, tables[name])

    fill_page(page, "tables", content)


def budget(plan: dict[str, Task]) -> str:
    """The data and the budget of each task, as a table."""
    rows = []
    for task in plan.values():
        sizes = ", ".join(f"{split} {size:,}" for split, size in task.sizes.items()) or "all"
        settings = " ".join(filter(None, [task.flags, *task.settings])) or EMPTY
        epochs = f"until {task.patience} bring no gain"
        cells = [task.title, train_size(task.train_size, task.of), sizes, epochs]
        rows.append([*cells, f"`{settings}`" if settings != EMPTY else EMPTY])
    head = ["task", "train examples", "others", "epochs", "changes to the recipe"]
    return markdown_table(head, rows, left=5)


def table_of_choices(searches: Sequence[Result], plan: dict[str, Task]) -> str:
    """What search.py has chosen, with the scores on dev of the best and the worst point that it tried."""
    rows = []
    for search in searches:
        run, point = search["run"], search["chosen"]
        task = plan[run["task"]]
        rate = learning_rate(task, point["learning rate"])
        scores = [100 * tried["score"] for tried in search["tried"]]
        arm = "without ELMo" if run["place"] == "none" else "with ELMo"
        if run["biLM"] == "tuned":
            arm = "with a tuned ELMo"
            part = point["learning rate of the biLM"]
            rate += f" (biLM {learning_rate(task, part * point['learning rate'])})"
        numbers = [f"{run['train_size']:,}", f"{point['dropout']:g}", rate]
        numbers += [f"{point['vector scale']:g}", f"{max(scores):.1f}", f"{min(scores):.1f}"]
        rows.append([task.title, arm, *numbers])
    head = ["task", "", "train", "dropout", "learning rate", "scale of vectors", "best on dev", "worst tried"]
    return markdown_table(head, rows, left=2) if rows else "No results yet."


# ---- tables


def markdown_of(name: str, table: Result) -> str:
    """A table with its title, or a line if it has no results."""
    rows = table["rows"]
    if not any(row["baseline"] or row["elmo"] for row in rows):
        return f"**{table['title']}.** No results yet."
    lines = table_with_paper(rows) if name == "table1" else table_by_variant(rows)
    return f"**{table['title']}.** {caption(name, table)}\n\n{lines}"


def caption(name: str, table: Result) -> str:
    picture = f"\n\n![{table['title']}](results/{name}.png)" if name in ("table1", "figure1") else ""
    scores = f"{table['model']}, {table['split']} scores, mean ± standard deviation over seeds."
    return f"{scores}{perplexities(table['rows'])}{picture}"


def perplexities(rows: list[Result]) -> str:
    """Of held-out text of the domains to which a biLM was adapted."""
    domains = []
    for adapting in [row["adapting"] for row in rows if "adapting" in row]:
        before, after = adapting["perplexity"]
        words = f"{adapting['words']:,} words of training, {100 * adapting['unknown']:.0f} % unknown"
        domains.append(f"{adapting['field']} {before:.1f} → {after:.1f} ({words})")
    return f" Perplexity of the domain's held-out text: {', '.join(domains)}." if domains else ""


def table_with_paper(rows: list[Result]) -> str:
    has_simple = any("simple" in row for row in rows)
    head = [
        "task",
        "score",
        "train",
        *(["simple features"] if has_simple else []),
        "baseline",
        "+ ELMo",
        "error reduction",
        "helps?",
        "paper",
        "its reduction",
        "minutes",
    ]
    table = markdown_table(head, [paper_row(row, has_simple) for row in rows])
    if not has_simple:
        return table
    methods = [f"- {row['task']}: {row['simple']['method']}." for row in rows if "simple" in row]
    return "\n".join([table, "", "Simple features (`benchmarks/tables/simple.py`):", "", *methods])


def paper_row(row: Result, has_simple: bool = False) -> list[str]:
    paper = row["paper"]
    simple = f"{row['simple']['score']:.1f}" if "simple" in row else EMPTY
    return [
        row["task"],
        row["metric"],
        train_size(row["train_size"], row["train_size_of"]),
        *([simple] if has_simple else []),
        shown(row["baseline"]),
        shown(row["elmo"]),
        percent(row["relative_error_reduction"]),
        row["helps"] or EMPTY,
        f"{paper['task']}: {paper['baseline']} → {paper['elmo']}" if paper else EMPTY,
        percent(paper["relative_error_reduction"]) if paper else EMPTY,
        shown_minutes(row.get("minutes", {})),
    ]


def shown_minutes(minutes: Result) -> str:
    """Without ELMo and with it."""
    cells = [EMPTY if value is None else f"{value:.1f}" for value in minutes.values()]
    return EMPTY if set(cells) <= {EMPTY} else " → ".join(cells)


def train_size(size: int, of: str) -> str:
    return f"{size:,} of {of}" if of else f"{size:,}"


def table_of_shares(table: Result) -> str:
    """The shares of the layers that the mixes of Table 1 have learnt, and their picture."""
    lines = [
        [row["task"], place, *(f"{share:.2f}" for share in shares)]
        for row in table["rows"]
        for place, shares in row.get("mix", {}).items()
    ]
    if not lines:
        return f"**{FIGURE2}.** No results yet."
    layers = [f"layer {number}" for number in range(1, len(lines[0]) - 2)]
    rows = markdown_table(["task", "mix at the", "words", *layers], lines, left=2)
    picture = f"![{FIGURE2}](results/figure2.png)"
    return f"**{FIGURE2}.** {table['model']}, mean over seeds.\n\n{picture}\n\n{rows}"


def table_with_published(tables: dict[str, Result]) -> str:
    """Our baselines and published ones, a line for each figure; then why they differ."""
    of_all_data = [row for row in tables["whole"]["rows"] if row["baseline"]]  # which few can measure
    rows = [*tables["table1"]["rows"], *of_all_data]
    lines = []
    for row in rows:
        comparison = row["published"]
        ours = [row["task"], comparison["metric"], shown(comparison["baseline"])]
        for figure in comparison["figures"]:
            link = f"[{figure['source']}]({figure['url']})"
            lines.append([*ours, f"{figure['score']:.1f}", figure["system"], link])
        if not comparison["figures"]:
            lines.append([*ours, EMPTY, EMPTY, EMPTY])
    reasons = "\n".join(f"- {row['task']}: {row['published']['why']}" for row in rows)
    head = ["task", "score", "our baseline", "published", "system", "source"]
    return f"**Our baselines and published ones.**\n\n{markdown_table(head, lines)}\n\n{reasons}"


def table_by_variant(rows: list[Result]) -> str:
    """A line for each task; two if the variants have different baselines."""
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    lines = []
    for task in dict.fromkeys(row["task"] for row in rows):
        own = {row["variant"]: row for row in rows if row["task"] == task}
        if len({row["train_size"] for row in own.values()}) > 1:
            lines.append(
                [f"{task}, without", EMPTY, *(shown(own[variant]["baseline"]) for variant in variants)]
            )
            lines.append(
                [f"{task}, with ELMo", EMPTY, *(compared_cell(own[variant]) for variant in variants)]
            )
        else:
            cells = [compared_cell(own[variant]) for variant in variants]
            lines.append([task, shown(own[variants[0]]["baseline"]), *cells])
    head = ["task", "without ELMo", *variants]
    if all(line[1] == EMPTY for line in lines):
        head, lines = [head[0], *head[2:]], [[line[0], *line[2:]] for line in lines]
    return markdown_table(head, lines)


def compared_cell(row: Result) -> str:
    reduction = row["relative_error_reduction"]
    note = f" ({percent(reduction)})" if reduction is not None else ""
    return f"{shown(row['elmo'])}{note}"


def shown(cell: Result | None) -> str:
    if cell is None:
        return NOT_RUN
    if cell["std"] is None:
        return f"{cell['mean']:.1f} (one seed)"
    note = " (two seeds)" if len(cell["seeds"]) == 2 else ""
    return f"{cell['mean']:.1f} ± {cell['std']:.1f}{note}"


def percent(value: float | None) -> str:
    return EMPTY if value is None else f"{value:.1f} %".replace("-", "−")
