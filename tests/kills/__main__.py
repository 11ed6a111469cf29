"""Kills runs a thousand times, and compares how they end with undisturbed runs.

    python -m tests.kills                                   # 1,000 kills; about an hour on two cores
    python -m tests.kills --kills 100 --scenarios embedding
    python -m tests.kills --list

Each run is killed up to eight times and started again, and is then left to end. SIGKILL or SIGTERM goes to
all of its processes or to one of them: at a random time, or before a random file operation in the run's
folder, such as between two renames. Afterwards no sentence may be lost or repeated; weights, logs, vectors
and results must equal those of an undisturbed run; nothing may be left over; and every start must have ended
by itself.

The counts are written after each run, and the same command continues after an interruption. The exit code is
1 if anything was wrong: then each fault is listed with its history of kills, and the run's folder is kept.
"""

import argparse
import json
import shlex
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Any

from tqdm import tqdm

from benchmarks.report import RESULTS, machine, markdown_table, versions
from elmo_hf.errors import ElmoError, one_sentence
from elmo_hf.files import write_json
from tests.helpers.launcher import Launcher
from tests.kills.accelerate_launch import AccelerateLaunch, AccelerateLaunchTwo
from tests.kills.embedding import embeddings
from tests.kills.finetuning import Finetuning
from tests.kills.pretraining import ChangingProcesses, FinishedRun, Pretraining, TwoMachines, TwoProcesses
from tests.kills.scenarios import LIMIT, Scenario
from tests.kills.series import Killer, Series, remove

SCENARIOS: list[type[Scenario]] = [
    *(
        Pretraining,
        TwoProcesses,
        TwoMachines,
        ChangingProcesses,
        FinishedRun,
        AccelerateLaunch,
        AccelerateLaunchTwo,
    ),
    *(*embeddings(), Finetuning),
]
MODULES = (
    "datasets",
    "h5py",
    "pyarrow.parquet",
    "transformers.trainer",
    "elmo_hf.cli",
    "elmo_hf.embedding.job",
)
MODULES += ("elmo_hf.finetuning.__main__", "evaluate", "training.pretrain")
MOST_WRONG = 20  # runs; then a scenario is given up
WRONG = ("lost", "repeated", "unequal", "failed", "stuck")
COLUMNS = ("kills", "starts", "runs", *WRONG, "seconds")


def main() -> None:
    options = read_options()
    with one_sentence("kills"):
        scenarios = chosen(options.scenarios)
        if options.list:
            print("\n".join(scenario.name for scenario in scenarios))
            return
        results = read_results(options)
        kill_all(results, scenarios, options)
    print(table(results))
    if is_wrong(results):
        sys.exit(f"kills: {len(results['faults'])} runs went wrong; they are listed in {options.output}.")


def read_options() -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m tests.kills", description=__doc__, formatter_class=formatter)
    parser.add_argument("--kills", type=int, default=1000, help="(1000)")
    parser.add_argument("--scenarios", nargs="+", default=[""], help="parts of their names (all)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    output = RESULTS / "reliability" / "kills.json"
    parser.add_argument("--output", type=Path, default=output, help="the results (benchmarks/results/...)")
    parser.add_argument(
        "--limit", type=float, default=LIMIT, help=f"seconds until a start is stuck ({LIMIT})"
    )
    parser.add_argument(
        "--keep", type=Path, help="where runs that went wrong are kept (a new folder in /tmp)"
    )
    parser.add_argument("--list", action="store_true", help="print the names of the scenarios")
    return parser.parse_args()


def chosen(names: list[str]) -> list[type[Scenario]]:
    scenarios = [scenario for scenario in SCENARIOS if any(name in scenario.name for name in names)]
    if not scenarios:
        raise ElmoError(f"no scenario is named {' or '.join(names)}; --list prints their names.")
    return scenarios


# ---- the results


def read_results(options: argparse.Namespace) -> dict[str, Any]:
    """The results so far, if there are any."""
    path = options.output
    if path.exists():
        results = json.loads(path.read_text(encoding="utf-8"))
        if results["seed"] != options.seed:
            raise ElmoError(
                f"{path} was begun with seed {results['seed']}; use the same or another --output."
            )
        return results
    return {"command": command(options), "seed": options.seed, "scenarios": {}, "faults": []}


def command(options: argparse.Namespace) -> str:
    """The command line of these results, without its paths, which do not change them."""
    scenarios = [] if options.scenarios == [""] else ["--scenarios", *options.scenarios]
    numbers = [f"--kills={options.kills}", f"--seed={options.seed}"]
    return shlex.join(["python", "-m", "tests.kills", *numbers, *scenarios])


def add(results: dict[str, Any], name: str, series: Series) -> None:
    row = results["scenarios"].setdefault(name, dict.fromkeys(COLUMNS, 0))
    for column, value in (series.counts | {"runs": 1}).items():
        row[column] = round(row[column] + value, 2)
    if series.faults:
        fault = {"scenario": name, "run": row["runs"] - 1, "history": series.history, "faults": series.faults}
        results["faults"].append(fault)


def write(results: dict[str, Any], path: Path) -> None:
    facts = {"machine": machine(), "versions": versions("torch", "transformers", "accelerate", "safetensors")}
    write_json(path, results | facts)


def is_wrong(results: dict[str, Any]) -> bool:
    return any(row[column] for row in results["scenarios"].values() for column in WRONG)


def table(results: dict[str, Any]) -> str:
    """A Markdown table of the results."""
    rows = [(name, *(row[column] for column in COLUMNS)) for name, row in results["scenarios"].items()]
    if len(rows) > 1:
        rows.append(("together", *(sum(row[column] for row in rows) for column in range(1, len(rows[0])))))
    return markdown_table(
        ("run", *COLUMNS), [[row[0], *(f"{value:,.0f}" for value in row[1:])] for row in rows]
    )


# ---- killing


def shares(kills: int, scenarios: list[type[Scenario]]) -> dict[str, int]:
    """How many of the kills each scenario gets."""
    total, done, counts = sum(scenario.share for scenario in scenarios), 0, {}
    for scenario in scenarios:
        before, done = kills * done // total, done + scenario.share
        counts[scenario.name] = kills * done // total - before
    return counts


def kill_all(results: dict[str, Any], scenarios: list[type[Scenario]], options: argparse.Namespace) -> None:
    counts = shares(options.kills, scenarios)
    rows = results["scenarios"]
    done = sum(rows.get(name, {"kills": 0})["kills"] for name in counts)
    with (
        tempfile.TemporaryDirectory(prefix="kills-") as temporary,
        tqdm(total=options.kills, initial=done, unit=" kills", dynamic_ncols=True) as bar,
        Launcher(MODULES) as launcher,
    ):
        for number, scenario_class in enumerate(scenarios):
            name = scenario_class.name
            if rows.get(name, {"kills": 0})["kills"] < counts[name]:
                bar.set_description(name)
                scenario = scenario_class(launcher, Path(temporary) / str(number))
                scenario.limit = options.limit
                kill(scenario, counts[name], results, options, bar)


def kill(
    scenario: Scenario, count: int, results: dict[str, Any], options: argparse.Namespace, bar: Any
) -> None:
    """Kill runs of one scenario until its count is reached, or too many have gone wrong."""
    scenario.begin()
    while True:
        row = results["scenarios"].get(scenario.name, {"kills": 0, "runs": 0})
        wrong = sum(fault["scenario"] == scenario.name for fault in results["faults"])
        if row["kills"] >= count or wrong >= MOST_WRONG:
            return
        draw = Random(f"{options.seed} {scenario.name} {row['runs']}")
        output = scenario.folder / f"run-{row['runs']}"
        series = Killer(scenario, output, draw).run(count - row["kills"])
        if series.faults:
            keep(output, options, bar, scenario.name, series)
        remove(output)
        add(results, scenario.name, series)
        write(results, options.output)
        bar.update(series.kills)


def keep(output: Path, options: argparse.Namespace, bar: Any, name: str, series: Series) -> None:
    """Print what went wrong, and move the run's folder to a place that stays."""
    if options.keep is None:
        options.keep = Path(tempfile.mkdtemp(prefix="kills-wrong-"))
    target = options.keep / name.replace(", ", "-").replace(" ", "-") / output.name
    target.parent.mkdir(parents=True, exist_ok=True)
    if output.exists():
        output.rename(target)
    bar.write("\n".join([f"{name}: {target}", *series.history, *series.faults]), file=sys.stderr)


if __name__ == "__main__":
    main()
