"""The course of a pretraining run as one picture: training loss, held-out perplexity, words per second.

draw(read_log("my-run"), "my-run/log.png")      # read_log is in log.py
elmo-hf plot my-run/
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from elmo_hf.errors import ElmoError, visible
from elmo_hf.files import whole_file
from elmo_hf.pretraining.log import Entry, is_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_TEXTS, MAX_RESUMES = 6, 200  # that are drawn
# The colour-blind-safe palette of Okabe and Ito.
BLUE, ORANGE, GREEN, BLACK, GREY = "#0072B2", "#D55E00", "#009E73", "#222222", "#767676"


def draw(log: Iterable[Entry], output: str | Path, name: str = "") -> None:
    """Write the picture, a PNG of 1200 x 900 pixels.

    Args:
        log: the entries of a run's log.
        output: the file to write, `*.png`.
        name: the title, for runs whose settings have no name.

    Raises:
        ElmoError: the log has no step and no evaluation yet, the file cannot be written there, or matplotlib
            is missing.
    """
    log, output = list(log), Path(output)
    if output.suffix.lower() != ".png":
        raise ElmoError(f"the picture is a PNG, so {output} should end in .png.")
    if not output.parent.is_dir():
        raise ElmoError(f"there is no folder {output.parent} to write {output.name} into.")
    figure = make_figure(log, name)
    with whole_file(output) as partial:
        figure.savefig(partial, format="png")


def make_figure(log: list[Entry], name: str = "") -> "Figure":
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError:
        raise ElmoError("a picture needs the package matplotlib; `pip install 'elmo-hf[plot]'`.") from None

    steps = [entry for entry in log if entry["kind"] == "step"]
    evaluations = [entry for entry in log if entry["kind"] == "evaluation"]
    if not steps and not evaluations:
        raise ElmoError("the log has no step and no evaluation yet, so there is nothing to draw.")
    figure = Figure(figsize=(8, 6), dpi=150, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08))
    panels = figure.subplots(3, 1, sharex=True, height_ratios=(5, 5, 3))
    _style_panels(panels, [entry["step"] for entry in log if entry["kind"] == "resume"][-MAX_RESUMES:])
    _draw_loss(panels[0], steps, _settings(log))
    _draw_perplexity(panels[1], evaluations, _settings(log))
    _draw_speed(panels[2], steps, _settings(log))
    panels[-1].set_xlim(0, 1.01 * max(1, *(entry["step"] for entry in [*steps, *evaluations])))
    panels[-1].xaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
    panels[-1].set_xlabel("training step", fontsize=9)
    figure.align_ylabels(panels)
    figure.suptitle(_title(log, name), fontsize=12, fontweight="bold", parse_math=False)
    return figure


def _settings(log: list[Entry]) -> Entry:
    """The settings of the last start entry, if any."""
    settings = [entry.get("settings") for entry in log if entry["kind"] == "start"]
    return settings[-1] if settings and isinstance(settings[-1], dict) else {}


def _title(log: list[Entry], name: str) -> str:
    """The run's name, and the steps and words so far."""
    last = max((entry for entry in log if is_number(entry.get("step"))), key=lambda entry: entry["step"])
    counts = [entry for entry in log if is_number(entry.get("words")) and entry.get("step") == last["step"]]
    words = f", {_abbreviate(counts[-1]['words'])} words" if counts else ""
    name = visible(str(_settings(log).get("name") or name or "pretraining"))
    name = name if len(name) <= 40 else name[:37] + "..."
    return f"{name}: {last['step']:,} {'step' if last['step'] == 1 else 'steps'}{words}"


def _draw_loss(panel: "Axes", steps: list[Entry], settings: Entry) -> None:
    softmax = settings.get("softmax")
    suffix = f" ({softmax} softmax)" if isinstance(softmax, str) else ""
    _set_title(panel, "training loss" + suffix, "nats a token")
    if not steps:
        _say_empty(panel, _why_no_step(settings))
        return
    _draw_smoothed(panel, steps, "loss", BLUE, lambda loss: f"{loss:.3f}")
    _add_legend(panel)


def _draw_speed(panel: "Axes", steps: list[Entry], settings: Entry) -> None:
    _set_title(panel, "speed", "words a second")
    if not steps:
        _say_empty(panel, _why_no_step(settings))
        return
    _draw_smoothed(panel, steps, "words_per_second", GREEN, _abbreviate)
    panel.set_ylim(bottom=0)
    panel.yaxis.set_major_formatter(lambda value, _: _abbreviate(value))
    _add_legend(panel)


def _why_no_step(settings: Entry) -> str:
    every = settings.get("log_every")
    return (
        f"no step is logged before step {every:,} (--log-every)" if is_number(every) else "no step logged yet"
    )


def _why_no_evaluation(settings: Entry) -> str:
    if "heldout" in settings and not settings["heldout"] and not settings.get("heldout_every"):
        return "the run has no held-out text (--heldout, --heldout-every)"
    every = settings.get("evaluate_every")
    return (
        f"no evaluation before step {every:,} (--evaluate-every)"
        if every and is_number(every)
        else "no evaluation yet"
    )


def _say_empty(panel: "Axes", reason: str) -> None:
    panel.text(0.5, 0.5, reason, ha="center", va="center", transform=panel.transAxes, color=GREY)
    panel.set_yticks([])


def _draw_smoothed(
    panel: "Axes", steps: list[Entry], name: str, colour: str, to_text: Callable[[float], str]
) -> None:
    """Each value as a faint line, and their running mean over a fiftieth of the run."""
    x, y = _column(steps, "step"), _column(steps, name)
    width = min(len(y), max(5, len(y) // 50))
    mean = running_mean(y, width)
    panel.plot(x, y, color=colour, alpha=0.35, linewidth=0.6, marker=_marker(y))
    label = f"mean of the last {width} entries: {to_text(mean[-1])}" if width > 1 else to_text(mean[-1])
    panel.plot(x, mean, color=colour, linewidth=1.6, marker=_marker(y), label=label)


def _marker(values: np.ndarray) -> str:
    """One or two points need a marker; a line through one point is invisible."""
    return "o" if len(values) < 3 else ""


def running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """The mean of each value and the `width - 1` values before it, without those that are not finite.

    At the start, where values fall steeply, the window is a quarter of the values so far.
    """
    ends = np.arange(1, len(values) + 1)
    starts = ends - np.minimum(width, 1 + ends // 4)
    is_finite = np.isfinite(values)
    totals, counts = (
        np.concatenate([[0], column.cumsum()]) for column in (np.where(is_finite, values, 0), is_finite)
    )
    count = counts[ends] - counts[starts]
    mean = np.full(len(values), np.nan)
    return np.divide(totals[ends] - totals[starts], count, out=mean, where=count > 0)


def _text_and_states(entry: Entry) -> tuple[str, str]:
    states = entry.get("states")
    return str(entry.get("text")), f"{visible(states)[:20]} states" if isinstance(states, str) else ""


def _draw_perplexity(panel: "Axes", evaluations: list[Entry], settings: Entry) -> None:
    """The lines of each text; those that start from other LSTM states are lines of their own."""
    texts = list(dict.fromkeys(map(_text_and_states, evaluations)))[:MAX_TEXTS]
    all_states = list(dict.fromkeys(states for _, states in texts))
    title = f"held-out perplexity, {all_states[0]}" if len(all_states) == 1 else "held-out perplexity"
    _set_title(panel, title.removesuffix(", "), "perplexity (full softmax)")
    if not evaluations:
        _say_empty(panel, _why_no_evaluation(settings))
        return
    panel.set_yscale("log")
    for text, colours in zip(texts, cycle(((BLACK, BLUE, ORANGE), (GREEN, GREEN, GREEN))), strict=False):
        of_text = [entry for entry in evaluations if _text_and_states(entry) == text]
        names = [visible(text[0]).split(".txt")[0][:40]] if len(dict(texts)) > 1 else []
        names += [text[1] or "unknown states"] if len(all_states) > 1 else []
        prefix = "".join(f"{name}, " for name in names)
        for name, colour, style in zip(
            ("mean", "forward", "backward"), colours, ("-", "--", ":"), strict=True
        ):
            x, y = _column(of_text, "step"), _column(of_text, name)
            panel.plot(x, y, style, color=colour, linewidth=1 if name == "mean" else 1.7, marker=_marker(y))
            if name == "mean" or len(texts) == 1:
                panel.lines[-1].set_label(f"{prefix}{name} {y[-1]:,.{2 if y[-1] < 1000 else 0}f}")
    _set_plain_ticks(panel)
    _add_legend(panel)


def _set_plain_ticks(panel: "Axes") -> None:
    """Ticks at 20, 50, 100 in place of powers of ten; closer ones where the axis is short."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    low, high = panel.get_ylim()
    is_wide = high / low > 8
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12) if is_wide else MaxNLocator(5))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")


def _column(entries: list[Entry], name: str) -> np.ndarray:
    return np.array([entry[name] for entry in entries], dtype=float)


def _abbreviate(value: float) -> str:
    """1234 -> 1,234; 12345 -> 12.3k; 768e6 -> 768M"""
    if not value >= 1e4:
        return f"{value:,.0f}"
    unit, letter = next((u, letter) for u, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")) if value >= u)
    return f"{value / unit:.3g}{letter}"


def _set_title(panel: "Axes", title: str, unit: str) -> None:
    panel.set_title(visible(title)[:80], loc="left", fontsize=10, parse_math=False)
    panel.set_ylabel(unit, fontsize=9)


def _add_legend(panel: "Axes") -> None:
    """Put the legend beside the title, where it covers no line."""
    spaces = {"borderaxespad": 0.1, "handlelength": 1.6, "handletextpad": 0.5, "columnspacing": 1.4}
    legend = panel.legend(
        loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False, fontsize=9, **spaces
    )
    for label in legend.get_texts():
        label.set_parse_math(False)


def _style_panels(panels: "Sequence[Axes]", resumes: list[float]) -> None:
    for panel in panels:
        for step in resumes:
            panel.axvline(step, color=GREY, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
        panel.grid(color="#E3E3E3", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=9)
    if resumes:
        panels[0].lines[0].set_label("resumed")
