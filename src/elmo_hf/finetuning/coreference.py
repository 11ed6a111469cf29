"""Documents with clusters of mentions: CoNLL-2012 files, LitBank's archive of them, and GAP's pronouns.

A document is `{"name", "sentences", "tokens", "clusters"}`: words of each sentence, all words, and clusters
of mentions (sentence, first word, last word). Files are read as text and from a stream, and never unpacked
onto the disk.
"""

import lzma
import re
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from elmo_hf.corpus.sentences import split_sentences
from elmo_hf.finetuning.run import Example, read_text
from elmo_hf.model.tokenization_elmo import ElmoTokenizer
from elmo_hf.model.words_elmo import split_text

Mention = tuple[int, int, int]
LARGEST_FILE, LARGEST_ARCHIVE, MOST_FILES = 16 << 20, 1 << 30, 100_000
_MARK = re.compile(r"(\()?(\d{1,9})(\))?")
_NOTHING = {"", "-", "_"}


# ---- CoNLL-2012


def read_conll(path: Path) -> list[Example]:
    return parse_conll(read_text(path), str(path))


def parse_conll(text: str, where: str) -> list[Example]:
    """Documents between `#begin document` and `#end document`: a line a word, which is the fourth column; its
    marks of mentions, such as `(3|(4)`, are the last; a blank line ends a sentence."""
    documents: list[Example] = []
    current: _Document | None = None
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.rstrip("\r")
        try:
            if line.startswith("#begin document"):
                if current is not None:
                    raise ValueError(f"document {current.name} has no end before the next one begins")
                current = _Document(line.removeprefix("#begin document").strip())
            elif line.startswith("#end document") and current is not None:
                documents.append(current.finished())
                current = None
            elif line.strip() and not line.startswith("#"):
                if current is None:
                    raise ValueError("a word stands outside of any document")
                current.add(line.split("\t") if "\t" in line else line.split())
            elif current is not None:
                current.end_sentence()
        except ValueError as error:
            raise ValueError(f"{where}, line {number}: {error}.") from None
    if current is not None:
        raise ValueError(f"{where}: document {current.name} has no end; is the file cut off?")
    return documents


class _Document:
    def __init__(self, name: str) -> None:
        self.name = name
        self.sentences: list[list[str]] = []
        self.words: list[str] = []  # of the sentence that is being read
        self.open: dict[int, list[int]] = {}  # where mentions of a cluster have begun there
        self.clusters: dict[int, list[Mention]] = {}

    def add(self, columns: list[str]) -> None:
        if len(columns) < 5:
            raise ValueError(f"a line has at least five columns, but this has {len(columns)}")
        place = len(self.words)
        self.words.append(columns[3])
        for mark in columns[-1].strip().split("|") if columns[-1].strip() not in _NOTHING else ():
            found = _MARK.fullmatch(mark)
            if found is None or not (found[1] or found[3]):
                raise ValueError(f"{mark!r} is no mark of a mention, such as (3, 3) or (3)")
            cluster, begins, ends = int(found[2]), found[1], found[3]
            if begins:
                self.open.setdefault(cluster, []).append(place)
            if ends:
                if not self.open.get(cluster):
                    raise ValueError(
                        f"a mention of cluster {cluster} ends that has not begun in its sentence"
                    )
                mention = (len(self.sentences), self.open[cluster].pop(), place)
                self.clusters.setdefault(cluster, []).append(mention)

    def end_sentence(self) -> None:
        for cluster, starts in self.open.items():
            if starts:
                raise ValueError(f"a mention of cluster {cluster} is still open at the end of its sentence")
        if self.words:
            self.sentences.append(self.words)
        self.words = []

    def finished(self) -> Example:
        self.end_sentence()
        return checked_document(self.name, self.sentences, list(self.clusters.values()))


def checked_document(name: str, sentences: list[list[str]], clusters: list[list[Mention]]) -> Example:
    if not sentences:
        raise ValueError(f"document {name} has no words")
    check_mentions(sentences, clusters)
    return document(name, sentences, clusters)


def check_mentions(sentences: list[list[str]], clusters: list[list[Mention]]) -> None:
    mentions = [mention for cluster in clusters for mention in cluster]
    for mention, times in Counter(mentions).items():
        if times > 1:
            raise ValueError(f"the document has the mention {mention} twice, or in two clusters")
        if len(mention) != 3 or not 0 <= mention[0] < len(sentences):
            raise ValueError(f"a mention is a sentence, a first and a last word, but {mention} is none")
        if not 0 <= mention[1] <= mention[2] < len(sentences[mention[0]]):
            raise ValueError(f"the mention {mention} is not within the words of its sentence")


def document(name: str, sentences: list[list[str]], clusters: list[list[Mention]]) -> Example:
    tokens = [word for sentence in sentences for word in sentence]
    return {"name": name, "sentences": sentences, "tokens": tokens, "clusters": clusters}


def read_archive(path: Path) -> list[Example]:
    """Documents of all `.conll` files of a tar archive, packed or not, sorted by their names."""
    documents: list[Example] = []
    size = 0
    try:
        with tarfile.open(path, "r|*") as archive:
            for number, member in enumerate(archive):
                size += member.size
                if number >= MOST_FILES or size > LARGEST_ARCHIVE or member.size > LARGEST_FILE:
                    raise ValueError(
                        f"{path} is too large for a corpus: {member.name} in it is over a limit."
                    )
                is_text = member.isfile() and member.name.endswith(".conll")
                content = archive.extractfile(member) if is_text else None
                if content is not None:
                    documents += parse_conll(content.read().decode("utf-8"), f"{path}, {member.name}")
    except UnicodeDecodeError:
        raise ValueError(f"{path}, {member.name} is no text in UTF-8.") from None
    except (OSError, EOFError, tarfile.TarError, lzma.LZMAError) as error:
        raise ValueError(f"{path} could not be read as a tar archive ({error}).") from None
    return sorted(documents, key=lambda document: document["name"])


def split_documents(documents: list[Example]) -> dict[str, list[Example]]:
    """Of every ten documents in the order of their names, the ninth is for dev and the tenth for test."""
    return {
        "train": [one for number, one in enumerate(documents) if number % 10 < 8],
        "dev": documents[8::10],
        "test": documents[9::10],
    }


def windows(one: Example, size: int) -> list[Example]:
    """A document cut into pieces of at most `size` sentences, with what each has of the clusters."""
    pieces = []
    for start in range(0, len(one["sentences"]), size):
        clusters = [
            [(place - start, first, last) for place, first, last in cluster if start <= place < start + size]
            for cluster in one["clusters"]
        ]
        sentences = one["sentences"][start : start + size]
        pieces.append(document(one["name"], sentences, [cluster for cluster in clusters if cluster]))
    return pieces


# ---- to the model, and back


def collate_documents(tokenizer: ElmoTokenizer, documents: list[Example]) -> dict[str, Tensor]:
    """Documents as one batch, whose rows are sentences."""
    sentences = [sentence for one in documents for sentence in one["sentences"]]
    batch = dict(tokenizer(sentences, is_split_into_words=True, padding=True, return_tensors="pt"))
    numbers = [number for number, one in enumerate(documents) for _ in one["sentences"]]
    labels = [
        torch.tensor(
            [(*mention, number) for number, cluster in enumerate(one["clusters"]) for mention in cluster],
            dtype=torch.long,
        ).view(-1, 4)
        for one in documents
    ]
    return batch | {
        "document_ids": torch.tensor(numbers),
        "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
    }


def as_clusters(documents: np.ndarray) -> list[list[set[Mention]]]:
    """Mentions (documents, mentions, 4), filled up with -100, as clusters of each document."""
    found: list[list[set[Mention]]] = []
    for mentions in documents.tolist():
        clusters: dict[int, set[Mention]] = {}
        for sentence, first, last, cluster in mentions:
            if cluster >= 0:
                clusters.setdefault(cluster, set()).add((sentence, first, last))
        found.append(list(clusters.values()))
    return found


# ---- GAP

_COLUMNS = ["ID", "Text", "Pronoun", "Pronoun-offset"]
_COLUMNS += ["A", "A-offset", "A-coref", "B", "B-offset", "B-coref", "URL"]


def read_gap(path: Path, splitter: str = "penn") -> list[Example]:
    """Texts with a pronoun and two names: `sentences`, the places of `pronoun`, `A` and `B` in them (None if
    a sentence ends inside), and `right`, whether each name is whom the pronoun means."""
    lines = [line.rstrip("\r").split("\t") for line in read_text(path).rstrip().split("\n")]
    if lines[0] != _COLUMNS:
        raise ValueError(f"{path} has not the columns of GAP, {', '.join(_COLUMNS)}.")
    if not lines[1:]:
        raise ValueError(f"{path} has no texts, but the names of the columns alone.")
    examples = []
    for number, line in enumerate(lines[1:], start=2):
        row = dict(zip(_COLUMNS, line, strict=False))
        try:
            examples.append(_gap_example(row, splitter))
        except (KeyError, ValueError, IndexError):
            raise ValueError(
                f"{path}, line {number}: the columns do not fit together; each name must stand at its offset."
            ) from None
    return examples


def _gap_example(row: dict[str, str], splitter: str) -> Example:
    sentences, offsets, end = [], [], 0
    for sentence in split_sentences(row["Text"]):
        start = row["Text"].index(sentence, end)
        end = start + len(sentence)
        words = split_text(sentence, splitter)
        sentences.append(words.words)
        offsets.append([(start + first, start + last) for first, last in words.offsets])
    example: Example = {"name": row["ID"], "sentences": sentences}
    for name in ("Pronoun", "A", "B"):
        start = int(row[f"{name}-offset"])
        if row["Text"][start : start + len(row[name])] != row[name]:
            raise ValueError
        example[name.replace("Pronoun", "pronoun")] = _place(offsets, start, start + len(row[name]))
    coref = {"TRUE": True, "FALSE": False}
    example["right"] = (coref[row["A-coref"].upper()], coref[row["B-coref"].upper()])
    return example


def _place(offsets: list[list[tuple[int, int]]], start: int, end: int) -> Mention | None:
    """The words that have some of the letters from `start` to `end`, if they are of one sentence."""
    found = [
        (sentence, word)
        for sentence, words in enumerate(offsets)
        for word, (first, last) in enumerate(words)
        if first < end and last > start
    ]
    if not found or found[0][0] != found[-1][0]:
        return None
    return (found[0][0], found[0][1], found[-1][1])


def resolved(clusters: list[list[Mention]], example: Example) -> tuple[bool, bool]:
    """Whether the pronoun is in a cluster with a mention of A, and of B: one that has all of the name's words
    and not all of the other name's."""
    mates = next((cluster for cluster in clusters if example["pronoun"] in cluster), [])

    def names(one: str, other: str) -> bool:
        return any(_has(mate, example[one]) and not _has(mate, example[other]) for mate in mates)

    return names("A", "B"), names("B", "A")


def _has(mention: Mention, part: Mention | None) -> bool:
    if part is None:
        return False
    return mention[0] == part[0] and mention[1] <= part[1] and part[2] <= mention[2]
