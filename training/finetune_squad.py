"""Question answering on SQuAD 1.1 with the paper's network, evaluated by exact match and F1.

    FILES="--train squad/train-v1.1.json --test squad/dev-v1.1.json"
    python training/finetune_squad.py --elmo my-elmo $FILES --output runs/squad --vectors glove.txt
    python training/finetune_squad.py --elmo my-elmo --data squad --output runs/squad
    python training/finetune_squad.py --smoke $FILES --output runs/smoke

Files have the official layout (`.xz` is unpacked); a dataset has the columns `question`, `context` and
`answers`. Without `--dev`, the questions on the last twentieth of the train texts are dev, which decides when
to stop; the official dev set is the test set, on which nothing is chosen. For training a text is cut to its
first `--max-context` words, and a question whose answer is not in them is left out; no text is cut for
evaluation.

As in the paper, an average of the weights over the steps is evaluated and saved. Beside the scores,
results.json has the `ceiling`: the scores of the gold answers in whole words, of at most `max_answer_length`.
"""

from functools import partial
from typing import Any

import torch

from elmo_hf import ElmoConfig, ElmoForQuestionAnswering
from elmo_hf.errors import ElmoError
from elmo_hf.finetuning.data import drawn
from elmo_hf.finetuning.flags import make_parser
from elmo_hf.finetuning.run import Task, finetune, run
from elmo_hf.finetuning.squad import (
    SPLITTER,
    AnsweringTrainer,
    ceiling,
    collate,
    cut,
    predicted_answers,
    read_questions,
    score,
)

# Peters et al. (2018), A.4, and their code (allenai/document-qa, docqa/elmo/ablate_elmo_model.py). The word
# vectors are not trained, if there are any (`--vectors`). Theirs differs in this: it stops after 24 epochs
# and keeps the best of what it has tried every 1,200 steps on the official dev set, and its characters'
# vectors have dropout (0.2) of their own.
CONFIG: dict[str, Any] = {
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


def main() -> None:
    defaults = {"batch_size": 45, "learning_rate": 1.0, "epochs": 24, "patience": 5, "clip": 0.0}
    parser = make_parser(__doc__, optimizer="adadelta", **defaults)
    parser.add_argument("--max-context", type=int, default=400, help="words of a text in training (400)")
    parser.set_defaults(cache="disk")  # the layers of a hundred thousand questions are large
    flags = parser.parse_args()
    if flags.max_context < 1:
        raise ElmoError(f"--max-context must be at least 1, but is {flags.max_context}.")
    data = read_questions(flags)
    task = Task("squad", ElmoForQuestionAnswering, CONFIG, collate, score, best="f1")
    task.trainer, task.predicted = AnsweringTrainer, predicted_answers
    task.splitter = SPLITTER  # `model.answer` splits texts as here, whatever the biLM's own rule is
    task.optimizers = {"adadelta": partial(torch.optim.Adadelta, rho=0.95, eps=1e-8)}
    if flags.evaluate is not None:
        finetune(task, flags, data)
        return
    train = cut(data["train"], flags.max_context)
    if not train:
        raise ElmoError(f"no train question has its answer in the first {flags.max_context} words.")
    left_out = len(data["train"]) - len(train)
    data = drawn(data | {"train": train}, flags)  # already here: the ceiling is that of these questions

    def details(config: ElmoConfig) -> dict[str, Any]:
        ceilings = {split: ceiling(data[split], config.max_answer_length) for split in ("dev", "test")}
        return {"ceiling": ceilings, "left_out_of_training": left_out}

    task.details = details
    task.length = lambda example: len(example["context_words"])  # as it is cut
    finetune(task, flags, data, freeze_task_words=flags.vectors is not None)


if __name__ == "__main__":
    run(main)
