"""Tiny texts in the formats that the probes read, written from plain lists.

A sentence is a list of items: a word, or (word, lemma, pos, keys); a word may have blanks.
"""

import io
import lzma
import random
import tarfile
from pathlib import Path

FRONT = ["the", "a", "their", "every", "this"]
BACK = ["today", "here", "again", "soon", "."]
# The word `play` after and before words of its own for each sense; `bank` likewise, and a rare one.
SENSES = {
    "play%1:10:01::": (["drama", "author"], ["stage", "act"]),
    "play%2:33:00::": (["teams", "will"], ["football", "on"]),
    "bank%1:14:00::": (["money", "rich"], ["loan", "account"]),
    "bank%1:17:01::": (["river", "muddy"], ["water", "flood"]),
    "quick%5:00:00:fast:00": (["very"], ["runner"]),
}
KINDS = {"1": "NOUN", "2": "VERB", "3": "ADJ", "4": "ADV", "5": "ADJ"}
# In the inventory the first sense of `bank` is the rarer one; `harbour` and `nasdaq` are not in SemCor, and
# `nasdaq` is not in the inventory.
INVENTORY = [
    ("bank", "n", "bank%1:17:01::"),
    ("bank", "n", "bank%1:14:00::"),
    ("play", "n", "play%1:10:01::"),
    ("play", "v", "play%2:33:00::"),
    ("Harbour", "n", "harbour%1:15:00::"),
    ("harbour", "n", "harbour%1:06:00::"),
    ("quick", "a", "quick%3:00:00::"),
    ("quick", "a", "quick%5:00:00:fast:00"),
    ("ice cream", "n", "ice_cream%1:13:00::"),
]
SETS = ("senseval2", "senseval3", "semeval2007", "semeval2013")


def made_up(key, rng):
    """A sentence around the word of a sense."""
    lemma, before_after = key.split("%")[0], SENSES[key]
    before, after = (rng.sample(words, rng.randint(1, len(words))) for words in before_after)
    item = (lemma, lemma, KINDS[key.split("%")[1][0]], [key])
    return [rng.choice(FRONT), *before, item, *after, rng.choice(BACK)]


def semcor_of(rng):
    """Every sense often enough to be drawn; `play` as noun and as verb, `bank` with two nouns."""
    counts = {"play%1:10:01::": 7, "play%2:33:00::": 6, "bank%1:14:00::": 8, "bank%1:17:01::": 5}
    counts["quick%5:00:00:fast:00"] = 2
    sentences = [made_up(key, rng) for key, count in counts.items() for _ in range(count)]
    sentences.append(["They", "ate", ("ice_cream", "ice_cream", "NOUN", ["ice_cream%1:13:00::"]), "."])
    both = ["bank%1:14:00::", "bank%1:17:01::"]
    sentences.append(["Which", ("bank", "bank", "NOUN", both), "?"])
    rng.shuffle(sentences)
    return sentences


def tests_of(rng):
    tests = {}
    for name in SETS:
        keys = rng.choices(list(SENSES), k=6)
        tests[name] = [made_up(key, rng) for key in keys]
    harbour = ("harbour", "harbour", "NOUN", ["harbour%1:15:00::"])
    tests["senseval2"].append(["A", harbour, "and", ("Nasdaq", "nasdaq", "NOUN", ["nasdaq%1:06:00::"]), "."])
    tests["senseval3"].append([("ice creams", "ice_cream", "NOUN", ["ice_cream%1:13:00::", "ice%1:00:00::"])])
    return tests


# ---- files


def write_xz(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lzma.compress(text.encode("utf-8")))


def semcor_lines(sentences):
    lines = ["<contextfile concordance=brown>", "<context filename=br-a01 paras=yes>", "<p pnum=1>"]
    for number, sentence in enumerate(sentences, start=1):
        lines.append(f"<s snum={number}>")
        lines += [semcor_line(item) for item in sentence]
        lines.append("</s>")
    return [*lines, "</p>", "</context>", "</contextfile>"]


def semcor_line(item):
    if isinstance(item, str):
        kind = "<wf cmd=ignore pos=DT>{}</wf>" if item[0].isalnum() else "<punc>{}</punc>"
        return kind.format(item)
    word, lemma, _, keys = item
    places = ";".join(key.split("%")[1] for key in keys)
    numbers = ";".join("1" for _ in keys)
    return f"<wf cmd=done pos=NN lemma={lemma} wnsn={numbers} lexsn={places}>{word}</wf>"


def write_tar(path, files):
    """files: names to texts, or to bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, text in files.items():
            content = text if isinstance(text, bytes) else text.encode("utf-8")
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    path.write_bytes(lzma.compress(packed.getvalue()))


def write_semcor(path, sentences):
    half = len(sentences) // 2
    parts = {"brown1/tagfiles/br-a01": sentences[:half], "brownv/tagfiles/br-a02": sentences[half:]}
    files = {f"semcor3.0/{name}": "\n".join(semcor_lines(part)) + "\n" for name, part in parts.items()}
    write_tar(path, {"semcor3.0/README.semcor3.0": "<no word>\n", **files})


def write_test(folder, name, sentences):
    lines, gold = ['<?xml version="1.0" encoding="UTF-8" ?>', '<corpus lang="en"><text id="d000">'], []
    for number, sentence in enumerate(sentences):
        lines.append(f'<sentence id="d000.s{number:03}">')
        for item in sentence:
            if isinstance(item, str):
                lines.append(f'<wf lemma="{item}" pos="X">{item}</wf>')
                continue
            word, lemma, pos, keys = item
            gold.append((f"d000.s{number:03}.t{len(gold):03}", keys))
            lines.append(f'<instance id="{gold[-1][0]}" lemma="{lemma}" pos="{pos}">{word}</instance>')
        lines.append("</sentence>")
    write_xz(folder / f"{name}.data.xml.xz", "\n".join([*lines, "</text></corpus>"]) + "\n")
    text = "".join(f"{' '.join([one, *keys])}\n" for one, keys in gold)
    (folder / f"{name}.gold.key.txt").write_text(text, encoding="utf-8")


def write_conllu(path, sentences):
    """Sentences of (word, upos, xpos), with rows besides that are no words."""
    lines = []
    for sentence in sentences:
        lines.append("# text = something")
        for number, (word, upos, xpos) in enumerate(sentence, start=1):
            if number == 2:
                lines.append("2-3\tboth\t" + "\t".join("_" * 8))
            lines.append(f"{number}\t{word}\t{word}\t{upos}\t{xpos}\t_\t0\tdep\t_\t_")
        lines += [f"{len(sentence)}.1\tleft\tleft\tVERB\tVB" + "\t_" * 5, ""]
    write_xz(path, "\n".join(lines) + "\n")


def treebank_of(rng):
    """Words whose tag their ending tells, and some that their neighbour tells."""
    nouns, verbs = [f"{stem}tion" for stem in "abcdefg"], [f"{stem}ize" for stem in "abcdefg"]

    def sentence():
        word = rng.choice(["run", "walk"])
        noun = rng.random() < 0.5
        pair = (
            [("the", "DET", "DT"), (word, "NOUN", "NN")]
            if noun
            else [("to", "PART", "TO"), (word, "VERB", "VB")]
        )
        more = (rng.choice(nouns), "NOUN", "NN"), (rng.choice(verbs), "VERB", "VB")
        return [*pair, *more, ("``", "PUNCT", "``"), (".", "PUNCT", ".")]

    parts = {
        part: [sentence() for _ in range(count)] for part, count in (("train", 40), ("dev", 10), ("test", 12))
    }
    parts["test"].append(
        [("zzztion", "NOUN", "NN"), ("xxx", "X", "FW"), ("qize", "VERB", "VB"), ("!", "PUNCT", ".")]
    )
    return parts


def write_data(folder: Path, seed=0):
    """All of it, and the lists it was made from."""
    rng = random.Random(seed)
    made = {"semcor": semcor_of(rng), "tests": tests_of(rng), "treebank": treebank_of(rng)}
    write_semcor(folder / "wsd" / "semcor3.0.tar.xz", made["semcor"])
    for name, sentences in made["tests"].items():
        write_test(folder / "wsd" / name, name, sentences)
    rows = "".join("\t".join(row) + "\n" for row in INVENTORY)
    write_xz(folder / "wsd" / "oewn_sense_inventory.tsv.xz", rows)
    for part, sentences in made["treebank"].items():
        write_conllu(folder / "ud_english_ewt" / f"en_ewt-ud-{part}.conllu.xz", sentences)
    return made
