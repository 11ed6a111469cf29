"""ElmoTokenizer as the library's tokenizers are used: pairs, truncation, padding, offsets, save and load."""

import itertools
import pickle

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, DataCollatorForTokenClassification, DataCollatorWithPadding

from elmo_hf import ElmoTokenizer
from elmo_hf.model.words_elmo import character_ids

VOCABULARY = ["<S>", "</S>", "<UNK>", "the", "cat", "sat", "."]


@pytest.fixture
def tokenizer(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return ElmoTokenizer(path)


def test_word_ids_are_line_numbers_and_characters_stand_beside_them(tokenizer):
    encoding = tokenizer("the cat purred.", return_tensors="pt")
    assert encoding["input_ids"].tolist() == [[3, 4, 2, 6]]
    assert encoding["attention_mask"].tolist() == [[1, 1, 1, 1]]
    assert list(encoding) == ["input_ids", "attention_mask", "char_ids"]
    expected = character_ids(["the", "cat", "purred", "."], 50)
    assert encoding["char_ids"].tolist() == [expected.tolist()]
    assert encoding["char_ids"].dtype == torch.int64


def test_without_a_vocabulary_every_word_is_unknown_and_its_letters_are_there():
    tokenizer = ElmoTokenizer()
    encoding = tokenizer(["any", "word"], is_split_into_words=True)
    assert encoding["input_ids"] == [2, 2]
    assert encoding["char_ids"] == character_ids(["any", "word"], 50).tolist()
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    assert (tokenizer.pad_token_id, tokenizer.vocab_size, len(tokenizer)) == (3, 3, 4)


def test_specials_may_stand_anywhere_in_a_vocabulary_or_be_missing(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("good\n<S>\nWhy", encoding="utf-8")
    tokenizer = ElmoTokenizer(path)
    assert tokenizer.convert_tokens_to_ids(["good", "<S>", "Why", "</S>", "<UNK>", "<PAD>"]) == [
        0,
        1,
        2,
        3,
        4,
        5,
    ]
    assert tokenizer.vocab_size == 5
    tokenizer.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "vocab.txt").read_text(encoding="utf-8") == "good\n<S>\nWhy\n"
    assert ElmoTokenizer.from_pretrained(tmp_path / "saved").get_vocab() == tokenizer.get_vocab()


def test_words_of_the_caller_are_not_split_further(tokenizer):
    words = ["Don't", "U.S.", "", "two words", "<S>"]
    encoding = tokenizer(words, is_split_into_words=True, return_offsets_mapping=True)
    assert encoding.tokens() == words
    assert encoding.word_ids() == [0, 1, 2, 3, 4]
    assert encoding["offset_mapping"] == [(0, 5), (0, 4), (0, 0), (0, 9), (0, 3)]
    assert encoding["input_ids"][4] == 0
    assert encoding["char_ids"][4][1] == 257


def test_offsets_and_the_questions_of_a_batch_encoding(tokenizer):
    text = "The cat didn't sit."
    encoding = tokenizer(text, return_offsets_mapping=True)
    words = [text[start:end] for start, end in encoding["offset_mapping"]]
    assert words == encoding.tokens() == ["The", "cat", "didn", "'t", "sit", "."]
    assert encoding.word_ids() == [0, 1, 2, 3, 4, 5]
    assert encoding.char_to_token(5) == encoding.char_to_word(5) == 1
    assert encoding.char_to_token(3) is None
    assert tuple(encoding.token_to_chars(3)) == (12, 14)
    assert tuple(encoding.word_to_chars(4)) == (15, 18)
    assert tuple(encoding.word_to_tokens(4)) == (4, 5)
    assert encoding.token_to_word(2) == 2
    assert encoding.token_to_sequence(2) == 0


def test_a_pair_is_split_at_its_separators(tokenizer):
    encoding = tokenizer(
        "the cat", "sat .", return_token_type_ids=True, return_special_tokens_mask=True, return_length=True
    )
    assert encoding["input_ids"] == [3, 4, 1, 0, 5, 6]
    assert encoding["token_type_ids"] == [0, 0, 0, 1, 1, 1]
    assert encoding["special_tokens_mask"] == [0, 0, 1, 1, 0, 0]
    assert encoding.word_ids() == [0, 1, None, None, 0, 1]
    assert encoding.sequence_ids() == [0, 0, None, None, 1, 1]
    assert encoding["length"] == 6
    assert [row[1] for row in encoding["char_ids"][2:4]] == [258, 257]
    assert encoding.char_to_token(0, sequence_index=1) == 4
    plain = tokenizer("the cat", "sat .", add_special_tokens=False)
    assert plain["input_ids"] == [3, 4, 5, 6]


def test_pairs_in_all_the_forms_that_batches_have(tokenizer):
    forms = [
        tokenizer(["the", "cat sat"], ["cat", "."]),
        tokenizer([("the", "cat"), ("cat sat", ".")]),
        tokenizer([["the", "cat"], ["cat sat", "."]]),
        tokenizer([["the"], ["cat", "sat"]], [["cat"], ["."]], is_split_into_words=True),
        tokenizer([(["the"], ["cat"]), (["cat", "sat"], ["."])], is_split_into_words=True),
    ]
    assert all(dict(form) == dict(forms[0]) for form in forms)
    assert forms[0]["input_ids"] == [[3, 1, 0, 4], [4, 5, 1, 0, 6]]
    single = tokenizer((["the"], ["cat"]), is_split_into_words=True)
    assert single["input_ids"] == [3, 1, 0, 4]


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding(tokenizer, side):
    texts = ["the", "", "the cat sat"]
    encoding = tokenizer(texts, padding=True, padding_side=side, return_tensors="np", pad_to_multiple_of=4)
    assert encoding["input_ids"].shape == (3, 4)
    assert encoding["char_ids"].shape == (3, 4, 50)
    real = encoding["attention_mask"] == 1
    assert real.sum(axis=1).tolist() == [1, 0, 3]
    assert real[:, 0 if side == "right" else -1].tolist() == [True, False, True]
    assert (encoding["input_ids"][~real] == tokenizer.pad_token_id).all()
    assert (encoding["char_ids"][~real] == 0).all()
    assert (encoding["char_ids"][real] > 0).all()
    nothing = [None] * 3
    assert encoding.word_ids(0) == ([0, *nothing] if side == "right" else [*nothing, 0])
    fixed = tokenizer("the", padding="max_length", max_length=5, padding_side=side)
    assert len(fixed["input_ids"]) == len(fixed["char_ids"]) == len(fixed.tokens()) == 5


def test_empty_batches_and_texts_keep_their_dimensions(tokenizer):
    for texts, shape in (([], (0, 0)), ("", (1, 0)), (["", ""], (2, 0))):
        encoding = tokenizer(texts, padding=True, return_tensors="pt")
        assert encoding["input_ids"].shape == encoding["attention_mask"].shape == shape
        assert encoding["char_ids"].shape == (*shape, 50)
        assert encoding["char_ids"].dtype == encoding["input_ids"].dtype == torch.int64
    assert tokenizer([[], ["a"]], is_split_into_words=True)["input_ids"] == [[], [2]]


def test_truncation(tokenizer):
    text = "a b c d e f g"
    assert tokenizer(text, truncation=True, max_length=3).tokens() == ["a", "b", "c"]
    assert len(tokenizer(text, truncation=True, max_length=3)["char_ids"]) == 3
    assert tokenizer(text, truncation=False, max_length=3).tokens() == text.split()
    pair = tokenizer(text, "x y", truncation=True, max_length=7)
    assert pair.tokens() == ["a", "b", "c", "</S>", "<S>", "x", "y"]
    pair = tokenizer(text, "p q r s", truncation="only_second", max_length=10)
    assert pair.tokens() == [*text.split(), "</S>", "<S>", "p"]
    tokenizer.truncation_side = "left"
    left = tokenizer(text, truncation=True, max_length=3)
    assert left.tokens() == ["e", "f", "g"]
    assert left.word_ids() == [4, 5, 6]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("length", range(1, 12))
@pytest.mark.parametrize(("size", "stride"), [(3, 0), (3, 1), (4, 3)])
def test_windows_over_a_long_text_leave_no_word_out(tokenizer, length, size, stride, side):
    tokenizer.truncation_side = side
    words = [f"w{number}" for number in range(length)]
    options = {"truncation": True, "max_length": size, "stride": stride, "return_overflowing_tokens": True}
    encoding = tokenizer([words, ["x"]], is_split_into_words=True, **options)
    sources = encoding["overflow_to_sample_mapping"]
    windows = [encoding.word_ids(row) for row, source in enumerate(sources) if source == 0]
    assert sources == [0] * len(windows) + [1]
    assert sorted({word for window in windows for word in window}) == list(range(length))
    assert all(len(window) <= size for window in windows)
    assert all(len(window) == size for window in windows[:-1])
    in_order = windows if side == "right" else windows[::-1]
    for window, next_window in itertools.pairwise(in_order):
        assert window[len(window) - stride :] == next_window[:stride]
    if length > size:
        assert windows[-1] != windows[-2][: len(windows[-1])]  # no window within another


def test_a_question_with_windows_over_its_context(tokenizer):
    encoding = tokenizer(
        "who sat", "a b c d e f", truncation="only_second", max_length=7, stride=1,
        return_overflowing_tokens=True, return_offsets_mapping=True, padding=True, return_tensors="pt",
    )  # fmt: skip
    rows = [encoding.tokens(row)[4:] for row in range(3)]
    assert rows == [["a", "b", "c"], ["c", "d", "e"], ["e", "f", "<PAD>"]]
    assert encoding["overflow_to_sample_mapping"].tolist() == [0, 0, 0]
    assert encoding["offset_mapping"][1, 4].tolist() == [4, 5]


def test_pad_as_collators_call_it(tokenizer):
    examples = [tokenizer("the cat"), tokenizer("the cat sat ."), tokenizer("")]
    batch = tokenizer.pad(examples, return_tensors="pt")
    whole = tokenizer(["the cat", "the cat sat .", ""], padding=True, return_tensors="pt")
    assert all(torch.equal(batch[name], whole[name]) for name in whole)
    arrays = [{name: np.array(values) for name, values in example.items()} for example in examples[:2]]
    assert torch.equal(tokenizer.pad(arrays, return_tensors="pt")["char_ids"], whole["char_ids"][:2])
    tensors = [tokenizer(text, return_tensors="pt") for text in ("the cat", "the")]
    tensors = [{name: value[0] for name, value in example.items()} for example in tensors]
    assert tokenizer.pad(tensors)["char_ids"].shape == (2, 2, 50)
    lone = tokenizer.pad(tokenizer("the"), padding="max_length", max_length=3)
    assert len(lone["input_ids"]) == len(lone["char_ids"]) == 3
    left = tokenizer.pad(examples, padding_side="left", return_tensors="pt")
    assert left["char_ids"][0, 0].sum() == 0
    empty = tokenizer.pad([tokenizer(""), tokenizer("")], return_tensors="pt")
    assert empty["char_ids"].shape == (2, 0, 50)


def test_the_librarys_collators(tokenizer):
    examples = [tokenizer(text) for text in ("the cat", "the cat sat .")]
    batch = DataCollatorWithPadding(tokenizer)([dict(example) | {"label": 1} for example in examples])
    assert batch["char_ids"].shape == (2, 4, 50)
    assert batch["labels"].tolist() == [1, 1]
    labelled = [dict(example) | {"labels": example["input_ids"]} for example in examples]
    batch = DataCollatorForTokenClassification(tokenizer)(labelled)
    assert batch["labels"].tolist() == [[3, 4, -100, -100], [3, 4, 5, 6]]


def test_save_load_and_pickle(tokenizer, tmp_path):
    tokenizer = ElmoTokenizer(
        tmp_path / "words.txt", max_characters_per_token=20, word_splitter="whitespace", padding_side="left"
    )
    tokenizer.save_pretrained(tmp_path / "saved")
    copies = [
        ElmoTokenizer.from_pretrained(tmp_path / "saved"),
        AutoTokenizer.from_pretrained(tmp_path / "saved"),
        pickle.loads(pickle.dumps(tokenizer)),
    ]
    text = ["Don't sit.", "the cat"]
    for copy in copies:
        assert type(copy) is ElmoTokenizer
        assert dict(copy(text, padding=True)) == dict(tokenizer(text, padding=True))
        assert copy.get_vocab() == tokenizer.get_vocab()
    encoding = pickle.loads(pickle.dumps(tokenizer(text)))
    assert encoding["input_ids"] == tokenizer(text)["input_ids"]


def test_decoding(tokenizer):
    assert tokenizer.decode([3, 4, 2, 6]) == "the cat <UNK> ."
    assert tokenizer.decode([3, 4, 1, 0, 5], skip_special_tokens=True) == "the cat sat"
    assert tokenizer.decode([7]) == "<PAD>"
    assert tokenizer.encode("the cat") == [3, 4]
    assert tokenizer.tokenize("the cat, <S>") == ["the", "cat", ",", "<S>"]
    assert tokenizer.tokenize("<S>", "<S>", split_special_tokens=True) == ["<", "S", ">"] * 2
    assert tokenizer.tokenize("<S> the", "<S>") == ["<S>", "the", "<S>"]
    with pytest.raises(ValueError, match="ElmoTokenizer reads text, but got NoneType"):
        tokenizer.tokenize(None)


def test_other_names_for_the_special_words(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("<s>\n</s>\n<unk>\nthe\n", encoding="utf-8")
    tokenizer = ElmoTokenizer(path, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>")
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    assert (tokenizer.pad_token_id, tokenizer.vocab_size) == (4, 4)
    assert tokenizer("<s> the dog")["input_ids"] == [0, 3, 2]
    assert tokenizer("<s>")["char_ids"][0][1] == 257
    tokenizer.pad_token = "</s>"
    assert tokenizer(["the", "the the"], padding=True)["input_ids"] == [[3, 1], [3, 3]]
    assert tokenizer.num_special_tokens_to_add(pair=True) == 2
    assert tokenizer.get_special_tokens_mask([3, 1, 0, 4], already_has_special_tokens=True) == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda t: t.add_tokens(["new"]), "cannot add 'new'"),
        (lambda t: t.add_special_tokens({"cls_token": "[CLS]"}), r"cannot add '\[CLS\]'"),
        (lambda t: setattr(t, "bos_token", "<start>"), "cannot add '<start>'"),
        (lambda t: setattr(t, "unk_token", None), "cannot do without its unk_token"),
        (lambda t: setattr(t, "bos_token_id", None), "cannot do without its bos_token"),
        (
            lambda t: t("a b", "c d", truncation=True, max_length=4, return_overflowing_tokens=True),
            "truncation='only_first'",
        ),
        (lambda t: t("the", paddng=True), "no argument 'paddng'"),
        (lambda t: t(3), "strings and lists of strings, but got int"),
        (lambda t: t([3]), "reads text, but got int"),
        (lambda t: t(["the", None], is_split_into_words=True), "word 1 is None"),
        (lambda t: t("the", is_split_into_words=True), "needs a list of words"),
        (lambda t: t(["a", "b"], ["c"]), "must be a list of 2"),
        (lambda t: t([["a", "b", "c"]]), "one entry is a list of 3"),
        (lambda t: t("a b", "c d", truncation="only_first", max_length=3), "leaves 0 words"),
        (lambda t: t("a b c d", truncation=True, max_length=2, stride=2), "more than stride 2"),
        (lambda t: t.prepare_for_model([1, 2]), "letters are needed"),
        (lambda t: ElmoTokenizer(word_splitter="bpe"), "word_splitter must be one of"),
        (lambda t: ElmoTokenizer(max_characters_per_token=2), "at least 3"),
    ],
)
def test_mistakes_are_refused_in_one_sentence(tokenizer, act, message):
    with pytest.raises(ValueError, match=message) as error:
        act(tokenizer)
    assert "\n" not in str(error.value)
