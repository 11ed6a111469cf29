"""Part of speech tags by a linear classifier on frozen vectors, as in section 5.3 of the paper.

For each layer one softmax is trained on the words of UD English EWT, from inputs that are whitened, and the
epoch with the best accuracy on dev is kept. `xpos` are the tags of the Penn Treebank, the paper's; `upos` the
universal ones.

Beside it stand the same from random weights, and a look-up: a word's most frequent tag in training; for a
word that is not there, the most frequent tag of its longest ending of up to four letters that is.
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
from benchmarks.probing.tables import markdown, percent
from benchmarks.probing.vectors import Reader

PARTS = ("train", "dev", "test")
KINDS = ("xpos", "upos")
PAPER = {"xpos": {"layer 1": 97.3, "layer 2": 96.8}}  # Table 6: accuracy on the Penn Treebank's test set
EPOCHS, BATCH, LEARNING_RATE = 12, 512, 5e-3
LEAST_VARIANCE = 1e-8  # of the largest one; what is less is rounding
AT_ONCE = 32_768  # words
LONGEST_ENDING = 4


@dataclass
class Labels:
    """Numbers in place of tags: a tag that training lacks is -1, which no answer is."""

    names: list[str]
    ids: dict[str, Tensor]  # of each part


def read_treebank(data: Path) -> dict[str, list[Tagged]]:
    return {part: read_conllu(data / TREEBANK.format(part)) for part in PARTS}


def tags_of(sentences: list[Tagged], kind: str) -> list[str]:
    return [tag for sentence in sentences for tag in sentence.tags[kind]]


def printed_words(sentences: list[Tagged]) -> list[list[str]]:
    """The words as they stand in print."""
    return [[PRINTED.get(word, word) for word in sentence.words] for sentence in sentences]


def make_labels(treebank: dict[str, list[Tagged]], kind: str) -> Labels:
    names = sorted(set(tags_of(treebank["train"], kind)))
    numbers = {name: number for number, name in enumerate(names)}
    ids = {
        part: torch.tensor([numbers.get(tag, -1) for tag in tags_of(sentences, kind)])
        for part, sentences in treebank.items()
    }
    return Labels(names, ids)


# ---- the look-up


class Lookup:
    def __init__(self, words: Sequence[str], tags: Sequence[str]) -> None:
        self.words: dict[str, Counter[str]] = {}
        self.endings: dict[str, Counter[str]] = {}
        for word, tag in zip(words, tags, strict=True):
            self.words.setdefault(word, Counter())[tag] += 1
            for ending in endings(word):
                self.endings.setdefault(ending, Counter())[tag] += 1

    def __call__(self, word: str) -> str:
        found = self.words.get(word)
        if found is None:
            found = next(self.endings[ending] for ending in endings(word) if ending in self.endings)
        return min(found, key=lambda tag: (-found[tag], tag))


def endings(word: str) -> list[str]:
    """The longest first, down to the empty one, which every word has."""
    return [word[len(word) - length :] for length in range(min(LONGEST_ENDING, len(word)), -1, -1)]


def look_up(treebank: dict[str, list[Tagged]], kind: str) -> float:
    """The look-up's accuracy on test in percent."""
    words = {
        part: [word for sentence in sentences for word in sentence.words]
        for part, sentences in treebank.items()
    }
    lookup = Lookup(words["train"], tags_of(treebank["train"], kind))
    found = [
        lookup(word) == tag for word, tag in zip(words["test"], tags_of(treebank["test"], kind), strict=True)
    ]
    return round(100 * sum(found) / len(found), 2)


# ---- the classifier


def whiten(vectors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Uncorrelated numbers of mean 0 and variance 1 in training, as many as the vectors really have.

    A linear layer could do the same by itself, but it would need many more epochs: in some models most of the
    variance is along a few directions.
    """
    mean = vectors["train"].mean(0)
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=mean.device)
    for rows in vectors["train"].split(AT_ONCE):
        centred = (rows - mean).double()
        covariance += centred.T @ centred / len(vectors["train"])
    values, directions = torch.linalg.eigh(covariance)
    kept = values > LEAST_VARIANCE * values[-1]
    matrix = (directions[:, kept] * values[kept].rsqrt()).float()
    return {part: (rows - mean) @ matrix for part, rows in vectors.items()}


def classify(vectors: dict[str, Tensor], labels: Labels, seed: int) -> dict[str, Any]:
    """Trains on vectors (words, dim), and tells the accuracies of the epoch that is best on dev."""
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
        found = {part: accuracy(model, vectors[part], labels.ids[part]) for part in ("dev", "test")}
        if found["dev"] > best["dev"]:
            best = {**found, "epoch": epoch}
    return best


@torch.no_grad()
def accuracy(model: nn.Linear, rows: Tensor, ids: Tensor) -> float:
    right = (model(rows).argmax(dim=-1) == ids).sum()
    return round(100 * int(right) / len(ids), 2)


# ---- the probe


def probe_tags(readers: Sequence[Reader], treebank: dict[str, list[Tagged]], seed: int) -> dict[str, Any]:
    labels = {kind: make_labels(treebank, kind) for kind in KINDS}
    found: dict[str, Any] = {kind: {"look-up": {"test": look_up(treebank, kind)}} for kind in KINDS}
    for reader in readers:
        for kind, accuracies in classify_layers(reader, treebank, labels, seed).items():
            found[kind] |= accuracies
    sizes = {part: sum(len(sentence.words) for sentence in treebank[part]) for part in PARTS}
    tags = {kind: len(labels[kind].names) for kind in KINDS}
    return {"accuracy": found, "counts": {"words": sizes, "tags": tags}, "paper": PAPER}


def classify_layers(
    reader: Reader, treebank: dict[str, list[Tagged]], labels: dict[str, Labels], seed: int
) -> dict[str, Any]:
    """Of each kind of tags, the accuracies by layer. All vectors of one reader are in memory here."""
    vectors = {part: reader.vectors(printed_words(treebank[part]), part) for part in PARTS}
    found: dict[str, Any] = {kind: {} for kind in KINDS}
    for layer in range(reader.layers):
        whitened = whiten({part: torch.from_numpy(vectors[part][layer]) for part in PARTS})
        for kind in KINDS:
            found[kind][f"{reader.name}, layer {layer}"] = classify(whitened, labels[kind], seed)
    return found


def tags_markdown(found: dict[str, Any]) -> str:
    head = ["accuracy on test", *(f"{kind.upper()} ({found['counts']['tags'][kind]})" for kind in KINDS)]
    rows = []
    for name in found["accuracy"][KINDS[0]]:
        paper = found["paper"]["xpos"].get(name.removeprefix("trained, "))
        values = [found["accuracy"][kind][name]["test"] for kind in KINDS]
        rows.append([name, *map(percent, values), percent(paper)])
    words = found["counts"]["words"]
    return (
        f"{markdown([*head, 'paper (PTB)'], rows)}\n\n"
        f"UD English EWT: {words['train']:,} words of training, {words['dev']:,} of dev, by which the epoch "
        f"is chosen, and {words['test']:,} of test. The look-up gives a word its most frequent tag, and an "
        f"unknown one that of its longest known ending of up to {LONGEST_ENDING} letters. The paper's "
        "figures are of another text, the Wall Street Journal.\n"
    )
