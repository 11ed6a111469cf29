"""Checkpoints of a run: written whole or not at all, and verified before they are used.

    runs/my-elmo/checkpoint-0000200/
        config.json, model.safetensors, vocab.txt ...     what `from_pretrained` loads
        training/optimizer.safetensors                    the optimizer's state
        training/rows.safetensors                         epoch and LSTM states of every row of the batch
        training/progress.json                            counters, settings, the position in the text
        manifest.json                                     each file's size and checksum, written last

A checkpoint gets its name when it is complete, so a kill or a full disk leaves the one before it intact.
"""

import os
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from elmo_hf.errors import ElmoError, reason_of, warn
from elmo_hf.files import (
    MANIFEST,
    UNFINISHED,
    clear_unfinished,
    open_plain,
    read_json,
    remove,
    sha256,
    whole_folder,
    write_manifest,
)
from elmo_hf.pretraining.log import LOG
from elmo_hf.pretraining.progress import PREFIX, PROGRESS, TRAINING, step_of

OPTIMIZER, ROWS = f"{TRAINING}/optimizer.safetensors", f"{TRAINING}/rows.safetensors"


def save_checkpoint(
    run: Path, step: int, fill: Callable[[Path], None], keep: int, keep_every: int = 0
) -> Path:
    """Write a checkpoint, and remove the oldest ones beyond `keep`.

    Args:
        run: the run's folder.
        fill: writes the files into the folder that it is called with.
        keep_every: checkpoints of every so many steps stay as well; 0 for none.

    Raises:
        OSError: it could not be written; earlier checkpoints are unchanged.
    """
    folder = run / f"{PREFIX}{step:07d}"
    try:
        with whole_folder(folder) as unfinished:
            fill(unfinished)
            write_manifest(unfinished)
    except OSError as error:
        names = [path.name for path in checkpoints(run)]
        others = f"{names[-1]} is as it was" if names else "there is no other"
        raise OSError(
            f"the checkpoint of step {step} could not be written to {run} ({reason_of(error)}); {others}."
        ) from error
    # Checkpoints of later steps are damaged, or the run would have resumed there; they do not count.
    earlier = [path for path in checkpoints(run) if step_of(path) <= step]
    for old in earlier[:-keep]:
        if keep_every and step_of(old) % keep_every == 0:
            continue
        try:
            remove(old)
        except OSError as error:  # no reason to end a run
            warn(f"{old} cannot be removed ({reason_of(error)}); remove it by hand.")
    return folder


def clear_strays(run: Path) -> None:
    """Remove what a kill has left half written. Nobody else may be working in the folder."""
    for path in run.glob(f"{UNFINISHED}*"):
        try:
            clear_unfinished(path)
        except OSError as error:
            raise ElmoError(f"{path} cannot be removed ({reason_of(error)}); remove it by hand.") from error


def checkpoints(run: Path) -> list[Path]:
    """Return the folders of all checkpoints, by step."""
    folders = [path for path in run.glob(f"{PREFIX}*") if path.is_dir() and step_of(path) >= 0]
    return sorted(folders, key=step_of)


def find_checkpoint(run: Path, resume: str, warn: Callable[[str], None]) -> Path | None:
    """Return the checkpoint to resume from.

    Args:
        resume: "no", "auto" for the newest intact checkpoint, if there is any, or a checkpoint's folder.
        warn: called with a sentence for each newer checkpoint that is damaged.

    Raises:
        ElmoError: the checkpoint is damaged, or the folder holds a run that this one would overwrite.
    """
    if resume == "no":
        if checkpoints(run) or (run / LOG).exists():
            raise ElmoError(f"{run} holds a run; --resume auto continues it, or name another --output.")
        return None
    if resume == "auto":
        return latest_checkpoint(run, warn)
    path = Path(resume)
    damage = find_damage(path)
    if damage is not None:
        raise ElmoError(f"{resume} is not an intact checkpoint: {damage}.")
    later = [other for other in checkpoints(run) if step_of(other) > step_of(path)]
    if later:
        raise ElmoError(f"{later[-1]} is later than {resume}; move it away, or name another --output.")
    return path


def latest_checkpoint(run: Path, warn: Callable[[str], None]) -> Path | None:
    """Return the newest intact checkpoint, with a warning for each damaged one after it."""
    damages: dict[Path, str] = {}
    for path in reversed(checkpoints(run)):
        damage = find_damage(path)
        if damage is None:
            for other, its_damage in damages.items():
                warn(f"{other} is damaged ({its_damage}); going back to the checkpoint before it.")
            return path
        damages[path] = damage
    if damages:
        newest, damage = next(iter(damages.items()))
        raise ElmoError(
            f"every checkpoint in {run} is damaged ({newest.name}: {damage}); move them away to start from "
            "the beginning."
        )
    return None


def find_damage(folder: Path) -> str | None:
    """Compare a checkpoint with its manifest; return the first difference, or None if it is intact."""
    try:
        manifest = read_json(folder / MANIFEST)
        files = {name: (int(entry["bytes"]), entry["sha256"]) for name, entry in manifest["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return f"it has no readable {MANIFEST}"
    if missing := sorted({OPTIMIZER, ROWS, PROGRESS} - files.keys()):
        return f"{missing[0]} is missing from its {MANIFEST}"
    for name, (size, checksum) in files.items():
        if "\0" in name:
            return f"{name!r:.60} of its {MANIFEST} is no name of a file"
        path = folder / name
        if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
            return f"{name!r:.60} of its {MANIFEST} is outside the folder"
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} bytes in place of {size:,}"
        if sha256(path) != checksum:
            return f"{name} is not what was written"
    return None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, which holds nothing that could run."""
    try:
        os.close(open_plain(path))
        return load_file(path)
    except ElmoError:
        raise
    except Exception as error:  # of the library, for a damaged file
        raise ElmoError(f"{path} cannot be read ({reason_of(error)}); it is damaged.") from error
