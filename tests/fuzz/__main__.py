"""Damaged files at every door of the package: one clear sentence or a result, and nothing else.

    python -m tests.fuzz --files 10000 --output benchmarks/results/reliability/fuzz.json
    python -m tests.fuzz --files 10000 --doors hdf5 config
    python -m tests.fuzz --door hdf5 --case 1234 --keep FOLDER       # one case again; its input stays
    python -m tests.fuzz --table benchmarks/results/reliability/fuzz.json

Doors that the output has already, of as many files and the same seed, are not run again; `--again` does.
The exit code is 1 if anything failed.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.fuzz.report import Report, table


def main() -> int:
    flags = parse()
    if flags.table:
        print(table(json.loads(flags.table.read_text(encoding="utf-8"))))
        return 0
    from tests.fuzz.doors import DOORS, prepare_process

    prepare_process()
    if flags.door:
        return run_case(DOORS[flags.door], flags)
    results = (
        json.loads(flags.output.read_text(encoding="utf-8")) if flags.output and flags.output.exists() else {}
    )
    doors = results.setdefault("doors", {})
    results["command"] = f"python -m tests.fuzz --files {flags.files} --seed {flags.seed}"
    chosen = flags.doors or list(DOORS)
    for name in chosen:
        done = doors.get(name, {})
        if flags.again or (done.get("files"), done.get("seed")) != (flags.files, flags.seed):
            doors[name] = run_cases(DOORS[name], flags)
            write(flags.output, results)
    print(table(results))
    return int(any(doors[name]["faults"] for name in chosen))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=10_000, help="damaged files for each door (10000)")
    parser.add_argument("--doors", nargs="+", help="names of doors; all by default")
    parser.add_argument("--seed", type=int, default=0, help="of all cases (0)")
    parser.add_argument("--output", type=Path, help="JSON file of the results, written after each door")
    parser.add_argument("--again", action="store_true", help="run doors that the output has already")
    parser.add_argument("--door", help="the door of a single case")
    parser.add_argument("--case", type=int, default=0, help="the number of a single case")
    parser.add_argument("--keep", type=Path, help="a new folder, where the single case's files stay")
    parser.add_argument("--table", type=Path, help="print the Markdown table of such a file, and end")
    return parser.parse_args()


def run_cases(door: Any, flags: argparse.Namespace) -> dict[str, Any]:
    from tqdm import tqdm

    from tests.fuzz.harness import run_door

    report = Report(door.name, flags.seed)
    with tempfile.TemporaryDirectory() as folder, tqdm(total=flags.files, desc=f"{door.name:>12}") as bar:
        for outcome in run_door(door, range(flags.files), Path(folder), flags.seed):
            report.add(outcome)
            bar.update()
            bar.set_postfix_str(report.brief(), refresh=False)
    for line in report.lines():
        print(line, file=sys.stderr)
    return report.content()


def run_case(door: Any, flags: argparse.Namespace) -> int:
    from tests.fuzz.harness import run_door

    folder = flags.keep or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    (outcome,) = run_door(door, range(flags.case, flags.case + 1), folder, flags.seed)
    print(json.dumps(outcome, indent=1, ensure_ascii=False))
    print(f"The input is in {folder / 'case' / 'in'}.")
    return int(bool(outcome["faults"]))


def write(path: Path | None, results: dict[str, Any]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)


if __name__ == "__main__":
    sys.exit(main())
