"""Scenarios of `training/pretrain.py`."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from tests.helpers.launcher import read_lines, small_run, write_corpus
from tests.kills.scenarios import Findings, Scenario, unequal_files

SIZES, EPOCHS = (150, 20, 60), 2  # sentences of the files
TIMES = ("words_per_second", "waited")


class Pretraining(Scenario):
    name = "pretraining, 1 process"
    share = 200
    has_workers = True
    changes: ClassVar[dict[str, Any]] = {}
    tolerance = 0.0  # of the numbers in the log, relative

    def write_inputs(self) -> None:
        write_corpus(self.folder, SIZES)

    def arguments(self, output: Path) -> list[Any]:
        changes = {"audit": True, "heldout": self.folder / "text-1.txt", "epochs": EPOCHS} | self.changes
        return small_run(self.folder, output.name, **changes)

    def compare(self, output: Path, expected: Path) -> Findings:
        findings = Findings()
        for direction in ("forward", "backward"):
            findings.count_sentences(sentences_read(output, direction), sentences_of_corpus())
        findings.unequal += unequal_names(output, expected)
        findings.unequal += unequal_logs(output, expected, self.tolerance)
        findings.unequal += self.unequal_weights(output, expected)
        return findings

    def unequal_weights(self, output: Path, expected: Path) -> Iterator[str]:
        for name in ("final", last_checkpoint(expected)):
            for text in unequal_files(output / name, expected / name, ignored=("output",)):
                # A checkpoint's settings name the run's folder, so that their checksum differs.
                if name == "final" or text != "manifest.json differs":
                    yield f"{name}: {text}"


class TwoProcesses(Pretraining):
    name = "pretraining, 2 processes"
    share = 150
    processes = (2,)


class TwoMachines(TwoProcesses):
    """No folder is shared: at each start, the second machine is an empty one. Nobody but the run itself ends
    the processes of a machine when those of the other have been killed."""

    name = "pretraining, two machines"
    share = 60
    changes: ClassVar[dict[str, Any]] = {"timeout": 20}

    def launch_forks(self, output: Path, processes: int, hook: str) -> Any:
        empty = output.with_name(f"{output.name}-empty")  # named so that operations in it are counted
        shutil.rmtree(empty, ignore_errors=True)
        arguments = [self.arguments(output), self.arguments(empty)]
        return self.launcher.start_machines(arguments, processes // 2, hook, self.program)

    def compare(self, output: Path, expected: Path) -> Findings:
        findings = super().compare(output, expected)
        if output.with_name(f"{output.name}-empty").exists():
            findings.unequal.append("the second machine's folder is left over")
        return findings


class ChangingProcesses(Pretraining):
    """Each start has one, two or three processes. Then the sums of the losses differ in their last digits."""

    name = "pretraining, 1, 2 or 3 processes in turn"
    share = 100
    processes = (2, 1, 3)
    # Random numbers are drawn by process.
    changes: ClassVar[dict[str, Any]] = {"dropout": 0.0, "samples": 0, "learning_rate": 0.1}
    tolerance = 2e-5

    def unequal_weights(self, output: Path, expected: Path) -> Iterator[str]:
        from safetensors.torch import load_file

        name = "model.safetensors"
        weights, others = load_file(output / "final" / name), load_file(expected / "final" / name)
        for key, weight in others.items():
            if not weights[key].allclose(weight, rtol=1e-3, atol=1e-4):
                yield f"final: {key} differs by {(weights[key] - weight).abs().max():.1g}"


class FinishedRun(Pretraining):
    """A finished run is started again: it writes `final` again, and is killed in doing so."""

    name = "pretraining, a finished run again"
    share = 100
    reach = 1.0

    @property
    def finished(self) -> Path:
        return self.folder / "finished"

    def write_inputs(self) -> None:
        super().write_inputs()
        self.time(self.launcher.start(self.arguments(self.finished)))

    def prepare(self, output: Path) -> None:
        shutil.copytree(self.finished, output)


def sentences_read(output: Path, direction: str) -> Iterator[tuple[int, ...]]:
    """(epoch, file, line, sentence), by the audit files of all processes."""
    for path in output.glob("audit-*.jsonl"):
        for entry in read_lines(path):
            for _row, *sentence in entry[direction]:
                yield tuple(sentence)


def sentences_of_corpus() -> Iterator[tuple[int, ...]]:
    for epoch in range(EPOCHS):
        for file, size in enumerate(SIZES):
            for line in range(size):
                yield epoch, file, line, 0


def last_checkpoint(output: Path) -> str:
    return max(path.name for path in output.glob("checkpoint-*"))


def unequal_names(output: Path, expected: Path) -> Iterator[str]:
    """A run that has ended leaves what an undisturbed one leaves; audit files depend on the processes."""
    names, others = ({path.name for path in run.iterdir()} for run in (output, expected))
    for name in sorted(names ^ others):
        if not name.startswith("audit-"):
            yield f"{name} is {'missing' if name in others else 'left over'}"


def unequal_logs(output: Path, expected: Path, tolerance: float) -> Iterator[str]:
    """Each step and evaluation is there once, with the same numbers; a start, and an end as the last line."""
    log, other_log = (read_lines(run / "log.jsonl") for run in (output, expected))
    kinds = [entry["kind"] for entry in log]
    if kinds.count("start") != 1 or kinds.count("end") != 1 or kinds[-1:] != ["end"]:
        numbers = f"{kinds.count('start')} starts and {kinds.count('end')} ends"
        yield f"log.jsonl has {numbers}, and its last entry is {kinds[-1:]}"
    entries, others = ([e for e in run if e["kind"] in ("step", "evaluation")] for run in (log, other_log))
    steps, other_steps = ([(e["kind"], e["step"]) for e in run] for run in (entries, others))
    if steps != other_steps:
        yield f"log.jsonl has {len(steps)} entries of {len({*steps})} steps, not {len(other_steps)}"
        return
    for entry, other in zip(entries, others, strict=True):
        keys = [k for k in other if k not in TIMES and not is_close(entry.get(k), other[k], tolerance)]
        if keys:
            yield f"log.jsonl: {entry['kind']} {entry['step']} differs in {', '.join(keys)}"


def is_close(value: Any, other: Any, tolerance: float) -> bool:
    if isinstance(value, float) and isinstance(other, float):
        return abs(value - other) <= tolerance * abs(other)
    return value == other
