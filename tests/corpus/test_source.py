"""Every type of source gives the same sentences; unreadable sources are refused in one sentence."""

import bz2
import gc
import gzip
import json
import lzma
import random
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset, IterableDataset

from elmo_hf import ElmoError
from elmo_hf.corpus.source import InMemory, Source, open_records

LINES = [" ".join(f"é{number}_{place}" for place in range(number % 5)) for number in range(40)]
WORDS = [line.split() for line in LINES]
SENTENCES = [words for words in WORDS if words]


def zst(content):
    return pytest.importorskip("zstandard").compress(content)


def write_all_kinds(folder):
    """The same 40 lines as every kind of file, a name to what `open_records` takes beside it."""
    text = "\n".join(LINES)
    jsonl = "".join(json.dumps({"id": number, "text": line}) + "\n" for number, line in enumerate(LINES))
    array = json.dumps([{"text": line} for line in LINES])
    files = {
        "a.txt": text.encode(),
        "bom.txt": b"\xef\xbb\xbf" + text.encode(),
        "news.en-00001-of-00100": text.replace("\n", "\r\n").encode(),
        "we[ird] *.txt": text.encode(),
        "a.txt.gz": gzip.compress(text.encode()),
        "a.bz2": bz2.compress(text.encode()),
        "a.xz": lzma.compress(text.encode()),
        "a.txt.zst": zst(text.encode()),
        "text.jsonl": jsonl.encode(),
        "blanks.ndjson": ("\n" + jsonl.replace("\n", "\n \n")).encode(),
        "packed.jsonl.xz": lzma.compress(jsonl.encode()),
        "texts.jsonl": "\n".join(map(json.dumps, LINES)).encode(),
        "array.json": array.encode(),
        "indented.json": array.replace("{", "\n{").replace("]", "\n]").encode(),
        "texts.json": json.dumps(LINES).encode(),
        "text.csv": ("id,text\n" + "".join(f'1,"{line}"\n' for line in LINES)).encode(),
        "text.tsv": ("text\tid\n" + "".join(f'"{line}"\t1\n' for line in LINES)).encode(),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    table = pyarrow.table({"id": range(len(LINES)), "mine": LINES})
    pyarrow.parquet.write_table(table, folder / "mine.parquet", row_group_size=7)
    return dict.fromkeys(files, None) | {"mine.parquet": "mine"}


def write_words(folder):
    jsonl = "".join(json.dumps({"tokens": words}) + "\n" for words in WORDS)
    (folder / "tokens.jsonl").write_text(jsonl, encoding="utf-8")
    (folder / "lists.jsonl").write_text("".join(json.dumps(words) + "\n" for words in WORDS), "utf-8")
    (folder / "lists.json").write_text("".join(json.dumps(words) + "\n" for words in WORDS), "utf-8")
    pyarrow.parquet.write_table(pyarrow.table({"mine": WORDS}), folder / "mine.parquet")
    return {"tokens.jsonl": None, "lists.jsonl": None, "lists.json": None, "mine.parquet": "mine"}


def test_every_kind_of_file(tmp_path):
    for name, column in write_all_kinds(tmp_path).items():
        if name.endswith("csv") or name.endswith("tsv"):
            continue  # below
        assert list(open_records(tmp_path / name, column).records()) == LINES, name
        assert list(Source(tmp_path / name, column=column)) == SENTENCES, name
    for name, column in write_words(tmp_path).items():
        assert list(open_records(tmp_path / name, tokens_column=column).records()) == WORDS, name
        assert list(Source(tmp_path / name, column=column)) == SENTENCES, name


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # `datasets` closes no CSV file
def test_tables_of_text(tmp_path):
    write_all_kinds(tmp_path)
    lines = [line or "none" for line in LINES]
    for name, separator in (("b.csv", ","), ("b.tsv", "\t")):
        rows = [f"1{separator}{line}\n" for line in lines]
        (tmp_path / name).write_text(f"id{separator}text\n" + "".join(rows), encoding="utf-8")
        assert list(open_records(tmp_path / name).records()) == lines
    assert list(open_records(tmp_path / "text.csv").records()) == LINES  # an empty field is an empty line
    (tmp_path / "c.csv").write_text('id,text\n\n1,NA\n2,"in two\n lines, 007"\n3\n', encoding="utf-8")
    records = open_records(tmp_path / "c.csv").records()
    refused("c.csv, record 3: column 'text' should be text, but is None", lambda: list(records))
    (tmp_path / "c.csv").write_text('id,text\n\n1,NA\n2,"in two\n lines, 007"\n', encoding="utf-8")
    assert list(open_records(tmp_path / "c.csv").records()) == ["NA", "in two\n lines, 007"]
    gc.collect()  # here and not in the next test


def every_object():
    """The lines as what is passed by a program, and as which column."""
    yield LINES, {}
    yield tuple(LINES), {}
    yield iter(LINES), {}
    yield (line for line in LINES), {}
    yield np.array(LINES), {}
    yield [{"id": 1, "text": line} for line in LINES], {}
    yield Dataset.from_dict({"mine": LINES}), {"text_column": "mine"}
    yield Dataset.from_dict({"text": LINES}).to_iterable_dataset(), {}
    yield Dataset.from_dict({"text": LINES}).with_format("numpy"), {}
    yield IterableDataset.from_generator(lambda: ({"text": line} for line in LINES)), {}


def every_object_of_words():
    yield WORDS, {}
    yield (tuple(words) for words in WORDS), {}
    yield Dataset.from_dict({"mine": WORDS}), {"tokens_column": "mine"}
    yield Dataset.from_dict({"tokens": WORDS}).with_format("numpy"), {}
    yield IterableDataset.from_generator(lambda: ({"tokens": words} for words in WORDS)), {}


def test_every_object_of_a_program():
    for data, columns in every_object():
        assert list(open_records(data, **columns).records()) == LINES
    for data, columns in every_object_of_words():
        assert list(open_records(data, **columns).records()) == WORDS
    assert list(Source(InMemory(LINES))) == list(Source(InMemory(WORDS))) == SENTENCES


def test_words_are_kept_as_they_are():
    """A word of a list may have a blank, which `lines` does not know."""
    source = open_records([["New York", ""], [], ["is"]])
    assert list(source.records()) == [["New York", ""], [], ["is"]]
    assert [line for lines in source.lines(0) for line in lines] == ["New York ", "", "is"]


def test_a_stream_is_read_once_and_little_ahead():
    numbers = iter(range(10**9))
    records = open_records(str(number) for number in numbers).records()
    assert list(islice(records, 3)) == ["0", "1", "2"]
    assert next(numbers) == 3
    assert open_records(iter(["a"])).stream == "list_iterator"
    assert open_records(["a"]).stream is None
    source = open_records(LINES)
    assert list(source.records()) == list(source.records())


def test_dates_and_columns_of_several_types_are_left_alone(tmp_path):
    """A reader that guesses types would make a date of the first text."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "2020-01-01", "id": 1}\n{"text": "2020-01-02", "id": ["x"], "more": {}}\n')
    assert list(open_records(path).records()) == ["2020-01-01", "2020-01-02"]


def test_lists_patterns_folders_and_streams(tmp_path):
    names = [f"{tmp_path}/{name}.txt" for name in "abc"]
    for name, lines in zip(names, (LINES[:11], LINES[11:30], LINES[30:]), strict=True):
        Path(name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    stream = IterableDataset.from_generator(lines_of, gen_kwargs={"names": names})
    columns = Dataset.from_dict({"text": LINES})
    pattern = f"{tmp_path}/[abc].txt"
    for data in (names, pattern, f"{tmp_path}/**/*.txt", tmp_path, str(tmp_path), stream, columns):
        assert list(Source(data)) == SENTENCES
    assert list(open_records(pattern).records()) == list(open_records(stream).records()) == LINES
    assert list(Source(names[:1])) == [line.split() for line in LINES[:11] if line]
    assert Source(names).num_shards == Source(stream).num_shards == 3
    assert [*Source(pattern).lines(1, skip=17)] == [LINES[28:30]]


def test_lines_from_a_number_on(tmp_path):
    """Blank lines of JSON are not counted."""
    kinds = write_all_kinds(tmp_path)
    for name in ("a.txt", "a.txt.gz", "text.jsonl", "blanks.ndjson", "array.json", "mine.parquet"):
        lines = Source(tmp_path / name, column=kinds[name]).lines(0, skip=33)
        assert [line for batch in lines for line in batch] == LINES[33:], name


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


def test_half_letters_are_dropped(tmp_path):
    assert list(Source(IterableDataset.from_generator(half_letters))) == [["ab", "é"]]
    path = tmp_path / "a.jsonl"
    path.write_text('{"tokens": ["a\\ud800b", "\\udfff"]}\n', encoding="utf-8")
    assert list(open_records(path).records()) == [["ab", ""]]


def half_letters():
    yield {"text": "a\ud800b é"}


# ---- what is refused


def refused(match, call, *args, **options):
    with pytest.raises(ElmoError, match=match) as error:
        call(*args, **options)
    text = str(error.value)
    assert "\n" not in text
    assert "Traceback" not in text
    assert text.endswith(".")


def test_sources_that_cannot_be_read(tmp_path):
    noise = random.Random(0).randbytes(999).hex().encode()
    contents = {
        "bad.txt": (b"good\n\xff\xfe bad\n", "bad.txt, line 2 is not UTF-8 text: invalid start byte"),
        "empty.txt": (b"", "empty.txt is empty"),
        "empty.jsonl": (b"", "empty.jsonl is empty"),
        "bad.xz": (lzma.compress(b"good\n\n\xff"), "bad.xz, line 3 is not UTF-8 text"),
        "cut.txt.gz": (gzip.compress(noise)[:600], "cut.txt.gz ends in the middle; it was not written whole"),
        "cut.txt.xz": (lzma.compress(noise)[:600], "cut.txt.xz ends in the middle"),
        "cut.txt.bz2": (bz2.compress(noise)[:600], "cut.txt.bz2 ends in the middle"),
        "blank.jsonl": (b"\n\n", "blank.jsonl is empty"),
        "plain.txt.gz": (b"plain\n", "plain.txt.gz cannot be read: .*incorrect header check"),
        "bad.jsonl": (b'{"text": "a"}\n{"text": oops}\n', "bad.jsonl, line 2 is no JSON: '{\"text\": oops}'"),
        "first.jsonl": (b'{"text": oops}\n{"text": "a"}\n', "first.jsonl, line 1 is no JSON"),
        "gap.jsonl": (b'\n{"text": "a"}\n\noops\n', "gap.jsonl, line 4 is no JSON: 'oops'"),
        "bad.json": (b'[{"text": "a"},\n{"text": oops}]\n', "bad.json, line 2 is no JSON: .{.text.: oops}"),
        "bad.parquet": (b"PAR1nope", "cannot be read"),
        "columns.jsonl": (
            b'{"a": "x", "b": "y"}\n',
            "name the column of .*columns.jsonl .* a, b",
        ),
        "plain.txt.zst": (b"plain\n", "plain.txt.zst cannot be read: zstd decompress"),
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
        ('{"text": "a"}\n{"text": 3}\n', "mixed.jsonl, record 2: column 'text' should be text, but is 3"),
        ('{"text": "a"}\n{"other": "b"}\n', "record 2: column 'text' should be text, but is None"),
        (
            '{"tokens": ["a"]}\n{"tokens": ["b", null]}\n',
            "record 2: column 'tokens' should be a list of words",
        ),
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


def test_sources_that_are_not_files(tmp_path):
    """What an iterable of the caller raises is left alone: it is the caller's code."""
    refused("a corpus is a file or an iterable, but got NoneType", open_records, None)
    refused("the list is empty", open_records, [])
    refused("the list has no columns, so there is no column 'text'", open_records, ["a"], "text")
    refused("there is no file nobody/nothing", open_records, "nobody/nothing")
    refused("cannot both be given", open_records, ["a"], "text", "tokens")
    source = open_records(["a", "b", ["c\n"]])
    refused(r"the list, record 3: the record should be text, but is .'c\\n'", lambda: list(source.records()))
    with pytest.raises(ZeroDivisionError):
        list(open_records(1 / number for number in [0]).records())
