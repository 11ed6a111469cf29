"""Damage to safetensors files: the header's length, its JSON, and numbers that are none."""

import contextlib
import json
import struct
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz import json_values, raw_bytes

DTYPES = ["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F4", "I64", "I32", "I16", "I8", "U8", "U16"]
DTYPES += ["BOOL", "C64"]
DTYPES += ["f32", "", "X", "F128", None, 5]
LENGTHS = [0, 1, 2, 7, 100, 2**20, 100_000_000, 100_000_001, 2**31, 2**32, 2**40, 2**62, 2**63, 2**64 - 1]
SHAPES: list[Any] = [[], [0], [1], [-1], [2**31, 2**31], [2**63], [2**64], [1.5], ["1"], [1] * 100, None]
SHAPES += [[[1]], [0, 2**62]]


def damage(rng: Random, path: Path) -> str:
    choice = rng.random()
    if choice < 0.15:
        return raw_bytes.damage_file(rng, path, near_start=True)
    header, numbers = read(path)
    if choice < 0.25:
        return change_length(rng, path, header, numbers)
    if choice < 0.35:
        return change_numbers(rng, path, header, numbers)
    notes = []
    for _ in range(rng.choice([1, 1, 2, 3])):
        change, result = rng.choice(CHANGES), "fails"
        with contextlib.suppress(TypeError, ValueError, LookupError):
            result = change(rng, header)  # it may not fit what the change before has made
        notes.append(f"{change.__name__} {result:.60}")
    write(path, json_values.dumps(header).encode("utf-8", "surrogatepass"), numbers)
    return f"{path.name}, header: {'; '.join(notes)}"


def read(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write(path: Path, header: bytes, numbers: bytes, length: int | None = None) -> None:
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + numbers)


def change_length(rng: Random, path: Path, header: dict[str, Any], numbers: bytes) -> str:
    text = json.dumps(header).encode()
    length = rng.choice([*LENGTHS, len(text) - 1, len(text) + 1, len(text) + len(numbers), len(text) * 2])
    write(path, text, numbers, length)
    if rng.random() < 0.1:
        with path.open("ab") as file:
            file.truncate(rng.choice([110_000_000, 3 << 30]))  # so that such a length fits
    return f"{path.name}, header of length {length}"


def change_numbers(rng: Random, path: Path, header: dict[str, Any], numbers: bytes) -> str:
    changed, count = bytearray(numbers), rng.choice([1, 4, 100])
    for _ in range(count):
        start = 4 * rng.randrange(len(numbers) // 4)
        changed[start : start + 4] = struct.pack(
            "<f", rng.choice([float("nan"), float("inf"), 1e38, -3e38, 1e-45])
        )
    end = rng.choice([b"", b"", b"\0", b"\0" * 4096, None])
    write(path, json.dumps(header).encode(), bytes(changed) + end if end is not None else bytes(changed[:-4]))
    return f"{path.name}, {count} numbers, {end and len(end)} bytes more"


# ---- changes of the header


def names_of(header: dict[str, Any]) -> list[str]:
    return [name for name in header if name != "__metadata__" and isinstance(header[name], dict)] or ["none"]


def entry(rng: Random, header: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    name = rng.choice(names_of(header))
    return name, header.setdefault(name, {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]})


def change_dtype(rng: Random, header: dict[str, Any]) -> str:
    name, tensor = entry(rng, header)
    tensor["dtype"] = rng.choice(DTYPES)
    return f"{name} {tensor['dtype']}"


def change_dtype_of_all(rng: Random, header: dict[str, Any]) -> str:
    """With offsets that fit."""
    dtype, size = rng.choice([("F16", 2), ("BF16", 2), ("I32", 4), ("U8", 1), ("F8_E4M3", 1)])
    start = 0
    for name in names_of(header):
        tensor = header[name]
        count = (tensor["data_offsets"][1] - tensor["data_offsets"][0]) // 4
        header[name] = {**tensor, "dtype": dtype, "data_offsets": [start, start + count * size]}
        start += count * size
    return dtype


def change_shape(rng: Random, header: dict[str, Any]) -> str:
    name, tensor = entry(rng, header)
    old = tensor.get("shape")
    usual = [old[::-1], [*old, 1], [1, *old], old[:-1]] if isinstance(old, list) else []
    tensor["shape"] = rng.choice([*SHAPES, *usual])
    return f"{name} {tensor['shape']}"


def change_offsets(rng: Random, header: dict[str, Any]) -> str:
    name, tensor = entry(rng, header)
    old = tensor.get("data_offsets")
    start, end = old if isinstance(old, list) and len(old) == 2 else (0, 4)
    choices: list[Any] = [
        [end, start],
        [start, start],
        [0, end],
        [start, end + 4],
        [start, 2**63],
        [start, 2**64],
        [],
    ]
    choices += [
        [-4, end],
        [start + 1, end + 1],
        [0, 4],
        None,
        [start],
        [str(start), end],
        [start, float(end)],
        [2**62] * 2,
    ]
    tensor["data_offsets"] = rng.choice(choices)
    return f"{name} {tensor['data_offsets']}"


def same_place(rng: Random, header: dict[str, Any]) -> str:
    """Two tensors in the same bytes."""
    (name, first), (_, second) = entry(rng, header), entry(rng, header)
    header[name] = {**first, "data_offsets": second.get("data_offsets")}
    return name


def rename(rng: Random, header: dict[str, Any]) -> str:
    name, _ = entry(rng, header)
    new = rng.choice(
        [
            name + "x",
            name.removeprefix("elmo."),
            "",
            "../x",
            "x" * 10_000,
            "a\nb",
            "__metadata__",
            "elmo." + name,
        ]
    )
    header[new] = header.pop(name)
    return new


def remove(rng: Random, header: dict[str, Any]) -> str:
    name, _ = entry(rng, header)
    del header[name]
    return name


def add(rng: Random, header: dict[str, Any]) -> str:
    count = rng.choice([1, 1, 100, 20_000])
    end = max((tensor["data_offsets"][1] for tensor in header.values() if is_whole(tensor)), default=0)
    for number in range(count):
        header[f"extra.{number}"] = {"dtype": "F32", "shape": [0], "data_offsets": [end, end]}
    return str(count)


def is_whole(tensor: Any) -> bool:
    offsets = tensor.get("data_offsets") if isinstance(tensor, dict) else None
    return isinstance(offsets, list) and len(offsets) == 2 and all(type(offset) is int for offset in offsets)


def change_metadata(rng: Random, header: dict[str, Any]) -> str:
    choices: list[Any] = [
        {},
        None,
        [],
        "pt",
        {"format": "tf"},
        {"format": "flax"},
        {"format": 5},
        {"format": None},
        {"a": "b"},
    ]
    choices += [{"format": "pt", "x": "y" * 1_000_000}, {"format": ""}, {"format": "mlx"}]
    header["__metadata__"] = rng.choice(choices)
    return str(header["__metadata__"])


def any_json(rng: Random, header: dict[str, Any]) -> str:
    json_values.damage(rng, header)
    return ""


CHANGES = [change_dtype, change_dtype_of_all, change_shape, change_shape, change_offsets, change_offsets]
CHANGES += [same_place]
CHANGES += [rename, remove, add, change_metadata, any_json, any_json]
