"""A table of names: arrays of a file <-> parameters of our models, used in both directions.

pairs = match(arrays, weights_table(config))          # a format's table, such as that in `bilm.py`
model = build_model(config, pairs, with_softmax=False)
write_hdf5(path, weights_table(config), model.state_dict())
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from elmo_hf.convert.hdf5 import Hdf5Arrays, Shape
from elmo_hf.convert.hdf5_output import Hdf5Output
from elmo_hf.model.configuration_elmo import ElmoConfig
from elmo_hf.model.modeling_elmo import ElmoModel
from elmo_hf.model.modeling_elmo_pretraining import ElmoForPreTraining


@dataclass(frozen=True)
class Entry:
    """An array of a file, or some of its rows, and the parameter that holds the same numbers.

    `transform` returns a view of the parameter in the array's layout. Reading fills that view and writing
    copies it, so that one function serves both directions.
    """

    array: str  # its name in the file
    shape: Shape  # of the whole array
    parameter: str  # its name in ElmoForPreTraining; in ElmoModel it lacks "elmo."
    transform: Callable[[Tensor], Tensor] = lambda parameter: parameter
    first_row: int = 0  # of the array, if several parameters share it

    def view(self, parameters: dict[str, Tensor]) -> Tensor:
        name = self.parameter
        return self.transform(parameters[name if name in parameters else name.removeprefix("elmo.")])


Pairs = list[tuple[Hdf5Arrays, Entry]]


def match(arrays: Hdf5Arrays, table: Iterable[Entry], ignored: Collection[str] = ()) -> Pairs:
    """Pair each entry with the file, which must hold every array in its shape, and no others."""
    pairs: Pairs = []
    # One at a time: options may promise a billion layers, and the first missing one ends the loop.
    for entry in table:
        arrays.check_array(entry.array, entry.shape)
        pairs.append((arrays, entry))
    arrays.check_nothing_else({entry.array for _, entry in pairs}.union(ignored))
    return pairs


def build_model(config: ElmoConfig, pairs: Pairs, with_softmax: bool) -> ElmoModel | ElmoForPreTraining:
    """Make a model of the files' numbers, which are read into the parameters a block at a time."""
    with torch.device("meta"):
        model = ElmoForPreTraining(config) if with_softmax else ElmoModel(config)
    parameters = {
        name: torch.zeros(meta.shape, dtype=torch.float32) for name, meta in model.state_dict().items()
    }
    for arrays, entry in pairs:
        arrays.read_into(entry.view(parameters), entry.array, entry.first_row)
    model.load_state_dict(parameters, assign=True)
    return model


def write_hdf5(path: Path, table: Iterable[Entry], parameters: dict[str, Tensor]) -> None:
    datasets: dict[str, Any] = {}
    with Hdf5Output(path) as output:
        for entry in table:
            rows = entry.view(parameters)
            if entry.array not in datasets:
                datasets[entry.array] = output.add(entry.array, entry.shape, dtype="float32")
            datasets[entry.array][entry.first_row : entry.first_row + len(rows)] = rows.numpy()
