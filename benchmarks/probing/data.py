"""The data of the probes: SemCor, the word sense tests, the inventory of senses, and CoNLL-U treebanks.

    read_semcor(data / SEMCOR)                           # [Sentence(words, marks), ...]
    read_test(data / TESTS / "senseval2", "senseval2")
    read_first_senses(data / INVENTORY)                  # {("play", "n"): "play%1:10:01::"}
    read_conllu(data / TREEBANK.format("test"))          # [Tagged(words, {"xpos": [...], "upos": [...]})]

Downloaded files are not trusted: nothing is unpacked to the disk, no file is read beyond a limit, and
anything unexpected raises an ElmoError that names the file and line.
"""

import lzma
import re
import tarfile
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

from elmo_hf.errors import ElmoError

SEMCOR = "wsd/semcor3.0.tar.xz"
TESTS = "wsd"
INVENTORY = "wsd/oewn_sense_inventory.tsv.xz"
TREEBANK = "ud_english_ewt/en_ewt-ud-{}.conllu.xz"

MAX_TAR, MAX_MEMBER, MAX_TEXT = 2**28, 2**23, 2**28  # bytes, about five times the real files
# Parts of speech by the digit of a sense key; 5 (satellite adjective) counts as adjective.
POS = {"1": "n", "2": "v", "3": "a", "4": "r", "5": "a"}
UNIVERSAL_POS = {"NOUN": "n", "VERB": "v", "ADJ": "a", "ADV": "r"}
KEY = re.compile(r"([^%\s]+)%([1-5]):\d+:\d+:[^:\s]*:[^:\s]*")
# Treebank escapes, and the characters in print, which a language model has read.
PRINTED = {"``": '"', "''": '"', "-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]"}
PRINTED |= {"-LCB-": "{", "-RCB-": "}"}


@dataclass(frozen=True)
class Mark:
    """The words from `start` up to `end` of a sentence, and the keys of their senses."""

    start: int
    end: int
    lemma: str  # lower case, with _ for blanks, as in a sense key
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
    match = KEY.fullmatch(key)
    if match is None:
        raise ElmoError(f"{key!r:.60} is not a sense key such as play%1:10:01::.")
    return match[1].lower(), POS[match[2]]


def split_words(text: str) -> list[str]:
    """The words of one corpus token, such as take_place or "old age"."""
    return [PRINTED.get(word, word) for word in re.split(r"[_\s]+", text) if word]


# ---- compressed files


class Bounded(BufferedIOBase):
    """An .xz file as a stream that raises an error beyond `limit` bytes."""

    def __init__(self, path: Path, limit: int) -> None:
        if not path.is_file():
            raise ElmoError(f"there is no file {path}; --data names the folder that holds it.")
        self.path, self.left, self.limit = path, limit, limit
        self.file = lzma.open(path)  # noqa: SIM115 (close does it)

    def read(self, size: int | None = -1) -> bytes:
        try:
            content = self.file.read(self.left + 1 if size is None or size < 0 else min(size, self.left + 1))
        except (lzma.LZMAError, EOFError) as error:
            raise ElmoError(f"{self.path} is damaged ({error}); download it again.") from None
        self.left -= len(content)
        if self.left < 0:
            raise ElmoError(f"{self.path} has more than {self.limit:,} bytes, the limit; check the file.")
        return content

    def close(self) -> None:
        self.file.close()
        super().close()


def read_xz(path: Path, limit: int = MAX_TEXT) -> str:
    with Bounded(path, limit) as file:
        return decoded(file.read(), path)


def decoded(content: bytes, place: object) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ElmoError(f"{place} is not UTF-8 ({error}).") from None


def tar_members(path: Path) -> Iterator[tuple[str, str]]:
    """Names and texts of the files in a .tar.xz, read in memory one at a time."""
    try:
        with Bounded(path, MAX_TAR) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                if member.size > MAX_MEMBER:
                    raise ElmoError(
                        f"{path}: {member.name!r:.80} has {member.size:,} bytes, more than {MAX_MEMBER:,}."
                    )
                content = tar.extractfile(member)
                assert content is not None  # as it is a file
                yield member.name, decoded(content.read(), f"{path}: {member.name!r:.80}")
    except tarfile.TarError as error:
        raise ElmoError(f"{path} is not a tar file, or damaged ({error}); download it again.") from None


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
        raise ElmoError(f"{path} has no tagfiles/ with a word that has a sense.")
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
            raise ElmoError(f"{place}, line {number}: {line!r:.60} is not SemCor's format.")


def semcor_keys(attributes: dict[str, str]) -> tuple[str, ...]:
    """`lemma=say wnsn=1 lexsn=2:32:00::` -> ("say%2:32:00::",).

    Two senses are written `1;2`; sense 0 is not in WordNet 3.0. A name (`pn=person`) has the lemma "person",
    which is not its own, so it has no key here.
    """
    if "pn" in attributes:
        return ()
    lemma, places, numbers = (attributes.get(name, "") for name in ("lemma", "lexsn", "wnsn"))
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
        raise ElmoError(f"{path} has a <!...> declaration, which such a file does not need.")
    try:
        root = ET.fromstring(text.encode("utf-8"))
    except ET.ParseError as error:
        raise ElmoError(f"{path} is not well-formed XML ({error}).") from None
    sentences = [sentence_of_test(node, gold, path) for node in root.iter("sentence")]
    instances = sum(len(sentence.marks) for sentence in sentences)
    if not instances or instances != len(gold):
        raise ElmoError(f"{path} has {instances:,} instances, but its gold file has {len(gold):,}.")
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
            raise ElmoError(
                f"{path}: instance {name!r:.60} lacks words, lemma, part of speech or gold sense."
            )
        marks.append(Mark(start, len(words), lemma.lower(), UNIVERSAL_POS[pos], gold[name]))
    return Sentence(words, marks)


def read_gold(path: Path) -> dict[str, tuple[str, ...]]:
    if not path.is_file():
        raise ElmoError(f"there is no file {path}; --data names the folder that holds it.")
    if path.stat().st_size > MAX_MEMBER:
        raise ElmoError(f"{path} has more than {MAX_MEMBER:,} bytes, the limit; check the file.")
    rows = [line.split() for line in decoded(path.read_bytes(), path).splitlines() if line.strip()]
    short = next((row for row in rows if len(row) < 2), None)
    if short is not None:
        raise ElmoError(f"{path}: {short[0]!r:.60} has no sense key.")
    return {row[0]: tuple(row[1:]) for row in rows}


def read_first_senses(path: Path) -> dict[tuple[str, str], str]:
    """The inventory's first sense of each lemma and part of speech: rows `lemma TAB pos TAB key` in order."""
    first: dict[tuple[str, str], str] = {}
    for number, line in enumerate(read_xz(path).splitlines(), start=1):
        parts = line.split("\t")
        if len(parts) != 3 or not KEY.fullmatch(parts[2]):
            raise ElmoError(
                f"{path}, line {number}: {line!r:.60} is not a lemma, a part of speech and a key."
            )
        first.setdefault(lemma_and_pos(parts[2]), parts[2])
    return first


# ---- treebank


def read_conllu(path: Path) -> list[Tagged]:
    """Words and tags, without the rows of multiword tokens (`1-2`) and of empty nodes (`8.1`)."""
    sentences: list[Tagged] = []
    rows: list[list[str]] = []
    for number, line in enumerate([*read_xz(path).splitlines(), ""], start=1):
        if line.startswith("#"):
            continue
        if line:
            row = line.split("\t")
            if len(row) != 10:
                raise ElmoError(f"{path}, line {number}: a word has 10 columns, but this has {len(row)}.")
            if row[0].isdecimal():
                rows.append(row)
        elif rows:
            words, upos, xpos = ([row[column] for row in rows] for column in (1, 3, 4))
            sentences.append(Tagged(words, {"xpos": xpos, "upos": upos}))
            rows = []
    if not sentences:
        raise ElmoError(f"{path} has no sentence.")
    return sentences


# ---- names of senses

# The lexicographer files of WordNet, by the second number of a key.
LEXICOGRAPHER_FILES = (
    *("adj.all", "adj.pert", "adv.all", "noun.Tops", "noun.act", "noun.animal", "noun.artifact"),
    *("noun.attribute", "noun.body", "noun.cognition", "noun.communication", "noun.event", "noun.feeling"),
    *("noun.food", "noun.group", "noun.location", "noun.motive", "noun.object", "noun.person"),
    *("noun.phenomenon", "noun.plant", "noun.possession", "noun.process", "noun.quantity", "noun.relation"),
    *("noun.shape", "noun.state", "noun.substance", "noun.time", "verb.body", "verb.change"),
    *("verb.cognition", "verb.communication", "verb.competition", "verb.consumption", "verb.contact"),
    *("verb.creation", "verb.emotion", "verb.motion", "verb.perception", "verb.possession", "verb.social"),
    *("verb.stative", "verb.weather", "adj.ppl"),
)
# Our own short glosses for the senses of the word that is drawn by default.
GLOSSES = {
    "play%1:04:05::": "noun: a move of the game",
    "play%1:10:01::": "noun: a drama, as a text",
    "play%1:10:03::": "noun: a drama, on the stage",
    "play%2:33:00::": "verb: take part in a game",
    "play%2:36:12::": "verb: play music",
    "play%2:41:03::": "verb: be at play, as children are",
    "play%2:41:12::": "verb: have a part or an effect",
}


def sense_name(key: str) -> str:
    """A gloss, or the lexicographer file: play%1:04:04:: -> noun.act"""
    file = int(key.split("%")[1].split(":")[1])
    return GLOSSES.get(key) or (LEXICOGRAPHER_FILES[file] if file < len(LEXICOGRAPHER_FILES) else key)
