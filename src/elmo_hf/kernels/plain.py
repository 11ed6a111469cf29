"""Whether modules do exactly what their classes' code says, so that faster code may take their place.

A replacement skips the calls of the modules that it replaces. Whatever else such a call would do (a hook, an
adapter, a subclass, a parametrization, a patched `forward`) would be lost without a word. So modules are
looked at in every call, and only what is known is replaced:

- torch's own classes and those of `modeling_elmo.py`, `encoders_elmo.py` and `layers_elmo.py`: the files of
  this package, copies of them that were saved with a model, or the file of a released version (`RELEASED`). A
  copy that was edited is not known.
- their methods as they were written, patched neither in the class nor in the module.
- no hooks, neither of the module nor of all modules.
- the settings that the replacements assume, such as a convolution without padding.
"""

import re
import sys
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from torch.nn.modules import module as torch_modules

_MODEL_FOLDER = Path(__file__).parents[1] / "model"
MODEL_FILES = [str(_MODEL_FOLDER / f"{name}_elmo.py") for name in ("modeling", "encoders", "layers")]
# SHA-256 of `modeling_elmo.py` in released versions, whose classes (all in this file) and definitions are the
# same.
RELEASED = {"0.1.0": "3e394ad64d9f7ce73842a0e00e1021486862062c7df33046b10139fe69028459"}

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_GLOBAL_HOOKS = tuple(getattr(torch_modules, "_global" + name) for name in _HOOKS)
_CALL = nn.Module.__call__
# What other libraries replace in the outermost module, and what no replacement skips.
_OUTER_METHODS = frozenset({"forward", "to", "cuda", "npu", "xpu", "mlu", "musa", "sdaa"})
_SIMPLE = frozenset({bool, int, float, str, tuple, type(None)})


class NotPlain(Exception):
    """A module may do something else than its class's code says; the message says which and why."""


def why_not_plain(root: nn.Module, name: str) -> str:
    """Why a module in `root`, which messages call `name`, is not plain; empty if all are."""
    try:
        settings(root, name)
    except NotPlain as reason:
        return str(reason)
    return ""


def settings(root: nn.Module, name: str) -> tuple[Any, ...]:
    """Every setting of the modules in `root`: their results depend on these and on their weights alone.

    The root's own `forward` runs and is not skipped, so hooks of the root do not matter.

    Raises:
        NotPlain: if a module is not known, or is changed.
    """
    if any(_GLOBAL_HOOKS):
        raise NotPlain("a hook is registered for all modules")
    if nn.Module.__call__ is not _CALL:
        raise NotPlain("torch.nn.Module is patched")
    values: list[Any] = []
    configs: dict[int, Any] = {}
    methods: dict[type, frozenset[str] | None] = {}
    for path, module in _modules_of(root):
        cls = type(module)
        if cls not in methods:  # a class is looked at once for all its modules
            methods[cls] = _methods_of(cls)
        reason = _why_not(module, path, methods[cls])
        if reason:
            raise NotPlain(f"{name}{path} ({type(module).__name__}) {reason}")
        attributes = module.__dict__
        values += [value for value in attributes.values() if type(value) in _SIMPLE]
        if "config" in attributes:
            configs[id(attributes["config"])] = attributes["config"]
    return (*values, *(repr(vars(config)) for config in configs.values()))


def why_not_root(model: nn.Module) -> str:
    """Why calling the model may do something else than its own `forward`, as `why_not_plain` for the rest."""
    return _why_not(model, "called", _methods_of(type(model)))


def is_original(function: Any) -> bool:
    """Whether a function of `modeling_elmo.py` is the one that was written there."""
    return isinstance(function, FunctionType) and _is_known(function.__module__, function)


def weights_of(root: nn.Module) -> list[Tensor]:
    """All parameters and buffers, in a tenth of the time of `parameters()`; shared ones may come twice."""
    return [
        weight
        for _, module in _modules_of(root)
        for weights in (module._parameters, module._buffers)
        for weight in weights.values()
        if weight is not None
    ]


def _modules_of(root: nn.Module) -> list[tuple[str, nn.Module]]:
    """All modules with their places below the root."""
    modules = [("", root)]
    for path, module in modules:  # grows meanwhile
        modules += [(f"{path}.{name}", child) for name, child in module._modules.items() if child is not None]
    return modules


def _why_not(module: Any, path: str, methods: frozenset[str] | None) -> str:
    """`path` is the module's place below the root; empty for the root itself, which is not called."""
    cls, attributes, is_root = type(module), module.__dict__, not path
    if methods is None:
        return "is of a class that the kernels do not know, or that is patched"
    torch_class = cls if cls in _TORCH else cls.__mro__[1]
    if torch_class in _TORCH and not _PLACES[torch_class].search(path):
        return "is in the place of another module"
    if not methods.isdisjoint(attributes):
        replaced = {name for name in methods.intersection(attributes) if attributes[name] is not None}
        if replaced and not (is_root and replaced <= _OUTER_METHODS):
            return f"has another {min(replaced)} than its class"
    if not is_root:
        for name in _HOOKS:
            if attributes[name]:
                return "has a hook"
    for name, value in _ASSUMED.get(cls, ()):
        if attributes[name] != value:
            return f"has {name}={attributes[name]!r}"
    for name in _WEIGHTS.get(torch_class, ()):
        if attributes["_parameters"].get(name) is None:
            return f"has no parameter {name}"
    for value in attributes.values():
        if type(value) not in _SIMPLE and isinstance(value, Tensor):
            return "has a tensor that is no parameter"
    if torch_class is nn.Dropout and attributes["training"] and attributes["p"]:
        return "drops numbers at random"
    if torch_class is nn.LSTM and not _reads_its_parameters(module):
        return "reads other weights than its parameters"
    return ""


def _reads_its_parameters(rnn: nn.LSTM) -> bool:
    """A recurrent module of torch has a second list of its weights, which it reads."""
    weights = list(rnn._parameters.values())
    flat = rnn._flat_weights
    return len(flat) == len(weights) and all(a is b for a, b in zip(flat, weights, strict=True))


# ---- classes


def _method_names(cls: type) -> frozenset[str]:
    return frozenset(name for name in dir(cls) if callable(getattr(cls, name, None)))


# The settings that the replacements assume of torch's own classes.
_CONVOLUTION = {"stride": (1,), "padding": (0,), "dilation": (1,), "groups": 1, "padding_mode": "zeros"}
_EMBEDDING = {"max_norm": None, "scale_grad_by_freq": False, "sparse": False}
_ASSUMED: dict[type, list[tuple[str, Any]]] = {
    nn.Conv1d: list(_CONVOLUTION.items()),
    nn.Embedding: list(_EMBEDDING.items()),
}
_WEIGHTS = {
    nn.Linear: ("weight", "bias"),
    nn.Conv1d: ("weight", "bias"),
    nn.Embedding: ("weight",),
    nn.LSTM: ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"),
}
# Where they stand in a model.
_PLACES = {
    nn.Linear: re.compile(r"\.(carry|transform|projection)$"),
    nn.Conv1d: re.compile(r"\.convolutions\.\d+$"),
    nn.Embedding: re.compile(r"\.(char|word)_embedding$"),
    nn.Identity: re.compile(r"\.projection$"),
    nn.Dropout: re.compile(r"\.dropout$"),
    nn.ModuleList: re.compile(r"\.(convolutions|highways|layers|forward_layers|backward_layers)$"),
    nn.LSTM: re.compile(r"\.(forward|backward)_layers\.\d+$"),
}


def _functions_of(cls: type) -> dict[str, FunctionType]:
    return {name: value for name, value in vars(cls).items() if isinstance(value, FunctionType)}


class _Class(NamedTuple):
    """A class as it was before anybody could patch it, or when it was found to be as it was written."""

    names: list[str]  # of its own functions, and of those that calling an instance uses
    functions: list[Any]
    methods: frozenset[str]  # the names of all methods

    @classmethod
    def of(cls, known: type, ours: Sequence[type] = ()) -> "_Class":
        """`ours` are the classes whose functions it has: itself, and those of the same files below it."""
        own = [name for base in ours or [known] for name in _functions_of(base)]
        names = [*own, "forward", "__call__", "_call_impl"]
        return cls(names, [getattr(known, name) for name in names], _method_names(known))

    def is_unchanged(self, known: type) -> bool:
        return self.functions == [getattr(known, name, None) for name in self.names]

    def is_inherited_by(self, cls: type) -> bool:
        """Whether a class below it has the same functions, but for those that it defines itself."""
        own, pairs = _functions_of(cls), zip(self.names, self.functions, strict=True)
        return all(name in own or getattr(cls, name, None) == function for name, function in pairs)


_TORCH = {cls: _Class.of(cls) for cls in _PLACES}
_known: Any = WeakKeyDictionary()  # class of our files -> _Class


def _methods_of(cls: type) -> frozenset[str] | None:
    """The names of a class's methods; None if it is not known or is patched."""
    seen = _TORCH.get(cls) or _known.get(cls)
    if seen is not None and seen.is_unchanged(cls):
        return seen.methods
    if cls in _TORCH or not _is_of_a_known_file(cls):
        return None
    ours = [base for base in cls.__mro__ if _is_of_a_known_file(base)]
    functions = [(base.__module__, function) for base in ours for function in _functions_of(base).values()]
    base = _TORCH.get(cls.__mro__[1])  # such as nn.Linear, whose forward the class inherits
    if not all(_is_known(*pair) for pair in functions) or (base and not base.is_inherited_by(cls)):
        return None
    _known[cls] = _Class.of(cls, ours)
    return _known[cls].methods


def _is_of_a_known_file(cls: type) -> bool:
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return file is not None and _is_known_file(file)


def _is_known(module: str, function: Any) -> bool:
    """Whether a function of a module was written in its file, and the file is known."""
    while hasattr(function, "__wrapped__"):
        if not function.__code__.co_filename.startswith(_DECORATORS):
            return False
        function = function.__wrapped__
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and function.__code__.co_filename == file and _is_known_file(file)


# Where the decorators of our files come from.
_DECORATORS = tuple(
    str(Path(spec.origin).parent)
    for spec in map(find_spec, ("torch", "transformers", __package__))
    if spec is not None and spec.origin is not None
)


def _is_known_file(file: str) -> bool:
    if file in MODEL_FILES:
        return True
    try:
        return _is_known_content(file, Path(file).stat().st_mtime_ns)
    except OSError:
        return False


@cache
def _is_known_content(file: str, modified: int) -> bool:
    content = Path(file).read_bytes()
    is_copy = any(content == Path(path).read_bytes() for path in MODEL_FILES)
    return is_copy or sha256(content).hexdigest() in RELEASED.values()
