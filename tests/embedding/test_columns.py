"""What `embed` reads: other columns, which Parquet keeps, data sets by name, and standard input."""

import datetime
import json

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

import elmo_hf
from elmo_hf import ElmoError, read_vectors
from elmo_hf.cli import app
from tests.helpers.embed_corpora import SMALL, contents, save_model

TEXTS = ["Ice is cold .", "", "Why ?", "He sat ."]
IDS, LABELS = [7, None, 9, 10], ["a", "b", "a", "c"]
PARQUET = SMALL | {"format": "parquet", "whitespace": True}


def rows(**others):
    columns = {"text": TEXTS, "id": IDS, "label": LABELS} | others
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def table_of(folder):
    shards = sorted(folder.glob("*.parquet"))
    return pa.concat_tables([pyarrow.parquet.read_table(shard) for shard in shards])


def test_other_columns_are_kept_for_sentences(model, tmp_path):
    nested = [{"x": [number]} for number in range(4)]
    source = write_lines(tmp_path / "a.jsonl", rows(score=[1, 2.5, 3, None], meta=nested))
    vectors = elmo_hf.embed(source, tmp_path / "out", model, pool="mean", **(PARQUET | {"shard_words": 3}))
    table = table_of(tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.parquet"))) > 1
    assert table.column_names == ["sentence", "words", "vector", "id", "label", "score", "meta"]
    assert table["id"].to_pylist() == IDS
    assert table["label"].to_pylist() == LABELS
    assert table["score"].to_pylist() == [1.0, 2.5, 3.0, None]
    assert table["meta"].to_pylist() == nested
    assert [" ".join(words) for words, _ in vectors] == TEXTS


def test_other_columns_are_kept_at_each_word(model, tmp_path):
    elmo_hf.embed(rows(), tmp_path / "out", model, layers="0,2", **PARQUET)
    table = table_of(tmp_path / "out")
    assert table.column_names == ["sentence", "word", "layer_0", "layer_2", "id", "label"]
    assert table["word"].to_pylist() == " ".join(TEXTS).split()
    assert table["id"].to_pylist() == [7] * 4 + [9] * 2 + [10] * 3
    assert table["label"].to_pylist() == ["a"] * 6 + ["c"] * 3


def test_types_are_those_of_the_file(model, tmp_path):
    days = [datetime.date(2020, 1, day) for day in range(1, 5)]
    types = {
        "text": pa.string(),
        "id": pa.int32(),
        "day": pa.date32(),
        "label": pa.dictionary(pa.int8(), pa.string()),
    }
    columns = {"text": TEXTS, "id": IDS, "day": days, "label": LABELS}
    table = pa.table({name: pa.array(columns[name], type) for name, type in types.items()})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    data_set = datasets.Dataset(table)
    for name, source in (("file", tmp_path / "a.parquet"), ("data set", data_set)):
        elmo_hf.embed(source, tmp_path / name, model, pool="max", **PARQUET)
        written = table_of(tmp_path / name)
        assert written["id"].type == pa.int32()
        assert written["day"].type == pa.date32()
        assert [written[column].to_pylist() for column in ("id", "day", "label")] == [IDS, days, LABELS]


def test_columns_with_names_of_ours_get_others(model, tmp_path):
    source = rows(sentence=[5, 6, 7, 8], vector=["v"] * 4, input_vector=["w"] * 4)
    elmo_hf.embed(source, tmp_path / "out", model, pool="mean", **PARQUET)
    table = table_of(tmp_path / "out")
    assert table["sentence"].to_pylist() == [0, 1, 2, 3]
    assert table["input_sentence"].to_pylist() == [5, 6, 7, 8]
    assert table["input_vector"].to_pylist() == ["v"] * 4
    assert table["input_input_vector"].to_pylist() == ["w"] * 4
    assert len(read_vectors(tmp_path / "out")[0].vectors) == 16


def test_a_column_of_several_types_is_refused_or_left_out(model, tmp_path):
    source = write_lines(tmp_path / "a.jsonl", rows(mixed=[1, "a", 2, "b"]))
    with pytest.raises(
        ElmoError, match=r"column 'mixed' of .* cannot be kept in Parquet .*--no-keep-columns"
    ):
        elmo_hf.embed(source, tmp_path / "out", model, **PARQUET)
    assert not (tmp_path / "out").exists()
    elmo_hf.embed(source, tmp_path / "out", model, keep_columns=False, **PARQUET)
    assert table_of(tmp_path / "out").column_names == ["sentence", "word", "vector"]


def test_a_job_with_columns_goes_on_and_knows_them(model, tmp_path):
    options = PARQUET | {"shard_words": 3}
    source = write_lines(tmp_path / "a.jsonl", rows())
    elmo_hf.embed(source, tmp_path / "out", model, **options)
    whole = contents(tmp_path / "out")
    (tmp_path / "out" / "index.json").unlink()
    (tmp_path / "out" / "vectors-00001.parquet").unlink()
    elmo_hf.embed(source, tmp_path / "out", model, **options)
    assert contents(tmp_path / "out") == whole
    write_lines(tmp_path / "a.jsonl", rows(label=["a", "b", "a", "changed"]))
    with pytest.raises(ElmoError, match="was begun with another input"):
        elmo_hf.embed(source, tmp_path / "out", model, **options)
    with pytest.raises(ElmoError, match="was begun with another columns"):
        elmo_hf.embed(source, tmp_path / "out", model, keep_columns=False, **options)


def test_a_job_of_0_1_0_goes_on_without_columns(model, tmp_path):
    """It wrote no `columns` into its plan."""
    options = PARQUET | {"shard_words": 3}
    source = write_lines(tmp_path / "a.jsonl", rows())
    elmo_hf.embed(source, tmp_path / "out", model, keep_columns=False, **options)
    whole = contents(tmp_path / "out")
    plan = json.loads(whole["plan.json"])
    assert plan.pop("columns") == {}
    (tmp_path / "out" / "plan.json").write_text(json.dumps(plan))
    for name in ("index.json", "vectors-00001.parquet"):
        (tmp_path / "out" / name).unlink()
    elmo_hf.embed(source, tmp_path / "out", model, **options)
    del whole["plan.json"]
    assert whole.items() <= contents(tmp_path / "out").items()


def test_a_stream_has_the_types_of_its_first_shard(model, tmp_path):
    options = PARQUET | {"shard_words": 3}
    elmo_hf.embed(iter(rows()), tmp_path / "out", model, **options)
    assert set(table_of(tmp_path / "out")["id"].to_pylist()) == {7, 9, 10}
    with pytest.raises(ElmoError, match="column 'label' of the list_iterator cannot be kept"):
        elmo_hf.embed(iter(rows(label=["a", "b", "c", 5])), tmp_path / "other", model, **options)


# ---- data sets


def test_a_folder_with_splits(model, tmp_path):
    (tmp_path / "data").mkdir()
    write_lines(tmp_path / "data" / "train.jsonl", rows())
    write_lines(tmp_path / "data" / "test.jsonl", rows()[2:])
    vectors = elmo_hf.embed(tmp_path / "data", tmp_path / "out", model, split="test", **PARQUET)
    assert [words for words, _ in vectors] == [["Why", "?"], ["He", "sat", "."]]
    assert set(table_of(tmp_path / "out")["id"].to_pylist()) == {9, 10}


def test_a_data_set_by_its_name(model, tmp_path, monkeypatch):
    """The name, the subset and the split are those that `datasets` gets."""
    (tmp_path / "data").mkdir()
    write_lines(tmp_path / "data" / "dev.jsonl", rows())
    real, asked = datasets.load_dataset_builder, []

    def load_dataset_builder(name, config):
        asked.append((name, config))
        return real("json", data_files={"dev": str(tmp_path / "data" / "dev.jsonl")})

    monkeypatch.setattr(datasets, "load_dataset_builder", load_dataset_builder)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    save_model(model, tmp_path / "model")
    arguments = ["embed", "someone/texts", str(tmp_path / "out"), "--model", str(tmp_path / "model")]
    for number, subset in enumerate(("--subset", "--config")):
        arguments[2] = str(tmp_path / f"out-{number}")
        options = [subset, "big", "--split", "dev", "--column", "label", "--no-progress"]
        result = CliRunner().invoke(app, [*arguments, *options])
        assert result.exit_code == 0, result.stderr
        assert [words for words, _ in read_vectors(arguments[2])] == [["a"], ["b"], ["a"], ["c"]]
    assert asked == [("someone/texts", "big")] * 2


def test_a_name_that_is_no_file_and_no_data_set(model, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(ElmoError, match=r"no file someone/texts, and as a data set of the Hub, .* cannot be"):
        elmo_hf.embed("someone/texts", tmp_path / "out", model, **SMALL)
    (tmp_path / "a.txt").write_text("Why ?\n")
    with pytest.raises(ElmoError, match=r"a\.txt is no data set, so there is no configuration 'big' of it"):
        elmo_hf.embed(tmp_path / "a.txt", tmp_path / "out", model, subset="big", **SMALL)


def test_a_hub_that_does_not_answer_is_not_asked_again(monkeypatch):
    from elmo_hf.corpus.names import offline_without_hub

    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("datasets.config.HF_ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    with offline_without_hub():
        assert datasets.config.HF_HUB_OFFLINE
    assert not datasets.config.HF_HUB_OFFLINE


# ---- names of columns


@pytest.mark.parametrize("option", ["column", "text_column"])
def test_names_of_the_column(model, tmp_path, option):
    source = rows(body=["one", "two three", "", "four"])
    vectors = elmo_hf.embed(source, tmp_path / "out", model, **{option: "body"}, **SMALL)
    assert [len(words) for words, _ in vectors] == [1, 2, 0, 1]


def test_a_column_may_hold_words_and_two_columns_are_refused(model, tmp_path):
    source = [{"w": ["New York"], "text": "x"}]
    assert elmo_hf.embed(source, tmp_path / "out", model, column="w", **SMALL)[0].words == ["New York"]
    with pytest.raises(ElmoError, match="cannot both be given"):
        elmo_hf.embed(source, tmp_path / "other", model, column="w", text_column="text", **SMALL)


# ---- standard input


def embed_input(folder, output, content, *options):
    arguments = ["embed", "-", str(output), "--model", str(folder), "--no-progress", *options]
    return CliRunner().invoke(app, arguments, input=content)


def test_standard_input(model, tmp_path):
    folder = save_model(model, tmp_path / "model")
    (tmp_path / "a.txt").write_text("Why ?\n\nHe sat .\n")
    elmo_hf.embed(tmp_path / "a.txt", tmp_path / "file", folder, progress=False)
    result = embed_input(folder, tmp_path / "piped", "Why ?\n\nHe sat .\n")
    assert result.exit_code == 0, result.stderr
    assert contents(tmp_path / "piped") == contents(tmp_path / "file")
    # The same text goes on, another does not.
    (tmp_path / "piped" / "index.json").unlink()
    assert embed_input(folder, tmp_path / "piped", "Why ?\n\nHe sat .\n").exit_code == 0
    result = embed_input(folder, tmp_path / "piped", "Why ?\n")
    assert result.exit_code == 1
    assert "was begun with another input" in result.stderr


def test_json_lines_on_standard_input(model, tmp_path):
    folder = save_model(model, tmp_path / "model")
    content = "".join(json.dumps(row) + "\n" for row in rows())
    assert embed_input(folder, tmp_path / "out", content, "--format", "parquet").exit_code == 0
    assert set(table_of(tmp_path / "out")["id"].to_pylist()) == {7, 9, 10}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "standard input is empty"),
        (b"\n\n", "standard input is empty; there is no word in it"),
        (b"fine\n\xff\n", "standard input, line 2 is not UTF-8 text"),
        (b'{"text": "a"}\n{"text": 5}\n', "standard input, record 2: column 'text' should be text, but is 5"),
    ],
)
def test_bad_standard_input_is_one_sentence(tmp_path, content, message):
    result = embed_input(elmo_hf.TINY, tmp_path / "out", content)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_several_processes_cannot_share_standard_input(model, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ElmoError, match="several processes cannot share standard input"):
        elmo_hf.embed("-", tmp_path / "out", model, **SMALL)
