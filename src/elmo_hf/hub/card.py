"""Model cards, made of what commands have found.

    elmo-hf card my-elmo/                  # facts.yaml and results/*.json beside the checkpoint -> README.md
    write_card("my-elmo")

A card's numbers are those of the checkpoint's config and of JSON files in `results/`, which commands wrote.
Words that no command can know are in `facts.yaml`: what the model is, its languages, data, licence, limits
and authors. A card that lacks something is not written: the error names what is missing. The templates, in
hub/templates/, are base (a pretrained ELMo), task (one with a task's head), converted (a published one).
"""

import functools
import re
from pathlib import Path
from typing import Any

import jinja2
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from elmo_hf.hub.facts import HOLE, find_model, read_facts
from elmo_hf.hub.results import (
    THIS_MODEL,
    PerplexityRow,
    Results,
    cell,
    command_of,
    evaluation_rows,
    evaluation_table,
    is_number,
    markdown,
    number,
    perplexity_rows,
    perplexity_table,
    probe_findings,
    probe_table,
    read_results,
    remarks,
    table,
    text_name,
)

TEMPLATES = Path(__file__).parent / "templates"
MARK = "Written by `elmo-hf card` from facts.yaml and results/; change those, not this."
# Results that are any table, by the title of their part of the card and the heading of their rows.
PARTS = {
    "shapes": ("Other shapes, in equal time", "shape"),
    "probes": ("What the layers know", "probe"),
    "domain": ("Going on with other text: perplexity, mean of both directions", "domain"),
}
# What the paper has to compare with.
PAPER = {"domain": "The paper's factors are between 1.7 and 4.3 (its Table 7)."}
# What stands beside a result, by the end of its name, and what it shows.
PICTURES = {
    "log": "Loss, perplexity and speed in training",
    "probes-layers": "How alike the layers are",
    "probes-map": "One word's occurrences by their senses",
}
PIPELINES = {
    "AutoModelForTokenClassification": "token-classification",
    "AutoModelForSequenceClassification": "text-classification",
    "AutoModelForQuestionAnswering": "question-answering",
}
EXAMPLES = {
    "token-classification": '"Wolfgang lives in Berlin."',
    "text-classification": '"A film that nobody will forget."',
    "question-answering": 'question="Where does he live?", context="He lives in Berlin."',
}
RECIPE = {
    "data": "text",
    "start": "begun from",
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


# ---- the whole


def write_card(
    folder: str | Path,
    facts: str | Path | None = None,
    results: str | Path | None = None,
    output: str | Path | None = None,
    repo: str | None = None,
) -> Path:
    """Renders the card of a folder, and returns where it was written: README.md in it, if nothing is said."""
    output = Path(output) if output is not None else Path(folder) / "README.md"
    content = render_card(folder, facts, results, repo)
    if not output.parent.is_dir():
        raise ValueError(f"there is no folder {output.parent} to write {output.name} into.")
    if output.exists() and MARK not in output.read_text(encoding="utf-8", errors="replace"):
        raise ValueError(f"{output} was not written by this command; move it away, or name another --output.")
    unfinished = output.with_name(f".{output.name}.unfinished")
    unfinished.write_text(content, encoding="utf-8")
    unfinished.replace(output)
    return output


def render_card(
    folder: str | Path,
    facts: str | Path | None = None,
    results: str | Path | None = None,
    repo: str | None = None,
) -> str:
    """The card as Markdown. `repo` is its name on the Hub, in place of that in the facts."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; name that of a checkpoint or of a card.")
    facts_file = Path(facts) if facts is not None else folder / "facts.yaml"
    results_folder = Path(results) if results is not None else folder / "results"
    if results is not None and not results_folder.is_dir():
        raise ValueError(f"there is no folder {results_folder} of results.")
    words = read_facts(facts_file)
    found = read_results(results_folder)
    values = words | {"repo": repo or words.get("repo", words["name"]), "mark": MARK, "run": found.get("run")}
    values |= model_values(find_model(folder, found), words["kind"])
    values |= result_values(found, words, facts_file)
    values["pictures"] = pictures(results_folder)
    values["metadata"] = metadata(values, found)
    content = fill(f"{words['kind']}.md", {k: v for k, v in values.items() if v is not None}, facts_file)
    check_card(content, str(folder))
    return content


@functools.cache
def environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )


def fill(template: str, values: dict[str, Any], facts: Path) -> str:
    try:
        text = environment().get_template(template).render(values)
    except jinja2.UndefinedError as error:
        names = re.findall(r"'(\w+)' is undefined|no attribute '(\w+)'", str(error))
        name = "".join(names[-1]) if names else str(error)
        raise ValueError(f"the card lacks {what_is_missing(name, facts)}.") from None
    return re.sub(r"\n{3,}", "\n\n", text).rstrip("\n") + "\n"


def what_is_missing(name: str, facts: Path) -> str:
    """A hole's name, and where it is filled."""
    places = {
        "run": "results/run.json, which `python -m elmo_hf.pretraining.summary RUN` writes",
        "perplexity_table": "results/perplexity.json, which `elmo-hf perplexity ... --json` writes",
        "evaluation_table": "results/evaluation.json, which the evaluation of the task writes",
        "source_table": "results/source.json, which `elmo-hf card FOLDER --source FILE ...` writes",
        "auto_class": "usage: its config.json names no auto class; save the model with save_pretrained",
    }
    places |= {"words": places["run"], "recipe_table": places["run"], "machine": places["run"]}
    return places.get(name, f"'{name}'; say it in {facts}")


def check_card(content: str, name: str) -> ModelCard:
    """What huggingface_hub reads in it; refuses a card with holes."""
    hole = HOLE.search(content)
    if hole:
        raise ValueError(f"the card of {name} has a hole: {hole[0]!r}; fill it first.")
    if not content.startswith("---\n"):
        raise ValueError(f"the card of {name} lacks the block of metadata between two lines of ---.")
    try:
        card = ModelCard(content)
    except (ValueError, TypeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"the card of {name} has metadata that cannot be read: {reason}.") from None
    if not card.data.get("license"):
        raise ValueError(f"the card of {name} lacks 'license' in its metadata.")
    return card


# ---- what the templates fill in


def model_values(model: dict[str, Any], kind: str) -> dict[str, Any]:
    """Of the checkpoint: its shape as a table, and how it is loaded."""
    config = model["config"]
    tasks = [name for name in config.get("auto_map", {}) if name.startswith("AutoModelFor")]
    auto_class = next((name for name in tasks if name != "AutoModelForPreTraining"), None)
    if kind == "task" and auto_class is None:
        raise ValueError(
            "facts.yaml says kind: task, but the model's config.json names no class with a head."
        )
    own = (config.get("architectures") or [""])[0].removeprefix("Elmo")  # semantic roles have no pipeline
    tag = PIPELINES.get(auto_class or "") if kind == "task" and auto_class == f"AutoModel{own}" else None
    labels = config.get("id2label") or {}
    return {
        "config": config | {"hidden_size": model["hidden_size"]},
        "model_table": model_table(model),
        "has_softmax": bool(model["softmax_parameters"]),
        "auto_class": auto_class,
        "pipeline_tag": tag or False,
        "labels": [labels[key] for key in sorted(labels, key=int)] if kind == "task" else [],
        "example": EXAMPLES.get(tag or ""),
    }


def model_table(model: dict[str, Any]) -> str:
    config = model["config"]
    rows = {
        "biLSTM layers": config["num_hidden_layers"],
        "LSTM cells, a direction": config["lstm_dim"],
        "size of a vector, both directions": model["hidden_size"],
        "words are read": "letter by letter" if config["token_encoder"] == "characters" else "from a table",
        "words the language model knows": config["vocab_size"] if model["softmax_parameters"] else None,
        "parameters": model["parameters"],
        "of them in the softmax": model["softmax_parameters"] or None,
    }
    if config["token_encoder"] == "characters":
        filters = ", ".join(f"{count} of width {width}" for width, count in config["char_filters"])
        rows |= {"filters over letters": filters, "highway layers": config["num_highway_layers"]}
    return markdown(["", ""], [[name, cell(value)] for name, value in rows.items() if value is not None])


def result_values(results: Results, words: dict[str, Any], facts: Path) -> dict[str, Any]:
    """Of the results: tables, and the commands that give them."""
    rows, evaluations = perplexity_rows(results), evaluation_rows(results)
    values: dict[str, Any] = {
        "other_results": [
            {
                "name": name,
                "title": title,
                "table": probe_table(results[name]) if name == "probes" else table(results[name], first),
                "words": words_of(name, results[name]),
            }
            for name, (title, first) in PARTS.items()
            if name in results
        ],
        "commands_of_results": commands_of(results, words.get("commands", {}), facts),
        "files_of_results": [f"[{name}.json](results/{name}.json)" for name in results],
        "perplexity_table": perplexity_table(rows) if any(row.model == THIS_MODEL for row in rows) else None,
        "evaluation_table": evaluation_table(evaluations) if evaluations else None,
    }
    if words["kind"] == "converted":
        values["perplexity_table"] = values["perplexity_table"] or ""  # it may have no softmax
        values |= source_values(results.get("source"))
    return values | run_values(results["run"]) if "run" in results else values


def words_of(name: str, content: Any) -> str:
    if name == "probes":
        return probe_findings(content)
    return " ".join(filter(None, [remarks(content), PAPER.get(name)]))


def pictures(results: Path) -> dict[str, str]:
    """Lines that show what is there, by the name of their result."""
    lines: dict[str, list[str]] = {name: [] for name in ("log", *PARTS)}
    for name, shows in PICTURES.items():
        if (results / f"{name}.png").is_file():
            lines[name.partition("-")[0]].append(f"![{shows}](results/{name}.png)")
    if (results / "probes.md").is_file():
        lines["probes"].append(
            "[probes.md](results/probes.md) has the nearest neighbours of words in their context, too."
        )
    return {name: "\n\n".join(found) for name, found in lines.items()}


def commands_of(results: Results, known: dict[str, str], facts: Path) -> str:
    """A number stands beside its command: that of its JSON, or that of the facts."""
    found = []
    for name in sorted(results, key=place_on_card):
        content = results[name]
        command = command_of(content) or known.get(name) or known.get(name.partition("-")[0])
        if name not in ("run", "source"):
            if command is None:
                raise ValueError(
                    f"results/{name}.json has no command; say it there, or in {facts} under commands."
                )
            found.append(command)
    return "\n".join(dict.fromkeys(found))


def place_on_card(name: str) -> tuple[int, str]:
    order = ["perplexity", "kneser_ney", "evaluation", *PARTS]
    kind = name.partition("-")[0]
    return order.index(kind) if kind in order else len(order), name


def run_values(run: Any) -> dict[str, Any]:
    """Of the pretraining run that training/summarize_run.py has summed up."""
    needed = ("command", "settings", "machine", "steps", "words", "epochs", "hours", "words_per_second")
    for name in (*needed, "resumed", "finished"):
        if not isinstance(run, dict) or run.get(name) is None:
            raise ValueError(
                f"results/run.json lacks '{name}'; `python -m elmo_hf.pretraining.summary` writes it."
            )
    settings = run["settings"]
    recipe = [
        [label, setting(settings[name])] for name, label in RECIPE.items() if settings.get(name) is not None
    ]
    heldout = [
        PerplexityRow(text_name(text), "", entry["best"]) for text, entry in run.get("heldout", {}).items()
    ]
    return {
        "recipe_table": markdown(["", ""], recipe),
        "heldout_table": perplexity_table(heldout, with_model=False) if heldout else "",
        "machine": machine(run["machine"]),
        "words": {
            "read": number(run["words"]),
            "steps": number(run["steps"]),
            "epochs": number(run["epochs"]),
            "hours": number(run["hours"]),
            "per_second": number(run["words_per_second"]),
        },
    }


def setting(value: Any) -> str:
    """As it was typed."""
    return f"{value:g}" if isinstance(value, float) else cell(value)


def machine(found: str | dict[str, Any]) -> str:
    if isinstance(found, str):
        return found
    parts = [found["cpu"], f"{found['cores']} cores"]
    return ", ".join([*parts, found["gpu"]] if found.get("gpu") else parts)


def source_values(source: dict[str, Any] | None) -> dict[str, Any]:
    """The published files that were converted, and their checksums."""
    if source is None:
        return {}  # a hole, which the template names
    files = source.get("files")
    if not isinstance(files, dict) or not all(is_checksum(one) for one in files.values()):
        raise ValueError("results/source.json lacks the files' checksums; write it again by --source.")
    rows = [[name, number(one["bytes"]), f"`{one['sha256']}`"] for name, one in files.items()]
    return {"source_table": markdown(["file", "bytes", "sha256"], rows), "source_files": list(files)}


def is_checksum(found: Any) -> bool:
    return isinstance(found, dict) and is_number(found.get("bytes")) and isinstance(found.get("sha256"), str)


def metadata(values: dict[str, Any], results: Results) -> str:
    """The YAML block that the Hub reads, with every perplexity and every figure of a task."""
    found = eval_results(values, results)
    tag = values["pipeline_tag"] or ("feature-extraction" if values["kind"] != "task" else None)
    data = ModelCardData(
        language=values["languages"],
        license=values["licence"],
        license_name=values.get("licence_name"),
        license_link=values.get("licence_link"),
        library_name="transformers",
        pipeline_tag=tag,
        tags=["elmo", "bilm", *values.get("tags", [])],
        datasets=values.get("datasets"),
        base_model=values.get("base_model"),
        metrics=list(dict.fromkeys(one.metric_type for one in found)) or None,
        model_name=values["name"],
        eval_results=found or None,
    )
    return data.to_yaml()


def eval_results(values: dict[str, Any], results: Results) -> list[EvalResult]:
    found = [
        EvalResult(
            task_type="language-modeling",
            task_name="Language modelling, forward and backward",
            dataset_type=slug(row.text),
            dataset_name=row.text,
            metric_type="perplexity",
            metric_name=f"perplexity, {direction}, {row.found.get('states', 'unknown')} states, full softmax",
            metric_value=round(row.found[direction], 3),
        )
        for row in perplexity_rows(results)
        if row.model == THIS_MODEL
        for direction in ("mean", "forward", "backward")
    ]
    return found + [
        EvalResult(
            task_type=values["pipeline_tag"] or slug(str(values["auto_class"])),
            dataset_type=slug(row.data),
            dataset_name=row.data,
            dataset_split=row.split,
            metric_type=slug(row.metric),
            metric_name=row.metric,
            metric_value=row.value,
        )
        for row in evaluation_rows(results)
    ]


def slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "text"
