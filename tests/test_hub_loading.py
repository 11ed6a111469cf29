"""From one process to another by a Hub on this machine: loading by name, with the package and without it,
and without the Hub.
"""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from hub_folders import CODE, save_with_card
from hub_server import Hub, Repository

from elmo_hf import ElmoForPreTraining, ElmoModel, ElmoTokenizer

# huggingface_hub sends a file by an option of its HTTP library that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save_with_card(tmp_path_factory.mktemp("saved") / "elmo")


@pytest.fixture
def folder(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "elmo"))


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
# Imports the library once, which takes seconds, and then runs each code in a process of its own.
NURSERY = """
    import json, os, sys, traceback
    from transformers import AutoModel, AutoModelForPreTraining, AutoTokenizer, pipeline
    for line in sys.stdin:
        command = json.loads(line)
        if os.fork() == 0:
            written = os.open(command["output"], os.O_WRONLY | os.O_CREAT)
            os.dup2(written, 1), os.dup2(written, 2)
            sys.argv, code = ["child", *command["arguments"]], 0
            try:
                exec(command["code"], {"__name__": "__main__"})
            except SystemExit as end:
                code = end.code
            except BaseException:
                traceback.print_exc()
                code = 1
            sys.stdout.flush()
            os._exit(code)
        print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


class Nursery:
    """Of processes that know a Hub by HF_ENDPOINT, or, offline, only the cache."""

    def __init__(self, hub, cache, **environment):
        self.output, self.count = cache, 0
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", textwrap.dedent(NURSERY)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ
            | {"HF_ENDPOINT": hub.url, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "secret"}
            | {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1"}
            | environment,
        )

    def run(self, code, *arguments, ends_with="0"):
        """What a new process prints."""
        self.count += 1
        output = self.output / f"{self.process.pid}-{self.count}.txt"
        command = {"code": textwrap.dedent(code), "output": str(output), "arguments": [*map(str, arguments)]}
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        ended = self.process.stdout.readline().strip()
        printed = output.read_text(encoding="utf-8")
        assert ended == ends_with, printed
        return printed.splitlines()

    def close(self):
        self.process.kill()  # all that it started has ended
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def one_hub():
    with Hub({"secret": {"someone"}}) as found:
        yield found


@pytest.fixture(scope="module")
def nurseries(one_hub, tmp_path_factory):
    """One with the Hub and one without, on one cache."""
    cache = tmp_path_factory.mktemp("cache")
    found = [Nursery(one_hub, cache), Nursery(one_hub, cache, HF_HUB_OFFLINE="1")]
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
def test_from_one_process_to_another_by_name(one_hub, nurseries, folder, package, code):
    """And then once more without the Hub, from the cache."""
    (online, offline), name = nurseries, f"someone/elmo-{package}"
    assert online.run(PUSH, "push", folder, name, "--private")[-1].startswith("Uploaded: ")
    assert one_hub.repositories[name].private
    one_hub.cut_downloads = 1  # a download that breaks off goes on
    check(online.run(LOAD, name, package), folder, code)
    assert one_hub.cut_downloads == 0
    asked = len(one_hub.requests)
    check(offline.run(LOAD, name, package), folder, code)
    assert len(one_hub.requests) == asked


def test_push_to_hub_of_the_classes(one_hub, nurseries, folder):
    """The library's own way: two commits, and a card with holes, but it loads."""
    online, name = nurseries[0], "someone/elmo-classes"
    online.run(PUSH_CLASSES, folder, name)
    assert set(CODE) < set(one_hub.files(name))
    check(online.run(LOAD, name, "without"), folder, "transformers_modules")


def test_a_revision_and_what_became_of_it(one_hub, nurseries, folder, tmp_path):
    """Who names a revision keeps its weights; who names none gets the newest, and then offline as well."""
    (online, offline), name = nurseries, "someone/elmo-revised"
    first = Path(shutil.copytree(folder, tmp_path / "first"))
    online.run(PUSH, "push", first, name)
    revision = one_hub.repositories[name].branches["main"]
    check(online.run(LOAD, name, "with"), first, "elmo_hf")
    model = ElmoForPreTraining.from_pretrained(folder)
    torch.nn.init.normal_(next(model.elmo.layers.parameters()))
    model.save_pretrained(folder)
    online.run(PUSH, "push", folder, name, "--overwrite-card")
    check(online.run(LOAD, name, "with"), folder, "elmo_hf")
    check(offline.run(LOAD, name, "with"), folder, "elmo_hf")
    check(offline.run(LOAD, name, "with", revision), first, "elmo_hf")


def test_what_is_not_there_by_name(one_hub, nurseries):
    """A repository, and one that has files but no model."""
    one_hub.repositories["someone/empty"] = Repository(private=False)
    for nursery in nurseries:
        for name in ("someone/nothing", "someone/empty"):
            printed = nursery.run(PUSH, "vectors", "hello", "--model", name, ends_with="1")
            assert len(printed) == 1
            assert printed[0].startswith(f"elmo-hf: no ELMo can be loaded from {name}: ")
