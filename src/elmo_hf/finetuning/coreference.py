"""Coreference: documents from CoNLL-2012's and OntoGUM's files, archives or a dataset; GAP's pronouns.

A document is `{"name", "sentences", "tokens", "clusters"}`: the words of each sentence, all words, and the
clusters of mentions (sentence, first word, last word). Archives are read as a stream; nothing is unpacked to
the disk.
"""

import re
import tarfile
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from elmo_hf.corpus.readers import check_file
from elmo_hf.corpus.sentences import split_sentences
from elmo_hf.errors import ElmoError, reason_of
from elmo_hf.finetuning.data import Example, columns_of, first_column, read_text
from elmo_hf.model.tokenization_elmo import ElmoTokenizer
from elmo_hf.model.words_elmo import split_text

Mention = tuple[int, int, int]
LARGEST_FILE, LARGEST_ARCHIVE, MOST_FILES = 16 << 20, 1 << 30, 100_000
_MARK = re.compile(r"(\()?(\d{1,9})(\))?")
_MARKS_WITHOUT_BAR = re.compile(r"(?<=\d)(?=\()|(?<=\))(?=[(\d])")  # (1)(2 of OntoGUM
_BEGIN, _END = re.compile(r"#\s?begin document"), re.compile(r"#\s?end document")
_ENDS_SENTENCE, _CLOSES_SENTENCE = {".", "!", "?"}, {"''", '"', "”", "’", ")", "]", "'"}
_NO_MARKS = {"", "-", "_"}
_PART = re.compile(r"; part \d+$")


# ---- CoNLL-2012


def read_documents(path: Path) -> list[Example]:
    """Return the documents of a file, or of the files in a tar archive (`.tar`, `.tar.xz`, `.tgz` ...)."""
    is_archive = path.suffix in (".tar", ".tgz", ".txz") or ".tar" in path.suffixes[-2:]
    return read_archive(path) if is_archive else read_conll(path)


def read_conll(path: Path) -> list[Example]:
    return parse_conll(read_text(path), str(path))


def parse_conll(text: str, where: str) -> list[Example]:
    """Return the documents of a text in the layout of CoNLL-2012.

    A document is between `#begin document` and `#end document`. A line is a word: the fourth column is the
    word, the last has its marks of mentions, such as `(3|(4)`. A blank line ends a sentence. In OntoGUM's
    three columns the second is the word, and a sentence ends after `.`, `!` or `?` outside of all mentions;
    of its few mentions that are in two clusters, the first counts.
    """
    documents: list[Example] = []
    current: _Document | None = None
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.rstrip("\r")
        try:
            if begin := _BEGIN.match(line):
                if current is not None:
                    raise ElmoError(f"document {current.name:.60} has no end before the next one begins")
                current = _Document(line[begin.end() :].strip() or Path(where).name)
            elif _END.match(line) and current is not None:
                documents.append(current.finished())
                current = None
            elif line.strip() and not line.startswith("#"):  # `#` begins a comment
                if current is None:
                    raise ElmoError("a word is outside of any document")
                current.add(columns_of(line))
            elif current is not None:
                current.end_sentence()
        except ElmoError as error:
            raise ElmoError(f"{where}, line {number}: {error}.") from None
    if current is not None:
        raise ElmoError(f"{where}: document {current.name:.60} has no end; is the file cut off?")
    return documents


class _Document:
    """A document while its lines are read."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sentences: list[list[str]] = []
        self.words: list[str] = []  # of the current sentence
        self.open: dict[int, list[int]] = {}  # first words of mentions without an end, by cluster
        self.clusters: dict[int, list[Mention]] = {}
        self.seen: set[Mention] = set()
        self.drops_repeated = False

    def add(self, columns: list[str]) -> None:
        self.drops_repeated = has_three = len(columns) == 3 and columns[0].isdecimal()
        if len(columns) < 5 and not has_three:
            raise ElmoError(f"a line needs at least five columns, but this has {len(columns)}")
        if not has_three and not columns[2].isdecimal():
            raise ElmoError(
                f"the third column numbers the words, but this has {columns[2]!r:.60}; is this CoNLL-2012?"
            )
        word, marks = columns[1 if has_three else 3], columns[-1].strip()
        if has_three and self.is_complete(word):
            self.end_sentence()
        position = len(self.words)
        self.words.append(word)
        marks = _MARKS_WITHOUT_BAR.sub("|", marks)
        for mark in marks.split("|") if marks not in _NO_MARKS else ():
            match = _MARK.fullmatch(mark)
            if match is None or not (match[1] or match[3]):
                raise ElmoError(f"{mark!r} is no mark of a mention, such as (3, 3) or (3)")
            cluster = int(match[2])
            if match[1]:
                self.open.setdefault(cluster, []).append(position)
            if match[3]:
                self._close(cluster, position)

    def is_complete(self, next_word: str) -> bool:
        """Whether the words so far are a sentence, to which the next word does not belong."""
        words = list(self.words)
        while len(words) > 1 and words[-1] in _CLOSES_SENTENCE:
            words.pop()
        has_end = bool(words) and words[-1] in _ENDS_SENTENCE and next_word not in _CLOSES_SENTENCE
        return has_end and not any(self.open.values())

    def _close(self, cluster: int, position: int) -> None:
        if not self.open.get(cluster):
            raise ElmoError(f"a mention of cluster {cluster} ends that has not begun in its sentence")
        mention = (len(self.sentences), self.open[cluster].pop(), position)
        if not (self.drops_repeated and mention in self.seen):
            self.clusters.setdefault(cluster, []).append(mention)
        self.seen.add(mention)

    def end_sentence(self) -> None:
        for cluster, starts in self.open.items():
            if starts:
                raise ElmoError(f"a mention of cluster {cluster} has no end in its sentence")
        if self.words:
            self.sentences.append(self.words)
        self.words = []

    def finished(self) -> Example:
        self.end_sentence()
        return checked_document(self.name, self.sentences, list(self.clusters.values()))


def checked_document(name: str, sentences: list[list[str]], clusters: list[list[Mention]]) -> Example:
    if not sentences:
        raise ElmoError(f"document {name} has no words")
    check_mentions(sentences, clusters)
    return document(name, sentences, joined(clusters))


def joined(clusters: list[list[Mention]]) -> list[list[Mention]]:
    """Clusters with a mention in common are one, as for AllenNLP's reader: OntoNotes has a few of them."""
    result: list[list[Mention]] = []
    for cluster in clusters:
        mentions = {*cluster}
        sharing = [other for other in result if not mentions.isdisjoint(other)]
        apart = [other for other in result if mentions.isdisjoint(other)]
        result = [*apart, list(dict.fromkeys(chain(*sharing, cluster)))]
    return result


def check_mentions(sentences: list[list[str]], clusters: list[list[Mention]]) -> None:
    for mention in chain.from_iterable(clusters):
        are_numbers = len(mention) == 3 and all(isinstance(place, int) for place in mention)
        if not are_numbers or not 0 <= mention[0] < len(sentences):
            raise ElmoError(f"a mention is [sentence, first word, last word], but this is {mention}")
        if not 0 <= mention[1] <= mention[2] < len(sentences[mention[0]]):
            raise ElmoError(f"the mention {mention} is not within the words of its sentence")
    for cluster in clusters:
        for mention, times in Counter(cluster).items():
            if times > 1:
                raise ElmoError(f"a cluster has the mention {mention} twice")


def document(name: str, sentences: list[list[str]], clusters: list[list[Mention]]) -> Example:
    tokens = [word for sentence in sentences for word in sentence]
    return {"name": name, "sentences": sentences, "tokens": tokens, "clusters": clusters}


def read_archive(path: Path) -> list[Example]:
    """Return the documents of a tar archive, compressed or not, sorted by name. They are in files whose names
    end in `.conll` or, as CoNLL-2012's do, in `_conll`. A document may not be in it twice, as it is where
    there are `_gold_conll` and `_auto_conll`."""
    documents: list[Example] = []
    size = 0
    check_file(str(path))
    try:
        with tarfile.open(path, "r|*") as archive:
            for number, member in enumerate(archive):
                size += member.size
                if number >= MOST_FILES or size > LARGEST_ARCHIVE or member.size > LARGEST_FILE:
                    raise ElmoError(f"{path} is too large for a corpus: {member.name} in it is over a limit.")
                is_hidden = Path(member.name).name.startswith(".")  # `._a.conll`, made by macOS
                is_text = member.isfile() and not is_hidden and member.name.endswith((".conll", "_conll"))
                content = archive.extractfile(member) if is_text else None
                if content is not None:
                    documents += parse_conll(content.read().decode("utf-8-sig"), f"{path}, {member.name}")
    except UnicodeDecodeError:
        raise ElmoError(f"{path}, {member.name} is no text in UTF-8.") from None
    except ElmoError:
        raise
    except Exception as error:  # tarfile raises whatever its unpackers do, TypeError among them
        raise ElmoError(f"{path} could not be read as a tar archive ({reason_of(error)}).") from None
    if not documents:
        raise ElmoError(f"{path} has no document in files *.conll or *_conll.")
    check_names(documents, path)
    return sorted(documents, key=lambda document: document["name"])


def check_names(documents: list[Example], path: Path) -> None:
    for name, times in Counter(document["name"] for document in documents).items():
        if times > 1:
            raise ElmoError(
                f"{path} has the document {name} {times} times; leave one of its files in it (of _gold_conll "
                "and _auto_conll the first)."
            )


def split_documents(documents: list[Example]) -> dict[str, list[Example]]:
    """Split documents: of every ten in their order, eight are train, the ninth is dev, the tenth test. The
    parts of a document, `(name); part 000` and so on, stay together."""
    numbers: dict[str, int] = {}
    result: dict[str, list[Example]] = {"train": [], "dev": [], "test": []}
    for document in documents:
        number = numbers.setdefault(_PART.sub("", document["name"]), len(numbers))
        result[{8: "dev", 9: "test"}.get(number % 10, "train")].append(document)
    return result


def check_clusters(documents: list[Example]) -> None:
    """Refuse train documents in which no two mentions are of one cluster."""
    if not any(len(cluster) > 1 for document in documents for cluster in document["clusters"]):
        raise ElmoError(
            "no two mentions of the train documents are in one cluster; are the marks, such as (3|(4), in "
            "the last column?"
        )


def windows(example: Example, size: int) -> list[Example]:
    """Cut a document into windows of at most `size` sentences, each with the mentions that are in it."""
    result = []
    for start in range(0, len(example["sentences"]), size):
        clusters = [
            [
                (sentence - start, first, last)
                for sentence, first, last in cluster
                if start <= sentence < start + size
            ]
            for cluster in example["clusters"]
        ]
        sentences = example["sentences"][start : start + size]
        result.append(document(example["name"], sentences, [cluster for cluster in clusters if cluster]))
    return result


# ---- rows of a dataset


def from_row(row: Example, where: str) -> list[Example]:
    """Return the document of a row with the columns `sentences` and `clusters`."""
    sentences, clusters = (first_column(row, (name,), where) for name in ("sentences", "clusters"))
    if not is_list_of(sentences, list) or not all(is_list_of(sentence, str) for sentence in sentences):
        raise ElmoError(f"{where}: `sentences` must be lists of words, but are {sentences!r:.60}.")
    if not is_list_of(clusters, list) or not all(is_list_of(cluster, list) for cluster in clusters):
        raise ElmoError(f"{where}: `clusters` must be lists of mentions, but are {clusters!r:.60}.")
    clusters = [[tuple(mention) for mention in cluster] for cluster in clusters]
    if not sentences:
        raise ElmoError(f"{where}: a document must have sentences.")
    try:
        return [checked_document(where, sentences, clusters)]
    except ElmoError as error:
        raise ElmoError(f"{where}: {error}.") from None


def is_list_of(value: Any, item: type) -> bool:
    return isinstance(value, list) and all(isinstance(element, item) for element in value)


# ---- batches and clusters


def collate_documents(tokenizer: ElmoTokenizer, documents: list[Example]) -> dict[str, Tensor]:
    """Return documents as a batch whose rows are sentences.

    `document_ids` (sentences,) has the document of each; `labels` (documents, mentions, 4) has the sentence,
    first word, last word and cluster of each mention, padded with -100.
    """
    sentences = [sentence for document in documents for sentence in document["sentences"]]
    batch = dict(tokenizer(sentences, is_split_into_words=True, padding=True, return_tensors="pt"))
    numbers = [number for number, document in enumerate(documents) for _ in document["sentences"]]
    labels = [
        torch.tensor(
            [
                (*mention, number)
                for number, cluster in enumerate(document["clusters"])
                for mention in cluster
            ],
            dtype=torch.long,
        ).view(-1, 4)
        for document in documents
    ]
    return batch | {
        "document_ids": torch.tensor(numbers),
        "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
    }


def as_clusters(documents: np.ndarray) -> list[list[list[Mention]]]:
    """Return the clusters of each document from mentions (documents, mentions, 4), padded with -100."""
    result: list[list[list[Mention]]] = []
    for mentions in documents.tolist():
        clusters: dict[int, list[Mention]] = {}
        for sentence, first, last, cluster in mentions:
            if cluster >= 0:
                clusters.setdefault(cluster, []).append((sentence, first, last))
        result.append(list(clusters.values()))
    return result


def predicted_clusters(evaluation: Any, examples: list[Example]) -> list[dict[str, Any]]:
    """Return what `--predictions` writes: each document with its clusters and the predicted ones."""
    names = ("name", "sentences", "clusters")
    return [
        {name: example[name] for name in names} | {"predicted": clusters}
        for example, clusters in zip(examples, as_clusters(evaluation.predictions), strict=True)
    ]


# ---- GAP

_COLUMNS = ["ID", "Text", "Pronoun", "Pronoun-offset"]
_COLUMNS += ["A", "A-offset", "A-coref", "B", "B-offset", "B-coref", "URL"]


def read_gap(path: Path, splitter: str = "penn") -> list[Example]:
    """Read GAP's texts with a pronoun and two names, A and B.

    An example has `sentences`; the mentions `pronoun`, `A` and `B` in them (None if a sentence ends inside);
    and `gold`, whether the pronoun means A, and whether it means B.
    """
    lines = [line.rstrip("\r").split("\t") for line in read_text(path).rstrip().split("\n")]
    if lines[0] != _COLUMNS:
        raise ElmoError(f"{path} does not have the columns of GAP, {', '.join(_COLUMNS)}.")
    if not lines[1:]:
        raise ElmoError(f"{path} has the names of the columns, but no texts.")
    examples = []
    for number, line in enumerate(lines[1:], start=2):
        row = dict(zip(_COLUMNS, line, strict=False))
        try:
            examples.append(_gap_example(row, splitter))
        except (KeyError, ValueError, IndexError):
            raise ElmoError(
                f"{path}, line {number}: the columns do not agree; each name must be at its offset, and each "
                "label TRUE or FALSE."
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
            raise ElmoError(f"{name} is not at its offset")
        example[name.replace("Pronoun", "pronoun")] = _mention_at(offsets, start, start + len(row[name]))
    coref = {"TRUE": True, "FALSE": False}
    example["gold"] = (coref[row["A-coref"].upper()], coref[row["B-coref"].upper()])
    return example


def _mention_at(offsets: list[list[tuple[int, int]]], start: int, end: int) -> Mention | None:
    """Return the words with a character from `start` to `end`, if they are in one sentence."""
    inside = [
        (sentence, word)
        for sentence, words in enumerate(offsets)
        for word, (first, last) in enumerate(words)
        if first < end and last > start
    ]
    if not inside or inside[0][0] != inside[-1][0]:
        return None
    return (inside[0][0], inside[0][1], inside[-1][1])


def resolved(clusters: list[list[Mention]], example: Example) -> tuple[bool, bool]:
    """Return whether the pronoun means A, and whether it means B.

    It means a name if its cluster has a mention with all words of the name, and not all of the other name.
    """
    cluster = next((cluster for cluster in clusters if example["pronoun"] in cluster), [])

    def means(name: str, other: str) -> bool:
        return any(
            _contains(mention, example[name]) and not _contains(mention, example[other])
            for mention in cluster
        )

    return means("A", "B"), means("B", "A")


def _contains(mention: Mention, name: Mention | None) -> bool:
    if name is None:
        return False
    return mention[0] == name[0] and mention[1] <= name[1] and name[2] <= mention[2]
