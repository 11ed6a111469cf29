"""Word vectors from a text file: the right row for every word, and one sentence for every broken line."""

import bz2
import gzip
import shutil
import struct

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from elmo_hf import ElmoConfig, ElmoForTokenClassification, ElmoTokenizer
from elmo_hf.finetuning.word_vectors import add_words, digest_of_vectors, load_word_vectors, vector_size

VOCABULARY = ["<S>", "</S>", "<UNK>", "Bank", "bank", "PAID", "é", "nowhere"]
FILE = "bank 1 2 3\npaid 4 5 6\nBank -1 -2 -3\né 7 8e0 9.5\nother x y z\nat home 0 0 1\nbank 9 9 9\n"


def make(tmp_path, words=VOCABULARY, **options):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(words), encoding="utf-8")
    tokenizer = ElmoTokenizer(path)
    sizes = {"lstm_dim": 12, "projection_dim": 8, "char_filters": [[1, 4]], "task_word_dim": 3}
    config = ElmoConfig(**{"vocab_size": tokenizer.vocab_size} | sizes | options)
    torch.manual_seed(0)
    return ElmoForTokenClassification(config), tokenizer


def write(tmp_path, text):
    path = tmp_path / "vectors.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("header", ["", "7 3\n"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_each_word_gets_its_vector(tmp_path, header, end):
    model, tokenizer = make(tmp_path)
    share = load_word_vectors(model, tokenizer, write(tmp_path, (header + FILE).replace("\n", end)))
    rows = model.task_words.word_table.weight.tolist()
    assert rows[3] == [-1, -2, -3]
    assert rows[4] == [1, 2, 3]  # the first of two counts
    assert rows[5] == [4, 5, 6]  # in small letters, as the file has no PAID
    assert rows[6] == [7, 8, 9.5]
    assert share == 4 / 8
    assert torch.tensor(rows[7]).abs().sum() > 0
    assert len({tuple(row) for row in rows}) == 8
    encoding = tokenizer([["paid", "bank"]], is_split_into_words=True, return_tensors="pt")
    assert model.eval().read(**encoding).x[0, 1, :3].tolist() == [1, 2, 3]


def test_other_words_get_random_vectors_of_the_same_size(tmp_path):
    words = [f"w{number}" for number in range(2000)]
    model, tokenizer = make(tmp_path, ["<S>", "</S>", "<UNK>", *words], task_word_dim=10)
    lines = [
        " ".join([word, *(f"{x:.4f}" for x in (torch.randn(10) * 0.3 + 0.1).tolist())])
        for word in words[:1000]
    ]
    load_word_vectors(model, tokenizer, write(tmp_path, "\n".join(lines)))
    table = model.task_words.word_table.weight
    new, old = table[1003:], table[3:1003]
    assert new.mean().item() == pytest.approx(old.mean().item(), abs=0.02)
    assert new.std().item() == pytest.approx(old.std().item(), rel=0.05)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bank 1 2\n", "line 1: 2 numbers follow the word, not task_word_dim's 3"),
        ("paid 1 2 3\nbank 1 2 x\n", "line 2: a value after the word is no number"),
        ("bank 1 nan 3\n", "line 1: a number is not finite"),
        ("bank 1 1e999 3\n", "line 1: a number is not finite"),
        ("other 1 2 3\n", "none of the tokenizer's 8 words"),
        ("", "none of the tokenizer's 8 words"),
        (
            "other 1 2 3 4\n",
            "none of the tokenizer's 8 words; its vectors have 4 numbers, and task_word_dim is 3",
        ),
        (b"bank 1 2 3\n\xff\xfe\n", "vectors.txt, line 2 is not UTF-8 text"),
        ("x" * (2**20 + 5), "line 1 is longer than any vector"),
    ],
)
def test_a_broken_file_is_refused_and_nothing_is_changed(tmp_path, text, message):
    model, tokenizer = make(tmp_path)
    before = model.task_words.word_table.weight.clone()
    with pytest.raises(ValueError, match=message) as error:
        load_word_vectors(model, tokenizer, write(tmp_path, text))
    assert "\n" not in str(error.value)
    assert torch.equal(before, model.task_words.word_table.weight)


def test_a_model_or_tokenizer_that_does_not_fit_is_refused(tmp_path):
    path = write(tmp_path, FILE)
    model, tokenizer = make(tmp_path, task_word_dim=0)
    with pytest.raises(ValueError, match="no word vectors of its own"):
        load_word_vectors(model, tokenizer, path)
    model, _ = make(tmp_path)
    with pytest.raises(ValueError, match="tokenizer has 3 words, but the model's vocab_size is 8"):
        load_word_vectors(model, ElmoTokenizer(), path)
    with pytest.raises(ValueError, match="could not be read"):
        load_word_vectors(model, tokenizer, tmp_path / "absent.txt")


def test_a_word_that_the_vocabulary_has_twice(tmp_path):
    model, tokenizer = make(tmp_path, words=["<S>", "</S>", "<UNK>", "a", "b", "b", "c"], task_word_dim=2)
    load_word_vectors(model, tokenizer, write(tmp_path, "b 2 2\nc 3 3\n"))
    batch = tokenizer([["b", "c"]], is_split_into_words=True, return_tensors="pt")
    rows = model.task_words.word_table.weight
    assert rows[batch["input_ids"][0]].tolist() == [[2, 2], [3, 3]]


# ---- other kinds of files

WORDS = ["bank", "paid", "Bank", "é"]
TABLE = np.array([[1, 2, 3], [4, 5, 6], [-1, -2, -3], [7, 8, 9.5]], dtype=np.float32)


def packed(tmp_path, kind):
    """The same four vectors as a file or folder of some kind."""
    text = "".join(f"{word} {' '.join(map(str, row))}\n" for word, row in zip(WORDS, TABLE, strict=True))
    binary = b"4 3\n" + b"".join(
        word.encode() + b" " + struct.pack("<3f", *row) + b"\n"
        for word, row in zip(WORDS, TABLE, strict=True)
    )
    folder = tmp_path / kind
    folder.mkdir()
    if kind in ("parquet", "words"):
        np.save(folder / "table.npy", TABLE)
        if kind == "parquet":
            pyarrow.parquet.write_table(pyarrow.table({"index": WORDS}), folder / "index.parquet")
        else:
            (folder / "words.txt").write_text("\n".join(WORDS), encoding="utf-8")
        return folder
    contents = {
        "a.txt.gz": gzip.compress(text.encode()),
        "a.txt.bz2": bz2.compress(text.encode()),
        "a.bin": binary,
        "a.bin.gz": gzip.compress(binary),
    }
    (folder / kind).write_bytes(contents[kind])
    return folder / kind


@pytest.mark.parametrize("kind", ["a.txt.gz", "a.txt.bz2", "a.bin", "a.bin.gz", "parquet", "words"])
def test_all_kinds_of_files_give_the_same_vectors(tmp_path, kind):
    model, tokenizer = make(tmp_path)
    path = packed(tmp_path, kind)
    assert vector_size(path) == 3
    load_word_vectors(model, tokenizer, path)
    assert model.task_words.word_table.weight[3:7].tolist() == [
        [-1, -2, -3],
        [1, 2, 3],
        [4, 5, 6],
        [7, 8, 9.5],
    ]
    load_word_vectors(model, tokenizer, path, scale=4.0)
    assert model.task_words.word_table.weight[5].tolist() == [16, 20, 24]
    digest = digest_of_vectors(path)
    assert (
        digest_of_vectors(
            shutil.copytree(tmp_path / kind, tmp_path / "again") / path.relative_to(tmp_path / kind)
        )
        == digest
    )
    for file in [path] if path.is_file() else sorted(path.iterdir()):
        content = file.read_bytes()
        file.write_bytes(content[:-1] + b"?")
        assert digest_of_vectors(path) != digest
        file.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.bin", b"bank 1 2 3\n", "does not begin with two counts"),
        ("a.bin", b"9 3\nbank " + bytes(12), "word 2 does not end; is it word2vec's binary layout"),
        ("a.bin", b"1 3\nbank 1", "ends inside of word 1 of 1; is it cut off"),
        ("a.bin", b"1 2\nbank " + bytes(8), "2 numbers follow a word, not task_word_dim's 3"),
        ("a.bin", b"1 3\nbank " + struct.pack("<3f", 1, float("nan"), 2), "word 1: a number is not finite"),
        ("a.bin.gz", b"no gzip", "could not be read"),
        ("a.txt.gz", gzip.compress(b"bank 1 2 3\n" * 99, mtime=0)[:40], "could not be read"),
        ("a.kv", b"", "is a pickle of gensim, which can run any code"),
    ],
)
def test_a_broken_file_of_another_kind_is_one_sentence(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    model, tokenizer = make(tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        load_word_vectors(model, tokenizer, tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_folder_that_does_not_fit_is_one_sentence(tmp_path):
    model, tokenizer = make(tmp_path)
    folder = packed(tmp_path, "words")
    np.save(folder / "table.npy", TABLE[:3])
    with pytest.raises(ValueError, match=r"table.npy in .* has 3 rows, but words.txt 4 words"):
        load_word_vectors(model, tokenizer, folder)
    np.save(folder / "table.npy", TABLE.astype(int))
    with pytest.raises(
        ValueError, match=r"must be a table of numbers \(words, numbers\), but is int64\(4, 3\)"
    ):
        load_word_vectors(model, tokenizer, folder)
    np.save(folder / "table.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match="could not be read as a table of NumPy"):
        load_word_vectors(model, tokenizer, folder)
    (folder / "table.npy").unlink()
    with pytest.raises(ValueError, match=r"must have one table \(.npy\) of word vectors, but has 0"):
        load_word_vectors(model, tokenizer, folder)


NEW = FILE + "cave 2 0 1\nsea 0 5 5\n"


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_a_trained_model_gets_words_of_another_text(tmp_path, scale):
    model, tokenizer = make(tmp_path)
    load_word_vectors(model, tokenizer, write(tmp_path, FILE), scale)
    before = model.task_words.word_table.weight.detach().clone()
    words = ["bank", "Sea", "unheard", "cave", "cave", "ten thousand"]
    larger = add_words(model, tokenizer, words, write(tmp_path, NEW.replace("other x y z\n", "")))
    table = model.task_words.word_table.weight
    assert table[:8].equal(before)
    assert table[8:].tolist() == [[0, 5 * scale, 5 * scale], [2 * scale, 0, scale]]  # Sea, as sea; cave
    sentences = [["cave", "bank", "unheard", "Sea"], ["cave"]]
    encoding = larger(sentences, is_split_into_words=True, padding=True, return_tensors="pt")
    read = model.eval().read(**encoding).x[..., :3]
    assert read[0].equal(table[[9, 4, 2, 8]])
    assert read[1].tolist() == [table[9].tolist(), *3 * [[0, 0, 0]]]  # padding
    assert (model.config.vocab_size, larger.vocab_size, tokenizer.vocab_size) == (10, 10, 8)


def test_other_vectors_than_those_of_the_training_are_refused(tmp_path):
    model, tokenizer = make(tmp_path)
    load_word_vectors(model, tokenizer, write(tmp_path, FILE))
    before = model.task_words.word_table.weight.detach().clone()
    other = "bank 3 -2 1\npaid -6 5 -4\nBank -3 2 -1\né -9 8 -7\ncave 2 0 1\n"
    with pytest.raises(
        ValueError, match=r"vectors.txt has other vectors than this model was trained with; name"
    ):
        add_words(model, tokenizer, ["cave"], write(tmp_path, other))
    with pytest.raises(ValueError, match=r"has none of the model's 8 words"):
        add_words(model, tokenizer, ["cave"], write(tmp_path, "cave 2 0 1\n"))
    assert model.task_words.word_table.weight.equal(before)
    model, tokenizer = make(tmp_path, task_word_dim=0)
    with pytest.raises(ValueError, match="this model has no word vectors of its own"):
        add_words(model, tokenizer, ["cave"], write(tmp_path, NEW))
