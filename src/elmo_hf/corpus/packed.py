"""An encoded text in small files for a machine without a network: packed here, unpacked there.

    python -m elmo_hf.corpus.packed pack encoded packed --part-size 60    # packed/part-0, part-1, ...
    python -m elmo_hf.corpus.packed unpack packed/part-* encoded

A part is a folder of at most so many megabytes. Its pieces are some million numbers each, a frequent word in
one byte and a rare one in two or three, compressed by xz: about 1.1 bytes a word of English, where the text
itself takes 1.3. Pieces are unpacked at the same time, with all processors. Each begins with a sentence, so
the first parts alone are a text as well.
"""

import argparse
import lzma
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from elmo_hf.corpus.encoded import COUNTS, FACTS, IDS, WORDS, EncodedText
from elmo_hf.errors import ElmoError, one_sentence, reason_of
from elmo_hf.files import new_folder

PROGRAM = "elmo_hf.corpus.packed"
PIECE = 4_000_000  # numbers
SMALL_FILES = (FACTS, WORDS, COUNTS)  # in the first part
MEGABYTE = 10**6
# A number is written as no, one or several continuing bytes and a last one: the dense code of Brisaboa et al.
LAST, CONTINUING = 200, 56  # how many bytes are last ones (0 to 199), and how many continuing (200 to 255)
LENGTHS = 6  # bytes of the longest number below 2**31


# ---- numbers as bytes


def to_bytes(ids: np.ndarray) -> bytes:
    """The bytes of some numbers; smaller ones have fewer."""
    ids = ids.astype(np.int64)
    columns, used = np.zeros((len(ids), LENGTHS), np.uint8), np.zeros((len(ids), LENGTHS), bool)
    columns[:, -1], used[:, -1] = ids % LAST, True
    left = ids // LAST
    for column in reversed(range(LENGTHS - 1)):
        used[:, column] = left > 0
        columns[:, column] = LAST + (left - 1) % CONTINUING
        left = np.where(left > 0, (left - 1) // CONTINUING, 0)
    return columns[used].tobytes()


def from_bytes(content: bytes) -> np.ndarray:
    """The inverse of `to_bytes`."""
    stream = np.frombuffer(content, np.uint8)
    ends = np.flatnonzero(stream < LAST)
    if len(stream) and (not len(ends) or ends[-1] != len(stream) - 1):
        raise ValueError("it ends in the middle of a number")
    lengths = np.diff(ends, prepend=-1)
    if len(lengths) and lengths.max() > LENGTHS:
        raise ValueError("it holds a number that is too large")
    left = np.zeros(len(ends), np.int64)
    for back in reversed(range(1, LENGTHS)):  # the first byte first
        has_byte = lengths > back
        left[has_byte] = left[has_byte] * CONTINUING + stream[ends[has_byte] - back] - LAST + 1
    return (left * LAST + stream[ends]).astype(np.int32)


# ---- packing


def pack(folder: Path, target: Path, part_size: int) -> list[Path]:
    """Write an encoded text as parts, and return their folders.

    Args:
        part_size: most megabytes of a part.

    Raises:
        ElmoError: a part would be larger than allowed with a single piece, or something cannot be written.
    """
    text = EncodedText(folder)
    with new_folder(target) as unfinished:
        packed = _pieces(text)
        first = [(f"{name}.xz", lzma.compress((folder / name).read_bytes())) for name in SMALL_FILES]
        sizes = [0]
        for name, content in chain(first, packed):
            if len(content) > part_size * MEGABYTE:
                raise ElmoError(
                    f"{name} has {len(content) / MEGABYTE:.1f} MB, but --part-size is {part_size}; raise it."
                )
            if sizes[-1] + len(content) > part_size * MEGABYTE:
                sizes.append(0)
            part = unfinished / f"part-{len(sizes) - 1}"
            part.mkdir(exist_ok=True)
            (part / name).write_bytes(content)
            sizes[-1] += len(content)
    return [target / f"part-{number}" for number in range(len(sizes))]


def _pieces(text: EncodedText) -> Iterator[tuple[str, bytes]]:
    """The pieces with their names, each from the begin of a sentence to the end of one."""
    starts = [*_starts(text), len(text.ids)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        slices = [text.ids[start:end] for start, end in pairwise(starts)]
        for number, content in enumerate(
            pool.map(lambda ids: lzma.compress(to_bytes(ids), preset=9), slices)
        ):
            yield f"ids-{number:05d}.xz", content


def _starts(text: EncodedText) -> list[int]:
    wanted = np.arange(0, len(text.ids), PIECE)
    return np.unique(text.begins[np.searchsorted(text.begins, wanted, side="right") - 1]).tolist()


# ---- unpacking


def unpack(parts: Sequence[Path], folder: Path) -> EncodedText:
    """Make the encoded text of some parts, the first of them included.

    Raises:
        ElmoError: a part is missing between others, or damaged.
    """
    files = {path.name: path for part in parts for path in sorted(part.iterdir())}
    pieces = sorted(name for name in files if name.startswith("ids-"))
    expected = [*(f"{name}.xz" for name in SMALL_FILES), *(f"ids-{n:05d}.xz" for n in range(len(pieces)))]
    if missing := [name for name in expected if name not in files]:
        raise ElmoError(f"{missing[0]} is in none of the parts; name the first part, and none after a gap.")
    with new_folder(folder) as unfinished:
        for name in SMALL_FILES:
            (unfinished / name).write_bytes(_unpacked(files[f"{name}.xz"]))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            arrays = list(pool.map(_numbers, (files[name] for name in pieces)))
        np.save(unfinished / IDS, np.concatenate(arrays) if arrays else np.zeros(0, np.int32))
    try:
        return EncodedText(folder)
    except ElmoError:
        shutil.rmtree(folder)
        raise


def _numbers(path: Path) -> np.ndarray:
    content = _unpacked(path)
    try:
        return from_bytes(content)
    except ValueError as error:
        raise ElmoError(f"{path} is damaged: {error}; pack the text again.") from None


def _unpacked(path: Path) -> bytes:
    try:
        return lzma.decompress(path.read_bytes())
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise ElmoError(f"{path} cannot be read ({reason_of(error)}); pack the text again.") from None


# ---- the command


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="write an encoded text as parts")
    packing.add_argument("folder", type=Path, help="folder of an encoded text")
    packing.add_argument("target", type=Path, help="folder to write the parts in")
    packing.add_argument("--part-size", type=int, default=60, help="most megabytes of a part (60)")
    unpacking = commands.add_parser("unpack", help="make the encoded text of parts")
    unpacking.add_argument("parts", type=Path, nargs="+", help="folders of the parts")
    unpacking.add_argument("folder", type=Path, help="folder to write the encoded text in")
    with one_sentence(PROGRAM):
        run(parser.parse_args())


def run(options: Any) -> None:
    if options.command == "pack":
        for part in pack(options.folder, options.target, options.part_size):
            size = sum(path.stat().st_size for path in part.iterdir())
            print(f"{part}: {size / MEGABYTE:.1f} MB")
        return
    for part in options.parts:
        if not part.is_dir():
            raise ElmoError(f"there is no folder {part}; name the parts that were packed.")
    text = unpack(options.parts, options.folder)
    print(f"{options.folder}: {text.num_words:,} words, {len(text):,} sentences")


if __name__ == "__main__":
    main()
