"""A model and its tokenizer from a folder, or by a name on the Hub; what is wrong with them is one sentence.

    elmo, tokenizer = load("my-elmo", ElmoModel)
    tagger, missing = load_model("my-elmo", ElmoForTokenClassification, needs="elmo.")

`from_pretrained` is made for whoever reads its tables and warnings: it draws what a folder lacks by chance,
and tells of it in passing. Commands want a whole model or a reason.
"""

import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers.utils import logging

from elmo_hf import kernels
from elmo_hf.errors import ElmoError, quoted, reason_of
from elmo_hf.files import checksum
from elmo_hf.model import folder_elmo
from elmo_hf.model.configuration_elmo import ElmoConfig
from elmo_hf.model.modeling_elmo import ElmoModel, ElmoPreTrainedModel
from elmo_hf.model.modeling_elmo_pretraining import ElmoForPreTraining
from elmo_hf.model.tokenization_elmo import ElmoTokenizer

Model = TypeVar("Model", bound=ElmoPreTrainedModel)
NAME_ON_THE_HUB = re.compile(r"[\w.-]+(/[\w.-]+)?")


def load(name: str | Path, kind: type[Model], **settings: Any) -> tuple[Model, ElmoTokenizer]:
    """`settings` as for `from_pretrained`. The model evaluates, and all of its weights were there."""
    model, _ = load_model(name, kind, **settings)
    tokenizer = load_tokenizer(name)
    check_pair(model, tokenizer, name)
    return model, tokenizer


def load_model(
    name: str | Path, kind: type[Model], needs: str = "", **settings: Any
) -> tuple[Model, list[str]]:
    """The model, and the names of those weights that were not there and are random: none that begins with
    `needs`."""
    load_config(name)
    with quiet(), _refusing(name):
        loaded: Any = kind.from_pretrained(name, output_loading_info=True, use_safetensors=True, **settings)
    model, report = loaded
    missing = sorted(report["missing_keys"])
    needed = [key for key in missing if key.startswith(needs)]
    if needed:
        raise ElmoError(f"{name} lacks {len(needed)} of the model's weights, such as {needed[0]}.")
    check_finite(model, name)
    return model, missing


def load_config(name: str | Path) -> ElmoConfig:
    with _refusing(name):
        settings, _ = ElmoConfig.get_config_dict(name)
        if settings.get("model_type") != "elmo":
            raise ElmoError(f"it holds a model of type {quoted(repr(settings.get('model_type')), 40)}")
        return config_of(settings)


def config_of(settings: dict[str, Any]) -> ElmoConfig:
    """The config that a JSON file holds, with the names of classes, which Transformers does not check."""
    names, classes = settings.get("architectures"), settings.get("auto_map")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ElmoError(f"'architectures' must be a list of names of classes, but is {quoted(repr(names))}")
    if classes is not None and not isinstance(classes, dict):
        raise ElmoError(f"'auto_map' must be an object with names of classes, but is {quoted(repr(classes))}")
    config: ElmoConfig = ElmoConfig.from_dict(settings)
    return config


def load_tokenizer(name: str | Path) -> ElmoTokenizer:
    with quiet(), _refusing(name):
        tokenizer: ElmoTokenizer = ElmoTokenizer.from_pretrained(name)
    for key in ("is_local", "local_files_only"):  # of this loading, which would be saved with the tokenizer
        tokenizer.init_kwargs.pop(key, None)
    return tokenizer


def check_finite(model: ElmoPreTrainedModel, name: str | Path) -> None:
    """A weight that is no number makes every vector of it NaN, without an error."""
    key = damaged_weight(model)
    if key is not None:
        raise ElmoError(f"the weights in {quoted(name, 200)} are damaged: {key} holds NaN or infinity.")


def damaged_weight(model: ElmoPreTrainedModel) -> str | None:
    """Return the name of a weight that holds NaN or infinity, if there is one."""
    for key, weight in model.state_dict().items():
        # A sum is finite only if all of its numbers are; a sum of finite numbers may overflow.
        if not weight.sum(dtype=torch.float32).isfinite() and not weight.isfinite().all():
            return key
    return None


def check_pair(model: ElmoPreTrainedModel, tokenizer: ElmoTokenizer, name: str | Path) -> None:
    """Both must be of one model: a word has so many letters, with the same ids, and a table so many words."""
    config = model.config
    pairs: dict[str, tuple[Any, Any]] = {}
    if config.token_encoder == "characters":
        pairs["max_characters_per_token"] = (
            config.max_characters_per_token,
            tokenizer.max_characters_per_token,
        )
        pairs["boundary_characters"] = config.boundary_characters, tokenizer.boundary_characters
        pairs["char_ids_length"] = config.char_ids_length, tokenizer.char_ids_length
    has_task_words = hasattr(model, "task_words") and config.task_word_dim > 0
    if config.token_encoder == "words" or config.reads_word_column or has_task_words:
        pairs["vocab_size"] = config.vocab_size, tokenizer.vocab_size
    for setting, (wanted, actual) in pairs.items():
        if wanted != actual:
            raise ElmoError(
                f"{name} has a model with {setting} {wanted} and a tokenizer with {actual}; save them as one."
            )
    if config.token_encoder == "characters" and tokenizer.num_characters > config.num_characters:
        raise ElmoError(
            f"{name} has a model with num_characters {config.num_characters}, and its tokenizer has the id "
            f"{tokenizer.num_characters - 1}; save them as one."
        )


@contextmanager
def _refusing(name: str | Path) -> Iterator[None]:
    """Whatever Transformers and the libraries below it raise on a folder is one sentence that names it."""
    try:
        yield
    except Exception as error:
        message = str(error)
        if message.startswith("the weights in") and "\n" not in message:
            raise ElmoError(message) from None
        reason = reason_of(error)
        if not isinstance(error, (OSError, ValueError)):
            reason = f"{type(error).__name__}: {reason}"
        if not os.path.lexists(name) and not NAME_ON_THE_HUB.fullmatch(str(name)):
            reason = "there is no such folder, and no name on the Hub looks so"
        where = quoted(name, 200)
        raise ElmoError(f"no ELMo can be loaded from {where}: {quoted(reason, 600)}.") from None


@contextmanager
def quiet() -> Iterator[None]:
    """No bar for a moment's work, and no warning of what is said in a sentence of ours."""
    level, had_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if had_bar:
            logging.enable_progress_bar()


@contextmanager
def evaluating(model: ElmoModel) -> Iterator[None]:
    """For a job that reads with the model alone: it evaluates, and nobody changes its weights meanwhile."""
    was_training = model.training
    model.eval()
    try:
        with kernels.frozen(model):
            yield
    finally:
        model.train(was_training)


def load_language_model(
    name: str | Path, needs_softmax: bool = True
) -> tuple[ElmoForPreTraining, ElmoTokenizer]:
    """The language model of a folder, or of a name on the Hub, and its tokenizer.

    >>> language_model, tokenizer = load_language_model(str(TINY))
    >>> type(language_model).__name__
    'ElmoForPreTraining'

    Args:
        name: the folder, or the name.
        needs_softmax: refuse a model without a softmax; otherwise it gets a random one.
    """
    model, missing = load_model(name, ElmoForPreTraining, needs="elmo.")
    if needs_softmax and missing:
        raise ElmoError(
            f"{name} has no softmax, so it gives vectors but predicts no words; convert it together with its "
            "softmax file, or train one."
        )
    tokenizer = load_tokenizer(name)
    check_pair(model, tokenizer, name)
    if not missing and model.config.vocab_size != tokenizer.vocab_size:
        raise ElmoError(
            f"{name} has a softmax of {model.config.vocab_size} words and a vocabulary of "
            f"{tokenizer.vocab_size}; save them as one."
        )
    return model, tokenizer


def vocabulary_fields(tokenizer: ElmoTokenizer) -> dict[str, int]:
    """The fields of a config that follow from the tokenizer's words."""
    return {
        "vocab_size": tokenizer.vocab_size,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "unk_token_id": tokenizer.unk_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def describe_model(folder: str | Path) -> dict[str, Any]:
    """A checkpoint's config, sizes and checksums, from its files; no weight is loaded."""
    folder = Path(folder)
    config = load_config(folder)
    with _refusing(folder):
        weights = folder_elmo.ElmoFolder(folder, {}).weights()
    if not weights:
        raise ElmoError(f"{folder} has no weights (*.safetensors).")
    shapes = {name: shape for path in weights for name, shape in tensor_shapes(path).items()}
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    left_out = {"_name_or_path", "transformers_version"}
    plain = json.loads(json.dumps(config.to_dict()))  # as it will be read again
    return {
        "config": {name: value for name, value in plain.items() if name not in left_out},
        "hidden_size": config.hidden_size,
        "parameters": sum(sizes.values()),
        "softmax_parameters": sum(size for name, size in sizes.items() if name.startswith("lm_head.")),
        "files": {path.name: checksum(path) for path in weights},
    }


def tensor_shapes(path: Path) -> dict[str, list[int]]:
    """The shape of each tensor of a safetensors file, by its header."""
    try:
        return {name: list(shape) for name, shape in folder_elmo.tensor_shapes(path).items()}
    except (ValueError, OSError) as error:
        raise ElmoError(str(error)) from None


# What loading by Transformers' classes may raise, to a caller that names the folder itself.
FAULTS = (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError, AttributeError)
