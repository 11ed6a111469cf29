"""Starts a recipe by the name of its task.

    FILES="--train train.conll --dev dev.conll --test test.conll"
    python -m elmo_hf.finetuning ner --elmo my-elmo $FILES --output runs/ner
    python -m elmo_hf.finetuning --help

The recipes are the files `training/finetune_<task>.py` of the repository. The wheel carries them as
`elmo_hf/recipes`.
"""

import ast
import sys
from pathlib import Path

from elmo_hf.errors import ElmoError
from elmo_hf.finetuning.flags import MODULE
from elmo_hf.finetuning.run import run
from elmo_hf.scripts import find_scripts, load_script

PREFIX = "finetune_"


def recipes() -> dict[str, Path]:
    """Return the recipes by task."""
    return {path.stem.removeprefix(PREFIX): path for path in find_scripts(f"{PREFIX}*.py")}


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
    run(load_script(recipes()[task].name).main)


if __name__ == "__main__":
    sys.argv[0] = MODULE
    run(main)
