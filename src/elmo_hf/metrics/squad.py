"""How good answers are by SQuAD 1.1's own rule: exact match and F1, in percent.

    squad_scores({"q1": "the Ada"}, {"q1": ["Ada", "Ada Lovelace"]})
    # {"exact_match": 100.0, "f1": 100.0}

Of several right answers the one that fits best counts, for either score by itself. Case, punctuation,
articles and blanks do not count.
"""

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)  # ASCII's alone, as in the official script


def normalize_answer(text: str) -> str:
    """The words that are compared, with one blank between them."""
    bare = text.lower().translate(_NO_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def exact_match(answer: str, right: str) -> float:
    """1 if both are the same words, without case, punctuation and articles, and 0 if not."""
    return float(normalize_answer(answer) == normalize_answer(right))


def f1(answer: str, right: str) -> float:
    """2PR / (P + R) over words, each as often as it is there; 0 without a common word."""
    found, wanted = normalize_answer(answer).split(), normalize_answer(right).split()
    common = sum((Counter(found) & Counter(wanted)).values())
    return 2 * common / (len(found) + len(wanted)) if common else 0.0


def squad_scores(answers: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """`exact_match` and `f1` from 0 to 100: of each question the best over its right answers, and their mean.

    Args:
        answers: a question's id to the answer that was given. A question without one scores 0, as in the
            official script.
        references: a question's id to all right answers.
    """
    if not references:
        raise ValueError("there are no questions to score.")
    for name, right in references.items():
        if isinstance(right, str) or not right:
            raise ValueError(
                f"question {name!r} needs a list of one or more right answers, not {right!r:.60}."
            )
    unknown = next((name for name in answers if name not in references), None)
    if unknown is not None:
        raise ValueError(f"there is an answer to {unknown!r}, which is none of the questions.")
    totals = {"exact_match": 0.0, "f1": 0.0}
    for name, right in references.items():
        if name in answers:
            totals["exact_match"] += max(exact_match(answers[name], one) for one in right)
            totals["f1"] += max(f1(answers[name], one) for one in right)
    return {name: 100 * total / len(references) for name, total in totals.items()}
