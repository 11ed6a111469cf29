"""The documentation: its code, its commands and its notebook run, and it becomes pages without a warning."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from elmo_hf import TINY
from elmo_hf.cli import app

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = sorted(DOCS.glob("*.md"))


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """Where a reader would stand who has a model and some texts."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(TINY, "my-elmo")
    for name in ("in.txt", "data", "sentences.txt", "text.txt"):
        Path(name).write_text("He sat on the bank .\nThe bank lent him money .\n", encoding="utf-8")
    Path("data").rename("data.txt")
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_of_a_page_runs_from_top_to_bottom(page, desk):
    names: dict = {}
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        exec(compile(block, page.name, "exec"), names)


def test_the_vectors_that_the_page_says_are_the_same(desk):
    """Of each library the page claims what ours is; here it is computed by hand."""
    import numpy as np
    import torch

    names: dict = {}
    page = (DOCS / "coming-from.md").read_text(encoding="utf-8")
    for block in re.findall(r"^```python\n(.*?)^```", page, re.M | re.S):
        exec(compile(block, "coming-from.md", "exec"), names)
    layers = [layer.detach().numpy() for layer in names["layers"]]
    mixed = sum(layers) / 3  # a mix that has learnt nothing
    for found in (names["at_input"], names["at_output"], names["average"]):
        np.testing.assert_allclose(found.detach().numpy(), mixed, atol=1e-6)
    assert not torch.equal(names["first"].last_hidden_state, names["second"].last_hidden_state)
    np.testing.assert_allclose(names["sentence_vectors"][0], mixed[0, :6].mean(axis=0), atol=1e-5)
    np.testing.assert_array_equal(names["array"].shape, (3, 2, names["model"].config.hidden_size))


def test_commands_of_a_page_run(desk):
    page = (DOCS / "coming-from.md").read_text(encoding="utf-8").replace(" data out/", " data.txt out/")
    commands = list(dict.fromkeys(re.findall(r"(elmo-hf [^`#\n]+)", page)))
    back = next(line for line in commands if "--to bilm" in line)
    run(back)
    Path("back").rename("folder")  # a published model
    for line in commands:
        line = line.replace("FOLDER-OR-FILES", "folder")
        shutil.rmtree("out", ignore_errors=True)
        if line.startswith("elmo-hf convert folder"):
            shutil.rmtree("my-elmo")
        run(line)
    assert len(commands) >= 6


def run(line):
    shutil.rmtree("back", ignore_errors=True)
    done = CliRunner().invoke(app, shlex.split(line)[1:])
    assert done.exit_code == 0, f"{line}\n{done.output}"


def test_the_notebook_runs(desk, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason='the notebook needs pip install -e ".[docs]"')
    nbformat = pytest.importorskip("nbformat", reason='the notebook needs pip install -e ".[docs]"')
    pytest.importorskip("ipykernel", reason='the notebook needs pip install -e ".[docs]"')
    notebook = nbformat.read(DOCS / "tour.ipynb", as_version=4)
    saved = [cell.get("outputs") for cell in notebook.cells]
    monkeypatch.setenv("PYTHONPATH", str(DOCS.parent / "src"))
    nbclient.NotebookClient(notebook, kernel_name="python3", timeout=None).execute()
    for cell, before in zip(notebook.cells, saved, strict=True):
        outputs = cell.get("outputs", [])
        assert not [out for out in outputs if out.get("name") == "stderr"], outputs
        assert [kinds(out) for out in outputs] == [kinds(out) for out in before or []]


def kinds(output):
    """Text and pictures, as they were saved."""
    return output["output_type"], sorted(output.get("data", {}))


def test_the_pages_are_made_without_a_warning(tmp_path):
    pytest.importorskip("sphinx", reason='the pages need pip install -e ".[docs]"')
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "--keep-going", str(DOCS), str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "api.html").read_text(encoding="utf-8")
    for name in ("elmo_hf.ElmoModel", "elmo_hf.embed", "elmo_hf.ElmoForCoreferenceResolution"):
        assert f'id="{name}"' in page or f'id="{name}.embed"' in page
