"""Files and folders that are written whole or not at all, and their checksums.

    with whole_file(path) as partial:
        partial.write_text(...)
    with whole_folder(path) as unfinished:
        model.save_pretrained(unfinished)
    with locked_folder(path):
        ...

The first two write under another name in the same folder and rename at the end, when every byte is on the
disk. A kill or a full disk leaves what was there before. The third keeps a second program out of a folder.
"""

import hashlib
import json
import os
import platform
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from elmo_hf.errors import ElmoError, program_name, reason_of, warn

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PARTIAL = ".partial"  # ends the name of an unfinished file
UNFINISHED = ".unfinished-"  # begins the name of an unfinished folder
MANIFEST = "manifest.json"
LOCK = ".elmo_hf.lock"  # in a folder in which a program works


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


# ---- one program in a folder

# The lock is flock's. The system frees it when the process ends, however it ends; a file without a lock means
# nothing. A lock of lockf would not keep out a second thread, and would end as soon as the process opens and
# closes the file anywhere else. But flock's belongs to forked processes too, such as workers that outlive a
# killed parent by some seconds; so a forked process closes its descriptors at once.
_held: set[int] = set()  # descriptors of this process's locks


def _leave_to_parent() -> None:
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if fcntl is not None:
    os.register_at_fork(after_in_child=_leave_to_parent)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Make a folder, if it is missing, and keep other programs that ask for its lock out of it.

    Of several processes that work together, one holds the lock for all. Where the system has no locks
    (Windows, some network drives), a warning says so. A folder that was made and is still empty is removed.

    Raises:
        ElmoError: another program works in the folder, or nothing can be written there.
    """
    folder, process, made = folder.absolute(), os.getpid(), []
    try:
        made = [path for path in [folder, *folder.parents] if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _lock(folder)
    except OSError as error:
        _remove_empty(made)
        raise ElmoError(f"{folder} cannot be written ({reason_of(error)}); name another folder.") from error
    _held.add(descriptor)
    try:
        yield
    finally:
        if os.getpid() == process:  # not a fork that ends inside the block
            with suppress(OSError):
                if _is_at(folder / LOCK, descriptor):
                    (folder / LOCK).unlink()  # while it is locked, so that it is not the next holder's
            _held.remove(descriptor)
            os.close(descriptor)
            _remove_empty(made)


def _lock(folder: Path) -> int:
    """The descriptor of the folder's lock file, which holds the lock."""
    path = folder / LOCK
    while True:
        descriptor = _open_plain(path)
        try:
            _take(descriptor, folder)
            if _is_at(path, descriptor):  # otherwise the last holder has just removed it
                holder = {"process": os.getpid(), "host": platform.node(), "program": program_name()}
                holder["since"] = time.strftime("%Y-%m-%d %H:%M:%S")
                os.truncate(descriptor, 0)
                os.write(descriptor, json.dumps(holder).encode())
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _open_plain(path: Path) -> int:
    """Open a file that nobody has made a way to another file, or a pipe that waits for a reader."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise ElmoError(f"{path} is not a plain file, as this program writes it; remove it.")
    descriptor = os.open(path, flags, 0o644)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(descriptor)
        raise ElmoError(f"{path} is not a plain file, as this program writes it; remove it.")
    return descriptor


def _take(descriptor: int, folder: Path) -> None:
    try:
        if fcntl is None:
            raise OSError("the system has none")
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ElmoError(
            f"{folder} is in use by {_holder(descriptor)}; wait until it has ended, or name another folder."
        ) from None
    except OSError as error:
        warn(f"{folder} cannot be locked ({reason_of(error)}); start no second program there.")


def _holder(descriptor: int) -> str:
    """Who holds the lock by the file's content, which is believed as little as any file's."""
    try:
        entries = json.loads(os.pread(descriptor, 1000, 0))
        process, host, program, since = (
            str(entries[name])[:60] for name in ("process", "host", "program", "since")
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        return "another program"
    text = f"process {process} on {host} ({program}, since {since})"
    return "".join(letter for letter in text if letter.isprintable())


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _remove_empty(folders: list[Path]) -> None:
    with suppress(OSError):  # not empty
        for folder in folders:
            folder.rmdir()


# ---- JSON and checksums


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
