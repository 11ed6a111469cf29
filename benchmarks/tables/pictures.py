"""Pictures of the tables, from their JSON: bars with and without ELMo, and scores by the number of examples.

draw_tables(tables, Path("benchmarks/results"))     # table1.png, figure1.png; none where nothing is measured
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Rows = list[dict[str, Any]]
# The colours of elmo_hf/plot.py, which brings PyTorch with it.
COLUMNS = {"baseline": ("#D55E00", "without ELMo"), "elmo": ("#0072B2", "with ELMo")}

NARROWEST = 5  # inches, in which a title has its place


def draw_tables(tables: dict[str, Any], folder: Path) -> None:
    for name, draw in (("table1", draw_bars), ("figure1", draw_curves)):
        rows = [row for row in tables[name]["rows"] if row["baseline"] or row["elmo"]]
        if rows:
            draw(rows, folder / f"{name}.png", f"{tables[name]['title']} ({tables[name]['model']})")


def new_figure(width: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("a picture needs the package matplotlib; `pip install 'elmo-hf[plot]'`.") from None
    return Figure(figsize=(width, 4), dpi=150, layout="constrained")


def draw_bars(rows: Rows, path: Path, title: str) -> None:
    figure = new_figure(max(NARROWEST, 1.5 + 1.1 * len(rows)))
    axes = figure.subplots()
    for number, (column, (colour, label)) in enumerate(COLUMNS.items()):
        found = [(place, row[column]) for place, row in enumerate(rows) if row[column]]
        places = [place + 0.38 * (number - 0.5) for place, _ in found]
        means = [cell["mean"] for _, cell in found]
        deviations = [cell["std"] or 0 for _, cell in found]
        bars = axes.bar(places, means, 0.36, yerr=deviations, color=colour, label=label, capsize=3)
        axes.bar_label(bars, fmt="%.1f", fontsize=7, padding=2)
    names = [row["task"].replace(", ", "\n").replace(" texts\n", " texts,\n") for row in rows]
    axes.set_xticks(range(len(rows)), names, fontsize=7)
    axes.margins(y=0.1)  # room for the highest number
    finish(axes, title, figure, path)


def draw_curves(rows: Rows, path: Path, title: str) -> None:
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure = new_figure(max(NARROWEST, 4.2 * len(tasks)))
    panels = figure.subplots(1, len(tasks), squeeze=False)[0]
    for axes, task in zip(panels, tasks, strict=True):
        for column, (colour, label) in COLUMNS.items():
            found = [(row["train_size"], row[column]) for row in rows if row["task"] == task and row[column]]
            sizes, cells = [size for size, _ in found], [cell for _, cell in found]
            axes.errorbar(
                sizes,
                [cell["mean"] for cell in cells],
                [cell["std"] or 0 for cell in cells],
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
    figure.legend(handles, labels, fontsize=8, loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path)
