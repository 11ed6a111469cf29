"""A .zst file that was cut off anywhere is refused; a whole one of any form is not."""

import random

import pytest

from elmo_hf import ElmoError
from elmo_hf.corpus.readers import read_blocks
from elmo_hf.corpus.source import Source

zstandard = pytest.importorskip("zstandard")
TEXT = " ".join(random.Random(0).choices(["ice", "cream", "is", "cold"], k=200_000)).encode()  # many blocks
SKIPPABLE = (0x184D2A53).to_bytes(4, "little") + (5).to_bytes(4, "little") + b"12345"


def stream(content, **options):
    """Without its size in the header, in many small blocks."""
    packer = zstandard.ZstdCompressor(**options).compressobj()
    chunks = [content[start : start + 10_000] for start in range(0, len(content), 10_000)]
    return b"".join([*map(packer.compress, chunks), packer.flush()])


FILES = {
    "with its size": zstandard.compress(TEXT),
    "short": zstandard.compress(b"Ada left ."),
    "empty": zstandard.compress(b""),
    "a checksum": zstandard.ZstdCompressor(write_checksum=True).compress(TEXT),
    "a stream": stream(TEXT),
    "a stream with a checksum": stream(TEXT, write_checksum=True, level=1),
    "what cannot be packed": zstandard.compress(random.Random(0).randbytes(300_000)),
    "runs": zstandard.compress(b"a" * 1_000_000),
    "two frames": zstandard.compress(TEXT) + stream(TEXT),
    "a frame to be skipped": SKIPPABLE + zstandard.compress(TEXT) + SKIPPABLE,
}


def unpack(path):
    for _ in read_blocks(str(path), errors="replace"):
        pass


@pytest.mark.parametrize("name", FILES)
def test_complete_files_are_read_and_cut_ones_are_refused(tmp_path, name):
    path, content = tmp_path / "a.txt.zst", FILES[name]
    path.write_bytes(content)
    unpack(path)
    draw = random.Random(1)
    lengths = {1, 2, 4, 5, 8, len(content) - 1, len(content) // 2}
    lengths |= {draw.randrange(1, len(content)) for _ in range(99)}
    for length in lengths - ends_of_frames(content):
        path.write_bytes(content[:length])
        with pytest.raises(EOFError):
            unpack(path)


def ends_of_frames(content):
    """As the library finds them; what is cut there is a whole file, only a shorter one."""
    ends, position = {0}, 0
    while position < len(content):
        if content[position : position + 4] == SKIPPABLE[:4]:
            position += len(SKIPPABLE)
        else:
            unpacker = zstandard.ZstdDecompressor().decompressobj()
            unpacker.decompress(content[position:])
            assert unpacker.eof
            position = len(content) - len(unpacker.unused_data)
        ends.add(position)
    return ends


def test_other_bytes(tmp_path):
    path = tmp_path / "a.zst"
    for content in (FILES["short"] + b"more", FILES["empty"][:-3] + b"\xff\xff\xff"):
        path.write_bytes(content)
        with pytest.raises(ElmoError, match=r"a\.zst cannot be read: zstd decompress"):
            list(Source(path))


def test_all_frames_are_read(tmp_path):
    path = tmp_path / "a.txt.zst"
    frame = zstandard.compress(b"Ada left .\n" * 50_000)
    path.write_bytes(SKIPPABLE + frame + frame + frame)
    assert sum(1 for _ in Source(path)) == 150_000
