"""Entries of the log of a pretraining run."""

import json

import numpy as np


def start(**settings):
    return {"kind": "start", "time": 1.5, "settings": settings, "processes": 2, "words_per_epoch": None}


def step(number, loss=5.0, speed=4000.0):
    extra = {"epoch": 0.1, "forward_loss": loss, "backward_loss": loss, "norm": 1.0, "lr": 0.2, "waited": 0.0}
    return {"kind": "step", "step": number, "loss": loss, "words": 2560 * number, **extra} | {
        "words_per_second": speed
    }


def evaluation(number, mean=50.0):
    extra = {"epoch": 0.1, "tokens": 1000, "unknown": 0.01}
    figures = {"forward": 1.1 * mean, "backward": 0.9 * mean, "mean": mean}
    return {"kind": "evaluation", "step": number} | figures | extra


def whole_run(**settings):
    numbers = range(10, 1010, 10)
    log = [start(**settings)]
    for number in numbers:
        log.append(step(number, loss=4 + 5 * np.exp(-number / 200), speed=4000 + number))
        if number % 200 == 0:
            log.append(evaluation(number, mean=40 + 4000 * np.exp(-number / 100)))
        if number == 500:
            log.append({"kind": "resume", "step": number})
    return [*log, {"kind": "end", "step": 1000}]


def write(path, entries, end=""):
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries) + end, encoding="utf-8")
    return path
