"""Made-up sentences with named entities."""

import random


def write_files(folder):
    """Write sentences in which a capitalised word is a name and determines its type; return their flags."""
    draw = random.Random(0)
    words = {"PER": (["Ada", "Max", "Eva"], ["Lee", "Poe"]), "LOC": (["North", "South"], ["Bay", "Hill"])}

    def name():
        type_ = draw.choice(["PER", "LOC"])
        first, second = map(draw.choice, words[type_])
        return [f"{first} B-{type_}", f"{second} I-{type_}"]

    flags = []
    for split, number in (("train", 120), ("dev", 30), ("test", 30)):
        lines = []
        for _ in range(number):
            lines += [*name(), f"{draw.choice(['saw', 'left', 'liked'])} O", *name(), ""]
        (folder / f"{split}.conll").write_text("\n".join(lines), encoding="utf-8")
        flags += [f"--{split}", str(folder / f"{split}.conll")]
    return flags
