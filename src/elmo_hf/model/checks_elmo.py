"""What a call of a model may be given, and one sentence for everything else."""

import torch
from torch import Tensor

from .configuration_elmo import ElmoConfig
from .words_elmo import NUM_CHARACTER_IDS


def checked_char_ids(config: ElmoConfig, char_ids: Tensor | None) -> Tensor:
    length = config.max_characters_per_token
    if char_ids is None:
        raise ValueError(
            "this ELMo reads words letter by letter and needs char_ids; ElmoTokenizer returns them beside "
            "input_ids."
        )
    if char_ids.dim() != 3 or char_ids.shape[-1] != length:
        raise ValueError(
            f"char_ids must have the shape (batch, words, {length}), but has {tuple(char_ids.shape)}; "
            f"make the tokenizer with max_characters_per_token={length}."
        )
    check_range("char_ids", char_ids, NUM_CHARACTER_IDS - 1)
    return char_ids


def checked_input_ids(config: ElmoConfig, input_ids: Tensor | None) -> Tensor:
    if input_ids is None:
        raise ValueError("this ELMo looks words up in a table and needs input_ids, but got none.")
    if input_ids.dim() != 2:
        raise ValueError(f"input_ids must have the shape (batch, words), but has {tuple(input_ids.shape)}.")
    check_range("input_ids", input_ids, max(config.vocab_size - 1, config.pad_token_id or 0))
    return input_ids


def word_mask(
    config: ElmoConfig,
    input_ids: Tensor | None = None,
    char_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    inputs_embeds: Tensor | None = None,
) -> Tensor:
    """Where there is a word and not padding, (batch, words)."""
    if inputs_embeds is not None:
        found = torch.ones(inputs_embeds.shape[:2], dtype=torch.bool, device=inputs_embeds.device)
    elif config.token_encoder == "characters":
        found = (checked_char_ids(config, char_ids) > 0).any(dim=-1)
    else:
        found = checked_input_ids(config, input_ids).ne(config.pad_token_id or 0)
    if attention_mask is None:
        return found
    check_shape("attention_mask", attention_mask, found)
    return attention_mask.bool()


def check_embeds(config: ElmoConfig, embeds: Tensor) -> None:
    allowed: list[tuple[int, ...]] = [(config.projection_dim,)]
    if config.token_encoder == "characters":
        allowed.append((config.max_characters_per_token, config.char_embedding_dim))
    if embeds.shape[2:] not in allowed:
        shapes = " or ".join(f"(batch, words, {', '.join(map(str, shape))})" for shape in allowed)
        raise ValueError(f"inputs_embeds must have the shape {shapes}, but has {tuple(embeds.shape)}.")


def check_shape(name: str, tensor: Tensor, words: Tensor) -> None:
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{name} must be a tensor, but is {type(tensor).__name__}.")
    if tensor.shape != words.shape:
        raise ValueError(
            f"{name} must have the shape {tuple(words.shape)} of the words, but has {tuple(tensor.shape)}."
        )


def check_whole(name: str, numbers: Tensor) -> None:
    if not isinstance(numbers, Tensor):
        raise ValueError(f"{name} must be a tensor of whole numbers, but is {type(numbers).__name__}.")
    # An empty one may be of any type: torch.tensor([]) is of a float's.
    if numbers.numel() and (numbers.is_floating_point() or numbers.dtype == torch.bool):
        raise ValueError(f"{name} must be a tensor of whole numbers, but is of {numbers.dtype}.")


def check_range(name: str, ids: Tensor, highest: int) -> None:
    """A wrong id would otherwise end in an index error without a name, or take a GPU down with it."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or ids.numel() == 0:
        return
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high > highest:
        raise ValueError(f"{name} must be from 0 to {highest}, but holds {low if low < 0 else high}.")
