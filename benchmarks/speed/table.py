"""The Markdown tables of the speed benchmarks, from their JSON.

    python -m benchmarks.speed.table            # write them between the markers of both README.md
    python -m benchmarks.speed.table --check    # name the files that are out of date, and fail

Markers are lines of their own: `<!-- speed: NAME -->` and `<!-- /speed -->` with brief, summary, lengths or
details; `<!-- gpu: NAME -->` and `<!-- /gpu -->` with training or reading; and with the name of a JSON file
`<!-- export: NAME -->` and `<!-- /export -->` of benchmarks.speed.onnx, `first` of its first_call,
`sentence` of benchmarks.parts.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.report import EMPTY, PAGE, RESULTS, ROOT, fill_blocks, markdown_table
from benchmarks.speed.workloads import LENGTHS

TARGETS = [ROOT / "README.md", PAGE]
SIZES = {"original": "original (4096/512)", "small": "small (1024/128)", "elmo-tiny": "elmo-tiny (512/128)"}
SIZES["tiny"] = "tiny (a test)"
SETTINGS = {
    "batch": "batch of 32",
    "ready": "batch of 32, ids ready",
    "single": "one at a time",
    "corpus": "corpus",
    "train": "training step",
    **{name: f"one at a time, {length} words" for name, length in LENGTHS.items()},
}
# The contestants in the main README.md.
BRIEF = ["ours-auto", "ours-bf16", "onnxruntime", "allennlp", "simple-elmo", "bert-base"]
Result = dict[str, Any]


def read_results(folder: Path = RESULTS) -> list[Result]:
    results = []
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        results += content if isinstance(content, list) else [content]
    return sorted((result for result in results if "contestants" in result), key=place)


def place(result: Result) -> tuple[int, int, int]:
    sizes, settings = list(SIZES), list(SETTINGS)
    return result["threads"], sizes.index(result["size"]), settings.index(result["setting"])


def fill_all(text: str) -> str:
    """The text with up-to-date tables of all stored results."""
    text = fill_gpu(fill(text, read_results()))
    kinds = {"export": export_table, "first": first_call_table, "sentence": sentence_table}
    for kind, make in kinds.items():
        text = fill_from_files(text, kind, make)
    return text


def fill_from_files(text: str, kind: str, make: Callable[[Result], str]) -> str:
    """The text with the tables of the JSON files that its markers of a kind name."""
    return fill_blocks(
        text, kind, lambda name: make(json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")))
    )


def fill(text: str, results: list[Result]) -> str:
    """The text with up-to-date tables between its markers; unchanged if there are no results."""
    tables = {"brief": brief, "summary": summary, "lengths": lengths, "details": details}
    return fill_blocks(text, "speed", lambda name: tables[name](results)) if results else text


# ---- one table of all results


def brief(results: list[Result]) -> str:
    """A selection of contestants across, sizes and settings down."""
    results = [r for r in results if r["setting"] not in ("ready", *LENGTHS) and r["size"] != "tiny"]
    return "\n\n".join(
        f"{heading}\n\n{brief_table(group)}" for heading, group in by_conditions(results).items()
    )


def brief_table(results: list[Result]) -> str:
    names = [name for name in BRIEF if any(name in result["contestants"] for result in results)]
    rows = [
        [f"{r['size']}, {SETTINGS[r['setting']]}", *(cell(r, name, times=True) for name in names)]
        for r in results
    ]
    return markdown_table(["words/s", *names], rows)


def summary(results: list[Result]) -> str:
    """A table for each machine, number of threads and clock: contestants down, sizes and settings across."""
    groups = by_conditions([result for result in results if result["setting"] not in LENGTHS])
    return "\n\n".join(f"{heading}\n\n{overview(group)}" for heading, group in groups.items())


def lengths(results: list[Result]) -> str:
    """The same for sentences of one length, one at a time."""
    groups = by_conditions([result for result in results if result["setting"] in LENGTHS])
    return "\n\n".join(f"{heading}\n\n{lengths_table(group)}" for heading, group in groups.items())


def lengths_table(results: list[Result]) -> str:
    """Sizes and contestants down, lengths across."""
    rows = []
    for size in dict.fromkeys(result["size"] for result in results):
        own = {result["setting"]: result for result in results if result["size"] == size}
        for name in dict.fromkeys(name for result in own.values() for name in result["contestants"]):
            cells = [cell(own[setting], name) if setting in own else EMPTY for setting in LENGTHS]
            rows.append([size, name, *cells])
    ratios = " and ".join(dict.fromkeys(str(result["baseline"]) for result in results))
    head = ["", f"words/s (ratio to {ratios})", *(f"{length} words" for length in LENGTHS.values())]
    return markdown_table(head, rows, left=2)


def by_conditions(results: list[Result]) -> dict[str, list[Result]]:
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(conditions(result), []).append(result)
    return groups


def overview(results: list[Result]) -> str:
    names = dict.fromkeys(name for result in results for name in result["contestants"])
    head = ["words/s (ratio)", *(f"{r['size']}, {SETTINGS[r['setting']]}" for r in results)]
    rows = [[name, *(cell(result, name) for result in results)] for name in names]
    return markdown_table(head, rows)


def cell(result: Result, name: str, times: bool = False) -> str:
    """A speed and its ratio to the baseline: `472 (4.69)` or, with `times`, `472 (4.7 ×)`."""
    figures = result["contestants"].get(name)
    if figures is None:
        return EMPTY
    speed = number(figures["words_per_second"]["median"])
    if not figures["ratio"]:
        return speed
    ratio = figures["ratio"]["median"]
    return f"{speed} ({ratio:.1f} ×)" if times else f"{speed} ({ratio:.2f})"


# ---- a table for each size and setting


def details(results: list[Result]) -> str:
    return "\n\n".join(detail(result) for result in results)


def detail(result: Result) -> str:
    title = f"**{SIZES[result['size']]}, {SETTINGS[result['setting']]}.** {conditions(result)}"
    text = result["text"]
    title += f" {result['rounds']} rounds; {text['source']}, {text['sentences']:,} sentences.{peak(result)}"
    ratio = f"× {result['baseline']} (min – max)"
    head = ["", "words/s", ratio, "memory, MB", "of the peak", "of the roof", "largest difference", "rms"]
    rows = [detail_row(name, figures, result) for name, figures in result["contestants"].items()]
    lines = [title, "", markdown_table(*without_empty(head, rows, {"of the roof", "rms"}))]
    lines += [f"\nLeft out: {name}: {reason}." for name, reason in result["skipped"].items()]
    return "\n".join(lines)


def detail_row(name: str, figures: Result, result: Result) -> list[str]:
    ratio = figures["ratio"]
    agreement = result["agreement_with_baseline"].get(name, {})
    errors = {key.removeprefix("rms "): value for key, value in agreement.items() if key.startswith("rms ")}
    largest = {key: agreement[key] for key in agreement if not key.startswith(("largest ", "rms "))}
    return [
        name,
        number(figures["words_per_second"]["median"]),
        f"{ratio['median']:.2f} ({ratio['min']:.2f} – {ratio['max']:.2f})" if ratio else EMPTY,
        f"{figures['peak_memory_mb']:,}",
        percentage(figures["share_of_peak"]),
        percentage(figures.get("share_of_roof")),  # older results have none
        numbers(largest),
        numbers(errors),
    ]


def numbers(values: dict[str, float]) -> str:
    """Numbers with their names; those of layers without, from the bottom up."""
    if all(key.startswith("layer ") for key in values):
        return " / ".join(f"{value:.1e}" for value in values.values()) or EMPTY
    return ", ".join(f"{key} {value:.1e}" for key, value in values.items())


def without_empty(
    head: list[str], rows: list[list[str]], optional: set[str]
) -> tuple[list[str], list[list[str]]]:
    """Without the optional columns that are empty, as in some settings and in older results."""
    kept = [n for n, name in enumerate(head) if name not in optional or any(row[n] != EMPTY for row in rows)]
    return [head[n] for n in kept], [[row[n] for n in kept] for row in rows]


# ---- a GPU


def fill_gpu(text: str, folder: Path = RESULTS / "gpu") -> str:
    """Tables of what benchmarks.speed.gpu has measured in the original size."""
    results = json.loads((folder / "original.json").read_text(encoding="utf-8"))
    tables = {"training": gpu_training, "reading": gpu_reading}
    return fill_blocks(text, "gpu", lambda name: f"{gpu_facts(results['facts'])}\n\n{tables[name](results)}")


def gpu_facts(facts: Result) -> str:
    return f"{facts['gpu']['name']}, torch {facts['versions']['torch']}; medians of {facts['rounds']} rounds."


def gpu_training(results: Result) -> str:
    rows = []
    for batch in dict.fromkeys(row["batch"] for row in results["training"]):
        own = [row for row in results["training"] if row["batch"] == batch]
        slow, fast = (row.get("words_per_second") for row in own)  # readable, auto; None if out of memory
        cells = [EMPTY if speed is None else number(speed) for speed in (slow, fast)]
        times = f" ({fast / slow:.1f} ×)" if slow and fast else ""
        rows.append([f"{batch} rows of 20 words", cells[0], cells[1] + times])
    return markdown_table(["words/s", "readable", "auto"], rows)


def gpu_reading(results: Result) -> str:
    rows = []
    for row in results["graphs"]:
        if row["what"] == "a model":
            slow, fast = (row["us"][name]["median"] / 1000 for name in ("readable", "auto"))
            rows.append([str(row["batch"]), number(slow), f"{number(fast)} ({slow / fast:.1f} ×)"])
    return markdown_table(["sentences at once", "readable, ms", "auto, ms"], rows)


# ---- the exported file


def export_table(content: Result) -> str:
    """What benchmarks.speed.onnx has measured."""
    settings = content["settings"]
    rows = []
    for name in settings["ready"]:
        speeds = [settings[setting][name] for setting in ("ready", "single")]
        cells = [f"{speed['words_per_second']:,.0f} ({speed['ratio']:.2f})" for speed in speeds]
        rows.append([name, *cells, *export_cells(content["exports"].get(name))])
    conditions = (
        f"{content['machine']['cpu']}, 1 thread, {content['weights']} weights, onnxruntime "
        f"{content['onnxruntime']}, torch {content['torch']}: `{content['command']}`"
    )
    head = ["words/s (ratio to torch-readable)", "batch of 32", "one at a time", "MB"]
    return f"{conditions}\n\n{markdown_table([*head, 'largest difference', 'rms'], rows)}"


def export_cells(export: Result | None) -> list[str]:
    if export is None:
        return [EMPTY] * 3
    difference = export["differences"]["vector"]
    return [f"{export['bytes'] / 1e6:.1f}", f"{difference['largest']:.1e}", f"{difference['rms']:.1e}"]


# ---- the first call of a process


def first_call_table(content: Result) -> str:
    """What benchmarks.speed.first_call has measured."""
    models = content["models"]
    rows = []
    for stage, title in content["stages"].items():
        cells = [title]
        for model in models.values():
            memory = model["memory_mb"][stage]
            cells += [
                f"{model['seconds'][stage]:.2f}",
                *(f"{memory[kind]:,.0f}" for kind in ("private", "file")),
            ]
        rows.append(cells)
    total = ["all until the first vectors"]
    for model in models.values():
        seconds = sum(model["seconds"].values()) - model["seconds"]["second"]
        total += [f"{seconds:.2f}", EMPTY, f"peak {model['memory_mb']['second']['peak']:,.0f}"]
    names = [f"{name} ({model['weights_mb']:,.0f} MB)" for name, model in models.items()]
    head = [title for name in names for title in (f"{name}, s", "private, MB", "of files, MB")]
    facts = f"{content['machine']['cpu']}, 1 thread, process time, medians of {content['rounds']} processes"
    return f"{facts}: `{content['command']}`\n\n{markdown_table(['', *head], [*rows, total])}"


# ---- one sentence


def sentence_table(content: Result) -> str:
    """What benchmarks.parts has measured of the time of one sentence, in milliseconds."""
    parts = list(content["rows"][0]["shares"])
    rows = [
        [
            f"{SIZES[row['size']]}, {row['words']} words",
            f"{row['ms']:.2f}",
            *(f"{row['ms'] * row['shares'][part]:.2f}" for part in parts),
        ]
        for row in content["rows"]
    ]
    facts = f"{content['machine']['cpu']}, {threads_of(content)}, random weights"
    return f"{facts}: `{content['command']}`\n\n{markdown_table(['ms', 'all', *parts], rows)}"


# ---- formats


def conditions(result: Result) -> str:
    machine = result["machine"]
    clock = "process time" if result["clock"] == "cpu" else "wall clock"
    return f"{machine['cpu']}, {machine['cores']} cores, {threads_of(result)}, {clock}."


def threads_of(result: Result) -> str:
    return "1 thread" if result["threads"] == 1 else f"{result['threads']} threads"


def peak(result: Result) -> str:
    rates = result["peak_gflops"]
    dtypes = [dtype for dtype in ("float32", "bfloat16", "int8") if dtype in rates]
    known = ", ".join(f"{dtype} {rates[dtype]:.0f}" for dtype in dtypes)
    return f" Peak, GFLOP/s: {known}." if known else ""


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def percentage(share: float | None) -> str:
    return EMPTY if share is None else f"{share:.0%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is out of date")
    options = parser.parse_args()
    stale = []
    for path in TARGETS:
        text = path.read_text(encoding="utf-8")
        filled = fill_all(text)
        if filled != text:
            stale.append(str(path))
            if not options.check:
                path.write_text(filled, encoding="utf-8")
    print(f"{'Out of date' if options.check else 'Written'}: {', '.join(stale) or 'nothing'}")
    sys.exit(1 if options.check and stale else 0)


if __name__ == "__main__":
    main()
