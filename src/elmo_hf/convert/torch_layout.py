"""Where AllenNLP's highway layers and LSTMs keep the numbers of ours; ELMoForManyLangs has copies of them.

    pairs += [(arrays, entry) for entry in cell_table("forward_layer_0", config, layer=0, direction=0)]

Two numbers are not the same: a highway's gate is that of the input, which is the negative of ours, and the
bias of the forget gate contains the 1 that our model, as bilm-tf's, adds when it runs.
"""

from collections.abc import Callable, Iterator

from torch import Tensor

from elmo_hf.convert.table import Entry
from elmo_hf.model.configuration_elmo import ElmoConfig

ROUNDING = (
    "the forget gates' bias is stored without the 1 that the model adds, which may round its last digit"
)
# Theirs are i, f, g, o, of which g is our j; ours are i, j, f, o.
OUR_GATES = (0, 2, 1, 3)
FORGET = 1


def highway_table(array: str, parameter: str, filters: int) -> Iterator[Entry]:
    """A highway layer, of which the first half of the rows is the transform and the second the gate."""
    for name, shape in (("weight", (2 * filters, filters)), ("bias", (2 * filters,))):
        yield Entry(f"{array}.{name}", shape, f"{parameter}.transform.{name}")
        carry = f"{parameter}.carry.{name}"
        yield Entry(f"{array}.{name}", shape, carry, first_row=filters, adjust=Tensor.neg_)


def cell_table(array: str, config: ElmoConfig, layer: int, direction: int) -> Iterator[Entry]:
    """An LSTM with projection, one direction of a layer."""
    cells, output = config.lstm_dim, config.output_dim
    width, ours = config.projection_dim if layer == 0 else output, f"elmo.layers.{layer}"
    for name, size, parameter in (
        ("input_linearity", width, "input_weight"),
        ("state_linearity", output, "recurrent_weight"),
    ):
        for gate in range(4):
            view, shape = _gate(direction, gate, cells), (4 * cells, size)
            yield Entry(f"{array}.{name}.weight", shape, f"{ours}.{parameter}", view, gate * cells)
    for gate in range(4):
        view, adjust = _gate(direction, gate, cells), _minus_one if gate == FORGET else None
        bias = f"{array}.state_linearity.bias"
        yield Entry(bias, (4 * cells,), f"{ours}.bias", view, gate * cells, adjust)
    projection = f"{array}.state_projection.weight"
    yield Entry(projection, (output, cells), f"{ours}.projection", lambda weight: weight[direction].T)


def _gate(direction: int, gate: int, cells: int) -> Callable[[Tensor], Tensor]:
    """One of their gates in ours: (2, ..., 4 * cells) -> (cells, ...)"""
    start = OUR_GATES[gate] * cells

    def view(parameter: Tensor) -> Tensor:
        ours = parameter[direction, ..., start : start + cells]
        return ours.T if ours.dim() == 2 else ours

    return view


def _minus_one(bias: Tensor) -> Tensor:
    return bias.sub_(1)
