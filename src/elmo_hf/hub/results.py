"""What commands have measured, as the tables of a model card.

    results = read_results("hub_cards/elmo-tiny/results")    # {"run": ..., "perplexity": ..., ...}
    perplexity_table(results), table(results["probes"], "probe")

Results are JSON files that commands wrote, never a hand. Their forms differ, so this asks little of them: a
perplexity is any object that has `forward`, `backward` and `mean`, wherever it stands; any other result is a
list of rows, or rows by their names. `command` says how to get the numbers again.
"""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

MAX_BYTES = 20_000_000
MISSING = "–"
THIS_MODEL = "this model"
PERPLEXITY = ("forward", "backward", "mean")
# What a result says about itself, besides its numbers.
ABOUT = {"command", "commands", "date", "machine", "model", "note", "notes", "seed", "settings", "versions"}
HEADINGS = {
    "words_per_second": "words/s",
    "words_per_sec": "words/s",
    "pos": "part of speech",
    "wsd": "word sense",
}
Results = dict[str, Any]


class PerplexityRow(NamedTuple):
    text: str
    model: str
    found: dict[str, Any]  # as `Perplexity.to_dict` gives it


class EvaluationRow(NamedTuple):
    data: str
    split: str | None
    metric: str
    value: float


# ---- reading


def read_results(folder: str | Path) -> Results:
    """All JSON files of a folder, by their names without `.json`; nothing where there is no folder."""
    return {path.stem: read_result(path) for path in sorted(Path(folder).glob("*.json"))}


def read_result(path: Path) -> Any:
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has more than {MAX_BYTES:,} bytes, too many for a result.")
    try:
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}); run the command that writes it again.") from None
    if not isinstance(found, dict | list) or not found:
        raise ValueError(f"{path} holds no results; run the command that writes it again.")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def command_of(content: Any) -> str | None:
    """The command beside the numbers; several are lines."""
    found = content.get("command", content.get("commands")) if isinstance(content, dict) else None
    lines = [line for line in (found if isinstance(found, list) else [found]) if isinstance(line, str)]
    return "\n".join(lines) or None


# ---- perplexities


def perplexity_rows(results: Results) -> list[PerplexityRow]:
    """Of `perplexity.json`, `perplexity-TEXT.json` and `kneser_ney.json`, text by text."""
    rows = []
    for name, content in results.items():
        if name == "perplexity" or name.startswith("perplexity-"):
            text = name.removeprefix("perplexity").removeprefix("-") or "held-out text"
            rows += [PerplexityRow(*row) for row in _perplexities(name, content, text, THIS_MODEL)]
    for name, content in results.items():
        if name == "kneser_ney":
            order = content.get("order") if isinstance(content, dict) else None
            model = f"{order if order else 'n'}-gram, Kneser-Ney"
            rows += [PerplexityRow(*row) for row in _perplexities(name, content, "held-out text", model)]
    texts = list(dict.fromkeys(row.text for row in rows))
    return sorted(rows, key=lambda row: texts.index(row.text))


def _perplexities(name: str, content: Any, text: str, model: str) -> Iterator[tuple[str, str, Any]]:
    found = list(_find_perplexities(content, ()))
    if not found:
        raise ValueError(f"results/{name}.json has no entry with {', '.join(PERPLEXITY)}.")
    for path, entry in found:
        words = [part for part in path if part not in ("texts", "results", "heldout", entry.get("states"))]
        own = entry.get("text") or entry.get("name") or " ".join(words) or text
        yield text_name(str(own)), model, entry


def text_name(path: str) -> str:
    """One text has one name, however it was packed and wherever it lay."""
    return re.sub(r"(?:\.(?:txt|xz|gz|bz2|zst))+$", "", Path(path).name)


def _find_perplexities(content: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if is_perplexity(content):
        yield path, content
    elif isinstance(content, dict):
        for key, value in content.items():
            yield from _find_perplexities(value, (*path, str(key)))
    elif isinstance(content, list):
        for value in content:
            yield from _find_perplexities(value, path)


def is_perplexity(content: Any) -> bool:
    return isinstance(content, dict) and all(is_number(content.get(name)) for name in PERPLEXITY)


def perplexity_table(rows: list[PerplexityRow], with_model: bool = True) -> str:
    names = ("states", *PERPLEXITY, "arithmetic_mean", "tokens")
    head = ["text", "model", *(heading(name) for name in names), "unknown"]
    lines = []
    for row in rows:
        unknown = row.found.get("unknown")
        share = f"{unknown:.2%}" if is_number(unknown) else MISSING
        lines.append([cell(row.text), row.model, *(cell(row.found.get(name)) for name in names), share])
    if not with_model:
        head, lines = [head[0], *head[2:]], [[line[0], *line[2:]] for line in lines]
    return markdown(head, lines)


# ---- a task's figures


def evaluation_rows(results: Results) -> list[EvaluationRow]:
    """Of `evaluation.json` and `evaluation-DATA.json`: {"dataset": ..., "split": ..., "metrics": {...}}, one
    or a list of them; the means of a recipe's results.json; or what Trainer writes: {"eval_f1": ...}."""
    rows: list[EvaluationRow] = []
    for name, content in results.items():
        if name == "evaluation" or name.startswith("evaluation-"):
            data = name.removeprefix("evaluation").removeprefix("-") or "evaluation"
            found = list(_evaluations(content, data))
            if not found:
                raise ValueError(f"results/{name}.json has no number.")
            rows += found
    return rows


def _evaluations(content: Any, data: str) -> Iterator[EvaluationRow]:
    if isinstance(content, list):
        for entry in content:
            yield from _evaluations(entry, data)
        return
    if not isinstance(content, dict) or not isinstance(content.get("metrics", {}), dict):
        return
    if isinstance(content.get("mean"), dict):
        for split, metrics in content["mean"].items():
            yield from _evaluations({"dataset": data, "split": split, "metrics": metrics}, data)
        return
    metrics, split = content.get("metrics", content), content.get("split")
    for name, value in metrics.items():
        metric = re.sub(r"^(?:eval|test)_", "", name)
        if is_number(value) and not re.search(r"runtime|per_second|^epoch$|^seed$|samples", metric):
            yield EvaluationRow(str(content.get("dataset", data)), split, metric, value)


def evaluation_table(rows: list[EvaluationRow]) -> str:
    lines = [[cell(row.data), cell(row.split), heading(row.metric), cell(row.value)] for row in rows]
    return markdown(["data", "split", "metric", "value"], lines)


# ---- what layers know


def probe_table(content: Any) -> str:
    """Of what benchmarks/probes.py writes, F1 of word senses and accuracies of tags; or of any rows."""
    probes = content.get("probes") if isinstance(content, dict) else None
    if not isinstance(probes, dict) or not probes.keys() & {"senses", "tags"}:
        return table(content, "probe")
    tables = []
    try:
        if "senses" in probes:
            tables.append(table(probes["senses"]["f1"], "word senses, F1"))
        if "tags" in probes:
            by_kind = probes["tags"]["accuracy"]
            names = list(next(iter(by_kind.values())))
            rows = {name: {kind: found[name]["test"] for kind, found in by_kind.items()} for name in names}
            tables.append(table(rows, "tags, accuracy on test"))
    except (KeyError, TypeError, AttributeError, StopIteration):
        raise ValueError("results/probes.json is not as benchmarks/probes.py writes it.") from None
    return "\n\n".join(tables)


def probe_findings(content: Any) -> str:
    """Whether the layers know what the paper's did, in sentences; nothing where a figure lacks for that."""
    try:
        senses = {name: found["all"] for name, found in content["probes"]["senses"]["f1"].items()}
        tags = {name: found["test"] for name, found in content["probes"]["tags"]["accuracy"]["xpos"].items()}
        first = senses["first sense"]
    except (KeyError, TypeError, AttributeError):
        return ""
    (sense_layer, by_senses), (tag_layer, by_tags) = _best(senses, "trained, "), _best(tags, "trained, ")
    is_above = sense_layer > tag_layer
    by_chance = [cell(_best(found, "random weights, ")[1]) for found in (senses, tags)]
    return (
        f"Senses are known best by {sense_layer} ({cell(by_senses)} over all sets), tags (XPOS) by "
        f"{tag_layer} ({cell(by_tags)}): "
        + ("senses above tags, as in the paper." if is_above else "not senses above tags, as in the paper.")
        + f" The best layers of random weights have {by_chance[0]} and {by_chance[1]}. Senses are "
        f"{'above' if by_senses > first else 'below'} the inventory's first sense ({cell(first)}), which the "
        "paper's were above."
    )


def _best(found: dict[str, float], kind: str) -> tuple[str, float]:
    """The best layer of a kind, and its figure"""
    layers = {name.removeprefix(kind): value for name, value in found.items() if name.startswith(kind)}
    return max(layers.items(), key=lambda one: one[1], default=("no layer", math.nan))


# ---- any other result


def table(content: Any, first: str) -> str:
    """A row for each entry; `first` is the heading of the entries' names, where they have names."""
    rows = [_flat(name, entry, first) for name, entry in _rows(_plain(content), "")]
    if not rows:
        raise ValueError(f"there is no number in the results of the {first}s.")
    head = list(dict.fromkeys(key for row in rows for key in row))
    return markdown(
        [heading(key) for key in head], [[cell(row.get(key), heading(key)) for key in head] for row in rows]
    )


def remarks(content: Any) -> str:
    """What a result says besides its rows: its own numbers and words."""
    if not isinstance(content, dict) or not _has_rows(content):
        return ""
    found = {k: v for k, v in content.items() if k not in ABOUT and isinstance(v, str | int | float)}
    note = content.get("note", content.get("notes"))
    notes = [note] if isinstance(note, str) else note if isinstance(note, list) else []
    sentences = [f"{heading(key).capitalize()}: {cell(value, key)}." for key, value in found.items()]
    return " ".join([*sentences, *(str(one) for one in notes)])


def _plain(content: Any) -> Any:
    """A perplexity stands as its mean."""
    if is_perplexity(content):
        return content["mean"]
    if isinstance(content, dict):
        return {key: _plain(value) for key, value in content.items() if key not in ABOUT}
    return [_plain(value) for value in content] if isinstance(content, list) else content


def _rows(content: Any, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(content, list):
        for entry in content:
            yield from _rows(entry, name)
    elif isinstance(content, dict):
        if not _has_rows(content) and any(is_number(value) for value in _leaves(content)):
            yield name, content
        elif _has_rows(content):
            for key, value in content.items():
                if isinstance(value, dict | list):
                    own = "" if key in ("rows", "results", "shapes", "probes", "domains") else heading(key)
                    yield from _rows(value, ", ".join(part for part in (name, own) if part))


def _has_rows(content: dict[str, Any]) -> bool:
    """Whether its entries are rows; otherwise it is a row itself, such as {"layers": [...], "random": 1}."""
    nested = [value for key, value in content.items() if key not in ABOUT and isinstance(value, dict | list)]
    lists = any(isinstance(v, list) and v and all(isinstance(one, dict) for one in v) for v in nested)
    numbers = [value for value in content.values() if is_number(value)]
    return lists or (bool(nested) and not numbers and all(isinstance(v, dict) for v in nested))


def _leaves(content: Any) -> Iterator[Any]:
    if isinstance(content, dict | list):
        for value in content.values() if isinstance(content, dict) else content:
            yield from _leaves(value)
    else:
        yield content


def _flat(name: str, entry: dict[str, Any], first: str) -> dict[str, Any]:
    """A row's cells by their columns; what belongs to layers has a column for each."""
    found: dict[str, Any] = {first: name} if name else {}
    for key, value in entry.items():
        part = (
            {f"{key} {number}": one for number, one in enumerate(value)} if _is_layers(key, value) else value
        )
        if isinstance(part, dict):
            found |= {_joined(key, inner): one for inner, one in part.items()}
        else:
            found[key] = value
    return {_single(key): value for key, value in found.items()}


def _is_layers(key: str, value: Any) -> bool:
    return "layer" in key and isinstance(value, list) and all(is_number(one) for one in value)


def _joined(outer: str, inner: str) -> str:
    return inner if outer.rstrip("s") in inner or outer in ("baselines", "metrics") else f"{outer} {inner}"


def _single(key: str) -> str:
    return re.sub(r"^(?:per_)?layers? ", "layer ", key)


# ---- Markdown


def heading(name: str) -> str:
    return HEADINGS.get(name, name.replace("_", " "))


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def cell(value: Any, name: str = "") -> str:
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " / ".join(cell(one) for one in value)
    if is_number(value):
        return number(value)
    return " ".join(str(value).split()).replace("|", "\\|")


def number(value: float) -> str:
    """Whole numbers in full, others with four digits."""
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    digits = 3 - math.floor(math.log10(abs(value))) if abs(value) >= 1 else 4
    return f"{value:.{digits}f}" if value == 0 or abs(value) >= 0.001 else f"{value:.3g}"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """The first column is words; a column is put to the right if it is numbers."""
    rule = ["---" if column == 0 or not _is_numeric(rows, column) else "---:" for column in range(len(head))]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, rule, *rows])


def _is_numeric(rows: list[list[str]], column: int) -> bool:
    return all(re.fullmatch(rf"[-\d.,%e+ /]+|{MISSING}", row[column]) for row in rows)
