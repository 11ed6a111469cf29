"""What does a model know? The analyses of section 5 of the ELMo paper, on open data.

    python -m benchmarks.probing --model my-elmo --data DATA --output benchmarks/results/probes-my-elmo.json
    python -m benchmarks.probing --model my-elmo --data DATA --probes senses tags --output FILE.json

| name | what is measured |
|---|---|
| senses | word sense disambiguation by nearest neighbours, each layer (Table 5) |
| tags | part of speech by a linear classifier on each layer (Table 6) |
| neighbours | nearest neighbours of words in context (Table 4) |
| layers | pictures: how alike layers are, and one word's occurrences by their senses |

Everything is measured twice: by the model, and by the same shape with random weights. Beside the JSON stand
the tables (.md) and the pictures (-layers.png, -map.png); all are written when everything is measured. A
figure depends on the model, the data and the seed alone, up to the arithmetic of the machine.
"""

import argparse
import platform
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import date
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.probing.data import SEMCOR, read_semcor
from benchmarks.probing.layers import (
    draw_likeness,
    draw_map,
    find_occurrences,
    layers_markdown,
    new_figure,
    probe_layers,
)
from benchmarks.probing.neighbours import neighbours_markdown, probe_neighbours
from benchmarks.probing.senses import probe_senses, read_task, senses_markdown
from benchmarks.probing.tags import probe_tags, read_treebank, tags_markdown
from benchmarks.probing.vectors import Reader, load_reader, random_twin
from benchmarks.report import command, machine, write_json
from benchmarks.speed.worker import peak_memory
from elmo_hf.files import whole_file

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
    try:
        run(options, sys.argv[1:] if arguments is None else arguments)
    except (ValueError, OSError) as error:
        sys.exit(f"probes.py: {error}")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="the folder of a pretrained ELMo")
    parser.add_argument("--data", type=Path, required=True, help="the folder with wsd/ and ud_english_ewt/")
    parser.add_argument(
        "--probes", nargs="+", choices=TITLES, default=list(TITLES), metavar="NAME", help=", ".join(TITLES)
    )
    parser.add_argument("--word", default="play", help="whose occurrences `layers` draws (play)")
    parser.add_argument("--seed", type=int, default=0, help="of random weights, samples and orders (0)")
    parser.add_argument(
        "--output", type=Path, required=True, help="the JSON file; tables and pictures go beside it"
    )
    return parser.parse_args(arguments)


def run(options: argparse.Namespace, arguments: list[str]) -> None:
    check(options)
    probes = prepare(options)
    reader = load_reader(options.model)
    readers = [reader, random_twin(reader, options.seed)]
    found: dict[str, Any] = facts(options, arguments, reader)
    for name, probe in probes.items():
        start, cpu_start = time.perf_counter(), time.process_time()
        found["probes"][name] = probe(readers)
        taken = {"wall": time.perf_counter() - start, "cpu": time.process_time() - cpu_start}
        found["seconds"][name] = {clock: round(seconds, 1) for clock, seconds in taken.items()}
        print(f"{TITLES[name]}: {taken['wall']:.0f} s", flush=True)
    found["peak_memory_mb"] = peak_memory()
    found["machine"] = machine()
    write(found, options.output)
    print(f"Written: {options.output} and, beside it, {', '.join(beside(found, options.output).values())}")


def check(options: argparse.Namespace) -> None:
    """Whatever would fail later on, said before anything is measured."""
    if options.output.suffix != ".json":
        raise ValueError(f"--output names a JSON file, so {options.output} should end in .json.")
    if options.output.parent.exists() and not options.output.parent.is_dir():
        raise ValueError(f"--output: {options.output.parent} is no folder.")
    if options.seed < 0:
        raise ValueError(f"--seed must be 0 or more, but is {options.seed}.")
    if not options.data.is_dir():
        raise ValueError(
            f"there is no folder {options.data}; --data names the one with wsd/ and ud_english_ewt/."
        )
    if "layers" in options.probes:
        new_figure(1, 1)


def prepare(options: argparse.Namespace) -> dict[str, Probe]:
    """Reads all data, so that what is wrong with them is found before anything is measured."""
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
        found = find_occurrences(semcor, options.word)
        probes["layers"] = partial(probe_layers, semcor=semcor, found=found, seed=seed)
    return probes


def facts(options: argparse.Namespace, arguments: list[str], reader: Reader) -> dict[str, Any]:
    versions = {"python": platform.python_version()}
    for library in ("elmo_hf", "torch", "transformers", "numpy", "matplotlib"):
        with suppress(PackageNotFoundError):
            versions[library] = version(library)
    return {
        "model": "/".join(options.model.resolve().parts[-2:]),
        "shape": reader.describe(),
        "date": date.today().isoformat(),
        "command": command("probing", arguments),
        "seed": options.seed,
        "versions": versions,
        "seconds": {},
        "probes": {},
    }


# ---- what is written


def beside(found: dict[str, Any], output: Path) -> dict[str, str]:
    """The names of the files beside the JSON."""
    names = {"tables": output.with_suffix(".md").name}
    if "layers" in found["probes"]:
        names |= {kind: f"{output.stem}-{kind}.png" for kind in ("layers", "map")}
    return names


def write(found: dict[str, Any], output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    names = beside(found, output)
    for kind, figure in pictures(found).items():
        with whole_file(output.with_name(names[kind])) as file:
            figure.savefig(file, format="png")
    with whole_file(output.with_name(names["tables"])) as file:
        file.write_text(tables(found, names), encoding="utf-8")
    write_json(output, found)


def pictures(found: dict[str, Any]) -> dict[str, "Figure"]:
    layers = found["probes"].get("layers")
    if layers is None:
        return {}
    return {"layers": draw_likeness(layers["likeness"]), "map": draw_map(layers["map"])}


def tables(found: dict[str, Any], names: dict[str, str]) -> str:
    parts = [f"# What {found['model']} knows", f"{found['date']}, by `{found['command']}`."]
    texts: dict[str, Callable[[dict[str, Any]], str]] = {
        "senses": senses_markdown,
        "tags": tags_markdown,
        "neighbours": neighbours_markdown,
        "layers": partial(layers_markdown, names=names),
    }
    for name, result in found["probes"].items():
        parts.append(f"## {TITLES[name]}\n\n{texts[name](result).strip()}")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
