"""Damage to a folder: pipes, links, loops, folders and endless files in place of files, odd names."""

import os
import shutil
from pathlib import Path
from random import Random

SPARSE = 3 << 30
NAMES = [
    "a\nb",
    " ",
    "-rf",
    "x" * 200,
    "ä",
    "日本",
    b"\xff\xfe",
    "...",
    "a'b",
    'a"b',
    "$(touch CANARY)",
    "con",
]
NAMES += ["<script>"]


def damage(rng: Random, folder: Path, outside: Path | None, files: list[str] | None = None) -> str:
    """outside: where links may lead; None if a link that somebody made is followed. files: those worth
    damaging, by their names in the folder; all by default."""
    names = files or sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    path = folder / rng.choice(names)
    changes = [remove, empty, make_folder, make_pipe, link_to_itself, link_nowhere, link_device, rename]
    changes += [add_names, link_other, hard_link, many_files, link_loop]
    if outside is not None:
        changes += [link_outside, link_outside, link_file_outside]
    change = sparse if rng.random() < 0.03 else rng.choice(changes)
    change(rng, path, outside or folder)
    return f"{path.relative_to(folder)}: {change.__name__}"


def remove(rng: Random, path: Path, outside: Path) -> None:
    path.unlink(missing_ok=True)


def empty(rng: Random, path: Path, outside: Path) -> None:
    path.write_bytes(rng.choice([b"", b"\n", b"\0", b" " * 100_000]))


def make_folder(rng: Random, path: Path, outside: Path) -> None:
    path.unlink()
    path.mkdir()
    if rng.random() < 0.5:
        (path / path.name).write_text("x")


def make_pipe(rng: Random, path: Path, outside: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link_outside(rng: Random, path: Path, outside: Path) -> None:
    """A link to the secret of the same kind, absolute or relative."""
    same = [other for other in sorted(outside.iterdir()) if other.suffix == path.suffix]
    target = rng.choice(same or sorted(outside.iterdir()))
    path.unlink()
    path.symlink_to(target if rng.random() < 0.5 else os.path.relpath(target, path.parent))


def link_file_outside(rng: Random, path: Path, outside: Path) -> None:
    """Another file of the folder is a link."""
    target = rng.choice(sorted(outside.iterdir()))
    (path.parent / f"extra{target.suffix}").symlink_to(target)


def link_to_itself(rng: Random, path: Path, outside: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def link_nowhere(rng: Random, path: Path, outside: Path) -> None:
    path.unlink()
    path.symlink_to(rng.choice(["nothing", "/nowhere/at/all", "x" * 255, "../" * 20 + "nothing"]))


def link_device(rng: Random, path: Path, outside: Path) -> None:
    path.unlink()
    path.symlink_to(
        rng.choice(["/dev/zero", "/dev/null", "/dev/urandom", "/dev/full", "/proc/self/mem", "/dev/stdin"])
    )


def link_loop(rng: Random, path: Path, outside: Path) -> None:
    """A folder that contains itself."""
    (path.parent / "loop").symlink_to(path.parent if rng.random() < 0.5 else "..")


def link_other(rng: Random, path: Path, outside: Path) -> None:
    """Two names of one file inside, or of two kinds."""
    others = [other for other in sorted(path.parent.iterdir()) if other != path]
    if others:
        path.unlink()
        path.symlink_to(rng.choice(others).name)


def hard_link(rng: Random, path: Path, outside: Path) -> None:
    os.link(path, path.with_name("again" + path.suffix))


def rename(rng: Random, path: Path, outside: Path) -> None:
    path.rename(
        path.with_name(rng.choice([path.name + ".bak", path.name.upper(), path.stem, "." + path.name]))
    )


def add_names(rng: Random, path: Path, outside: Path) -> None:
    name = rng.choice(NAMES)
    name = os.fsencode(name) + rng.choice([b"", os.fsencode(path.suffix)])
    with open(os.path.join(os.fsencode(path.parent), name), "wb") as file:  # noqa: PTH123, PTH118
        file.write(path.read_bytes()[: rng.choice([0, 100, 1 << 20])])


def many_files(rng: Random, path: Path, outside: Path) -> None:
    for number in range(rng.choice([3, 200])):
        shutil.copyfile(path, path.with_name(f"{path.stem}-{number}{path.suffix}"))


def sparse(rng: Random, path: Path, outside: Path) -> None:
    """Gigabytes that take no space on the disk; zeros at its end, or nothing else."""
    with path.open(rng.choice(["ab", "wb"])) as file:
        file.truncate(SPARSE)
