"""The texts that the probes read: SemCor, the word sense tests, the inventory of senses, and CoNLL-U.

    read_semcor(data / SEMCOR)                           # [Sentence(words, marks), ...]
    read_test(data / TESTS / "senseval2", "senseval2")
    read_first_senses(data / INVENTORY)                  # {("play", "n"): "play%1:10:01::"}
    read_conllu(data / TREEBANK.format("test"))          # [Tagged(words, {"xpos": [...], "upos": [...]})]

Files from elsewhere are read with care: nothing is unpacked to the disk, no file is read beyond the size that
it may have, and whatever is not as expected ends in one sentence (ValueError) with its place.
"""

import lzma
import re
import tarfile
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

SEMCOR = "wsd/semcor3.0.tar.xz"
TESTS = "wsd"
INVENTORY = "wsd/oewn_sense_inventory.tsv.xz"
TREEBANK = "ud_english_ewt/en_ewt-ud-{}.conllu.xz"

MOST_TAR, MOST_MEMBER, MOST_TEXT = 2**28, 2**23, 2**28  # bytes, some five times what the real files have
POS = {
    "1": "n",
    "2": "v",
    "3": "a",
    "4": "r",
    "5": "a",
}  # by the digit of a sense key; 5 is an adjective, too
UNIVERSAL_POS = {"NOUN": "n", "VERB": "v", "ADJ": "a", "ADV": "r"}
KEY = re.compile(r"([^%\s]+)%([1-5]):\d+:\d+:[^:\s]*:[^:\s]*")
# Signs that treebanks write in their own way; a language model has read them as in print.
PRINTED = {"``": '"', "''": '"', "-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]"}
PRINTED |= {"-LCB-": "{", "-RCB-": "}"}


@dataclass(frozen=True)
class Mark:
    """Words start to end (which is not among them) of a sentence, and the senses they may have."""

    start: int
    end: int
    lemma: str  # with _ in place of blanks, in small letters, as in a sense key
    pos: str  # n, v, a or r
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Sentence:
    words: list[str]
    marks: list[Mark]


def words_of(sentences: list[Sentence]) -> list[list[str]]:
    return [sentence.words for sentence in sentences]


def marks_of(sentences: list[Sentence]) -> list[Mark]:
    return [mark for sentence in sentences for mark in sentence.marks]


@dataclass(frozen=True)
class Tagged:
    words: list[str]
    tags: dict[str, list[str]]  # "xpos" and "upos"


def lemma_and_pos(key: str) -> tuple[str, str]:
    """play%1:10:01:: -> (play, n)"""
    found = KEY.fullmatch(key)
    if found is None:
        raise ValueError(f"{key!r:.60} is no sense key such as play%1:10:01::.")
    return found[1].lower(), POS[found[2]]


def split_words(text: str) -> list[str]:
    """What a corpus has as one word may be several: take_place, "old age"."""
    return [PRINTED.get(word, word) for word in re.split(r"[_\s]+", text) if word]


# ---- compressed files


class Bounded(BufferedIOBase):
    """An .xz file as a stream that ends with an error where it is longer than it may be."""

    def __init__(self, path: Path, most: int) -> None:
        if not path.is_file():
            raise ValueError(f"there is no file {path}; --data names the folder that holds it.")
        self.path, self.left, self.most = path, most, most
        self.file = lzma.open(path)  # noqa: SIM115 (close does it)

    def read(self, size: int | None = -1) -> bytes:
        try:
            found = self.file.read(self.left + 1 if size is None or size < 0 else min(size, self.left + 1))
        except (lzma.LZMAError, EOFError) as error:
            raise ValueError(f"{self.path} is damaged ({error}); get it once more.") from None
        self.left -= len(found)
        if self.left < 0:
            raise ValueError(
                f"{self.path} has more than {self.most:,} bytes, which is not what it should be."
            )
        return found

    def close(self) -> None:
        self.file.close()
        super().close()


def read_xz(path: Path, most: int = MOST_TEXT) -> str:
    with Bounded(path, most) as file:
        return decoded(file.read(), path)


def decoded(content: bytes, place: object) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{place} is not UTF-8 ({error}).") from None


def tar_members(path: Path) -> Iterator[tuple[str, str]]:
    """Names and texts of the files in a .tar.xz, one after the other, in memory only."""
    try:
        with Bounded(path, MOST_TAR) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                if member.size > MOST_MEMBER:
                    raise ValueError(
                        f"{path}: {member.name!r:.80} has {member.size:,} bytes, more than {MOST_MEMBER:,}."
                    )
                content = tar.extractfile(member)
                assert content is not None  # as it is a file
                yield member.name, decoded(content.read(), f"{path}: {member.name!r:.80}")
    except tarfile.TarError as error:
        raise ValueError(f"{path} is no tar file, or a damaged one ({error}).") from None


# ---- SemCor

_WORD = re.compile(r"<wf((?: \w+=[^ >]*)*)>([^<>]+)</wf>")
_SIGN = re.compile(r"<punc>([^<>]+)</punc>")
_OTHER = re.compile(r"</?(?:contextfile|context|p)(?: [^<>]*)?>")


def read_semcor(path: Path) -> list[Sentence]:
    """The sentences of all files under tagfiles/, in the order of the tar."""
    sentences: list[Sentence] = []
    for name, text in tar_members(path):
        if "/tagfiles/" in name:
            sentences += semcor_sentences(text.splitlines(), f"{path}: {name}")
    if not any(sentence.marks for sentence in sentences):
        raise ValueError(f"{path} has no tagfiles/ with a word whose sense is marked.")
    return sentences


def semcor_sentences(lines: Iterable[str], place: str) -> Iterator[Sentence]:
    words: list[str] = []
    marks: list[Mark] = []
    for number, line in enumerate(lines, start=1):
        if word := _WORD.fullmatch(line):
            start = len(words)
            words += split_words(word[2]) or [word[2]]
            keys = semcor_keys(dict(part.split("=", 1) for part in word[1].split()))
            if keys:
                marks.append(Mark(start, len(words), *lemma_and_pos(keys[0]), keys))
        elif sign := _SIGN.fullmatch(line):
            words += split_words(sign[1])
        elif line == "</s>":
            yield Sentence(words, marks)
            words, marks = [], []
        elif line and not line.startswith("<s ") and not _OTHER.fullmatch(line):
            raise ValueError(f"{place}, line {number}: {line!r:.60} is not as in SemCor.")


def semcor_keys(found: dict[str, str]) -> tuple[str, ...]:
    """`lemma=say wnsn=1 lexsn=2:32:00::` -> ("say%2:32:00::",). Two senses stand as `1;2`; sense 0 is one
    that WordNet 3.0 no longer has. A name (`pn=person`) stands under the lemma "person", which it is not."""
    if "pn" in found:
        return ()
    lemma, places, numbers = (found.get(name, "") for name in ("lemma", "lexsn", "wnsn"))
    keys = [
        f"{lemma}%{place}"
        for place, number in zip(places.split(";"), numbers.split(";"), strict=False)
        if place and number not in ("", "0")
    ]
    return tuple(key.lower() for key in keys if KEY.fullmatch(key))


# ---- tests and inventory


def read_test(folder: Path, name: str) -> list[Sentence]:
    """A test in the layout of Raganato et al. (2017): NAME.data.xml.xz and NAME.gold.key.txt."""
    gold = read_gold(folder / f"{name}.gold.key.txt")
    path = folder / f"{name}.data.xml.xz"
    text = read_xz(path)
    if "<!" in text:  # a document type could define entities that grow without end
        raise ValueError(f"{path} has a <!...> declaration, which such a file does not need.")
    try:
        root = ET.fromstring(text.encode("utf-8"))
    except ET.ParseError as error:
        raise ValueError(f"{path} is no well-formed XML ({error}).") from None
    sentences = [sentence_of_test(node, gold, path) for node in root.iter("sentence")]
    found = sum(len(sentence.marks) for sentence in sentences)
    if not found or found != len(gold):
        raise ValueError(f"{path} has {found:,} instances, but its gold file has {len(gold):,}.")
    return sentences


def sentence_of_test(node: ET.Element, gold: dict[str, tuple[str, ...]], path: Path) -> Sentence:
    words: list[str] = []
    marks: list[Mark] = []
    for part in node:
        start = len(words)
        words += split_words(part.text or "")
        if part.tag != "instance":
            continue
        name, lemma, pos = (part.get(key, "") for key in ("id", "lemma", "pos"))
        if name not in gold or pos not in UNIVERSAL_POS or not lemma or start == len(words):
            raise ValueError(
                f"{path}: instance {name!r:.60} lacks words, lemma, part of speech or gold sense."
            )
        marks.append(Mark(start, len(words), lemma.lower(), UNIVERSAL_POS[pos], gold[name]))
    return Sentence(words, marks)


def read_gold(path: Path) -> dict[str, tuple[str, ...]]:
    if not path.is_file():
        raise ValueError(f"there is no file {path}; --data names the folder that holds it.")
    if path.stat().st_size > MOST_MEMBER:
        raise ValueError(f"{path} has more than {MOST_MEMBER:,} bytes, which is not what it should be.")
    rows = [line.split() for line in decoded(path.read_bytes(), path).splitlines() if line.strip()]
    short = next((row for row in rows if len(row) < 2), None)
    if short is not None:
        raise ValueError(f"{path}: {short[0]!r:.60} has no sense key.")
    return {row[0]: tuple(row[1:]) for row in rows}


def read_first_senses(path: Path) -> dict[tuple[str, str], str]:
    """The inventory's first sense of each lemma and part of speech: rows `lemma TAB pos TAB key` in order."""
    first: dict[tuple[str, str], str] = {}
    for number, line in enumerate(read_xz(path).splitlines(), start=1):
        parts = line.split("\t")
        if len(parts) != 3 or not KEY.fullmatch(parts[2]):
            raise ValueError(
                f"{path}, line {number}: {line!r:.60} is not a lemma, a part of speech and a key."
            )
        first.setdefault(lemma_and_pos(parts[2]), parts[2])
    return first


# ---- treebank


def read_conllu(path: Path) -> list[Tagged]:
    """Words and tags; the rows of what is written together (`1-2`) and of what is left out (`8.1`) are
    passed over."""
    sentences: list[Tagged] = []
    rows: list[list[str]] = []
    for number, line in enumerate([*read_xz(path).splitlines(), ""], start=1):
        if line.startswith("#"):
            continue
        if line:
            row = line.split("\t")
            if len(row) != 10:
                raise ValueError(f"{path}, line {number}: a word has 10 columns, but this has {len(row)}.")
            if row[0].isdecimal():
                rows.append(row)
        elif rows:
            words, upos, xpos = ([row[column] for row in rows] for column in (1, 3, 4))
            sentences.append(Tagged(words, {"xpos": xpos, "upos": upos}))
            rows = []
    if not sentences:
        raise ValueError(f"{path} has no sentence.")
    return sentences
