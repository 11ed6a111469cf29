"""One contestant in one process, which `python -m benchmarks.speed` starts and drives.

    python -m benchmarks.speed.worker --contestant allennlp --size small --setting batch --clock wall \\
        --threads 1 --weights FOLDER --sentences FILE

It writes `{"ready": ...}` or `{"unavailable": reason}`, then answers each line of its standard input with a
line of JSON: `go 3` runs round 3 and returns the seconds, `check FILE` writes vectors to compare. It runs in
the environments of other packages too: Python 3.9, and no import but the standard library before the
contestant's own.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any


def main():
    answers = private_stdout()
    job = parse_arguments()
    from benchmarks.speed.contestant import Unavailable
    from benchmarks.speed.contestants import class_of

    sentences = json.loads(job.sentences.read_text(encoding="utf-8"))
    try:
        contestant_class = class_of(job.contestant)
        if job.setting not in contestant_class.settings:
            raise Unavailable("")
        contestant = contestant_class(job)
    except (Unavailable, ImportError) as reason:
        say(answers, {"unavailable": str(reason)})
        return
    from benchmarks.speed.workloads import calls_of_round

    say(answers, ready(contestant))
    for line in sys.stdin:
        command, _, argument = line.strip().partition(" ")
        if command == "go":
            say(
                answers, timed(contestant, job.setting, calls_of_round(job.setting, sentences, int(argument)))
            )
        elif command == "check":
            first = calls_of_round("train" if job.setting == "train" else "batch", sentences, 0)[0]
            check(contestant, job.setting, first, argument)
            say(answers, {"checked": True})


def private_stdout():
    """The standard output for answers alone; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def say(answers, message):
    answers.write(json.dumps(message) + "\n")
    answers.flush()


def parse_arguments():
    parser = argparse.ArgumentParser()
    for name in ("contestant", "size", "setting", "clock"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--sentences", type=Path, required=True)
    return parser.parse_args()


def ready(contestant):
    return {
        "ready": True,
        "versions": contestant.versions(),
        "dtype": contestant.dtype,
        "is_elmo": contestant.is_elmo,
    }


def timed(contestant, setting, calls):
    prepared = [contestant.prepare(setting, call) for call in calls]
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    notes = [contestant.run(setting, call) for call in prepared]
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    from benchmarks.speed.workloads import number_of_words

    answer = {"wall": wall, "cpu": cpu, "words": number_of_words(calls), "peak_mb": peak_memory()}
    answer["work"] = contestant.work(setting, calls)
    answer.update(notes[0] or {})
    return answer


def check(contestant, setting, sentences, path):
    """Write what all ELMos must agree on: the vectors of a batch, each of its layers if the ids are ready, or
    the loss and gradient of a training step."""
    import numpy as np

    from benchmarks.speed.contestant import gradient_norm

    contestant.fresh()
    arrays: dict[str, Any]
    if setting == "train":
        loss, parameters = contestant.train(sentences)
        arrays = {"loss": np.array(loss), "gradient_norm": np.array(gradient_norm(parameters))}
    elif setting == "ready":
        layers = contestant.layers(contestant.prepare(setting, sentences))
        arrays = {f"layer {number}": words_of(layer, sentences) for number, layer in enumerate(layers)}
    else:
        output = contestant.corpus(sentences) if setting == "corpus" else contestant.embed(sentences)
        arrays = {"vectors": words_of(output, sentences)}
    np.savez(path, **arrays)


def words_of(output, sentences):
    """(sentences, words, dim) -> (words, dim) without padding."""
    import numpy as np

    rows = [np.asarray(output[row])[: len(sentence)] for row, sentence in enumerate(sentences)]
    return np.concatenate(rows).astype(np.float32)


def peak_memory():
    """The most memory that this process ever held, in MB. On Linux `getrusage` starts from the parent's
    value, so the process's status is read first."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024
    except (OSError, StopIteration):
        unit = 1024 * 1024 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit


if __name__ == "__main__":
    main()
