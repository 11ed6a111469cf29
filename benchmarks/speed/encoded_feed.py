"""How fast is an encoded text read? One thread makes the windows of a run, and nothing else is done.

    python -m benchmarks.speed.encoded_feed encoded --vocab vocab.txt --config run.yaml --output feed.json

Words are those of one direction, as in the log of a run.
"""

import argparse
import time
from pathlib import Path
from typing import Any

from benchmarks.report import machine, versions
from elmo_hf.corpus.encoded import EncodedText
from elmo_hf.corpus.encoded_windows import EncodedWindows
from elmo_hf.corpus.encoder import Encoder
from elmo_hf.corpus.vocabulary import Vocabulary
from elmo_hf.corpus.windows import Plan
from elmo_hf.errors import one_sentence
from elmo_hf.files import write_json
from elmo_hf.pretraining.settings import Settings, read_yaml


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("text", help="folder of an encoded text")
    parser.add_argument("--vocab", required=True, help="vocabulary of the run")
    parser.add_argument("--config", type=Path, required=True, help="settings of the run")
    parser.add_argument("--seconds", type=float, default=5.0, help="to measure (5)")
    parser.add_argument("--output", type=Path, required=True, help="a JSON file")
    options = parser.parse_args()
    with one_sentence("benchmarks.speed.encoded_feed"):
        result = measure(options.text, options.vocab, Settings(**read_yaml(options.config)), options.seconds)
        write_json(options.output, result)
    print(f"{result['words_per_second']:,} words a second; opened in {result['opened_in']} seconds")


def measure(folder: str, vocab: str, settings: Settings, seconds: float) -> dict[str, Any]:
    start = time.perf_counter()
    text = EncodedText(folder)
    encoder = Encoder(Vocabulary.load(vocab), settings.max_characters_per_token)
    plan = Plan(settings.rows, settings.window, settings.seed, shared=settings.shared_reading)
    windows = iter(EncodedWindows(text, encoder, plan))
    next(windows)
    opened, words = time.perf_counter(), 0
    while time.perf_counter() < opened + seconds:
        words += int(next(windows).mask[0].sum())
    return {
        "words_per_second": round(words / (time.perf_counter() - opened)),
        "opened_in": round(opened - start, 1),
        "rows": settings.rows,
        "text": {"words": text.num_words, "sentences": len(text), "distinct_words": len(text.words)},
        "machine": machine(),
        "versions": versions("torch", "numpy", "elmo_hf"),
    }


if __name__ == "__main__":
    main()
