"""Every class and function of docs/api.md has an example, which runs after the lines of the page."""

import doctest
import inspect
import pkgutil
import re
import shutil
from copy import deepcopy
from types import ModuleType

import pytest

from elmo_hf import TINY, ElmoForPreTraining
from tests.helpers.documents import PYTHON, read_blocks, write_published
from tests.helpers.paths import REPOSITORY

PAGE = REPOSITORY / "docs" / "api.md"
DIRECTIVE = re.compile(r"^.. auto(\w+):: elmo_hf\.([\w.]+)$(?:\n +:members:(.*)$)?", re.MULTILINE)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def entries():
    """Each entry of the page: its name, and the names of the methods that the page shows."""
    shown = {}
    for kind, name, members in DIRECTIVE.findall(PAGE.read_text(encoding="utf-8")):
        if kind == "module":
            shown |= {
                f"{name}.{function}": [] for function in functions_of(pkgutil.resolve_name(f"elmo_hf.{name}"))
            }
        else:
            shown[name] = [member.strip() for member in members.split(",") if member.strip()]
    return shown


def functions_of(module: ModuleType):
    members = inspect.getmembers(module, inspect.isfunction)
    return [name for name, item in members if item.__module__ == module.__name__ and name[0] != "_"]


ENTRIES = entries()


def docstrings(name):
    """The docstring of an entry and those of its methods, by their names."""
    item = pkgutil.resolve_name(f"elmo_hf.{name}")
    return {name: inspect.getdoc(item)} | {
        f"{name}.{member}": inspect.getdoc(getattr(item, member)) or "" for member in ENTRIES[name]
    }


@pytest.fixture(scope="module")
def lines_of_the_page():
    """The variables that the page's first block makes."""
    names: dict = {}
    (block,) = [block for block in read_blocks(PAGE) if block.language in PYTHON]
    exec(compile(block.text, block.position, "exec"), names)
    return names


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, lines_of_the_page):
    """The two folders that the page names."""
    folder = tmp_path_factory.mktemp("prepared")
    write_published(folder / "published-elmo")
    card = REPOSITORY / "hub_cards" / "elmo-tiny"
    shutil.copytree(card, folder / "my-tagger", ignore=shutil.ignore_patterns("README.md"))
    shutil.copy(TINY / "vocab.txt", folder / "my-tagger")
    lines_of_the_page["tokenizer"].save_pretrained(folder / "my-tagger")
    model = ElmoForPreTraining.from_pretrained(TINY)
    model.save_pretrained(folder / "my-tagger")
    return folder


@pytest.fixture
def folder(name, prepared, tmp_path, monkeypatch):
    """The working directory of an entry's examples, with the prepared folders that they use."""
    monkeypatch.chdir(tmp_path)
    for used in prepared.iterdir():
        if any(used.name in text for text in docstrings(name).values()):
            shutil.copytree(used, used.name)


# huggingface_hub uses a deprecated option of its HTTP library to send a file.
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
@pytest.mark.usefixtures("folder", "hub", "default_kernels")
@pytest.mark.parametrize("name", ENTRIES)
def test_the_examples_of_an_entry_run(name, lines_of_the_page):
    item = pkgutil.resolve_name(f"elmo_hf.{name}")
    for place, text in docstrings(name).items():
        names = lines_of_the_page | {"model": deepcopy(lines_of_the_page["model"]), item.__name__: item}
        example = doctest.DocTestParser().get_doctest(text, names, place, place, 0)
        report: list[str] = []
        failed, _ = doctest.DocTestRunner(optionflags=FLAGS).run(example, out=report.append)
        assert not failed, "".join(report)


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_has_an_example_which_calls_its_methods(name):
    examples = [
        example.source
        for text in docstrings(name).values()
        for example in doctest.DocTestParser().get_examples(text)
    ]
    assert examples, f"{name} has no example"
    for member in ENTRIES[name]:
        called = "(" if member in ("forward", "__call__") else f".{member}("
        assert any(called in source for source in examples), f"no example of {name} calls {member}"


def test_every_example_of_the_package_is_in_an_entry():
    sources = (REPOSITORY / "src").rglob("*.py")
    written = sum(
        len(re.findall(r"^ *>>> ", path.read_text(encoding="utf-8"), re.MULTILINE)) for path in sources
    )
    texts = {place: text for name in ENTRIES for place, text in docstrings(name).items()}
    assert written == sum(len(doctest.DocTestParser().get_examples(text)) for text in texts.values())
