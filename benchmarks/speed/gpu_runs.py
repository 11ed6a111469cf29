"""Whole runs on a GPU, for `benchmarks.speed.gpu`: updates with and without a graph, pretraining, embedding.

An update is measured with its text looked up beforehand: the step's own rate. The run is
`training/pretrain.py` from a text file to updates, and what it lacks of that rate is what the text costs.
`waited` is the share of the time in which nothing is computed because text is read or split. The softmax has
100,000 words: a step reads only some of its rows, so that more would only take longer to write.
"""

import contextlib
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import torch
from accelerate import Accelerator

from benchmarks.report import ROOT
from benchmarks.speed.workloads import SIZES, made_up_sentences, read_sentences
from elmo_hf import ElmoConfig, ElmoModel, ElmoTokenizer, embed
from elmo_hf.corpus.encoded import EncodedText, encode
from elmo_hf.corpus.encoded_windows import EncodedWindows
from elmo_hf.corpus.encoder import Encoder
from elmo_hf.corpus.source import Source
from elmo_hf.corpus.vocabulary import BEGIN, END, UNKNOWN, Vocabulary
from elmo_hf.corpus.windows import Plan
from elmo_hf.embedding import job
from elmo_hf.pretraining.learner import Learner
from elmo_hf.pretraining.log import read_log
from elmo_hf.pretraining.settings import Settings
from elmo_hf.pretraining.start import fresh_model

UPDATE_ROWS = (128, 384)
VOCABULARY = 100_000
FIXED = 8  # prepared updates that take turns
RUN_SECONDS = 25  # of training in each run
LAST_ENTRIES = 5  # of the log, when the run is at its speed

Clock = Callable[[dict[str, Callable[[], object]]], dict[str, dict[str, float]]]


def sentences(options: Namespace, number: int) -> list[list[str]]:
    if options.sentences:
        return read_sentences(options.sentences, number)
    return made_up_sentences(number)


def write_text(options: Namespace, folder: Path, number: int) -> tuple[Path, Path]:
    """A text, and a vocabulary of its words and of others up to its size."""
    lines, vocabulary_size = sentences(options, number), VOCABULARY if options.size != "tiny" else 2_000
    text, vocab = folder / "text.txt", folder / "vocab.txt"
    text.write_text("".join(" ".join(words) + "\n" for words in lines), encoding="utf-8")
    words = list(dict.fromkeys(word for words in lines for word in words))[: vocabulary_size - 3]
    words += [f"another-{number}" for number in range(vocabulary_size - 3 - len(words))]
    vocab.write_text("".join(f"{word}\n" for word in [BEGIN, END, UNKNOWN, *words]), encoding="utf-8")
    return text, vocab


def run_settings(options: Namespace, rows: int, vocab: Path) -> Settings:
    """The paper's recipe in the size that is measured, in bfloat16."""
    shape = SIZES[options.size]
    samples = 8192 if options.size != "tiny" else 100
    return Settings(
        vocab=str(vocab), rows=rows, samples=samples, shared_reading=True, precision="bf16", **shape
    )


# ---- updates


def measure_updates(options: Namespace, clock: Clock) -> list[dict[str, Any]]:
    """Of each number of rows, an update by a graph and without one, by the code that trains."""
    results = []
    with TemporaryDirectory() as folder:
        text, vocab = write_text(options, Path(folder), 300 if options.quick else 5_000)
        encode(Source(str(text)), Path(folder) / "encoded")
        for rows in UPDATE_ROWS[:1] if options.quick else UPDATE_ROWS:
            settings = run_settings(options, rows, vocab)
            calls, learner = update_calls(settings, EncodedText(Path(folder) / "encoded"))
            for _ in range(0 if options.quick else 3 * FIXED):  # graphs are captured
                for call in calls.values():
                    call()
            us = clock(calls)
            rates = {
                name: round(rows * settings.window / spread["median"] * 1e6) for name, spread in us.items()
            }
            captured = learner.captured
            reason = "there is no GPU" if captured is None else captured.reason
            results.append({"batch": rows, "us": us, "words_per_second": rates, "why_no_graph": reason})
    return results


def update_calls(settings: Settings, text: EncodedText) -> tuple[dict[str, Callable[[], object]], Learner]:
    torch.manual_seed(0)
    model, tokenizer = fresh_model(settings)
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=settings.precision)
    learner = Learner(model, settings, accelerator)
    assert settings.vocab is not None
    encoder = Encoder(Vocabulary.load(settings.vocab), tokenizer=tokenizer)
    windows = EncodedWindows(text, encoder, Plan(settings.rows, settings.window, shared=True))
    learner.set_letters(windows.letters)
    groups = [[window] for window, _ in zip(windows, range(FIXED), strict=False)]
    prepared = [learner.prepare(group, step) for step, group in enumerate(groups)]
    words = torch.tensor([settings.rows * settings.window] * 2)
    turn = {"plain": 0, "graph": 0}

    def update(name: str) -> None:
        step = turn[name] % FIXED
        turn[name] += 1
        learner.prepared = prepared[step] if name == "graph" else None
        learner.update(groups[step], words, step)

    names = ["plain"] if learner.captured is None else ["plain", "graph"]
    return {name: partial(update, name) for name in names}, learner


# ---- pretraining


def measure_pretraining(options: Namespace) -> list[dict[str, Any]]:
    """Words a second of a run from a text file to updates, and the share spent waiting for text."""
    results = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        text, vocab = write_text(options, folder, 300 if options.quick else 100_000)
        for rows in UPDATE_ROWS[:1] if options.quick else UPDATE_ROWS:
            settings = run_settings(options, rows, vocab)
            minutes = (1 if options.quick else RUN_SECONDS) / 60
            arguments = [f"--{key.replace('_', '-')}={getattr(settings, key)}" for key in SIZES[options.size]]
            arguments += [f"--rows={rows}", f"--samples={settings.samples}", "--shared-reading"]
            arguments += ["--precision=bf16", f"--max-minutes={minutes}", "--epochs=1000"]
            arguments += [f"--log-every={1 if options.quick else 20}"]
            arguments += [f"--workers={2 if options.quick else 8}", f"--vocab={vocab}", f"--data={text}"]
            run = folder / f"run-{rows}"
            start = [sys.executable, "-m", "elmo_hf.pretraining", *arguments, f"--output={run}"]
            process = subprocess.run(start, cwd=ROOT, capture_output=True, text=True, check=False)
            if process.returncode:
                results.append({"batch": rows, "failed": process.stderr.strip().splitlines()[-1]})
                continue
            entries = [entry for entry in read_log(run) if entry["kind"] == "step"][-LAST_ENTRIES:]
            means = {
                key: sum(entry[key] for entry in entries) / max(1, len(entries))
                for key in ("words_per_second", "waited")
            }
            rate, waited = round(means["words_per_second"]), round(means["waited"], 4)
            results.append({"batch": rows, "words_per_second": rate, "waited": waited})
    return results


# ---- embedding


class Waiting:
    """Seconds that a job spends on reading its text."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start

    def survey(self, *arguments: Any, **options: Any) -> Any:
        with self.counted():
            return SURVEY(*arguments, **options)

    def inputs(self, *arguments: Any, **options: Any) -> Iterator[Any]:
        shards = SHARD_INPUTS(*arguments, **options)
        while True:
            with self.counted():
                shard = next(shards, None)
            if shard is None:
                return
            yield shard


SURVEY, SHARD_INPUTS = job.survey, job.shard_inputs


def measure_embed(options: Namespace) -> list[dict[str, Any]]:
    """Words a second of `elmo-hf embed` from a text file to vectors on the disk, all layers averaged."""
    lines = sentences(options, 50 if options.quick else 20_000)
    words, results = sum(map(len, lines)), []
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "text.txt").write_text("".join(" ".join(line) + "\n" for line in lines), encoding="utf-8")
        for dtype in (torch.float32, torch.float16) if options.device == "cuda" else (torch.float32,):
            model = ElmoModel(ElmoConfig(**SIZES[options.size])).eval().to(options.device, dtype)
            for attempt in ("first", "second"):  # the first compiles kernels
                waiting, target = Waiting(), folder / f"{dtype}-{attempt}"
                start = time.perf_counter()
                with (
                    mock.patch.object(job, "survey", waiting.survey),
                    mock.patch.object(job, "shard_inputs", waiting.inputs),
                ):
                    embed(
                        folder / "text.txt",
                        target,
                        model,
                        tokenizer=ElmoTokenizer(),
                        layers="average",
                        dtype="float16",
                        progress=False,
                    )
                seconds = time.perf_counter() - start
            rate, waited = round(words / seconds), round(waiting.seconds / seconds, 4)
            results.append({"dtype": str(dtype), "words": words, "words_per_second": rate, "waited": waited})
    return results
