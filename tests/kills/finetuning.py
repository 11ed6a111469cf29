"""The scenario of a recipe for two seeds."""

from pathlib import Path
from typing import Any

from tests.helpers.launcher import Program
from tests.helpers.named_entities import write_files
from tests.kills.scenarios import Findings, Scenario, unequal_files

OPTIONS = "--smoke --seeds 0 1 --epochs 3 --train-size 60 --dev-size 20 --test-size 20 --batch-size 10"
TIMES = ("seconds", "processor_seconds")


class Finetuning(Scenario):
    name = "fine-tuning, 2 seeds"
    share = 80
    reach = 1.0
    program = Program("elmo_hf.finetuning.__main__", "main", "finetuning")

    def write_inputs(self) -> None:
        self.files = write_files(self.folder)

    def arguments(self, output: Path) -> list[Any]:
        small = ["--set", "task_char_filters=[[3,8]]", "task_hidden_size=8"]
        return ["ner", *self.files, "--output", output, *OPTIONS.split(), *small]

    def compare(self, output: Path, expected: Path) -> Findings:
        return Findings(unequal=list(unequal_files(output, expected, TIMES)))
