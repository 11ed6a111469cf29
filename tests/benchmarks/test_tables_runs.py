"""The runs of the tables as processes: each once, continued after a kill, and one with a real recipe."""

import json
import signal
import subprocess
import sys
import time

import pytest

from benchmarks.tables import __main__ as tables
from benchmarks.tables import runs as tables_runs
from benchmarks.tables.plan import planned, smoke_plan
from benchmarks.tables.runs import Places
from tests.helpers.launcher import wait_until

# In place of a recipe: it says who it is, and sleeps where it finds a file "wait".
RECIPE = """
import json, os, sys, time
from pathlib import Path
words = sys.argv[1:]
output, seed = Path(words[words.index("--output") + 1]), words[words.index("--seeds") + 1]
data = Path(words[words.index("--train") + 1]).parent
with (data / "calls").open("a") as file:
    file.write(output.name + "\\n")
assert not (output / "half").exists(), "an earlier run has left something"
(output / "half").touch()
while (data / "wait").exists() and seed == "1":
    time.sleep(0.01)
result = {"dev": {"f1": 0.25}, "test": {"f1": 0.5}, "epochs": 3, "best_epoch": 2}
result |= {"seconds": 1.5, "processor_seconds": 1.0}
versions = {"threads": os.environ["OMP_NUM_THREADS"]}
results = {"runs": {seed: result}, "examples": {"train": 40}, "versions": versions}
(output / "results.json").write_text(json.dumps(results))
(output / "done").touch()
"""
DRIVER = """
import sys
from pathlib import Path
from benchmarks.tables import __main__ as tables, runs
runs.ROOT = Path(sys.argv.pop(1))
tables.main()
"""


@pytest.fixture
def call(monkeypatch, capsys):
    """Run `benchmarks.tables` in this process: its exit code, output and errors."""

    def run(*flags):
        monkeypatch.setattr(sys, "argv", ["tables", *map(str, flags)])
        code = 0
        try:
            tables.main()
        except SystemExit as end:  # with a sentence, Python would write it and end with 1
            code = 1 if isinstance(end.code, str) else end.code
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def stage(tmp_path, monkeypatch, call):
    """Made-up data and a made-up recipe. Called, it is the command; `begin` leaves it running."""
    monkeypatch.setattr(tables_runs, "ROOT", tmp_path)
    data = tmp_path / "data" / "ner_wnut17"
    data.mkdir(parents=True)
    for name in ("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated"):
        (data / name).touch()
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "finetune_ner.py").write_text(RECIPE, encoding="utf-8")

    class Stage:
        folder, wait, calls = tmp_path, data / "wait", data / "calls"
        stored = tmp_path / "results" / "tables" / "runs"

        flags = ("--smoke", "--only", "table1", "--tasks", "ner-wnut", "--data", tmp_path / "data", "--runs",
                 tmp_path / "runs", "--results", tmp_path / "results")  # fmt: skip

        def begin(self, *flags):
            command = [sys.executable, "-c", DRIVER, tmp_path, *self.flags, *flags]
            return subprocess.Popen(
                [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )

        def __call__(self, *flags):
            return call(*self.flags, *flags)

        def called(self):
            return self.calls.read_text().split() if self.calls.exists() else []

        def until(self, number):
            wait_until(lambda: len(self.called()) >= number)

    return Stage()


def names_of(seeds):
    plan = smoke_plan()
    return [run.name("smoke") for run in planned(plan, ["table1"], ["ner-wnut"], seeds)]


def test_each_run_is_done_once_and_kept(stage):
    code, out, error = stage("--seeds", "0", "1", "--jobs", "2")
    assert (code, error) == (0, "")
    assert sorted(stage.called()) == sorted(names_of([0, 1]))
    assert "0 runs left, about 0.0 hours" in out
    stored = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in stage.stored.iterdir()}
    assert sorted(stored) == sorted(names_of([0, 1]))
    for name, run in stored.items():
        assert run["name"] == name
        assert run["scores"] == {"dev": {"f1": 0.25}, "test": {"f1": 0.5}}
        assert run["versions"] == {"threads": "1"}
        assert str(stage.folder) not in json.dumps(run)
    assert not [path for path in (stage.folder / "runs").iterdir() if path.is_dir()]  # no model is left
    [row] = [
        row
        for row in json.loads((stage.folder / "results" / "table1.json").read_text())["rows"]
        if row["elmo"]
    ]
    assert row["baseline"]["mean"] == row["elmo"]["mean"] == 50.0
    assert row["missing"] == []
    assert (stage.folder / "results" / "table1.png").is_file()
    assert stage("--seeds", "0", "1")[0] == 0
    assert len(stage.called()) == 4


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
def test_after_a_kill_only_unfinished_runs_are_repeated(stage, sign):
    stage.wait.touch()
    process = stage.begin("--seeds", "0", "1")
    stage.until(3)  # both of seed 0 have ended, and the baseline of seed 1 has begun
    process.send_signal(sign)
    process.communicate()
    assert process.returncode == (143 if sign == signal.SIGTERM else -signal.SIGKILL)
    assert {path.stem for path in stage.stored.iterdir()} == set(names_of([0]))
    before = {path: path.stat().st_mtime_ns for path in stage.stored.iterdir()}
    stage.wait.unlink()
    if sign == signal.SIGKILL:
        wait_until((stage.folder / "runs" / stage.called()[-1] / "done").exists)  # its recipe got no signal
    assert stage("--seeds", "0", "1")[0] == 0
    names = names_of([0, 1])
    if sign == signal.SIGTERM:
        assert stage.called() == [*names[:3], *names[2:]]  # the third was repeated, the others not
    assert {path.stem for path in stage.stored.iterdir()} == set(names)
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())


def test_sigterm_ends_the_recipe_too(stage):
    stage.wait.touch()
    process = stage.begin("--seeds", "1")
    stage.until(1)
    process.terminate()
    process.communicate()  # would wait for whoever still holds its pipes
    stage.wait.unlink()
    time.sleep(0.2)
    assert not list((stage.folder / "runs").glob("*/results.json"))


def test_finished_but_unrecorded_runs_are_not_repeated(stage):
    places = Places(
        stage.folder / "data", None, stage.folder / "runs", stage.folder / "results", smoke_plan()
    )
    run = planned(places.plan, ["table1"], ["ner-wnut"], [0])[0]
    tables_runs.begin(places, run)
    assert not tables_runs.is_trained(places, run)
    result = {"dev": {"f1": 0.1}, "test": {"f1": 0.2}, "epochs": 1, "best_epoch": 1}
    result |= {"seconds": 1.0, "processor_seconds": 1.0}
    results = {"runs": {"0": result}, "examples": {}, "versions": {}}
    (places.folder(run) / "results.json").write_text(json.dumps(results))
    assert stage("--seeds", "0")[0] == 0
    assert stage.called() == names_of([0])[1:]
    assert len(list(stage.stored.iterdir())) == 2


def test_tables_include_the_seeds_of_earlier_calls(stage):
    for seeds in (["0", "1"], ["1"]):
        assert stage("--seeds", *seeds)[0] == 0
    table = json.loads((stage.folder / "results" / "table1.json").read_text())
    row = next(row for row in table["rows"] if row["task"] == "NER, WNUT-17")
    assert row["elmo"]["seeds"] == [0, 1]
    assert row["command"] == (
        "python -m benchmarks.tables --data DATA --smoke --only table1 --tasks ner-wnut --seeds 0 1"
    )


def test_results_of_other_settings_are_in_no_table_and_are_named(stage):
    _, out, _ = stage("--seeds", "0", "1")
    assert "In no table" not in out
    path = stage.stored / f"{names_of([1])[0]}.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(
        json.dumps(content | {"flags": [*content["flags"], "--batch-size", "3"]}), encoding="utf-8"
    )
    _, out, _ = stage("--collect", "--seeds", "0", "1")
    assert (
        f"In no table, as their settings, weights or vectors are not the plan's: 1 runs ({path.stem})." in out
    )
    table = json.loads((stage.folder / "results" / "table1.json").read_text())
    row = next(row for row in table["rows"] if row["task"] == "NER, WNUT-17")
    assert (row["baseline"]["seeds"], row["elmo"]["seeds"]) == ([0], [0])  # what both have
    assert row["missing"] == [path.stem]


@pytest.mark.parametrize("content", ["{}", "[]", "{"])
def test_a_damaged_result_is_named(stage, content):
    stage("--seeds", "0")
    path = next(stage.stored.iterdir())
    path.write_text(content)
    code, _, error = stage("--seeds", "0")
    assert code == 1
    assert f"{path} is not the result of a run; delete it, and the run will be repeated." in error


def test_a_failed_run_is_reported_and_the_others_continue(stage):
    recipe = stage.folder / "training" / "finetune_ner.py"
    recipe.write_text("import sys\nif '.none.' in ' '.join(sys.argv): sys.exit('no luck')\n" + RECIPE)
    code, out, error = stage("--seeds", "0")
    first, second = names_of([0])
    assert code == 1
    assert f"{first}: ended with 1: no luck" in out
    assert error == f"tables: 1 failed, see their logs in {stage.folder / 'runs'}: {first}.\n"
    assert [path.stem for path in stage.stored.iterdir()] == [second]


def test_no_run_starts_after_the_minutes(stage):
    assert stage("--minutes", "0")[0] == 0
    assert stage.called() == []


def test_runs_without_tables(stage):
    """For the scaling curve, whose models must not replace that of the tables."""
    assert stage("--measure", "--seeds", "0")[0] == 0
    assert sorted(path.stem for path in stage.stored.iterdir()) == sorted(names_of([0]))
    assert [path.name for path in (stage.folder / "results").iterdir()] == ["tables"]


def test_a_dry_run_writes_nothing_and_lists_the_time(stage):
    code, out, _ = stage("--dry-run", "--seeds", "0")
    assert code == 0
    assert [line.split()[-1] for line in out.splitlines()[:2]] == names_of([0])
    assert "2 runs left, about" in out
    assert not (stage.folder / "runs").exists()
    assert not (stage.folder / "results").exists()


def test_a_job_waits_for_the_files_of_another(tmp_path):
    made = tmp_path / "made"
    script = "import sys, pathlib; pathlib.Path(sys.argv[1]).mkdir()"
    jobs = [
        tables_runs.Job("user", [[sys.executable, "-c", "pass"]], tmp_path / "user.log", needs=made),
        tables_runs.Job("maker", [[sys.executable, "-c", script, str(made)]], tmp_path / "maker.log"),
    ]
    ended = []
    tables_runs.run_jobs(jobs, 2, None, lambda job: ended.append((job.name, job.failure())))
    assert ended == [("maker", None), ("user", None)]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dry-run"], "name the folder of the data with --data."),
        (["--data", "/absent"], "tables: /absent/ner_wnut17/wnut17train.conll is missing; is /absent the"),
        (["--data", "x", "--measure", "--collect"], "--measure writes no tables and --collect only these"),
        (["--data", "x", "--jobs", "0"], "--jobs must be 1 or more."),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, call, flags, message):
    folders = ["--runs", tmp_path / "runs", "--results", tmp_path / "results"]
    code, _, error = call("--tasks", "ner-wnut", "--only", "table1", *folders, *flags)
    assert code != 0
    assert message in error
    assert not list(tmp_path.iterdir())


# ---- with a real recipe


def test_a_small_run_of_a_real_recipe(tmp_path, call, monkeypatch):
    folder = tmp_path / "data" / "ner_wnut17"
    folder.mkdir(parents=True)
    text = "Ada\tB-person\nsaw\tO\nthe\tO\nBay\tB-location\n\n" * 60
    for name in ("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated"):
        (folder / name).write_text(text, encoding="utf-8")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    selection = ["--only", "table1", "--tasks", "ner-wnut", "--seeds", "0", "--jobs", "2"]
    folders = ["--data", tmp_path / "data", "--runs", tmp_path / "runs"]
    code, output, error = call("--smoke", *selection, *folders)
    assert (code, error) == (0, ""), output
    rows = json.loads((tmp_path / "runs" / "results" / "table1.json").read_text())["rows"]
    [row] = [row for row in rows if row["elmo"]]
    assert 0 <= row["elmo"]["mean"] <= 100
    assert row["train_size"] == 40
    [stored] = (tmp_path / "runs" / "results" / "tables" / "runs").glob("smoke.*.json")
    stored = json.loads(stored.read_text(encoding="utf-8"))
    assert stored["examples"]["train"] == 40
    assert stored["best_epoch"] == stored["epochs"] == 1
    assert stored["seconds"] > 0
