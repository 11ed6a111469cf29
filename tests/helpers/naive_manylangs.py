"""ELMoForManyLangs in float64 numpy, written from its format alone, and made-up folders of its files: what
the tests hold the conversion to. It imports nothing of the package, knows no batches and no padding, and is
slow and plain.

    write_folder(tmp_path / "source", content(n_layers=3), seed=0)
    ManyLangs(tmp_path / "source").layers(["Der", "Bär"])    # (layers + 1, words, 2 * P)

Sizes in the shapes below: P `projection_dim`, D `dim` (the LSTM's cells), d size of a letter's vector.
"""

import codecs
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

Array = np.ndarray
Content = dict[str, Any]
Weights = dict[str, Array]
Lexicon = dict[str, int]

LETTERS = [*"<bos>eDrBälif.今天氣-'", "🙂", "\u3000"]
SPECIAL_LETTERS = ["<oov>", "<pad>", "<bow>", "<eow>"]
WORDS = ["<oov>", "<bos>", "<eos>", "<pad>", "Der", "Bär", "lief", ".", "今天", "donau" * 9 + "abc"]


# ---- files


def content(
    dim: int = 12,
    projection_dim: int = 6,
    n_layers: int = 2,
    cell_clip: float | None = 0.3,
    proj_clip: float | None = 0.2,
    encoder: str = "elmo",
    token_embedder: str = "cnn",
    activation: str = "relu",
    filters: tuple[tuple[int, int], ...] = ((1, 4), (2, 3), (3, 5)),
    n_highway: int = 2,
    word_dim: int = 5,
    char_dim: int = 4,
    max_characters: int = 50,
    classifier: str = "sampled_softmax",
) -> Content:
    """The content of a file of sizes, small, with clips low enough to be reached."""
    sizes = {"projection_dim": projection_dim, "dim": dim, "n_layers": n_layers}
    return {
        "encoder": {"name": encoder, **sizes, "cell_clip": cell_clip, "proj_clip": proj_clip},
        "token_embedder": {
            "name": token_embedder,
            "activation": activation,
            "filters": [list(pair) for pair in filters],
            "n_highway": n_highway,
            "word_dim": word_dim,
            "char_dim": char_dim,
            "max_characters_per_token": max_characters,
        },
        "classifier": {"name": classifier, "n_samples": 8192},
        "dropout": 0.1,
    }


def random_content(seed: int = 0, **sure: Any) -> Content:
    """Any variant: every setting drawn at random."""
    rng = np.random.default_rng(seed)
    word_dim, char_dim = [(0, 4), (5, 0), (5, 4), (3, 1)][seed % 4]
    choices: dict[str, list[Any]] = {
        "dim": [4, 7, 12],
        "projection_dim": [3, 7, 9, 12],
        "n_layers": [1, 2, 3],
        "cell_clip": [None, 0, 0.3, 3],
        "proj_clip": [None, 0, 0.2, 3],
        "activation": ["relu", "tanh"],
        "filters": [((1, 3),), ((1, 3), (2, 4)), ((3, 8),), ((1, 2), (5, 5), (7, 3))],
        "n_highway": [0, 1, 2],
        "max_characters": [7, 20, 50],
    }
    drawn = {name: values[rng.integers(len(values))] for name, values in choices.items()}
    return content(**{**drawn, "word_dim": word_dim, "char_dim": char_dim, **sure})


def lexicon_of(names: list[str]) -> Lexicon:
    return {name: number for number, name in enumerate(dict.fromkeys(names))}


def write_lexicon(path: Path, lexicon: Lexicon) -> None:
    """A letter that is white space loses its name when the file is read."""
    with codecs.open(str(path), "w", encoding="utf-8") as file:
        for name, number in lexicon.items():
            file.write(f"{name}\t{number}\n")


def write_folder(
    folder: Path,
    content: Content,
    seed: int = 0,
    letters: Lexicon | None = None,
    words: Lexicon | None = None,
    classifier: bool = False,
) -> Path:
    """A folder of theirs with random weights."""
    folder.mkdir(parents=True)
    letters = letters or lexicon_of(["<bos>", "<eos>", *LETTERS, *SPECIAL_LETTERS])
    words = words or lexicon_of(WORDS)
    (folder / "config.json").write_text(json.dumps({"config_path": "/home/them/cfg.json", "seed": 1}))
    (folder / "cfg.json").write_text(json.dumps(content))
    if content["token_embedder"]["char_dim"]:
        write_lexicon(folder / "char.dic", letters)
    write_lexicon(folder / "word.dic", words)
    rng = np.random.default_rng(seed)
    save(folder / "token_embedder.pkl", embedder_shapes(content, len(letters), len(words)), rng)
    save(folder / "encoder.pkl", encoder_shapes(content["encoder"]), rng)
    if classifier:
        save(folder / "classifier.pkl", classifier_shapes(content, len(words)), rng)
    return folder


def save(path: Path, shapes: dict[str, tuple[int, ...]], rng: np.random.Generator) -> None:
    """A state dict, as torch 0.4 saved it."""
    arrays = {name: torch.from_numpy(random_array(rng, shape)) for name, shape in shapes.items()}
    torch.save(arrays, path, _use_new_zipfile_serialization=False)


def random_array(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Numbers of a size that keeps vectors, gates and clips busy."""
    scale = 0.5 if len(shape) < 2 else 1.5 / np.sqrt(np.prod(shape[1:]))
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def embedder_shapes(content: Content, num_letters: int, num_words: int) -> dict[str, tuple[int, ...]]:
    embedder, shapes, width = content["token_embedder"], {}, 0
    if embedder["word_dim"]:
        shapes["word_emb_layer.embedding.weight"] = (num_words, embedder["word_dim"])
        width += embedder["word_dim"]
    if embedder["char_dim"]:
        shapes["char_emb_layer.embedding.weight"] = (num_letters, embedder["char_dim"])
        num_filters = sum(number for _, number in embedder["filters"])
        for i, (length, number) in enumerate(embedder["filters"]):
            shapes[f"convolutions.{i}.weight"] = (number, embedder["char_dim"], length)
            shapes[f"convolutions.{i}.bias"] = (number,)
        for k in range(embedder["n_highway"]):
            shapes[f"highways._layers.{k}.weight"] = (2 * num_filters, num_filters)
            shapes[f"highways._layers.{k}.bias"] = (2 * num_filters,)
        width += num_filters
    shapes["projection.weight"] = (content["encoder"]["projection_dim"], width)
    shapes["projection.bias"] = (content["encoder"]["projection_dim"],)
    return shapes


def encoder_shapes(encoder: Content) -> dict[str, tuple[int, ...]]:
    dim, width = encoder["dim"], encoder["projection_dim"]
    if encoder["name"] == "lstm":
        shapes: dict[str, tuple[int, ...]] = {"projection.weight": (width, dim), "projection.bias": (width,)}
        for layer in range(encoder["n_layers"]):
            for direction in ("", "_reverse"):
                end = f"l{layer}{direction}"
                shapes[f"encoder.weight_ih_{end}"] = (4 * dim, 2 * dim if layer else width)
                shapes[f"encoder.weight_hh_{end}"] = (4 * dim, dim)
                shapes[f"encoder.bias_ih_{end}"] = shapes[f"encoder.bias_hh_{end}"] = (4 * dim,)
        return shapes
    shapes = {}
    for layer in range(encoder["n_layers"]):
        for direction in ("forward", "backward"):
            cell = f"{direction}_layer_{layer}"
            shapes[f"{cell}.input_linearity.weight"] = (4 * dim, width)
            shapes[f"{cell}.state_linearity.weight"] = (4 * dim, width)
            shapes[f"{cell}.state_linearity.bias"] = (4 * dim,)
            shapes[f"{cell}.state_projection.weight"] = (width, dim)
    return shapes


def classifier_shapes(content: Content, num_words: int) -> dict[str, tuple[int, ...]]:
    width = content["encoder"]["projection_dim"]
    if content["classifier"]["name"] == "softmax":
        return {"hidden2tag.weight": (num_words, width), "hidden2tag.bias": (num_words,)}
    if content["classifier"]["name"] == "cnn_softmax":
        return {"M": (width, 3), "corr.weight": (num_words, 3), "oov_column": (width, 1)}
    shapes = {"column_emb.weight": (num_words, width), "column_bias.weight": (num_words, 1)}
    return {**shapes, "oov_column": (width, 1)}


# ---- the model


def read_lexicon(path: Path) -> Lexicon:
    lexicon = {}
    with codecs.open(str(path), "r", encoding="utf-8") as file:
        for line in file:
            fields = line.strip().split("\t")
            name, number = ("\u3000", *fields) if len(fields) == 1 else fields
            lexicon[name] = int(number)
    return lexicon


def read_weights(path: Path) -> Weights:
    return {name: tensor.double().numpy() for name, tensor in torch.load(path, weights_only=True).items()}


class ManyLangs:
    """The model of a folder.

    Args:
        sizes: the file of sizes, cfg.json by default.
    """

    def __init__(self, folder: Path, sizes: Path | None = None) -> None:
        content = json.loads((sizes or folder / "cfg.json").read_text(encoding="utf-8"))
        self.settings, self.encoder_settings = content["token_embedder"], content["encoder"]
        self.letters = read_lexicon(folder / "char.dic") if self.settings["char_dim"] else None
        self.words = read_lexicon(folder / "word.dic") if self.settings["word_dim"] else None
        self.embedder = read_weights(folder / "token_embedder.pkl")
        self.encoder = read_weights(folder / "encoder.pkl")
        self.classifier = {}
        if (folder / "classifier.pkl").is_file():
            self.classifier = read_weights(folder / "classifier.pkl")

    def layers(self, sentence: list[str]) -> Array:
        """All layers without the sentence's begin and end: (layers + 1, words, 2P); for encoder "lstm" the
        words' vectors and the only layer that it puts out."""
        return self.all_layers(sentence)[:, 1:-1]

    def all_layers(self, sentence: list[str]) -> Array:
        limit = self.settings["max_characters_per_token"] - 2
        if self.settings["name"] == "cnn":
            sentence = [word[:limit] for word in sentence]
        vectors = np.array([self.word_vector(word) for word in ["<bos>", *sentence, "<eos>"]])
        doubled = np.concatenate([vectors, vectors], axis=1)
        if self.encoder_settings["name"] == "lstm":
            return np.array([doubled, self.stacked_lstm(vectors)])
        return np.array([doubled, *self.elmo_layers(vectors)])

    def word_vector(self, word: str) -> Array:
        pieces = []
        if self.words is not None:
            number = self.words.get(word, self.words["<oov>"])
            pieces.append(self.embedder["word_emb_layer.embedding.weight"][number])
        if self.letters is not None:
            pieces.append(self.highways(self.convolutions(self.letter_ids(word))))
        return self.embedder["projection.weight"] @ np.concatenate(pieces) + self.embedder["projection.bias"]

    def letter_ids(self, word: str) -> list[int]:
        """The names of a word's begin and end are swapped."""
        assert self.letters is not None
        letters, length = self.letters, self.settings["max_characters_per_token"]
        ids = [letters.get(letter, letters["<oov>"]) for letter in word]
        if word in ("<bos>", "<eos>"):
            ids = [letters[word]]
        row = [letters["<eow>"], *ids, letters["<bow>"]]
        return row + [letters["<pad>"]] * (length - len(row))

    def convolutions(self, ids: list[int]) -> Array:
        vectors = self.embedder["char_emb_layer.embedding.weight"][ids]  # (positions, d)
        results = []
        for i, (length, _) in enumerate(self.settings["filters"]):
            weight, bias = (self.embedder[f"convolutions.{i}.{name}"] for name in ("weight", "bias"))
            windows = [vectors[start : start + length].T for start in range(len(ids) - length + 1)]
            values = np.array([(weight * window).sum(axis=(1, 2)) + bias for window in windows])
            results.append(values.max(axis=0))
        values = np.concatenate(results)
        return np.tanh(values) if self.settings["activation"] == "tanh" else np.maximum(values, 0)

    def highways(self, x: Array) -> Array:
        for k in range(self.settings["n_highway"]):
            y = (
                self.embedder[f"highways._layers.{k}.weight"] @ x
                + self.embedder[f"highways._layers.{k}.bias"]
            )
            new, gate = np.maximum(y[: len(x)], 0), sigmoid(y[len(x) :])
            x = gate * x + (1 - gate) * new
        return x

    def elmo_layers(self, vectors: Array) -> list[Array]:
        """Each layer's [forward; backward]: (words, 2P)."""
        forward, backward, layers = vectors, vectors, []
        for layer in range(self.encoder_settings["n_layers"]):
            ahead = self.lstm(f"forward_layer_{layer}", forward)
            behind = self.lstm(f"backward_layer_{layer}", backward[::-1])[::-1]
            forward, backward = (ahead, behind) if layer == 0 else (ahead + forward, behind + backward)
            layers.append(np.concatenate([forward, backward], axis=1))
        return layers

    def lstm(self, cell: str, inputs: Array) -> Array:
        weights = {name.removeprefix(cell + "."): array for name, array in self.encoder.items()}
        weights = {name: array for name, array in weights.items() if name.count(".") == 1}
        c, h = np.zeros(self.encoder_settings["dim"]), np.zeros(self.encoder_settings["projection_dim"])
        outputs = []
        for x in inputs:
            sums = weights["input_linearity.weight"] @ x + weights["state_linearity.weight"] @ h
            i, f, g, o = np.split(sums + weights["state_linearity.bias"], 4)
            c = clipped(sigmoid(i) * np.tanh(g) + sigmoid(f) * c, self.encoder_settings["cell_clip"])
            h = weights["state_projection.weight"] @ (sigmoid(o) * np.tanh(c))
            h = clipped(h, self.encoder_settings["proj_clip"])
            outputs.append(h)
        return np.array(outputs)

    def stacked_lstm(self, inputs: Array) -> Array:
        """A stack of bidirectional LSTMs, and one projection of both halves of its output: (words, 2P)."""
        for layer in range(self.encoder_settings["n_layers"]):
            ahead = self.plain_lstm(f"l{layer}", inputs)
            behind = self.plain_lstm(f"l{layer}_reverse", inputs[::-1])[::-1]
            inputs = np.concatenate([ahead, behind], axis=1)
        weight, bias = self.encoder["projection.weight"], self.encoder["projection.bias"]
        return np.concatenate([half @ weight.T + bias for half in np.split(inputs, 2, axis=1)], axis=1)

    def plain_lstm(self, name: str, inputs: Array) -> Array:
        c = h = np.zeros(self.encoder_settings["dim"])
        outputs = []
        for x in inputs:
            sums = self.encoder[f"encoder.weight_ih_{name}"] @ x + self.encoder[f"encoder.bias_ih_{name}"]
            sums = sums + self.encoder[f"encoder.weight_hh_{name}"] @ h
            i, f, g, o = np.split(sums + self.encoder[f"encoder.bias_hh_{name}"], 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            outputs.append(h)
        return np.array(outputs)

    def losses(self, sentence: list[str], words: Lexicon) -> list[float]:
        """The full softmax's negative log probabilities of all words in both directions, begin and end
        included: first forward, then backward."""
        states = self.all_layers(sentence)[-1]
        limit = self.settings["max_characters_per_token"] - 2
        names = ["<bos>", *(word[:limit] for word in sentence), "<eos>"]
        ids = [words.get(name, words["<oov>"]) for name in names]
        forward, backward = np.split(states, 2, axis=1)
        pairs = [(forward[t], ids[t + 1]) for t in range(len(ids) - 1)]
        pairs += [(backward[t], ids[t - 1]) for t in range(1, len(ids))]
        return [self.loss(state, word) for state, word in pairs]

    def loss(self, state: Array, word: int) -> float:
        if "hidden2tag.weight" in self.classifier:
            logits = self.classifier["hidden2tag.weight"] @ state + self.classifier["hidden2tag.bias"]
        else:
            bias = self.classifier["column_bias.weight"][:, 0]
            logits = self.classifier["column_emb.weight"] @ state + bias
        return float(np.log(np.exp(logits).sum()) - logits[word])


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def clipped(x: Array, limit: float | None) -> Array:
    return np.clip(x, -limit, limit) if limit else x
