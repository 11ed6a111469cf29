"""The Markdown tables of the speed benchmark, from its JSON.

    python -m benchmarks.speed.table            # writes them between the markers of both README.md
    python -m benchmarks.speed.table --check    # says which file is out of date, and fails

Markers are lines of their own: `<!-- speed: summary -->`, or `brief` or `details` in place of `summary`, and
`<!-- /speed -->`; `<!-- gpu: training -->` or `reading`, and `<!-- /gpu -->`. A file without is left alone.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS, ROOT

TARGETS = [ROOT / "README.md", ROOT / "benchmarks" / "README.md"]
SIZES = {"original": "original (4096/512)", "small": "small (1024/128)", "tiny": "tiny (a test)"}
SETTINGS = {
    "batch": "batch of 32",
    "ready": "batch of 32, ids ready",
    "single": "one at a time",
    "corpus": "corpus",
    "train": "training step",
}
# What the README has; all the others are in this folder's.
BRIEF = ["ours-auto", "ours-bf16", "allennlp", "simple-elmo", "bert-base"]
Result = dict[str, Any]


def read_results(folder: Path = RESULTS) -> list[Result]:
    results = []
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        results += content if isinstance(content, list) else [content]
    return sorted((one for one in results if "contestants" in one), key=place)  # others are of other things


def place(result: Result) -> tuple[int, int, int]:
    sizes, settings = list(SIZES), list(SETTINGS)
    return result["threads"], sizes.index(result["size"]), settings.index(result["setting"])


def fill(text: str, results: list[Result]) -> str:
    """The text with fresh tables between its markers; as it is, if there are no results."""
    tables = {"brief": brief, "summary": summary, "details": details}
    if not results:
        return text
    return fill_blocks(text, "speed", lambda name: tables[name](results))


def fill_blocks(text: str, kind: str, content: Callable[[str], str]) -> str:
    """The text with fresh content between its lines `<!-- kind: name -->` and `<!-- /kind -->`."""
    block = re.compile(rf"(<!-- {kind}: (\w+) -->\n).*?(<!-- /{kind} -->)", re.DOTALL)
    return block.sub(lambda found: f"{found[1]}\n{content(found[2])}\n\n{found[3]}", text)


# ---- one table over everything


def brief(results: list[Result]) -> str:
    """The contestants that most people ask for across, sizes and settings down."""
    results = [one for one in results if one["setting"] != "ready" and one["size"] != "tiny"]
    return "\n\n".join(f"{heading}\n\n{few(group)}" for heading, group in by_conditions(results).items())


def few(results: list[Result]) -> str:
    names = [name for name in BRIEF if any(name in result["contestants"] for result in results)]
    rows = [
        [f"{r['size']}, {SETTINGS[r['setting']]}", *(cell(r, name, times=True) for name in names)]
        for r in results
    ]
    return markdown(["words/s", *names], rows)


def summary(results: list[Result]) -> str:
    """A table for each machine, number of threads and clock: contestants down, sizes and settings across."""
    groups = by_conditions(results)
    return "\n\n".join(f"{heading}\n\n{overview(group)}" for heading, group in groups.items())


def by_conditions(results: list[Result]) -> dict[str, list[Result]]:
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(conditions(result), []).append(result)
    return groups


def overview(results: list[Result]) -> str:
    names = dict.fromkeys(name for result in results for name in result["contestants"])
    head = ["words/s (ratio)", *(f"{r['size']}, {SETTINGS[r['setting']]}" for r in results)]
    rows = [[name, *(cell(result, name) for result in results)] for name in names]
    return markdown(head, rows)


def cell(result: Result, name: str, times: bool = False) -> str:
    """A speed and its ratio to the baseline, `(4.69)` or, with times, `(4.7 ×)`."""
    found = result["contestants"].get(name)
    if found is None:
        return "–"
    speed = number(found["words_per_second"]["median"])
    if not found["ratio"]:
        return speed
    ratio = found["ratio"]["median"]
    return f"{speed} ({ratio:.1f} ×)" if times else f"{speed} ({ratio:.2f})"


# ---- a table for each size and setting


def details(results: list[Result]) -> str:
    return "\n\n".join(detail(result) for result in results)


def detail(result: Result) -> str:
    title = f"**{SIZES[result['size']]}, {SETTINGS[result['setting']]}.** {conditions(result)}"
    text = result["text"]
    title += f" {result['rounds']} rounds; {text['source']}, {text['sentences']:,} sentences.{peak(result)}"
    against = f"× {result['baseline']} (least – greatest)"
    head = ["", "words/s", against, "memory, MB", "of the peak", "of the roof", "largest difference", "rms"]
    rows = [detail_row(name, found, result) for name, found in result["contestants"].items()]
    lines = [title, "", markdown(*without_empty(head, rows, {"of the roof", "rms"}))]
    lines += [f"\nLeft out: {name}: {reason}." for name, reason in result["skipped"].items()]
    return "\n".join(lines)


def detail_row(name: str, found: Result, result: Result) -> list[str]:
    ratio, share = found["ratio"], found["share_of_peak"]
    roof = found.get("share_of_roof")
    agreement = result["agreement_with_baseline"].get(name, {})
    errors = {key[len("rms ") :]: value for key, value in agreement.items() if key.startswith("rms ")}
    largest = {key: agreement[key] for key in agreement if not key.startswith(("largest ", "rms "))}
    return [
        name,
        number(found["words_per_second"]["median"]),
        f"{ratio['median']:.2f} ({ratio['min']:.2f} – {ratio['max']:.2f})" if ratio else "–",
        f"{found['peak_memory_mb']:,}",
        f"{share:.0%}" if share is not None else "–",
        f"{roof:.0%}" if roof is not None else "–",
        numbers(largest),
        numbers(errors),
    ]


def numbers(found: dict[str, float]) -> str:
    """Layers stand one after the other without their names."""
    if all(key.startswith("layer ") for key in found):
        return " / ".join(f"{value:.1e}" for value in found.values()) or "–"
    return ", ".join(f"{key} {value:.1e}" for key, value in found.items())


def without_empty(
    head: list[str], rows: list[list[str]], optional: set[str]
) -> tuple[list[str], list[list[str]]]:
    """Without those optional columns that have nothing: a setting may lack them, and so may older results."""
    kept = [n for n, name in enumerate(head) if name not in optional or any(row[n] != "–" for row in rows)]
    return [head[n] for n in kept], [[row[n] for n in kept] for row in rows]


# ---- a GPU


def fill_gpu(text: str, folder: Path = RESULTS / "gpu") -> str:
    """The same for what gpu.py has measured in the original size."""
    found = json.loads((folder / "original.json").read_text(encoding="utf-8"))
    tables = {"training": gpu_training, "reading": gpu_reading}
    return fill_blocks(text, "gpu", lambda name: f"{gpu_facts(found['facts'])}\n\n{tables[name](found)}")


def gpu_facts(facts: Result) -> str:
    return f"{facts['gpu']['name']}, torch {facts['versions']['torch']}; medians of {facts['rounds']} rounds."


def gpu_training(found: Result) -> str:
    rows = []
    for batch in dict.fromkeys(row["batch"] for row in found["training"]):
        own = {row["kernels"]: row["words_per_second"] for row in found["training"] if row["batch"] == batch}
        ratio = f"{number(own['auto'])} ({own['auto'] / own['readable']:.1f} ×)"
        rows.append([f"{batch} rows of 20 words", number(own["readable"]), ratio])
    return markdown(["words/s", "readable", "auto"], rows)


def gpu_reading(found: Result) -> str:
    rows = []
    for row in found["graphs"]:
        if row["what"] == "a model":
            slow, fast = (row["us"][name]["median"] / 1000 for name in ("readable", "auto"))
            rows.append([str(row["batch"]), number(slow), f"{number(fast)} ({slow / fast:.1f} ×)"])
    return markdown(["sentences at once", "readable, ms", "auto, ms"], rows)


# ---- small things


def conditions(result: Result) -> str:
    machine, threads = result["machine"], result["threads"]
    clock = "process time" if result["clock"] == "cpu" else "wall clock"
    plural = "s" if threads != 1 else ""
    return f"{machine['cpu']}, {machine['cores']} cores, {threads} thread{plural}, {clock}."


def peak(result: Result) -> str:
    rates = result["peak_gflops"]
    found = [f"{dtype} {rates[dtype]:.0f}" for dtype in ("float32", "bfloat16", "int8") if dtype in rates]
    return f" Peak, GFLOP/s: {', '.join(found)}." if found else ""


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is out of date")
    options = parser.parse_args()
    stale = []
    for path in TARGETS:
        text = path.read_text(encoding="utf-8")
        fresh = fill_gpu(fill(text, read_results()))
        if fresh != text:
            stale.append(str(path))
            if not options.check:
                path.write_text(fresh, encoding="utf-8")
    print(f"{'Out of date' if options.check else 'Written'}: {', '.join(stale) or 'nothing'}")
    sys.exit(1 if options.check and stale else 0)


if __name__ == "__main__":
    main()
