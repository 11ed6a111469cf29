"""Model cards, made of `facts.yaml` and of the JSON files that commands wrote into `results/`.

    elmo-hf card my-elmo/                  # facts.yaml and results/*.json beside the checkpoint -> README.md
    write_card("my-elmo")

`facts.yaml` has what no command knows: what the model is, its languages, data, licence, limits and authors.
All numbers are those of the checkpoint's config and of the results (results.py describes their form). A card
with missing fields is refused: the error names them and says how to give them.
"""

import ast
import json
import os
import re
import shlex
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from elmo_hf.errors import ElmoError, reason_of
from elmo_hf.files import whole_file
from elmo_hf.hub import benchmarks
from elmo_hf.hub import markdown as md
from elmo_hf.hub.earlier import command_of, results_of
from elmo_hf.hub.metadata import metadata
from elmo_hf.hub.reading import a_text, brief, check, parse_yaml, read_text
from elmo_hf.hub.results import (
    COLUMNS,
    MODEL,
    THIS_MODEL,
    Result,
    files_of_results,
    read_results,
    run_values,
    source_values,
)
from elmo_hf.hub.signature import MARK, is_signed, is_unedited, sign
from elmo_hf.loading import FAULTS, config_of, describe_model
from elmo_hf.model.configuration_elmo import ElmoConfig

TEMPLATE = Path(__file__).parent / "templates" / "card.md"
PLACEHOLDER = re.compile(r"\b(TODO|FIXME|TBD|XXX)\b|\[?More Information Needed\]?|\{\{ [\w.]+ \}\}")
# The order of results on a card, by the name of their file; others follow.
ORDER = ["perplexity", "kneser_ney", "evaluation", "shapes", "probes", "domain"]
# Files that a card shows with a result.
FILES = {
    "log": {"log.png": "![Loss, perplexity and speed in training]({})"},
    "probes": {
        "probes-layers.png": "![How alike the layers are]({})",
        "probes-map.png": "![One word's occurrences by their senses]({})",
        "probes.md": "[probes.md]({}) has the nearest neighbours of words in their context, too.",
    },
}
# The pipeline of an Auto class, and what it is called with.
PIPELINES = {
    "AutoModelForTokenClassification": ("token-classification", '"Wolfgang lives in Berlin."'),
    "AutoModelForSequenceClassification": ("text-classification", '"A film that nobody will forget."'),
    "AutoModelForQuestionAnswering": (
        "question-answering",
        'question="Where does he live?", context="He lives in Berlin."',
    ),
}
PAIR = '{"text": "A dog runs.", "text_pair": "An animal moves."}'  # which a classifier of pairs reads
# What each kind of card needs, and how to give it; a fact is given in facts.yaml.
COMPLETE = {
    "base": {
        "results/run.json": "which `python -m elmo_hf.pretraining.summary RUN` writes",
        "results/perplexity.json": "which `elmo-hf perplexity ... --json` writes",
    },
    "task": {"base_model": "", "results/evaluation.json": "which the evaluation of the task writes"},
    "converted": {
        "source": "",
        "results/source.json": "which `elmo-hf card FOLDER --source FILE ...` writes",
    },
}
MAX_LABELS = 200  # that a card lists
SAME_MODEL = ["lstm_dim", "projection_dim", "num_hidden_layers", "char_filters", "num_highway_layers"]


# ---- the card


@dataclass(frozen=True)
class Card:
    """What is generated of facts and results.

    Args:
        readme: the card as Markdown.
        benchmarks: by path in the repository, files of results on benchmarks of the Hub.
    """

    readme: str
    benchmarks: dict[str, str]


def write_card(
    folder: str | Path,
    facts: str | Path | None = None,
    results: str | Path | None = None,
    output: str | Path | None = None,
    repo: str | None = None,
) -> Path:
    """Write the model card of a checkpoint, and beside it `.eval_results` if its facts name benchmarks.

    >>> write_card("my-tagger").name  # from my-tagger/facts.yaml and the files in my-tagger/results
    'README.md'

    Args:
        folder: the checkpoint's folder, or one with only `facts.yaml` and a `results/run.json`.
        facts: what no command knows; `facts.yaml` in the folder by default.
        results: the folder of the JSON files that commands wrote; `results` in the folder by default.
        output: the file to write; `README.md` in the folder by default.
        repo: the model's name on the Hub, in place of that in the facts.

    Returns:
        The card's file.

    Raises:
        ElmoError: a field is missing or wrong, or a file is there that this function did not write, or that
            was edited since.
    """
    return write_files(folder, facts, results, output, repo)[0]


def write_files(
    folder: str | Path,
    facts: str | Path | None = None,
    results: str | Path | None = None,
    output: str | Path | None = None,
    repo: str | None = None,
) -> list[Path]:
    """`write_card`, for the paths of all files that were written, the card's first."""
    output = Path(output) if output is not None else Path(folder) / "README.md"
    card = render(folder, facts, results, repo)
    if not output.parent.is_dir():
        raise ElmoError(f"there is no folder {output.parent} to write {output.name} into.")
    written = {output: card.readme}
    written |= {output.parent / name: content for name, content in card.benchmarks.items()}
    earlier = files_of_results(output.parent / benchmarks.FOLDER, (".yaml",))
    for path in written:
        check_replaceable(path)
    for path, content in written.items():
        path.parent.mkdir(exist_ok=True)
        with whole_file(path) as partial:
            partial.write_text(content, encoding="utf-8")
    for path in earlier:  # of a benchmark that the facts no longer name
        if path not in written and is_unedited(read_text(path)):
            path.unlink()
    return list(written)


def check_replaceable(path: Path) -> None:
    """Refuse to replace what somebody else wrote, and an edited card. Cards of 0.1.0 do not tell an edit."""
    if not os.path.lexists(path):
        return
    text = read_text(path)
    if MARK not in text:
        raise ElmoError(f"{path} was not written by this command; move it away, or name another --output.")
    if is_signed(text) and not is_unedited(text):
        raise ElmoError(
            f"{path} was edited after this command wrote it; say it in facts.yaml, and remove the file."
        )


def render_card(
    folder: str | Path,
    facts: str | Path | None = None,
    results: str | Path | None = None,
    repo: str | None = None,
) -> str:
    """The card as Markdown; arguments as of `write_card`."""
    return render(folder, facts, results, repo).readme


def render(
    folder: str | Path,
    facts: str | Path | None = None,
    results: str | Path | None = None,
    repo: str | None = None,
) -> Card:
    """The card, and results on benchmarks; arguments as of `write_card`."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ElmoError(f"there is no folder {folder}; name that of a checkpoint or of a card.")
    facts_file = Path(facts) if facts is not None else folder / "facts.yaml"
    results_folder = Path(results) if results is not None else folder / "results"
    if results is not None and not results_folder.is_dir():
        raise ElmoError(f"there is no folder {results_folder} of results.")
    known, contents = read_facts(facts_file), read_results(results_folder)
    shown = {name: results_of(name, contents[name]) for name in sorted(contents, key=place_on_card)}
    model = model_values(find_model(folder, contents.get("run")), known)
    check_complete(known, shown, contents, facts_file)
    repo = md.line(repo) if repo else known.get("repo", known["name"])
    values = {
        "facts": known,
        "repo": repo,
        **model,
        **result_values(shown, results_folder),
        **content_values(contents, known, facts_file),
    }
    scores = rows_of_this_model("perplexity", shown), rows_of("evaluation", shown)
    data = metadata(known, *scores, model["pipeline"], model["auto_class"])
    dates = {name: content.get("date") for name, content in contents.items() if isinstance(content, dict)}
    files = benchmarks.render_benchmarks(known.get("benchmarks", {}), shown, dates, repo)
    return Card(render_template(data, values, folder), files)


def render_template(data: ModelCardData, values: dict[str, Any], folder: Path) -> str:
    repo = values["repo"]
    names = {"repo_in_python": json.dumps(repo, ensure_ascii=False), "repo_in_shell": shlex.quote(repo)}
    card = ModelCard.from_template(data, template_path=str(TEMPLATE), mark=MARK, md=md, **names, **values)
    content = re.sub(r"\n{3,}", "\n\n", card.content).rstrip("\n") + "\n"
    check_card(content, str(folder))
    return sign(content)


def content_values(contents: dict[str, Any], facts: dict[str, Any], facts_file: Path) -> dict[str, Any]:
    """What a card shows of files of results besides the results."""
    return {
        "run": run_values(contents["run"]) if "run" in contents else None,
        "source": source_values(contents["source"], facts["name"]) if "source" in contents else None,
        "result_commands": commands_of(contents, facts.get("commands", {}), facts_file),
        "result_files": [f"[{md.escape(name)}.json](results/{quote(name)}.json)" for name in contents],
    }


def place_on_card(name: str) -> tuple[int, str]:
    kind = name.partition("-")[0]
    return ORDER.index(kind) if kind in ORDER else len(ORDER), name


def check_complete(facts: dict[str, Any], shown: dict[str, list[Result]], contents: Any, path: Path) -> None:
    """Refuse a card that lacks a fact or a result which its kind needs."""
    given = set(facts)
    given |= {f"results/{name}.json" for name in ("run", "source") if name in contents}
    given |= {f"results/{kind}.json" for kind in COLUMNS if rows_of_this_model(kind, shown)}
    for name, how in COMPLETE[facts["kind"]].items():
        if name not in given:
            raise ElmoError(
                f"the card lacks {name}, {how}." if how else f"the card lacks '{name}'; say it in {path}."
            )


def check_card(content: str, name: str) -> ModelCard:
    """Parse a card's metadata; refuse a card with missing fields or placeholders."""
    placeholder = PLACEHOLDER.search(content)
    if placeholder:
        raise ElmoError(f"the card of {name} has a placeholder, {placeholder[0]!r}; replace it.")
    block = REGEX_YAML_BLOCK.search(content)
    if not content.startswith("---\n") or block is None:
        raise ElmoError(f"the card of {name} lacks the block of metadata between two lines of ---.")
    parse_yaml(f"the card of {name}", block[2])  # before the library does, without limits
    try:
        card = ModelCard(content)
    except (ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ElmoError(f"the card of {name} has metadata that cannot be read: {reason}.") from None
    if not card.data.get("license"):
        raise ElmoError(f"the card of {name} lacks 'license' in its metadata.")
    return card


# ---- facts


def fact(form: Callable[[str], str]) -> Callable[[Any], str]:
    """The form of a text: plain text or Markdown that `form` makes of it."""

    def read(value: Any) -> str:
        placeholder = PLACEHOLDER.search(a_text(value))
        if placeholder:
            raise ElmoError(f"must have no placeholder such as {placeholder[0]!r}")
        return form(value)

    return read


def kind(value: Any) -> str:
    if value not in tuple(COMPLETE):
        raise ElmoError(f"must be {', '.join(COMPLETE)}")
    return str(value)


def python_arguments(text: str) -> str:
    """Texts and numbers as Python passes them to a function, and nothing that it would run."""
    with suppress(SyntaxError, ValueError, RecursionError, MemoryError):
        call: Any = ast.parse(f"call({md.line(text)})", mode="eval").body
        values = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg)]
        if len(values) == len(call.args) + len(call.keywords) and all(
            type(value) is ast.Constant for value in values
        ):
            return ast.unparse(call)[len("call(") : -1]
    raise ElmoError("must be texts or numbers as in a call of a Python function")


LINE, PLAIN, INLINE, BLOCKS, CODE = map(fact, (md.line, md.escape, md.inline, md.blocks, md.verbatim))
BENCHMARK = {
    "id": fact(benchmarks.dataset_id),
    "task_id": fact(benchmarks.identifier),
    "metric?": LINE,
    "split?": LINE,
    "revision?": fact(benchmarks.revision),
    "date?": fact(benchmarks.date),
    "source?": {
        "url": fact(md.link),
        "name?": LINE,
        "user?": fact(benchmarks.identifier),
        "org?": fact(benchmarks.identifier),
    },
    "notes?": LINE,
}
FACTS: dict[str, Any] = {
    "kind": kind,
    "name": LINE,
    "repo?": LINE,
    "title": PLAIN,
    "summary": BLOCKS,
    "languages": [LINE],
    "licence": LINE,
    "licence_name?": LINE,
    "licence_link?": LINE,
    "licence_note": BLOCKS,
    "data": [{"name": PLAIN, "licence": PLAIN, "description": INLINE, "url?": fact(md.link)}],
    "limits": [INLINE],
    "authors": [PLAIN],
    "base_model?": LINE,
    "source?": {"title": PLAIN, "url": fact(md.link), "authors": [PLAIN], "licence": PLAIN},
    "example?": fact(python_arguments),
    "training_note?": BLOCKS,
    "usage?": BLOCKS,
    "reproduce?": BLOCKS,
    "citation?": CODE,
    "tags?": [LINE],
    "datasets?": [LINE],
    "commands?": {"": CODE},  # by the name of a result
    "benchmarks?": {"": BENCHMARK},  # by the name of a data set in the results
}


def read_facts(path: Path) -> dict[str, Any]:
    """The facts of a file, each in its form of `FACTS`."""
    if not os.path.lexists(path):
        raise ElmoError(
            f"there is no {path}; a card needs a title, languages, data, a licence, limits, authors."
        )
    facts: dict[str, Any] = check(str(path), parse_yaml(str(path), read_text(path)), FACTS)
    return facts


# ---- the model


def find_model(folder: Path, run: Any) -> dict[str, Any]:
    """The description of a checkpoint; in a folder with only a card, that of the run that made it."""
    made: dict[str, Any] | None = run.get("model") if isinstance(run, dict) else None
    if made is not None:
        check("results/run.json: 'model'", made, MODEL)
    if not (folder / "config.json").is_file():
        if made is None:
            raise ElmoError(f"{folder} has no config.json, and no results/run.json tells what the model is.")
        return made | {"config": read_config(made["config"])}
    model = describe_model(folder)
    for name in SAME_MODEL:
        of_folder, of_run = model["config"].get(name), (made or model)["config"].get(name)
        if made is not None and name in made["config"] and of_run != of_folder:
            raise ElmoError(
                f"results/run.json is of a model with {name} {brief(of_run)}, but {folder} has {of_folder}; "
                "they must be of one model."
            )
    return model | {"config": read_config(model["config"])}


def read_config(settings: dict[str, Any]) -> ElmoConfig:
    try:
        return config_of(settings)
    except FAULTS as error:
        raise ElmoError(f"results/run.json has no config of an ELMo: {reason_of(error)}.") from None


def model_values(model: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """How the model is loaded, and its sizes as a table."""
    config, is_task = model["config"], facts["kind"] == "task"
    auto_class = head_class(config)
    if is_task and (auto_class is None or not auto_class.isidentifier()):
        raise ElmoError(
            "facts.yaml says kind: task, but the model's config.json names no class with a head; save the "
            "model with save_pretrained."
        )
    architecture = (config.architectures or [""])[0].removeprefix("Elmo")
    # A pipeline reads the plain heads only: semantic roles need a predicate.
    has_pipeline = is_task and auto_class == f"AutoModel{architecture}"
    pipeline, example = PIPELINES.get(auto_class or "", (None, "")) if has_pipeline else (None, "")
    if pipeline == "text-classification" and config.classifier == "esim":
        example = PAIR
    return {
        "auto_class": auto_class,
        "pipeline": pipeline,
        "example": facts.get("example", example),
        "labels": labels(config) if is_task else [],
        "hidden_size": config.hidden_size,
        "has_softmax": bool(model["softmax_parameters"]),
        "model_table": model_table(config, model["parameters"], model["softmax_parameters"]),
    }


def head_class(config: ElmoConfig) -> str | None:
    """The Auto class that loads a model with its head; for coreference there is none but AutoModel."""
    classes = getattr(config, "auto_map", None) or {}
    for name in classes:
        if name.startswith("AutoModelFor") and name != "AutoModelForPreTraining":
            return name
    has_head = str(classes.get("AutoModel", "")).endswith(".ElmoForCoreferenceResolution")
    return "AutoModel" if has_head else None


def labels(config: ElmoConfig) -> list[str]:
    names = [md.code(str(name)) for _, name in sorted((config.id2label or {}).items())]
    return (
        names if len(names) <= MAX_LABELS else [*names[:MAX_LABELS], f"and {len(names) - MAX_LABELS:,} more"]
    )


def model_table(config: ElmoConfig, parameters: int, softmax_parameters: int) -> str:
    reads_characters = config.token_encoder == "characters"
    rows = {
        "biLSTM layers": config.num_hidden_layers,
        "LSTM cells, a direction": config.lstm_dim,
        "size of a vector, both directions": config.hidden_size,
        "words are read": "character by character" if reads_characters else "from a table",
        "words of the language model's vocabulary": config.vocab_size if softmax_parameters else None,
        "parameters": parameters,
        "of them in the softmax": softmax_parameters or None,
    }
    if reads_characters:
        filters = ", ".join(f"{count} of width {width}" for width, count in config.char_filters or [])
        rows |= {"filters over characters": filters, "highway layers": config.num_highway_layers}
    return md.markdown_table(
        ["", ""], [[name, md.cell(value)] for name, value in rows.items() if value is not None]
    )


# ---- results


def rows_of(kind: str, shown: dict[str, list[Result]]) -> list[dict[str, Any]]:
    """The rows of all results of a kind; those of one text stand together, this model's first."""
    rows = [
        row for results in shown.values() for result in results if result.kind == kind for row in result.rows
    ]
    if kind != "perplexity":
        return rows
    rows = sorted(({"model": THIS_MODEL} | row for row in rows), key=lambda row: row["model"] != THIS_MODEL)
    texts = list(dict.fromkeys(row["text"] for row in rows))
    return sorted(rows, key=lambda row: texts.index(row["text"]))


def rows_of_this_model(kind: str, shown: dict[str, list[Result]]) -> list[dict[str, Any]]:
    return [row for row in rows_of(kind, shown) if row.get("model", THIS_MODEL) == THIS_MODEL]


def result_values(shown: dict[str, list[Result]], folder: Path) -> dict[str, Any]:
    """The tables of results, and what else a card shows of their folder."""
    tables = {
        f"{kind}_table": md.table(rows_of(kind, shown), columns) if rows_of_this_model(kind, shown) else ""
        for kind, columns in COLUMNS.items()
    }
    sections = "\n\n".join(section(name, results, folder) for name, results in shown.items())
    return tables | {"sections": sections, "training_pictures": files_of("log", folder)}


def section(name: str, results: list[Result], folder: Path) -> str:
    """The tables of a file, below its title."""
    tables = [result for result in results if result.kind == "table"]
    texts = []
    for count, result in enumerate(tables):
        title = result.title or ("" if count else name)
        texts += [f"### {md.escape(title)}" if title else "", md.table(result.rows), md.escape(result.note)]
    return "\n\n".join(filter(None, [*texts, files_of(name, folder) if tables else ""]))


def files_of(name: str, folder: Path) -> str:
    files = {file: text for file, text in FILES.get(name, {}).items() if (folder / file).is_file()}
    return "\n\n".join(text.format(f"results/{file}") for file, text in files.items())


def commands_of(contents: dict[str, Any], commands: dict[str, str], facts: Path) -> str:
    """How to get the numbers again: the command in each JSON file, or in the facts."""
    lines = []
    for name in sorted(contents, key=place_on_card):
        command = command_of(contents[name]) or commands.get(name) or commands.get(name.partition("-")[0])
        if command is None and name not in ("run", "source"):
            raise ElmoError(
                f"results/{name}.json has no command; say it there, or in {facts} under commands."
            )
        lines += [command] if command and name not in ("run", "source") else []
    return "\n".join(dict.fromkeys(lines))
