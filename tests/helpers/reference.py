"""ELMo in float64 numpy, written from the published description of the formats alone: what the tests hold
the package to. It imports nothing of the package, knows no batches and no padding, and is slow and plain.

    model = Elmo(options(n_layers=3), random_weights(options(n_layers=3), seed=0))
    layers, states = model.run([["A", "sentence"], []])
    layers[0][1]                                        # first sentence, layer 1: (words, 2 * P)

Sizes in the shapes below: P `projection_dim`, D `dim` (the LSTM's cells), V words, d size of a character's
vector, F number of filters. An LSTM without projection puts out D numbers in place of P.
"""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

Array = np.ndarray
Options = dict[str, Any]
Weights = dict[str, Array]
States = tuple[Array, Array]
Sentence = list[str]

BEGIN_SENTENCE, END_SENTENCE, BEGIN_WORD, END_WORD, PAD = 256, 257, 258, 259, 260


# Options and weights as files hold them.


def options(
    dim: int = 12,
    projection_dim: int = 8,
    n_layers: int = 2,
    cell_clip: float | None = 0.75,
    proj_clip: float | None = 0.25,
    use_skip_connections: bool = True,
    char_dim: int = 4,
    filters: tuple[tuple[int, int], ...] = ((1, 4), (2, 5), (3, 6)),
    n_highway: int = 2,
    max_characters: int = 50,
    activation: str = "relu",
    word_level: bool = False,
) -> Options:
    """The content of an options.json: small, and clips that differ and are low enough to be reached."""
    lstm = {
        "dim": dim,
        "projection_dim": projection_dim,
        "n_layers": n_layers,
        "cell_clip": cell_clip,
        "proj_clip": proj_clip,
        "use_skip_connections": use_skip_connections,
    }
    char_cnn = {
        "embedding": {"dim": char_dim},
        "filters": [list(pair) for pair in filters],
        "n_highway": n_highway,
        "n_characters": 262,
        "max_characters_per_token": max_characters,
        "activation": activation,
    }
    return {"lstm": lstm} if word_level else {"lstm": lstm, "char_cnn": char_cnn}


def random_options(seed: int = 0, **overrides: Any) -> Options:
    """Any variant: every setting drawn at random."""
    rng = np.random.default_rng(seed)
    choices: dict[str, list[Any]] = {
        "dim": [4, 7, 12],
        "projection_dim": [3, 7, 8],
        "n_layers": [1, 2, 3],
        "cell_clip": [None, 0.75, 3],
        "proj_clip": [None, 0.25, 3],
        "use_skip_connections": [False, True],
        "char_dim": [1, 4],
        "filters": [((1, 3),), ((1, 3), (2, 4)), ((3, 8),), ((1, 2), (5, 5), (7, 3))],
        "n_highway": [0, 1, 2],
        "max_characters": [7, 20, 50],
        "activation": ["relu", "tanh"],
    }
    drawn = {name: values[rng.integers(len(values))] for name, values in choices.items()}
    return options(**{**drawn, **overrides})


def is_projected(options: Options) -> bool:
    return options["lstm"]["projection_dim"] < options["lstm"]["dim"]


def output_dim(options: Options) -> int:
    """Size of one direction's output."""
    return options["lstm"]["projection_dim" if is_projected(options) else "dim"]


def weight_shapes(options: Options, vocab_size: int | None, char_projection: bool | None) -> dict[str, Any]:
    """The datasets of a weights.hdf5 and their shapes."""
    dim, width, out = options["lstm"]["dim"], options["lstm"]["projection_dim"], output_dim(options)
    shapes: dict[str, Any] = {}
    if "char_cnn" in options:
        shapes |= character_shapes(options["char_cnn"], width, char_projection)
    else:
        shapes["embedding"] = (vocab_size, width)
    for direction in range(2):
        for layer in range(options["lstm"]["n_layers"]):
            cell = lstm_path(direction, layer)
            shapes[f"{cell}/W_0"] = ((width if layer == 0 else out) + out, 4 * dim)
            shapes[f"{cell}/B"] = (4 * dim,)
            if is_projected(options):
                shapes[f"{cell}/W_P_0"] = (dim, width)
    return shapes


def character_shapes(char_cnn: Options, width: int, char_projection: bool | None) -> dict[str, Any]:
    char_dim, num_filters = char_cnn["embedding"]["dim"], sum(number for _, number in char_cnn["filters"])
    shapes: dict[str, Any] = {"char_embed": (261, char_dim)}
    for i, (length, number) in enumerate(char_cnn["filters"]):
        shapes |= {f"CNN/W_cnn_{i}": (1, length, char_dim, number), f"CNN/b_cnn_{i}": (number,)}
    for k in range(char_cnn.get("n_highway", 0)):
        for gate in ("carry", "transform"):
            shapes[f"CNN_high_{k}/W_{gate}"] = (num_filters, num_filters)
            shapes[f"CNN_high_{k}/b_{gate}"] = (num_filters,)
    if num_filters != width if char_projection is None else char_projection:
        shapes |= {"CNN_proj/W_proj": (num_filters, width), "CNN_proj/b_proj": (width,)}
    return shapes


def random_weights(
    options: Options,
    seed: int,
    scale: float = 1.0,
    vocab_size: int | None = None,
    char_projection: bool | None = None,
) -> Weights:
    """Normal weights over the square root of the inputs they add up; `scale` is for the LSTMs' weights.

    A linear layer follows the filters if the sizes differ; `char_projection` says otherwise.
    """
    rng = np.random.default_rng(seed)
    weights = {}
    for path, shape in weight_shapes(options, vocab_size, char_projection).items():
        factor = scale if path.startswith("RNN") else 1.0
        if path not in ("char_embed", "embedding"):
            factor /= np.sqrt(np.prod(shape[:-1]))
        weights[path] = (rng.normal(size=shape) * factor).astype(np.float32)
    return weights


def random_softmax(options: Options, seed: int, vocab_size: int) -> Weights:
    rng = np.random.default_rng(seed)
    shape = (vocab_size, output_dim(options))
    return {
        "softmax/W": rng.normal(size=shape).astype(np.float32),
        "softmax/b": rng.normal(size=vocab_size).astype(np.float32),
    }


def write_hdf5(path: Path | str, arrays: Weights) -> None:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array


def lstm_path(direction: int, layer: int) -> str:
    return f"RNN_{direction}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"


# The model.


def character_ids(word: str, max_characters: int = 50) -> list[int]:
    """A word as its bytes between word-begin and word-end, all shifted by one: 0 is for "no word here"."""
    if word == "<S>":
        content = [BEGIN_SENTENCE]
    elif word == "</S>":
        content = [END_SENTENCE]
    else:
        content = list(word.encode("utf-8")[: max_characters - 2])
    ids = [BEGIN_WORD, *content, END_WORD]
    ids += [PAD] * (max_characters - len(ids))
    return [i + 1 for i in ids]


def sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * x))


def clip(x: Array, limit: float | None) -> Array:
    return x if limit is None else np.clip(x, -limit, limit)


class Elmo:
    """`vocabulary` names the rows of `embedding`, for a model with word vectors in place of characters."""

    def __init__(self, options: Options, weights: Weights, vocabulary: list[str] | None = None) -> None:
        self.lstm, self.char_cnn = options["lstm"], options.get("char_cnn")
        self.output_dim = output_dim(options)
        self.weights = {name: np.asarray(array, np.float64) for name, array in weights.items()}
        self.vocabulary = vocabulary

    # One word.

    def word_vector(self, word: str) -> Array:
        """-> (P,)"""
        if self.char_cnn is None:
            assert self.vocabulary is not None
            known = word if word in self.vocabulary else "<UNK>"
            return self.weights["embedding"][self.vocabulary.index(known)]
        x = self.convolve(character_ids(word, self.char_cnn["max_characters_per_token"]))
        for k in range(self.char_cnn.get("n_highway", 0)):
            x = self.highway(k, x)
        if "CNN_proj/W_proj" in self.weights:
            x = x @ self.weights["CNN_proj/W_proj"] + self.weights["CNN_proj/b_proj"]
        return x

    def convolve(self, ids: list[int]) -> Array:
        """Every filter's maximum over the places where it fits. -> (F,)"""
        table = self.weights["char_embed"]
        x = np.concatenate([np.zeros_like(table[:1]), table])[ids]
        activation = {"relu": lambda y: np.maximum(y, 0), "tanh": np.tanh}[self.char_cnn["activation"]]
        parts = []
        for i, (width, _) in enumerate(self.char_cnn["filters"]):
            kernel, bias = self.weights[f"CNN/W_cnn_{i}"][0], self.weights[f"CNN/b_cnn_{i}"]
            windows = [x[start : start + width] for start in range(len(x) - width + 1)]
            places = np.einsum("twd,wdn->tn", np.stack(windows), kernel) + bias
            parts.append(activation(places.max(axis=0)))
        return np.concatenate(parts)

    def highway(self, k: int, x: Array) -> Array:
        weight = {name: self.weights[f"CNN_high_{k}/{name}"] for name in ("W_carry", "W_transform")}
        bias = {name: self.weights[f"CNN_high_{k}/{name}"] for name in ("b_carry", "b_transform")}
        gate = sigmoid(x @ weight["W_carry"] + bias["b_carry"])
        return gate * np.maximum(x @ weight["W_transform"] + bias["b_transform"], 0) + (1 - gate) * x

    # One sentence in one direction.

    def cell(self, path: str, x: Array, h: Array, c: Array) -> States:
        """One step of one LSTM. x: (input,), h: (out,), c: (D,)"""
        gates = np.concatenate([x, h]) @ self.weights[f"{path}/W_0"] + self.weights[f"{path}/B"]
        i, j, f, o = np.split(gates, 4)
        c = clip(sigmoid(f + 1) * c + sigmoid(i) * np.tanh(j), self.lstm.get("cell_clip"))
        h = sigmoid(o) * np.tanh(c)
        if f"{path}/W_P_0" in self.weights:
            h = clip(h @ self.weights[f"{path}/W_P_0"], self.lstm.get("proj_clip"))
        return h, c

    def stack(self, direction: int, x: Array, h: Array, c: Array) -> tuple[list[Array], Array, Array]:
        """All layers over a sentence in reading order. x: (words, P), h: (layers, out), c: (layers, D)"""
        layers, h, c = [x], h.copy(), c.copy()
        for layer in range(self.lstm["n_layers"]):
            outputs = []
            for word in layers[-1]:
                h[layer], c[layer] = self.cell(lstm_path(direction, layer), word, h[layer], c[layer])
                outputs.append(h[layer].copy())
            skip = self.lstm.get("use_skip_connections") and layer > 0
            layers.append(np.stack(outputs) + (layers[-1] if skip else 0))
        return layers, h, c

    # One sentence, then a batch of them.

    def read(self, words: Sentence, h: Array, c: Array) -> tuple[list[list[Array]], Array, Array]:
        """Per direction the layers of `<S> words </S>`. h: (layers, 2, out), c: (layers, 2, D)"""
        x = np.stack([self.word_vector(word) for word in ["<S>", *words, "</S>"]])
        forward, h0, c0 = self.stack(0, x, h[:, 0], c[:, 0])
        backward, h1, c1 = self.stack(1, x[::-1], h[:, 1], c[:, 1])
        both = [forward, [layer[::-1] for layer in backward]]
        return both, np.stack([h0, h1], axis=1), np.stack([c0, c1], axis=1)

    def run(self, sentences: list[Sentence], states: States | None = None) -> tuple[list, States]:
        """Layers of every sentence, without its begin and end, and the states: (layers, 2, rows, size) each.

        Row i goes on from state i. New rows start from zeros, rows that were not used keep their state.
        """
        h, c = self.initial(states, len(sentences))
        layers = []
        for row, words in enumerate(sentences):
            (forward, backward), h[:, :, row], c[:, :, row] = self.read(words, h[:, :, row], c[:, :, row])
            pairs = zip(forward, backward, strict=True)
            layers.append([np.concatenate([f[1:-1], b[1:-1]], axis=1) for f, b in pairs])
        return layers, (h, c)

    def initial(self, states: States | None, rows: int) -> States:
        n_layers, sizes = self.lstm["n_layers"], (self.output_dim, self.lstm["dim"])
        if states is None:
            states = tuple(np.zeros((n_layers, 2, 0, size)) for size in sizes)
        missing = max(0, rows - states[0].shape[2])
        new = [np.zeros((n_layers, 2, missing, size)) for size in sizes]
        h, c = (np.concatenate(pair, axis=2) for pair in zip(states, new, strict=True))
        return h, c

    # The language model.

    def losses(
        self, sentences: list[Sentence], ids: list[list[int]], softmax: Weights, begin: int = 0, end: int = 1
    ) -> tuple[float, float, int]:
        """Mean loss forward, backward, and the number of words that each direction predicts.

        `ids` are the word ids of `sentences`. Forward reads `<S> w1 ... wn` and predicts `w1 ... wn </S>`,
        backward reads `</S> wn ... w1` and predicts `wn ... w1 <S>`.
        """
        forward_losses, backward_losses = [], []
        zeros = [state[:, :, 0] for state in self.initial(None, 1)]
        for words, word_ids in zip(sentences, ids, strict=True):
            (forward, backward), _, _ = self.read(words, *zeros)
            forward_losses += cross_entropies(forward[-1][:-1], [*word_ids, end], softmax)
            backward_losses += cross_entropies(backward[-1][1:], [begin, *word_ids], softmax)
        count = len(forward_losses)
        return sum(forward_losses) / count, sum(backward_losses) / count, count


def cross_entropies(outputs: Array, targets: list[int], softmax: Weights) -> list[float]:
    """outputs: (words, out)"""
    logits = outputs @ softmax["softmax/W"].astype(np.float64).T + softmax["softmax/b"]
    top = logits.max(axis=1, keepdims=True)
    log_sums = top[:, 0] + np.log(np.exp(logits - top).sum(axis=1))
    return [log_sums[row] - logits[row, target] for row, target in enumerate(targets)]


def scalar_mix(
    layers: list[list[Array]], weights: Array, gamma: float, layer_norm: bool = False
) -> list[Array]:
    """`gamma * sum_k softmax(weights)_k h_k` for every sentence; `layers` as `Elmo.run` returns them."""
    shares = np.exp(weights - np.max(weights))
    shares = shares / shares.sum()
    if layer_norm:
        layers = normalized(layers)
    pairs = [list(zip(shares, sentence, strict=True)) for sentence in layers]
    return [gamma * sum(share * layer for share, layer in sentence) for sentence in pairs]


def normalized(layers: list[list[Array]]) -> list[list[Array]]:
    """Each layer by one mean and one variance over all words of all sentences."""
    result: list[list[Array]] = [[] for _ in layers]
    for k in range(len(layers[0])):
        everything = np.concatenate([sentence[k] for sentence in layers])
        mean, variance = everything.mean(), everything.var()
        for sentence, rows in zip(layers, result, strict=True):
            rows.append((sentence[k] - mean) / np.sqrt(variance + 1e-12))
    return result
