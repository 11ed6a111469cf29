"""What adapting a language model to the text of a domain gains: its perplexity before and after (the paper's
Table 7).

    python -m benchmarks.language_models.domain --model my-elmo \
        --domains movies=reviews.txt.xz tweets=a.conll,b.conll --output benchmarks/results/domain.json

The text of a domain is a file of tokenized sentences, one a line, or a CoNLL file with the word in the first
column; plain, or compressed with xz. The last twentieth is held out, and the model is trained on the other
sentences for one epoch by `pretrain.py --start MODEL`. The vocabulary stays the model's, so both perplexities
are of the same words; each sentence is evaluated from zero states with the full softmax.

With `--keep FOLDER` the adapted model stays in FOLDER/NAME/final, and a run that was interrupted goes on from
its newest checkpoint; benchmarks.tables makes its adapted biLMs in this way.
"""

import argparse
import json
import lzma
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import ROOT, command, machine
from elmo_hf.files import write_json
from elmo_hf.hub.results import Result, with_results

PRETRAIN = ROOT / "training" / "pretrain.py"
HELD_OUT = 20  # one sentence in 20
WINDOW = 20  # words of a row in a step, the default of pretrain.py
TITLE = "Going on with other text: perplexity, mean of both directions"
NOTE = "The paper's factors are between 1.7 and 4.3 (its Table 7)."
SETTINGS: dict[str, Any] = {
    "optimizer": "adamw",
    "schedule": "linear",
    "loss_scale": 1,
    "clip": 1,
    "samples": 2048,
    "restart_rows": 0.05,
    "shared_reading": True,
    "evaluation_states": "zero",
    "resume": "auto",
}


def main() -> None:
    options = read_options()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        rows = [adapt(name, paths, options, folder) for name, paths in options.domains]
    content = {"command": command("language_models.domain", sys.argv[1:]), "machine": machine(), "rows": rows}
    write_json(options.output, with_results(content, card_table(rows)))
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
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where the adapted models stay (nowhere)")
    parser.add_argument("--output", type=Path, required=True)
    return parser.parse_args()


def domain(text: str) -> tuple[str, list[Path]]:
    name, equals_sign, paths = text.partition("=")
    files = [Path(path) for path in paths.split(",")]
    if not equals_sign or not all(path.is_file() for path in files):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FILE,FILE with files that exist")
    return name, files


def card_table(rows: list[dict[str, Any]]) -> Result:
    """What a model card shows: of each perplexity the mean of both directions."""
    means = [row | {name: row[name]["mean"] for name in ("before", "after")} for row in rows]
    return Result("table", means, TITLE, NOTE)


def adapt(name: str, paths: list[Path], options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    sentences = [words for path in paths for words in read_sentences(path)]
    end = len(sentences) - len(sentences) // HELD_OUT
    folder.mkdir(parents=True, exist_ok=True)
    train, heldout = folder / f"{name}.train.txt", folder / f"{name}.txt"
    train.write_text("\n".join(map(" ".join, sentences[:end])) + "\n", encoding="utf-8")
    heldout.write_text("\n".join(map(" ".join, sentences[end:])) + "\n", encoding="utf-8")
    tokens = sum(len(words) + 1 for words in sentences[:end])  # with the sentence boundaries
    settings = SETTINGS | {
        "start": options.model,
        "heldout": heldout,
        "learning_rate": options.learning_rate,
        "rows": options.rows,
        "seed": options.seed,
        "max_steps": options.epochs * tokens // (options.rows * WINDOW),
    }
    before, *_, after = evaluations(pretrain(folder / name, [train], settings))
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


def read_sentences(path: Path) -> Iterator[list[str]]:
    """The sentences of a text, or of a file with a word a line in its first column (`.conll`, `.tsv`)."""
    with (
        lzma.open(path, "rt", encoding="utf-8")
        if path.suffix == ".xz"
        else path.open(encoding="utf-8") as file
    ):
        if not any(kind in path.name for kind in (".conll", ".tsv")):
            yield from filter(None, map(str.split, file))
            return
        words: list[str] = []
        for line in file:
            if line.strip():
                words.append(line.split()[0])
            elif words:
                yield words
                words = []
        if words:
            yield words


def evaluations(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The perplexities before and after a run."""
    keys = ("forward", "backward", "mean", "tokens", "unknown", "states")
    return [{key: entry[key] for key in keys} for entry in log if entry["kind"] == "evaluation"]


# ---- pretraining as a process


def pretrain(output: Path, data: Sequence[str | Path], settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Run training/pretrain.py with these settings; the entries of its log."""
    arguments = ["--data", *map(str, data), "--output", str(output), *arguments_of(settings)]
    process = subprocess.run([sys.executable, str(PRETRAIN), *arguments], stdout=subprocess.PIPE, check=False)
    if process.returncode:
        sys.exit("the pretraining failed, see above.")
    return [json.loads(line) for line in (output / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def arguments_of(settings: dict[str, Any]) -> list[str]:
    """Options of pretrain.py: switches that are True, and names with values."""
    switches = [f"--{name}" for name, value in settings.items() if value is True]
    named = {name: str(value) for name, value in settings.items() if not isinstance(value, bool)}
    return [*switches, *(argument for name, value in named.items() for argument in (f"--{name}", value))]


if __name__ == "__main__":
    main()
