"""The scores of GAP: whether a pronoun means name A, name B, or neither of them.

    pronouns = evaluate.load(elmo_hf.metrics.path("pronouns"))
    pronouns.add_batch(predictions=[[True, False]], references=[[True, False]])
    pronouns.compute()    # {"accuracy": 1.0, "recall": 1.0, "precision": 1.0, "f1": 1.0, "number": 1}

A row is [means A, means B].
"""

import datasets
import evaluate

from elmo_hf.metrics import pronoun_scores

ANSWERS = datasets.List(datasets.Value("bool"), length=2)


class Pronouns(evaluate.Metric):
    def _info(self):
        features = datasets.Features(predictions=ANSWERS, references=ANSWERS)
        return evaluate.MetricInfo(description=__doc__, citation="", features=features)

    def _compute(self, predictions, references):
        return pronoun_scores(predictions, references)
