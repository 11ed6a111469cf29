"""Results in the forms that the commands of elmo_hf 0.1.0 wrote, as results of today's form.

    results_of("kneser_ney", {"order": 5, "heldout": {"news.txt": {"forward": 71.0, ...}}})    # [Result(...)]

Such a file has no `schema`; its name tells what it is.
"""

import math
import re
from collections.abc import Callable
from typing import Any

from elmo_hf.errors import ElmoError
from elmo_hf.hub.markdown import number
from elmo_hf.hub.reading import is_number, is_text
from elmo_hf.hub.results import COLUMNS, Result, Row, perplexities, results_in

# Numbers among a task's scores that say how it was measured.
NOT_SCORES = re.compile(r"runtime|per_second|^epoch$|^seed$|samples")
PAPER_FACTORS = "The paper's factors are between 1.7 and 4.3 (its Table 7)."


def results_of(name: str, content: Any) -> list[Result]:
    """The results in a JSON file of any version; none in a file that a card only names.

    Args:
        name: the file's name without `.json`.
        content: what the file holds.
    """
    try:
        if isinstance(content, dict) and "schema" in content:
            return results_in(content, name)
        kind = name.partition("-")[0]
        translate = FORMS.get(kind if kind in COLUMNS else name, lambda *_: [])
        results = translate(name, content)
        for result in results:
            result.check()
        return results
    except ElmoError as error:
        raise ElmoError(f"results/{name}.json cannot be shown: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration):
        raise ElmoError(f"results/{name}.json is not as its command writes it; run that again.") from None


def command_of(content: Any) -> str | None:
    """The commands that a file names, one a line."""
    entries = content if isinstance(content, list) else [content]
    commands = [entry.get("command") for entry in entries if isinstance(entry, dict)]
    return "\n".join(dict.fromkeys(str(command) for command in commands if is_text(command))) or None


def perplexity(name: str, content: Any) -> list[Result]:
    """`elmo-hf perplexity --json`, in perplexity-TEXT.json."""
    return [perplexities({name.removeprefix("perplexity").removeprefix("-") or "held-out text": content})]


def kneser_ney(_: str, content: Any) -> list[Result]:
    """{"order": 5, "heldout": {TEXT: perplexity}}."""
    return [perplexities(content["heldout"], f"{content['order']:d}-gram, Kneser-Ney")]


def evaluation(name: str, content: Any) -> list[Result]:
    """A recipe's {"mean": {SPLIT: {METRIC: value}}}, Trainer's {"eval_METRIC": value}, or
    {"dataset": ..., "split": ..., "metrics": {METRIC: value}}; or a list of these."""
    if isinstance(content, list):
        return [result for entry in content for result in evaluation(name, entry)]
    dataset = content.get("dataset", name.removeprefix("evaluation").removeprefix("-") or "evaluation")
    metrics = content.get("metrics", content)
    splits = content["mean"] if isinstance(content.get("mean"), dict) else {content.get("split"): metrics}
    rows = [
        {"dataset": dataset, "split": split, "metric": re.sub(r"^(?:eval|test)_", "", metric), "value": value}
        for split, scores in splits.items()
        for metric, value in scores.items()
        if is_number(value) and not NOT_SCORES.search(metric)
    ]
    if not rows:
        raise ElmoError("it has no number.")
    return [Result("evaluation", rows)]


def shapes(_: str, content: Any) -> list[Result]:
    """{"minutes": 2.0, "rows": [{"name": ..., "settings": {...}, "perplexity": {...}, ...}]}."""
    minutes = content.get("minutes")
    note = f"Each was trained for {minutes:g} minutes." if is_number(minutes) else ""
    return [_table(content, "Other shapes, in equal time", note)]


def domain(_: str, content: Any) -> list[Result]:
    """{"rows": [{"domain": ..., "before": perplexity, "after": perplexity, "factor": ...}]}."""
    return [_table(content, "Going on with other text: perplexity, mean of both directions", PAPER_FACTORS)]


def _table(content: Any, title: str, note: str) -> Result:
    """Of a perplexity the mean of both directions is shown; settings are not."""
    rows: list[Row] = [
        {
            key: value["mean"] if isinstance(value, dict) else value
            for key, value in row.items()
            if key != "settings"
        }
        for row in content["rows"]
    ]
    if not any(is_number(value) for row in rows for value in row.values()):
        raise ElmoError("it has no number.")
    return Result("table", rows, title, " ".join(filter(None, [content.get("note"), note])))


def probes(_: str, content: Any) -> list[Result]:
    """{"probes": {"senses": {"f1": ...}, "tags": {"accuracy": ...}, ...}}."""
    return probe_results(content["probes"])


def probe_results(scores: dict[str, Any]) -> list[Result]:
    """F1 of word senses and accuracy of tags, for each layer; also what benchmarks.probing writes today."""
    tables = []
    if "senses" in scores:
        tables.append([{"word senses, F1": name} | row for name, row in scores["senses"]["f1"].items()])
    if "tags" in scores:
        tag_sets = scores["tags"]["accuracy"]
        names = next(iter(tag_sets.values()))
        tables.append(
            [
                {"tags, accuracy on test": name} | {key: rows[name]["test"] for key, rows in tag_sets.items()}
                for name in names
            ]
        )
    titles, notes = ["What the layers know", ""], ["", probe_findings(scores)][-len(tables) :]
    return [
        Result("table", rows, title, note) for rows, title, note in zip(tables, titles, notes, strict=False)
    ]


def probe_findings(scores: Any) -> str:
    """Sentences that compare the layers with those of the paper; none if a score is missing."""
    try:
        senses = {name: row["all"] for name, row in scores["senses"]["f1"].items()}
        tags = {name: row["test"] for name, row in scores["tags"]["accuracy"]["xpos"].items()}
        first_sense = senses["first sense"]
    except (KeyError, TypeError, AttributeError):
        return ""
    sense_layer, sense_score = _best_layer(senses, "trained, ")
    tag_layer, tag_score = _best_layer(tags, "trained, ")
    order = "" if sense_layer > tag_layer else "not "
    random = [number(_best_layer(known, "random weights, ")[1]) for known in (senses, tags)]
    return (
        f"Senses are known best by {sense_layer} ({number(sense_score)} over all sets), tags (XPOS) by "
        f"{tag_layer} ({number(tag_score)}): {order}senses above tags, as in the paper. The best layers of "
        f"random weights have {random[0]} and {random[1]}. Senses are "
        f"{'above' if sense_score > first_sense else 'below'} the inventory's first sense "
        f"({number(first_sense)}), which the paper's were above."
    )


def _best_layer(scores: dict[str, float], weights: str) -> tuple[str, float]:
    layers = {name.removeprefix(weights): score for name, score in scores.items() if name.startswith(weights)}
    return max(layers.items(), key=lambda layer: layer[1], default=("no layer", math.nan))


FORMS: dict[str, Callable[[str, Any], list[Result]]] = {
    "perplexity": perplexity,
    "kneser_ney": kneser_ney,
    "evaluation": evaluation,
    "shapes": shapes,
    "probes": probes,
    "domain": domain,
}
