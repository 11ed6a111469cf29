"""What a checkpoint says of its run is checked, value by value, also where its manifest fits."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from elmo_hf.errors import ElmoError
from elmo_hf.files import write_manifest
from elmo_hf.pretraining.checkpoints import checkpoints, find_damage, read_tensors
from elmo_hf.pretraining.progress import read_progress
from tests.helpers.launcher import small_run


@pytest.fixture(scope="module")
def run(launcher, tmp_path_factory):
    """The folder of a run that has stopped after 12 steps."""
    folder = tmp_path_factory.mktemp("progress")
    started = launcher.start(small_run(folder, max_steps=12, save_every=12, workers=0))
    assert started.wait() == [0], started.err
    return folder / "run"


@pytest.fixture
def checkpoint(run, tmp_path):
    (newest,) = checkpoints(run)
    return shutil.copytree(newest, tmp_path / newest.name)


def is_refused(checkpoint, message):
    with pytest.raises(ElmoError, match=message) as error:
        read_progress(checkpoint)
    sentence = str(error.value)
    assert str(checkpoint / "training" / "progress.json") in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert len(sentence) < 500
    return True


def change(checkpoint, *keys, value):
    path = checkpoint / "training" / "progress.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    place = content
    for key in keys[:-1]:
        place = place[key]
    if value == "left out":
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    path.write_text(json.dumps(content), encoding="utf-8")


def test_progress_is_read_as_it_was_written(checkpoint):
    progress = read_progress(checkpoint)
    assert (progress.step, progress.epoch, progress.evaluated_at) == (12, 0, -1)
    assert progress.words == 12 * 6 * 5
    assert progress.settings["lstm_dim"] == 16
    assert [Path(entry["name"]).name for entry in progress.text] == ["text-0.txt", "text-1.txt", "text-2.txt"]
    change(checkpoint, "text", value="left out")  # as version 0.1.0 wrote it
    change(checkpoint, "settings", "check_text", value="left out")
    assert read_progress(checkpoint).text is None


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        *((("step",), value) for value in ("12", -1, 0, 10**9, 1e400, None, True, [], 10**400, "left out")),
        *((("words",), value) for value in (None, -1, 1.5, 0)),
        *((("epoch",), value) for value in (None, "0", 2**53)),
        *((("judged_at",), value) for value in (None, -2, "left out")),
        *((("settings",), value) for value in (None, [], {}, "left out")),
        *((("settings", "rows"), value) for value in (0, 7, "left out", 10**30)),
        *((("settings", name), value) for name, value in {"epochs": 0, "seed": "7", "data": "x"}.items()),
        *((("place",), value) for value in (None, {}, [], "left out")),
        *((("place", "first"), value) for value in (1, None)),
        *((("place", "readings"), value) for value in (None, [], [None, None], {})),
        *((("place", "readings", 1, "place"), value) for value in ([0, 0], [0, 0, 0, 0, -1], [9] * 5, None)),
        *((("place", "readings", 0, "begun"), value) for value in ([], [10**9] * 6, [-5] * 6, [0] * 5, 3)),
        *((("place", "readings", 0, "used"), value) for value in ([None] * 6, [0.5] * 6, "left out")),
        *((("place", "readings", 0, "digest"), value) for value in ("x", -1, [], "left out")),
        *((("place", "readings", 0, "deals"), value) for value in (None, [1], [{}], [{"rows": 0}])),
        *((("text",), value) for value in ({}, [1], [{"name": 1}], [{"name": "a", "bytes": "1"}])),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else f"{value!r:.12}",
)
def test_a_value_that_no_run_writes_is_refused(checkpoint, keys, value):
    change(checkpoint, *keys, value=value)
    assert is_refused(checkpoint, "is damaged: ")


def test_a_position_behind_its_rows_is_refused(checkpoint):
    """Rows that have started no sentence, at a place after the first ones."""
    change(checkpoint, "place", "readings", 0, "begun", value=[0] * 6)
    change(checkpoint, "place", "readings", 0, "place", value=[0, 1, 0, 50, 50])
    assert is_refused(checkpoint, "begun and place are not of one position")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[" * 100_000, b"\x00" * 500, b'{"step": "\xff"}', b"null", b"9" * 5000]
)
def test_a_file_that_is_no_progress_is_refused(checkpoint, content):
    (checkpoint / "training" / "progress.json").write_bytes(content)
    assert is_refused(checkpoint, "damaged")


def test_a_manifest_must_name_the_files(checkpoint, tmp_path):
    (tmp_path / "other").write_text("x")
    assert find_damage(checkpoint) is None
    manifest = json.loads((checkpoint / "manifest.json").read_text(encoding="utf-8"))
    for files, damage in (
        ({}, "training/optimizer.safetensors is missing from its manifest.json"),
        ({"../other": {"bytes": 1, "sha256": ""}}, "'../other' of its manifest.json is outside the folder"),
        ({"a\0b": {"bytes": 1, "sha256": ""}}, "'a\\x00b' of its manifest.json is no name of a file"),
        ({"config.json": {"bytes": [], "sha256": 1}}, "it has no readable manifest.json"),
        ({"config.json": {"bytes": 1e400, "sha256": 1}}, "it has no readable manifest.json"),
        ([], "it has no readable manifest.json"),
    ):
        complete = manifest["files"] if files and isinstance(files, dict) else {}
        content = {"files": complete | files if isinstance(files, dict) else files}
        (checkpoint / "manifest.json").write_text(json.dumps(content), encoding="utf-8")
        assert find_damage(checkpoint) == damage


def test_damaged_tensors_are_refused(tmp_path):
    for content in (b"", b"\xff" * 100, b"\x00" * 8 + b"{}", (10**15).to_bytes(8, "little") + b"{"):
        (tmp_path / "rows.safetensors").write_bytes(content)
        with pytest.raises(ElmoError, match=r"rows\.safetensors cannot be read \(.*\); it is damaged\."):
            read_tensors(tmp_path / "rows.safetensors")


@pytest.mark.parametrize(
    ("name", "key", "edit", "message"),
    [
        ("rows", "epochs", lambda tensor: tensor[:3], "does not have the states of 6 rows of this model."),
        ("rows", "h", lambda tensor: tensor[..., :3], "does not have the states of 6 rows of this model."),
        ("rows", "epochs", lambda tensor: tensor - 1, "rows are in an earlier pass over the text."),
        ("rows", "epochs", lambda tensor: tensor.float(), "rows are in an earlier pass over the text."),
        ("optimizer", "steps", lambda tensor: tensor + 5, "is not that of step 12, but of another."),
        ("optimizer", "steps", lambda tensor: torch.zeros(2), "does not fit the run: "),
    ],
)
def test_tensors_of_another_run_are_refused(launcher, run, tmp_path, name, key, edit, message):
    output = shutil.copytree(run, tmp_path / "run")
    (checkpoint,) = checkpoints(output)
    path = checkpoint / "training" / f"{name}.safetensors"
    tensors = load_file(path)
    path.unlink()
    save_file(tensors | {key: edit(tensors[key]).contiguous()}, path)
    (checkpoint / "manifest.json").unlink()
    write_manifest(checkpoint)
    arguments = small_run(run.parent, max_steps=14, workers=0, output=output)
    started = launcher.start(arguments)
    assert started.wait() == [1]
    assert str(path) in started.err
    assert message in started.err
    assert started.err.count("\n") == 0
