"""Small models of every kind that is not bilm-tf's, and random sentences for them.

model = varied_model("words beside letters")
batch, sentences = varied_batch(model)      # with padding on both sides and between words
"""

import numpy as np
import torch

from elmo_hf import ElmoConfig, ElmoModel

VOCABULARY, LETTERS = 12, 40
LEXICON = {"num_characters": LETTERS, "boundary_characters": [35, 36, 38, 37, 39]}
STACK = {"num_hidden_layers": 1, "stacked_lstm_layers": 2}
KINDS = {
    "letters": LEXICON | {"char_projection": True},
    "words beside letters": LEXICON | {"word_embedding_dim": 3, "num_mixes": 1},
    "words beside bytes": {"word_embedding_dim": 5, "num_highway_layers": 0, "char_activation": "tanh"},
    "a table of words with a projection": {"token_encoder": "words", "word_embedding_dim": 3},
    "a projection of the same size": {"lstm_dim": 4, "lstm_projection": True, "num_mixes": 3},
    "a projection to a larger size": {"lstm_dim": 3, "lstm_projection": True},
    "no projection to a smaller size": {"lstm_projection": False},
    "a stack": LEXICON | STACK | {"word_embedding_dim": 2, "num_mixes": 2},
    "a stack of one": {"num_hidden_layers": 1, "stacked_lstm_layers": 1, "projection_dim": 7},
    "a stack on words": STACK | {"stacked_lstm_layers": 3, "token_encoder": "words", "word_embedding_dim": 4},
}


def varied_config(kind, **options):
    small = {
        "vocab_size": VOCABULARY,
        "lstm_dim": 6,
        "projection_dim": 4,
        "char_embedding_dim": 3,
        "char_filters": [[1, 3], [3, 2]],
        "max_characters_per_token": 8,
        "cell_clip": 0.6,
        "proj_clip": 0.3,
        "dropout": 0.0,
    }
    return ElmoConfig(**(small | KINDS[kind] | options))


def scramble(model, seed=0):
    """Weights of a size that makes clips, gates and mixes count; also those that start as constants."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(torch.randn_like(tensor) * 0.6)
    return model.eval()


def varied_model(kind, seed=0, **options):
    return scramble(ElmoModel(varied_config(kind, **options)), seed)


def weights_of(model):
    return {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}


def varied_sentences(config, seed=0, lengths=(3, 6, 0, 1)):
    """Sentences of random rows or ids, as lists; the first word of the first comes twice."""
    random = np.random.default_rng(seed)

    def word():
        word_id = int(random.integers(VOCABULARY))
        if config.token_encoder == "words":
            return word_id
        *_, begin, end, padding = config.boundary_characters
        length = config.max_characters_per_token
        letters = random.integers(1, LETTERS - 6, random.integers(0, length - 1)).tolist()
        row = [begin, *letters, end] + [padding] * (length - 2 - len(letters))
        return row + [1 + word_id] * config.reads_word_column

    sentences = [[word() for _ in range(length)] for length in lengths]
    if len(sentences[0]) > 1:
        sentences[0][-1] = sentences[0][0]
    return sentences


def varied_batch(model, seed=0, side="right"):
    """What `forward` takes, and the sentences. Padding is on one side, or by chance between words."""
    config, random = model.config, np.random.default_rng(seed)
    sentences = varied_sentences(config, seed)
    width = max(map(len, sentences)) + 2
    is_table = config.token_encoder == "words"
    nothing = config.pad_token_id if is_table else [0] * config.char_ids_length
    ids, mask = [], np.zeros((len(sentences), width), dtype=int)
    for row, sentence in enumerate(sentences):
        count = len(sentence)
        places = {
            "right": range(count),
            "left": range(width - count, width),
            "between": sorted(random.choice(width, count, replace=False)),
        }[side]
        words = [nothing] * width
        for place, word in zip(places, sentence, strict=True):
            words[place], mask[row, place] = word, 1
        ids.append(words)
    name = "input_ids" if is_table else "char_ids"
    return {name: torch.tensor(ids), "attention_mask": torch.from_numpy(mask)}, sentences
