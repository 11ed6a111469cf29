"""Checkpoints are written whole or not at all; which one a run resumes from."""

import pytest

from elmo_hf.files import whole_folder
from elmo_hf.pretraining.checkpoints import (
    checkpoints,
    find_checkpoint,
    find_damage,
    save_checkpoint,
)


def fill(folder, text="weights"):
    (folder / "training").mkdir()
    for name in ("rows.safetensors", "optimizer.safetensors", "progress.json"):
        (folder / "training" / name).write_text(text, encoding="utf-8")


def names(run):
    return sorted(path.name for path in run.iterdir())


def find(run, resume="auto"):
    warnings = []
    return find_checkpoint(run, resume, warnings.append), warnings


def test_the_last_checkpoints_are_kept(tmp_path):
    for step in (5, 10, 100, 20_000_000):
        save_checkpoint(tmp_path, step, fill, keep=2)
    assert names(tmp_path) == ["checkpoint-0000100", "checkpoint-20000000"]
    assert [path.name for path in checkpoints(tmp_path)] == names(tmp_path)
    assert find(tmp_path) == (tmp_path / "checkpoint-20000000", [])


def test_checkpoints_of_every_so_many_steps_are_kept(tmp_path):
    for step in range(5, 45, 5):
        save_checkpoint(tmp_path, step, fill, keep=2, keep_every=10)
    assert [int(name[-7:]) for name in names(tmp_path)] == [10, 20, 30, 35, 40]


def test_a_failed_write_leaves_nothing(tmp_path):
    save_checkpoint(tmp_path, 5, fill, keep=2)

    def fail(folder):
        fill(folder)
        raise OSError(28, "No space left on device")

    with pytest.raises(
        OSError, match=r"step 6 could not be written .*No space left.*checkpoint-0000005 is as"
    ):
        save_checkpoint(tmp_path, 6, fail, keep=2)
    with pytest.raises(OSError, match="No space"), whole_folder(tmp_path / "checkpoint-0000005") as folder:
        fail(folder)
    assert names(tmp_path) == ["checkpoint-0000005"]
    assert find_damage(tmp_path / "checkpoint-0000005") is None


def test_a_folder_is_replaced_whole(tmp_path):
    with whole_folder(tmp_path / "final") as folder:
        fill(folder)
    with whole_folder(tmp_path / "final") as folder:
        fill(folder, "better")
    assert names(tmp_path) == ["final"]
    assert (tmp_path / "final" / "training" / "rows.safetensors").read_text(encoding="utf-8") == "better"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "training/rows.safetensors is missing"),
        (lambda path: path.write_text("weight", encoding="utf-8"), "has 6 bytes in place of 7"),
        (lambda path: path.write_text("Weights", encoding="utf-8"), "is not what was written"),
        (
            lambda path: (path.parent.parent / "manifest.json").write_text("{", encoding="utf-8"),
            "no readable",
        ),
    ],
    ids=["missing", "shorter", "changed", "manifest"],
)
def test_a_damaged_checkpoint_is_skipped(tmp_path, damage, message):
    for step in (5, 6):
        save_checkpoint(tmp_path, step, fill, keep=2)
    damage(tmp_path / "checkpoint-0000006" / "training" / "rows.safetensors")
    checkpoint, (warning,) = find(tmp_path)
    assert checkpoint == tmp_path / "checkpoint-0000005"
    assert message in warning
    damage(tmp_path / "checkpoint-0000005" / "training" / "rows.safetensors")
    with pytest.raises(ValueError, match=r"every checkpoint in .* is damaged"):
        find(tmp_path)


def test_resuming_from_a_folder(tmp_path):
    for step in (5, 6):
        save_checkpoint(tmp_path, step, fill, keep=2)
    with pytest.raises(ValueError, match="checkpoint-0000006 is later than"):
        find(tmp_path, str(tmp_path / "checkpoint-0000005"))
    assert find(tmp_path, str(tmp_path / "checkpoint-0000006")) == (tmp_path / "checkpoint-0000006", [])
    assert find(tmp_path / "other", str(tmp_path / "checkpoint-0000005"))[0] is not None
    with pytest.raises(ValueError, match="holds a run"):
        find(tmp_path, "no")
