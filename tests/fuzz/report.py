"""What came of all cases of a door, as JSON, as lines on a terminal and as a Markdown table."""

import re
import time
from collections import Counter
from typing import Any

COLUMNS = {
    "traceback": "tracebacks",
    "hang": "hangs",
    "crash": "crashes",
    "code": "code run",
    "outside": "outside",
    "left": "left behind",
    "memory": "over 2 GB",
    "wrong": "wrong output",
    "unclear": "unclear",
}
EXAMPLES = 3  # cases that are named for each distinct fault


class Report:
    def __init__(self, door: str, seed: int) -> None:
        self.door, self.seed, self.start = door, seed, time.monotonic()
        self.results: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.peak, self.slowest = (0, -1), (0.0, -1)  # each with the case
        self.distinct: dict[tuple[str, str], dict[str, Any]] = {}

    def add(self, outcome: dict[str, Any]) -> None:
        self.results[outcome["result"]] += 1
        self.peak = max(self.peak, (outcome["peak"], outcome["number"]))
        self.slowest = max(self.slowest, (outcome["seconds"], outcome["number"]))
        self.kinds.update({kind for kind, _ in outcome["faults"]})
        for kind, detail in outcome["faults"]:
            entry = self.distinct.setdefault(
                (kind, general(detail)), {"kind": kind, "detail": detail[:600], "count": 0, "cases": []}
            )
            entry["count"] += 1
            if len(entry["cases"]) < EXAMPLES:
                entry["cases"].append({"case": outcome["number"], "input": outcome["description"][:300]})

    def brief(self) -> str:
        return ", ".join(f"{count} {kind}" for kind, count in self.kinds.items()) or "no fault"

    def lines(self) -> list[str]:
        """Each distinct fault with the command that shows it again."""
        lines = []
        for entry in sorted(self.distinct.values(), key=lambda entry: -entry["count"]):
            first = entry["cases"][0]
            again = f"--door {self.door} --case {first['case']} --seed {self.seed} --keep FOLDER"
            lines.append(f"{entry['count']:>6} {entry['kind']}: {entry['detail']}")
            lines += [f"       {ascii(first['input'])[1:-1]}", f"       python -m tests.fuzz {again}"]
        return lines

    def content(self) -> dict[str, Any]:
        return {
            "files": self.results.total(),
            "seed": self.seed,
            "accepted": self.results["accepted"],
            "refused": self.results["refused"],
            **{kind: self.kinds[kind] for kind in COLUMNS},
            "peak_megabytes": self.peak[0],
            "peak_case": self.peak[1],
            "slowest_seconds": round(self.slowest[0], 2),
            "slowest_case": self.slowest[1],
            "seconds": round(time.monotonic() - self.start, 1),
            "faults": sorted(self.distinct.values(), key=lambda entry: -entry["count"]),
        }


def general(detail: str) -> str:
    """Details that differ only in numbers, names and quoted values are one fault."""
    text = re.sub(r"/\S+/", "", detail)
    place = re.search(r" in (\S+\.py:\d+ .*)$", text)
    if place:
        return re.sub(r"\d+", "_", text.split(":")[0]) + place[1]
    return re.sub(r"0x[0-9a-f]+|[0-9a-f]{16,}|\d+|'.*'|\".*\"", "_", text)[:120]


def table(results: dict[str, Any]) -> str:
    """Markdown, for docs/reliability.md."""
    header = ["door", "files", "accepted", "refused", *COLUMNS.values(), "peak memory", "slowest"]
    rows = [header, ["---", *["---:"] * (len(header) - 1)]]
    for name, door in results["doors"].items():
        counts = [f"{door[key]:,}" for key in ("files", "accepted", "refused", *COLUMNS)]
        rows.append([name, *counts, f"{door['peak_megabytes']:,} MB", f"{door['slowest_seconds']:.1f} s"])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
