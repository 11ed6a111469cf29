"""Damage to state dicts of torch.save: sizes that lie, code, odd pickles, records of the zip file, bytes."""

import os
import pickle
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from tests.fuzz import raw_bytes
from tests.helpers.state_dicts import Calls, Stored, Tensor, pickled, write_stream, write_zip

NUMBERS = [0, 1, -1, 2, 3, 261, 262, 263, 1 << 20, 1 << 31, (1 << 31) - 1, 1 << 40, 1 << 62, 1 << 63, 1 << 70]
ODD: list[Any] = [None, True, 1.5, "x", b"x", [], {}, (), float("nan"), {"a": {"b": [1]}}, 1j, {1, 2}]
KINDS = [torch.DoubleStorage, torch.HalfStorage, torch.BFloat16Storage, torch.IntStorage, torch.BoolStorage]
OPCODES = [b"0", b"2", b"(", b"1", b"N", b")", b"]", b"}", b"a", b"s", b"e", b"u", b"R", b"b", b"Q", b"t"]
OPCODES += [
    b"r\xff\xff\xff\x7f",
    b"X\xff\xff\xff\x7f",
    b"\x8a\xff" + b"\xff" * 255,
    b"h\xfe",
    b"\x81",
    b"\x92",
]
OPCODES += [b"cos\nsystem\n", b"ctorch\nload\n", b"\x82\x01", b"(S'x'\nios\nmkdir\n", b"\x8e" + b"\xff" * 8]
OPCODES += [b"\x95" + b"\xff" * 8, b"cposix\nsystem\nX\x02\x00\x00\x00id\x85R", b"Ptext\n", b"I99999999999\n"]


class Content:
    """What a file says of its tensors and storages."""

    def __init__(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.tensors: dict[Any, Any] = {}
        self.storages: dict[str, bytes] = {}
        for number, (name, tensor) in enumerate(state.items()):
            key = str(number)
            self.storages[key] = tensor.contiguous().numpy().tobytes()
            stored = Stored(key, tensor.numel())
            self.tensors[name] = Tensor(stored, 0, tuple(tensor.shape), tuple(tensor.stride()))
        self.sizes: dict[str, int] = {}


def damage(rng: Random, path: Path, is_zip: bool) -> str:
    choice = rng.random()
    if choice < 0.35:
        return raw_bytes.damage_file(rng, path, near_start=rng.random() < 0.7)
    content, notes = Content(path), []
    for _ in range(rng.choice([1, 1, 2, 3])):
        change = rng.choice(CHANGES)
        notes.append(change.__name__)
        change(rng, content)
    value: Any = content.tensors
    if choice < 0.55:
        value = damaged_pickle(rng, content, is_zip)
        notes.append("opcodes")
    if is_zip:
        packing = zipfile.ZIP_DEFLATED if rng.random() < 0.05 else zipfile.ZIP_STORED
        write_zip(path, value, content.storages, packing)
        if rng.random() < 0.2:
            notes.append(damage_directory(rng, path))
    else:
        write_stream(path, value, content.storages, content.sizes)
    return f"{path.name}, {' '.join(notes)}"


def damaged_pickle(rng: Random, content: Content, is_zip: bool) -> bytes:
    from tests.helpers.state_dicts import _StreamPickler

    data = pickled(content.tensors) if is_zip else pickled(content.tensors, _StreamPickler)
    for _ in range(rng.choice([1, 2, 5])):
        place = rng.choice([rng.randrange(len(data)), data.find(rng.choice([b"}", b"c", b"R", b"."]))])
        new = rng.choice(OPCODES) * rng.choice([1, 1, 1, 3, 10_000])
        data = data[:place] + new + data[place + rng.choice([0, 0, 1, len(new)]) :]
    return data


def damage_directory(rng: Random, path: Path) -> str:
    """The list of records at the end of a zip file."""
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 2, 8])):
        data[-rng.randrange(1, min(len(data), 400))] = rng.choice([0, 1, 255, rng.randrange(256)])
    path.write_bytes(data)
    return "directory"


# ---- changes


def some(rng: Random, content: Content) -> tuple[Any, Tensor]:
    names = [name for name, tensor in content.tensors.items() if isinstance(tensor, Tensor)]
    name = rng.choice(names)
    return name, content.tensors[name]


def a_size(rng: Random, content: Content) -> None:
    _, tensor = some(rng, content)
    storage, offset, shape, strides, *others = tensor.arguments
    numbers = [*shape] if isinstance(shape, tuple) else [1]
    if numbers:
        numbers[rng.randrange(len(numbers))] = rng.choice([*NUMBERS, *ODD])
    tensor.arguments = (storage, offset, tuple(numbers), strides, *others)


def a_stride(rng: Random, content: Content) -> None:
    _, tensor = some(rng, content)
    storage, offset, shape, strides, *others = tensor.arguments
    new = rng.choice([strides[::-1], strides[:-1], (0,) * len(strides), (*strides, 1), rng.choice(ODD)])
    if rng.random() < 0.4 and strides:
        new = (rng.choice(NUMBERS), *strides[1:])
    tensor.arguments = (storage, offset, shape, new, *others)


def an_offset(rng: Random, content: Content) -> None:
    _, tensor = some(rng, content)
    storage, _, *others = tensor.arguments
    tensor.arguments = (storage, rng.choice([*NUMBERS, *ODD]), *others)


def a_storage(rng: Random, content: Content) -> None:
    """Its key, how many numbers it has, their type."""
    _, tensor = some(rng, content)
    storage, *others = tensor.arguments
    if not isinstance(storage, Stored) or len(storage.identity) != 5:  # changed before
        return
    tag, kind, key, place, size = storage.identity
    changed = [
        (tag, kind, rng.choice(["0", "x", "../../x", "", 0, None]), place, size),
        (tag, kind, key, place, rng.choice([*NUMBERS, *ODD])),
        (tag, rng.choice([*KINDS, "x", None, torch.nn.Linear]), key, place, size),
        (tag, kind, key),
        (tag, kind, key, rng.choice(["cuda:0", "meta", None, 5]), size),
    ]
    new = Stored(key, size)
    new.identity = rng.choice(changed)  # type: ignore[assignment]
    tensor.arguments = (rng.choice([new, new, new, None, {}]), *others)


def a_storages_numbers(rng: Random, content: Content) -> None:
    key = rng.choice(list(content.storages))
    data = content.storages[key]
    change = rng.choice(["remove", "cut", "longer", "nan", "size", "more"])
    if change == "remove":
        del content.storages[key]
    elif change == "more":
        content.storages["extra"] = b"x" * rng.choice([0, 4, 4096])
    elif change == "size":
        content.sizes[key] = rng.choice([size for size in NUMBERS if 0 <= size < 1 << 63])
    elif change == "nan":
        numbers = np.frombuffer(data[: len(data) // 4 * 4], "f4").copy()  # it may be cut already
        numbers[rng.randrange(len(numbers))] = rng.choice([np.nan, np.inf, 1e38, 1e-45])
        content.storages[key] = numbers.tobytes()
    else:
        content.storages[key] = data[:-1] if change == "cut" else data * 2


def a_name(rng: Random, content: Content) -> None:
    name = rng.choice(list(content.tensors))
    old = str(name)
    new = rng.choice(
        ["", "x" * 5000, "\n", "\u202e", old + "x", old.replace("0", "1"), old.upper(), 5, None, (1,)]
    )
    content.tensors[new] = content.tensors.pop(name)


def a_missing_tensor(rng: Random, content: Content) -> None:
    if len(content.tensors) > 1:
        del content.tensors[rng.choice(list(content.tensors))]


def another_bilm(rng: Random, content: Content) -> None:
    for name in list(content.tensors):
        content.tensors[f"second.{name}"] = content.tensors[name]


def something_else(rng: Random, content: Content) -> None:
    content.tensors[rng.choice([*content.tensors, "new"])] = rng.choice(ODD)


def code(rng: Random, content: Content) -> None:
    """Only the forms of calls: what they would do is harmless."""
    call = rng.choice(
        [
            Calls(os.mkdir, "made-by-code"),
            Calls(eval, "open('made-by-code', 'w')"),
            Calls(print, "made-by-code"),
            Calls(torch.load, "x"),
            Calls(torch.zeros, 1 << 40),
            Calls(pickle.loads, b"N."),
            Calls(dict, [("a", 1)]),
            Calls(torch._utils._rebuild_tensor_v2, 1),
            Calls(torch.nn.Linear, 3, 3),
        ]
    )
    content.tensors[rng.choice([*content.tensors, "new", "new"])] = call


def many_views(rng: Random, content: Content) -> None:
    _, tensor = some(rng, content)
    for number in range(rng.choice([10, 5000])):
        content.tensors[f"view{number}"] = tensor


CHANGES = [a_size, a_size, a_stride, an_offset, a_storage, a_storage, a_storages_numbers, a_storages_numbers]
CHANGES += [a_name, a_missing_tensor, another_bilm, something_else, code, code, many_views]
