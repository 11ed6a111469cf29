"""The wheel alone, without the sources and the network, does what the README shows."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.helpers.documents import read_blocks, write_published, write_tagged
from tests.helpers.fork_server import ForkServer
from tests.helpers.hub_server import Hub
from tests.helpers.launcher import read_lines, write_corpus
from tests.helpers.paths import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
LIBRARIES = (
    "import accelerate, datasets, evaluate, h5py, torch\nfrom transformers import PreTrainedModel, Trainer"
)
ELMO_HF = "import elmo_hf.cli; elmo_hf.cli.app(prog_name='elmo-hf')"
MODULE = (
    "import runpy, sys; del sys.argv[0]; runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)
LOOPBACK_ONLY = """
import socket

def only_loopback(function, host_of):
    def call(*arguments, **options):
        if host_of(arguments) not in ("127.0.0.1", "::1", "localhost"):
            raise RuntimeError(f"{function.__name__} outside this machine: {arguments}")
        return function(*arguments, **options)
    return call

socket.socket.connect = only_loopback(socket.socket.connect, lambda arguments: arguments[1][0])
socket.create_connection = only_loopback(socket.create_connection, lambda arguments: arguments[0][0])
socket.getaddrinfo = only_loopback(socket.getaddrinfo, lambda arguments: arguments[0])
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"  # a build writes into the folder of its sources
    ignored = shutil.ignore_patterns("*.egg-info", "__pycache__")
    for name in ("src", "training"):
        shutil.copytree(REPOSITORY / name, sources / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, sources)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(sources)], check=True)
    shutil.rmtree(sources)
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel):
    """A folder with the content of the wheel, in which Python connects to this machine only."""
    folder = wheel.parent / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    (folder / "sitecustomize.py").write_text(LOOPBACK_ONLY, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def hub():
    """A local Hub on which the user `someone` may write."""
    with Hub({"secret": {"someone"}}) as server:
        yield server


def requests_of(hub):
    """Requests to the Hub, without that of huggingface_hub for its list of agents."""
    return [request for request in hub.requests if request != "GET /api/agent-harnesses"]


@pytest.fixture(scope="module")
def programs(installed, hub):
    """Starts programs that can import the wheel and its dependencies, and connect to the local Hub only."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"PYTHONPATH": str(installed), "HF_HOME": str(installed / "empty")}
    environment |= {"HF_ENDPOINT": hub.url, "HF_TOKEN": "secret", "HF_HUB_DISABLE_XET": "1"}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    server = ForkServer(LIBRARIES, environment)
    yield server
    server.close()


@pytest.fixture
def run(programs, tmp_path):
    """Run a program in `tmp_path`; return what it prints."""

    def run(program, *arguments):
        completed = programs.run(program, *arguments, cwd=tmp_path)
        assert completed.code == 0, completed.err
        return completed.out

    return run


@pytest.fixture
def elmo_hf(run):
    """Run an `elmo-hf` command line; return what it prints."""
    return lambda line: run(ELMO_HF, *shlex.split(line))


def test_data_files_and_size_of_the_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        tiny = [entry for entry in archive.infolist() if "/checkpoints/elmo-tiny/" in entry.filename]
    assert {"config.json", "model.safetensors", "vocab.txt"} <= {Path(entry.filename).name for entry in tiny}
    assert sum(entry.file_size for entry in tiny) <= 16_000_000
    assert f"(a wheel of {round(wheel.stat().st_size / 1e6)} MB)" in README
    assert "elmo_hf/py.typed" in names
    assert any(name.startswith("elmo_hf/hub/templates/") for name in names)
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests")]


def test_the_wheel_has_every_module_and_recipe(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if name.endswith(".py")}
    modules = {path.relative_to(REPOSITORY / "src").as_posix() for path in (REPOSITORY / "src").rglob("*.py")}
    recipes = {f"elmo_hf/recipes/{path.name}" for path in (REPOSITORY / "training").glob("*.py")}
    assert names == modules | recipes


def test_the_code_of_the_wheel_runs(installed, run):
    imports = "import elmo_hf, elmo_hf.recipes.finetune_ner as ner"
    paths = run(f"{imports}\nprint(elmo_hf.__file__, elmo_hf.TINY, ner.__file__)")
    assert all(path.startswith(str(installed)) for path in paths.split())


def test_the_first_command_of_the_readme(programs):
    line = re.search(r"&& (elmo-hf vectors .*)", README).group(1)
    shown = re.search(r"^```text\n(.*?)^```", README, re.MULTILINE | re.DOTALL).group(1)
    result = programs.run(ELMO_HF, *shlex.split(line)[1:])
    assert result.err == ""
    assert shown.strip("\n") in result.out


def test_spacy_finds_the_component_and_the_architecture(installed, run):
    """By the entry points of the wheel, without an import of this package."""
    pytest.importorskip("spacy", reason="needs `elmo-hf[spacy]`")
    program = """
        import sys, spacy
        assert "elmo_hf" not in sys.modules
        nlp = spacy.blank("en")
        nlp.add_pipe("elmo")
        texts = ["The bank lent him money.", "Why?"]
        print([doc.tensor.shape for doc in nlp.pipe(texts)], sys.modules["elmo_hf"].__file__)
        layer = spacy.registry.architectures.get("elmo_hf.Tok2Vec.v1")(layers="0")
        print(layer.predict([nlp.make_doc(text) for text in texts])[1].shape)
    """
    assert run(program).split("\n") == [
        f"[(6, 256), (2, 256)] {installed / 'elmo_hf' / '__init__.py'}",
        "(2, 256)",
        "",
    ]


def test_embedding_and_perplexity_with_the_model_of_the_wheel(run, elmo_hf, tmp_path):
    (tmp_path / "corpus.txt").write_text("The bank lent him money .\n", encoding="utf-8")
    elmo_hf("embed corpus.txt vectors --no-progress")
    read = "import elmo_hf; print([vectors.shape for _, vectors in elmo_hf.read_vectors('vectors')])"
    assert run(read) == "[(6, 256)]\n"
    text = "The old man sat by the fire and told them a story .\n"
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    perplexity = json.loads(elmo_hf("perplexity text.txt --json --no-progress"))
    assert 1 < perplexity["forward"] < 500


def test_converting_fine_tuning_and_uploading(hub, programs, run, elmo_hf, tmp_path):
    """Fine-tuning uses a metric of `evaluate`, which is copied to the cache without a request to the Hub."""
    requests = requests_of(hub)
    source = write_published(tmp_path / "published-elmo")
    elmo_hf("convert published-elmo my-elmo")
    elmo_hf("convert my-elmo back --to bilm")
    assert (tmp_path / "back" / "options.json").read_bytes() == (source / "options.json").read_bytes()
    assert '"word": "bank"' in elmo_hf("vectors 'The bank' --model my-elmo --json")

    write_tagged(tmp_path)
    files = "--train train.conll --dev dev.conll --test test.conll"
    flags = f"ner --elmo my-elmo {files} --output runs/ner --smoke --epochs 1"
    run(MODULE, "elmo_hf.finetuning", *flags.split())
    folder = tmp_path / "runs" / "ner" / "seed-0"
    results = json.loads((folder / "results" / "evaluation-ner.json").read_text(encoding="utf-8"))
    assert results["command"] == f"python -m elmo_hf.finetuning {flags}"
    assert requests_of(hub) == requests

    [facts] = [block.text for block in read_blocks(REPOSITORY / "README.md") if block.language == "yaml"]
    (folder / "facts.yaml").write_text(facts, encoding="utf-8")
    elmo_hf("card runs/ner/seed-0")
    elmo_hf("push runs/ner/seed-0 someone/my-tagger")
    uploaded = hub.files("someone/my-tagger")
    card = uploaded["README.md"].decode()
    assert "Named entities in correspondence of the 1840s" in card
    assert '"someone/my-tagger"' in card  # in the code that loads it
    assert {"facts.yaml", "model.safetensors", "modeling_elmo_tagging.py"} <= set(uploaded)
    entities = programs.run_without_the_package(
        """
        import json
        from transformers import pipeline
        tagger = pipeline("token-classification", model="someone/my-tagger", trust_remote_code=True)
        print(json.dumps([entity["word"] for entity in tagger("Ada sat .", ignore_labels=[])]))
        """
    )
    assert entities == ["Ada", "sat", "."]


def test_pretraining(hub, run, elmo_hf, tmp_path):
    """`python -m` starts a run, and `accelerate launch -m` continues it."""
    requests = requests_of(hub)
    write_corpus(tmp_path)
    elmo_hf("vocab 'text-*.txt' vocab.txt")
    shape = "--lstm-dim 16 --projection-dim 8 --char-embedding-dim 4 --char-filters [[1,4],[2,8]] --rows 4"
    flags = (
        f"--data text-*.txt --vocab vocab.txt --output run --resume auto {shape} --samples 8 --log-every 1"
    )
    run(MODULE, "elmo_hf.pretraining", *flags.split(), "--max-steps", "2")
    launch = "launch --cpu --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no"
    arguments = [*launch.split(), "-m", "elmo_hf.pretraining", *flags.split(), "--max-steps", "4"]
    run("from accelerate.commands.accelerate_cli import main; main()", *arguments)
    log = read_lines(tmp_path / "run" / "log.jsonl")
    assert [entry["step"] for entry in log if entry["kind"] == "step"] == [1, 2, 3, 4]
    perplexity = json.loads(elmo_hf("perplexity text-1.txt --model run/final --json --no-progress"))
    assert 1 < perplexity["mean"] < 1000
    assert requests_of(hub) == requests
