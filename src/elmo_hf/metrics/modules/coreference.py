"""MUC, B-cubed, CEAF and their mean F1 (`conll_f1`), as the CoNLL-2012 scorer computes them.

    coreference = evaluate.load(elmo_hf.metrics.path("coreference"))
    clusters = [[[0, 0, 0], [1, 2, 2]], [[0, 2, 4], [1, 0, 0]]]
    coreference.add_batch(predictions=[clusters], references=[clusters])
    coreference.compute()["conll_f1"]    # 1.0

A row is a document, a list of clusters; a cluster is a list of mentions; a mention is a list of numbers, such
as [sentence, first word, last word]. Clusters of one mention count as they are; remove them from the
references with `elmo_hf.metrics.without_singletons`.
"""

import datasets
import evaluate

from elmo_hf.metrics import coreference_scores

MENTION = datasets.List(datasets.Value("int64"))


class Coreference(evaluate.Metric):
    def _info(self):
        document = datasets.List(datasets.List(MENTION))
        features = datasets.Features(predictions=document, references=document)
        return evaluate.MetricInfo(description=__doc__, citation="", features=features)

    def _compute(self, predictions, references):
        return coreference_scores(hashable(predictions), hashable(references))


def hashable(documents):
    return [[[tuple(mention) for mention in cluster] for cluster in clusters] for clusters in documents]
