"""What tables.py makes of the data before it runs anything: MultiNLI's dev and test, and text of a field."""

import hashlib
import lzma
from collections.abc import Iterable
from pathlib import Path

from benchmarks.language_models.domain import read_sentences
from benchmarks.tables.plan import DOMAINS, GAP, Run, Task

MNLI = "nli_mnli_20k/mnli_val.tsv.xz"


def make_inputs(runs: Iterable[Run], plan: dict[str, Task], data: Path, folder: Path) -> None:
    """What these runs need of it."""
    if any(run.task == "nli" for run in runs):
        cut_mnli(data, folder)
    for domain in {plan[run.task].domain for run in runs if run.biLM == "adapted"}:
        if domain is not None:
            make_domain(domain, data, folder)


def missing_file(runs: Iterable[Run], plan: dict[str, Task], data: Path) -> Path | None:
    """The first file of the data that runs need and that is not there."""
    needed: dict[str, None] = {}
    for run in runs:
        task = plan[run.task]
        named = [path for paths in task.files.values() for path in paths]
        named += [f"DATA/{MNLI}"] if run.task == "nli" else []
        named += [GAP] if run.task == "coref" else []
        named += DOMAINS[task.domain][0] if run.biLM == "adapted" and task.domain else []
        needed |= dict.fromkeys(path for path in named if path.startswith("DATA/"))
    paths = (data / path.removeprefix("DATA/") for path in needed)
    return next((path for path in paths if not path.is_file()), None)


def cut_mnli(data: Path, folder: Path) -> None:
    """There is one labelled set besides the train set: about half of its premises are for dev, with all their
    hypotheses, and the others for test."""
    text = lzma.decompress((data / MNLI).read_bytes()).decode("utf-8")
    header, *lines = text.rstrip("\n").split("\n")
    column = header.split("\t").index("sentence1")
    parts: dict[str, list[str]] = {"mnli_dev": [header], "mnli_test": [header]}
    for line in lines:
        premise = line.split("\t")[column].encode()
        is_test = hashlib.blake2b(premise, digest_size=1).digest()[0] % 2
        parts["mnli_test" if is_test else "mnli_dev"].append(line)
    for name, kept in parts.items():
        write_text(folder / f"{name}.tsv", kept)


def make_domain(domain: str, data: Path, folder: Path) -> None:
    """The field's text, a sentence a line."""
    paths, column = DOMAINS[domain]
    sentences = (one for path in paths for one in read_sentences(data / path.removeprefix("DATA/"), column))
    write_text(folder / f"{domain}.txt", map(" ".join, sentences))


def write_text(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
