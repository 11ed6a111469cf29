"""The picture at the head of the README, for pages in light and in dark.

    python docs/picture.py      # writes docs/elmo-light.svg and docs/elmo-dark.svg

Words go up: letters, a vector, two stacks of LSTMs, and the mix of the layers that is a word in its context.
Letters are drawn as outlines, so that the picture looks the same wherever it is shown.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

matplotlib.use("Agg")

HERE = Path(__file__).resolve().parent
WORDS = ["The", "bank", "lent", "money"]
PICKED = 1
ROUND = "round,pad=0,rounding_size=0.9"
MIDDLE = 0.058  # of a capital letter above its baseline, for each point of its size
WIDTH, HEIGHT = 96, 60  # of the drawing, in units of its own
LEFT, STEP, BOX = 31, 18, 14  # the first column's middle, from column to column, a column's width
LETTERS, LAYER_0, LAYER_1, LAYER_2, MIX = 3, 13, 26, 40, 55  # heights of the rows' middles


class Colours(NamedTuple):
    text: str
    quiet: str  # arrows, and what stands beside
    fill: str
    forward: str
    backward: str
    mixed: str


THEMES = {
    "light": Colours("#1f2328", "#59636e", "#eef1f4", "#cfe3ff", "#ffdcb8", "#d6f0d8"),
    "dark": Colours("#f0f6fc", "#9198a1", "#262c36", "#1f4a80", "#7a4515", "#1f5a2b"),
}


def draw(colours: Colours) -> Figure:
    figure = Figure(figsize=(8.4, 5.25))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    axes.set_axis_off()
    for number, word in enumerate(WORDS):
        draw_column(axes, colours, LEFT + STEP * number, word)
    for row in (LAYER_1, LAYER_2):
        draw_reading(axes, colours, row)
    draw_mix(axes, colours)
    draw_names(axes, colours)
    return figure


def draw_column(axes: Axes, colours: Colours, x: float, word: str) -> None:
    """Letters, the word's vector, and in each of two layers an LSTM from the left and one from the right."""
    label(axes, colours.text, x, LETTERS, "  ".join(word), size=12)
    box(axes, colours, colours.fill, x, LAYER_0, BOX, word)
    arrow(axes, colours, (x, LETTERS + 2.4), (x, LAYER_0 - 2.2))
    for row in (LAYER_1, LAYER_2):
        box(axes, colours, colours.forward, x, row + 2.1, BOX, "LSTM →")
        box(axes, colours, colours.backward, x, row - 2.1, BOX, "← LSTM")
    arrow(axes, colours, (x, LAYER_0 + 2.4), (x, LAYER_1 - 4.4))
    arrow(axes, colours, (x, LAYER_1 + 4.4), (x, LAYER_2 - 4.4))


def draw_reading(axes: Axes, colours: Colours, row: float) -> None:
    """What an LSTM hands on to the next word."""
    for number in range(len(WORDS) - 1):
        left, right = LEFT + STEP * number + BOX / 2, LEFT + STEP * (number + 1) - BOX / 2
        arrow(axes, colours, (left, row + 2.1), (right, row + 2.1))
        arrow(axes, colours, (right, row - 2.1), (left, row - 2.1))


def draw_mix(axes: Axes, colours: Colours) -> None:
    """A frame around one word's layers, and what is made of them."""
    x, bottom, top = LEFT + STEP * PICKED, LAYER_0 - 3.4, LAYER_2 + 5.5
    frame = FancyBboxPatch((x - BOX / 2 - 1.2, bottom), BOX + 2.4, top - bottom, boxstyle=ROUND)
    frame.set(facecolor="none", edgecolor=colours.quiet, linestyle=(0, (4, 3)), linewidth=1.1)
    axes.add_patch(frame)
    text = f"“{WORDS[PICKED]}” in this sentence: a mix of its three layers"
    box(axes, colours, colours.mixed, LEFT + 1.5 * STEP, MIX, 3 * STEP + BOX, text)
    arrow(axes, colours, (x, top), (x, MIX - 2.4))


def draw_names(axes: Axes, colours: Colours) -> None:
    rows = {
        "letters": LETTERS,
        "layer 0\nwithout context": LAYER_0,
        "layer 1": LAYER_1,
        "layer 2": LAYER_2,
        "what a task reads": MIX,
    }
    for name, y in rows.items():
        label(axes, colours.quiet, 1.5, y, name, size=10, align="left")


# ---- small things


def box(
    axes: Axes, colours: Colours, fill: str, x: float, y: float, width: float, text: str, height: float = 3.6
) -> None:
    """Around its middle; the text must fit, which a test checks."""
    corner = (x - width / 2, y - height / 2)
    axes.add_patch(FancyBboxPatch(corner, width, height, boxstyle=ROUND, facecolor=fill, edgecolor="none"))
    label(axes, colours.text, x, y, text, size=11)


def label(axes: Axes, colour: str, x: float, y: float, text: str, size: float, align: str = "center") -> None:
    y, on = (y - size * MIDDLE, "baseline") if "\n" not in text else (y, "center")  # words on one line
    axes.text(x, y, text, color=colour, fontsize=size, ha=align, va=on, linespacing=1.3)


def arrow(axes: Axes, colours: Colours, start: tuple[float, float], end: tuple[float, float]) -> None:
    style = {"arrowstyle": "-|>", "color": colours.quiet, "linewidth": 1.1, "mutation_scale": 8}
    axes.annotate("", xy=end, xytext=start, arrowprops={**style, "shrinkA": 0, "shrinkB": 0})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=HERE, help="the folder to write into")
    folder = parser.parse_args().output
    settings = {"svg.hashsalt": "elmo", "font.family": "DejaVu Sans"}  # the font that matplotlib brings along
    with matplotlib.rc_context(settings):
        for name, colours in THEMES.items():
            path = folder / f"elmo-{name}.svg"
            draw(colours).savefig(path, transparent=True, metadata={"Date": None})
            print(f"Wrote {path}.")


if __name__ == "__main__":
    main()
