"""The files of a folder or a repository, checked before Transformers opens them; each fault is one sentence.

    folder = ElmoFolder("my-elmo", {"revision": "main"})
    folder.read_object("config.json")      # a JSON object, or None if there is no such file
    folder.check_shapes(expected)          # of each tensor, by the headers of the safetensors files

A folder may come from anybody. What is read is a plain file inside it: no link and no shard's name leads out,
nothing is a pickle, and no number in a file decides how much memory or time is spent.
"""

import json
import math
import re
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers.utils import cached_file

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZER_OBJECTS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.json",
)
TOKENIZER_TEXTS = ("vocab.txt", "letters.json", "chat_template.jinja")
HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")
SHARD_NAME = re.compile(r"\w[\w.-]*\.safetensors")
DISTRIBUTED = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")
FLOATS = {"F16", "BF16", "F32", "F64"}  # the types of tensors that a model is loaded from
MAX_JSON = 2**24  # bytes
MAX_HEADER = 10_000_000  # bytes of names and shapes; the original ELMo has 8,000
# Numbers that a model draws by chance; a softmax for the original's vocabulary has 0.4 * 10^9.
MAX_NEW = 2**29


def quoted(value: object, limit: int = 80) -> str:
    """A value from outside, fit for a message: without control characters, and cut in the middle."""
    text = str(value) if isinstance(value, (str, Path, int, float)) else repr(value)
    if len(text) > limit:
        text = f"{text[: limit - 20]}...{text[-17:]}"
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


@contextmanager
def library_errors(name: object) -> Iterator[None]:
    """An error that a library raises on a file, whatever its type, becomes a `ValueError` that names the
    folder. Those that have a message for readers pass."""
    try:
        yield
    except (OSError, ValueError, ImportError):
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".: ")
        message = f"{quoted(name)} cannot be loaded: {type(error).__name__}: {quoted(reason, 200)}."
        raise ValueError(message) from error


class ElmoFolder:
    """A folder on this disk, or a name on the Hub, whose files are downloaded when they are first asked for.

    Args:
        name: as for `from_pretrained`.
        options: those of `from_pretrained`; the ones that say where the files are count.
    """

    def __init__(self, name: str | Path, options: Mapping[str, Any]) -> None:
        self.name = str(name)
        self.hub = {key: options[key] for key in HUB_OPTIONS if options.get(key) is not None}
        self.variant = options.get("variant")
        self.is_local = Path(self.name).is_dir()

    def path(self, file: str) -> Path | None:
        """A plain file inside the folder, or None if there is none of this name."""
        if self.is_local:
            path = Path(self.name, self.hub.get("subfolder", ""), file)
            return check_inside(path) if path.exists() or path.is_symlink() else None
        cached = cached_file(self.name, file, _raise_exceptions_for_missing_entries=False, **self.hub)
        return check_inside(Path(cached)) if cached is not None else None

    def check_names(self) -> None:
        """Refuse what Transformers would load in place of the weights, or beside them, from elsewhere."""
        names = [path.name for path in Path(self.name).iterdir()] if self.is_local else []
        for name in sorted(names):
            if name == "adapter_config.json":
                raise ValueError(
                    f"{quoted(self.name)} holds an adapter of PEFT (adapter_config.json); load the model "
                    "from a folder of its own, then the adapter: PeftModel.from_pretrained(model, folder)."
                )
            if DISTRIBUTED.fullmatch(name):
                raise ValueError(
                    f"{quoted(self.name)} holds {name}, which an ELMo is not loaded with; remove the file."
                )

    def read_object(self, file: str) -> dict[str, Any] | None:
        path = self.path(file)
        return read_object(path) if path is not None else None

    def check_tokenizer(self) -> None:
        """Refuse what Transformers would read wrongly, or from elsewhere, for a tokenizer."""
        settings, *_ = [self.read_object(file) or {} for file in TOKENIZER_OBJECTS]
        for file in TOKENIZER_TEXTS:
            self.path(file)
        for key in ("vocab_file", "letters_file", "tokenizer_file", "fast_tokenizer_files", "init_inputs"):
            if settings.get(key):  # Transformers would read another file for one of the folder
                raise ValueError(
                    f"the tokenizer_config.json of {quoted(self.name)} must not have the option '{key}'; "
                    "the words are those of vocab.txt beside it, and the letters those of letters.json."
                )
        if not isinstance(settings.get("auto_map", {}), dict):  # saving adds its class to it
            raise ValueError(
                f"the tokenizer_config.json of {quoted(self.name)} must have an object for 'auto_map', "
                "but has another value; save the tokenizer again."
            )

    def weights(self) -> list[Path]:
        """The safetensors files; none if there is neither one nor an index."""
        single = self.path(self._with_variant(WEIGHTS))
        if single is not None:
            return [single]
        index = self.path(self._with_variant(INDEX))
        return [self._shard(index, name) for name in shard_names(index)] if index is not None else []

    def _with_variant(self, name: str) -> str:
        stem, _, suffix = name.rpartition(".")
        return f"{stem}.{self.variant}.{suffix}" if self.variant else name

    def _shard(self, index: Path, name: str) -> Path:
        path = self.path(name)
        if path is None:
            raise ValueError(f"{index} names {quoted(name)}, which is not there; save or download it again.")
        return path

    def check_shapes(self, expected: Mapping[str, tuple[int, ...]], may_differ: bool = False) -> None:
        """Compare what a model expects, by name, with the weights, before memory is spent on either."""
        weights = self.weights()
        stored = {name: shape for path in weights for name, shape in tensor_shapes(path).items()}
        missing = dict(expected)
        for name, shape in stored.items():
            own = next((key for key in _names(name) if key in expected), None)
            if own is None or (shape != expected[own] and may_differ):
                continue
            if shape != expected[own]:
                raise ValueError(
                    f"the weights in {quoted(self.name)} are not of the shape in its config.json: "
                    f"{quoted(name)} is {shape}, and the config asks for {expected[own]}."
                )
            missing.pop(own, None)
        new = sum(math.prod(shape) for shape in missing.values())
        if weights and new > MAX_NEW:
            raise ValueError(
                f"the config.json of {quoted(self.name)} asks for {new:,} numbers that its weights lack, "
                "more than are drawn by chance; lower its sizes."
            )


def _names(name: str) -> tuple[str, ...]:
    """The names under which a model may have a tensor: a task model has those of the biLM below `elmo.`"""
    return name, f"elmo.{name}", name.removeprefix("elmo.")


def check_inside(path: Path) -> Path:
    """A plain file whose links, if any, stay inside its folder or, in the Hub's cache, its repository."""
    folder = path.parent.resolve()
    root = next((above.parent for above in (folder, *folder.parents) if above.name == "snapshots"), folder)
    if not path.is_file():
        raise ValueError(f"{quoted(path, 200)} is no plain file; put a file of that name there.")
    if not path.resolve().is_relative_to(root):
        raise ValueError(
            f"{quoted(path, 200)} is a link that leads out of the folder; copy the file instead."
        )
    return path


def read_object(path: Path, unique_keys: bool = False) -> dict[str, Any]:
    """A JSON object from a file of a bounded size. With `unique_keys`, a key that stands twice is refused."""
    size = path.stat().st_size
    if size > MAX_JSON:
        raise ValueError(f"{quoted(path, 200)} has {size:,} bytes, more than the {MAX_JSON:,} that are read.")
    try:
        text = path.read_bytes().decode("utf-8")
        value = json.loads(text, object_pairs_hook=_unique if unique_keys else None)
    except (ValueError, RecursionError) as error:
        reason = quoted(str(error).partition(": line")[0], 100)
        raise ValueError(
            f"{quoted(path, 200)} is no JSON text ({reason}); save or download it again."
        ) from None
    if not isinstance(value, dict):
        raise ValueError(f"{quoted(path, 200)} must hold a JSON object, but holds {type(value).__name__}.")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; of two equal keys, the parser would keep the last."""
    value = dict(pairs)
    if len(value) < len(pairs):
        [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"{key!r} stands there twice")
    return value


def shard_names(index: Path) -> list[str]:
    """The files that an index of shards names, which must be safetensors files of the same folder."""
    content = read_object(index)
    names = content.get("weight_map")
    if not isinstance(names, dict) or not names or not isinstance(content.get("metadata"), dict):
        raise ValueError(
            f"{quoted(index, 200)} must hold a 'weight_map' of tensors and 'metadata'; save or download it "
            "again."
        )
    for name in names.values():
        if not isinstance(name, str) or not SHARD_NAME.fullmatch(name):
            raise ValueError(
                f"{quoted(index, 200)} names {quoted(name)}, but a shard is a file *.safetensors beside it."
            )
    return sorted(set(names.values()))


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor, by the header of a safetensors file, which must fit the file."""
    damaged = f"the weights in {quoted(path.parent, 200)} are damaged: {path.name} is no safetensors file"
    with path.open("rb") as file:
        start = file.read(8)
    if len(start) < 8 or struct.unpack("<Q", start)[0] > MAX_HEADER:
        raise ValueError(f"{damaged}, or cut off; save or download it again.")
    try:
        with safe_open(path, framework="np") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 (no mapping)
            types = {name: tensor.get_dtype() for name, tensor in slices.items()}
            shapes = {name: tuple(tensor.get_shape()) for name, tensor in slices.items()}
    except (SafetensorError, OverflowError, MemoryError) as error:
        raise ValueError(f"{damaged} ({quoted(error, 150)}); save or download it again.") from None
    for name, kind in types.items():
        if kind not in FLOATS:
            raise ValueError(
                f"the weights in {quoted(path, 200)} are wrong: {quoted(name)} is of type {kind}, not of "
                f"{', '.join(sorted(FLOATS))}."
            )
    return shapes
