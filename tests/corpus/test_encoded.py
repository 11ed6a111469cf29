"""An encoded text has the words of its files, and says what is wrong with it."""

import json
import os
import sys
from collections import Counter

import numpy as np
import pytest

from elmo_hf.corpus import encoded
from elmo_hf.corpus.encoded import EncodedText, encode, is_encoded
from elmo_hf.corpus.source import Source
from elmo_hf.errors import ElmoError

LINES = ["Ann sings . Bob sang .", "", "He said <UNK> to <S> Ann </S> .", "größer 東京 ...", "Ann sings ."]


@pytest.fixture
def files(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(LINES) + "\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("Bob saw Ann .\nZoe .\n", encoding="utf-8")
    return [tmp_path / "a.txt", tmp_path / "b.txt"]


@pytest.mark.parametrize("options", [{}, {"raw": True}, {"raw": True, "split_sentences": True}])
@pytest.mark.parametrize("workers", [1, 2])
def test_the_sentences_are_those_of_the_source(files, tmp_path, options, workers):
    if workers == 2 and options:
        pytest.skip("one start of processes is enough")
    source = Source(files, **options)
    expected = list(source)
    counts = encode(source, tmp_path / "encoded", workers)
    text = EncodedText(tmp_path / "encoded")
    assert list(text) == expected
    words = Counter(word for sentence in expected for word in sentence)
    assert text.words == ["<S>", "</S>", *sorted(words, key=lambda word: (-words[word], word))]
    assert (counts.tokens, counts.sentences) == (words.total(), len(expected))
    assert (text.num_words, len(text)) == (words.total(), len(expected))
    assert counts.counts == Counter({word: count for word, count in words.items() if word != "<UNK>"})


def test_the_command_writes_the_vocabulary_that_elmo_hf_vocab_would(files, tmp_path, monkeypatch, capsys):
    from elmo_hf.corpus.vocabulary import count_words, write_vocabulary

    arguments = [*map(str, files), str(tmp_path / "encoded"), "--vocab", str(tmp_path / "vocab.txt")]
    monkeypatch.setattr(sys, "argv", ["encoded", *arguments, "--min-count", "2"])
    encoded.main()
    write_vocabulary(tmp_path / "other.txt", count_words(Source(files)), min_count=2)
    for suffix in (".txt", ".counts.tsv"):
        assert (tmp_path / f"vocab{suffix}").read_bytes() == (tmp_path / f"other{suffix}").read_bytes()
    assert "24 words, 8 sentences, 13 distinct words" in capsys.readouterr().out


# ---- mistakes


def test_what_is_wrong_with_a_folder(files, tmp_path):
    folder = tmp_path / "encoded"
    encode(Source(files), folder)
    assert is_encoded(folder)
    assert not is_encoded(tmp_path)
    ids, words = np.load(folder / "ids.npy"), json.loads((folder / "words.json").read_text(encoding="utf-8"))
    bad_ids = [ids[1:], ids[:-1], ids[:0], ids.astype(np.int64), np.where(ids == 1, 5, ids), ids * 0, -ids]
    bad_ids += [np.where(ids > 2, len(words), ids), np.delete(ids, np.flatnonzero(ids == 1)[:1])]
    for bad in bad_ids:
        np.save(folder / "ids.npy", bad)
        with pytest.raises(ElmoError, match=r"ids.npy is damaged; encode the text again\.$"):
            EncodedText(folder)
    (folder / "ids.npy").write_bytes(b"numbers")
    with pytest.raises(ElmoError, match=r"ids.npy cannot be read \(.*\); encode the text again\.$"):
        EncodedText(folder)
    np.save(folder / "ids.npy", ids)
    for bad in (words[1:], [*words, "Ann"], {"words": words}, [1, 2], [*words[:-1], ""]):
        (folder / "words.json").write_text(json.dumps(bad), encoding="utf-8")
        with pytest.raises(ElmoError, match=r"words.json is damaged"):
            EncodedText(folder)
    (folder / "corpus.json").write_text(
        '{"format": 2, "raw": false, "split_sentences": false}', encoding="utf-8"
    )
    with pytest.raises(ElmoError, match="has a form that this version does not read"):
        EncodedText(folder)


class KilledSource(Source):
    def lines(self, shard):
        os._exit(9)


def test_a_killed_process_is_one_sentence(files, tmp_path):
    with pytest.raises(ElmoError, match=r"has been killed, or had no memory left; use fewer --workers\.$"):
        encode(KilledSource(files), tmp_path / "encoded", workers=2)
    assert not (tmp_path / "encoded").exists()


def test_what_cannot_be_encoded(files, tmp_path):
    (tmp_path / "blank.txt").write_text(" \n\n", encoding="utf-8")
    with pytest.raises(ElmoError, match=r"blank.txt is empty; there is no word in it\.$"):
        encode(Source(str(tmp_path / "blank.txt")), tmp_path / "encoded")
    with pytest.raises(ElmoError, match="workers must be at least 1, but is 0"):
        encode(Source(files), tmp_path / "encoded", workers=0)
    assert not (tmp_path / "encoded").exists()
    with pytest.raises(ElmoError, match="is not an empty folder"):
        encode(Source(files), tmp_path)
