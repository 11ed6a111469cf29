"""The scripts of the repository's folder `training/`, which the wheel carries as `elmo_hf/recipes`."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from elmo_hf.errors import ElmoError

PACKAGE = Path(__file__).parent


def find_scripts(pattern: str = "*.py") -> list[Path]:
    """The scripts of the wheel, or those of the repository if the package runs from there."""
    installed = PACKAGE / "recipes"
    folder = installed if installed.is_dir() else PACKAGE.parents[1] / "training"
    return sorted(folder.glob(pattern))


def load_script(name: str) -> ModuleType:
    """The script of a file name, as a module; its `main` runs it."""
    path = next(iter(find_scripts(name)), None)
    if path is None:
        raise ElmoError(f"the script {name} is not installed; install the wheel of elmo-hf again.")
    spec = importlib.util.spec_from_file_location(f"elmo_hf.recipes.{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    script = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script
