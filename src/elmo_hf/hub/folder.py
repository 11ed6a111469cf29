"""The model in a folder that is uploaded: its weights, its code, and that it loads."""

import os
import re
from pathlib import Path
from typing import Any

import transformers
from transformers.dynamic_module_utils import get_relative_imports

from elmo_hf.errors import ElmoError, reason_of
from elmo_hf.hub.reading import a_text, anything, brief, check, is_text, read_json, read_text
from elmo_hf.loading import FAULTS, check_pair, load_config, tensor_shapes
from elmo_hf.model.tokenization_elmo import ElmoTokenizer

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
OPTIMIZER = "adagrad.safetensors"  # Adagrad's sums of squared gradients, by the names of the weights
MAX_READ = 50_000_000  # bytes of a file that is not weights


def check_loads(folder: Path) -> None:
    """The model and its tokenizer load as `from_pretrained` will load them."""
    load_config(folder)
    try:
        model, report = auto_class(folder).from_pretrained(
            folder, output_loading_info=True, use_safetensors=True
        )
        tokenizer = ElmoTokenizer.from_pretrained(folder)
    except FAULTS as error:
        raise ElmoError(f"{folder} does not load: {reason_of(error)}.") from None
    problems = sorted(
        str(key) for name in ("missing", "unexpected", "mismatched") for key in report[f"{name}_keys"]
    )
    if problems:
        raise ElmoError(f"{folder} does not load: its weights do not fit its config, as {problems[0]}.")
    for name, weight in model.state_dict().items():
        if not weight.isfinite().all():
            raise ElmoError(f"{folder} has weights that are no numbers, as {name}; nobody could use it.")
    words, config = tokenizer.vocab_size, model.config
    is_of_words = config.token_encoder == "words" or config.reads_word_column
    has_words = hasattr(model, "lm_head") or is_of_words or config.task_word_dim > 0
    if words != config.vocab_size and has_words:
        raise ElmoError(f"{folder} has a model of {config.vocab_size} words, and a tokenizer of {words}.")
    check_pair(model, tokenizer, folder)


def weights_of(folder: Path) -> list[Path]:
    """The files of the weights that are loaded: one, or an index and the shards that it names."""
    if os.path.lexists(folder / WEIGHTS):
        return [folder / WEIGHTS]
    index = folder / INDEX
    if not os.path.lexists(index):
        raise ElmoError(f"{folder} has no {WEIGHTS}; save the model with save_pretrained.")
    names = check(str(index), read_json(index, MAX_READ), {"weight_map": {"": a_shard}, "": anything})
    return [index, *(folder / name for name in sorted(set(names["weight_map"].values())))]


def a_shard(value: Any) -> str:
    is_name = is_text(value) and re.fullmatch(r"\w[\w.-]*\.safetensors", value, re.ASCII)
    if not is_name or value == OPTIMIZER:
        raise ElmoError("must be the name of a .safetensors file in the folder")
    return str(value)


def references(value: Any) -> list[str]:
    """Of one or several classes: FILE.CLASS, and never another repository or folder."""
    entries = [entry for entry in (value if isinstance(value, list) else [value]) if entry is not None]
    for entry in entries:
        if not is_text(entry) or not re.fullmatch(r"[a-z_]\w*\.[a-z_]\w*", entry, re.ASCII | re.IGNORECASE):
            raise ElmoError("must name a class as FILE.CLASS, of a file in the folder")
    return entries


CLASSES = {"auto_map?": {"": references}, "architectures?": [a_text], "": anything}


def read_classes(path: Path) -> dict[str, Any]:
    """A config or a tokenizer's config, of which `auto_map` has {"AutoModel": ["file.Class"]}."""
    content = read_json(path, MAX_READ) if os.path.lexists(path) else {}
    return {"auto_map": {}, "architectures": ["its model"]} | check(str(path), content, CLASSES)


def auto_class(folder: Path) -> Any:
    """The Auto class that loads the folder's model with its head."""
    config = read_classes(folder / "config.json")
    architecture = config["architectures"][0]
    for name, classes in config["auto_map"].items():
        names = [reference.split(".")[1] for reference in classes]
        if architecture in names and name.startswith("AutoModel") and hasattr(transformers, name):
            return getattr(transformers, name)
    raise ElmoError(
        f"config.json names no Auto class for {architecture:.80} in its auto_map; use save_pretrained."
    )


def code_of(folder: Path, weights: list[Path]) -> list[Path]:
    """The Python files that the config and the tokenizer name, and those that they import."""
    needed = [("config.json", "AutoConfig"), ("tokenizer_config.json", "AutoTokenizer")]
    shards = [path for path in weights if path.suffix == ".safetensors"]
    if any(name.startswith("elmo.") for path in shards for name in tensor_shapes(path)):
        needed.append(("config.json", "AutoModel"))  # a head without ELMo has none
    maps = {name: read_classes(folder / name)["auto_map"] for name, _ in needed}
    for name, key in needed:
        if key not in maps[name]:
            raise ElmoError(f"{folder / name} has no {key} in its auto_map; save it with save_pretrained.")
    classes = [reference for entry in maps.values() for listed in entry.values() for reference in listed]
    waiting, files = sorted({reference.split(".")[0] for reference in classes}), dict[str, Path]()
    while waiting:
        name = waiting.pop()
        files[name] = path = folder / f"{name}.py"
        if not os.path.lexists(path):
            raise ElmoError(
                f"{folder} lacks {path.name}, which its model needs; save it with save_pretrained."
            )
        read_text(path)  # a plain file in UTF-8
        for module in get_relative_imports(path):
            if not re.fullmatch(r"[a-z_]\w*", module, re.ASCII | re.IGNORECASE):
                raise ElmoError(
                    f"{path} imports {brief(module)}, which is not beside it; copy what it needs."
                )
            waiting += [module] if module not in files else []
    return [files[name] for name in sorted(files)]


def optimizer_of(folder: Path) -> Path:
    path = folder / OPTIMIZER
    if not os.path.lexists(path):
        raise ElmoError(f"{folder} has no {OPTIMIZER}; leave out --with-optimizer.")
    return path


def check_optimizer(files: list[Path], weights: list[Path]) -> None:
    """The optimizer's state, if there is a file of it, has the shapes of the weights that it belongs to."""
    shapes: dict[str, list[int]] = {}
    for path in weights:
        shapes |= tensor_shapes(path) if path.suffix == ".safetensors" else {}
    for path in files:
        for name, shape in tensor_shapes(path).items():
            # A model without a softmax may be converted from a checkpoint whose names are of one with it.
            if shapes.get(name, shapes.get(name.removeprefix("elmo."))) != shape:
                raise ElmoError(f"{path} is not of this model: its {brief(name)} fits none of the weights.")
