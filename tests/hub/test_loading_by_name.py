"""Loading by name from a local Hub in another process: with the package, without it, and offline."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from elmo_hf import ElmoForPreTraining, ElmoModel, ElmoTokenizer
from tests.helpers.fork_server import ForkServer
from tests.helpers.hub_folders import CODE
from tests.helpers.hub_server import Hub, Repository

# huggingface_hub sends a file by an option of its HTTP library that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


LOAD = """
    import json, sys
    if sys.argv[2] == "without":
        sys.modules["elmo_hf"] = None  # importing it fails, as where it is not installed
        options = {"trust_remote_code": True}
    else:
        import elmo_hf
        options = {}
    from transformers import AutoModel, AutoModelForPreTraining, AutoTokenizer, pipeline
    from transformers.utils import logging
    logging.disable_progress_bar()
    name, text = sys.argv[1], "He sat on the bank ."
    options |= {"revision": sys.argv[3]} if len(sys.argv) > 3 else {}
    tokenizer = AutoTokenizer.from_pretrained(name, **options)
    model = AutoModel.from_pretrained(name, **options).eval()
    language_model = AutoModelForPreTraining.from_pretrained(name, **options).eval()
    extractor = pipeline("feature-extraction", model=name, **options)
    batch = tokenizer(text, return_tensors="pt")
    print(json.dumps({
        "vectors": model(**batch).last_hidden_state[0].tolist(),
        "loss": language_model(**batch).loss.item(),
        "features": extractor(text)[0],
        "code": type(model).__module__.split(".")[0],
    }))
"""
PUSH_CLASSES = """
    import sys
    import elmo_hf
    model = elmo_hf.ElmoForPreTraining.from_pretrained(sys.argv[1])
    model.push_to_hub(sys.argv[2])
    elmo_hf.ElmoTokenizer.from_pretrained(sys.argv[1]).push_to_hub(sys.argv[2])
"""
PUSH = "from elmo_hf.cli import app; app()"
IMPORTS = "from transformers import AutoModel, AutoModelForPreTraining, AutoTokenizer, pipeline"


def start_fork_server(hub, cache, **environment):
    """Processes that have a Hub at HF_ENDPOINT, or, offline, only the cache."""
    known = {"HF_ENDPOINT": hub.url, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "secret"}
    known |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1"}
    return ForkServer(IMPORTS, os.environ | known | environment)


def lines_of(fork_server, program, *arguments):
    """The output of a program, which must succeed."""
    done = fork_server.run(program, *arguments)
    assert done.code == 0, done.err
    return done.out.splitlines()


@pytest.fixture(scope="module")
def one_hub():
    with Hub({"secret": {"someone"}}) as found:
        yield found


@pytest.fixture(scope="module")
def fork_servers(one_hub, tmp_path_factory):
    """One with the Hub and one without, on one cache."""
    cache = tmp_path_factory.mktemp("cache")
    found = [start_fork_server(one_hub, cache), start_fork_server(one_hub, cache, HF_HUB_OFFLINE="1")]
    yield found
    for one in found:
        one.close()


def check(printed, folder, code):
    found = json.loads(printed[-1])
    batch = ElmoTokenizer.from_pretrained(folder)("He sat on the bank .", return_tensors="pt")
    with torch.no_grad():
        vectors = ElmoModel.from_pretrained(folder).eval()(**batch).last_hidden_state[0]
        loss = ElmoForPreTraining.from_pretrained(folder).eval()(**batch).loss.item()
    torch.testing.assert_close(torch.tensor(found["vectors"]), vectors)
    torch.testing.assert_close(torch.tensor(found["features"]), vectors)
    assert found["loss"] == pytest.approx(loss)
    assert found["code"] == code


@pytest.mark.parametrize(("package", "code"), [("with", "elmo_hf"), ("without", "transformers_modules")])
def test_loading_in_another_process(one_hub, fork_servers, folder, package, code):
    """And then once more offline, from the cache."""
    (online, offline), name = fork_servers, f"someone/elmo-{package}"
    assert lines_of(online, PUSH, "push", folder, name, "--private")[-1].startswith("Uploaded: ")
    assert one_hub.repositories[name].private
    one_hub.cut_downloads = 1  # a download that breaks off goes on
    check(lines_of(online, LOAD, name, package), folder, code)
    assert one_hub.cut_downloads == 0
    asked = len(one_hub.requests)
    check(lines_of(offline, LOAD, name, package), folder, code)
    assert len(one_hub.requests) == asked


def test_push_to_hub_of_the_classes(one_hub, fork_servers, folder):
    """The method of Transformers: two commits and a card with missing fields, but the model loads."""
    online, name = fork_servers[0], "someone/elmo-classes"
    lines_of(online, PUSH_CLASSES, folder, name)
    assert set(CODE) < set(one_hub.files(name))
    check(lines_of(online, LOAD, name, "without"), folder, "transformers_modules")


def test_a_revision_and_later_commits(one_hub, fork_servers, folder, tmp_path):
    """A named revision keeps its weights; without one the newest are loaded, offline as well."""
    (online, offline), name = fork_servers, "someone/elmo-revised"
    first = Path(shutil.copytree(folder, tmp_path / "first"))
    lines_of(online, PUSH, "push", first, name)
    revision = one_hub.repositories[name].branches["main"]
    check(lines_of(online, LOAD, name, "with"), first, "elmo_hf")
    model = ElmoForPreTraining.from_pretrained(folder)
    torch.nn.init.normal_(next(model.elmo.layers.parameters()))
    model.save_pretrained(folder)
    lines_of(online, PUSH, "push", folder, name, "--overwrite-card")
    check(lines_of(online, LOAD, name, "with"), folder, "elmo_hf")
    check(lines_of(offline, LOAD, name, "with"), folder, "elmo_hf")
    check(lines_of(offline, LOAD, name, "with", revision), first, "elmo_hf")


def test_missing_repositories_and_files(one_hub, fork_servers):
    """A repository that does not exist, and one without a model."""
    one_hub.repositories["someone/empty"] = Repository(private=False)
    for fork_server in fork_servers:
        for name in ("someone/nothing", "someone/empty"):
            done = fork_server.run(PUSH, "vectors", "hello", "--model", name)
            assert (done.code, done.out) == (1, "")
            assert len(done.err.splitlines()) == 1
            assert done.err.startswith(f"elmo-hf: no ELMo can be loaded from {name}: ")
