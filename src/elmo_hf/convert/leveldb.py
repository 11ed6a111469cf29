"""Tables of LevelDB, in which TensorFlow keeps the index of a checkpoint, and fields of protocol buffers.

    table = read_table(path)              # {key: value}, every block's checksum verified
    for number, value in fields(table[b"lm/char_embed"]):

A table is blocks of keys that share prefixes, a block of the other blocks' places, and a footer. The limits
are far above what an ELMo needs, and keep a small file from taking much memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import google_crc32c

from elmo_hf.convert.files import check_readable
from elmo_hf.errors import ElmoError

MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
FOOTER = 48  # bytes
MAX_BYTES = 16_000_000
MAX_ENTRIES = 10_000
MAX_KEY = 2_000


class DamageError(ValueError):
    """What is wrong within a file, in a few words."""


@contextmanager
def damage_in(path: Path) -> Iterator[None]:
    """Turn a broken structure into one sentence."""
    try:
        yield
    except (DamageError, IndexError) as error:
        reason = str(error) if isinstance(error, DamageError) else "it ends too early"
        raise ElmoError(f"{path} is truncated or damaged ({reason}); download or copy it again.") from None


def has_magic(path: Path) -> bool:
    """Whether a file ends as a table does."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - len(MAGIC)))
            return file.read(len(MAGIC)) == MAGIC
    except OSError:  # it cannot be read, which matters only if it is needed
        return False


def read_table(path: Path) -> dict[bytes, bytes]:
    """All keys, in ascending order, and their values."""
    check_readable(path)
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ElmoError(
            f"{path} has more than {MAX_BYTES:,} bytes, too many for an index; give another file."
        )
    with damage_in(path):
        return parse_table(data)


def parse_table(data: bytes) -> dict[bytes, bytes]:
    if len(data) < FOOTER or not data.endswith(MAGIC):
        raise DamageError("its end is not that of a table")
    footer = data[-FOOTER:]
    _, position = read_handle(footer, 0)  # of a block without use
    index, _ = read_handle(footer, position)
    entries: dict[bytes, bytes] = {}
    last = b""
    for _, value in read_block(data, *index):
        for key, content in read_block(data, *read_handle(value, 0)[0]):
            if entries and key <= last:
                raise DamageError("its keys are not in order")
            if len(entries) == MAX_ENTRIES:
                raise DamageError(f"it has more than {MAX_ENTRIES:,} entries")
            entries[key] = content
            last = key
    return entries


def read_block(data: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a block: each key's beginning may be that of the key before it."""
    end = start + size
    if end + 5 > len(data) - FOOTER or size < 4:
        raise DamageError("a block lies outside of it")
    if data[end] != 0:
        raise DamageError("a block is compressed, which TensorFlow does not do")
    if masked_checksum(data[start : end + 1]) != int.from_bytes(data[end + 1 : end + 5], "little"):
        raise DamageError("a block differs from its checksum")
    restarts = int.from_bytes(data[end - 4 : end], "little")
    end -= 4 * (restarts + 1)  # places to start reading from, for a search
    position, key = start, b""
    while position < end:
        shared, position = read_varint(data, position)
        length, position = read_varint(data, position)
        value_length, position = read_varint(data, position)
        if shared > len(key) or shared + length > MAX_KEY or position + length + value_length > end:
            raise DamageError("an entry of a block has a wrong length")
        key = key[:shared] + data[position : position + length]
        position += length
        yield key, data[position : position + value_length]
        position += value_length


def read_handle(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    """((start, size) of a block, the position after it)"""
    start, position = read_varint(data, position)
    size, position = read_varint(data, position)
    return (start, size), position


def masked_checksum(data: bytes) -> int:
    return mask(google_crc32c.value(data))


def mask(checksum: int) -> int:
    """As files store checksums: rotated and shifted, lest data that holds its own checksum be special."""
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


# ---- protocol buffers

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """(a whole number of up to 64 bits, the position after it)"""
    value = 0
    for shift in range(0, 64, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), position
    raise DamageError("a number has more than 64 bits")


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The number and value of each field of a message."""
    position = 0
    while position < len(message):
        tag, position = read_varint(message, position)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            value, position = read_varint(message, position)
            yield number, value
            continue
        if kind == BYTES:
            size, position = read_varint(message, position)
        elif kind in (FIXED32, FIXED64):
            size = 4 if kind == FIXED32 else 8
        else:
            raise DamageError("a field has an unknown type")
        content = message[position : position + size]
        position += size
        if position > len(message):
            raise DamageError("a field is longer than its message")
        yield number, content if kind == BYTES else int.from_bytes(content, "little")
