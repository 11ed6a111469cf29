"""The speed benchmark runs with this repository alone, and its tables are those of its JSON."""

import ast
import contextlib
import io
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.speed import __main__ as speed
from benchmarks.speed import contestant, contestants, peak, table, worker, workloads
from benchmarks.speed import weights as random_weights
from tests.helpers.paths import BENCHMARKS

TINY = ["--sizes", "tiny", "--rounds", "2", "--pause", "0", "--warmup", "0", "--corpus-sentences", "40"]


SETTINGS = ["batch", "ready", "single", "corpus", "train", "single-5"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    output = tmp_path_factory.mktemp("speed") / "speed.json"
    names = ["ours-readable", "nothing", "torch-lstm"]
    arguments = [*TINY, "--settings", "ready", "--contestants", *names]
    arguments += ["--baseline", "ours-readable", "--output", str(output)]
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(speed.signal, "signal", lambda *_: None)  # the handler would stay in the tests' process
        patch.setattr(sys, "argv", ["speed", *arguments])
        speed.main()
    assert "nothing is left out: unknown; the names are ours-<kernel>" in printed.getvalue()
    return json.loads(output.read_text())


def test_the_json_has_its_numbers(results):
    assert [result["setting"] for result in results] == ["ready"]
    for result in results:
        assert list(result["contestants"]) == ["ours-readable", "torch-lstm"]
        assert list(result["skipped"]) == ["nothing"]
        assert result["text"]["source"] == "made-up words"
        for figures in result["contestants"].values():
            assert figures["ratio"]["min"] <= figures["ratio"]["median"] <= figures["ratio"]["max"]
            assert figures["words_per_second"]["median"] > 0
            assert figures["peak_memory_mb"] > 50
            assert 0 < figures["share_of_peak"] < 1.5
            assert figures["share_of_peak"] <= figures["share_of_roof"]
            assert len(figures["rounds"]) == 2
        ours = result["contestants"]["ours-readable"]
        assert ours["ratio"] == {"median": 1, "min": 1, "max": 1}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    random_weights.write_weights("tiny", folder)
    return folder


def contestant_of(name, setting, weights):
    job = {"contestant": name, "size": "tiny", "setting": setting, "threads": 1, "weights": weights}
    return contestants.class_of(name)(SimpleNamespace(**job))


@pytest.fixture
def restored_kernels():
    """A contestant chooses a kernel for its whole process, which is the tests' here."""
    yield
    with contextlib.suppress(ImportError):
        from elmo_hf import kernels

        kernels.use("auto")


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", ["ours-readable", "torch-lstm"])
def test_contestants_in_each_setting(name, setting, weights, restored_kernels):
    sentences = workloads.made_up_sentences(40)
    contestant = contestant_of(name, setting, weights)
    answer = worker.timed(contestant, setting, workloads.calls_of_round(setting, sentences, 0))
    assert answer["words"] > 0
    assert min(answer["work"].values()) > 0
    if setting == "corpus":
        vectors = contestant.corpus(sentences)
        assert [len(vector) for vector in vectors] == [len(sentence) for sentence in sentences]


@pytest.mark.parametrize("setting", ["ready", "single-5"])
def test_onnxruntime_reads_our_export(setting, weights, restored_kernels):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnx", reason="onnx is not installed")
    theirs, ours = (contestant_of(name, setting, weights) for name in ("onnxruntime", "ours-readable"))
    [batch] = workloads.calls_of_round("batch", workloads.made_up_sentences(40), 0)
    actual, expected = (
        [worker.words_of(layer, batch) for layer in them.layers(them.encode(batch))]
        if setting == "ready"
        else [worker.words_of(them.embed(batch), batch)]
        for them in (theirs, ours)
    )
    assert len(actual) == len(expected) == (3 if setting == "ready" else 1)
    for layer, reference in zip(actual, expected, strict=True):
        assert np.abs(layer - reference).max() < 1e-5


def test_there_is_a_pause_before_each_turn(monkeypatch):
    events, skipped = [], {"left out": "a reason"}
    monkeypatch.setattr(speed.time, "sleep", events.append)
    workers = [
        SimpleNamespace(name=name, answers=[], ask=lambda line, name=name: events.append(name) or line)
        for name in ("a", "left out", "b")
    ]
    speed.run_rounds(workers, speed.parse_arguments(["--rounds", "1", "--pause", "2"]), skipped)
    assert events == [2.0, "a", 2.0, "b"] * 2
    assert workers[0].answers == ["go 1"]


@pytest.mark.parametrize("name", ["ours-readable", "ours-auto-unsorted", "ours-auto-uncached"])
def test_a_corpus_gives_the_vectors_of_its_sentences(name, weights, restored_kernels):
    sentences = workloads.made_up_sentences(40)
    ours = contestant_of(name, "corpus", weights)
    vectors = ours.corpus(sentences)
    for place in (0, 17, 39):
        alone = ours.embed([sentences[place]])[0]
        assert np.abs(vectors[place] - alone).max() < 1e-5


@pytest.mark.parametrize(
    ("name", "is_sorted", "is_cached"),
    [("ours-auto", True, True), ("ours-auto-unsorted", False, True), ("ours-auto-uncached", True, False)],
)
def test_switches_of_the_corpus_benchmark(name, is_sorted, is_cached, weights, restored_kernels, monkeypatch):
    """The sentences that are read and the words that are encoded, as the package's own code gets them."""
    from elmo_hf.embedding import embedder

    read, encoded = [], []
    reads, encodes = embedder.Embedder._read, embedder.Embedder._encode
    monkeypatch.setattr(embedder.Embedder, "_read", lambda self, them: read.extend(them) or reads(self, them))
    monkeypatch.setattr(
        embedder.Embedder, "_encode", lambda self, them: encoded.extend(them) or encodes(self, them)
    )
    sentences = [[f"w{number}", "again", *["x"] * (number % 7)] for number in range(800)]
    contestant_of(name, "corpus", weights).corpus(sentences)
    assert (read == sentences) == (not is_sorted)
    assert sorted(read) == sorted(sentences)
    assert (encoded.count("again") == 1) == is_cached


def test_batches_in_order():
    batches = list(contestants.batches_in_order([3, 3, 0, 4, 1, 20, 2], budget=9))
    assert batches == [[0, 1], [3, 4], [5], [6]]
    assert list(contestants.batches_in_order([0, 0], budget=9)) == []


@pytest.mark.parametrize("name", ["ours-readable", "ours-auto"])
def test_ready_ids_give_all_layers_and_are_made_before_the_clock(name, weights, restored_kernels):
    ours = contestant_of(name, "ready", weights)
    [batch] = workloads.calls_of_round("ready", workloads.made_up_sentences(40), 0)
    layers = ours.layers(ours.prepare("ready", batch))
    average = sum(layer.numpy() for layer in layers) / len(layers)
    assert np.abs(average - ours.embed(batch)).max() < 1e-6

    events = []
    ours.prepare = lambda *_: events.append("prepare")
    ours.run = lambda *_: events.append("run")
    ours.work = lambda *_: {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker.time, "perf_counter", lambda: events.append("clock") or 0.0)
        worker.timed(ours, "ready", [batch])
    assert events == ["prepare", "clock", "run", "clock"]


def test_contestants_that_are_left_out(weights):
    for name in ("ours-bf16", "ours-int8"):
        with pytest.raises(contestant.Unavailable):
            contestant_of(name, "train", weights)
    with pytest.raises(contestant.Unavailable, match="nothing"):
        contestant_of("ours-nothing", "batch", weights)
    with pytest.raises(contestant.Unavailable, match="unsorted"):
        contestants.class_of("ours-auto-nothing")
    assert contestants.class_of("ours-int8-unsorted").settings == ("corpus",)


def test_the_peaks_products():
    job = {"contestant": "peak", "size": "tiny", "setting": "batch", "threads": 1, "clock": "cpu"}
    answer = peak.Peak(SimpleNamespace(**job)).run("batch", [])
    [rates] = speed.rates_of_rounds(SimpleNamespace(answers=[answer]))
    for product in ("input", "state", "projection", "highway", "word"):
        assert rates["float32"] >= rates[f"float32 {product}"] >= rates[f"float32 {product} torch.mm"] > 0
    assert rates["bfloat16 input"] > 0
    assert "bfloat16 word" not in rates  # there is none in the model


def test_shares_by_hand():
    """Two rounds: in the second one the machine and the contestant are half as fast, and the share is the
    same."""
    first = {"float32 input packed": 50.0, "float32 input torch.mm": 20.0, "float32 highway packed": 100.0}
    first["bfloat16 input packed"] = 200.0
    answers = [{"gflops": first}, {"gflops": {name: rate / 2 for name, rate in first.items()}}]
    rates = speed.rates_of_rounds(SimpleNamespace(answers=answers))
    work = {"input": 100e9, "highway": 50e9}
    worker = SimpleNamespace(dtype="float32", answers=[{"work": work}] * 2)
    assert speed.share(worker, [4.0, 8.0], rates, "peak") == (100 + 50) / 100 / 4
    assert speed.share(worker, [4.0, 8.0], rates, "roof") == (100 / 50 + 50 / 100) / 4
    worker.dtype = "bfloat16"
    assert speed.share(worker, [4.0, 8.0], rates, "roof") == (100 / 200 + 50 / 100) / 4
    worker.dtype = "int8"
    assert speed.share(worker, [4.0, 8.0], rates, "peak") is None
    assert speed.share(worker, [4.0, 8.0], [], "peak") is None


def test_errors_by_hand(tmp_path):
    arrays = {"theirs": np.array([[3.0, 4.0]]), "ours": np.array([[3.0, 4.5]])}
    workers = []
    for name, array in arrays.items():
        np.savez(tmp_path / f"{name}.npz", **{"layer 0": array})
        workers.append(SimpleNamespace(name=name, is_elmo=True, ask=lambda line: None))
    differences = speed.differences_from_baseline(workers, tmp_path, "theirs", {})
    assert differences == {"ours": {"layer 0": 0.5, "rms layer 0": 0.1, "largest layer 0": 4.0}}


def test_a_later_run_replaces_its_own_tables_only(tmp_path):
    def result(setting, threads=1, words=0):
        facts = {"size": "tiny", "clock": "wall", "machine": {"cpu": "a"}, "words": words}
        return {"setting": setting, "threads": threads, **facts}

    path = tmp_path / "speed.json"
    for saved in (result("batch"), result("train"), result("batch", threads=2), result("batch", words=5)):
        speed.save(saved, path)
    assert speed.read_saved(path) == [result("train"), result("batch", threads=2), result("batch", words=5)]
    assert list(tmp_path.iterdir()) == [path]
    path.write_text('{"something": "else"}')
    with pytest.raises(SystemExit, match="not a file of this benchmark's tables"):
        speed.save(result("batch"), path)
    assert path.read_text() == '{"something": "else"}'


def test_an_unknown_name_is_a_clear_error(capsys):
    with pytest.raises(SystemExit, match="2"):
        speed.parse_arguments(["--sizes", "huge"])
    assert "invalid choice: 'huge'" in capsys.readouterr().err


def test_tables_between_markers(results):
    end = "<!-- /speed -->\n"
    text = f"before\n<!-- speed: summary -->\nold\n{end}<!-- speed: details -->\n{end}after\n"
    results = [results[0] | {"setting": "batch"}, *results]
    filled = table.fill(text, results)
    assert "old" not in filled
    assert filled.startswith("before\n")
    assert filled.endswith("after\n")
    assert "| words/s (ratio) | tiny, batch of 32 | tiny, batch of 32, ids ready |" in filled
    assert "| of the peak | of the roof |" in filled
    assert "| ours-readable |" in filled
    assert "Left out: nothing: unknown" in filled
    assert table.fill(filled, results) == filled
    assert table.fill(text, []) == text
    small = [result | {"size": "small", "contestants": {"allennlp": result["contestants"]["ours-readable"]}}
             for result in results]  # fmt: skip
    few = table.brief([*results, *small])  # neither the tiny size nor ready ids
    assert "| words/s | allennlp |\n| --- | ---: |\n| small, batch of 32 | " in few
    assert few.endswith(" (1.0 ×) |")
    assert few.count("\n") == 4


def test_a_table_of_lengths(results):
    other = {
        "single-5": results[0] | {"setting": "single-5"},
        "single-60": results[0] | {"setting": "single-60"},
    }
    lines = table.lengths([*results, *other.values()]).splitlines()
    assert lines[2] == (
        "|  | words/s (ratio to ours-readable) | 5 words | 10 words | 20 words | 40 words | 60 words |"
    )
    assert lines[4].startswith("| tiny | ours-readable | ")
    assert lines[4].count(" (1.00) |") == 2
    assert lines[4].count("| – ") == 3
    assert len(lines) == 6
    assert "5 words" not in table.summary([*results, *other.values()])
    assert table.brief(list(other.values())) == ""


def test_tables_of_older_results(results):
    [old] = json.loads(json.dumps(results))
    for figures in old["contestants"].values():
        del figures["share_of_roof"]
    old["agreement_with_baseline"] = {"torch-lstm": {"vectors": 1e-6, "largest vectors": 2.0}}
    details = table.details([old])
    assert "of the roof" not in details
    assert "rms" not in details
    assert details.splitlines()[-3].endswith("| vectors 1.0e-06 |")


def test_a_layers_errors_stand_one_after_the_other(results):
    [ready] = json.loads(json.dumps(results))
    errors = {
        "layer 0": 1e-7,
        "layer 1": 2e-3,
        "rms layer 0": 1e-8,
        "rms layer 1": 3e-4,
        "largest layer 0": 1,
    }
    ready["agreement_with_baseline"] = {"torch-lstm": errors}
    assert table.details([ready]).count("| 1.0e-07 / 2.0e-03 | 1.0e-08 / 3.0e-04 |") == 1


def test_the_tables_in_the_readmes_are_those_of_the_json():
    results = table.read_results()
    if not results:
        pytest.skip("no results are stored")
    for path in table.TARGETS:
        text = path.read_text(encoding="utf-8")
        assert table.fill_all(text) == text, f"{path} is out of date; run python -m benchmarks.speed.table"
    page = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    for block in ("speed: summary", "speed: details", "gpu: training", "gpu: reading", "export: export"):
        assert f"<!-- {block} -->" in page
    assert "<!-- export: export-elmo-tiny -->" in page


def test_made_up_sentences_look_like_text():
    sentences = workloads.made_up_sentences(500)
    assert sentences == workloads.made_up_sentences(500)
    assert sentences[:10] != workloads.made_up_sentences(10, seed=1)
    words = [word for sentence in sentences for word in sentence]
    assert 18 < len(words) / len(sentences) < 27
    assert 4 < sum(map(len, words)) / len(words) < 6
    assert 0.2 < len(set(words)) / len(words) < 0.6


def test_sentences_of_a_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(" = Heading = \n\n One two . Three four . \n" + "long " * 200 + "\nlast one\n")
    sentences = workloads.read_sentences(path, 10)
    assert sentences == [["One", "two", "."], ["Three", "four", "."], ["last", "one"]]
    assert workloads.read_sentences(path, 2) == sentences[:2]


def test_rounds_differ_except_for_the_corpus():
    sentences = workloads.made_up_sentences(400)
    for setting in workloads.SETTINGS:
        first, second = (workloads.calls_of_round(setting, sentences, number) for number in (0, 1))
        assert (first == second) == (setting == "corpus")
        assert first == workloads.calls_of_round(setting, sentences, 0)
    for setting, length in workloads.LENGTHS.items():
        calls = workloads.calls_of_round(setting, sentences, 1)
        assert [[len(sentence) for sentence in call] for call in calls] == [[length]] * 8
    [batch] = workloads.calls_of_round("batch", sentences, 3)
    assert len(batch) == 32
    assert max(map(len, batch)) - min(map(len, batch)) <= 3
    [rows] = workloads.calls_of_round("train", sentences, 0)
    assert [len(row) for row in rows] == [20] * 128


def test_arithmetic_of_the_original():
    """151 million operations a word in the LSTMs, as counted by hand in many places, and 36 before them."""
    lstm, word = workloads.lstm_work("original"), workloads.word_work("original")
    assert round(sum(lstm.values()) / 1e6) == 151
    assert round(sum(word.values()) / 1e6) == 36
    work = workloads.elmo_work("original", "ready", [[["a", "b", "a"]]])
    assert work == {name: 3 * lstm[name] if name in lstm else 2 * word[name] for name in (*lstm, *word)}
    train = workloads.elmo_work("original", "train", [[["a", "b", "a"]]])
    assert train == {name: 3 * operations for name, operations in work.items()}
    assert [name for name, *_ in workloads.products("original")] == list(work)
    assert tuple(lstm) == workloads.LSTM_PRODUCTS


def test_the_worker_needs_no_package_before_the_contestants_own():
    """As in the environments of AllenNLP and simple_elmo, which have no elmo_hf."""
    flags = (
        "--contestant allennlp --size tiny --setting batch --clock wall --threads 1 --weights x --sentences"
    )
    command = [sys.executable, "-S", "-m", "benchmarks.speed.worker", *flags.split(), "/dev/stdin"]
    process = subprocess.run(
        command, cwd=BENCHMARKS.parent, env={}, input="[]", capture_output=True, text=True, check=True
    )
    assert json.loads(process.stdout) == {"unavailable": "No module named 'torch'"}


@pytest.mark.parametrize("name", ["worker", "workloads", "contestants"])
def test_files_of_the_peers_keep_to_their_python(name):
    ast.parse((BENCHMARKS / "speed" / f"{name}.py").read_text(encoding="utf-8"), feature_version=(3, 9))
