"""The package as a whole: a quick import, all public names, all packages, and the Auto classes."""

import ast
import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import elmo_hf
from elmo_hf.cli import app
from tests.helpers.fork_server import ForkServer
from tests.helpers.paths import REPOSITORY

HEAVY = ["torch", "transformers", "numpy", "datasets", "h5py", "matplotlib", "huggingface_hub"]


def run(program: str) -> str:
    """What a program prints in a process of its own."""
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_the_import_waits_for_no_library():
    loaded = run("import elmo_hf, sys, json; print(json.dumps(sorted(sys.modules)))")
    assert not set(HEAVY) & set(json.loads(loaded))


CONSOLE_SCRIPT = "from elmo_hf.cli import app\nsys.argv[0] = 'elmo-hf'\napp()"
MODULE = "import runpy\nrunpy.run_module('elmo_hf', run_name='__main__')"


@pytest.mark.parametrize(
    ("arguments", "environment", "shown"),
    [
        (["--help"], {}, "elmo-hf vectors"),
        (["-h"], {}, "elmo-hf vectors"),
        (["--version"], {}, f"elmo-hf {elmo_hf.__version__}"),
        (["embed", "--help"], {}, "--keep-columns"),
        ([], {"COMP_WORDS": "elmo-hf v", "COMP_CWORD": "1", "_ELMO_HF_COMPLETE": "complete_bash"}, "vectors"),
    ],
)
@pytest.mark.parametrize("start", [CONSOLE_SCRIPT, MODULE])
def test_help_and_completion_wait_for_no_library(start, arguments, environment, shown):
    program = (
        "import atexit, sys\n"
        f"heavy = {HEAVY!r}\n"
        "atexit.register(lambda: print([name for name in heavy if name in sys.modules], file=sys.stderr))\n"
        f"sys.argv = ['elmo-hf', *{arguments!r}]\n{start}"
    )
    process = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown in process.stdout
    assert process.stderr.splitlines()[-1] == "[]"


def test_every_public_name_is_there():
    for name in elmo_hf.__all__:
        assert getattr(elmo_hf, name) is not None
    assert set(elmo_hf.__all__) <= set(dir(elmo_hf))
    with pytest.raises(AttributeError, match="has no attribute 'ElmoForPoetry'"):
        elmo_hf.ElmoForPoetry  # noqa: B018


def test_type_checkers_see_the_names_that_programs_get():
    """The imports under TYPE_CHECKING and the table of lazy imports are the same."""
    tree = ast.parse((REPOSITORY / "src" / "elmo_hf" / "__init__.py").read_text(encoding="utf-8"))
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    declared = {alias.name: node.module for node in block.body for alias in node.names}
    assert declared.pop("kernels") == declared.pop("metrics") == "elmo_hf"
    assert declared == {name: f"elmo_hf.{module}" for name, module in elmo_hf._MODULES.items()}
    assert {"TINY", "kernels", "metrics", *declared} == set(elmo_hf.__all__)


def test_pyproject_lists_every_package():
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11")
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    source = REPOSITORY / "src"
    folders = {path.parent for path in source.rglob("*.py")}
    names = {".".join(folder.relative_to(source).parts) for folder in folders}
    assert {*project["tool"]["setuptools"]["packages"]} == names | {"elmo_hf.recipes"}


@pytest.fixture(scope="module")
def programs():
    """Starts programs in which the libraries below are loaded, but neither Transformers nor this package."""
    libraries = (
        "torch, torch._dynamo, huggingface_hub.hf_api, numpy, safetensors.torch, tokenizers, tqdm.auto"
    )
    check = "assert not {'transformers', 'elmo_hf'} & set(__import__('sys').modules)"
    server = ForkServer(f"import {libraries}\n{check}", dict(os.environ))
    yield server
    server.close()


LOADS = (
    "tokenizer = AutoTokenizer.from_pretrained(elmo_hf.TINY); model = AutoModel.from_pretrained(elmo_hf.TINY)"
)
AUTO = "from transformers import AutoModel, AutoTokenizer"


@pytest.mark.parametrize(
    "imports",
    [
        f"import elmo_hf\n{AUTO}",
        f"{AUTO}\nimport elmo_hf",
        "import elmo_hf\nfrom transformers import AutoTokenizer\nfrom transformers import AutoModel",
        f"import elmo_hf, importlib.util\nimportlib.util.find_spec('transformers')\n{AUTO}",
        "from transformers import AutoConfig\nimport elmo_hf\n" + AUTO,
        "import transformers\nimport elmo_hf\nfrom transformers import pipeline\n" + AUTO,
        f"import elmo_hf\nfrom elmo_hf import ElmoModel\n{AUTO}",
        f"from elmo_hf.model.modeling_elmo_tagging import ElmoForTokenClassification\nimport elmo_hf\n{AUTO}",
        f"from elmo_hf.embedding.embedder import Embedder\nimport elmo_hf\n{AUTO}",
        f"import elmo_hf\nimport transformers.modeling_utils\n{AUTO}",
        f"import elmo_hf\nimport transformers.models.bert.modeling_bert\n{AUTO}",
    ],
)
def test_the_auto_classes_know_elmo_whatever_is_imported_first(imports, programs):
    shown = "print(type(model).__name__, type(tokenizer).__name__)"
    completed = programs.run(f"{imports}\n{LOADS}\n{shown}")
    assert (completed.code, completed.out) == (0, "ElmoModel ElmoTokenizer\n"), completed.err


def test_options_of_commands_are_documented_by_their_functions():
    """`elmo-hf embed --help` has the text of `embed`'s docstring for each option."""
    shown = {
        "embed": ("--cache-words", "Words whose encodings are kept"),
        "perplexity": ("--states", "LSTM states at the start"),
        "vocab": ("--min-count", "Leave out rarer words, which then count as <UNK>"),
        "push": ("--branch", "Where the commit goes; default: main"),
    }
    for name, (flag, text) in shown.items():
        result = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "300"})
        assert result.exit_code == 0
        [line] = [line for line in result.stdout.splitlines() if flag in line]
        assert text in line
