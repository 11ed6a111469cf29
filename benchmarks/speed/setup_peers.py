"""Makes the peers' own environments, from pinned versions, in benchmarks/.envs (about 4 GB).

    python -m benchmarks.speed.setup_peers                       # all of them
    python -m benchmarks.speed.setup_peers allennlp --python /usr/bin/python3.9

AllenNLP 2.10.1 wants Python 3.9 here, simple_elmo on TensorFlow 2.15 wants Python 3.11. Each is looked for
on the PATH, among pyenv's versions, and then with `uv`, which can fetch it. A peer without its environment is
left out of the benchmark, nothing else.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.report import ENVIRONMENTS, ROOT

PEERS = {  # name: (Python, what must import afterwards)
    "allennlp": ("3.9", "from allennlp.modules.elmo import Elmo"),
    "simple-elmo": ("3.11", "import simple_elmo"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("peers", nargs="*", help=f"of {', '.join(PEERS)}; all if left out")
    parser.add_argument("--python", help="the Python to use, if it is not found by itself")
    options = parser.parse_args()
    unknown = set(options.peers) - set(PEERS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    failed = [name for name in options.peers or PEERS if not set_up(name, options.python)]
    sys.exit(f"Not set up: {', '.join(failed)}." if failed else 0)


def set_up(name: str, python: str | None) -> bool:
    wanted, test = PEERS[name]
    folder = ENVIRONMENTS / name
    if not make_environment(folder, python or find_python(wanted), wanted):
        print(f"{name}: needs Python {wanted}, and there is none; install it, or name it with --python.")
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


def make_environment(folder: Path, python: str | None, wanted: str) -> bool:
    if python is not None:
        make = [python, "-m", "venv", "--clear", str(folder)]
    elif shutil.which("uv"):
        make = ["uv", "venv", "--seed", "--clear", "--python", wanted, str(folder)]
    else:
        return False
    return subprocess.run(make, check=False).returncode == 0


def find_python(wanted: str) -> str | None:
    pyenv = Path.home() / ".pyenv" / "versions"
    found = [str(path) for path in sorted(pyenv.glob(f"{wanted}.*/bin/python"))]
    for candidate in [f"python{wanted}", *reversed(found)]:
        path = shutil.which(candidate)
        # pyenv's stand-ins are on the PATH for versions that are switched off, and then only complain.
        if path and subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:
            return path
    return None


def python_of(name: str) -> Path:
    return ENVIRONMENTS / name / "bin" / "python"


if __name__ == "__main__":
    main()
