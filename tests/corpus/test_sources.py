"""Every kind of corpus gives the same sentences; what cannot be read is said in one sentence."""

import bz2
import gzip
import json
import lzma
import random
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset, IterableDataset

from elmo_hf.corpus.source import Source

LINES = [" ".join(f"é{number}_{place}" for place in range(number % 5)) for number in range(40)]
SENTENCES = [line.split() for line in LINES if line]


def packed(folder, name, pack):
    path = folder / name
    path.write_bytes(pack("\n".join(LINES).encode()))
    return path


def zst(content):
    return pytest.importorskip("zstandard").compress(content)


@pytest.mark.parametrize(
    ("name", "pack"),
    [("a.txt.gz", gzip.compress), ("a.xz", lzma.compress), ("a.bz2", bz2.compress), ("a.txt.zst", zst)],
)
def test_packed_text(tmp_path, name, pack):
    assert list(Source(packed(tmp_path, name, pack))) == SENTENCES


def write_all_kinds(folder):
    words = [text.split() for text in LINES]
    rows = [{"text": text} for text in LINES]
    jsonl = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "text.jsonl").write_text(jsonl, encoding="utf-8")
    (folder / "packed.jsonl.xz").write_bytes(lzma.compress(jsonl.encode()))
    (folder / "tokens.jsonl").write_text("".join(json.dumps({"tokens": w}) + "\n" for w in words), "utf-8")
    table = pyarrow.table({"id": range(len(LINES)), "text": LINES})
    pyarrow.parquet.write_table(table, folder / "text.parquet", row_group_size=7)
    pyarrow.parquet.write_table(pyarrow.table({"words": words}), folder / "words.parquet")
    (folder / "bom.txt").write_text("\n".join(LINES), encoding="utf-8-sig")
    (folder / "news.en-00001-of-00100").write_text("\r\n".join(LINES), encoding="utf-8")


def test_every_kind_of_file(tmp_path):
    write_all_kinds(tmp_path)
    for name, options in {
        "text.jsonl": {},
        "packed.jsonl.xz": {},
        "tokens.jsonl": {},
        "text.parquet": {"column": "text"},
        "words.parquet": {"column": "words"},
        "bom.txt": {},
        "news.en-*": {},
    }.items():
        assert list(Source(tmp_path / name, **options)) == SENTENCES, name


def test_lists_patterns_folders_and_streams(tmp_path):
    names = [f"{tmp_path}/{name}.txt" for name in "abc"]
    for name, part in zip(names, (LINES[:11], LINES[11:30], LINES[30:]), strict=True):
        Path(name).write_text("\n".join(part) + "\n", encoding="utf-8")
    stream = IterableDataset.from_generator(lines_of, gen_kwargs={"names": names})
    columns = Dataset.from_dict({"text": LINES})
    pattern = f"{tmp_path}/[abc].txt"
    for data in (names, pattern, f"{tmp_path}/**/*.txt", tmp_path, str(tmp_path), stream, columns):
        assert list(Source(data)) == SENTENCES
    assert list(Source(names[:1])) == [line.split() for line in LINES[:11] if line]
    assert Source(names).num_shards == Source(stream).num_shards == 3
    assert [*Source(pattern).lines(1, skip=17)] == [LINES[28:30]]


def lines_of(names):
    for name in names:
        for text in Path(name).read_text(encoding="utf-8").splitlines():
            yield {"text": text}


def test_paragraphs_of_plain_text(tmp_path):
    path = tmp_path / "plain.txt"
    path.write_text("He didn't pay. Mr. Smith left!\n\nWhy?\n", encoding="utf-8")
    sentences = [["He", "didn", "'t", "pay", "."], ["Mr.", "Smith", "left", "!"], ["Why", "?"]]
    assert list(Source(path, raw=True, split_sentences=True)) == sentences
    assert list(Source(path, split_sentences=True))[1] == ["Mr.", "Smith", "left!"]
    assert next(iter(Source(path))) == ["He", "didn't", "pay.", "Mr.", "Smith", "left!"]


def test_special_words_in_the_text(tmp_path):
    path = tmp_path / "special.txt"
    path.write_text("<S> a b </S>\nc </S> <S> d <UNK>\n<S>\n</S> </S>\nx<S>y\n", encoding="utf-8")
    assert list(Source(path)) == [["a", "b"], ["c"], ["d", "<UNK>"], ["x<S>y"]]
    assert list(Source(path, raw=True))[2] == ["d", "<UNK>"]


def test_words_without_end_are_cut(tmp_path):
    """`regex` would run out of memory on some of them."""
    path = tmp_path / "long.txt"
    path.write_text("y " + "a-" * 500_000 + " z\n", encoding="utf-8")
    (words,) = Source(path, raw=True)
    assert "".join(words) == "y" + "a-" * 500_000 + "z"
    assert max(map(len, words)) <= 10_000
    assert list(Source(path)) == [["y", "a-" * 500_000, "z"]]


def test_half_letters_are_dropped():
    stream = IterableDataset.from_generator(half_letters)
    assert list(Source(stream)) == [["ab", "é"]]


def half_letters():
    yield {"text": "a\ud800b é"}


# ---- what is refused


def refused(match, call, *args, **options):
    with pytest.raises(ValueError, match=match) as error:
        call(*args, **options)
    text = str(error.value)
    assert "\n" not in text
    assert "Traceback" not in text
    assert text.endswith(".")


def test_sources_that_cannot_be_read(tmp_path):
    contents = {
        "bad.txt": (b"good\n\xff\xfe bad\n", "bad.txt is not UTF-8 text: invalid start byte"),
        "empty.txt": (b"", "empty.txt is empty"),
        "empty.jsonl": (b"", "empty.jsonl is empty"),
        "cut.txt.gz": (
            gzip.compress(random.Random(0).randbytes(999).hex().encode())[:600],
            "cannot be read",
        ),
        "plain.txt.gz": (b"plain\n", "cannot be read: Not a gzipped file"),
        "bad.jsonl": (b'{"text": "a"}\n{"text": oops}\n', "cannot be read: JSON parse error"),
        "bad.parquet": (b"PAR1nope", "cannot be read"),
        "columns.jsonl": (b'{"a": "x", "b": "y"}\n', "say by column what to read of .*; it has a, b"),
        "plain.txt.zst": (b"plain\n", "plain.txt.zst is no zstd file at byte 0"),
    }
    for name, (content, match) in contents.items():
        (tmp_path / name).write_bytes(content)
        refused(match, lambda name=name: list(Source(tmp_path / name)))
    refused("there is no file .*none.txt", Source, tmp_path / "none.txt")
    refused("there is no file .*none", Source, f"{tmp_path}/none*")
    refused("is a folder, which can only be read alone", Source, [tmp_path, tmp_path])
    refused("a corpus is a file, files, a folder or a data set, but got 3", Source, 3)
    refused("a corpus is a file", Source, [])
    refused("is a dictionary; pass one of its parts: train", Source, {"train": 1})
    (tmp_path / "good.txt").write_text("a b\n", encoding="utf-8")
    (tmp_path / "good.jsonl").write_text('{"text": "a b"}\n', encoding="utf-8")
    refused("different kinds", Source, [tmp_path / "good.txt", tmp_path / "good.jsonl"])
    refused("has no column 'body'; it has text", Source, tmp_path / "good.jsonl", column="body")
    refused("Bad split", Source, tmp_path, split="nonsense")


def test_records_that_are_no_text(tmp_path):
    for content, match in (
        ('{"text": "a"}\n{"text": 3}\n', "mixed.jsonl, line 2: 'text' should be text, but is 3"),
        ('{"text": "a"}\n{"other": "b"}\n', "line 2: 'text' should be text, but is None"),
        ('{"tokens": ["a"]}\n{"tokens": ["b", null]}\n', "line 2: 'tokens' should be a list of words"),
    ):
        path = tmp_path / "mixed.jsonl"
        path.write_text(content, encoding="utf-8")
        refused(match, lambda path=path: list(Source(path)))
    path.write_text('{"tokens": ["a"]}\n', encoding="utf-8")
    refused("raw is for text, but column 'tokens'", Source, path, raw=True)
    refused("split_sentences is for text", Source, path, split_sentences=True)


def test_a_hub_data_set_out_of_reach(monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    refused("nobody/nothing cannot be read: .*Hub", Source, "nobody/nothing")
