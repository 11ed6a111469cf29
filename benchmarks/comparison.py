"""The tables of docs/how-good.md and docs/compile.md, from the JSON of the benchmarks.

python -m benchmarks.comparison
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.report import EMPTY, RESULTS, ROOT, fill_page, markdown_table
from benchmarks.speed.table import SIZES, conditions, number, read_results
from benchmarks.tables.page import perplexities, shown, table_by_variant, train_size
from elmo_hf import TINY

PAGES = [ROOT / "docs" / "how-good.md", ROOT / "docs" / "compile.md"]
CARD = ROOT / "hub_cards" / "elmo-tiny" / "results"
CONTESTANTS = {
    "ours-auto": "ELMo, this package",
    "ours-bf16": "ELMo, this package, bfloat16",
    "ours-int8": "ELMo, this package, int8",
    "allennlp": "ELMo, AllenNLP",
    "bert-base": "BERT-base",
    "distilbert": "DistilBERT",
    "modernbert-base": "ModernBERT-base",
}
SETTINGS = {"batch": "32 sentences at once", "single": "one sentence at a time"}
SCALE = "bert-base"
# Devlin et al. 2019, Tables 1, 2 and 7: accuracy on MultiNLI's matched genres, F1 on SQuAD's dev set, F1 on
# CoNLL-2003's test set. ELMo's are BiLSTM+ELMo+Attn, BiDAF+ELMo, and the figure of Peters et al.
PUBLISHED = [
    ("Entailment, MultiNLI", 76.4, 84.6, 86.7),
    ("Questions, SQuAD 1.1", 85.6, 88.5, 90.9),
    ("Names, CoNLL-2003", 92.2, 92.4, 92.8),
]
SOURCE = "[Devlin et al. 2019](https://aclanthology.org/N19-1423), Tables 1, 2 and 7"
Result = dict[str, Any]


def main() -> None:
    for page in PAGES:
        fill_page(page, "comparison", lambda name: TABLES[name]())


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


# ---- how fast


def speed() -> str:
    """A table for each size of ELMo: contestants down; settings, and memory, across. One thread only."""
    return "\n\n".join(filter(None, map(speed_of_size, ("small", "original"))))


def speed_of_size(size: str) -> str:
    """Empty if the size was not measured on one thread."""
    results = {r["setting"]: r for r in read_results() if (r["size"], r["threads"]) == (size, 1)}
    results = {setting: results[setting] for setting in SETTINGS if setting in results}
    if not results:
        return ""
    first = next(iter(results.values()))
    rows = [
        [title, *(speed_cell(result, name) for result in results.values()), memory(first, name)]
        for name, title in CONTESTANTS.items()
        if name in first["contestants"]
    ]
    head = [f"words/s; ELMo is {SIZES[size]}", *(SETTINGS[setting] for setting in results), "memory, MB"]
    return f"{conditions(first)}\n\n{markdown_table(head, rows)}"


def speed_cell(result: Result, name: str) -> str:
    """The speed, and its multiple of BERT-base's in the same rounds."""
    figures = {key: value["words_per_second"]["median"] for key, value in result["contestants"].items()}
    if name not in figures:
        return EMPTY
    times = f" ({figures[name] / figures[SCALE]:.1f} ×)" if SCALE in figures else ""
    return number(figures[name]) + times


def memory(result: Result, name: str) -> str:
    return f"{result['contestants'][name]['peak_memory_mb']:,}"


# ---- how good


def helps() -> str:
    """Every task's score without and with ELMo."""
    rows = [row for name in ("table1", "whole") for row in read(RESULTS / f"{name}.json")["rows"]]
    cells = [
        [
            row["task"],
            train_size(row["train_size"], row["train_size_of"]),
            shown(row["baseline"]),
            shown(row["elmo"]),
            row["helps"] or EMPTY,
        ]
        for row in rows
        if row["baseline"] or row["elmo"]
    ]
    head = ["task", "train examples", "without ELMo", "with elmo-tiny", "does it help?"]
    return markdown_table(head, cells, left=2)


def variants(name: str) -> Callable[[], str]:
    """A table of benchmarks.tables, with the perplexities that belong to it."""

    def table() -> str:
        rows = read(RESULTS / f"{name}.json")["rows"]
        note = perplexities(rows).strip()
        return f"{table_by_variant(rows)}\n\n{note}".strip()

    return table


def transformers() -> str:
    """Published scores of ELMo and BERT on the same data."""
    rows = [[task, *(f"{score:.1f}" for score in scores)] for task, *scores in PUBLISHED]
    table = markdown_table(["task", "the original ELMo", "BERT-base", "BERT-large"], rows)
    return f"{table}\n\n{SOURCE}."


def own() -> str:
    """Our tasks for which a Transformer's score by the same metric is published."""
    rows = []
    for row in read(RESULTS / "table1.json")["rows"]:
        published = row["published"]
        if published["metric"] == row["metric"] and published["is_alike"]:
            figures = [figure for figure in published["figures"] if is_transformer(figure["system"])]
            rows += [
                [
                    row["task"],
                    shown(row["elmo"]),
                    f"{figure['score']:.1f}",
                    f"[{figure['system']}]({figure['url']})",
                ]
                for figure in figures
            ]
    return markdown_table(["task", "with elmo-tiny", "a Transformer", "which"], rows)


def is_transformer(system: str) -> bool:
    return "BERT" in system or "Transformer" in system


# ---- what elmo-tiny is


def tiny() -> str:
    run, ngrams, export, first_run = (
        read(path)
        for path in (
            CARD / "run.json",
            CARD / "kneser_ney.json",
            RESULTS / "export-elmo-tiny.json",
            RESULTS / "training" / "elmo_tiny_first.json",
        )
    )
    words, hours = (run[key] + first_run[key] for key in ("words", "hours"))
    config, machine, model = run["model"]["config"], run["machine"], run["model"]
    softmax = model["softmax_parameters"] / 1e6
    rows = [
        ["LSTM cells and outputs, per direction", f"{config['lstm_dim']:,} and {config['projection_dim']:,}"],
        ["layers", str(config["num_hidden_layers"])],
        ["parameters", f"{model['parameters'] / 1e6:.1f} million, {softmax:.1f} of them in the softmax"],
        ["file", f"{(TINY / 'model.safetensors').stat().st_size / 1e6:.1f} MB"],
        [
            "as ONNX, as ONNX with int8",
            " and ".join(f"{e['bytes'] / 1e6:.1f} MB" for e in export["exports"].values()),
        ],
        ["speed on one core, 32 sentences at once", tiny_speed(export, "ready")],
        ["speed on one core, one sentence at a time", tiny_speed(export, "single")],
        ["words read in training", f"{words / 1e6:.1f} million, in two runs"],
        ["time of training", f"{hours:.1f} hours on {machine['cores']} cores ({machine['cpu']})"],
    ]
    for text, figures in run["heldout"].items():
        count = ngrams["heldout"].get(text)
        than = f"; an n-gram model of order {ngrams['order']}: {count['mean']:.1f}" if count else ""
        rows.append([f"perplexity of {text}", f"{figures['last']['mean']:.1f}{than}"])
    return markdown_table(["", "elmo-tiny"], rows, left=2)


def tiny_speed(export: Result, setting: str) -> str:
    return f"{number(export['settings'][setting]['torch-auto']['words_per_second'])} words/s"


# ---- torch.compile


def compiling() -> str:
    results = read(RESULTS / "compile.json")
    rows = [
        [
            name,
            f"{shape['compile_seconds']:.0f} s",
            *(f"{shape['milliseconds'][who]:.1f} ({shape['ratio'][who]:.2f})" for who in shape["ratio"]),
            calls_until_it_pays(shape),
            f"{shape['difference']:.1e}",
        ]
        for name, shape in results["shapes"].items()
    ]
    who = list(next(iter(results["shapes"].values()))["ratio"])
    head = [
        "",
        "compiling",
        *(f"{name}, ms (speed, readable = 1)" for name in who),
        "it pays after",
        "largest difference from readable",
    ]
    facts = (
        f"{results['model']}, {results['machine']['cpu']}, 1 thread, torch {results['torch']}, backend "
        f"{results['backend']}; medians of {results['rounds']} rounds."
    )
    return f"{facts}\n\n{markdown_table(head, rows)}"


def calls_until_it_pays(shape: Result) -> str:
    """How many calls of this shape save the time that compiling took, compared with the default code."""
    times = shape["milliseconds"]
    if times["compiled"] >= times["auto"]:
        return "never"
    return f"{1000 * shape['compile_seconds'] / (times['auto'] - times['compiled']):,.0f} calls"


def graphs() -> str:
    """How many graphs there are after more and more lengths, and more and more sizes of a batch."""
    results = read(RESULTS / "compile.json")["graphs"]
    tables = []
    for name, title in (("lengths", "sentences of so many words"), ("batches", "so many sentences at once")):
        counts = results[name]
        tables.append(
            markdown_table([title, *counts], [["graphs so far", *(str(count) for count in counts.values())]])
        )
    return "\n\n".join(tables)


def whole_graphs() -> str:
    models = read(RESULTS / "compile.json")["whole_graphs"]
    rows = [[f"`{name}`", "yes" if is_whole else "no"] for name, is_whole in models.items()]
    return markdown_table(["model", "`fullgraph=True`"], rows, left=2)


TABLES: dict[str, Callable[[], str]] = {
    "speed": speed,
    "helps": helps,
    "few": variants("figure1"),
    "adapted": variants("adapted"),
    "tuned": variants("tuned"),
    "transformers": transformers,
    "own": own,
    "tiny": tiny,
    "compiling": compiling,
    "graphs": graphs,
    "whole-graphs": whole_graphs,
}


if __name__ == "__main__":
    main()
