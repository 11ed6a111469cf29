"""A new user's first minutes with this repository, typed as the README says, and timed.

    python -m benchmarks.first_minutes                    # on a clean clone, in an environment of its own
    python -m benchmarks.first_minutes --published published-elmo/ --tagged wnut17train.conll
    python -m benchmarks.first_minutes --here --epochs 1  # without clone and installation: what is here
    python -m benchmarks.first_minutes --table            # its JSON, as the table of README.md

Clone, install, see vectors, convert a published ELMo, teach a tagger 200 sentences, write its card, push it
to a Hub (one on this machine), load it there by its name. Commands are taken from the README, and each is
typed once: the path ends with a message where one fails, or where a warning stands on the screen. Without
`--published` the package's own model is written in the originals' files first; without `--tagged` names are
labelled by a rule. The JSON has each step's seconds, by the clock and of the processor, and what it wrote to
stderr, but for bars and for what pip says of this machine's own configuration.
"""

import argparse
import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.report import ROOT, command, machine, write_json
from benchmarks.speed.table import fill_blocks, markdown
from tests.helpers.hub_server import Hub  # the Hub of the tests

PAGE = ROOT / "benchmarks" / "README.md"
RESULT = ROOT / "benchmarks" / "results" / "first-minutes.json"
WARNING = re.compile(r"warn|deprecat|traceback", re.IGNORECASE)
# What pip says of folders that the machine's own configuration names; they are counted, and left out.
OF_THE_MACHINE = re.compile(r"^WARNING: Location '.*' is ignored: it is neither a file nor a directory\.$")
TINY = "src/elmo_hf/checkpoints/elmo-tiny"
SIZES = {"train": 200, "dev": 50, "test": 50}
NO_NAMES = {"The", "When", "An", "A"}  # of the words with a capital in training/runs/smoke.txt
NAME = "someone/my-tagger"
LOAD = f"""
from transformers import AutoModelForTokenClassification, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained("{NAME}", trust_remote_code=True)
model = AutoModelForTokenClassification.from_pretrained("{NAME}", trust_remote_code=True).eval()
print(model(**tokenizer("Ada left .", return_tensors="pt")).logits.shape)
"""


@dataclass
class Reader:
    """Somebody who stands in a folder, and types."""

    folder: Path
    environment: dict[str, str]
    steps: list[dict[str, Any]] = field(default_factory=list)

    def types(self, step: str, *lines: str) -> str:
        """Lines of bash, each once. Returns what they print; ends where one fails or warns."""
        begun, worked = time.perf_counter(), seconds_worked()
        said, complained = "", ""
        for line in lines:
            print(f"{step}: {shortened(line)}", flush=True)
            done = subprocess.run(
                ["bash", "-c", line],
                cwd=self.folder,
                env=self.environment,
                capture_output=True,
                text=True,
                check=False,
            )
            said, complained = said + done.stdout, complained + done.stderr
            if done.returncode:
                sys.exit(f"first_minutes.py: {line!r} failed.\n{said[-2000:]}\n{complained[-4000:]}")
        times = {
            "seconds": round(time.perf_counter() - begun, 1),
            "processor_seconds": round(seconds_worked() - worked, 1),
        }
        complained, left_out = without_the_machine(complained)
        warnings = find_warnings(said + complained)
        entry = {"step": step, "commands": [*map(shortened, lines)]} | times
        entry |= {"stderr": self.lines_of(complained), "warnings": warnings}
        self.steps.append(entry | ({"of_the_machine": left_out} if left_out else {}))
        if warnings:
            sys.exit(f"first_minutes.py: {step} warns:\n" + "\n".join(warnings))
        return said

    def lines_of(self, text: str) -> list[str]:
        """Without bars of progress, and without this machine's folders."""
        kept = [line.strip() for line in text.replace("\r", "\n").splitlines() if "%|" not in line]
        return [line.replace(str(self.folder), ".") for line in kept if line]


def seconds_worked() -> float:
    """Of the processor, by all that was started here and has ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def without_the_machine(text: str) -> tuple[str, int]:
    """And how many lines were of the machine."""
    lines = text.splitlines()
    kept = [line for line in lines if not OF_THE_MACHINE.search(line)]
    return "\n".join(kept), len(lines) - len(kept)


def find_warnings(text: str) -> list[str]:
    return [line for line in text.replace("\r", "\n").splitlines() if WARNING.search(line)]


def shortened(line: str) -> str:
    return line if "\n" not in line else line.split("-c", 1)[0] + "-c ..."


# ---- what the README says


def readme_line(pattern: str) -> str:
    """The line of its commands that matches, without its comment."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.search(rf"^{pattern}.*$", readme, re.MULTILINE)
    if found is None:
        raise ValueError(f"README.md has no line that begins with {pattern!r}.")
    return re.sub(r" +#.*", "", found[0]).strip()


def readme_block(begin: str) -> str:
    """The fenced block in which this stands."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w+\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    return next(block for block in blocks if begin in block)


# ---- what the reader has: a published ELMo, and labelled sentences


def write_tagged(folder: Path, source: Path | None) -> None:
    """train.conll, dev.conll and test.conll: the first 300 sentences."""
    sentences = re.split(r"\n\s*\n", source.read_text(encoding="utf-8").strip()) if source else made_up()
    if len(sentences) < sum(SIZES.values()):
        raise ValueError(f"{source} has {len(sentences)} sentences, but {sum(SIZES.values())} are needed.")
    for split, size in SIZES.items():
        part, sentences = sentences[:size], sentences[size:]
        (folder / f"{split}.conll").write_text("\n\n".join(part) + "\n", encoding="utf-8")


def made_up() -> list[str]:
    """Sentences of training/runs/smoke.txt, in which a word with a capital is a name."""
    lines = (ROOT / "training" / "runs" / "smoke.txt").read_text(encoding="utf-8").splitlines()
    return ["\n".join(f"{word} {label(word)}" for word in line.split()) for line in lines]


def label(word: str) -> str:
    return "B-PER" if word[0].isupper() and word not in NO_NAMES else "O"


# ---- where the reader stands


def clean_place(place: Path) -> Reader:
    """A clone, and an environment that has nothing yet."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    reader = Reader(place, environment)
    reader.types("clone", f"git clone --quiet {shlex.quote(str(ROOT))} elmo_hf")
    reader.folder = place / "elmo_hf"
    reader.types("environment", f"{shlex.quote(sys.executable)} -m venv .venv")
    environment["PATH"] = f"{reader.folder / '.venv' / 'bin'}:{environment['PATH']}"
    for entry in reader.steps:  # where this machine has them is nobody's business
        entry["commands"] = [line.replace(str(ROOT), "URL") for line in entry["commands"]]
        entry["commands"] = [line.replace(sys.executable, "python") for line in entry["commands"]]
    return reader


def place_here(place: Path) -> Reader:
    """This checkout and this environment; `elmo-hf` is this source's, installed or not."""
    programs = place / "bin"
    programs.mkdir()
    run = "-c \"from elmo_hf.cli import app; app(prog_name='elmo-hf')\" "
    for name, arguments in (("python", ""), ("elmo-hf", run)):
        script = programs / name
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments}"$@"\n', "utf-8")
        script.chmod(0o755)
    for name in ("src", "training"):
        (place / name).symlink_to(ROOT / name)
    path = f"{programs}:{os.environ['PATH']}"
    return Reader(place, os.environ | {"PATH": path, "PYTHONPATH": str(ROOT / "src")})


# ---- the path


def walk(reader: Reader, options: argparse.Namespace) -> None:
    first = readme_line(r"pip install torch.*elmo-hf vectors")
    install, _, vectors = first.partition(" && elmo-hf")
    if not options.here:
        reader.types("install", install)
    reader.types("first vectors", f"elmo-hf{vectors}")
    if not options.here:
        extras = re.search(r'`(pip install "\.\[corpus.*?\]")`', readme_text())
        reader.types("install for training", extras[1] if extras else "false")
    prepare(reader, options)
    reader.types(
        "convert", readme_line("elmo-hf convert published-elmo/"), readme_line("elmo-hf vectors .*my-elmo")
    )
    tagger = readme_line("python training/finetune_ner.py").replace("--elmo my-elmo", f"--elmo {TINY}")
    reader.types("tagger", tagger + (f" --epochs {options.epochs}" if options.epochs else ""))
    (reader.folder / "runs/ner/seed-0/facts.yaml").write_text(readme_block("facts.yaml\n"), encoding="utf-8")
    reader.types("card", readme_line("elmo-hf card runs/ner/seed-0"))
    with Hub({"secret": {"someone"}}) as hub:
        there = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "secret", "HF_HUB_DISABLE_XET": "1"}
        reader.environment |= there | {"HF_HOME": str(reader.folder / ".hf")}
        reader.types("push", readme_line(f"elmo-hf push .*{NAME} +#"))
        reader.types("load by name", f"python -c {shlex.quote(LOAD)}")
        pipeline = readme_block(f'model="{NAME}"') + "print(tagger('Ada Lovelace sat in Paris .'))"
        reader.types("pipeline", f"python -c {shlex.quote(pipeline)}")


def readme_text() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def prepare(reader: Reader, options: argparse.Namespace) -> None:
    """Puts the reader's own files there; no step of the path."""
    write_tagged(reader.folder, options.tagged)
    if options.published:
        shutil.copytree(options.published, reader.folder / "published-elmo")
    else:
        reader.types("", f"elmo-hf convert {TINY} published-elmo --to bilm")
        reader.steps.pop()


# ---- what came of it


def filled(text: str, result: dict[str, Any]) -> str:
    return fill_blocks(text, "minutes", lambda _: table(result))


def table(result: dict[str, Any]) -> str:
    found = result["machine"]
    rows = [[step["step"], *map(seconds, times(step))] for step in result["steps"]]
    rows.append(["**in all**", *map(seconds, times(result))])
    head = f"{found['cpu']}, {found['cores']} cores, other work on them. `{result['command']}`"
    return f"{head}\n\n" + markdown(["", "seconds", "seconds of the processor"], rows)


def times(step: dict[str, Any]) -> tuple[float, float]:
    return step["seconds"], step["processor_seconds"]


def seconds(number: float) -> str:
    return f"{number:,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--published", type=Path, metavar="FOLDER", help="a published ELMo, to be converted")
    parser.add_argument("--tagged", type=Path, metavar="FILE", help="300 sentences in CoNLL's columns")
    parser.add_argument("--epochs", type=int, help="of the tagger, in place of the recipe's own")
    parser.add_argument("--here", action="store_true", help="this environment; no clone, no installation")
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--table", action="store_true", help="write the table of README.md, and that is all")
    options = parser.parse_args()
    if options.table:
        result = json.loads(options.output.read_text(encoding="utf-8"))
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), result), encoding="utf-8")
        return
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        reader = place_here(place) if options.here else clean_place(place)
        try:
            walk(reader, options)
        except ValueError as error:
            sys.exit(f"first_minutes.py: {error}")
    content: dict[str, Any] = {"command": command("first_minutes", sys.argv[1:]), "machine": machine()}
    for clock in ("seconds", "processor_seconds"):
        content[clock] = round(sum(step[clock] for step in reader.steps), 1)
    write_json(options.output, content | {"steps": reader.steps})
    for step in [*reader.steps, content | {"step": "in all; nothing failed, nothing warned"}]:
        print(f"{step['seconds']:>8.1f} s ({step['processor_seconds']:.1f} of the processor)  {step['step']}")


if __name__ == "__main__":
    main()
