"""The documentation: its code, its commands and its notebook run, and it becomes pages without a warning."""

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
from tests.helpers.typed import (
    COMMANDS,
    PYTHON,
    REPOSITORY,
    Desk,
    blocks,
    lines,
    write_published,
    write_tagged,
    write_texts,
)

DOCS = REPOSITORY / "docs"
PAGES = sorted(DOCS.glob("*.md"))
# Blocks that somebody runs, shows or writes; sphinx reads the last three.
KNOWN = {*COMMANDS, *PYTHON, "text", "yaml", "{eval-rst}", "{image}", "{toctree}"}
# Documents beside docs/, and the test that runs their blocks. Model cards are rendered, and tested as such.
ELSEWHERE = {
    "README.md": "test_readme.py",
    "CONTRIBUTING.md": "test_docs.py",
    "benchmarks/README.md": "test_docs.py",
    "examples/README.md": "test_examples.py",
    "hub_cards/README.md": "test_docs.py",
    "training/README.md": "test_docs.py",
}
# Flags for what would run for long.
SMALL = "--lstm-dim 16 --projection-dim 8 --char-filters [[1,4],[2,8]] --num-highway-layers 1 --samples 8"
CUT = {
    "--output runs/news --resume": f"{SMALL} --rows 4 --window 5 --epochs 1 --log-every 1",
    "smoke_cpu.yaml": "--max-steps 2",
    "finetune_ner.py": "--epochs 1 --seeds 0",
    "hub_cards/render.py": "--check",
}
# These train for hours; a test looks whether bash reads them.
LONG = ["bash training/runs/elmo_tiny.sh DATA", "bash training/runs/elmo_small.sh DATA"]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """Where a reader would stand who has a model and some texts."""
    monkeypatch.chdir(tmp_path)
    for name in ("in.txt", "data.txt", "sentences.txt", "text.txt"):
        Path(name).write_text("He sat on the bank .\nThe bank lent him money .\n", encoding="utf-8")
    write_published(tmp_path / "published-elmo")
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_of_a_page_run_from_top_to_bottom(page, desk, launcher):
    reader = Desk(desk, launcher)
    reader.read(page)
    assert reader.skipped == []


def test_what_training_says_runs(desk, launcher):
    write_texts(desk)
    write_tagged(desk)
    reader = Desk(desk, launcher)
    reader.read(REPOSITORY / "training" / "README.md", CUT)
    assert reader.skipped == []
    assert len(list((desk / "runs").glob("*/results.json"))) == 2


# huggingface_hub sends a file by an option of its HTTP library that is going away.
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_what_the_cards_say_runs(desk, launcher, hub):
    """With elmo-tiny's facts and results; its scripts are read, but not run."""
    Path("src/elmo_hf/checkpoints").mkdir(parents=True)
    Path("src/elmo_hf/checkpoints/elmo-tiny").symlink_to(TINY)
    shutil.copytree(TINY, "my-elmo")
    shutil.copytree(REPOSITORY / "hub_cards" / "elmo-tiny", "my-elmo", dirs_exist_ok=True)
    Path("my-elmo/README.md").unlink()
    reader = Desk(desk, launcher, hub)
    reader.read(REPOSITORY / "hub_cards" / "README.md", CUT, skip=LONG)
    assert reader.skipped == LONG
    assert {"modeling_elmo.py", "README.md", "results/log.png"} <= set(hub.files("someone/elmo-tiny"))
    assert Path("my-elmo/README.md").exists()
    for line in LONG:
        subprocess.run(["bash", "-n", REPOSITORY / line.split()[1]], check=True)


def test_there_is_no_block_that_nobody_runs():
    """A new document, or a language that no test knows, is seen here."""
    documents = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("[a-z]*/README.md")]
    names = {path.relative_to(REPOSITORY).as_posix() for path in documents if blocks(path)}
    assert names == set(ELSEWHERE)
    for path in [*PAGES, *map(REPOSITORY.joinpath, ELSEWHERE)]:
        for block in blocks(path):
            assert block.language in KNOWN, f"{block.place}: nobody runs a block of {block.language!r}"
            assert block.language not in ("text", "yaml") or path.parent == REPOSITORY, block.place


def lines_of(name):
    commands = [block for block in blocks(REPOSITORY / name) if block.language in COMMANDS]
    return [line for block in commands for line in lines(block)]


def test_flags_that_the_benchmarks_page_names_are_those_of_its_scripts():
    """They run for hours, and their own tests run them small."""
    found = lines_of("benchmarks/README.md")
    assert len(found) > 8
    for line in found:
        words = shlex.split(line)
        assert words[0] == "python"
        assert words[1] == "-m"
        place = REPOSITORY / words[2].replace(".", "/")
        path = place / "__main__.py" if place.is_dir() else place.with_suffix(".py")
        source = path.read_text(encoding="utf-8")
        for flag in [word for word in words[3:] if word.startswith("--")]:
            assert f'"{flag}"' in source, line


def test_what_contributors_type_is_what_the_integration_types():
    typed = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8").replace("--check", "").splitlines()
    typed += lines_of("README.md")  # of which it takes the installation
    for line in lines_of("CONTRIBUTING.md"):
        assert line in map(str.strip, typed), line


def test_the_examples_page_has_only_what_its_test_runs():
    found = [line for line in lines_of("examples/README.md") if not line.startswith("pip install ")]
    assert len(found) == 3
    assert all(re.match(r"python examples/\w+\.py --model my-elmo ", line) for line in found)


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
    """Those within its text and its tables."""
    page = (DOCS / "coming-from.md").read_text(encoding="utf-8").replace(" data out/", " data.txt out/")
    run("elmo-hf convert published-elmo/ my-elmo/")
    Path("published-elmo").rename("folder")
    commands = list(dict.fromkeys(re.findall(r"`(elmo-hf [^`\n]+)`", page)))
    for line in commands:
        shutil.rmtree("out", ignore_errors=True)
        if line.startswith("elmo-hf convert folder"):
            shutil.rmtree("my-elmo")
        run(line)
    assert len(commands) >= 5


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


def test_everything_in_the_reference_says_what_it_is():
    """In a sentence, before its arguments, that is to be understood without the source."""
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    names = re.findall(r"^.. auto(?:class|function):: elmo_hf\.([\w.]+)$", page, re.MULTILINE)
    assert len(names) > 20
    for name in names:
        one = pkgutil.resolve_name(f"elmo_hf.{name}")
        text = inspect.getdoc(one) or ""
        assert re.match(r"[A-Z`1-9(]|[a-z_]+: ", text), name
        assert not text.startswith("Args"), name
        assert not re.search("first lines|[Ss]ee above", text), name


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_picture_has_all_its_words_and_they_fit(theme, tmp_path, monkeypatch):
    matplotlib = pytest.importorskip("matplotlib", reason='the picture needs pip install -e ".[plot]"')
    picture = runpy.run_path(str(DOCS / "picture.py"))
    figure = picture["draw"](picture["THEMES"][theme])
    (axes,) = figure.axes
    figure.draw_without_rendering()
    page = figure.get_window_extent()
    texts = [one.get_window_extent() for one in axes.texts if one.get_text()]
    assert len(texts) == 4 * 6 + 1 + 5
    boxes = [one.get_window_extent() for one in axes.patches]
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


def test_the_pages_are_made_without_a_warning(tmp_path):
    pytest.importorskip("sphinx", reason='the pages need pip install -e ".[docs]"')
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "--keep-going", str(DOCS), str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "api.html").read_text(encoding="utf-8")
    for name in ("elmo_hf.ElmoModel", "elmo_hf.embed", "elmo_hf.ElmoForCoreferenceResolution"):
        assert f'id="{name}"' in page or f'id="{name}.embed"' in page
