"""How fast is it? Everybody computes the same, in turns, each in a process of its own.

    python -m benchmarks.speed.setup_peers      # once: environments of AllenNLP and simple_elmo
    python -m benchmarks.speed --quick              # small model, few rounds: minutes
    python -m benchmarks.speed --threads 2          # everything
    python -m benchmarks.speed --sizes small --settings batch --contestants ours-readable allennlp

In a round each contestant has one turn, and the rest of them waits. A round's times are compared with the
baseline's in the same round, so that a machine which is slow for a while is slow for both; what is told is
the median, the least and the greatest of these ratios. Results go to benchmarks/results/ as JSON, from which
table.py makes the tables. A long run can be split: each size and setting is a table of its own, which takes
the place of the one saved before and leaves the others.
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
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS, machine, write_json
from benchmarks.speed.setup_peers import PEERS, python_of
from benchmarks.speed.workloads import (
    LSTM_PRODUCTS,
    SETTINGS,
    SIZES,
    fingerprint,
    made_up_sentences,
    read_sentences,
)

CONTESTANTS = [
    *("ours-auto", "ours-readable", "ours-bf16", "ours-int8", "ours-auto-unsorted", "ours-auto-uncached"),
    *("allennlp", "allennlp-by-length", "simple-elmo"),
    *("bert-base", "distilbert", "modernbert-base", "torch-lstm"),
]
ENVIRONMENT = {"allennlp": "allennlp", "allennlp-by-length": "allennlp", "simple-elmo": "simple-elmo"}


def main() -> None:
    options = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that no contestant stays behind
    sentences, text = choose_text(options)
    if options.output:
        read_saved(options.output)  # now, and not after hours
    print(f"{text['source']}: {text['sentences']:,} sentences, {text['words']:,} words", flush=True)
    for size in options.sizes:
        with tempfile.TemporaryDirectory(prefix="elmo-speed-") as folder:
            weights = Path(folder)
            write_weights(size, weights)
            (weights / "sentences.json").write_text(json.dumps(sentences), encoding="utf-8")
            for setting in settings_of(options, size):
                result = measure(for_setting(options, setting), size, setting, weights)
                result["text"] = text
                report(result)
                save(result, options.output)  # after each, as a run may take hours


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    several: dict[str, Any] = {"nargs": "+", "metavar": "NAME"}
    parser.add_argument("--contestants", default=CONTESTANTS, help=", ".join(CONTESTANTS), **several)
    parser.add_argument("--sizes", default=None, choices=SIZES, help="original, small", **several)
    parser.add_argument("--settings", default=None, choices=SETTINGS, help=", ".join(SETTINGS), **several)
    parser.add_argument("--rounds", type=int, default=None, help="measured rounds (7; 3 of a corpus)")
    parser.add_argument("--warmup", type=int, default=1, help="rounds before them that do not count (1)")
    parser.add_argument("--threads", type=int, default=1, help="for each contestant (1)")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="the seconds that ratios use: of the wall, "
        "or of the process on all processors, which suits a busy machine and one thread",
    )
    parser.add_argument("--baseline", default="allennlp", help="whom to compare with (allennlp)")
    parser.add_argument("--sentences", type=Path, help="a file of words between spaces; else made-up words")
    parser.add_argument("--corpus-sentences", type=int, default=None, help="how many of them (2000)")
    parser.add_argument("--output", type=Path, help="one JSON file in place of one a table in results/")
    parser.add_argument("--quick", action="store_true", help="small, no corpus or training, 3 rounds")
    options = parser.parse_args(arguments)
    options.sizes = options.sizes or (["small"] if options.quick else ["original", "small"])
    options.corpus_sentences = options.corpus_sentences or (200 if options.quick else 2000)
    return options


def settings_of(options: argparse.Namespace, size: str) -> list[str]:
    if options.settings:
        return options.settings
    if options.quick:
        return ["batch", "ready", "single"]
    return [name for name in SETTINGS if name != "train" or size != "original"]  # minutes a step


def for_setting(options: argparse.Namespace, setting: str) -> argparse.Namespace:
    """A round of a corpus is long: three are enough, and the first one is warm after its first batches."""
    long = setting == "corpus"
    chosen = argparse.Namespace(**vars(options))
    chosen.rounds = options.rounds or (3 if long or options.quick else 7)
    chosen.warmup = 0 if long else options.warmup
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
    found = {"source": source, "sentences": len(sentences), "words": words}
    return sentences, {**found, "sha256": fingerprint(sentences)}


def write_weights(size: str, folder: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.speed.weights", size, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"No weights could be made:\n{done.stderr}")


# ---- one table: a size and a setting


def measure(options: argparse.Namespace, size: str, setting: str, folder: Path) -> dict[str, Any]:
    skipped: dict[str, str] = {}
    print(f"\n{size}, {SETTINGS[setting]}", flush=True)
    with contextlib.ExitStack() as stack:
        workers = []
        for name in ["peak", *options.contestants]:
            with collecting(skipped, name):
                worker = Worker(name, size, setting, options, folder)
                stack.callback(worker.stop)
                worker.start()
                workers.append(worker)
        agreement = agree(workers, folder, options.baseline, skipped)
        play(workers, options, skipped)
    workers = [worker for worker in workers if worker.name not in skipped]
    seconds = {worker.name: [answer[options.clock] for answer in worker.answers] for worker in workers}
    base = seconds.get(options.baseline)
    rates = next((rates_of_rounds(worker) for worker in workers if worker.name == "peak"), [])
    return {
        "size": size,
        "setting": setting,
        "date": date.today().isoformat(),
        "machine": machine(),
        "threads": options.threads,
        "clock": options.clock,
        "rounds": options.rounds,
        "baseline": options.baseline if base else None,
        "peak_gflops": medians(rates),
        "agreement_with_baseline": agreement,
        "contestants": {
            worker.name: summary(worker, setting, seconds[worker.name], base, rates)
            for worker in workers
            if worker.name != "peak"
        },
        "skipped": {name: reason for name, reason in skipped.items() if reason},
    }


class Skipped(Exception):
    """A contestant that is left out, and why; without a word if this is not its setting."""


@contextlib.contextmanager
def collecting(skipped: dict[str, str], name: str) -> Iterator[None]:
    try:
        yield
    except Skipped as reason:
        skipped[name] = str(reason)
        if skipped[name]:
            print(f"  {name} is left out: {reason}", flush=True)


class Worker:
    """A contestant's process. It is told what to do by a line, and answers with a line of JSON."""

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
        with contextlib.suppress(BrokenPipeError):  # then `listen` finds out why
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        return self.listen()

    def listen(self) -> dict[str, Any]:
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            said = self.errors.read_text(encoding="utf-8", errors="replace").strip().split("\n")[-1]
            raise Skipped(f"its process ended ({self.process.wait()}): {said}")
        return json.loads(line)

    def stop(self) -> None:
        """The end of its input is the end of its work; in the midst of a round it is killed."""
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


def play(workers: list[Worker], options: argparse.Namespace, skipped: dict[str, str]) -> None:
    for number in range(-options.warmup, options.rounds):
        for worker in workers:
            if worker.name in skipped:
                continue
            with collecting(skipped, worker.name):
                answer = worker.ask(f"go {number + options.warmup}")
                if number >= 0:
                    worker.answers.append(answer)


# ---- what comes out


def agree(
    workers: list[Worker], folder: Path, baseline: str, skipped: dict[str, str]
) -> dict[str, dict[str, float]]:
    """How far each ELMo is from the baseline on a first batch or a training step: the greatest difference,
    and ("rms") the root of the mean square over the baseline's own."""
    import numpy as np

    found = {}
    for worker in workers:
        if worker.is_elmo:
            with collecting(skipped, worker.name):
                path = folder / f"{worker.name}.npz"
                worker.ask(f"check {path}")
                with np.load(path) as arrays:
                    found[worker.name] = dict(arrays)
    expected = found.pop(baseline, None)
    if expected is None:
        return {}
    largest = {f"largest {key}": float(np.abs(array).max()) for key, array in expected.items()}
    differences: dict[str, dict[str, float]] = {}
    for name, arrays in found.items():
        differences[name] = {key: float(np.abs(array - expected[key]).max()) for key, array in arrays.items()}
        for key, array in arrays.items():
            error, own = (np.linalg.norm(part) for part in (array - expected[key], expected[key]))
            differences[name][f"rms {key}"] = float(error / own)
        differences[name] |= largest
    return differences


def rates_of_rounds(worker: Worker) -> list[dict[str, float]]:
    """GFLOP/s in each round: as measured ("float32 input packed"), of each product with the library that is
    fastest at it ("float32 input"), and of the fastest product of all, which is the peak ("float32")."""
    rounds = []
    for answer in worker.answers:
        rates: dict[str, float] = {}
        for name, rate in answer["gflops"].items():
            dtype, product, _ = name.split(" ", 2)
            for known in (dtype, f"{dtype} {product}", name):
                rates[known] = max(rate, rates.get(known, 0.0))
        rounds.append(rates)
    return rounds


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    names = rounds[0] if rounds else {}
    return {name: statistics.median(found[name] for found in rounds) for name in names}


def share(worker: Worker, seconds: list[float], rates: list[dict[str, float]], kind: str) -> float | None:
    """What part of the time the needed matrix products alone would take at the speed that this machine had
    at them in the same round; the median over the rounds. What is needed is told by `elmo_work` in
    workloads.py. "peak": all products at the rate of the fastest one. "roof": each at its own rate."""
    if not rates:
        return None
    shares = []
    for answer, time, found in zip(worker.answers, seconds, rates, strict=True):
        alone = 0.0
        for product, operations in answer["work"].items():
            # Whatever the LSTMs' type is, the rest is read in float32.
            dtype = worker.dtype if product in LSTM_PRODUCTS else "float32"
            rate = found.get(dtype if kind == "peak" else f"{dtype} {product}")
            if rate is None:
                return None
            alone += operations / rate / 1e9
        shares.append(alone / time)
    return round(statistics.median(shares), 4)


def summary(
    worker: Worker,
    setting: str,
    seconds: list[float],
    base: list[float] | None,
    rates: list[dict[str, float]],
) -> dict[str, Any]:
    speeds = [answer["words"] / time for answer, time in zip(worker.answers, seconds, strict=True)]
    operations = sum(sum(answer["work"].values()) for answer in worker.answers)
    words = sum(answer["words"] for answer in worker.answers)
    ratios = [theirs / ours for theirs, ours in zip(base, seconds, strict=True)] if base else None
    has_roof = setting in ("batch", "ready")  # the products are measured with as many rows as these have
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


def spread(values: list[float]) -> dict[str, float]:
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def report(result: dict[str, Any]) -> None:
    print(
        f"  {'':20} {'words/s':>9} {'ratio':>7} {'min':>7} {'max':>7} {'MB':>6} {'of peak':>8} {'of roof':>8}"
    )
    for name, found in result["contestants"].items():
        ratio = found["ratio"] or dict.fromkeys(("median", "min", "max"), float("nan"))
        shares = [found["share_of_peak"], found["share_of_roof"]]
        of = " ".join(f"{'' if part is None else f'{part:.1%}':>8}" for part in shares)
        ratios = " ".join(f"{ratio[part]:7.2f}" for part in ("median", "min", "max"))
        speed, memory = found["words_per_second"]["median"], found["peak_memory_mb"]
        print(f"  {name:20} {speed:9.0f} {ratios} {memory:6} {of}")
    for name, differences in result["agreement_with_baseline"].items():
        numbers = ", ".join(
            f"{key} {value:.1e}" for key, value in differences.items() if "largest" not in key
        )
        print(f"  {name} differs from {result['baseline']} by at most: {numbers}", flush=True)


def save(result: dict[str, Any], output: Path | None) -> None:
    """A table takes the place of the one of its size and setting, and leaves the others."""
    if output is None:
        write_json(RESULTS / f"speed-{result['size']}-{result['setting']}.json", result)
        return
    others = [saved for saved in read_saved(output) if conditions(saved) != conditions(result)]
    write_json(output, [*others, result])


def conditions(result: dict[str, Any]) -> tuple[object, ...]:
    return (*(result[name] for name in ("size", "setting", "threads", "clock")), result["machine"]["cpu"])


def read_saved(path: Path) -> list[dict[str, Any]]:
    """The tables of a file that `--output` named before."""
    if not path.exists():
        return []
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        for result in saved:
            conditions(result)
        return list(saved)
    except (ValueError, KeyError, TypeError, OSError):
        sys.exit(f"{path} holds something else than tables of this benchmark; name another --output.")


if __name__ == "__main__":
    main()
