"""The scaling curve: values of each model from the files that the commands write, table, picture."""

import json
import sys
from pathlib import Path

import pytest

import elmo_hf
from benchmarks import scaling
from benchmarks.tables.plan import TABLES, TASKS

SENSES = {
    "first sense": 60.0,
    "trained, layer 1": 55.5,
    "trained, layer 2": 61.5,
    "random weights, layer 2": 70.0,
}
TAGS = {"look-up": 80.0, "trained, layer 0": 85.0, "trained, layer 1": 92.5, "trained, layer 2": 92.25}


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_model(folder: Path, curve: str, words: int, mean: float) -> None:
    write(folder / "model.json", {"curve": curve, "words": words, "parameters": 3_000_000})
    for text in ("books", "wiki"):
        write(folder / f"perplexity-valid.{text}.json", {"mean": mean, "unknown": 0.125})


def write_probes(folder: Path) -> None:
    senses = {"f1": {name: {"senseval2": 0.0, "all": score} for name, score in SENSES.items()}}
    tags = {"accuracy": {"xpos": {name: {"test": score} for name, score in TAGS.items()}}}
    write(folder / "probes.json", {"probes": {"senses": senses, "tags": tags}})


ALL = TASKS[scaling.ENTITIES].train_size


def write_run(runs: Path, model: str | None, place: str, seed: int, f1: float, size: int = ALL) -> None:
    run = {
        "model": model,
        "biLM": "frozen",
        "place": place,
        "layers": "mix",
        "train_size": size,
        "seed": seed,
    }
    name = f"{model or 'ner-ewt'}.{'' if model is None else 'ner-ewt.'}{place}.n{size}.seed-{seed}.json"
    write(runs / name, run | {"scores": {"test": {"f1": f1}}})


@pytest.fixture
def measured(tmp_path: Path) -> tuple[Path, Path]:
    folder, runs = tmp_path / "scaling", tmp_path / "runs"
    write_model(folder / "a-100", "a", 100_000_000, 40.0)
    write_model(folder / "a-25", "a", 25_000_000, 60.0)
    write_model(folder / "old", "z", 10_000_000, 90.0)
    write_probes(folder / "a-25")
    for seed, f1 in enumerate([0.5, 0.75]):
        write_run(runs, "a-25", "input", seed, f1)
        write_run(runs, "a-25", "output", seed, 0.99)
        write_run(runs, None, "none", seed, f1 / 2)
    write_run(runs, None, "none", 0, 0.01, size=5)
    return folder, runs


def test_values_of_a_model(measured: tuple[Path, Path]) -> None:
    point = scaling.read_point(measured[0] / "a-25", measured[1])
    assert (point["valid.books"], point["valid.wiki, unknown"]) == (60.0, 12.5)
    assert (point["senses"], point["senses, layer"], point["reference senses"]) == (61.5, 2, 60.0)
    assert (point["tags"], point["tags, layer"], point["reference tags"]) == (92.5, 1, 80.0)
    assert (point["entities"], point["reference entities"]) == (62.5, 31.25)


def test_only_runs_on_all_examples_and_seeds_of_all_taggers_count(measured: tuple[Path, Path]) -> None:
    folder, runs = measured
    write_run(runs, "a-25", "input", 0, 0.01, size=5)  # as figure 1 has them
    write_run(runs, "a-25", "input", 2, 1.0)
    write_run(runs, "unknown", "input", 7, 1.0)  # which is no point of the curve
    point = scaling.read_point(folder / "a-25", runs)
    assert (point["entities"], point["reference entities"]) == (62.5, 31.25)
    write_run(runs, "a-100", "input", 1, 0.8)
    points = {name: scaling.read_point(folder / name, runs) for name in ("a-25", "a-100", "old")}
    assert (points["a-25"]["entities"], points["a-100"]["entities"]) == (75.0, 80.0)
    assert points["a-25"]["reference entities"] == points["a-100"]["reference entities"] == 37.5
    assert "entities" not in points["old"]


def test_the_tagger_is_a_task_of_the_tables() -> None:
    assert scaling.ENTITIES in TABLES["table1"].tasks
    assert TASKS[scaling.ENTITIES].place == "input"


def test_curves_are_in_the_order_of_their_first_words(measured: tuple[Path, Path]) -> None:
    assert [point["name"] for point in scaling.read_points(*measured)] == ["old", "a-25", "a-100"]


def test_the_table_has_each_model_and_what_to_compare_with(measured: tuple[Path, Path]) -> None:
    lines = scaling.table(scaling.read_points(*measured)).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert rows[3] == ["a", "25.0", "3.0", "60.0", "60.0", "12.5", "12.5", "61.5", "2", "92.5", "1", "62.5"]
    assert rows[4][7:] == ["–"] * 5
    assert [row[0] for row in rows[5:]] == ["first sense", "look-up", "without ELMo"]
    assert {len(row) for row in rows} == {12}


def test_the_picture_has_a_panel_for_what_was_measured(measured: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    points = scaling.read_points(*measured)
    scaling.draw(points, tmp_path / "all.png")
    scaling.draw([point for point in points if point["name"] == "old"], tmp_path / "old.png")
    widths = [int.from_bytes((tmp_path / name).read_bytes()[16:20]) for name in ("all.png", "old.png")]
    assert widths[0] * 2 == widths[1] * 5


def test_a_model_is_described_by_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "FOLDER", tmp_path)
    arguments = ["--describe", str(elmo_hf.TINY), "--name", "tiny", "--curve", "c", "--words", "7"]
    monkeypatch.setattr(sys, "argv", ["scaling", *arguments])
    scaling.main()
    content = json.loads((tmp_path / "tiny" / "model.json").read_text(encoding="utf-8"))
    model = elmo_hf.ElmoModel.from_pretrained(elmo_hf.TINY)
    assert content["parameters"] == model.num_parameters()
    assert (content["curve"], content["words"]) == ("c", 7)


def test_a_missing_model_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scaling, "FOLDER", tmp_path / "none")
    monkeypatch.setattr(sys, "argv", ["scaling"])
    with pytest.raises(SystemExit):
        scaling.main()
    assert "has no measured model; training/runs/scaling.sh measures one." in capsys.readouterr().err
