"""The code, commands and notebook of the documentation run, and Sphinx builds its pages without a warning."""

import inspect
import pkgutil
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from elmo_hf import TINY
from elmo_hf.cli import app
from tests.helpers.documents import (
    COMMANDS,
    PYTHON,
    REPOSITORY,
    DocumentRunner,
    commands_of,
    read_blocks,
    write_published,
    write_tagged,
    write_texts,
)
from tests.helpers.naive_manylangs import content, write_folder

DOCS = REPOSITORY / "docs"
GUIDES = DOCS / "guides"
PAGES = sorted(DOCS.rglob("*.md"))
# Languages of blocks that a test runs, compares or writes; Sphinx reads the last three.
KNOWN = {*COMMANDS, *PYTHON, "ini", "text", "yaml", "{eval-rst}", "{image}", "{toctree}"}
# Documents outside docs/, and the test that runs their blocks. Model cards have tests of their own.
DOCUMENT_TESTS = {
    "README.md": "test_readme.py",
    "CONTRIBUTING.md": "test_docs.py",
    "benchmarks/README.md": "test_docs.py",
    "examples/README.md": "test_examples.py",
    "hub_cards/README.md": "test_docs.py",
    "training/README.md": "test_docs.py",
}
# Pages that need other libraries, or several machines.
OWN_TESTS = {"neighbours.md": "test_neighbours.py", "many-machines.md": "test_many_machines.py"}
CARDS = ("hub_cards", "yaml")  # its test writes these blocks to the files that they name
# Flags that shorten long runs.
SMALL = "--lstm-dim 16 --projection-dim 8 --char-filters [[1,4],[2,8]] --num-highway-layers 1 --samples 8"
EXTRA_FLAGS = {
    "elmo-hf vocab 'news": "--heldout-every 2",  # the test's text is short
    "--output runs/news --resume": f"{SMALL} --rows 4 --window 5 --epochs 1 --log-every 1 --heldout-every 2",
    "smoke_cpu.yaml": "--max-steps 2",
    "finetune_ner.py": "--epochs 1",
    "hub_cards/render.py": "--check",
}
# These train for hours; a test checks their syntax only.
LONG = ["bash training/runs/elmo_tiny.sh DATA", "bash training/runs/elmo_small.sh DATA"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory of a reader with a published model and some texts."""
    monkeypatch.chdir(tmp_path)
    for name in ("in.txt", "data.txt", "sentences.txt", "text.txt"):
        Path(name).write_text("He sat on the bank .\nThe bank lent him money .\n", encoding="utf-8")
    write_published(tmp_path / "published-elmo")
    return tmp_path


# The first comes on machines without a GPU; PEFT 0.21 uses names that Transformers has changed.
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set:UserWarning")
@pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.name not in OWN_TESTS and page.parent == DOCS],
    ids=lambda page: page.name,
)
def test_blocks_of_a_page_run_from_top_to_bottom(page, folder, launcher):
    if page.name == "adapters.md":
        pytest.importorskip("peft", reason="the page on adapters needs pip install peft")
    runner = DocumentRunner(folder, launcher)
    long = long_programs(page.relative_to(REPOSITORY))
    runner.run(page, skip=long)
    assert runner.skipped == long


def test_blocks_of_the_training_readme_run(folder, launcher):
    write_texts(folder)
    write_tagged(folder)
    shutil.copy(next(folder.rglob("test.conll")), "web.conll")
    runner = DocumentRunner(folder, launcher)
    long = long_programs("training/README.md")
    runner.run(REPOSITORY / "training" / "README.md", EXTRA_FLAGS, skip=long)
    assert runner.skipped == long
    assert len(list((folder / "runs").glob("*/results.json"))) == 2


# huggingface_hub uses a deprecated option of its HTTP library to send a file.
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_blocks_of_the_model_cards_readme_run(folder, launcher, hub):
    """With elmo-tiny's facts and results; bash checks the syntax of the long scripts."""
    Path("src/elmo_hf/checkpoints").mkdir(parents=True)
    Path("src/elmo_hf/checkpoints/elmo-tiny").symlink_to(TINY)
    shutil.copytree(TINY, "my-elmo")
    shutil.copytree(REPOSITORY / "hub_cards" / "elmo-tiny", "my-elmo", dirs_exist_ok=True)
    Path("my-elmo/README.md").unlink()
    runner = DocumentRunner(folder, launcher, hub)
    runner.run(REPOSITORY / "hub_cards" / "README.md", EXTRA_FLAGS, skip=LONG)
    assert runner.skipped == LONG
    assert {"modeling_elmo.py", "README.md", "results/log.png"} <= set(hub.files("someone/elmo-tiny"))
    assert Path("my-elmo/README.md").exists()
    for line in LONG:
        subprocess.run(["bash", "-n", REPOSITORY / line.split()[1]], check=True)


def test_every_block_of_every_document_has_a_test():
    """Fails for a new document and for a new language of blocks."""
    documents = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("[a-z]*/README.md")]
    names = {path.relative_to(REPOSITORY).as_posix() for path in documents if read_blocks(path)}
    assert names == set(DOCUMENT_TESTS)
    for path in [*PAGES, *map(REPOSITORY.joinpath, DOCUMENT_TESTS)]:
        for block in read_blocks(path):
            assert block.language in KNOWN, f"{block.position}: no test for a block of {block.language!r}"
            has_reader = path.parent in (REPOSITORY, GUIDES) or (path.parent.name, block.language) == CARDS
            has_reader = has_reader or path.name in OWN_TESTS
            assert block.language not in ("text", "yaml") or has_reader, block.position


def command_lines(name):
    blocks = [block for block in read_blocks(REPOSITORY / name) if block.language in COMMANDS]
    return [line for block in blocks for line in commands_of(block)]


def long_programs(name):
    """Commands that run for hours; their own tests run them at a small size."""
    return [line for line in command_lines(name) if re.match(r"python -m (benchmarks|tests)\.", line)]


@pytest.mark.parametrize(
    ("name", "at_least"),
    [("benchmarks/README.md", 9), ("docs/compile.md", 1), ("docs/reliability.md", 4)],
)
def test_long_programs_have_the_flags_that_a_document_names(name, at_least):
    lines = command_lines(name)
    assert len(lines) >= at_least
    for line in lines:
        words = shlex.split(line)
        if words[0].startswith("OPTIONS="):
            continue
        assert words[0] == "python"
        assert words[1] == "-m"
        module = REPOSITORY / words[2].replace(".", "/")
        path = module / "__main__.py" if module.is_dir() else module.with_suffix(".py")
        source = path.read_text(encoding="utf-8")
        for flag in [word for word in words[3:] if word.startswith("--")]:
            assert f'"{flag}"' in source, line


def test_commands_for_contributors_are_those_of_the_integration():
    integration = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8").replace("--check", "").splitlines()
    integration += command_lines("README.md")  # .ci/run takes the installation from it
    for line in command_lines("CONTRIBUTING.md"):
        assert line in map(str.strip, integration), line


def test_the_readme_of_the_examples_has_only_tested_commands():
    lines = [line for line in command_lines("examples/README.md") if not line.startswith("pip install ")]
    assert len(lines) == 6
    assert all(re.match(r"python examples/\w+\.py --model my-elmo ", line) for line in lines)


@pytest.mark.usefixtures("folder")
def test_coming_from_other_libraries_gives_the_vectors_that_the_page_claims():
    """The page maps calls of other libraries to ours; the expected vectors are computed here."""
    import numpy as np
    import torch

    names: dict = {}
    page = (DOCS / "coming-from.md").read_text(encoding="utf-8")
    for block in re.findall(r"^```python\n(.*?)^```", page, re.M | re.S):
        exec(compile(block, "coming-from.md", "exec"), names)
    layers = [layer.detach().numpy() for layer in names["layers"]]
    mixed = sum(layers) / 3  # the mix before training
    for vectors in (names["at_input"], names["at_output"], names["average"]):
        np.testing.assert_allclose(vectors.detach().numpy(), mixed, atol=1e-6)
    assert not torch.equal(names["first"].last_hidden_state, names["second"].last_hidden_state)
    np.testing.assert_allclose(names["sentence_vectors"][0], mixed[0, :6].mean(axis=0), atol=1e-5)
    np.testing.assert_array_equal(names["array"].shape, (3, 2, names["model"].config.hidden_size))


@pytest.mark.usefixtures("folder")
def test_commands_in_the_text_and_tables_of_coming_from_run():
    page = (DOCS / "coming-from.md").read_text(encoding="utf-8").replace(" data out/", " data.txt out/")
    run("elmo-hf convert published-elmo/ my-elmo/")
    Path("published-elmo").rename("folder")
    write_folder(Path("179"), content())
    commands = list(dict.fromkeys(re.findall(r"`(elmo-hf [^`\n]+)`", page)))
    for line in commands:
        shutil.rmtree("out", ignore_errors=True)
        if line.endswith("/ my-elmo/"):
            shutil.rmtree("my-elmo")
        run(line)
    assert len(commands) >= 5


def run(line):
    shutil.rmtree("back", ignore_errors=True)
    result = CliRunner().invoke(app, shlex.split(line)[1:])
    assert result.exit_code == 0, f"{line}\n{result.output}"


@pytest.mark.usefixtures("folder")
def test_the_notebook_runs(monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason='the notebook needs pip install -e ".[docs]"')
    nbformat = pytest.importorskip("nbformat", reason='the notebook needs pip install -e ".[docs]"')
    pytest.importorskip("ipykernel", reason='the notebook needs pip install -e ".[docs]"')
    notebook = nbformat.read(DOCS / "tour.ipynb", as_version=4)
    saved = [cell.get("outputs") for cell in notebook.cells]
    monkeypatch.setenv("PYTHONPATH", str(DOCS.parent / "src"))
    # On a busy machine what a cell prints comes in pieces.
    nbclient.NotebookClient(notebook, kernel_name="python3", timeout=None, coalesce_streams=True).execute()
    for cell, before in zip(notebook.cells, saved, strict=True):
        outputs = cell.get("outputs", [])
        assert not [out for out in outputs if out.get("name") == "stderr"], outputs
        assert [media_types(out) for out in outputs] == [media_types(out) for out in before or []]


def media_types(output):
    """The type of a cell's output and the media types of its data."""
    return output["output_type"], sorted(output.get("data", {}))


def test_every_entry_of_the_api_reference_begins_with_a_summary():
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    names = re.findall(r"^.. auto(?:class|function):: elmo_hf\.([\w.]+)$", page, re.MULTILINE)
    assert len(names) > 20
    for name in names:
        item = pkgutil.resolve_name(f"elmo_hf.{name}")
        text = inspect.getdoc(item) or ""
        assert re.match(r"[A-Z`1-9(]|[a-z_]+: ", text), name
        assert not text.startswith("Args"), name
        assert not re.search("first lines|[Ss]ee above", text), name


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_texts_of_the_picture_fit_their_boxes(theme, tmp_path, monkeypatch):
    matplotlib = pytest.importorskip("matplotlib", reason='the picture needs pip install -e ".[plot]"')
    picture = runpy.run_path(str(DOCS / "picture.py"))
    figure = picture["draw"](picture["THEMES"][theme])
    (axes,) = figure.axes
    figure.draw_without_rendering()
    page = figure.get_window_extent()
    texts = [text.get_window_extent() for text in axes.texts if text.get_text()]
    assert len(texts) == 4 * 6 + 1 + 5
    boxes = [patch.get_window_extent() for patch in axes.patches]
    for number, text in enumerate(texts):
        assert page.contains(*text.min) and page.contains(*text.max)  # noqa: PT018
        assert not any(text.overlaps(other) for other in texts[:number])
        around = [box for box in boxes if box.overlaps(text) and box.height < page.height / 5]
        assert all(box.contains(*text.min) and box.contains(*text.max) for box in around)
    monkeypatch.setattr(sys, "argv", ["picture.py", "--output", str(tmp_path)])
    picture["main"]()
    drawn, kept = (folder.joinpath(f"elmo-{theme}.svg").read_bytes() for folder in (tmp_path, DOCS))
    if f"Matplotlib v{matplotlib.__version__}".encode() in kept:
        assert drawn == kept, "run python docs/picture.py"


def test_sphinx_builds_the_pages_without_a_warning(tmp_path):
    pytest.importorskip("sphinx", reason='the pages need pip install -e ".[docs]"')
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "--keep-going", str(DOCS), str(tmp_path / "site")]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    page = (tmp_path / "site" / "api.html").read_text(encoding="utf-8")
    for name in ("elmo_hf.ElmoModel", "elmo_hf.embed", "elmo_hf.ElmoForCoreferenceResolution"):
        assert f'id="{name}"' in page or f'id="{name}.embed"' in page
