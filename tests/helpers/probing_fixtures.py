"""Fixtures of the probing tests: the modules, tiny texts, a tiny model and a naive reader of it.

A test file uses them by `pytest_plugins = ["tests.helpers.probing_fixtures"]`.
"""

from importlib import import_module
from types import SimpleNamespace

import pytest

from tests.helpers import probing_data
from tests.helpers.probing_naive import NaiveReader, save_model

MODULES = ("data", "layers", "neighbours", "senses", "tags", "vectors")


@pytest.fixture(scope="session")
def probes():
    """The modules of `benchmarks.probing`."""
    from benchmarks.probing import __main__ as main

    modules = {name: import_module(f"benchmarks.probing.{name}") for name in MODULES}
    return SimpleNamespace(main=main, **modules)


@pytest.fixture(scope="session")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return SimpleNamespace(folder=folder, **probing_data.write_data(folder))


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("models") / "some-elmo", seed=3)


@pytest.fixture(scope="session")
def reader(probes, model_folder):
    return probes.vectors.load_reader(model_folder)


@pytest.fixture(scope="session")
def semcor(probes, texts):
    return probes.data.read_semcor(texts.folder / probes.data.SEMCOR)


@pytest.fixture(scope="session")
def task(probes, texts, semcor):
    return probes.senses.read_task(texts.folder, semcor)


@pytest.fixture(scope="session")
def naive_reader(model_folder):
    return NaiveReader(model_folder)
