"""The search on dev: the same points for both arms, the best of them chosen, nothing tried twice."""

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.tables import search
from benchmarks.tables.page import table_of_choices
from benchmarks.tables.plan import TASKS, baseline_of, recipe_flags, run_of
from benchmarks.tables.runs import Places


def score_of(flags):
    """Made-up scores: ELMo wants little dropout and a low rate, the baseline much and a high one."""
    has_elmo = "elmo_at_input=true" in flags
    dropout = float(re.search(r"task_dropout=(\S+)", flags)[1])
    rate = float(re.findall(r"--learning-rate (\S+)", flags)[-1])
    scale = float(re.search(r"--vector-scale (\S+)", flags)[1])
    tuned = re.search(r"--elmo-learning-rate (\S+)", flags)
    of_tuned = 0.02 - 20 * abs(float(tuned[1]) - 0.00015) if tuned else 0.0
    wanted = (0.1 * dropout + 10 * rate) * (-1 if has_elmo else 1)
    return 0.5 + wanted + 0.01 * scale + of_tuned


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """A folder with a file of vectors and a biLM, where a run is replaced by its made-up score."""
    (tmp_path / "elmo").mkdir()
    (tmp_path / "elmo" / "config.json").write_text("{}")
    (tmp_path / "glove.txt").write_text("a 1\n")
    commands = []

    def run(command, **_):
        commands.append(" ".join(command))
        result = {
            "dev": dict.fromkeys(("accuracy", "f1"), score_of(commands[-1])),
            "epochs": 5,
            "best_epoch": 2,
            "processor_seconds": 60,
        }
        output = Path(command[command.index("--output") + 1])
        output.mkdir(parents=True)
        (output / "results.json").write_text(json.dumps({"runs": {str(search.SEED): result}}))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(search, "machine", dict)  # it may run a program, too
    monkeypatch.setattr(search, "make_inputs", lambda *_: None)
    monkeypatch.setattr(search, "missing_file", lambda *_: None)
    flags = ["--data", tmp_path, "--elmo", tmp_path / "elmo", "--vectors", tmp_path / "glove.txt",
             "--tasks", "sst", "--runs", tmp_path / "runs", "--results", tmp_path / "results"]  # fmt: skip
    places = Places(
        tmp_path,
        str(tmp_path / "elmo"),
        tmp_path / "runs",
        tmp_path / "results",
        TASKS,
        tmp_path / "glove.txt",
    )
    return SimpleNamespace(flags=[str(flag) for flag in flags], commands=commands, places=places)


def test_each_arm_gets_its_best_point_of_the_same_grid(stage):
    search.main(stage.flags)
    assert len(stage.commands) == 2 * 5
    assert all(f"--train-size {round(33_245 / 4)} " in command for command in stage.commands)
    assert all("--test-size 1 " in command and "--seeds 100 " in command for command in stage.commands)
    assert all(command.count("--vectors") == 1 for command in stage.commands)
    folder = stage.places.results / "tables" / "search"
    chosen = {path.name: json.loads(path.read_text())["chosen"] for path in sorted(folder.iterdir())}
    assert chosen == {
        "baseline.sst.none.json": {"dropout": 0.5, "learning rate": 1.0, "vector scale": 4.0},
        "elmo.sst.elmo.json": {"dropout": 0.15, "learning rate": 0.5, "vector scale": 4.0},
    }
    content = json.loads((folder / "elmo.sst.elmo.json").read_text())
    assert [row["score"] for row in content["tried"]] == [
        pytest.approx(score_of(row["command"]), abs=1e-5) for row in content["tried"]
    ]
    assert "glove.txt" in content["tried"][0]["command"]
    assert str(stage.places.runs) not in content["tried"][0]["command"]


def test_the_tables_use_what_was_chosen(stage):
    search.main(stage.flags)
    plan = search.with_choices(TASKS, stage.places)
    run = run_of(plan, "sst", {}, 0)
    of_baseline = ("0.001", "0.5")
    at_output = run_of(plan, "sst", {"place": "output"}, 0)  # whose network reads what the baseline's reads
    pairs = ((run, ("0.0005", "0.15")), (baseline_of(run), of_baseline), (at_output, of_baseline))
    for one, (rate, dropout) in pairs:
        flags = recipe_flags(one, plan)
        assert flags[len(flags) - 1 - flags[::-1].index("--learning-rate") + 1] == rate
        assert flags[flags.index("--vector-scale") + 1] == "4"
        assert f"task_dropout={dropout}" in flags[flags.index("--set") :]
    assert recipe_flags(run_of(plan, "nli", {}, 0), plan) == recipe_flags(run_of(TASKS, "nli", {}, 0), TASKS)


def test_a_tuned_bilm_learns_as_fast_as_is_best_on_dev(stage, capsys):
    tuned = [*stage.flags, "--arms", "tuned"]
    with pytest.raises(SystemExit):
        search.main(tuned)
    message = "search: search sst with a frozen biLM first: --tasks sst --arms elmo.\n"
    assert capsys.readouterr().err == message
    assert not stage.commands
    search.main(stage.flags)
    plan = search.with_choices(TASKS, stage.places)
    run = run_of(plan, "sst", {"biLM": "tuned"}, 0)
    frozen = recipe_flags(run_of(plan, "sst", {}, 0), plan)
    assert recipe_flags(run, plan) == [*frozen, "freeze_elmo=false"]  # not searched yet
    before = len(stage.commands)
    search.main(tuned)
    search.main(tuned)  # tries nothing twice
    rates = [command.split("--elmo-learning-rate ")[1].split()[0] for command in stage.commands[before:]]
    assert rates == ["0.0005", "0.00015", "5e-05"]
    assert all("freeze_elmo=false" in command for command in stage.commands[before:])
    flags = recipe_flags(run, search.with_choices(TASKS, stage.places))
    at = flags.index("--elmo-learning-rate")
    assert flags[at + 1] == "0.00015"
    assert flags[:at] + flags[at + 2 :] == [*frozen, "freeze_elmo=false"]
    row = table_of_choices(search.searches(stage.places), TASKS).split("\n")[-1]
    cells = "with a tuned ELMo | 8,311 | 0.15 | 0.0005 (biLM 0.00015) | 4 | 54.0 | 53.3"
    assert row == f"| Sentiment, SST-5 | {cells} |"
    # With another choice of the frozen biLM, that of the tuned one is none until it is searched again.
    path = stage.places.results / "tables" / "search" / "elmo.sst.elmo.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"chosen": content["chosen"] | {"dropout": 0.5}}))
    flags = recipe_flags(run, search.with_choices(TASKS, stage.places))
    assert "--elmo-learning-rate" not in flags
    assert [flag for flag in flags if flag.startswith("task_dropout")] == ["task_dropout=0.5"]
    search.main([*tuned, "--dry-run"])
    assert "sst, tuned: 0 of 3 tried" in capsys.readouterr().out
    search.main(tuned)
    assert all("task_dropout=0.5" in command for command in stage.commands[-3:])
    assert len(stage.commands) == before + 6


def test_the_page_has_what_was_chosen(stage):
    assert table_of_choices(search.searches(stage.places), TASKS) == "No results yet."
    search.main(stage.flags)
    lines = table_of_choices(search.searches(stage.places), TASKS).split("\n")
    assert lines[2:] == [
        "| Sentiment, SST-5 | without ELMo | 8,311 | 0.5 | 0.001 | 4 | 60.0 | 53.5 |",
        "| Sentiment, SST-5 | with ELMo | 8,311 | 0.15 | 0.0005 | 4 | 52.0 | 45.0 |",
    ]
    # Choices of other weights are not used, so the page does not have them.
    path = stage.places.results / "tables" / "search" / "elmo.sst.elmo.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"weights": "of another model"}))
    assert table_of_choices(search.searches(stage.places), TASKS).split("\n") == lines[:3]


def test_a_task_that_is_not_searched_has_the_choices_of_its_kind(stage):
    of_names = ["ner-ewt" if flag == "sst" else flag for flag in stage.flags]
    search.main([*of_names, "--arms", "none"])
    plan = search.with_choices(TASKS, stage.places)
    for name in ("ner-ewt", "ner-wnut", "ner-btc", "ner-ncbi"):
        flags = recipe_flags(baseline_of(run_of(plan, name, {}, 0)), plan)
        assert "task_dropout=0.5" in flags
        assert flags[flags.index("--vector-scale") + 1] == "4"
    assert "--vector-scale" not in recipe_flags(baseline_of(run_of(plan, "sst", {}, 0)), plan)


def test_one_search_serves_other_models_if_it_is_named(stage):
    search.main(stage.flags)
    folder = stage.places.results / "tables" / "search"
    content = json.loads((folder / "elmo.sst.elmo.json").read_text()) | {"weights": "of another model"}
    for name in ("other", "elmo"):
        (folder / f"{name}.sst.elmo.json").write_text(json.dumps(content))
    run = run_of(TASKS, "sst", {}, 0)
    named = search.with_choices(TASKS, stage.places, "other")
    assert "task_dropout=0.15" in recipe_flags(run, named)
    # Without the name, a search with other weights is none.
    unnamed = search.with_choices(TASKS, stage.places)
    assert recipe_flags(run, unnamed) == recipe_flags(run, TASKS)


@pytest.mark.parametrize("changed", ["vectors", "plan"])
def test_a_search_with_other_vectors_or_settings_is_none(stage, monkeypatch, capsys, changed):
    search.main(stage.flags)
    run = baseline_of(run_of(TASKS, "sst", {}, 0))
    assert "task_dropout=0.5" in recipe_flags(run, search.with_choices(TASKS, stage.places))
    plan, places = TASKS, stage.places
    if changed == "vectors":
        places.vectors.write_text("a 2\n")
        places = replace(places)  # which has not read the file yet
    else:
        plan = TASKS | {"sst": replace(TASKS["sst"], settings=("task_hidden_size=999",))}
        monkeypatch.setattr(search, "TASKS", plan)
    assert recipe_flags(run, search.with_choices(plan, places)) == recipe_flags(run, plan)
    assert search.searches(places) == []
    search.main([*stage.flags, "--dry-run"])
    assert "sst, none: 0 of 5 tried" in capsys.readouterr().out


def test_every_task_of_table_1_is_searched_or_shares_the_choices_of_one_that_is():
    assert {TASKS[name].searched_with or name for name in TASKS} == set(search.SEARCHED)


def test_points_of_another_bilm_are_tried_again(stage, capsys):
    search.main(stage.flags)
    path = stage.places.results / "tables" / "search" / "elmo.sst.elmo.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"weights": "of another model"}))
    search.main([*stage.flags, "--dry-run"])
    assert "sst, elmo: 0 of 5 tried" in capsys.readouterr().out
    search.main(stage.flags)
    assert len(stage.commands) == 15
    assert json.loads(path.read_text())["weights"] != "of another model"


def test_an_interrupted_search_goes_on(stage, monkeypatch, capsys):
    run = subprocess.run
    monkeypatch.setattr(
        subprocess,
        "run",
        lambda *a, **k: SimpleNamespace(returncode=1) if len(stage.commands) == 3 else run(*a, **k),
    )
    with pytest.raises(SystemExit):
        search.main(stage.flags)
    assert "a run of sst ended with 1; see " in capsys.readouterr().err
    monkeypatch.setattr(subprocess, "run", run)
    search.main([*stage.flags, "--dry-run"])
    assert "sst, none: 3 of 5 tried" in capsys.readouterr().out
    search.main(stage.flags)
    assert len(stage.commands) == 10
    search.main(stage.flags)
    assert len(stage.commands) == 10
