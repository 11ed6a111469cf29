"""Tables of words: the vectors of the model, in the files that gensim, model2vec and others read."""

import re

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from typer.testing import CliRunner

from elmo_hf import TINY, ElmoConfig, ElmoError, ElmoModel, ElmoTokenizer
from elmo_hf.cli import app
from elmo_hf.export import static
from elmo_hf.export.static import export_static
from tests.helpers.small_elmo import save_small_elmo

WORDS = ["bank", "Zürich", "漢字", "didn't", "U.S.", "the"]
# Pieces of text on which a splitter may go wrong, joined by chance.
PIECES = [
    "He",
    "didn't",
    "Don 't",
    "Murray's",
    "1990's",
    "U.S.",
    "Dr. Who",
    "F. Kennedy",
    "-3.5",
    "1,000",
    ".5",
]
PIECES += [
    "...",
    "--",
    "—",
    "漢字",
    "e\u0301t",
    "don’t",
    "x.-y",
    "a-b",
    "’ll",
    "(",
    '"',
    "\n",
    "\t",
    "\u00a0",
]
PIECES += [
    "\u2028",
    "\x1c",
    "Ph.D.",
    "O'Neil",
    "٣٤",
    "नमस्ते",
    "\u200d",
    "👍🏽",
    "'",
    "l'été",
    "$5",
    "e.g.",
    "No. 5",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_small_elmo(tmp_path_factory.mktemp("static") / "my-elmo")


@pytest.fixture
def words(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return path


def layers_of(folder, word, *others):
    """(layers, dim) of a word, from one call of the model, which may read others in the same batch."""
    sentences = [[word], *([other] for other in others)]
    batch = ElmoTokenizer.from_pretrained(folder)(sentences, is_split_into_words=True, return_tensors="pt")
    with torch.no_grad():
        output = ElmoModel.from_pretrained(folder).eval()(**batch, output_hidden_states=True)
    return torch.stack(output.hidden_states)[:, 0, 0].numpy()


def read_glove(path):
    rows = [line.split(" ") for line in path.read_bytes().decode("utf-8").split("\n")[:-1]]
    return {row[0]: np.array(row[1:], dtype=np.float32) for row in rows}


def command(*arguments):
    result = CliRunner().invoke(app, ["export", *map(str, arguments)])
    return result.exit_code, result.output


@pytest.mark.parametrize("layers", ["top", "average", "0", "all", "0,2"])
def test_vectors_are_those_of_the_model(folder, words, tmp_path, layers):
    report = export_static(folder, tmp_path / "vectors.txt", words, layers=layers, progress=False)
    table = read_glove(tmp_path / "vectors.txt")
    assert list(table) == WORDS
    choose = {"top": lambda x: x[2], "average": lambda x: x.mean(axis=0), "0": lambda x: x[0]}
    choose |= {"all": np.concatenate, "0,2": lambda x: np.concatenate(x[[0, 2]])}
    for word, vector in table.items():
        np.testing.assert_allclose(vector, choose[layers](layers_of(folder, word)), atol=1e-6, rtol=0)
    assert (report.words, report.width) == (6, len(table["bank"]))
    assert [path.name for path in tmp_path.iterdir()].count("vectors.txt") == 1


def test_the_folder_holds_the_same_in_all_files(folder, words, tmp_path):
    export_static(folder, tmp_path / "out", words, progress=False)
    from safetensors.numpy import load_file

    rows = load_file(tmp_path / "out" / "model.safetensors")["embeddings"]
    table = read_glove(tmp_path / "out" / "vectors.txt")
    ids = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json")).get_vocab()
    assert sorted(ids.values()) == list(range(len(rows)))
    assert not rows[ids["<UNK>"]].any()
    for word, vector in table.items():
        np.testing.assert_array_equal(rows[ids[word]], vector)
    assert "6 words, each with 16 numbers: layer 2 of the ELMo" in (tmp_path / "out/README.md").read_text()


@pytest.mark.parametrize("splitter", ["penn", "whitespace"])
def test_the_tokenizer_of_the_folder_splits_as_the_model_does(splitter):
    tokenizer, rng = ElmoTokenizer(word_splitter=splitter), np.random.default_rng(0)
    split = static.word_level_tokenizer(["bank"], tokenizer).pre_tokenizer
    for _ in range(2000):
        pieces = rng.choice(PIECES, rng.integers(1, 8))
        text = "".join(piece + rng.choice(["", " "]) for piece in pieces)
        assert [word for word, _ in split.pre_tokenize_str(text)] == tokenizer.tokenize(text), text


def test_model2vec(folder, words, tmp_path, monkeypatch):
    model2vec = pytest.importorskip("model2vec", reason="needs `pip install model2vec`")
    export_static(folder, tmp_path / "out", words, progress=False)
    model = model2vec.StaticModel.from_pretrained(tmp_path / "out")
    vectors = {word: layers_of(folder, word)[-1] for word in WORDS}
    actual = model.encode(["bank", "The bank, Zürich.", "nothing", "U.S. 漢字"])
    expected = [vectors["bank"], (vectors["bank"] + vectors["Zürich"]) / 2, np.zeros(16)]
    expected.append((vectors["U.S."] + vectors["漢字"]) / 2)
    np.testing.assert_allclose(actual, expected, atol=1e-6, rtol=0)
    run_readme(tmp_path / "out", 0, monkeypatch)


def test_gensim(folder, words, tmp_path, monkeypatch):
    models = pytest.importorskip("gensim.models", reason="needs `pip install gensim`")
    export_static(folder, tmp_path / "out", words, progress=False)
    vectors = models.KeyedVectors.load_word2vec_format(tmp_path / "out" / "vectors.txt", no_header=True)
    assert vectors.index_to_key == WORDS
    for word, vector in read_glove(tmp_path / "out" / "vectors.txt").items():
        np.testing.assert_array_equal(vectors[word], vector)
    run_readme(tmp_path / "out", 1, monkeypatch)


def run_readme(folder, number, monkeypatch):
    code = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(folder)
    exec(code[number], {})


def test_sentence_transformers(folder, words, tmp_path):
    library = pytest.importorskip("sentence_transformers", reason="needs `elmo-hf[sentence-transformers]`")
    export_static(folder, tmp_path / "out", words, progress=False)
    model = library.SentenceTransformer(str(tmp_path / "out"), device="cpu")
    expected = (layers_of(folder, "bank") + layers_of(folder, "the"))[-1] / 2
    np.testing.assert_allclose(model.encode(["the bank"])[0], expected, atol=1e-6, rtol=0)


def test_command(folder, words, tmp_path):
    code, output = command(folder, tmp_path / "vectors.txt", "--static", words, "--layers", "0")
    assert (code, "6 words with 16 numbers each, by my-elmo." in output) == (0, True)
    assert "100%" in output
    code, output = command("--static", words, tmp_path / "new" / "tiny", "--no-progress")
    assert (code, "6 words with 256 numbers each, by elmo-tiny." in output) == (0, True)
    assert "%" not in output
    vector = read_glove(tmp_path / "new/tiny/vectors.txt")["bank"]
    # The same batch as the command's: with another number of rows, some processors round differently.
    np.testing.assert_allclose(vector, layers_of(TINY, *WORDS)[-1], atol=1e-6)
    assert not np.allclose(vector, layers_of(TINY, *WORDS[::-1])[-1], atol=1e-3)


def test_words_of_the_vocabulary(tmp_path):
    torch.manual_seed(0)
    (tmp_path / "vocab.txt").write_text("<S>\n</S>\n<UNK>\nbank\nthe\n", encoding="utf-8")
    config = ElmoConfig(lstm_dim=12, projection_dim=8, token_encoder="words", vocab_size=5)
    ElmoModel(config).save_pretrained(tmp_path / "words")
    ElmoTokenizer(tmp_path / "vocab.txt").save_pretrained(tmp_path / "words")
    report = export_static(tmp_path / "words", tmp_path / "own.txt", "vocabulary", progress=False)
    assert list(read_glove(tmp_path / "own.txt")) == ["bank", "the"]
    assert (report.repeated, report.unknown) == (0, 0)
    report = export_static(
        tmp_path / "words", tmp_path / "list.txt", ["the", "cat", "<S>", "the", "dog"], progress=False
    )
    table = read_glove(tmp_path / "list.txt")
    assert list(table) == ["the", "cat", "dog"]
    np.testing.assert_allclose(table["cat"], table["dog"], atol=1e-6, rtol=0)
    assert not np.allclose(table["cat"], table["the"], atol=1e-3)
    assert str(report) == (
        "3 words with 16 numbers each, by words. Left out 2 lines with a repeated or special word. "
        "2 words are not in the model's vocabulary and have one vector."
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"bank\nNew York\n", r"words.txt, line 2: 'New York' is not one word; give one word a line."),
        ("a\u2003b\n".encode(), r"words.txt, line 1: 'a\\u2003b' is not one word; give one word a line."),
        (b"bank\nZ\xfcrich\n", r"words.txt: the list of words is not UTF-8 text \(byte 6\)."),
        (b"bank\0\n", r"words.txt: the list of words is not UTF-8 text \(byte 4 is NUL\)."),
        (b"", r"words.txt: the list of words is empty; it needs one word a line."),
        (b"<S>\n\n", "the list has no words; give a file with one word a line."),
    ],
)
def test_bad_lists_are_one_sentence_and_nothing_is_written(folder, words, tmp_path, content, message):
    words.write_bytes(content)
    for name in ("out", "out.txt"):
        with pytest.raises(ElmoError, match=message + "$"):
            export_static(folder, tmp_path / name, words, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["words.txt"]


def test_line_ends_empty_lines_and_a_byte_order_mark(folder, tmp_path):
    (tmp_path / "words.txt").write_bytes("\ufeffbank\r\n\r\n the \r\n".encode())
    export_static(folder, tmp_path / "out.txt", tmp_path / "words.txt", progress=False)
    assert list(read_glove(tmp_path / "out.txt")) == ["bank", "the"]


def test_other_mistakes_are_one_sentence(folder, words, tmp_path):
    for arguments, sentence in [
        ((folder, tmp_path / "out", "--static", words, "--int8"), "--int8 is for ONNX; leave it out"),
        ((folder, "--static", words), "holds a model; name what to write, too: elmo-hf export"),
        ((folder, words, "--static", words), "words.txt exists already; name another file, or delete it."),
        ((folder, tmp_path / "no/out.txt", "--static", words), "there is no folder"),
        ((folder, folder, "--static", words), "exists and is not an empty folder"),
        ((folder, tmp_path / "out", "--static", "none.txt"), "none.txt cannot be read (No such file"),
        ((folder, tmp_path / "out", "--static", "vocabulary"), "my-elmo has no vocabulary; give --static"),
        ((folder, tmp_path / "out", "--static", words, "--layers", "7"), "layers must be top, average"),
        ((tmp_path / "no such", tmp_path / "out", "--static", words), "no ELMo can be loaded from"),
    ]:
        code, output = command(*arguments)
        assert (code, output.count("\n"), output[-2:]) == (1, 1, ".\n"), output
        assert sentence in output
    assert command(folder)[0] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["words.txt"]
