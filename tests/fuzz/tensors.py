"""Damage to the tensors of a state dict that stays one: names, shapes, types, values; the file's length."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch

SPARSE = 10 << 30
State = dict[str, Any]


def damage(rng: Random, path: Path) -> str:
    if rng.random() < 0.1:
        length = rng.choice([SPARSE, path.stat().st_size - 1, path.stat().st_size + 1])
        with path.open(rng.choice(["ab", "wb", "r+b"])) as file:
            file.truncate(length)
        return f"{path.name}, another length"
    state, notes = torch.load(path, weights_only=True), []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        change = rng.choice(CHANGES)
        change(rng, state)
        notes.append(change.__name__)
        if change is stretch:  # others would copy what no memory holds
            break
    content = rng.choice([state] * 8 + [OrderedDict(state), {"state_dict": state}, [*state.values()]])
    torch.save(content, path, _use_new_zipfile_serialization=rng.random() < 0.5)
    return f"{path.name}, {' '.join(notes)}"


Change = Callable[[Random, State], object]


def name_of(rng: Random, state: State) -> str:
    return rng.choice(sorted(state)) if state else "x"


def delete(rng: Random, state: State) -> None:
    state.pop(name_of(rng, state), None)


def rename(rng: Random, state: State) -> None:
    name = name_of(rng, state)
    new = rng.choice([name.upper(), name + ".x", "", "x" * 5000, name.replace("0", "7"), "\0", "a\nb"])
    state[new] = state.pop(name, None)


def add(rng: Random, state: State) -> None:
    state[rng.choice(["more", "classifier.weight", "word_emb_layer.embedding.weight"])] = torch.zeros(2, 3)


def swap(rng: Random, state: State) -> None:
    first, second = name_of(rng, state), name_of(rng, state)
    if first in state and second in state:
        state[first], state[second] = state[second], state[first]


def replace(rng: Random, state: State) -> None:
    others = [None, 5, "x", [], {}, [1.0], torch.tensor(1.0), torch.zeros(0), b"x", 1.5, True, (1, 2)]
    state[name_of(rng, state)] = rng.choice(others)


def cast(rng: Random, state: State) -> None:
    name = name_of(rng, state)
    if isinstance(state.get(name), torch.Tensor):
        types = [torch.float16, torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.complex64]
        state[name] = state[name].to(rng.choice(types))


def reshape(rng: Random, state: State) -> None:
    name = name_of(rng, state)
    x = state.get(name)
    if isinstance(x, torch.Tensor) and x.dim():
        same = [x[None], x.flatten(), x[:-1], x[1:].clone(), torch.cat([x, x[:1]]), x[..., :-1], x[:0]]
        state[name] = rng.choice([*same, x.mT if x.dim() > 1 else x, x.contiguous()])


def stretch(rng: Random, state: State) -> None:
    """A view with strides of its own: repeated numbers, also of more than any memory holds."""
    name = name_of(rng, state)
    x = state.get(name)
    if isinstance(x, torch.Tensor) and x.dim() and x.numel():
        views = [
            x[:1].expand_as(x),
            x.repeat_interleave(2, dim=-1)[..., ::2],
            x.mT.contiguous().mT if x.dim() > 1 else x,
        ]
        views += [x.flatten()[:1].as_strided((2**20, 2**20), (0, 0)), x.reshape(-1)[:1].expand(x.shape)]
        state[name] = rng.choice(views)


def spoil(rng: Random, state: State) -> None:
    name = name_of(rng, state)
    x = state.get(name)
    if isinstance(x, torch.Tensor) and x.numel() and x.is_floating_point():
        x = x.clone()
        x.view(-1)[rng.randrange(x.numel())] = rng.choice([float("nan"), float("inf"), 3e38, -1e30, 1e-45])
        state[name] = x


def share(rng: Random, state: State) -> None:
    """Two tensors of one storage."""
    state[name_of(rng, state)] = state.get(name_of(rng, state))


CHANGES: list[Change] = [delete, rename, add, swap, replace, cast, reshape, stretch, spoil, share]
