"""Fixtures that several folders of tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from elmo_hf import kernels
from tests.helpers.fork_server import ForkServer
from tests.helpers.launcher import Launcher
from tests.helpers.paths import SHARED

for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
    os.environ.pop(name, None)  # the tests' Hub is on this machine, and the libraries are not imported yet


@pytest.fixture(scope="session")
def shared_fixtures() -> Path:
    """The folder of the published fixtures of `allennlp` and `bilm-tf`, which are not in the repository."""
    folder = SHARED / "fixtures"
    if not folder.is_dir():
        pytest.skip(f"no published fixtures in {folder}; ELMO_HF_SHARED names their parent folder")
    return folder


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Use one thread: with tensors this small, more threads are slower."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def launcher() -> Iterator[Launcher]:
    """Starts `training/pretrain.py` and `elmo-hf embed` in one or several processes."""
    with Launcher(["datasets", "h5py", "pyarrow.parquet", "elmo_hf.embedding.job"]) as launcher:
        yield launcher


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory) -> Iterator[ForkServer]:
    """Starts offline programs in which Transformers is loaded, but not this package."""
    offline = {"HF_HOME": str(tmp_path_factory.mktemp("cache")), "HF_HUB_OFFLINE": "1"}
    imports = "import torch\nfrom transformers import AutoModel, AutoTokenizer, PreTrainedModel"
    server = ForkServer(imports, os.environ | offline | {"HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"})
    yield server
    server.close()


@pytest.fixture
def hub(monkeypatch):
    """A local Hub on which the user `someone` may write."""
    from tests.helpers.hub_folders import served

    yield from served(monkeypatch)


@pytest.fixture
def nan_in_empty_tensors(monkeypatch) -> None:
    """Fill `torch.empty` and its like with NaN, so that a read before the first write is visible."""

    def filled(function):
        def make(*args, **kwargs):
            tensor = function(*args, **kwargs)
            return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor

        return make

    for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        monkeypatch.setattr(owner, name, filled(getattr(owner, name)))
    assert torch.ones(1).new_empty(1).isnan().all()


@pytest.fixture
def default_kernels() -> Iterator[None]:
    """Restore the default kernels and one thread after a test that changes them."""
    kernels.use("auto")
    yield
    kernels.use("auto")
    torch.set_num_threads(1)
