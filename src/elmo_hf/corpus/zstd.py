"""Whether a .zst file is whole: its reader takes one that was cut off for one that ends there.

    check_whole("news.txt.zst")     # ValueError where it breaks off

A file is frames; a frame is a header, blocks that each say how long they are, and perhaps a checksum (RFC
8878). So its end is found by jumping from block to block, and nothing is unpacked.
"""

from pathlib import Path
from typing import BinaryIO

MAGIC = 0xFD2FB528
SKIPPABLE = 0x184D2A5  # without the last four bits
RAW, RUN, COMPRESSED = 0, 1, 2  # kinds of blocks; a run is one byte, repeated


def check_whole(path: str | Path) -> None:
    with Path(path).open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        while file.tell() < size:
            start = file.tell()
            try:
                _skip_frame(file)
                is_whole = file.tell() <= size
            except EOFError:
                is_whole = False
            if not is_whole:
                raise ValueError(
                    f"{path} breaks off: what begins at byte {start:,} has no end; fetch or pack it again."
                )


def _skip_frame(file: BinaryIO) -> None:
    magic = _number(file, 4)
    if magic >> 4 == SKIPPABLE:
        file.seek(_number(file, 4), 1)
    elif magic == MAGIC:
        checksum = _skip_header(file)
        while not _skip_block(file):
            pass
        file.seek(checksum, 1)
    else:
        raise ValueError(f"{file.name} is no zstd file at byte {file.tell() - 4:,}.")


def _skip_header(file: BinaryIO) -> int:
    """-> the length of the checksum at the frame's end"""
    flags = _number(file, 1)
    has_window = not flags & 0b10_0000
    size_of_content = {0: 0 if has_window else 1, 1: 2, 2: 4, 3: 8}[flags >> 6]
    size_of_dictionary = (0, 1, 2, 4)[flags & 0b11]
    file.seek(has_window + size_of_dictionary + size_of_content, 1)
    return 4 if flags & 0b100 else 0


def _skip_block(file: BinaryIO) -> bool:
    """-> whether it was the last one"""
    header = _number(file, 3)
    kind, size = header >> 1 & 0b11, header >> 3
    if kind > COMPRESSED:
        raise ValueError(f"{file.name} is damaged at byte {file.tell() - 3:,}.")
    file.seek(1 if kind == RUN else size, 1)
    return bool(header & 1)


def _number(file: BinaryIO, size: int) -> int:
    found = file.read(size)
    if len(found) < size:
        raise EOFError
    return int.from_bytes(found, "little")
