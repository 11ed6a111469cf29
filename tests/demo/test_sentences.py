"""`elmo-hf vectors`: where its sentences come from, and what it prints and writes."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import elmo_hf
from elmo_hf import ElmoConfig, ElmoModel
from elmo_hf.cli import app
from elmo_hf.demo.sentences import could_be_path
from tests.helpers.embed_corpora import save_model, small_model

ALL_WORDS = ["He", "sat", "on", "the", "bank", ".", "The", "bank", "lent", "it", "."]
TEXTS = ["He sat on the bank.", "", "The bank lent it."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_model(small_model(), tmp_path_factory.mktemp("model"))


@pytest.fixture
def run(folder, tmp_path, monkeypatch):
    """The command in a folder with a file of three lines."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    (tmp_path / "bank").mkdir()

    def run(*arguments, input=None):
        return CliRunner().invoke(app, ["vectors", *arguments, "--model", str(folder)], input=input)

    return run


def lines_of(result):
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_arguments_files_and_standard_input_are_the_same(run):
    by_file = run("--file", "a.txt", "--json")
    assert [line["word"] for line in lines_of(by_file)] == ALL_WORDS
    assert [line["sentence"] for line in lines_of(by_file)] == [0] * 6 + [2] * 5
    text = "\n".join(TEXTS)
    assert run("-", "--json", input=text).stdout == by_file.stdout
    assert run("--file", "-", "--format", "json", input=text).stdout == by_file.stdout
    by_arguments = lines_of(run(TEXTS[0], TEXTS[2], "--json"))
    for line, same in zip(by_arguments, lines_of(by_file), strict=True):
        np.testing.assert_allclose(line["vector"], same["vector"], atol=2e-6)


def test_words_are_split_by_the_model_or_at_blanks(run):
    assert [line["word"] for line in lines_of(run("The bank.", "--json"))] == ["The", "bank", "."]
    assert [line["word"] for line in lines_of(run("The bank.", "--json", "--whitespace"))] == ["The", "bank."]


@pytest.mark.parametrize("options", [{}, {"layers": "0,2"}, {"layers": "top", "pool": "mean"}])
def test_json_lines_have_the_numbers_of_encode(run, folder, options):
    arguments = [text for name, value in options.items() for text in (f"--{name}", value)]
    lines = lines_of(run("--file", "a.txt", "--json", *arguments))
    vectors = elmo_hf.encode(TEXTS, folder, **({"layers": "average"} | options))
    columns = ["layer_0", "layer_2"] if options.get("layers") == "0,2" else ["vector"]
    if "pool" in options:
        assert [line["words"] for line in lines][1:] == [[], ["The", "bank", "lent", "it", "."]]
        assert np.array_equal(np.array([line["vector"] for line in lines], np.float32), vectors)
        return
    numbers = np.array([[line[name] for line in lines] for name in columns], np.float32)
    wanted = np.concatenate([array if len(columns) > 1 else array[None] for array in vectors], axis=1)
    assert np.array_equal(numbers, wanted)


@pytest.mark.parametrize("pool", [None, "max"])
def test_an_array_and_its_words(run, folder, tmp_path, pool):
    options = ["--pool", pool] if pool else []
    result = run("--file", "a.txt", "--output", "v.npy", "--layers", "top", *options)
    assert result.exit_code == 0, result.stderr
    vectors = elmo_hf.encode(TEXTS, folder, pool=pool)
    assert np.array_equal(np.load("v.npy"), np.concatenate(vectors) if pool is None else vectors)
    words = json.loads((tmp_path / "v.json").read_text(encoding="utf-8"))["tokens"]
    assert words == [["He", "sat", "on", "the", "bank", "."], [], ["The", "bank", "lent", "it", "."]]
    assert f"a row for each {'sentence' if pool else 'word'}" in result.stdout


def test_several_layers_as_an_array(run, folder):
    for pool, wanted in ((None, (3, 11, 16)), ("mean", (3, 3, 16))):
        options = ["--pool", pool] if pool else []
        assert run("--file", "a.txt", "--output", "v.npy", "--layers", "all", *options).exit_code == 0
        assert np.load("v.npy").shape == wanted
    pooled = elmo_hf.encode(TEXTS, folder, layers="all", pool="mean")  # (sentences, layers, dim)
    assert np.array_equal(np.load("v.npy"), pooled.swapaxes(0, 1))


def test_the_name_of_the_output_says_its_format(run, tmp_path):
    assert run("--file", "a.txt", "--output", "v.jsonl").exit_code == 0
    assert (tmp_path / "v.jsonl").read_text() == run("--file", "a.txt", "--json").stdout
    assert run("--file", "a.txt", "--output", "v.txt").exit_code == 0
    assert (tmp_path / "v.txt").read_text() == run("--file", "a.txt").stdout
    assert "  0: 1.00  1: " in (tmp_path / "v.txt").read_text()


def test_a_column_of_a_table(run, tmp_path):
    (tmp_path / "t.csv").write_text("id,body\n1,Why?\n2,Who?\n")
    lines = lines_of(run("--file", "t.csv", "--column", "body", "--json"))
    assert [line["word"] for line in lines] == ["Why", "?", "Who", "?"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.txt"], "a.txt is a file or folder here; say --file a.txt"),
        (["Why?", "bank"], "bank is a file or folder here; say --file bank"),
        (["b.txt"], "b.txt looks like a file's name; say --file b.txt"),
        (["corpus.jsonl.gz"], "looks like a file's name"),
        (["./b"], "looks like a file's name"),
        (["https://example.org/a"], "looks like a file's name"),
        (["Why?", "-"], "- is standard input, which cannot be read together with other sentences"),
        ([], "there is no sentence; give some in quotes, or --file FILE, or - for standard input"),
        (["Why?", "--file", "a.txt"], "sentences and --file cannot both be given"),
        (["--file", "a.txt", "--file", "-"], "--file - is standard input, which cannot be read together"),
        (["--file", "b.txt"], "there is no file b.txt"),
        (["--file", "a.txt", "--column", "x"], "has no column 'x'"),
        (["Why?", " "], "sentence 2 has no words; give each sentence at least one"),
        (["Why?", "--format", "npy"], "the format npy needs a file to write; say --output NAME.npy"),
        (["Why?", "--format", "npy", "--output", "v.bin"], "the format npy needs a file to write"),
        (["Why?", "--json", "--format", "npy"], "--json and --format npy cannot both be given"),
        (["Why?", "--output", "bank"], "the output bank is a folder"),
        (["Why?", "--output", "no/v.json"], "the folder no of the output does not exist"),
        (["--file", "a.txt", "--output", "a.txt"], "would replace a file that is read"),
        (["Why?", "--layers", "mix"], "this model stores no trained mix"),
        (["Why?", "--pool", "sum"], "pool must be one of"),
    ],
)
def test_mistakes_are_one_sentence_and_write_nothing(run, tmp_path, arguments, message):
    before = sorted(tmp_path.rglob("*"))
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("elmo-hf: ")
    assert message in result.stderr
    assert result.stderr.endswith(".\n")
    assert result.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_words_of_another_file_are_not_replaced(run, tmp_path):
    (tmp_path / "v.json").write_text("{}")
    result = run("Why?", "--output", "v.npy")
    assert result.exit_code == 1
    assert "v.json would be replaced by the words of v.npy" in result.stderr
    assert (tmp_path / "v.json").read_text() == "{}"
    (tmp_path / "v.json").unlink()
    for _ in range(2):
        assert run("Why?", "--output", "v.npy").exit_code == 0


def test_a_flag_makes_every_argument_a_sentence(run):
    lines = lines_of(run("a.txt", "-", "bank", "--as-text", "--json"))
    assert [line["word"] for line in lines] == ["a.txt", "-", "bank"]
    assert [line["word"] for line in lines_of(run("-", "--as-text", "--json", input="Why?"))] == ["-"]


def test_what_is_no_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for sentence in ("Hello", "and/or", "3.14", "U.S.", "See a.txt there", "...", "Why?", "e.g.", ".txt"):
        assert not could_be_path(sentence), sentence


def test_hidden_characters_are_written_out_in_json(run):
    result = run("bank\u202e x\x1b[2J", "--json")
    assert not set(result.stdout) & set("\u202e\x1b")
    assert {"\u202e", "\x1b"} <= {line["word"] for line in lines_of(result)}


def test_layers_of_different_widths(tmp_path):
    torch.manual_seed(0)
    model = ElmoModel(ElmoConfig(lstm_dim=8, projection_dim=12, char_filters=[[1, 4]], vocab_size=5))
    save_model(model, tmp_path / "model")
    arguments = ["vectors", "a bank", "the bank", "--layers", "top", "--model", str(tmp_path / "model")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    assert "[bank]  1: " in result.stdout
