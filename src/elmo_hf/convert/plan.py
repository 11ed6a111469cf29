"""What a conversion is going to do, and the folder that it writes.

A family of files (`bilm.py`, `tensorflow.py`, ...) makes a `Plan` of the files that it recognises: every
array is checked against the model that it belongs to, and no number is read yet. `Plan.write` reads them.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from elmo_hf.convert.facts import facts_of
from elmo_hf.convert.files import Recognised, RoleOf
from elmo_hf.convert.table import Pairs, build_model, read_parameters
from elmo_hf.files import checksum, write_json
from elmo_hf.model.configuration_elmo import ElmoConfig
from elmo_hf.model.modeling_elmo import ElmoModel, ElmoPreTrainedModel
from elmo_hf.model.modeling_elmo_pretraining import ElmoForPreTraining
from elmo_hf.model.tokenization_elmo import ElmoTokenizer

# Adagrad's sums of squares, by the names of ElmoForPreTraining's parameters; a run that starts here reads it.
ACCUMULATORS = "adagrad.safetensors"


@dataclass(frozen=True)
class Choices:
    """What a user says in place of the files.

    Args:
        settings: arguments of ElmoConfig, such as {"cell_clip": None}.
        name: which model, where the files hold several.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None


@dataclass
class Plan:
    """A model and the files that it is made of.

    Args:
        family: the format, in words.
        files: the files that are taken, by their roles.
        config, tokenizer, model_class: the model.
        pairs: the arrays of its parameters.
        accumulators: arrays of Adagrad's sums of squares, if the files hold them.
        copies: files that are copied as they are, by their names in the folder.
        assumed: settings that the files do not hold, as sentences.
        left: what the files hold and the model does not, as sentences.
        changed: numbers that do not stay the same to the bit, as sentences.
    """

    family: str
    files: Mapping[str, Path]
    config: ElmoConfig
    tokenizer: ElmoTokenizer
    pairs: Pairs
    model_class: type[ElmoPreTrainedModel] = ElmoModel
    accumulators: Pairs = field(default_factory=list)
    copies: Mapping[str, Path] = field(default_factory=dict)
    assumed: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """What is taken, assumed, left out and changed, for people."""
        yield f"{self.family}, as {self.model_class.__name__}"
        for role, path in self.files.items():
            yield f"{role}: {path}"
        for title in ("assumed", "left", "changed"):
            for sentence in getattr(self, title):
                yield f"{'left out' if title == 'left' else title}: {sentence}"

    def write(self, folder: Path, name: str) -> None:
        """Write the model, its tokenizer and the facts of its card into an empty folder.

        Args:
            name: the model's name in the facts.
        """
        build_model(self.model_class, self.config, self.pairs).save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        if self.accumulators:
            save_file(self.read_accumulators(), folder / ACCUMULATORS)
        for file, path in self.copies.items():
            shutil.copyfile(path, folder / file)
        (folder / "facts.yaml").write_text(facts_of(name), encoding="utf-8")
        (folder / "results").mkdir()
        sums = {path.name: checksum(path) for path in self.files.values()}
        write_json(folder / "results" / "source.json", {"files": sums})

    def read_accumulators(self) -> dict[str, torch.Tensor]:
        """By the names of ElmoForPreTraining's parameters; without the softmax's if the files lack them."""
        with torch.device("meta"):
            model = ElmoForPreTraining(self.config)
        names = {entry.parameter for _, entry in self.accumulators}
        meta = {name: parameter for name, parameter in model.state_dict().items() if name in names}
        return read_parameters(meta, self.accumulators, start=1.0)


@dataclass(frozen=True)
class Family:
    """A format of published files.

    Args:
        roles: the roles of its files, each with a description.
        role_of: the role of a file by its content, or None.
        mains: the roles without one of which there is no model.
        plan: makes the plan of recognised files; what it opens is closed with the stack.
    """

    roles: Mapping[str, str]
    role_of: RoleOf
    mains: tuple[str, ...]
    plan: Callable[[Recognised, Choices, ExitStack], Plan]

    def main_files(self, files: Recognised) -> list[Path]:
        """The files in these roles."""
        return [path for role in self.mains for path in files.all(role)]
