"""Runs the fenced code blocks of a Markdown document from top to bottom, in the folder of an imagined reader.

    runner = DocumentRunner(folder, launcher)
    runner.run(REPOSITORY / "README.md", extra_flags={"--epochs 3": "--lstm-dim 16"}, skip=["pytest"])
    runner.names["output"]                            # a variable of the Python blocks

Each command line runs as it stands, with this repository's programs: `elmo-hf` and `python SCRIPT` in this
process, `accelerate launch training/pretrain.py` in a fork of a process that has imported everything.
`pip install` does not run. `extra_flags` maps a substring of a long-running line to flags that shorten it;
`skip` lists lines that another test runs. `runner.skipped` holds the lines that did not run.
"""

import os
import re
import runpy
import shlex
import subprocess
import sys
import urllib.request
import warnings
from typing import NamedTuple

import pytest
import transformers
from accelerate.commands.launch import launch_command_parser
from typer.testing import CliRunner

from elmo_hf.cli import app
from tests.helpers.paths import REPOSITORY
from tests.helpers.reference import options, random_softmax, random_weights, write_hdf5

COMMANDS, PYTHON = ("bash", "shell"), ("python", "py")
FENCE = re.compile(r"^(`{3,})([^\n`]*)\n(.*?)^\1 *$", re.MULTILINE | re.DOTALL)
ELMO_HF = [sys.executable, "-c", "from elmo_hf.cli import app; app(prog_name='elmo-hf')"]


class Block(NamedTuple):
    language: str
    text: str
    position: str  # where it begins, as README.md:17


def read_blocks(path):
    """All fenced blocks of a Markdown file."""
    text = path.read_text(encoding="utf-8")
    blocks = []
    for match in FENCE.finditer(text):
        position = f"{path.relative_to(REPOSITORY)}:{text[: match.start()].count(chr(10)) + 1}"
        blocks.append(Block((match[2].split() or [""])[0], match[3], position))
    assert sum(line.startswith("```") for line in text.splitlines()) == 2 * len(blocks), path
    return blocks


def commands_of(block):
    """Its command lines, without comments. Lines that end in `\\` are joined; `a && b` is two commands."""
    text = block.text.replace("\\\n", " ")
    lines = [shlex.join(shlex.split(line, comments=True)) for line in text.splitlines()]
    return [command for line in lines for command in line.split(" '&&' ") if command]


class DocumentRunner:
    """Runs blocks in `folder`; with `hub`, a local Hub, for what the document downloads."""

    def __init__(self, folder, launcher, hub=None):
        self.folder, self.launcher, self.hub = folder, launcher, hub
        self.names, self.variables, self.skipped, self.ran = {}, {}, [], []
        for name in ("training", "hub_cards", "examples"):
            (folder / name).symlink_to(REPOSITORY / name)

    def run(self, path, extra_flags=None, skip=(), only=None):
        """only: the text of a section; the blocks of others do not run."""
        for block in read_blocks(path):
            if only is not None and block.text not in only:
                continue
            if block.language in PYTHON:
                self.run_python(block)
            elif block.language in COMMANDS:
                for line in commands_of(block):
                    self.run_command(line, block.position, extra_flags or {}, skip)
            elif block.language in ("ini", "yaml"):
                self.write_file(block)

    # ---- Python, and files

    def run_python(self, block):
        if "trust_remote_code=True" in block.text:  # for readers without this package
            return self.run_python_process(block)
        exec(compile(block.text, block.position, "exec"), self.names)

    def run_python_process(self, block):
        environment = os.environ | {"HF_HOME": str(self.folder / ".hf")}
        environment |= {"HF_ENDPOINT": self.hub.url, "HF_HUB_DISABLE_XET": "1"} if self.hub else {}
        process = subprocess.run(
            [sys.executable, "-c", block.text], env=environment, capture_output=True, text=True, check=False
        )
        assert process.returncode == 0, f"{block.position}\n{process.stderr}"

    def write_file(self, block):
        """Write a block to the file that its first line names: `# my-elmo/facts.yaml`."""
        name = block.text.splitlines()[0].removeprefix("# ").split()[0]
        (self.folder / name).write_text(block.text, encoding="utf-8")

    # ---- commands

    def run_command(self, line, position, extra_flags, skip):
        if line in skip or line.startswith("pip install "):
            self.skipped.append(line)
            return
        self.ran.append(line)
        words = shlex.split(line)
        if len(words) == 1 and re.match(r"[A-Z]+=", words[0]):
            name, _, value = words[0].partition("=")
            self.variables[name] = shlex.split(value)
            return
        words = [value for word in words for value in self.variables.get(word.removeprefix("$"), [word])]
        matching = [flags for substring, flags in extra_flags.items() if substring in line]
        words += [flag for flags in matching for flag in shlex.split(flags)]
        programs = {
            "elmo-hf": self.elmo_hf,
            "python": self.script,
            "accelerate": self.accelerate,
            "mkdir": self.shell,
            "cp": self.shell,
        }
        assert words[0] in programs, f"{position}: no program for {line!r}"
        error = programs[words[0]](words[1:] if words[0] not in ("mkdir", "cp") else words)
        assert not error, f"{position}: {line}\n{error}"

    def elmo_hf(self, words):
        if words[0] == "demo":
            return self.demo(words)
        result = CliRunner().invoke(app, words, catch_exceptions=False)
        return result.output if result.exit_code else ""

    def demo(self, words):
        """Start the demo, request its page once, and stop it."""
        command = [*ELMO_HF, *words, "--no-browser"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            first_line = process.stdout.readline()
            address = re.search(r"http://\S+", first_line)
            page = urllib.request.urlopen(address[0]).read().decode() if address else ""
            process.terminate()
            return "" if "A word in its context" in page else first_line + process.stderr.read()

    def script(self, words):
        """Run a script or `-m module` in this process, as `python` would."""
        is_module = words[0] == "-m"
        path = (self.folder / words[0]).resolve()
        assert is_module or path.is_relative_to(REPOSITORY)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", words[1:] if is_module else words)
            try:
                if is_module:
                    with warnings.catch_warnings():  # another test may have imported the module
                        warnings.filterwarnings(
                            "ignore", message=".* found in sys.modules", category=RuntimeWarning
                        )
                        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
                else:
                    runpy.run_path(str(path), run_name="__main__")
            except SystemExit as end:
                return str(end.code) if end.code else ""
            finally:  # a script may have made the library silent
                transformers.utils.logging.set_verbosity_warning()
                transformers.utils.logging.enable_progress_bar()
        return ""

    def accelerate(self, words):
        """Parse accelerate's options by its own parser, and run pretrain.py with the remaining ones."""
        assert words[0] == "launch"
        options = launch_command_parser().parse_args(words[1:])
        assert options.training_script == "training/pretrain.py"
        hook = f"import os; os.chdir({str(self.folder)!r})"
        processes = options.num_processes or 1
        run = self.launcher.start(options.training_script_args, processes=processes, hook=hook)
        return run.err if any(run.wait()) else ""

    def shell(self, words):
        return subprocess.run(words, cwd=self.folder, capture_output=True, text=True, check=False).stderr


# ---- files that a reader has


def write_published(folder):
    """A small model in the originals' files."""
    folder.mkdir()
    words = ["<S>", "</S>", "<UNK>", "He", "sat", "on", "the", "bank", "."]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    settings = options()
    text = str(settings).replace("'", '"').replace("True", "true")
    (folder / "options.json").write_text(text, encoding="utf-8")
    write_hdf5(folder / "weights.hdf5", random_weights(settings, seed=0))
    write_hdf5(folder / "softmax.hdf5", random_softmax(settings, seed=1, vocab_size=len(words)))
    return folder


def write_texts(folder):
    """Text files of one sentence a line: a corpus, training text and held-out text."""
    texts = (REPOSITORY / "training" / "runs" / "smoke.txt").read_text(encoding="utf-8").splitlines(True)
    (folder / "news").mkdir()
    names = ["corpus.txt", "other.txt", "held-out.txt", "news-heldout.txt", "news/one.txt", "news/two.txt"]
    for number, name in enumerate(names):
        (folder / name).write_text("".join(texts[20 * number : 20 * number + 20]), encoding="utf-8")


def write_tagged(folder):
    """Words and their labels in CoNLL columns: train, dev and test."""
    for name in ("train", "dev", "test"):
        sentence = "Ada B-PER\nLovelace I-PER\nsat O\nin O\nParis B-LOC\n. O\n\n"
        (folder / f"{name}.conll").write_text(10 * sentence, encoding="utf-8")
