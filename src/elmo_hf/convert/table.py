"""A table of names: arrays of a file <-> parameters of our models; HDF5's are used in both directions.

pairs = match(arrays, weights_table(config))          # a format's table, such as that in `bilm.py`
model = build_model(ElmoModel, config, pairs)
write_hdf5(path, weights_table(config), model.state_dict())
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from elmo_hf.convert.arrays import Arrays, Shape
from elmo_hf.convert.hdf5_output import Hdf5Output
from elmo_hf.model.configuration_elmo import ElmoConfig
from elmo_hf.model.modeling_elmo import ElmoPreTrainedModel

Model = TypeVar("Model", bound=ElmoPreTrainedModel)


@dataclass(frozen=True)
class Entry:
    """An array of a file, or some of its rows, and the parameter that holds the same numbers.

    `transform` returns a view of the parameter in the array's layout. Reading fills that view and writing
    copies it, so that one function serves both directions. `adjust` changes the filled view in place, in
    formats that are only read.
    """

    array: str  # its name in the file
    shape: Shape  # of the whole array
    parameter: str  # its name in ElmoForPreTraining; in ElmoModel it lacks "elmo."
    transform: Callable[[Tensor], Tensor] = lambda parameter: parameter
    first_row: int = 0  # of the array, if several parameters share it
    adjust: Callable[[Tensor], object] | None = None

    def view(self, parameters: dict[str, Tensor]) -> Tensor:
        name = self.parameter
        return self.transform(parameters[name if name in parameters else name.removeprefix("elmo.")])


def without_padding(table: Tensor) -> Tensor:
    """Row 0 stands for "no character". It is zero, and files lack it."""
    return table[1:]


def single_row(number: int) -> Callable[[Tensor], Tensor]:
    """The transform of an array that is a single row of its parameter."""
    return lambda table: table[number : number + 1]


Pairs = list[tuple[Arrays, Entry]]


def match(arrays: Arrays, table: Iterable[Entry], ignored: Collection[str] = ()) -> Pairs:
    """Pair each entry with the file, which must hold every array in its shape, and no others."""
    pairs: Pairs = []
    # One at a time: options may promise a billion layers, and the first missing one ends the loop.
    for entry in table:
        arrays.check_array(entry.array, entry.shape)
        pairs.append((arrays, entry))
    arrays.check_nothing_else({entry.array for _, entry in pairs}.union(ignored))
    return pairs


def build_model(model_class: type[Model], config: ElmoConfig, pairs: Pairs) -> Model:
    """Make a model of the files' numbers."""
    with torch.device("meta"):
        model = model_class(config)
    model.load_state_dict(read_parameters(model.state_dict(), pairs), assign=True)
    return model


def read_parameters(metas: dict[str, Tensor], pairs: Pairs, start: float = 0.0) -> dict[str, Tensor]:
    """Each parameter's numbers from the files, and `start` where they have none: in the row of padding."""
    parameters = {name: torch.full(meta.shape, start, dtype=torch.float32) for name, meta in metas.items()}
    for arrays, entry in pairs:
        view = entry.view(parameters)
        arrays.read_into(view, entry.array, entry.first_row)
        if entry.adjust is not None:
            entry.adjust(view)
    return parameters


def write_hdf5(path: Path, table: Iterable[Entry], parameters: dict[str, Tensor]) -> None:
    datasets: dict[str, Any] = {}
    with Hdf5Output(path) as output:
        for entry in table:
            rows = entry.view(parameters)
            if entry.array not in datasets:
                datasets[entry.array] = output.add(entry.array, entry.shape, dtype="float32")
            datasets[entry.array][entry.first_row : entry.first_row + len(rows)] = rows.numpy()
