"""Hostile files of a corpus: bounded memory, no text lost in silence, and one sentence for each."""

import bz2
import gzip
import io
import json
import lzma
import os

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from elmo_hf import ElmoError
from elmo_hf.corpus import parquet, readers, unpacking
from elmo_hf.corpus.source import open_records

PACKERS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstandard.compress}


def read(path):
    return list(open_records(path).records())


def refused(path, match):
    with pytest.raises(ElmoError, match=match) as caught:
        read(path)
    message = str(caught.value)
    assert message.isprintable()
    assert message.endswith(".")
    assert str(path) in message


@pytest.mark.parametrize("suffix", PACKERS)
def test_members_one_after_another(tmp_path, suffix):
    """Those behind a damaged beginning would be missing without a word."""
    path, pack = tmp_path / f"a.txt.{suffix}", PACKERS[suffix]
    first, second = pack(b"Ada left .\n"), pack(b"Why ?\n")
    for content in (first + second, first + bytes(64) + second + bytes(8)):
        path.write_bytes(content)
        assert read(path) == ["Ada left .", "Why ?"]
    for end in (b"other", b"\x55" + second[1:], second[:1] + b"\x55" + second[2:]):
        path.write_bytes(first + end)
        refused(path, "cannot be read: ")
    path.write_bytes(first + second[:-3])
    refused(path, "ends in the middle")
    path.write_bytes(b"")
    refused(path, "is empty")


@pytest.mark.parametrize("at_once", [1, 7, 64])
def test_members_that_end_where_a_read_ends(at_once):
    member = bz2.compress(b"Why ?\n")
    for content in (member + member, member + bytes(at_once * 2) + member + bytes(at_once)):
        pieces = unpacking._members(io.BytesIO(content), bz2.BZ2Decompressor, at_once)
        assert b"".join(pieces) == b"Why ?\n" * 2


@pytest.mark.parametrize("suffix", PACKERS)
def test_padding_without_an_end(tmp_path, suffix):
    path, member = tmp_path / f"a.txt.{suffix}", PACKERS[suffix](b"Why ?\n")
    path.write_bytes(member)
    os.truncate(path, len(member) + unpacking.MOST_PADDING)
    assert read(path) == ["Why ?"]
    os.truncate(path, 1 << 40)
    refused(path, "more than 16,777,216 zeros lie between its members or behind them")


def test_gzip_is_unpacked_piece_by_piece(tmp_path):
    content = b"".join(b"%d a b .\n" % number for number in range(200_000)) + b"a\n" * 400_000
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(content))
    assert "".join(readers.read_blocks(str(tmp_path / "a.txt.gz"))).encode() == content
    damaged = bytearray(gzip.compress(content))
    damaged[-6] ^= 1  # of the checksum
    (tmp_path / "a.txt.gz").write_bytes(damaged)
    refused(tmp_path / "a.txt.gz", "cannot be read: .*incorrect data check")


def test_a_packed_file_without_a_suffix(tmp_path):
    for pack in PACKERS.values():
        (tmp_path / "a").write_bytes(pack(b"Why ?\n"))
        assert read(tmp_path / "a") == ["Why ?"]


LONG = {
    "line.txt": b"a" * 900,
    "second.txt": b"a\n" + b"a b " * 300,
    "blanks.txt": b" " * 900 + b"a",
    "empty.txt": b"a\n" + b"\n" * 900,
    "empty.jsonl": b'{"text": "a"}\n' + b" \r\n" * 900,
    "empty.csv": b"text,b\na,b\n" + b"\n" * 900,
    "value.jsonl": b'{"text": "' + b"a" * 900 + b'"}\n',
    "deep.jsonl": b'{"text": "a"}\n' + b"[" * 900,
    "value.json": b'[{"text": "a"},\n{"text": "' + b"a" * 2000 + b'"}]\n',
    "spread.json": b'{"text":\n"a",\n"other": [\n' + b"1,\n" * 500 + b"1]\n}\n",
    "quote.csv": b'text\n"' + b"a b\n" * 300 + b'"\n',
    "fields.csv": b"text" + b",a" * 500 + b"\n",
    "rows.csv": b"text,b\n" + b'"a\n a",' * 200 + b"\n",
}


@pytest.mark.parametrize("name", LONG)
def test_what_is_too_long_for_memory_is_not_read_to_its_end(tmp_path, name, monkeypatch):
    monkeypatch.setattr(readers, "LONGEST", 500)
    monkeypatch.setattr(readers, "BLOCK", 64)
    blocks = 0

    def counted(self, size):
        nonlocal blocks
        blocks += 1
        return original(self, size)

    original = readers.io.TextIOWrapper.read
    text = type("Text", (readers.io.TextIOWrapper,), {"read": counted})
    monkeypatch.setattr(readers.io, "TextIOWrapper", text)
    path = tmp_path / f"{name}.gz"
    path.write_bytes(gzip.compress(LONG[name] + b"\n" + b"a" * 100_000))
    refused(path, "more than 500 characters|larger than field limit")
    assert blocks < 200


def test_json_that_goes_on_over_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "BLOCK", 16)
    rows = [{"text": f"line {number} [é" + "x" * number, "n": [number, None]} for number in range(50)]
    objects = "\n".join(json.dumps(row, indent=2) for row in rows)
    for content in (json.dumps(rows), json.dumps(rows, indent=1), objects):
        (tmp_path / "a.json").write_text(content, encoding="utf-8")
        assert read(tmp_path / "a.json") == [row["text"] for row in rows]
    for content, match in {
        '[{"text": "a"},\n {"text": "b"}': "ends in the middle",
        "[": "ends in the middle",
        "[\n] more": "line 2 is no JSON: 'more'",
        '[{"text": "a"},\n {"text": "b"}] more': "line 2 is no JSON: 'more'",
        '[{"text": "a"}\n {"text": "b"}]': "line 2 is no JSON",
        '[{"text": "a"},\n {"text": ' + "9" * 5000 + "}]": "line 2 is no JSON",
        '[{"text": "a"},\n' + '{"a":' * 100_000: "line 2 is no JSON",
    }.items():
        (tmp_path / "a.json").write_text(content, encoding="utf-8")
        refused(tmp_path / "a.json", match)


@pytest.mark.parametrize("content", ["[]", "[\n]\n", "  [ ]"])
def test_an_empty_array_of_json_is_whole(tmp_path, content):
    (tmp_path / "a.json").write_text(content, encoding="utf-8")
    refused(tmp_path / "a.json", r"a\.json is empty; there is no line in it\.$")


def test_a_quote_that_never_closes_and_too_many_fields(tmp_path):
    (tmp_path / "a.csv").write_text('text\na\n"b\nc\n', encoding="utf-8")
    refused(tmp_path / "a.csv", "ends inside a quoted field")
    (tmp_path / "a.csv").write_text("text,b\na,b\na,b,c\n", encoding="utf-8")
    refused(tmp_path / "a.csv", "line 3 has 3 fields for 2 columns")


def test_parquet_that_holds_more_than_its_bytes(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    monkeypatch.setattr(parquet, "ALWAYS_ALLOWED_BYTES", 1 << 10)
    text = pyarrow.table({"text": ["a" * (1 << 22)]})
    pyarrow.parquet.write_table(text, path, use_dictionary=False, compression="zstd")
    refused(path, "bytes for 4,194,3")
    pyarrow.parquet.write_table(pyarrow.table({"tokens": [["a"] * 1_000_000]}), path)
    refused(path, "bytes for 1,000,000")


def test_a_value_that_is_written_once_for_many_rows(tmp_path, monkeypatch):
    """A row at a time is in memory, as many as fit."""
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a b " * 5000] * 300, "other": ["c"] * 300}), path)
    sizes, values = [], parquet._values

    def noted(batch, file):
        sizes.append(batch.num_rows)
        return values(batch, file)

    monkeypatch.setattr(parquet, "_values", noted)
    monkeypatch.setattr(parquet, "ALWAYS_ALLOWED_BYTES", 100_000)
    assert read(path) == ["a b " * 5000] * 300
    assert set(sizes[1:]) == {4}
    monkeypatch.setattr(parquet, "LONGEST", 10_000)
    refused(path, "a text of more than 10,000 characters")


def test_what_is_no_plain_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    refused(tmp_path / "pipe.txt", "is a pipe")
    (tmp_path / "loop.txt").symlink_to("loop.txt")
    refused(tmp_path / "loop.txt", "symbolic links")
    (tmp_path / "zero.txt").symlink_to("/dev/zero")
    refused(tmp_path / "zero.txt", "is no file of text, but a device")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt.zst").write_bytes(zstandard.compress(b"a b\n" * 999)[:-4])
    with pytest.raises(ElmoError, match=r"folder/a\.txt\.zst ends in the middle"):
        read(tmp_path / "folder")


def test_no_control_character_of_a_name_reaches_the_terminal(tmp_path):
    (tmp_path / "a\n\x1b[31m.txt").write_bytes(b"")
    with pytest.raises(ElmoError, match="is empty") as caught:
        read(tmp_path / "a\n\x1b[31m.txt")
    assert str(caught.value).isprintable()
