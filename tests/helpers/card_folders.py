"""Made-up facts and results of a card, and folders that hold them."""

import json

import torch
import yaml

from elmo_hf import ElmoConfig, ElmoForPreTraining, ElmoTokenizer

FACTS = {
    "kind": "base",
    "name": "elmo-test",
    "repo": "someone/elmo-test",
    "title": "A test",
    "summary": "An ELMo that was made up for a test.",
    "languages": ["en", "la"],
    "licence": "apache-2.0",
    "licence_note": "Nothing else binds its use.",
    "data": [{"name": "Made-up text", "licence": "public domain", "description": "Sentences by a grammar."}],
    "limits": ["It is not trained."],
    "authors": ["A. Nobody", "B. Nobody"],
}
WORDS = ["<S>", "</S>", "<UNK>", "He", "sat", "on", "the", "bank", "."]


def perplexity(mean, states="zero"):
    figures = {"forward": mean - 1.5, "backward": mean + 1.75, "mean": mean, "arithmetic_mean": mean + 0.125}
    return figures | {"tokens": int(mean * 1000), "sentences": 77, "unknown": mean / 10_000, "states": states}


RESULTS = {  # today's form, and the forms that the commands of elmo_hf 0.1.0 wrote
    "perplexity": {
        "command": "elmo-hf perplexity held-out.txt --model m --json",
        "schema": 1,
        "results": [
            {
                "kind": "perplexity",
                "rows": [
                    {"text": "valid.books"} | perplexity(111.5),
                    {"text": "valid.wiki"} | perplexity(222.25),
                ],
            }
        ],
    },
    "kneser_ney": {"command": "lm 5", "order": 5, "heldout": {"valid.books.txt.xz": perplexity(155.75)}},
    "shapes": {
        "command": "shapes",
        "minutes": 0.25,
        "rows": [
            {
                "name": "512/64",
                "settings": {"optimizer": "adamw"},
                "parameters": 1_234_567,
                "words_per_second": 4321.0,
                "perplexity": perplexity(177.5),
            },
            {"name": "1024/128", "parameters": 7_654_321, "words_per_second": 1234.0, "perplexity": 199.75},
        ],
    },
    "probes": {
        "command": "probe",
        "probes": {
            "senses": {
                "f1": {
                    "first sense": {"all": 61.0},
                    "trained, layer 0": {"senseval2": 50.25, "all": 50.0},
                    "trained, layer 1": {"all": 58.0},
                }
            },
            "tags": {"accuracy": {"xpos": {"look-up": {"test": 86.0}, "trained, layer 1": {"test": 91.5}}}},
        },
    },
    "domain": {
        "command": "domain",
        "rows": [{"domain": "law", "before": perplexity(411.5), "after": perplexity(311.5), "factor": 1.321}],
    },
}
RUN = {
    "command": "accelerate launch training/pretrain.py --data books.txt",
    "settings": {"data": ["books.txt"], "rows": 31, "learning_rate": 0.21, "optimizer": "adagrad"},
    "machine": {"cpu": "EPYC", "cores": 2},
    "steps": 1017,
    "words": 7_654_123,
    "epochs": 1.27,
    "hours": 3.19,
    "words_per_second": 4117.2,
    "resumed": 2,
    "finished": True,
    "heldout": {"valid.books": {"best": perplexity(133.5)}},
}


def write(folder, facts=FACTS, results=RESULTS):
    (folder / "results").mkdir(parents=True, exist_ok=True)
    (folder / "facts.yaml").write_text(yaml.safe_dump(facts, sort_keys=False), encoding="utf-8")
    for name, content in results.items():
        (folder / "results" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def save_checkpoint(folder):
    """A saved language model with its tokenizer."""
    vocabulary = folder.with_name("words.txt")
    vocabulary.write_text("\n".join(WORDS), encoding="utf-8")
    torch.manual_seed(0)
    config = ElmoConfig(
        lstm_dim=16,
        projection_dim=8,
        vocab_size=len(WORDS),
        char_filters=[[1, 4], [2, 8]],
        num_highway_layers=1,
    )
    ElmoForPreTraining(config).save_pretrained(folder)
    ElmoTokenizer(vocabulary).save_pretrained(folder)
    return folder
