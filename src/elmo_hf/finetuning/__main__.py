"""Starts a recipe by the name of its task.

    FILES="--train train.conll --dev dev.conll --test test.conll"
    python -m elmo_hf.finetuning ner --elmo my-elmo $FILES --output runs/ner
    python -m elmo_hf.finetuning --help

The recipes are the files `training/finetune_<task>.py` of the repository. The wheel carries them as
`elmo_hf/recipes`.
"""

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from elmo_hf.errors import ElmoError
from elmo_hf.finetuning.flags import MODULE
from elmo_hf.finetuning.run import run

PACKAGE = Path(__file__).parents[1]
PREFIX = "finetune_"


def recipes() -> dict[str, Path]:
    """Return the recipes by task: those of the wheel, or of the repository if the package runs from there."""
    folder = PACKAGE / "recipes"
    folder = folder if folder.is_dir() else PACKAGE.parents[1] / "training"
    return {path.stem.removeprefix(PREFIX): path for path in sorted(folder.glob(f"{PREFIX}*.py"))}


def usage() -> str:
    """Return the tasks, each with the first line of its recipe's docstring."""
    lines = [f"usage: {MODULE} TASK [-h] [FLAGS ...]", "", "tasks:"]
    for task, path in recipes().items():
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        lines.append(f"  {task:6} {doc.splitlines()[0]}")
    return "\n".join([*lines, "", f"`{MODULE} TASK --help` lists the flags of a task."])


def main() -> None:
    task, *flags = sys.argv[1:] or ["--help"]
    if task in ("-h", "--help"):
        print(usage())
        return
    if task not in recipes():
        raise ElmoError(f"there is no task {task!r}; the tasks are {', '.join(recipes())}.")
    sys.argv = [f"{MODULE} {task}", *flags]  # the program's name in usage, messages and results
    run(load_recipe(recipes()[task]).main)


def load_recipe(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"elmo_hf.recipes.{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    recipe = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    return recipe


if __name__ == "__main__":
    sys.argv[0] = MODULE
    run(main)
