"""What several test files share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from launcher import Launcher

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_fixtures() -> Path:
    """The folder of the two published fixture sets, `allennlp` and `bilm-tf`, which the repository lacks."""
    shared = Path(os.environ.get("ELMO_HF_SHARED", REPOSITORY.parent / "shared"))
    folder = shared / "fixtures"
    if not folder.is_dir():
        pytest.skip(f"no published fixtures in {folder}; ELMO_HF_SHARED names their parent folder")
    return folder


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tensors are tiny here, and threads would wait for each other longer than they work."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def launcher() -> Iterator[Launcher]:
    """Starts training/pretrain.py, in one or several processes."""
    with Launcher() as one:
        yield one
