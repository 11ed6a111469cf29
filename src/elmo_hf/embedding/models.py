"""The model that reads, its tokenizer and its device, and a digest of what its vectors depend on."""

import hashlib
import inspect
import json
from pathlib import Path
from typing import Any

import torch

from elmo_hf.errors import ElmoError
from elmo_hf.loading import load, load_model
from elmo_hf.model.configuration_elmo import NEWER_OPTIONS, ElmoConfig
from elmo_hf.model.modeling_elmo import ElmoModel, ElmoPreTrainedModel
from elmo_hf.model.tokenization_elmo import ElmoTokenizer


def load_elmo(
    model: str | Path | ElmoPreTrainedModel, tokenizer: ElmoTokenizer | None, purpose: str
) -> tuple[ElmoModel, ElmoTokenizer]:
    if isinstance(model, str | Path):
        if tokenizer is None:
            return load(model, ElmoModel)
        return load_model(model, ElmoModel)[0], tokenizer
    elmo = model.base_model
    if not isinstance(elmo, ElmoModel):
        raise ElmoError(f"{purpose} needs an ELMo, its folder or its name, but got {type(model).__name__}.")
    if tokenizer is None and not elmo.config.reads_bytes:
        raise ElmoError(
            f"a model with a word table, or letters of its own, needs its tokenizer: {purpose}(..., "
            "tokenizer=tokenizer)."
        )
    length = elmo.config.max_characters_per_token
    return elmo, tokenizer or ElmoTokenizer(max_characters_per_token=length)


def fingerprint(model: ElmoModel, tokenizer: ElmoTokenizer) -> str:
    """A digest of everything that a word's vector depends on, except the machine."""
    settings = {name: getattr(model.config, name) for name in inspect.get_annotations(ElmoConfig)}
    # Without options at the value that an earlier version implied, so that its jobs go on.
    settings = {name: value for name, value in settings.items() if NEWER_OPTIONS.get(name, ()) != value}
    rules = [tokenizer.word_splitter, tokenizer.all_special_tokens, tokenizer.max_characters_per_token]
    if model.config.token_encoder == "words" or tokenizer.word_column:
        rules.append(tokenizer.get_vocab())
    if tokenizer.cut_words:
        rules.append("cut_words")
    if tokenizer.lexicon is not None:
        rules.append(tokenizer.lexicon.content)
    digest = hashlib.sha256(json.dumps([settings, rules], sort_keys=True).encode("utf-8"))
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def requested_device(device: str | None) -> torch.device | None:
    try:
        requested = torch.device(device) if device is not None else None
    except RuntimeError:
        raise ElmoError(f"there is no device {device!r}; say cpu, cuda or cuda:1, for example.") from None
    if requested is not None and requested.type == "cuda" and not torch.cuda.is_available():
        raise ElmoError(f"the device is {device}, but torch finds no GPU here.")
    return requested


def default_device(model: Any) -> torch.device:
    """That of a model which is loaded already, or a GPU if there is one."""
    if isinstance(model, ElmoPreTrainedModel):
        return model.device
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
