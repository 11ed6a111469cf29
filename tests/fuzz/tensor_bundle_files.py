"""Damage to TensorFlow's checkpoints: entries that lie under right checksums, blocks, shards; and to zips."""

import os
import stat
import struct
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import google_crc32c

from elmo_hf.convert.leveldb import fields, mask, read_table
from tests.fuzz import raw_bytes
from tests.helpers import tensor_bundles
from tests.helpers.tensor_bundles import entry_message, masked, write_table

NUMBERS = [0, 1, 2, 3, 4, 7, 63, 64, 255, 256, 261, 262, 2**16, 2**20, 2**31 - 1, 2**31, 2**32, 2**40, 2**62]
NUMBERS += [2**63 - 1, 2**63, 2**64 - 1, 2**64 - 24]
SHAPES = [
    (),
    (0,),
    (1,),
    (2**31, 2**31),
    (2**62, 4),
    (2**63,),
    (2**64 - 1,),
    (1,) * 40,
    (1,) * 3000,
    (0, 2**62),
]
KEYS = [
    b"x" * 1999,
    b"x" * 60_000,
    b"a\nb",
    b"\0",
    b"\0lm\0\1",
    b"\xff\xfe",
    "\u2028".encode(),
    b"..",
    b"../x",
]
KEYS += [b"lm/softmax/W/part_0", b"lm/softmax/W/part_7", b"lm/char_embed/part_1", b"lm/CNN/W_cnn_99", b"%s"]
KEYS += [
    b"bilm/char_embed",
    b"lm/RNN_0/RNN/MultiRNNCell/Cell0/LSTMCell/W_0",
    b"lm/RNN_0/rnn/lstm_cell/weights",
]
KEYS += [
    b"x/RNN_0/rnn/lstm_cell/kernel",
    b"aggregation/weights",
    b"aggregation/scaling",
    b"lm/RNN_0//RNN_0/x",
]
KEYS += [
    b"lm/RNN_0/rnn/multi_rnn_cell/cell_9999/lstm_cell/bias",
    b"lm/rnn/lstm_cell/kernel",
    "\U0001f600".encode(),
]
GIGABYTES = 10 << 30


@dataclass
class Entry:
    dtype: int = 1
    shape: tuple[int, ...] = ()
    shard: int = 0
    offset: int = 0
    size: int = 0
    checksum: int = 0
    slices: list[bytes] = field(default_factory=list)
    more: bytes = b""

    def message(self) -> bytes:
        slices = b"".join(tensor_bundles.field(7, content) for content in self.slices)
        shape = tuple(size % 2**64 for size in self.shape)
        numbers = (self.shard % 2**64, self.offset % 2**64, self.size % 2**64, self.checksum % 2**32)
        return entry_message(self.dtype, shape, *numbers, slices) + self.more


@dataclass
class Bundle:
    """A checkpoint of one file, decoded."""

    index: Path
    header: bytes
    entries: dict[bytes, Entry]
    data: bytearray

    @property
    def data_path(self) -> Path:
        return self.index.with_suffix(".data-00000-of-00001")

    def pick(self, rng: Random) -> bytes:
        return rng.choice(sorted(self.entries)) if self.entries else b"none"

    def write(self) -> None:
        messages = {key: entry.message() for key, entry in self.entries.items()}
        write_table(self.index, {b"": self.header, **messages})
        if self.data_path.is_file():
            with self.data_path.open("r+b") as file:  # it may have been made larger
                file.write(self.data)


def read_bundle(index: Path) -> Bundle:
    table = read_table(index)
    header = table.pop(b"")
    entries = {}
    for key, content in table.items():
        entry = Entry()
        for number, value in fields(content):
            if number == 2:
                entry.shape = tuple(dict(fields(size)).get(1, 0) for _, size in fields(value))
            elif number == 7:
                entry.slices.append(value)
            else:
                name = {1: "dtype", 3: "shard", 4: "offset", 5: "size", 6: "checksum"}[number]
                setattr(entry, name, value)
        entries[key] = entry
    return Bundle(index, header, entries, bytearray(index.with_suffix(".data-00000-of-00001").read_bytes()))


def damage(rng: Random, index: Path) -> str:
    choice = rng.random()
    if choice < 0.12:
        return raw_bytes.damage_file(rng, index)
    if choice < 0.3:
        return damage_block(rng, index)
    if choice < 0.37:
        return raw_bytes.damage_file(rng, index.with_suffix(".data-00000-of-00001"))
    bundle, notes = read_bundle(index), []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        change = rng.choice(CHANGES)
        notes.append(f"{change.__name__} {change(rng, bundle)}")
    bundle.write()
    return f"{index.name}: {'; '.join(notes)}"[:300]


def damage_block(rng: Random, index: Path) -> str:
    """Bytes of the index, of which the first block keeps a right checksum."""
    data, note = raw_bytes.damage(rng, index.read_bytes()[:-61])
    end = index.read_bytes()[-61:]
    whole = bytearray(index.read_bytes())
    size = block_size(whole)
    content = bytes(raw_bytes.flip(rng, bytes(whole[:size]), size)) if rng.random() < 0.7 else data[:size]
    content = content.ljust(size, b"\0")[:size]
    kind = bytes([rng.choice([0, 0, 0, 1, 2, 255])])
    whole[: size + 5] = content + kind + masked(content + kind).to_bytes(4, "little")
    if rng.random() < 0.15:  # the footer's places
        start = len(whole) - 48
        whole[start : start + 12] = b"".join(map(tensor_bundles.varint, rng.choices(NUMBERS, k=8)))[:12]
    index.write_bytes(whole)
    return f"{index.name}, block: {note if end else ''}"


def block_size(data: bytes) -> int:
    """Of the first block: where its checksum fits."""
    for size in range(8, len(data) - 5):
        if (
            data[size] == 0
            and mask(google_crc32c.value(bytes(data[: size + 1])))
            == struct.unpack_from("<I", data, size + 1)[0]
        ):
            return size
    return len(data) // 2


# ---- changes of an entry


def lie(rng: Random, bundle: Bundle) -> str:
    key = bundle.pick(rng)
    entry = bundle.entries.setdefault(key, Entry())
    name = rng.choice(["dtype", "shard", "offset", "offset", "size", "size", "checksum"])
    value = getattr(entry, name)
    new = rng.choice([*NUMBERS, value + 1, value - 1, value * 2, value + 4, value - 4, value * 1000])
    setattr(entry, name, new % 2**64)
    return f"{name} of {key[:60]!r} {new}"


def other_type(rng: Random, bundle: Bundle) -> str:
    """Of a right size, so that only the type is wrong."""
    key = bundle.pick(rng)
    entry = bundle.entries.setdefault(key, Entry())
    entry.dtype = rng.choice([0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14, 19, 20, 23, 101, 2**31])
    width = {2: 8, 4: 1, 5: 2, 6: 1, 9: 8, 10: 1, 14: 2, 19: 2}.get(entry.dtype, 4)
    entry.size = width * product(entry.shape)
    append(bundle, entry, bytes(rng.choice([0, 1, 60]) for _ in range(min(entry.size, 100_000))))
    return f"{key[:60]!r} {entry.dtype}"


def append(bundle: Bundle, entry: Entry, content: bytes) -> None:
    entry.offset, entry.checksum = len(bundle.data), masked(content)
    bundle.data += content


def product(shape: tuple[int, ...]) -> int:
    result = 1
    for size in shape:
        result *= size
    return result


def other_shape(rng: Random, bundle: Bundle) -> str:
    key = bundle.pick(rng)
    entry = bundle.entries.setdefault(key, Entry())
    shape = entry.shape
    choices = [shape[::-1], (*shape, 1), (1, *shape), shape[:-1], (product(shape),), rng.choice(SHAPES)]
    choices += [tuple(size + rng.choice([-1, 1, 5]) for size in shape)]
    entry.shape = tuple(size % 2**64 for size in rng.choice(choices))
    if rng.random() < 0.5 and product(entry.shape) < 100_000:  # all of it is right but the shape
        entry.size = 4 * product(entry.shape)
        append(bundle, entry, bytes(entry.size))
    elif rng.random() < 0.5:
        entry.size = 4 * product(entry.shape) % 2**64
    return f"{key[:60]!r} {str(entry.shape)[:60]}"


def numbers(rng: Random, bundle: Bundle) -> str:
    """Numbers that are none, under a right checksum."""
    key = bundle.pick(rng)
    entry = bundle.entries.setdefault(key, Entry())
    if entry.size < 4 or entry.offset + entry.size > len(bundle.data):
        return "nothing"
    place = entry.offset + 4 * rng.randrange(entry.size // 4)
    value = rng.choice([float("nan"), float("inf"), -float("inf"), 3e38, 1e-45, -1.0, 0.0])
    bundle.data[place : place + 4] = struct.pack("<f", value)
    entry.checksum = masked(bytes(bundle.data[entry.offset : entry.offset + entry.size]))
    return f"{key[:60]!r} {value}"


def huge(rng: Random, bundle: Bundle) -> str:
    """An array of gigabytes that fits its file, which is a hole."""
    key = rng.choice(
        [b"lm/softmax/W", b"lm/softmax/b", b"lm/char_embed", b"bilm/char_embed", bundle.pick(rng)]
    )
    entry = bundle.entries.setdefault(key, Entry())
    rows = entry.shape[0] if entry.shape and rng.random() < 0.5 else 2**16
    entry.shape = (max(rows, 1), GIGABYTES // 4 // max(rows, 1))
    entry.offset, entry.size = len(bundle.data), 4 * product(entry.shape)
    if bundle.data_path.is_file():
        os.truncate(bundle.data_path, entry.offset + entry.size + rng.choice([0, 0, -1, 5]))
    return f"{key[:60]!r} {entry.shape}"


def slices(rng: Random, bundle: Bundle) -> str:
    """A variable is cut into slices, of which one may be wrong."""
    key = bundle.pick(rng)
    entry = bundle.entries[key] if bundle.entries else Entry()
    if not entry.shape or not product(entry.shape) or product(entry.shape) > 100_000 or entry.slices:
        return "nothing"
    cut = rng.randrange(entry.shape[0] + 1)
    whole = bytes(bundle.data[entry.offset : entry.offset + entry.size])
    row = entry.size // entry.shape[0]
    places = [(0, cut), (cut, entry.shape[0] - cut)]
    contents, wrong = [whole[: cut * row], whole[cut * row :]], rng.random() < 0.6
    bundle.entries[key] = replace(entry, offset=0, size=0, checksum=0, slices=[])
    for number, ((start, length), content) in enumerate(zip(places, contents, strict=True)):
        if wrong and number == 1:
            start, length = (max(0, value + rng.choice([-1, 0, 1, 2**40])) for value in (start, length))
        extents = [(start, length), *((0, size) for size in entry.shape[1:])]
        if wrong and rng.random() < 0.3:
            extents = rng.choice([extents[:-1], [*extents, (0, 1)], [(0, entry.shape[0])] * len(extents), []])
        message = b"".join(
            tensor_bundles.field(1, tensor_bundles.extent_message(extent)) for extent in extents
        )
        bundle.entries[key].slices.append(message)
        piece = replace(entry, shape=(len(content) // row, *entry.shape[1:]), size=len(content))
        append(bundle, piece, content)
        if not wrong or rng.random() < 0.9:
            small = [(a % 8192, b % 8192) for a, b in extents]
            bundle.entries[tensor_bundles.slice_key(key.decode("utf-8", "replace"), small)] = piece
    return f"{key[:60]!r} {places} {wrong}"


def pieces(rng: Random, bundle: Bundle) -> str:
    """A variable is saved as NAME/part_0, NAME/part_1."""
    key = bundle.pick(rng)
    entry = bundle.entries.pop(key, Entry())
    for number in rng.choice([[0, 1], [0], [1], [0, 2], [0, 1, 2, 3]]):
        bundle.entries[key + b"/part_%d" % number] = replace(entry, slices=list(entry.slices))
    return f"{key[:60]!r}"


def rename(rng: Random, bundle: Bundle) -> str:
    key, new = (
        bundle.pick(rng),
        rng.choice([*KEYS, bundle.pick(rng) + rng.choice([b"x", b"/Adagrad", b"/part_0"])]),
    )
    entry = bundle.entries.get(key, Entry())
    if rng.random() < 0.6:
        bundle.entries.pop(key, None)
    bundle.entries[new] = replace(entry, slices=list(entry.slices))
    return f"{key[:60]!r} {new[:60]!r}"


def remove(rng: Random, bundle: Bundle) -> str:
    key = bundle.pick(rng)
    bundle.entries.pop(key, None)
    return f"{key[:60]!r}"


def swap(rng: Random, bundle: Bundle) -> str:
    first, second = bundle.pick(rng), bundle.pick(rng)
    if bundle.entries:
        bundle.entries[first], bundle.entries[second] = bundle.entries[second], bundle.entries[first]
    return f"{first[:60]!r} {second[:60]!r}"


def fields_more(rng: Random, bundle: Bundle) -> str:
    key = bundle.pick(rng)
    entry = bundle.entries.setdefault(key, Entry())
    number, value = (
        rng.choice([1, 2, 3, 5, 7, 8, 99, 2**28]),
        rng.choice([b"", b"\x08", b"\xff" * 12, *NUMBERS]),
    )
    entry.more = rng.choice(
        [tensor_bundles.field(number, value), b"\x80", b"\x0b", b"\xff" * 11, b"\x12\xff\x01"]
    )
    return f"{key[:60]!r} {entry.more[:20]!r}"


def many(rng: Random, bundle: Bundle) -> str:
    count = rng.choice([300, 10_500])
    for number in range(count):
        bundle.entries[b"many/%d" % number] = Entry(dtype=rng.choice([1, 7]), shape=(0,), offset=0)
    return str(count)


def header(rng: Random, bundle: Bundle) -> str:
    shards = rng.choice([0, 2, 200, 201, 100_000, 2**31, 2**63])
    message = tensor_bundles.field(1, shards) + tensor_bundles.field(2, rng.choice([0, 0, 1, 5]))
    bundle.header = rng.choice([message, b"", b"\x08", b"\xff" * 20, tensor_bundles.field(1, b"x")])
    return repr(bundle.header)


def shorter(rng: Random, bundle: Bundle) -> str:
    cut = rng.choice([1, 4, len(bundle.data) // 2, len(bundle.data)])
    del bundle.data[-cut:]
    if bundle.data_path.is_file():
        os.truncate(bundle.data_path, len(bundle.data))
    return str(cut)


CHANGES = [lie, lie, lie, other_type, other_shape, other_shape, numbers, huge, slices, slices, pieces, rename]
CHANGES += [rename, remove, swap, fields_more, many, header, shorter]


# ---- the file `checkpoint`


def damage_newest(rng: Random, path: Path, outside: Path) -> str:
    names = ["model.ckpt-7", "model.ckpt-9", "model.ckpt-8", "", ".", "..", "/", "../../outside/model.ckpt-9"]
    names += [
        f"{outside}/model.ckpt-9",
        "a" * 5000,
        "\u2028",
        "*",
        "model.ckpt-*",
        "[a",
        '"',
        "\\",
        "%s",
        "\0",
    ]
    name = rng.choice(names)
    text = rng.choice([f'model_checkpoint_path: "{name}"\n', f'x: "y"\nmodel_checkpoint_path:"{name}"', name])
    path.write_bytes(text.encode("utf-8") if rng.random() < 0.9 else b"\xff" * rng.choice([5, 2_000_000]))
    return f"checkpoint names {name[:60]!r}"


# ---- zips


def damage_zip(rng: Random, path: Path, outside: Path) -> str:
    if rng.random() < 0.3:
        return raw_bytes.damage_file(rng, path)
    with zipfile.ZipFile(path) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    change = rng.choice(ZIP_CHANGES)
    links: set[str] = set()
    note = change(rng, members, outside, links)
    kind = rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name or "x")
            info.compress_type = kind
            if name in links:
                info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, content)
    if rng.random() < 0.2:
        note += "; " + raw_bytes.damage_file(rng, path)
    return f"zip: {change.__name__} {note}"


Members = list[tuple[str, bytes]]


def outside_names(rng: Random, members: Members, outside: Path, links: set[str]) -> str:
    prefix = rng.choice(
        ["../", "../../", "/", "/tmp/", f"{outside}/", "a/../../", "..\\", "C:\\", "variables/", "a/b/"]
    )
    chosen = [number for number in range(len(members)) if rng.random() < 0.7]
    for number in chosen:
        members[number] = (prefix + members[number][0], members[number][1])
    return f"{prefix} {len(chosen)}"


def link_members(rng: Random, members: Members, outside: Path, links: set[str]) -> str:
    number = rng.randrange(len(members))
    target = rng.choice(
        ["/etc/passwd", "../../outside/secret.txt", str(outside / "secret.txt"), "variables.index"]
    )
    members[number] = (members[number][0], target.encode())
    links.add(members[number][0])
    return f"{members[number][0]} -> {target}"


def bomb(rng: Random, members: Members, outside: Path, links: set[str]) -> str:
    number = rng.randrange(len(members))
    members[number] = (members[number][0], bytes(rng.choice([1 << 20, 90 << 20])))
    return members[number][0]


def twice(rng: Random, members: Members, outside: Path, links: set[str]) -> str:
    members.append((rng.choice(["", "a/", "./"]) + rng.choice(members)[0], b"x"))
    return members[-1][0]


def lacking(rng: Random, members: Members, outside: Path, links: set[str]) -> str:
    return members.pop(rng.randrange(len(members)))[0]


def many_members(rng: Random, members: Members, outside: Path, links: set[str]) -> str:
    members.extend((f"variables.data-{number:05d}-of-00001", b"x") for number in range(rng.choice([5, 3000])))
    return str(len(members))


ZIP_CHANGES = [outside_names, outside_names, link_members, bomb, twice, lacking, many_members]
