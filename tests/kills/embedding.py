"""Scenarios of `elmo-hf embed`: each format, in one process, and in one or two at each start."""

from pathlib import Path
from typing import Any

from elmo_hf.embedding.vectors import read_vectors
from elmo_hf.errors import ElmoError
from tests.helpers.embed_corpora import FORMATS, save_model, sentences, small_model
from tests.helpers.launcher import Program
from tests.kills.scenarios import Findings, Scenario, unequal_files

OPTIONS = "--layers all --shard-words 80 --batch-words 24 --device cpu"


class Embedding(Scenario):
    reach = 0.5  # a start takes most of the time
    program = Program("elmo_hf.cli", "app", "elmo-hf")
    format: str

    def write_inputs(self) -> None:
        save_model(small_model(), self.folder / "model")
        (self.folder / "corpus.txt").write_text("\n".join(sentences(200)) + "\n", encoding="utf-8")

    def arguments(self, output: Path) -> list[Any]:
        options = [*OPTIONS.split(), "--format", self.format, "--model", self.folder / "model"]
        return ["embed", self.folder / "corpus.txt", output, *options]

    def compare(self, output: Path, expected: Path) -> Findings:
        findings = Findings(unequal=list(unequal_files(output, expected)))
        lines = [tuple(line) for line, _ in read_vectors(expected)]
        try:
            findings.count_sentences((tuple(line) for line, _ in read_vectors(output)), lines)
        except (ElmoError, OSError, KeyError, ValueError) as error:
            findings.lost += len(lines)
            findings.unequal.append(f"no vectors can be read: {error}")
        return findings


def embeddings() -> list[type[Embedding]]:
    """A class for each format, and one or two processes."""
    classes = []
    for format in FORMATS:
        for processes, share, name in (((1,), 80, "1 process"), ((2, 1), 40, "1 or 2 processes in turn")):
            members = {"name": f"embedding, {format}, {name}", "share": share, "format": format}
            classes.append(type("Embedding", (Embedding,), members | {"processes": processes}))
    return classes
