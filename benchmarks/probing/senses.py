"""Word sense disambiguation by the nearest neighbour, as in section 5.3 of the paper.

A sense's vector is the average over its occurrences in SemCor. A word of a test gets the sense of its lemma
and part of speech whose vector is nearest by cosine, among those that SemCor has; where SemCor has none, the
first sense of the inventory. Every instance gets one answer, so that precision, recall and F1 are one figure;
the few whose lemma is not in the inventory either count as wrong.

Beside it stand the first sense of the inventory for everything, the sense most frequent in SemCor (with the
same answer where SemCor has none), and the same nearest neighbours from random weights.
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
from benchmarks.probing.tables import markdown, percent
from benchmarks.probing.vectors import Reader, span_means, starts_of, unit

SETS = ("senseval2", "senseval3", "semeval2007", "semeval2013")
# Table 5, F1 on Raganato's five sets together, with WordNet 3.0's first sense for what is not in SemCor.
PAPER = {"first sense": 65.9, "layer 1": 67.4, "layer 2": 69.0}
TIE = 1e-6  # a word's layer 0 is the same for all senses but for rounding
Answer = Callable[[Mark, int], str | None]  # of the instance with that number


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


# ---- the senses that SemCor has


@dataclass
class Senses:
    """keys[n] occurs counts[n] times in SemCor. A lemma's keys, in `of`, begin with the most frequent one."""

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
    """(layers, senses, dim): each sense's average over its occurrences."""
    semcor = [sentence for sentence in semcor if sentence.marks]
    numbers = {key: number for number, key in enumerate(senses.keys)}
    sums = torch.zeros(reader.layers, len(numbers), reader.dim)
    for piece in reader.pieces(words_of(semcor), "SemCor"):
        starts, ends, marks = spans(semcor[piece.first : piece.end])
        rows = [(place, numbers[key]) for place, mark in enumerate(marks) for key in mark.keys]
        places, ids = np.array(rows).T
        means = torch.from_numpy(span_means(piece.vectors, starts, ends)[:, places])
        sums.index_add_(1, torch.from_numpy(ids), means)
    return (sums / torch.tensor(senses.counts)[None, :, None]).numpy()


def spans(sentences: list[Sentence]) -> tuple[np.ndarray, np.ndarray, list[Mark]]:
    """First word and end of each mark in the row of all words of the sentences."""
    begins = starts_of(words_of(sentences))
    found = [
        (begin + mark.start, begin + mark.end, mark)
        for begin, sentence in zip(begins, sentences, strict=False)
        for mark in sentence.marks
    ]
    starts, ends = (np.array([row[side] for row in found], dtype=np.int64) for side in (0, 1))
    return starts, ends, [row[2] for row in found]


# ---- answers and scores


def nearest(vector: np.ndarray, averages: np.ndarray) -> int:
    """The place of the average (senses, dim) nearest by cosine; of equals the first, most frequent one."""
    cosines = unit(averages.astype(np.float64)) @ unit(vector.astype(np.float64))
    return int(np.flatnonzero(cosines >= cosines.max() - TIE)[0])


def answer_by_neighbour(task: Task, senses: Senses, averages: np.ndarray, vectors: np.ndarray) -> Answer:
    """averages (senses, dim) and the instances' vectors (instances, dim), of one layer."""

    def answer(mark: Mark, number: int) -> str | None:
        among = senses.of.get((mark.lemma, mark.pos))
        if among is None:
            return task.first.get((mark.lemma, mark.pos))
        return senses.keys[among[nearest(vectors[number], averages[among])]]

    return answer


def answer_first(task: Task) -> Answer:
    return lambda mark, number: task.first.get((mark.lemma, mark.pos))


def answer_frequent(task: Task, senses: Senses) -> Answer:
    def answer(mark: Mark, number: int) -> str | None:
        among = senses.of.get((mark.lemma, mark.pos))
        return senses.keys[among[0]] if among else task.first.get((mark.lemma, mark.pos))

    return answer


def score(task: Task, answer: Answer) -> dict[str, float]:
    """The share of right answers in percent, of each set and of all together. No answer is a wrong one."""
    right: dict[str, Sequence[bool]] = {}
    number = 0
    for name, sentences in task.tests.items():
        marks = marks_of(sentences)
        right[name] = [answer(mark, number + place) in mark.keys for place, mark in enumerate(marks)]
        number += len(marks)
    right["all"] = [each for found in right.values() for each in found]
    return {name: round(100 * sum(found) / len(found), 2) for name, found in right.items()}


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
    sentences = [sentence for found in task.tests.values() for sentence in found]
    starts, ends, _ = spans(sentences)
    return span_means(reader.vectors(words_of(sentences), "tests"), starts, ends)


def counts(task: Task, senses: Senses) -> dict[str, Any]:
    marks = task.instances
    known = [senses.of[mark.lemma, mark.pos] for mark in marks if (mark.lemma, mark.pos) in senses.of]
    unknown = [mark for mark in marks if (mark.lemma, mark.pos) not in senses.of]
    reachable = [answer_any(task, senses, mark) for mark in marks]
    return {
        "semcor": {
            "sentences": len(task.semcor),
            "words": sum(map(len, words_of(task.semcor))),
            "occurrences": len(marks_of(task.semcor)),
            "senses": len(senses.keys),
        },
        "instances": {name: len(marks_of(sentences)) for name, sentences in task.tests.items()},
        "instances_in_all": len(marks),
        "with_one_sense_in_semcor": sum(len(among) == 1 for among in known),
        "not_in_semcor": len(unknown),
        "without_any_answer": sum((mark.lemma, mark.pos) not in task.first for mark in unknown),
        "highest_possible_f1": round(100 * sum(reachable) / len(marks), 2),
    }


def answer_any(task: Task, senses: Senses, mark: Mark) -> bool:
    """Whether a right answer is among those that the neighbours choose from."""
    among = senses.of.get((mark.lemma, mark.pos))
    keys = [senses.keys[number] for number in among] if among else [task.first.get((mark.lemma, mark.pos))]
    return any(key in mark.keys for key in keys)


def senses_markdown(found: dict[str, Any]) -> str:
    sets = [*found["counts"]["instances"], "all"]
    sizes = {**found["counts"]["instances"], "all": found["counts"]["instances_in_all"]}
    head = ["F1", *(f"{name} ({sizes[name]:,})" for name in sets), "paper"]
    rows = []
    for name, scores in found["f1"].items():
        paper = found["paper"].get(name.removeprefix("trained, "))
        rows.append([name, *(percent(scores[part]) for part in sets), percent(paper)])
    return f"{markdown(head, rows)}\n\n{about(found['counts'])}\n"


def about(found: dict[str, Any]) -> str:
    semcor = found["semcor"]
    return (
        f"Averages of {semcor['senses']:,} senses over {semcor['occurrences']:,} occurrences in SemCor, a "
        f"text of {semcor['words']:,} words. {found['not_in_semcor']:,} instances have a lemma that SemCor "
        f"lacks, and get the inventory's first sense; {found['without_any_answer']:,} of them have none "
        f"there, which counts as wrong. {found['with_one_sense_in_semcor']:,} have a lemma with a single "
        f"sense in SemCor. The best of choices would reach {percent(found['highest_possible_f1'])}. The "
        "paper's figures are of five sets, of which SemEval-2015 is not among these data, and of the senses "
        "of WordNet 3.0 in place of Open English WordNet."
    )
