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

import ctypes
import errno
import hashlib
import json
import os
import platform
import shutil
import stat
import sys
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
REPLACED = "-old"  # ends the name of a folder that an unfinished one is about to replace
MANIFEST = "manifest.json"
LONGEST_LINE = 2**26  # of JSON lines: an audit's entry has 30 bytes for each sentence that a step begins
LOCK = ".elmo_hf.lock"  # in a folder in which a program works


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, which gets its final name when it is complete and on the disk."""
    partial = path.with_name(path.name + PARTIAL)
    remove(partial)
    try:
        yield partial
        flush(partial)
        partial.replace(path)
    except BaseException as error:
        with suppress(OSError):
            remove(partial)
        if isinstance(error, OSError) and error.filename in (None, str(partial)):
            error.filename = str(path)  # a failing write does not know it, and nobody knows the other name
        raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill, which replaces `path` when every byte is on the disk."""
    path = path.parent.resolve() / path.name if path.is_symlink() else path.resolve()  # a link is replaced
    above = next(parent for parent in path.parents if parent.exists())
    unfinished, replaced = above / (UNFINISHED + path.name), above / (UNFINISHED + path.name + REPLACED)
    for left in (unfinished, replaced):
        clear_unfinished(left)
    try:
        unfinished.mkdir()
        yield unfinished
        for written in [*unfinished.rglob("*"), unfinished]:
            apply_umask(written)
            flush(written)
        path.parent.mkdir(parents=True, exist_ok=True)
        _put(unfinished, path, replaced)
        flush(path.parent)
        remove(unfinished)
        remove(replaced)
    except BaseException as error:
        with suppress(OSError):
            remove(unfinished)
        if isinstance(error, SafetensorError):  # a full disk, which is no OSError there
            raise OSError(errno.EIO, reason_of(error), str(path)) from error
        raise


def apply_umask(path: Path) -> None:
    """Let others read a file if they may read its folder; safetensors makes files for their owner alone."""
    if path.is_file() and not path.is_symlink():
        path.chmod(path.parent.stat().st_mode & 0o666)


def _put(unfinished: Path, path: Path, replaced: Path) -> None:
    """Give a folder its name. What had it gets one of the other two names."""
    if os.path.lexists(path):
        if _exchange(unfinished, path):
            return
        path.rename(replaced)
    unfinished.rename(path)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two names in one step, by Linux's renameat2; False where there is no such call."""
    if sys.platform != "linux":
        return False
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of linux/fcntl.h and linux/fs.h
    try:
        call = ctypes.CDLL(None).renameat2
    except AttributeError:  # an old C library
        return False
    return bool(call(here, os.fsencode(first), here, os.fsencode(second), exchange) == 0)


def clear_unfinished(path: Path) -> None:
    """Remove what a kill has left under an unfinished name. A folder that was to be replaced gets its name
    back if the new one has not got it yet."""
    name = path.name.removeprefix(UNFINISHED).removesuffix(REPLACED)
    if path.name.endswith(REPLACED) and path.is_dir() and not os.path.lexists(path.with_name(name)):
        path.rename(path.with_name(name))
    remove(path)


def remove(path: Path) -> None:
    """Remove a file, a folder with its content, or a link, but not what it leads to; nothing may be there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """`whole_folder` for a target that must not hold anything yet."""
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise ElmoError(f"{target} exists and is not an empty folder; name another or remove it.")
        with whole_folder(target) as unfinished:
            yield unfinished
    except OSError as error:
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
        descriptor = _open_lock(path)
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


def _open_lock(path: Path) -> int:
    """A link, also a hard one, could lead to any file, which would be overwritten."""
    descriptor = open_plain(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0))
    if os.fstat(descriptor).st_nlink > 1:
        os.close(descriptor)
        raise ElmoError(f"{path} is not a plain file; remove it.")
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


# ---- reading and appending


def open_plain(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a plain file, for its descriptor: no pipe, which makes a program wait, and no endless device.

    Raises:
        ElmoError: it is no plain file. With O_NOFOLLOW, a link is none.
        OSError: it cannot be opened.
    """
    try:
        descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o644)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR):
            raise
        raise ElmoError(f"{path} is not a plain file; remove it.") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ElmoError(f"{path} is not a plain file; remove it.")
    return descriptor


def read_lines(path: Path) -> Iterator[bytes]:
    """The lines of a plain file, with their ends; ElmoError for a line that no program of ours writes."""
    try:
        with os.fdopen(open_plain(path), "rb") as file:
            number = 0
            while line := file.readline(LONGEST_LINE):
                number += 1
                if len(line) == LONGEST_LINE:
                    raise ElmoError(f"{path}, line {number} has more than {LONGEST_LINE:,} bytes.")
                yield line
    except OSError as error:
        raise ElmoError(f"{path} cannot be read ({reason_of(error)}).") from error


def read_bytes(path: Path, limit: int, follow_links: bool = True) -> bytes:
    """The content of a plain file that may have so many bytes; ElmoError if it has more, or is another."""
    flags = os.O_RDONLY if follow_links else os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)
    try:
        with os.fdopen(open_plain(path, flags), "rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise ElmoError(f"{path} cannot be read ({reason_of(error)}).") from error
    if len(content) > limit:
        raise ElmoError(f"{path} has more than {limit:,} bytes.")
    return content


def read_json(path: Path, limit: int = 2**24) -> Any:
    """The content of a JSON file; ElmoError if it is anything else."""
    content = read_bytes(path, limit)
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        raise ElmoError(f"{path} is no JSON; it is damaged.") from None


def append_line(path: Path, line: str) -> None:
    """Append a whole line or nothing: on a full disk, half a line would spoil the next."""
    content = line.encode("utf-8") + b"\n"
    try:
        with path.open("ab", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            try:
                while content:  # a disk that is nearly full takes a part, and then says so
                    content = content[file.write(content) :]
            except OSError:
                file.truncate(size)
                raise
    except OSError as error:
        raise ElmoError(f"{path} cannot be written ({reason_of(error)}); make room and resume.") from error


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
    update_digest(digest, path)
    return digest.hexdigest()


def update_digest(digest: Any, path: Path) -> None:
    """Add a file's content to a digest of `hashlib`, a piece at a time."""
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)


def checksum(path: Path) -> dict[str, int | str]:
    """A file's size and SHA-256, as manifests and model cards hold them."""
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def write_manifest(folder: Path) -> None:
    """`manifest.json`: the size and checksum of every file below `folder`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    entries = {path.relative_to(folder).as_posix(): checksum(path) for path in files}
    (folder / MANIFEST).write_text(json.dumps({"files": entries}, indent=1) + "\n", encoding="utf-8")
