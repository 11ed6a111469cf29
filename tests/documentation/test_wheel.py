"""The wheel alone, away from the sources and with no network, is enough for the README's first command."""

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

from tests.helpers.fork_server import ForkServer
from tests.helpers.paths import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
RUN = "import elmo_hf.cli; elmo_hf.cli.app(prog_name='elmo-hf')"
NO_NETWORK = """
import socket

def refuse(*_):
    raise RuntimeError("somebody wants the network")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"  # building writes beside the sources
    leave = shutil.ignore_patterns("*.egg-info", "__pycache__")
    for name in ("src", "training"):
        shutil.copytree(REPOSITORY / name, sources / name, ignore=leave)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, sources)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(sources)], check=True)
    shutil.rmtree(sources)
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel):
    """A folder with what the wheel holds, and with no way to the network."""
    folder = wheel.parent / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    (folder / "sitecustomize.py").write_text(NO_NETWORK, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def programs(installed):
    """Starts programs that find nothing but the wheel and what it needs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"PYTHONPATH": str(installed), "HF_HOME": str(installed / "empty")}
    fork_server = ForkServer("import h5py, torch\nfrom transformers import PreTrainedModel", environment)
    yield fork_server
    fork_server.close()


def test_the_wheel_has_all_and_is_as_small_as_it_should_be(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        tiny = [entry for entry in archive.infolist() if "/checkpoints/elmo-tiny/" in entry.filename]
    assert {"config.json", "model.safetensors", "vocab.txt"} <= {Path(one.filename).name for one in tiny}
    assert sum(one.file_size for one in tiny) <= 16_000_000
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


def test_a_recipe_runs_from_the_wheel(programs, installed, tmp_path):
    """With a metric of `evaluate`, which it copies to the cache, and no network."""
    (tmp_path / "ner.conll").write_text(10 * "Ada B-PER\nsat O\n\n", encoding="utf-8")
    files = [flag for split in ("train", "dev", "test") for flag in (f"--{split}", "ner.conll")]
    run = "import runpy; runpy.run_module('elmo_hf.finetuning', run_name='__main__', alter_sys=True)"
    flags = ["--smoke", "--epochs", "1", "--output", "run"]
    result = programs.run(run, "ner", *files, *flags, cwd=tmp_path)
    assert result.code == 0, result.err
    seed = tmp_path / "run" / "seed-0"
    command = json.loads((seed / "results" / "evaluation-ner.json").read_text())["command"]
    assert command == f"python -m elmo_hf.finetuning ner {' '.join([*files, *flags])}"
    where = "import elmo_hf.recipes.finetune_ner as recipe; print(recipe.__file__)"
    assert programs.run(where).out.startswith(str(installed))


def test_the_first_command_of_the_readme(programs):
    line = re.search(r"&& (elmo-hf vectors .*)", README).group(1)
    shown = re.search(r"^```text\n(.*?)^```", README, re.MULTILINE | re.DOTALL).group(1)
    result = programs.run(RUN, *shlex.split(line)[1:])
    assert result.err == ""
    assert shown.strip("\n") in result.out


def test_it_is_the_wheels_code_that_ran(installed, programs):
    result = programs.run("import elmo_hf; print(elmo_hf.__file__, elmo_hf.TINY)")
    assert all(path.startswith(str(installed)) for path in result.out.split())


def test_the_language_model_is_in_it(programs, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("The old man sat by the fire and told them a story .\n", encoding="utf-8")
    result = programs.run(RUN, "perplexity", str(text), "--json", "--no-progress")
    assert result.code == 0, result.err
    assert 1 < json.loads(result.out)["forward"] < 500


def test_a_corpus_without_naming_a_model(programs, tmp_path):
    text = tmp_path / "corpus.txt"
    text.write_text("The bank lent him money .\n", encoding="utf-8")
    result = programs.run(RUN, "embed", str(text), "vectors", "--no-progress", cwd=tmp_path)
    assert result.code == 0, result.err
    read = "import elmo_hf; print([vectors.shape for _, vectors in elmo_hf.read_vectors('vectors')])"
    assert programs.run(read, cwd=tmp_path).out == "[(6, 256)]\n"
