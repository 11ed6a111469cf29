"""Precision, recall and F1 of labelled spans, such as named entities, from BIO labels.

    spans = evaluate.load(elmo_hf.metrics.path("spans"))
    spans.add_batch(predictions=[["B-PER", "O"]], references=[["B-PER", "I-PER"]])
    spans.compute()    # {"precision": 0.0, "recall": 0.0, "f1": 0.0, "number": 1, "by_type": {"PER": ...}}

The numbers are those of conlleval, and of seqeval's default mode. `compute(strict=True)` gives those of
seqeval's strict mode for IOB2, in which an I- that continues no span of its type is no span.
"""

import datasets
import evaluate

from elmo_hf.metrics.tags import span_scores, strict_span_scores

LABELS = datasets.List(datasets.Value("string"))


class Spans(evaluate.Metric):
    def _info(self):
        features = datasets.Features(predictions=LABELS, references=LABELS)
        return evaluate.MetricInfo(description=__doc__, citation="", features=features)

    def _compute(self, predictions, references, strict=False):
        return (strict_span_scores if strict else span_scores)(predictions, references)
