"""The files by which others find, cite and build the package: their form, and one version in all of them."""

import re

import pytest
import yaml

import elmo_hf
from tests.helpers.paths import REPOSITORY


def read(name):
    return yaml.safe_load((REPOSITORY / name).read_text(encoding="utf-8"))


@pytest.fixture
def project():
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11")
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_version_is_the_same_everywhere(project):
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "elmo_hf.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", elmo_hf.__version__)
    assert read("CITATION.cff")["version"] == elmo_hf.__version__
    released = re.findall(r"^## (\d\S*)", (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert released[0] == elmo_hf.__version__


def test_the_citation_names_the_package_and_the_paper(project):
    citation = read("CITATION.cff")
    required = {"cff-version", "message", "title", "authors"}
    assert required <= set(citation)
    assert (citation["cff-version"], citation["type"]) == ("1.2.0", "software")
    # The form has no expressions, so it names the licence of the code; the weights' follows it.
    assert [citation["license"], "CC-BY-SA-3.0"] == project["project"]["license"].split(" AND ")
    assert citation["abstract"].rstrip(".") == project["project"]["description"]
    assert citation["keywords"] == project["project"]["keywords"]
    assert citation["authors"] == [{"name": "the authors of elmo_hf"}]
    [paper] = citation["references"]
    card = (REPOSITORY / "src" / "elmo_hf" / "hub" / "templates" / "card.md").read_text(encoding="utf-8")
    bibtex = {name: " ".join(text.split()) for name, text in re.findall(r'(\w+) = "(.*?)"', card, re.S)}
    names = [f"{author['family-names']}, {author['given-names']}" for author in paper["authors"]]
    assert " and ".join(names) == bibtex["author"]
    for name in ("title", "url"):
        assert paper[name] == bibtex[name]
    assert str(paper["year"]) == bibtex["year"]
    assert f"{paper['start']}--{paper['end']}" == bibtex["pages"]


def test_read_the_docs_builds_the_pages_that_a_test_builds(project):
    config = read(".readthedocs.yaml")
    assert config["version"] == 2
    assert set(config) == {"version", "build", "sphinx", "python"}
    assert config["sphinx"]["fail_on_warning"]
    assert (REPOSITORY / config["sphinx"]["configuration"]).is_file()
    [install] = config["python"]["install"]
    assert (REPOSITORY / install["path"] / "pyproject.toml").is_file()
    extras = project["project"]["optional-dependencies"]
    assert set(install["extra_requirements"]) <= set(extras)
    modules = {"myst_parser": "myst-parser", "furo": "furo"}  # of docs/conf.py
    assert set(modules.values()) <= set(extras["docs"])
    minimum = tuple(map(int, re.findall(r"\d+", project["project"]["requires-python"])))
    assert tuple(map(int, config["build"]["tools"]["python"].split("."))) >= minimum
    [command] = config["build"]["jobs"]["pre_install"]
    assert command == "python -m pip install torch --index-url https://download.pytorch.org/whl/cpu"
