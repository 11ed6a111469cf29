"""Imports point down only: a module may import what lies below it, never beside or above."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "elmo_hf"
LAYERS = [
    [
        "configuration_elmo",
        "words_elmo",
        "layers_elmo",
        "roles_elmo",
        "vectors_io",
        "sampling",
        "zstd",
        "weights_elmo",
    ],
    ["crf_elmo"],
    ["plot", "metrics", "metrics_coreference", "hub_results"],
    ["metrics_squad"],
    ["kernels.kept", "kernels.products", "kernels.cuda_cell", "kernels.steps", "kernels.memory"],
    ["tokenization_elmo", "checks_elmo", "corpus", "sources", "kernels.training_cpu"],
    ["kernels.characters", "kernels.inference", "kernels.training", "vocabulary", "spans_elmo"],
    ["kernels.graphs", "reading"],
    ["kernels.__init__", "streams"],
    ["modeling_elmo", "answers_elmo"],
    ["modeling_elmo_pretraining", "embedder", "cache_elmo", "look", "loading"],
    ["task_elmo", "hub_facts"],
    ["modeling_elmo_tagging", "modeling_elmo_classification", "embed", "word_vectors", "hub_cards"],
    ["modeling_elmo_question_answering", "modeling_elmo_coreference", "hub"],
    ["perplexity", "onnx_graph", "demo.maths", "demo.reading", "demo.examples"],
    ["demo.html"],
    ["demo.page"],
    ["demo.__init__"],
    ["convert.hdf5", "__init__"],
    ["convert.files"],
    ["convert.bilm", "export"],
    ["convert.__init__"],
    ["cli"],
]
# What travels to the Hub.
FLAT = {"configuration", "tokenization", "modeling", "words", "layers", "checks"}
FLAT |= {"crf", "cache", "task", "answers", "spans", "roles", "weights"}


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
            place = (node.module or "").removeprefix("elmo_hf").strip(".")
            for alias in node.names:  # a name in a module, a module in a package, or a package
                names = [f"{place}.{alias.name}".strip("."), place or "__init__"]
                yield next(n for name in names for n in (name, f"{name}.__init__") if n in MODULES), False


MODULES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts): path for path in sorted(SOURCE.rglob("*.py"))
}


def test_every_module_has_its_layer():
    assert sorted(MODULES) == sorted(name for layer in LAYERS for name in layer)


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name):
    for imported, is_flat in imports(MODULES[name]):
        assert level(imported) < level(name), f"{name} imports {imported}"
        # `from elmo_hf import kernels` inside `try` does without them where only the Hub's copy is.
        if name.split("_")[0] in FLAT and imported != "kernels.__init__":
            assert is_flat, f"{name} goes to the Hub, so it must import `from .{imported} import ...`"


def test_the_backbone_imports_its_parts():
    """Were the parser above blind, every test here would pass."""
    found = {imported for imported, _ in imports(MODULES["modeling_elmo"])}
    below = {"checks_elmo", "configuration_elmo", "layers_elmo", "tokenization_elmo", "words_elmo"}
    assert found == below | {"kernels.__init__"}
