"""How fast is it? All contestants compute the same, in turns, each in a process of its own.

    python -m benchmarks.speed.setup_peers      # once: environments of AllenNLP and simple_elmo
    python -m benchmarks.speed --quick              # small model, few rounds: minutes
    python -m benchmarks.speed --threads 2          # everything
    python -m benchmarks.speed --sizes small --settings batch --contestants ours-readable allennlp

In a round each contestant has one turn while the others wait. A round's times are compared with the
baseline's in the same round, so that a machine that is slow for a while is slow for both; the result is the
median, minimum and maximum of these ratios. Results go to benchmarks/results/ as JSON, from which
benchmarks.speed.table makes the tables. A long run can be split: each size and setting is saved as a table of
its own, which replaces the one saved before and leaves the others.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS, ROOT, machine, spread
from benchmarks.speed.setup_peers import PEERS, python_of
from benchmarks.speed.weights import write_weights
from benchmarks.speed.workloads import (
    LSTM_PRODUCTS,
    SETTINGS,
    SIZES,
    fingerprint,
    made_up_sentences,
    read_sentences,
)
from elmo_hf.files import write_json

CONTESTANTS = [
    *("ours-auto", "ours-readable", "ours-bf16", "ours-int8", "ours-auto-unsorted", "ours-auto-uncached"),
    *("onnxruntime", "allennlp", "allennlp-by-length", "simple-elmo"),
    *("bert-base", "distilbert", "modernbert-base", "torch-lstm"),
]
ENVIRONMENT = {"allennlp": "allennlp", "allennlp-by-length": "allennlp", "simple-elmo": "simple-elmo"}


def main() -> None:
    options = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # then no contestant is left running
    sentences, text = choose_text(options)
    if options.output:
        read_saved(options.output)  # refuses another file now, not after hours
    print(f"{text['source']}: {text['sentences']:,} sentences, {text['words']:,} words", flush=True)
    for size in options.sizes:
        with tempfile.TemporaryDirectory(prefix="elmo-speed-") as folder:
            weights = Path(folder)
            write_weights(size, weights)
            (weights / "sentences.json").write_text(json.dumps(sentences), encoding="utf-8")
            for setting in settings_of(options, size):
                result = measure(for_setting(options, setting), size, setting, weights)
                result["text"] = text
                print_result(result)
                if options.output:
                    save(result, options.output)  # after each, as a run may take hours


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    names: dict[str, Any] = {"nargs": "+", "metavar": "NAME"}
    parser.add_argument("--contestants", default=CONTESTANTS, help=", ".join(CONTESTANTS), **names)
    parser.add_argument("--sizes", default=None, choices=SIZES, help="original, small", **names)
    parser.add_argument("--settings", default=None, choices=SETTINGS, help=", ".join(SETTINGS), **names)
    parser.add_argument("--rounds", type=int, default=None, help="measured rounds (7; 3 of a corpus)")
    parser.add_argument("--warmup", type=int, default=1, help="rounds before them that are not measured (1)")
    parser.add_argument("--threads", type=int, default=1, help="for each contestant (1)")
    parser.add_argument("--pause", type=float, default=0.5, help="seconds before each turn (0.5)")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="the clock of the ratios: wall, or cpu (the process's own seconds, for a busy machine) (wall)",
    )
    parser.add_argument(
        "--baseline", default="allennlp", help="the contestant that ratios compare with (allennlp)"
    )
    parser.add_argument("--sentences", type=Path, help="a file of tokenized text (made-up words)")
    parser.add_argument("--corpus-sentences", type=int, default=None, help="number of sentences (2000)")
    help = "the JSON file of all tables (benchmarks/results/speed.json; with --quick, none)"
    parser.add_argument("--output", type=Path, help=help)
    parser.add_argument(
        "--quick", action="store_true", help="the small size, no corpus or training, 3 rounds"
    )
    options = parser.parse_args(arguments)
    options.sizes = options.sizes or (["small"] if options.quick else ["original", "small"])
    options.corpus_sentences = options.corpus_sentences or (200 if options.quick else 2000)
    options.output = options.output or (None if options.quick else RESULTS / "speed.json")
    return options


def settings_of(options: argparse.Namespace, size: str) -> list[str]:
    if options.settings:
        return options.settings
    if options.quick:
        return ["batch", "ready", "single"]
    return [name for name in SETTINGS if name != "train" or size != "original"]  # a step takes minutes


def for_setting(options: argparse.Namespace, setting: str) -> argparse.Namespace:
    """A round of a corpus is long: three are enough, without a warm-up."""
    is_long = setting == "corpus"
    chosen = argparse.Namespace(**vars(options))
    chosen.rounds = options.rounds or (3 if is_long or options.quick else 7)
    chosen.warmup = 0 if is_long else options.warmup
    return chosen


def choose_text(options: argparse.Namespace) -> tuple[list[list[str]], dict[str, Any]]:
    if options.sentences:
        sentences = read_sentences(options.sentences, options.corpus_sentences)
    else:
        sentences = made_up_sentences(options.corpus_sentences)
    if not sentences:
        sys.exit(f"{options.sentences} has no sentence of 1 to 100 words.")
    source = f"file {options.sentences.name}" if options.sentences else "made-up words"
    words = sum(map(len, sentences))
    facts = {"source": source, "sentences": len(sentences), "words": words}
    return sentences, {**facts, "sha256": fingerprint(sentences)}


# ---- one table: a size and a setting


def measure(options: argparse.Namespace, size: str, setting: str, folder: Path) -> dict[str, Any]:
    skipped: dict[str, str] = {}
    print(f"\n{size}, {SETTINGS[setting]}", flush=True)
    with contextlib.ExitStack() as stack:
        workers = []
        for name in ["peak", *options.contestants]:
            with recording_skips(skipped, name):
                worker = Worker(name, size, setting, options, folder)
                stack.callback(worker.stop)
                worker.start()
                workers.append(worker)
        agreement = differences_from_baseline(workers, folder, options.baseline, skipped)
        run_rounds(workers, options, skipped)
    workers = [worker for worker in workers if worker.name not in skipped]
    seconds = {worker.name: [answer[options.clock] for answer in worker.answers] for worker in workers}
    baseline = seconds.get(options.baseline)
    rates = next((rates_of_rounds(worker) for worker in workers if worker.name == "peak"), [])
    return {
        "size": size,
        "setting": setting,
        "date": date.today().isoformat(),
        "machine": machine(),
        "threads": options.threads,
        "clock": options.clock,
        "rounds": options.rounds,
        "baseline": options.baseline if baseline else None,
        "peak_gflops": medians(rates),
        "agreement_with_baseline": agreement,
        "contestants": {
            worker.name: summary(worker, setting, seconds[worker.name], baseline, rates)
            for worker in workers
            if worker.name != "peak"
        },
        "skipped": {name: reason for name, reason in skipped.items() if reason},
    }


class Skipped(Exception):
    """Why a contestant is left out; empty if it does not take part in this setting."""


@contextlib.contextmanager
def recording_skips(skipped: dict[str, str], name: str) -> Iterator[None]:
    try:
        yield
    except Skipped as reason:
        skipped[name] = str(reason)
        if skipped[name]:
            print(f"  {name} is left out: {reason}", flush=True)


class Worker:
    """A contestant's process, which answers each line of input with a line of JSON."""

    def __init__(self, name: str, size: str, setting: str, options: argparse.Namespace, folder: Path):
        self.name, self.threads = name, options.threads
        self.errors = folder / f"{name}.stderr"
        self.command = [str(python_for(name)), "-m", "benchmarks.speed.worker"]
        for key, value in {
            "contestant": name,
            "size": size,
            "setting": setting,
            "clock": options.clock,
            "threads": options.threads,
            "weights": folder,
            "sentences": folder / "sentences.json",
        }.items():
            self.command += [f"--{key}", str(value)]
        self.process: subprocess.Popen[str] | None = None
        self.versions: dict[str, str] = {}
        self.answers: list[dict[str, Any]] = []

    def start(self) -> None:
        with self.errors.open("w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,  # where every Python finds `benchmarks`
                env=environment(self.threads),
                start_new_session=True,
            )
        answer = self.listen()
        if "unavailable" in answer:
            raise Skipped(answer["unavailable"])
        self.versions, self.dtype, self.is_elmo = answer["versions"], answer["dtype"], answer["is_elmo"]

    def ask(self, line: str) -> dict[str, Any]:
        assert self.process is not None
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `listen` then finds the reason
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        return self.listen()

    def listen(self) -> dict[str, Any]:
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            last_line = self.errors.read_text(encoding="utf-8", errors="replace").strip().split("\n")[-1]
            raise Skipped(f"its process ended ({self.process.wait()}): {last_line}")
        return json.loads(line)

    def stop(self) -> None:
        """Close its input, which ends it; kill it if it is within a round."""
        if self.process is None:
            return
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def python_for(name: str) -> Path:
    peer = ENVIRONMENT.get(name)
    if peer is None:
        return Path(sys.executable)
    assert peer in PEERS
    python = python_of(peer)
    if not python.exists():
        raise Skipped(f"no environment; `python -m benchmarks.speed.setup_peers {peer}` makes it")
    return python


def environment(threads: int) -> dict[str, str]:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
    settings = dict.fromkeys(names, str(threads))
    settings |= {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "2", "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **settings, "PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1"}


def run_rounds(workers: list[Worker], options: argparse.Namespace, skipped: dict[str, str]) -> None:
    for number in range(-options.warmup, options.rounds):
        for worker in workers:
            if worker.name in skipped:
                continue
            # The threads of onnxruntime and TensorFlow spin for a while after their turn.
            time.sleep(options.pause)
            with recording_skips(skipped, worker.name):
                answer = worker.ask(f"go {number + options.warmup}")
                if number >= 0:
                    worker.answers.append(answer)


# ---- results


def differences_from_baseline(
    workers: list[Worker], folder: Path, baseline: str, skipped: dict[str, str]
) -> dict[str, dict[str, float]]:
    """Of each ELMo on a first batch or a training step: the largest difference from the baseline, and ("rms")
    the root mean square of the differences over that of the baseline's values."""
    import numpy as np

    outputs = {}
    for worker in workers:
        if worker.is_elmo:
            with recording_skips(skipped, worker.name):
                path = folder / f"{worker.name}.npz"
                worker.ask(f"check {path}")
                with np.load(path) as arrays:
                    outputs[worker.name] = dict(arrays)
    expected = outputs.pop(baseline, None)
    if expected is None:
        return {}
    largest = {f"largest {key}": float(np.abs(array).max()) for key, array in expected.items()}
    differences: dict[str, dict[str, float]] = {}
    for name, arrays in outputs.items():
        differences[name] = {key: float(np.abs(array - expected[key]).max()) for key, array in arrays.items()}
        for key, array in arrays.items():
            error = np.linalg.norm(array - expected[key])
            differences[name][f"rms {key}"] = float(error / np.linalg.norm(expected[key]))
        differences[name] |= largest
    return differences


def rates_of_rounds(worker: Worker) -> list[dict[str, float]]:
    """GFLOP/s in each round: as measured ("float32 input packed"), of each product with its fastest library
    ("float32 input"), and of the fastest product of all, which is the peak ("float32")."""
    rounds = []
    for answer in worker.answers:
        rates: dict[str, float] = {}
        for name, rate in answer["gflops"].items():
            dtype, product, _ = name.split(" ", 2)
            for key in (dtype, f"{dtype} {product}", name):
                rates[key] = max(rate, rates.get(key, 0.0))
        rounds.append(rates)
    return rounds


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    names = rounds[0] if rounds else {}
    return {name: statistics.median(rates[name] for rates in rounds) for name in names}


def share(worker: Worker, seconds: list[float], rates: list[dict[str, float]], limit: str) -> float | None:
    """The share of the time that the necessary matrix products (`elmo_work`) would take at the rates of the
    same round; the median over the rounds. `limit` is "peak", where all products run at the rate of the
    fastest one, or "roof", where each runs at its own rate."""
    if not rates:
        return None
    shares = []
    for answer, own, round_rates in zip(worker.answers, seconds, rates, strict=True):
        alone = 0.0
        for product, operations in answer["work"].items():
            # Other products are in float32 whatever the type of the LSTMs.
            dtype = worker.dtype if product in LSTM_PRODUCTS else "float32"
            rate = round_rates.get(dtype if limit == "peak" else f"{dtype} {product}")
            if rate is None:
                return None
            alone += operations / rate / 1e9
        shares.append(alone / own)
    return round(statistics.median(shares), 4)


def summary(
    worker: Worker,
    setting: str,
    seconds: list[float],
    baseline: list[float] | None,
    rates: list[dict[str, float]],
) -> dict[str, Any]:
    speeds = [answer["words"] / time for answer, time in zip(worker.answers, seconds, strict=True)]
    operations = sum(sum(answer["work"].values()) for answer in worker.answers)
    words = sum(answer["words"] for answer in worker.answers)
    ratios = [other / own for other, own in zip(baseline, seconds, strict=True)] if baseline else None
    has_roof = setting in ("batch", "ready")  # whose numbers of rows are those of the measured products
    return {
        "words_per_second": spread(speeds),
        "ratio": spread(ratios) if ratios else None,
        "peak_memory_mb": max(answer["peak_mb"] for answer in worker.answers),
        "mflops_per_word": round(operations / words / 1e6, 1),
        "share_of_peak": share(worker, seconds, rates, "peak"),
        "share_of_roof": share(worker, seconds, rates, "roof") if has_roof else None,
        "notes": sorted({answer["note"] for answer in worker.answers if "note" in answer}),
        "versions": worker.versions,
        "is_elmo": worker.is_elmo,
        "rounds": [
            {"words": answer["words"], "wall": round(answer["wall"], 5), "cpu": round(answer["cpu"], 5)}
            for answer in worker.answers
        ],
    }


def print_result(result: dict[str, Any]) -> None:
    print(
        f"  {'':20} {'words/s':>9} {'ratio':>7} {'min':>7} {'max':>7} {'MB':>6} {'of peak':>8} {'of roof':>8}"
    )
    for name, figures in result["contestants"].items():
        ratio = figures["ratio"] or dict.fromkeys(("median", "min", "max"), float("nan"))
        ratios = " ".join(f"{ratio[key]:7.2f}" for key in ("median", "min", "max"))
        shares = [figures["share_of_peak"], figures["share_of_roof"]]
        percentages = " ".join(f"{'' if value is None else f'{value:.1%}':>8}" for value in shares)
        speed, memory = figures["words_per_second"]["median"], figures["peak_memory_mb"]
        print(f"  {name:20} {speed:9.0f} {ratios} {memory:6} {percentages}")
    for name, differences in result["agreement_with_baseline"].items():
        numbers = ", ".join(
            f"{key} {value:.1e}" for key, value in differences.items() if "largest" not in key
        )
        print(f"  {name} differs from {result['baseline']} by at most: {numbers}", flush=True)


def save(result: dict[str, Any], output: Path) -> None:
    """Write a table, which replaces the one of its conditions and leaves the others."""
    others = [saved for saved in read_saved(output) if conditions(saved) != conditions(result)]
    write_json(output, [*others, result])


def conditions(result: dict[str, Any]) -> tuple[object, ...]:
    return (*(result[name] for name in ("size", "setting", "threads", "clock")), result["machine"]["cpu"])


def read_saved(path: Path) -> list[dict[str, Any]]:
    """The tables in the file that `--output` names."""
    if not path.exists():
        return []
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        for result in saved:
            conditions(result)
        return list(saved)
    except (ValueError, KeyError, TypeError, OSError):
        sys.exit(f"{path} is not a file of this benchmark's tables; choose another --output.")


if __name__ == "__main__":
    main()
