"""Files and folders that are written whole or not at all, and their checksums.

    with whole_file(path) as partial:
        partial.write_text(...)
    with whole_folder(path) as unfinished:
        model.save_pretrained(unfinished)

Both write under another name in the same folder and rename at the end, when every byte is on the disk. A kill
or a full disk leaves what was there before.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from elmo_hf.errors import ElmoError, reason_of

PARTIAL = ".partial"  # ends the name of an unfinished file
UNFINISHED = ".unfinished-"  # begins the name of an unfinished folder
MANIFEST = "manifest.json"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, which gets its final name when it is complete and on the disk."""
    partial = path.with_name(path.name + PARTIAL)
    try:
        yield partial
        flush(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill, which replaces `path` when every byte is on the disk."""
    path = path.resolve()
    above = next(parent for parent in path.parents if parent.exists())
    unfinished, replaced = above / (UNFINISHED + path.name), above / f"{UNFINISHED}{path.name}-old"
    if replaced.exists() and not path.exists():  # killed between the two renames below
        replaced.rename(path)
    for left in (unfinished, replaced):
        shutil.rmtree(left, ignore_errors=True)
    try:
        unfinished.mkdir()
        yield unfinished
        for written in [*unfinished.rglob("*"), unfinished]:
            flush(written)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            path.rename(replaced)
        unfinished.rename(path)
        flush(path.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """`whole_folder` for a target that must not hold anything yet."""
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise ElmoError(f"{target} exists and is not an empty folder; name another or remove it.")
        with whole_folder(target) as unfinished:
            yield unfinished
    except (OSError, SafetensorError) as error:
        raise ElmoError(f"{target} cannot be written ({reason_of(error)}); name another folder.") from error


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def flush(path: Path) -> None:
    """To the disk itself: after a power cut, a rename may be there and the renamed bytes not."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def checksum(path: Path) -> dict[str, int | str]:
    """A file's size and SHA-256, as manifests and model cards hold them."""
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def write_manifest(folder: Path) -> None:
    """`manifest.json`: the size and checksum of every file below `folder`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    entries = {path.relative_to(folder).as_posix(): checksum(path) for path in files}
    (folder / MANIFEST).write_text(json.dumps({"files": entries}, indent=1) + "\n", encoding="utf-8")
