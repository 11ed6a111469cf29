"""A linear-chain CRF on words, shapes and affixes (CRFsuite), for names and for roles."""

import ctypes
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from elmo_hf.errors import ElmoError
from elmo_hf.finetuning.data import Example

C2 = (0.01, 0.3)  # strengths of the L2 penalty, chosen on dev; names only
SHAPES = str.maketrans({**dict.fromkeys("0123456789", "0")})


def predict(data: dict[str, list[Example]], roles: bool) -> tuple[str, dict[str, list[list[str]]]]:
    """What the method is, and the labels of dev and test."""
    if roles:  # many labels: the averaged perceptron, which needs one pass of Viterbi an epoch
        tagger = Tagger(data["train"], role_features, "ap", {"max_iterations": 10})
        name = "averaged perceptron over label sequences, on words, shapes and the predicate"
        return name, {split: tagger(data[split]) for split in ("dev", "test")}
    taggers = [
        Tagger(data["train"], name_features, "lbfgs", {"c1": 0.05, "c2": c2, "max_iterations": 80})
        for c2 in C2
    ]
    best = max(taggers, key=lambda tagger: right(tagger(data["dev"]), data["dev"]))
    name = "linear-chain CRF on words, shapes and affixes"
    return name, {split: best(data[split]) for split in ("dev", "test")}


def right(predicted: list[list[str]], examples: list[Example]) -> int:
    """The number of words in names with the right label, less those with a wrong one."""
    pairs = [
        pair
        for labels, example in zip(predicted, examples, strict=True)
        for pair in zip(labels, example["labels"], strict=True)
        if pair != ("O", "O")
    ]
    return sum(1 if predicted == gold else -1 for predicted, gold in pairs)


class Tagger:
    """A trained CRF. `features` gives those of each word of an example."""

    def __init__(
        self, examples: list[Example], features: Any, algorithm: str, options: dict[str, Any]
    ) -> None:
        try:
            import pycrfsuite
        except ImportError:
            raise ElmoError(
                "the CRF needs the package python-crfsuite; `pip install 'elmo-hf[tables]'`."
            ) from None
        self.features = features
        trainer = pycrfsuite.Trainer(algorithm=algorithm, params=options, verbose=False)
        for example in examples:
            trainer.append(features(example), example["labels"])
        self.tagger = pycrfsuite.Tagger()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "crf"
            seed_the_shuffling()
            trainer.train(str(path))
            self.content = path.read_bytes()  # which the tagger does not copy
            self.tagger.open_inmemory(self.content)

    def __call__(self, examples: list[Example]) -> list[list[str]]:
        return [self.tagger.tag(self.features(example)) for example in examples]


def seed_the_shuffling() -> None:
    """Give the perceptron the order of examples of a fresh process; the C library's rand draws it."""
    with suppress(OSError, AttributeError, TypeError):  # Windows has no such handle
        ctypes.CDLL(None).srand(1)


def shape(word: str) -> str:
    """`U.S.-1990s` -> `X.X.-0x`: letters as x and X, digits as 0, repeated signs once."""
    signs = (
        "X" if sign.isupper() else "x" if sign.islower() else "0" if sign.isdigit() else sign for sign in word
    )
    result = ""
    for sign in signs:
        result += "" if result.endswith(sign) else sign
    return result


def name_features(example: Example) -> list[list[str]]:
    words = example["tokens"]
    own = [word_features(word) for word in words]
    rows = []
    for place, features in enumerate(own):
        row = ["bias", *features]
        for step in (-2, -1, 1, 2):
            near = place + step
            if 0 <= near < len(words):
                row += [f"{step}:{feature}" for feature in own[near][: 6 if abs(step) == 1 else 2]]
            else:
                row.append(f"{step}:end")
        if place > 0:
            row.append(f"before:{words[place - 1].lower()}|{words[place].lower()}")
        rows.append(row)
    return rows


def word_features(word: str) -> list[str]:
    lower = word.lower().translate(SHAPES)
    features = [f"w={lower}", f"s={shape(word)}", f"W={word}", f"3={lower[-3:]}", f"p3={lower[:3]}"]
    features += [f"title={word.istitle()}", f"2={lower[-2:]}", f"p2={lower[:2]}", f"4={lower[-4:]}"]
    features += [f"digit={any(map(str.isdigit, word))}", f"upper={word.isupper()}", f"p4={lower[:4]}"]
    return features


def role_features(example: Example) -> list[list[str]]:
    """Those of each word, and of its place relative to the predicate."""
    words = [word.lower().translate(SHAPES) for word in example["tokens"]]
    predicate = example["predicate_mask"].index(1)
    verb = words[predicate]
    rows = []
    for place, word in enumerate(words):
        distance = place - predicate
        near = max(-6, min(6, distance))
        side = "at" if distance == 0 else "left" if distance < 0 else "right"
        before = words[place - 1] if place else "<S>"
        after = words[place + 1] if place + 1 < len(words) else "</S>"
        row = ["bias", f"d={near}", f"side={side}", f"w={word}", f"w={word}|{side}", f"d={near}|v={verb}"]
        row += [f"-1={before}|{side}", f"+1={after}|{side}", f"3={word[-3:]}|{side}", f"v={verb}|w={word}"]
        row += [f"s={shape(example['tokens'][place])}|{side}", f"v3={verb[-3:]}|{side}|{word[-3:]}"]
        row += [f"-1w={before}|{word}", f"between={between(words, place, predicate)}|{side}"]
        rows.append(row)
    return rows


STOPS = {",", ".", ";", ":", "that", "which", "who", "and", "but", "to", "because", "if", "when"}


def between(words: list[str], place: int, predicate: int) -> str:
    """The marks and conjunctions between a word and the predicate."""
    first, last = sorted((place, predicate))
    return "_".join([word for word in words[first + 1 : last] if word in STOPS][:3])
