"""The tables of docs/reliability.md, from the JSON of the commands that stand beside them.

python -m benchmarks.reliability
"""

import json
from typing import Any

from benchmarks.report import RESULTS, ROOT, fill_page, markdown_table
from benchmarks.speed import versions
from tests.fuzz import report as fuzz
from tests.kills import __main__ as kills

PAGE = ROOT / "docs" / "reliability.md"


def random_table(results: dict[str, Any]) -> str:
    head = ["steps", "operations", "calls compared", "by the fast code", "other numbers"]
    numbers = [results["steps"], len(results["operations"]), results["calls"]]
    cells = [f"{number:,}" for number in numbers]
    cells += [f"{results['share_of_fast_calls']:.0%}", str(len(results["failures"]))]
    return markdown_table(head, [cells], left=0)


TABLES = {
    "random": random_table,
    "price": lambda results: versions.table(results["rows"]),
    "kills": kills.table,
    "fuzz": fuzz.table,
}


def table(name: str) -> str:
    return TABLES[name](json.loads((RESULTS / "reliability" / f"{name}.json").read_text(encoding="utf-8")))


def main() -> None:
    fill_page(PAGE, "reliability", table)


if __name__ == "__main__":
    main()
