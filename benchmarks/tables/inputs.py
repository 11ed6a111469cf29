"""Files that are made from the data before the runs: splits of MultiNLI and OntoGUM, and texts of domains."""

import hashlib
import lzma
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.language_models.domain import read_sentences
from benchmarks.tables.plan import DOMAINS, GAP, Run, Task

MNLI = "nli_mnli_20k/mnli_val.tsv.xz"
GUM = {name: f"coref_ontogum/ontogum_{name}_conll.tar.xz" for name in ("train", "dev")}
GUM_DEV = 10  # every tenth train document is dev; the published dev set is our test set, as test is held out


def make_inputs(runs: Sequence[Run], plan: dict[str, Task], data: Path, folder: Path) -> None:
    """Write the files that these runs need into `folder`."""
    if any(run.task == "nli" for run in runs):
        cut_mnli(data, folder)
    if any(run.task == "coref-gum" for run in runs):
        split_gum(data, folder)
    for domain in {plan[run.task].domain for run in runs if run.biLM == "adapted"}:
        if domain is not None:
            make_domain(domain, data, folder)


def missing_file(runs: Iterable[Run], plan: dict[str, Task], data: Path) -> Path | None:
    """The first file of the data that these runs need and that does not exist."""
    needed: dict[str, None] = {}
    for run in runs:
        task = plan[run.task]
        paths = [path for paths in task.files.values() for path in paths]
        paths += [f"DATA/{MNLI}"] if run.task == "nli" else []
        paths += [f"DATA/{path}" for path in GUM.values()] if run.task == "coref-gum" else []
        paths += [GAP] if run.task == "coref" else []
        paths += DOMAINS[task.domain] if run.biLM == "adapted" and task.domain else []
        needed |= dict.fromkeys(path for path in paths if path.startswith("DATA/"))
    files = (data / path.removeprefix("DATA/") for path in needed)
    return next((path for path in files if not path.is_file()), None)


def cut_mnli(data: Path, folder: Path) -> None:
    """Split the one labelled set besides the train set: about half of its premises, with all their
    hypotheses, are for dev, and the others for test."""
    text = lzma.decompress((data / MNLI).read_bytes()).decode("utf-8")
    header, *lines = text.rstrip("\n").split("\n")
    column = header.split("\t").index("sentence1")
    splits: dict[str, list[str]] = {"mnli_dev": [header], "mnli_test": [header]}
    for line in lines:
        premise = line.split("\t")[column].encode()
        is_test = hashlib.blake2b(premise, digest_size=1).digest()[0] % 2
        splits["mnli_test" if is_test else "mnli_dev"].append(line)
    for name, split in splits.items():
        write_text(folder / f"{name}.tsv", split)


def split_gum(data: Path, folder: Path) -> None:
    train, test = (documents_of(data / GUM[name]) for name in ("train", "dev"))
    dev = train[GUM_DEV - 1 :: GUM_DEV]
    splits = {"train": [document for document in train if document not in dev], "dev": dev, "test": test}
    for name, documents in splits.items():
        write_text(folder / f"ontogum_{name}.conll", documents)


def documents_of(path: Path) -> list[str]:
    """The text of each document of an archive of OntoGUM, with its name, sorted by name."""
    with tarfile.open(path, "r:*") as archive:
        files = [(member.name, archive.extractfile(member)) for member in archive if member.isfile()]
        texts = {name: file.read().decode("utf-8") for name, file in files if file is not None}
    begin = "# begin document"
    return [
        text.replace(begin, f"{begin} {Path(name).stem}", 1).rstrip() + "\n"
        for name, text in sorted(texts.items())
    ]


def make_domain(domain: str, data: Path, folder: Path) -> None:
    """Write the text of a domain, a sentence a line."""
    files = [data / path.removeprefix("DATA/") for path in DOMAINS[domain]]
    lines = (" ".join(words) for file in files for words in read_sentences(file))
    write_text(folder / f"{domain}.txt", lines)


def write_text(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
