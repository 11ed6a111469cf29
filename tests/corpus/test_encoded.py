"""An encoded text has the words of its files, is unpacked as it was, and says what is wrong with it."""

import json
import sys
from collections import Counter

import numpy as np
import pytest

from elmo_hf.corpus import encoded, packed
from elmo_hf.corpus.encoded import EncodedText, encode, is_encoded
from elmo_hf.corpus.packed import from_bytes, pack, to_bytes, unpack
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
    assert np.load(tmp_path / "encoded" / "counts.npy").tolist()[2:] == [
        words[word] for word in text.words[2:]
    ]
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


# ---- packed


@pytest.mark.parametrize("seed", range(3))
def test_numbers_as_bytes_and_back(seed):
    generator = np.random.default_rng(seed)
    ids = [0, 199, 200, 11_399, 11_400, 638_599, 638_600, 2**31 - 1]
    ids += [int(number) for number in generator.integers(0, 2 ** generator.integers(1, 32, 2000))]
    content = to_bytes(np.array(ids, dtype=np.int32))
    assert from_bytes(content).tolist() == ids
    assert content[:1] == b"\0"
    assert len(to_bytes(np.array([199, 200, 11_400], dtype=np.int32))) == 1 + 2 + 3


def test_a_packed_text_is_unpacked_as_it_was(files, tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "PIECE", 4)
    monkeypatch.setattr(packed, "MEGABYTE", 1)
    encode(Source(files), tmp_path / "encoded")
    parts = pack(tmp_path / "encoded", tmp_path / "packed", part_size=450)
    assert len(parts) > 2
    for part in parts:
        assert sum(path.stat().st_size for path in part.iterdir()) <= 450
    text = unpack(parts, tmp_path / "unpacked")
    assert list(text) == list(EncodedText(tmp_path / "encoded"))
    for name in ("words.json", "ids.npy", "corpus.json", "counts.npy"):
        assert (tmp_path / "unpacked" / name).read_bytes() == (tmp_path / "encoded" / name).read_bytes()
    some = list(unpack(parts[:-1], tmp_path / "some"))
    assert some == list(text)[: len(some)]
    assert 0 < len(some) < len(text)
    with pytest.raises(ElmoError, match=r"words.json.xz|corpus.json.xz"):
        unpack(parts[1:], tmp_path / "other")
    with pytest.raises(
        ElmoError, match=r"is in none of the parts; name the first part, and none after a gap"
    ):
        unpack([*parts[:-2], parts[-1]], tmp_path / "other")
    next(parts[-1].glob("ids-*")).write_bytes(b"\xfd7zXZ\0 no more")
    with pytest.raises(ElmoError, match=r"ids-000...xz cannot be read"):
        unpack(parts, tmp_path / "other")
    assert not (tmp_path / "other").exists()


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


def test_what_cannot_be_encoded(files, tmp_path):
    (tmp_path / "blank.txt").write_text(" \n\n", encoding="utf-8")
    with pytest.raises(ElmoError, match=r"blank.txt is empty; there is no word in it\.$"):
        encode(Source(str(tmp_path / "blank.txt")), tmp_path / "encoded")
    with pytest.raises(ElmoError, match="workers must be at least 1, but is 0"):
        encode(Source(files), tmp_path / "encoded", workers=0)
    assert not (tmp_path / "encoded").exists()
    with pytest.raises(ElmoError, match="is not an empty folder"):
        encode(Source(files), tmp_path)
