"""Damage to a file's bytes, whatever its format."""

from pathlib import Path
from random import Random

INTERESTING = [b"\0", b"\xff", b"\xff\xff\xff\xff", b"\x80", b"\n", b"\r", b"\t", b'"', b"{", b"[", b"\\"]
INTERESTING += [b"\xef\xbb\xbf"]
INTERESTING += [b"\0" * 8, b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\xed\xa0\x80", b"\xc0\xaf", b"\xe2\x80\xa8"]
INTERESTING += [b"\x1a", b"\x85"]


def damage(rng: Random, data: bytes, near_start: bool = False) -> tuple[bytes, str]:
    """One to four changes. near_start: in the first kilobytes, where most formats have their structure."""
    names = []
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        change = rng.choice([flip, flip, replace, cut, remove, insert, repeat, swap, splice])
        data = change(rng, data, min(len(data), 4096) if near_start and rng.random() < 0.8 else len(data))
        names.append(change.__name__)
    return data, "bytes: " + " ".join(names)


def damage_file(rng: Random, path: Path, near_start: bool = False) -> str:
    data, description = damage(rng, path.read_bytes(), near_start)
    path.write_bytes(data)
    return f"{path.name}, {description}"


def place(rng: Random, size: int) -> int:
    return rng.randrange(size + 1)


def span(rng: Random, size: int) -> tuple[int, int]:
    start = place(rng, size)
    return start, min(size, start + rng.choice([1, 2, 4, 8, 64, 1024]))


def flip(rng: Random, data: bytes, size: int) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        if size:
            changed[rng.randrange(size)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def replace(rng: Random, data: bytes, size: int) -> bytes:
    start, new = place(rng, size), rng.choice([*INTERESTING, rng.randbytes(8)])
    return data[:start] + new + data[start + len(new) :]


def cut(rng: Random, data: bytes, size: int) -> bytes:
    return data[: rng.choice([0, 1, size // 2, max(size - 1, 0), place(rng, size)])]


def remove(rng: Random, data: bytes, size: int) -> bytes:
    start, end = span(rng, size)
    return data[:start] + data[end:]


def insert(rng: Random, data: bytes, size: int) -> bytes:
    start = place(rng, size)
    new = rng.choice([*INTERESTING, rng.randbytes(rng.choice([1, 16, 4096]))])
    return data[:start] + new * rng.choice([1, 1, 3, 1000]) + data[start:]


def repeat(rng: Random, data: bytes, size: int) -> bytes:
    start, end = span(rng, size)
    return data[:end] + data[start:end] * rng.choice([1, 2, 500]) + data[end:]


def swap(rng: Random, data: bytes, size: int) -> bytes:
    (a, b), (c, d) = sorted([span(rng, size), span(rng, size)])
    return data if b > c else data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def splice(rng: Random, data: bytes, size: int) -> bytes:
    start, end = sorted((place(rng, size), place(rng, size)))
    return data[:end] + data[start:]
