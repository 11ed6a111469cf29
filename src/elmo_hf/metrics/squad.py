"""Exact match and F1 of answers by SQuAD 1.1's official rule, in percent.

An answer is compared with each of the gold answers, and the best counts, for each score by itself. Case,
punctuation, articles and white space do not count.
"""

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence

from elmo_hf.errors import ElmoError

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)  # ASCII alone, as in the official script


def normalize_answer(text: str) -> str:
    """Return the words that are compared, with one space between them.

    >>> normalize_answer("The  Ada, of course!")
    'ada of course'
    """
    bare = text.lower().translate(_NO_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def exact_match(answer: str, gold: str) -> float:
    """Return 1 if both have the same words, without case, punctuation and articles, otherwise 0.

    >>> exact_match("the Ada", "Ada.")
    1.0
    """
    return float(normalize_answer(answer) == normalize_answer(gold))


def f1(answer: str, gold: str) -> float:
    """Return 2PR / (P + R) over the words, with repetitions; 0 if no word is common.

    >>> f1("Ada Byron", "Ada Lovelace")
    0.5
    """
    words, gold_words = normalize_answer(answer).split(), normalize_answer(gold).split()
    common = sum((Counter(words) & Counter(gold_words)).values())
    return 2 * common / (len(words) + len(gold_words)) if common else 0.0


def squad_scores(answers: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Return `exact_match` and `f1`, means over the questions from 0 to 100.

    >>> squad_scores({"q1": "the Ada"}, {"q1": ["Ada", "Ada Lovelace"]})
    {'exact_match': 100.0, 'f1': 100.0}

    Args:
        answers: the predicted answer of each question, by the question's id. A question without an answer
            scores 0, as in the official script.
        references: all gold answers of each question, by the question's id.

    Raises:
        ElmoError: if there are no questions, a question without gold answers, or an answer to no question.
    """
    if not references:
        raise ElmoError("there are no questions to score.")
    for name, gold in references.items():
        if isinstance(gold, str) or not gold:
            raise ElmoError(f"question {name!r} needs a list of one or more gold answers, not {gold!r:.60}.")
    unknown = next((name for name in answers if name not in references), None)
    if unknown is not None:
        raise ElmoError(f"there is an answer to {unknown!r}, which is none of the questions.")
    totals = {"exact_match": 0.0, "f1": 0.0}
    for name, gold in references.items():
        if name in answers:
            totals["exact_match"] += max(exact_match(answers[name], text) for text in gold)
            totals["f1"] += max(f1(answers[name], text) for text in gold)
    return {name: 100 * total / len(references) for name, total in totals.items()}
