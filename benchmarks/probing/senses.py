"""Word sense disambiguation by the nearest neighbour, as in section 5.3 of the paper.

A sense's vector is the average over its occurrences in SemCor. A word of a test gets the sense of its lemma
and part of speech whose vector is nearest by cosine; where SemCor has none, the first sense of the inventory.
Every instance gets one answer, so that precision, recall and F1 are one figure; the few whose lemma is not in
the inventory either count as wrong.

The baselines are the inventory's first sense, the sense most frequent in SemCor (with the same fallback), and
nearest neighbours from random weights.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.probing.data import (
    INVENTORY,
    TESTS,
    Mark,
    Sentence,
    lemma_and_pos,
    marks_of,
    read_first_senses,
    read_test,
    words_of,
)
from benchmarks.probing.vectors import Reader, span_means, starts_of, unit
from benchmarks.report import markdown_table, one_decimal

SETS = ("senseval2", "senseval3", "semeval2007", "semeval2013")
# Table 5: F1 on all five sets of Raganato et al., with WordNet 3.0's first sense as the fallback.
PAPER = {"first sense": 65.9, "layer 1": 67.4, "layer 2": 69.0}
TIE = 1e-6  # layer 0 of a word is the same for all senses, up to rounding
Answer = Callable[[Mark, int], str | None]  # (instance, its number) -> sense key


@dataclass
class Task:
    semcor: list[Sentence]
    tests: dict[str, list[Sentence]]
    first: dict[tuple[str, str], str]

    @property
    def instances(self) -> list[Mark]:
        return [mark for sentences in self.tests.values() for mark in marks_of(sentences)]


def read_task(data: Path, semcor: list[Sentence]) -> Task:
    tests = {name: read_test(data / TESTS / name, name) for name in SETS}
    return Task(semcor, tests, read_first_senses(data / INVENTORY))


# ---- the senses in SemCor


@dataclass
class Senses:
    """keys[n] occurs counts[n] times in SemCor; `of` has the n of each lemma, the most frequent key first."""

    keys: list[str]
    counts: list[int]
    of: dict[tuple[str, str], list[int]]


def count_senses(semcor: list[Sentence]) -> Senses:
    counts = Counter(key for mark in marks_of(semcor) for key in mark.keys)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    of: dict[tuple[str, str], list[int]] = {}
    for number, (key, _) in enumerate(ordered):
        of.setdefault(lemma_and_pos(key), []).append(number)
    return Senses([key for key, _ in ordered], [count for _, count in ordered], of)


def average_senses(reader: Reader, semcor: list[Sentence], senses: Senses) -> np.ndarray:
    """The average vector of each sense over its occurrences, (layers, senses, dim)."""
    semcor = [sentence for sentence in semcor if sentence.marks]
    numbers = {key: number for number, key in enumerate(senses.keys)}
    sums = torch.zeros(reader.layers, len(numbers), reader.dim)
    for chunk in reader.chunks(words_of(semcor), "SemCor"):
        starts, ends, marks = spans(semcor[chunk.first : chunk.end])
        rows = [(place, numbers[key]) for place, mark in enumerate(marks) for key in mark.keys]
        places, ids = np.array(rows).T
        means = torch.from_numpy(span_means(chunk.vectors, starts, ends)[:, places])
        sums.index_add_(1, torch.from_numpy(ids), means)
    return (sums / torch.tensor(senses.counts)[None, :, None]).numpy()


def spans(sentences: list[Sentence]) -> tuple[np.ndarray, np.ndarray, list[Mark]]:
    """First word and end of each mark in the sequence of all words, and the marks."""
    begins = starts_of(words_of(sentences))
    rows = [
        (begin + mark.start, begin + mark.end, mark)
        for begin, sentence in zip(begins, sentences, strict=False)
        for mark in sentence.marks
    ]
    starts, ends = (np.array([row[side] for row in rows], dtype=np.int64) for side in (0, 1))
    return starts, ends, [row[2] for row in rows]


# ---- answers and scores


def nearest(vector: np.ndarray, averages: np.ndarray) -> int:
    """The index of the average (senses, dim) nearest by cosine; in a tie the first, most frequent one."""
    cosines = unit(averages.astype(np.float64)) @ unit(vector.astype(np.float64))
    return int(np.flatnonzero(cosines >= cosines.max() - TIE)[0])


def answer_by_neighbour(task: Task, senses: Senses, averages: np.ndarray, vectors: np.ndarray) -> Answer:
    """`averages` (senses, dim) and `vectors` of the instances (instances, dim) are of one layer."""

    def answer(mark: Mark, number: int) -> str | None:
        candidates = senses.of.get((mark.lemma, mark.pos))
        if candidates is None:
            return task.first.get((mark.lemma, mark.pos))
        return senses.keys[candidates[nearest(vectors[number], averages[candidates])]]

    return answer


def answer_first(task: Task) -> Answer:
    return lambda mark, number: task.first.get((mark.lemma, mark.pos))


def answer_frequent(task: Task, senses: Senses) -> Answer:
    def answer(mark: Mark, number: int) -> str | None:
        candidates = senses.of.get((mark.lemma, mark.pos))
        return senses.keys[candidates[0]] if candidates else task.first.get((mark.lemma, mark.pos))

    return answer


def score(task: Task, answer: Answer) -> dict[str, float]:
    """Accuracy in percent, of each set and of all together. No answer counts as wrong."""
    correct: dict[str, Sequence[bool]] = {}
    number = 0
    for name, sentences in task.tests.items():
        marks = marks_of(sentences)
        correct[name] = [answer(mark, number + place) in mark.keys for place, mark in enumerate(marks)]
        number += len(marks)
    correct["all"] = [each for values in correct.values() for each in values]
    return {name: round(100 * sum(values) / len(values), 2) for name, values in correct.items()}


# ---- the probe


def probe_senses(readers: Sequence[Reader], task: Task) -> dict[str, Any]:
    senses = count_senses(task.semcor)
    scores = {
        "first sense": score(task, answer_first(task)),
        "most frequent in SemCor": score(task, answer_frequent(task, senses)),
    }
    for reader in readers:
        averages = average_senses(reader, task.semcor, senses)
        vectors = vectors_of_instances(reader, task)
        for layer in range(reader.layers):
            answer = answer_by_neighbour(task, senses, averages[layer], vectors[layer])
            scores[f"{reader.name}, layer {layer}"] = score(task, answer)
    return {"f1": scores, "counts": counts(task, senses), "paper": PAPER}


def vectors_of_instances(reader: Reader, task: Task) -> np.ndarray:
    """(layers, instances, dim)"""
    sentences = [sentence for test in task.tests.values() for sentence in test]
    starts, ends, _ = spans(sentences)
    return span_means(reader.vectors(words_of(sentences), "tests"), starts, ends)


def counts(task: Task, senses: Senses) -> dict[str, Any]:
    marks = task.instances
    known = [senses.of[mark.lemma, mark.pos] for mark in marks if (mark.lemma, mark.pos) in senses.of]
    unknown = [mark for mark in marks if (mark.lemma, mark.pos) not in senses.of]
    reachable = [has_right_candidate(task, senses, mark) for mark in marks]
    return {
        "semcor": {
            "sentences": len(task.semcor),
            "words": sum(map(len, words_of(task.semcor))),
            "occurrences": len(marks_of(task.semcor)),
            "senses": len(senses.keys),
        },
        "instances": {name: len(marks_of(sentences)) for name, sentences in task.tests.items()},
        "instances_in_all": len(marks),
        "with_one_sense_in_semcor": sum(len(candidates) == 1 for candidates in known),
        "not_in_semcor": len(unknown),
        "without_any_answer": sum((mark.lemma, mark.pos) not in task.first for mark in unknown),
        "highest_possible_f1": round(100 * sum(reachable) / len(marks), 2),
    }


def has_right_candidate(task: Task, senses: Senses, mark: Mark) -> bool:
    candidates = senses.of.get((mark.lemma, mark.pos))
    if candidates is None:
        return task.first.get((mark.lemma, mark.pos)) in mark.keys
    keys = [senses.keys[number] for number in candidates]
    return any(key in mark.keys for key in keys)


def senses_markdown(result: dict[str, Any]) -> str:
    sizes = {**result["counts"]["instances"], "all": result["counts"]["instances_in_all"]}
    head = ["F1", *(f"{name} ({size:,})" for name, size in sizes.items()), "paper"]
    rows = []
    for name, scores in result["f1"].items():
        paper = result["paper"].get(name.removeprefix("trained, "))
        rows.append([name, *(one_decimal(scores[test]) for test in sizes), one_decimal(paper)])
    return f"{markdown_table(head, rows)}\n\n{describe_counts(result['counts'])}\n"


def describe_counts(counts: dict[str, Any]) -> str:
    semcor = counts["semcor"]
    return (
        f"Averages of {semcor['senses']:,} senses over {semcor['occurrences']:,} occurrences in SemCor, a "
        f"text of {semcor['words']:,} words. {counts['not_in_semcor']:,} instances have a lemma that is not "
        f"in SemCor and get the inventory's first sense; {counts['without_any_answer']:,} of them are not in "
        "the inventory either, which counts as wrong. "
        f"{counts['with_one_sense_in_semcor']:,} have a lemma with a single sense in SemCor. The upper bound "
        f"is {one_decimal(counts['highest_possible_f1'])}. The paper's figures are of five sets, of which "
        "SemEval-2015 is not among these data, and of the senses of WordNet 3.0 in place of Open English "
        "WordNet."
    )
