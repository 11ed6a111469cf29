"""AllenNLP's files of random models, and its tagger written once more in plain torch and numpy."""

import io
import itertools
import json
import tarfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.helpers import reference

PREFIX = "text_field_embedder.token_embedder_elmo._elmo."
State = dict[str, torch.Tensor]


def bilm_weights(options: dict, seed: int) -> reference.Weights:
    """Random arrays with both projections, which AllenNLP's biLM always has."""
    weights = reference.random_weights(options, seed, char_projection=True)
    dim, width = options["lstm"]["dim"], options["lstm"]["projection_dim"]
    rng = np.random.default_rng(seed + 1)
    for direction, layer in itertools.product(range(2), range(options["lstm"]["n_layers"])):
        cell = reference.lstm_path(direction, layer)
        for name, shape in {"W_0": (2 * width, 4 * dim), "W_P_0": (dim, width)}.items():
            weights[f"{cell}/{name}"] = (rng.normal(size=shape) / shape[0] ** 0.5).astype("f4")
    return weights


def read(options: dict, weights: reference.Weights, sentences: list[list[str]]) -> list[list[np.ndarray]]:
    """The layers of each sentence, by numpy; also of a biLM whose projection is not below its cells."""
    model = reference.Elmo(options, weights)
    model.output_dim = options["lstm"]["projection_dim"]
    return model.run(sentences)[0]


def state_of(
    weights: reference.Weights, prefix: str = PREFIX, mixes: Sequence[Sequence[float]] = ()
) -> State:
    """bilm-tf's arrays under the names and in the layout of AllenNLP's Elmo. A mix is weights and gamma."""
    state: dict[str, np.ndarray] = {}
    embedder, lstm = f"{prefix}_elmo_lstm._token_embedder.", f"{prefix}_elmo_lstm._elmo_lstm."
    table = weights["char_embed"]
    state[embedder + "_char_embedding_weights"] = np.concatenate([np.zeros_like(table[:1]), table])
    for i in itertools.takewhile(lambda i: f"CNN/W_cnn_{i}" in weights, itertools.count()):
        state[f"{embedder}char_conv_{i}.weight"] = weights[f"CNN/W_cnn_{i}"][0].transpose(2, 1, 0)
        state[f"{embedder}char_conv_{i}.bias"] = weights[f"CNN/b_cnn_{i}"]
    for k in itertools.takewhile(lambda k: f"CNN_high_{k}/W_carry" in weights, itertools.count()):
        high = {name: weights[f"CNN_high_{k}/{name}"] for name in ("W_carry", "W_transform")}
        bias = [weights[f"CNN_high_{k}/b_transform"], -weights[f"CNN_high_{k}/b_carry"]]
        both = [high["W_transform"].T, -high["W_carry"].T]
        state[f"{embedder}_highways._layers.{k}.weight"] = np.concatenate(both)
        state[f"{embedder}_highways._layers.{k}.bias"] = np.concatenate(bias)
    state[embedder + "_projection.weight"] = weights["CNN_proj/W_proj"].T
    state[embedder + "_projection.bias"] = weights["CNN_proj/b_proj"]
    for name, array in weights.items():
        if name.startswith("RNN") and name.endswith("W_0"):
            cell, direction = name.removesuffix("/W_0"), ["forward", "backward"][int(name[4])]
            layer = name.split("/Cell")[1].split("/")[0]
            ours = f"{lstm}{direction}_layer_{layer}."
            width = len(weights[f"{cell}/W_P_0"].T)
            i, j, f, o = np.split(array.T, 4)
            both = np.concatenate([i, f, j, o])
            state[ours + "input_linearity.weight"] = both[:, :-width]
            state[ours + "state_linearity.weight"] = both[:, -width:]
            i, j, f, o = np.split(weights[f"{cell}/B"], 4)
            state[ours + "state_linearity.bias"] = np.concatenate([i, f + np.float32(1), j, o])
            state[ours + "state_projection.weight"] = weights[f"{cell}/W_P_0"].T
    for k, (*scalars, gamma) in enumerate(mixes):
        state[f"{prefix}scalar_mix_{k}.gamma"] = np.array([gamma], "f4")
        for layer, scalar in enumerate(scalars):
            state[f"{prefix}scalar_mix_{k}.scalar_parameters.{layer}"] = np.array([scalar], "f4")
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in state.items()}


def packed_state(state: Mapping[str, torch.Tensor], is_zip: bool = True) -> bytes:
    stream = io.BytesIO()
    torch.save(OrderedDict(state), stream, _use_new_zipfile_serialization=is_zip)
    return stream.getvalue()


def write_archive(path: Path, members: Mapping[str, bytes | str]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            data = content.encode() if isinstance(content, str) else content
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return path


# ---- a tagger

LABELS = {
    "BIOUL": ["O", "U-PER", "B-PER", "L-PER", "I-PER", "U-LOC", "B-LOC", "L-LOC", "I-LOC"],
    "BIO": ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"],
    "IOB1": ["O", "I-PER", "B-PER"],
    "none": ["DT", "NN", "VB"],
}


def may_follow(scheme: str, before: str | None, after: str | None) -> bool:
    """AllenNLP's rules, None for the ends of a sentence."""
    a, b = before or "START", after or "END"
    same = a[1:] == b[1:]
    if scheme == "BIOUL":
        closed = before is None or a[0] in "OLU"
        return (closed and (after is None or b[0] in "OBU")) or (
            not closed and after is not None and b[0] in "IL" and same
        )
    if scheme == "BIO":
        return after is None or b[0] in "OB" or (before is not None and a[0] in "BI" and same)
    if scheme == "IOB1":
        return after is None or b[0] in "OI" or (before is not None and a[0] in "BI" and same)
    return True


class Tagger:
    """AllenNLP's crf_tagger over vectors of words: packed LSTMs, a linear layer, a CRF."""

    def __init__(self, scheme: str, width: int, size: int, layers: int, seed: int, has_ends: bool) -> None:
        torch.manual_seed(seed)
        self.labels, count = LABELS[scheme], len(LABELS[scheme])
        self.lstm = nn.LSTM(width, size, layers, batch_first=True, bidirectional=True)
        self.linear = nn.Linear(2 * size, count)
        self.transitions = torch.randn(count, count)
        self.start, self.end = (torch.randn(count), torch.randn(count)) if has_ends else (None, None)
        self.mask = torch.zeros(count + 2, count + 2)
        for i, j in itertools.product(range(count + 2), repeat=2):
            if i != count + 1 and j != count:  # nothing follows the end or is followed by the beginning
                names = [None if k >= count else self.labels[k] for k in (i, j)]
                self.mask[i, j] = may_follow(scheme, *names)

    def state(self) -> State:
        state = {f"encoder._module.{name}": value.data for name, value in self.lstm.named_parameters()}
        state |= {f"tag_projection_layer._module.{n}": v.data for n, v in self.linear.named_parameters()}
        state |= {"crf.transitions": self.transitions, "crf._constraint_mask": self.mask}
        if self.start is not None and self.end is not None:
            state |= {"crf.start_transitions": self.start, "crf.end_transitions": self.end}
        return state

    def scores(self, sentences: list[np.ndarray]) -> list[torch.Tensor]:
        """Vectors (words, width) of each sentence -> (words, labels) of each sentence"""
        tensors = [torch.from_numpy(sentence).float() for sentence in sentences]
        lengths = torch.tensor([len(tensor) for tensor in tensors])
        padded = nn.utils.rnn.pad_sequence(tensors, batch_first=True)
        packed = pack_padded_sequence(padded, lengths, batch_first=True, enforce_sorted=False)
        with torch.no_grad():
            h, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
            scores = self.linear(h)
        return [row[:length] for row, length in zip(scores, lengths, strict=True)]

    def decode(self, scores: torch.Tensor) -> list[int]:
        """The best of all allowed paths, one by one."""
        count, best, best_score = len(self.labels), [], -np.inf
        for path in itertools.product(range(count), repeat=len(scores)):
            steps = list(itertools.pairwise([count, *path, count + 1]))
            if not all(self.mask[step] for step in steps):
                continue
            score = sum(scores[t, label].item() for t, label in enumerate(path))
            score += sum(self.transitions[step].item() for step in steps[1:-1])
            if self.start is not None and self.end is not None:
                score += self.start[path[0]].item() + self.end[path[-1]].item()
            if score > best_score:
                best, best_score = list(path), score
        return best


def training(
    scheme: str = "BIOUL", layers: int = 1, size: int = 3, words: bool = False, **model: Any
) -> dict:
    """The content of a config.json."""
    embedders: dict[str, Any] = {
        "elmo": {"type": "elmo_token_embedder", "options_file": "https://gone.org/a/elmo_options.json"}
    }
    indexers: dict[str, Any] = {"elmo": {"type": "elmo_characters"}}
    if words:
        embedders["tokens"] = {"type": "embedding", "embedding_dim": 5, "trainable": False}
        indexers["tokens"] = {"type": "single_id"}
    encoder = {"type": "lstm", "bidirectional": True, "hidden_size": size, "num_layers": layers}
    settings: dict[str, Any] = {"type": "crf_tagger", "label_encoding": scheme, "dropout": 0.25}
    settings |= {"text_field_embedder": {"token_embedders": embedders}, "encoder": encoder, **model}
    return {"dataset_reader": {"type": "conll2003", "token_indexers": indexers}, "model": settings}


def tagger_members(
    options: dict, state: State, content: dict, labels: Sequence[str], words: Sequence[str] = ()
) -> dict[str, bytes | str]:
    members: dict[str, bytes | str] = {"config.json": json.dumps(content), "weights.th": packed_state(state)}
    members["vocabulary/labels.txt"] = "".join(f"{label}\n" for label in labels)
    members["vocabulary/non_padded_namespaces.txt"] = "*tags\n*labels\n"
    if words:
        members["vocabulary/tokens.txt"] = "".join(f"{word}\n" for word in words)
    members["fta/model.text_field_embedder.token_embedders.elmo.options_file"] = json.dumps(options)
    return members
