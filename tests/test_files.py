"""Files and folders that are written whole or not at all, and errors of one sentence."""

import json

import pytest

from elmo_hf.errors import ElmoError, one_sentence, reason_of
from elmo_hf.files import checksum, new_folder, whole_file, whole_folder, write_json, write_manifest


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def fill(folder, text="new"):
    (folder / "sub").mkdir()
    (folder / "sub" / "weights").write_text(text, encoding="utf-8")


def text_of(folder):
    return (folder / "sub" / "weights").read_text(encoding="utf-8")


def break_off(context, work):
    """Something goes wrong after the work, before all is written."""
    with context as place:
        work(place)
        raise RuntimeError


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError):
        break_off(whole_file(path), lambda partial: partial.write_text("half", encoding="utf-8"))
    assert names(tmp_path) == ["a.json"]
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": 1}


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    with whole_folder(tmp_path / "deep" / "final") as folder:
        fill(folder, "old")
    with pytest.raises(RuntimeError):
        break_off(whole_folder(tmp_path / "deep" / "final"), fill)
    assert names(tmp_path / "deep") == ["final"]
    assert text_of(tmp_path / "deep" / "final") == "old"
    with whole_folder(tmp_path / "deep" / "final") as folder:
        fill(folder)
    assert names(tmp_path / "deep") == ["final"]
    assert text_of(tmp_path / "deep" / "final") == "new"


@pytest.mark.parametrize(
    "left", [[".unfinished-final"], [".unfinished-final-old"], [".unfinished-final", ".unfinished-final-old"]]
)
def test_what_a_kill_has_left_is_no_obstacle(tmp_path, left):
    for name in ["final", *left]:
        (tmp_path / name).mkdir()
        fill(tmp_path / name, "old")
    with whole_folder(tmp_path / "final") as folder:
        fill(folder)
    assert names(tmp_path) == ["final"]
    assert text_of(tmp_path / "final") == "new"


def test_a_kill_between_the_renames_loses_nothing(tmp_path):
    """The old folder has been renamed, and the new one not yet."""
    (tmp_path / ".unfinished-final-old").mkdir()
    fill(tmp_path / ".unfinished-final-old", "old")
    with pytest.raises(RuntimeError):
        break_off(whole_folder(tmp_path / "final"), fill)
    assert names(tmp_path) == ["final"]
    assert text_of(tmp_path / "final") == "old"


def test_a_new_folder_must_be_new(tmp_path):
    (tmp_path / "used").mkdir()
    fill(tmp_path / "used", "old")
    with pytest.raises(ElmoError, match="is not an empty folder"), new_folder(tmp_path / "used"):
        pass
    with (
        pytest.raises(ElmoError, match=r"cannot be written \(No space left\)"),
        new_folder(tmp_path / "deep" / "new"),
    ):
        raise OSError(28, "No space left")
    assert names(tmp_path) == ["used"]
    assert text_of(tmp_path / "used") == "old"


def test_a_manifest_has_every_file(tmp_path):
    fill(tmp_path)
    write_manifest(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    assert manifest == {"files": {"sub/weights": checksum(tmp_path / "sub" / "weights")}}
    assert manifest["files"]["sub/weights"]["bytes"] == 3


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device", "a"), "No space left on device"),
        (ValueError("It is cut off. Download it again.\nOr not."), "It is cut off"),
        (ValueError("one line\nand more"), "one line"),
        (KeyError("weights"), "weights"),
        (ValueError(), "ValueError"),
    ],
)
def test_the_reason_of_an_error_is_short(error, reason):
    assert reason_of(error) == reason


@pytest.mark.parametrize("error", [ElmoError("no model."), ValueError("no model."), OSError("no model.")])
def test_a_command_ends_with_one_sentence(error, capsys):
    with pytest.raises(SystemExit) as end, one_sentence("elmo-hf"):
        raise error
    assert end.value.code == 1
    assert capsys.readouterr().err == "elmo-hf: no model.\n"


def test_faults_of_the_program_are_not_hidden():
    with pytest.raises(ZeroDivisionError), one_sentence("elmo-hf"):
        raise ZeroDivisionError
