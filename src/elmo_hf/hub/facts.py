"""What a card says besides its results: the words of facts.yaml, and what a checkpoint's files tell.

read_facts("hub_cards/elmo-tiny/facts.yaml")
describe_model("my-elmo")        # config, number of parameters, checksums; no weight is loaded
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from elmo_hf.files import checksum
from elmo_hf.hub.results import Results
from elmo_hf.loading import describe_model

KINDS = ("base", "task", "converted")
# Each fact's kind; those of NEEDED every card must have, and a template may need others.
TEXTS = ["kind", "name", "repo", "title", "summary", "licence", "licence_name", "licence_link"]
TEXTS += ["licence_note", "training_note", "usage", "reproduce", "citation", "base_model", "example"]
LISTS = ["languages", "limits", "authors", "tags", "datasets"]
NEEDED = [
    "kind",
    "name",
    "title",
    "summary",
    "languages",
    "licence",
    "licence_note",
    "data",
    "limits",
    "authors",
]
FACTS = [*TEXTS, *LISTS, "data", "source", "commands"]
IN_A_TEXT = ["name", "licence", "description"]  # of `data`; url may be added
IN_A_SOURCE = ["title", "url", "authors", "licence"]
HOLE = re.compile(r"\b(TODO|FIXME|TBD|XXX)\b|\[?More Information Needed\]?|\{\{ [\w.]+ \}\}")


# ---- facts


def read_facts(path: Path) -> dict[str, Any]:
    """The words of facts.yaml, each of its kind and none empty."""
    if not path.is_file():
        raise ValueError(
            f"there is no {path}; a card needs a title, languages, data, a licence, limits, authors."
        )
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold `name: value` lines.")
    for name, value in found.items():
        _check_fact(f"{path}: {name}", name, value)
    for name in NEEDED:
        if name not in found:
            raise ValueError(f"the card lacks '{name}'; say it in {path}.")
    if found["kind"] not in KINDS:
        raise ValueError(f"{path}: kind must be {', '.join(KINDS)}, but is {found['kind']!r}.")
    return {name: value.strip() if isinstance(value, str) else value for name, value in found.items()}


def _check_fact(place: str, name: str, value: Any) -> None:
    if name in TEXTS:
        _check_text(place, value)
    elif name in LISTS:
        _check_list(place, value)
    elif name == "commands":
        if not isinstance(value, dict):
            raise ValueError(f"{place} must be `result: command` lines.")
        for result, command in value.items():
            _check_text(f"{place}, {result}", command)
    elif name == "data":
        if not isinstance(value, list) or not value:
            raise ValueError(f"{place} must be a list of texts, each with {', '.join(IN_A_TEXT)}.")
        for count, text in enumerate(value, start=1):
            _check_entry(f"{place}, text {count}", text, IN_A_TEXT, [*IN_A_TEXT, "url"])
    elif name == "source":
        _check_entry(place, value, IN_A_SOURCE, IN_A_SOURCE)
    else:
        raise ValueError(f"{place} is no fact of a card; there are {', '.join(FACTS)}.")


def _check_entry(place: str, value: Any, needed: list[str], allowed: list[str]) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{place} must have {', '.join(needed)}.")
    for name in needed:
        if name not in value:
            raise ValueError(f"{place} lacks '{name}'.")
    for name, part in value.items():
        if name not in allowed:
            raise ValueError(f"{place} has '{name}', but only {', '.join(allowed)} have a place on a card.")
        (_check_list if name == "authors" else _check_text)(f"{place}, {name}", part)


def _check_text(place: str, value: Any) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{place} must be a text, but is {value!r:.60}.")
    hole = HOLE.search(value)
    if hole:
        raise ValueError(f"{place} has a hole: {hole[0]!r}; fill it first.")


def _check_list(place: str, value: Any) -> None:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{place} must be a list of texts, but is {value!r:.60}.")
    for one in value:
        _check_text(place, one)


# ---- the model


def find_model(folder: Path, results: Results) -> dict[str, Any]:
    """What a checkpoint is: of the folder, or, where that holds only a card, of the run that made it."""
    run = results.get("run")
    of_run = run.get("model") if isinstance(run, dict) else None
    if not (folder / "config.json").is_file():
        if not isinstance(of_run, dict):
            raise ValueError(f"{folder} has no config.json, and no results/run.json tells what the model is.")
        return of_run
    found = describe_model(folder)
    if isinstance(of_run, dict):
        theirs = of_run["config"]
        for name in ("lstm_dim", "projection_dim", "num_hidden_layers", "char_filters", "num_highway_layers"):
            if name in theirs and theirs[name] != found["config"].get(name):
                raise ValueError(
                    f"results/run.json is of a model with {name} {theirs[name]}, but {folder} has "
                    f"{found['config'].get(name)}; they must be of one model."
                )
    return found


def record_sources(files: Iterable[str | Path], results: str | Path) -> Path:
    """Writes results/source.json: what the files of a published original are."""
    paths = [Path(file) for file in files]
    for path in paths:
        if not path.is_file():
            raise ValueError(f"there is no file {path} among the sources.")
    found = {path.name: checksum(path) for path in paths}
    output = Path(results) / "source.json"
    output.parent.mkdir(exist_ok=True)
    output.write_text(json.dumps({"files": found}, indent=1) + "\n", encoding="utf-8")
    return output
