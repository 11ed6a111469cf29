"""A small ELMo of a random shape, and the ways to call it, for tests of random sequences of changes.

subject = Subject(seed=0)      # .model is an ElmoModel, or a task model around one
CALLS["read"](subject, batch)  # {"hidden_states.0": tensor, ...}
"""

import contextlib
import copy
import random
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.func import functional_call

from elmo_hf import (
    ElmoConfig,
    ElmoForPreTraining,
    ElmoForSemanticRoleLabeling,
    ElmoForSequenceClassification,
    ElmoForTokenClassification,
    ElmoLayerCache,
    ElmoModel,
    kernels,
)
from elmo_hf.kernels import training
from elmo_hf.model.configuration_elmo import NEWER_OPTIONS
from elmo_hf.model.words_elmo import WORD_PAD, character_ids

LETTERS = "ehnrt"  # of the sentences below; what changes one of them changes the words' vectors
LETTER_IDS = [ord(letter) + 1 for letter in LETTERS]
SENTENCES = [["the", "tenth", "tree"], ["he", "ne", "Ren", "eeeeethhhhrnt", "he"], [], ["nether"]]
VOCABULARY = 9
CHARACTERS = 16  # in a row of ids
HEADS = {
    "biLM": ElmoModel,
    "language model": ElmoForPreTraining,
    "tagger": ElmoForTokenClassification,
    "role labeller": ElmoForSemanticRoleLabeling,
    "classifier": ElmoForSequenceClassification,
}
Results = dict[str, Tensor]


class NotApplicable(Exception):
    """The operation does not fit this model, for example because it has no such module."""


class Subject:
    """A model, its random numbers, and how to undo what was done to it.

    Args:
        seed: of the model's shape and weights.
        sure: settings that are not left to chance.
    """

    def __init__(self, seed: int, **sure: Any) -> None:
        self.random = random.Random(seed)
        self.options = random_options(self.random) | sure
        options = dict(self.options)
        self.head, dtype = options.pop("head"), options.pop("dtype")
        cache, warm, self.long_steps = (options.pop(name) for name in ("cache", "warm", "long_steps"))
        torch.manual_seed(seed)
        self.model: Any = HEADS[self.head](ElmoConfig(**options)).eval()
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        config = self.bilm.config
        if warm and config.token_encoder == "characters" and config.reads_bytes:
            self.bilm.warm_up(["he", "the tree"])
            self.bilm.config.use_warm_state = True
        self.model.to(dtype)
        self.undo: list[Callable[[], Any]] = []
        self.handles: list[Any] = []  # of hooks
        self.keep: list[Any] = []  # other models and tensors that share memory with the model
        self.has_nan = False
        self._folder: Any = None
        if cache:
            self.model.elmo_cache = ElmoLayerCache(self.folder if cache == "file" else None)

    @property
    def folder(self) -> Path:
        self._folder = self._folder or tempfile.TemporaryDirectory()
        return Path(self._folder.name)

    @property
    def bilm(self) -> Any:
        return self.model if isinstance(self.model, ElmoModel) else self.model.elmo

    @property
    def has_cache(self) -> bool:
        return getattr(self.model, "elmo_cache", None) is not None

    def __str__(self) -> str:
        """In short."""
        options, words = dict(self.options), []
        words.append(f"{options['head']} of {options['token_encoder']}")
        words.append(f"{options['num_hidden_layers']} layers, {options['lstm_dim']} cells")
        words.append(f"{options['num_highway_layers']} highways")
        words += [f"{name}={options[name]}" for name in ("projection_dim", "char_filters", "char_activation")]
        words += [f"{name}={options[name]}" for name in ("cell_clip", "proj_clip", "use_skip_connections")]
        words += [f"{name}={options[name]}" for name in ("warm", "cache", "dtype", "long_steps")]
        words += [f"{name}={options[name]}" for name in NEWER_OPTIONS if name in options]
        return ", ".join(words)

    @property
    def is_rounded(self) -> bool:
        """Whether some numbers are of half precision, so that only about two digits are the same."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return any(tensor.dtype in (torch.float16, torch.bfloat16) for tensor in tensors)

    def weights(self) -> list[tuple[nn.Module, str]]:
        """The biLM's parameters, by module and name. (A parametrized weight is not among them.)"""
        return [
            (module, name)
            for module in self.bilm.modules()
            for name, weight in module._parameters.items()
            if weight is not None and weight.is_floating_point() and weight.numel() and not weight.is_meta
        ]

    def weight(self, *names: str, of: Any = nn.Module) -> tuple[nn.Module, str]:
        """One of them by chance, if there are names one with such a name; of modules of a class."""
        fits = [
            (module, name)
            for module, name in self.weights()
            if isinstance(module, of) and (not names or name in names)
        ]
        if not fits:
            raise NotApplicable("no such weight")
        kinds = sorted({(type(module).__name__, name) for module, name in fits})
        kind = self.random.choice(kinds)  # first its kind, so that the rare ones are as likely
        return self.random.choice([(m, n) for m, n in fits if (type(m).__name__, n) == kind])

    def parameter(self, *names: str, of: Any = nn.Module) -> Tensor:
        module, name = self.weight(*names, of=of)
        return module._parameters[name]  # type: ignore[return-value]

    def module(self, of: Any = nn.Module, all_of_it: bool = True) -> tuple[str, Any]:
        """The name and one of the biLM's modules that are called, by chance; with the biLM itself or not."""
        modules = [
            (name, module)
            for name, module in self.bilm.named_modules()
            if isinstance(module, of) and not isinstance(module, nn.ModuleList) and (name or all_of_it)
        ]
        if not modules:
            raise NotApplicable("no such module")
        kind = self.random.choice(sorted({type(module).__name__ for _, module in modules}))
        return self.random.choice([pair for pair in modules if type(pair[1]).__name__ == kind])

    def place(self, module: Any, weight: Tensor) -> tuple[int, ...]:
        """Where a number of the weight is that matters to the sentences."""
        place = [self.random.randrange(size) for size in weight.shape]
        if isinstance(module, nn.Embedding) and weight.shape[0] > 200:
            place[0] = self.random.choice(LETTER_IDS)
        return tuple(place)

    def noise(self, weight: Tensor, size: float = 0.4) -> Tensor:
        """(the weight's shape)"""
        generator = torch.Generator().manual_seed(self.random.randrange(2**32))
        values = torch.randn(weight.shape, generator=generator, dtype=torch.float64) * size
        return values.to(weight.dtype)

    def use(self) -> None:
        """Let the fast code see the model as it is, so that it may keep what it computes of it."""
        choice = kernels.chosen()
        kernels.use("auto")
        with contextlib.suppress(Exception):
            read(self, random_batch(random.Random(0), self.bilm.config))
        kernels.use(choice)

    def clean_up(self) -> None:
        for action in reversed(self.undo):
            with contextlib.suppress(Exception):  # what it would undo is gone with an earlier model
                action()
        if self._folder is not None:
            self._folder.cleanup()


OPERATIONS: dict[str, Callable[[Subject], Any]] = {}  # all changes to a subject, by name


def operation(function: Callable[[Subject], Any]) -> Callable[[Subject], Any]:
    OPERATIONS[function.__name__] = function
    return function


def random_options(chance: random.Random) -> dict[str, Any]:
    projection = chance.choice([4, 6])
    filters = chance.choice([[[1, 2], [3, projection - 2]], [[1, 3], [2, 2], [5, 4]], [[2, projection]]])
    head = chance.choice([*["biLM"] * 4, "language model", "tagger", "tagger", "role labeller", "classifier"])
    has_cache = head not in ("biLM", "language model")
    options = {
        "head": head,
        "token_encoder": chance.choice([*["characters"] * 6, "words"]),
        "num_hidden_layers": chance.choice([1, 2, 2, 3]),
        "lstm_dim": chance.choice([projection, projection + 3]),
        "projection_dim": projection,
        "char_embedding_dim": chance.choice([3, 4]),
        "char_filters": filters,
        "char_activation": chance.choice(["relu", "tanh"]),
        "num_highway_layers": chance.choice([0, 1, 2]),
        "cell_clip": chance.choice([None, 0.3, 3.0]),
        "proj_clip": chance.choice([None, 0.2, 3.0]),
        "use_skip_connections": chance.random() < 0.7,
        "max_characters_per_token": CHARACTERS,
        "vocab_size": VOCABULARY,
        "id2label": {0: "O", 1: "B-X", 2: "I-X"},
        "task_hidden_size": 3,
        "task_num_layers": 1,
        "predicate_dim": 2,
        "warm": chance.random() < 0.25,
        "cache": chance.choice([None, "memory", "memory", "file"]) if has_cache else None,
        "dtype": chance.choice([*[torch.float32] * 12, torch.float64, torch.bfloat16]),
        "long_steps": chance.random() < 0.5,  # training as on a CPU with many cells
    }
    return options | rare_options(chance)


def rare_options(chance: random.Random) -> dict[str, Any]:
    """Of models that are not bilm-tf's: other letters, words beside them, a stack of LSTMs, stored mixes."""
    options: dict[str, Any] = {}
    if chance.random() < 0.3:
        options |= {"num_characters": 280, "boundary_characters": [271, 272, 273, 274, WORD_PAD]}
    if chance.random() < 0.3:
        options["word_embedding_dim"] = chance.choice([2, 6])
    if chance.random() < 0.2:
        options["lstm_projection"] = True
    if chance.random() < 0.15:
        options |= {"num_hidden_layers": 1, "stacked_lstm_layers": chance.choice([1, 2])}
        options |= {"lstm_projection": None, "warm": False}
    if chance.random() < 0.2:
        options["num_mixes"] = chance.choice([1, 2])
    return options


# ---- what it reads


def random_batch(chance: random.Random, config: ElmoConfig) -> dict[str, Tensor]:
    """Ids and masks of sentences, with padding on either side, and perhaps with a sentence of no word."""
    sentences = chance.choice([SENTENCES, SENTENCES[:2], SENTENCES[:1], [[], *SENTENCES[::-1]]])
    words = max(len(sentence) for sentence in sentences)
    char_ids = torch.zeros(len(sentences), words, CHARACTERS, dtype=torch.long)
    input_ids = torch.full((len(sentences), words), VOCABULARY)
    on_the_left = chance.random() < 0.3
    for row, sentence in enumerate(sentences):
        place = slice(words - len(sentence), None) if on_the_left else slice(0, len(sentence))
        char_ids[row, place] = torch.from_numpy(character_ids(sentence, CHARACTERS))
        input_ids[row, place] = torch.tensor([sum(map(ord, word)) % VOCABULARY for word in sentence]).long()
    is_word = input_ids < VOCABULARY
    if config.reads_word_column:
        char_ids = torch.cat([char_ids, torch.where(is_word, 1 + input_ids, 0)[:, :, None]], dim=2)
    return {"input_ids": input_ids, "char_ids": char_ids, "attention_mask": is_word.long()}


def arguments(subject: Subject, batch: dict[str, Tensor], labels: bool = False) -> dict[str, Tensor]:
    """What `forward` of the subject's model takes."""
    inputs, ids = dict(batch), batch["input_ids"]
    if subject.head == "role labeller":
        inputs["predicate_mask"] = torch.zeros_like(ids)
        inputs["predicate_mask"][:, 0] = 1
    if labels and subject.head in ("tagger", "role labeller"):
        inputs["labels"] = ids % 3
    if labels and subject.head == "classifier":
        inputs["labels"] = torch.arange(len(ids)) % 3
    return inputs


# ---- how it is called


def tensors_of(output: Any, name: str = "") -> Results:
    """All floating tensors of an output, by name."""
    if isinstance(output, Tensor):
        return {name: output} if output.is_floating_point() else {}
    pairs = output.items() if hasattr(output, "items") else enumerate(output or ())
    return {key: value for k, v in pairs for key, value in tensors_of(v, f"{name}.{k}".strip(".")).items()}


def read(subject: Subject, batch: dict[str, Tensor], mode: Any = torch.no_grad) -> Results:
    with mode():
        return tensors_of(subject.model(**arguments(subject, batch), output_hidden_states=True))


def read_in_a_thread(subject: Subject, batch: dict[str, Tensor]) -> Results:
    results: list[Any] = []

    def work() -> None:
        try:
            results.append(read(subject, batch))
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if isinstance(results[0], Exception):
        raise results[0]
    return results[0]


def check_states(subject: Subject) -> None:
    if subject.bilm.config.stacked_lstm_layers:
        raise NotApplicable("stacked LSTMs have no states")


def read_with_states(subject: Subject, batch: dict[str, Tensor]) -> Results:
    """Two batches of running text."""
    if subject.head not in ("biLM", "language model"):
        return read(subject, batch)
    check_states(subject)
    results, states = {}, None
    with torch.no_grad():
        for number in range(2):
            output = subject.model(**arguments(subject, batch), states=states, output_states=True)
            states = output.states
            results |= tensors_of(output, str(number))
    return results


def read_top_layer(subject: Subject, batch: dict[str, Tensor]) -> Results:
    with torch.no_grad():
        return tensors_of(subject.bilm(**batch, output_hidden_states=False))


def read_with_boundaries(subject: Subject, batch: dict[str, Tensor]) -> Results:
    with torch.no_grad():
        return tensors_of(subject.bilm(**batch, output_hidden_states=True, keep_boundaries=True))


def read_windows(subject: Subject, batch: dict[str, Tensor]) -> Results:
    check_states(subject)
    has_characters = subject.bilm.config.token_encoder == "characters"
    ids = batch["char_ids" if has_characters else "input_ids"]
    with torch.no_grad():
        return tensors_of(subject.bilm.read_windows(torch.stack([ids, ids.flip(1)])), "windows")


def read_with_autocast(subject: Subject, batch: dict[str, Tensor]) -> Results:
    with torch.autocast("cpu", torch.bfloat16):
        return read(subject, batch)


def loss_of(results: Results) -> Tensor:
    """Each number has another weight, so that exchanging two of them changes the loss."""
    values = [value.double().flatten() for value in results.values() if value.requires_grad]
    if not values:
        raise NotApplicable("nothing learns")
    joined = torch.cat(values)
    return (joined * torch.linspace(1, 2, len(joined), dtype=joined.dtype)).sum()


def gradients(
    subject: Subject, batch: dict[str, Tensor], layers: bool = True, autocast: bool = False
) -> Results:
    """Outputs, and the gradients of all parameters, those of the task included."""
    if subject.head == "classifier" and subject.model.training:
        raise NotApplicable("batch normalisation of a few rows turns the last bit into another gradient")
    subject.model.zero_grad()
    inputs = arguments(subject, batch, labels=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        results = tensors_of(subject.model(**inputs, output_hidden_states=layers))
    is_frozen = subject.options["cache"]  # then layers have no gradient, with or without the cache
    loss_of({k: v for k, v in results.items() if not (is_frozen and "hidden" in k)}).backward()
    return {k: v.detach() for k, v in results.items()} | gradients_of(subject.model)


def gradients_of(model: nn.Module) -> Results:
    named = [(name, parameter.grad) for name, parameter in model.named_parameters()]
    return {f"gradient of {name}": g.to_dense().clone() for name, g in named if g is not None}


def gradients_of_states(subject: Subject, batch: dict[str, Tensor]) -> Results:
    check_states(subject)
    subject.model.zero_grad()
    states = tuple(
        state.detach().requires_grad_() for state in subject.bilm.zero_states(len(batch["char_ids"]))
    )
    results = tensors_of(subject.bilm(**batch, states=states, output_states=True))
    loss_of(results).backward()
    results |= {f"gradient of state {number}": state.grad for number, state in enumerate(states)}
    return {k: v.detach() for k, v in results.items() if v is not None} | gradients_of(subject.model)


def gradients_of_vectors(subject: Subject, batch: dict[str, Tensor], letters: bool = False) -> Results:
    """With vectors in place of the ids, of words or of letters."""
    config = subject.bilm.config
    if letters and (config.token_encoder != "characters" or config.reads_word_column):
        raise NotApplicable("there are no letters, or not letters alone")
    shape = (CHARACTERS, config.char_embedding_dim) if letters else (config.projection_dim,)
    dtype = next(subject.bilm.parameters()).dtype
    vectors = torch.randn(*batch["input_ids"].shape, *shape).to(dtype).requires_grad_()
    inputs = {"inputs_embeds": vectors, "attention_mask": batch["attention_mask"]}
    if subject.head == "role labeller":
        inputs |= {"predicate_mask": arguments(subject, batch)["predicate_mask"]}
    subject.model.zero_grad()
    if subject.head == "classifier":  # which finds a pair's two texts by their ids
        results = tensors_of(subject.bilm(**inputs))
    else:
        results = tensors_of(subject.model(**inputs))
    loss_of(results).backward()
    gradient = {} if vectors.grad is None else {"gradient of vectors": vectors.grad}
    return {k: v.detach() for k, v in results.items()} | gradient | gradients_of(subject.model)


def check_no_module_is_used_twice(subject: Subject) -> None:
    """After `functional_call` such a module would keep the weights of the call."""
    if len(list(subject.bilm.named_modules(remove_duplicate=False))) > len(list(subject.bilm.modules())):
        raise NotApplicable("a module is used twice")


def functional(subject: Subject, batch: dict[str, Tensor], only: str = "") -> Results:
    """With copies of the weights, several times in turn, each time with others."""
    check_no_module_is_used_twice(subject)
    results = {}
    for number in range(3):
        weights = {k: v.detach().clone() for k, v in subject.bilm.named_parameters() if k.endswith(only)}
        for weight in weights.values():
            weight[..., -1] += number  # a change of a few numbers, in memory that is used again
        with torch.no_grad():
            output = functional_call(subject.bilm, weights, (), {**batch, "output_hidden_states": True})
        results |= tensors_of(output, str(number))
    return results


def gradient_by_torch_func(subject: Subject, batch: dict[str, Tensor]) -> Results:
    check_no_module_is_used_twice(subject)
    weights = {k: v.detach() for k, v in subject.bilm.named_parameters()}

    def loss(weights: Results) -> Tensor:
        return functional_call(subject.bilm, weights, (), batch).last_hidden_state.square().sum()

    return dict(torch.func.grad(loss)(weights))


def ensemble(subject: Subject, batch: dict[str, Tensor]) -> Results:
    """Two models at once, by `stack_module_state` and `vmap`."""
    check_no_module_is_used_twice(subject)
    other = copy.deepcopy(subject.bilm)
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(0.5)
    parameters, buffers = torch.func.stack_module_state([subject.bilm, other])  # type: ignore[arg-type]

    def one(parameters: Results, buffers: Results) -> Tensor:
        return functional_call(subject.bilm, (parameters, buffers), (), batch).last_hidden_state

    with torch.no_grad():
        return {"ensemble": torch.vmap(one)(parameters, buffers)}


Call = Callable[[Subject, dict[str, Tensor]], Results]
CALLS: dict[str, Call] = {
    "read": read,
    "read in inference mode": partial(read, mode=torch.inference_mode),
    "read with gradients on": partial(read, mode=torch.enable_grad),
    "read in a thread": read_in_a_thread,
    "read with states": read_with_states,
    "read the top layer": read_top_layer,
    "read with boundaries": read_with_boundaries,
    "read windows": read_windows,
    "read with autocast": read_with_autocast,
    "gradients": gradients,
    "gradients of the output alone": partial(gradients, layers=False),
    "gradients with autocast": partial(gradients, autocast=True),
    "gradients of states": gradients_of_states,
    "gradients of vectors": gradients_of_vectors,
    "gradients of letters": partial(gradients_of_vectors, letters=True),
    "functional_call": functional,
    "functional_call with other biases": partial(functional, only="bias"),
    "torch.func.grad": gradient_by_torch_func,
    "an ensemble by vmap": ensemble,
}


@contextlib.contextmanager
def step_length(subject: Subject) -> Any:
    """Training takes another way where steps are long, which those of a small model are not."""
    with mock.patch.object(training, "SHORT_STEP", -1 if subject.long_steps else training.SHORT_STEP):
        yield
