"""Lines that are held out of a corpus: which they are, and that nothing else changes."""

import gzip
import json

import pytest
from datasets import Dataset
from typer.testing import CliRunner

from elmo_hf.cli import app
from elmo_hf.corpus.source import InMemory, Source
from elmo_hf.corpus.vocabulary import Vocabulary
from elmo_hf.errors import ElmoError


def lines_of(source, skip=0):
    return [
        line for shard in range(source.num_shards) for lines in source.lines(shard, skip) for line in lines
    ]


@pytest.fixture
def files(tmp_path):
    """Three files of lines that name their file and number, with empty lines between them."""
    for file, count in enumerate((40, 3, 25)):
        text = "\n\n \n".join(f"line {file} {number}" for number in range(1, count + 1))
        (tmp_path / f"{file}.txt").write_text(text + "\n", encoding="utf-8")
    return tmp_path


def expected(every):
    """Every so many of the lines with words; in file n, the count begins at n."""
    return [
        f"line {file} {number}"
        for file, count in enumerate((40, 3, 25))
        for number in range(1, count + 1)
        if (file + number) % every == 0
    ]


@pytest.mark.parametrize("every", [2, 4, 10])
def test_every_so_many_of_the_lines_that_are_not_empty(files, every):
    source, whole = Source(f"{files}/*.txt", heldout_every=every), Source(f"{files}/*.txt")
    heldout = [" ".join(words) for words in source.heldout()]
    assert heldout == expected(every)
    trained = [" ".join(words) for words in source]
    assert sorted(heldout + trained) == sorted(" ".join(words) for words in whole)
    # A line has the same number with and without held-out lines, on which resuming rests.
    both = zip(lines_of(source), lines_of(source.heldout()), lines_of(whole), strict=True)
    assert all((mine or other) == (line if line.strip() else mine or other) for mine, other, line in both)
    for skip in (1, 7, 50):
        for shard in range(3):
            tail = [line for lines in source.lines(shard, skip) for line in lines]
            assert tail == [line for lines in source.lines(shard) for line in lines][skip:]


def test_packed_files_tables_and_streams_have_the_same_lines(tmp_path):
    lines = [f"line {number}" for number in range(1, 3001)]
    expected_lines = lines[99::100]
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    data = Dataset.from_dict({"text": lines})
    data.to_parquet(tmp_path / "a.parquet")
    texts = [tmp_path / "a.txt.gz", tmp_path / "a.jsonl", tmp_path / "a.parquet", data, InMemory(lines)]
    texts += [InMemory([line.split() for line in lines])]
    for text in texts:
        source = Source(text, heldout_every=100)
        assert [" ".join(words) for words in source.heldout()] == expected_lines
        assert sum(1 for _ in source) == 2970


def test_paragraphs_are_held_out_whole(tmp_path):
    lines = [f"{name} sat. {name} rowed." for name in "ABCDEF"]
    source = Source(InMemory(lines), raw=True, split_sentences=True, heldout_every=3)
    assert [words[0] for words in source.heldout()] == ["C", "C", "F", "F"]


@pytest.mark.parametrize(
    ("every", "message"),
    [(1, "must be at least 2, but is 1"), (7, "too few lines: with heldout_every 7 none")],
)
def test_nothing_to_hold_out_is_one_sentence(every, message):
    with pytest.raises(ElmoError, match=message):
        Source(InMemory(["a b"] * 6), heldout_every=every).heldout()


def test_vocab_counts_without_them(tmp_path):
    (tmp_path / "a.txt").write_text("a b\na c\nheld b\n" * 3, encoding="utf-8")
    arguments = ["vocab", str(tmp_path / "a.txt"), "--no-progress"]
    result = CliRunner().invoke(app, [*arguments, str(tmp_path / "v.txt"), "--heldout-every", "3"])
    assert result.exit_code == 0, result.output
    vocabulary = Vocabulary.load(tmp_path / "v.txt")
    assert dict(zip(vocabulary.words[3:], vocabulary.counts[3:], strict=True)) == {"a": 6, "b": 3, "c": 3}
    assert "One line in 3 is held out: 50.00% of their words are <UNK>." in result.stdout
    result = CliRunner().invoke(app, [*arguments, str(tmp_path / "w.txt"), "--heldout-every", "30"])
    assert result.exit_code == 1
    assert "a.txt has too few lines: with heldout_every 30 none is held out; lower it" in result.stderr
    assert not (tmp_path / "w.txt").exists()
