"""What it saves to encode a sentence once a run: a tagger on a frozen biLM, with and without the cache.

    OMP_NUM_THREADS=1 python -m benchmarks.layer_cache

The tagger of training/finetune_ner.py reads made-up sentences and labels for some epochs, on a biLM of the
"small" size with random weights. All ways begin with the same weights and read the same batches; the loss in
the last epoch is told for each. Times are seconds of the processor, for whole epochs with their updates.
"""

import argparse
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.report import RESULTS, machine
from benchmarks.speed.workloads import SIZES, made_up_sentences
from elmo_hf import ElmoConfig, ElmoForTokenClassification, ElmoLayerCache, ElmoTokenizer
from elmo_hf.finetuning.tagging import collate_words
from training.finetune_ner import CONFIG

LABELS = ["O", "B-A", "I-A", "B-B", "I-B"]
CHANCES = {
    "O": [4, 1, 0, 1, 0],
    "A": [4, 1, 2, 1, 0],
    "B": [4, 1, 0, 1, 2],
}  # of a label, after one of a type


def made_up_examples(number: int) -> list[dict[str, Any]]:
    rng = random.Random(0)
    examples = []
    for words in made_up_sentences(number):
        labels = ["O"]
        while len(labels) < len(words):
            labels += rng.choices(LABELS, CHANCES[labels[-1][-1]])
        examples.append({"tokens": words, "labels": labels})
    return examples


def train(batches: list[dict[str, Tensor]], size: str, cache: str, epochs: int) -> dict[str, Any]:
    torch.manual_seed(0)
    labels = dict(enumerate(LABELS))
    config: dict[str, Any] = CONFIG | SIZES[size] | {"vocab_size": 3, "task_word_dim": 0, "id2label": labels}
    model = ElmoForTokenClassification(ElmoConfig(**config))
    with tempfile.TemporaryDirectory() as folder:
        if cache != "none":
            model.elmo_cache = ElmoLayerCache(folder if cache == "disk" else None)
        learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(learnt, lr=1e-3)
        seconds = []
        for _ in range(epochs):
            begun, total = time.process_time(), 0.0
            for batch in batches:
                loss = model(**batch).loss
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(learnt, 5.0)
                optimizer.step()
                total += loss.item()
            seconds.append(time.process_time() - begun)
    return {"seconds": seconds, "loss": total / len(batches)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=list(SIZES), default="small")
    parser.add_argument("--sentences", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS / "tasks" / "layer-cache.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    examples, collate, tokenizer = made_up_examples(options.sentences), collate_words(LABELS), ElmoTokenizer()
    starts = range(0, len(examples), options.batch_size)
    batches = [collate(tokenizer, examples[start : start + options.batch_size]) for start in starts]
    ways = {
        cache: train(batches, options.size, cache, options.epochs) for cache in ("none", "memory", "disk")
    }
    later = {cache: sum(way["seconds"][1:]) / (options.epochs - 1) for cache, way in ways.items()}
    content = {
        "machine": machine(),
        "torch": torch.__version__,
        "size": options.size,
        "sentences": len(examples),
        "words": sum(len(one["tokens"]) for one in examples),
        "ways": ways,
        "faster_epochs": {cache: round(later["none"] / later[cache], 2) for cache in ("memory", "disk")},
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
