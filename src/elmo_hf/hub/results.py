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

import re
import shlex
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from elmo_hf.errors import ElmoError
from elmo_hf.files import checksum, write_json
from elmo_hf.hub.markdown import cell, code, escape, line, markdown_table, number, table
from elmo_hf.hub.reading import (
    a_cell,
    a_checksum,
    a_number,
    a_positive_number,
    a_text,
    an_object,
    anything,
    brief,
    check,
    is_text,
    plain_file,
    read_json,
    true_or_false,
)

SCHEMA = 1
MAX_FILES = 100
NAME = re.compile(r"\w[\w .,+=()&'@-]*")  # of a file of results
THIS_MODEL = "this model"
Row = dict[str, Any]

# The form of a row of a kind, and the columns of its table; a `table` has the columns of its rows.
PERPLEXITIES = dict.fromkeys(["forward", "backward", "mean"], a_positive_number)
ROWS: dict[str, dict[str, Any]] = {
    "perplexity": {"text": a_text, **PERPLEXITIES, "model?": a_text, "states?": a_text, "": a_cell},
    "evaluation": {"dataset": a_text, "metric": a_text, "value": a_number, "split?": a_text, "": a_cell},
    "table": {"": a_cell},
}
FIGURES = ["states", "forward", "backward", "mean", "arithmetic_mean", "tokens", "unknown"]
COLUMNS = {"perplexity": ["text", "model", *FIGURES], "evaluation": ["dataset", "split", "metric", "value"]}

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
        if not isinstance(self.kind, str) or self.kind not in ROWS:
            raise ElmoError(f"kind must be one of {', '.join(ROWS)}, but is {brief(self.kind)}.")
        check("rows", self.rows, [ROWS[self.kind]])
        for name in ("title", "note"):
            if getattr(self, name) != "":
                check(name, getattr(self, name), a_text)


RESULT_FIELDS = [field.name for field in fields(Result)]


def with_results(content: Row, *results: Result) -> Row:
    """The content of a file, and the results that a card shows of it."""
    entries = [{name: value for name, value in asdict(result).items() if value} for result in results]
    return content | {"schema": SCHEMA, "results": entries}


def results_in(content: Row, name: str) -> list[Result]:
    """The results in a file's content; `name` is the file's, without `.json`."""
    if content["schema"] != SCHEMA:
        raise ElmoError(f"this elmo_hf reads schema {SCHEMA}, not {brief(content['schema'])}.")
    results = []
    entries = content.get("results")
    for entry in check("'results'", entries, [an_object]) if entries != [] else []:
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
    contents = {path.stem: read_json(path) for path in files_of_results(Path(folder), (".json",))}
    for name, content in contents.items():
        if not isinstance(content, dict | list) or not content:
            raise ElmoError(f"{folder}/{name}.json holds no results; run the command that writes it again.")
    return contents


def files_of_results(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The files of a folder that are not hidden, all of them plain; none if there is no folder."""
    if folder.is_symlink():
        raise ElmoError(f"{folder} is a link, whose target may be elsewhere; copy the folder.")
    paths = sorted(path for path in folder.glob("*") if path.suffix in suffixes and path.name[0] != ".")
    if len(paths) > MAX_FILES:
        raise ElmoError(f"{folder} has {len(paths):,} files, too many for a model card.")
    for path in paths:
        if not NAME.fullmatch(path.name):
            raise ElmoError(
                f"{folder} has a file {path.name!a}; rename it to letters, digits and - . _ only."
            )
        plain_file(path)
    return paths


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
MODEL = {"config": an_object, "parameters": a_number, "softmax_parameters": a_number, "": anything}
RUN = {
    "command": a_text,
    "settings": {**{f"{name}?": a_cell for name in RECIPE}, "": anything},
    "machine": anything,
    **dict.fromkeys(["steps", "words", "epochs", "hours", "words_per_second", "resumed"], a_number),
    "finished": true_or_false,
    "heldout?": {"": {"best": {**PERPLEXITIES, "": a_cell}, "": anything}},
    "": anything,
}
MACHINE = {"cpu": a_text, "cores": a_number, "gpu?": a_text, "": anything}
SOURCE = {"files": {"": {"bytes": a_number, "sha256": a_checksum, "": anything}}, "": anything}


def run_values(run: Any) -> dict[str, Any]:
    """Of the summary of a pretraining run."""
    run = check("results/run.json", run, RUN)
    settings = {label: setting(run["settings"].get(name)) for name, label in RECIPE.items()}
    rows = [entry["best"] | {"text": text_name(text)} for text, entry in run.get("heldout", {}).items()]
    return {
        **{name: number(run[name]) for name in ("words", "steps", "hours", "words_per_second")},
        # 0: less than one reading, of a text whose size the run did not know.
        "epochs": number(run["epochs"]) if run["epochs"] else None,
        "recipe": markdown_table(["", ""], [[name, text] for name, text in settings.items() if text]),
        "heldout": table(rows, ["text", *FIGURES]) if rows else "",
        "machine": machine(run["machine"]),
        "resumed": run["resumed"],
        "finished": run["finished"],
        "command": run["command"],
    }


def setting(value: Any) -> str:
    """As it was typed."""
    return "" if value is None else f"{value:g}" if isinstance(value, float) else cell(value)


def machine(described: Any) -> str:
    if is_text(described):
        return escape(described)
    described = check("results/run.json: 'machine'", described, MACHINE)
    names = [described["cpu"], f"{described['cores']} cores", described.get("gpu")]
    return ", ".join(escape(name) for name in names if name)


def source_values(source: Any, name: str) -> dict[str, Any]:
    """The published files that were converted, and their checksums."""
    files = check("results/source.json", source, SOURCE)["files"]
    if not files:
        raise ElmoError(
            "results/source.json names no file; `elmo-hf card FOLDER --source FILE ...` writes it."
        )
    rows = [[escape(file), number(sums["bytes"]), code(sums["sha256"])] for file, sums in files.items()]
    return {
        "table": markdown_table(["file", "bytes", "sha256"], rows),
        "has_hdf5": any(file.endswith((".hdf5", ".h5")) for file in files),
        "command": shlex.join(["elmo-hf", "convert", *map(line, files), f"{name}/"]),
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
