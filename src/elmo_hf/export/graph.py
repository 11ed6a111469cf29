"""ElmoModel as an ONNX graph, written node by node. `onnx.py` writes and checks the file.

    graph = build(model.config, weights, (h, c), [2], ["vector"])      # an onnx.ModelProto

The graph follows `encoders_elmo.py` and `modeling_elmo.py`, with the same names of weights. It differs in
three ways that change no number: each direction of a layer is a `Scan` of its own, from the left or from the
right, so that nothing is reversed; equal words of a call are encoded once; rows of character ids are cut
after the longest word. The states after the begin and the end of a sentence are constants, from which each
scan starts; stacked LSTMs read begin and end with the words.

The numbers of sentences, words and characters are free: rows with fewer characters than the model's are
padded. There must be room for at least one word, since onnxruntime's Scan takes no empty sequence.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from elmo_hf.model.configuration_elmo import ElmoConfig

OPSET = 18
IR_VERSION = 9  # the version of the format that OPSET belongs to
DIRECTIONS = 2
ZERO, ONE = np.zeros(1, dtype=np.float32), np.ones(1, dtype=np.float32)

Array = np.ndarray
Weights = Mapping[str, Array]


class Nodes:
    """The nodes of a graph, added by calls: `y = nodes("MatMul", x, array)`. An array becomes a constant."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix  # names must differ between a graph and the graphs inside it
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def __call__(self, operator: str, *inputs: str | Array, **attributes: Any) -> str:
        """Add a node with one output, whose name is returned."""
        return self.several(1, operator, *inputs, **attributes)[0]

    def several(self, number: int, operator: str, *inputs: str | Array, **attributes: Any) -> list[str]:
        """Add a node with `number` outputs, whose names are returned."""
        names = [x if isinstance(x, str) else self.constant(x) for x in inputs]
        name = f"{self.prefix}{operator}_{len(self.nodes)}"
        outputs = [f"{name}_{index}" for index in range(number)]
        self.nodes.append(helper.make_node(operator, names, outputs, name=name, **attributes))
        return outputs

    def constant(self, array: Array) -> str:
        name = f"{self.prefix}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def output(self, name: str, value: str) -> None:
        """Make `value` the graph's output `name`."""
        self.nodes.append(helper.make_node("Identity", [value], [name], name=f"{self.prefix}{name}"))


def build(
    config: ElmoConfig,
    weights: Weights,
    first: tuple[Array, Array],
    layers: Sequence[int],
    names: Sequence[str],
    average: bool = False,
    int8: bool = False,
) -> onnx.ModelProto:
    """The graph from `char_ids` (or `input_ids`) and `attention_mask` to the chosen layers.

    Args:
        config: The model's.
        weights: float32 arrays by the names of `ElmoModel.state_dict()`.
        first: (h, c) after the first step, which reads the begin of the sentence (forward) or its end
            (backward): (layers, 2, 1, output_dim) and (layers, 2, 1, lstm_dim). For stacked LSTMs, the
            vectors of begin and end, each (projection_dim).
        layers: The numbers of the chosen layers.
        names: The names of the outputs, one for each layer, or one for their average.
        average: Whether the output is the average of the layers.
        int8: Whether the LSTMs' weights are rounded to int8.
    """
    nodes = Nodes()
    ids = "char_ids" if config.token_encoder == "characters" else "input_ids"
    encode = encode_characters if config.token_encoder == "characters" else look_up_words
    mask = nodes("Unsqueeze", nodes("Cast", "attention_mask", to=TensorProto.BOOL), integers(2))
    words = nodes("Where", mask, encode(nodes, config, weights), ZERO)
    x, mask = nodes("Transpose", words, perm=[1, 0, 2]), nodes("Transpose", mask, perm=[1, 0, 2])
    run = run_stack if config.stacked_lstm_layers else run_layers
    hidden = run(nodes, config, weights, first, x, mask, int8)
    chosen = [nodes("Transpose", hidden[number], perm=[1, 0, 2]) for number in layers]
    chosen = [nodes("Mean", *chosen)] if average else chosen
    for name, layer in zip(names, chosen, strict=True):
        nodes.output(name, layer)
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


# ---- characters -> word vectors


def encode_characters(nodes: Nodes, config: ElmoConfig, weights: Weights) -> str:
    """char_ids (batch, words, characters, and 1 + the word's id) -> (batch, words, projection_dim)"""
    batch, num_words, length = (nodes("Shape", "char_ids", start=n, end=n + 1) for n in range(3))
    flat_shape = nodes("Concat", nodes("Mul", batch, num_words), length, axis=0)
    rows, _, indices = nodes.several(3, "Unique", nodes("Reshape", "char_ids", flat_shape), axis=0)
    characters, num_characters, word_ids = rows, length, ""
    if config.reads_word_column:
        num_characters = nodes("Sub", length, integers(1))
        characters = nodes("Slice", rows, integers(0), num_characters, integers(1))
        word_ids = nodes("Slice", rows, num_characters, length, integers(1))
    characters = cut(nodes, config, pad(nodes, config, characters, num_characters))
    embedded = nodes("Gather", weights["token_encoder.char_embedding.weight"], characters)
    words = convolve(nodes, config, weights, nodes("Transpose", embedded, perm=[0, 2, 1]))
    for k in range(config.num_highway_layers):
        words = highway(nodes, weights, f"token_encoder.highways.{k}", words)
    if config.reads_word_column:
        words = nodes("Concat", word_vectors(nodes, weights, word_ids), words, axis=1)
    if config.has_char_projection:
        words = linear(nodes, weights, "token_encoder.projection", words)
    shape = nodes("Concat", batch, num_words, integers(config.projection_dim), axis=0)
    return nodes("Reshape", nodes("Gather", words, indices), shape)


def word_vectors(nodes: Nodes, weights: Weights, word_ids: str) -> str:
    """1 + the words' ids, or 0 where there is no word, (words, 1) -> (words, word_embedding_dim)"""
    ids = nodes("Max", nodes("Sub", word_ids, integers(1)), integers(0))
    return nodes("Gather", weights["token_encoder.word_embedding.weight"], nodes("Squeeze", ids, integers(1)))


def pad(nodes: Nodes, config: ElmoConfig, rows: str, width: str) -> str:
    """(words, characters) -> (words, max_characters_per_token); for longer rows `Reshape` fails."""
    length = config.max_characters_per_token
    missing = nodes("Max", nodes("Sub", integers(length), width), integers(0))
    pads = nodes("Concat", integers(0, 0, 0), missing, axis=0)
    return nodes("Reshape", nodes("Pad", rows, pads, np.array(padding_of(config))), integers(0, length))


def padding_of(config: ElmoConfig) -> int:
    """The id that fills a word's row."""
    assert config.boundary_characters is not None
    return config.boundary_characters[-1]


def cut(nodes: Nodes, config: ElmoConfig, rows: str) -> str:
    """Cut the columns after the longest word, except one window of padding of the widest filter.

    All windows that start after the end of a word see the same ids, so that one of them suffices for the
    maximum.
    """
    length, widest = config.max_characters_per_token, max(width for width, _ in config.char_filters or [])
    is_padding = nodes(
        "Or", nodes("Equal", rows, np.array(0)), nodes("Equal", rows, np.array(padding_of(config)))
    )
    is_character = nodes("Not", is_padding)
    ends = nodes("Mul", nodes("Cast", is_character, to=TensorProto.INT64), np.arange(1, length + 1))
    longest = nodes("Reshape", nodes("ReduceMax", ends, keepdims=0), integers(1))
    width = nodes("Min", nodes("Add", longest, integers(widest)), integers(length))
    return nodes("Slice", rows, integers(0), width, integers(1))


def convolve(nodes: Nodes, config: ElmoConfig, weights: Weights, x: str) -> str:
    """(words, char_embedding_dim, characters) -> (words, filters)"""
    activation, pooled = {"relu": "Relu", "tanh": "Tanh"}[config.char_activation], []
    for i in range(len(config.char_filters or [])):
        name = f"token_encoder.convolutions.{i}"
        windows = nodes("Conv", x, weights[f"{name}.weight"], weights[f"{name}.bias"])
        pooled.append(nodes(activation, nodes("ReduceMax", windows, integers(2), keepdims=0)))
    return nodes("Concat", *pooled, axis=1)


def highway(nodes: Nodes, weights: Weights, name: str, x: str) -> str:
    """g = sigmoid(carry(x)); y = g * relu(transform(x)) + (1 - g) * x"""
    gate = nodes("Sigmoid", linear(nodes, weights, f"{name}.carry", x))
    transformed = nodes("Relu", linear(nodes, weights, f"{name}.transform", x))
    carried = nodes("Mul", nodes("Sub", ONE, gate), x)
    return nodes("Add", nodes("Mul", gate, transformed), carried)


def linear(nodes: Nodes, weights: Weights, name: str, x: str) -> str:
    return nodes("Add", nodes("MatMul", x, weights[f"{name}.weight"].T), weights[f"{name}.bias"])


def look_up_words(nodes: Nodes, config: ElmoConfig, weights: Weights) -> str:
    """input_ids (batch, words) -> (batch, words, projection_dim). The table has no row for padding's id."""
    is_padding = nodes("Equal", "input_ids", np.array(config.pad_token_id or 0))
    ids = nodes("Where", is_padding, np.array(0), "input_ids")
    words = nodes("Gather", weights["token_encoder.word_embedding.weight"], ids)
    return linear(nodes, weights, "token_encoder.projection", words) if config.word_embedding_dim else words


# ---- word vectors -> words in their context


def run_layers(
    nodes: Nodes,
    config: ElmoConfig,
    weights: Weights,
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
            lstm = {
                name: weights[f"layers.{index}.{name}"][direction]
                for name in ("input_weight", "recurrent_weight", "bias", "projection")
                if f"layers.{index}.{name}" in weights
            }
            states = [
                nodes("Expand", state[index, direction], nodes("Concat", batch, integers(1), axis=0))
                for state in first_states
            ]
            clips = config.cell_clip, config.proj_clip
            step = lstm_step(lstm, clips, f"layer_{index}_{direction}_", int8)
            output = scan(nodes, lstm, step, halves[direction], mask, states, direction, int8)
            has_residual = config.use_skip_connections and index > 0
            halves[direction] = nodes("Add", output, halves[direction]) if has_residual else output
        layers.append(nodes("Concat", *halves, axis=2))
    return layers


def scan(
    nodes: Nodes,
    lstm: Weights,
    step: onnx.GraphProto,
    x: str,
    mask: str,
    states: list[str],
    direction: int,
    int8: bool,
) -> str:
    """One direction of a layer over all words: (words, batch, width) -> (words, batch, output_dim)"""
    bias = lstm["bias"].copy()
    cells = len(bias) // 4
    bias[2 * cells : 3 * cells] += 1  # the forget gate's
    from_input = nodes("Add", product(nodes, x, lstm["input_weight"], int8), bias)
    settings: dict[str, Any] = {"body": step, "num_scan_inputs": 2, "scan_input_directions": [direction] * 2}
    inputs = [*states, from_input, mask]
    return nodes.several(3, "Scan", *inputs, scan_output_directions=[direction], **settings)[2]


def lstm_step(
    lstm: Weights, clips: tuple[float | None, float | None], prefix: str, int8: bool
) -> onnx.GraphProto:
    """A step of `modeling_elmo.lstm`, line by line: h, c, gates, mask -> next h, next c, output"""
    nodes, (cell_clip, proj_clip) = Nodes(prefix), clips
    output_dim, gates_dim = lstm["recurrent_weight"].shape
    cells = gates_dim // 4
    h, c, from_input, is_word = (prefix + name for name in ("h", "c", "from_input", "is_word"))
    gates = nodes("Add", from_input, product(nodes, h, lstm["recurrent_weight"], int8))
    i, j, f, o = nodes.several(4, "Split", gates, axis=1, num_outputs=4)
    remembered = nodes("Mul", nodes("Sigmoid", f), c)
    next_c = nodes("Add", remembered, nodes("Mul", nodes("Sigmoid", i), nodes("Tanh", j)))
    next_c = clip(nodes, next_c, cell_clip)
    next_h = nodes("Mul", nodes("Sigmoid", o), nodes("Tanh", next_c))
    if "projection" in lstm:
        next_h = clip(nodes, product(nodes, next_h, lstm["projection"], int8), proj_clip)
    nodes.output(f"{prefix}next_h", nodes("Where", is_word, next_h, h))
    nodes.output(f"{prefix}next_c", nodes("Where", is_word, next_c, c))
    nodes.output(f"{prefix}output", nodes("Where", is_word, next_h, ZERO))
    sizes = {"h": output_dim, "c": cells, "from_input": gates_dim}
    inputs = [tensor(prefix + name, size) for name, size in sizes.items()]
    inputs.append(tensor(is_word, 1, TensorProto.BOOL))
    sizes = {"next_h": output_dim, "next_c": cells, "output": output_dim}
    outputs = [tensor(prefix + name, size) for name, size in sizes.items()]
    return helper.make_graph(nodes.nodes, prefix.strip("_"), inputs, outputs, nodes.constants)


def run_stack(
    nodes: Nodes,
    config: ElmoConfig,
    weights: Weights,
    boundaries: tuple[Array, Array],
    x: str,
    mask: str,
    int8: bool,
) -> list[str]:
    """As `run_layers`, for stacked LSTMs, each of which reads both directions of the one below."""
    batch = nodes("Shape", x, start=1, end=2)
    one_step = nodes("Concat", integers(1), batch, integers(1), axis=0)
    begin, end = (nodes("Expand", vector[None, None], one_step) for vector in boundaries)
    is_word = nodes("Expand", np.ones((1, 1, 1), dtype=bool), one_step)
    h, mask = nodes("Concat", begin, x, end, axis=0), nodes("Concat", is_word, mask, is_word, axis=0)
    zeros = np.zeros((1, config.lstm_dim), dtype=np.float32)
    states = [nodes("Expand", zeros, nodes("Concat", batch, integers(1), axis=0))] * 2
    halves: list[str] = []
    for index in range(config.stacked_lstm_layers):
        halves = []
        for direction, name in enumerate(("forward", "backward")):
            lstm = from_torch(weights, f"layers.0.rnn.{name}_layers.{index}")
            step = lstm_step(lstm, (None, None), f"stack_{index}_{direction}_", int8)
            halves.append(scan(nodes, lstm, step, h, mask, states, direction, int8))
        h = nodes("Concat", *halves, axis=2)
    outputs = nodes(
        "Concat", *(linear(nodes, weights, "layers.0.projection", half) for half in halves), axis=2
    )
    top = nodes("Slice", nodes("Where", mask, outputs, ZERO), integers(1), integers(-1), integers(0))
    return [nodes("Concat", x, x, axis=2), top]


def from_torch(weights: Weights, name: str) -> dict[str, Array]:
    """The weights of an `nn.LSTM`, whose gates are i, f, j, o, laid out for `scan` and `lstm_step`."""

    def reordered(array: Array) -> Array:
        i, f, j, o = np.split(array, 4)
        return np.concatenate([i, j, f, o]).T

    bias = reordered(weights[f"{name}.bias_ih_l0"] + weights[f"{name}.bias_hh_l0"])
    cells = len(bias) // 4
    bias[2 * cells : 3 * cells] -= 1  # which `scan` adds
    inputs, states = (reordered(weights[f"{name}.weight_{kind}_l0"]) for kind in ("ih", "hh"))
    return {"input_weight": inputs, "recurrent_weight": states, "bias": bias}


def clip(nodes: Nodes, x: str, limit: float | None) -> str:
    if limit is None:
        return x
    return nodes("Clip", x, np.array(-limit, dtype=np.float32), np.array(limit, dtype=np.float32))


def tensor(name: str, size: int, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, ["batch", size])


def product(nodes: Nodes, x: str, weight: Array, int8: bool) -> str:
    """(..., inner) times (inner, columns). With int8, x is rounded as well, with one scale for all of it.

    Each column of the weight has its own scale. Both are unsigned, because sums of products of signed and
    unsigned bytes overflow on older processors.
    """
    if not int8:
        return nodes("MatMul", x, weight)
    scale = np.maximum(np.abs(weight).max(axis=0), np.finfo(np.float32).tiny) / np.float32(127)
    weight_bytes = (np.rint(weight / scale) + 128).astype(np.uint8)
    x_bytes, x_scale, x_zero = nodes.several(3, "DynamicQuantizeLinear", x)
    total = nodes("MatMulInteger", x_bytes, weight_bytes, x_zero, np.array(128, dtype=np.uint8))
    return nodes("Mul", nodes("Cast", total, to=TensorProto.FLOAT), nodes("Mul", x_scale, scale))
