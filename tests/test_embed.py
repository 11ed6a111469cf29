"""A corpus in, vectors out: all options against direct calls of the model, killed jobs, several processes."""

import ast
import gzip
import json
import lzma
import multiprocessing
import os
import random
import re
import resource
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from datasets import Dataset, IterableDataset
from typer.testing import CliRunner

import elmo_hf
from elmo_hf import ElmoConfig, ElmoForPreTraining, ElmoModel, ElmoTokenizer, read_vectors
from elmo_hf.cli import app
from elmo_hf.corpus import Corpus
from elmo_hf.embedder import WordCache, batches

FORMATS = ("safetensors", "hdf5", "parquet")
SOURCE = Path(elmo_hf.__file__).parent
# What makes a run quick here, and has several shards and batches.
SMALL = {"progress": False, "device": "cpu", "shard_words": 40, "batch_words": 24}


def sentences(number, seed=0):
    """Lines of made-up text, some empty, some long, with letters of several bytes."""
    draw = random.Random(seed)
    vocabulary = ["Bank", "the", "sat", "he", "didn't", "naïve", "1,000.50", "文字", "x" * 70, "U.S.", ","]
    vocabulary += ["".join(draw.choices("abcdefgh", k=draw.randint(1, 9))) for _ in range(60)]
    return [" ".join(draw.choices(vocabulary, k=draw.choice([0, 1, 3, 6, 6, 9, 17]))) for _ in range(number)]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = ElmoConfig(lstm_dim=16, projection_dim=8, char_filters=[[1, 4], [3, 8]], num_highway_layers=1)
    return ElmoModel(config).eval()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    model.save_pretrained(path)
    ElmoTokenizer().save_pretrained(path)
    return path


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(sentences(60)) + "\n", encoding="utf-8")
    return path


def directly(model, words):
    """All layers of one sentence (layers, words, dim) by a call of the model on it alone."""
    if not words:
        return np.zeros((3, 0, model.config.hidden_size), dtype=np.float32)
    encoding = ElmoTokenizer()([words], is_split_into_words=True, return_tensors="pt")
    with torch.no_grad():
        return torch.stack(model(**encoding, output_hidden_states=True).hidden_states)[:, 0].numpy()


def expected(model, words, layers, pool):
    every = directly(model, words)
    chosen = {"top": every[-1], "average": every.mean(0), "all": every, "1": every[1], "2,0": every[[2, 0]]}
    found = chosen[layers]
    if pool is None:
        return found
    if not words:
        return np.zeros_like(found, shape=(*found.shape[:-2], found.shape[-1]))
    return found.mean(axis=-2) if pool == "mean" else found.max(axis=-2)


def contents(path):
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


# ---- the vectors


@pytest.mark.parametrize("layers", ["top", "average", "all", "1", "2,0"])
def test_vectors_are_those_of_a_direct_call(model, corpus, tmp_path, layers):
    lines = corpus.read_text(encoding="utf-8").split("\n")[:-1]
    words = [ElmoTokenizer().tokenize(line) for line in lines]
    for pool, format in product((None, "mean", "max"), FORMATS):
        output = tmp_path / f"{pool}-{format}"
        found = elmo_hf.embed(corpus, output, model, layers=layers, pool=pool, format=format, **SMALL)
        assert [sentence.words for sentence in found] == words
        for sentence in found:
            wanted = expected(model, sentence.words, layers, pool)
            assert sentence.vectors.shape == wanted.shape
            assert sentence.vectors.dtype == np.float32
            np.testing.assert_allclose(sentence.vectors, wanted, atol=2e-6)


@pytest.mark.parametrize("format", FORMATS)
def test_half_precision_is_rounding(model, corpus, tmp_path, format):
    full = elmo_hf.embed(corpus, tmp_path / "full", model, **SMALL)
    half = elmo_hf.embed(corpus, tmp_path / "half", model, format=format, dtype="float16", **SMALL)
    for one, other in zip(full, half, strict=True):
        assert other.vectors.dtype == np.float16
        assert np.array_equal(one.vectors.astype(np.float16), other.vectors)


@pytest.mark.parametrize("cache_words", [0, 1, 7, 10_000])
@pytest.mark.parametrize(("batch_words", "shard_words"), [(1, 10_000), (50, 1), (4096, 300)])
def test_cache_and_budgets_change_no_vector(model, corpus, tmp_path, cache_words, batch_words, shard_words):
    options = {"cache_words": cache_words, "batch_words": batch_words, "shard_words": shard_words}
    found = elmo_hf.embed(corpus, tmp_path / "out", model, **(SMALL | options))
    for sentence in found:
        np.testing.assert_allclose(sentence.vectors, directly(model, sentence.words)[-1], atol=2e-6)


def test_a_word_table_needs_no_letters(tmp_path, corpus):
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("<S>\n</S>\n<UNK>\nBank\nthe\nsat\n", encoding="utf-8")
    tokenizer = ElmoTokenizer(vocabulary)
    torch.manual_seed(1)
    config = ElmoConfig(lstm_dim=16, projection_dim=8, token_encoder="words", vocab_size=6)
    model = ElmoModel(config).eval()
    found = elmo_hf.embed(corpus, tmp_path / "out", model, tokenizer=tokenizer, **SMALL)
    for words, vectors in found:
        if words:
            encoding = tokenizer([words], is_split_into_words=True, return_tensors="pt")
            wanted = model(**encoding).last_hidden_state[0].detach().numpy()
            np.testing.assert_allclose(vectors, wanted, atol=2e-6)
    with pytest.raises(ValueError, match="needs its tokenizer"):
        elmo_hf.embed(corpus, tmp_path / "other", model, **SMALL)
    assert not (tmp_path / "other").exists()


def test_the_model_is_left_as_it_was(corpus, tmp_path):
    """Dropout is off while it reads, and a language model's ELMo is what reads."""
    torch.manual_seed(0)
    language_model = ElmoForPreTraining(ElmoConfig(lstm_dim=8, projection_dim=4, vocab_size=5, dropout=0.5))
    found = elmo_hf.embed(corpus, tmp_path / "out", language_model.train(), layers="all", **SMALL)
    assert language_model.training
    assert language_model.elmo.training
    for words, vectors in found[:5]:
        np.testing.assert_allclose(vectors, directly(language_model.eval().elmo, words), atol=2e-6)


def test_the_cache_holds_the_words_used_last():
    asked = []

    def encode(words):
        asked.append(words)
        return torch.tensor([[float(ord(word))] for word in words])

    cache = WordCache(encode, size=3)
    for words in ("ab", "bc", "a", "d", "cad", "bcdefg", "g"):
        assert cache(list(words)).tolist() == [[float(ord(word))] for word in words]
    # After "a" was used again, "b" is the oldest and gives way to "d"; "c", "a", "d" are then all there.
    assert asked == [["a", "b"], ["c"], ["d"], ["b", "e", "f", "g"]]
    assert len(cache.slots) == 3


def test_batches_waste_little_and_hold_everything_once():
    lengths = [random.Random(3).randint(0, 40) for _ in range(200)] + [500]
    made = list(batches(lengths, budget=100))
    assert sorted(number for batch in made for number in batch) == [
        n for n, length in enumerate(lengths) if length
    ]
    assert made[0] == [200]
    assert all(len(batch) * lengths[batch[0]] <= 100 for batch in made[1:])
    padded = sum(len(batch) * lengths[batch[0]] for batch in made)
    assert padded < 1.05 * sum(lengths)


# ---- what goes in


def write_parquet(path, table):
    pyarrow.parquet.write_table(pyarrow.table(table), path)


def every_source(path, lines):
    """The same sentences in every form that `embed` reads."""
    text = "".join(line + "\n" for line in lines)
    tokens = [line.split() for line in lines]
    (path / "a.txt").write_text(text, encoding="utf-8")
    (path / "bom.txt").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode("utf-8"))
    with gzip.open(path / "b.txt.gz", "wt", encoding="utf-8") as file:
        file.write(text)
    with lzma.open(path / "c.jsonl.xz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"id": 1, "text": line}) + "\n" for line in lines)
    (path / "d.jsonl").write_text("".join(json.dumps(words) + "\n" for words in tokens), encoding="utf-8")
    write_parquet(path / "e.parquet", {"tokens": pyarrow.array(tokens, pyarrow.list_(pyarrow.string()))})
    write_parquet(path / "f.parquet", {"text": ["no"] * len(lines), "mine": lines})
    yield from ((path / name, {}) for name in ("a.txt", "bom.txt", "b.txt.gz", "c.jsonl.xz", "d.jsonl"))
    yield path / "e.parquet", {}
    yield path / "f.parquet", {"text_column": "mine"}
    yield lines, {}
    yield iter(lines), {}
    yield tokens, {}
    yield Dataset.from_dict({"words": tokens}), {"tokens_column": "words"}
    yield Dataset.from_dict({"text": lines}).to_iterable_dataset(), {}
    yield IterableDataset.from_generator(lambda: ({"text": line} for line in lines)), {}


def test_every_kind_of_input_gives_the_same(model, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    lines = [line for line in sentences(30) if line]
    found = {}
    for number, (source, options) in enumerate(every_source(tmp_path, lines)):
        output = tmp_path / f"out-{number}"
        elmo_hf.embed(source, output, model, whitespace=True, **SMALL, **options)
        found[number] = {name: file for name, file in contents(output).items() if name.startswith("vectors")}
    first = found[0]
    assert len(first) > 3
    for number, files in found.items():
        vectors = [sentence.vectors for sentence in read_vectors(tmp_path / f"out-{number}")]
        assert [len(array) for array in vectors] == [len(line.split()) for line in lines]
        assert list(files) == list(first)
    same = [number for number in found if found[number] == first]
    # Words and their text are cut at the same places, but are not the same input.
    assert same == [0, 1, 2, 3, 6, 7, 8, 11, 12]


def test_a_long_line_without_blanks_counts_as_more_than_a_word():
    assert [len(piece.records) for piece in Corpus(["文字。" * 160] * 4, None, None).pieces(30)] == [1] * 4


def test_half_a_letter_is_passed_over(model, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"tokens": ["a\\ud800b", "\\udfff"]}\n', encoding="utf-8")
    for format in FORMATS:
        found = elmo_hf.embed(path, tmp_path / format, model, format=format, **SMALL)
        assert found[0].words == ["ab", ""]


def test_a_sentence_of_100_000_words(tmp_path):
    """The forward half of its first words is a short sentence's, as is the backward half of its last."""
    torch.manual_seed(0)
    config = ElmoConfig(lstm_dim=8, projection_dim=4, num_hidden_layers=1, char_filters=[[1, 4]])
    model = ElmoModel(config).eval()
    words = [f"w{number % 1000}" for number in range(100_000)]
    found = elmo_hf.embed([["a"], words, ["b", "c"]], tmp_path / "out", model, progress=False)
    assert [len(sentence.words) for sentence in found] == [1, 100_000, 2]
    vectors = found[1].vectors
    assert np.isfinite(vectors).all()
    assert np.abs(vectors).min(axis=1).max() > 0
    head, tail = directly(model, words[:50])[-1], directly(model, words[-50:])[-1]
    np.testing.assert_allclose(vectors[:50, :4], head[:, :4], atol=2e-6)
    np.testing.assert_allclose(vectors[-50:, 4:], tail[:, 4:], atol=2e-6)


# ---- killed, and going on; processes; memory


@pytest.fixture(scope="module")
def server():
    """Children that have the package loaded already, so that a run takes no seconds to start."""
    old = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["elmo_hf", "torch", "h5py", "pyarrow.parquet"])
    run(context, int, ())  # starts the server, which takes the environment of now
    yield context
    if old is None:
        del os.environ["OMP_NUM_THREADS"]
    else:
        os.environ["OMP_NUM_THREADS"] = old


def run(context, function, arguments, kill_after=None, **options):
    """Seconds that a call took in a child of its own, which is killed after so many."""
    child = context.Process(target=function, args=arguments, kwargs=options)
    start = time.perf_counter()
    child.start()
    child.join(kill_after)
    if kill_after is not None:
        child.kill()  # SIGKILL: nothing can be tidied up
        child.join()
    assert child.exitcode in ((0,) if kill_after is None else (0, -9))
    return time.perf_counter() - start


def test_a_killed_job_goes_on_and_ends_in_the_same_bytes(server, folder, tmp_path):
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    draw = random.Random(seed)
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(sentences(400)), encoding="utf-8")
    options = SMALL | {"shard_words": 80, "layers": "all"}
    seconds, whole = {}, {}
    for format in FORMATS:
        output = tmp_path / format
        seconds[format] = run(server, elmo_hf.embed, (corpus, output, folder), format=format, **options)
        whole[format] = contents(output)
    landed = []
    for number in range(20):
        format = FORMATS[number % 3]
        output = tmp_path / f"killed-{number}"
        moment = seconds[format] * (number + draw.random()) / 20
        run(server, elmo_hf.embed, (corpus, output, folder), kill_after=moment, format=format, **options)
        names = [path.name for path in output.iterdir()] if output.exists() else []
        landed.append("done" if "index.json" in names else len(names))
        run(server, elmo_hf.embed, (corpus, output, folder), format=format, **options)
        assert contents(output) == whole[format], f"seed {seed}, run {number}, killed with {names}"
    print(f"files at the kill: {landed}")
    assert sum(isinstance(files, int) and files > 1 for files in landed) >= 5, landed


class Died(Exception):
    pass


def dying(real, lives):
    """A method that works so many times."""
    left = list(range(lives))

    def method(*arguments):
        if not left:
            raise Died
        left.pop()
        return real(*arguments)

    return method


@pytest.mark.parametrize("name", ["replace", "unlink"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_death_at_each_change_of_a_name(model, corpus, tmp_path, monkeypatch, format, name):
    """Files appear by `replace` and go by `unlink`; the job dies before each in turn."""
    options = SMALL | {"format": format, "shard_words": 150}
    elmo_hf.embed(corpus, tmp_path / "whole", model, **options)
    whole, deaths = contents(tmp_path / "whole"), 0
    while True:
        output = tmp_path / str(deaths)
        with monkeypatch.context() as patch:
            patch.setattr(Path, name, dying(getattr(Path, name), deaths))
            try:
                elmo_hf.embed(corpus, output, model, **options)
                break
            except Died:
                names = [path.name for path in output.iterdir()]
        if name == "replace":  # what has its name is whole, and nothing has it before
            assert sum(not found.endswith(".partial") for found in names) == deaths
        deaths += 1
        assert len(elmo_hf.embed(corpus, output, model, **options)) == 60
        assert contents(output) == whole
    shards = len(json.loads(whole["index.json"])["shards"])
    assert shards > 1
    files = shards + 2 + 2 * (format == "hdf5")
    assert deaths == (files if name == "replace" else shards * (format == "hdf5"))


def test_a_damaged_shard_is_made_again(model, corpus, tmp_path):
    elmo_hf.embed(corpus, tmp_path / "out", model, **SMALL)
    whole = contents(tmp_path / "out")
    shard = tmp_path / "out" / "vectors-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-9])
    (tmp_path / "out" / "index.json").unlink()
    elmo_hf.embed(corpus, tmp_path / "out", model, **SMALL)
    assert contents(tmp_path / "out") == whole


def test_a_finished_job_is_not_done_again(model, corpus, tmp_path, monkeypatch):
    elmo_hf.embed(corpus, tmp_path / "out", model, **SMALL)
    monkeypatch.setattr(ElmoModel, "forward", None)
    assert len(elmo_hf.embed(corpus, tmp_path / "out", model, **SMALL)) == 60


def launch(processes, *arguments):
    """`elmo-hf embed` by torchrun in so many processes; what they said."""
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        str(processes),
    ]
    return subprocess.run(
        [*torchrun, "-m", "elmo_hf.cli", "embed", *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )


def test_two_processes_write_the_bytes_of_one(server, folder, corpus, tmp_path):
    one = SMALL | {"format": "hdf5", "layers": "average"}
    run(server, elmo_hf.embed, (corpus, tmp_path / "one", folder), **one)
    options = "--format hdf5 --layers average --shard-words 40 --batch-words 24 --device cpu"
    said = launch(2, corpus, tmp_path / "two", "--model", folder, *options.split())
    assert "process 0 of 2" in said.stderr
    assert "process 1 of 2" in said.stderr
    made = [int(number) for number in re.findall(r"made (\d+) of \d+ shards", said.stderr)]
    assert len(made) == 2
    assert sum(made) == len(json.loads((tmp_path / "two" / "index.json").read_text())["shards"])
    assert max(made) - min(made) <= 1
    assert said.stdout.count("the vectors of 60 sentences") == 1
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def embed_and_report(pipe, *arguments, **options):
    torch.set_num_threads(1)
    elmo_hf.embed(*arguments, **options)
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def test_memory_does_not_grow_with_the_corpus(server, folder, tmp_path):
    """Ten times the sentences, and the peak is the same within 8 MB; their vectors are some 25 MB."""
    peaks = []
    for number in (2_000, 20_000):
        corpus = tmp_path / f"{number}.txt"
        corpus.write_text("\n".join(sentences(number)), encoding="utf-8")
        options = {"layers": "all", "shard_words": 4096, "progress": False, "device": "cpu"}
        receiver, sender = server.Pipe(duplex=False)
        run(server, embed_and_report, (sender, corpus, tmp_path / f"out-{number}", folder), **options)
        peaks.append(receiver.recv() / 1024)
    grown = sum(path.stat().st_size for path in (tmp_path / "out-20000").iterdir()) / 2**20
    print(f"peaks in MB: {peaks}; the vectors: {grown:.0f} MB")
    assert grown > 20
    assert peaks[1] - peaks[0] < 8


def test_the_bar_shows_speed_and_time_left(folder, corpus, tmp_path, capsys):
    elmo_hf.embed(corpus, tmp_path / "out", folder, **(SMALL | {"progress": True}))
    last = capsys.readouterr().err.split("\r")[-1]
    assert "100%" in last
    assert re.search(r"\[\d\d:\d\d<\d\d:\d\d, .*k words/s\]", last)
    # What was made before is not counted as this run's speed.
    (tmp_path / "out" / "index.json").unlink()
    elmo_hf.embed(corpus, tmp_path / "out", folder, **(SMALL | {"progress": True}))
    last = capsys.readouterr().err.split("\r")[-1]
    assert "100%" in last
    assert "k words/s" not in last


# ---- what comes out


@pytest.mark.parametrize(("layers", "shape"), [("all", (3, 4, 16)), ("average", (4, 16))])
def test_readers_of_allennlp_files_read_ours(model, tmp_path, layers, shape):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("Ice is cold .\nWhy ?\nIce is cold .\n", encoding="utf-8")
    elmo_hf.embed(corpus, tmp_path / "out", model, layers=layers, format="hdf5", whitespace=True, **SMALL)
    with h5py.File(tmp_path / "out" / "vectors.hdf5") as file:
        assert sorted(file) == ["0", "1", "2", "sentence_to_index"]
        assert file["sentence_to_index"].shape == (1,)
        assert json.loads(file["sentence_to_index"][0]) == {"Ice is cold .": "2", "Why ?": "1"}
        assert file["0"].shape == shape
        assert file["0"].dtype == np.float32
        assert file["1"].shape == (*shape[:-2], 2, 16)
        wanted = expected(model, ["Ice", "is", "cold", "."], layers, None)
        np.testing.assert_allclose(file["0"][()], wanted, atol=2e-6)
        first = file["0"][()]
    # The file by itself is read as AllenNLP's own; of equal sentences it knows the last one's words.
    alone = read_vectors(tmp_path / "out" / "vectors.hdf5")
    assert [sentence.words for sentence in alone] == [None, ["Why", "?"], ["Ice", "is", "cold", "."]]
    assert np.array_equal(alone[0].vectors, first)


def test_tables_for_other_programs(model, tmp_path):
    lines = [["Ice", "is"], [], ["cold"]]
    elmo_hf.embed(lines, tmp_path / "rows", model, layers="0,2", format="parquet", **SMALL)
    table = pyarrow.parquet.read_table(tmp_path / "rows" / "vectors-00000.parquet")
    assert table.column_names == ["sentence", "word", "layer_0", "layer_2"]
    assert table["sentence"].to_pylist() == [0, 0, 2]
    assert table["word"].to_pylist() == ["Ice", "is", "cold"]
    wanted = directly(model, ["Ice", "is"])
    np.testing.assert_allclose(table["layer_2"].to_pylist()[1], wanted[2, 1], atol=2e-6)
    loaded = Dataset.from_parquet(str(tmp_path / "rows" / "*.parquet"), cache_dir=str(tmp_path / "cache"))
    np.testing.assert_allclose(loaded[0]["layer_0"], wanted[0, 0], atol=2e-6)
    elmo_hf.embed(lines, tmp_path / "pooled", model, pool="max", format="parquet", **SMALL)
    table = pyarrow.parquet.read_table(tmp_path / "pooled" / "vectors-00000.parquet")
    assert table["words"].to_pylist() == lines
    assert table["vector"].to_pylist()[1] == [0.0] * 16


@pytest.mark.parametrize("format", FORMATS)
def test_vectors_are_a_sequence(model, corpus, tmp_path, format):
    found = elmo_hf.embed(corpus, tmp_path / "out", model, format=format, **SMALL)
    every = list(found)
    assert len(every) == len(found) == 60
    for place in (0, 59, -1, -60, 31):
        assert found[place].words == every[place].words
        assert np.array_equal(found[place].vectors, every[place].vectors)
    assert [sentence.words for sentence in found[50:4:-9]] == [every[n].words for n in range(50, 4, -9)]
    assert found[3].vectors.flags.writeable
    with pytest.raises(IndexError, match="60 sentences"):
        found[60]


def test_all_files_are_readable_by_whom_the_folder_is(model, corpus, tmp_path):
    elmo_hf.embed(corpus, tmp_path / "out", model, **SMALL)
    assert len({path.stat().st_mode for path in (tmp_path / "out").iterdir()}) == 1


# ---- mistakes


def write_corpora(path):
    (path / "empty.txt").write_text("")
    (path / "blank.txt").write_text("\n \n")
    (path / "bad.txt").write_bytes(b"fine\n\xff\xfe\n")
    (path / "bad.jsonl").write_text('{"text": "a"}\n{"text": \n')
    (path / "gap.jsonl").write_text('{"text": "a"}\n{"txt": "b"}\n')
    (path / "number.jsonl").write_text('{"text": 5}\n')
    (path / "both.jsonl").write_text('{"text": "a", "tokens": ["a"]}\n')
    (path / "none.jsonl").write_text('{"body": "a"}\n')
    (path / "bad.parquet").write_text("no parquet")
    (path / "bad.txt.gz").write_bytes(gzip.compress(b"hello\n" * 1000)[:-20])
    (path / "used").mkdir()
    (path / "used" / "thesis.tex").write_text("years of work")


MISTAKES = [
    ("nowhere.txt", {}, "there is no input file"),
    ("empty.txt", {}, "empty.txt is empty"),
    ("blank.txt", {}, "there is no word in it"),
    ("bad.txt", {}, "bad.txt is not UTF-8"),
    ("bad.jsonl", {}, "bad.jsonl, line 2 is no JSON"),
    ("gap.jsonl", {}, "gap.jsonl, record 2: 'text' should be text, but is None"),
    ("number.jsonl", {}, "record 1: 'text' should be text, but is 5"),
    ("both.jsonl", {}, "say by text_column or tokens_column"),
    ("none.jsonl", {}, "say by text_column or tokens_column .* body"),
    ("none.jsonl", {"text_column": "title"}, "has no column 'title'; it has body"),
    ("none.jsonl", {"tokens_column": "body"}, "'body' should be a list of words, but is 'a'"),
    ("none.jsonl", {"tokens_column": "body", "text_column": "body"}, "cannot both be given"),
    ("bad.parquet", {}, "cannot be read as Parquet"),
    ("bad.txt.gz", {}, "ends in the middle"),
    ("corpus.txt", {"text_column": "text"}, "has no columns"),
    ("corpus.txt", {"layers": "3"}, "numbers from 0 to 2 of this model's 3 layers, such as 0,2, but is '3'"),
    ("corpus.txt", {"layers": "0,0"}, "different numbers"),
    ("corpus.txt", {"layers": "first"}, "layers must be top, average, all"),
    ("corpus.txt", {"layers": [0, -1]}, "but is '0,-1'"),
    ("corpus.txt", {"format": "csv"}, "format must be one of safetensors, hdf5, parquet, but is 'csv'"),
    ("corpus.txt", {"pool": "sum"}, "pool must be one of None, mean, max, but is 'sum'"),
    ("corpus.txt", {"dtype": "int8"}, "dtype must be one of"),
    ("corpus.txt", {"batch_words": 0}, "batch_words must be a whole number of at least 1, but is 0"),
    ("corpus.txt", {"cache_words": -1}, "cache_words must be a whole number of at least 0"),
    ("corpus.txt", {"device": "teapot"}, "there is no device 'teapot'"),
    ("corpus.txt", {"output": "used"}, r"holds something else \(thesis.tex\)"),
    ("corpus.txt", {"output": "corpus.txt"}, "is a file; name a folder"),
    ("corpus.txt", {"model": "no/such/folder"}, "no ELMo can be loaded from no/such/folder"),
]


@pytest.mark.parametrize(("name", "options", "message"), MISTAKES)
def test_mistakes_before_anything_is_written(model, corpus, tmp_path, monkeypatch, name, options, message):
    monkeypatch.chdir(tmp_path)
    write_corpora(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    arguments = {"output": "out", "model": model, "progress": False} | options
    with pytest.raises(ValueError, match=message) as caught:
        elmo_hf.embed(name, arguments.pop("output"), arguments.pop("model"), **arguments)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "options",
    [{"layers": "all"}, {"batch_words": 25}, {"pool": "max"}, {"format": "hdf5"}, {"whitespace": True}],
)
def test_another_plan_is_refused(model, corpus, tmp_path, options):
    elmo_hf.embed(corpus, tmp_path / "out", model, **SMALL)
    before = contents(tmp_path / "out")
    with pytest.raises(ValueError, match=f"was begun with another {next(iter(options))}"):
        elmo_hf.embed(corpus, tmp_path / "out", model, **(SMALL | options))
    assert contents(tmp_path / "out") == before


def test_another_model_or_input_is_refused(model, corpus, tmp_path):
    elmo_hf.embed(corpus, tmp_path / "out", model, **SMALL)
    other = ElmoModel(model.config)
    with pytest.raises(ValueError, match="was begun with another model"):
        elmo_hf.embed(corpus, tmp_path / "out", other, **SMALL)
    with corpus.open("a", encoding="utf-8") as file:
        file.write("One more .\n")
    with pytest.raises(ValueError, match="was begun with another input"):
        elmo_hf.embed(corpus, tmp_path / "out", model, **SMALL)


def test_a_stream_that_changed_is_refused(model, tmp_path):
    lines = [line for line in sentences(40) if line]
    elmo_hf.embed(iter(lines), tmp_path / "out", model, **SMALL)
    (tmp_path / "out" / "index.json").unlink()
    with pytest.raises(ValueError, match="made from other sentences"):
        elmo_hf.embed(iter(lines[::-1]), tmp_path / "out", model, **SMALL)
    first = next(Corpus(lines, None, None).pieces(SMALL["shard_words"])).records
    with pytest.raises(ValueError, match="longer before"):
        elmo_hf.embed(iter(first), tmp_path / "out", model, **SMALL)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "a corpus is a file or an iterable, but got NoneType"),
        ({"train": ["a"]}, "is a dictionary; pass one of its parts: train"),
        ([], "is empty"),
        ([["a", 5]], "record 1: the record should be a list of words, but is .'a', 5."),
        (["a", ["b"]], "record 2: the record should be text"),
    ],
)
def test_mistakes_in_what_is_passed(model, tmp_path, source, message):
    with pytest.raises(ValueError, match=message):
        elmo_hf.embed(source, tmp_path / "out", model, **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_layers_of_different_sizes_cannot_be_together(corpus, tmp_path):
    model = ElmoModel(ElmoConfig(lstm_dim=8, projection_dim=12, char_filters=[[1, 4]], vocab_size=5))
    with pytest.raises(ValueError, match="layer 0 of this model has 24 numbers and the others have 16"):
        elmo_hf.embed(corpus, tmp_path / "out", model, layers="average", **SMALL)
    assert elmo_hf.embed(corpus, tmp_path / "out", model, layers=0, **SMALL)[0].vectors.shape[1] == 24


def test_what_cannot_be_read_back(tmp_path, corpus):
    with pytest.raises(ValueError, match="it has none"):
        read_vectors(tmp_path)
    with pytest.raises(ValueError, match="is no HDF5 file"):
        read_vectors(corpus)
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(ValueError, match="not finished; run the same command again"):
        read_vectors(tmp_path)


def test_the_command_says_one_sentence(folder, corpus, tmp_path):
    arguments = ["embed", str(corpus), str(tmp_path / "out"), "--model", str(folder)]
    result = CliRunner().invoke(app, [*arguments, "--layers", "9"])
    assert result.exit_code == 1
    assert result.stderr.startswith("elmo-hf: layers must be")
    assert result.stderr.count("\n") == 1
    result = CliRunner().invoke(app, [*arguments, "--layers", "0,1", "--pool", "mean", "--no-progress"])
    assert result.exit_code == 0, result.stderr
    assert read_vectors(tmp_path / "out")[0].vectors.shape == (2, 16)


def test_what_is_not_always_installed_or_slow_is_imported_when_it_is_needed():
    for name in ("corpus", "embed", "embedder", "vectors_io"):
        tree = ast.parse((SOURCE / f"{name}.py").read_text(encoding="utf-8"))
        top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        text = " ".join(map(ast.unparse, top))
        assert "import" in text
        assert not re.search("h5py|pyarrow |pyarrow[.]|datasets|accelerate", text)
