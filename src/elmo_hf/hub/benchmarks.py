"""Results on benchmarks of the Hub: `.eval_results/*.yaml`, which model pages and leaderboards show.

A benchmark is a dataset on the Hub with an `eval.yaml`, which names its tasks. facts.yaml says which
benchmark a data set of the results is, and a file is made of its score:

    benchmarks:
      WNUT 17:                      # the `dataset` of a row of evaluation results
        id: leondz/wnut_17          # the dataset on the Hub
        task_id: default            # of its eval.yaml
        metric: f1                  # of the row, if the data set has several
        split: test
"""

import re
from datetime import datetime
from typing import Any
from urllib.parse import quote

import yaml
from huggingface_hub import EvalResultEntry, constants, eval_result_entries_to_yaml
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from elmo_hf.errors import ElmoError
from elmo_hf.hub import markdown as md
from elmo_hf.hub.reading import brief
from elmo_hf.hub.results import Result, Row
from elmo_hf.hub.signature import MARK, sign

FOLDER = constants.EVAL_RESULTS_FOLDER
TASKS = "eval.yaml"  # of a benchmark
MAX_NAME = 100  # letters of a task or a user


# ---- forms of facts


def dataset_id(text: str) -> str:
    try:
        validate_repo_id(text)
    except HFValidationError:
        raise ElmoError("must be the name of a dataset on the Hub") from None
    if text.count("/") != 1:
        raise ElmoError("must be ORG/NAME, a dataset on the Hub")
    return text


def identifier(text: str) -> str:
    """Of a task, a user or an organisation."""
    if len(text) > MAX_NAME or not re.fullmatch(r"[!-~]+", text):
        raise ElmoError(f"must be a name of at most {MAX_NAME} letters of ASCII, without spaces")
    return text


def revision(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{40}", text):
        raise ElmoError("must be the SHA of a commit, 40 digits of 0-9 and a-f")
    return text


def date(text: str) -> str:
    try:
        datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
    except ValueError:
        raise ElmoError("must be a date such as 2026-01-31 or a time such as 2026-01-31T10:30:00Z") from None
    return text


# ---- files


def render_benchmarks(
    benchmarks: dict[str, dict[str, Any]], shown: dict[str, list[Result]], dates: dict[str, Any], repo: str
) -> dict[str, str]:
    """The files of `.eval_results`, by path in the repository.

    Args:
        benchmarks: of the facts, by the name of a data set.
        shown: the results, by the name of their file.
        dates: of the results, by the name of their file; those that are no dates are left out.
        repo: the model's name on the Hub, where the results are.
    """
    files: dict[str, str] = {}
    for name, benchmark in benchmarks.items():
        place = f"facts.yaml: 'benchmarks': {brief(name)}"
        source, row = row_of(str(name), benchmark, shown, place)
        path = f"{FOLDER}/{file_name(benchmark)}.yaml"
        if path in files:
            raise ElmoError(f"{place} is {benchmark['id']}, {benchmark['task_id']}, as another one is.")
        entry = entry_of(benchmark, row, source, dates.get(source), repo)
        content = yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False, allow_unicode=True)
        files[path] = sign(f"# {MARK}\n{content}")
    return files


def file_name(benchmark: dict[str, Any]) -> str:
    return re.sub(r"[^\w.-]", "-", f"{benchmark['id']}--{benchmark['task_id']}".replace("/", "--"))


def row_of(
    name: str, benchmark: dict[str, Any], shown: dict[str, list[Result]], place: str
) -> tuple[str, Row]:
    """The row of the results that has the score, and the name of its file."""
    rows = [
        (source, row)
        for source, results in shown.items()
        for result in results
        if result.kind == "evaluation"
        for row in result.rows
        if md.line(row["dataset"]) == md.line(name)
    ]
    if not rows:
        raise ElmoError(f"{place} has no score: no results of an evaluation are of this data set.")
    wanted = {key: benchmark[key] for key in ("metric", "split") if key in benchmark}
    fitting = [
        entry
        for entry in rows
        if all(md.line(entry[1].get(key) or "") == value for key, value in wanted.items())
    ]
    if len(fitting) == 1:
        return fitting[0]
    choices = [", ".join(filter(None, (row["metric"], row.get("split")))) for _, row in fitting or rows]
    raise ElmoError(
        f"{place} must say which of its {len(choices)} scores counts, by metric and split: "
        f"{md.line('; '.join(choices)):.200}."
    )


def entry_of(benchmark: dict[str, Any], row: Row, file: str, measured: Any, repo: str) -> EvalResultEntry:
    """The score, with a link to its source: by default the file of results in the repository."""
    source = benchmark.get("source") or {}
    if not source and repo.count("/") == 1:
        url = f"https://huggingface.co/{quote(repo)}/blob/main/results/{quote(file)}.json"
        source = {"url": url, "name": f"results/{file}.json"}
    return EvalResultEntry(
        dataset_id=benchmark["id"],
        task_id=benchmark["task_id"],
        value=row["value"],
        dataset_revision=benchmark.get("revision"),
        date=benchmark.get("date") or date_or_none(measured),
        source_url=source.get("url"),
        source_name=source.get("name"),
        source_user=source.get("user"),
        source_org=source.get("org"),
        notes=benchmark.get("notes"),
    )


def date_or_none(value: Any) -> str | None:
    try:
        return date(value) if isinstance(value, str) else None
    except ElmoError:
        return None
