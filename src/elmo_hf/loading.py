"""A model and its tokenizer from a folder, or by a name on the Hub; what is wrong with them is one sentence.

    elmo, tokenizer = load("my-elmo", ElmoModel)
    tagger, missing = load_model("my-elmo", ElmoForTokenClassification, needs="elmo.")

`from_pretrained` is made for whoever reads its tables and warnings: it draws what a folder lacks by chance,
and tells of it in passing. Commands want a whole model or a reason.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from transformers.utils import logging

from elmo_hf.model.configuration_elmo import ElmoConfig
from elmo_hf.model.modeling_elmo import ElmoPreTrainedModel
from elmo_hf.model.tokenization_elmo import ElmoTokenizer

Model = TypeVar("Model", bound=ElmoPreTrainedModel)
NAME_ON_THE_HUB = re.compile(r"[\w.-]+(/[\w.-]+)?")
FAULTS = (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError)  # of loading a folder


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
    with _quiet():
        try:
            found: Any = kind.from_pretrained(
                name, output_loading_info=True, use_safetensors=True, **settings
            )
        except SafetensorError as error:
            raise ValueError(f"the weights in {name} are damaged: {error}.") from None
        except RuntimeError:  # sizes differ, which the library tells in a table
            raise ValueError(f"the weights in {name} are not of the shape in its config.json.") from None
        except FAULTS as error:
            raise _refusal(name, error) from None
    model, report = found
    missing = sorted(report["missing_keys"])
    needed = [key for key in missing if key.startswith(needs)]
    if needed:
        raise ValueError(f"{name} lacks {len(needed)} of the model's weights, such as {needed[0]}.")
    return model, missing


def load_config(name: str | Path) -> ElmoConfig:
    try:
        settings, _ = ElmoConfig.get_config_dict(name)
        if settings.get("model_type") != "elmo":
            kind = repr(settings.get("model_type"))
            raise ValueError(f"it holds a model of type {kind:.40}")
        config: ElmoConfig = ElmoConfig.from_dict(settings)
    except FAULTS as error:
        raise _refusal(name, error) from None
    return config


def load_tokenizer(name: str | Path) -> ElmoTokenizer:
    with _quiet():
        try:
            tokenizer: ElmoTokenizer = ElmoTokenizer.from_pretrained(name)
        except FAULTS as error:
            raise _refusal(name, error) from None
    return tokenizer


def check_pair(model: ElmoPreTrainedModel, tokenizer: ElmoTokenizer, name: str | Path) -> None:
    """Both must be of one model: a word has so many letters, or a table so many words."""
    letters = model.config.token_encoder == "characters"
    setting = "max_characters_per_token" if letters else "vocab_size"
    wanted, found = getattr(model.config, setting), getattr(tokenizer, setting)
    if wanted != found:
        raise ValueError(
            f"{name} has a model with {setting} {wanted} and a tokenizer with {found}; save them as one."
        )


def first_line(error: BaseException) -> str:
    """What an error says, without the advice that follows."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0]


def _refusal(name: str | Path, error: Exception) -> ValueError:
    if not Path(name).exists() and not NAME_ON_THE_HUB.fullmatch(str(name)):
        return ValueError(
            f"no ELMo can be loaded from {name}: there is no such folder, and no name on the Hub looks so."
        )
    return ValueError(f"no ELMo can be loaded from {name}: {first_line(error).rstrip('.:')}.")


@contextmanager
def _quiet() -> Iterator[None]:
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
