"""Nearest neighbours in context, as in Table 4 of the paper.

A word of one sentence is compared by cosine, in the model's top layer, with all words of all other sentences
of SemCor; a sentence is listed once. The baseline is the word without context: its neighbours among the
distinct words of SemCor by layer 0.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.probing.data import Sentence, sense_name, words_of
from benchmarks.probing.vectors import Reader, starts_of, unit
from benchmarks.report import markdown_table

# Excerpts of SemCor with a star before the word, and the neighbour that the paper shows for its two sources.
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
EXCERPT = 56  # characters of a sentence on each side of the word


@dataclass
class Query:
    words: list[str]
    place: int
    sentence: int | None  # its number in SemCor, if any

    @property
    def word(self) -> str:
        return self.words[self.place]


def find_query(text: str, semcor: list[Sentence]) -> Query:
    """The sentence of SemCor that contains these words, or these words alone."""
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
    """Cosines in the top layer, (queries, words of SemCor)."""
    starts = starts_of([query.words for query in queries])
    places = [start + query.place for start, query in zip(starts, queries, strict=False)]
    top = reader.layers - 1
    own = unit(reader.vectors([query.words for query in queries], "sources")[top, places])
    sentences = words_of(semcor)
    cosines = np.empty((len(queries), sum(map(len, sentences))), dtype=np.float32)
    begins = starts_of(sentences)
    for chunk in reader.chunks(sentences, "SemCor"):
        cosines[:, begins[chunk.first] : begins[chunk.end]] = own @ unit(chunk.vectors[top]).T
    return cosines


def nearest_in_context(
    cosines: np.ndarray, query: Query, semcor: list[Sentence], begins: np.ndarray
) -> list[dict[str, Any]]:
    """The nearest words by one row of cosines, one for each sentence."""
    neighbours: list[dict[str, Any]] = []
    listed = {tuple(query.words)}
    for index in np.argsort(-cosines, kind="stable"):
        number = int(np.searchsorted(begins, index, side="right")) - 1
        sentence, place = semcor[number], int(index - begins[number])
        if tuple(sentence.words) not in listed:
            listed.add(tuple(sentence.words))
            cosine = round(float(cosines[index]), 4)
            neighbours.append(describe(sentence.words, place, sentence) | {"cosine": cosine})
        if len(neighbours) == NEIGHBOURS:
            break
    return neighbours


def rank_in_context(
    cosines: np.ndarray, text: str | None, query: Query, semcor: list[Sentence]
) -> int | None:
    """The rank of the paper's neighbour among all words outside of the query's sentence."""
    neighbour = find_query(text, semcor) if text else None
    if neighbour is None or neighbour.sentence is None or query.sentence is None:
        return None
    begins = starts_of(words_of(semcor))
    others = np.ones(len(cosines), dtype=bool)
    others[begins[query.sentence] : begins[query.sentence + 1]] = False
    own = cosines[begins[neighbour.sentence] + neighbour.place]
    return 1 + int((cosines[others] > own).sum())


def describe(words: list[str], place: int, sentence: Sentence | None) -> dict[str, Any]:
    marks = sentence.marks if sentence else []
    sense = next((mark.keys[0] for mark in marks if mark.start <= place < mark.end), None)
    return {"words": words, "place": place, "sense": sense}


def nearest_without_context(
    reader: Reader, targets: list[str], semcor: list[Sentence]
) -> dict[str, list[str]]:
    """The distinct words nearest to each target in layer 0, without other spellings of the target itself."""
    words = sorted({word for sentence in semcor for word in sentence.words if word.isalpha()} | set(targets))
    chunks = reader.chunks([[word] for word in words], "words")
    vectors = unit(np.concatenate([chunk.vectors[0] for chunk in chunks]))
    neighbours = {}
    for word in dict.fromkeys(targets):
        order = np.argsort(-(vectors @ vectors[words.index(word)]), kind="stable")
        others = [words[number] for number in order if words[number].lower() != word.lower()]
        neighbours[word] = others[:WITHOUT_CONTEXT]
    return neighbours


# ---- the probe


def probe_neighbours(readers: Sequence[Reader], semcor: list[Sentence]) -> dict[str, Any]:
    queries = [find_query(text, semcor) for text, _ in SOURCES]
    begins = starts_of(words_of(semcor))
    by_reader: dict[str, Any] = {}
    for reader in readers:
        cosines = cosines_in_context(reader, queries, semcor)
        alone = nearest_without_context(reader, [query.word for query in queries], semcor)
        by_reader[reader.name] = [
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
    return {"of": by_reader, "counts": counts}


# ---- the table


def neighbours_markdown(result: dict[str, Any]) -> str:
    paragraphs = [
        f"Among the {result['counts']['words']:,} words of SemCor, by cosine in the top layer. In brackets: "
        "the type of the sense in SemCor, and the cosine."
    ]
    for name, entries in result["of"].items():
        paragraphs += [f"### {name.capitalize()}", table(entries)]
        ranks = [entry["rank_of_the_papers_neighbour"] for entry in entries]
        known = ", ".join(f"{rank:,}" for rank in ranks if rank is not None)
        if known:
            paragraphs.append(
                f"The neighbours that the paper shows for its two sources have the ranks {known} here."
            )
    return "\n\n".join(paragraphs) + "\n"


def table(entries: list[dict[str, Any]]) -> str:
    rows = []
    for number, entry in enumerate(entries):
        if number == 0 or entries[number - 1]["word"] != entry["word"]:
            alone = ", ".join(map(escaped, entry["without_context"]))
            rows.append([f"**{escaped(entry['word'])}**", "*the word without context*", alone])
        near = "<br>".join(f"{excerpt(word)} ({', '.join(notes(word))})" for word in entry["neighbours"])
        sense = "".join(f" ({note})" for note in notes(entry["source"]))
        rows.append(["", excerpt(entry["source"]) + sense, near])
    return markdown_table(["word", "source", "nearest neighbours"], rows, left=3)


def notes(entry: dict[str, Any]) -> list[str]:
    sense = [sense_name(entry["sense"])] if entry["sense"] else []
    return [*sense, f"{entry['cosine']:.2f}"] if "cosine" in entry else sense


def excerpt(entry: dict[str, Any]) -> str:
    """The word in bold, with the words around it."""
    words, place = entry["words"], entry["place"]
    before = list(map(escaped, fitting(words[:place][::-1])))[::-1]
    after = map(escaped, fitting(words[place + 1 :]))
    text = " ".join([*before, f"**{escaped(words[place])}**", *after])
    return re.sub(r" (?=(?:[,.;:?!%)]|'(?:s|t|m|d|re|ve|ll)|n't)(?: |$))", "", text)


def fitting(words: list[str]) -> list[str]:
    """The first words that fit into an excerpt, and an ellipsis if there are more."""
    kept: list[str] = []
    for word in words:
        if sum(map(len, kept)) + len(kept) + len(word) > EXCERPT:
            return [*kept, "…"]
        kept.append(word)
    return kept


def escaped(text: str) -> str:
    """Text without a meaning in Markdown."""
    return "".join("\\" + sign if sign in "\\`*_|<>[]#~" else sign for sign in text)
