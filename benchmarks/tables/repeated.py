"""How much a score changes when a run is made again on another processor, with the same seed and settings.

    python -m benchmarks.tables.repeated       # results/tables/repeated.json, and its table on the page

Processors round differently, and in training small differences grow. Some runs were made twice: Table 1 has
the results of `results/tables/runs/`, and `results/tables/repeated/` has the others.
"""

import statistics
from pathlib import Path
from typing import Any

from benchmarks.report import PAGE, RESULTS, fill_page, markdown_table
from benchmarks.tables.collect import Result, cell, score_of, verdict
from benchmarks.tables.page import shown
from benchmarks.tables.plan import TASKS
from benchmarks.tables.runs import stored_results
from elmo_hf.errors import ElmoError, one_sentence
from elmo_hf.files import read_json, write_json


def main() -> None:
    with one_sentence("repeated"):
        result = compare(RESULTS)
        write_json(RESULTS / "tables" / "repeated.json", result)
        fill_page(PAGE, "repeated", lambda _: table(result))
        print(table(result))


def compare(results: Path) -> dict[str, Any]:
    """The test scores of each run that was made twice, and what Table 1 would say with the other ones."""
    counted, repeated = (stored_results(results / "tables" / kind) for kind in ("runs", "repeated"))
    if not repeated:
        raise ElmoError(f"there are no repeated runs in {results / 'tables' / 'repeated'}.")
    runs = [both_of(name, counted.get(name), result) for name, result in repeated.items()]
    rows = {row["task"]: row for row in read_json(results / "table1.json")["rows"]}
    differences = [abs(run["repeated"]["score"] - run["counted"]["score"]) for run in runs]
    return {
        "command": "python -m benchmarks.tables.repeated",
        "runs": runs,
        "mean_difference": round(statistics.mean(differences), 3),
        "table1": [row_with(rows[task], runs) for task in dict.fromkeys(run["task"] for run in runs)],
    }


def both_of(name: str, counted: Result | None, repeated: Result) -> dict[str, Any]:
    if counted is None or counted["flags"] != repeated["flags"]:
        raise ElmoError(f"the repeated run {name} is not in the tables, or has other settings there.")
    task = TASKS[repeated["task"]]
    arm = "baseline" if repeated["place"] == "none" else "elmo"
    run: dict[str, Any] = {"name": name, "task": task.title, "arm": arm, "seed": repeated["seed"]}
    for column, result in (("counted", counted), ("repeated", repeated)):
        score = score_of(task, "test", task.metric)(result)
        run[column] = {"score": round(score, 3), "processor": result["machine"]["cpu"]}
    return run


def row_with(row: Result, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """A row of Table 1 with the other result of each run that was made twice."""
    changed = {"task": row["task"], "counted": row["helps"]}
    for arm in ("baseline", "elmo"):
        scores = dict(zip(row[arm]["seeds"], row[arm]["scores"], strict=True))
        own = [run for run in runs if (run["task"], run["arm"]) == (row["task"], arm)]
        for run in own:
            if scores.get(run["seed"]) != run["counted"]["score"]:
                raise ElmoError(f"table1.json has another score of {run['name']}; collect it first.")
        changed[arm] = cell(scores | {run["seed"]: run["repeated"]["score"] for run in own})
    return changed | {"helps": verdict(changed["baseline"], changed["elmo"])}


def table(result: dict[str, Any]) -> str:
    lines = []
    for run in result["runs"]:
        columns = (run["counted"], run["repeated"])
        arm = "with ELMo" if run["arm"] == "elmo" else "without"
        scores = [f"{column['score']:.1f} ({column['processor']})" for column in columns]
        lines.append([f"{run['task']}, {arm}, seed {run['seed']}", *scores])
    rows = [
        f"{row['task']}, {shown(row['baseline'])} without ELMo and {shown(row['elmo'])} with it; "
        f"does it help: {row['helps']} (in the table: {row['counted']})."
        for row in result["table1"]
    ]
    text = f"The two scores of a run differ by {result['mean_difference']:.1f} points on average."
    text = " ".join([text, "With the other ones, Table 1 would have:", *rows])
    return f"{text}\n\n{markdown_table(['run', 'in the table', 'the other'], lines)}"


if __name__ == "__main__":
    main()
