"""A small language model that reads letters of a lexicon, words beside letters, or words alone."""

import torch

from elmo_hf import ElmoConfig, ElmoForPreTraining, ElmoTokenizer
from elmo_hf.loading import vocabulary_fields
from tests.helpers.letters import write_lexicons

KINDS = {
    "letters": {"word_column": False},
    "letters and words": {"word_column": True},
    "bytes and words": {"word_column": True, "letters_file": None},
    "words": {"letters_file": None},
}


def letter_model(folder, kind):
    """A model with random weights, large enough for each word to count, and its tokenizer."""
    folder.mkdir(exist_ok=True)
    options = write_lexicons(folder) | {"cut_words": True, "word_splitter": "whitespace"} | KINDS[kind]
    tokenizer = ElmoTokenizer(max_characters_per_token=16, **options)
    torch.manual_seed(0)
    config = ElmoConfig(
        **{"lstm_dim": 9, "projection_dim": 6, "char_embedding_dim": 4, "char_filters": [[1, 3], [3, 4]]},
        max_characters_per_token=16,
        num_characters=tokenizer.num_characters,
        boundary_characters=tokenizer.boundary_characters,
        token_encoder="words" if kind == "words" else "characters",
        word_embedding_dim=5 if tokenizer.word_column or kind == "words" else 0,
        **vocabulary_fields(tokenizer),
    )
    model = ElmoForPreTraining(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.3 * torch.randn_like(weight)
    return model, tokenizer
