"""What fine-tuning a language model on a field's text brings: its perplexity before and after (the paper's
Table 7).

    python -m benchmarks.language_models.domain --model my-elmo \
        --domains movies=reviews.txt.xz tweets=a.conll,b.conll --output benchmarks/results/domain.json

A field's text is a file of words between blanks, a sentence a line, or of columns as in CoNLL's files, whose
first one is the word; plain, or packed by xz. Its last twentieth is held out, and the rest is read once by
`pretrain.py --start MODEL`. The vocabulary stays the model's, so both figures are of the same words, and each
sentence is judged from zero states by the full softmax.

With `--keep FOLDER` the tuned model stays, in FOLDER/NAME/final, and what was cut off goes on after its
newest checkpoint; tables.py makes its adapted biLMs so.
"""

import argparse
import json
import lzma
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.report import ROOT, command, machine, write_json

PRETRAIN = ROOT / "training" / "pretrain.py"
HELD_OUT = 20  # one sentence in so many
WINDOW = 20  # words of a row in a step
RECIPE = ["--optimizer", "adamw", "--loss-scale", "1", "--clip", "1", "--samples", "2048"]
RECIPE += ["--restart-rows", "0.05", "--shared-reading"]


def main() -> None:
    options = read_options()
    with tempfile.TemporaryDirectory() as folder:
        kept = options.keep or Path(folder)
        rows = [adapt(name, paths, options, kept) for name, paths in options.domains]
    told = command("language_models.domain", sys.argv[1:])
    write_json(options.output, {"command": told, "machine": machine(), "rows": rows})
    print(f"Wrote {options.output}.")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="the folder of a language model")
    parser.add_argument("--domains", nargs="+", required=True, type=domain, metavar="NAME=FILE,FILE")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument(
        "--learning-rate", type=float, default=0.001, help="of AdamW, falling to zero (0.001)"
    )
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where the tuned models stay (nowhere)")
    parser.add_argument("--output", type=Path, required=True)
    return parser.parse_args()


def domain(text: str) -> tuple[str, list[Path]]:
    name, is_there, paths = text.partition("=")
    files = [Path(path) for path in paths.split(",")]
    missing = [str(path) for path in files if not path.is_file()]
    if not is_there or missing:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FILE,FILE with files that are there")
    return name, files


def adapt(name: str, paths: list[Path], options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    sentences = [words for path in paths for words in read_sentences(path)]
    end = len(sentences) - len(sentences) // HELD_OUT
    folder.mkdir(parents=True, exist_ok=True)
    train, heldout = folder / f"{name}.train.txt", folder / f"{name}.txt"
    train.write_text("\n".join(map(" ".join, sentences[:end])) + "\n", encoding="utf-8")
    heldout.write_text("\n".join(map(" ".join, sentences[end:])) + "\n", encoding="utf-8")
    places = sum(len(words) + 1 for words in sentences[:end])  # for words, and the sentences' bounds
    steps = options.epochs * places // (options.rows * WINDOW)
    before, *_, after = judged(train, heldout, folder / name, steps, options)
    row = {
        "domain": name,
        "train_sentences": end,
        "train_words": sum(map(len, sentences[:end])),
        "epochs": options.epochs,
        "before": before,
        "after": after,
        "factor": before["mean"] / after["mean"],
    }
    print(json.dumps(row), flush=True)
    return row


def read_sentences(path: Path, column: int = 0) -> Iterator[list[str]]:
    """Of a file of columns, the words are in this one."""
    with (
        lzma.open(path, "rt", encoding="utf-8")
        if path.suffix == ".xz"
        else path.open(encoding="utf-8") as file
    ):
        if ".conll" not in path.name:
            yield from filter(None, map(str.split, file))
            return
        words: list[str] = []
        for line in file:
            if line.strip():
                words.append(line.split()[column])
            elif words:
                yield words
                words = []
        if words:
            yield words


def judged(
    train: Path, heldout: Path, run: Path, steps: int, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """The evaluations of a run: before it, and at its end"""
    arguments = [sys.executable, str(PRETRAIN), "--start", options.model, "--data", str(train)]
    arguments += ["--heldout", str(heldout), "--output", str(run), "--evaluation-states", "zero"]
    for name in ("learning_rate", "rows", "seed"):
        arguments += [f"--{name}", str(vars(options)[name])]
    arguments += ["--max-steps", str(steps), "--schedule", "linear", "--resume", "auto", *RECIPE]
    done = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit("domain.py: the training failed, see above.")
    lines = map(json.loads, (run / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return [
        {key: line[key] for key in ("forward", "backward", "mean", "tokens", "unknown", "states")}
        for line in lines
        if line["kind"] == "evaluation"
    ]


if __name__ == "__main__":
    main()
