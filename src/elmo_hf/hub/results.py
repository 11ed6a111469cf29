"""Results of commands: the JSON form that commands write, and the tables that a model card makes of it.

    write_json(path, with_results({"command": "...", "seed": 1}, Result("table", rows, title="Other shapes")))

A file of results is an object:

    {"command": "...", "schema": 1, "results": [{"kind": "perplexity", "rows": [{"text": "news", ...}]}]}

    command   how to get the same numbers again; several are lines
    results   each has a kind, rows, and for a card a `title` and a `note`, a sentence below the table

    kind         a row                                                                   shown
    perplexity   text, forward, backward, mean; model (if not this one), states, ...     table, model-index
    evaluation   dataset, metric, value; split                                           table, model-index
    table        any columns                                                             a section

Other keys (machine, versions, raw numbers, ...) are for other readers of the file.
`perplexity-TEXT.json` and `evaluation-DATA.json` name the text or data set that they have results of.
`run.json` (a pretraining run) and `source.json` (checksums of a converted original) have forms of their own.
Files without `schema` are those of elmo_hf 0.1.0, which earlier.py translates.
"""

import json
import re
import reprlib
import shlex
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NoReturn

from elmo_hf.errors import ElmoError
from elmo_hf.files import checksum, write_json
from elmo_hf.hub.markdown import cell, code, escape, is_number, line, markdown_table, number, table

SCHEMA = 1
MAX_BYTES = 1_000_000  # of a file that a card is made of
MAX_DIGITS = 18
THIS_MODEL = "this model"
Row = dict[str, Any]

# What a row of a kind must have, and the columns of its table; a `table` has the columns of its rows.
PERPLEXITIES = dict.fromkeys(["forward", "backward", "mean"], "a positive number")
NEEDED = {
    "perplexity": {"text": "a text"} | PERPLEXITIES,
    "evaluation": {"dataset": "a text", "metric": "a text", "value": "a number"},
    "table": {},
}
FIGURES = ["states", "forward", "backward", "mean", "arithmetic_mean", "tokens", "unknown"]
COLUMNS = {"perplexity": ["text", "model", *FIGURES], "evaluation": ["dataset", "split", "metric", "value"]}

# ---- types


def is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def is_cell(value: Any) -> bool:
    if isinstance(value, list):
        return all(not isinstance(entry, list) and is_cell(entry) for entry in value)
    return value is None or isinstance(value, str | bool) or is_number(value)


TYPES: dict[str, Callable[[Any], bool]] = {
    "a text": is_text,
    "a number": is_number,
    "a positive number": lambda value: is_number(value) and value > 0,
    "true or false": lambda value: isinstance(value, bool),
    "an object": lambda value: isinstance(value, dict),
    "a list": lambda value: isinstance(value, list),
    "a text or an object": lambda value: is_text(value) or isinstance(value, dict),
}


def brief(value: Any) -> str:
    """What an error message shows of a value."""
    try:
        return reprlib.repr(value)
    except ValueError:  # thousands of digits
        return f"{type(value).__name__} too long to show"


def check_type(place: str, value: Any, type_name: str) -> None:
    if not TYPES[type_name](value):
        raise ElmoError(f"{place} must be {type_name}, but is {brief(value)}.")


def check_fields(place: str, content: Any, fields: dict[str, str]) -> None:
    """Every field is there, and of its type."""
    check_type(place, content, "an object")
    for name, type_name in fields.items():
        if content.get(name) is None:
            raise ElmoError(f"{place} lacks '{name}'.")
        check_type(f"{place}: '{name}'", content[name], type_name)


# ---- the form


@dataclass(frozen=True)
class Result:
    """What a command measured. It is checked where it is read, so that a command can write any number it got.

    Args:
        kind: "perplexity", "evaluation" or "table".
        rows: a table's rows, each by column; values are numbers, texts, booleans, None or lists of these.
        title: of the section of a card; a table without one belongs to the section of the table before it.
        note: a sentence below the table.
    """

    kind: str
    rows: list[Row]
    title: str = ""
    note: str = ""

    def check(self) -> None:
        """Raise an ElmoError if the kind is unknown, or a row lacks a field or has what no cell shows."""
        if not isinstance(self.kind, str) or self.kind not in NEEDED:
            raise ElmoError(f"kind must be one of {', '.join(NEEDED)}, but is {brief(self.kind)}.")
        if not isinstance(self.rows, list) or not self.rows:
            raise ElmoError(f"rows must be a list of rows, but is {brief(self.rows)}.")
        for count, row in enumerate(self.rows, start=1):
            check_fields(f"row {count}", row, NEEDED[self.kind])
            for name, value in row.items():
                if not is_cell(value):
                    raise ElmoError(f"row {count}: '{name}' is no cell of a table: {brief(value)}.")
        for name in ("title", "note"):
            if getattr(self, name) != "":
                check_type(name, getattr(self, name), "a text")


RESULT_FIELDS = [field.name for field in fields(Result)]


def with_results(content: Row, *results: Result) -> Row:
    """The content of a file, and the results that a card shows of it."""
    entries = [{name: value for name, value in asdict(result).items() if value} for result in results]
    return content | {"schema": SCHEMA, "results": entries}


def results_in(content: Row, name: str) -> list[Result]:
    """The results in a file's content; `name` is the file's, without `.json`."""
    if content["schema"] != SCHEMA:
        raise ElmoError(f"this elmo_hf reads schema {SCHEMA}, not {brief(content['schema'])}.")
    check_type("'results'", content.get("results"), "a list")
    results = []
    for count, entry in enumerate(content["results"], start=1):
        check_type(f"result {count}", entry, "an object")
        known = {name: entry[name] for name in RESULT_FIELDS if entry.get(name) is not None}
        results.append(Result(**{"kind": None, "rows": None} | known))
        results[-1].check()
    return rename_single(results, name)


def rename_single(results: list[Result], name: str) -> list[Result]:
    """The results; those of a single text or data set with that in the name of the file."""
    kind, _, label = name.partition("-")
    key, label = ("text", text_name(label)) if kind == "perplexity" else ("dataset", label)
    if not label or kind not in COLUMNS or any(result.kind != kind for result in results):
        return results
    if len({row[key] for result in results for row in result.rows}) > 1:
        return results
    return [replace(result, rows=[row | {key: label} for row in result.rows]) for result in results]


def command_line(program: str, arguments: Iterable[str]) -> str:
    """The command as it was typed, with no folder of this machine."""
    return shlex.join([program, *map(without_folders, arguments)])


def without_folders(argument: str) -> str:
    """The last part of a path that leads out of the working directory, also in --NAME=PATH."""
    option, sign, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    path = Path(value)
    is_outside = path.is_absolute() or ".." in path.parts
    return option + sign + (path.name if is_outside else value)


def perplexities(texts: dict[str, Row], model: str = THIS_MODEL) -> Result:
    """The perplexities of texts, by the path or name of each, as `Perplexity.to_dict` gives them."""
    rows = [
        {"text": text_name(text), "model": model}
        | {name: figures[name] for name in FIGURES if name in figures}
        for text, figures in texts.items()
    ]
    return Result("perplexity", rows)


# ---- reading


def read_results(folder: str | Path) -> dict[str, Any]:
    """The JSON files of a folder, by name without `.json`; none if there is no folder."""
    return {path.stem: read_json(path) for path in sorted(Path(folder).glob("*.json"))}


def read_json(path: Path) -> Any:
    text = read_text(path)
    try:
        content = json.loads(text, parse_int=_integer, parse_float=_float, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ElmoError(f"{path} is not JSON ({error}); run the command that writes it again.") from None
    if not isinstance(content, dict | list) or not content:
        raise ElmoError(f"{path} holds no results; run the command that writes it again.")
    return content


def read_text(path: Path) -> str:
    """A file of at most `MAX_BYTES`; a pipe, which would never end, is refused."""
    if not path.is_file():
        raise ElmoError(f"{path} is not a file.")
    if path.stat().st_size > MAX_BYTES:
        raise ElmoError(f"{path} has more than {MAX_BYTES:,} bytes, too many for a model card.")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ElmoError(f"{path} is not text in UTF-8 ({error.reason} at byte {error.start}).") from None


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"{text[:MAX_DIGITS]}... has more than {MAX_DIGITS} digits")
    return int(text)


def _float(text: str) -> float:
    return float(text) if is_number(float(text)) else _refuse(text)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name[:MAX_DIGITS]} is no number")


def text_name(path: str) -> str:
    """A text has one name, whatever folder it is in and however it is compressed."""
    return re.sub(r"(?:\.(?:txt|xz|gz|bz2|zst))+$", "", Path(path).name)


# ---- results with forms of their own

RECIPE = {
    "data": "text",
    "start": "started from",
    "rows": "rows of running text",
    "window": "words of a row in an update",
    "accumulate": "windows in an update",
    "restart_rows": "rows that restart from zeros, share a window",
    "shuffle_sentences": "sentences shuffled at a time",
    "samples": "sampled softmax, words",
    "optimizer": "optimizer",
    "learning_rate": "learning rate",
    "schedule": "schedule",
    "clip": "clip of the gradient's norm",
    "loss_scale": "scale of the loss",
    "dropout": "dropout",
    "precision": "precision",
    "epochs": "epochs, at most",
    "max_steps": "updates, at most",
    "seed": "seed",
}
# What results/run.json must have, and the model in it.
RUN = {
    "command": "a text",
    "settings": "an object",
    "machine": "a text or an object",
    **dict.fromkeys(["steps", "words", "epochs", "hours", "words_per_second", "resumed"], "a number"),
    "finished": "true or false",
}
MODEL = {"config": "an object", "parameters": "a number", "softmax_parameters": "a number"}


def run_values(run: Any) -> dict[str, Any]:
    """Of the summary of a pretraining run."""
    check_fields("results/run.json", run, RUN)
    settings = {label: setting(name, run["settings"].get(name)) for name, label in RECIPE.items()}
    heldout, rows = run.get("heldout", {}), []
    check_type("results/run.json: 'heldout'", heldout, "an object")
    for text, evaluations in heldout.items():
        place = f"results/run.json: {brief(text)}"
        check_fields(place, evaluations, {"best": "an object"})
        check_fields(f"{place}: 'best'", evaluations["best"], PERPLEXITIES)
        rows.append(evaluations["best"] | {"text": text_name(text)})
    return {
        **{name: number(run[name]) for name in ("words", "steps", "epochs", "hours", "words_per_second")},
        "recipe": markdown_table(["", ""], [[name, text] for name, text in settings.items() if text]),
        "heldout": table(rows, ["text", *FIGURES]) if rows else "",
        "machine": machine(run["machine"]),
        "resumed": run["resumed"],
        "finished": run["finished"],
        "command": run["command"],
    }


def setting(name: str, value: Any) -> str:
    """As it was typed."""
    if not is_cell(value):
        raise ElmoError(f"results/run.json: the setting '{name}' cannot be {brief(value)}.")
    return "" if value is None else f"{value:g}" if isinstance(value, float) else cell(value)


def machine(described: Any) -> str:
    if isinstance(described, str):
        return escape(described)
    check_fields("results/run.json: 'machine'", described, {"cpu": "a text", "cores": "a number"})
    names = [described["cpu"], f"{described['cores']} cores", described.get("gpu")]
    return ", ".join(escape(str(name)) for name in names if name)


def source_values(source: Any, name: str) -> dict[str, str]:
    """The published files that were converted, and their checksums."""
    check_fields("results/source.json", source, {"files": "an object"})
    for file, sums in source["files"].items():
        check_fields(f"results/source.json: {brief(file)}", sums, {"bytes": "a number", "sha256": "a text"})
    rows = [
        [escape(file), number(sums["bytes"]), code(sums["sha256"])] for file, sums in source["files"].items()
    ]
    return {
        "table": markdown_table(["file", "bytes", "sha256"], rows),
        "command": shlex.join(["elmo-hf", "convert", *map(line, source["files"]), f"{name}/"]),
    }


def record_sources(files: Iterable[str | Path], results: str | Path) -> Path:
    """Write `results/source.json`: the checksums of a published original.

    Args:
        files: the files that were converted.
        results: the folder to write into.

    Returns:
        The file that was written.

    Raises:
        ElmoError: a file is not there.
    """
    paths = [Path(file) for file in files]
    for path in paths:
        if not path.is_file():
            raise ElmoError(f"there is no file {path} among the sources.")
    output = Path(results) / "source.json"
    sums = {path.name: checksum(path) for path in paths}
    write_json(output, {"files": sums})
    return output
