"""Exact match and F1 of answers, in percent, by SQuAD 1.1's official rule.

    squad = evaluate.load(elmo_hf.metrics.path("squad"))
    predictions = [{"id": "q1", "prediction_text": "the Ada"}]
    references = [{"id": "q1", "answers": {"text": ["Ada"], "answer_start": [0]}}]
    squad.compute(predictions=predictions, references=references)    # {"exact_match": 100.0, "f1": 100.0}

Rows are those of the Hub's metric `squad`. `answer_start` does not count.
"""

import datasets
import evaluate

from elmo_hf.errors import ElmoError
from elmo_hf.metrics import squad_scores

TEXT, NUMBER = datasets.Value("string"), datasets.Value("int32")


class Squad(evaluate.Metric):
    def _info(self):
        features = datasets.Features(
            predictions={"id": TEXT, "prediction_text": TEXT},
            references={
                "id": TEXT,
                "answers": {"text": datasets.List(TEXT), "answer_start": datasets.List(NUMBER)},
            },
        )
        return evaluate.MetricInfo(description=__doc__, citation="", features=features)

    def _compute(self, predictions, references):
        answers = {row["id"]: row["prediction_text"] for row in predictions}
        gold = {row["id"]: row["answers"]["text"] for row in references}
        if len(answers) < len(predictions) or len(gold) < len(references):
            raise ElmoError("a question's id occurs twice; each question needs an id of its own.")
        return squad_scores(answers, gold)
