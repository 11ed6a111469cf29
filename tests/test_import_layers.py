"""Imports point down only: a module may import what lies below it, never beside or above."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "elmo_hf"
LAYERS = [
    ["configuration_elmo", "words_elmo", "layers_elmo", "kernels.kept", "kernels.products"],
    ["tokenization_elmo", "checks_elmo", "kernels.characters", "kernels.inference"],
    ["kernels.__init__"],
    ["modeling_elmo"],
    ["modeling_elmo_pretraining", "vectors_io"],
    ["corpus", "embedder"],
    ["embed"],
    ["convert.hdf5", "__init__"],
    ["convert.files"],
    ["convert.bilm"],
    ["convert.__init__"],
    ["cli"],
]
FLAT = {"configuration", "tokenization", "modeling", "words", "layers", "checks"}  # what travels to the Hub


def level(name):
    return next(number for number, layer in enumerate(LAYERS) if name in layer)


def imports(path):
    """Names of our own modules that a file imports, and whether each import is flat (`from .name import`)."""
    package = path.relative_to(SOURCE).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, False) for alias in node.names if alias.name.startswith("elmo_hf"))
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            yield ".".join([*base, *(node.module or "").split(".")]).strip("."), node.level == 1
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "elmo_hf":
            yield (node.module or "").removeprefix("elmo_hf").strip(".") or "__init__", False


MODULES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts): path for path in sorted(SOURCE.rglob("*.py"))
}


def test_every_module_has_its_layer():
    assert sorted(MODULES) == sorted(name for layer in LAYERS for name in layer)


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name):
    for imported, is_flat in imports(MODULES[name]):
        assert level(imported) < level(name), f"{name} imports {imported}"
        if name.split("_")[0] in FLAT:
            assert is_flat, f"{name} goes to the Hub, so it must import `from .{imported} import ...`"


def test_the_backbone_imports_its_parts():
    """Were the parser above blind, every test here would pass."""
    found = {imported for imported, _ in imports(MODULES["modeling_elmo"])}
    assert found == {"configuration_elmo", "layers_elmo", "tokenization_elmo", "words_elmo"}
