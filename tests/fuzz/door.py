"""A door: a way into the package for files from anywhere. A case: one damaged file, or folder, at a door."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Case:
    """One damaged input: `input` holds it, `output` is where results may be written."""

    folder: Path
    outside: Path  # holds files with a marker, which nothing may read
    number: int
    rng: random.Random

    @property
    def input(self) -> Path:
        return self.folder / "in"

    @property
    def output(self) -> Path:
        return self.folder / "out"


@dataclass(frozen=True)
class Door:
    """prepare: writes a good input into an empty folder. damage: makes a bad one of it, and says how. enter:
    reads it as a command does, and returns what it read. may_write: patterns of what may be written beside
    `out/`, such as "in/README.md"; it may be there after a refusal as well. places: words that say where a
    mistake is as well as a file's name does, such as settings. follows_links: whether a file may be a link
    that leads outside, as somebody's own links do."""

    name: str
    prepare: Callable[[Path], object]
    damage: Callable[[Case], str]
    enter: Callable[[Case], object]
    may_write: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    follows_links: bool = True


class Refusal(Exception):
    """A command's exit code 1 with this sentence on stderr, for doors that run a whole command."""


class Fault(Exception):
    """What a door finds wrong with what was accepted: the kind of the fault, and a sentence."""
