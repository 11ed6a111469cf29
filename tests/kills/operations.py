"""Kills this process at one of its file operations, by Python's audit events, which come before an operation.

A kill before an operation is a kill after the last one, so every gap between two operations is hit.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Operations that change which names there are. A crash between two of them is the hardest to recover from.
NAMES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"}
OTHERS = {"open", "os.truncate"}
NO_DESCRIPTOR = (-1, None)


def count_operations(folder: str, log: str) -> None:
    """Write a letter to `log` for each operation of this process in `folder`: n for names, o for others."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    _watch(folder, lambda is_name: os.write(descriptor, b"n" if is_name else b"o"))


def signal_at(folder: str, number: int, names_only: bool, name: str, to_all: bool, marker: str) -> None:
    """Send a signal before operation `number`, counted from 0, in `folder`.

    Args:
        names_only: count operations on names only.
        name: of the signal, such as SIGKILL.
        to_all: send it to the whole process group, and not to this process alone.
        marker: a file that is made just before.
    """
    left = number

    def count(is_name: bool) -> None:
        nonlocal left
        if names_only and not is_name:
            return
        left -= 1
        if left == -1:
            Path(marker).touch()
            os.kill(0 if to_all else os.getpid(), signal.Signals[name])

    _watch(folder, count)


def _watch(folder: str, act: Callable[[bool], Any]) -> None:
    own = os.getpid()  # a forked worker inherits the hook

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if (event in NAMES or event in OTHERS) and os.getpid() == own and _is_in(folder, event, arguments):
            act(event in NAMES)

    sys.addaudithook(hook)


def _is_in(folder: str, event: str, arguments: tuple[Any, ...]) -> bool:
    if event in ("os.remove", "os.rmdir") and arguments[1] not in NO_DESCRIPTOR:
        return True  # of `shutil.rmtree`, which names a file by the descriptor of its folder
    path = arguments[0]
    return isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(folder)
