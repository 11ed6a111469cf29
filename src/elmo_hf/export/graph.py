"""ElmoModel as an ONNX graph, written node by node. `export.py` writes, checks and explains the file.

    graph = build(model.config, weights, first_states, [2], ["vector"])      # an onnx.ModelProto

The walk is that of `modeling_elmo.py`, and so are the names of the weights. Three things differ, and no
number does: each direction of a layer is a `Scan` of its own, which reads the words from the left or from the
right, so that nothing is flipped; a call's equal words are encoded once; and rows of character ids are cut
behind the longest word. What the sentence's begin and end do to the states is worked out beforehand, and each
scan starts from there.

Batch, words and characters are free: rows may be shorter than `max_characters_per_token`, and are filled
up. There must be a place for at least one word, if only of padding, because onnxruntime's Scan takes no less.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from elmo_hf.model.configuration_elmo import ElmoConfig
from elmo_hf.model.words_elmo import WORD_PAD

OPSET = 18
IR_VERSION = 9  # the format's version that goes with it
DIRECTIONS = 2
ZERO, ONE = np.zeros(1, dtype=np.float32), np.ones(1, dtype=np.float32)

Array = np.ndarray


class Nodes:
    """Nodes as they are written, one call each: `y = nodes("MatMul", x, array)`. An array is a constant."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix  # names are one space for a graph and the graphs inside it
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def __call__(self, operator: str, *inputs: str | Array, **attributes: Any) -> str:
        return self.several(1, operator, *inputs, **attributes)[0]

    def several(self, number: int, operator: str, *inputs: str | Array, **attributes: Any) -> list[str]:
        """As a call, with so many outputs."""
        names = [one if isinstance(one, str) else self.constant(one) for one in inputs]
        name = f"{self.prefix}{operator}_{len(self.nodes)}"
        outputs = [f"{name}_{place}" for place in range(number)]
        self.nodes.append(helper.make_node(operator, names, outputs, name=name, **attributes))
        return outputs

    def constant(self, array: Array) -> str:
        name = f"{self.prefix}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def named(self, name: str, output: str) -> None:
        """The graph's output `name` is what that node puts out."""
        self.nodes.append(helper.make_node("Identity", [output], [name], name=f"{self.prefix}{name}"))


def build(
    config: ElmoConfig,
    weights: Mapping[str, Array],
    first_states: tuple[Array, Array],
    layers: Sequence[int],
    names: Sequence[str],
    average: bool = False,
    int8: bool = False,
) -> onnx.ModelProto:
    """The graph from `char_ids` (or `input_ids`) and `attention_mask` to the chosen layers.

    Args:
        weights: float32 arrays by the names of `ElmoModel.state_dict()`.
        first_states: (h, c) after the first step, which reads the sentence's begin, or its end:
            (layers, 2, 1, output_dim) and (layers, 2, 1, lstm_dim).
        layers: their numbers.
        names: of the outputs, one for each layer, or one for their average.
        int8: the LSTMs' weights with eight bits.
    """
    nodes = Nodes()
    ids = "char_ids" if config.token_encoder == "characters" else "input_ids"
    encode = character_words if config.token_encoder == "characters" else table_words
    mask = nodes("Unsqueeze", nodes("Cast", "attention_mask", to=TensorProto.BOOL), integers(2))
    words = nodes("Where", mask, encode(nodes, config, weights), ZERO)
    x, mask = nodes("Transpose", words, perm=[1, 0, 2]), nodes("Transpose", mask, perm=[1, 0, 2])
    found = read(nodes, config, weights, first_states, x, mask, int8)
    chosen = [nodes("Transpose", found[number], perm=[1, 0, 2]) for number in layers]
    chosen = [nodes("Mean", *chosen)] if average else chosen
    for name, layer in zip(names, chosen, strict=True):
        nodes.named(name, layer)
    width = 2 * config.projection_dim if list(layers) == [0] else config.hidden_size
    shapes: dict[str, list[str | int]] = {name: ["batch", "words", width] for name in names}
    inputs: dict[str, list[str | int]] = {ids: ["batch", "words"], "attention_mask": ["batch", "words"]}
    inputs[ids] += ["characters"] if ids == "char_ids" else []
    graph = helper.make_graph(
        nodes.nodes,
        "elmo",
        [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        nodes.constants,
    )
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="elmo_hf")


def integers(*numbers: int) -> Array:
    return np.array(numbers, dtype=np.int64)


def limits(limit: float) -> tuple[Array, Array]:
    return np.array(-limit, dtype=np.float32), np.array(limit, dtype=np.float32)


# ---- characters -> words


def character_words(nodes: Nodes, config: ElmoConfig, weights: Mapping[str, Array]) -> str:
    """char_ids (batch, words, characters) -> (batch, words, projection_dim)"""
    sizes = [nodes("Shape", "char_ids", start=axis, end=axis + 1) for axis in range(3)]
    number = nodes("Mul", sizes[0], sizes[1])
    every = nodes("Reshape", "char_ids", nodes("Concat", number, sizes[2], axis=0))
    different, _, places = nodes.several(3, "Unique", every, axis=0)
    rows = cut(nodes, config, filled_up(nodes, config, different, sizes[2]))
    letters = nodes("Gather", weights["token_encoder.char_embedding.weight"], rows)
    words = convolve(nodes, config, weights, nodes("Transpose", letters, perm=[0, 2, 1]))
    for number_of_highway in range(config.num_highway_layers):
        words = highway(nodes, weights, f"token_encoder.highways.{number_of_highway}", words)
    if config.has_char_projection:
        words = linear(nodes, weights, "token_encoder.projection", words)
    shape = nodes("Concat", sizes[0], sizes[1], integers(config.projection_dim), axis=0)
    return nodes("Reshape", nodes("Gather", words, places), shape)


def filled_up(nodes: Nodes, config: ElmoConfig, rows: str, width: str) -> str:
    """(words, characters) -> (words, max_characters_per_token); longer rows end in an error of `Reshape`."""
    length = config.max_characters_per_token
    missing = nodes("Max", nodes("Sub", integers(length), width), integers(0))
    pads = nodes("Concat", integers(0, 0, 0), missing, axis=0)
    return nodes("Reshape", nodes("Pad", rows, pads, np.array(WORD_PAD)), integers(0, length))


def cut(nodes: Nodes, config: ElmoConfig, rows: str) -> str:
    """Without what lies behind the longest word, but for one window of padding for each filter.

    All windows that start behind a word's end see the same, so that one of them has the maximum of all.
    """
    length, widest = config.max_characters_per_token, max(width for width, _ in config.char_filters or [])
    is_letter = nodes("And", nodes("Greater", rows, np.array(0)), nodes("Less", rows, np.array(WORD_PAD)))
    ends = nodes("Mul", nodes("Cast", is_letter, to=TensorProto.INT64), np.arange(1, length + 1))
    longest = nodes("Reshape", nodes("ReduceMax", ends, keepdims=0), integers(1))
    width = nodes("Min", nodes("Add", longest, integers(widest)), integers(length))
    return nodes("Slice", rows, integers(0), width, integers(1))


def convolve(nodes: Nodes, config: ElmoConfig, weights: Mapping[str, Array], letters: str) -> str:
    """(words, char_embedding_dim, characters) -> (words, filters)"""
    activation, found = {"relu": "Relu", "tanh": "Tanh"}[config.char_activation], []
    for number in range(len(config.char_filters or [])):
        name = f"token_encoder.convolutions.{number}"
        places = nodes("Conv", letters, weights[f"{name}.weight"], weights[f"{name}.bias"])
        found.append(nodes(activation, nodes("ReduceMax", places, integers(2), keepdims=0)))
    return nodes("Concat", *found, axis=1)


def highway(nodes: Nodes, weights: Mapping[str, Array], name: str, x: str) -> str:
    gate = nodes("Sigmoid", linear(nodes, weights, f"{name}.carry", x))
    new = nodes("Relu", linear(nodes, weights, f"{name}.transform", x))
    kept = nodes("Mul", nodes("Sub", ONE, gate), x)
    return nodes("Add", nodes("Mul", gate, new), kept)


def linear(nodes: Nodes, weights: Mapping[str, Array], name: str, x: str) -> str:
    return nodes("Add", nodes("MatMul", x, weights[f"{name}.weight"].T), weights[f"{name}.bias"])


def table_words(nodes: Nodes, config: ElmoConfig, weights: Mapping[str, Array]) -> str:
    """input_ids (batch, words) -> (batch, words, projection_dim). Padding's id is one past the table."""
    is_padding = nodes("Equal", "input_ids", np.array(config.pad_token_id or 0))
    ids = nodes("Where", is_padding, np.array(0), "input_ids")
    return nodes("Gather", weights["token_encoder.word_embedding.weight"], ids)


# ---- words -> words in their context


def read(
    nodes: Nodes,
    config: ElmoConfig,
    weights: Mapping[str, Array],
    first_states: tuple[Array, Array],
    x: str,
    mask: str,
    int8: bool,
) -> list[str]:
    """(words, batch, projection_dim), (words, batch, 1) -> all layers (words, batch, 2 * size)"""
    batch = nodes("Shape", x, start=1, end=2)
    halves, layers = [x] * DIRECTIONS, [nodes("Concat", x, x, axis=2)]
    for index in range(config.num_hidden_layers):
        for direction in range(DIRECTIONS):
            own = {
                name: weights[f"layers.{index}.{name}"][direction]
                for name in ("input_weight", "recurrent_weight", "bias", "projection")
                if f"layers.{index}.{name}" in weights
            }
            states = [
                nodes("Expand", state[index, direction], nodes("Concat", batch, integers(1), axis=0))
                for state in first_states
            ]
            step = one_step(config, own, f"layer_{index}_{direction}_", int8)
            new = scan(nodes, own, step, halves[direction], mask, states, direction, int8)
            adds_input = config.use_skip_connections and index > 0
            halves[direction] = nodes("Add", new, halves[direction]) if adds_input else new
        layers.append(nodes("Concat", *halves, axis=2))
    return layers


def scan(
    nodes: Nodes,
    own: Mapping[str, Array],
    step: onnx.GraphProto,
    x: str,
    mask: str,
    states: list[str],
    direction: int,
    int8: bool,
) -> str:
    """One direction of a layer over all words: (words, batch, width) -> (words, batch, output_dim)"""
    bias = own["bias"].copy()
    cells = len(bias) // 4
    bias[2 * cells : 3 * cells] += 1  # the forget gate's
    from_input = nodes("Add", product(nodes, x, own["input_weight"], int8), bias)
    settings: dict[str, Any] = {"body": step, "num_scan_inputs": 2, "scan_input_directions": [direction] * 2}
    inputs = [*states, from_input, mask]
    return nodes.several(3, "Scan", *inputs, scan_output_directions=[direction], **settings)[2]


def one_step(config: ElmoConfig, own: Mapping[str, Array], prefix: str, int8: bool) -> onnx.GraphProto:
    """An LSTM's step, line by line that of `modeling_elmo.lstm`: h, c, gates and mask -> h, c and output"""
    nodes = Nodes(prefix)
    h, c, from_input, is_word = (prefix + name for name in ("h", "c", "from_input", "is_word"))
    gates = nodes("Add", from_input, product(nodes, h, own["recurrent_weight"], int8))
    i, j, f, o = nodes.several(4, "Split", gates, axis=1, num_outputs=4)
    kept = nodes("Mul", nodes("Sigmoid", f), c)
    new_c = nodes("Add", kept, nodes("Mul", nodes("Sigmoid", i), nodes("Tanh", j)))
    if config.cell_clip is not None:
        new_c = nodes("Clip", new_c, *limits(config.cell_clip))
    new_h = nodes("Mul", nodes("Sigmoid", o), nodes("Tanh", new_c))
    if "projection" in own:
        new_h = product(nodes, new_h, own["projection"], int8)
        if config.proj_clip is not None:
            new_h = nodes("Clip", new_h, *limits(config.proj_clip))
    nodes.named(f"{prefix}next_h", nodes("Where", is_word, new_h, h))
    nodes.named(f"{prefix}next_c", nodes("Where", is_word, new_c, c))
    nodes.named(f"{prefix}output", nodes("Where", is_word, new_h, ZERO))
    sizes: dict[str, int] = {"h": config.output_dim, "c": config.lstm_dim, "from_input": 4 * config.lstm_dim}
    inputs = [value(prefix + name, size) for name, size in sizes.items()]
    inputs.append(value(is_word, 1, TensorProto.BOOL))
    sizes = {"next_h": config.output_dim, "next_c": config.lstm_dim, "output": config.output_dim}
    outputs = [value(prefix + name, size) for name, size in sizes.items()]
    return helper.make_graph(nodes.nodes, prefix.strip("_"), inputs, outputs, nodes.constants)


def value(name: str, size: int, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, ["batch", size])


def product(nodes: Nodes, x: str, weight: Array, int8: bool) -> str:
    """(..., inner) times (inner, columns). With eight bits x, too, is rounded, by one scale for all of it.

    A column of the weight has a scale of its own. Both are unsigned, because sums of signed and unsigned
    bytes overflow on older processors.
    """
    if not int8:
        return nodes("MatMul", x, weight)
    scale = np.maximum(np.abs(weight).max(axis=0), np.finfo(np.float32).tiny) / np.float32(127)
    bytes_of_weight = (np.rint(weight / scale) + 128).astype(np.uint8)
    x_bytes, x_scale, x_zero = nodes.several(3, "DynamicQuantizeLinear", x)
    total = nodes("MatMulInteger", x_bytes, bytes_of_weight, x_zero, np.array(128, dtype=np.uint8))
    return nodes("Mul", nodes("Cast", total, to=TensorProto.FLOAT), nodes("Mul", x_scale, scale))
