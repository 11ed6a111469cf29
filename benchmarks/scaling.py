"""What text and size bought: perplexity, word senses, parts of speech and named entities of several biLMs.

    bash training/runs/scaling.sh DATA elmo-tiny-25 elmo-tiny MODEL 27520000 VECTORS
    python -m benchmarks.scaling

The first command measures a model, the second writes the table in benchmarks/README.md, scaling.json and
scaling.png from all results. Each model has a folder in results/scaling: `model.json` (its curve, the words
that it has read, its size), perplexities and probes. The F1 of named entities is that of the runs of
benchmarks.tables, on all train examples. What has not been measured is left empty.
"""

import argparse
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import EMPTY, PAGE, RESULTS, fill_page, markdown_table, new_figure
from benchmarks.tables.plan import TASKS
from elmo_hf.errors import ElmoError, one_sentence
from elmo_hf.files import whole_file, write_json
from elmo_hf.loading import load_config, load_language_model

FOLDER = RESULTS / "scaling"
RUNS = RESULTS / "tables" / "runs"
ENTITIES = "ner-ewt"  # the task of benchmarks.tables
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
Point = dict[str, Any]


@dataclass(frozen=True)
class Measure:
    """A column of the table, and perhaps a panel of the picture."""

    key: str
    title: str
    decimals: int = 1
    panel: bool = True


MEASURES = [
    Measure("valid.books", "perplexity, books"),
    Measure("valid.wiki", "perplexity, Wikipedia"),
    Measure("valid.books, unknown", "unknown, books, %", panel=False),
    Measure("valid.wiki, unknown", "unknown, Wikipedia, %", panel=False),
    Measure("senses", "word senses, F1"),
    Measure("senses, layer", "best layer of senses", decimals=0, panel=False),
    Measure("tags", "parts of speech, %"),
    Measure("tags, layer", "best layer of tags", decimals=0, panel=False),
    Measure("entities", "named entities, F1"),
]
REFERENCES = {"senses": "first sense", "tags": "look-up", "entities": "without ELMo"}


def main() -> None:
    options = read_options()
    with one_sentence("scaling"):
        if options.describe:
            describe(options)
        else:
            write(read_points(FOLDER, RUNS))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--describe", metavar="MODEL", help="only write model.json of this biLM's folder")
    parser.add_argument("--name", help="with --describe: the name of its folder in results/scaling")
    parser.add_argument("--curve", help="with --describe: the name of the curve that it is a point of")
    parser.add_argument("--words", type=int, help="with --describe: the words that it has read, a direction")
    options = parser.parse_args()
    if options.describe and None in (options.name, options.curve, options.words):
        parser.error("--describe needs --name, --curve and --words.")
    return options


def describe(options: argparse.Namespace) -> None:
    """Write the model.json of a biLM."""
    if options.words < 1:
        raise ElmoError(f"--words must be 1 or more, but is {options.words}.")
    model, _ = load_language_model(options.describe)
    config = load_config(options.describe)
    folder = FOLDER / options.name
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "curve": options.curve,
        "words": options.words,
        "lstm_dim": config.lstm_dim,
        "projection_dim": config.projection_dim,
        "vocabulary": config.vocab_size,
        "parameters": sum(weight.numel() for weight in model.elmo.parameters()),
    }
    write_json(folder / "model.json", content)


# ---- what was measured


def read_points(folder: Path, runs: Path) -> list[Point]:
    """The measured values of all models, the curves one after the other, by the words that were read."""
    points = [read_point(path.parent, runs) for path in sorted(folder.glob("*/model.json"))]
    if not points:
        raise ElmoError(f"{folder} has no measured model; training/runs/scaling.sh measures one.")
    first_words = {point["curve"]: 0 for point in points}
    for curve in first_words:
        first_words[curve] = min(point["words"] for point in points if point["curve"] == curve)
    return sorted(points, key=lambda point: (first_words[point["curve"]], point["curve"], point["words"]))


def read_point(folder: Path, runs: Path) -> Point:
    """The values of a model by the keys of MEASURES; those of REFERENCES have the key `reference KEY`."""
    point: Point = {"name": folder.name, **read(folder / "model.json")}
    for text in ("valid.books", "valid.wiki"):
        perplexity = read(folder / f"perplexity-{text}.json")
        if perplexity:
            point |= {text: perplexity["mean"], f"{text}, unknown": 100 * perplexity["unknown"]}
    probes = read(folder / "probes.json").get("probes", {})
    if "senses" in probes:
        scores = {name: row["all"] for name, row in probes["senses"]["f1"].items()}
        point |= best_layer("senses", scores) | {"reference senses": scores["first sense"]}
    if "tags" in probes:
        scores = {name: row["test"] for name, row in probes["tags"]["accuracy"]["xpos"].items()}
        point |= best_layer("tags", scores) | {"reference tags": scores["look-up"]}
    return point | entities(folder, runs)


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def best_layer(key: str, scores: dict[str, float]) -> Point:
    layers = {name: score for name, score in scores.items() if name.startswith("trained, layer ")}
    best = max(layers, key=layers.__getitem__)
    return {key: layers[best], f"{key}, layer": int(best.rsplit(" ", 1)[1])}


def entities(folder: Path, runs: Path) -> Point:
    """The mean F1 of the tagger with the model and without any, over the seeds that all taggers have."""
    scores = tagger_scores(runs)
    models = [None, *(path.parent.name for path in folder.parent.glob("*/model.json"))]
    if folder.name not in scores:
        return {}
    seeds = set.intersection(*({*scores[model]} for model in models if model in scores))
    values = {}
    for key, model in (("entities", folder.name), ("reference entities", None)):
        if seeds and model in scores:
            values[key] = statistics.mean(scores[model][seed] for seed in sorted(seeds))
    return values


def tagger_scores(runs: Path) -> dict[str | None, dict[int, float]]:
    """The F1 by seed of the taggers on all train examples, by the name of the model; None for none."""
    scores: dict[str | None, dict[int, float]] = {}
    for run in (read(path) for path in sorted(runs.glob(f"*{ENTITIES}.*.json"))):
        is_of_table1 = (run["place"], run["layers"], run["biLM"]) == ("input", "mix", "frozen")
        is_whole = run["train_size"] == TASKS[ENTITIES].train_size
        if is_whole and (is_of_table1 or run["place"] == "none"):
            scores.setdefault(run["model"], {})[run["seed"]] = 100 * run["scores"]["test"]["f1"]
    return scores


# ---- the table and the picture


def table(points: list[Point]) -> str:
    head = ["curve", "words read, millions", "parameters, millions", *(measure.title for measure in MEASURES)]
    rows = []
    for point in points:
        millions = [f"{point[key] / 1e6:.1f}" for key in ("words", "parameters")]
        cells = [number(point.get(measure.key), measure.decimals) for measure in MEASURES]
        rows.append([point["curve"], *millions, *cells])
    for key, label in REFERENCES.items():
        values = [point[f"reference {key}"] for point in points if f"reference {key}" in point]
        if values:
            cells = [number(values[0], 1) if measure.key == key else EMPTY for measure in MEASURES]
            rows.append([label, EMPTY, EMPTY, *cells])
    return markdown_table(head, rows)


def number(value: float | None, decimals: int) -> str:
    return EMPTY if value is None else f"{value:.{decimals}f}"


def draw(points: list[Point], path: Path) -> None:
    """A panel for each measure, with words read from left to right and a line for each curve."""
    panels = [
        measure for measure in MEASURES if measure.panel and any(measure.key in point for point in points)
    ]
    figure = new_figure(2.9 * len(panels), 3.4)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    curves = list(dict.fromkeys(point["curve"] for point in points))
    for panel, measure in zip(axes, panels, strict=True):
        for colour, curve in zip(COLOURS * len(curves), curves, strict=False):
            draw_curve(panel, [point for point in points if point["curve"] == curve], measure.key, colour)
        draw_reference(panel, points, measure.key)
        panel.set_xscale("log")
        panel.minorticks_off()
        words = sorted({point["words"] for point in points})
        panel.set_xticks(words, [f"{count / 1e6:.0f}" for count in words], fontsize=6, rotation=90)
        panel.tick_params(axis="y", labelsize=7)
        panel.set_xlabel("words read, millions", fontsize=7)
        panel.set_title(measure.title, fontsize=8)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, loc="outside lower center", ncols=len(curves), frameon=False)
    with whole_file(path) as partial:
        figure.savefig(partial, format="png")


def draw_curve(panel: Any, points: list[Point], key: str, colour: str) -> None:
    measured = [(point["words"], point[key]) for point in points if key in point]
    places, values = zip(*measured, strict=True) if measured else ((), ())
    panel.plot(places, values, color=colour, marker="o", markersize=4, label=points[0]["curve"])


def draw_reference(panel: Any, points: list[Point], key: str) -> None:
    values = [point[f"reference {key}"] for point in points if f"reference {key}" in point]
    if values:
        panel.axhline(values[0], color="grey", linestyle="--", linewidth=1)
        where = {
            "xy": (0.98, values[0]),
            "xycoords": panel.get_yaxis_transform(),
            "va": "bottom",
            "ha": "right",
        }
        panel.annotate(REFERENCES[key], fontsize=6, color="grey", **where)


def write(points: list[Point]) -> None:
    write_json(RESULTS / "scaling.json", {"command": "python -m benchmarks.scaling", "points": points})
    draw(points, RESULTS / "scaling.png")
    fill_page(PAGE, "scaling", lambda _: table(points))
    print(f"Written: {RESULTS / 'scaling.json'}, scaling.png, {PAGE}.")


if __name__ == "__main__":
    main()
