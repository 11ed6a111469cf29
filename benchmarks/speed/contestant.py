"""What a contestant does, and what those in torch share. It keeps to Python 3.9 and the standard
library, since its subclasses run in other Pythons and import their libraries in their constructors.
"""

from __future__ import annotations

import math
import platform
from importlib.metadata import PackageNotFoundError, version

from benchmarks.speed import workloads


class Unavailable(Exception):
    """Why this contestant cannot take part; empty if it does not take part in this setting."""


class Contestant:
    libraries: tuple[str, ...] = ()
    settings: tuple[str, ...] = workloads.READING
    by_length = False  # whether a corpus is read sorted by length
    dtype = "float32"  # of the LSTMs' products, for the comparison with the peak
    is_elmo = True

    def __init__(self, job):
        self.job = job

    def versions(self):
        versions = {"python": platform.python_version()}
        for library in self.libraries:
            try:
                versions[library] = version(library)
            except PackageNotFoundError:
                versions[library] = "without a version"
        return versions

    def prepare(self, setting, sentences):
        """The input of `run` for these sentences, made before the clock starts."""
        return self.encode(sentences) if setting == "ready" else sentences

    def run(self, setting, prepared):
        """One call of a round; a returned dictionary is recorded with the round's times."""
        methods = {"ready": self.layers, "corpus": self.corpus, "train": self.train}
        methods.get(setting, self.embed)(prepared)

    def encode(self, sentences):
        """The ids of a batch in the library's form."""
        raise NotImplementedError

    def layers(self, encoded):
        """All layers of an ELMo from the bottom up, else the last one; (sentences, words, dim) each."""
        raise NotImplementedError

    def embed(self, sentences):
        """Vectors of one batch, (sentences, words, dim)."""
        raise NotImplementedError

    def corpus(self, sentences):
        """Vectors of all sentences in their order, (words, dim) each."""
        vectors = [None] * len(sentences)
        for places in workloads.batches(sentences, by_length=self.by_length):
            output = self.embed([sentences[place] for place in places])
            for row, place in enumerate(places):
                vectors[place] = output[row, : len(sentences[place])].copy()
        return vectors

    def train(self, rows):
        """Forward and backward of the top layer's mean square; returns the loss and the parameters."""
        raise NotImplementedError

    def fresh(self):
        """Reset the state that earlier calls have left."""

    def work(self, setting, calls):
        """The necessary operations, by product."""
        return workloads.elmo_work(self.job.size, setting, calls)


def start_torch(job):
    import torch

    torch.set_num_threads(job.threads)
    torch.manual_seed(0)
    return torch


def gradient_norm(parameters):
    return math.sqrt(sum(float(p.grad.double().pow(2).sum()) for p in parameters if p.grad is not None))
