"""Nearest neighbours in context, as in Table 4 of the paper.

A word of one sentence is compared by cosine, in the model's top layer, with all words of all sentences of
SemCor but its own; a sentence is told once. Beside it stand the neighbours of the word without context: the
different words of SemCor by layer 0.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.probing.data import Sentence, words_of
from benchmarks.probing.names import sense_name
from benchmarks.probing.tables import markdown, plain
from benchmarks.probing.vectors import Reader, starts_of, unit

# Parts of sentences of SemCor; a star is before the word. The first two are the paper's, each with the
# neighbour that it shows.
SOURCES = (
    ("Chico Ruiz made a spectacular *play on Alusik 's grounder", "his all-round excellent *play ."),
    ("Olivia De Havilland signed to do a Broadway *play for Garson", "fat roles in a successful *play ,"),
    ("board of directors of the *bank", None),
    ("fifty paces from the edge of the *bank", None),
    ("hold office until the *spring of", None),
    ("of axle , shock absorber , and *spring", None),
    ("Radiation scatters somewhat like *light .", None),
    ("exercise with a very *light barbell", None),
    ("massaging his *right leg", None),
    ("The *right to leave legacies", None),
)
NEIGHBOURS, WITHOUT_CONTEXT = 4, 10
ROOM = 56  # letters of a sentence on each side of the word


@dataclass
class Query:
    words: list[str]
    place: int
    sentence: int | None  # its number in SemCor, if it is there

    @property
    def word(self) -> str:
        return self.words[self.place]


def find_query(text: str, semcor: list[Sentence]) -> Query:
    """The sentence of SemCor with these words, or these words alone."""
    words = [word.removeprefix("*") for word in text.split()]
    place = next(number for number, word in enumerate(text.split()) if word.startswith("*"))
    for number, sentence in enumerate(semcor):
        if words[0] in sentence.words:
            for start in range(len(sentence.words) - len(words) + 1):
                if sentence.words[start : start + len(words)] == words:
                    return Query(sentence.words, start + place, number)
    return Query(words, place, None)


# ---- cosines


def cosines_in_context(reader: Reader, queries: list[Query], semcor: list[Sentence]) -> np.ndarray:
    """(queries, words of SemCor)"""
    starts = starts_of([query.words for query in queries])
    places = [start + query.place for start, query in zip(starts, queries, strict=False)]
    top = reader.layers - 1
    own = unit(reader.vectors([query.words for query in queries], "sources")[top, places])
    sentences = words_of(semcor)
    found = np.empty((len(queries), sum(map(len, sentences))), dtype=np.float32)
    begins = starts_of(sentences)
    for piece in reader.pieces(sentences, "SemCor"):
        found[:, begins[piece.first] : begins[piece.end]] = own @ unit(piece.vectors[top]).T
    return found


def nearest_in_context(
    cosines: np.ndarray, query: Query, semcor: list[Sentence], begins: np.ndarray
) -> list[dict[str, Any]]:
    """The nearest words, one a sentence, of one row of cosines."""
    found: list[dict[str, Any]] = []
    told = {tuple(query.words)}
    for index in np.argsort(-cosines, kind="stable"):
        number = int(np.searchsorted(begins, index, side="right")) - 1
        sentence, place = semcor[number], int(index - begins[number])
        if tuple(sentence.words) not in told:
            told.add(tuple(sentence.words))
            found.append(
                describe(sentence.words, place, sentence) | {"cosine": round(float(cosines[index]), 4)}
            )
        if len(found) == NEIGHBOURS:
            break
    return found


def rank_in_context(
    cosines: np.ndarray, text: str | None, query: Query, semcor: list[Sentence]
) -> int | None:
    """Where the paper's neighbour stands among all words outside of the query's sentence."""
    wanted = find_query(text, semcor) if text else None
    if wanted is None or wanted.sentence is None or query.sentence is None:
        return None
    begins = starts_of(words_of(semcor))
    others = np.ones(len(cosines), dtype=bool)
    others[begins[query.sentence] : begins[query.sentence + 1]] = False
    own = cosines[begins[wanted.sentence] + wanted.place]
    return 1 + int((cosines[others] > own).sum())


def describe(words: list[str], place: int, sentence: Sentence | None) -> dict[str, Any]:
    marks = sentence.marks if sentence else []
    sense = next((mark.keys[0] for mark in marks if mark.start <= place < mark.end), None)
    return {"words": words, "place": place, "sense": sense}


def nearest_without_context(
    reader: Reader, wanted: list[str], semcor: list[Sentence]
) -> dict[str, list[str]]:
    """For each word the different words nearest to it in layer 0; its own spellings do not count."""
    words = sorted({word for sentence in semcor for word in sentence.words if word.isalpha()} | set(wanted))
    vectors = np.concatenate(
        [piece.vectors[0] for piece in reader.pieces([[word] for word in words], "words")]
    )
    vectors = unit(vectors)
    found = {}
    for word in dict.fromkeys(wanted):
        order = np.argsort(-(vectors @ vectors[words.index(word)]), kind="stable")
        others = [words[number] for number in order if words[number].lower() != word.lower()]
        found[word] = others[:WITHOUT_CONTEXT]
    return found


# ---- the probe


def probe_neighbours(readers: Sequence[Reader], semcor: list[Sentence]) -> dict[str, Any]:
    queries = [find_query(text, semcor) for text, _ in SOURCES]
    begins = starts_of(words_of(semcor))
    found: dict[str, Any] = {}
    for reader in readers:
        cosines = cosines_in_context(reader, queries, semcor)
        alone = nearest_without_context(reader, [query.word for query in queries], semcor)
        found[reader.name] = [
            {
                "word": query.word,
                "source": describe(
                    query.words, query.place, None if query.sentence is None else semcor[query.sentence]
                ),
                "neighbours": nearest_in_context(row, query, semcor, begins),
                "without_context": alone[query.word],
                "rank_of_the_papers_neighbour": rank_in_context(row, paper, query, semcor),
            }
            for row, query, (_, paper) in zip(cosines, queries, SOURCES, strict=True)
        ]
    counts = {"sentences": len(semcor), "words": int(begins[-1])}
    return {"of": found, "counts": counts}


# ---- the table


def neighbours_markdown(found: dict[str, Any]) -> str:
    parts = [
        f"Among the {found['counts']['words']:,} words of SemCor, by cosine in the top layer. In brackets: "
        "the kind of sense that SemCor marks, and the cosine."
    ]
    for name, entries in found["of"].items():
        parts += [f"### {name.capitalize()}", table(entries)]
        ranks = [entry["rank_of_the_papers_neighbour"] for entry in entries]
        told = ", ".join(f"{rank:,}" for rank in ranks if rank is not None)
        if told:
            parts.append(
                f"The neighbours that the paper shows for its two sources have the ranks {told} here."
            )
    return "\n\n".join(parts) + "\n"


def table(entries: list[dict[str, Any]]) -> str:
    rows = []
    for number, entry in enumerate(entries):
        if number == 0 or entries[number - 1]["word"] != entry["word"]:
            alone = ", ".join(plain(word) for word in entry["without_context"])
            rows.append([f"**{plain(entry['word'])}**", "*the word without context*", alone])
        near = "<br>".join(f"{shown(one)} ({', '.join(notes(one))})" for one in entry["neighbours"])
        sense = "".join(f" ({note})" for note in notes(entry["source"]))
        rows.append(["", shown(entry["source"]) + sense, near])
    return markdown(["word", "source", "nearest neighbours"], rows, left=3)


def notes(one: dict[str, Any]) -> list[str]:
    sense = [sense_name(one["sense"])] if one["sense"] else []
    return [*sense, f"{one['cosine']:.2f}"] if "cosine" in one else sense


def shown(one: dict[str, Any]) -> str:
    """The words around the one in question, which is bold."""
    words, place = one["words"], one["place"]
    before = [plain(word) for word in fitting(words[:place][::-1])][::-1]
    after = [plain(word) for word in fitting(words[place + 1 :])]
    text = " ".join([*before, f"**{plain(words[place])}**", *after])
    return re.sub(r" (?=(?:[,.;:?!%)]|'(?:s|t|m|d|re|ve|ll)|n't)(?: |$))", "", text)


def fitting(words: list[str]) -> list[str]:
    """The first words that fit, and a sign that there are more."""
    kept: list[str] = []
    for word in words:
        if sum(map(len, kept)) + len(kept) + len(word) > ROOM:
            return [*kept, "…"]
        kept.append(word)
    return kept
