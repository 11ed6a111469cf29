"""A small question answering model and questions for its tests."""

import torch

from elmo_hf import ElmoConfig, ElmoForQuestionAnswering, ElmoTokenizer

QUESTIONS = ["Who lived in London ?", "What ?", "Where is Paris"]
CONTEXTS = [
    "Ada Lovelace lived in London , they say .",
    "Nothing",
    "Paris is in France , and so is Nice .",
]
PLACES = torch.tensor([[7, 8], [4, 4], [8, 9]])  # in the rows of `pairs`: first and last words
SMALL = {
    "lstm_dim": 12,
    "projection_dim": 8,
    "char_filters": [[1, 4], [2, 6]],
    "vocab_size": 3,
    "task_hidden_size": 5,
}
BOTH = {"elmo_at_output": True, "task_num_layers": 1}
OPTIONS = [BOTH, {"task_word_dim": 3, "mix_l2": 0.0}, {"elmo_at_input": False, "task_char_filters": [[2, 3]]}]


def make(**options):
    torch.manual_seed(0)
    return ElmoForQuestionAnswering(ElmoConfig(**SMALL | options))


def pairs(questions=QUESTIONS, contexts=CONTEXTS, places=None, **options):
    settings = {"padding": True, "return_token_type_ids": True, "return_tensors": "pt"}
    batch = ElmoTokenizer()(questions, contexts, **settings | options)
    if places is not None:
        batch["start_positions"], batch["end_positions"] = places.T
    return batch
