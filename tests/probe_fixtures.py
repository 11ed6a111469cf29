"""What the tests of the probes share: the scripts, tiny texts, a tiny model, and a plain reader of it.

A test file takes them by `pytest_plugins = ["probe_fixtures"]`.
"""

import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import probe_texts
import pytest
from probe_plain import PlainReader, save_model

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
MODULES = ("data", "layers", "names", "neighbours", "senses", "tables", "tags", "vectors")


@pytest.fixture(scope="session")
def probes():
    """The scripts are no package, and import each other from their own folder."""
    sys.path.insert(0, str(BENCHMARKS))
    import probes as main

    found = {name: import_module(f"probing.{name}") for name in MODULES}
    yield SimpleNamespace(main=main, **found)
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return SimpleNamespace(folder=folder, **probe_texts.write_data(folder))


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("models") / "some-elmo", seed=3)


@pytest.fixture(scope="session")
def reader(probes, model_folder):
    return probes.vectors.load_reader(model_folder)


@pytest.fixture(scope="session")
def semcor(probes, made):
    return probes.data.read_semcor(made.folder / probes.data.SEMCOR)


@pytest.fixture(scope="session")
def task(probes, made, semcor):
    return probes.senses.read_task(made.folder, semcor)


@pytest.fixture(scope="session")
def plain(model_folder):
    return PlainReader(model_folder)
