"""The perplexity of a language model: exp(sum of losses / number of tokens).

    perplexity = evaluate.load(elmo_hf.metrics.path("perplexity"))
    for batch in batches:
        perplexity.add_batch(losses=[12.5, 9.1], counts=[4, 3])
    perplexity.compute()    # {"perplexity": 21.9..., "tokens": 7}

A loss is a negative log-probability to base e, the sum over as many tokens as its count: those of a batch, of
a sentence, or a single token with a count of 1. Multiply a mean loss by its count first.
"""

import math

import datasets
import evaluate

from elmo_hf.errors import ElmoError

MAX_LOSS = 709.0  # above, exp overflows


class Perplexity(evaluate.Metric):
    def _info(self):
        features = datasets.Features(losses=datasets.Value("float64"), counts=datasets.Value("int64"))
        return evaluate.MetricInfo(description=__doc__, citation="", features=features)

    def _compute(self, losses, counts):
        tokens = sum(counts)
        if tokens < 1 or min(counts) < 0:
            raise ElmoError("a perplexity is over one token or more, and no count is below zero.")
        mean = math.fsum(losses) / tokens
        return {"perplexity": math.exp(mean) if mean < MAX_LOSS else math.inf, "tokens": tokens}
