"""TensorFlow's checkpoints as TensorFlow writes them, byte for byte, written without it.

write_bundle(folder / "model.ckpt-7", {"lm/softmax/b": array})
write_bundle(prefix, arrays, cuts={"lm/softmax/W": (0, 3)})       # a partitioned variable
write_table(path, {key: value})                                   # an index of any content
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from tests.helpers.reference import random_softmax, random_weights

TYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "float16": 19}
RESTART_INTERVAL = 16
Arrays = Mapping[str, np.ndarray]


# ---- protocol buffers


def varint(value: int) -> bytes:
    result = b""
    while value > 127:
        result += bytes([value & 127 | 128])
        value >>= 7
    return result + bytes([value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value) if value else b""


def fixed32(number: int, value: int) -> bytes:
    return varint(number << 3 | 5) + value.to_bytes(4, "little")


def shape_message(shape: tuple[int, ...]) -> bytes:
    return b"".join(field(2, field(1, size)) for size in shape)


def entry_message(
    dtype: int, shape: tuple[int, ...], shard: int, offset: int, size: int, checksum: int, slices: bytes = b""
) -> bytes:
    message = field(1, dtype) + field(2, shape_message(shape)) + field(3, shard) + field(4, offset)
    return message + field(5, size) + (fixed32(6, checksum) if checksum else b"") + slices


def masked(data: bytes) -> int:
    checksum = google_crc32c.value(data)
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


# ---- the table


def block(entries: list[tuple[bytes, bytes]]) -> bytes:
    content, restarts, last = b"", [], b""
    for number, (key, value) in enumerate(entries):
        shared = 0
        if number % RESTART_INTERVAL == 0:
            restarts.append(len(content))
        else:
            while shared < min(len(last), len(key)) and last[shared] == key[shared]:
                shared += 1
        content += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    for restart in restarts or [0]:
        content += restart.to_bytes(4, "little")
    return content + len(restarts or [0]).to_bytes(4, "little")


def write_table(path: Path, entries: Mapping[bytes, bytes]) -> None:
    ordered = sorted(entries.items())
    data = b""

    def add(content: bytes) -> bytes:
        nonlocal data
        handle = varint(len(data)) + varint(len(content))
        data += content + b"\0" + masked(content + b"\0").to_bytes(4, "little")
        return handle

    content = add(block(ordered))
    unused = add(block([]))
    index = add(block([(successor(ordered[-1][0]), content)]))
    footer = unused + index
    path.write_bytes(data + footer.ljust(40, b"\0") + 0xDB4775248B80FB57.to_bytes(8, "little"))


def successor(key: bytes) -> bytes:
    """A short key that is not below this one."""
    for position, byte in enumerate(key):
        if byte != 255:
            return key[:position] + bytes([byte + 1])
    return key


# ---- checkpoints


def write_bundle(
    prefix: Path, arrays: Arrays, cuts: Mapping[str, tuple[int, int]] | None = None, shards: int = 1
) -> None:
    """Write a checkpoint.

    Args:
        cuts: (axis, number of slices) of partitioned variables.
        shards: number of files; arrays go to them in turn.
    """
    prefix.parent.mkdir(parents=True, exist_ok=True)
    header = field(1, shards) + field(3, field(1, 1))
    entries = {b"": header}
    files = [bytearray() for _ in range(shards)]
    for number, (name, array) in enumerate(sorted(arrays.items(), key=lambda item: item[0].encode())):
        axis, count = (cuts or {}).get(name, (0, 0))
        if not count:
            entries[name.encode()] = store(files, number % shards, array)
            continue
        slices, start = b"", 0
        for piece_number, piece in enumerate(np.array_split(array, count, axis)):
            extents = [(0, size) for size in array.shape]
            extents[axis] = (start, piece.shape[axis])
            slices += field(7, b"".join(field(1, extent_message(extent)) for extent in extents))
            entries[slice_key(name, extents)] = store(files, (number + piece_number) % shards, piece)
            start += piece.shape[axis]
        dtype = TYPES[array.dtype.name]
        entries[name.encode()] = entry_message(dtype, array.shape, 0, 0, 0, 0, slices)
    for shard, content in enumerate(files):
        prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}").write_bytes(content)
    write_table(prefix.with_name(prefix.name + ".index"), entries)


def store(files: list[bytearray], shard: int, array: np.ndarray) -> bytes:
    data = np.ascontiguousarray(array).tobytes()
    offset = len(files[shard])
    files[shard] += data
    return entry_message(TYPES[array.dtype.name], array.shape, shard, offset, len(data), masked(data))


def extent_message(extent: tuple[int, int]) -> bytes:
    return field(1, extent[0]) + field(2, extent[1])


def slice_key(name: str, extents: list[tuple[int, int]]) -> bytes:
    """For numbers from 0 to 8191."""
    numbers = [number for extent in extents for number in extent]
    signed = b"".join(bytes([0x80 | n]) if n < 64 else bytes([0xC0 | n >> 8, n & 255]) for n in numbers)
    return b"\0" + name.encode() + b"\0\1" + b"\1" + bytes([len(extents)]) + signed


# ---- ELMos


def training_variables(options: dict[str, Any], seed: int = 0, vocab_size: int = 8) -> dict[str, np.ndarray]:
    """What bilm-tf's training saves of a model: weights, softmax, Adagrad's sums, counters."""
    is_words = "char_cnn" not in options
    weights = random_weights(options, seed, vocab_size=vocab_size if is_words else None)
    weights |= random_softmax(options, seed, vocab_size)
    is_single = options["lstm"]["n_layers"] == 1
    variables = {f"lm/{training_name(name, is_single)}": array for name, array in weights.items()}
    random = np.random.default_rng(seed + 100)
    sums = {f"{name}/Adagrad": 1 + random.random(array.shape, "f4") for name, array in variables.items()}
    counters = {"global_step": np.array(7, "int64"), "train_perplexity": np.array(0, "f4")}
    return variables | sums | counters


def training_name(name: str, is_single: bool = False) -> str:
    """bilm-tf's name in HDF5 -> the variable's name"""
    if "/MultiRNNCell/" not in name:
        return name
    name = name.replace("/RNN/MultiRNNCell/Cell", "/rnn/multi_rnn_cell/cell_").replace(
        "LSTMCell", "lstm_cell"
    )
    name = name.replace("/multi_rnn_cell/cell_0/", "/") if is_single else name
    name = name.replace("/W_P_0", "/projection/kernel").replace("/W_0", "/kernel")
    return name.removesuffix("/B") + "/bias" if name.endswith("/B") else name


def module_variables(options: dict[str, Any], seed: int = 0, mix: bool = True) -> dict[str, np.ndarray]:
    """What a TF-Hub module made of bilm-tf's graph for inference holds."""
    variables = {}
    for name, array in random_weights(options, seed).items():
        if name == "char_embed":
            array = np.concatenate([np.zeros_like(array[:1]), array])
        inner = name.replace("/LSTMCell/", "/rnn/lstm_cell/").replace("/W_P_0", "/projection/kernel")
        inner = inner.replace("/W_0", "/kernel")
        inner = inner.removesuffix("/B") + "/bias" if inner.endswith("/B") else inner
        variables[f"bilm/{inner}"] = array
    for number in range(4):
        variables["bilm/Variable" + (f"_{number}" if number else "")] = np.zeros((128, 3), "f4")
    if mix:
        variables["aggregation/weights"] = np.linspace(-1, 1, options["lstm"]["n_layers"] + 1, dtype="f4")
        variables["aggregation/scaling"] = np.array(1.5, "f4")
    return variables


def write_training_folder(
    folder: Path, options: dict[str, Any], seed: int = 0, vocab_size: int = 8, step: int = 7, **how: Any
) -> Path:
    """bilm-tf's folder of a training: a checkpoint, its name, the options."""
    write_bundle(folder / f"model.ckpt-{step}", training_variables(options, seed, vocab_size), **how)
    (folder / "checkpoint").write_text(f'model_checkpoint_path: "model.ckpt-{step}"\n')
    (folder / "options.json").write_text(json.dumps({"bidirectional": True, **options}))
    return folder


def write_module(folder: Path, options: dict[str, Any], seed: int = 0, **what: Any) -> Path:
    write_bundle(folder / "variables" / "variables", module_variables(options, seed, **what))
    (folder / "saved_model.pb").write_bytes(b"\x08\x01")
    return folder
