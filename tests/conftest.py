"""What several test files share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from elmo_hf import kernels
from tests.helpers.launcher import Launcher
from tests.helpers.nursery import Nursery
from tests.helpers.paths import SHARED


@pytest.fixture(scope="session")
def shared_fixtures() -> Path:
    """The folder of the two published fixture sets, `allennlp` and `bilm-tf`, which the repository lacks."""
    shared = SHARED
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


@pytest.fixture(scope="session")
def nursery(tmp_path_factory) -> Iterator[Nursery]:
    """Starts programs that have Transformers loaded but not the package, and that ask no Hub."""
    offline = {"HF_HOME": str(tmp_path_factory.mktemp("cache")), "HF_HUB_OFFLINE": "1"}
    imports = "import torch\nfrom transformers import AutoModel, AutoTokenizer, PreTrainedModel"
    one = Nursery(imports, os.environ | offline | {"HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"})
    yield one
    one.close()


@pytest.fixture
def hub(monkeypatch):
    """A Hub on this machine, on which `someone` may write."""
    from tests.helpers.hub_folders import served

    yield from served(monkeypatch)


@pytest.fixture
def poisoned(monkeypatch) -> None:
    """NaN in whatever comes without a value, so that what is read before it is written shows."""

    def filled(function):
        def make(*args, **kwargs):
            found = function(*args, **kwargs)
            return found.fill_(float("nan")) if found.is_floating_point() else found

        return make

    for place, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        monkeypatch.setattr(place, name, filled(getattr(place, name)))
    assert torch.ones(1).new_empty(1).isnan().all()


@pytest.fixture
def default_kernels() -> Iterator[None]:
    """A test may choose kernels and threads; the next one finds them as they were."""
    kernels.use("auto")
    yield
    kernels.use("auto")
    torch.set_num_threads(1)
