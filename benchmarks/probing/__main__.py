"""What does a model know? The analyses of section 5 of the ELMo paper, on open data.

    python -m benchmarks.probing --model my-elmo --data DATA --output benchmarks/results/probes-my-elmo.json
    python -m benchmarks.probing --model my-elmo --data DATA --probes senses tags --output FILE.json

| name | what is measured |
|---|---|
| senses | word sense disambiguation by nearest neighbours, each layer (Table 5) |
| tags | part of speech by a linear classifier on each layer (Table 6) |
| neighbours | nearest neighbours of words in context (Table 4) |
| layers | pictures: the similarity of the layers, and one word's occurrences by their senses |

Everything is measured twice: with the model, and with the same shape and random weights. Next to the JSON
file are the tables (.md) and the pictures (-layers.png, -map.png); all are written at the end. A figure
depends on the model, the data and the seed alone, up to rounding.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.probing.data import SEMCOR, read_semcor
from benchmarks.probing.layers import (
    draw_map,
    draw_similarity,
    find_occurrences,
    layers_markdown,
    probe_layers,
)
from benchmarks.probing.neighbours import neighbours_markdown, probe_neighbours
from benchmarks.probing.senses import probe_senses, read_task, senses_markdown
from benchmarks.probing.tags import probe_tags, read_treebank, tags_markdown
from benchmarks.probing.vectors import Reader, load_reader, random_reader
from benchmarks.report import command, machine, new_figure, versions
from benchmarks.speed.worker import peak_memory
from elmo_hf.errors import ElmoError, one_sentence
from elmo_hf.files import whole_file, write_json
from elmo_hf.hub.earlier import probe_results
from elmo_hf.hub.results import with_results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {
    "senses": "Word sense disambiguation",
    "tags": "Part of speech",
    "neighbours": "Nearest neighbours in context",
    "layers": "Layers",
}
Probe = Callable[[Sequence[Reader]], dict[str, Any]]


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    with one_sentence("benchmarks.probing"):
        run(options, sys.argv[1:] if arguments is None else arguments)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="the folder of a pretrained ELMo")
    parser.add_argument("--data", type=Path, required=True, help="the folder with wsd/ and ud_english_ewt/")
    parser.add_argument(
        "--probes", nargs="+", choices=TITLES, default=list(TITLES), metavar="NAME", help=", ".join(TITLES)
    )
    parser.add_argument("--word", default="play", help="the word whose occurrences `layers` draws (play)")
    parser.add_argument("--seed", type=int, default=0, help="of random weights, samples and orders (0)")
    parser.add_argument(
        "--output", type=Path, required=True, help="the JSON file; tables and pictures go into its folder"
    )
    return parser.parse_args(arguments)


def run(options: argparse.Namespace, arguments: list[str]) -> None:
    check(options)
    probes = prepare(options)
    reader = load_reader(options.model)
    readers = [reader, random_reader(reader, options.seed)]
    result = describe_run(options, arguments, reader)
    for name, probe in probes.items():
        start, cpu_start = time.perf_counter(), time.process_time()
        result["probes"][name] = probe(readers)
        taken = {"wall": time.perf_counter() - start, "cpu": time.process_time() - cpu_start}
        result["seconds"][name] = {clock: round(seconds, 1) for clock, seconds in taken.items()}
        print(f"{TITLES[name]}: {taken['wall']:.0f} s", flush=True)
    result["peak_memory_mb"] = peak_memory()
    result["machine"] = machine()
    write(result, options.output)
    print(f"Written: {options.output}, {', '.join(file_names(result, options.output).values())}")


def check(options: argparse.Namespace) -> None:
    """Refuse what would fail later, before anything is measured."""
    if options.output.suffix != ".json":
        raise ElmoError(f"--output names a JSON file, so {options.output} should end in .json.")
    if options.output.parent.exists() and not options.output.parent.is_dir():
        raise ElmoError(f"--output: {options.output.parent} is not a folder.")
    if options.seed < 0:
        raise ElmoError(f"--seed must be 0 or more, but is {options.seed}.")
    if not options.data.is_dir():
        raise ElmoError(
            f"there is no folder {options.data}; --data names the one with wsd/ and ud_english_ewt/."
        )
    if "layers" in options.probes:
        new_figure(1, 1)  # needs matplotlib


def prepare(options: argparse.Namespace) -> dict[str, Probe]:
    """Read all data, so that mistakes in them are found before anything is measured."""
    data, seed = options.data, options.seed
    semcor = read_semcor(data / SEMCOR) if set(options.probes) - {"tags"} else []
    probes: dict[str, Probe] = {}
    if "senses" in options.probes:
        probes["senses"] = partial(probe_senses, task=read_task(data, semcor))
    if "tags" in options.probes:
        probes["tags"] = partial(probe_tags, treebank=read_treebank(data), seed=seed)
    if "neighbours" in options.probes:
        probes["neighbours"] = partial(probe_neighbours, semcor=semcor)
    if "layers" in options.probes:
        occurrences = find_occurrences(semcor, options.word)
        probes["layers"] = partial(probe_layers, semcor=semcor, occurrences=occurrences, seed=seed)
    return probes


def describe_run(options: argparse.Namespace, arguments: list[str], reader: Reader) -> dict[str, Any]:
    return {
        "model": "/".join(options.model.resolve().parts[-2:]),
        "shape": reader.describe(),
        "date": date.today().isoformat(),
        "command": command("probing", arguments),
        "seed": options.seed,
        "versions": versions("elmo_hf", "torch", "transformers", "numpy", "matplotlib"),
        "seconds": {},
        "probes": {},
    }


# ---- what is written


def file_names(result: dict[str, Any], output: Path) -> dict[str, str]:
    """The names of the files next to the JSON file."""
    names = {"tables": output.with_suffix(".md").name}
    if "layers" in result["probes"]:
        names |= {picture: f"{output.stem}-{picture}.png" for picture in ("layers", "map")}
    return names


def write(result: dict[str, Any], output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    names = file_names(result, output)
    for picture, figure in draw_pictures(result).items():
        with whole_file(output.with_name(names[picture])) as file:
            figure.savefig(file, format="png")
    with whole_file(output.with_name(names["tables"])) as file:
        file.write_text(tables(result, names), encoding="utf-8")
    write_json(output, with_results(result, *probe_results(result["probes"])))


def draw_pictures(result: dict[str, Any]) -> dict[str, "Figure"]:
    layers = result["probes"].get("layers")
    if layers is None:
        return {}
    return {"layers": draw_similarity(layers["likeness"]), "map": draw_map(layers["map"])}


def tables(result: dict[str, Any], names: dict[str, str]) -> str:
    sections = [f"# What {result['model']} knows", f"{result['date']}, by `{result['command']}`."]
    writers: dict[str, Callable[[dict[str, Any]], str]] = {
        "senses": senses_markdown,
        "tags": tags_markdown,
        "neighbours": neighbours_markdown,
        "layers": partial(layers_markdown, names=names),
    }
    for name, probe in result["probes"].items():
        sections.append(f"## {TITLES[name]}\n\n{writers[name](probe).strip()}")
    return "\n\n".join(sections) + "\n"


if __name__ == "__main__":
    main()
