"""What a document tells people to type, typed: its fenced blocks, from top to bottom, where a reader stands.

    desk = Desk(folder, launcher)                     # the reader's folder, with the files that a reader has
    desk.read(REPOSITORY / "README.md", cut={"--epochs 3": "--lstm-dim 16"}, skip=["pytest"])
    desk.names["output"]                              # what the blocks of Python have made

A line is typed as it stands. Only the program is this source's: `elmo-hf` and `python SCRIPT` run in this
process, `accelerate launch training/pretrain.py` in a fork of one that has imported everything, and
`pip install` not at all. `cut` are flags for lines that would run for long, by a part of the line; `skip` are
the lines that somebody else runs. What was skipped is in `desk.skipped`, so that a test can name it.
"""

import os
import re
import runpy
import shlex
import subprocess
import sys
import urllib.request
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
    place: str  # README.md:17, where it begins


def blocks(path):
    """All fenced blocks of a Markdown file."""
    text = path.read_text(encoding="utf-8")
    found = []
    for one in FENCE.finditer(text):
        place = f"{path.relative_to(REPOSITORY)}:{text[: one.start()].count(chr(10)) + 1}"
        found.append(Block((one[2].split() or [""])[0], one[3], place))
    assert sum(line.startswith("```") for line in text.splitlines()) == 2 * len(found), path
    return found


def lines(block):
    """Its commands: without comments, with what `\\` puts on several lines in one, `a && b` as two."""
    text = block.text.replace("\\\n", " ")
    found = [shlex.join(shlex.split(line, comments=True)) for line in text.splitlines()]
    return [part for line in found for part in line.split(" '&&' ") if part]


class Desk:
    """A reader's folder, and what a reader types there."""

    def __init__(self, folder, launcher, hub=None):
        self.folder, self.launcher, self.hub = folder, launcher, hub
        self.names, self.variables, self.skipped, self.ran = {}, {}, [], []
        for name in ("training", "hub_cards"):
            (folder / name).symlink_to(REPOSITORY / name)

    def read(self, path, cut=None, skip=()):
        for block in blocks(path):
            if block.language in PYTHON:
                self.python(block)
            elif block.language in COMMANDS:
                for line in lines(block):
                    self.type(line, block.place, cut or {}, skip)
            elif block.language == "yaml":
                self.write(block)

    # ---- Python, and files

    def python(self, block):
        if "trust_remote_code=True" in block.text:  # for readers who have not this package
            return self.python_elsewhere(block)
        exec(compile(block.text, block.place, "exec"), self.names)

    def python_elsewhere(self, block):
        environment = os.environ | {"HF_HOME": str(self.folder / ".hf")}
        environment |= {"HF_ENDPOINT": self.hub.url, "HF_HUB_DISABLE_XET": "1"} if self.hub else {}
        done = subprocess.run(
            [sys.executable, "-c", block.text], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{block.place}\n{done.stderr}"

    def write(self, block):
        """A file, which its first line names: `# my-elmo/facts.yaml`."""
        name = block.text.splitlines()[0].removeprefix("# ").split()[0]
        (self.folder / name).write_text(block.text, encoding="utf-8")

    # ---- commands

    def type(self, line, place, cut, skip):
        if line in skip or line.startswith("pip install "):
            self.skipped.append(line)
            return
        self.ran.append(line)
        words = shlex.split(line)
        if len(words) == 1 and re.match(r"[A-Z]+=", words[0]):
            name, _, value = words[0].partition("=")
            self.variables[name] = shlex.split(value)
            return
        words = [part for word in words for part in self.variables.get(word.removeprefix("$"), [word])]
        words += [flag for part, flags in cut.items() if part in line for flag in shlex.split(flags)]
        programs = {
            "elmo-hf": self.elmo_hf,
            "python": self.script,
            "accelerate": self.accelerate,
            "mkdir": self.shell,
            "cp": self.shell,
        }
        assert words[0] in programs, f"{place}: nobody runs {line!r}"
        fault = programs[words[0]](words[1:] if words[0] not in ("mkdir", "cp") else words)
        assert not fault, f"{place}: {line}\n{fault}"

    def elmo_hf(self, words):
        if words[0] == "demo":
            return self.demo(words)
        done = CliRunner().invoke(app, words, catch_exceptions=False)
        return done.output if done.exit_code else ""

    def demo(self, words):
        """The page is asked for once."""
        command = [*ELMO_HF, *words, "--no-browser"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            said = process.stdout.readline()
            address = re.search(r"http://\S+", said)
            page = urllib.request.urlopen(address[0]).read().decode() if address else ""
            process.terminate()
            return "" if "A word in its context" in page else said + process.stderr.read()

    def script(self, words):
        """A script or `-m module`, as `python` starts it, in this process."""
        is_module = words[0] == "-m"
        path = (self.folder / words[0]).resolve()
        assert is_module or path.is_relative_to(REPOSITORY)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", words[1:] if is_module else words)
            try:
                if is_module:
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
        """accelerate's own parser takes what is its own; then pretrain.py runs with the rest."""
        assert words[0] == "launch"
        found = launch_command_parser().parse_args(words[1:])
        assert found.training_script == "training/pretrain.py"
        hook = f"import os; os.chdir({str(self.folder)!r})"
        run = self.launcher.start(found.training_script_args, hook=hook)
        return run.err if any(run.wait()) else ""

    def shell(self, words):
        done = subprocess.run(words, cwd=self.folder, capture_output=True, text=True, check=False)
        return done.stderr


# ---- what a reader has


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
    """Sentences, a line each: of a corpus, of news to learn and to be judged by."""
    texts = (REPOSITORY / "training" / "runs" / "smoke.txt").read_text(encoding="utf-8").splitlines(True)
    (folder / "news").mkdir()
    names = ["corpus.txt", "other.txt", "held-out.txt", "news-heldout.txt", "news/one.txt", "news/two.txt"]
    for number, name in enumerate(names):
        (folder / name).write_text("".join(texts[20 * number : 20 * number + 20]), encoding="utf-8")


def write_tagged(folder):
    """Words and their labels, in the columns of CoNLL."""
    for name in ("train", "dev", "test"):
        sentence = "Ada B-PER\nLovelace I-PER\nsat O\nin O\nParis B-LOC\n. O\n\n"
        (folder / f"{name}.conll").write_text(10 * sentence, encoding="utf-8")
