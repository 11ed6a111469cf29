"""Files from anywhere: whether they can be read, and which of them is what.

    roles = {"weights": "weights (HDF5 with 'RNN_0')", "options": "options (.json with 'lstm')"}
    files = recognise([Path("published-elmo")], roles, role_of)    # role_of(path) -> "weights", ... or None
    files.get("weights")

Published files have all sorts of names, so a format tells the role of a file by its content. This module
knows no format; each format brings its roles and its `role_of`.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elmo_hf.errors import ElmoError, reason_of

MAX_JSON_BYTES = 1_000_000
VOCABULARY = "vocabulary"  # the role of a .txt file that was named alone, whatever its name

RoleOf = Callable[[Path], str | None]


@contextmanager
def damage_in(
    place: str | Path,
    faults: tuple[type[BaseException], ...],
    fault: str = "is truncated or damaged",
    advice: str = "download or export the file again",
) -> Iterator[None]:
    """Turn whatever a library raises for a broken file into one sentence.

    Args:
        place: the file, or a place in it.
        faults: what the library raises.
    """
    try:
        yield
    except ElmoError:
        raise
    except faults as error:
        raise ElmoError(f"{place} {fault} ({reason_of(error):.200}); {advice}.") from error


class NotJson(ElmoError):
    """A .json file without JSON in it."""


def is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # no permission; `check_readable` says so
        return False


def check_readable(path: Path) -> None:
    """Raise one error for a missing file, another for a folder, and another for lacking permission."""
    try:
        if not path.exists():
            raise ElmoError(f"{path} does not exist; check its name.")
        if not path.is_file():
            raise ElmoError(f"{path} is not a file; give the file itself.")
        path.open("rb").close()
    except OSError as error:
        raise ElmoError(f"{path} cannot be read ({error.strerror}); check its permissions.") from None


def read_json(path: Path) -> Any:
    check_readable(path)
    if path.stat().st_size > MAX_JSON_BYTES:
        raise NotJson(
            f"{path} has more than {MAX_JSON_BYTES:,} bytes, too many for options; give another file."
        )
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise NotJson(f"{path} is not JSON ({reason_of(error)}); download or write it again.") from None


@dataclass(frozen=True)
class Recognised:
    """The files of a format, each with its role."""

    sources: Sequence[Path]  # files and folders that the caller named
    roles: Mapping[str, str]  # role -> its description
    named: list[tuple[str, Path]]  # files that the caller named
    listed: list[tuple[str, Path]]  # files in the folders that the caller named
    not_json: list[NotJson]  # errors of .json files in those folders

    def get(self, role: str) -> Path | None:
        """The file with this role, or None. Two files with one role are an error."""
        return _only(role, [*self.named, *self.listed])

    def get_named(self, role: str) -> Path | None:
        return _only(role, self.named)

    def all(self, role: str) -> list[Path]:
        """Every file with this role: those that the caller named or, if there are none, those listed."""
        named = [path for candidate, path in self.named if candidate == role]
        return named or [path for candidate, path in self.listed if candidate == role]

    def has_named(self, role: str) -> bool:
        return any(candidate == role for candidate, _ in self.named)

    def missing(self, *roles: str) -> ElmoError:
        """The error of a needed file that is not there, in one of these roles."""
        descriptions = [self.roles[role] for role in roles]
        if self.not_json and any(".json" in text for text in descriptions):
            return self.not_json[0]  # that file may have been meant for it
        places = ", ".join(map(str, self.sources)) or "no files at all"
        return ElmoError(f"there are no {' or '.join(descriptions)} in {places}; name the file.")


def recognise(sources: Sequence[Path], roles: Mapping[str, str], role_of: RoleOf) -> Recognised:
    """Sort files by their roles. Other files may lie in a folder; a file that is named must have a role."""
    named = [(_role_of_named(path, sources, roles, role_of), path) for path in sources if not is_folder(path)]
    listed: list[tuple[str, Path]] = []
    not_json: list[NotJson] = []
    for path in (path for folder in sources if is_folder(folder) for path in list_files(folder)):
        try:
            role = role_of(path)
        except NotJson as error:  # it matters only if the options are not found elsewhere
            not_json.append(error)
            continue
        if role is not None:
            listed.append((role, path))
    return Recognised(sources, roles, named, listed, not_json)


VARIABLES = "variables"  # the folder of a SavedModel that holds its weights


def list_files(folder: Path) -> list[Path]:
    """The files of a folder, and those of a SavedModel's variables in it."""
    try:
        paths = list(folder.iterdir())
        if (folder / VARIABLES).is_dir():
            paths += (folder / VARIABLES).iterdir()
        return sorted(path for path in paths if path.is_file())
    except OSError as error:
        raise ElmoError(f"{folder} cannot be read ({error.strerror}); check its permissions.") from None


def _role_of_named(path: Path, sources: Sequence[Path], roles: Mapping[str, str], role_of: RoleOf) -> str:
    check_readable(path)
    role = role_of(path)
    if role is None and [source for source in sources if source.suffix.lower() == ".txt"] == [path]:
        role = VOCABULARY
    if role is None:
        *descriptions, last = roles.values()
        raise ElmoError(f"{path} is not a file of an ELMo; give {', '.join(descriptions)} or {last}.")
    return role


def _only(role: str, candidates: Sequence[tuple[str, Path]]) -> Path | None:
    paths = distinct([path for candidate, path in candidates if candidate == role])
    if len(paths) > 1:
        raise ElmoError(f"{' and '.join(map(str, paths))} each look like the {role}; give only one.")
    return paths[0] if paths else None


def distinct(paths: Sequence[Path]) -> list[Path]:
    """Without those that lead to the same file."""
    return list({os.path.realpath(path): path for path in paths}.values())  # which bears a link to itself
