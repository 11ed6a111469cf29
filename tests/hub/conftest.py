"""What the tests of uploads share: a model that was saved with its card, and a copy of it to change."""

import shutil
from pathlib import Path

import pytest

from tests.helpers.hub_folders import save_with_card


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save_with_card(tmp_path_factory.mktemp("saved") / "elmo")


@pytest.fixture
def folder(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "elmo"))
