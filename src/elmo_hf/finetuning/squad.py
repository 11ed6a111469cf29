"""Questions on texts, from files in SQuAD 1.1's layout or from datasets, as words that know their letters.

    for question in read_squad(Path("train-v1.1.json")):
        question["question_words"], question["context_words"]
        question["offsets"]             # of each word of the context, (start, end)
        question["first"], question["last"]     # the words that hold the first right answer

Texts are split into words by the rule of raw text ("penn"). An answer that begins or ends inside a word is
taken to be the whole word; `ceiling` says what that costs.
"""

import argparse
import functools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from elmo_hf.finetuning.flags import SPLITS
from elmo_hf.finetuning.run import Example, load_dataset, read_text, splits_of
from elmo_hf.metrics.squad import f1, squad_scores
from elmo_hf.model.tokenization_elmo import ElmoTokenizer
from elmo_hf.model.words_elmo import split_text

SPLITTER = "penn"
SMOKE_EXAMPLES = {"train": 120, "dev": 40, "test": 40}  # few, as their texts are long
HELD_OUT = 20  # one in so many texts of the train set, the last ones, is for dev where there is no other


# ---- reading


def read_squad(path: Path) -> Iterator[Example]:
    """A file in the official layout: articles, their paragraphs, and the questions on each."""
    try:
        content = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON ({error}).") from None
    for number, article in enumerate(part(content, "data", str(path), list), start=1):
        for paragraph in part(article, "paragraphs", f"{path}, article {number}", list):
            context = part(paragraph, "context", f"{path}, article {number}", str)
            for row in part(paragraph, "qas", f"{path}, article {number}", list):
                name = part(row, "id", f"{path}, article {number}", str)
                where = f"{path}, question {name}"
                answers = [
                    (part(one, "text", where, str), part(one, "answer_start", where, int))
                    for one in part(row, "answers", where, list)
                ]
                yield as_example(name, part(row, "question", where, str), context, answers, where)


def from_rows(rows: Iterable[Mapping[str, Any]]) -> Iterator[Example]:
    """Rows of a dataset: `question`, `context`, `answers` with lists `text` and `answer_start`, and `id` if
    there is one."""
    for number, row in enumerate(rows):
        where = f"row {number}"
        answers = part(row, "answers", where, dict)
        texts = part(answers, "text", where, list)
        starts = part(answers, "answer_start", where, list)
        if len(texts) != len(starts):
            raise ValueError(f"{where}: {len(texts)} answers have {len(starts)} places.")
        question, context = part(row, "question", where, str), part(row, "context", where, str)
        pairs = list(zip(texts, starts, strict=True))
        yield as_example(str(row.get("id", number)), question, context, pairs, where)


def part(content: Any, name: str, where: str, kind: type) -> Any:
    """`content[name]`, if it is there and of this kind."""
    value = content.get(name) if isinstance(content, Mapping) else None
    if not isinstance(value, kind):
        raise ValueError(f"{where}: {name!r} is missing or no {kind.__name__}.")
    return value


@functools.lru_cache(maxsize=8)  # the questions on a text stand together
def split(text: str) -> tuple[list[str], list[tuple[int, int]]]:
    sentence = split_text(text, SPLITTER)
    return sentence.words, sentence.offsets


def as_example(
    name: str, question: str, context: str, answers: Sequence[tuple[str, int]], where: str
) -> Example:
    question_words, (words, offsets) = split(question)[0], split(context)
    if not question_words:
        raise ValueError(f"{where}: the question has no words.")
    if not answers:
        raise ValueError(f"{where} has no answer; SQuAD 1.1 has one for every question.")
    spans = []
    for text, start in answers:
        span = words_of(offsets, start, start + len(text))
        if span is None or context[start : start + len(text)] != text:
            raise ValueError(
                f"{where}: the answer {text!r:.60} does not stand at letter {start} of its text."
            )
        spans.append(span)
    return {
        "id": name,
        "context": context,
        "answers": [text for text, _ in answers],
        "question_words": question_words,
        "context_words": words,
        "offsets": offsets,
        "tokens": question_words + words,
        "spans": spans,
    }


def words_of(offsets: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int] | None:
    """The first and last word that have a letter in `text[start:end]`, if there is one."""
    inside = [number for number, (first, last) in enumerate(offsets) if first < end and last > start]
    return (inside[0], inside[-1]) if inside else None


def read_questions(flags: argparse.Namespace) -> dict[str, list[Example]]:
    """Train, dev and test. Without dev it is made of the last texts that are read of the train set, so that
    the official dev set can be the test set, on which nothing is chosen."""
    if (flags.data is None) == (flags.train is None):
        raise ValueError("name files by --train and --test (and --dev), or a dataset by --data.")
    if flags.data is not None:
        found = {split: from_rows(rows) for split, rows in load(flags.data).items()}
    else:
        if not flags.test:
            raise ValueError("name the files to be judged on by --test: of SQuAD, its dev set.")
        named = {split: getattr(flags, split) for split in SPLITS if getattr(flags, split)}
        found = {split: chain.from_iterable(map(read_squad, map(Path, named[split]))) for split in named}
    data = {}
    for split, examples in found.items():
        data[split] = list(islice(examples, flags.limit or (SMOKE_EXAMPLES[split] if flags.smoke else None)))
        check_names(split, data[split])
    if "dev" not in data:
        data["train"], data["dev"] = hold_out(data["train"])
    if not data["train"]:
        raise ValueError("all train questions are on one text, so that none could be held out; name --dev.")
    return data


def check_names(split: str, examples: list[Example]) -> None:
    if not examples:
        raise ValueError(f"there are no questions in the {split} set.")
    name, times = Counter(one["id"] for one in examples).most_common(1)[0]
    if times > 1:
        raise ValueError(f"question {name} is there {times} times in the {split} set.")


def load(name: str) -> dict[str, Any]:
    """A dataset's splits. With train and validation alone, as SQuAD has them, validation is for the test."""
    found = load_dataset(name)
    test = "test" if "test" in found else "validation"
    names = {"train": "train", "test": test} | ({"dev": "validation"} if test == "test" else {})
    return splits_of(name, found, names)


def hold_out(examples: list[Example]) -> tuple[list[Example], list[Example]]:
    """The questions on the last texts apart from the others'; no text is in both."""
    contexts = list(dict.fromkeys(one["context"] for one in examples))
    kept = set(contexts[-max(1, len(contexts) // HELD_OUT) :])
    return [one for one in examples if one["context"] not in kept], [
        one for one in examples if one["context"] in kept
    ]


def cut(examples: list[Example], longest: int) -> list[Example]:
    """For training: the first `longest` words of each text. A question whose answer they do not hold is left
    out."""
    return [
        one | {"context_words": one["context_words"][:longest], "offsets": one["offsets"][:longest]}
        for one in examples
        if one["spans"][0][1] < longest
    ]


# ---- for the model, and back


def collate(tokenizer: ElmoTokenizer, examples: list[Example]) -> dict[str, Tensor]:
    """A batch, with the places of the first right answer in its rows."""
    batch = dict(
        tokenizer(
            [one["question_words"] for one in examples],
            [one["context_words"] for one in examples],
            is_split_into_words=True,
            padding=True,
            padding_side="right",
            return_token_type_ids=True,
            return_tensors="pt",
        )
    )
    places = torch.tensor([one["spans"][0] for one in examples])
    before = torch.tensor([len(one["question_words"]) + 2 for one in examples])  # `</S> <S>` follows
    batch["start_positions"], batch["end_positions"] = (places + before[:, None]).T
    return batch


def answers_at(examples: Sequence[Example], places: Iterable[Sequence[int]]) -> dict[str, str]:
    """The letters of the text between a row's first and last word; places (examples, 2) are in the row."""
    answers = {}
    for one, (first, last) in zip(examples, places, strict=True):
        before = len(one["question_words"]) + 2
        start, end = one["offsets"][first - before][0], one["offsets"][last - before][1]
        answers[one["id"]] = one["context"][start:end]
    return answers


def right_answers(examples: Iterable[Example]) -> dict[str, list[str]]:
    return {one["id"]: one["answers"] for one in examples}


def ceiling(examples: Sequence[Example], max_answer_length: int) -> dict[str, float]:
    """The scores of someone who knows the answers, but has to answer with up to so many whole words."""
    best = {}
    for one in examples:
        spans = [(first, min(last, first + max_answer_length - 1)) for first, last in one["spans"]]
        texts = [one["context"][one["offsets"][i][0] : one["offsets"][j][1]] for i, j in spans]
        best[one["id"]] = max(texts, key=lambda text: max(f1(text, right) for right in one["answers"]))
    return squad_scores(best, right_answers(examples))
