"""Imports point down: a room imports only rooms below it, and what travels to the Hub imports flat."""

import ast
from pathlib import Path

import pytest

from tests.helpers.paths import REPOSITORY

SOURCE = REPOSITORY / "src" / "elmo_hf"
# From the ground up. A room may import any room before it in this list, and none after it.
ROOMS = [
    *("errors", "files", "remote", "threads", "metrics", "kernels", "model", "loading", "scripts"),
    *("corpus", "convert"),
    *("embedding", "demo", "hub", "export", "pretraining", "finetuning"),
    *("auto", "__init__", "options", "spacy", "cli", "__main__"),
]
FILES = sorted(SOURCE.rglob("*.py"))
NAMES = [path.relative_to(SOURCE).as_posix() for path in FILES]


def room_of(path: Path) -> str:
    """The folder or file directly below `elmo_hf` that a path lies in."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> list[tuple[str, bool]]:
    """(module of ours, whether the import is flat: `from .name import ...`) for every import in a file."""
    package = ["elmo_hf", *path.relative_to(SOURCE).parent.parts]
    modules = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules += [(alias.name, False) for alias in node.names if alias.name.split(".")[0] == "elmo_hf"]
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            modules.append((".".join([*base, node.module or ""]).rstrip("."), node.level == 1))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "elmo_hf":
            modules += [(f"{node.module}.{alias.name}", False) for alias in node.names]
    return modules


def imported_rooms(path: Path) -> set[str]:
    """The other rooms that a file imports; `from elmo_hf import ElmoModel` imports the package itself."""
    rooms = set()
    for module, _ in imported_modules(path):
        first = [*module.split("."), "__init__"][1]
        rooms.add(first if first in ROOMS else "__init__")
    return rooms - {room_of(path)}


def test_every_file_is_in_a_room():
    assert {room_of(path) for path in FILES} == set(ROOMS)


@pytest.mark.parametrize("name", NAMES)
def test_imports_point_down(name):
    path = SOURCE / name
    above = ROOMS[ROOMS.index(room_of(path)) :]
    # Files that need the whole package at run time, such as `elmo_hf.TINY`, import it inside a function.
    assert not imported_rooms(path) & set(above), f"{name} imports {imported_rooms(path) & set(above)}"


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("model/")])
def test_files_copied_to_the_hub_import_flat(name):
    """`save_pretrained` copies siblings that are imported as `from .name import ...`, and nothing else."""
    for module, is_flat in imported_modules(SOURCE / name):
        # `from elmo_hf import kernels` inside `try` does without the package where only the Hub's copy is.
        assert is_flat or module == "elmo_hf.kernels", f"{name} imports {module}"


def test_kernels_import_nothing_of_ours():
    for path in (SOURCE / "kernels").glob("*.py"):
        assert imported_rooms(path) == set()


def test_the_parser_of_this_test_sees_imports():
    """Were it blind, every test here would pass."""
    modules = {module for module, _ in imported_modules(SOURCE / "model" / "modeling_elmo.py")}
    names = {
        "cells_elmo",
        "checks_elmo",
        "configuration_elmo",
        "encoders_elmo",
        "layers_elmo",
        "tokenization_elmo",
    }
    assert modules == {f"elmo_hf.model.{name}" for name in names} | {"elmo_hf.kernels"}
    assert imported_rooms(SOURCE / "cli.py") >= {"corpus", "hub"}
