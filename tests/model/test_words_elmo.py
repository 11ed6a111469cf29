"""Text to words by the documented rules, and words to character ids."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elmo_hf.model.words_elmo import character_ids, read_vocabulary, split_text

EXAMPLES = {
    "He didn't pay Mr. Smith's bill.": "He didn 't pay Mr. Smith 's bill .",
    "Don't! It wasn't O'Brien.": "Don 't ! It wasn 't O 'Brien .",
    "don’t": "don ’t",
    "the 1990's and the dogs' bones": "the 1990 's and the dogs ' bones",
    "'quoted' and \"quoted\"": "' quoted ' and \" quoted \"",
    "AMMAN (Reuters) - King Abdullah": "AMMAN ( Reuters ) - King Abdullah",
    "a 6-3, 6-7 (5/7) win": "a 6-3 , 6-7 ( 5 / 7 ) win",
    "seventh-seeded Lashkar-e-Taiba": "seventh-seeded Lashkar-e-Taiba",
    "long ago -- now--then": "long ago -- now -- then",
    "the U.S. and a U.S.-based firm at 5 p.m. today": "the U.S. and a U.S.-based firm at 5 p.m. today",
    "John F. Kennedy chose plan B.": "John F. Kennedy chose plan B .",
    "$1,000.50, 68.88 dollars, 50% of A,B": "$ 1,000.50 , 68.88 dollars , 50 % of A , B",
    "Well... what?!": "Well ... what ? !",
    "-5 and .5 and x-": "-5 and .5 and x -",
    "AT&T; www.elmo.org": "AT & T ; www.elmo.org",
    "हिन्दी में लिखा है।": "हिन्दी में लिखा है ।",
    "l'été à Zürich, œuvre": "l 'été à Zürich , œuvre",
    "tab\tand\n new   line\u00a0nbsp": "tab and new line nbsp",
    "": "",
    "   ": "",
}


@pytest.mark.parametrize("text", EXAMPLES)
def test_the_penn_rule(text):
    assert split_text(text, "penn").words == EXAMPLES[text].split()


@pytest.mark.parametrize("text", EXAMPLES)
def test_words_that_are_split_already_are_not_changed(text):
    words = EXAMPLES[text].split()
    if words[-1:] != ["'Brien"] and "'Brien" not in words and "'été" not in words:
        assert split_text(" ".join(words), "penn").words == words


@given(st.text())
def test_words_are_the_text_without_its_whitespace(text):
    for splitter in ("penn", "whitespace"):
        sentence = split_text(text, splitter)
        assert [text[start:end] for start, end in sentence.offsets] == sentence.words
        ends = [0, *(offset for span in sentence.offsets for offset in span), len(text)]
        assert ends == sorted(ends)
        between = "".join(text[ends[i] : ends[i + 1]] for i in range(0, len(ends), 2))
        assert not between.strip()
        assert all(word and not any(letter.isspace() for letter in word) for word in sentence.words)
    assert split_text(text, "whitespace").words == text.split()


def test_whitespace_splitting_and_whole_words():
    assert split_text("Don't, <S> x<S>.", "whitespace").words == ["Don't,", "<S>", "x<S>."]
    whole = split_text("<S> Hi <UNK>. </S>", "penn", whole=["<S>", "</S>", "<UNK>"])
    assert whole.words == ["<S>", "Hi", "<", "UNK", ">", ".", "</S>"]
    assert whole.offsets[-1] == (14, 18)


def test_the_published_sentences_are_fixed_points(shared_fixtures):
    """They are in the very form that the published models were trained on."""
    batches = json.loads((shared_fixtures / "allennlp" / "sentences.json").read_text(encoding="utf-8"))
    sentences = [sentence for batch in batches for sentence in batch]
    assert len(sentences) == 30
    for sentence in sentences:
        assert split_text(sentence, "penn").words == sentence.split()


# ---- characters


def slow_row(word, length):
    """One word, byte by byte, as the originals' code does it."""
    data = word.encode("utf-8", "ignore")[: length - 2]
    row = [258, *data, 259] + [260] * (length - 2 - len(data))
    return [number + 1 for number in row]


@given(st.lists(st.text()), st.sampled_from([3, 5, 20, 50]))
def test_character_ids_equal_a_plain_loop(words, length):
    words = [word for word in words if word not in ("<S>", "</S>")]
    rows = character_ids(words, length)
    assert rows.shape == (len(words), length)
    assert rows.tolist() == [slow_row(word, length) for word in words]


def test_boundaries_unknown_words_and_hard_cases():
    words = ["<S>", "</S>", "<UNK>", "", "\x00", "a\x00", "\udc80", "é" * 30]
    rows = character_ids(words, 50)
    assert rows[0].tolist() == [259, 257, 260] + [261] * 47
    assert rows[1].tolist() == [259, 258, 260] + [261] * 47
    assert rows[2].tolist() == slow_row("<UNK>", 50)
    assert rows[3].tolist() == [259, 260] + [261] * 48
    assert rows[4].tolist() == [259, 1, 260] + [261] * 47
    assert rows[5].tolist() == [259, 98, 1, 260] + [261] * 46
    assert rows[6].tolist() == rows[3].tolist()  # half a surrogate pair has no bytes
    assert rows[7, 48] == "é".encode()[1] + 1
    assert rows[7, 49] == 260
    assert rows.dtype == np.int64


def test_a_vocabulary_keeps_every_line(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_bytes("<S>\n</S>\n<UNK>\nthe\r\n \nété\n".encode())
    assert read_vocabulary(path) == ["<S>", "</S>", "<UNK>", "the", "", "été"]
    for content, message in ((b"\xff\xfe", "not UTF-8"), (b"", "empty")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_vocabulary(path)
