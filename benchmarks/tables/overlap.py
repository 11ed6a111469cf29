"""Whether ELMo's gain in questions is due to paragraphs that the biLM has read in pretraining.

    QUESTIONS=DATA/squad/dev-v1.1.json
    python training/finetune_squad.py --evaluate MODEL --test $QUESTIONS --test-size 2000 --predictions \\
        --output runs/overlap/without                  # a model without ELMo; and one with ELMo, in .../with
    python -m benchmarks.tables.overlap --text "DATA/lm_pretrain/train.*.txt.xz" --questions $QUESTIONS \\
        --without runs/overlap/without/predictions/test.jsonl --with runs/overlap/with/predictions/test.jsonl

SQuAD's paragraphs are from Wikipedia, and so is a part of the pretraining text. That text has neither the
questions nor marked answers, but a biLM may represent a paragraph better if it was trained on it. So the
test questions are split into those on paragraphs that the biLM has seen and the others, and both models are
scored on each part. A paragraph is seen if more than half of its 12-grams of words occur in the pretraining
text. The parts are of different articles and may differ in difficulty: compare the gains, not the scores.

Words are runs of letters and digits without case, so punctuation and the blanks around it play no part; a
tokeniser that cuts letters apart ("do n't") does. 12-grams are taken within a line of the text; one that runs
over the end of a line is not found. elmo-tiny's text has a paragraph of Wikipedia a line, as SQuAD has, and
its lines are not joined, as paragraphs between them may have been left out. A text with a sentence a line is
not fit for this: of sentences of 25 words, 11 of 25 12-grams run over an end, and too few paragraphs would
count as seen. A paragraph of fewer than 12 words is never seen.
"""

import argparse
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from benchmarks.report import PAGE, RESULTS, command, fill_page, machine, markdown_table, versions
from benchmarks.tables.collect import error_reduction
from benchmarks.tables.page import percent
from elmo_hf.corpus.source import Source
from elmo_hf.errors import ElmoError, one_sentence
from elmo_hf.files import write_json
from elmo_hf.finetuning.data import Example, json_values
from elmo_hf.finetuning.squad import check_ids, entry, gold_answers, read_squad
from elmo_hf.metrics import squad_scores

N = 12  # words of an n-gram
THRESHOLD = 0.5  # a paragraph is seen if a larger share of its n-grams occurs in the text
FILE = RESULTS / "tables" / "overlap.json"
WORD = re.compile(r"[^\W_]+")
PARTS = {"seen": "that the biLM has seen", "unseen": "others", "all": "in all"}

Ngram = tuple[str, ...]
Answers = dict[str, str]  # by the ids of the questions


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.tables.overlap", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--text", nargs="+", required=True, help="files or patterns: the pretraining text")
    parser.add_argument("--questions", type=Path, required=True, help="the test file in SQuAD's layout")
    help = "predictions of a model {} ELMo, by finetune_squad.py --predictions"
    parser.add_argument("--without", type=Path, required=True, help=help.format("without"))
    parser.add_argument("--with", type=Path, required=True, dest="with_elmo", help=help.format("with"))
    parser.add_argument("--output", type=Path, default=FILE, help="(results/tables/overlap.json)")
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    with one_sentence("overlap"):
        result = {"command": command("tables.overlap", arguments)} | measure(options)
        write_json(options.output, result)
        if options.output == FILE:
            fill_page(PAGE, "overlap", lambda _: table(result))
        print(table(result))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The scores of both models on both parts. All other inputs are checked before the text is read."""
    questions = list(read_squad(options.questions))
    check_ids("test", questions)
    arms = read_arms(options, gold_answers(questions))
    source = Source(options.text)
    start = time.perf_counter()
    shares, words = seen_shares({question["context"] for question in questions}, source)
    seconds = time.perf_counter() - start
    seen = {context for context, share in shares.items() if share > THRESHOLD}
    judged = [question for question in questions if question["id"] in arms["with"]]
    return {
        "n": N,
        "threshold": THRESHOLD,
        "text": {
            "files": ["/".join(Path(file).parts[-2:]) for file in source.files],
            "words": words,
            "seconds": round(seconds, 1),
        },
        "paragraphs": {
            "all": len(shares),
            "with_a_common_ngram": sum(share > 0 for share in shares.values()),
            "seen": len(seen),
        },
        "parts": {name: score(part, arms) for name, part in parts_of(judged, seen).items()},
        "versions": versions("elmo_hf"),
        "machine": machine(),
    }


# ---- questions and answers


def read_arms(options: argparse.Namespace, gold: Mapping[str, list[str]]) -> dict[str, Answers]:
    """The answers of both models, which must be to the same questions of the file."""
    paths = {"without": options.without, "with": options.with_elmo}
    arms = {name: read_answers(path, gold, options.questions) for name, path in paths.items()}
    different = arms["without"].keys() ^ arms["with"].keys()
    if different:
        raise ElmoError(
            f"{len(different)} questions, such as {min(different)}, are answered in only one of "
            f"{options.without} and {options.with_elmo}; predict both on the same test questions."
        )
    return arms


def read_answers(path: Path, gold: Mapping[str, list[str]], questions: Path) -> Answers:
    answers: Answers = {}
    for where, row in json_values(path):
        name = entry(row, "id", where, str)
        if gold.get(name) != entry(row, "answers", where, list):
            raise ElmoError(f"{where}: question {name} is not in {questions}, or has other answers there.")
        if name in answers:
            raise ElmoError(f"{where}: question {name} is answered for the second time.")
        answers[name] = entry(row, "answer", where, str)
    if not answers:
        raise ElmoError(f"there are no predictions in {path}.")
    return answers


def parts_of(questions: list[Example], seen: set[str]) -> dict[str, list[Example]]:
    """The questions on paragraphs that are seen, the others, and all; no part may be empty."""
    parts = {
        "seen": [question for question in questions if question["context"] in seen],
        "unseen": [question for question in questions if question["context"] not in seen],
        "all": questions,
    }
    for name, number in (("seen", "none"), ("unseen", "all")):
        if not parts[name]:
            raise ElmoError(
                f"{number} of the paragraphs with predictions are in the text, so there are no two parts to "
                "compare; is it the text that the biLM was pretrained on?"
            )
    return parts


def score(questions: list[Example], arms: Mapping[str, Answers]) -> dict[str, Any]:
    """The scores of both models on a part, and the error reductions in percent."""
    gold = gold_answers(questions)
    scores = {
        arm: squad_scores({name: answers[name] for name in gold}, gold) for arm, answers in arms.items()
    }
    return {
        "paragraphs": len({question["context"] for question in questions}),
        "questions": len(questions),
        **{
            arm: {metric: round(value, 3) for metric, value in values.items()}
            for arm, values in scores.items()
        },
        "error_reduction": {
            metric: error_reduction(baseline, scores["with"][metric])
            for metric, baseline in scores["without"].items()
        },
    }


# ---- n-grams


def words_of(text: str) -> list[str]:
    return WORD.findall(text.casefold())


def ngrams_of(words: list[str]) -> Iterator[Ngram]:
    return zip(*(words[first:] for first in range(N)), strict=False)  # to the end of the last, shortest list


def seen_shares(paragraphs: Iterable[str], source: Source) -> tuple[dict[str, float], int]:
    """The share of each paragraph's n-grams that occur in the text, and the number of words of the text."""
    ngrams = {paragraph: list(ngrams_of(words_of(paragraph))) for paragraph in paragraphs}
    common, words = common_ngrams(set(chain.from_iterable(ngrams.values())), source)
    shares = {
        paragraph: sum(ngram in common for ngram in own) / len(own) if own else 0.0
        for paragraph, own in ngrams.items()
    }
    return shares, words


def common_ngrams(wanted: set[Ngram], source: Source) -> tuple[set[Ngram], int]:
    """Those of the n-grams that occur in a line of the text, and the number of words of the text.

    The text is read as a stream, and only n-grams that are wanted are kept.
    """
    common: set[Ngram] = set()
    count = 0
    with tqdm(unit=" words", unit_scale=True, disable=None) as bar:
        for shard in range(source.num_shards):
            bar.set_description(Path(source.place(shard)).name)
            for line in chain.from_iterable(source.lines(shard)):
                words = words_of(line)
                common |= wanted.intersection(ngrams_of(words))
                count += len(words)
                bar.update(len(words))
    return common, count


# ---- the table


def table(result: dict[str, Any]) -> str:
    rows = []
    for name, title in PARTS.items():
        part = result["parts"][name]
        cells = [f"{part['paragraphs']:,} {title}", f"{part['questions']:,}"]
        cells += [f"{part[arm]['f1']:.1f} ({part[arm]['exact_match']:.1f})" for arm in ("without", "with")]
        rows.append([*cells, percent(part["error_reduction"]["f1"])])
    head = ["paragraphs", "questions", "without ELMo", "with ELMo", "error reduction"]
    return f"{facts(result)}\n\n{markdown_table(head, rows)}"


def facts(result: dict[str, Any]) -> str:
    paragraphs = result["paragraphs"]
    return (
        "F1 (exact match in brackets), and the error reduction of F1. A paragraph is seen if more than "
        f"{result['threshold']:.0%} of its {result['n']}-grams of words occur in the pretraining text. "
        f"Of all {paragraphs['all']:,} paragraphs of the test file, {paragraphs['seen']:,} are seen, and "
        f"{paragraphs['with_a_common_ngram']:,} have one of these {result['n']}-grams or more."
    )


if __name__ == "__main__":
    main()
