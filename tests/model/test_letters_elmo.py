"""Letters of a lexicon, and words beside them, against what ELMoForManyLangs makes of words."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from elmo_hf import ElmoTokenizer
from elmo_hf.model.letters_elmo import LetterLexicon
from tests.helpers.letters import LETTERS, WORDS, letters_json, lexicons, reference_rows, write_lexicons

OUTSIDE = ["z", "Ж", "👩‍🚀", "\u0300", "\0", "\ud800", "\U0010ffff", " ", "\t", "ß"]
some_words = st.lists(
    st.one_of(
        st.sampled_from([*WORDS, "<bos>", "<eos>", "<bos>o", "<pad>", "<PAD>", ""]),
        st.lists(st.sampled_from(LETTERS + OUTSIDE), max_size=12).map("".join),
        st.lists(st.sampled_from(LETTERS + OUTSIDE), min_size=44, max_size=60).map("".join),
        st.integers(46, 60).map(lambda length: "o" * length),
    ),
    max_size=6,
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_lexicons(tmp_path_factory.mktemp("lexicons"))


@pytest.fixture(scope="module")
def make(files):
    """A tokenizer with letters and words; one for each length of a row."""
    made = {}

    def make(max_characters=50):
        if max_characters not in made:
            options = {"word_column": True, "cut_words": True, "strip_words": False}
            made[max_characters] = ElmoTokenizer(
                **files, max_characters_per_token=max_characters, word_splitter="whitespace", **options
            )
        return made[max_characters]

    return make


@given(some_words, st.sampled_from([7, 8, 16, 50]))
def test_rows_equal_those_of_the_original(make, words, max_chars):
    """Cut words, letters outside the lexicon, code points beyond it, and names of boundaries as text."""
    letters, word_ids = reference_rows(words, *lexicons(), max_chars)
    expected = [[*(np.array(row) + 1), number + 1] for row, number in zip(letters, word_ids, strict=True)]
    tokenizer = make(max_chars)
    rows = tokenizer.char_rows(words)
    assert rows.shape == (len(words), max_chars + 1)
    assert rows.dtype == np.int64
    assert rows.tolist() == expected
    encoding = tokenizer(words, is_split_into_words=True)
    assert encoding["char_ids"] == expected
    is_pad = [word == "<PAD>" for word in words]  # as for other tokenizers, this text is the padding token
    assert encoding["input_ids"] == [
        len(WORDS) if pad else number for pad, number in zip(is_pad, word_ids, strict=True)
    ]


def test_pairs_padding_and_windows_keep_the_column(make):
    tokenizer = make()
    begin, end = tokenizer.char_rows(["<bos>", "<eos>"]).tolist()
    assert (begin[-1], end[-1]) == (2, 3)
    pair = tokenizer("Der Bär", "天氣")
    assert pair.tokens() == ["Der", "Bär", "<eos>", "<bos>", "天氣"]
    assert pair["char_ids"][2:4] == [end, begin]
    assert [row[-1] for row in pair["char_ids"]] == [5, 6, 3, 2, 8]
    batch = tokenizer(
        ["Der", "Der Bär unknown"], padding=True, return_tensors="pt", return_offsets_mapping=True
    )
    assert batch["char_ids"].shape == (2, 3, 51)
    assert not batch["char_ids"][0, 1:].any()
    assert batch["input_ids"].tolist() == [[4, 12, 12], [4, 5, 0]]
    assert batch["char_ids"][1, :, -1].tolist() == [5, 6, 1]
    assert batch["offset_mapping"][1].tolist() == [[0, 3], [4, 7], [8, 15]]
    assert batch.word_ids(0) == [0, None, None]
    padded = tokenizer.pad([tokenizer("Der"), tokenizer("Der Bär unknown")], return_tensors="pt")
    assert (padded["char_ids"] == batch["char_ids"]).all()
    assert tokenizer.pad([tokenizer(""), tokenizer("")], return_tensors="pt")["char_ids"].shape == (2, 0, 51)
    assert tokenizer([], return_tensors="pt")["char_ids"].shape == (0, 0, 51)
    windows = tokenizer(
        "Der Bär . 天氣", truncation=True, max_length=2, stride=1, return_overflowing_tokens=True
    )
    assert [[row[-1] for row in rows] for rows in windows["char_ids"]] == [[5, 6], [6, 7], [7, 8]]
    assert tokenizer.decode([4, 5, 0]) == "Der Bär <oov>"
    assert (tokenizer.vocab_size, tokenizer.pad_token_id, tokenizer.unk_token_id) == (12, 12, 0)


def test_boundaries_of_short_rows_are_not_cut(make):
    """<bos> has more letters than a row of five takes, and stands between the sentences of a pair."""
    tokenizer = make(5)
    ids = letters_json(lexicons()[0])
    pair = tokenizer("Der", "Der")["char_ids"]
    assert pair[1] == [
        ids["word_begin"],
        ids["sentence_end"],
        ids["word_end"],
        ids["padding"],
        ids["padding"],
        3,
    ]
    assert pair[2][1:] == [ids["sentence_begin"], ids["word_end"], ids["padding"], ids["padding"], 2]


def test_letters_alone_and_words_alone(files):
    words = ["Bär", "o" * 60, "zz"]
    letters, word_ids = reference_rows(words, *lexicons(), 50)
    alone = ElmoTokenizer(letters_file=files["letters_file"], bos_token="<bos>", eos_token="<eos>")
    assert alone(words, is_split_into_words=True)["char_ids"] == (np.array(letters) + 1).tolist()
    assert alone.char_rows(["<bos>"], 7).shape == (1, 7)
    assert (alone.num_characters, alone.boundary_characters) == (24, [18, 19, 23, 22, 21])
    names = {name: value for name, value in files.items() if name != "letters_file"}
    cut, whole = ElmoTokenizer(**names, cut_words=True), ElmoTokenizer(**names)
    assert cut(words, is_split_into_words=True)["input_ids"] == word_ids == [5, 9, 0]
    assert cut.convert_tokens_to_ids(words) == word_ids
    assert whole(words, is_split_into_words=True)["input_ids"] == [5, 0, 0]
    assert (whole.num_characters, whole.boundary_characters) == (262, [257, 258, 259, 260, 261])


def test_bytes_with_words_beside_them(files):
    names = {name: value for name, value in files.items() if name != "letters_file"}
    rows = ElmoTokenizer(**names, word_column=True).char_rows(["Bär", "no"])
    assert np.array_equal(rows[:, :-1], ElmoTokenizer(**names).char_rows(["Bär", "no"]))
    assert rows[:, -1].tolist() == [6, 1]


def test_words_with_spaces(tmp_path):
    """What strip() changes: a word.dic may hold such words, and a caller may pass them."""
    words = ["<oov>", "<bos>", "<eos>", "\u3000", "10\u00a0", " x ", "two words"]
    files = write_lexicons(tmp_path, words)
    tokenizer = ElmoTokenizer(**files, strip_words=False)
    assert tokenizer(words, is_split_into_words=True)["input_ids"] == list(range(7))
    tokenizer.save_pretrained(tmp_path / "saved")
    again = ElmoTokenizer.from_pretrained(tmp_path / "saved")
    assert again.get_vocab() == tokenizer.get_vocab()
    stripped = ElmoTokenizer(**files)
    assert stripped(words, is_split_into_words=True)["input_ids"] == [0, 1, 2, 0, 0, 0, 6]


# ---- saving and loading

REMOTE = """
    import json, sys
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True)
    tokenizer.save_pretrained(sys.argv[2])
    encoding = tokenizer(json.loads(sys.argv[3]), padding=True)
    print(json.dumps({name: encoding[name] for name in ("input_ids", "char_ids")}))
"""
TEXTS = ["Der Bär " + "o" * 60, "<bos> 天氣 🙂 zz"]


def test_save_load_and_pickle(make, tmp_path):
    tokenizer = make(16)
    names = {Path(path).name for path in tokenizer.save_pretrained(tmp_path / "saved")}
    assert {"vocab.txt", "letters.json"} <= names
    config = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert (config["word_column"], config["cut_words"], config["strip_words"]) == (True, True, False)
    assert not {"vocab_file", "letters_file"} & set(config)
    copies = [
        ElmoTokenizer.from_pretrained(tmp_path / "saved"),
        AutoTokenizer.from_pretrained(tmp_path / "saved"),
        pickle.loads(pickle.dumps(tokenizer)),
    ]
    for copy in copies:
        assert type(copy) is ElmoTokenizer
        assert dict(copy(TEXTS, padding=True)) == dict(tokenizer(TEXTS, padding=True))
    tokenizer.save_vocabulary(tmp_path, filename_prefix="x")
    assert (tmp_path / "x-letters.json").read_bytes() == (tmp_path / "saved" / "letters.json").read_bytes()


def test_without_the_package(make, fork_server, tmp_path):
    """Loaded by the folder's own code, saved there, and loaded once more."""
    tokenizer = make()
    tokenizer.save_pretrained(tmp_path / "first")
    texts = json.dumps(TEXTS)
    output = fork_server.run_without_the_package(REMOTE, tmp_path / "first", tmp_path / "second", texts)
    again = fork_server.run_without_the_package(REMOTE, tmp_path / "second", tmp_path / "third", texts)
    expected = tokenizer(TEXTS, padding=True)
    assert output == again == {name: expected[name] for name in ("input_ids", "char_ids")}


def test_another_vocabulary_keeps_letters_and_columns(make, tmp_path):
    (tmp_path / "new.txt").write_text("<S>\n</S>\n<UNK>\nBär\n", encoding="utf-8")
    tokenizer, new = make(16), make(16).with_vocabulary(tmp_path / "new.txt")
    words = ["Bär", "o" * 60]
    assert new.char_rows(words)[:, -1].tolist() == [4, 3]
    assert np.array_equal(new.char_rows(words)[:, :-1], tokenizer.char_rows(words)[:, :-1])
    assert np.array_equal(new.char_rows(["<S>"])[0, :-1], tokenizer.char_rows(["<bos>"])[0, :-1])
    assert (new.word_splitter, new.cut_words, new.vocab_size) == ("whitespace", True, 4)


def test_what_reads_bytes_is_saved_as_before(tmp_path):
    ElmoTokenizer().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert not {"word_column", "cut_words", "strip_words"} & set(config)
    assert not (tmp_path / "letters.json").exists()


def test_a_vocabulary_alone_loads(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("<S>\n</S>\n<UNK>\nthe\n", encoding="utf-8")
    tokenizer = ElmoTokenizer.from_pretrained(path, max_characters_per_token=20, local_files_only=True)
    assert (tokenizer.vocab_size, tokenizer.max_characters_per_token) == (4, 20)
    assert tokenizer.name_or_path == str(path)


# ---- faults


def changed(**changes):
    content = letters_json({"a": 0, "b": 1} | {name: number for number, name in enumerate("uvwxyz", 2)} | SIX)
    return json.dumps({name: value for name, value in (content | changes).items() if value is not None})


SIX = {name: number for number, name in enumerate(["<bos>", "<eos>", "<oov>", "<pad>", "<bow>", "<eow>"], 8)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(padding=None), "lacks the entry 'padding'"),
        (changed(letters=None), "lacks the entry 'letters'"),
        (changed(other=1), "has the entry 'other', which"),
        (changed(letters=["a"]), "must have an object of letters"),
        (changed(letters={}), "must have an object of letters"),
        (changed(letters={"a": 0}), "has '0' for 'a'; an id is a whole number from 1"),
        (changed(letters={"a": -3}), "has '-3' for 'a'"),
        (changed(letters={"a": 1.0}), "has '1.0' for 'a'"),
        (changed(letters={"a": True}), "has 'True' for 'a'"),
        (changed(letters={"a": "5"}), "has '5' for 'a'"),
        (changed(letters={"a": 10**30}), "has '10+' for 'a'"),
        (changed(letters={"": 5}), "has an empty letter"),
        (changed(unknown=[1]), r"has '\[1\]' for 'unknown'"),
        ('{"letters": {"a": 1, "a": 2}}', "no JSON text \\('a' stands there twice\\)"),
        ("[1]", "must hold a JSON object, but holds list"),
        ("{", "is no JSON text"),
        ("[" * 100_000, "is no JSON text"),
        (b"\xff", "is no JSON text"),
    ],
)
def test_a_wrong_file_is_refused_in_one_sentence(tmp_path, content, message):
    path = tmp_path / "letters.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    for read in (LetterLexicon, lambda path: ElmoTokenizer.from_pretrained(path.parent)):
        with pytest.raises(ValueError, match=message) as error:
            read(path)
        assert "letters.json" in str(error.value)
        assert "\n" not in str(error.value)
        assert str(error.value).endswith(".")


def test_a_right_file_of_these_tests_is_not_refused(tmp_path):
    (tmp_path / "letters.json").write_text(changed(), encoding="utf-8")
    assert ElmoTokenizer.from_pretrained(tmp_path).num_characters == 15


@pytest.mark.parametrize("path", ["/dev/zero", "/nowhere/letters.json"])
def test_what_is_no_file_is_not_read(path):
    with pytest.raises(ValueError, match=f"{path} is no plain file"):
        ElmoTokenizer(letters_file=path)


def test_files_from_elsewhere(make, tmp_path):
    make().save_pretrained(tmp_path / "folder")
    path, config = (tmp_path / "folder" / name for name in ("letters.json", "tokenizer_config.json"))
    settings = config.read_text(encoding="utf-8")
    for name in ("letters_file", "vocab_file"):
        config.write_text(json.dumps(json.loads(settings) | {name: "/etc/passwd"}), encoding="utf-8")
        with pytest.raises(ValueError, match=f"must not have the option '{name}'"):
            ElmoTokenizer.from_pretrained(tmp_path / "folder")
    config.write_text(settings, encoding="utf-8")
    path.rename(tmp_path / "outside.json")
    path.symlink_to("../outside.json")
    with pytest.raises(ValueError, match=r"letters.json is a link that leads out"):
        ElmoTokenizer.from_pretrained(tmp_path / "folder")
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match=r"letters.json is no plain file"):
        ElmoTokenizer.from_pretrained(tmp_path / "folder")
    path.rmdir()
    with path.open("wb") as file:
        file.truncate(10 * 2**30)
    with pytest.raises(ValueError, match="more than the 16,777,216 that are read"):
        ElmoTokenizer.from_pretrained(tmp_path / "folder")
    path.unlink()
    (tmp_path / "folder" / "vocab.txt").unlink()
    with pytest.raises(ValueError, match="word_column needs vocab_file"):
        ElmoTokenizer.from_pretrained(tmp_path / "folder")
    for name in ("word_column", "cut_words", "strip_words"):
        with pytest.raises(ValueError, match=f"{name} must be true or false, but is '1'"):
            ElmoTokenizer(**{name: 1})
