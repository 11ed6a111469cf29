"""Counts of words compared with a naive count, files that are refused, and the command."""

import json
import lzma
import pickle
import re
from collections import Counter
from itertools import pairwise

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import elmo_hf.corpus.vocabulary
from elmo_hf import ElmoError, ElmoTokenizer
from elmo_hf.cli import app
from elmo_hf.corpus.source import Source
from elmo_hf.corpus.vocabulary import (
    SPECIALS,
    Vocabulary,
    WordCounts,
    check_options,
    choose_words,
    count_words,
    write_vocabulary,
)
from elmo_hf.model import words_elmo
from elmo_hf.model.words_elmo import read_vocabulary

TEXT = """\
the cat sat on the mat
<UNK> cat , été

<S> the mat was flat . </S>
b a <UNK>
"""


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def written(path):
    return path.read_text(encoding="utf-8").splitlines()


def test_bilm_tfs_form_and_the_counts_beside_it(corpus, tmp_path):
    vocabulary = write_vocabulary(tmp_path / "vocab.txt", count_words(Source(corpus)))
    expected = ["the", "cat", "mat", ",", ".", "a", "b", "flat", "on", "sat", "was", "été"]
    assert written(tmp_path / "vocab.txt") == ["<S>", "</S>", "<UNK>", *expected]
    counts = [line.split("\t") for line in written(tmp_path / "vocab.counts.tsv")]
    assert counts[:6] == [
        ["<S>", "4"],
        ["</S>", "4"],
        ["<UNK>", "2"],
        ["the", "3"],
        ["cat", "2"],
        ["mat", "2"],
    ]
    assert sum(int(count) for _, count in counts[2:]) == 18  # every word of the text, <UNK> among them
    assert vocabulary.words == [word for word, _ in counts]
    assert vocabulary.counts == [int(count) for _, count in counts]
    assert {path.name for path in tmp_path.iterdir()} == {"corpus.txt", "vocab.txt", "vocab.counts.tsv"}


def test_rare_words_are_unknown(corpus, tmp_path):
    words = count_words(Source(corpus))
    assert (words.sentences, words.tokens, words.types) == (4, 18, 12)
    vocabulary = write_vocabulary(tmp_path / "two.txt", words, min_count=2, max_words=2)
    assert vocabulary.words == ["<S>", "</S>", "<UNK>", "the", "cat"]
    assert vocabulary.counts == [4, 4, 13, 3, 2]
    assert vocabulary.ids["mat"] == vocabulary.ids["<UNK>"] == vocabulary.unknown_id == 2
    assert "mat" not in vocabulary.ids
    assert len(vocabulary) == 5
    assert pickle.loads(pickle.dumps(vocabulary)).ids["mat"] == 2


@pytest.mark.parametrize("limit", [("MAX_WORDS", 8), ("MAX_VOCABULARY", 2**10 + 26)])
def test_no_more_is_written_than_is_read(corpus, tmp_path, monkeypatch, capsys, limit):
    monkeypatch.setattr(elmo_hf.corpus.vocabulary, *limit)
    monkeypatch.setattr(words_elmo, limit[0], limit[1])
    vocabulary = write_vocabulary(tmp_path / "vocab.txt", count_words(Source(corpus)))
    assert vocabulary.words == ["<S>", "</S>", "<UNK>", "the", "cat", "mat", ",", "."]
    assert sum(vocabulary.counts[2:]) == 18
    assert "vocab.txt has the 5 most frequent of 12 words, as no more are read." in capsys.readouterr().err
    loaded = Vocabulary.load(tmp_path / "vocab.txt")
    assert (loaded.words, loaded.counts) == (vocabulary.words, vocabulary.counts)


def test_more_words_than_are_read_are_refused_before_the_counting(tmp_path):
    with pytest.raises(
        ElmoError, match=r"max_words must be at most 4,999,997, as no more are read, but is 5,"
    ):
        check_options(tmp_path / "vocab.txt", max_words=5_000_000)


def test_a_word_with_a_nul_is_unknown(tmp_path):
    (tmp_path / "corpus.txt").write_bytes(b"a\0b c c\n")
    vocabulary = write_vocabulary(tmp_path / "vocab.txt", count_words(Source(tmp_path / "corpus.txt")))
    loaded = Vocabulary.load(tmp_path / "vocab.txt")
    assert loaded.words == vocabulary.words == ["<S>", "</S>", "<UNK>", "c"]
    assert loaded.counts == [1, 1, 1, 2]


def test_the_tokenizer_reads_it(corpus, tmp_path):
    vocabulary = write_vocabulary(tmp_path / "vocab.txt", count_words(Source(corpus)))
    tokenizer = ElmoTokenizer(tmp_path / "vocab.txt")
    assert tokenizer("the flat horse")["input_ids"] == [3, vocabulary.ids["flat"], 2]
    assert tokenizer.vocab_size == len(vocabulary)


@given(
    st.lists(
        st.lists(st.sampled_from([*"abcdefgh", "éa", "<UNK>"]), min_size=1, max_size=9),
        min_size=1,
        max_size=30,
    )
)
def test_order_against_a_plain_count(sentences):
    plain = Counter(word for words in sentences for word in words if word != "<UNK>")
    words = WordCounts()
    words.counts.update(plain)
    chosen = choose_words(words)
    assert dict(chosen) == plain
    for (word, count), (following, following_count) in pairwise(chosen):
        assert count > following_count or (count == following_count and word < following)


def test_memory_is_bounded_with_a_message():
    """Frequent words are counted right, and of the others none is held for ever."""
    lines = [f"often often rare{number}" for number in range(1000)]
    words = count_words(Source(Dataset.from_dict({"text": lines})), most_types=100)
    assert words.counts["often"] == 2000
    assert words.types <= 100
    assert words.tokens == 3000
    assert words.forgotten == 1000 - (words.types - 1)
    assert count_words(Source(Dataset.from_dict({"text": lines})), most_types=2000).forgotten == 0


def test_raw_paragraphs(tmp_path):
    (tmp_path / "plain.txt").write_text("He didn't pay. Mr. Smith did!\n", encoding="utf-8")
    words = count_words(Source(tmp_path / "plain.txt", raw=True, split_sentences=True))
    assert words.sentences == 2
    assert words.counts == Counter(["He", "didn", "'t", "pay", ".", "Mr.", "Smith", "did", "!"])


def refused(match, call, *args, **options):
    with pytest.raises(ValueError, match=match) as error:
        call(*args, **options)
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(".")


def test_vocabularies_that_are_refused(tmp_path):
    path = tmp_path / "vocab.txt"
    for lines, match in (
        (["</S>", "<UNK>", "a"], "vocab.txt has no line <S>"),
        (["<S>", "</S>", "a"], "has no line <UNK>"),
        ([*SPECIALS, "a", "b", "a"], "'a' stands in line 4 and in line 6"),
        ([*SPECIALS, "a", "", "b"], "line 5 is empty"),
    ):
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        refused(match, Vocabulary.load, path)
    refused("there is no vocabulary", Vocabulary.load, tmp_path / "none.txt")
    path.write_text("\n".join([*SPECIALS, "a", "b"]), encoding="utf-8")
    assert Vocabulary.load(path).counts is None
    special = "<S>\t1\n</S>\t1\n<UNK>\t0\n"
    for counts, match in (
        ("a\t1\nb\t2\n", "line 5: 'b' occurs 2 times, more often than the word before it"),
        ("a\t1\n", "has 4 lines for 5 words"),
        ("a\t1\nc\t1\n", r"line 5 should be 'b', a tab and a count, but is 'c\\t1'"),
        ("a\tx\nb\t1\n", "line 4 should be 'a'"),
    ):
        (tmp_path / "vocab.counts.tsv").write_text(special + counts, encoding="utf-8")
        refused(match, Vocabulary.load, path)


def test_nothing_is_written_over(corpus, tmp_path):
    words = count_words(Source(corpus))
    refused("corpus.txt exists already", write_vocabulary, corpus, words)
    refused("min_count must be at least 1", write_vocabulary, tmp_path / "v.txt", words, min_count=0)
    refused("max_words must be at least 1", write_vocabulary, tmp_path / "v.txt", words, max_words=0)
    refused("no word occurs 9 times", write_vocabulary, tmp_path / "v.txt", words, min_count=9)
    refused("there is no folder", write_vocabulary, tmp_path / "none" / "v.txt", words)
    (tmp_path / "blank.txt").write_text("\n", encoding="utf-8")
    refused("blank.txt is empty", count_words, Source(tmp_path / "blank.txt"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blank.txt", "corpus.txt"]


# ---- the command


def run(*arguments):
    return CliRunner().invoke(app, ["vocab", *map(str, arguments)])


def test_the_command(corpus, tmp_path):
    (tmp_path / "more.txt.xz").write_bytes(lzma.compress(b"the the\n"))
    result = run(corpus, tmp_path / "more.txt.xz", tmp_path / "vocab.txt", "--min-count", 2)
    assert result.exit_code == 0, result.output
    assert written(tmp_path / "vocab.txt") == ["<S>", "</S>", "<UNK>", "the", "cat", "mat"]
    assert "5 sentences, 20 words, 12 distinct." in result.output
    assert "6 words. 45.00% of the text is in it, 55.00% is <UNK>." in result.output
    assert "words/s" in result.output


def test_the_commands_options(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps({"id": 1, "body": "He paid. It's late."}) + "\n", encoding="utf-8")
    target = tmp_path / "v.txt"
    result = run(
        path, target, "--column", "body", "--raw", "--split-sentences", "--max-words", 3, "--no-progress"
    )
    assert result.exit_code == 0, result.output
    assert read_vocabulary(target)[3:] == [".", "'s", "He"]
    assert "2 sentences, 7 words, 6 distinct." in result.output
    assert "words/s" not in result.output


def test_errors_of_the_command(corpus, tmp_path):
    for arguments, match in (
        ([tmp_path / "none.txt", tmp_path / "v.txt"], "elmo-hf: there is no file .*none.txt"),
        ([corpus, corpus], "elmo-hf: .*corpus.txt exists already"),
        ([corpus, tmp_path / "v.txt", "--column", "x"], "elmo-hf: .* has no column 'x'; it has text"),
        ([corpus, tmp_path / "v.txt", "--min-count", 0], "elmo-hf: min_count must be at least 1"),
        ([corpus, tmp_path / "v.txt", "--min-count", 50], "elmo-hf: no word occurs 50 times"),
    ):
        result = run(*arguments, "--no-progress")
        assert result.exit_code == 1
        assert re.fullmatch(match + r".*\.\n", result.output), result.output
    assert not (tmp_path / "v.txt").exists()
