"""Checkpoints of a run: written whole or not at all, and checked before they are believed.

    runs/my-elmo/checkpoint-0000200/
        config.json, model.safetensors, vocab.txt ...     what `from_pretrained` loads
        training/optimizer.safetensors, rows.safetensors, progress.json
        manifest.json                                     each file's size and checksum, written last

A checkpoint is written under another name and renamed when it is complete, so that a kill at any moment, or a
full disk, leaves the one before it as it was.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from elmo_hf.files import MANIFEST, UNFINISHED, sha256, whole_folder, write_manifest
from elmo_hf.pretraining.log import LOG

PREFIX = "checkpoint-"


def save_checkpoint(run: Path, step: int, fill: Callable[[Path], None], keep: int) -> Path:
    """Writes a checkpoint and removes the oldest beyond `keep`."""
    folder = run / f"{PREFIX}{step:07d}"
    try:
        with whole_folder(folder) as unfinished:
            fill(unfinished)
            write_manifest(unfinished)
    except (OSError, SafetensorError) as error:
        others = [path.name for path in checkpoints(run)]
        left = f"{others[-1]} is as it was" if others else "there is no other"
        reason = getattr(error, "strerror", None) or str(error)
        raise OSError(
            f"the checkpoint of step {step} could not be written to {run} ({reason}); {left}."
        ) from error
    # Later ones are damaged, and do not count.
    so_far = [path for path in checkpoints(run) if number(path) <= step]
    for old in [*so_far[:-keep], *run.glob(f"{UNFINISHED}*")]:
        shutil.rmtree(old)
    return folder


def checkpoints(run: Path) -> list[Path]:
    """Oldest first."""
    found = [path for path in run.glob(f"{PREFIX}*") if path.is_dir() and number(path) >= 0]
    return sorted(found, key=number)


def number(path: Path) -> int:
    """The step, or -1 for what is no checkpoint."""
    text = path.name.removeprefix(PREFIX)
    return int(text) if text.isdecimal() else -1


def find_checkpoint(run: Path, resume: str, say: Callable[[str], None]) -> Path | None:
    """The one to go on from: `resume` is "no", "auto" for the newest if there is any, or a folder."""
    if resume == "no":
        if checkpoints(run) or (run / LOG).exists():
            raise ValueError(f"{run} holds a run; --resume auto goes on with it, or name another --output.")
        return None
    if resume == "auto":
        return latest_checkpoint(run, say)
    path = Path(resume)
    fault = fault_of(path)
    if fault is not None:
        raise ValueError(f"{resume} is no whole checkpoint: {fault}.")
    later = [other for other in checkpoints(run) if number(other) > number(path)]
    if later:
        raise ValueError(
            f"{later[-1]} is later than {resume}; move it away, or name another --output, so that the run "
            "has one end."
        )
    return path


def latest_checkpoint(run: Path, say: Callable[[str], None]) -> Path | None:
    """The newest that is whole; says so when it is not the newest one there."""
    found = checkpoints(run)
    for path in reversed(found):
        fault = fault_of(path)
        if fault is None:
            return path
        say(f"{path} is damaged ({fault}); going back to the checkpoint before it.")
    if found:
        raise ValueError(f"every checkpoint in {run} is damaged; move them away to start from the beginning.")
    return None


def fault_of(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = {str(name): (entry["bytes"], entry["sha256"]) for name, entry in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"it has no readable {MANIFEST}"
    for name, (size, checksum) in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} bytes in place of {size:,}"
        if sha256(path) != checksum:
            return f"{name} is not what was written"
    return None
