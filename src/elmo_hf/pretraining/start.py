"""What a run starts from: a fresh model, or a trained one, with its own words to predict or with others."""

from pathlib import Path

import torch
from torch import nn

from elmo_hf.corpus.vocabulary import Vocabulary
from elmo_hf.loading import load_language_model, special_ids
from elmo_hf.model.configuration_elmo import ElmoConfig
from elmo_hf.model.modeling_elmo_pretraining import ElmoForPreTraining
from elmo_hf.model.tokenization_elmo import ElmoTokenizer
from elmo_hf.pretraining.settings import Settings


def start_model(settings: Settings, checkpoint: Path | None) -> tuple[ElmoForPreTraining, ElmoTokenizer]:
    torch.manual_seed(settings.seed)
    if checkpoint is not None:
        model, tokenizer = load_language_model(str(checkpoint))
    elif settings.start is None:
        model, tokenizer = fresh_model(settings)
    else:
        # With words of its own, a run needs no softmax of the model, which AllenNLP's files lack.
        model, tokenizer = load_language_model(settings.start, needs_softmax=settings.vocab is None)
        if settings.vocab is not None:
            model, tokenizer = with_vocabulary(model, tokenizer, settings.vocab)
    set_dropout(model, settings.dropout)
    return model, tokenizer


def set_dropout(model: ElmoForPreTraining, dropout: float) -> None:
    """Which is no part of what was learnt, but of how to go on learning."""
    model.config.dropout = dropout
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout


def fresh_model(settings: Settings) -> tuple[ElmoForPreTraining, ElmoTokenizer]:
    assert settings.vocab is not None
    Vocabulary.load(settings.vocab)  # says what is wrong with it
    splitter = "penn" if settings.raw else "whitespace"
    tokenizer = ElmoTokenizer(settings.vocab, settings.max_characters_per_token, splitter)
    config = settings.model_config(tokenizer.vocab_size, **special_ids(tokenizer))
    return ElmoForPreTraining(config), tokenizer


def with_vocabulary(
    model: ElmoForPreTraining, tokenizer: ElmoTokenizer, vocab: str
) -> tuple[ElmoForPreTraining, ElmoTokenizer]:
    """The same model with other words to predict. Words of the old vocabulary keep their rows of the softmax
    (and of the word table, if there is one); the rows of new words start as in a fresh model."""
    Vocabulary.load(vocab)  # says what is wrong with it
    new = ElmoTokenizer(vocab, tokenizer.max_characters_per_token, tokenizer.word_splitter)
    config = ElmoConfig.from_dict(model.config.to_dict() | {"vocab_size": new.vocab_size} | special_ids(new))
    renewed = ElmoForPreTraining(config)
    old_ids, new_ids = tokenizer.get_vocab(), new.get_vocab()
    known = [word for word in new_ids if word in old_ids and new_ids[word] < new.vocab_size]
    there = torch.tensor([new_ids[word] for word in known])
    from_here = torch.tensor([old_ids[word] for word in known])
    weights = model.state_dict()
    for name, weight in renewed.state_dict().items():
        if name.startswith("lm_head.") or name.endswith("word_embedding.weight"):
            weight[there] = weights[name][from_here]
        else:
            weight.copy_(weights[name])
    return renewed, new
