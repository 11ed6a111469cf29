"""Several machines as one run, with or without a folder that they share.

The main process, on the machine of rank 0, reads and writes the run's folder for all: lock, checkpoints,
log, audit, held-out text and `final`. So a checkpoint is always whole, also for another number of processes,
there is one folder to look at and to back up, and no other machine has a state that could be lost with it.
The others need what is read during training: the text, the vocabulary, and the model of --start. These are
compared with those of the main machine when the run starts. When it is resumed, a machine that has not got
the checkpoint receives a copy (`sending.py`).
"""

import contextlib
import hashlib
import os
import socket
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import torch
from torch import Tensor

from elmo_hf.errors import ElmoError
from elmo_hf.model.tokenization_elmo import ElmoTokenizer
from elmo_hf.pretraining.settings import Settings

PACKAGES = ("elmo_hf", "torch", "numpy", "datasets", "transformers")
# Settings that each machine may have of its own: where its files are, and what its processors can do. Of
# `output` and `resume`, those of the main process count.
OWN = {"data", "vocab", "heldout", "start", "output", "resume", "workers", "threads", "trackers"}

DIGITS = 12  # of a digest


class Place(NamedTuple):
    """Where a process runs. `machine` counts from 0."""

    machine: int
    host: str

    def __str__(self) -> str:
        return f"machine {self.machine} ({self.host})"


def this_place(process: int) -> Place:
    """By the variables of torchrun, or of other launchers, with as many processes on each machine."""
    on_each = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("WORLD_SIZE") or 1)
    return Place(int(os.environ.get("GROUP_RANK") or process // on_each), socket.gethostname())


# ---- what must be the same


def installed_versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def common_settings(settings: Settings) -> dict[str, Any]:
    return {name: value for name, value in asdict(settings).items() if name not in OWN}


def refuse_differences(places: list[Place], all_facts: list[dict[str, Any]], to_do: str) -> None:
    """Raise an ElmoError for the first process that has another value than the main one."""
    facts = all_facts[0]
    for place, others in zip(places, all_facts, strict=True):
        for name in facts | others:
            value, other = facts.get(name), others.get(name)
            if value != other:
                raise ElmoError(f"{place} has {name} {other!s:.80}, and {places[0]} {value!s:.80}; {to_do}.")


def words_digest(tokenizer: ElmoTokenizer) -> str:
    """Of the words that are predicted, in their order, and of the words with a role."""
    vocabulary = tokenizer.get_vocab()
    words = sorted(vocabulary, key=lambda word: (vocabulary[word], word))
    words += [tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token]
    return hashlib.sha256("\n".join(words).encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]


def digest_without_words(tensors: Mapping[str, Tensor]) -> str:
    """Of the tensors that do not depend on the vocabulary."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        if "lm_head" not in name and "word_embedding" not in name:
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:DIGITS]


def refuse_other_texts(places: list[Place], records: list[Any]) -> None:
    """Compare the texts by the records that one process of each machine has made; the others have None."""
    for place, record in zip(places, records, strict=True):
        if record is not None and (difference := _difference(records[0], record)):
            raise ElmoError(
                f"{place} has another text than {places[0]}: {difference}; copy the same files, in the same "
                "order, to all machines."
            )


def is_same_set(record: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether both are of one data set on the Hub."""
    return record.keys() == other.keys() == {"name", "revision"} and record["name"] == other["name"]


def _difference(main: list[dict[str, Any]], other: list[dict[str, Any]]) -> str | None:
    if len(main) != len(other):
        return f"the number of its files is {len(other):,}, not {len(main):,}"
    for number, (expected, entry) in enumerate(zip(main, other, strict=True), start=1):
        if None in (expected.get("revision", ""), entry.get("revision", "")) and is_same_set(expected, entry):
            continue  # one of them has not reached the Hub
        for name in ("bytes", "sha256", "revision"):
            if expected.get(name) != entry.get(name):
                values = f"{entry.get(name)} bytes in place of {expected.get(name)}"
                detail = values if name == "bytes" else f"another {name}"
                return f"file {number:,} of {len(main):,}, {entry['name']:.200}, has {detail}"
        if not expected.keys() & {"bytes", "revision"} and expected["name"] != entry["name"]:
            return f"it reads {entry['name']:.200} in place of {expected['name']:.200}"
    return None
