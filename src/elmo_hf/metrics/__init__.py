"""Scores of the tasks: plain functions, and `evaluate` metrics around them that need no network.

    spans = evaluate.load(elmo_hf.metrics.path("spans"))
    for batch in batches:
        spans.add_batch(predictions=..., references=...)
    spans.compute()["f1"]

The metrics are `accuracy`, `coreference`, `perplexity`, `pronouns`, `roles`, `spans` and `squad`.
"""

from pathlib import Path

from elmo_hf.errors import ElmoError
from elmo_hf.metrics.coreference import coreference_scores, pronoun_scores, without_singletons
from elmo_hf.metrics.squad import squad_scores
from elmo_hf.metrics.tags import accuracy, label_names, role_scores, span_scores

__all__ = [
    "accuracy",
    "coreference_scores",
    "label_names",
    "path",
    "pronoun_scores",
    "role_scores",
    "span_scores",
    "squad_scores",
    "without_singletons",
]

MODULES = Path(__file__).parent / "modules"


def path(name: str) -> str:
    """Return the file of a metric, for `evaluate.load` and `evaluate.combine`.

    >>> spans = evaluate.load(metrics.path("spans"))
    >>> spans.compute(predictions=[["B-PER", "O"]], references=[["B-PER", "O"]])["f1"]
    1.0

    Args:
        name: accuracy, coreference, perplexity, pronouns, roles, spans or squad.

    Raises:
        ElmoError: if there is no such metric.
    """
    names = sorted(module.stem for module in MODULES.glob("[a-z]*.py"))
    if name not in names:
        raise ElmoError(f"there is no metric {name!r}; the metrics are {', '.join(names)}.")
    return str(MODULES / f"{name}.py")
