"""Question answering: SQuAD 1.1's files or datasets, batches, a Trainer that is evaluated on answers.

    for example in read_squad(Path("train-v1.1.json")):
        example["question_words"], example["context_words"]
        example["offsets"]      # (start, end) of each word of the context
        example["spans"]        # (first, last) word of each gold answer

Texts are split into words by the rule "penn". An answer that begins or ends inside a word becomes the whole
word; `ceiling` computes what that costs.
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
from transformers import EvalPrediction

from elmo_hf.errors import ElmoError, reason_of
from elmo_hf.finetuning.data import Example, check_inputs, load_dataset, read_text, splits_of, splits_of_run
from elmo_hf.finetuning.trainers import AveragingTrainer
from elmo_hf.metrics.squad import f1, squad_scores
from elmo_hf.model.tokenization_elmo import ElmoTokenizer
from elmo_hf.model.words_elmo import split_text

SPLITTER = "penn"
SMOKE_EXAMPLES = {"train": 120, "dev": 40, "test": 40}  # few, as their texts are long
HELD_OUT = 20  # without dev files, one in twenty train texts is dev: the last ones


# ---- reading


def read_squad(path: Path) -> Iterator[Example]:
    """Yield the questions of a file in the official layout: articles, their paragraphs, their questions."""
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ElmoError(f"{path} is no JSON ({error}).") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets in brackets
        if isinstance(error, ElmoError):
            raise
        raise ElmoError(f"{path} is no JSON ({reason_of(error)}).") from None
    for number, article in enumerate(entry(content, "data", str(path), list), start=1):
        for paragraph in entry(article, "paragraphs", f"{path}, article {number}", list):
            context = entry(paragraph, "context", f"{path}, article {number}", str)
            for row in entry(paragraph, "qas", f"{path}, article {number}", list):
                name = entry(row, "id", f"{path}, article {number}", str)
                where = f"{path}, question {name:.60}"
                answers = [answer_of(answer, where) for answer in entry(row, "answers", where, list)]
                yield as_example(name, entry(row, "question", where, str), context, answers, where)


def from_rows(rows: Iterable[Mapping[str, Any]], place: str) -> Iterator[Example]:
    """Yield the questions of a dataset with the columns `question`, `context`, `answers` and perhaps `id`.

    `answers` has the lists `text` and `answer_start`; `place` is what the rows are of.
    """
    for number, row in enumerate(rows):
        where = f"row {number + 1} of {place}"
        answers = entry(row, "answers", where, dict)
        texts = entry(answers, "text", where, list)
        starts = entry(answers, "answer_start", where, list)
        if len(texts) != len(starts):
            raise ElmoError(f"{where}: {len(texts)} answers have {len(starts)} values of answer_start.")
        question, context = entry(row, "question", where, str), entry(row, "context", where, str)
        pairs = [
            answer_of({"text": text, "answer_start": start}, where)
            for text, start in zip(texts, starts, strict=True)
        ]
        yield as_example(str(row.get("id", number)), question, context, pairs, where)


def entry(content: Any, name: str, where: str, expected: type) -> Any:
    """Return `content[name]`, which must be of the expected type."""
    value = content.get(name) if isinstance(content, Mapping) else None
    if not isinstance(value, expected):
        raise ElmoError(f"{where}: {name!r} is missing or no {expected.__name__}.")
    return value


def answer_of(answer: Any, where: str) -> tuple[str, int]:
    return entry(answer, "text", where, str), entry(answer, "answer_start", where, int)


@functools.lru_cache(maxsize=8)  # the questions on a text follow each other
def split(text: str) -> tuple[list[str], list[tuple[int, int]]]:
    """Return the words of a text, and the (start, end) of each."""
    sentence = split_text(text, SPLITTER)
    return sentence.words, sentence.offsets


def as_example(
    name: str, question: str, context: str, answers: Sequence[tuple[str, int]], where: str
) -> Example:
    question_words, (words, offsets) = split(question)[0], split(context)
    if not question_words:
        raise ElmoError(f"{where}: the question has no words.")
    if not answers:
        raise ElmoError(f"{where} has no answer; SQuAD 1.1 has one for every question.")
    spans = []
    for text, start in answers:
        span = words_of(offsets, start, start + len(text)) if text else None
        if span is None or context[start : start + len(text)] != text:
            raise ElmoError(f"{where}: the answer {text!r:.60} is not at character {start} of its text.")
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
    """Return the first and last word with a character in `text[start:end]`; None if there is none."""
    inside = [number for number, (first, last) in enumerate(offsets) if first < end and last > start]
    return (inside[0], inside[-1]) if inside else None


def read_questions(flags: argparse.Namespace) -> dict[str, list[Example]]:
    """Read the train, dev and test questions that the flags name.

    Without dev, the questions on the last train texts are dev, so that the official dev set can be the test
    set, on which nothing is chosen.
    """
    evaluates = flags.evaluate is not None
    check_inputs(flags, "--test" if evaluates else "--train and --test (and --dev)")
    wanted = splits_of_run(flags)
    splits = question_files(flags, wanted) if flags.data is None else question_rows(flags.data, wanted)
    data = {}
    for name, examples in splits.items():
        data[name] = list(islice(examples, flags.limit or (SMOKE_EXAMPLES[name] if flags.smoke else None)))
        check_ids(name, data[name])
    if evaluates:
        return data
    if "dev" not in data:
        data["train"], data["dev"] = hold_out(data["train"])
    if not data["train"]:
        raise ElmoError("all train questions are on one text, so that none can be held out; name --dev.")
    return data


def question_files(flags: argparse.Namespace, wanted: Sequence[str]) -> dict[str, Iterator[Example]]:
    for name, use in (("train", "train"), ("test", "evaluate")):
        if name in wanted and not getattr(flags, name):
            raise ElmoError(f"name the files to {use} on by --{name}, such as those of SQuAD.")
    files = {name: getattr(flags, name) for name in wanted if getattr(flags, name)}
    return {name: chain.from_iterable(map(read_squad, map(Path, paths))) for name, paths in files.items()}


def question_rows(name: str, wanted: Sequence[str]) -> dict[str, Iterator[Example]]:
    """Return a dataset's splits. If there are train and validation alone, as in SQuAD, validation is test."""
    dataset = load_dataset(name)
    test = "test" if "test" in dataset else "validation"
    names = {"train": "train", "test": test} | ({"dev": "validation"} if test == "test" else {})
    names = {split: theirs for split, theirs in names.items() if split in wanted}
    return {
        split: from_rows(rows, f"the {names[split]} split")
        for split, rows in splits_of(name, dataset, names).items()
    }


def check_ids(name: str, examples: list[Example]) -> None:
    if not examples:
        raise ElmoError(f"there are no questions in the {name} set.")
    question, times = Counter(example["id"] for example in examples).most_common(1)[0]
    if times > 1:
        raise ElmoError(f"question {question} occurs {times} times in the {name} set.")


def hold_out(examples: list[Example]) -> tuple[list[Example], list[Example]]:
    """Return the questions on all but the last texts, and those on the last; no text is on both sides."""
    contexts = list(dict.fromkeys(example["context"] for example in examples))
    last = set(contexts[-max(1, len(contexts) // HELD_OUT) :])
    return (
        [example for example in examples if example["context"] not in last],
        [example for example in examples if example["context"] in last],
    )


def cut(examples: list[Example], longest: int) -> list[Example]:
    """Cut each text to its first `longest` words for training, and drop questions whose answer is lost."""
    return [
        example
        | {"context_words": example["context_words"][:longest], "offsets": example["offsets"][:longest]}
        for example in examples
        if example["spans"][0][1] < longest
    ]


# ---- batches and answers


def collate(tokenizer: ElmoTokenizer, examples: list[Example]) -> dict[str, Tensor]:
    """Return a batch with the positions of the first gold answer in its rows."""
    batch = dict(
        tokenizer(
            [example["question_words"] for example in examples],
            [example["context_words"] for example in examples],
            is_split_into_words=True,
            padding=True,
            padding_side="right",
            return_token_type_ids=True,
            return_tensors="pt",
        )
    )
    spans = torch.tensor([example["spans"][0] for example in examples])
    starts = torch.tensor([context_start(example) for example in examples])
    batch["start_positions"], batch["end_positions"] = (spans + starts[:, None]).T
    return batch


def context_start(example: Example) -> int:
    """Return the position of the text's first word in its row: question, `</S>`, `<S>`, text."""
    return len(example["question_words"]) + 2


def answers_at(examples: Sequence[Example], positions: Iterable[Sequence[int]]) -> dict[str, str]:
    """Return the answers by the ids of their questions; positions (examples, 2) are first and last words."""
    answers = {}
    for example, (first, last) in zip(examples, positions, strict=True):
        offset = context_start(example)
        start, end = example["offsets"][first - offset][0], example["offsets"][last - offset][1]
        answers[example["id"]] = example["context"][start:end]
    return answers


def gold_answers(examples: Iterable[Example]) -> dict[str, list[str]]:
    return {example["id"]: example["answers"] for example in examples}


def ceiling(examples: Sequence[Example], max_answer_length: int) -> dict[str, float]:
    """Return the scores of the gold answers in whole words, of at most `max_answer_length` words."""
    best = {}
    for example in examples:
        spans = [(first, min(last, first + max_answer_length - 1)) for first, last in example["spans"]]
        texts = [example["context"][example["offsets"][i][0] : example["offsets"][j][1]] for i, j in spans]
        best[example["id"]] = max(texts, key=lambda text: max(f1(text, gold) for gold in example["answers"]))
    return squad_scores(best, gold_answers(examples))


class AnsweringTrainer(AveragingTrainer):
    """A Trainer whose `compute_metrics` gets the examples in `inputs`, to turn positions into answers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.score: Any = self.compute_metrics
        self.label_names = ["start_positions", "end_positions"]

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
        examples: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        self.compute_metrics = lambda evaluation: self.score(
            EvalPrediction(evaluation.predictions, evaluation.label_ids, inputs=examples)
        )
        return super().evaluate(eval_dataset, *args, **kwargs)


def predicted_answers(evaluation: EvalPrediction, examples: list[Example]) -> list[dict[str, Any]]:
    """Return what `--predictions` writes: the id of each question, its answer, and the gold answers."""
    positions: Any = evaluation.predictions
    answers = answers_at(examples, positions)
    return [
        {"id": example["id"], "answer": answers[example["id"]], "answers": example["answers"]}
        for example in examples
    ]


def score(evaluation: EvalPrediction) -> dict[str, float]:
    """`compute_metrics` of an AnsweringTrainer: exact match and F1."""
    examples: Any = evaluation.inputs
    positions: Any = evaluation.predictions
    return squad_scores(answers_at(examples, positions), gold_answers(examples))
