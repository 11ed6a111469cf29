"""The paper's tables on open data: every task with and without ELMo, layers, places, sizes, tuned, adapted.

    python -m benchmarks.tables --data DATA --dry-run                    # what there is to do, and how long
    python -m benchmarks.tables --data DATA --elmo my-elmo --jobs 2      # everything; a night on two cores
    python -m benchmarks.tables --data DATA --only table1 --tasks ner-wnut sst --seeds 0 --minutes 60
    python -m benchmarks.tables --data DATA --only whole --jobs 6        # with a GPU
    python -m benchmarks.tables --collect                                # the tables, from the runs there are
    python -m benchmarks.tables --data DATA --smoke                      # tiny sizes, a random biLM

What is run is in tables_plan.py. Each run is a recipe of training/ in a process of its own with one thread,
in `runs/tables/<run>/`; its scores go to `results/tables/runs/<run>.json`, and its model is taken away.
Killed at any time, the same command goes on: runs that are done are not done again, and one that was cut off
begins anew. At the end the tables (`results/table1.json` ...), their pictures and README.md are written from
the runs there are, with an empty cell for what is missing.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.report import RESULTS
from benchmarks.tables.collect import collect, filled, write_tables
from benchmarks.tables.inputs import make_inputs, missing_file
from benchmarks.tables.pictures import draw_tables
from benchmarks.tables.plan import TABLES, TASKS, smoke_plan
from benchmarks.tables.runs import (
    ROOT,
    Places,
    jobs_of,
    keep_finished,
    listing,
    progress,
    record,
    stored,
    waiting,
)
from benchmarks.tables.work import Job, run_jobs

ELMO = "src/elmo_hf/checkpoints/elmo-tiny"


def main() -> None:
    options = read_options()
    try:
        failed = do(options, places_of(options))
    except ValueError as error:
        sys.exit(f"tables.py: {error}")
    if failed:
        sys.exit(f"tables.py: {len(failed)} failed, see their logs in {options.runs}: {', '.join(failed)}.")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="the folder of the data")
    parser.add_argument("--elmo", default=ELMO, help=f"a pretrained biLM ({ELMO})")
    usual = [name for name, table in TABLES.items() if not table.wants_gpu]
    parser.add_argument(
        "--only",
        nargs="+",
        choices=list(TABLES),
        default=usual,
        metavar="TABLE",
        help=f"some of {', '.join(TABLES)} (all but those that want a GPU: {' '.join(usual)})",
    )
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS), metavar="TASK")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, help="begin no run after so many")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, each with one thread (1)")
    parser.add_argument("--runs", type=Path, help="a folder for what is under way (runs/tables)")
    parser.add_argument("--results", type=Path, help="a folder for what is measured (benchmarks/results)")
    parser.add_argument("--collect", action="store_true", help="run nothing, write the tables")
    parser.add_argument("--dry-run", action="store_true", help="run nothing, say what would be run")
    parser.add_argument(
        "--smoke", action="store_true", help="tiny sizes, a random biLM, in runs/tables-smoke"
    )
    options = parser.parse_args()
    if options.data is None and not options.collect:
        parser.error("name the folder of the data by --data.")
    if options.jobs < 1:
        parser.error("--jobs must be 1 or more.")
    if options.smoke:
        options.only = [name for name in options.only if name != "adapted"]  # a random biLM has no softmax
    options.runs = options.runs or ROOT / "runs" / ("tables-smoke" if options.smoke else "tables")
    options.results = options.results or (options.runs if options.smoke else ROOT / "benchmarks") / "results"
    return options


def places_of(options: argparse.Namespace) -> Places:
    elmo = None if options.smoke else options.elmo
    plan = smoke_plan() if options.smoke else TASKS
    return Places(options.data, elmo, options.runs, options.results, plan)


def do(options: argparse.Namespace, places: Places) -> list[str]:
    """Names of the runs that failed."""
    failed: list[str] = []
    asked = (options.only, options.tasks, options.seeds)
    if options.dry_run:
        print(listing(places, waiting(places, *asked), options.jobs))
        return failed
    if not options.collect:
        check(places, options)
        keep_finished(places, waiting(places, *asked))
        failed = work(places, options)
    write_all(places, options)
    return failed


def check(places: Places, options: argparse.Namespace) -> None:
    """Before anything is written."""
    runs = waiting(places, options.only, options.tasks, options.seeds)
    absent = missing_file(runs, places.plan, options.data)
    if absent is not None:
        raise ValueError(f"{absent} is missing; is {options.data} the folder of the data?")
    if places.elmo is not None and not (places.elmo_folder / "config.json").is_file():
        raise ValueError(f"there is no biLM in {places.elmo}; name its folder by --elmo.")


def work(places: Places, options: argparse.Namespace) -> list[str]:
    failed: list[str] = []
    runs = waiting(places, options.only, options.tasks, options.seeds)
    make_inputs(runs, places.plan, options.data, places.runs / "data")

    def ended(job: Job) -> None:
        fault = job.fault()
        if fault is not None:
            failed.append(job.name)
        elif job.run is not None:
            record(places, job.run)
            runs.remove(job.run)
        print(progress(places, job, fault, runs, options.jobs), flush=True)

    run_jobs(jobs_of(places, runs), options.jobs, options.minutes, ended)
    return failed


def write_all(places: Places, options: argparse.Namespace) -> None:
    """Tables, pictures, and the README's part, from what there is, of seeds asked for before, too."""
    seeds = {*options.seeds, *(result["seed"] for result in stored(places).values())}
    tables = collect(places.measured(sorted(seeds)))
    write_tables(tables, places.results)
    draw_tables(tables, places.results)
    readme = ROOT / "benchmarks" / "README.md"
    if options.results == RESULTS:
        text = filled(readme.read_text(encoding="utf-8"), tables, places.plan)
        readme.write_text(text, encoding="utf-8")
    print(f"Written to {places.results}: {', '.join(tables)}.")


if __name__ == "__main__":
    main()
