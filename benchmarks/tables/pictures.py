"""Pictures of the tables: bars with and without ELMo, and a line at what simple features reach; scores by
the number of train examples; and the shares of the layers that mixes have learnt (the paper's figure 2).

draw_tables(tables, Path("benchmarks/results"))  # table1.png, figure1.png, figure2.png, if there are results
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.report import new_figure
from benchmarks.tables.collect import FIGURE2

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Rows = list[dict[str, Any]]
# The colours of elmo_hf/pretraining/plot.py.
COLUMNS = {"baseline": ("#D55E00", "without ELMo"), "elmo": ("#0072B2", "with ELMo")}

MIN_WIDTH, HEIGHT = 5, 4  # inches; a title needs the former


def draw_tables(tables: dict[str, Any], folder: Path) -> None:
    for name, draw in (("table1", draw_bars), ("figure1", draw_curves)):
        rows = [row for row in tables[name]["rows"] if row["baseline"] or row["elmo"]]
        if rows:
            draw(rows, folder / f"{name}.png", f"{tables[name]['title']} ({tables[name]['model']})")
    mixes = [row for row in tables["table1"]["rows"] if row.get("mix")]
    if mixes:
        draw_mixes(mixes, folder / "figure2.png", f"{FIGURE2} ({tables['table1']['model']})")


def draw_mixes(rows: Rows, path: Path, title: str) -> None:
    """A panel for the mix at the input and for that at the output: a row a task, a column a layer. A task
    that ELMo does not enter at a place has an empty row there."""
    places = [place for place in ("input", "output") if any(place in row["mix"] for row in rows)]
    figure = new_figure(max(MIN_WIDTH, 1.6 + 3.2 * len(places)), 1.2 + 0.4 * len(rows))
    panels = figure.subplots(1, len(places), squeeze=False, sharey=True)[0]
    panels[0].set_yticks(range(len(rows)), [row["task"] for row in rows], fontsize=7)
    count = len(next(iter(rows[0]["mix"].values())))
    for axes, place in zip(panels, places, strict=True):
        shares = [row["mix"].get(place, [math.nan] * count) for row in rows]
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        layers = ["words", *(f"layer {number}" for number in range(1, count))]
        axes.set_xticks(range(count), layers, fontsize=8)
        for y, row in enumerate(rows):
            for x, share in enumerate(row["mix"].get(place, [])):
                colour = "white" if share > 0.6 else "black"
                axes.text(x, y, f"{share:.2f}", ha="center", va="center", fontsize=8, color=colour)
        axes.set_title(f"at the {place}", fontsize=9)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path)


def draw_bars(rows: Rows, path: Path, title: str) -> None:
    figure = new_figure(max(MIN_WIDTH, 1.5 + 1.1 * len(rows)), HEIGHT)
    axes = figure.subplots()
    for number, (column, (colour, label)) in enumerate(COLUMNS.items()):
        cells = [(place, row[column]) for place, row in enumerate(rows) if row[column]]
        places = [place + 0.38 * (number - 0.5) for place, _ in cells]
        means = [cell["mean"] for _, cell in cells]
        deviations = [cell["std"] or 0 for _, cell in cells]
        bars = axes.bar(places, means, 0.36, yerr=deviations, color=colour, label=label, capsize=3)
        axes.bar_label(bars, fmt="%.1f", fontsize=7, padding=2)
    simple = [(place, row["simple"]["score"]) for place, row in enumerate(rows) if "simple" in row]
    for number, (place, score) in enumerate(simple):
        label = "" if number else "simple features"
        axes.plot([place - 0.45, place + 0.45], [score, score], color="#333333", label=label)
    names = [row["task"].replace(", ", "\n").replace(" texts\n", " texts,\n") for row in rows]
    axes.set_xticks(range(len(rows)), names, fontsize=7)
    axes.set_xlim(-0.6, len(rows) - 0.4)
    axes.margins(y=0.1)  # room for the highest number
    finish(axes, title, figure, path)


def draw_curves(rows: Rows, path: Path, title: str) -> None:
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure = new_figure(max(MIN_WIDTH, 4.2 * len(tasks)), HEIGHT)
    panels = figure.subplots(1, len(tasks), squeeze=False)[0]
    for axes, task in zip(panels, tasks, strict=True):
        for column, (colour, label) in COLUMNS.items():
            measured = [row for row in rows if row["task"] == task and row[column]]
            axes.errorbar(
                [row["train_size"] for row in measured],
                [row[column]["mean"] for row in measured],
                [row[column]["std"] or 0 for row in measured],
                color=colour,
                label=label,
                marker="o",
                markersize=4,
                capsize=3,
            )
        axes.set_xscale("log")
        axes.minorticks_off()
        sizes = sorted({row["train_size"] for row in rows if row["task"] == task})
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=7)
        axes.set_xlabel("train examples", fontsize=8)
        axes.set_title(task, fontsize=9)
    finish(panels[0], title, figure, path)


def finish(axes: "Axes", title: str, figure: Any, path: Path) -> None:
    axes.set_ylabel("score, %", fontsize=8)
    figure.suptitle(title, fontsize=10)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.savefig(path)
