"""Pieces of a corpus: of every kind of file, they are together the corpus, each sentence once, in order."""

import bz2
import gzip
import json
import random

import pyarrow as pa
import pyarrow.parquet
import pytest
from datasets import Dataset, IterableDataset

from elmo_hf import ElmoError
from elmo_hf.corpus import parquet, pieces, readers, unpacking
from elmo_hf.corpus.pieces import parse_shard, piece_of
from elmo_hf.corpus.source import open_records
from tests.helpers.nasty_texts import BLANKS, CONTROLS, LONG

COUNTS = [1, 2, 3, 7, 16, 200]


def lines(number=90, seed=0):
    draw = random.Random(seed)
    words = ["Ice", "naïve", "文字", "a" * 50, "\ufeff", "U.S."]
    return [" ".join(draw.choices(words, k=draw.choice([0, 1, 3, 40]))) for _ in range(number)]


def write_files(folder):
    """The same rows in every kind of file; returns the pattern of each kind."""
    texts, rows = lines(), [{"text": text, "id": number} for number, text in enumerate(lines())]
    plain = "".join(text + "\n" for text in texts)
    table = "".join(json.dumps(row) + "\n\n" for row in rows)  # blank lines are no records
    csv = "id,text\n" + "".join(f'{row["id"]},"{row["text"]}\n"\n' for row in rows)
    contents = {
        "a.txt": plain.encode(),
        "b.txt": plain.removesuffix("\n").encode(),
        "dos.txt": plain.replace("\n", "\r\n").encode(),
        "mac.txt": plain.replace("\n", "\r").encode(),
        "mark.txt": b"\xef\xbb\xbf" + plain.encode(),
        "a.txt.gz": gzip.compress(plain[:900].encode()) + gzip.compress(plain[900:].encode()),
        "a.txt.bz2": bz2.compress(plain.encode()),
        "a.jsonl": table.encode(),
        "a.jsonl.gz": gzip.compress(table.encode()),
        "a.json": json.dumps(rows, indent=1).encode(),
        "a.csv": csv.encode(),
        "a.tsv.gz": gzip.compress(csv.replace(",", "\t").encode()),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), folder / "a.parquet", row_group_size=13)
    for number, size in enumerate([0, 3, 1, 60, 26]):
        text = "".join(line + "\n" for line in texts[:size])
        (folder / f"many-{number}.txt").write_text(text, encoding="utf-8")
        table = pa.Table.from_pylist(rows).slice(0, size)
        pyarrow.parquet.write_table(table, folder / f"many-{number}.parquet")
    return [*contents, "a.parquet", "many-*.txt", "many-*.parquet"]


def test_all_pieces_are_the_corpus(tmp_path):
    names = write_files(tmp_path)
    for name in names:
        source = open_records(tmp_path / name)
        whole, rows = list(source.records()), list(source.rows())
        assert len(whole) >= 88, name
        for count in COUNTS:
            cut = [piece_of(source, f"{number}/{count}") for number in range(1, count + 1)]
            assert [record for piece in cut for record in piece.records()] == whole, (name, count)
            assert [row for piece in cut for row in piece.rows()] == rows, (name, count)
            assert {piece.piece.size for piece in cut} == {cut[0].piece.size}
            if count <= 7 and "many" not in name and name != "mac.txt":  # which is one line to a jump
                sizes = [sum(len(record) + 1 for record in piece.records()) for piece in cut]
                assert max(sizes) < 1.5 * sum(sizes) / count + 400, (name, count, sizes)


@pytest.mark.parametrize("name", ["list", "words", "data set", "stream"])
def test_pieces_of_what_is_in_memory(name):
    texts = lines()
    source = {
        "list": texts,
        "words": [text.split() for text in texts],
        "data set": Dataset.from_dict({"text": texts}),
        "stream": IterableDataset.from_generator(lambda: ({"text": text} for text in texts)),
    }[name]
    whole = list(open_records(source).records())
    for count in COUNTS:
        cut = [list(piece_of(open_records(source), f"{i}/{count}").records()) for i in range(1, count + 1)]
        assert [record for piece in cut for record in piece] == whole
        assert max(map(len, cut)) - min(map(len, cut)) <= 1


def test_an_iterator_has_no_pieces():
    with pytest.raises(ElmoError, match=r"the list_iterator can be read only once, .* pass a list\.$"):
        piece_of(open_records(iter(["a", "b"])), "1/2")


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl", "a.json", "a.parquet", "many-*.txt"])
def test_sections_of_a_piece_are_the_piece(tmp_path, name):
    """They are what pretraining reads."""
    write_files(tmp_path)
    source = open_records(tmp_path / name)
    assert [section.shard for section in source.sections] == [*range(source.num_shards)]
    for number in (1, 2, 3):
        piece = piece_of(source, f"{number}/3")
        lines = [line for section in piece.sections for part in piece.lines_of(section) for line in part]
        assert lines == list(piece.records())
        last = piece.num_shards - 1
        whole = [line for part in piece.lines(last) for line in part]
        assert [line for part in piece.lines(last, skip=1) for line in part] == whole[1:]


def test_pieces_depend_on_the_text_and_not_on_its_packing(tmp_path):
    write_files(tmp_path)
    for number in range(1, 6):
        plain, packed = (
            list(piece_of(open_records(tmp_path / name), f"{number}/5").records())
            for name in ("a.txt", "a.txt.gz")
        )
        assert plain == packed


def test_every_text_that_is_hard_to_read(tmp_path):
    """Line ends of all kinds, half characters, marks and zeros."""
    (tmp_path / "a.txt").write_text(
        "\n".join([*BLANKS, *CONTROLS, *(text[:500] for text in LONG)]),
        encoding="utf-8",
        errors="ignore",
        newline="",
    )
    source = open_records(tmp_path / "a.txt")
    whole = list(source.records())
    for count in range(1, 40):
        cut = [piece_of(source, f"{number}/{count}").records() for number in range(1, count + 1)]
        assert [record for piece in cut for record in piece] == whole, count


def test_a_piece_reads_its_own_files_and_bytes(tmp_path, monkeypatch):
    write_files(tmp_path)
    opened, read = [], []
    real = unpacking.open_bytes

    class Counted:
        def __init__(self, file):
            self.file = real(file)
            opened.append(file)

        def read(self, size=-1):
            content = self.file.read(size)
            read.append(len(content))
            return content

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

    big = tmp_path / "big.txt"
    big.write_text(60_000 * "Ice is cold .\n", encoding="utf-8")
    source, many = open_records(big), open_records(tmp_path / "many-*.parquet")
    for module in (unpacking, readers, parquet):
        monkeypatch.setattr(module, "open_bytes", Counted)
    assert sum(1 for _ in piece_of(source, "9/10").records()) == 6000
    assert sum(read) < 0.5 * big.stat().st_size
    opened.clear()
    assert list(piece_of(many, "16/16").records())
    assert {*opened} == {str(tmp_path / "many-4.parquet")}


def test_damage_in_a_piece_is_named_by_its_place(tmp_path):
    good = "".join(json.dumps({"text": "Ice is cold ."}) + "\n" for _ in range(50))
    (tmp_path / "a.jsonl").write_text(good + "{bad}\n")
    piece = piece_of(open_records(tmp_path / "a.jsonl"), "2/2")
    place = rf"a\.jsonl \(from byte {piece.spans[0].start:,}\)"
    with pytest.raises(ElmoError, match=rf"{place}, line 25 is no JSON"):
        list(piece.records())
    (tmp_path / "a.jsonl").write_text(good + '{"text": 5}\n')
    with pytest.raises(ElmoError, match=rf"{place}, record 25: column 'text' should be text, but is 5"):
        list(piece_of(open_records(tmp_path / "a.jsonl"), "2/2").records())
    (tmp_path / "a.txt").write_bytes(20_000 * b"Ice is cold .\n" + b"\xff\n")
    with pytest.raises(ElmoError, match=r"a\.txt \(from byte 140,014\), line 10000 is not UTF-8 text"):
        list(piece_of(open_records(tmp_path / "a.txt"), "2/2").records())
    table = b"text\n" + 20_000 * b"Ice is cold .\n"
    (tmp_path / "a.csv").write_bytes(table + b"Why ?\n")
    piece = piece_of(open_records(tmp_path / "a.csv"), "2/2")
    (tmp_path / "a.csv").write_bytes(table + b"\xff\n")
    with pytest.raises(ElmoError, match=r"a\.csv, line 20002 is not UTF-8 text"):
        list(piece.records())


@pytest.mark.parametrize("shard", ["0/16", "17/16", "3", "3/0", "a/b", "-1/4", "1/2/3", "", "1.5/3", "٣/١٦"])
def test_shards_that_are_none(shard):
    with pytest.raises(ElmoError, match=r"^shard must be a number and how many there are, such as .*\.$"):
        parse_shard(shard)


def test_names_of_shards():
    assert parse_shard("3/16") == parse_shard("03/16") == parse_shard(" 3/16 ") == (3, 16)
    with pytest.raises(ElmoError, match="such as 1/16 for the first and 16/16 for the last, but is '0/16'"):
        pieces.parse_shard("0/16")
