"""Create environments for the other packages, from pinned versions, in benchmarks/.envs (about 4 GB).

    python -m benchmarks.speed.setup_peers                       # all of them
    python -m benchmarks.speed.setup_peers allennlp --python /usr/bin/python3.9

AllenNLP 2.10.1 needs Python 3.9, simple_elmo on TensorFlow 2.15 needs Python 3.11. A Python is searched on
the PATH, among pyenv's versions, and then with `uv`, which can download it. A package without an environment
is left out of the benchmark.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.report import ENVIRONMENTS, ROOT

PEERS = {  # name: (Python version, an import that must work afterwards)
    "allennlp": ("3.9", "from allennlp.modules.elmo import Elmo"),
    "simple-elmo": ("3.11", "import simple_elmo"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("peers", nargs="*", help=f"some of {', '.join(PEERS)} (all)")
    parser.add_argument("--python", help="the path of a Python (searched)")
    options = parser.parse_args()
    unknown = set(options.peers) - set(PEERS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; the names are {', '.join(PEERS)}")
    failed = [name for name in options.peers or PEERS if not set_up(name, options.python)]
    sys.exit(f"Not set up: {', '.join(failed)}." if failed else 0)


def set_up(name: str, python: str | None) -> bool:
    python_version, test = PEERS[name]
    folder = ENVIRONMENTS / name
    if not make_environment(folder, python or find_python(python_version), python_version):
        print(f"{name}: found no Python {python_version}; install it, or give its path with --python.")
        return False
    print(f"{name}: installing into {folder}", flush=True)
    requirements = ROOT / "benchmarks" / "requirements" / f"{name}.txt"
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--requirement", requirements]
    for arguments in (install, ["-W", "ignore", "-c", test]):
        if subprocess.run([python_of(name), *arguments], check=False).returncode:
            print(f"{name}: failed, see above.")
            return False
    print(f"{name}: ready.")
    return True


def make_environment(folder: Path, python: str | None, python_version: str) -> bool:
    if python is not None:
        command = [python, "-m", "venv", "--clear", str(folder)]
    elif shutil.which("uv"):
        command = ["uv", "venv", "--seed", "--clear", "--python", python_version, str(folder)]
    else:
        return False
    return subprocess.run(command, check=False).returncode == 0


def find_python(python_version: str) -> str | None:
    pyenv = Path.home() / ".pyenv" / "versions"
    installed = [str(path) for path in sorted(pyenv.glob(f"{python_version}.*/bin/python"))]
    for candidate in [f"python{python_version}", *reversed(installed)]:
        path = shutil.which(candidate)
        # pyenv's shims are on the PATH even for inactive versions, and then fail.
        if path and subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:
            return path
    return None


def python_of(name: str) -> Path:
    return ENVIRONMENTS / name / "bin" / "python"


if __name__ == "__main__":
    main()
