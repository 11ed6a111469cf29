"""A .zst file that was cut off anywhere is refused; a whole one of any form is not."""

import random

import pytest

from elmo_hf.corpus import source as sources
from elmo_hf.corpus.zstd import check_whole

zstandard = pytest.importorskip("zstandard")
TEXT = " ".join(random.Random(0).choices(["ice", "cream", "is", "cold"], k=200_000)).encode()  # many blocks
SKIPPABLE = (0x184D2A53).to_bytes(4, "little") + (5).to_bytes(4, "little") + b"12345"


def stream(content, **options):
    """Without its size in the header, in many small blocks."""
    packer = zstandard.ZstdCompressor(**options).compressobj()
    parts = [content[start : start + 10_000] for start in range(0, len(content), 10_000)]
    return b"".join([*map(packer.compress, parts), packer.flush()])


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


@pytest.mark.parametrize("name", FILES)
def test_whole_files_are_whole_and_cut_ones_are_not(tmp_path, name):
    path, content = tmp_path / "a.txt.zst", FILES[name]
    path.write_bytes(content)
    check_whole(path)
    draw = random.Random(1)
    lengths = {
        1,
        2,
        4,
        5,
        8,
        len(content) - 1,
        len(content) // 2,
        *(draw.randrange(1, len(content)) for _ in range(99)),
    }
    bounds = ends_of_frames(content)
    for length in lengths - bounds:
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"a\.txt\.zst breaks off: what begins at byte") as caught:
            check_whole(path)
        assert "\n" not in str(caught.value)


def ends_of_frames(content):
    """As the library finds them; what is cut there is a whole file, only a shorter one."""
    ends, place = {0}, 0
    while place < len(content):
        if content[place : place + 4] == SKIPPABLE[:4]:
            place += len(SKIPPABLE)
        else:
            unpacker = zstandard.ZstdDecompressor().decompressobj()
            unpacker.decompress(content[place:])
            assert unpacker.eof
            place = len(content) - len(unpacker.unused_data)
        ends.add(place)
    return ends


def test_other_bytes(tmp_path):
    path = tmp_path / "a.zst"
    path.write_bytes(FILES["short"] + b"more")
    with pytest.raises(ValueError, match=r"a\.zst is no zstd file at byte"):
        check_whole(path)
    path.write_bytes(FILES["empty"][:-3] + b"\xff\xff\xff")
    with pytest.raises(ValueError, match=r"a\.zst is damaged at byte"):
        check_whole(path)


def test_a_corpus_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "a.txt.zst"
    lines = zstandard.compress(b"Ada left .\n" * 100_000)
    path.write_bytes(lines[: len(lines) // 2])
    with pytest.raises(ValueError, match="breaks off"):
        sources.Source(path)
