"""The baseline of a language model: an interpolated Kneser-Ney 5-gram of the same text and vocabulary.

    python -m benchmarks.language_models.kneser_ney --data 'books/*.txt' --vocab vocab.txt \
        --heldout valid.txt --raw --split-sentences --output benchmarks/results/kneser_ney.json

The 5-gram is KenLM's (`lmplz`: modified Kneser-Ney, interpolated, not pruned). Its source comes from PyPI and
is compiled into benchmarks/.envs the first time, which needs a C++ compiler, cmake and Boost
(Debian: `apt install g++ cmake libboost-{program-options,system,thread,test}-dev`).

Both directions are measured, each with a 5-gram of its own, the backward one on reversed sentences. The
predicted tokens are those of an ELMo (`elmo_hf.pretraining.perplexity`): the words, and each sentence's end
(backward, its begin); words outside of the vocabulary are one word, in training and in the held-out text.
"""

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from benchmarks.report import ENVIRONMENTS, RESULTS, command, machine
from elmo_hf.corpus.source import Source
from elmo_hf.corpus.vocabulary import SPECIALS, Vocabulary
from elmo_hf.errors import ElmoError, one_sentence
from elmo_hf.files import write_json
from elmo_hf.hub.results import perplexities, with_results
from elmo_hf.pretraining.perplexity import Perplexity

KENLM = ENVIRONMENTS / "kenlm"
VERSION = "0.3.0"
UNKNOWN = "<RARE>"  # KenLM reserves <unk> for words that it has never seen
ORDER = 5


def main() -> None:
    options = read_options()
    build_kenlm()
    with one_sentence("kneser_ney"):
        words = set(Vocabulary.load(options.vocab).words) - set(SPECIALS)
        text = open_source(options.data, options)
        heldout = {Path(path).name: open_source([path], options) for path in options.heldout}
        if len(heldout) < len(options.heldout):
            raise ElmoError("two held-out files have one name; rename one, since results go by names.")
    with tempfile.TemporaryDirectory(dir=options.temporary) as folder:
        measured = measure(text, heldout, words, Path(folder), options.memory)
    result = {
        "command": command("language_models.kneser_ney", sys.argv[1:]),
        "tool": f"KenLM {VERSION}, lmplz --order {ORDER}, modified Kneser-Ney, interpolated, not pruned",
        "order": ORDER,
        "machine": machine(),
        "words": len(words),
        **measured,
    }
    baseline = perplexities(measured["heldout"], f"{ORDER}-gram, Kneser-Ney")
    write_json(options.output, with_results(result, baseline))
    for name, figures in measured["heldout"].items():
        print(f"{name}: {json.dumps(figures)}")
    print(f"Wrote {options.output}.")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", nargs="+", required=True, help="the training text, as for pretrain.py")
    parser.add_argument("--vocab", required=True, help="the vocabulary, as for pretrain.py")
    parser.add_argument("--heldout", nargs="+", required=True, help="files of held-out text")
    parser.add_argument("--raw", action="store_true", help="tokenize the text by rules")
    parser.add_argument("--split-sentences", action="store_true", help="a line is a paragraph")
    parser.add_argument("--memory", default="4G", help="memory of lmplz for sorting (4G)")
    parser.add_argument("--temporary", help="a folder for some GB of temporary files")
    parser.add_argument("--output", type=Path, default=RESULTS / "kneser_ney.json")
    return parser.parse_args()


def open_source(data: list[str], options: argparse.Namespace) -> Source:
    return Source(data, raw=options.raw, split_sentences=options.split_sentences)


# ---- KenLM


def build_kenlm() -> None:
    """Compile the pinned version from PyPI, unless it is there."""
    if all((KENLM / "bin" / name).exists() for name in ("lmplz", "build_binary", "query")):
        return
    missing = [tool for tool in ("cmake", "g++", "tar") if shutil.which(tool) is None]
    if missing:
        sys.exit(f"kneser_ney: {' and '.join(missing)} must be installed to compile KenLM.")
    KENLM.mkdir(parents=True, exist_ok=True)
    package = ["--no-deps", "--no-binary", "kenlm", "--dest", str(KENLM), f"kenlm=={VERSION}"]
    run([sys.executable, "-m", "pip", "download", *package], KENLM)
    # Python before 3.11.4 cannot refuse names that lead outside; tar does.
    run(["tar", "-xzf", f"kenlm-{VERSION}.tar.gz"], KENLM)
    source = KENLM / f"kenlm-{VERSION}"
    run(["cmake", "-S", str(source), "-B", ".", "-DCMAKE_BUILD_TYPE=Release", "-DBUILD_TESTING=OFF"], KENLM)
    run(["cmake", "--build", ".", "--parallel", "2", "--target", "lmplz", "build_binary", "query"], KENLM)


def run(command: list[str], folder: Path) -> str:
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if process.returncode:
        sys.exit(f"kneser_ney: `{' '.join(command)}` failed:\n{process.stderr[-2000:]}")
    return process.stdout


# ---- two 5-grams, and their perplexities


def measure(
    text: Source, heldout: dict[str, Source], words: set[str], folder: Path, memory: str
) -> dict[str, Any]:
    """The size of the training text, and the perplexities of the held-out texts."""
    training = write_sentences(text, words, folder / "train")
    counts = {name: write_sentences(source, words, folder / name) for name, source in heldout.items()}
    losses: dict[str, list[float]] = {name: [] for name in heldout}
    for direction in ("forward", "backward"):
        model = train(folder / f"train.{direction}", memory)
        for name, count in counts.items():
            losses[name].append(loss_of(model, folder / f"{name}.{direction}", count["tokens"]))
        model.unlink()
    figures = {}
    for name, count in counts.items():
        unknown = count["unknown"] / (count["tokens"] - count["sentences"])
        forward, backward = losses[name]
        perplexity = Perplexity(forward, backward, count["tokens"], count["sentences"], unknown, "zero")
        figures[name] = {key: value for key, value in perplexity.to_dict().items() if key != "states"}
    return {"training": training, "heldout": figures}


def write_sentences(source: Iterable[list[str]], words: set[str], path: Path) -> dict[str, int]:
    """Write a sentence a line, as it is and reversed, and count them."""
    count = {"sentences": 0, "tokens": 0, "unknown": 0}
    forward, backward = (path.with_name(f"{path.name}.{name}") for name in ("forward", "backward"))
    with (
        forward.open("w", encoding="utf-8") as forward_file,
        backward.open("w", encoding="utf-8") as backward_file,
        tqdm(unit=" words", unit_scale=True, desc=path.name) as bar,
    ):
        for sentence in source:
            known = [word if word in words else UNKNOWN for word in sentence]
            if not known:
                continue
            forward_file.write(" ".join(known) + "\n")
            backward_file.write(" ".join(reversed(known)) + "\n")
            count["sentences"] += 1
            count["tokens"] += len(known) + 1
            count["unknown"] += sum(word == UNKNOWN for word in known)
            bar.update(len(known) + 1)
    return count


def train(text: Path, memory: str) -> Path:
    """Estimate the 5-gram of a file of sentences; the path of KenLM's binary form."""
    arpa, binary = text.with_suffix(".arpa"), text.with_suffix(".binary")
    lmplz = [str(KENLM / "bin" / "lmplz"), "--order", str(ORDER), "--memory", memory]
    # Small texts have too few counts to estimate a discount.
    lmplz += ["--discount_fallback", "--temp_prefix", f"{text.parent}/"]
    run([*lmplz, "--text", str(text), "--arpa", str(arpa)], text.parent)
    run([str(KENLM / "bin" / "build_binary"), "trie", str(arpa), str(binary)], text.parent)
    arpa.unlink()
    text.unlink()
    return binary


def loss_of(model: Path, text: Path, tokens: int) -> float:
    """The mean loss of a token in nats."""
    with text.open(encoding="utf-8") as sentences:
        process = subprocess.run(
            [str(KENLM / "bin" / "query"), "-v", "sentence", str(model)],
            stdin=sentences,
            capture_output=True,
            text=True,
            check=True,
        )
    totals = [line.split() for line in process.stdout.splitlines() if line.startswith("Total:")]
    if any(int(unseen) for _, _, _, unseen in totals):
        sys.exit(f"kneser_ney: {text.name} has words of the vocabulary that are not in the training text.")
    return -sum(float(logarithm) for _, logarithm, _, _ in totals) * math.log(10) / tokens


if __name__ == "__main__":
    main()
