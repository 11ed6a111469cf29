"""Which file is what, and a folder that is written whole or not at all."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from elmo_hf.convert.hdf5 import NotJson, check_readable, is_folder, is_hdf5, read_json, top_names
from elmo_hf.errors import ElmoError

logger = logging.getLogger(__name__)


@dataclass
class Files:
    weights: Path
    options: Path
    softmax: Path | None
    vocabulary: Path | None
    table: Path | None
    table_is_named: bool

    def log(self) -> None:
        for role in ("weights", "options", "softmax", "vocabulary", "table"):
            if getattr(self, role) is not None:
                logger.info("%s: %s", role, getattr(self, role))


def recognise(sources: Sequence[Path]) -> Files:
    """Sorts files by what is in them. In a folder other files do not matter; a file named by itself must."""
    named = [(role_of_named(path, sources), path) for path in sources if not is_folder(path)]
    found: list[tuple[str | None, Path]] = []
    faults: list[ElmoError] = []
    for path in (path for folder in sources if is_folder(folder) for path in list_files(folder)):
        try:
            found.append((role_of(path), path))
        except NotJson as fault:  # it may be anything, unless the options are not found elsewhere
            faults.append(fault)

    weights, options, softmax, vocabulary = (
        pick(role, [*named, *found]) for role in ("weights", "options", "softmax", "vocabulary")
    )
    table = pick("table", named)
    among = ", ".join(map(str, sources)) or "no files at all"
    if weights is None:
        raise ElmoError(f"there are no weights (HDF5 with 'RNN_0') in {among}; name the file.")
    if options is None:
        faults.append(ElmoError(f"there are no options (.json with 'lstm') in {among}; name the file."))
        raise faults[0]
    return Files(weights, options, softmax, vocabulary, table or pick("table", found), table is not None)


def list_files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise ElmoError(f"{folder} cannot be read ({error.strerror}); check its permissions.") from None


def role_of(path: Path) -> str | None:
    kind = path.suffix.lower()
    if kind in (".hdf5", ".h5") or is_hdf5(path):
        names = top_names(path)
        roles = {"weights": "RNN_0" in names, "softmax": "softmax" in names, "table": names == {"embedding"}}
        return next((role for role, fits in roles.items() if fits), None)
    if kind == ".json":
        content = read_json(path)
        return "options" if isinstance(content, dict) and "lstm" in content else None
    return "vocabulary" if kind == ".txt" and "vocab" in path.name.lower() else None


def role_of_named(path: Path, sources: Sequence[Path]) -> str:
    check_readable(path)
    role = role_of(path)
    if role is None and [other for other in sources if other.suffix.lower() == ".txt"] == [path]:
        role = "vocabulary"
    if role is None:
        raise ElmoError(
            f"{path} is no part of an ELMo; give weights (HDF5 with 'RNN_0'), a softmax (with 'softmax'), a "
            "word table (with only 'embedding'), options (.json with 'lstm') or a vocabulary (.txt)."
        )
    return role


def pick(role: str, candidates: Iterable[tuple[str | None, Path]]) -> Path | None:
    paths = list({path.resolve(): path for candidate, path in candidates if candidate == role}.values())
    if len(paths) > 1:
        raise ElmoError(f"{' and '.join(map(str, paths))} each look like the {role}; give only one.")
    return paths[0] if paths else None


# ---- all or nothing
