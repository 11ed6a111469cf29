"""Part of speech tags by a linear classifier on frozen vectors, as in section 5.3 of the paper.

For each layer one softmax is trained on the words of UD English EWT, from whitened inputs, and the epoch with
the best accuracy on dev is kept. `xpos` are the tags of the Penn Treebank, as in the paper; `upos` the
universal ones.

The baselines are the same classifier on random weights, and a look-up: a word's most frequent tag in
training; for an unknown word the most frequent tag of its longest known suffix of up to four letters.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.probing.data import PRINTED, TREEBANK, Tagged, read_conllu
from benchmarks.probing.vectors import Reader
from benchmarks.report import markdown_table, one_decimal

SPLITS = ("train", "dev", "test")
TAGSETS = ("xpos", "upos")
PAPER = {"xpos": {"layer 1": 97.3, "layer 2": 96.8}}  # Table 6: accuracy on the Penn Treebank's test set
EPOCHS, BATCH, LEARNING_RATE = 12, 512, 5e-3
MIN_VARIANCE = 1e-8  # over the largest variance; below it is rounding error
CHUNK = 32_768  # words
MAX_SUFFIX = 4


@dataclass
class Labels:
    """Tags as ids; a tag that is not in the training set is -1, which is never predicted."""

    names: list[str]
    ids: dict[str, Tensor]  # by split


def read_treebank(data: Path) -> dict[str, list[Tagged]]:
    return {split: read_conllu(data / TREEBANK.format(split)) for split in SPLITS}


def tags_of(sentences: list[Tagged], tagset: str) -> list[str]:
    return [tag for sentence in sentences for tag in sentence.tags[tagset]]


def printed_words(sentences: list[Tagged]) -> list[list[str]]:
    """The words with the treebank's escapes undone."""
    return [[PRINTED.get(word, word) for word in sentence.words] for sentence in sentences]


def make_labels(treebank: dict[str, list[Tagged]], tagset: str) -> Labels:
    names = sorted(set(tags_of(treebank["train"], tagset)))
    numbers = {name: number for number, name in enumerate(names)}
    ids = {
        split: torch.tensor([numbers.get(tag, -1) for tag in tags_of(sentences, tagset)])
        for split, sentences in treebank.items()
    }
    return Labels(names, ids)


# ---- the look-up


class Lookup:
    def __init__(self, words: Sequence[str], tags: Sequence[str]) -> None:
        self.words: dict[str, Counter[str]] = {}
        self.suffixes: dict[str, Counter[str]] = {}
        for word, tag in zip(words, tags, strict=True):
            self.words.setdefault(word, Counter())[tag] += 1
            for suffix in suffixes(word):
                self.suffixes.setdefault(suffix, Counter())[tag] += 1

    def __call__(self, word: str) -> str:
        counts = self.words.get(word)
        if counts is None:
            counts = next(self.suffixes[suffix] for suffix in suffixes(word) if suffix in self.suffixes)
        return min(counts, key=lambda tag: (-counts[tag], tag))


def suffixes(word: str) -> list[str]:
    """From the longest one to the empty one."""
    return [word[len(word) - length :] for length in range(min(MAX_SUFFIX, len(word)), -1, -1)]


def look_up(treebank: dict[str, list[Tagged]], tagset: str) -> float:
    """The look-up's accuracy on test in percent."""
    words = {
        split: [word for sentence in sentences for word in sentence.words]
        for split, sentences in treebank.items()
    }
    lookup = Lookup(words["train"], tags_of(treebank["train"], tagset))
    gold = tags_of(treebank["test"], tagset)
    correct = [lookup(word) == tag for word, tag in zip(words["test"], gold, strict=True)]
    return round(100 * sum(correct) / len(correct), 2)


# ---- the classifier


def whiten(vectors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Project (words, dim) on the principal directions of train, where mean is 0 and variance 1.

    A linear layer could learn this, but would need many more epochs: in some models most of the variance is
    along a few directions.
    """
    mean = vectors["train"].mean(0)
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=mean.device)
    for rows in vectors["train"].split(CHUNK):
        centred = (rows - mean).double()
        covariance += centred.T @ centred / len(vectors["train"])
    values, directions = torch.linalg.eigh(covariance)
    kept = values > MIN_VARIANCE * values[-1]
    matrix = (directions[:, kept] * values[kept].rsqrt()).float()
    return {split: (rows - mean) @ matrix for split, rows in vectors.items()}


def classify(vectors: dict[str, Tensor], labels: Labels, seed: int) -> dict[str, Any]:
    """Train on vectors (words, dim); the accuracies of the epoch that is best on dev."""
    rows, ids = vectors["train"], labels.ids["train"]
    model = nn.Linear(rows.shape[1], len(labels.names), device=rows.device)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, EPOCHS - 1)
    generator = torch.Generator().manual_seed(seed)
    best = {"dev": -1.0}
    for epoch in range(1, EPOCHS + 1):
        for chosen in torch.randperm(len(rows), generator=generator).split(BATCH):
            loss = F.cross_entropy(model(rows[chosen]), ids[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        scores = {split: accuracy(model, vectors[split], labels.ids[split]) for split in ("dev", "test")}
        if scores["dev"] > best["dev"]:
            best = {**scores, "epoch": epoch}
    return best


@torch.no_grad()
def accuracy(model: nn.Linear, rows: Tensor, ids: Tensor) -> float:
    correct = (model(rows).argmax(dim=-1) == ids).sum()
    return round(100 * int(correct) / len(ids), 2)


# ---- the probe


def probe_tags(readers: Sequence[Reader], treebank: dict[str, list[Tagged]], seed: int) -> dict[str, Any]:
    labels = {tagset: make_labels(treebank, tagset) for tagset in TAGSETS}
    accuracies: dict[str, Any] = {
        tagset: {"look-up": {"test": look_up(treebank, tagset)}} for tagset in TAGSETS
    }
    for reader in readers:
        for tagset, scores in classify_layers(reader, treebank, labels, seed).items():
            accuracies[tagset] |= scores
    sizes = {split: sum(len(sentence.words) for sentence in treebank[split]) for split in SPLITS}
    tags = {tagset: len(labels[tagset].names) for tagset in TAGSETS}
    return {"accuracy": accuracies, "counts": {"words": sizes, "tags": tags}, "paper": PAPER}


def classify_layers(
    reader: Reader, treebank: dict[str, list[Tagged]], labels: dict[str, Labels], seed: int
) -> dict[str, Any]:
    """Accuracies by tag set and layer. All vectors of one reader are in memory here."""
    vectors = {split: reader.vectors(printed_words(treebank[split]), split) for split in SPLITS}
    accuracies: dict[str, Any] = {tagset: {} for tagset in TAGSETS}
    for layer in range(reader.layers):
        whitened = whiten({split: torch.from_numpy(vectors[split][layer]) for split in SPLITS})
        for tagset in TAGSETS:
            accuracies[tagset][f"{reader.name}, layer {layer}"] = classify(whitened, labels[tagset], seed)
    return accuracies


def tags_markdown(result: dict[str, Any]) -> str:
    counts, accuracies = result["counts"], result["accuracy"]
    head = ["accuracy on test", *(f"{tagset.upper()} ({counts['tags'][tagset]})" for tagset in TAGSETS)]
    rows = []
    for name in accuracies[TAGSETS[0]]:
        paper = result["paper"]["xpos"].get(name.removeprefix("trained, "))
        values = [accuracies[tagset][name]["test"] for tagset in TAGSETS]
        rows.append([name, *map(one_decimal, values), one_decimal(paper)])
    words = counts["words"]
    return (
        f"{markdown_table([*head, 'paper (PTB)'], rows)}\n\n"
        f"UD English EWT: {words['train']:,} words of train, {words['dev']:,} of dev, by which the epoch is "
        f"chosen, and {words['test']:,} of test. The look-up gives a word its most frequent tag in train, "
        f"and an unknown word the tag of its longest known suffix of up to {MAX_SUFFIX} letters. The paper's "
        "figures are of another text, the Wall Street Journal.\n"
    )
