"""The course of a pretraining run as one picture: training loss, held-out perplexity, words a second.

    draw(read_log("my-run"), "my-run/log.png")
    elmo-hf plot my-run/

A run's `log.jsonl` has one JSON object a line, each with its `kind`; `NUMBERS` lists what is drawn of it. A
run that was killed may have left a part of a line at the end, and steps that it made again when it went on.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Entry = dict[str, Any]

# What an entry of each kind must have to be drawn; other kinds and other things are passed over.
NUMBERS = {
    "start": (),
    "resume": ("step",),
    "step": ("step", "loss", "words", "words_per_second"),
    "evaluation": ("step", "forward", "backward", "mean"),
}

# Colours that also those see apart who see fewer (Okabe and Ito).
BLUE, ORANGE, GREEN, BLACK, GREY = "#0072B2", "#D55E00", "#009E73", "#222222", "#767676"


# ---- the log


def log_path(run: str | Path) -> Path:
    """The log of a run's folder, or the file itself."""
    path = Path(run)
    return path / "log.jsonl" if path.is_dir() else path


def read_log(path: str | Path) -> list[Entry]:
    """The entries of a run's log, as if it had never been killed."""
    path = log_path(path)
    if not path.is_file():
        raise ValueError(f"there is no log {path}; name the folder of a pretraining run.")
    lines = path.read_bytes().split(b"\n")
    if _object(lines[-1]) is None:  # empty, or what a killed run did not get to finish
        lines.pop()
    entries = [_entry(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]
    if not entries:
        raise ValueError(f"{path} is empty; the run has written nothing yet.")
    return _without_steps_made_again(entries)


def _object(line: bytes) -> Entry | None:
    try:
        found = json.loads(line.decode("utf-8"))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _entry(line: bytes, place: str) -> Entry:
    entry = _object(line)
    if entry is None:
        raise ValueError(f"{place} is damaged: {line.decode('utf-8', 'replace')!r:.60}.")
    kind = entry.get("kind")
    if not isinstance(kind, str):
        raise ValueError(f"{place} has no kind, so this is not the log of a pretraining run.")
    for name in NUMBERS.get(kind, ()):
        value = entry.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{place}: {name} of this {kind} must be a number, but is {value!r:.40}.")
    return entry


def _without_steps_made_again(entries: list[Entry]) -> list[Entry]:
    """A run goes on from its last checkpoint: what it had logged beyond that was done once more."""
    kept: list[Entry] = []
    for entry in entries:
        if entry["kind"] == "resume":
            kept = [old for old in kept if old.get("step", 0) <= entry["step"]]
        kept.append(entry)
    last = {_key(entry, number): number for number, entry in enumerate(kept)}
    return [entry for number, entry in enumerate(kept) if last[_key(entry, number)] == number]


def _key(entry: Entry, number: int) -> tuple[Any, ...]:
    """What there can be only one of; the later line counts."""
    return (entry["kind"], entry["step"], entry.get("text")) if "step" in entry else (number,)


# ---- the picture


def draw(log: Iterable[Entry], output: str | Path, name: str = "") -> None:
    """Writes a PNG of 1200 x 900. `name` is the title where the run's settings have none."""
    log, output = list(log), Path(output)
    if output.suffix.lower() != ".png":
        raise ValueError(f"the picture is a PNG, so {output} should end in .png.")
    if not output.parent.is_dir():
        raise ValueError(f"there is no folder {output.parent} to write {output.name} into.")
    make_figure(log, name).savefig(output)


def make_figure(log: list[Entry], name: str = "") -> "Figure":
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError:
        raise ValueError("a picture needs the package matplotlib; `pip install 'elmo-hf[plot]'`.") from None

    steps = [entry for entry in log if entry["kind"] == "step"]
    if not steps:
        raise ValueError("the log has no step yet, so there is nothing to draw.")
    figure = Figure(figsize=(8, 6), dpi=150, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08))
    panels = figure.subplots(3, 1, sharex=True, height_ratios=(5, 5, 3))
    _prepare(panels, [entry["step"] for entry in log if entry["kind"] == "resume"])
    _draw_loss(panels[0], steps, _settings(log).get("softmax"))
    _draw_perplexity(panels[1], [entry for entry in log if entry["kind"] == "evaluation"])
    _draw_speed(panels[2], steps)
    panels[-1].set_xlim(0, 1.01 * max(1, *(entry["step"] for entry in steps)))
    panels[-1].xaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
    panels[-1].set_xlabel("training step", fontsize=9)
    figure.align_ylabels(panels)
    figure.suptitle(_title(log, name), fontsize=12, fontweight="bold", parse_math=False)
    return figure


def _settings(log: list[Entry]) -> Entry:
    """Of the last start; a log may lack its own."""
    found = [entry.get("settings") for entry in log if entry["kind"] == "start"]
    return found[-1] if found and isinstance(found[-1], dict) else {}


def _title(log: list[Entry], name: str) -> str:
    """The run's name, and how far it has come."""
    last = [entry for entry in log if entry["kind"] == "step"][-1]
    name = str(_settings(log).get("name") or name or "pretraining")
    name = name if len(name) <= 40 else name[:37] + "..."
    return f"{name}: {last['step']:,} steps, {_short(last['words'])} words"


def _draw_loss(panel: "Axes", steps: list[Entry], softmax: Any) -> None:
    kind = f" ({softmax} softmax)" if isinstance(softmax, str) else ""
    _name(panel, "training loss" + kind, "nats a token")
    _draw_smoothed(panel, steps, "loss", BLUE, lambda loss: f"{loss:.3f}")
    _legend(panel)


def _draw_speed(panel: "Axes", steps: list[Entry]) -> None:
    _name(panel, "speed", "words a second")
    _draw_smoothed(panel, steps, "words_per_second", GREEN, _short)
    panel.set_ylim(bottom=0)
    panel.yaxis.set_major_formatter(lambda value, _: _short(value))
    _legend(panel)


def _draw_smoothed(
    panel: "Axes", steps: list[Entry], name: str, colour: str, to_text: Callable[[float], str]
) -> None:
    """Each value faintly, and their running mean over a fiftieth of the run."""
    x, y = _numbers(steps, "step"), _numbers(steps, name)
    width = min(len(y), max(5, len(y) // 50))
    mean = running_mean(y, width)
    panel.plot(x, y, color=colour, alpha=0.35, linewidth=0.6, marker=_marker(y))
    label = f"mean of the last {width} entries: {to_text(mean[-1])}" if width > 1 else to_text(mean[-1])
    panel.plot(x, mean, color=colour, linewidth=1.6, marker=_marker(y), label=label)


def _marker(values: np.ndarray) -> str:
    """A line through one point cannot be seen."""
    return "o" if len(values) < 3 else ""


def running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """Of each value and those before it, `width` in all; of fewer at the begin, where they fall steeply.

    What is no number is left out.
    """
    ends = np.arange(1, len(values) + 1)
    starts = ends - np.minimum(width, 1 + ends // 4)
    is_number = np.isfinite(values)
    totals, counts = (
        np.concatenate([[0], column.cumsum()]) for column in (np.where(is_number, values, 0), is_number)
    )
    count = counts[ends] - counts[starts]
    mean = np.full(len(values), np.nan)
    return np.divide(totals[ends] - totals[starts], count, out=mean, where=count > 0)


def _draw_perplexity(panel: "Axes", evaluations: list[Entry]) -> None:
    _name(panel, "held-out perplexity (full softmax)", "perplexity")
    if not evaluations:
        panel.text(0.5, 0.5, "no evaluation yet", ha="center", transform=panel.transAxes, color=GREY)
        panel.set_yticks([])
        return
    panel.set_yscale("log")
    texts = list(dict.fromkeys(entry.get("text") for entry in evaluations))
    for text, colours in zip(texts, cycle(((BLACK, BLUE, ORANGE), (GREEN, GREEN, GREEN))), strict=False):
        of_text = [entry for entry in evaluations if entry.get("text") == text]
        short = f"{str(text).split('.txt')[0]}, " if len(texts) > 1 else ""
        for name, colour, style in zip(
            ("mean", "forward", "backward"), colours, ("-", "--", ":"), strict=True
        ):
            x, y = _numbers(of_text, "step"), _numbers(of_text, name)
            panel.plot(x, y, style, color=colour, linewidth=1 if name == "mean" else 1.7, marker=_marker(y))
            if name == "mean" or len(texts) == 1:
                panel.lines[-1].set_label(f"{short}{name} {y[-1]:,.{2 if y[-1] < 1000 else 0}f}")
    _plain_numbers(panel)
    _legend(panel)


def _plain_numbers(panel: "Axes") -> None:
    """20, 50, 100 in place of powers of ten; closer ones where the axis is shorter than that."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    low, high = panel.get_ylim()
    wide = high / low > 8
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12) if wide else MaxNLocator(5))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")


def _numbers(entries: list[Entry], name: str) -> np.ndarray:
    return np.array([entry[name] for entry in entries], dtype=float)


def _short(value: float) -> str:
    """1,234 or 12.3k or 768M"""
    if not value >= 1e4:
        return f"{value:,.0f}"
    unit, name = next((unit, name) for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")) if value >= unit)
    return f"{value / unit:.3g}{name}"


def _name(panel: "Axes", title: str, unit: str) -> None:
    panel.set_title(title, loc="left", fontsize=10)
    panel.set_ylabel(unit, fontsize=9)


def _legend(panel: "Axes") -> None:
    """Beside the title, where it covers nothing."""
    spaces = {"borderaxespad": 0.1, "handlelength": 1.6, "handletextpad": 0.5, "columnspacing": 1.4}
    panel.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False, fontsize=9, **spaces)


def _prepare(panels: "Sequence[Axes]", resumes: list[float]) -> None:
    for panel in panels:
        for step in resumes:
            panel.axvline(step, color=GREY, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
        panel.grid(color="#E3E3E3", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=9)
    if resumes:
        panels[0].lines[0].set_label("resumed")
