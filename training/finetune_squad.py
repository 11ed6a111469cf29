"""Question answering on SQuAD 1.1 with the paper's network, judged by exact match and F1.

    FILES="--train squad/train-v1.1.json --test squad/dev-v1.1.json"
    python training/finetune_squad.py --elmo my-elmo $FILES --output runs/squad --vectors glove.txt
    python training/finetune_squad.py --elmo my-elmo --data squad --output runs/squad
    python training/finetune_squad.py --smoke $FILES --output runs/smoke

Files have the official layout (`.xz` is unpacked); a dataset has the columns `question`, `context` and
`answers`. Without `--dev`, the questions on the last twentieth of the train texts are dev, on which training
stops; the official dev set is the test set, on which nothing is chosen. In training a text is cut to its
first `--max-context` words, and a question whose answer is not there is left out; in evaluation no text is
cut.

results.json has beside the scores the `ceiling`: what is reached by knowing the answers, but giving them in
whole words, and in no more than `max_answer_length`. As in the paper, it is an average of the weights over
the steps that is judged and saved (averaging.py).
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, EvalPrediction

from elmo_hf import ElmoForQuestionAnswering
from elmo_hf.files import write_json
from elmo_hf.finetuning.averaging import AveragingTrainer
from elmo_hf.finetuning.flags import make_parser
from elmo_hf.finetuning.run import Task, drawn, finetune, run
from elmo_hf.finetuning.squad import (
    SPLITTER,
    answers_at,
    ceiling,
    collate,
    cut,
    read_questions,
    right_answers,
)
from elmo_hf.metrics.squad import squad_scores

# Peters et al. (2018), A.4, and their code (allenai/document-qa, docqa/elmo/ablate_elmo_model.py). The word
# vectors are not tuned, if there are any (`--vectors`). Theirs differs in this: it stops after 24 epochs
# and keeps the best of what it has tried every 1,200 steps on the official dev set, and its characters'
# vectors have dropout (0.2) of their own.
CONFIG = {
    "task_word_dim": 300,
    "task_char_filters": [[5, 100]],
    "task_char_embedding_dim": 20,
    "task_hidden_size": 90,
    "task_num_layers": 1,
    "task_dropout": 0.2,
    "elmo_at_input": True,
    "elmo_at_output": True,
    "elmo_dropout": 0.5,
    "mix_l2": 0.0,
    "max_answer_length": 17,
}


class AnsweringTrainer(AveragingTrainer):
    """Is judged by the letters of its answers: what scores them finds the examples in `inputs`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.score: Any = self.compute_metrics
        self.label_names = ["start_positions", "end_positions"]

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
        examples: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        self.compute_metrics = lambda found: self.score(
            EvalPrediction(found.predictions, found.label_ids, inputs=examples)
        )
        return super().evaluate(eval_dataset, *args, **kwargs)


def score(evaluation: EvalPrediction) -> dict[str, float]:
    examples: Any = evaluation.inputs
    places: Any = evaluation.predictions
    return squad_scores(answers_at(examples, places), right_answers(examples))


def main() -> None:
    recipe = {"batch_size": 45, "learning_rate": 1.0, "epochs": 24, "patience": 5, "clip": 0.0}
    parser = make_parser(__doc__, **recipe, optimizer="adadelta")
    parser.add_argument("--max-context", type=int, default=400, help="words of a text in training (400)")
    parser.set_defaults(cache="disk")  # the layers of a hundred thousand questions are many
    flags = parser.parse_args()
    if flags.max_context < 1:
        raise ValueError(f"--max-context must be at least 1, but is {flags.max_context}.")
    data = read_questions(flags)
    asked = len(data["train"])
    data["train"] = cut(data["train"], flags.max_context)
    if not data["train"]:
        raise ValueError(f"no train question has its answer in the first {flags.max_context} words.")
    left_out = asked - len(data["train"])
    data = drawn(data, flags)  # here already, for the ceiling is that of the questions which are asked

    optimizers = {"adadelta": partial(torch.optim.Adadelta, rho=0.95, eps=1e-8)}
    task = Task("squad", ElmoForQuestionAnswering, CONFIG, collate, score, "f1", optimizers, AnsweringTrainer)
    results = finetune(task, flags, data, freeze_task_words=flags.vectors is not None)
    longest = results["config"].get("max_answer_length", CONFIG["max_answer_length"])
    results["ceiling"] = {split: ceiling(data[split], longest) for split in ("dev", "test")}
    results["left_out_of_training"] = left_out
    write_json(Path(flags.output) / "results.json", results)
    for (
        seed
    ) in flags.seeds:  # `model.answer` is to split texts as the recipe did, whatever the biLM's own rule
        folder = Path(flags.output) / f"seed-{seed}"
        AutoTokenizer.from_pretrained(folder, word_splitter=SPLITTER).save_pretrained(folder)


if __name__ == "__main__":
    run(main)
