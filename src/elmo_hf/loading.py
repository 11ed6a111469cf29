"""A model and its tokenizer from a folder, or by a name on the Hub; what is wrong with them is one sentence.

    elmo, tokenizer = load("my-elmo", ElmoModel)
    tagger, missing = load_model("my-elmo", ElmoForTokenClassification, needs="elmo.")

`from_pretrained` is made for whoever reads its tables and warnings: it draws what a folder lacks by chance,
and tells of it in passing. Commands want a whole model or a reason.
"""

import json
import math
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from transformers.utils import logging

from elmo_hf import kernels
from elmo_hf.errors import ElmoError, reason_of
from elmo_hf.files import checksum
from elmo_hf.model.configuration_elmo import ElmoConfig
from elmo_hf.model.modeling_elmo import ElmoModel, ElmoPreTrainedModel
from elmo_hf.model.modeling_elmo_pretraining import ElmoForPreTraining
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
            raise ElmoError(f"the weights in {name} are damaged: {error}.") from None
        except RuntimeError:  # sizes differ, which the library tells in a table
            raise ElmoError(f"the weights in {name} are not of the shape in its config.json.") from None
        except FAULTS as error:
            raise _refusal(name, error) from None
    model, report = found
    missing = sorted(report["missing_keys"])
    needed = [key for key in missing if key.startswith(needs)]
    if needed:
        raise ElmoError(f"{name} lacks {len(needed)} of the model's weights, such as {needed[0]}.")
    return model, missing


def load_config(name: str | Path) -> ElmoConfig:
    try:
        settings, _ = ElmoConfig.get_config_dict(name)
        if settings.get("model_type") != "elmo":
            kind = repr(settings.get("model_type"))
            raise ElmoError(f"it holds a model of type {kind:.40}")
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
        raise ElmoError(
            f"{name} has a model with {setting} {wanted} and a tokenizer with {found}; save them as one."
        )


def _refusal(name: str | Path, error: Exception) -> ElmoError:
    if not Path(name).exists() and not NAME_ON_THE_HUB.fullmatch(str(name)):
        return ElmoError(
            f"no ELMo can be loaded from {name}: there is no such folder, and no name on the Hub looks so."
        )
    return ElmoError(f"no ELMo can be loaded from {name}: {reason_of(error)}.")


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
    return model, load_tokenizer(name)


def special_ids(tokenizer: ElmoTokenizer) -> dict[str, int]:
    return {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "unk_token_id": tokenizer.unk_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def describe_model(folder: str | Path) -> dict[str, Any]:
    """A checkpoint's config, sizes and checksums, from its files; no weight is loaded."""
    folder = Path(folder)
    config = load_config(folder)
    single = (
        folder / "model.safetensors"
    )  # which is loaded in place of shards; an optimizer's are not the model's
    weights = [single] if single.exists() else sorted(folder.glob("model-*.safetensors"))
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
    """By the header of a safetensors file: its length in eight bytes, and JSON."""
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(MAX_HEADER, path.stat().st_size):
            raise ElmoError(f"{path} is no safetensors file, or cut off; save or download it again.")
        try:
            header = json.loads(file.read(length))
            return {
                name: [int(size) for size in entry["shape"]]
                for name, entry in header.items()
                if name != "__metadata__"
            }
        except (ValueError, TypeError, KeyError, AttributeError):
            raise ElmoError(
                f"{path} is no safetensors file, or damaged; save or download it again."
            ) from None


MAX_HEADER = 100_000_000
