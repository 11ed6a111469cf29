"""The speed benchmark runs for somebody who has nothing but this repository, and its tables fit its JSON."""

import ast
import contextlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
TINY = ["--sizes", "tiny", "--rounds", "2", "--warmup", "0", "--corpus-sentences", "40"]


@pytest.fixture(scope="module")
def modules():
    """`workloads` and `table`; the scripts are no package, and import each other from their own folder."""
    sys.path.insert(0, str(BENCHMARKS))
    import table
    import workloads

    yield workloads, table
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    output = tmp_path_factory.mktemp("speed") / "speed.json"
    contestants = ["ours-readable", "ours-nothing", "torch-lstm"]
    command = [sys.executable, BENCHMARKS / "speed.py", *TINY, "--settings", "batch"]
    command += ["--contestants", *contestants, "--baseline", "ours-readable", "--output", output]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ours-nothing is left out" in done.stdout
    return json.loads(output.read_text())


def test_the_json_has_its_numbers(results):
    assert [result["setting"] for result in results] == ["batch"]
    for result in results:
        assert list(result["contestants"]) == ["ours-readable", "torch-lstm"]
        assert list(result["skipped"]) == ["ours-nothing"]
        assert result["text"]["source"] == "made-up words"
        for found in result["contestants"].values():
            assert found["ratio"]["min"] <= found["ratio"]["median"] <= found["ratio"]["max"]
            assert found["words_per_second"]["median"] > 0
            assert found["peak_memory_mb"] > 50
            assert 0 < found["share_of_peak"] < 1.5
            assert len(found["rounds"]) == 2
        ours = result["contestants"]["ours-readable"]
        assert ours["ratio"] == {"median": 1, "min": 1, "max": 1}


@pytest.fixture(scope="module")
def weights(modules, tmp_path_factory):
    import weights

    folder = tmp_path_factory.mktemp("weights")
    weights.write_weights("tiny", folder)
    return folder


@pytest.fixture
def kernels_as_before():
    """A contestant chooses its kernel for its whole process, which here is the tests'."""
    yield
    with contextlib.suppress(ImportError):
        from elmo_hf import kernels

        kernels.use("auto")


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("setting", ["batch", "single", "corpus", "train"])
@pytest.mark.parametrize("name", ["ours-readable", "torch-lstm"])
def test_contestants_in_each_setting(name, setting, modules, weights, kernels_as_before):
    import contestants
    import worker

    workloads, _ = modules
    sentences = workloads.made_up_sentences(40)
    job = {"contestant": name, "size": "tiny", "setting": setting, "threads": 1, "weights": weights}
    contestant = contestants.class_of(name)(SimpleNamespace(**job))
    answer = worker.timed(contestant, setting, workloads.calls_of_round(setting, sentences, 0))
    assert answer["words"] > 0
    assert answer["flops"] > 0
    if setting == "corpus":
        vectors = contestant.corpus(sentences)
        assert [len(vector) for vector in vectors] == [len(sentence) for sentence in sentences]


def test_a_corpus_by_length_gives_the_vectors_of_its_sentences(modules, weights, kernels_as_before):
    import contestants
    import numpy as np

    workloads, _ = modules
    sentences = workloads.made_up_sentences(40)
    job = {"contestant": "ours-readable", "size": "tiny", "setting": "corpus", "threads": 1}
    ours = contestants.Ours(SimpleNamespace(**job, weights=weights))
    vectors = ours.corpus(sentences)
    for place in (0, 17, 39):
        alone = ours.embed([sentences[place]])[0]
        assert np.abs(vectors[place] - alone).max() < 1e-5


def test_an_unknown_name_is_a_clear_error():
    command = [sys.executable, BENCHMARKS / "speed.py", "--sizes", "huge"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "huge" in done.stderr


def test_tables_between_markers(results, modules):
    _, table = modules
    end = "<!-- /speed -->\n"
    text = f"before\n<!-- speed: summary -->\nold\n{end}<!-- speed: details -->\n{end}after\n"
    filled = table.fill(text, results)
    assert "old" not in filled
    assert filled.startswith("before\n")
    assert filled.endswith("after\n")
    assert "| words/s (ratio) | tiny, batch of 32 |" in filled
    assert "| ours-readable |" in filled
    assert "Left out: ours-nothing" in filled
    assert table.fill(filled, results) == filled
    assert table.fill(text, []) == text


def test_the_readmes_show_what_the_json_says(modules):
    _, table = modules
    results = table.read_results()
    if not results:
        pytest.skip("no results are stored")
    for path in table.TARGETS:
        text = path.read_text(encoding="utf-8")
        assert table.fill(text, results) == text, f"{path} is out of date; run python benchmarks/table.py"


def test_made_up_sentences_look_like_text(modules):
    workloads, _ = modules
    sentences = workloads.made_up_sentences(500)
    assert sentences == workloads.made_up_sentences(500)
    assert sentences[:10] != workloads.made_up_sentences(10, seed=1)
    words = [word for sentence in sentences for word in sentence]
    assert 18 < len(words) / len(sentences) < 27
    assert 4 < sum(map(len, words)) / len(words) < 6
    assert 0.2 < len(set(words)) / len(words) < 0.6


def test_sentences_of_a_file(modules, tmp_path):
    workloads, _ = modules
    path = tmp_path / "text.txt"
    path.write_text(" = Heading = \n\n One two . Three four . \n" + "long " * 200 + "\nlast one\n")
    sentences = workloads.read_sentences(path, 10)
    assert sentences == [["One", "two", "."], ["Three", "four", "."], ["last", "one"]]
    assert workloads.read_sentences(path, 2) == sentences[:2]


def test_rounds_differ_except_for_the_corpus(modules):
    workloads, _ = modules
    sentences = workloads.made_up_sentences(400)
    for setting in workloads.SETTINGS:
        first, second = (workloads.calls_of_round(setting, sentences, number) for number in (0, 1))
        assert (first == second) == (setting == "corpus")
        assert first == workloads.calls_of_round(setting, sentences, 0)
    [batch] = workloads.calls_of_round("batch", sentences, 3)
    assert len(batch) == 32
    assert max(map(len, batch)) - min(map(len, batch)) <= 3
    [rows] = workloads.calls_of_round("train", sentences, 0)
    assert [len(row) for row in rows] == [20] * 128


def test_arithmetic_of_the_original(modules):
    """151 million operations a word in the LSTMs, as counted by hand in many places, and 36 before them."""
    workloads, _ = modules
    assert round(workloads.lstm_flops("original") / 1e6) == 151
    assert round(workloads.word_flops("original") / 1e6) == 36
    calls = [[["a", "b", "a"]]]
    expected = 3 * workloads.lstm_flops("small") + 2 * workloads.word_flops("small")
    assert workloads.elmo_flops("small", "batch", calls) == expected
    assert workloads.elmo_flops("small", "train", calls) == 3 * expected


@pytest.mark.parametrize("name", ["worker", "workloads", "contestants"])
def test_files_of_the_peers_keep_to_their_python(name):
    ast.parse((BENCHMARKS / f"{name}.py").read_text(encoding="utf-8"), feature_version=(3, 9))
