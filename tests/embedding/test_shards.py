"""`embed` by shards of a corpus, which are together the corpus, and `read_vectors` of all of them."""

import json
import shutil

import datasets
import numpy as np
import pytest
from typer.testing import CliRunner

import elmo_hf
from elmo_hf import ElmoError, ElmoModel, read_vectors
from elmo_hf.cli import app
from tests.helpers.embed_corpora import (
    FORMATS,
    SMALL,
    contents,
    save_model,
    sentences,
    write_corpus,
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.txt")


def embed_shards(source, folder, model, count, **options):
    for number in range(count, 0, -1):  # in any order
        elmo_hf.embed(source, folder / str(number), model, shard=f"{number}/{count}", **SMALL | options)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("pool", [None, "mean"])
def test_all_shards_are_the_corpus(model, corpus, tmp_path, format, pool):
    options = {"format": format, "pool": pool, "layers": "all"}
    whole = elmo_hf.embed(corpus, tmp_path / "whole", model, **SMALL | options)
    embed_shards(corpus, tmp_path / "shards", model, 3, **options)
    joined = read_vectors(tmp_path / "shards")
    listed = read_vectors([tmp_path / "shards" / str(number) for number in (2, 1, 3)])
    assert len(joined) == len(listed) == 60
    for sentence, same, expected in zip(joined, listed, whole, strict=True):
        assert sentence.words == same.words == expected.words
        assert np.array_equal(sentence.vectors, same.vectors)
        np.testing.assert_allclose(sentence.vectors, expected.vectors, atol=2e-6)
    assert joined[-1].words == whole[-1].words
    assert [sentence.words for sentence in joined[50:4:-9]] == [whole[n].words for n in range(50, 4, -9)]
    firsts = [entry["first"] for entry in joined.about["shards"]]
    assert firsts == sorted(firsts)
    assert joined.about["sentences"] == 60


def test_a_shard_has_the_same_sentences_whatever_the_options(model, corpus, tmp_path):
    words = []
    for number, options in enumerate([{}, {"batch_words": 7, "shard_words": 300}, {"pool": "max"}]):
        output = tmp_path / str(number)
        vectors = elmo_hf.embed(corpus, output, model, shard="2/3", **SMALL | options)
        words.append([sentence.words for sentence in vectors])
    assert words[0] == words[1] == words[2]
    assert 10 < len(words[0]) < 30


def test_more_shards_than_sentences(model, tmp_path):
    (tmp_path / "a.txt").write_text("Ice is cold .\n\nWhy ?\n")
    for format in FORMATS:
        embed_shards(tmp_path / "a.txt", tmp_path / format, model, 7, format=format, whitespace=True)
        joined = read_vectors(tmp_path / format)
        assert [words for words, _ in joined] == [["Ice", "is", "cold", "."], [], ["Why", "?"]]
        assert sum(len(read_vectors(tmp_path / format / str(number))) == 0 for number in range(1, 8)) >= 4


def test_tables_of_shards_are_read_together(model, tmp_path):
    """The number of the shard and that of the sentence in it name a sentence."""
    rows = [
        {"text": text, "id": number, "shard": "x", "input_shard": number % 7}
        for number, text in enumerate(sentences(60))
    ]
    embed_shards(rows, tmp_path, model, 3, format="parquet", whitespace=True)
    files = str(tmp_path / "*" / "*.parquet")
    table = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=tmp_path / "cache")
    assert table.column_names == [
        "sentence",
        "word",
        "vector",
        "shard",
        "id",
        "input_shard",
        "input_input_shard",
    ]
    assert {*table["input_shard"]} == {"x"}
    assert {*table["input_input_shard"]} == {*range(7)}
    names = {(row["shard"], row["sentence"], row["id"]) for row in table.remove_columns("vector")}
    assert len(names) == len({name[:2] for name in names}) == len({name[2] for name in names})
    assert {name[0] for name in names} == {1, 2, 3}
    assert {name[2] for name in names} == {row["id"] for row in rows if row["text"]}
    elmo_hf.embed(rows, tmp_path / "bare", model, shard="1/2", format="parquet", keep_columns=False, **SMALL)
    assert (
        "shard"
        in datasets.Dataset.from_parquet(
            str(tmp_path / "bare" / "*.parquet"), cache_dir=tmp_path / "cache"
        ).features
    )


def test_a_shard_goes_on_where_it_stopped(model, corpus, tmp_path, monkeypatch):
    options = SMALL | {"shard": "2/3"}
    elmo_hf.embed(corpus, tmp_path / "out", model, **options)
    whole = contents(tmp_path / "out")
    for name in ("index.json", "vectors-00001.safetensors"):
        (tmp_path / "out" / name).unlink()
    elmo_hf.embed(corpus, tmp_path / "out", model, **options)
    assert contents(tmp_path / "out") == whole
    monkeypatch.setattr(ElmoModel, "forward", None)
    assert len(elmo_hf.embed(corpus, tmp_path / "out", model, **options)) > 10
    for other in ("1/3", "2/4", None):
        with pytest.raises(ElmoError, match=r"out was begun with another (shard \('?2/3|corpus_size|input)"):
            elmo_hf.embed(corpus, tmp_path / "out", model, **SMALL, shard=other)
    assert contents(tmp_path / "out") == whole


def test_what_cannot_be_joined(model, corpus, tmp_path):
    embed_shards(corpus, tmp_path / "a", model, 3)
    shutil.copytree(tmp_path / "a", tmp_path / "lacking")
    shutil.rmtree(tmp_path / "lacking" / "2")
    with pytest.raises(ElmoError, match=r"lacking lacks shard 2/3; make what is missing\.$"):
        read_vectors(tmp_path / "lacking")
    with pytest.raises(ElmoError, match=r"the list lacks shard 2/3 and 1 more"):
        read_vectors([tmp_path / "a" / "1"])
    shutil.copytree(tmp_path / "a" / "1", tmp_path / "a" / "again")
    with pytest.raises(ElmoError, match=r"1 and .*again are the same shard"):
        read_vectors(tmp_path / "a")
    elmo_hf.embed(corpus, tmp_path / "lacking" / "2", model, shard="2/3", **SMALL | {"layers": "average"})
    with pytest.raises(ElmoError, match="2 is a shard of another corpus, or was made with other arguments"):
        read_vectors(tmp_path / "lacking")
    elmo_hf.embed(corpus, tmp_path / "whole", model, **SMALL)
    with pytest.raises(ElmoError, match="whole holds a whole corpus and no shard of one"):
        read_vectors([tmp_path / "a" / "1", tmp_path / "whole"])
    (tmp_path / "a" / "3" / "index.json").unlink()
    with pytest.raises(ElmoError, match=r"from .*3: it was not finished; run the same command again"):
        read_vectors(tmp_path / "a")
    with pytest.raises(ElmoError, match="from an empty list"):
        read_vectors([])


@pytest.mark.parametrize("change", [{"number": 4}, {"count": True}, {"job": 5}, {"size": -1}, "1/3", []])
def test_an_index_with_a_wrong_shard_is_damaged(model, corpus, tmp_path, change):
    elmo_hf.embed(corpus, tmp_path / "1", model, shard="1/3", **SMALL)
    index = json.loads((tmp_path / "1" / "index.json").read_text())
    index["shard"] = index["shard"] | change if isinstance(change, dict) else change
    (tmp_path / "1" / "index.json").write_text(json.dumps(index))
    with pytest.raises(ElmoError, match=r"index\.json is damaged"):
        read_vectors(tmp_path)


def test_the_command(model, corpus, tmp_path):
    folder = save_model(model, tmp_path / "model")
    command = ["embed", str(corpus), "OUT", "--model", str(folder), "--no-progress", "--shard"]
    for number in (1, 2):
        result = CliRunner().invoke(
            app, [word.replace("OUT", f"{tmp_path}/out/{number}") for word in command] + [f"{number}/2"]
        )
        assert result.exit_code == 0, result.stderr
    assert len(read_vectors(tmp_path / "out")) == 60
    for shard in ("0/16", "17/16"):
        result = CliRunner().invoke(app, [*command, shard])
        assert result.exit_code == 1
        assert result.stderr == (
            "elmo-hf: shard must be a number and how many there are, such as 1/16 for the first and 16/16 "
            f"for the last, but is '{shard}'.\n"
        )
