"""The door of ELMoForManyLangs' folders: lexicons, sizes, arguments, state dicts."""

import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from elmo_hf import ElmoModel, ElmoTokenizer
from elmo_hf.convert import convert
from elmo_hf.model.modeling_elmo_pretraining import ElmoForPreTraining
from tests.fuzz import folders, json_values, packed, raw_bytes, state_dicts, tensors
from tests.fuzz.door import Case, Door, Fault
from tests.fuzz.json_values import every
from tests.helpers.naive_manylangs import ManyLangs, content, write_folder

VARIANTS: dict[str, dict[str, Any]] = {
    "both": {},
    "letters": {"word_dim": 0},
    "words": {"char_dim": 0},
    "stacked": {"encoder": "lstm"},
}
LEXICONS = ("char.dic", "word.dic")
LARGEST_WEIGHT = 1e4
WEIGHTS = ("token_embedder.pkl", "encoder.pkl", "classifier.pkl")
SENTENCES = [["Der", "Bär", "x"], ["<bos>", "今天🙂"], ["donau" * 10]]
OPTIONS: list[tuple[str, Any]] = every("encoder", {}, 5, [], None, "x", {"name": "lstm"})
OPTIONS += every("token_embedder", {}, 5, [], None, "x", {"name": "lstm"})
NAMES: list[tuple[str, Any]] = every(
    "config_path", "../outside/secret.json", "/etc/hostname", "", "other.json"
)
NAMES += every("config_path", "cnn_50_100_512_4096_sample.json", "./cfg.json", "cfg.json/", "char.dic", ".")


def prepare(folder: Path) -> None:
    for name, sizes in VARIANTS.items():
        write_folder(folder / name, content(n_layers=2, **sizes), classifier=True)


def folder_of(case: Case) -> Path:
    return case.input / list(VARIANTS)[case.number % len(VARIANTS)]


def damage(case: Case) -> str:
    folder, rng = folder_of(case), case.rng
    choice = rng.random()
    if choice < 0.08:
        return folders.damage(rng, folder, None)
    if choice < 0.4:
        names = [name for name in LEXICONS if (folder / name).exists()]
        return damage_lexicon(rng, folder / rng.choice(names))
    if choice < 0.55:
        return json_values.damage_file(rng, folder / "cfg.json", OPTIONS, case.outside)
    if choice < 0.62:
        return json_values.damage_file(rng, folder / "config.json", NAMES, case.outside)
    path = folder / rng.choice(WEIGHTS)
    return tensors.damage(rng, path) if choice < 0.8 else state_dicts.damage(rng, path, rng.random() < 0.5)


# ---- lexicons

IDS = [
    "-1",
    "0",
    "1",
    "26",
    "27",
    "99",
    "1.0",
    "",
    " 5",
    "٣",
    "+2",
    "1_0",
    "9" * 30,
    "9" * 5000,
    "x",
    "0x1",
    "-0",
]
LETTERS = [
    "<bos>",
    "<eos>",
    "<oov>",
    "<pad>",
    "<bow>",
    "<eow>",
    "a",
    "ab",
    "\u3000",
    "\0",
    "🙂",
    "é",
    "﻿",
    "x" * 9999,
]
ENDS = ["\r\n", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\n\n", "\t\n", "\0\n", " \n"]


def damage_lexicon(rng: Random, path: Path) -> str:
    choice = rng.random()
    if choice < 0.15:
        return raw_bytes.damage_file(rng, path)
    if choice < 0.25:
        data, note = packed.damage_text(rng, path.read_bytes())
        path.write_bytes(data)
        return f"{path.name} {note}"
    text = path.read_text(encoding="utf-8")
    if choice < 0.35:
        encoding = rng.choice(["utf-16", "utf-8-sig", "latin-1", "utf-32", "utf-7", "cp1252", "utf-16-be"])
        path.write_bytes(text.encode(encoding, "replace"))
        return f"{path.name} as {encoding}"
    lines = [line.split("\t") for line in text.removesuffix("\n").split("\n")]
    notes = []
    for _ in range(rng.choice([1, 1, 2, 5])):
        number = rng.randrange(len(lines))
        notes.append(damage_line(rng, lines, number))
    end = rng.choice(ENDS) if rng.random() < 0.15 else "\n"
    path.write_bytes(("".join("\t".join(line) + end for line in lines)).encode("utf-8"))
    return f"{path.name} {'; '.join(notes)} {end!r}"


def damage_line(rng: Random, lines: list[list[str]], number: int) -> str:
    line, other = lines[number], lines[rng.randrange(len(lines))]
    choice = rng.randrange(9)
    if choice < 2:
        line[-1] = rng.choice(IDS)
    elif choice == 2:
        line[-1] = other[-1]  # two names of one id, and a gap
    elif choice == 3:
        line[0], other[0] = other[0], line[0]
    elif choice == 4:
        line[0] = rng.choice(LETTERS)
    elif choice == 5:
        line[0] = rng.choice([f" {line[0]}", f"{line[0]} ", f"{line[0]}\u3000", line[0] * 2, ""])
    elif choice == 6:
        lines.insert(number, rng.choice([[*line], [line[0]], [line[-1]], [""], [*line, "x"], ["x", "5"]]))
    elif choice == 7 and len(lines) > 1:
        del lines[number]
    else:
        times = 20_000 if len(lines) < 1000 else 2
        lines[:] = rng.choice([lines[::-1], lines * 2, lines[: number + 1], lines * times])
    return f"line {number}, change {choice}"


# ---- a conversion


def enter(case: Case) -> object:
    """Named one by one as well, since a folder's other files are not looked at."""
    folder = folder_of(case)
    sources = sorted(folder.iterdir()) if case.number % 3 == 0 else [folder]
    plan = convert(sources, case.output / "elmo")
    vectors = check(case.output / "elmo", folder, plan.files["sizes"])
    text = "\n".join(plan.lines()) + json.dumps(plan.config.to_dict())
    if plan.model_class is ElmoForPreTraining:
        ElmoForPreTraining.from_pretrained(case.output / "elmo")
    return text, vectors


@torch.no_grad()
def check(target: Path, source: Path, sizes: Path) -> list[np.ndarray]:
    """What is accepted must give the vectors of their code, if that accepts it, and if single precision can
    hold the products of its numbers."""
    tokenizer, model = ElmoTokenizer.from_pretrained(target), ElmoModel.from_pretrained(target).eval()
    batch = tokenizer(SENTENCES, is_split_into_words=True, padding=True, return_tensors="pt")
    states = torch.stack(model(**batch, output_hidden_states=True).hidden_states, dim=1)
    ours = [x[:, : len(sentence)].numpy() for x, sentence in zip(states, SENTENCES, strict=True)]
    try:
        reference = ManyLangs(source, sizes)
        expected = [reference.layers(sentence) for sentence in SENTENCES]
    except Exception:  # whatever their code would raise
        return ours
    weights = [*reference.embedder.values(), *reference.encoder.values()]
    if max(np.abs(array).max() for array in weights if array.size) > LARGEST_WEIGHT:
        return ours
    for actual, theirs in zip(ours, expected, strict=True):
        if actual.shape != theirs.shape or not np.allclose(
            actual, theirs, atol=1e-4, rtol=1e-4, equal_nan=True
        ):
            raise Fault("wrong", "vectors differ from those of the reference")
    return ours


DOORS = [Door("manylangs", prepare, damage, enter)]
