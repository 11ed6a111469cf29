"""Precision, recall and F1 of semantic roles from BIO labels, as the CoNLL-2005 scorer computes them.

    roles = evaluate.load(elmo_hf.metrics.path("roles"))
    roles.add_batch(predictions=[["B-ARG0", "B-V"]], references=[["B-ARG0", "B-V"]])
    roles.compute()["f1"]    # 1.0

A row is a sentence with one of its predicates. The verb does not count; an argument in several pieces
(`C-ARG1`) is right if all of them are.
"""

import datasets
import evaluate

from elmo_hf.metrics import role_scores

LABELS = datasets.List(datasets.Value("string"))


class Roles(evaluate.Metric):
    def _info(self):
        features = datasets.Features(predictions=LABELS, references=LABELS)
        return evaluate.MetricInfo(description=__doc__, citation="", features=features)

    def _compute(self, predictions, references):
        return role_scores(predictions, references)
