"""Packed texts: bombs, files that are cut off or put together, other kinds than their names say."""

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import zstandard

from tests.fuzz import raw_bytes

Pack = Callable[[bytes], bytes]
PACKERS: dict[str, Pack] = {
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
}
BOMB = 1 << 30  # bytes when unpacked
PIECE = 1 << 22


def zipped(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("text.txt", data)
    return file.getvalue()


def damage(rng: Random, data: bytes, suffix: str) -> tuple[bytes, str]:
    """The text packed for this suffix, and damaged after it, before it, or both."""
    pack, choice = PACKERS[suffix], rng.random()
    if choice < 0.003:
        return bomb(suffix, rng.choice([b"x", b"x ", b"\n", b"\0", b"["])), "bomb"
    if choice < 0.1:
        return pack(data) + pack(data), "two members"
    if choice < 0.2:
        tail = rng.choice([b"\0" * 512, b"rubbish", rng.randbytes(100), pack(data)[:20], b"\0" * (1 << 22)])
        return pack(data) + tail, "rubbish at the end"
    if choice < 0.3:
        packed = pack(data)
        return packed[: rng.choice([len(packed) - 1, len(packed) - 8, len(packed) // 2, 3, 12])], "cut off"
    if choice < 0.4:
        other = rng.choice([*PACKERS.values(), zipped, lzma_alone, skippable])
        return other(data), "another packer"
    if choice < 0.45:
        return pack(pack(data)), "packed twice"
    if choice < 0.65:
        damaged, description = raw_bytes.damage(rng, data)
        return pack(damaged), "inside, " + description
    damaged, description = raw_bytes.damage(rng, pack(data), near_start=rng.random() < 0.3)
    return damaged, "packed, " + description


def lzma_alone(data: bytes) -> bytes:
    return lzma.compress(data, lzma.FORMAT_ALONE)


def skippable(data: bytes) -> bytes:
    """A frame that zstd passes over, and a frame with a window of 1 GB."""
    window = zstandard.ZstdCompressionParameters.from_level(1, window_log=30)
    frame = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"abcd"
    return frame + zstandard.ZstdCompressor(compression_params=window).compress(data)


def bomb(suffix: str, unit: bytes) -> bytes:
    """`BOMB` bytes of one unit, packed piece by piece: most packers allow members one after the other."""
    piece = unit * (PIECE // len(unit))
    return PACKERS[suffix](piece) * (BOMB // PIECE)


def damage_text(rng: Random, data: bytes) -> tuple[bytes, str]:
    """Lines: long ones, empty ones, all kinds of ends, letters that are none."""
    lines = data.split(b"\n")
    number = rng.randrange(len(lines))
    changes = [
        b"x" * rng.choice([10_001, 1_000_000]),
        b"x " * rng.choice([1000, 200_000]),
        b"",
        b"\r",
        b"\0" * 100,
        "\u2028\x85\x0b\x0c\x1c\ufeff".encode(),
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"<S> </S> <S>",
        "a\u0301".encode() * 10_000,
        rng.randbytes(500),
        b"[" * 100_000,
        b'{"text": ' * 50_000,
    ]
    if rng.random() < 0.3:
        return raw_bytes.damage(rng, data)
    new = rng.choice(changes)
    lines[number] = new
    end = rng.choice([b"\n", b"\n", b"\n", b"\r\n", b"\r", b"\n\n", b""])
    return end.join(lines), f"line {number + 1} = {new[:20]!r} ends {end!r}"


def unpacked(path: Path) -> bytes:
    openers = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    return openers[path.suffix](path).read()
