"""Checks of what a caller hands to a model, tensors and folders, and one sentence for each mistake.

The outermost `forward` or `decode` checks a tensor once; what it calls takes checked tensors. Shapes and
types are checked everywhere. Numbers are checked on a CPU, where reading them costs little. To raise an
exception for a number on a GPU, Python would have to wait for the GPU, so the check is queued there as an
assertion: it stops the program with the message at the next synchronisation, as PyTorch's own index checks
do, but by name. On other devices (and on "meta", which has no numbers) only shapes and types are checked.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.masked import MaskedTensor
from torch.nn import UninitializedBuffer, UninitializedParameter
from transformers import PreTrainedConfig
from transformers import initialization as init

from .configuration_elmo import ElmoConfig
from .folder_elmo import ElmoFolder, library_errors

IGNORED = -100  # a label that is not known, as everywhere in Transformers
INTEGERS = {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
KINDS = {  # what a tensor may hold, and the types for it
    "whole numbers": INTEGERS,
    "whole numbers (int64)": {torch.int32, torch.int64},  # ids, as PyTorch looks them up
    "0 and 1": {torch.bool, *INTEGERS, *FLOATS},
    "numbers": FLOATS,
    "numbers of any type": {*INTEGERS, *FLOATS},
}


def word_mask(
    config: ElmoConfig,
    input_ids: Tensor | None = None,
    char_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    inputs_embeds: Tensor | None = None,
) -> Tensor:
    """Check what a biLM reads, and return where there is a word and not padding, (batch, words)."""
    for name, ids in (("input_ids", input_ids), ("char_ids", char_ids)):
        if ids is not None and not isinstance(ids, Tensor):  # also where they are not read
            raise ValueError(f"{name} must be a tensor of whole numbers, but is {type(ids).__name__}.")
    if inputs_embeds is not None:
        check_embeds(config, inputs_embeds)
        is_word = torch.ones(inputs_embeds.shape[:2], dtype=torch.bool, device=inputs_embeds.device)
    elif config.token_encoder == "characters":
        is_word = (check_char_ids(config, char_ids) > 0).any(dim=-1)
    else:
        is_word = check_input_ids(config, input_ids).ne(config.pad_token_id or 0)
    if attention_mask is None:
        return is_word
    check_mask("attention_mask", attention_mask, is_word)
    return attention_mask.bool()


def check_char_ids(config: ElmoConfig, char_ids: Tensor | None) -> Tensor:
    length, has_words = config.char_ids_length, config.reads_word_column
    if char_ids is None:
        raise ValueError(
            "this ELMo reads words letter by letter and needs char_ids; ElmoTokenizer returns them beside "
            "input_ids."
        )
    check_tensor("char_ids", char_ids, "whole numbers (int64)")
    if char_ids.dim() != 3 or char_ids.shape[-1] != length:
        raise ValueError(
            f"char_ids must have the shape (batch, words, {length}), but has {tuple(char_ids.shape)}; "
            "make the tokenizer with "
            f"max_characters_per_token={config.max_characters_per_token}{', and word_column' * has_words}."
        )
    characters = char_ids[..., : config.max_characters_per_token]
    check_range("char_ids", characters, config.num_characters - 1)
    if has_words:
        check_range("the last column of char_ids (1 + the word's id)", char_ids[..., -1], config.vocab_size)
    return char_ids


def check_input_ids(config: ElmoConfig, input_ids: Tensor | None) -> Tensor:
    if input_ids is None:
        raise ValueError("this ELMo looks words up in a table and needs input_ids, but got none.")
    check_tensor("input_ids", input_ids, "whole numbers (int64)")
    if input_ids.dim() != 2:
        raise ValueError(f"input_ids must have the shape (batch, words), but has {tuple(input_ids.shape)}.")
    check_range("input_ids", input_ids, max(config.vocab_size - 1, config.pad_token_id or 0))
    return input_ids


def check_embeds(config: ElmoConfig, embeds: Tensor) -> None:
    check_tensor("inputs_embeds", embeds, "numbers")
    allowed: list[tuple[int, ...]] = [(config.projection_dim,)]
    if config.token_encoder == "characters" and not config.reads_word_column:
        allowed.append((config.max_characters_per_token, config.char_embedding_dim))
    if embeds.shape[2:] not in allowed:
        shapes = " or ".join(f"(batch, words, {', '.join(map(str, shape))})" for shape in allowed)
        reason = "; characters alone are not enough, since this ELMo also reads words" * (
            config.reads_word_column and embeds.dim() == 4
        )
        raise ValueError(
            f"inputs_embeds must have the shape {shapes}, but has {tuple(embeds.shape)}{reason}."
        )


def check_where(model: Any, ids: Tensor | None, embeds: Tensor | None) -> None:
    """What an `ElmoModel` reads is where its weights are, and vectors are of their type, unless a hook or
    autocast sees to that."""
    weight, encoder = next(model.layers.parameters()), model.token_encoder
    has_hooks = model._forward_pre_hooks or encoder._forward_pre_hooks or vars(encoder).get("_hf_hook")
    name, tensor = ("ids", ids) if embeds is None else ("inputs_embeds", embeds)
    if tensor is not None and tensor.device != weight.device and not has_hooks:
        raise ValueError(f"{name} must be on {weight.device}, as the model, but are on {tensor.device}.")
    is_other_type = embeds is not None and embeds.dtype != weight.dtype
    if embeds is not None and is_other_type and not torch.is_autocast_enabled(embeds.device.type):
        raise ValueError(f"inputs_embeds must be of {weight.dtype}, as the model, but are of {embeds.dtype}.")


def check_labels(labels: Tensor, mask: Tensor, num_labels: int) -> None:
    """Labels of words, (batch, words), are from 0 to num_labels - 1, or `IGNORED`; any at padding."""
    check_integers("labels", labels)
    check_shape("labels", labels, mask)
    check_range("labels", labels.masked_fill(~mask | (labels == IGNORED), 0), num_labels - 1)


def check_no_attentions(output_attentions: bool | None) -> None:
    """Wrappers such as PEFT pass this argument to any model."""
    if output_attentions:
        raise ValueError("an ELMo has no attentions; leave output_attentions out.")


def check_has_states(config: ElmoConfig) -> None:
    if config.stacked_lstm_layers:
        raise ValueError(
            "this ELMo has no states, for its stacked LSTMs read whole sentences from both ends; read each "
            "sentence by itself, without states, output_states or windows."
        )


def check_states(states: Any, expected: tuple[Tensor, Tensor]) -> None:
    """States are (h, c), each of the given shape but for the number of rows, which is the same in both."""
    if not isinstance(states, (tuple, list)) or len(states) != 2:
        size = f" of {len(states)}" if isinstance(states, (tuple, list)) else ""
        raise ValueError(
            f"states must be the pair (h, c), but are a {type(states).__name__}{size}; {OWN_STATES}."
        )
    for name, state in zip("hc", states, strict=True):
        check_tensor(f"{name} of the states", state, "numbers", expected[0].device, may_move=True)
    sizes = [tuple(state.shape[:2] + state.shape[3:]) for state in states]
    wanted = [tuple(zero.shape[:2] + zero.shape[3:]) for zero in expected]
    if sizes != wanted or states[0].shape[2:3] != states[1].shape[2:3]:
        raise ValueError(
            f"states must be (h, c) with (layers, directions, size) {wanted}, and as many rows in both, but "
            f"have the shapes {[tuple(state.shape) for state in states]}; {OWN_STATES}."
        )


OWN_STATES = "pass the states of this model's own output"


def check_mask(name: str, tensor: Tensor, mask: Tensor) -> None:
    """Something of each word that is 0 or 1."""
    check_shape(name, tensor, mask)
    check_tensor(name, tensor, "0 and 1")
    if tensor.is_floating_point():
        if is_any((tensor != 0) & (tensor != 1), f"{name} must be 0 or 1."):
            raise ValueError(f"{name} must be 0 or 1 for each word, but holds another number, or NaN.")
    elif tensor.dtype != torch.bool:
        check_range(name, tensor, 1)


def check_shape(name: str, tensor: Any, mask: Tensor) -> None:
    check_plain(name, tensor)
    if tensor.device != mask.device:
        raise ValueError(f"{name} must be on {mask.device}, as the other inputs, but is on {tensor.device}.")
    if tensor.shape != mask.shape:
        raise ValueError(
            f"{name} must have the shape {tuple(mask.shape)} of the words, but has {tuple(tensor.shape)}."
        )


def check_integers(
    name: str, numbers: Tensor, device: torch.device | None = None, may_move: bool = False
) -> None:
    check_tensor(name, numbers, "whole numbers", device, may_move)


def check_tensor(
    name: str, tensor: Any, kind: str, device: torch.device | None = None, may_move: bool = False
) -> None:
    """A plain tensor of one of `KINDS`, on a device or, if it is moved there, on any that has numbers."""
    check_plain(name, tensor, f" of {kind}")
    # An empty tensor may have any type: that of torch.tensor([]) is float32.
    if tensor.dtype not in KINDS[kind] and tensor.numel():
        raise ValueError(f"{name} must be a tensor of {kind}, but is of {tensor.dtype}.")
    if device is not None and tensor.device != device and not (may_move and not tensor.is_meta):
        raise ValueError(f"{name} must be on {device}, as the other inputs, but is on {tensor.device}.")


def check_plain(name: str, tensor: Any, of_kind: str = "") -> None:
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{name} must be a tensor{of_kind}, but is {type(tensor).__name__}.")
    is_plain = tensor.layout is torch.strided and not (tensor.is_quantized or tensor.is_nested)
    if not is_plain or isinstance(tensor, (MaskedTensor, UninitializedBuffer, UninitializedParameter)):
        raise ValueError(f"{name} must be a plain tensor{of_kind}, not sparse, nested, masked or quantized.")


def check_range(name: str, numbers: Tensor, highest: int) -> None:
    """Without this check, a wrong id ends in an index error without a name."""
    message = f"{name} must be from 0 to {highest}"
    if not numbers.is_cpu:
        is_any((numbers < 0) | (numbers > highest), f"{message}.")
    elif numbers.numel() and not (torch.compiler.is_compiling() or torch.jit.is_tracing()):
        low, high = (int(limit) for limit in torch.aminmax(numbers))
        if low < 0 or high > highest:
            raise ValueError(f"{message}, but holds {low if low < 0 else high}.")


def is_any(wrong: Tensor, message: str) -> bool:
    """Whether anything is wrong, for the caller to raise an exception; known on a CPU only.

    A GPU does not answer, but stops with `message` when it gets here and something is wrong.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    if wrong.is_cuda:
        torch._assert_async(~wrong.any(), message)
    return wrong.is_cpu and bool(wrong.any())


# ---- the files of a model


@contextmanager
def checked_folder(model_class: Any, name: Any, options: dict[str, Any]) -> Iterator[None]:
    """Around `from_pretrained`: the files are checked first, and what the library raises is one sentence.

    Sets in `options` that only safetensors files are read, unless they say otherwise.
    """
    is_meta = torch.empty(0).is_meta  # the default device, which the library refuses in words of its own
    with nullcontext() if is_meta else library_errors(name):
        is_folder = name is not None and not options.get("gguf_file") and not Path(name).is_file()
        if is_folder and options.get("use_safetensors") in (None, True):
            options["use_safetensors"] = True
            _check_folder(model_class, name, options)
        yield


def _check_folder(model_class: Any, name: Any, options: dict[str, Any]) -> None:
    folder, config = ElmoFolder(name, options), options.get("config")
    folder.check_names()
    if not isinstance(config, PreTrainedConfig):
        config_class = model_class.config_class
        names = {field.name for field in fields(config_class)} - {"dtype"} | {"num_labels"}
        settings = {key: options[key] for key in names & options.keys()}
        config = config_class.from_pretrained(name if config is None else config, **folder.hub, **settings)
    folder.check_shapes(
        shapes_of(model_class, config), may_differ=bool(options.get("ignore_mismatched_sizes"))
    )


def shapes_of(model_class: Any, config: Any) -> dict[str, tuple[int, ...]]:
    """Of a model's tensors, by name; it takes no memory."""
    with torch.device("meta"), init.no_init_weights():
        return {key: tuple(tensor.shape) for key, tensor in model_class(config).state_dict().items()}


def check_predicting(tokenizer: Any, **numbers: Any) -> None:
    """The tokenizer is an `ElmoTokenizer`, also of a model's own code, and the numbers are 1 or more."""
    if not hasattr(tokenizer, "char_ids_length"):
        raise ValueError(
            "tokenizer must be the ElmoTokenizer that was saved with the model, but is "
            f"{type(tokenizer).__name__}."
        )
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ValueError(f"{name} must be a whole number, at least 1, but is {number!r}.")
