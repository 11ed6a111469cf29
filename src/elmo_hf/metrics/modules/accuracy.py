"""The share of labels that are right: names or ids, one for each row, or a list of them.

accuracy = evaluate.load(elmo_hf.metrics.path("accuracy"))
accuracy.compute(predictions=[["DET", "NOUN"]], references=[["DET", "VERB"]])    # {"accuracy": 0.5}
"""

import datasets
import evaluate

from elmo_hf.metrics import accuracy

LABEL = [datasets.Value("string"), datasets.Value("int64")]


class Accuracy(evaluate.Metric):
    def _info(self):
        layouts = [*map(datasets.List, LABEL), *LABEL]
        features = [datasets.Features(predictions=layout, references=layout) for layout in layouts]
        return evaluate.MetricInfo(description=__doc__, citation="", features=features)

    def compute(self, **inputs):
        """Return the accuracy; over nothing it is 0."""
        rows = [inputs[name] for name in ("predictions", "references") if inputs.get(name) is not None]
        if len(rows) == 2 and not all(map(len, rows)):  # `evaluate` would look for a first row
            return self._compute(*map(list, rows))
        return super().compute(**inputs)

    def _compute(self, predictions, references):
        if predictions and not isinstance(predictions[0], list):
            predictions, references = [predictions], [references]
        return {"accuracy": accuracy(predictions, references)}
